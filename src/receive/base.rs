//! The base of a delta: the release that the changes of a payload apply to.
//!
//! Every check comes before a byte of the payload is read. The base must be one that could
//! be live today: a delta takes files from it that no client sends again, so a release that
//! is bad, too old, never tried or no longer signed must not become live under
//! another id.

use crate::activate::check_above_floor;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::manifest::Identity;
use crate::names::ReleaseId;
use crate::signature::{Requirement, Signable};
use crate::store::Store;
use crate::store::history::{History, Release};
use crate::store::hold::Held;

/// What a client can always do.
const REMEDY: &str = "send the whole release, without --base";

/// A base. No request removes it until this is dropped.
#[derive(Debug)]
pub struct Base {
    held: Held,
}

impl Base {
    /// Holds `release` as a base, and checks it. The caller has an upload slot: so the
    /// number of bases that clients hold is limited, and with it the number of releases
    /// that pruning leaves for them.
    ///
    /// # Errors
    ///
    /// [`Code::NoSuchRelease`] if there is no such release with a tree list;
    /// [`Code::Denied`] for one that was never live, is bad, is below the floor, or is not
    /// signed as the site requires today; [`Code::BaseDamaged`] for a manifest that does
    /// not match the journal.
    pub fn open(
        config: &Config,
        required: Option<&Requirement>,
        store: &Store,
        history: &History,
        release: &ReleaseId,
    ) -> Result<Base> {
        let with_remedy = |error: Error| error.remedy(REMEDY);
        let held = store.hold(release).map_err(with_remedy)?;
        check_state(history, release)?;
        let floor = check_above_floor(history, config.floor.as_ref(), release);
        floor.map_err(|refusal| match Error::from(refusal) {
            error if error.code == Code::Denied => with_remedy(error),
            error => error,
        })?;
        check_identity(history.releases.get(release), &held.identity)?;
        if let Some(required) = required {
            let signable = Signable::of_manifest(&held.identity);
            let checked =
                required.check(config.site(), release, signable, &held.identity.signatures);
            checked.map_err(|why| denied(format!("'{release}' may not be a base: {why}")))?;
        }
        Ok(Base { held })
    }

    /// Checks once more that the release may be a base, before the new one is published: a
    /// rollback may have marked it bad during the upload.
    ///
    /// # Errors
    ///
    /// [`Code::Denied`].
    pub fn check_state(&self, history: &History) -> Result<()> {
        check_state(history, &self.held.identity.release)
    }
}

/// Checks that the release is live, or was live and is not bad.
fn check_state(history: &History, release: &ReleaseId) -> Result<()> {
    let why = match history.releases.get(release) {
        _ if history.live.as_ref() == Some(release) => return Ok(()),
        Some(known) if known.good() => return Ok(()),
        Some(known) if known.bad => "it is bad",
        _ => "it was never live",
    };
    Err(denied(format!("'{release}' may not be a base: {why}")))
}

/// Checks that the manifest is the one that the journal recorded.
fn check_identity(known: Option<&Release>, identity: &Identity) -> Result<()> {
    let payload = known.and_then(|known| known.sha256);
    let tree = known.and_then(|known| known.tree);
    if payload.is_none_or(|recorded| recorded == identity.sha256)
        && tree.is_none_or(|recorded| identity.tree == Some(recorded))
    {
        return Ok(());
    }
    let problem = format!(
        "the manifest of '{}' does not match what was received under that id",
        identity.release
    );
    Err(Error::new(Code::BaseDamaged, problem).remedy(REMEDY))
}

fn denied(problem: String) -> Error {
    Error::new(Code::Denied, problem).remedy(REMEDY)
}
