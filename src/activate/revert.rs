//! The automatic rollback: a live release that failed its post-swap checks is
//! replaced by the fallback, which was live before.

use super::commit::{ConfirmError, commit, externally_moved, verify_live};
use super::gate::GateFailure;
use super::outcome::{ExternalChange, Outcome, Restored};
use super::plan::{self, Revert};
use super::site::Site;
use crate::names::ReleaseId;
use crate::store::journal::{self, Event, How};

/// Replaces the failed release by its fallback, and returns how that ended.
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
    if let Err(error) = commit(site, How::Return, Some(&failed), fallback.as_ref()) {
        let change = externally_moved(site, Some(&failed));
        let live = match &change {
            None => Some(&failed),
            Some(change) => change.live(),
        };
        site.report_rollback(&failed, live, false);
        return Outcome::RevertFailed {
            failed,
            failure,
            fallback,
            error,
            change,
        };
    }
    let live = (since, journal::now());
    // Without a fallback nothing is live. That counts as a full restore only if
    // nothing was live before.
    let (restored, passed) = match fallback {
        None => (nothing_restored(site, previous.clone()), previous.is_none()),
        Some(to) => match verify_live(site, &to, Some(&failed)) {
            Ok(()) => {
                let passed = !site.history().confirmation_pending;
                (Restored::Passed(to), passed)
            }
            Err(ConfirmError::Failed(failure)) => (Restored::Failed(to, failure), false),
            Err(ConfirmError::Superseded(change, _)) => (Restored::Superseded(to, change), false),
        },
    };
    site.report_rollback(&failed, restored.live(), passed);
    Outcome::Reverted {
        failed,
        failure,
        live,
        restored,
        marked_bad: site.marks_are_written(),
    }
}

/// Says why no release is live after a rollback without a fallback.
fn nothing_restored(site: &dyn Site, previous: Option<ReleaseId>) -> Restored {
    match previous {
        None => Restored::Nothing,
        Some(previous) if site.exists(&previous) => Restored::PreviousIsBad(previous),
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
        let marked = plan::marks_superseded(site.history(), &release);
        if marked {
            let record = site.new_record(Event::Failed, Some(&release));
            site.record(record);
        }
        site.report_rollback(&release, change.live(), false);
        (failure, marked && site.marks_are_written())
    });
    Outcome::Superseded {
        release,
        change,
        failure,
    }
}
