//! Preflight: what a release must be before the current symlink may name it. It
//! is no older than the floor, its manifest is of the payload that the journal
//! recorded, and it is signed as the site requires today. With `verify_on_swap`,
//! its files match the manifest; otherwise no content is read.
//!
//! Preflight reads the disk and today's list of signers: a signer who was removed
//! after the release was received no longer counts.

use super::plan;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest::Identity;
use crate::names::{ReleaseId, Sha256Digest};
use crate::signature::{Requirement, Signable, Signed};
use crate::store::Store;
use crate::store::history::History;
use crate::store::ledger::Ledger;
use crate::verify;

/// How many differences a message names; it counts the rest.
const NAMED: usize = 3;

/// A release that may become live.
pub struct Candidate {
    identity: Identity,
    /// The signers that counted, if the site requires signatures.
    pub signed: Option<Signed>,
}

impl Candidate {
    /// Returns whether the release is still there, with the same manifest: a
    /// hook may have removed or replaced it since preflight.
    ///
    /// # Errors
    ///
    /// Returns an I/O error of the site.
    pub fn is_unchanged(&self, store: &Store) -> Result<bool> {
        let release = &self.identity.release;
        if !store.is_present(release)? {
            return Ok(false);
        }
        match store.manifest(release) {
            Ok((identity, _)) => Ok(identity == self.identity),
            Err(error) if error.code == Code::NoSuchRelease => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Checks that `release` may become live.
///
/// # Errors
///
/// Returns [`Code::Denied`] or [`Code::BadConfig`] for the floor,
/// [`Code::DigestMismatch`], [`Code::BadSignature`] or [`Code::NoSuchRelease`].
pub fn check_candidate(
    config: &Config,
    required: Option<&Requirement>,
    ledger: &Ledger<'_>,
    release: &ReleaseId,
) -> Result<Candidate> {
    plan::check_above_floor(&ledger.history, config.floor.as_ref(), release)?;
    let (identity, _) = ledger.store.manifest(release)?;
    check_identity(&ledger.history, &identity)?;
    let signed = required
        .map(|required| check_signatures(config, required, &identity))
        .transpose()?;
    if config.verify_on_swap {
        check_content(config, ledger, release)?;
    }
    Ok(Candidate { identity, signed })
}

/// Returns the digests that name the release, by its manifest and by the journal: that of
/// its payload and that of its tree list.
///
/// The payload of a delta names its release only together with the base. Another key may
/// have sent the same payload for another base, under the id of the next deploy. So there
/// its digest counts only for the key that sent it.
///
/// # Errors
///
/// Returns [`Code::DigestMismatch`] if the two differ, and [`Code::NoSuchRelease`].
pub fn digests(ledger: &Ledger<'_>, release: &ReleaseId) -> Result<Vec<Sha256Digest>> {
    let (identity, _) = ledger.store.manifest(release)?;
    check_identity(&ledger.history, &identity)?;
    let known = ledger.history.releases.get(release);
    let sent_by_this_key = known.is_some_and(|known| known.key == ledger.actor().key);
    let payload = (identity.base.is_none() || sent_by_this_key).then_some(identity.sha256);
    Ok(payload.into_iter().chain(identity.tree).collect())
}

/// Checks that the manifest is of the payload and the tree that the journal recorded, if
/// it did.
fn check_identity(history: &History, identity: &Identity) -> Result<()> {
    let release = &identity.release;
    let known = history.releases.get(release);
    let payload = known.and_then(|known| known.sha256);
    let tree = known.and_then(|known| known.tree);
    let differs = payload.is_some_and(|recorded| recorded != identity.sha256)
        || tree.is_some_and(|recorded| identity.tree != Some(recorded));
    if differs {
        return Err(Error::new(
            Code::DigestMismatch,
            format!("the manifest of '{release}' does not match what was received under that id"),
        )
        .remedy("receive the release again under another id"));
    }
    Ok(())
}

/// Checks the kept signatures against the signers of today.
fn check_signatures(
    config: &Config,
    required: &Requirement,
    identity: &Identity,
) -> Result<Signed> {
    let signable = Signable::of_manifest(identity);
    let signatures = &identity.signatures;
    let checked = required.check(config.site(), &identity.release, signable, signatures);
    checked.map_err(|why| {
        Error::new(
            Code::BadSignature,
            format!("'{}' may not become live: {why}", identity.release),
        )
        .remedy("receive it again under another id, signed by who may; or change [signatures] in the site's configuration")
    })
}

/// Reads the whole release and compares it with its manifest.
///
/// This is under the lock. The request that holds the lock before this one may run
/// hooks, as the same user: a comparison before the lock would miss what they change.
fn check_content(config: &Config, ledger: &Ledger<'_>, release: &ReleaseId) -> Result<()> {
    // In this thread alone: the sandbox of a swap allows no new threads.
    let found = verify::verify_release(ledger.store, release, config.archive.acl, 0, |_| ())?;
    if found.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = found.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = escape::escape_if_needed_truncated(named.join(", ").as_bytes(), 2000);
    Err(Error::new(
        Code::DigestMismatch,
        format!("'{release}' is not what was received: {named}{more}"),
    )
    .remedy(
        "receive it again under another id; 'deploy-shell-admin verify' shows every difference",
    ))
}
