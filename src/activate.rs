//! `swap` and `rollback`: one function that plans a request and carries it out.
//!
//! [`plan`] decides, [`commit`] and [`revert`] act, [`outcome`] words the end.
//! All that they do to the site goes through [`site::Site`].

mod commit;
pub mod gate;
#[cfg(test)]
mod model;
mod outcome;
mod plan;
mod preflight;
mod prune;
mod revert;
mod site;

use crate::config::Config;
use crate::error::Result;
use crate::policy::Granted;
use crate::request::{Rollback, Swap};
use crate::signature::Requirement;
use crate::store::journal::How;
use crate::store::ledger::{LOCK_TIMEOUT, Ledger};
use crate::store::{Actor, Store};
use crate::success::{Change, Success};
use gate::Gate;
use outcome::Outcome;
use plan::{Plan, Request};
use site::{LockedSite, Site};

/// Makes a received release live.
///
/// # Errors
///
/// Returns [`Code::NoSuchRelease`], [`Code::NotCurrent`], [`Code::Busy`],
/// [`Code::DigestMismatch`], [`Code::BadSignature`], [`Code::Denied`],
/// [`Code::BadConfig`], [`Code::BadLayout`], [`Code::IoError`] or
/// [`Code::DiskFull`] before the symlink moves, and [`Code::GateFailed`] with
/// the previous release still live, or live again. It also returns
/// [`Code::NotCurrent`] when another process changes the symlink at any time.
///
/// [`Code::NoSuchRelease`]: crate::error::Code::NoSuchRelease
/// [`Code::NotCurrent`]: crate::error::Code::NotCurrent
/// [`Code::Busy`]: crate::error::Code::Busy
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
    gate: Gate<'_>,
    asked: &Granted<Swap>,
) -> Result<Success> {
    let request = Request {
        how: How::Swap,
        release: Some(&asked.release),
        if_current: asked.if_current.as_ref(),
    };
    let ledger = Ledger::open(store, actor, LOCK_TIMEOUT)?;
    let site = LockedSite::new(config, required, gate, ledger);
    serve(site, request)
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
    gate: Gate<'_>,
    asked: &Granted<Rollback>,
) -> Result<Success> {
    let request = Request {
        how: How::Rollback,
        release: asked.release.as_ref(),
        if_current: asked.if_current.as_ref(),
    };
    let ledger = Ledger::open(store, actor, LOCK_TIMEOUT)?;
    let site = LockedSite::new(config, required, gate, ledger);
    serve(site, request)
}

/// Carries the request out, gives back the lock, and words the result.
fn serve(mut site: LockedSite<'_, '_>, request: Request<'_>) -> Result<Success> {
    let outcome = run(&mut site, request)?;
    let (mut gate, signed, warnings) = site.close();
    if outcome.failed().is_some() {
        for warning in &warnings {
            gate.warn(warning);
        }
    }
    outcome.into_result(signed, warnings)
}

/// Plans the request and carries it out.
///
/// # Errors
///
/// Returns what failed before the commit; nothing has changed.
fn run(site: &mut dyn Site, request: Request<'_>) -> Result<Outcome> {
    let how = request.how;
    let present = site.present_for(how, request.release)?;
    let has_checks = site.has_post_swap_checks();
    let plan = plan::plan(site.history(), &present, site.floor(), has_checks, request)?;
    let outcome = match plan {
        Plan::Unchanged { release, confirm } => {
            if confirm {
                commit::confirm(site, &release);
            }
            return Ok(Outcome::Live {
                how,
                previous: Some(release.clone()),
                release,
                change: Change::Unchanged,
            });
        }
        Plan::Recheck { release, previous } => commit::recheck(site, how, release, previous)?,
        Plan::Move(planned) => commit::activate(site, planned)?,
    };
    // No fallback is needed from here on. A failure prunes as well: failing
    // again and again must not fill the disk. The failed release is spared, so
    // that a person can look at it.
    site.clear_links();
    // If the symlink cannot be read, or the journal does not agree with it, it
    // is not known what is live, and nothing is removed.
    let current = site.current();
    if current.is_ok_and(|current| current == site.history().live) {
        site.prune(outcome.failed());
    }
    Ok(outcome)
}
