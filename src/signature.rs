//! Signatures of releases: the signed statement, the operator's list of signers,
//! and the decision. Pure, with two exceptions: [`Requirement::load`] reads the
//! list and the server's time zone before the process enters its sandbox, and
//! [`Requirement::check`] reads the clock.
//!
//! A signer signs a statement that names the site, the release and a digest, so a
//! signature is worth nothing for another site, release or content. Version 1 of the
//! statement names the payload, and version 2 the tree list, which is the same for every
//! payload that gives the tree.
//! `ssh-keygen -Y sign -n deploy-shell` makes signatures, and this module accepts
//! those that `ssh-keygen -Y verify` would accept.

mod pattern;
mod signers;
mod sshsig;
mod time;

use std::fmt;

use jiff::Timestamp;
use ssh_key::Fingerprint;
use ssh_key::public::KeyData;

pub use jiff::tz::TimeZone;
pub use pattern::list_matches;
pub use signers::{AllowedSigners, parse_quoted};
pub use sshsig::NAMESPACE;
pub use time::server_zone;

use crate::config::{self, Config};
use crate::error::{Code, Error, Result};
use crate::manifest::Identity;
use crate::names::{MAX_SIGNATURES, ReleaseId, Sha256Digest, SignatureText, SiteName};

/// The signed statement. Its text is part of the contract: four lines, each
/// ended by a line feed.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    pub site: &'a SiteName,
    pub release: &'a ReleaseId,
    pub subject: Subject,
}

/// What a statement says of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Version 1: the digest of the payload.
    Payload(Sha256Digest),
    /// Version 2: the digest of the tree list.
    Tree(Sha256Digest),
}

impl fmt::Display for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statement {
            site,
            release,
            subject,
        } = self;
        let (version, key, digest) = match subject {
            Subject::Payload(digest) => (1, "sha256", digest),
            Subject::Tree(digest) => (2, "tree", digest),
        };
        write!(
            f,
            "deploy-shell release v{version}\nsite {site}\nrelease {release}\n{key} {digest}\n"
        )
    }
}

/// The digests of a release that a signature may name.
#[derive(Clone, Copy, Debug)]
pub struct Signable {
    payload: Option<Sha256Digest>,
    tree: Option<Sha256Digest>,
}

impl Signable {
    /// Returns what a signature in a request may name.
    ///
    /// A tree counts only if the request names it: then the release must have it. The
    /// payload of a delta (`base`) does not count. It has changes and no release: its
    /// digest says nothing of the base, and with another base the same payload gives other
    /// content that nobody has signed.
    pub fn of_request(
        payload: Sha256Digest,
        tree: Option<Sha256Digest>,
        base: Option<&ReleaseId>,
    ) -> Signable {
        Signable {
            payload: base.is_none().then_some(payload),
            tree,
        }
    }

    /// Returns what a signature in a manifest may name. The manifest does not say whether
    /// the payload was a delta. It need not: the manifest has those signatures only that
    /// counted for the request, and for a delta they name the tree.
    pub fn of_manifest(identity: &Identity) -> Signable {
        Signable {
            payload: Some(identity.sha256),
            tree: identity.tree,
        }
    }

    fn subjects(self) -> impl Iterator<Item = Subject> {
        let payload = self.payload.map(Subject::Payload);
        payload.into_iter().chain(self.tree.map(Subject::Tree))
    }

    /// Names both for a message.
    fn what(self) -> &'static str {
        match (self.payload, self.tree) {
            (_, None) => "payload",
            (None, Some(_)) => "tree",
            (Some(_), Some(_)) => "payload or tree",
        }
    }
}

/// The signatures that a site requires of a release.
#[derive(Debug)]
pub struct Requirement {
    signers: AllowedSigners,
    threshold: usize,
}

/// Proof that enough signatures counted at the time of the check: only
/// [`Requirement::check`] makes one.
#[derive(Clone, Debug)]
pub struct Signed {
    by: Vec<Fingerprint>,
    signatures: Vec<SignatureText>,
    covers_payload: bool,
}

impl Signed {
    /// Returns the signatures that counted: one for each signer, or two if a signer has
    /// signed both the payload and the tree.
    pub fn signatures(&self) -> &[SignatureText] {
        &self.signatures
    }

    /// Returns whether enough signers have signed the payload itself, without those that
    /// have only signed the tree.
    ///
    /// Then the bytes of the payload are the signers', once their digest is right, and no
    /// process should parse a byte before. Otherwise the key that sends the payload chooses
    /// its bytes, and could name the digest of any: to wait for it would protect nothing.
    pub fn covers_payload(&self) -> bool {
        self.covers_payload
    }
}

/// A signer whose signature counts.
struct Counted {
    key: KeyData,
    signed_payload: bool,
    signed_tree: bool,
}

impl fmt::Display for Signed {
    /// Writes the signers' fingerprints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prints: Vec<String> = self.by.iter().map(ToString::to_string).collect();
        f.write_str(&prints.join(","))
    }
}

impl Requirement {
    /// Returns the site's requirement, if it has one.
    ///
    /// # Errors
    ///
    /// [`Code::BadConfig`] with the name of the signers' file and, for its
    /// contents, the line. One bad line rejects the whole file: a skipped line
    /// could be the one that withdraws a signer.
    pub fn load(config: &Config) -> Result<Option<Requirement>> {
        let Some(wanted) = &config.signatures else {
            return Ok(None);
        };
        let path = &wanted.allowed_signers;
        let text = config::read_trusted(path)?;
        let signers = AllowedSigners::parse(&text, &server_zone()).map_err(|(line, why)| {
            Error::new(
                Code::BadConfig,
                format!("'{}' line {line}: {why}", path.display()),
            )
            .remedy("see ALLOWED SIGNERS in ssh-keygen(1), and deploy-shell-requests(7) for what is not supported")
        })?;
        let threshold = usize::from(wanted.threshold.get());
        Ok(Some(Requirement::new(signers, threshold)))
    }

    pub fn new(signers: AllowedSigners, threshold: usize) -> Requirement {
        Requirement { signers, threshold }
    }

    /// Checks that enough signers, allowed at this moment, have signed a statement that
    /// names the site, the release and a digest of `signable`.
    ///
    /// # Errors
    ///
    /// As [`Requirement::check_at`].
    pub fn check(
        &self,
        site: &SiteName,
        release: &ReleaseId,
        signable: Signable,
        signatures: &[SignatureText],
    ) -> Result<Signed, String> {
        self.check_at(site, release, signable, signatures, Timestamp::now())
    }

    /// Checks that enough signers, each with a different key and each allowed at
    /// `now`, have signed the statement of the payload or the one of the tree.
    ///
    /// A signature that does not count does no harm: while keys are exchanged, a
    /// client may sign with the old and the new one.
    ///
    /// # Errors
    ///
    /// A phrase: how many signers have signed, and why each other signature does
    /// not count.
    pub fn check_at(
        &self,
        site: &SiteName,
        release: &ReleaseId,
        signable: Signable,
        signatures: &[SignatureText],
        now: Timestamp,
    ) -> Result<Signed, String> {
        if signatures.len() > MAX_SIGNATURES {
            return Err(format!("more than {MAX_SIGNATURES} signatures"));
        }
        let statements: Vec<(Subject, String)> = (signable.subjects())
            .map(|subject| {
                let statement = Statement {
                    site,
                    release,
                    subject,
                };
                (subject, statement.to_string())
            })
            .collect();
        let mut signers: Vec<Counted> = Vec::new();
        let mut kept = Vec::new();
        let mut reasons = Vec::new();
        for (index, text) in signatures.iter().enumerate() {
            let checked = sshsig::verify_signature(text, &statements, signable.what());
            let checked = checked.and_then(|(key, subject)| {
                self.signers.allow(&key, site.as_str(), now.as_second())?;
                count(&mut signers, key, subject)
            });
            match checked {
                Ok(()) => kept.push(text.clone()),
                Err(why) => reasons.push(format!("signature {} {why}", index + 1)),
            }
        }
        if signers.len() < self.threshold {
            let mut problem = format!(
                "{} of {} signers have signed it",
                signers.len(),
                self.threshold
            );
            if !reasons.is_empty() {
                problem = format!("{problem}: {}", reasons.join("; "));
            }
            return Err(problem);
        }
        Ok(Signed {
            by: signers
                .iter()
                .map(|signer| signer.key.fingerprint(ssh_key::HashAlg::Sha256))
                .collect(),
            signatures: kept,
            covers_payload: signers
                .iter()
                .filter(|signer| signer.signed_payload)
                .count()
                >= self.threshold,
        })
    }
}

/// Counts a signature. A signer counts once, also if both statements are signed.
///
/// # Errors
///
/// Returns a phrase that follows "signature N", for a second signature of one statement.
fn count(signers: &mut Vec<Counted>, key: KeyData, subject: Subject) -> Result<(), String> {
    let known = signers.iter().position(|signer| signer.key == key);
    let at = known.unwrap_or_else(|| {
        signers.push(Counted {
            key,
            signed_payload: false,
            signed_tree: false,
        });
        signers.len() - 1
    });
    let signed = match subject {
        Subject::Payload(_) => &mut signers[at].signed_payload,
        Subject::Tree(_) => &mut signers[at].signed_tree,
    };
    if std::mem::replace(signed, true) {
        return Err("is a second one by the same key".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_has_exactly_this_text() {
        let statement = Statement {
            site: &SiteName::try_from("blog").unwrap(),
            release: &ReleaseId::try_from("20260412-142033").unwrap(),
            subject: Subject::Payload(Sha256Digest([0xab; 32])),
        };
        let hex = "ab".repeat(32);
        let expected =
            format!("deploy-shell release v1\nsite blog\nrelease 20260412-142033\nsha256 {hex}\n");
        assert_eq!(statement.to_string(), expected);
        let statement = Statement {
            subject: Subject::Tree(Sha256Digest([0xab; 32])),
            ..statement
        };
        let expected =
            format!("deploy-shell release v2\nsite blog\nrelease 20260412-142033\ntree {hex}\n");
        assert_eq!(statement.to_string(), expected);
    }
}
