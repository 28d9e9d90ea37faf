//! Findings about what is live, about `releases/` and about the journal.

use crate::check::facts::{Current, Facts, JournalFault, Releases};
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::error::Error;
use deploy_shell::names::ReleaseId;
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
        let root = facts.config.root.display();
        let text = format!("every receive is refused: {error}");
        let remedy = format!("df -h '{root}'; df -i '{root}'");
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
    let take_over = format!(
        "'{}' prints how it takes the site over, without a moment without one",
        adopt(facts)
    );
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
            (FindingCode::LiveWithoutManifest, text, adopt(facts))
        }
        Current::Release { .. } => return None,
        Current::Directory => {
            let text = format!("'{shown}' is a directory, and not a symlink: {refused}");
            (FindingCode::CurrentNotSymlink, text, take_over)
        }
        Current::OtherFile => {
            let text = format!("'{shown}' is a file, and not a symlink: {refused}");
            let remedy = format!("move it away, then swap: mv -nT '{shown}' '{shown}.old'");
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
            let remedy = if *leads_to_release {
                take_over
            } else if *leads_somewhere {
                "docs/adopting.md has the way to a new root, without a moment without a site"
                    .to_owned()
            } else {
                format!("it serves nothing; remove it, then swap: rm '{shown}'")
            };
            (FindingCode::CurrentElsewhere, text, remedy)
        }
    };
    Some(Finding::with_remedy(code, shown, text, &remedy))
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
        let remedy = adopt(facts);
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
    let otherwise = "restore it from a backup, as Restore in docs/operating.md says";
    let code = FindingCode::JournalDamaged;
    Finding::of_error(code, state.display(), what, error, otherwise)
}
