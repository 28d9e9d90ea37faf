//! What the child reads of one site, and its message.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::attention::{self, Attention, Reason};
use crate::history::rows::{self, GateResult, Row};
use crate::records::read_records;
use crate::site_account::look_as_account;
use deploy_shell::config::{Config, Percent};
use deploy_shell::error::{Error, Result};
use deploy_shell::escape;
use deploy_shell::names::{CommitId, KeyLabel, ReleaseId};
use deploy_shell::sandbox;
use deploy_shell::store::Store;
use deploy_shell::store::history::Release;
use deploy_shell::store::journal::{self, Event};
use deploy_shell::store::ledger::Seen;

/// The old parts of the journal that are searched for the last failure and for the last use
/// of a key. A part has thousands of events, and the newest one may have few.
const PARTS: usize = 2;

/// The maximum length of a problem and of a remedy, in bytes: some have two paths.
const MAX_TEXT: usize = 9_000;

/// What a child has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub attention: Vec<Attention>,
    /// None for a site that could not be read.
    pub status: Option<SiteStatus>,
}

impl Answer {
    /// Returns the answer for a site that could not be read.
    pub fn unread(reason: Reason, error: Error) -> Answer {
        let attention = Attention {
            reason,
            problem: error.problem,
            remedy: error.remedy,
        };
        Answer {
            attention: vec![attention],
            status: None,
        }
    }

    /// Returns the answer with texts of printable ASCII. Every other value is of a type
    /// that has validated it.
    pub fn escaped(mut self) -> Answer {
        for attention in &mut self.attention {
            let texts = [&mut attention.problem].into_iter();
            for text in texts.chain(&mut attention.remedy) {
                *text = escape::escape_if_needed_truncated(text.as_bytes(), MAX_TEXT);
            }
        }
        self
    }
}

/// The state of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteStatus {
    /// Grows with every change of the site.
    pub generation: u64,
    /// None also if the symlink names a release that does not exist.
    pub live: Option<Live>,
    /// Whether a release is live, or was.
    pub was_live: bool,
    pub releases: u64,
    pub pending: u64,
    /// The size of all releases by the journal. A file that several of them share counts in
    /// each.
    pub used_bytes: u64,
    /// What is free above the reserve.
    pub available_bytes: u64,
    /// None where the file system has no table of inodes.
    pub available_inodes: Option<u64>,
    pub last_failure: Option<Failure>,
    /// When a key last changed the site.
    pub last_key_use: Option<Timestamp>,
}

/// The live release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    pub release: ReleaseId,
    /// None if another program moved the symlink and no request has recorded it yet.
    pub since: Option<Timestamp>,
    pub commit: Option<CommitId>,
    /// Whether its checks passed since it became live; true where there are none.
    pub confirmed: bool,
    pub files: Option<u64>,
    pub bytes: Option<u64>,
}

/// A release that failed its checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub time: Timestamp,
    pub release: ReleaseId,
    pub key: Option<KeyLabel>,
    /// Whether no swap or rollback has made a release live since, and the release is still there.
    pub unresolved: bool,
}

/// Reads the site, as the child: becomes the account of the site first.
pub fn read(config: Result<Config>) -> Answer {
    let config = match config {
        Ok(config) => config,
        Err(error) => return Answer::unread(Reason::BadConfig, error),
    };
    match read_status(&config) {
        Ok(status) => Answer {
            attention: attention::find(&config, &status, journal::now()),
            status: Some(status),
        },
        Err(error) => Answer::unread(Reason::NotReadable, error),
    }
}

fn read_status(config: &Config) -> Result<SiteStatus> {
    let store = Store::examine(config)?;
    look_as_account(&store, "status")?;
    // A change of the user clears it (prctl(2), PR_SET_PDEATHSIG).
    sandbox::end_with_parent();
    let seen = Seen::read(&store)?;
    let records = read_records(&store, PARTS)?;
    let events = rows::fold(records.values());
    let (available_bytes, available_inodes) = available(&store, config.limits.reserve)?;
    let history = &seen.history;
    let present = &seen.listing.present;
    let known = || present.iter().filter_map(|id| history.releases.get(id));
    let count = |number: usize| number as u64;
    Ok(SiteStatus {
        generation: history.generation,
        live: live(&seen),
        was_live: history.live.is_some()
            || (history.releases.values()).any(|release| release.activated.is_some()),
        releases: count(present.len()),
        pending: count(known().filter(|release| release.is_pending()).count()),
        used_bytes: known()
            .filter_map(|release| release.bytes)
            .fold(0, u64::saturating_add),
        available_bytes,
        available_inodes,
        last_failure: last_failure(&events, present),
        last_key_use: (events.iter().rev())
            .find(|row| row.key.is_some())
            .map(|row| row.time),
    })
}

fn live(seen: &Seen) -> Option<Live> {
    let history = &seen.history;
    let live = history.live.as_ref();
    let release = live.filter(|live| seen.listing.has_directory(live))?;
    let known = history.releases.get(release);
    let is_confirmed = |known: &Release| known.confirmed && !history.confirmation_pending;
    Some(Live {
        release: release.clone(),
        since: known
            .and_then(Release::last_live)
            .filter(|_| seen.live_is_recorded),
        commit: known.and_then(|known| known.commit.clone()),
        confirmed: known.is_none_or(is_confirmed),
        files: known.and_then(|known| known.files),
        bytes: known.and_then(|known| known.bytes),
    })
}

/// Returns the last event that failed its checks. A later event that made a release live
/// resolves it, and so does the removal of the release.
fn last_failure(events: &[Row<'_>], present: &[ReleaseId]) -> Option<Failure> {
    let failed = |row: &Row<'_>| row.gate == Some(GateResult::Failed);
    let at = events.iter().rposition(failed)?;
    let failure = &events[at];
    let release = failure.release?;
    let makes_live = |row: &Row<'_>| {
        matches!(
            row.event,
            Event::Swapped | Event::RolledBack | Event::Reconciled
        )
    };
    Some(Failure {
        time: failure.time,
        release: release.clone(),
        key: failure.key.cloned(),
        unresolved: present.contains(release) && !events[at + 1..].iter().any(makes_live),
    })
}

/// Returns the bytes and inodes that are free above the reserve.
fn available(store: &Store, reserve: Percent) -> Result<(u64, Option<u64>)> {
    let cannot = |errno| store.io("cannot read the free space of the file system", errno);
    let space = store.root.space().map_err(cannot)?;
    let left = |free: u64, total: u64| free.saturating_sub(reserve.of(total));
    let inodes = (space.total_inodes > 0).then(|| left(space.free_inodes, space.total_inodes));
    Ok((left(space.free_bytes, space.total_bytes), inodes))
}
