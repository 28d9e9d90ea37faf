//! The revert, which clients know as the automatic rollback: after a release
//! failed its post-swap checks, the current symlink moves to the fallback. The
//! fallback is usually the release that was live before. It may also be an older
//! one, or nothing.
//!
//! A rollback is something else: the request of a client.

use super::commit::{ConfirmError, commit, externally_moved, verify_live};
use super::gate::GateFailure;
use super::outcome::{ExternalChange, Outcome, Restored};
use super::plan::{self, Revert};
use super::site::Site;
use crate::names::ReleaseId;
use crate::store::journal::{self, Event, How};

/// Replaces the failed release by its fallback, checks the fallback, and reports
/// what is live now.
///
/// No [`Event::Failed`] is needed: the [`Event::Reverted`] of the commit marks
/// `previous` of its record, the failed release, as bad. If the commit fails, the
/// release stays live and unconfirmed, and the next change that leaves it marks it.
pub(super) fn revert(site: &mut dyn Site, plan: Revert, failure: GateFailure) -> Outcome {
    let Revert {
        failed,
        previous,
        fallback,
    } = plan;
    // The choice of the fallback may have taken a while.
    if let Some(change) = externally_moved(site, Some(&failed)) {
        return superseded(site, failed, change, Some(failure));
    }
    let known = site.history().releases.get(&failed);
    let activated = known.and_then(|known| known.activated);
    let since = activated.map_or_else(journal::now, |(_, time)| time);
    if let Err(error) = commit(site, How::Revert, Some(&failed), fallback.as_ref()) {
        let change = externally_moved(site, Some(&failed));
        let live = match &change {
            None => Some(&failed),
            Some(change) => change.live(),
        };
        site.report_failure_after_commit(&failed, live, false);
        return Outcome::RevertFailed {
            failed,
            failure,
            fallback,
            error,
            change,
        };
    }
    let was_live = (since, journal::now());
    let restored = match fallback {
        None => nothing_restored(site, previous),
        Some(to) => match verify_live(site, &to, Some(&failed)) {
            Ok(()) => Restored::Passed(to),
            Err(ConfirmError::Failed(failure)) => Restored::Failed(to, failure),
            Err(ConfirmError::Superseded(change, _)) => Restored::Superseded(to, change),
        },
    };
    let as_good_as_before = restored.is_as_good_as_before();
    site.report_failure_after_commit(&failed, restored.live(), as_good_as_before);
    Outcome::Reverted {
        failed,
        failure,
        was_live,
        restored,
        marked_bad: site.all_bad_marks_are_durable(),
    }
}

/// Says why no release is live after a revert without a fallback.
fn nothing_restored(site: &dyn Site, previous: Option<ReleaseId>) -> Restored {
    match previous {
        None => Restored::Nothing,
        Some(previous) if site.has_directory(&previous) => Restored::PreviousIsBad(previous),
        Some(previous) => Restored::PreviousIsGone(previous),
    }
}

/// Ends an activation after another process changed the current symlink from
/// `release`: that change is not undone.
pub(super) fn superseded(
    site: &mut dyn Site,
    release: ReleaseId,
    change: ExternalChange,
    failure: Option<GateFailure>,
) -> Outcome {
    let failure = failure.map(|failure| {
        let marked = plan::should_mark_bad_when_superseded(site.history(), &release);
        if marked {
            let record = site.new_record(Event::Failed, Some(&release));
            site.append_or_warn(record);
        }
        site.report_failure_after_commit(&release, change.live(), false);
        (failure, marked && site.all_bad_marks_are_durable())
    });
    Outcome::Superseded {
        release,
        change,
        failure,
    }
}
