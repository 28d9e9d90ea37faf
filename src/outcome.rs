//! A success with everything the reply and the record need; the counterpart of
//! [`crate::error::Error`].

use crate::confine::Confinement;
use crate::names::ReleaseId;
use crate::signature::Signed;

/// What a verb did.
#[derive(Debug, Default)]
pub struct Success {
    /// The lines of stdout.
    pub lines: Vec<String>,
    pub release: Option<ReleaseId>,
    /// What was live before.
    pub previous: Option<ReleaseId>,
    /// The payload's bytes as received.
    pub payload_bytes: Option<u64>,
    /// Regular files of the release, and their bytes.
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// Whose signatures counted, where the site asks for any.
    pub signed: Option<Signed>,
    /// What confined the unpacker, if it was needed.
    pub unpacker: Option<Confinement>,
    /// What went wrong without changing success into failure.
    pub warnings: Vec<String>,
}
