//! A swap or rollback from preflight to the post-swap checks.
//!
//! Every move of the current symlink has three steps ([`commit`]): journal the
//! intent `activating`, rename the symlink, journal the event. The rename is the
//! commit point. "Before the commit" and "after the commit" mean the rename.
//!
//! A failure before the commit changes nothing of what is live. A release that
//! fails its post-swap checks after the commit is replaced by its fallback
//! ([`revert`]), by the same three steps.
//!
//! If this process is killed between the rename and the event, `Ledger::open` of
//! the next request completes the journal. If it is killed before the post-swap
//! checks have passed, the release stays live, and the journal says that it is
//! unconfirmed: no rollback chooses it, and a request for it runs its checks again
//! ([`recheck`]). Nobody runs them before such a request comes.

use super::gate::{GateContext, GateFailure};
use super::outcome::{self, ExternalChange, LiveNow, Outcome, StayReason};
use super::plan::{self, FailedRecheck, Move, RequestKind};
use super::revert::{revert, superseded};
use super::site::Site;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::store::journal::{Event, How};
use crate::success::Change;

/// Why the live release is not confirmed.
pub(super) enum ConfirmError {
    Failed(GateFailure),
    /// The release is not live any more. Also says why it failed, if it did.
    Superseded(ExternalChange, Option<GateFailure>),
}

/// Makes `planned.to` live, if it passes the site's checks.
///
/// # Errors
///
/// Returns what failed before the commit: preflight, a changed current symlink
/// ([`Code::NotCurrent`]), or the disk. The next request removes the temporary
/// symlinks that an error leaves.
pub(super) fn activate(site: &mut dyn Site, planned: Move) -> Result<Outcome> {
    let Move { kind, from, to, .. } = planned.clone();
    let context = GateContext {
        release: &to,
        previous: from.as_ref(),
    };
    site.preflight(Some(kind), context)?;
    if let Err(failure) = site.check_before_commit(kind, context)? {
        return Ok(abort_before_commit(site, planned, failure));
    }
    // The revert chooses its fallback again, because the post-swap checks may
    // take long. If it then chooses another release, this symlink is not used.
    if site.has_post_swap_checks()
        && let Some(fallback) = planned.fallback(site.history(), site)
    {
        site.prepare_fallback_link(&fallback)?;
    }
    commit(site, kind.how(), from.as_ref(), Some(&to)).inspect_err(|_| site.clear_links())?;
    // With post-swap checks, the release passes its gate by them. A rollback earns nothing.
    if kind == RequestKind::Swap
        && !site.has_post_swap_checks()
        && site.has_checks_before_commit(kind)
    {
        note_place(site, &to);
    }
    Ok(match verify_live(site, &to, from.as_ref()) {
        Ok(()) => Outcome::Live {
            kind,
            release: to,
            previous: from,
            change: Change::Moved,
        },
        Err(ConfirmError::Failed(failure)) => {
            let plan = planned.revert(site.history(), site);
            revert(site, plan, failure)
        }
        Err(ConfirmError::Superseded(change, failure)) => superseded(site, to, change, failure),
    })
}

/// Ends an activation whose target failed before the commit.
fn abort_before_commit(site: &mut dyn Site, planned: Move, failure: GateFailure) -> Outcome {
    let marked = plan::should_mark_bad_before_commit(planned.kind, &failure);
    if marked {
        let record = site.new_record(Event::Failed, Some(&planned.to));
        site.append_or_warn(record);
    }
    let live = match externally_moved(site, planned.from.as_ref()) {
        None => LiveNow::AsBefore(planned.from),
        Some(change) => LiveNow::Changed(change),
    };
    Outcome::Aborted {
        failed: planned.to,
        failure,
        live,
        marked_bad: marked && site.all_bad_marks_are_durable(),
    }
}

/// Runs the post-swap checks of the live release again, after an earlier
/// request was killed before they finished, or after a revert made this release
/// live and it failed them.
///
/// # Errors
///
/// Returns what fails in preflight.
pub(super) fn recheck(
    site: &mut dyn Site,
    kind: RequestKind,
    release: ReleaseId,
    previous: Option<ReleaseId>,
) -> Result<Outcome> {
    let context = GateContext {
        release: &release,
        previous: previous.as_ref(),
    };
    site.preflight(None, context)?;
    let fallback = plan::fallback_after_recheck(site.history(), site, &release, previous.as_ref());
    // A failure here does not stop the checks: if they pass, no fallback is needed.
    if let Some(fallback) = fallback
        && let Err(error) = site.prepare_fallback_link(&fallback)
    {
        site.warn(error.to_string());
    }
    let failure = match verify_live(site, &release, previous.as_ref()) {
        Ok(()) => {
            return Ok(Outcome::Live {
                kind,
                release,
                previous,
                change: Change::Confirmed,
            });
        }
        Err(ConfirmError::Superseded(change, failure)) => {
            return Ok(superseded(site, release, change, failure));
        }
        Err(ConfirmError::Failed(failure)) => failure,
    };
    let failed = release.clone();
    let decision = plan::after_failed_recheck(site.history(), site, release, previous);
    let reason = match decision {
        FailedRecheck::StayConfirmed => StayReason::WasConfirmed,
        FailedRecheck::StayWithoutFallback => StayReason::NoFallback,
        FailedRecheck::Revert(plan) => return Ok(revert(site, plan, failure)),
    };
    // Nothing moved and nothing is marked, so there is nothing to report beside
    // the failed check and the result of this request.
    Ok(Outcome::StaysLive {
        failed,
        failure,
        reason,
    })
}

/// Moves the current symlink, with the intent in the journal before it and the
/// event after it.
///
/// The rename is the commit point. A failed sync or journal write after it does
/// not turn success into failure: the next request takes the symlink as the truth,
/// and repairs what could not be synced or journaled.
///
/// The event sets the marks of both releases (`History::activate`). `from` is bad
/// from now on after a rollback, after a revert, and whenever it is unconfirmed: no
/// rollback may choose such a release. `to` is no longer bad.
///
/// # Errors
///
/// Returns [`Code::NotCurrent`], [`Code::IoError`] or [`Code::DiskFull`]. The
/// symlink has not moved; the intent may be in the journal.
pub(super) fn commit(
    site: &mut dyn Site,
    how: How,
    from: Option<&ReleaseId>,
    to: Option<&ReleaseId>,
) -> Result<()> {
    // The hooks took their time, and another process may have changed the
    // symlink: that change is not undone. `revert` compared the symlink just
    // before, and must go on even if it cannot be read.
    if how != How::Revert && site.current()?.as_ref() != from {
        return Err(outcome::changed_before_commit());
    }
    let has_checks = site.has_post_swap_checks();
    let mut intent = site.new_record(Event::Activating, to);
    intent.how = Some(how);
    intent.unconfirmed = to.is_some() && has_checks;
    intent.previous = from.cloned();
    let mut done = site.new_record(how.done_event(), to);
    done.unconfirmed = intent.unconfirmed;
    done.previous = from.cloned();
    match site.append_or_fail(intent) {
        // A full disk must not keep a failed release live.
        Err(error) if how == How::Revert => site.warn(error.to_string()),
        written => written?,
    }
    site.move_current(how, to)?;
    // The safe order: sync the root, and with it the rename, then write the
    // record. In the other order a power failure could leave the record without
    // the rename. A release that never went live would then look like the
    // previous good one, and a rollback would choose it.
    //
    // Where the file system commits both in order, the sync of the record also
    // persists the rename, and the sync of the root costs nothing more: writing
    // the record first saves a flush. An ext4 without a file system journal looks
    // the same, so this is done only without post-swap checks: with them, more
    // would be lost (a failed release would look confirmed).
    if !has_checks && site.record_sync_persists_rename() {
        site.append_or_warn(done);
        site.sync_root();
    } else {
        site.sync_root();
        site.append_or_warn(done);
    }
    Ok(())
}

/// Runs the post-swap checks of the live release, and journals that it passed.
/// Without post-swap checks it does nothing, and the journal has the release as
/// confirmed since the commit.
pub(super) fn verify_live(
    site: &mut dyn Site,
    live: &ReleaseId,
    previous: Option<&ReleaseId>,
) -> Result<(), ConfirmError> {
    if !site.has_post_swap_checks() {
        return Ok(());
    }
    let passed = site.check_live(GateContext {
        release: live,
        previous,
    });
    // If it is not live any more, another release may have answered.
    if let Some(change) = externally_moved(site, Some(live)) {
        return Err(ConfirmError::Superseded(change, passed.err()));
    }
    passed.map_err(ConfirmError::Failed)?;
    confirm(site, live);
    Ok(())
}

/// Journals that the live release is confirmed.
pub(super) fn confirm(site: &mut dyn Site, live: &ReleaseId) {
    let record = site.new_record(Event::Confirmed, Some(live));
    site.append_or_warn(record);
}

/// Journals the places that releases have earned by the time.
pub(super) fn note_places(site: &mut dyn Site) {
    for release in site.due_places() {
        note_place(site, &release);
    }
}

/// Journals that a release has earned its place, unless it has one.
fn note_place(site: &mut dyn Site, release: &ReleaseId) {
    let known = site.history().releases.get(release);
    if known.is_some_and(|known| known.place.is_none()) {
        let record = site.new_record(Event::Earned, Some(release));
        site.append_or_warn(record);
    }
}

/// Returns the change that another process made to the current symlink, if the
/// symlink no longer names `expected`.
pub(super) fn externally_moved(
    site: &dyn Site,
    expected: Option<&ReleaseId>,
) -> Option<ExternalChange> {
    match site.current() {
        Ok(live) if live.as_ref() == expected => None,
        Ok(live) => Some(ExternalChange::Moved(live)),
        Err(Error {
            code: Code::BadLayout,
            fault: None,
            problem,
            ..
        }) => Some(ExternalChange::NotOurs(problem)),
        // An I/O error does not say that the symlink was moved.
        Err(_) => None,
    }
}
