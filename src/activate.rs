//! `swap` and `rollback`: one function that plans a request and carries it out.
//!
//! [`plan`] decides what a request does, [`preflight`] and [`gate`] whether a release
//! may become and stay live, [`prune`] which old releases are removed. [`commit`] and
//! [`revert`] act, and [`outcome`] words the result. Everything that they do to the
//! site goes through [`site::Site`].
//!
//! A revert is the automatic rollback after a failed release; a rollback is the
//! client's request.

mod commit;
pub mod gate;
#[cfg(test)]
mod model;
mod outcome;
mod plan;
mod preflight;
pub mod prune;
mod revert;
mod site;

use crate::config::Config;
use crate::error::Result;
use crate::policy::Granted;
use crate::request::{Rollback, Swap};
use crate::signature::Requirement;
use crate::store::ledger::Ledger;
use crate::store::lock::Lock;
use crate::store::{Actor, Store};
use crate::success::{Change, Success};
use gate::Gate;
use outcome::Outcome;
pub use plan::check_above_floor;
use plan::{ActivationRequest, Plan, RequestKind};
use site::{Closed, LockedSite, Site};

/// Makes a received release live.
///
/// # Errors
///
/// Before the symlink moves: [`Code::NoSuchRelease`], [`Code::NotCurrent`],
/// [`Code::DigestMismatch`], [`Code::BadSignature`],
/// [`Code::Denied`], [`Code::BadConfig`], [`Code::BadLayout`], [`Code::IoError`]
/// or [`Code::DiskFull`].
///
/// [`Code::GateFailed`] when the release fails a check, before the symlink moves or
/// after it. Usually the previous release is then still live, or live again. It may
/// also be an older one, nothing, the failed release itself (if it was live before
/// this request), or what another process made live; the message says which.
///
/// After the symlink moved, also [`Code::NotCurrent`] when the release passed its
/// post-swap checks, but another process had changed the symlink by then; and
/// [`Code::BadLayout`], [`Code::IoError`] or [`Code::DiskFull`] when the release
/// failed and the revert could not move the symlink. Without post-swap checks, the
/// request ends with the rename, and does not look at the symlink again.
///
/// [`Code::NoSuchRelease`]: crate::error::Code::NoSuchRelease
/// [`Code::NotCurrent`]: crate::error::Code::NotCurrent
/// [`Code::DigestMismatch`]: crate::error::Code::DigestMismatch
/// [`Code::BadSignature`]: crate::error::Code::BadSignature
/// [`Code::Denied`]: crate::error::Code::Denied
/// [`Code::BadConfig`]: crate::error::Code::BadConfig
/// [`Code::BadLayout`]: crate::error::Code::BadLayout
/// [`Code::IoError`]: crate::error::Code::IoError
/// [`Code::DiskFull`]: crate::error::Code::DiskFull
/// [`Code::GateFailed`]: crate::error::Code::GateFailed
pub fn swap(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    actor: &Actor,
    lock: Lock,
    gate: Gate<'_>,
    granted: &Granted<Swap>,
) -> Result<Success> {
    let request = ActivationRequest {
        kind: RequestKind::Swap,
        release: Some(&granted.release),
        sha256: granted.sha256,
        if_current: granted.if_current.as_ref(),
    };
    let ledger = Ledger::open_locked(store, actor, lock)?;
    let site = LockedSite::new(config, required, gate, ledger);
    carry_out(site, request)
}

/// Goes back to a release that was live and good.
///
/// # Errors
///
/// Returns what [`swap`] returns, and `NoSuchRelease` also for a release that
/// was never live or is bad.
pub fn rollback(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    actor: &Actor,
    lock: Lock,
    gate: Gate<'_>,
    granted: &Granted<Rollback>,
) -> Result<Success> {
    let request = ActivationRequest {
        kind: RequestKind::Rollback,
        release: granted.release.as_ref(),
        sha256: granted.sha256,
        if_current: granted.if_current.as_ref(),
    };
    let ledger = Ledger::open_locked(store, actor, lock)?;
    let site = LockedSite::new(config, required, gate, ledger);
    carry_out(site, request)
}

/// Plans and carries out the request, releases the lock, and words the result.
fn carry_out(mut site: LockedSite<'_, '_>, request: ActivationRequest<'_>) -> Result<Success> {
    let outcome = run_plan(&mut site, request)?;
    let Closed {
        mut gate,
        signed,
        pruned,
        warnings,
    } = site.close();
    if !outcome.is_success() {
        // The reply of a success has them.
        for warning in &warnings {
            gate.warn(warning);
        }
    }
    outcome.into_result(signed, pruned, warnings)
}

/// Plans the request and carries it out.
///
/// # Errors
///
/// Returns what failed before the commit: the current symlink has not moved. Hooks
/// may have run, and the journal may have the intent, which the next request
/// completes by `abandoned`.
fn run_plan(site: &mut dyn Site, request: ActivationRequest<'_>) -> Result<Outcome> {
    let kind = request.kind;
    commit::note_places(site);
    let present = site.present_for(kind, request.release)?;
    let has_checks = site.has_post_swap_checks();
    let plan = plan::plan(site.history(), &present, site.floor(), has_checks, request)?;
    if let Some(expected) = request.sha256 {
        let release = plan.release();
        plan::check_digest(release, &site.digests(release)?, expected)?;
    }
    let outcome = match plan {
        Plan::Unchanged { release, confirm } => {
            if confirm {
                commit::confirm(site, &release);
            }
            return Ok(Outcome::Live {
                kind,
                previous: Some(release.clone()),
                release,
                change: Change::Unchanged,
            });
        }
        Plan::Recheck { release, previous } => commit::recheck(site, kind, release, previous)?,
        Plan::Move(planned) => commit::activate(site, planned)?,
    };
    // The fallback symlink is not needed any more. Prune after a failure too: clients
    // that fail repeatedly must not fill the disk. The failed release is spared,
    // so that a person can look at it.
    site.clear_links();
    commit::note_places(site);
    // If the symlink cannot be read, or the journal does not agree with it, we do
    // not know what is live: remove nothing.
    let current = site.current();
    if current.is_ok_and(|current| current == site.history().live) {
        site.prune(outcome.spared());
    }
    Ok(outcome)
}
