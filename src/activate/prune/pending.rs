//! The pending releases: which count for the limits, and which a request removes. Pure.
//!
//! A deploy that fails after its upload leaves its release pending, under the label of its
//! own key. So a stolen key that makes deploys fail (by a swap in between, say) makes others
//! use up their places. They must not wait for an operator, or for `max_age`, after that.
//! So a `receive` for which there is no place, or little room, removes the oldest pending
//! releases of its own label. It removes none that came within the last ten minutes: a burst
//! of uploads is refused, and a pipeline has the time to swap.
//!
//! A label that has no pending release when all places are in use takes one from the label
//! that has the most, and never its last one. Otherwise two labels could keep out a third.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::archive::DiskNeed;
use crate::config;
use crate::names::{KeyLabel, ReleaseId};
use crate::store::Room;
use crate::store::history::{History, Release};
use crate::store::journal;

/// How long a pending release stays if its label needs its place.
pub const SAFE_FOR: Duration = Duration::from_secs(600);

/// The part of the free space that the pending releases of a label may take before the
/// oldest go: one in so many. Then the next release of that size fits into the half of the
/// key (`receive/share.rs`), also where the pending ones are deltas and count as no room.
const PART: u64 = 4;

/// A pending release that counts for the limits.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a> {
    pub id: &'a ReleaseId,
    pub release: &'a Release,
}

/// Returns the pending releases of `present` that count for the limits, the oldest first.
/// One that is too old does not count: a later request removes it.
pub fn counted<'a>(
    history: &'a History,
    present: &[ReleaseId],
    max_age: Duration,
    now: Timestamp,
) -> Vec<Pending<'a>> {
    let all = history
        .releases
        .iter()
        .map(|(id, release)| Pending { id, release });
    let mut pending: Vec<Pending<'_>> = all
        .filter(|it| it.release.is_pending() && present.contains(it.id))
        .filter(|it| journal::age(it.release.received, now) < max_age)
        .collect();
    pending.sort_by_key(|it| it.release.seq);
    pending
}

/// Chooses the pending releases of `present` that were received `max_age` ago.
pub fn overdue(
    history: &History,
    present: &[ReleaseId],
    max_age: Duration,
    now: Timestamp,
) -> Vec<ReleaseId> {
    let is_overdue = |id: &&ReleaseId| {
        let release = history.releases.get(*id);
        release.is_some_and(|release| {
            release.is_pending() && may_go(history, id, release, max_age, now)
        })
    };
    present.iter().filter(is_overdue).cloned().collect()
}

/// Chooses the pending releases that make place and room for an upload of the label `key`.
///
/// `counted` are those that count, the oldest first, and `free` is what is free above the
/// reserve; none if nothing is.
pub fn displaced(
    history: &History,
    counted: &[Pending<'_>],
    limits: &config::Pending,
    key: Option<&KeyLabel>,
    free: Option<Room>,
    now: Timestamp,
) -> Vec<ReleaseId> {
    let removable = |it: &&Pending<'_>| may_go(history, it.id, it.release, SAFE_FOR, now);
    let mut own: Vec<Pending<'_>> = counted.to_vec();
    own.retain(|it| it.release.key.as_ref() == key);
    let places = limits.max.saturating_sub(counted.len() - own.len());
    let places = places.min(limits.max_per_key);
    if own.is_empty() && places == 0 {
        let largest = largest_label(counted).filter(|label| label.len() > 1);
        let oldest = largest.and_then(|label| label.into_iter().find(|it| removable(&it)));
        return oldest.into_iter().map(|it| it.id.clone()).collect();
    }
    let mut chosen = Vec::new();
    for it in own.iter().filter(removable) {
        let stay: Vec<Pending<'_>> = (own.iter().copied())
            .filter(|other| !chosen.contains(other.id))
            .collect();
        if stay.len() < places && leave_room(&stay, free) {
            break;
        }
        chosen.push(it.id.clone());
    }
    chosen
}

/// Returns whether a request may remove a pending release that is `age` old.
///
/// A release that no request has recorded may have been live: after a loss of the journal, or
/// an `adopt` that was killed. It stays until an operator drops it.
fn may_go(
    history: &History,
    id: &ReleaseId,
    release: &Release,
    age: Duration,
    now: Timestamp,
) -> bool {
    history.live.as_ref() != Some(id)
        && !release.recovered
        && journal::age(release.received, now) >= age
}

/// Returns the pending releases of the label that has the most.
fn largest_label<'a>(counted: &[Pending<'a>]) -> Option<Vec<Pending<'a>>> {
    let mut labels: BTreeMap<Option<&str>, Vec<Pending<'a>>> = BTreeMap::new();
    for it in counted {
        let label = it.release.key.as_ref().map(KeyLabel::as_str);
        labels.entry(label).or_default().push(*it);
    }
    labels.into_values().max_by_key(Vec::len)
}

/// Returns whether releases take little of the room, by the sizes and numbers of files in
/// the journal: their manifests are read in the sandbox only.
fn leave_room(stay: &[Pending<'_>], free: Option<Room>) -> bool {
    let Some(free) = free else {
        return stay.is_empty();
    };
    let taken = stay.iter().map(|it| {
        let files = it.release.files.unwrap_or(0);
        let bytes = it.release.bytes.unwrap_or(0);
        DiskNeed {
            bytes: bytes.saturating_add(files.saturating_mul(free.block)),
            inodes: files,
        }
    });
    let taken = taken.fold(DiskNeed::default(), DiskNeed::plus);
    taken.bytes <= free.bytes / PART && taken.inodes <= free.inodes / PART
}

#[cfg(test)]
mod tests;
