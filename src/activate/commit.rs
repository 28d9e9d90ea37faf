//! A swap or rollback from preflight to the post-swap checks, and the one
//! commit: journal `activating`, rename the symlink, journal the event.
//!
//! Before the commit a failure changes nothing of what is live. After it, a
//! release that fails its checks is rolled back ([`revert`]) by the same
//! commit. If this process is killed in between, the journal says that the live
//! release is unconfirmed: no rollback chooses it, and a swap to it runs its
//! checks again.

use super::gate::{GateContext, GateFailure};
use super::outcome::{self, ExternalChange, LiveNow, Outcome, StayReason};
use super::plan::{self, FailedRecheck, Move};
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
/// ([`Code::NotCurrent`]), or the disk.
pub(super) fn activate(site: &mut dyn Site, planned: Move) -> Result<Outcome> {
    let Move { how, from, to, .. } = planned.clone();
    site.preflight(&to)?;
    let context = GateContext {
        release: &to,
        previous: from.as_ref(),
    };
    if let Err(failure) = site.check_before_commit(how, context)? {
        return Ok(abort_before_commit(site, planned, failure));
    }
    if site.has_post_swap_checks()
        && let Some(fallback) = planned.fallback(site.history(), site)
    {
        site.prepare_fallback_link(&fallback)?;
    }
    commit(site, how, from.as_ref(), Some(&to)).inspect_err(|_| site.clear_links())?;
    Ok(match verify_live(site, &to, from.as_ref()) {
        Ok(()) => Outcome::Live {
            how,
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
    let marked = plan::marks_before_commit(planned.how, &failure);
    if marked {
        let record = site.new_record(Event::Failed, Some(&planned.to));
        site.record(record);
    }
    let live = match externally_moved(site, planned.from.as_ref()) {
        None => LiveNow::AsBefore(planned.from),
        Some(change) => LiveNow::Changed(change),
    };
    Outcome::Aborted {
        failed: planned.to,
        failure,
        live,
        marked_bad: marked && site.marks_are_written(),
    }
}

/// Runs the post-swap checks of the live release again, after an earlier
/// request was killed before they finished, or after an automatic rollback
/// restored the release and it failed them.
///
/// # Errors
///
/// Returns what fails in preflight.
pub(super) fn recheck(
    site: &mut dyn Site,
    how: How,
    release: ReleaseId,
    previous: Option<ReleaseId>,
) -> Result<Outcome> {
    site.preflight(&release)?;
    let fallback = plan::fallback_for_live(site.history(), site, &release, previous.as_ref());
    // A failure here does not stop the checks: if they pass, no fallback is needed.
    if let Some(fallback) = fallback
        && let Err(error) = site.prepare_fallback_link(&fallback)
    {
        site.warn(error.to_string());
    }
    let failure = match verify_live(site, &release, previous.as_ref()) {
        Ok(()) => {
            return Ok(Outcome::Live {
                how,
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
    Ok(Outcome::StaysLive {
        failed,
        failure,
        reason,
    })
}

/// Moves the current symlink, with the intent in the journal before it and the
/// event after it.
///
/// The rename is the commit point. A later failure does not turn success into
/// failure: the next request takes the symlink as the truth, and repairs what
/// could not be synced or journaled.
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
    // While the hooks ran, another process may have changed the symlink: do not
    // undo that change. An automatic rollback has checked the symlink already,
    // and continues even if it cannot be read.
    if how != How::Return && site.current()?.as_ref() != from {
        return Err(outcome::changed_before_commit());
    }
    let has_checks = site.has_post_swap_checks();
    let mut intent = site.new_record(Event::Activating, to);
    intent.how = Some(how);
    intent.unconfirmed = to.is_some() && has_checks;
    intent.previous = from.cloned();
    let mut done = site.new_record(how.done(), to);
    done.unconfirmed = intent.unconfirmed;
    done.previous = from.cloned();
    match site.append(intent) {
        // A full disk must not keep a failed release live.
        Err(error) if how == How::Return => site.warn(error.to_string()),
        written => written?,
    }
    site.move_current(how, to)?;
    // On ext4 and xfs one file system journal orders both updates, so syncing
    // our record also persists the earlier rename: write the record first, and
    // the sync of the root has nothing left to do. On btrfs the record could
    // become durable without the rename. After a power failure, a release that
    // never went live would look like the previous good one, and a rollback
    // would choose it. With checks the loss would be worse: a failed release
    // would look confirmed, and an ext4 may have no journal. So sync the root
    // first in these cases.
    if !has_checks && site.commits_in_order() {
        site.record(done);
        site.sync_root();
    } else {
        site.sync_root();
        site.record(done);
    }
    Ok(())
}

/// Runs the post-swap checks of the live release, and journals that it passed.
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
    site.record(record);
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
            problem,
            ..
        }) => Some(ExternalChange::NotOurs(problem)),
        // An I/O error does not say that the symlink was moved.
        Err(_) => None,
    }
}
