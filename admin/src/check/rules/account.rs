//! Findings about the account itself.

use std::path::Path;

use super::login::usual_home;
use super::paths::writable;
use super::remedies::{run, within};
use crate::check::facts::{
    Account, Facts, HomeDirectory, PasswdEntry, PasswordState, SshdSettings, is_deploy_shell,
};
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::shell_word::Word;

/// Groups whose members can become root, or can write what other users run, on
/// some system.
const POWERFUL: [&str; 13] = [
    "root", "sudo", "wheel", "admin", "adm", "staff", "docker", "lxd", "incus", "libvirt", "disk",
    "shadow", "kmem",
];

/// A remedy about root itself, such as another login shell, would damage the machine for
/// the sake of a site. So this is the only finding about the account.
pub fn site_of_root(facts: &Facts) -> Finding {
    let text = "the site belongs to root: an escape from deploy-shell would give root's rights";
    let (site, root) = (facts.config.site_option(), Word::new(&facts.config.root));
    let remedy = format!("deploy-shell-admin init {site} --root {root} --owner ACCOUNT");
    let root = facts.config.root.display();
    Finding::with_remedy(FindingCode::AccountIsRoot, root, text, &remedy)
}

pub fn account_findings(facts: &Facts, account: &Account) -> Vec<Finding> {
    let name = account.name();
    let Some(entry) = &account.passwd else {
        let uid = account.uid;
        let text = format!("the site belongs to uid {uid}, which has no passwd entry");
        return vec![Finding::new(FindingCode::AccountUnknown, uid, text)];
    };
    let mut findings = Vec::new();
    for alias in &account.uid_aliases {
        let text = format!("'{alias}' has the same uid as '{name}', and so the same rights");
        findings.push(Finding::new(FindingCode::SharedUid, alias, text));
    }
    if !is_deploy_shell(&entry.shell) {
        let shell = if entry.shell.as_os_str().is_empty() {
            "/bin/sh".to_owned()
        } else {
            entry.shell.display().to_string()
        };
        let runs_nothing = ["nologin", "false", "true"]
            .iter()
            .any(|it| entry.shell.ends_with(it));
        let text = if runs_nothing {
            format!(
                "the login shell of '{name}' is '{shell}', which runs no forced command: every request fails"
            )
        } else {
            format!(
                "the login shell of '{name}' is '{shell}': it interprets each forced command, \
                 and someone with a key without command= can use it"
            )
        };
        let remedy = format!("{} {}", Word::new(&facts.program), Word::new(&name));
        findings.push(Finding::with_remedy(
            FindingCode::LoginShell,
            &name,
            text,
            &remedy,
        ));
    }
    match account.password {
        Some(PasswordState::Set) => {
            let text = format!("'{name}' has a password, which someone can guess or steal");
            findings.push(Finding::of_word(FindingCode::PasswordSet, &name, text));
        }
        Some(PasswordState::Empty) => {
            let text = format!("'{name}' has an empty password");
            findings.push(Finding::of_word(FindingCode::PasswordEmpty, &name, text));
        }
        Some(PasswordState::Locked | PasswordState::AccountLocked) | None => {}
    }
    let powerful = |group: &&String| POWERFUL.contains(&group.as_str());
    for group in account.groups.iter().filter(powerful) {
        let text = format!("'{name}' is in the group '{group}', which has many rights of root");
        let remedy = format!("{} {}", Word::new(&name), Word::new(group));
        let code = FindingCode::PowerfulGroup;
        findings.push(Finding::with_remedy(code, &name, text, &remedy));
    }
    findings.extend(home_findings(facts, entry, &account.home));
    findings
}

fn home_findings(facts: &Facts, entry: &PasswdEntry, home: &HomeDirectory) -> Vec<Finding> {
    let mut findings = Vec::new();
    let why = "a user who can write there decides what sshd reads in ~/.ssh";
    let location = home.location.as_ref().filter(|_| !home.is_missing);
    let root = &facts.config.root;
    // root as the owner of the site's root would make every swap fail.
    let in_site = entry.home.starts_with(root);
    findings.extend(location.and_then(|home| {
        let mut finding = writable(facts, home, &[0], FindingCode::HomeWritable, why)?;
        if in_site {
            finding.remedy = format!(
                "give the account a home directory outside of the site: {}",
                usual_home(&entry.name)
            );
        }
        Some(finding)
    }));
    // ~/.ssh is writable whenever the home directory is: one finding is enough.
    if findings.is_empty() {
        let why = "a user who can write there can add keys, variables and commands";
        let ssh = home.ssh.as_ref();
        findings.extend(
            ssh.and_then(|ssh| writable(facts, ssh, &[0], FindingCode::SshDirectoryWritable, why)),
        );
    }
    let directory = entry.home.join(".ssh");
    let remove = |code, file: &Path, text: String| {
        let command = format!("rm {}", Word::new(file));
        // The account may make `.ssh` a symlink to another directory.
        let command = match &home.ssh {
            Some(ssh) => within(facts, ssh, command),
            None => run(facts, &command),
        };
        Finding::with_remedy(code, file.display(), text, &command)
    };
    if home.has_rc {
        let file = directory.join("rc");
        let text = format!("sshd runs '{}' before the command of a key", file.display());
        findings.push(remove(FindingCode::SshRc, &file, text));
    }
    if let Some(file) = &facts.system_rc {
        let shown = file.display();
        let text = format!("sshd runs '{shown}' with sh before the command of a key");
        findings.push(Finding::of_word(FindingCode::SystemRc, file, text));
    }
    if home.has_environment {
        let file = directory.join("environment");
        let shown = file.display();
        let text = format!("'{shown}' sets variables where PermitUserEnvironment is on");
        findings.push(remove(FindingCode::SshEnvironment, &file, text));
    }
    // The rules for keys judge the files that sshd reads.
    let stray = home.keys_files.iter();
    for path in stray.filter(|path| !is_read_by_sshd(path, facts.sshd.as_ref())) {
        let file = path.display();
        let text =
            format!("'{file}' has keys that sshd does not read, but would with another setting");
        findings.push(remove(FindingCode::StrayKeys, path, text));
    }
    findings
}

/// Returns whether sshd reads keys from a file of `~/.ssh`.
fn is_read_by_sshd(path: &Path, sshd: Option<&SshdSettings>) -> bool {
    let patterns = sshd.and_then(|settings| settings.get("authorizedkeysfile"));
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let relative = format!(".ssh/{name}");
    patterns.is_none_or(|patterns| {
        patterns
            .split_ascii_whitespace()
            .any(|pattern| pattern == relative || pattern.ends_with(&format!("/{relative}")))
    })
}
