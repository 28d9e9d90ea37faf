//! The errors that a client sees: a code word with its exit status, one line
//! that names the problem, and a second line with the remedy where there is one.

mod fault;

use std::fmt;
use std::sync::OnceLock;

pub use fault::Fault;

/// Defines [`Code`], [`Code::ALL`] and [`Code::parts`] from one table.
macro_rules! codes {
    ($($code:ident = ($name:literal, $exit:literal),)*) => {
        /// A code word and its exit status.
        ///
        /// The statuses follow sysexits(3) where it has one. 1, 2, 101, 128 and
        /// above and 255 are never used: a shell, a panic, a signal and ssh
        /// itself produce them, and a client must be able to distinguish them
        /// from our answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($code,)*
        }

        impl Code {
            /// Every code, in the order of the exit statuses.
            pub const ALL: &'static [Code] = &[$(Code::$code,)*];

            /// Returns the code word and the exit status.
            pub const fn parts(self) -> (&'static str, u8) {
                match self {
                    $(Code::$code => ($name, $exit),)*
                }
            }
        }
    };
}

codes! {
    BadRequest = ("bad-request", 64),
    DigestMismatch = ("digest-mismatch", 65),
    TreeMismatch = ("tree-mismatch", 65),
    BadSignature = ("bad-signature", 65),
    BadArchive = ("bad-archive", 65),
    TooLarge = ("too-large", 65),
    MissingPath = ("missing-path", 65),
    NoSuchRelease = ("no-such-release", 66),
    GateFailed = ("gate-failed", 69),
    Internal = ("internal", 70),
    UnpackerDied = ("unpacker-died", 70),
    ReleaseExists = ("release-exists", 73),
    IoError = ("io-error", 74),
    BaseDamaged = ("base-damaged", 74),
    DiskFull = ("disk-full", 74),
    Timeout = ("timeout", 74),
    Busy = ("busy", 75),
    RateLimited = ("rate-limited", 75),
    NotCurrent = ("not-current", 75),
    AuditUnreachable = ("audit-unreachable", 75),
    Denied = ("denied", 77),
    BadConfig = ("bad-config", 78),
    BadLayout = ("bad-layout", 78),
    NoSandbox = ("no-sandbox", 78),
}

impl Code {
    /// Returns the fixed code word, which begins the error line for scripts.
    pub const fn name(self) -> &'static str {
        self.parts().0
    }

    /// Returns the exit status that belongs to the code word.
    pub const fn exit(self) -> u8 {
        self.parts().1
    }
}

/// An error with everything that the reply and the audit line need.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Error {
    pub code: Code,
    /// Lower case, the problem first, the subject in single quotes, no full stop.
    pub problem: String,
    /// What the reader can do about the problem.
    pub remedy: Option<String>,
    /// The class of the system's error, if a system call failed.
    pub fault: Option<Fault>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(code: Code, problem: impl Into<String>) -> Self {
        Error {
            code,
            problem: problem.into(),
            remedy: None,
            fault: None,
        }
    }

    /// Returns the same error with a remedy.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Returns the error of a system call that failed while `doing` something
    /// ("cannot read 'x'").
    ///
    /// Only this function distinguishes a full disk and faults that last from other
    /// I/O errors: see [`Fault`]. A caller that knows the file system adds its name and
    /// the free bytes.
    pub fn io(doing: impl fmt::Display, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let problem = format!("{doing}: {}", describe(&error));
        Error::of_fault(Fault::of(&error), problem)
    }

    /// Returns the error of a fault, with its code and remedy.
    pub fn of_fault(fault: Fault, problem: impl Into<String>) -> Self {
        Error {
            code: fault.code(),
            problem: problem.into(),
            remedy: fault.remedy().map(str::to_owned),
            fault: Some(fault),
        }
    }
}

/// The source location of the first panic.
static PANIC_LOCATION: OnceLock<String> = OnceLock::new();

/// Stops panics from writing to stderr; [`bug`] reports them instead.
pub fn catch_bugs() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string);
        _ = PANIC_LOCATION.set(location.unwrap_or_default());
    }));
}

/// Returns the error that reports a caught panic.
pub fn bug() -> Error {
    let location = PANIC_LOCATION.get().map_or("", String::as_str);
    Error::new(
        Code::Internal,
        format!("a bug ended the request, at {location}"),
    )
    .remedy("'list' shows what is live; please report it")
}

/// Returns the system's description of `error`, without Rust's `(os error N)`.
pub fn describe(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        // open(2) says so of sockets, fifos and devices, and so does `Dir`.
        Some(nix::libc::ENXIO) => "it is not a regular file".to_owned(),
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_its_own_code() {
        let full = Error::io("cannot write", nix::errno::Errno::ENOSPC);
        assert_eq!(full.code, Code::DiskFull);
        let quota = Error::io("cannot write", nix::errno::Errno::EDQUOT);
        assert_eq!(quota.code, Code::DiskFull);
        assert!(quota.remedy.is_some_and(|remedy| remedy.contains("quota")));
        let other = Error::io("cannot write", nix::errno::Errno::EIO);
        assert_eq!((other.code, other.code.exit()), (Code::IoError, 74));
        assert!(!other.problem.contains("os error"), "{}", other.problem);
    }

    #[test]
    fn a_fault_that_lasts_is_not_worth_a_retry() {
        use nix::errno::Errno;
        for errno in [
            Errno::EACCES,
            Errno::EPERM,
            Errno::EROFS,
            Errno::EOPNOTSUPP,
            Errno::ENAMETOOLONG,
            Errno::EMLINK,
            Errno::EINVAL,
        ] {
            let error = Error::io("cannot write", errno);
            assert_eq!(error.code.exit(), 78, "{errno}");
            assert!(error.remedy.is_some(), "{errno}");
        }
    }

    #[test]
    fn no_code_uses_a_status_of_a_shell_a_signal_or_ssh() {
        for code in Code::ALL {
            let (name, exit) = code.parts();
            assert!(matches!(exit, 64..=78), "{name}: {exit}");
        }
    }
}
