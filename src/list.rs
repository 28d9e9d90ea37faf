//! `list`: the releases, as a table for people and as JSON for scripts, and the files of
//! one release.

use std::fmt::{Display, Write};

use serde::Serialize;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::names::{CommitId, ReleaseId, Sha256Digest, SiteName};
use crate::policy::Granted;
use crate::request::List;
use crate::store::Store;
use crate::store::history::{Release, State};
use crate::store::ledger::{self, Seen};
use crate::success::{Listed, Success};

/// The document of `list --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    site: &'a SiteName,
    /// Grows with every change of the site.
    generation: u64,
    /// The live release. None also if the symlink names a release that does not exist.
    current: Option<&'a ReleaseId>,
    /// The release that `rollback` without a release would make live.
    previous: Option<&'a ReleaseId>,
    releases: Vec<Row>,
    /// Pruned releases whose removal is not complete. Absent if there is none.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    removing: &'a [ReleaseId],
}

/// One release. Times are RFC 3339, UTC.
#[derive(Debug, Serialize)]
struct Row {
    release: ReleaseId,
    state: State,
    /// Whether it passed its post-swap checks since it last became live.
    proved: Option<bool>,
    received: Option<jiff::Timestamp>,
    /// For the live one: since when it is live.
    last_live: Option<jiff::Timestamp>,
    files: Option<u64>,
    bytes: Option<u64>,
    sha256: Option<Sha256Digest>,
    tree: Option<Sha256Digest>,
    commit: Option<CommitId>,
}

/// Lists the releases. It changes nothing and takes no lock, so it answers while a
/// swap runs.
///
/// # Errors
///
/// As [`Seen::read`], and for the files of a release as [`Store::tree_list`].
pub fn list(config: &Config, store: &Store, request: &Granted<List>) -> Result<Success> {
    let is_json = match &**request {
        List::Files(release) => {
            let deadline = Deadline::after(config.limits.total_timeout);
            return Ok(Success::TreeList(store.tree_list(release, deadline)?));
        }
        List::Json => true,
        List::Table => false,
    };
    let seen = Seen::read(store)?;
    // After `releases/`: see `recorded_as_removed`.
    let removing = store.removals_pending()?;
    let history = &seen.history;
    let floor = config.floor.as_ref();
    let previous = history.rollback_target(&seen.listing.present, floor);
    let is_live = |id: &ReleaseId| history.live.as_ref() == Some(id);
    let live = history.live.as_ref();
    let live_exists = live.is_some_and(|live| seen.listing.has_directory(live));
    let mut found: Vec<Found<'_>> = Vec::new();
    let mut find = |id, known, state| found.push(Found { id, known, state });
    for id in &seen.listing.present {
        let known = history.releases.get(id);
        find(id, known, history.state_of(id, known, previous));
    }
    for id in &seen.listing.without_manifest {
        let known = history.releases.get(id);
        let state = match known {
            _ if is_live(id) => State::Current,
            // The journal also has releases that only its own repair found.
            Some(known) if known.sha256.is_some() => State::Missing,
            _ => State::NotReceived,
        };
        find(id, known, state);
    }
    for (id, known) in &seen.missing {
        find(id, Some(known), State::Missing);
    }
    if let Some(live) = live
        && !live_exists
        && seen.live_is_recorded
    {
        find(live, history.releases.get(live), State::Missing);
    }
    if found.iter().any(|found| found.state == State::Missing) {
        let is_recorded_as_removed = ledger::recorded_as_removed(store)?;
        found.retain(|Found { id, state, .. }| {
            let is_removed = || removing.contains(id) || is_recorded_as_removed(id);
            *state != State::Missing || is_live(id) || !is_removed()
        });
    }
    // The newest activation first; then those that were never live, the last received
    // first; then those that the journal does not have.
    found.sort_by(|one, other| {
        let key = |found: &Found<'_>| found.known.map(|known| (known.activated, known.seq));
        key(other).cmp(&key(one)).then_with(|| other.id.cmp(one.id))
    });
    let rows: Vec<Row> = found.iter().map(|found| found.row(&seen)).collect();
    let mut warnings: Vec<String> = removing.iter().map(removal_pending).collect();
    if let Some(live) = live.filter(|_| !live_exists) {
        warnings.push(dangling(config, live));
    }
    let lines = if is_json {
        let document = Document {
            site: config.site(),
            generation: history.generation,
            current: live.filter(|_| live_exists),
            previous,
            releases: rows,
            removing: &removing,
        };
        vec![serde_json::to_string(&document).expect("the document is plain JSON")]
    } else {
        table(&rows)
    };
    Ok(Success::Listed(Listed { lines, warnings }))
}

/// A release of the list.
struct Found<'a> {
    id: &'a ReleaseId,
    /// What the journal has of it.
    known: Option<&'a Release>,
    state: State,
}

impl Found<'_> {
    fn row(&self, seen: &Seen) -> Row {
        let Seen { history, .. } = seen;
        let known = self.known;
        let confirmed = |known: &Release| {
            known.confirmed && !(self.state == State::Current && history.confirmation_pending)
        };
        // The symlink moved, and the journal has no time for that.
        let has_no_time = !seen.live_is_recorded
            && [&history.live, &history.before]
                .iter()
                .any(|moved| moved.as_ref() == Some(self.id));
        Row {
            release: self.id.clone(),
            state: self.state,
            proved: known
                .filter(|known| known.activated.is_some())
                .map(confirmed),
            // The record of a `receive` has the digest. Another record, such as that of
            // a symlink that an operator moved, has only its own time.
            received: known
                .filter(|known| known.sha256.is_some())
                .map(|known| known.received),
            last_live: known.and_then(Release::last_live).filter(|_| !has_no_time),
            files: known.and_then(|known| known.files),
            bytes: known.and_then(|known| known.bytes),
            sha256: known.and_then(|known| known.sha256),
            tree: known.and_then(|known| known.tree),
            commit: known.and_then(|known| known.commit.clone()),
        }
    }
}

fn dangling(config: &Config, release: &ReleaseId) -> String {
    let link = config.root.join(config.link.as_str());
    format!(
        "nothing is live: the symlink '{}' names '{release}', which does not exist; swap to another release",
        link.display()
    )
}

fn removal_pending(release: &ReleaseId) -> String {
    format!("the removal of '{release}' is not complete: something of it is in the trash")
}

/// The heads of the columns. The last one is left out if no release has a commit.
const HEAD: [&str; 8] = [
    "RELEASE",
    "STATE",
    "RECEIVED",
    "LAST-LIVE",
    "FILES",
    "BYTES",
    "SHA256",
    "COMMIT",
];

/// The length of a digest and of a commit in the table, in digits.
const ABBREVIATED: usize = 12;

/// Returns the head and a line for each row, with at least two spaces between cells.
fn table(rows: &[Row]) -> Vec<String> {
    let has_commits = rows.iter().any(|row| row.commit.is_some());
    let head = &HEAD[..HEAD.len() - usize::from(!has_commits)];
    let mut cells = Cells::new(head.len());
    for name in head {
        cells.push(Some(name));
    }
    for row in rows {
        cells.push(Some(&row.release));
        cells.push(Some(row.state.name()));
        cells.push(row.received);
        cells.push(row.last_live);
        cells.push(row.files);
        cells.push(row.bytes);
        cells.push(row.sha256.map(|digest| abbreviate(&digest.to_string())));
        if has_commits {
            cells.push(
                row.commit
                    .as_ref()
                    .map(|commit| abbreviate(commit.as_str())),
            );
        }
    }
    cells.lines()
}

fn abbreviate(digits: &str) -> String {
    digits.chars().take(ABBREVIATED).collect()
}

/// Cells row by row, all in one string: there may be thousands.
struct Cells {
    text: String,
    /// The end of each cell in the string.
    ends: Vec<usize>,
    /// The width of each column, without the spaces after it.
    widths: Vec<usize>,
}

impl Cells {
    fn new(columns: usize) -> Cells {
        Cells {
            text: String::new(),
            ends: Vec::new(),
            widths: vec![0; columns],
        }
    }

    fn push(&mut self, value: Option<impl Display>) {
        let start = self.text.len();
        match value {
            // Writing to a String cannot fail.
            Some(value) => _ = write!(self.text, "{value}"),
            None => self.text.push('-'),
        }
        let column = self.ends.len() % self.widths.len();
        let width = &mut self.widths[column];
        *width = (*width).max(self.text.len() - start);
        self.ends.push(self.text.len());
    }

    fn lines(&self) -> Vec<String> {
        let widest = self.widths.iter().sum::<usize>() + 2 * self.widths.len();
        let spaces = " ".repeat(widest);
        let mut start = 0;
        let row = |ends: &[usize]| {
            let mut line = String::with_capacity(widest);
            for (end, width) in ends.iter().zip(&self.widths) {
                let cell = &self.text[start..*end];
                line.push_str(cell);
                line.push_str(&spaces[..width - cell.len() + 2]);
                start = *end;
            }
            line.truncate(line.trim_end().len());
            line
        };
        self.ends.chunks(self.widths.len()).map(row).collect()
    }
}
