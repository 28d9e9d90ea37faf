//! One command, from its start to the end of every process that it started.

use std::collections::BTreeSet;
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::cgroup::{CommandCgroup, OwnCgroup};
use super::output::Output;
use super::pipe::MonitorPipe;
use super::program::StartError;
use super::protocol::{RunOutcome, RunResponse};
use super::reaper::{self, Reaper, Remaining};
use super::sigchld::ChildSignal;
use crate::deadline::{self, Deadline};

/// The time between SIGTERM and SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// The time that the leader of a command's process group may take to end after
/// SIGKILL.
pub const LEADER_KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// The time for reading the rest of the output after a command has ended. It is
/// enough for what the pipe holds. It is limited because another user's process
/// can keep the pipe open without limit.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of remaining processes that one command reports.
pub const MAX_REPORTED: usize = 4;

/// Returns the line about the processes that a command left behind and that were ended.
fn describe_ended(ended: &[&Remaining]) -> Option<String> {
    let programs: Vec<&str> = (ended.iter())
        .map(|process| process.program.as_str())
        .collect();
    let shown = programs[..programs.len().min(MAX_REPORTED)].join(", ");
    let more = match programs.len().saturating_sub(MAX_REPORTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!programs.is_empty()).then(|| {
        format!(
            "... ended what the command left running ({shown}{more}): start a service through \
             systemd"
        )
    })
}

/// The maximum length of one read, in bytes.
const CHUNK: usize = 64 << 10;

/// A command that is to run.
#[derive(Debug)]
pub struct Job {
    pub command: Command,
    /// What it reads on stdin.
    pub input: Option<String>,
    pub time_limit: Duration,
}

impl Job {
    pub fn without_input(command: Command, time_limit: Duration) -> Job {
        Job {
            command,
            input: None,
            time_limit,
        }
    }
}

/// Which signal the command's process group has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    TermSent,
    KillSent,
}

/// What became of the leader of a command's process group.
enum LeaderEnd {
    /// It has ended, and is not reaped yet.
    Ended(WaitStatus),
    /// It is still there [`LEADER_KILL_TIMEOUT`] after SIGKILL.
    StillRunning,
    /// waitid(2) failed: it is not a child that this process can wait for.
    NotOurChild,
}

/// Runs commands, one after the other.
#[derive(Debug)]
pub struct JobRunner {
    monitor_pipe: MonitorPipe,
    child_signal: ChildSignal,
    reaper: Reaper,
    /// None if the account may not create cgroups.
    cgroup: Option<OwnCgroup>,
}

/// The monitor has ended, or sent a request out of turn: no command may run any
/// more.
#[derive(Debug)]
pub struct Abandoned;

impl JobRunner {
    pub fn new(monitor_pipe: MonitorPipe, child_signal: ChildSignal) -> JobRunner {
        JobRunner {
            monitor_pipe,
            child_signal,
            reaper: Reaper::default(),
            cgroup: OwnCgroup::open(),
        }
    }

    pub fn monitor_pipe(&mut self) -> &mut MonitorPipe {
        &mut self.monitor_pipe
    }

    /// Runs a command to its end, and sends the monitor its output and outcome.
    ///
    /// # Errors
    ///
    /// [`Abandoned`]: the command was killed, and there is nobody to answer.
    pub fn run(&mut self, job: Job) -> Result<(), Abandoned> {
        let deadline = Deadline::after(job.time_limit);
        self.child_signal.clear();
        let mut cgroup = self.cgroup.as_mut().and_then(|own| own.create().ok());
        let started = start_command(job.command, job.input.as_deref(), &mut cgroup);
        let (leader, output) = match started {
            Ok(started) => started,
            Err(error) => {
                self.send_outcome(error.into_outcome());
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
        let end = job.run_to_end(&mut self.monitor_pipe, &self.child_signal, deadline);
        let group = match end {
            LeaderEnd::Ended(_) | LeaderEnd::StillRunning => Some(leader),
            // The leader's number may belong to another process by now.
            LeaderEnd::NotOurChild => None,
        };
        // A command that reached its time limit has a message of its own.
        let left = match end {
            LeaderEnd::Ended(_) if job.phase == Phase::Running => self.reaper.left_behind(leader),
            _ => Vec::new(),
        };
        let remaining = self
            .reaper
            .kill_all(group, cgroup.as_ref(), &self.child_signal);
        drop(cgroup);
        let pipe = &mut self.monitor_pipe;
        job.drain(pipe);
        let mut show = |text: String| pipe.queue_response(&RunResponse::Output(text.into()));
        job.output.finish(&mut show);
        let still_there: BTreeSet<i32> = remaining.iter().map(|process| process.pid).collect();
        let is_ended = |process: &&Remaining| !still_there.contains(&process.pid);
        let ended: Vec<&Remaining> = left.iter().filter(is_ended).collect();
        if let Some(text) = describe_ended(&ended) {
            show(text);
        }
        for process in remaining.iter().take(MAX_REPORTED) {
            let Remaining { pid, program, .. } = process;
            show(format!(
                "... process {pid} ({program}) could not be killed, and still runs"
            ));
        }
        if let more @ 1.. = remaining.len().saturating_sub(MAX_REPORTED) {
            show(format!("... and {more} more processes still run"));
        }
        if job.abandoned {
            return Err(Abandoned);
        }
        if !ended.is_empty() {
            let count = u32::try_from(ended.len()).unwrap_or(u32::MAX);
            pipe.queue_response(&RunResponse::EndedProcesses(count));
        }
        self.send_outcome(match end {
            // A command that exits with 0 on SIGTERM was late all the same.
            _ if job.phase != Phase::Running => RunOutcome::TimedOut,
            // This user's processes fork faster than they are killed, or hang in the
            // kernel. A process of another user (sudo) is only reported: the operator's
            // command started it, and code of a release cannot.
            _ if remaining.iter().any(|process| !process.foreign) => RunOutcome::ProcessesRemain,
            // The kernel keeps the low eight bits of a status, and has 64 signals.
            LeaderEnd::Ended(WaitStatus::Exited(_, code)) => {
                RunOutcome::Exit(u8::try_from(code).unwrap_or(u8::MAX))
            }
            LeaderEnd::Ended(WaitStatus::Signaled(_, signal, _)) => {
                RunOutcome::Signal(signal as u8)
            }
            // The command ran, with an unknown result. The gate takes this outcome
            // as no statement about the release.
            _ => RunOutcome::not_started("the process cannot be waited for"),
        });
        Ok(())
    }

    /// Sends the outcome of a command, and waits until the monitor can read it.
    pub fn send_outcome(&mut self, outcome: RunOutcome) {
        self.monitor_pipe
            .queue_response(&RunResponse::Outcome(outcome));
        self.monitor_pipe.flush();
    }
}

/// Starts a command as the leader of a new process group, with `input` or /dev/null as
/// stdin and one pipe as stdout and stderr, in `cgroup`. Resets `cgroup` to none if the
/// command does not run there.
fn start_command(
    mut command: Command,
    input: Option<&str>,
    cgroup: &mut Option<CommandCgroup>,
) -> Result<(Pid, PipeReader), StartError> {
    let program = PathBuf::from(command.get_program());
    let cannot = |error: std::io::Error| StartError::of(&program, &error);
    let (stdin, to_stdin) = match input {
        None => (Stdio::null(), None),
        Some(input) => {
            let (theirs, ours) = pipe().map_err(cannot)?;
            (theirs.into(), Some((ours, input)))
        }
    };
    let (output, theirs) = pipe().map_err(cannot)?;
    command
        .stdin(stdin)
        .stdout(theirs.try_clone().map_err(cannot)?)
        .stderr(theirs)
        .process_group(0);
    // The child inherits the signal mask of this moment, and needs an empty one.
    // So the signals that `ChildSignal` blocks are unblocked during the spawn. The
    // pending ones have just been discarded. One that arrives now and terminates
    // processes would end this process.
    let mask = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    cgroup.take_if(|cgroup| cgroup.enter().is_err());
    let spawned = command.spawn();
    cgroup.take_if(|cgroup| cgroup.leave().is_err());
    if let Ok(mask) = mask {
        _ = mask.thread_set_mask();
    }
    let child = spawned.map_err(cannot)?;
    // This closes this process's copies of the child's ends of the pipes.
    drop(command);
    if let Some((mut to_stdin, input)) = to_stdin {
        // The probe reads this at once. If it has ended, its exit status says why.
        _ = to_stdin.write_all(input.as_bytes());
    }
    Ok((Pid::from_raw(child.id() as i32), output))
}

/// The command that is running.
struct RunningCommand {
    /// The command's first process, the leader of its process group.
    leader: Pid,
    /// None once every writer has closed it.
    pipe: Option<PipeReader>,
    output: Output,
    phase: Phase,
    /// Whether the monitor has ended or sent a request out of turn.
    abandoned: bool,
}

impl RunningCommand {
    /// Reads the command's output until the command ends. Sends signals to its
    /// process group at `time_limit`, and when the monitor ends.
    ///
    /// End of file on the output does not mean that the command has ended: the
    /// command may close its output early, and another process may hold it open
    /// for longer.
    fn run_to_end(
        &mut self,
        monitor_pipe: &mut MonitorPipe,
        child_signal: &ChildSignal,
        time_limit: Deadline,
    ) -> LeaderEnd {
        let mut end_of_phase = time_limit;
        // Terminates: the end of each phase leads to the next phase, and the end of
        // the last one returns.
        loop {
            child_signal.clear();
            match reaper::peek_status(self.leader) {
                Ok(None) => {}
                Ok(Some(status)) => return LeaderEnd::Ended(status),
                Err(_) => return LeaderEnd::NotOurChild,
            }
            // The next turn comes at once if more orphans have ended.
            let all_reaped = reaper::reap(Some(self.leader));
            if end_of_phase.has_passed() || self.abandoned && self.phase == Phase::Running {
                let (phase, signal, timeout) = match self.phase {
                    // The site's lock ended with the monitor. Another client's
                    // request, in another monitor, can take the lock now and run
                    // the same command: killing this one at once is better than
                    // running two.
                    Phase::Running if self.abandoned => {
                        (Phase::KillSent, Signal::SIGKILL, LEADER_KILL_TIMEOUT)
                    }
                    Phase::Running => (Phase::TermSent, Signal::SIGTERM, TERM_GRACE),
                    Phase::TermSent => (Phase::KillSent, Signal::SIGKILL, LEADER_KILL_TIMEOUT),
                    Phase::KillSent => return LeaderEnd::StillRunning,
                };
                // The leader is not reaped yet, so the number still belongs to its
                // group. The call fails if the group is another user's.
                _ = killpg(self.leader, signal);
                (self.phase, end_of_phase) = (phase, Deadline::after(timeout));
            }
            let ready = {
                let requests = (!self.abandoned).then(|| monitor_pipe.request_fd());
                let pipe = self.pipe.as_ref().map(AsFd::as_fd);
                poll_fds(
                    [Some(child_signal.as_fd()), requests, pipe],
                    monitor_pipe.response_fd_if_pending(),
                    if all_reaped {
                        end_of_phase.left()
                    } else {
                        Duration::ZERO
                    },
                )
            };
            let [_, request_ready, output_ready] = ready;
            self.abandoned |= request_ready;
            monitor_pipe.write_unsent();
            if output_ready {
                self.read_output(monitor_pipe);
            }
        }
    }

    /// Reads the command's output once.
    fn read_output(&mut self, monitor_pipe: &mut MonitorPipe) {
        let Some(pipe) = &mut self.pipe else {
            return;
        };
        let mut buffer = vec![0; CHUNK];
        match pipe.read(&mut buffer) {
            Ok(read) if read > 0 => {
                let mut show =
                    |text: String| monitor_pipe.queue_response(&RunResponse::Output(text.into()));
                self.output.take(&buffer[..read], &mut show);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => self.pipe = None,
        }
    }

    /// Reads what is still in the pipe.
    fn drain(&mut self, monitor_pipe: &mut MonitorPipe) {
        let deadline = Deadline::after(DRAIN_TIMEOUT);
        // Terminates: the deadline does not move.
        while let Some(pipe) = &self.pipe
            && !deadline.has_passed()
        {
            let [ready] = poll_fds([Some(pipe.as_fd())], None, deadline.left());
            if ready {
                self.read_output(monitor_pipe);
            }
        }
    }
}

/// Waits until a descriptor of `readers` is readable or closed, or `writer` is
/// writable, at most `timeout`. Returns which of `readers` are readable or closed.
fn poll_fds<const N: usize>(
    readers: [Option<BorrowedFd<'_>>; N],
    writer: Option<BorrowedFd<'_>>,
    timeout: Duration,
) -> [bool; N] {
    let mut fds: Vec<PollFd<'_>> = readers
        .iter()
        .flatten()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .chain(writer.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)))
        .collect();
    // poll(2) fails only on a caught signal, and this process catches none.
    _ = poll(&mut fds, deadline::timeout(timeout));
    let mut fds = fds.iter();
    readers.map(|fd| fd.is_some() && fds.next().and_then(PollFd::any) == Some(true))
}
