//! The journal folded into what it means: which release is live, which was
//! before, which are bad. Pure: it knows records and nothing of files.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::names::{ReleaseId, Sha256Digest};
use crate::store::journal::{self, Event, How, Record};

/// What the journal knows of one release.
#[derive(Clone, Debug)]
pub struct Release {
    /// The number of the record by which it is known.
    pub seq: u64,
    /// The number of the first record of it that there ever was: one that was
    /// removed and comes back is no younger than it was.
    first: u64,
    pub received: Timestamp,
    pub sha256: Option<Sha256Digest>,
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// When it last became live, and the number of that record.
    pub activated: Option<(u64, Timestamp)>,
    /// When it was last replaced as the live one.
    pub left: Option<Timestamp>,
    /// It was rolled away from or failed its gate, and has not been swapped to
    /// since.
    pub bad: bool,
    /// It has passed what was asked of it when it was last swapped or rolled
    /// back to, if anything was; false from then until it has.
    pub confirmed: bool,
}

impl Release {
    fn new(record: &Record) -> Release {
        Release {
            seq: record.seq,
            first: record.seq,
            received: record.time,
            sha256: None,
            files: None,
            bytes: None,
            activated: None,
            left: None,
            bad: false,
            confirmed: true,
        }
    }

    /// It has been live and nothing speaks against it.
    pub fn good(&self) -> bool {
        self.activated.is_some() && !self.bad
    }

    /// When it was last live; for the live one, since when it is.
    pub fn last_live(&self) -> Option<Timestamp> {
        self.left.or(self.activated.map(|(_, time)| time))
    }
}

/// A release's state as `list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Current,
    Previous,
    Good,
    Bad,
    Pending,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Current => "current",
            State::Previous => "previous",
            State::Good => "good",
            State::Bad => "bad",
            State::Pending => "pending",
        }
    }
}

/// The folded journal.
#[derive(Debug, Default)]
pub struct History {
    /// The number of the newest record; it grows with every change.
    pub generation: u64,
    pub live: Option<ReleaseId>,
    /// What was live when the live one became so.
    pub before: Option<ReleaseId>,
    /// What is asked of a live release has not been answered since the link
    /// last moved: the request that would have seen to it was killed, or what
    /// was gone back to failed as well.
    pub confirmation_pending: bool,
    pub releases: BTreeMap<ReleaseId, Release>,
    /// When each release was received, the removed ones as well.
    pub received: Vec<Timestamp>,
    /// The number of the first record of each release that was removed and has
    /// not come back: each is in one of the two maps.
    removed: BTreeMap<ReleaseId, u64>,
    /// How the link was about to move, when last heard of.
    intent: Option<Record>,
}

impl History {
    /// Takes one more record into account.
    pub fn apply(&mut self, record: &Record) {
        self.generation = record.seq;
        match (record.event, &record.release) {
            (Event::Received, Some(release)) => {
                let known = self.entry(release, record);
                *known = Release {
                    first: known.first,
                    sha256: record.sha256,
                    files: record.files,
                    bytes: record.bytes,
                    ..Release::new(record)
                };
                self.received.push(record.time);
            }
            (Event::Pruned, Some(release)) => {
                if let Some(old) = self.releases.remove(release) {
                    self.removed.insert(release.clone(), old.first);
                }
            }
            (Event::Activating, _) => self.intent = Some(record.clone()),
            (Event::Abandoned, _) => self.intent = None,
            (Event::Confirmed, Some(release)) => {
                self.confirmation_pending = false;
                if let Some(release) = self.releases.get_mut(release) {
                    release.confirmed = true;
                }
            }
            (Event::Failed, Some(release)) => {
                if let Some(release) = self.releases.get_mut(release) {
                    release.bad = true;
                }
            }
            (Event::Swapped | Event::RolledBack | Event::Returned | Event::Reconciled, release) => {
                self.activate(record, release.as_ref())
            }
            (Event::Received | Event::Pruned | Event::Confirmed | Event::Failed, None) => {}
        }
    }

    /// The entry of a release, made from `record` if it has none.
    fn entry(&mut self, release: &ReleaseId, record: &Record) -> &mut Release {
        let removed = &mut self.removed;
        self.releases
            .entry(release.clone())
            .or_insert_with(|| Release {
                first: removed.remove(release).unwrap_or(record.seq),
                ..Release::new(record)
            })
    }

    fn activate(&mut self, record: &Record, release: Option<&ReleaseId>) {
        self.intent = None;
        self.confirmation_pending = record.unconfirmed;
        self.before.clone_from(&record.previous);
        let mut old = std::mem::replace(&mut self.live, release.cloned());
        // What is left on the way back, its own record says: that it had become
        // live may not have been written down.
        if record.event == Event::Returned {
            old.clone_from(&record.previous);
        }
        if let Some(old) = old.as_ref().and_then(|old| self.releases.get_mut(old)) {
            old.left = Some(record.time);
            // A hand-moved link says nothing about the release it left, but
            // that it has not proved itself by then.
            old.bad |= matches!(record.event, Event::RolledBack | Event::Returned);
            old.bad |= !old.confirmed;
        }
        let Some(release) = release else { return };
        let new = self.entry(release, record);
        new.activated = Some((record.seq, record.time));
        new.left = None;
        new.bad = false;
        // One that is gone back to has proved itself before; a failure of what
        // is around it now says nothing against it.
        if record.event != Event::Returned {
            new.confirmed = !record.unconfirmed;
        }
    }

    /// The record that is missing if `link` is what the link says: the link is
    /// the truth, and the journal may lag behind it by a crash or by a hand.
    pub fn missing(&self, link: Option<&ReleaseId>) -> Option<Record> {
        let moved = self.live.as_ref() != link;
        let mut record = match &self.intent {
            // Killed between the rename and its record: it was that request,
            // by whoever made it.
            Some(intent) if moved && intent.release.as_ref() == link => Record {
                event: intent.how.unwrap_or(How::Swap).done(),
                how: None,
                ..intent.clone()
            },
            // It failed, or was killed, before the rename. Left standing, it
            // would explain a link that is moved by hand one day.
            Some(intent) => Record {
                event: Event::Abandoned,
                ..intent.clone()
            },
            None if moved => Record::unattended(Event::Reconciled, link),
            None => return None,
        };
        record.seq = self.generation;
        record.time = journal::now();
        if record.event != Event::Abandoned {
            record.previous.clone_from(&self.live);
        }
        Some(record)
    }

    /// The release that was last live and good before the present one, of
    /// those that `is_present`.
    ///
    /// By the order in which releases became live, never by name or mtime. A
    /// bad one is never chosen; neither is one that was pruned and received
    /// anew, which has not been live since.
    pub fn previous(&self, is_present: impl Fn(&ReleaseId) -> bool) -> Option<&ReleaseId> {
        let mut good: Vec<_> = self
            .releases
            .iter()
            .filter(|(id, release)| release.good() && self.live.as_ref() != Some(id))
            .map(|(id, release)| (release.activated, id))
            .collect();
        good.sort_unstable();
        // From the last one back, so that few are asked for.
        good.into_iter()
            .rev()
            .map(|(_, id)| id)
            .find(|id| is_present(id))
    }

    /// Whether the journal has ever known `id`.
    pub fn knows(&self, id: &ReleaseId) -> bool {
        self.first(id).is_some()
    }

    /// The number of the first record of `id` that there ever was.
    fn first(&self, id: &ReleaseId) -> Option<u64> {
        let known = self.releases.get(id).map(|release| release.first);
        known.or_else(|| self.removed.get(id).copied())
    }

    /// Whether `id` first came no earlier than `floor` did. Nothing reaches a
    /// floor that never came: it must not be lost by a slip in its name.
    pub fn reaches(&self, id: &ReleaseId, floor: Option<&ReleaseId>) -> bool {
        match floor {
            None => true,
            Some(floor) => {
                let floor = self.first(floor);
                floor.is_some_and(|floor| self.first(id).is_some_and(|id| id >= floor))
            }
        }
    }

    /// The state of a release that is present; `previous` as [`Self::previous`] gave it.
    pub fn state(&self, id: &ReleaseId, previous: Option<&ReleaseId>) -> State {
        self.state_of(id, self.releases.get(id), previous)
    }

    /// The same of one of which this is `known`.
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
