//! The decisions of an activation: what a request does, which release it falls
//! back to, and which releases are marked bad.
//!
//! Pure: every function takes the [`History`] and facts about the site, and
//! returns a decision. Nothing here reads the disk, the clock or the
//! configuration, so `model.rs` can try every case.

use super::gate::{Cause, GateFailure};
use crate::names::{ReleaseId, Sha256Digest};
use crate::policy::Verb;
use crate::store::history::History;
use crate::store::journal::How;

/// The requests that move the current symlink. A revert is no request: it is a part
/// of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    Swap,
    Rollback,
}

impl RequestKind {
    /// Returns the word of the journal for the move that it asks for.
    pub fn how(self) -> How {
        match self {
            RequestKind::Swap => How::Swap,
            RequestKind::Rollback => How::Rollback,
        }
    }

    pub fn verb(self) -> Verb {
        match self {
            RequestKind::Swap => Verb::Swap,
            RequestKind::Rollback => Verb::Rollback,
        }
    }
}

/// What the client asks for.
#[derive(Clone, Copy, Debug)]
pub struct ActivationRequest<'a> {
    pub kind: RequestKind,
    /// None: the release that was live and good before the current one. Only a
    /// rollback has none.
    pub release: Option<&'a ReleaseId>,
    /// If set: the payload that the release must be, or nothing happens (see
    /// [`check_digest`]).
    pub sha256: Option<Sha256Digest>,
    /// If set: the release that must be live, or nothing happens.
    pub if_current: Option<&'a ReleaseId>,
}

/// What a request does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The release is live already. `confirm`: the journal waits for checks
    /// that the configuration no longer has, so the release is confirmed.
    Unchanged { release: ReleaseId, confirm: bool },
    /// The release is live, but its post-swap checks have not passed: run them
    /// again, and then see [`after_failed_recheck`].
    Recheck {
        release: ReleaseId,
        previous: Option<ReleaseId>,
    },
    /// Make another release live: preflight, checks, fallback symlink, commit,
    /// post-swap checks.
    Move(Move),
}

impl Plan {
    /// Returns the release that is live after the request, if nothing fails.
    pub fn release(&self) -> &ReleaseId {
        match self {
            Plan::Unchanged { release, .. } | Plan::Recheck { release, .. } => release,
            Plan::Move(planned) => &planned.to,
        }
    }
}

/// A planned change of the current symlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub kind: RequestKind,
    /// The release that is live when the request is planned.
    pub from: Option<ReleaseId>,
    pub to: ReleaseId,
    /// Whether `from` was bad when the request was planned. If the request is a
    /// rollback, its commit marks `from` bad, and `from` may be the fallback all
    /// the same.
    from_was_bad: bool,
}

/// The revert of a release that failed its post-swap checks: the automatic rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revert {
    /// The live release, which failed.
    pub failed: ReleaseId,
    /// The release that was live before it.
    pub previous: Option<ReleaseId>,
    /// The release to restore. None: the current symlink is removed.
    pub fallback: Option<ReleaseId>,
}

/// What happens to a live release that failed its checks when they ran again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailedRecheck {
    /// It is confirmed: it passed its checks after the last swap or rollback to
    /// it, and the checks that failed now are those after a revert to it. It
    /// worked before, so the cause is probably outside of the release, and any
    /// other release would fail too: it stays live.
    StayConfirmed,
    /// No release is good enough to fall back to: it stays live, unconfirmed.
    StayWithoutFallback,
    Revert(Revert),
}

/// Why a request is refused. Nothing has changed, and no hook has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotCurrent {
        live: Option<ReleaseId>,
        expected: ReleaseId,
    },
    /// The target of a swap is not present.
    Absent(ReleaseId),
    /// A rollback that names no release finds none.
    NoPrevious,
    /// The release that a rollback names is not one to roll back to.
    NotGood(ReleaseId, NotGood),
    /// The release is another payload than the request names.
    OtherPayload(ReleaseId),
    UnknownFloor(ReleaseId),
    BelowFloor {
        release: ReleaseId,
        floor: ReleaseId,
    },
}

/// Why a rollback does not go to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotGood {
    Absent,
    /// It is marked bad. It may never have been live: a failure before the commit
    /// marks as well.
    Bad,
    NeverLive,
}

/// Facts about the site that a fallback depends on. Most of them cost I/O, so they
/// are looked up when they are needed.
pub trait Facts {
    /// Whether `releases/` has an entry of this name, with a manifest or without
    /// one; true on an I/O error.
    fn has_directory(&self, release: &ReleaseId) -> bool;

    /// The releases that are present: those that have a directory and a manifest.
    /// None on an I/O error.
    fn present(&self) -> Vec<ReleaseId>;

    /// The release that a live one must not be older than.
    fn floor(&self) -> Option<&ReleaseId>;

    /// Whether the release is present and passes preflight.
    fn passes_preflight(&self, release: &ReleaseId) -> bool;
}

/// Plans a request.
///
/// `present` has the present releases (see [`Facts::present`]), of those that the
/// request may mean. `has_checks` says whether the site has post-swap checks.
///
/// # Errors
///
/// Returns a [`Refusal`] when the request does nothing.
pub fn plan(
    history: &History,
    present: &[ReleaseId],
    floor: Option<&ReleaseId>,
    has_checks: bool,
    request: ActivationRequest<'_>,
) -> Result<Plan, Refusal> {
    // Compare and swap: the release that the client believes to be live must be.
    if let Some(expected) = request.if_current
        && history.live.as_ref() != Some(expected)
    {
        return Err(Refusal::NotCurrent {
            live: history.live.clone(),
            expected: expected.clone(),
        });
    }
    let to = target(history, present, floor, request)?.clone();
    let from = history.live.clone();
    if from.as_ref() != Some(&to) {
        return Ok(Plan::Move(Move {
            kind: request.kind,
            from_was_bad: from.as_ref().is_some_and(|from| is_bad(history, from)),
            from,
            to,
        }));
    }
    if history.confirmation_pending && has_checks {
        return Ok(Plan::Recheck {
            release: to,
            previous: history.before.clone(),
        });
    }
    Ok(Plan::Unchanged {
        release: to,
        confirm: history.confirmation_pending,
    })
}

/// Returns the release that a request means.
fn target<'a>(
    history: &'a History,
    present: &[ReleaseId],
    floor: Option<&ReleaseId>,
    request: ActivationRequest<'a>,
) -> Result<&'a ReleaseId, Refusal> {
    match (request.kind, request.release) {
        (RequestKind::Swap, Some(id)) if present.contains(id) => Ok(id),
        (RequestKind::Swap, Some(id)) => Err(Refusal::Absent(id.clone())),
        (_, None) => {
            // A release below the floor is skipped: preflight would refuse it
            // anyway. A release whose signatures are no longer valid is not skipped:
            // preflight refuses it, and the client learns why. Skipping it would
            // make an older one live that nobody asked for, and hide the reason.
            check_floor(history, floor)?;
            history
                .rollback_target(present, floor)
                .ok_or(Refusal::NoPrevious)
        }
        (RequestKind::Rollback, Some(id)) => {
            let problem = match history.releases.get(id) {
                _ if !present.contains(id) => NotGood::Absent,
                Some(release) if release.bad => NotGood::Bad,
                Some(release) if release.good() => return Ok(id),
                _ => NotGood::NeverLive,
            };
            Err(Refusal::NotGood(id.clone(), problem))
        }
    }
}

/// Checks that one of the `digests` of the planned release is the `expected` one: another
/// key may have received something else under the id first.
///
/// # Errors
///
/// Returns [`Refusal::OtherPayload`].
pub fn check_digest(
    release: &ReleaseId,
    digests: &[Sha256Digest],
    expected: Sha256Digest,
) -> Result<(), Refusal> {
    if digests.contains(&expected) {
        Ok(())
    } else {
        Err(Refusal::OtherPayload(release.clone()))
    }
}

/// Checks that the floor was received once: a misspelled floor would otherwise
/// allow every release.
///
/// # Errors
///
/// Returns [`Refusal::UnknownFloor`].
pub fn check_floor(history: &History, floor: Option<&ReleaseId>) -> Result<(), Refusal> {
    match floor {
        Some(floor) if !history.knows(floor) => Err(Refusal::UnknownFloor(floor.clone())),
        _ => Ok(()),
    }
}

/// Checks that `release` is no older than the floor.
///
/// # Errors
///
/// Returns [`Refusal::UnknownFloor`] or [`Refusal::BelowFloor`].
pub fn check_above_floor(
    history: &History,
    floor: Option<&ReleaseId>,
    release: &ReleaseId,
) -> Result<(), Refusal> {
    check_floor(history, floor)?;
    match floor {
        Some(floor) if !history.received_at_or_after(release, Some(floor)) => {
            Err(Refusal::BelowFloor {
                release: release.clone(),
                floor: floor.clone(),
            })
        }
        _ => Ok(()),
    }
}

impl Move {
    /// Chooses the release to fall back to when `self.to` fails after the commit:
    ///
    /// 1. `self.from`, if its directory exists, it is confirmed and it was not bad.
    ///    It needs no preflight, and may be below the floor: it was live moments
    ///    ago, and `self.to` is known not to work.
    /// 2. The release that a rollback without a release would choose (see
    ///    [`last_good`]), if it passes preflight.
    /// 3. `self.from`, if its directory exists and it was not bad. It is
    ///    unconfirmed: its checks have not run to their end, or it failed them and
    ///    there was no fallback. But it was live until now.
    /// 4. None: the current symlink is removed, so nothing is live. The failed
    ///    release does not stay live for want of a fallback; compare
    ///    [`after_failed_recheck`].
    pub fn fallback(&self, history: &History, facts: &dyn Facts) -> Option<ReleaseId> {
        let from = self.from.as_ref()?;
        // A directory is enough: the release may have been put there before this
        // program managed the site, so it has no manifest.
        let usable = !self.from_was_bad && facts.has_directory(from);
        if usable && is_confirmed(history, from) {
            return Some(from.clone());
        }
        last_good(history, facts, &self.to).or_else(|| usable.then(|| from.clone()))
    }

    /// Plans the revert after `self.to` failed its post-swap checks.
    pub fn revert(self, history: &History, facts: &dyn Facts) -> Revert {
        Revert {
            fallback: self.fallback(history, facts),
            failed: self.to,
            previous: self.from,
        }
    }
}

/// Chooses the release to fall back to from a live release whose checks ran
/// again and failed: `previous`, or else the release that a rollback would choose.
/// The swap may be long ago, so `previous` must be confirmed, not be bad, and pass
/// preflight today.
pub fn fallback_after_recheck(
    history: &History,
    facts: &dyn Facts,
    live: &ReleaseId,
    previous: Option<&ReleaseId>,
) -> Option<ReleaseId> {
    let previous = previous?;
    let usable = is_confirmed(history, previous) && !is_bad(history, previous);
    if usable && facts.passes_preflight(previous) {
        Some(previous.clone())
    } else {
        last_good(history, facts, live)
    }
}

/// Decides what happens to the `live` release when its checks ran again and
/// failed.
pub fn after_failed_recheck(
    history: &History,
    facts: &dyn Facts,
    live: ReleaseId,
    previous: Option<ReleaseId>,
) -> FailedRecheck {
    if is_confirmed(history, &live) {
        return FailedRecheck::StayConfirmed;
    }
    let fallback = fallback_after_recheck(history, facts, &live, previous.as_ref());
    // The live release has been live for a while and may work in part, so it is
    // better than nothing. If nothing was live before it, nothing is live again.
    if previous.is_some() && fallback.is_none() {
        return FailedRecheck::StayWithoutFallback;
    }
    FailedRecheck::Revert(Revert {
        failed: live,
        previous,
        fallback,
    })
}

/// Returns the release that a rollback without a release would choose, with `failed`
/// left out, if it passes preflight: the one that was last live, of those that are
/// not bad ([`History::previous`]). Like a rollback, it skips releases below the
/// floor; it does not skip one that fails preflight for another reason.
fn last_good(history: &History, facts: &dyn Facts, failed: &ReleaseId) -> Option<ReleaseId> {
    let (present, floor) = (facts.present(), facts.floor());
    let good = history.previous(|id| {
        present.contains(id) && history.received_at_or_after(id, floor) && id != failed
    });
    good.filter(|id| facts.passes_preflight(id)).cloned()
}

/// Decides whether a failure before the commit marks the target bad.
///
/// A failed rollback never marks its target: a person rolls back in an emergency,
/// the failure may have another cause than the target, and a mark would take away
/// the release to go back to. A failure that says nothing about the release marks nothing
/// either.
///
/// A revert after the commit always marks the release, also after an inconclusive
/// failure: the release stays unconfirmed, and no rollback may choose such a one.
pub fn should_mark_bad_before_commit(kind: RequestKind, failure: &GateFailure) -> bool {
    kind == RequestKind::Swap && failure.cause == Cause::Release
}

/// Decides whether to mark a release bad that failed after another process changed
/// the current symlink. A confirmed release worked before, so the cause is probably
/// outside of it.
pub fn should_mark_bad_when_superseded(history: &History, failed: &ReleaseId) -> bool {
    !is_confirmed(history, failed)
}

fn is_bad(history: &History, release: &ReleaseId) -> bool {
    let known = history.releases.get(release);
    known.is_some_and(|known| known.bad)
}

/// Returns whether a release passed its post-swap checks after the last swap or
/// rollback to it; true for one that the journal does not know.
fn is_confirmed(history: &History, release: &ReleaseId) -> bool {
    let known = history.releases.get(release);
    known.is_none_or(|known| known.confirmed)
}

#[cfg(test)]
mod tests;
