//! The monitor's side of the unpacker: starts it, waits for its report, and ends it.
//!
//! The report does not say what the release contains. The assembler looks at the files
//! when the unpacker has exited and can no longer change anything.

use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::share::{Allowance, Share};
use super::termination::TerminationSignals;
use crate::archive::{
    self, DiskNeed, FailureReport, ReportHead, UnpackJob, UnpackLimits, UnpackMessage, UnpackReport,
};
use crate::config::{Config, Symlinks, Times};
use crate::deadline::{Deadline, TimedReader};
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::message;
use crate::sandbox::Enforcement;
use crate::shared_paths::Shared;

/// The maximum length of an unexpected text on stderr that is shown, in bytes.
const MAX_TEXT: usize = 1024;

/// The time in which an unpacker must read its job.
const JOB_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval at which the monitor looks at the free space while the unpacker writes.
/// Several unpackers that write zeros can use a small reserve in 20 ms, and a look is one
/// statvfs(2).
pub const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// The time in which an unpacker without a payload must report its sandbox.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The report of an unpacker that has exited.
pub struct Unpacked {
    /// The state of its sandbox.
    pub sandbox: Enforcement,
    pub report: UnpackReport,
}

/// A running unpacker. It is killed when this value is dropped.
pub struct Unpacker<'a> {
    share: &'a Share<'a>,
    deadline: Deadline,
    signals: TerminationSignals,
    child: UnpackerProcess,
    stdout: TimedReader<ChildStdout>,
    /// The socket on which it reports a failure.
    socket: UnixStream,
    messages: Messages,
    /// The room that its job permits.
    allowance: Allowance,
    /// What the payload takes on disk.
    held: DiskNeed,
}

impl<'a> Unpacker<'a> {
    /// Starts the unpacker with the payload as `stdin`, which takes `held` on disk. It
    /// unpacks into `tree`, or a delta into its directory of members.
    ///
    /// # Errors
    ///
    /// [`Code::DiskFull`]; [`Code::IoError`] when it cannot be started, or cannot be sent
    /// its job.
    pub fn start(
        share: &'a Share<'a>,
        config: &Config,
        stdin: Stdio,
        held: DiskNeed,
        tree: &Dir,
        delta: bool,
        deadline: Deadline,
    ) -> Result<Unpacker<'a>> {
        let allowance = share.allowance(held)?;
        let (room, archive) = (allowance.room, &config.archive);
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
        let signals = TerminationSignals::open()?;
        // This very program, even if an upgrade has just replaced the file under its
        // name: both processes must have the same messages.
        let program = Path::new("/proc/self/exe");
        // By handle: in the child /proc/self is the child, which still has our
        // descriptors when it changes directory, and loses them at exec.
        let directory = format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd());
        let (mut child, socket) = spawn(program, Path::new(&directory), stdin, &job)?;
        let Some(stdout) = child.0.stdout.take() else {
            return Err(Error::new(Code::Internal, "the unpacker has no pipe"));
        };
        Ok(Unpacker {
            share,
            deadline,
            signals,
            child,
            stdout: TimedReader::new(stdout, deadline.left(), deadline),
            socket,
            messages: Messages::default(),
            allowance,
            held,
        })
    }

    /// Waits at most `wait` for messages and reads them. Checks the signals and the free
    /// space: other processes use the disk too, and the unpacker is not trusted to count.
    /// Returns whether the last message has come.
    ///
    /// `when` ends the message about a signal.
    ///
    /// # Errors
    ///
    /// [`Code::DiskFull`], and [`Code::IoError`] for a signal.
    pub fn look(&mut self, wait: Duration, when: impl FnOnce() -> String) -> Result<bool> {
        self.signals.check(when)?;
        if !self.messages.ended && self.stdout.is_readable_within(wait) {
            self.messages.read(&mut self.stdout);
        }
        let held = self.held.plus(self.messages.uses);
        self.share.allowance(held)?;
        Ok(self.messages.ended)
    }

    /// Waits until it has exited, and returns what it has said.
    ///
    /// # Errors
    ///
    /// [`Code::BadArchive`], [`Code::DiskFull`], [`Code::Timeout`], [`Code::NoSandbox`],
    /// [`Code::IoError`], and [`Code::UnpackerDied`] for any other end of the unpacker.
    pub fn finish(mut self) -> Result<Unpacked> {
        let when = || "while the payload was unpacked".to_owned();
        // Terminates: the reader has a deadline, and its messages end after it.
        while !self.look(LOOK_INTERVAL, when)? {}
        let deadline = self.deadline;
        let report = self.messages.report();
        if report.is_err() && !self.stdout.is_closed() {
            // The unpacker does not write a valid report, and may never end.
            self.child.kill();
        }
        drop(self.stdout);
        let mut line = Vec::new();
        let timed = TimedReader::new(self.socket, deadline.left(), deadline);
        // Ignore an error here: the line is then no valid failure report.
        _ = timed
            .take(archive::MAX_MESSAGE as u64)
            .read_to_end(&mut line);
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let status = self.child.wait(deadline)?;
        if status.success() {
            return report.map_err(|why| died(&format!("its report is not acceptable: {why}")));
        }
        let error = message::decode(line, archive::MAX_MESSAGE)
            .map(FailureReport::into_error)
            .ok()
            .filter(|error| status.code() == Some(i32::from(error.code.exit())));
        Err(match error {
            Some(error) => self.share.complete(error, Some(self.allowance)),
            None => {
                let text = escape::escape_if_needed_truncated(line, MAX_TEXT);
                died(&format!("{} ({text})", describe_exit(status)))
            }
        })
    }
}

/// The messages on the unpacker's stdout so far.
#[derive(Default)]
struct Messages {
    /// The start of the next one.
    line: Vec<u8>,
    sandbox: Option<Enforcement>,
    uses: DiskNeed,
    report: Option<UnpackReport>,
    /// Whether the last message has come, or one that is not valid, or the end.
    ended: bool,
}

impl Messages {
    /// Reads once.
    fn read(&mut self, from: &mut impl Read) {
        let mut bytes = [0; archive::MAX_MESSAGE];
        match from.read(&mut bytes) {
            Ok(read) if read > 0 => self.take(&bytes[..read]),
            // It has exited, or the deadline has passed.
            _ => self.ended = true,
        }
    }

    /// Adds bytes.
    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.message(line.trim_ascii_end());
            } else if self.line.len() > archive::MAX_MESSAGE {
                self.ended = true;
            }
            if self.ended {
                return;
            }
        }
    }

    fn message(&mut self, line: &[u8]) {
        if self.sandbox.is_none() {
            let head = message::decode(line, archive::MAX_MESSAGE);
            self.sandbox = head.ok().map(|ReportHead { sandbox }| sandbox);
            self.ended = self.sandbox.is_none();
            return;
        }
        match message::decode(line, archive::MAX_MESSAGE) {
            Ok(UnpackMessage::Uses(uses)) => self.uses = uses,
            Ok(UnpackMessage::Done(report)) => (self.report, self.ended) = (Some(report), true),
            Err(_) => self.ended = true,
        }
    }

    /// Returns the whole report, or why there is none. The reason is a fixed phrase: the
    /// decoder's error quotes bytes of the unpacker.
    fn report(&mut self) -> Result<Unpacked, &'static str> {
        let sandbox = self.take_sandbox()?;
        let report = self.report.take().ok_or("it does not report its end")?;
        Ok(Unpacked { sandbox, report })
    }

    fn take_sandbox(&mut self) -> Result<Enforcement, &'static str> {
        self.sandbox.take().ok_or("it does not report its sandbox")
    }
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
    let stdout = child
        .0
        .stdout
        .take()
        .ok_or_else(|| died("it has no pipe"))?;
    let mut stdout = TimedReader::new(stdout, deadline.left(), deadline);
    let mut messages = Messages::default();
    // Terminates: the reader has a deadline, and the messages end after it.
    while messages.sandbox.is_none() && !messages.ended {
        messages.read(&mut stdout);
    }
    messages.take_sandbox().map_err(died)
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
