//! The monitor's side of the unpacker: starts it, reads its report, believes
//! nothing of it that it has not checked, and ends it.

use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::spool::Verified;
use super::timed::{Deadline, Timed};
use crate::config::{Archive, Symlinks};
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest::{self, Sums};
use crate::store::Store;
use crate::store::dir::Dir;
use crate::unpack;

/// As much of the unpacker's prose as is read, in bytes.
const MAX_PROSE: u64 = 1024;

/// Unpacks a verified spool into `tree`, writing the manifest's entries to
/// `manifest` as they are reported and checked.
///
/// Errors: [`Code::BadArchive`], [`Code::DiskFull`], [`Code::Timeout`],
/// [`Code::UnpackerDied`].
pub fn run(
    store: &Store,
    spool: Verified,
    tree: &Dir,
    archive: &Archive,
    deadline: Deadline,
    manifest: &mut impl Write,
) -> Result<Sums> {
    let mut child = Guard(start(spool, tree, archive)?);
    let (Some(stdout), Some(stderr)) = (child.0.stdout.take(), child.0.stderr.take()) else {
        return Err(Error::new(Code::Internal, "the unpacker has no pipes"));
    };
    let mut report =
        BufReader::with_capacity(64 * 1024, Timed::new(stdout, deadline.left(), deadline));
    let mut unwritten = None;
    let sums = manifest::read_entries(&mut report, |entry| {
        writeln!(manifest, "{entry}").map_err(|error| {
            unwritten = Some(error);
            "manifest cannot be written"
        })
    });
    if let Some(error) = unwritten {
        return Err(store.io("cannot write the manifest", error));
    }
    let mut prose = Vec::new();
    let timed = Timed::new(stderr, deadline.left(), deadline);
    // What it cannot be read for is told by the exit status as well.
    _ = timed.take(MAX_PROSE).read_to_end(&mut prose);
    let prose = escape::line(
        prose
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default(),
    );
    let status = child.wait(deadline)?;
    match (status.code(), sums) {
        (Some(0), Ok(sums)) => Ok(sums),
        (Some(0), Err(why)) => Err(died(&format!("its report is not acceptable: {why}"))),
        (Some(code), _) if code == i32::from(unpack::FULL) => {
            Err(store.with_room(Error::new(Code::DiskFull, prose)))
        }
        (Some(65), _) => Err(Error::new(Code::BadArchive, prose)),
        (Some(74), _) => Err(Error::new(Code::IoError, prose)),
        _ => Err(died(&how(status))),
    }
}

fn start(spool: Verified, tree: &Dir, archive: &Archive) -> Result<Child> {
    // This very program, even if the file under its name was just exchanged
    // by an upgrade: both halves must agree about the report.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("unpack")
        .args(["--max-unpacked", &archive.max_unpacked.0.to_string()])
        .args(["--max-file", &archive.max_file.0.to_string()])
        .args(["--max-entries", &archive.max_entries.to_string()]);
    if archive.symlinks == Symlinks::Deny {
        command.arg("--deny-symlinks");
    }
    command
        .env_clear()
        // By handle: in the child /proc/self is the child, which still has
        // our descriptors when it changes folder, and loses them at exec.
        .current_dir(format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd()))
        .stdin(Stdio::from(spool.into_file()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Error::io("cannot start the unpacker", error))
}

/// The child, which never outlives its use.
struct Guard(Child);

impl Guard {
    /// Waits for the end, which is at hand: both pipes are closed.
    fn wait(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        let cannot = |error| Error::io("cannot wait for the unpacker", error);
        // Ends: every turn sleeps, and the deadline does not move. Polled,
        // because a plain wait has no bound and this process is not trusted.
        while !deadline.has_passed() {
            if let Some(status) = self.0.try_wait().map_err(cannot)? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Err(Error::new(
            Code::Timeout,
            "unpacking took longer than the total_timeout left",
        )
        .remedy("raise total_timeout in the site's configuration"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (_, Some(signal)) => format!("signal {signal} ended it"),
        _ => "it ended".to_owned(),
    }
}

fn died(how: &str) -> Error {
    Error::new(
        Code::UnpackerDied,
        format!("the unpacker did not finish: {how}"),
    )
    .remedy("nothing was published; keep the payload and report it")
}
