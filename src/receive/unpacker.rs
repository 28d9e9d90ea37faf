//! The monitor's side of the unpacker: starts it, waits for its report, and ends it.
//!
//! The report does not say what the release contains. The assembler looks at the files
//! when the unpacker has exited and can no longer change anything.

use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::share::Share;
use super::spool::VerifiedPayload;
use super::termination::TerminationSignals;
use crate::archive::{self, FailureReport, ReportHead, UnpackJob, UnpackLimits, UnpackReport};
use crate::config::{Config, Symlinks, Times};
use crate::deadline::{Deadline, TimedReader};
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::message;
use crate::sandbox::Enforcement;
use crate::shared_paths::Shared;
use crate::store::Room;

/// The maximum length of an unexpected text on stderr that is shown, in bytes.
const MAX_TEXT: usize = 1024;

/// The time in which an unpacker must read its job.
const JOB_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval at which the monitor looks at the free space while the unpacker writes.
/// Several unpackers that write zeros can use a small reserve in 20 ms, and a look is one
/// statvfs(2).
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The time in which an unpacker without a payload must report its sandbox.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the unpacker has said.
pub struct Unpacked {
    /// The state of its sandbox.
    pub sandbox: Enforcement,
    pub report: UnpackReport,
}

/// Unpacks a verified payload into `tree`, or a delta into its directory of members.
///
/// # Errors
///
/// [`Code::BadArchive`], [`Code::DiskFull`], [`Code::Timeout`], [`Code::NoSandbox`],
/// [`Code::IoError`], and [`Code::UnpackerDied`] for any other end of the unpacker.
pub fn unpack(
    share: &Share<'_>,
    config: &Config,
    payload: VerifiedPayload,
    tree: &Dir,
    delta: bool,
    deadline: Deadline,
) -> Result<Unpacked> {
    let store = share.store;
    let allowance = share.allowance(payload.disk_need())?;
    let signals = TerminationSignals::open()?;
    let (mut child, socket) = start_unpacker(config, payload, tree, delta, allowance.room)?;
    let Some(stdout) = child.0.stdout.take() else {
        return Err(Error::new(Code::Internal, "the unpacker has no pipe"));
    };
    let timed = TimedReader::new(stdout, deadline.left(), deadline);
    let mut messages = BufReader::with_capacity(archive::MAX_MESSAGE, timed);
    let sandbox = read_sandbox(&mut messages);
    let reserve = config.limits.reserve;
    // Other processes use the disk too, and the unpacker is not trusted to count.
    wait_for_message(&messages, || {
        signals.check(|| "while the payload was unpacked".to_owned())?;
        store.room(reserve).map(drop)
    })?;
    let report = message::read_message(&mut messages, archive::MAX_MESSAGE)
        // A fixed phrase: the decoder's error quotes bytes of the unpacker.
        .map_err(|_| "it does not report its end".to_owned());
    if report.is_err() && !messages.get_mut().is_closed() {
        // The unpacker does not write a valid report, and may never end.
        child.kill();
    }
    drop(messages);
    let mut line = Vec::new();
    let timed = TimedReader::new(socket, deadline.left(), deadline);
    // Ignore an error here: the line is then no valid failure report.
    _ = timed
        .take(archive::MAX_MESSAGE as u64)
        .read_to_end(&mut line);
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let status = child.wait(deadline)?;
    if status.success() {
        let unpacked =
            sandbox.and_then(|sandbox| report.map(|report| Unpacked { sandbox, report }));
        return unpacked.map_err(|why| died(&format!("its report is not acceptable: {why}")));
    }
    let error = message::decode(line, archive::MAX_MESSAGE)
        .map(FailureReport::into_error)
        .ok()
        .filter(|error| status.code() == Some(i32::from(error.code.exit())));
    Err(match error {
        // The unpacker has counted what the archive needs, and has no free space to name.
        Some(error) if error.code == Code::DiskFull && error.fault.is_none() => {
            share.exceeded(allowance)
        }
        Some(error) => store.with_room(error),
        None => {
            let text = escape::escape_if_needed_truncated(line, MAX_TEXT);
            died(&format!("{} ({text})", describe_exit(status)))
        }
    })
}

/// Waits until a child sends a message or ends, and calls `check` meanwhile.
///
/// # Errors
///
/// Those of `check`.
pub fn wait_for_message<F: AsFd>(
    messages: &BufReader<TimedReader<F>>,
    check: impl Fn() -> Result<()>,
) -> Result<()> {
    // Terminates: the reader has a deadline, and is readable after it.
    while messages.buffer().is_empty() && !messages.get_ref().is_readable_within(POLL_INTERVAL) {
        check()?;
    }
    Ok(())
}

fn start_unpacker(
    config: &Config,
    payload: VerifiedPayload,
    tree: &Dir,
    delta: bool,
    room: Room,
) -> Result<(UnpackerProcess, UnixStream)> {
    let archive = &config.archive;
    let job = UnpackJob {
        limits: UnpackLimits {
            max_unpacked: archive.max_unpacked,
            max_file: archive.max_file,
            max_entries: archive.max_entries,
            block: room.block,
            room_bytes: room.bytes,
            room_inodes: room.inodes,
            symlinks: archive.symlinks == Symlinks::Inside,
            keep_times: archive.times == Times::Archive,
        },
        shared: config.shared.clone(),
        delta,
        sandbox_required: config.sandbox.required,
    };
    // This very program, even if an upgrade has just replaced the file under its
    // name: both processes must have the same messages.
    let program = Path::new("/proc/self/exe");
    // By handle: in the child /proc/self is the child, which still has our
    // descriptors when it changes directory, and loses them at exec.
    let directory = format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd());
    let payload = Stdio::from(payload.into_file());
    spawn(program, Path::new(&directory), payload, &job)
}

/// Starts an unpacker that works in `directory`, and sends it its job. Returns the
/// socket on which it reports a failure.
///
/// # Errors
///
/// [`Code::IoError`] when it cannot be started, or cannot be sent its job.
fn spawn(
    program: &Path,
    directory: &Path,
    payload: Stdio,
    job: &UnpackJob,
) -> Result<(UnpackerProcess, UnixStream)> {
    let cannot = |error| Error::io("cannot start the unpacker", error);
    let job = message::encode(job)?;
    // Not in argv, which every local user can read; and stdin is the payload.
    let (mut ours, theirs) = UnixStream::pair().map_err(cannot)?;
    ours.set_write_timeout(Some(JOB_TIMEOUT)).map_err(cannot)?;
    let child = Command::new(program)
        .arg(archive::WORD)
        .env_clear()
        .current_dir(directory)
        .stdin(payload)
        .stdout(Stdio::piped())
        .stderr(OwnedFd::from(theirs))
        .spawn()
        .map(UnpackerProcess)
        .map_err(cannot)?;
    // A job can be larger than the buffer of the socket. The unpacker reads at once.
    match ours.write_all(format!("{job}\n").as_bytes()) {
        // It has ended, and its exit status says why.
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {}
        // It would wait for its job until the deadline of the request.
        Err(error) => return Err(Error::io("cannot send the unpacker its job", error)),
        Ok(()) => {}
    }
    Ok((child, ours))
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
        limits: UnpackLimits::default(),
        shared: Shared::default(),
        delta: false,
        sandbox_required: false,
    };
    // The socket stays open until the report is read: the unpacker writes to it too.
    let (mut child, _socket) = spawn(program, directory, Stdio::null(), &job)?;
    let deadline = Deadline::after(PROBE_TIMEOUT);
    let stdout = child.0.stdout.take();
    let report = stdout.map(|stdout| TimedReader::new(stdout, deadline.left(), deadline));
    report
        .ok_or_else(|| "it has no pipe".to_owned())
        .and_then(|report| read_sandbox(&mut BufReader::new(report)))
        .map_err(|why| died(&why))
}

/// Reads the first line of a report.
fn read_sandbox(report: &mut impl BufRead) -> Result<Enforcement, String> {
    message::read_message(report, archive::MAX_MESSAGE)
        .map(|ReportHead { sandbox }| sandbox)
        // A fixed phrase: the decoder's error quotes bytes of the unpacker.
        .map_err(|_| "it does not report its sandbox".to_owned())
}

/// The child process. It is killed when this value is dropped.
struct UnpackerProcess(Child);

impl UnpackerProcess {
    fn kill(&mut self) {
        _ = self.0.kill();
    }

    /// Waits for the exit, which comes soon: the pipe and the socket are closed.
    ///
    /// # Errors
    ///
    /// [`Code::Timeout`] after the deadline, and [`Code::IoError`].
    fn wait(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        let wait_error = |error| Error::io("cannot wait for the unpacker", error);
        // Terminates: every turn sleeps, and the deadline does not move. It polls
        // because wait(2) has no time limit, and the unpacker is not trusted.
        loop {
            deadline.check("unpacking")?;
            if let Some(status) = self.0.try_wait().map_err(wait_error)? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for UnpackerProcess {
    fn drop(&mut self) {
        // Both fail if it has already exited.
        self.kill();
        _ = self.0.wait();
    }
}

fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with status {code}"),
        (_, Some(signal)) => format!("signal {signal} ended it"),
        _ => "it ended".to_owned(),
    }
}

/// Returns the error for an unpacker that ended in an unexpected way.
fn died(how: &str) -> Error {
    Error::new(
        Code::UnpackerDied,
        format!("the unpacker did not finish: {how}"),
    )
    .remedy("nothing was published; keep the payload and report it")
}
