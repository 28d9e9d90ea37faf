//! The monitor's side of the unpacker: starts it, takes its report, and ends it.
//!
//! The report is taken as it comes, and bounded. It cannot add to the head of
//! the manifest, which we have written, and which ends before it. Whether it is
//! one, and true, is seen when the unpacker is gone and cannot change anything
//! any more; until then nobody reads it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::spool::VerifiedPayload;
use crate::archive::{self, Limits, UnpackJob};
use crate::config::{Config, Symlinks};
use crate::deadline::{Deadline, TimedReader};
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest;
use crate::message;
use crate::sandbox::Enforcement;
use crate::shared_paths::Shared;
use crate::store::Store;

/// As much of the unpacker's prose as is read, in bytes.
const MAX_PROSE: u64 = 1024;

/// How long an unpacker without a payload may take to report its sandbox.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Unpacks a verified spool into `tree`, and appends the report to `manifest`,
/// unread: entries and sums. `reports` is called when that begins, and so with
/// all files written. Gives what confined the unpacker.
///
/// Errors: [`Code::BadArchive`], [`Code::DiskFull`], [`Code::Timeout`],
/// [`Code::NoSandbox`], [`Code::IoError`], [`Code::UnpackerDied`].
pub fn run(
    store: &Store,
    config: &Config,
    spool: VerifiedPayload,
    tree: &Dir,
    deadline: Deadline,
    manifest: &mut impl Write,
    reports: impl FnOnce(),
) -> Result<Enforcement> {
    let room = store.room(config.limits.reserve)?;
    let mut child = Guard(start(config, spool, tree, room)?);
    let (Some(stdout), Some(stderr)) = (child.0.stdout.take(), child.0.stderr.take()) else {
        return Err(Error::new(Code::Internal, "the unpacker has no pipes"));
    };
    let timed = TimedReader::new(stdout, deadline.left(), deadline);
    let mut report = BufReader::with_capacity(64 * 1024, timed);
    let confinement = read_sandbox(&mut report);
    // It has said what confines it; what comes next is what it has made.
    if report.fill_buf().is_ok_and(|begun| !begun.is_empty()) {
        reports();
    }
    let copied = copy(&mut report, manifest, config.archive.max_entries)
        .map_err(|error| store.io("cannot write the manifest", error))?;
    if copied.is_err() && !report.get_mut().is_closed() {
        // It writes what is no report, and may never end by itself.
        child.kill();
    }
    drop(report);
    let mut prose = Vec::new();
    let timed = TimedReader::new(stderr, deadline.left(), deadline);
    // What it cannot be read for is told by the exit status as well.
    _ = timed.take(MAX_PROSE).read_to_end(&mut prose);
    let prose = escape::escape_if_needed(
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
    spool: VerifiedPayload,
    tree: &Dir,
    (room_bytes, room_inodes): (u64, u64),
) -> Result<Child> {
    let archive = &config.archive;
    let job = UnpackJob {
        limits: Limits {
            max_unpacked: archive.max_unpacked,
            max_file: archive.max_file,
            max_entries: archive.max_entries,
            room_bytes,
            room_inodes,
            symlinks: archive.symlinks == Symlinks::Inside,
        },
        shared: config.shared.clone(),
        sandbox_required: config.sandbox.required,
    };
    // This very program, even if an upgrade has just replaced the file under its
    // name: both processes must have the same messages.
    let program = Path::new("/proc/self/exe");
    // By handle: in the child /proc/self is the child, which still has our
    // descriptors when it changes directory, and loses them at exec.
    let directory = format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd());
    command(program, Path::new(&directory), &job)?
        .stdin(Stdio::from(spool.into_file()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Error::io("cannot start the unpacker", error))
}

/// Returns the command line of an unpacker that works in `directory`.
fn command(program: &Path, directory: &Path, job: &UnpackJob) -> Result<Command> {
    let mut command = Command::new(program);
    command
        .arg(archive::WORD)
        .arg(message::encode(job)?)
        .env_clear()
        .current_dir(directory);
    Ok(command)
}

/// Starts an unpacker without a payload, and returns what sandbox it reports.
///
/// `program` is a `deploy-shell`; `directory` is where the unpacker works. It
/// writes nothing there: an empty payload is not an archive.
///
/// # Errors
///
/// [`Code::IoError`] when it cannot be started, [`Code::UnpackerDied`] when it
/// reports no sandbox in time.
pub fn probe_sandbox(program: &Path, directory: &Path) -> Result<Enforcement> {
    let job = UnpackJob {
        limits: Limits::default(),
        shared: Shared::default(),
        sandbox_required: false,
    };
    let child = command(program, directory, &job)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Error::io("cannot start the unpacker", error))?;
    let mut child = Guard(child);
    let deadline = Deadline::after(PROBE_TIMEOUT);
    let stdout = child.0.stdout.take();
    let report = stdout.map(|stdout| TimedReader::new(stdout, deadline.left(), deadline));
    report
        .ok_or("it has no pipe")
        .and_then(|report| read_sandbox(&mut BufReader::new(report)))
        .map_err(died)
}

/// Reads the first line of a report.
fn read_sandbox(report: &mut impl BufRead) -> Result<Enforcement, &'static str> {
    let line = manifest::read_line(report)?.unwrap_or_default();
    line.strip_prefix(archive::SANDBOX)
        .and_then(|on| message::decode(on.as_bytes(), manifest::MAX_LINE).ok())
        .ok_or("it does not report its sandbox")
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
