//! Findings about files that another user could write or replace.

use super::remedies::{give_to_root, give_to_site, run};
use crate::check::facts::{ComponentKind, Facts, PathComponent, Resolution, ResolvedPath};
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::shell_word::Word;
use deploy_shell::store::AS_FOR_A_FILE;

/// Returns the first component that a user other than `trusted` can write or
/// replace, and how.
///
/// In a sticky directory, such as /tmp, every user can create files, but only
/// their owners can replace them. Then the owner of the next component decides.
/// The mode of a symlink means nothing; its owner can replace it there.
pub fn first_writable<'a>(
    components: &'a [PathComponent],
    trusted: &[u32],
) -> Option<(&'a PathComponent, String)> {
    components.iter().find_map(|component| {
        let symlink = component.kind == ComponentKind::Symlink;
        let how = if !trusted.contains(&component.uid) {
            format!("belongs to user {}", component.uid)
        } else if symlink || component.is_sticky_directory() {
            return None;
        } else if component.mode & 0o002 != 0 {
            "is writable for all users".to_owned()
        } else if component.mode & 0o020 != 0 {
            "is writable for its group".to_owned()
        } else {
            return None;
        };
        Some((component, how))
    })
}

/// Makes a finding of the first component that a user other than `trusted` can
/// write or replace, where only root should. `why` names the consequence.
pub fn writable(
    facts: &Facts,
    resolved: &ResolvedPath,
    trusted: &[u32],
    code: FindingCode,
    why: &str,
) -> Option<Finding> {
    let (component, how) = first_writable(&resolved.components, trusted)?;
    let shown = component.path.display();
    let text = format!("'{shown}' {how}: {why}");
    let remedy = give_first_to_root(facts, resolved, component);
    Some(Finding::with_remedy(code, shown, text, &remedy))
}

/// Returns how to keep everybody but root from writing `component`. Another user can exchange what
/// is below the first component that this user can write, so that one comes first.
fn give_first_to_root(facts: &Facts, resolved: &ResolvedPath, component: &PathComponent) -> String {
    match first_writable(&resolved.components, &[0]) {
        Some((first, _)) if first.path != component.path => {
            let remedy = give_to_root(facts, first, &resolved.path);
            format!("first, the directory above it: {remedy}")
        }
        _ => give_to_root(facts, component, &resolved.path),
    }
}

/// Makes a finding of the first component that belongs to the account.
fn owned(facts: &Facts, resolved: &ResolvedPath, code: FindingCode, why: &str) -> Option<Finding> {
    let account = facts.account.as_ref().map_or(0, |account| account.uid);
    let own = |component: &&PathComponent| account != 0 && component.uid == account;
    let component = resolved.components.iter().find(own)?;
    let shown = component.path.display();
    let text = format!("'{shown}' belongs to the account itself: {why}");
    let remedy = give_first_to_root(facts, resolved, component);
    Some(Finding::with_remedy(code, shown, text, &remedy))
}

/// The two codes for a file that only root should write, and the decision that
/// its writer makes.
struct Protected {
    writable: FindingCode,
    owned: FindingCode,
    decides: &'static str,
}

const CONFIG: Protected = Protected {
    writable: FindingCode::ConfigWritable,
    owned: FindingCode::ConfigOfAccount,
    decides: "what a client may do",
};
const SIGNERS: Protected = Protected {
    writable: FindingCode::ConfigWritable,
    owned: FindingCode::ConfigOfAccount,
    decides: "whose signatures count",
};
const PROGRAM: Protected = Protected {
    writable: FindingCode::ProgramWritable,
    owned: FindingCode::ProgramOfAccount,
    decides: "what every key runs",
};
const HOOK: Protected = Protected {
    writable: FindingCode::HookWritable,
    owned: FindingCode::HookOfAccount,
    decides: "what every swap runs",
};

impl Protected {
    fn findings(&self, facts: &Facts, resolved: &ResolvedPath) -> impl Iterator<Item = Finding> {
        let account = facts.account.as_ref().map_or(0, |account| account.uid);
        let decides = self.decides;
        let why = format!("a user who can write there decides {decides}");
        let writable = writable(facts, resolved, &[0, account], self.writable, &why);
        let why = format!("every program that runs as the account can decide {decides}");
        let owned = owned(facts, resolved, self.owned, &why);
        writable.into_iter().chain(owned)
    }
}

pub fn path_findings(facts: &Facts) -> Vec<Finding> {
    let paths = &facts.paths;
    let account = facts.account.as_ref().map_or(0, |account| account.uid);
    let mut findings: Vec<Finding> = CONFIG.findings(facts, &paths.config).collect();
    let signers = paths.signers.iter();
    findings.extend(signers.flat_map(|signers| SIGNERS.findings(facts, signers)));

    for program in &facts.programs {
        let location = &program.location;
        findings.extend(PROGRAM.findings(facts, location));
        let shown = location.path.display();
        if location.resolution == Resolution::Missing {
            let text = format!("'{shown}', which check, the account or a key runs, does not exist");
            findings.push(Finding::new(FindingCode::ProgramMissing, shown, text));
        } else if program.differs && location.resolution == Resolution::Complete {
            let text = format!("'{shown}' differs from the deploy-shell beside deploy-shell-admin");
            findings.push(Finding::new(FindingCode::ProgramDiffers, shown, text));
        }
    }

    for hook in &paths.hooks {
        findings.extend(HOOK.findings(facts, hook));
        if hook.resolution == Resolution::Missing {
            let shown = hook.path.display();
            let text = format!("'{shown}', which every swap runs, does not exist");
            findings.push(Finding::new(FindingCode::HookMissing, shown, text));
        }
    }

    findings.extend(site_findings(facts));
    findings.extend(
        paths
            .shared
            .iter()
            .filter_map(|path| shared_finding(facts, path)),
    );

    let why = "a user who can write there can add a key without command=";
    let locations = facts.keys_files.iter().map(|file| &file.location);
    let code = FindingCode::KeysWritable;
    findings.extend(locations.filter_map(|file| writable(facts, file, &[0], code, why)));
    let why = "a user who can write there decides what sshd allows";
    let files = paths.sshd_config.iter();
    let code = FindingCode::SshdConfigWritable;
    findings.extend(files.filter_map(|file| writable(facts, file, &[0], code, why)));
    findings.extend(socket_finding(facts, account));
    once_each(findings)
}

fn site_findings(facts: &Facts) -> Vec<Finding> {
    // Without the account it is unknown who should own them.
    let Some(account) = &facts.account else {
        return Vec::new();
    };
    let why = "a user who can write there decides what is served";
    let directories = std::iter::once(&facts.paths.root).chain(&facts.paths.directories);
    let found = directories.filter_map(|path| {
        let (component, how) = first_writable(&path.components, &[0, account.uid])?;
        let shown = component.path.display();
        let text = format!("'{shown}' {how}: {why}");
        let remedy = give_to_site(facts, path, component);
        let code = FindingCode::RootWritable;
        Some(Finding::with_remedy(code, shown, text, &remedy))
    });
    found.collect()
}

/// Shared paths belong to the application, so any user may own them; but not every
/// user may write them.
fn shared_finding(facts: &Facts, shared: &ResolvedPath) -> Option<Finding> {
    let above = facts.paths.root.components.len();
    let below = shared.components.get(above..).unwrap_or_default();
    let open = below.iter().find(|component| {
        component.mode & 0o002 != 0
            && component.kind != ComponentKind::Symlink
            && !component.is_sticky_directory()
    })?;
    let shown = open.path.display();
    let text =
        format!("'{shown}' is writable for all users: each can change what every release shares");
    let chmod = format!("chmod o-w {}", Word::new(&open.path));
    let remedy = match &facts.account {
        Some(account) if account.uid == open.uid => run(facts, &chmod),
        // The account may exchange it, so root runs no chmod(1) there.
        _ if open.uid == 0 => {
            format!("move it away and make it again, {AS_FOR_A_FILE}")
        }
        _ => format!(
            "let its owner, user {}, take that right from others",
            open.uid
        ),
    };
    let code = FindingCode::SharedWritable;
    Some(Finding::with_remedy(code, shown, text, &remedy))
}

/// Only the directories and symlinks on the way to the audit socket count: the mode
/// of the socket itself says who may send, which is every user, and its owner is
/// the daemon.
fn socket_finding(facts: &Facts, account: u32) -> Option<Finding> {
    let socket = &facts.paths.socket;
    let mut directories = socket
        .components
        .iter()
        .filter(|component| component.kind != ComponentKind::Other);
    let open = directories.find(|component| {
        let owned = account != 0 && component.uid == account;
        owned || first_writable(std::slice::from_ref(component), &[component.uid]).is_some()
    })?;
    let shown = open.path.display();
    let text = format!(
        "users other than the syslog daemon can write '{shown}', and can replace '{}' with a \
         socket of their own",
        socket.path.display()
    );
    let remedy = give_to_root(facts, open, &socket.path);
    let code = FindingCode::AuditReplaceable;
    Some(Finding::with_remedy(code, shown, text, &remedy))
}

/// Keeps one finding of each code and remedy: a directory may be above several files.
fn once_each(findings: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = |other: &Finding| (other.code, &other.remedy) == (finding.code, &finding.remedy);
        if !kept.iter().any(same) {
            kept.push(finding);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_or_a_mode_makes_a_component_writable() {
        use ComponentKind::{Directory, Other, Symlink};
        let writable = |uid, mode, kind| {
            let component = PathComponent {
                path: "/x".into(),
                uid,
                mode,
                kind,
            };
            first_writable(&[component], &[0, 998]).is_some()
        };
        assert!(!writable(0, 0o755, Directory));
        assert!(!writable(998, 0o644, Other));
        assert!(writable(1000, 0o755, Directory));
        assert!(writable(0, 0o775, Directory));
        assert!(writable(0, 0o646, Other));
        // The sticky bit protects directories; on a file it means nothing.
        assert!(!writable(0, 0o1777, Directory));
        assert!(writable(0, 0o1666, Other));
        // A symlink always has 0777, and its owner can replace it.
        assert!(!writable(0, 0o777, Symlink));
        assert!(writable(1000, 0o777, Symlink));
    }
}
