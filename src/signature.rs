//! Who has signed a release: the statement that is signed, the operator's list
//! of signers, and the verdict. Pure, but for reading that list and the
//! server's time zone, once, before the process confines itself.
//!
//! A signature is of a statement that names the site, the release and the
//! payload's digest, so it says nothing about any other of the three. It is
//! made by `ssh-keygen -Y sign -n deploy-shell` alone, and judged as
//! `ssh-keygen -Y verify` would judge it.

mod pattern;
mod signers;
mod sshsig;
mod time;

use std::fmt;

use jiff::Timestamp;
use ssh_key::Fingerprint;

pub use jiff::tz::TimeZone;
pub use signers::AllowedSigners;
pub use sshsig::NAMESPACE;
pub use time::server_zone;

use crate::config::{self, Config};
use crate::error::{Code, Error, Result};
use crate::names::{MAX_SIGNATURES, ReleaseId, Sha256Digest, SignatureText, SiteName};

/// What is signed. Its text is the contract: four lines, each ended by a line
/// feed.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    pub site: &'a SiteName,
    pub release: &'a ReleaseId,
    /// Of the payload.
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

/// What a site asks of the signatures of a release.
#[derive(Debug)]
pub struct Requirement {
    signers: AllowedSigners,
    threshold: usize,
}

/// Enough signatures that held, when it was asked: only
/// [`Requirement::check`] makes one.
#[derive(Clone, Debug)]
pub struct Signed {
    by: Vec<Fingerprint>,
    signatures: Vec<SignatureText>,
}

impl Signed {
    /// Those that counted, one of each signer.
    pub fn signatures(&self) -> &[SignatureText] {
        &self.signatures
    }
}

impl fmt::Display for Signed {
    /// The signers' fingerprints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prints: Vec<String> = self.by.iter().map(ToString::to_string).collect();
        f.write_str(&prints.join(","))
    }
}

impl Requirement {
    /// The site's requirement, if it has one.
    ///
    /// Errors: [`Code::BadConfig`], naming the signers' file and, for its
    /// contents, the line. One that does not read in full is not read at all:
    /// a line that is passed over may be the one that was to end a signer.
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
            .remedy("see ALLOWED SIGNERS in ssh-keygen(1), and the README for what is not taken")
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
            let judged = sshsig::verify(text, message.as_bytes()).and_then(|key| {
                let site = statement.site.as_str();
                self.signers.allow(&key, site, now.as_second())?;
                match keys.contains(&key) {
                    true => Err("is a second one by the same key".to_owned()),
                    false => Ok(key),
                }
            });
            match judged {
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
    fn the_statement_is_exact() {
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
