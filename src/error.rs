//! What can go wrong, as the client sees it: a code word, an exit status, one
//! line of prose and, where there is one, the remedy.

use std::fmt;
use std::sync::OnceLock;

/// A code word and its exit status.
///
/// The statuses are those of sysexits(3) where it has one. 1, 2, 101, 128 and
/// above and 255 are never used: a shell, a panic, a signal and ssh itself
/// produce those, and a client must be able to tell them from our answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BadRequest,
    DigestMismatch,
    BadSignature,
    BadArchive,
    TooLarge,
    MissingPath,
    NoSuchRelease,
    GateFailed,
    Internal,
    UnpackerDied,
    ReleaseExists,
    IoError,
    DiskFull,
    Timeout,
    Busy,
    RateLimited,
    NotCurrent,
    AuditUnreachable,
    Denied,
    BadConfig,
    BadLayout,
    NoSandbox,
}

impl Code {
    /// The fixed word for machines, first on the line of stderr.
    pub const fn word(self) -> &'static str {
        self.pair().0
    }

    /// The exit status that goes with the word.
    pub const fn exit(self) -> u8 {
        self.pair().1
    }

    const fn pair(self) -> (&'static str, u8) {
        match self {
            Code::BadRequest => ("bad-request", 64),
            Code::DigestMismatch => ("digest-mismatch", 65),
            Code::BadSignature => ("bad-signature", 65),
            Code::BadArchive => ("bad-archive", 65),
            Code::TooLarge => ("too-large", 65),
            Code::MissingPath => ("missing-path", 65),
            Code::NoSuchRelease => ("no-such-release", 66),
            Code::GateFailed => ("gate-failed", 69),
            Code::Internal => ("internal", 70),
            Code::UnpackerDied => ("unpacker-died", 70),
            Code::ReleaseExists => ("release-exists", 73),
            Code::IoError => ("io-error", 74),
            Code::DiskFull => ("disk-full", 74),
            Code::Timeout => ("timeout", 74),
            Code::Busy => ("busy", 75),
            Code::RateLimited => ("rate-limited", 75),
            Code::NotCurrent => ("not-current", 75),
            Code::AuditUnreachable => ("audit-unreachable", 75),
            Code::Denied => ("denied", 77),
            Code::BadConfig => ("bad-config", 78),
            Code::BadLayout => ("bad-layout", 78),
            Code::NoSandbox => ("no-sandbox", 78),
        }
    }
}

/// A failure with everything the reply needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Error {
    pub code: Code,
    /// Lower case, the problem first, the subject in single quotes, no full stop.
    pub problem: String,
    /// What the reader can do about it.
    pub remedy: Option<String>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(code: Code, problem: impl Into<String>) -> Self {
        Error {
            code,
            problem: problem.into(),
            remedy: None,
        }
    }

    /// The same failure with a second line that says what to do.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// An operating system's failure while `doing` something ("cannot read 'x'").
    ///
    /// A full disk is told apart from other failures here, once; who knows the
    /// file system adds its name and the free bytes.
    pub fn io(doing: impl fmt::Display, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let full = [nix::libc::ENOSPC, nix::libc::EDQUOT];
        let code = match error.raw_os_error() {
            Some(number) if full.contains(&number) => Code::DiskFull,
            _ => Code::IoError,
        };
        Error::new(code, format!("{doing}: {}", describe(&error)))
    }
}

/// Where the first bug showed itself.
static BUG: OnceLock<String> = OnceLock::new();

/// Keeps panics from writing to stderr themselves; [`bug`] tells of them.
pub fn catch_bugs() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        _ = BUG.set(place.unwrap_or_default());
    }));
}

/// The failure that a caught panic is.
pub fn bug() -> Error {
    let place = BUG.get().map_or("", String::as_str);
    Error::new(
        Code::Internal,
        format!("a bug ended the request, at {place}"),
    )
    .remedy("'list' shows what is live; please report it")
}

/// The system's words for `error`, without Rust's `(os error N)`.
pub fn describe(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_full_is_told_apart() {
        let full = Error::io("cannot write", nix::errno::Errno::ENOSPC);
        assert_eq!(full.code, Code::DiskFull);
        let quota = Error::io("cannot write", nix::errno::Errno::EDQUOT);
        assert_eq!(quota.code, Code::DiskFull);
        let other = Error::io("cannot write", nix::errno::Errno::EIO);
        assert_eq!((other.code, other.code.exit()), (Code::IoError, 74));
        assert!(!other.problem.contains("os error"), "{}", other.problem);
    }
}
