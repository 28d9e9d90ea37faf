//! `list`: what there is, as a table for people and as JSON for scripts.

use serde::Serialize;

use crate::config::Config;
use crate::error::Result;
use crate::names::{ReleaseId, Sha256Digest, SiteName};
use crate::outcome::Success;
use crate::policy::Granted;
use crate::request::List;
use crate::store::history::State;
use crate::store::{Store, ledger};

/// The document of `list --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    site: &'a SiteName,
    /// Grows with every change of the site.
    generation: u64,
    current: Option<&'a ReleaseId>,
    /// What `rollback` without a release would go back to.
    previous: Option<&'a ReleaseId>,
    releases: Vec<Row>,
}

/// One release. Times are RFC 3339, UTC.
#[derive(Debug, Serialize)]
struct Row {
    release: ReleaseId,
    state: State,
    /// Whether it has passed what was asked of it when it last became live.
    proved: Option<bool>,
    received: Option<jiff::Timestamp>,
    /// For the live one: since when it is live.
    last_live: Option<jiff::Timestamp>,
    files: Option<u64>,
    bytes: Option<u64>,
    sha256: Option<Sha256Digest>,
}

/// Reads, and changes nothing; takes no lock either, so that it answers while
/// a swap runs.
pub fn list(config: &Config, store: &Store, asked: &Granted<List>) -> Result<Success> {
    let (history, listing) = ledger::peek(store)?;
    let mut present = listing.present;
    let floor = config.floor.0.as_ref();
    let eligible = |id: &ReleaseId| present.contains(id) && history.reaches(id, floor);
    let previous = history.previous(eligible).cloned();
    // A link that leads nowhere is shown all the same.
    if let Some(live) = history.live.as_ref().filter(|live| !present.contains(live)) {
        present.push(live.clone());
    }
    // Newest activation first, then by arrival those that were never live.
    present.sort_by_cached_key(|id| {
        let known = history.releases.get(id);
        let activated = known.and_then(|known| known.activated);
        std::cmp::Reverse((activated, known.map(|known| known.seq), id.clone()))
    });
    let rows: Vec<Row> = present
        .into_iter()
        .map(|id| {
            let known = history.releases.get(&id);
            let state = history.state(&id, previous.as_ref());
            Row {
                state,
                proved: known
                    .filter(|known| known.activated.is_some())
                    .map(|known| known.proved && !(state == State::Current && history.unsettled)),
                received: known.map(|known| known.received),
                last_live: known.and_then(|known| known.last_live()),
                files: known.and_then(|known| known.files),
                bytes: known.and_then(|known| known.bytes),
                sha256: known.and_then(|known| known.sha256),
                release: id,
            }
        })
        .collect();
    let lines = if asked.json {
        let document = Document {
            site: config.site(),
            generation: history.generation,
            current: history.live.as_ref(),
            previous: previous.as_ref(),
            releases: rows,
        };
        vec![serde_json::to_string(&document).expect("the document is plain JSON")]
    } else {
        table(&rows)
    };
    Ok(Success {
        lines,
        ..Success::default()
    })
}

const HEAD: [&str; 7] = [
    "RELEASE",
    "STATE",
    "RECEIVED",
    "LAST-LIVE",
    "FILES",
    "BYTES",
    "SHA256",
];

fn table(rows: &[Row]) -> Vec<String> {
    fn cell(value: Option<impl ToString>) -> String {
        value.map_or("-".to_owned(), |value| value.to_string())
    }
    let mut cells = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            row.release.to_string(),
            row.state.word().to_owned(),
            cell(row.received),
            cell(row.last_live),
            cell(row.files),
            cell(row.bytes),
            cell(row.sha256.map(|digest| digest.to_string()[..12].to_owned())),
        ]
    }));
    let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    cells
        .iter()
        .map(|row| {
            let mut line = String::with_capacity(widths.iter().sum::<usize>() + 2 * widths.len());
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.len() + 2));
            }
            line.truncate(line.trim_end().len());
            line
        })
        .collect()
}
