//! The pending releases: which of them count for the limits, and which of them a request
//! removes. Pure.
//!
//! A deploy that fails after its upload leaves its release pending, under the label of its
//! own key. So a stolen key that makes deploys fail (by a swap in between, for example) makes
//! other keys use up their limits. These keys must not wait for an operator, or for
//! `max_age`, once the attack has ended. So only releases of the last ten minutes block an
//! upload: a burst of uploads is refused, and a pipeline has time to swap. An upload that is
//! published may make one release too many, and the next request removes an older one.
//!
//! So a request removes only what earlier uploads have made too many. If it removed releases
//! for its own upload, one that is refused later, such as one that nobody has signed, would
//! remove them for nothing. A removal after its own upload would need more rights in the
//! sandbox of `receive` (see [`crate::privileges`]).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::config;
use crate::names::{KeyLabel, ReleaseId};
use crate::store::history::{History, Release};
use crate::store::journal;

/// How long a pending release stays at least.
pub const MIN_PENDING_AGE: Duration = Duration::from_secs(600);

/// A pending release that counts for the limits.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a> {
    pub id: &'a ReleaseId,
    /// The label of the key that sent it.
    pub key: Option<&'a KeyLabel>,
    /// The number of its record.
    seq: u64,
    age: Duration,
    /// Whether no request may remove it.
    kept: bool,
}

impl<'a> Pending<'a> {
    /// Returns the release of a request, as if it was received now.
    pub fn incoming(id: &'a ReleaseId, key: Option<&'a KeyLabel>) -> Pending<'a> {
        Pending {
            id,
            key,
            seq: u64::MAX,
            age: Duration::ZERO,
            kept: true,
        }
    }

    fn is_removable(&self, age: Duration) -> bool {
        !self.kept && self.age >= age
    }
}

/// Returns the pending releases of `present` that count for the limits, the oldest first.
/// One that is too old does not count: a later request removes it. Those of `kept` stay.
pub fn counted<'a>(
    history: &'a History,
    present: &[ReleaseId],
    kept: &[ReleaseId],
    max_age: Duration,
    now: Timestamp,
) -> Vec<Pending<'a>> {
    let pending = (history.releases.iter())
        .filter(|(id, release)| release.is_pending() && present.contains(id))
        .map(|(id, release)| Pending {
            id,
            key: release.key.as_ref(),
            seq: release.seq,
            age: journal::age(release.received, now),
            kept: kept.contains(id) || !may_go(history, id, release),
        });
    let mut pending: Vec<Pending<'_>> = pending.filter(|it| it.age < max_age).collect();
    pending.sort_by_key(|it| it.seq);
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
        history.releases.get(*id).is_some_and(|release| {
            release.is_pending()
                && may_go(history, id, release)
                && journal::age(release.received, now) >= max_age
        })
    };
    present.iter().filter(is_overdue).cloned().collect()
}

/// Returns whether a request may remove a pending release.
///
/// A release that no request has recorded may have been live: after a loss of the journal, or
/// an `adopt` that was killed. It stays until an operator drops it.
fn may_go(history: &History, id: &ReleaseId, release: &Release) -> bool {
    history.live.as_ref() != Some(id) && !release.recovered
}

/// Chooses the releases of `counted` that are too many and were received at least `age` ago.
///
/// A label with more than `max_per_key` loses its oldest ones. If there are more than `max`,
/// the label of the newest release loses its oldest one. If that label has none that is old
/// enough, the label with the most loses its oldest one, if it has more. So two labels cannot
/// keep out a third, and the third takes no more than its share of what the two have. Nothing
/// is chosen where too many would be left all the same.
pub fn surplus<'a>(
    counted: &[Pending<'a>],
    limits: &config::Pending,
    age: Duration,
) -> Vec<&'a ReleaseId> {
    let mut chosen = Vec::new();
    for label in labels(counted).into_values() {
        // This stops all uploads, and removes nothing.
        if limits.max_per_key == 0 {
            break;
        }
        let too_many = label.len().saturating_sub(limits.max_per_key);
        let removable = label.iter().filter(|it| it.is_removable(age));
        let oldest: Vec<&ReleaseId> = removable.take(too_many).map(|it| it.id).collect();
        if oldest.len() == too_many {
            chosen.extend(oldest);
        }
    }
    let mut stay = without(counted, &chosen);
    let of_labels = chosen.len();
    // Terminates: each turn takes one of `stay`.
    while stay.len() > limits.max {
        let Some(next) = one_of_all(&stay, age) else {
            chosen.truncate(of_labels);
            break;
        };
        chosen.push(next);
        stay.retain(|it| it.id != next);
    }
    chosen
}

/// Chooses one where all labels together have too many. Of labels that have as many, the one
/// with the oldest release loses it.
fn one_of_all<'a>(stay: &[Pending<'a>], age: Duration) -> Option<&'a ReleaseId> {
    let newest = stay.last()?.key.map(KeyLabel::as_str);
    let mut labels = labels(stay);
    let own = labels.remove(&newest)?;
    let oldest_of = |all: &[Pending<'a>]| all.iter().find(|it| it.is_removable(age)).copied();
    // The newest one is what the others make place for.
    let (_, earlier) = own.split_last()?;
    if let Some(oldest) = oldest_of(earlier) {
        return Some(oldest.id);
    }
    // Those that have more, so that a key takes no more of the places of others than its share.
    labels.retain(|_, all| all.len() > own.len());
    let oldest = labels.into_values().filter_map(|all| {
        let oldest = oldest_of(&all)?;
        Some((all.len(), Reverse(oldest.seq), oldest.id))
    });
    let (.., id) = oldest.max_by_key(|(number, seq, _)| (*number, *seq))?;
    Some(id)
}

fn labels<'a>(counted: &[Pending<'a>]) -> BTreeMap<Option<&'a str>, Vec<Pending<'a>>> {
    let mut labels: BTreeMap<Option<&str>, Vec<Pending<'_>>> = BTreeMap::new();
    for it in counted {
        let label = it.key.map(KeyLabel::as_str);
        labels.entry(label).or_default().push(*it);
    }
    labels
}

/// Returns those of `counted` that are not chosen.
pub fn without<'a>(counted: &[Pending<'a>], chosen: &[&ReleaseId]) -> Vec<Pending<'a>> {
    let stay = counted.iter().filter(|it| !chosen.contains(&it.id));
    stay.copied().collect()
}

/// Chooses the releases of a label that a request may remove for space.
pub fn old_ones<'a>(counted: &[Pending<'a>], key: Option<&KeyLabel>) -> Vec<&'a ReleaseId> {
    let own = counted.iter().filter(|it| it.key == key);
    let old = own.filter(|it| it.is_removable(MIN_PENDING_AGE));
    old.map(|it| it.id).collect()
}

#[cfg(test)]
mod tests;
