//! Folds the journal into the state of the site: which release is live, which one
//! was before, which are bad. Pure: it knows records, and no files.

mod bridge;
mod id_use;
mod place;
#[cfg(test)]
pub mod words;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{CommitId, KeyLabel, ReleaseId, Sha256Digest};
use crate::store::checkpoint::Part;
use crate::store::journal::{self, Entry, Event, How, Record};
use crate::store::used_ids::UsedIds;
pub use id_use::{Content, IdUse};
pub use place::{FirstLeave, Place};

/// The time for which the history keeps a [`Receipt`]: the limits on receives count
/// that time.
pub const RECEIPTS_KEPT: Duration = Duration::from_secs(3600);

/// One receive, for the limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    pub time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyLabel>,
}

/// The state of one release by the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The number of its first record since it was last removed.
    pub seq: u64,
    #[serde(rename = "id")]
    id_use: IdUse,
    pub received: Timestamp,
    /// Whether no request has recorded that it was received: a request was killed before its
    /// record, the journal was lost, or it is one of another tool.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    /// The label of the key that sent it, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyLabel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// Of the tree list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The commit that the client named. Nothing verifies it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// When it first became live, with the number of that record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_live: Option<(u64, Timestamp)>,
    /// When it last became live, with the number of that record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activated: Option<(u64, Timestamp)>,
    /// When another release last replaced it as the live one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Timestamp>,
    /// Whether it last became live by a rollback. Then it earns no place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_rollback: bool,
    /// The longest time without a break that it was live before it was last replaced, in
    /// seconds.
    #[serde(default)]
    pub longest: u64,
    /// It failed its checks or was rolled back from, and no symlink change has made
    /// it live since.
    pub bad: bool,
    /// False from a swap or rollback to this release until its post-swap checks
    /// pass. True where the site has none. A revert to this release does not change
    /// it; compare [`History::confirmation_pending`].
    #[serde(rename = "proved")]
    pub confirmed: bool,
    /// Its place among the releases that pruning keeps, once it has earned one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl Release {
    fn new(record: &Record) -> Release {
        Release {
            seq: record.seq,
            id_use: IdUse {
                first_seq: record.first.unwrap_or(record.seq),
                content: Content::Nothing,
            },
            received: record.time,
            recovered: false,
            key: None,
            sha256: None,
            tree: None,
            files: None,
            bytes: None,
            commit: None,
            first_live: None,
            activated: None,
            left: None,
            by_rollback: false,
            longest: 0,
            bad: false,
            confirmed: true,
            place: None,
        }
    }

    /// Returns whether it has been live and is not bad.
    pub fn good(&self) -> bool {
        self.activated.is_some() && !self.bad
    }

    /// Returns whether it was never live and is not bad.
    pub fn is_pending(&self) -> bool {
        self.activated.is_none() && !self.bad
    }

    /// Returns when it was last live; for the live one, since when it is.
    pub fn last_live(&self) -> Option<Timestamp> {
        self.left.or(self.activated.map(|(_, time)| time))
    }
}

/// A release's state as `list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Current,
    Previous,
    Good,
    Bad,
    Pending,
    /// The journal has it, and its directory or its manifest is not on disk.
    Missing,
    /// A directory in `releases/` that no request received.
    NotReceived,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Current => "current",
            State::Previous => "previous",
            State::Good => "good",
            State::Bad => "bad",
            State::Pending => "pending",
            State::Missing => "missing",
            State::NotReceived => "not-received",
        }
    }
}

/// The folded journal. A checkpoint has it as it is here, so each field belongs to the
/// format of the journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The number of the newest record. It grows with every change.
    pub generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<ReleaseId>,
    /// The release that was live before `live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<ReleaseId>,
    /// True while the post-swap checks of the live release have not passed since
    /// the last symlink change, of whatever kind: the request was killed, or the
    /// fallback failed too. Such a fallback may still be [`Release::confirmed`]: it
    /// passed its checks before the revert.
    #[serde(rename = "unproved")]
    pub confirmation_pending: bool,
    pub releases: BTreeMap<ReleaseId, Release>,
    /// The receives of the last [`RECEIPTS_KEPT`] before the newest one, with those of
    /// releases that were removed since.
    pub received: VecDeque<Receipt>,
    /// The time of the newest record.
    latest: Timestamp,
    /// The ids of releases that were removed since the checkpoint, or were looked up,
    /// and were not received again. A known release is in exactly one of the two maps.
    #[serde(skip)]
    removed: BTreeMap<ReleaseId, IdUse>,
    /// The symlink change that was last announced and not completed yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<Record>,
    /// The format of the journal: 0 before its first line of a format.
    format: u64,
    /// The lists of the ids that were removed before the checkpoint.
    pub used_ids: Vec<UsedIds>,
    /// The newest compressed part of the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

impl History {
    /// Takes the next line of the journal into account.
    pub fn take(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Record(record) => self.apply(record),
            Entry::Format(format) => self.begin_format(format),
            Entry::Checkpoint(checkpoint) => self.clone_from(checkpoint),
        }
    }

    /// Takes the next record into account.
    pub fn apply(&mut self, record: &Record) {
        self.generation = record.seq;
        if record.time < self.latest {
            self.limit_times(record.time);
        }
        self.latest = record.time;
        match (record.event, &record.release) {
            (Event::Received, Some(release)) => {
                let received = record.sha256.map_or(Content::Nothing, Content::One);
                let known = self.entry(release, record);
                *known = Release {
                    id_use: IdUse {
                        content: known.id_use.content.merge(received),
                        ..known.id_use
                    },
                    // Every request records how long it took.
                    recovered: record.ms.is_none(),
                    key: record.key.clone(),
                    sha256: record.sha256,
                    tree: record.tree,
                    files: record.files,
                    bytes: record.bytes,
                    commit: record.commit.clone(),
                    ..Release::new(record)
                };
                // Times never decrease from front to back: see `limit_times`.
                let is_old = |old: &Receipt| journal::age(old.time, record.time) >= RECEIPTS_KEPT;
                while self.received.front().is_some_and(is_old) {
                    self.received.pop_front();
                }
                self.received.push_back(Receipt {
                    time: record.time,
                    key: record.key.clone(),
                });
            }
            (Event::Pruned, Some(release)) => {
                if let Some(old) = self.releases.remove(release) {
                    self.removed.insert(release.clone(), old.id_use);
                }
            }
            (Event::Activating, _) => self.intent = Some(record.clone()),
            (Event::Abandoned, _) => self.intent = None,
            (Event::Confirmed, Some(release)) => {
                self.confirmation_pending = false;
                let known = self.releases.get_mut(release);
                let earns = known.is_some_and(|release| {
                    release.confirmed = true;
                    !release.by_rollback
                });
                if earns {
                    self.earn(release, record);
                }
            }
            (Event::Earned, Some(release)) => self.earn(release, record),
            (Event::Failed, Some(release)) => {
                if let Some(release) = self.releases.get_mut(release) {
                    release.bad = true;
                }
            }
            (Event::Swapped | Event::RolledBack | Event::Reverted | Event::Reconciled, release) => {
                self.activate(record, release.as_ref())
            }
            (
                Event::Received | Event::Pruned | Event::Confirmed | Event::Failed | Event::Earned,
                None,
            ) => {}
        }
    }

    /// Returns the entry of a release, made from `record` if it has none.
    fn entry(&mut self, release: &ReleaseId, record: &Record) -> &mut Release {
        let removed = &mut self.removed;
        self.releases.entry(release.clone()).or_insert_with(|| {
            let new = Release::new(record);
            let removed = removed.remove(release);
            Release {
                id_use: removed.map_or(new.id_use, |removed| removed.merge(new.id_use)),
                ..new
            }
        })
    }

    /// Takes the present time into account, after the last record.
    ///
    /// A record of the future is of a clock that was ahead. Its receive does not count
    /// for the limits, because nothing would end that before the clock gets there. With
    /// the next record it counts as of then.
    pub fn observe(&mut self, now: Timestamp) {
        if now < self.latest {
            self.received.retain(|receipt| receipt.time <= now);
            self.limit_times(now);
        }
    }

    /// Returns the time of the newest record, as it was written.
    pub fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Lowers every time to `limit`. The order of records is certain, and a clock may
    /// have been ahead: no event is later than a record that follows its own. So a
    /// clock that was ahead has no effect after the next record.
    fn limit_times(&mut self, limit: Timestamp) {
        let lower = |time: &mut Timestamp| *time = limit.min(*time);
        for release in self.releases.values_mut() {
            lower(&mut release.received);
            release.left.iter_mut().for_each(lower);
            let activations = release.activated.iter_mut().chain(&mut release.first_live);
            activations.for_each(|(_, time)| lower(time));
            release.place.iter_mut().for_each(|it| lower(&mut it.since));
        }
        for receipt in &mut self.received {
            lower(&mut receipt.time);
        }
    }

    fn activate(&mut self, record: &Record, release: Option<&ReleaseId>) {
        self.intent = None;
        self.confirmation_pending = record.unconfirmed;
        self.before.clone_from(&record.previous);
        let mut old = std::mem::replace(&mut self.live, release.cloned());
        // A `returned` record names what it leaves: the record that made that
        // release live may be missing.
        if record.event == Event::Reverted {
            old.clone_from(&record.previous);
        }
        if let Some(old) = old.as_ref().and_then(|old| self.releases.get_mut(old)) {
            old.left = Some(record.time);
            old.longest = old.longest_live(record.time).as_secs();
            // A symlink that an operator moved says nothing about the release that was
            // live, except whether its post-swap checks had passed by then.
            old.bad |= matches!(record.event, Event::RolledBack | Event::Reverted);
            old.bad |= !old.confirmed;
            old.settle_place();
        }
        let Some(release) = release else { return };
        let new = self.entry(release, record);
        new.activated = Some((record.seq, record.time));
        new.first_live = new.first_live.or(new.activated);
        new.left = None;
        // A revert ends what a request began: a rollback to a release that fails its
        // checks must not let the release that it came from earn a place.
        if record.event != Event::Reverted {
            new.by_rollback = record.event == Event::RolledBack;
        }
        new.bad = false;
        // A fallback that passed its post-swap checks before keeps that mark: if it
        // fails now, the cause may be outside of the release.
        if record.event != Event::Reverted {
            new.confirmed = !record.unconfirmed;
        }
    }

    /// Returns the record that the journal lacks if the symlink names `live`. The
    /// symlink is the truth. The journal lags behind it after a crash, or when an
    /// operator moved the symlink.
    pub fn missing_record(&self, live: Option<&ReleaseId>) -> Option<Record> {
        let moved = self.live.as_ref() != live;
        let mut record = match &self.intent {
            // The request was killed between the rename and its record. The record is
            // in the name of that request.
            Some(intent) if moved && intent.release.as_ref() == live => Record {
                event: intent.how.unwrap_or(How::Swap).done_event(),
                how: None,
                ..intent.clone()
            },
            // The request failed, or was killed, before the rename. An intent that
            // remains would explain a symlink that an operator moves later.
            Some(intent) => Record {
                event: Event::Abandoned,
                ..intent.clone()
            },
            None if moved => Record::unattended(Event::Reconciled, live),
            None => return None,
        };
        record.seq = self.generation;
        record.time = journal::now();
        // That of the intent is not how long the change took.
        record.ms = None;
        if record.event != Event::Abandoned {
            record.previous.clone_from(&self.live);
        }
        Some(record)
    }

    /// Returns the release that a rollback without a release goes to: the previous
    /// one of those in `present` that the floor allows.
    pub fn rollback_target(
        &self,
        present: &[ReleaseId],
        floor: Option<&ReleaseId>,
    ) -> Option<&ReleaseId> {
        self.previous(|id| present.contains(id) && self.received_at_or_after(id, floor))
    }

    /// Returns the release that was last live and good before the live one, of those
    /// that `is_present`.
    ///
    /// The order is that in which releases became live, never that of names or
    /// mtimes. A bad release is never chosen. Neither is one that was pruned and
    /// received again: it has not been live since.
    pub fn previous(&self, is_present: impl Fn(&ReleaseId) -> bool) -> Option<&ReleaseId> {
        let mut good: Vec<_> = self
            .releases
            .iter()
            .filter(|(id, release)| release.good() && self.live.as_ref() != Some(id))
            .map(|(id, release)| (release.activated, id))
            .collect();
        good.sort_unstable();
        // From the last one back, so that `is_present` is called few times.
        good.into_iter()
            .rev()
            .map(|(_, id)| id)
            .find(|id| is_present(id))
    }

    /// Returns the number of the very first record of `id`.
    fn first_seq(&self, id: &ReleaseId) -> Option<u64> {
        self.id_use(id).map(|id_use| id_use.first_seq)
    }

    /// Returns whether `id` was not first received before `floor`, if there is one. A
    /// floor that was never received rejects everything, so that a typing error in its
    /// name does not remove it.
    pub fn received_at_or_after(&self, id: &ReleaseId, floor: Option<&ReleaseId>) -> bool {
        match floor {
            None => true,
            Some(floor) => {
                let floor = self.first_seq(floor);
                floor.is_some_and(|floor| self.first_seq(id).is_some_and(|id| id >= floor))
            }
        }
    }

    /// Returns the state of a release that is present. `previous` is the result of
    /// [`Self::previous`].
    pub fn state(&self, id: &ReleaseId, previous: Option<&ReleaseId>) -> State {
        self.state_of(id, self.releases.get(id), previous)
    }

    /// As [`Self::state`], for a caller that has looked up what is `known` of it.
    pub fn state_of(
        &self,
        id: &ReleaseId,
        known: Option<&Release>,
        previous: Option<&ReleaseId>,
    ) -> State {
        match known {
            _ if self.live.as_ref() == Some(id) => State::Current,
            _ if previous == Some(id) => State::Previous,
            Some(release) if release.bad => State::Bad,
            Some(release) if release.good() => State::Good,
            _ => State::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
