//! `verify`: hashes releases again and compares them with their manifests.
//!
//! It takes no lock and writes nothing: deploys continue meanwhile, and root, who
//! may run this, leaves no file behind that the account cannot open.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::output::Output;
use deploy_shell::config::{AclPolicy, Config};
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::manifest;
use deploy_shell::names::ReleaseId;
use deploy_shell::store::history::History;
use deploy_shell::store::journal::{self, Entry};
use deploy_shell::store::layout::{JOURNAL, STATE};
use deploy_shell::store::ledger::Seen;
use deploy_shell::store::{Listing, Store};
use deploy_shell::{reply, verify};

/// Verifies the named releases, or all that exist. The output has a line for each
/// difference, and one for each release without any.
///
/// # Errors
///
/// [`Code::NoSuchRelease`] for a named release that does not exist, and the errors of
/// the configuration and the layout.
pub fn verify(config: &Path, named: &[ReleaseId]) -> Result<Output> {
    let config = Config::load(config)?;
    let store = Store::examine(&config)?;
    let Seen {
        history, listing, ..
    } = Seen::read(&store)?;
    let releases = match named {
        [] => listing.present.clone(),
        named => named.to_vec(),
    };
    for release in &releases {
        if !store.is_present(release)? {
            let problem = format!("there is no release '{release}'");
            return Err(
                Error::new(Code::NoSuchRelease, problem).remedy("'list' shows the releases")
            );
        }
    }
    let missing = match named {
        [] => missing_records(&store, &history, &listing)?,
        _ => Vec::new(),
    };
    let mut report = Output {
        sound: missing.is_empty(),
        lines: missing,
    };
    let progress = Arc::new(ProgressBar::new(&store, &releases));
    for release in &releases {
        let recorded = history.releases.get(release).and_then(|known| known.sha256);
        let outcome = release_differences(&store, release, config.archive.acl, recorded, &progress);
        // A release may be pruned while it is read; then its differences mean
        // nothing. Pruning removes the directory before the manifest, so a missing
        // manifest alone is a difference.
        let cannot = |errno| store.io("cannot look at 'releases'", errno);
        if !store.releases.exists(release).map_err(cannot)? {
            report.lines.push(format!("{release} gone"));
            continue;
        }
        let found = outcome.unwrap_or_else(|error| vec![format!("unreadable .: {error}")]);
        if found.is_empty() {
            report.lines.push(format!("{release} ok"));
        }
        report.sound &= found.is_empty();
        let lines = found.into_iter().map(|line| format!("{release} {line}"));
        report.lines.extend(lines);
    }
    progress.clear();
    Ok(report)
}

/// Returns a line for each record that is missing: for each release of the journal, and
/// the live one, without a manifest to compare it with. Without a journal, also for that,
/// and for each directory of a release without a manifest.
///
/// Otherwise someone who changes a release could hide that by removing its manifest, or
/// by removing the journal and changing the manifest.
fn missing_records(store: &Store, history: &History, listing: &Listing) -> Result<Vec<String>> {
    let mut has_records = false;
    journal::read_journal(store, |entry| {
        has_records |= matches!(entry, Entry::Record(_) | Entry::Checkpoint(_));
    })?;
    let mut known: BTreeSet<&ReleaseId> = history.releases.keys().collect();
    known.extend(&history.live);
    let mut lines = Vec::new();
    if !has_records {
        // With a journal, such a directory is no release: `adopt` leaves it alone.
        known.extend(&listing.without_manifest);
        lines.extend((!known.is_empty()).then(|| {
            format!("- missing {STATE}/{JOURNAL}: nothing says what each release must be")
        }));
    }
    for release in known {
        if !store.is_present(release)? {
            lines.push(format!(
                "{release} unreadable .: no directory with a manifest beside it"
            ));
        }
    }
    Ok(lines)
}

fn release_differences(
    store: &Store,
    release: &ReleaseId,
    acl: AclPolicy,
    recorded: Option<deploy_shell::names::Sha256Digest>,
    progress: &Arc<ProgressBar>,
) -> Result<Vec<String>> {
    let (identity, _) = store.manifest(release)?;
    let mut lines = Vec::new();
    if recorded.is_some_and(|recorded| recorded != identity.sha256) {
        lines.push(
            "manifest .: it is not the manifest of the payload received under this id".to_owned(),
        );
    }
    let bar = Arc::clone(progress);
    let read = move |bytes| bar.add(bytes);
    let found = verify::verify_release(store, release, acl, verify::threads(), read)?;
    lines.extend(found.iter().map(ToString::to_string));
    Ok(lines)
}

/// The progress bar on a terminal.
struct ProgressBar {
    total: u64,
    done: AtomicU64,
    /// When the bar was last drawn; `None` without a terminal.
    drawn: Option<Mutex<Option<Instant>>>,
}

/// The minimum time between two drawings of the bar.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// The characters of the bar.
const WIDTH: u64 = 40;

impl ProgressBar {
    fn new(store: &Store, releases: &[ReleaseId]) -> ProgressBar {
        let drawn = reply::stderr_is_terminal().then(|| Mutex::new(None));
        let bytes = |release: &ReleaseId| {
            let (_, mut entries) = store.manifest(release).ok()?;
            manifest::read_sums(&mut entries).ok()
        };
        // This reads each manifest once more, so only for a terminal.
        let total = match drawn {
            Some(_) => releases
                .iter()
                .filter_map(bytes)
                .fold(0, |total: u64, sums| total.saturating_add(sums.bytes)),
            None => 0,
        };
        ProgressBar {
            total,
            done: AtomicU64::new(0),
            drawn,
        }
    }

    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // While another thread draws, this one need not.
        if let Some(drawn) = &self.drawn
            && let Ok(mut last) = drawn.try_lock()
            && last.is_none_or(|last| last.elapsed() >= REDRAW_INTERVAL)
        {
            *last = Some(Instant::now());
            reply::replace_line(&bar(done, self.total));
        }
    }

    fn clear(&self) {
        if self.drawn.is_some() {
            reply::replace_line("");
        }
    }
}

fn bar(done: u64, total: u64) -> String {
    let done = done.min(total);
    let part = |of: u64| (u128::from(done) * u128::from(of) / u128::from(total.max(1))) as usize;
    let filled = part(WIDTH);
    format!(
        "[{}{}] {:3} % of {} MiB",
        "#".repeat(filled),
        " ".repeat(WIDTH as usize - filled),
        part(100),
        total >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn the_bar_shows_the_share_that_is_done() {
        assert!(bar(0, 0).starts_with("[    "));
        assert!(bar(5 << 20, 10 << 20).contains("]  50 % of 10 MiB"));
        assert!(bar(u64::MAX, 10).contains("####] 100 %"));
        assert_eq!(bar(3, 10).len(), bar(10, 10).len());
    }
}
