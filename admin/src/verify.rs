//! `verify`: releases re-hashed against their manifests, for the operator.
//!
//! Nothing is locked and nothing is written: a deploy goes on meanwhile, and
//! root, who may run this, leaves no file behind that the account could not
//! open.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::manifest;
use deploy_shell::names::ReleaseId;
use deploy_shell::store::history::History;
use deploy_shell::store::{Store, ledger};
use deploy_shell::{reply, verify};

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// One for each difference, and one for each release that has none.
    pub lines: Vec<String>,
    pub sound: bool,
}

/// Verifies the releases named, or all that are there.
///
/// Errors: [`Code::NoSuchRelease`] for one named that is not there, the
/// configuration's and the layout's own.
pub fn verify(config: &Path, named: &[ReleaseId]) -> Result<Report> {
    let config = Config::load(config)?;
    let store = Store::examine(&config)?;
    let (history, _) = ledger::read_unlocked(&store)?;
    let releases = match named {
        [] => store.present()?,
        named => named.to_vec(),
    };
    for release in &releases {
        if !store.is_present(release)? {
            let problem = format!("there is no release '{release}'");
            return Err(
                Error::new(Code::NoSuchRelease, problem).remedy("'list' shows what there is")
            );
        }
    }
    let lost = match named {
        [] => unaccounted(&store, &history)?,
        _ => Vec::new(),
    };
    let mut report = Report {
        sound: lost.is_empty(),
        lines: lost,
    };
    let progress = Progress::new(&store, &releases);
    for release in &releases {
        let recorded = history.releases.get(release).and_then(|known| known.sha256);
        let outcome = one(&store, release, recorded, &progress);
        // Pruned while it was read: what was seen of that says nothing. Its
        // folder goes first, so a manifest that is gone alone is a difference.
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
    progress.end();
    Ok(report)
}

/// The releases that the journal knows, or that are live, and that cannot be
/// held against anything: without these lines, to remove a manifest would be
/// the way to hide what was done to its release.
fn unaccounted(store: &Store, history: &History) -> Result<Vec<String>> {
    let mut known: BTreeSet<&ReleaseId> = history.releases.keys().collect();
    known.extend(&history.live);
    let mut lines = Vec::new();
    for release in known {
        if !store.is_present(release)? {
            let what = "unreadable .: no folder with a manifest beside it";
            lines.push(format!("{release} {what}"));
        }
    }
    Ok(lines)
}

fn one(
    store: &Store,
    release: &ReleaseId,
    recorded: Option<deploy_shell::names::Sha256Digest>,
    progress: &Progress,
) -> Result<Vec<String>> {
    let (identity, _) = store.manifest(release)?;
    let mut lines = Vec::new();
    if recorded.is_some_and(|recorded| recorded != identity.sha256) {
        lines.push("manifest .: it is not of what was received under this id".to_owned());
    }
    let found = verify::verify_release(store, release, verify::threads(), &|bytes| {
        progress.read(bytes);
    })?;
    lines.extend(found.iter().map(ToString::to_string));
    Ok(lines)
}

/// How far it has come, on a terminal.
struct Progress {
    total: u64,
    done: AtomicU64,
    /// When it was last drawn; none where nobody looks.
    shown: Option<Mutex<Option<Instant>>>,
}

/// Between two pictures of the bar.
const PAUSE: Duration = Duration::from_millis(100);

/// Characters of the bar.
const WIDTH: u64 = 40;

impl Progress {
    fn new(store: &Store, releases: &[ReleaseId]) -> Progress {
        let shown = reply::stderr_is_terminal().then(|| Mutex::new(None));
        let bytes = |release: &ReleaseId| {
            let (_, mut entries) = store.manifest(release).ok()?;
            manifest::read_sums(&mut entries).ok()
        };
        // Manifests are read twice for it, so only where somebody looks.
        let total = match shown {
            Some(_) => releases
                .iter()
                .filter_map(bytes)
                .fold(0, |total: u64, sums| total.saturating_add(sums.bytes)),
            None => 0,
        };
        Progress {
            total,
            done: AtomicU64::new(0),
            shown,
        }
    }

    fn read(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Whoever comes while another draws has nothing newer to show.
        if let Some(shown) = &self.shown
            && let Ok(mut last) = shown.try_lock()
            && last.is_none_or(|last| last.elapsed() >= PAUSE)
        {
            *last = Some(Instant::now());
            reply::replace_line(&bar(done, self.total));
        }
    }

    fn end(&self) {
        if self.shown.is_some() {
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
    fn the_bar_ends_where_it_should() {
        assert!(bar(0, 0).starts_with("[    "));
        assert!(bar(5 << 20, 10 << 20).contains("]  50 % of 10 MiB"));
        assert!(bar(u64::MAX, 10).contains("####] 100 %"));
        assert_eq!(bar(3, 10).len(), bar(10, 10).len());
    }
}
