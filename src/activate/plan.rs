//! The decisions of an activation: what a request does, which release it falls
//! back to, and which releases are marked bad.
//!
//! Pure: every function takes the [`History`] and facts about the site, and
//! returns a decision. Nothing here reads the disk, the clock or the
//! configuration, so `model.rs` can try every case.

use super::gate::GateFailure;
use crate::names::ReleaseId;
use crate::store::history::History;
use crate::store::journal::How;

/// What the client asks for.
#[derive(Clone, Copy, Debug)]
pub struct ActivationRequest<'a> {
    pub how: How,
    /// None: the release that was live and good before the present one.
    pub release: Option<&'a ReleaseId>,
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
    /// Preflight, checks, fallback symlink, commit, post-swap checks.
    Move(Move),
}

/// A planned change of the current symlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub how: How,
    pub from: Option<ReleaseId>,
    pub to: ReleaseId,
    /// Whether `from` is marked bad before the commit. A rollback marks it bad
    /// with the commit, and may fall back to it all the same.
    from_is_bad: bool,
}

/// An automatic rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revert {
    /// The live release, which failed its post-swap checks.
    pub failed: ReleaseId,
    /// The release that was live before it.
    pub previous: Option<ReleaseId>,
    /// The release to restore. None: the current symlink is removed.
    pub fallback: Option<ReleaseId>,
}

/// What happens to a live release that failed its checks when they ran again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailedRecheck {
    /// The release was confirmed once, so something around it has failed, and any
    /// other release would fail too: it stays live.
    StayConfirmed,
    /// No release is good enough to fall back to: it stays live.
    StayWithoutFallback,
    Revert(Revert),
}

/// Why a request is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotCurrent {
        live: Option<ReleaseId>,
        expected: ReleaseId,
    },
    /// The target of a swap is not there.
    Absent(ReleaseId),
    /// A rollback without a release finds none.
    NoPrevious,
    /// A rollback may not go to its target.
    NotGood(ReleaseId, NotGood),
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
    Bad,
    NeverLive,
}

/// Facts about the site that a fallback depends on. They cost I/O, so they are
/// looked up when they are needed.
pub trait Facts {
    /// Whether `releases/` has an entry of this name; true on an I/O error.
    fn exists(&self, release: &ReleaseId) -> bool;

    /// The releases that have a directory and a manifest; none on an I/O error.
    fn present(&self) -> Vec<ReleaseId>;

    /// The release that a live one must not be older than.
    fn floor(&self) -> Option<&ReleaseId>;

    /// Whether the release is present and passes preflight.
    fn passes_preflight(&self, release: &ReleaseId) -> bool;
}

/// Plans a request.
///
/// `present` has the releases on disk, of those that the request may mean.
/// `has_checks` says whether the site has post-swap checks.
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
            how: request.how,
            from_is_bad: from.as_ref().is_some_and(|from| is_bad(history, from)),
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
    match (request.how, request.release) {
        (How::Swap, Some(id)) if present.contains(id) => Ok(id),
        (How::Swap, Some(id)) => Err(Refusal::Absent(id.clone())),
        (_, None) => {
            // A release below the floor is skipped: no client can mean it. A
            // release whose signatures are no longer valid is not skipped: an
            // older one would go live unasked, and the reason would be hidden.
            check_floor(history, floor)?;
            history
                .previous(|id| present.contains(id) && history.reaches(id, floor))
                .ok_or(Refusal::NoPrevious)
        }
        (_, Some(id)) => {
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
        Some(floor) if !history.reaches(release, Some(floor)) => Err(Refusal::BelowFloor {
            release: release.clone(),
            floor: floor.clone(),
        }),
        _ => Ok(()),
    }
}

impl Move {
    /// Chooses the release to fall back to when `self.to` fails: `self.from` if
    /// it exists, is confirmed and was not marked bad, without preflight (it
    /// was live moments ago, and the present one is known not to work).
    /// Otherwise the release that a rollback would choose, if it passes
    /// preflight. Otherwise `self.from` if it exists and was not marked bad:
    /// its checks had no chance to pass yet. Otherwise none, and the current
    /// symlink is removed, as before the first release: a failed release never
    /// stays live.
    pub fn fallback(&self, history: &History, facts: &dyn Facts) -> Option<ReleaseId> {
        let from = self.from.as_ref()?;
        // A directory is enough: the release may be older than our journal.
        let usable = !self.from_is_bad && facts.exists(from);
        if usable && is_confirmed(history, from) {
            return Some(from.clone());
        }
        last_good(history, facts, &self.to).or_else(|| usable.then(|| from.clone()))
    }

    /// Plans the automatic rollback after `self.to` failed its post-swap checks.
    pub fn revert(self, history: &History, facts: &dyn Facts) -> Revert {
        Revert {
            fallback: self.fallback(history, facts),
            failed: self.to,
            previous: self.from,
        }
    }
}

/// Chooses the release to fall back to from a live release whose checks ran
/// again and failed. The swap may be long ago, so `previous` must be confirmed,
/// not be bad, and pass preflight today.
pub fn fallback_for_live(
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
    let fallback = fallback_for_live(history, facts, &live, previous.as_ref());
    // Before the first release nothing was live, and nothing is again.
    if previous.is_some() && fallback.is_none() {
        return FailedRecheck::StayWithoutFallback;
    }
    FailedRecheck::Revert(Revert {
        failed: live,
        previous,
        fallback,
    })
}

/// Returns the release that a rollback would choose, if it passes preflight.
fn last_good(history: &History, facts: &dyn Facts, failed: &ReleaseId) -> Option<ReleaseId> {
    let (present, floor) = (facts.present(), facts.floor());
    let good =
        history.previous(|id| present.contains(id) && history.reaches(id, floor) && id != failed);
    good.filter(|id| facts.passes_preflight(id)).cloned()
}

/// Decides whether a failure before the commit marks the target bad.
///
/// A failed rollback never marks its target: a person rolls back in an emergency,
/// the failure may have another cause than the target, and a mark would take away
/// the release to go back to. A check that could not run marks nothing either.
pub fn marks_before_commit(how: How, failure: &GateFailure) -> bool {
    how == How::Swap && failure.ran
}

/// Decides whether to mark a release bad that failed after another process changed
/// the current symlink. For a release that was confirmed before, the failure may
/// have another cause.
pub fn marks_superseded(history: &History, failed: &ReleaseId) -> bool {
    !is_confirmed(history, failed)
}

fn is_bad(history: &History, release: &ReleaseId) -> bool {
    let known = history.releases.get(release);
    known.is_some_and(|known| known.bad)
}

/// Returns whether a release passed its post-swap checks; true for one that
/// the journal does not know.
fn is_confirmed(history: &History, release: &ReleaseId) -> bool {
    let known = history.releases.get(release);
    known.is_none_or(|known| known.confirmed)
}

#[cfg(test)]
mod tests;
