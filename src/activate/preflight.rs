//! What a release must be before the link may move to it: no older than the
//! floor, of the content that was received, signed as the site asks for today,
//! and, where that is configured, whole.
//!
//! All of it is asked now and of what is on disk: a signer who has been removed
//! since the release was received counts no more.

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest::Identity;
use crate::names::ReleaseId;
use crate::signature::{Requirement, Signed};
use crate::store::Store;
use crate::store::history::History;
use crate::store::ledger::Ledger;
use crate::verify;

/// The differences that are named; the rest is counted.
const NAMED: usize = 3;

/// A release that may become live.
pub struct Candidate {
    identity: Identity,
    /// By whose signatures, where the site asks for any.
    pub signed: Option<Signed>,
}

impl Candidate {
    /// Whether it is still there, with the manifest it had: what ran since it
    /// was checked may have taken it away.
    ///
    /// Errors: it cannot be told.
    pub fn is_as_it_was(&self, store: &Store) -> Result<bool> {
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

/// Whether `release` may become live.
///
/// Errors: [`Code::Denied`] and [`Code::BadConfig`] for the floor,
/// [`Code::DigestMismatch`], [`Code::BadSignature`], [`Code::NoSuchRelease`].
pub fn check(
    config: &Config,
    required: Option<&Requirement>,
    ledger: &Ledger<'_>,
    release: &ReleaseId,
) -> Result<Candidate> {
    let floor = floor(config, &ledger.history)?;
    if let Some(floor) = floor
        && !ledger.history.reaches(release, Some(floor))
    {
        return Err(Error::new(
            Code::Denied,
            format!("release '{release}' came before '{floor}', this site's floor"),
        )
        .remedy("take a newer release, or lower 'floor' in the site's configuration"));
    }
    let (identity, _) = ledger.store.manifest(release)?;
    check_identity(&ledger.history, &identity)?;
    let signed = required
        .map(|required| signatures(config, required, &identity))
        .transpose()?;
    if config.verify_on_swap {
        content(ledger, release)?;
    }
    Ok(Candidate { identity, signed })
}

/// The site's floor, which must have come here once.
///
/// Errors: [`Code::BadConfig`]: a slip in its name would take the floor away,
/// so nothing may become live until it is right.
pub fn floor<'a>(config: &'a Config, history: &History) -> Result<Option<&'a ReleaseId>> {
    match &config.floor.0 {
        Some(floor) if !history.knows(floor) => Err(Error::new(
            Code::BadConfig,
            format!("floor '{floor}' was never received by this site"),
        )
        .remedy("receive it, or name another release in the site's configuration")),
        floor => Ok(floor.as_ref()),
    }
}

/// The manifest beside the release must be that of what was received.
fn check_identity(history: &History, identity: &Identity) -> Result<()> {
    let release = &identity.release;
    let known = history.releases.get(release);
    let recorded = known.and_then(|known| known.sha256);
    if recorded.is_some_and(|recorded| recorded != identity.sha256) {
        return Err(Error::new(
            Code::DigestMismatch,
            format!("the manifest of '{release}' is not of what was received under that id"),
        )
        .remedy("receive the release again under another id"));
    }
    Ok(())
}

/// The kept signatures, held against the signers of today.
fn signatures(config: &Config, required: &Requirement, identity: &Identity) -> Result<Signed> {
    let Identity {
        release,
        sha256,
        signatures,
        ..
    } = identity;
    let checked = required.check(config.site(), release, *sha256, signatures);
    checked.map_err(|why| {
        Error::new(
            Code::BadSignature,
            format!("'{}' may not become live: {why}", identity.release),
        )
        .remedy("receive it again under another id, signed by who may; or change [signatures] in the site's configuration")
    })
}

/// Reads all of the release once more.
fn content(ledger: &Ledger<'_>, release: &ReleaseId) -> Result<()> {
    // In this thread alone: what confines a swap lets it start no others.
    let found = verify::release(ledger.store, release, 1, &|_| ())?;
    if found.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = found.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = escape::truncate(&escape::escape_if_needed(named.join(", ").as_bytes()), 2000);
    Err(Error::new(
        Code::DigestMismatch,
        format!("'{release}' is not what was received: {named}{more}"),
    )
    .remedy(
        "receive it again under another id; 'deploy-shell-admin verify' shows every difference",
    ))
}
