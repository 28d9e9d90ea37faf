//! The pending releases: which of them count for the limits, and which of them a request
//! removes. Pure.
//!
//! A deploy that fails after its upload leaves its release pending, under the label of its
//! own key. So a stolen key that makes deploys fail (by a swap in between, for example) makes
//! other keys use up their limits. These keys must not wait for an operator, or for
//! `max_age`, once the attack has ended. So a `receive` that reaches a limit on pending
//! releases, or has little space, removes the oldest ones of its own label. A release of the
//! last ten minutes stays: a burst of uploads is refused, and a pipeline has time to swap.
//!
//! If the site has as many as it may have and the label has none, another label loses its
//! oldest one, and never its only one. Otherwise two labels could keep out a third.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::archive::{self, DiskNeed};
use crate::config;
use crate::names::{KeyLabel, ReleaseId};
use crate::store::Room;
use crate::store::history::{History, Release};
use crate::store::journal;

/// How long a pending release stays at least.
pub const MIN_PENDING_AGE: Duration = Duration::from_secs(600);

/// The pending releases of a label may take one part in so many of the free space. Older ones
/// go. Then the next release of the same size fits into the half of the key
/// (`receive/share.rs`), also where the pending ones are deltas, whose removal may free
/// nothing. Nobody knows the size of an upload before it has arrived: a larger one may be
/// refused.
const FREE_SPACE_PART: u64 = 4;

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
            release.is_pending()
                && history.live.as_ref() != Some(*id)
                && is_removable(release, max_age, now)
        })
    };
    present.iter().filter(is_overdue).cloned().collect()
}

/// Chooses the pending releases that an upload of the label `key` removes.
///
/// `counted` are those that count, the oldest first. Those of `kept` stay in any case. `free`
/// is what is free above the reserve; none if nothing is.
pub fn displaced(
    counted: &[Pending<'_>],
    limits: &config::Pending,
    key: Option<&KeyLabel>,
    free: Option<Room>,
    kept: &[ReleaseId],
    now: Timestamp,
) -> Vec<ReleaseId> {
    let removable =
        |it: &&Pending<'_>| !kept.contains(it.id) && is_removable(it.release, MIN_PENDING_AGE, now);
    let mut stay = counted.to_vec();
    let mut chosen = Vec::new();
    // Terminates: each turn takes one of `stay`.
    loop {
        let own: Vec<Pending<'_>> = (stay.iter().copied())
            .filter(|it| it.release.key.as_ref() == key)
            .collect();
        let too_many = own.len() >= limits.max_per_key || stay.len() >= limits.max;
        if !too_many && take_little(&own, free) {
            return chosen;
        }
        let oldest = if own.is_empty() {
            oldest_of_other_labels(&stay, removable)
        } else {
            own.iter().find(removable).copied()
        };
        match oldest {
            Some(oldest) => {
                chosen.push(oldest.id.clone());
                stay.retain(|it| it.id != oldest.id);
            }
            // The request is refused. It removes nothing.
            None if too_many => return Vec::new(),
            None => return chosen,
        }
    }
}

/// Returns the oldest removable release of the label that has the most, and has two at least.
/// Of labels that have as many, the one with the oldest release loses it.
fn oldest_of_other_labels<'a>(
    counted: &[Pending<'a>],
    removable: impl Fn(&&Pending<'a>) -> bool,
) -> Option<Pending<'a>> {
    let mut labels: BTreeMap<Option<&str>, Vec<Pending<'a>>> = BTreeMap::new();
    for it in counted {
        let label = it.release.key.as_ref().map(KeyLabel::as_str);
        labels.entry(label).or_default().push(*it);
    }
    let candidates = labels.into_values().filter(|label| label.len() > 1);
    let candidates = candidates.filter_map(|label| {
        let oldest = label.iter().find(&removable).copied()?;
        Some((label.len(), Reverse(oldest.release.seq), oldest))
    });
    let (_, _, oldest) = candidates.max_by_key(|(number, seq, _)| (*number, *seq))?;
    Some(oldest)
}

/// Returns whether a request may remove a pending release at this age.
///
/// A release that no request has recorded may have been live: after a loss of the journal, or
/// an `adopt` that was killed. It stays until an operator drops it.
fn is_removable(release: &Release, age: Duration, now: Timestamp) -> bool {
    !release.recovered && journal::age(release.received, now) >= age
}

/// Returns whether releases take little of the free space, by the sizes and numbers of files
/// in the journal: only the sandbox reads manifests.
fn take_little(releases: &[Pending<'_>], free: Option<Room>) -> bool {
    let Some(free) = free else {
        return releases.is_empty();
    };
    let needs = releases.iter().map(|it| {
        let (files, bytes) = (it.release.files, it.release.bytes);
        archive::estimated_need(files.unwrap_or(0), bytes.unwrap_or(0), free.block)
    });
    let need = needs.fold(DiskNeed::default(), DiskNeed::plus);
    need.bytes <= free.bytes / FREE_SPACE_PART && need.inodes <= free.inodes / FREE_SPACE_PART
}

#[cfg(test)]
mod tests;
