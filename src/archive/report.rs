//! What the unpacker reports to the monitor.
//!
//! On stdout: one message about the sandbox, some about the disk, and one at the end. On
//! stderr: after a failure, one message that says why. Nothing of it says what the release
//! contains: the assembler looks at the files themselves.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk_use::DiskNeed;
use super::io_error;
use super::job::UnpackLimits;
use super::path::{self, LinkTarget};
use super::rule::{Rule, UnpackError};
use super::tree::{Node, Tree};
use crate::dir::Dir;
use crate::error::{Code, Error, Fault};
use crate::escape;
use crate::message;
use crate::sandbox::Enforcement;

/// The maximum length of each of these messages, in bytes.
pub const MAX_MESSAGE: usize = 4096;

/// The maximum length of the problem and of the remedy in a [`FailureReport`], in
/// bytes.
const MAX_PROBLEM: usize = 1024;
const MAX_REMEDY: usize = 400;

/// The first line on stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportHead {
    pub sandbox: Enforcement,
}

/// Any other line on stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnpackMessage {
    /// What the entries so far take on disk, at most.
    Uses(DiskNeed),
    /// The last line.
    Done(UnpackReport),
}

/// The report of an unpacker that has written the whole archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpackReport {
    /// For each shared path in the order of the job, how many of the directories above it
    /// were there before the unpacker made its symlink. The client sent these directories,
    /// or the symlink to an earlier shared path needed them.
    ///
    /// A false number changes the digest of the tree list, and nothing of the release.
    pub known: Vec<usize>,
}

/// The growth after which the unpacker reports what it uses.
const REPORT_EVERY: DiskNeed = DiskNeed {
    bytes: 4 << 20,
    inodes: 1024,
};

/// Tells the monitor what the unpacker uses. A client may send as slowly as it likes. The
/// monitor ends its upload if that takes more than its share of the disk meanwhile.
pub struct Progress {
    to: Box<dyn Write>,
    reported: DiskNeed,
}

impl Progress {
    /// Reports to this writer.
    pub fn new(to: Box<dyn Write>) -> Progress {
        Progress {
            to,
            reported: DiskNeed::default(),
        }
    }

    /// Checks that there is room for this use, and writes an [`UnpackMessage::Uses`] if it
    /// has grown enough since the last one.
    pub(super) fn report(
        &mut self,
        uses: DiskNeed,
        limits: &UnpackLimits,
    ) -> Result<(), UnpackError> {
        if uses.bytes > limits.room_bytes || uses.inodes > limits.room_inodes {
            let full = "not enough space: the configured reserve would be used";
            return Err(UnpackError::Io(Error::new(Code::DiskFull, full)));
        }
        let next = self.reported.plus(REPORT_EVERY);
        if uses.bytes < next.bytes && uses.inodes < next.inodes {
            return Ok(());
        }
        self.reported = uses;
        let line = message::encode(&UnpackMessage::Uses(uses)).map_err(UnpackError::Io)?;
        writeln!(self.to, "{line}").map_err(|error| io_error("write the report", error))
    }
}

/// The line on stderr after a failure that the client may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureReport {
    kind: FailureKind,
    problem: String,
    /// For a refused archive: it depends on the rule.
    remedy: Option<String>,
}

/// The failures that an unpacker may report. Any other end is its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FailureKind {
    BadArchive,
    /// The assembler alone reports these three: what the unpacker wrote is not a release, a
    /// delta does not give the promised tree, and its base is not as its manifest says.
    UnpackerDied,
    TreeMismatch,
    BaseDamaged,
    /// The configured reserve would be used.
    ReserveReached,
    NoSandbox,
    /// A system call failed. The monitor decides about the code and the remedy.
    System(Fault),
}

impl FailureKind {
    /// Returns whether the reporting process chooses the remedy. The monitor has one for
    /// the other failures.
    fn has_remedy(self) -> bool {
        !matches!(
            self,
            FailureKind::ReserveReached | FailureKind::NoSandbox | FailureKind::System(_)
        )
    }
}

impl FailureReport {
    /// Returns the report of a failure; none for a failure that is a bug.
    pub fn new(error: &Error) -> Option<FailureReport> {
        let kind = match (error.fault, error.code) {
            (Some(fault), _) => FailureKind::System(fault),
            (None, Code::BadArchive) => FailureKind::BadArchive,
            (None, Code::UnpackerDied) => FailureKind::UnpackerDied,
            (None, Code::TreeMismatch) => FailureKind::TreeMismatch,
            (None, Code::BaseDamaged) => FailureKind::BaseDamaged,
            (None, Code::DiskFull) => FailureKind::ReserveReached,
            (None, Code::NoSandbox) => FailureKind::NoSandbox,
            _ => return None,
        };
        let problem = printable(&error.problem, MAX_PROBLEM);
        let remedy = error.remedy.as_ref();
        let remedy = remedy.filter(|_| kind.has_remedy());
        Some(FailureReport {
            kind,
            problem,
            remedy: remedy.map(|remedy| printable(remedy, MAX_REMEDY)),
        })
    }

    /// Returns the error for the client. The unpacker parsed hostile bytes, so its
    /// text is escaped and cut again.
    pub fn into_error(self) -> Error {
        let problem = printable(&self.problem, MAX_PROBLEM);
        let with_remedy = |code, problem| {
            let error = Error::new(code, problem);
            match &self.remedy {
                Some(remedy) => error.remedy(printable(remedy, MAX_REMEDY)),
                None => error,
            }
        };
        match self.kind {
            FailureKind::BadArchive => with_remedy(Code::BadArchive, problem),
            FailureKind::UnpackerDied => with_remedy(Code::UnpackerDied, problem),
            FailureKind::TreeMismatch => with_remedy(Code::TreeMismatch, problem),
            FailureKind::BaseDamaged => with_remedy(Code::BaseDamaged, problem),
            FailureKind::ReserveReached => Error::new(Code::DiskFull, problem),
            FailureKind::NoSandbox => Error::new(Code::NoSandbox, problem),
            FailureKind::System(fault) => Error::of_fault(fault, problem),
        }
    }
}

fn printable(text: &str, max: usize) -> String {
    escape::escape_if_needed_truncated(text.as_bytes(), max)
}

/// Checks that no symlink of the archive leads out of the release, after everything
/// has been unpacked. A shared symlink leads out, and so does a symlink through it.
pub fn check_symlinks(tree: &Tree, staging: &Dir) -> Result<(), UnpackError> {
    tree.visit(|path, node| {
        if !matches!(node, Node::Symlink) {
            return Ok(());
        }
        let refuse = |rule: Rule| Err(UnpackError::from(rule).at(path));
        let path = Path::new(OsStr::from_bytes(path));
        let target = || staging.read_link_beneath(path);
        match path::check_link_escape(staging.walk_beneath(path).map(drop), target) {
            Ok(LinkTarget::Inside) => Ok(()),
            Ok(LinkTarget::Escapes) => refuse(Rule::SymlinkEscapes),
            Ok(LinkTarget::Unresolved) => refuse(Rule::SymlinkUnresolved),
            Ok(LinkTarget::Loop) => refuse(Rule::SymlinkLoop),
            Err(errno) => Err(io_error("follow a symlink", errno)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_failure_report_fits_into_a_message() {
        let text = "\\".repeat(2000);
        let error = Error::new(Code::BadArchive, text.as_str()).remedy(text);
        let longest = FailureReport::new(&error).unwrap();
        let line = message::encode(&longest).unwrap();
        assert!(line.len() < MAX_MESSAGE, "{}", line.len());
        assert_eq!(message::decode(line.as_bytes(), MAX_MESSAGE), Ok(longest));
    }

    #[test]
    fn a_hostile_failure_report_is_escaped_again() {
        let line = r#"{"kind":{"system":"other"},"problem":"a\u001b[2J\nb","remedy":null}"#;
        let report: FailureReport = message::decode(line.as_bytes(), MAX_MESSAGE).unwrap();
        let error = report.into_error();
        assert_eq!(error.code, Code::IoError);
        assert_eq!(error.problem, r"a\x1b[2J\x0ab");
        let long = FailureReport {
            kind: FailureKind::BadArchive,
            problem: "x".repeat(4000),
            remedy: Some("y\n".repeat(4000)),
        };
        let error = long.into_error();
        assert_eq!(error.problem.len(), MAX_PROBLEM);
        let remedy = error.remedy.unwrap();
        assert!(
            remedy.len() <= MAX_REMEDY && remedy.starts_with(r"y\x0a"),
            "{remedy}"
        );
    }

    #[test]
    fn each_failure_has_its_code_and_remedy_and_no_other_can_be_reported() {
        let reported = |code, fault| {
            let error = Error {
                fault,
                ..Error::new(code, "x")
            };
            let report = FailureReport::new(&error)?;
            let line = message::encode(&report).unwrap();
            assert_eq!(
                message::decode(line.as_bytes(), MAX_MESSAGE),
                Ok(report.clone())
            );
            Some(report.into_error())
        };
        for code in Code::ALL {
            let known = [
                Code::BadArchive,
                Code::UnpackerDied,
                Code::TreeMismatch,
                Code::BaseDamaged,
                Code::DiskFull,
                Code::NoSandbox,
            ]
            .contains(code);
            let expected = known.then(|| Error::new(*code, "x"));
            assert_eq!(reported(*code, None), expected, "{code:?}");
        }
        for fault in Fault::ALL {
            let expected = Error::of_fault(fault, "x");
            assert_eq!(reported(fault.code(), Some(fault)), Some(expected));
        }
        for kind in ["\"internal\"", "{\"system\":\"luck\"}"] {
            let line = format!(r#"{{"kind":{kind},"problem":"x","remedy":null}}"#);
            let decoded = message::decode::<FailureReport>(line.as_bytes(), MAX_MESSAGE);
            assert!(decoded.is_err(), "{kind}");
        }
    }

    #[test]
    fn the_failures_of_the_monitor_have_no_remedy_of_the_child() {
        for (kind, expected) in [
            (FailureKind::BadArchive, true),
            (FailureKind::UnpackerDied, true),
            (FailureKind::TreeMismatch, true),
            (FailureKind::BaseDamaged, true),
            (FailureKind::ReserveReached, false),
            (FailureKind::NoSandbox, false),
            (FailureKind::System(Fault::Other), false),
        ] {
            assert_eq!(kind.has_remedy(), expected, "{kind:?}");
        }
    }

    /// Collects what is written.
    #[derive(Clone, Default)]
    struct Lines(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_use_is_reported_each_time_that_it_has_grown_enough() {
        let limits = UnpackLimits {
            room_bytes: 100 << 20,
            room_inodes: 100_000,
            ..UnpackLimits::default()
        };
        let lines = Lines::default();
        let mut progress = Progress::new(Box::new(lines.clone()));
        let mut uses = |bytes, inodes| {
            let uses = DiskNeed { bytes, inodes };
            progress.report(uses, &limits).is_ok()
        };
        let more = 4 << 20;
        assert!(uses(more - 1, 1023));
        assert!(lines.0.borrow().is_empty());
        assert!(uses(more, 5));
        assert!(uses(2 * more - 1, 1028));
        assert!(uses(2 * more - 1, 1029));
        assert!(uses(100 << 20, 100_000));
        assert!(!uses((100 << 20) + 1, 1));
        assert!(!uses(1, 100_001));
        let text = String::from_utf8(lines.0.borrow().clone()).unwrap();
        let reported: Vec<UnpackMessage> = text
            .lines()
            .map(|line| message::decode(line.as_bytes(), MAX_MESSAGE).unwrap())
            .collect();
        let expected = [(more, 5), (2 * more - 1, 1029), (100 << 20, 100_000)];
        let expected =
            expected.map(|(bytes, inodes)| UnpackMessage::Uses(DiskNeed { bytes, inodes }));
        assert_eq!(reported, expected);
    }
}
