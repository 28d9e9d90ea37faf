//! Who could exchange a file that the promise rests on.

use std::path::Path;

use crate::check::facts::{End, Facts, Step, StepKind, Way};
use crate::check::findings::{Finding, Word};

/// The first component that somebody else than `trusted` could write or
/// exchange, and how.
///
/// A sticky folder, such as /tmp, lets everybody make things, and only their
/// owners exchange them: then it is the next component's owner that counts.
/// A link's own mode means nothing; its owner can exchange it there.
fn hole<'a>(steps: &'a [Step], trusted: &[u32]) -> Option<(&'a Path, String)> {
    steps.iter().find_map(|step| {
        let sticky = step.kind == StepKind::Folder && step.mode & 0o1000 != 0;
        let how = if !trusted.contains(&step.uid) {
            format!("belongs to user {}", step.uid)
        } else if step.kind == StepKind::Link || sticky {
            return None;
        } else if step.mode & 0o002 != 0 {
            "can be written by others".to_owned()
        } else if step.mode & 0o020 != 0 {
            "can be written by its group".to_owned()
        } else {
            return None;
        };
        Some((step.path.as_path(), how))
    })
}

/// [`hole`] as a finding; `why` says what follows from it.
pub fn writable(way: &Way, trusted: &[u32], word: Word, why: &str) -> Option<Finding> {
    let (path, how) = hole(&way.steps, trusted)?;
    let shown = path.display();
    Some(Finding::new(
        word,
        &shown,
        format!("'{shown}' {how}: {why}"),
    ))
}

/// The first component that is the account's own.
fn owned(way: &Way, account: u32, word: Word, why: &str) -> Option<Finding> {
    let own = |step: &&Step| account != 0 && step.uid == account;
    let shown = way.steps.iter().find(own)?.path.display();
    let problem = format!("'{shown}' belongs to the account itself: {why}");
    Some(Finding::new(word, shown, problem))
}

pub fn judge(facts: &Facts) -> Vec<Finding> {
    let places = &facts.places;
    let account = facts.account.as_ref().map_or(0, |account| account.uid);
    let trusted = [0, account];
    let mut findings = Vec::new();

    let why = "who can write there decides what a client may do";
    findings.extend(writable(
        &places.config,
        &trusted,
        Word::ConfigWritable,
        why,
    ));
    let why = "any program that runs as it could rewrite the configuration";
    findings.extend(owned(&places.config, account, Word::ConfigOfAccount, why));
    if let Some(signers) = &places.signers {
        let why = "who can write there decides whose signatures count";
        findings.extend(writable(signers, &trusted, Word::ConfigWritable, why));
        let why = "any program that runs as it could add a signer";
        findings.extend(owned(signers, account, Word::ConfigOfAccount, why));
    }

    for program in &facts.programs {
        let why = "who can write there decides what every key runs";
        findings.extend(writable(&program.way, &trusted, Word::ProgramWritable, why));
        let why = "any program that runs as it could exchange what every key runs";
        findings.extend(owned(&program.way, account, Word::ProgramOfAccount, why));
        if !program.same && program.way.end == End::Reached {
            let shown = program.way.path.display();
            let problem = format!("'{shown}' is not the program that answers here");
            findings.push(Finding::new(Word::ProgramDiffers, shown, problem));
        }
    }

    for hook in &places.hooks {
        let why = "who can write there decides what every swap runs";
        findings.extend(writable(hook, &trusted, Word::HookWritable, why));
        let why = "any program that runs as it could exchange what every swap runs";
        findings.extend(owned(hook, account, Word::HookOfAccount, why));
        if hook.end == End::Missing {
            let shown = hook.path.display();
            let problem = format!("'{shown}', which a swap has to run, is not there");
            findings.push(Finding::new(Word::HookMissing, shown, problem));
        }
    }

    let why = "who can write there decides what is served";
    let below = std::iter::once(&places.root).chain(&places.below);
    // Without the account it cannot be told whose it should be.
    if facts.account.is_some() {
        let holes = below.filter_map(|way| writable(way, &trusted, Word::RootWritable, why));
        findings.extend(holes);
    }

    // Whose it is cannot be told, since it is the application's; but not
    // everybody's.
    for way in &places.shared {
        let below = way.steps.get(places.root.steps.len()..).unwrap_or_default();
        let open = below.iter().find(|step| {
            let sticky = step.kind == StepKind::Folder && step.mode & 0o1000 != 0;
            step.mode & 0o002 != 0 && step.kind != StepKind::Link && !sticky
        });
        if let Some(step) = open {
            let shown = step.path.display();
            let problem = format!(
                "'{shown}' can be written by others: who can write there alters what every release shares"
            );
            findings.push(Finding::new(Word::SharedWritable, shown, problem));
        }
    }

    for source in &facts.sources {
        let why = "who can write there can add a key without command=";
        findings.extend(writable(&source.way, &[0], Word::KeysWritable, why));
    }
    let why = "who can write there decides what sshd allows";
    let ways = places.sshd_config.iter();
    findings.extend(ways.filter_map(|way| writable(way, &[0], Word::SshdConfigWritable, why)));

    // A socket's own mode says who may send, which is anybody; and its owner
    // is the daemon.
    let folders: Vec<Step> = places
        .socket
        .steps
        .iter()
        .filter(|step| step.kind != StepKind::Other)
        .cloned()
        .collect();
    let holed = folders.iter().find(|step| {
        let ours = account != 0 && step.uid == account;
        ours || hole(std::slice::from_ref(step), &[step.uid]).is_some()
    });
    if let Some(step) = holed {
        let shown = step.path.display();
        let problem = format!(
            "'{shown}' is open to others than the daemon, who could put a socket of their own at '{}'",
            places.socket.path.display()
        );
        findings.push(Finding::new(Word::AuditReplaceable, shown, problem));
    }
    once_each(findings)
}

/// One writable folder above many things is one finding of each word.
fn once_each(findings: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        let same =
            |other: &Finding| (other.word, &other.subject) == (finding.word, &finding.subject);
        if !kept.iter().any(same) {
            kept.push(finding);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(uid: u32, mode: u32, kind: StepKind) -> Step {
        Step {
            path: "/x".into(),
            uid,
            mode,
            kind,
        }
    }

    #[test]
    fn a_hole_is_an_owner_or_a_mode() {
        let holed = |uid, mode, kind| hole(&[step(uid, mode, kind)], &[0, 998]).is_some();
        assert!(!holed(0, 0o755, StepKind::Folder));
        assert!(!holed(998, 0o644, StepKind::Other));
        assert!(holed(1000, 0o755, StepKind::Folder));
        assert!(holed(0, 0o775, StepKind::Folder));
        assert!(holed(0, 0o646, StepKind::Other));
        // Sticky holds for folders; on a file it means nothing.
        assert!(!holed(0, 0o1777, StepKind::Folder));
        assert!(holed(0, 0o1666, StepKind::Other));
        // A link always has 0777, and its owner may exchange it.
        assert!(!holed(0, 0o777, StepKind::Link));
        assert!(holed(1000, 0o777, StepKind::Link));
    }
}
