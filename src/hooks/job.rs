//! One command, from its start to the end of every process that it started.

use std::io::{PipeReader, Read, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::output::Output;
use super::pipe::MonitorPipe;
use super::protocol::{Ended, MAX_TEXT, RunResponse};
use super::reaper::{self, Descendants};
use super::sigchld::ChildSignal;
use crate::deadline::{self, Deadline};
use crate::error;
use crate::escape;

/// The time between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// The time that a process may take to end after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// The time for reading the rest of the output after a command has ended. It is
/// enough for what the pipe holds. It is limited because another user's process
/// can keep the pipe open for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of remaining processes that are reported.
const MAX_REPORTED: usize = 4;

/// The maximum length of one read, in bytes.
const CHUNK: usize = 64 << 10;

/// How far the end of a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// SIGTERM was sent.
    Terminated,
    /// SIGKILL was sent.
    Killed,
}

/// Runs commands, one after the other.
#[derive(Debug)]
pub struct Jobs {
    monitor: MonitorPipe,
    child_signal: ChildSignal,
    descendants: Descendants,
}

/// The monitor has ended, or sent a request out of turn: no command may run any
/// more.
#[derive(Debug)]
pub struct Abandoned;

impl Jobs {
    pub fn new(monitor: MonitorPipe, child_signal: ChildSignal) -> Jobs {
        Jobs {
            monitor,
            child_signal,
            descendants: Descendants::default(),
        }
    }

    pub fn monitor(&mut self) -> &mut MonitorPipe {
        &mut self.monitor
    }

    /// Runs a command to its end, and sends the monitor its output and how it
    /// ended.
    ///
    /// # Errors
    ///
    /// [`Abandoned`]: the command was killed, and there is nobody to answer.
    pub fn run(&mut self, command: Command, within: Duration) -> Result<(), Abandoned> {
        let deadline = Deadline::after(within);
        self.child_signal.clear();
        let (leader, output) = match start_command(command) {
            Ok(started) => started,
            Err(why) => {
                let why = escape::truncate(&escape::escape(why.as_bytes()), MAX_TEXT);
                self.send_end(Ended::not_started(why));
                return Ok(());
            }
        };
        let mut job = RunningCommand {
            leader,
            pipe: Some(output),
            output: Output::default(),
            phase: Phase::Running,
            abandoned: false,
        };
        let status = job.watch(&mut self.monitor, &self.child_signal, deadline);
        // If this process could not wait for the leader, the leader's number may
        // belong to another process by now.
        let group = (status.is_some() || job.phase == Phase::Killed).then_some(leader);
        let remaining = self.descendants.kill_all(group, &self.child_signal);
        let monitor = &mut self.monitor;
        job.drain(monitor);
        let mut show = |text: String| monitor.send_response(&RunResponse::Output(text.into()));
        job.output.finish(&mut show);
        for pid in remaining.iter().take(MAX_REPORTED) {
            show(format!(
                "... process {pid} still runs, and cannot be killed"
            ));
        }
        if job.abandoned {
            return Err(Abandoned);
        }
        self.send_end(match status {
            // A command that exits with 0 on SIGTERM was late all the same.
            _ if job.phase != Phase::Running => Ended::TimedOut,
            // The kernel keeps the low eight bits of a status, and has 64 signals.
            Some(WaitStatus::Exited(_, code)) => Ended::Exit(u8::try_from(code).unwrap_or(u8::MAX)),
            Some(WaitStatus::Signaled(_, signal, _)) => Ended::Signal(signal as u8),
            _ => Ended::not_started("the process cannot be waited for"),
        });
        Ok(())
    }

    /// Sends how a command ended, and waits until the monitor can read it.
    pub fn send_end(&mut self, ended: Ended) {
        self.monitor.send_response(&RunResponse::Ended(ended));
        self.monitor.flush();
    }
}

/// Starts a command as the leader of a new process group, with /dev/null as
/// stdin and one pipe as stdout and stderr.
fn start_command(mut command: Command) -> Result<(Pid, PipeReader), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let cannot = |error: std::io::Error| {
        let why = error::describe(&error);
        format!("'{program}' cannot be started: {why}")
    };
    let (output, input) = pipe().map_err(cannot)?;
    command
        .stdin(Stdio::null())
        .stdout(input.try_clone().map_err(cannot)?)
        .stderr(input)
        .process_group(0);
    // The child inherits the signal mask of this moment, and needs an empty one.
    // SIGCHLD that was pending has just been cleared. A blocked SIGHUP, SIGINT or
    // SIGTERM that arrives now ends this process.
    let mask = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let spawned = command.spawn();
    if let Ok(mask) = mask {
        _ = mask.thread_set_mask();
    }
    let child = spawned.map_err(cannot)?;
    // Dropping `command` closes this process's copies of the pipe's write end.
    Ok((Pid::from_raw(child.id() as i32), output))
}

/// The command that is running.
struct RunningCommand {
    leader: Pid,
    /// None once every writer has closed it.
    pipe: Option<PipeReader>,
    output: Output,
    phase: Phase,
    /// Whether the monitor has ended or sent a request out of turn.
    abandoned: bool,
}

impl RunningCommand {
    /// Reads the command's output until the command ends, and ends it at its
    /// time limit or when the monitor ends. Returns how it ended.
    ///
    /// A closed output does not mean that the command has ended: the command may
    /// close it early, and another process may hold it open for longer.
    fn watch(
        &mut self,
        monitor: &mut MonitorPipe,
        child_signal: &ChildSignal,
        limit: Deadline,
    ) -> Option<WaitStatus> {
        let mut deadline = limit;
        // Terminates: each deadline leads to the next phase, and the last one
        // returns.
        loop {
            child_signal.clear();
            match reaper::peek_status(self.leader) {
                Ok(None) => {}
                Ok(Some(status)) => return Some(status),
                // Not a child of this process any more.
                Err(_) => return None,
            }
            if deadline.has_passed() || self.abandoned && self.phase == Phase::Running {
                let (phase, signal, timeout) = match self.phase {
                    // The site's lock ended with the monitor, and the next request
                    // may run the same command: killing this one at once is better
                    // than running two.
                    Phase::Running if self.abandoned => {
                        (Phase::Killed, Signal::SIGKILL, KILL_TIMEOUT)
                    }
                    Phase::Running => (Phase::Terminated, Signal::SIGTERM, TERM_GRACE),
                    Phase::Terminated => (Phase::Killed, Signal::SIGKILL, KILL_TIMEOUT),
                    Phase::Killed => return None,
                };
                // The leader is not reaped yet, so the number still belongs to its
                // group. The call fails if the group is another user's.
                _ = killpg(self.leader, signal);
                (self.phase, deadline) = (phase, Deadline::after(timeout));
            }
            let ready = {
                let from = (!self.abandoned).then(|| monitor.from());
                let pipe = self.pipe.as_ref().map(AsFd::as_fd);
                poll_fds(
                    [Some(child_signal.as_fd()), from, pipe],
                    monitor.to(),
                    deadline.left(),
                )
            };
            let [_, from, pipe] = ready;
            self.abandoned |= from;
            monitor.write_unsent();
            if pipe {
                self.read_output(monitor);
            }
        }
    }

    /// Reads the command's output once.
    fn read_output(&mut self, monitor: &mut MonitorPipe) {
        let Some(pipe) = &mut self.pipe else {
            return;
        };
        let mut buffer = vec![0; CHUNK];
        match pipe.read(&mut buffer) {
            Ok(read) if read > 0 => {
                let mut show =
                    |text: String| monitor.send_response(&RunResponse::Output(text.into()));
                self.output.take(&buffer[..read], &mut show);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => self.pipe = None,
        }
    }

    /// Reads what is still in the pipe.
    fn drain(&mut self, monitor: &mut MonitorPipe) {
        let deadline = Deadline::after(DRAIN_TIMEOUT);
        // Terminates: the deadline does not move.
        while let Some(pipe) = &self.pipe
            && !deadline.has_passed()
        {
            let [ready] = poll_fds([Some(pipe.as_fd())], None, deadline.left());
            if ready {
                self.read_output(monitor);
            }
        }
    }
}

/// Waits until a descriptor of `from` is readable or closed, or `to` is
/// writable, at most `timeout`. Returns which of `from` are readable or closed.
fn poll_fds<const N: usize>(
    from: [Option<BorrowedFd<'_>>; N],
    to: Option<BorrowedFd<'_>>,
    timeout: Duration,
) -> [bool; N] {
    let mut fds: Vec<PollFd<'_>> = from
        .iter()
        .flatten()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .chain(to.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)))
        .collect();
    // poll(2) fails only on a caught signal, and this process catches none.
    _ = poll(&mut fds, deadline::timeout(timeout));
    let mut fds = fds.iter();
    from.map(|fd| fd.is_some() && fds.next().and_then(PollFd::any) == Some(true))
}
