//! The monitor's side of the unpacker: starts it, takes its report, and ends it.
//!
//! The report is taken as it comes, and bounded. It cannot add to the head of
//! the manifest, which we have written, and which ends before it. Whether it is
//! one, and true, is seen when the unpacker is gone and cannot change anything
//! any more; until then nobody reads it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::spool::Verified;
use crate::archive;
use crate::config::{Config, Symlinks};
use crate::deadline::{Deadline, TimedReader};
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest;
use crate::sandbox::Confinement;
use crate::shared_paths::Existing;
use crate::store::Store;

/// As much of the unpacker's prose as is read, in bytes.
const MAX_PROSE: u64 = 1024;

/// Unpacks a verified spool into `tree`, and appends the report to `manifest`,
/// unread: entries and sums. `reports` is called when that begins, and so with
/// all files written. Gives what confined the unpacker.
///
/// Errors: [`Code::BadArchive`], [`Code::DiskFull`], [`Code::Timeout`],
/// [`Code::NoSandbox`], [`Code::IoError`], [`Code::UnpackerDied`].
pub fn run(
    store: &Store,
    config: &Config,
    spool: Verified,
    tree: &Dir,
    deadline: Deadline,
    manifest: &mut impl Write,
    reports: impl FnOnce(),
) -> Result<Confinement> {
    let room = store.room(config.limits.reserve)?;
    let mut child = Guard(start(config, spool, tree, room)?);
    let (Some(stdout), Some(stderr)) = (child.0.stdout.take(), child.0.stderr.take()) else {
        return Err(Error::new(Code::Internal, "the unpacker has no pipes"));
    };
    let timed = TimedReader::new(stdout, deadline.left(), deadline);
    let mut report = BufReader::with_capacity(64 * 1024, timed);
    let confinement = manifest::read_line(&mut report).and_then(|line| {
        let line = line.unwrap_or_default();
        let on = line
            .strip_prefix(archive::SANDBOX)
            .and_then(|on| on.parse().ok());
        on.ok_or("it does not tell its confinement")
    });
    // It has said what confines it; what comes next is what it has made.
    if report.fill_buf().is_ok_and(|begun| !begun.is_empty()) {
        reports();
    }
    let copied = copy(&mut report, manifest, config.archive.max_entries)
        .map_err(|error| store.io("cannot write the manifest", error))?;
    if copied.is_err() && !report.get_mut().has_ended() {
        // It writes what is no report, and may never end by itself.
        child.kill();
    }
    drop(report);
    let mut prose = Vec::new();
    let timed = TimedReader::new(stderr, deadline.left(), deadline);
    // What it cannot be read for is told by the exit status as well.
    _ = timed.take(MAX_PROSE).read_to_end(&mut prose);
    let prose = escape::printable(
        prose
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default(),
    );
    let status = child.wait(deadline)?;
    let code = status.code();
    if code == Some(0) {
        let told = confinement.and_then(|on| copied.map(|()| on));
        return told.map_err(|why| died(&format!("its report is not acceptable: {why}")));
    }
    if code == Some(i32::from(archive::FULL)) {
        return Err(store.with_room(Error::new(Code::DiskFull, prose)));
    }
    // The statuses by which the unpacker may refuse; all others are its death.
    let said = [Code::BadArchive, Code::IoError, Code::NoSandbox]
        .into_iter()
        .find(|said| code == Some(i32::from(said.exit())));
    Err(match said {
        Some(said) => Error::new(said, prose),
        None => died(&format!("{} ({prose})", how(status))),
    })
}

/// Copies the report to the manifest, no more than there may be of it. The inner
/// error is the report's.
fn copy<F: AsFd>(
    report: &mut BufReader<TimedReader<F>>,
    manifest: &mut impl Write,
    max_entries: u32,
) -> std::io::Result<std::result::Result<(), &'static str>> {
    // The release itself is one more, and so are the sums.
    let max_lines = u64::from(max_entries) + 2;
    let max_bytes = max_lines * manifest::MAX_LINE as u64;
    let (mut lines, mut bytes) = (0, 0);
    // Ends: each turn adds to `bytes`, which is bounded.
    loop {
        let piece = match report.fill_buf() {
            Ok([]) => return Ok(Ok(())),
            Ok(piece) => piece,
            Err(_) => return Ok(Err("it cannot be read")),
        };
        let len = piece.len();
        bytes += len as u64;
        lines += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        if lines > max_lines || bytes > max_bytes {
            return Ok(Err("it has more entries than there may be"));
        }
        manifest.write_all(piece)?;
        report.consume(len);
    }
}

fn start(
    config: &Config,
    spool: Verified,
    tree: &Dir,
    (room_bytes, room_inodes): (u64, u64),
) -> Result<Child> {
    let archive = &config.archive;
    // This very program, even if the file under its name was just exchanged
    // by an upgrade: both halves must agree about the report.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("unpack")
        .args(["--max-unpacked", &archive.max_unpacked.0.to_string()])
        .args(["--max-file", &archive.max_file.0.to_string()])
        .args(["--max-entries", &archive.max_entries.to_string()])
        .args(["--room-bytes", &room_bytes.to_string()])
        .args(["--room-inodes", &room_inodes.to_string()]);
    if archive.symlinks == Symlinks::Deny {
        command.arg("--deny-symlinks");
    }
    // In one word each: a path may begin with '-'.
    for link in &config.shared.links {
        command.arg(format!("--shared={link}"));
    }
    if config.shared.existing == Existing::Replace {
        command.arg("--replace-existing");
    }
    if !config.sandbox.required {
        command.arg("--sandbox-optional");
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
    fn kill(&mut self) {
        _ = self.0.kill();
    }

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
        self.kill();
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
