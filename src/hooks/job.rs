//! One command, from its start to the end of all that it has started.

use std::io::{PipeReader, Read, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::Ended;
use super::output::Output;
use super::pipe::MonitorPipe;
use super::protocol::Answer;
use super::reaper::{self, Descendants};
use super::sigchld::ChildSignal;
use crate::deadline::{self, Deadline};
use crate::error;
use crate::escape;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// How long a process that was killed may take to end.
const KILLED: Duration = Duration::from_secs(2);

/// How long is read what a command has written, once it has ended. Long
/// enough for what is in the pipe; not more, because another user's process
/// may hold the pipe for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// As many processes that cannot be ended are told of.
const MAX_LEFT: usize = 4;

/// As much as is read at once, in bytes.
const CHUNK: usize = 64 << 10;

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// It was told to end.
    Terminated,
    /// It was killed.
    Killed,
}

/// What runs commands, one after the other.
#[derive(Debug)]
pub struct Jobs {
    link: MonitorPipe,
    alarm: ChildSignal,
    brood: Descendants,
}

/// The monitor has ended, or speaks out of turn: nothing more is to be run.
#[derive(Debug)]
pub struct Abandoned;

impl Jobs {
    pub fn new(link: MonitorPipe, alarm: ChildSignal) -> Jobs {
        let brood = Descendants::default();
        Jobs { link, alarm, brood }
    }

    pub fn link(&mut self) -> &mut MonitorPipe {
        &mut self.link
    }

    /// Runs a command to its end, and answers with what it writes and how it
    /// ended.
    pub fn run(&mut self, command: Command, within: Duration) -> Result<(), Abandoned> {
        let deadline = Deadline::after(within);
        self.alarm.clear();
        let (leader, output) = match start(command) {
            Ok(started) => started,
            Err(why) => {
                let why =
                    escape::truncate(&escape::escape(why.as_bytes()), super::protocol::MAX_TEXT);
                self.answer(Ended::NotStarted(why));
                return Ok(());
            }
        };
        let mut job = Job {
            leader,
            pipe: Some(output),
            output: Output::default(),
            phase: Phase::Running,
            abandoned: false,
        };
        let status = job.watch(&mut self.link, &self.alarm, deadline);
        // One that was never ours to wait for leaves no number to go by.
        let group = (status.is_some() || job.phase == Phase::Killed).then_some(leader);
        let left = self.brood.end(group, &self.alarm);
        let link = &mut self.link;
        job.drain(link);
        let mut show = |text| link.say(&Answer::Line(text));
        job.output.finish(&mut show);
        // There may be more than is worth a line each.
        for pid in left.iter().take(MAX_LEFT) {
            show(format!("... process {pid} goes on, and cannot be ended"));
        }
        if job.abandoned {
            return Err(Abandoned);
        }
        self.answer(match status {
            // It may have ended well when it was told to; it was late even so.
            _ if job.phase != Phase::Running => Ended::TimedOut,
            Some(WaitStatus::Exited(_, code)) => Ended::Exit(code),
            Some(WaitStatus::Signaled(_, signal, _)) => Ended::Signal(signal as i32),
            _ => Ended::NotStarted("its end cannot be waited for".to_owned()),
        });
        Ok(())
    }

    /// Says how a command ended, and waits until that has left.
    pub fn answer(&mut self, ended: Ended) {
        self.link.say(&Answer::End(ended));
        self.link.flush();
    }
}

/// Starts a command as the leader of a process group of its own, with nothing
/// to read and one pipe for all it writes.
fn start(mut command: Command) -> Result<(Pid, PipeReader), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let words = |error: std::io::Error| {
        let why = error::describe(&error);
        format!("'{program}' cannot be started: {why}")
    };
    let (output, input) = pipe().map_err(words)?;
    command
        .stdin(Stdio::null())
        .stdout(input.try_clone().map_err(words)?)
        .stderr(input)
        .process_group(0);
    // A program gets the mask that its parent has in this moment, and is to
    // have the usual one. What else was blocked has just been cleared, but for
    // a signal that comes right now, which is one that would end us anyway.
    let mask = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let spawned = command.spawn();
    if let Ok(mask) = mask {
        _ = mask.thread_set_mask();
    }
    let child = spawned.map_err(words)?;
    // With `command` our own ends of the pipe are closed when this returns.
    Ok((Pid::from_raw(child.id() as i32), output))
}

/// The command that runs.
struct Job {
    leader: Pid,
    /// None when all who could write have closed it.
    pipe: Option<PipeReader>,
    output: Output,
    phase: Phase,
    /// Whether the monitor has ended.
    abandoned: bool,
}

impl Job {
    /// Reads what it writes until it has ended, and sees to it that it does.
    ///
    /// Its end is that of the process, not that of its output: that may be
    /// closed long before, or held open by others.
    fn watch(
        &mut self,
        link: &mut MonitorPipe,
        alarm: &ChildSignal,
        limit: Deadline,
    ) -> Option<WaitStatus> {
        let mut deadline = limit;
        // Ends: each deadline is followed by a harder phase, and the last by
        // the end.
        loop {
            alarm.clear();
            match reaper::ended(self.leader) {
                Ok(None) => {}
                Ok(Some(status)) => return Some(status),
                // Nobody's child any more.
                Err(_) => return None,
            }
            if deadline.has_passed() || self.abandoned && self.phase == Phase::Running {
                let (phase, signal, span) = match self.phase {
                    // The lock has ended with the monitor, and the next request
                    // may run the same command: one that is cut short is better
                    // than two at once.
                    Phase::Running if self.abandoned => (Phase::Killed, Signal::SIGKILL, KILLED),
                    Phase::Running => (Phase::Terminated, Signal::SIGTERM, GRACE),
                    Phase::Terminated => (Phase::Killed, Signal::SIGKILL, KILLED),
                    Phase::Killed => return None,
                };
                // The leader was not reaped, so the number is its group's yet.
                // It fails where the group is another user's.
                _ = killpg(self.leader, signal);
                (self.phase, deadline) = (phase, Deadline::after(span));
            }
            let ready = {
                let from = (!self.abandoned).then(|| link.from());
                let pipe = self.pipe.as_ref().map(AsFd::as_fd);
                wait(
                    [Some(alarm.as_fd()), from, pipe],
                    link.to(),
                    deadline.left(),
                )
            };
            let [_, from, pipe] = ready;
            self.abandoned |= from;
            link.send();
            if pipe {
                self.read(link);
            }
        }
    }

    /// Reads once.
    fn read(&mut self, link: &mut MonitorPipe) {
        let Some(pipe) = &mut self.pipe else {
            return;
        };
        let mut buffer = vec![0; CHUNK];
        match pipe.read(&mut buffer) {
            Ok(read) if read > 0 => {
                let mut show = |text| link.say(&Answer::Line(text));
                self.output.take(&buffer[..read], &mut show);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => self.pipe = None,
        }
    }

    /// Reads what is still in the pipe.
    fn drain(&mut self, link: &mut MonitorPipe) {
        let deadline = Deadline::after(DRAIN);
        // Ends: the deadline does not move.
        while let Some(pipe) = &self.pipe
            && !deadline.has_passed()
        {
            let [ready] = wait([Some(pipe.as_fd())], None, deadline.left());
            if ready {
                self.read(link);
            }
        }
    }
}

/// Waits until something can be read from one of `from`, or written to `to`,
/// and tells which can be read (or is closed).
fn wait<const N: usize>(
    from: [Option<BorrowedFd<'_>>; N],
    to: Option<BorrowedFd<'_>>,
    span: Duration,
) -> [bool; N] {
    let mut fds: Vec<PollFd<'_>> = from
        .iter()
        .flatten()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .chain(to.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)))
        .collect();
    // A failure is a signal that was caught, and none is.
    _ = poll(&mut fds, deadline::timeout(span));
    let mut fds = fds.iter();
    from.map(|fd| fd.is_some() && fds.next().and_then(PollFd::any) == Some(true))
}
