//! Signatures of releases: the signed statement, the operator's list of signers,
//! and the decision. Pure, with two exceptions: [`Requirement::load`] reads the
//! list and the server's time zone before the process enters its sandbox, and
//! [`Requirement::check`] reads the clock.
//!
//! A signer signs a statement that names the site, the release and the payload's
//! digest, so a signature is worth nothing for another site, release or payload.
//! `ssh-keygen -Y sign -n deploy-shell` makes signatures, and this module accepts
//! those that `ssh-keygen -Y verify` would accept.

mod pattern;
mod signers;
mod sshsig;
mod time;

use std::fmt;

use jiff::Timestamp;
use ssh_key::Fingerprint;

pub use jiff::tz::TimeZone;
pub use pattern::list_matches;
pub use signers::{AllowedSigners, parse_quoted};
pub use sshsig::NAMESPACE;
pub use time::server_zone;

use crate::config::{self, Config};
use crate::error::{Code, Error, Result};
use crate::names::{MAX_SIGNATURES, ReleaseId, Sha256Digest, SignatureText, SiteName};

/// The signed statement. Its text is part of the contract: four lines, each
/// ended by a line feed.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    pub site: &'a SiteName,
    pub release: &'a ReleaseId,
    /// The digest of the payload.
    pub sha256: Sha256Digest,
}

impl fmt::Display for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statement {
            site,
            release,
            sha256,
        } = self;
        write!(
            f,
            "deploy-shell release v1\nsite {site}\nrelease {release}\nsha256 {sha256}\n"
        )
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
}

impl Signed {
    /// Returns the signatures that counted, one for each signer.
    pub fn signatures(&self) -> &[SignatureText] {
        &self.signatures
    }
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

    /// Checks that enough signers, allowed at this moment, have signed the
    /// statement that names the site, the release and the payload's digest.
    ///
    /// # Errors
    ///
    /// As [`Requirement::check_at`].
    pub fn check(
        &self,
        site: &SiteName,
        release: &ReleaseId,
        sha256: Sha256Digest,
        signatures: &[SignatureText],
    ) -> Result<Signed, String> {
        let statement = Statement {
            site,
            release,
            sha256,
        };
        self.check_at(&statement, signatures, Timestamp::now())
    }

    /// Checks that enough signers, each with a different key and each allowed at
    /// `now`, have signed the statement.
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
        statement: &Statement<'_>,
        signatures: &[SignatureText],
        now: Timestamp,
    ) -> Result<Signed, String> {
        if signatures.len() > MAX_SIGNATURES {
            return Err(format!("more than {MAX_SIGNATURES} signatures"));
        }
        let message = statement.to_string();
        let mut keys = Vec::new();
        let mut kept = Vec::new();
        let mut reasons = Vec::new();
        for (index, text) in signatures.iter().enumerate() {
            let checked = sshsig::verify_signature(text, message.as_bytes()).and_then(|key| {
                let site = statement.site.as_str();
                self.signers.allow(&key, site, now.as_second())?;
                if keys.contains(&key) {
                    Err("is a second one by the same key".to_owned())
                } else {
                    Ok(key)
                }
            });
            match checked {
                Ok(key) => {
                    keys.push(key);
                    kept.push(text.clone());
                }
                Err(why) => reasons.push(format!("signature {} {why}", index + 1)),
            }
        }
        if keys.len() < self.threshold {
            let mut problem = format!(
                "{} of {} signers have signed it",
                keys.len(),
                self.threshold
            );
            if !reasons.is_empty() {
                problem = format!("{problem}: {}", reasons.join("; "));
            }
            return Err(problem);
        }
        Ok(Signed {
            by: keys
                .iter()
                .map(|key| key.fingerprint(ssh_key::HashAlg::Sha256))
                .collect(),
            signatures: kept,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_has_exactly_this_text() {
        let statement = Statement {
            site: &SiteName::try_from("blog").unwrap(),
            release: &ReleaseId::try_from("20260412-142033").unwrap(),
            sha256: Sha256Digest([0xab; 32]),
        };
        let expected = format!(
            "deploy-shell release v1\nsite blog\nrelease 20260412-142033\nsha256 {}\n",
            "ab".repeat(32)
        );
        assert_eq!(statement.to_string(), expected);
    }
}
