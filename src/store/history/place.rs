//! The place that a release earns among the releases that pruning keeps.
//!
//! A release earns a place when it passes its gate, or when it was live for `min_age`.
//! The record that says so gives the place its number. Nothing changes that number
//! later: no swap, no rollback and no bad mark. So a key cannot take a place away by
//! moving the current symlink; it can only earn later ones.
//!
//! A release earns nothing while it is live by a rollback. A key that may only roll back
//! could otherwise give places to old releases that have none, and these would displace
//! others.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{History, Release};
use crate::names::ReleaseId;
use crate::store::journal::{self, Record};

/// The place of a release that has earned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The number of the record by which the release earned it.
    pub seq: u64,
    /// Since when the release was live then.
    pub since: Timestamp,
    pub left: FirstLeave,
}

/// The first end of a release that had earned its place: how it stopped being live.
/// Only the first one counts, so no later request can change the place of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstLeave {
    /// It is still live.
    NotYet,
    /// Another release was swapped in.
    Replaced,
    /// It was marked bad by that: a rollback or a revert left it.
    RolledBack,
}

impl Release {
    /// Notes how the release stops being live. The caller has set its bad mark.
    pub(super) fn settle_place(&mut self) {
        let left = self.how_it_left();
        if let Some(place) = &mut self.place
            && place.left == FirstLeave::NotYet
        {
            place.left = left;
        }
    }

    fn how_it_left(&self) -> FirstLeave {
        if self.bad {
            FirstLeave::RolledBack
        } else {
            FirstLeave::Replaced
        }
    }

    /// Returns the longest time without a break that it was live, until `now`.
    pub fn longest_live(&self, now: Timestamp) -> Duration {
        let last = self.live_for(now).unwrap_or_default();
        last.max(Duration::from_secs(self.longest))
    }

    /// Returns how long it was live without a break until `now`, or until it was last
    /// replaced.
    fn live_for(&self, now: Timestamp) -> Option<Duration> {
        let (_, since) = self.activated?;
        Some(journal::age(since, self.left.unwrap_or(now)))
    }
}

impl History {
    /// Gives a release its place by this record, unless it has one.
    pub(super) fn earn(&mut self, id: &ReleaseId, record: &Record) {
        let live = self.live.as_ref() == Some(id);
        let Some(release) = self.releases.get_mut(id) else {
            return;
        };
        if release.place.is_none() {
            release.place = Some(Place {
                seq: record.seq,
                since: release.activated.map_or(record.time, |(_, time)| time),
                left: if live {
                    FirstLeave::NotYet
                } else {
                    release.how_it_left()
                },
            });
        }
    }

    /// Takes a format line into account.
    ///
    /// Format 1 has no record of places. At the beginning of format 2, every good release
    /// gets the place that it earned when it first became live, at the latest. That may be
    /// too early, and then keeps a release that could be removed.
    pub(super) fn begin_format(&mut self, format: u64) {
        let first = self.format < 2 && format >= 2;
        self.format = format;
        if !first {
            return;
        }
        for (id, release) in &mut self.releases {
            let earned = release.good() && release.confirmed && release.place.is_none();
            if let (true, Some((seq, since))) = (earned, release.first_live) {
                let left = if self.live.as_ref() == Some(id) {
                    FirstLeave::NotYet
                } else {
                    FirstLeave::Replaced
                };
                release.place = Some(Place { seq, since, left });
            }
        }
    }

    /// Returns the releases that have been live for `min_age`, not by a rollback, and
    /// have no place yet: of the live one and the one before it. The caller appends an
    /// `earned` record for each.
    ///
    /// A release that left before its checks passed earns nothing: its own checks may
    /// have taken that long.
    pub fn due_places(&self, min_age: Duration, now: Timestamp) -> Vec<ReleaseId> {
        let live = self.live.as_ref();
        let before = self.before.as_ref().filter(|before| Some(*before) != live);
        (live.into_iter().chain(before))
            .filter(|id| {
                self.releases.get(*id).is_some_and(|release| {
                    let counts = live == Some(*id) || release.confirmed;
                    let long_enough = release.live_for(now).is_some_and(|time| time >= min_age);
                    release.place.is_none() && !release.by_rollback && counts && long_enough
                })
            })
            .cloned()
            .collect()
    }
}
