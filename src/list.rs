//! `list`: the releases, as a table for people and as JSON for scripts.

use std::fmt::{Display, Write};

use serde::Serialize;

use crate::config::Config;
use crate::error::Result;
use crate::names::{CommitId, ReleaseId, Sha256Digest, SiteName};
use crate::policy::Granted;
use crate::request::List;
use crate::store::history::{Release, State};
use crate::store::{Store, ledger};
use crate::success::{Listed, Success};

/// The document of `list --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    site: &'a SiteName,
    /// Grows with every change of the site.
    generation: u64,
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
    commit: Option<CommitId>,
}

/// Lists the releases. It changes nothing and takes no lock, so it answers while a
/// swap runs.
///
/// # Errors
///
/// As [`ledger::read_unlocked`].
pub fn list(config: &Config, store: &Store, request: &Granted<List>) -> Result<Success> {
    let (history, listing) = ledger::read_unlocked(store)?;
    let mut present = listing.present;
    let floor = config.floor.as_ref();
    let previous = history.rollback_target(&present, floor).cloned();
    // The release that a dangling symlink names is listed too.
    if let Some(live) = history.live.as_ref().filter(|live| !present.contains(live)) {
        present.push(live.clone());
    }
    // The newest activation first; then those that were never live, the last received
    // first.
    let look_up = |id| (history.releases.get(&id), id);
    let mut present: Vec<_> = present.into_iter().map(look_up).collect();
    present.sort_by(|(one, one_id), (other, other_id)| {
        let key = |known: Option<&Release>| known.map(|known| (known.activated, known.seq));
        key(*other)
            .cmp(&key(*one))
            .then_with(|| other_id.cmp(one_id))
    });
    let rows: Vec<Row> = present
        .into_iter()
        .map(|(known, id)| {
            let state = history.state_of(&id, known, previous.as_ref());
            Row {
                state,
                proved: known
                    .filter(|known| known.activated.is_some())
                    .map(|known| {
                        known.confirmed
                            && !(state == State::Current && history.confirmation_pending)
                    }),
                received: known.map(|known| known.received),
                last_live: known.and_then(|known| known.last_live()),
                files: known.and_then(|known| known.files),
                bytes: known.and_then(|known| known.bytes),
                sha256: known.and_then(|known| known.sha256),
                commit: known.and_then(|known| known.commit.clone()),
                release: id,
            }
        })
        .collect();
    let removing = store.removals_pending()?;
    let lines = if request.json {
        let document = Document {
            site: config.site(),
            generation: history.generation,
            current: history.live.as_ref(),
            previous: previous.as_ref(),
            releases: rows,
            removing: &removing,
        };
        vec![serde_json::to_string(&document).expect("the document is plain JSON")]
    } else {
        table(&rows)
    };
    let warnings = removing.iter().map(removal_pending).collect();
    Ok(Success::Listed(Listed { lines, warnings }))
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
