//! Findings about what is live, about `releases/` and about the journal.

use super::remedies::{run, run_script};
use crate::check::facts::{Current, Facts, JournalFault, Releases};
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::error::Error;
use deploy_shell::names::ReleaseId;
use deploy_shell::shell_word::Word;
use deploy_shell::store::AS_FOR_A_FILE;
use deploy_shell::store::layout::{JOURNAL, RELEASES, STATE};

/// How many names a finding lists.
const LISTED: usize = 5;

pub fn live_findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let probe = &facts.probe;
    if let Some(releases) = &probe.releases {
        findings.extend(current_finding(facts, releases));
        findings.extend(entries_findings(facts, releases));
        if releases.journal_missing {
            let shown = facts.config.root.join(STATE).join(JOURNAL);
            let shown = shown.display();
            let text = format!(
                "'{shown}' is missing, though there are releases: rollback does not know which \
                 of them were live"
            );
            findings.push(Finding::new(FindingCode::JournalMissing, shown, text));
        }
    }
    findings.extend(
        probe
            .journal
            .as_ref()
            .and_then(|fault| journal_finding(facts, fault)),
    );
    findings.extend(probe.used_ids.as_ref().map(|error| damaged(facts, error)));
    if let Some(Err(error)) = &probe.room {
        let (root, word) = (facts.config.root.display(), Word::new(&facts.config.root));
        let text = format!("every receive is refused: {error}");
        let remedy = format!("df -h {word}; df -i {word}");
        let code = FindingCode::BelowReserve;
        findings.push(Finding::with_remedy(code, root, text, &remedy));
    }
    findings
}

/// Returns the command that takes over what another tool made.
fn adopt(facts: &Facts) -> String {
    format!("deploy-shell-admin adopt {}", facts.config.site_option())
}

/// No remedy takes away what the web server serves.
fn current_finding(facts: &Facts, releases: &Releases) -> Option<Finding> {
    let path = facts.config.root.join(facts.config.link.as_str());
    let shown = path.display();
    let refused = "every request is refused";
    let (code, text, remedy) = match &releases.current {
        Current::Nothing => return None,
        Current::Release {
            release,
            has_directory: false,
            ..
        } => {
            let text = format!("'{shown}' names '{release}', which is missing: nothing is served");
            let remedy = match &releases.fallback {
                Some(other) => format!("make another release live: swap {other}"),
                None => "receive a release and swap to it".to_owned(),
            };
            (FindingCode::LiveMissing, text, remedy)
        }
        Current::Release {
            release,
            has_manifest: false,
            ..
        } => {
            let text = format!(
                "'{release}' is live and has no manifest: verify cannot compare it, and rollback \
                 never goes back to it"
            );
            let remedy = if releases.had_swaps {
                format!(
                    "receive its content again under another id, swap to that, and then move \
                     '{release}' out of '{RELEASES}', {AS_FOR_A_FILE}"
                )
            } else {
                format!("take over what another tool made: {}", adopt(facts))
            };
            (FindingCode::LiveWithoutManifest, text, remedy)
        }
        Current::Release { .. } => return None,
        Current::Directory => {
            let text = format!("'{shown}' is a directory, and not a symlink: {refused}");
            let remedy = take_over(facts, releases, None);
            (FindingCode::CurrentNotSymlink, text, remedy)
        }
        Current::OtherFile => {
            let text = format!("'{shown}' is a file, and not a symlink: {refused}");
            let (word, old) = (Word::new(&path), Word::with_suffix(&path, ".old"));
            let command = run(facts, &format!("mv -nT {word} {old}"));
            let remedy = format!("move it away, then swap: {command}");
            (FindingCode::CurrentNotSymlink, text, remedy)
        }
        Current::Elsewhere {
            target,
            leads_somewhere,
            leads_to_release,
        } => {
            let text = format!(
                "'{shown}' is a symlink to '{target}', and not to '{RELEASES}/RELEASE': {refused}"
            );
            let remedy = match leads_to_release {
                Some((id, is_received)) => take_over(facts, releases, is_received.then_some(id)),
                None if *leads_somewhere => {
                    "docs/adopting.md has the way to a new root; the site is served all the time"
                        .to_owned()
                }
                None => {
                    let remove = run(facts, &format!("rm {}", Word::new(&path)));
                    format!("it serves nothing; remove it, then swap: {remove}")
                }
            };
            (FindingCode::CurrentElsewhere, text, remedy)
        }
    };
    Some(Finding::with_remedy(code, shown, text, &remedy))
}

/// Returns how to make `current` our symlink, while the site is served all the time: to
/// `received`, which it names in another spelling, by `adopt`, or to the fallback.
///
/// No remedy is `mv --exchange`: Debian 12 has an older mv(1).
fn take_over(facts: &Facts, releases: &Releases, received: Option<&ReleaseId>) -> String {
    let path = facts.config.root.join(facts.config.link.as_str());
    let (word, new) = (Word::new(&path), Word::with_suffix(&path, ".new"));
    let in_one_step = |id: &ReleaseId| {
        let target = Word::new(format!("{RELEASES}/{id}"));
        let exchange = format!("ln -sT {target} {new} && mv -T {new} {word}");
        format!("in one step: {}", run_script(facts, &exchange))
    };
    let is_directory = matches!(releases.current, Current::Directory);
    match (received, &releases.fallback) {
        (Some(id), _) => in_one_step(id),
        (None, Some(id)) if releases.had_swaps && is_directory => format!(
            "make it a symlink to '{id}' while the site is served, and keep the directory: {} --yes",
            adopt(facts)
        ),
        (None, Some(id)) if releases.had_swaps => {
            format!("point it at a received release {}", in_one_step(id))
        }
        _ => {
            let adopt = adopt(facts);
            format!("'{adopt}' prints how it takes the site over, while it is served")
        }
    }
}

fn entries_findings(facts: &Facts, releases: &Releases) -> Vec<Finding> {
    let directory = facts.config.root.join(RELEASES);
    let shown = directory.display();
    let mut findings = Vec::new();
    if !releases.not_received.is_empty() {
        let names = listed(&releases.not_received);
        let text = format!(
            "'{shown}' contains {names}, which no request has received: nothing makes them live \
             or removes them"
        );
        let remedy = if releases.had_swaps {
            format!("move them out of '{shown}', {AS_FOR_A_FILE}")
        } else {
            format!(
                "move them out of '{shown}', {AS_FOR_A_FILE}; or, if another tool made them, \
                 take them over: {}",
                adopt(facts)
            )
        };
        let code = FindingCode::NotReceived;
        findings.push(Finding::with_remedy(code, &shown, text, &remedy));
    }
    if !releases.without_manifest.is_empty() {
        let names: Vec<String> = releases
            .without_manifest
            .iter()
            .map(ReleaseId::to_string)
            .collect();
        let names = listed(&names);
        let text = format!("the manifest of {names} is missing: swap and rollback do not find it");
        findings.push(Finding::new(FindingCode::ManifestMissing, &shown, text));
    }
    findings.extend(releases.other_links.iter().take(LISTED).map(|(name, release)| {
        let path = facts.config.root.join(name);
        let shown = path.display();
        let text = format!(
            "'{shown}' leads to '{release}', and a web server or another site may serve that: \
             no request removes '{release}'"
        );
        let remove = run(facts, &format!("rm {}", Word::new(&path)));
        Finding::with_remedy(FindingCode::OtherSymlink, shown, text, &remove)
    }));
    findings
}

/// Returns the first names in quotes, and the number of the others.
fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names
        .iter()
        .take(LISTED)
        .map(|name| format!("'{name}'"))
        .collect();
    let quoted = quoted.join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => quoted,
        more => format!("{quoted} and {more} more"),
    }
}

/// A journal that the account may not open is a finding about the state directory.
fn journal_finding(facts: &Facts, fault: &JournalFault) -> Option<Finding> {
    let journal = facts.config.root.join(STATE).join(JOURNAL);
    if (facts.probe.unusable.iter()).any(|entry| entry.path == journal) {
        return None;
    }
    let error = &fault.error;
    if !fault.is_newer {
        return Some(damaged(facts, error));
    }
    let what = concat!(
        "every request is refused by this version, ",
        env!("CARGO_PKG_VERSION")
    );
    let otherwise = "install the version that wrote it, or a later one, and keep it";
    let (code, shown) = (FindingCode::JournalNewer, journal.display());
    Some(Finding::of_error(code, shown, what, error, otherwise))
}

fn damaged(facts: &Facts, error: &Error) -> Finding {
    let what = "requests are refused";
    let state = facts.config.root.join(STATE);
    let otherwise = "restore it from a backup, as Restore in docs/maintenance.md says";
    let code = FindingCode::JournalDamaged;
    Finding::of_error(code, state.display(), what, error, otherwise)
}
