//! The choice of the releases to prune. Pure.
//!
//! A stolen key must not be able to remove a good release by moving the current
//! symlink. So the order in which releases are kept is one that no later request
//! changes:
//!
//! - Releases with a place ([`crate::store::history::Place`]) are kept in the order of
//!   their places. The live and the previous release take two of the `keep + 2` that
//!   stay, if they have places. Where they do not, all of them go to others: a rollback
//!   to the oldest release removes nothing.
//! - A place counts against earlier ones only if the release went live at least
//!   `min_age` ago, and `min_age` apart from the next one that counts. So a key that
//!   swaps through many releases in a short time displaces nothing, and yet the number
//!   of releases on disk is bounded.
//! - Releases that were rolled back from when they first stopped being live are counted
//!   apart, so that they displace no good ones. They are kept for people to look at.
//! - Releases of the bridge stay as well, and displace no others.
//! - Releases that were live and have no place are kept if they are among the newest by
//!   the time when they first became live, or among those that were live longest. By the
//!   first alone, swaps of a second each would displace a release that was live for
//!   minutes; by the second alone, a rollback from a new release would displace it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::pending;
use crate::config::{Bridge, Config};
use crate::names::{KeyLabel, ReleaseId};
use crate::store::history::{FirstLeave, History, Release};
use crate::store::journal;

/// What the configuration says of pruning.
#[derive(Clone, Copy, Debug)]
pub struct PruneRules<'a> {
    pub floor: Option<&'a ReleaseId>,
    /// How many releases stay, besides the live and the previous one.
    pub keep: usize,
    /// How long a release with a place stays after it was last live, if set.
    pub keep_for: Option<Duration>,
    /// How long a release stays after it was last live, and how far apart places must
    /// be to count.
    pub min_age: Duration,
    /// How long a release that was never live stays at most.
    pub pending_max_age: Duration,
    /// Which releases are in use by the bridge.
    pub bridge: &'a Bridge,
}

impl<'a> PruneRules<'a> {
    pub fn new(config: &'a Config) -> PruneRules<'a> {
        PruneRules {
            floor: config.floor.as_ref(),
            keep: config.keep,
            keep_for: config.keep_for,
            min_age: config.min_age,
            pending_max_age: config.pending.max_age,
            bridge: &config.bridge,
        }
    }
}

/// Chooses the releases of `present` to prune.
///
/// The live release, the one that a rollback would choose and those of the bridge are
/// never chosen, nor is one that the journal does not know.
pub fn choose_releases(
    history: &History,
    present: &[ReleaseId],
    rules: PruneRules<'_>,
    now: Timestamp,
) -> Vec<ReleaseId> {
    let Groups {
        mut placed,
        mut rolled_back,
        mut unplaced,
        mut failed,
    } = Groups::new(history, present, rules, now);
    newest_place_first(&mut placed);
    newest_place_first(&mut rolled_back);
    failed.sort_by_key(|it| Reverse(it.release.activated.map_or(it.release.seq, |(seq, _)| seq)));
    rolled_back.retain(|it| !it.stays);
    failed.retain(|it| !it.stays);
    let with_both = rules.keep.saturating_add(2);
    let placed_count = apart(&placed, rules.min_age, now);
    let rolled_back_count = apart(&rolled_back, rules.min_age, now);
    unplaced.sort_by_key(|it| Reverse(it.release.first_live));
    let not_newest = surplus_of_all(&unplaced, with_both);
    unplaced.sort_by_key(|it| Reverse((it.release.longest_live(now), it.release.first_live)));
    let not_longest = surplus_of_all(&unplaced, with_both);
    let displaced = |it: &Candidate<'_>| not_newest.iter().any(|other| other.id == it.id);
    let surplus = surplus(&placed, &placed_count, with_both)
        .into_iter()
        .chain(surplus(&rolled_back, &rolled_back_count, rules.keep))
        .chain(not_longest.into_iter().filter(displaced))
        .chain(failed.into_iter().skip(rules.keep))
        .filter(|it| it.may_go(rules, now));
    let surplus = surplus.map(|it| it.id.clone());
    let overdue = pending::overdue(history, present, rules.pending_max_age, now);
    surplus.chain(overdue).collect()
}

/// Returns the releases of `present` that take no part of the half of their key
/// (`receive/share.rs`). The others are new: a key may make many of them within seconds.
///
/// A release is no longer new once its place counts against earlier ones. One that was live
/// for `min_age` is not new either, and the previous release is not, `min_age` after it was
/// first live: nothing removes them soon, and so they would take part of the half for long.
/// No client with a label sent a release that was adopted.
pub fn releases_that_count<'a>(
    history: &'a History,
    present: &'a [ReleaseId],
    rules: PruneRules<'_>,
    now: Timestamp,
) -> BTreeSet<&'a ReleaseId> {
    let mut groups = Groups::new(history, present, rules, now);
    newest_place_first(&mut groups.placed);
    newest_place_first(&mut groups.rolled_back);
    let mut counting = BTreeSet::new();
    for group in [&groups.placed, &groups.rolled_back] {
        let counts = apart(group, rules.min_age, now);
        let both = group.iter().zip(counts);
        counting.extend(both.filter_map(|(it, counts)| counts.then_some(it.id)));
    }
    let all = groups.all();
    let others = all.filter(|it| {
        let release = it.release;
        let is_old = |(_, since)| journal::age(since, now) >= rules.min_age;
        let was_live_for_long =
            release.activated.is_some() && release.longest_live(now) >= rules.min_age;
        was_live_for_long
            || it.stays && release.first_live.is_some_and(is_old)
            || release.place.is_some() && release.key.is_none()
    });
    counting.extend(others.map(|it| it.id));
    counting
}

/// Chooses the releases of a label that a request may remove for space, of those that were
/// live or failed: all that are new. The live and the previous one stay, and those that were
/// live within `min_age`. `keep_for` and the bridge keep none of them: they would take part of
/// the half of the key for as long.
pub fn releases_that_do_not_count(
    history: &History,
    present: &[ReleaseId],
    rules: PruneRules<'_>,
    key: Option<&KeyLabel>,
    now: Timestamp,
) -> Vec<ReleaseId> {
    let counting = releases_that_count(history, present, rules, now);
    let groups = Groups::new(history, present, rules, now);
    let removed = groups.all().filter(|it| {
        let last = it.release.last_live().unwrap_or(it.release.received);
        let is_old = journal::age(last, now) >= rules.min_age;
        it.release.key.as_ref() == key && is_old && !it.stays && !counting.contains(it.id)
    });
    removed.map(|it| it.id.clone()).collect()
}

fn newest_place_first(group: &mut [Candidate<'_>]) {
    group.sort_by_key(|it| Reverse(it.release.place.map(|place| place.seq)));
}

/// A release that is present and known.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    id: &'a ReleaseId,
    release: &'a Release,
    /// It is the live release or the previous one.
    stays: bool,
    /// The bridge leads to it.
    is_bridged: bool,
}

impl Candidate<'_> {
    /// Returns whether it was last live long enough ago, and the bridge does not lead to it.
    fn may_go(&self, rules: PruneRules<'_>, now: Timestamp) -> bool {
        let last = self.release.last_live().unwrap_or(self.release.received);
        let age = journal::age(last, now);
        let is_kept = |time| self.release.place.is_some() && age < time;
        // Processes may still use a release that was just replaced.
        age >= rules.min_age && !rules.keep_for.is_some_and(is_kept) && !self.is_bridged
    }
}

/// The releases that are counted together.
#[derive(Default)]
struct Groups<'a> {
    placed: Vec<Candidate<'a>>,
    /// They have places, and a rollback or revert was what first replaced them.
    rolled_back: Vec<Candidate<'a>>,
    /// They were live and never failed, and have not earned places.
    unplaced: Vec<Candidate<'a>>,
    /// They failed before they ever passed.
    failed: Vec<Candidate<'a>>,
}

impl<'a> Groups<'a> {
    fn new(
        history: &'a History,
        present: &'a [ReleaseId],
        rules: PruneRules<'_>,
        now: Timestamp,
    ) -> Groups<'a> {
        let previous = history.rollback_target(present, rules.floor);
        let bridged = history.bridged(present, rules.floor, rules.bridge, now);
        let mut groups = Groups::default();
        for id in present {
            if let Some(release) = history.releases.get(id) {
                groups.add(Candidate {
                    id,
                    release,
                    stays: history.live.as_ref() == Some(id) || previous == Some(id),
                    is_bridged: bridged.contains(&id),
                });
            }
        }
        groups
    }

    fn all(&self) -> impl Iterator<Item = &Candidate<'a>> {
        let groups = [
            &self.placed,
            &self.rolled_back,
            &self.unplaced,
            &self.failed,
        ];
        groups.into_iter().flatten()
    }

    fn add(&mut self, candidate: Candidate<'a>) {
        let Release {
            place,
            activated,
            bad,
            confirmed,
            ..
        } = candidate.release;
        let group = match place {
            Some(place) if place.left == FirstLeave::RolledBack => &mut self.rolled_back,
            Some(_) => &mut self.placed,
            None if activated.is_some() && *confirmed => &mut self.unplaced,
            None if activated.is_some() || *bad => &mut self.failed,
            // It is pending; see `pending::overdue`.
            None => return,
        };
        group.push(candidate);
    }
}

/// Returns which places of a group count against earlier ones.
fn apart(newest_first: &[Candidate<'_>], min_age: Duration, now: Timestamp) -> Vec<bool> {
    let mut later: Option<Timestamp> = None;
    let counts = newest_first.iter().map(|candidate| {
        let Some(place) = candidate.release.place else {
            return false;
        };
        let far = |other: Timestamp| journal::age(place.since, other) >= min_age;
        let counts = far(now) && later.is_none_or(far);
        if counts {
            later = Some(place.since);
        }
        counts
    });
    counts.collect()
}

/// Returns the releases of a group that `slots` others come before: those that are
/// earlier in its order and count, and those that stay and count.
fn surplus<'a>(first_kept: &[Candidate<'a>], counts: &[bool], slots: usize) -> Vec<Candidate<'a>> {
    let all = || first_kept.iter().zip(counts);
    let mut others = all().filter(|(it, counts)| it.stays && **counts).count();
    all()
        .filter_map(move |(candidate, counts)| {
            let surplus = !candidate.stays && others >= slots;
            others += usize::from(*counts && !candidate.stays);
            surplus.then_some(*candidate)
        })
        .collect()
}

/// As [`surplus`], where every release counts.
fn surplus_of_all<'a>(first_kept: &[Candidate<'a>], slots: usize) -> Vec<Candidate<'a>> {
    surplus(first_kept, &vec![true; first_kept.len()], slots)
}

#[cfg(test)]
mod tests;
