//! The hook runner: the child process that runs the operator's commands around a
//! swap or rollback.
//!
//! # Processes
//!
//! ```text
//! sshd ─> monitor ─> hook runner ─> hook, health command or probe ─> ...
//! ```
//!
//! The monitor is the process that serves one client's request (`serve`). sshd starts
//! it, and it does the swap or rollback itself. If the site has a hook or a health
//! check, even if none of them belongs to this operation, the monitor starts one hook
//! runner ([`HookRunner::start`]), which is this program
//! again. The hook runner starts one command at a time: a hook or the health
//! command, which are the operator's programs, or the probe ([`crate::probe`]),
//! which is this program once more.
//!
//! The hook runner has one thread, and depends on that: it sets its working directory
//! and its signal mask for each start of a command, and it reads the children of its
//! first thread.
//!
//! # Why the hook runner is a process apart
//!
//! The monitor sandboxes itself before it touches the site: it may not execute
//! programs, and its children would inherit the sandbox. A hook needs whatever
//! the operator's program needs (sudo, systemctl, a database). So the monitor
//! starts the hook runner first, and the hook runner stays outside of the
//! sandbox. It is our only process without one. Therefore:
//!
//! - It parses nothing that a client or a service has written. It escapes and
//!   truncates a command's output. The probe reads HTTP responses, in a sandbox.
//! - It starts before the monitor opens the lock and the journal. Its stdin, stdout
//!   and stderr replace the client's connection. So it has no descriptor of these.
//! - It runs only the commands of its [`Setup`], which the monitor sends before it
//!   works on the site. A later message names only a stage, an index, the releases
//!   and a time limit. The monitor makes the `Setup` from the configuration that it
//!   has parsed itself, so its audit line names the program that runs.
//!
//! # Pipes
//!
//! - monitor to hook runner (stdin): one [`Setup`], then one [`RunRequest`] at a
//!   time.
//! - hook runner to monitor (stdout): for each request some
//!   `RunResponse::Output`, one `RunResponse::EndedProcesses` if there are any, then
//!   one `RunResponse::Outcome`. See [`protocol`].
//! - command to hook runner: one pipe for stdout and stderr. Its stdin is
//!   /dev/null. The probe gets its [`ProbeRequest`](crate::probe::ProbeRequest) on
//!   stdin. Its verdict is its exit status, and its text is ordinary
//!   output: the hook runner decodes neither.
//!
//! A hook or health command runs as the same user as the hook runner, which makes
//! itself non-dumpable against it (prctl(2)). The monitor does not rely on that, and checks, escapes and
//! limits every response again.
//!
//! # How each process ends
//!
//! - A command that exceeds its time limit gets SIGTERM, and SIGKILL two seconds
//!   later. The command's whole process group gets both.
//! - After each command, the hook runner kills everything that the command has
//!   left running ([`reaper`]), by its cgroup where it may create one ([`cgroup`]). A command can run code of a release, and so code
//!   of a person who stole a key.
//! - The hook runner ends when its stdin is closed. The monitor closes it at the end
//!   of its swap or rollback, and the kernel closes it when the monitor dies. A
//!   command that is still running then gets SIGKILL; one that has had SIGTERM keeps
//!   its two seconds. The monitor cannot send signals, and waits at most
//!   [`EXIT_TIMEOUT`] for the hook runner to exit.
//! - A client that leaves ends nothing: the monitor blocks the signals that sshd
//!   sends, ignores that nobody reads its replies, and completes the operation.
//! - If the hook runner dies, the monitor reads the end of the pipe, and the step
//!   has failed. Nobody kills the command's processes then. Their output pipe is
//!   closed, so they get SIGPIPE if they write to it. They have no descriptor of the
//!   monitor.
//! - The stderr of the hook runner is /dev/null, and with it the report of a panic:
//!   the monitor only says that the hook runner has exited. Root sees the report
//!   with `strace -f -s 300 -e trace=write -p` and the process number of sshd.

mod cgroup;
mod job;
mod output;
mod pipe;
mod program;
mod protocol;
mod reaper;
mod runner;
mod sigchld;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::deadline::{Deadline, TimedReader};
use crate::error::{Code, Error, Result};
use crate::message;
use protocol::RunResponse;

pub use crate::probe::NOT_YET;
pub use program::{StartError, check_program};
pub use protocol::{HookCommand, ReleaseCheck, RunOutcome, RunRequest, RunResult, Setup, Stage};
pub use runner::{PATH, main};

/// The word of argv that makes this program the hook runner.
pub const WORD: &str = "hooks";

/// The maximum time limit of a command.
const MAX_TIME_LIMIT: Duration = Duration::from_secs(7 * 86_400);

/// The time that the hook runner gets beyond a command's own time limit: to
/// terminate and then kill the command, and to read and send the rest of its output.
const RUNNER_GRACE: Duration = Duration::from_secs(15);

/// The time that the hook runner may take to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

// The hook runner is in time for the monitor, even if it uses all of its own time
// limits.
const _: () = {
    let end_of_command = job::TERM_GRACE
        .saturating_add(job::LEADER_KILL_TIMEOUT)
        .saturating_add(reaper::DESCENDANTS_KILL_TIMEOUT)
        .saturating_add(job::DRAIN_TIMEOUT);
    let after_time_limit = end_of_command
        .saturating_add(pipe::FLUSH_TIMEOUT)
        .saturating_add(runner::PROBE_GRACE);
    assert!(after_time_limit.as_millis() < RUNNER_GRACE.as_millis());
    assert!(end_of_command.as_millis() < EXIT_TIMEOUT.as_millis());
};

/// The time between two checks whether the hook runner has exited. The first check
/// comes after the hook runner has closed its output, which it does by exiting. So
/// there are few checks, and a longer time would only delay the reply.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// The maximum number of responses to one request: the lines of the output, a
/// remark about what is not shown, one about what was ended, one about each reported
/// process and one about the others, the number of those that were ended, and the
/// outcome.
const MAX_RESPONSES: usize = output::MAX_LINES + 1 + 1 + job::MAX_REPORTED + 1 + 1 + 1;

/// The monitor's handle for the hook runner.
#[derive(Debug)]
pub struct HookRunner {
    child: Child,
    /// Whether the [`Setup`] was sent, and every response so far was valid and came
    /// in time. If not, the monitor sends no further request.
    usable: bool,
}

impl HookRunner {
    /// Starts the hook runner and sends it its [`Setup`]; none if the site has
    /// nothing to run.
    ///
    /// Call it before the monitor enters its sandbox, and while the monitor has
    /// one thread. The monitor of a swap or rollback starts no other child, and its
    /// end of the pipe is close-on-exec. So closing that end closes the pipe.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`]: the process could not be started.
    pub fn start(config: &Config) -> Result<Option<HookRunner>> {
        let Some(setup) = Setup::new(config) else {
            return Ok(None);
        };
        let setup = message::encode(&setup)?;
        // This very program, even if an upgrade has just replaced its file: both
        // processes must agree about the messages.
        let mut child = Command::new("/proc/self/exe")
            .arg(WORD)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A signal to the monitor's process group must not reach it.
            .process_group(0)
            .spawn()
            .map_err(|error| Error::io("cannot start the hook runner", error))?;
        // A setup can be larger than the pipe, so this write waits for the hook
        // runner, without a time limit: the hook runner reads at once, no command
        // has run yet that could stop it, and the site is not locked yet. If the
        // hook runner has exited, the first request reports it.
        let sent = child
            .stdin
            .as_mut()
            .is_some_and(|to| to.write_all(format!("{setup}\n").as_bytes()).is_ok());
        Ok(Some(HookRunner {
            child,
            usable: sent,
        }))
    }

    /// Runs one command to its end, and gives each line of its output to `show`,
    /// escaped and truncated.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`]: the hook runner failed or sent an invalid response. One that
    /// does not answer in time is the end of a command that did not.
    pub fn run(&mut self, request: &RunRequest, show: &mut dyn FnMut(&str)) -> Result<RunResult> {
        let result = self.try_run(request, show);
        if result.is_err() {
            // The closed pipe ends the hook runner and its command.
            self.usable = false;
            self.child.stdin = None;
        }
        conclude(result)
    }

    fn try_run(
        &mut self,
        request: &RunRequest,
        show: &mut dyn FnMut(&str),
    ) -> Result<RunResult, &'static str> {
        match (&mut self.child.stdin, &self.child.stdout) {
            (Some(to), Some(from)) if self.usable => {
                let left = request.time_limit.min(MAX_TIME_LIMIT) + RUNNER_GRACE;
                exchange(to, TimedResponses { from, left }, request, show)
            }
            _ => Err("it is not used after an earlier failure"),
        }
    }
}

/// Why a request has no outcome: the other end of the pipe is closed.
const EXITED: &str = "it has exited";

/// Why a request has no outcome: the time is up, with [`RUNNER_GRACE`].
const SILENT: &str = "it does not answer";

/// Returns what became of a command, given the result or why there is none.
fn conclude(result: Result<RunResult, &'static str>) -> Result<RunResult> {
    match result {
        Ok(result) => Ok(result),
        // The command has stopped the hook runner, or its processes leave it no processor
        // time. Either way it did not end in time, and that says that the release is bad.
        Err(SILENT) => Ok(RunResult {
            outcome: RunOutcome::TimedOut,
            ended_processes: 0,
        }),
        Err(why) => Err(
            Error::new(Code::Internal, format!("the hook runner failed: {why}"))
                .remedy("see 'list' for what is live, and report it"),
        ),
    }
}

/// Sends a request, and reads the responses to the last one. Every response is
/// checked: a command may have taken over the hook runner.
fn exchange(
    to: &mut impl Write,
    from: impl Read,
    request: &RunRequest,
    show: &mut dyn FnMut(&str),
) -> Result<RunResult, &'static str> {
    let line = message::encode(request).map_err(|_| "the request cannot be encoded")?;
    // The line is shorter than PIPE_BUF, so the kernel writes it in one piece. The
    // pipe has room for it: the hook runner reads the setup at once, and has read
    // every earlier request before it sent that request's outcome.
    to.write_all(format!("{line}\n").as_bytes())
        .map_err(|_| EXITED)?;
    let mut responses = BufReader::new(from);
    let mut ended_processes = 0;
    for _ in 0..MAX_RESPONSES {
        let mut line = Vec::new();
        (&mut responses)
            .take(protocol::MAX_RESPONSE as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::TimedOut => SILENT,
                _ => "its answer cannot be read",
            })?;
        if line.is_empty() {
            return Err(EXITED);
        }
        match RunResponse::decode(&line).ok_or("its response is not valid")? {
            RunResponse::Output(text) => show(text.as_str()),
            RunResponse::EndedProcesses(count) => ended_processes = count,
            // A best effort: the next request takes a response that arrives later
            // for its own. A hook runner that was taken over can answer that
            // request wrongly in any case.
            RunResponse::Outcome(_) if !responses.buffer().is_empty() => {
                return Err("it sent a response without a request");
            }
            RunResponse::Outcome(outcome) => {
                return Ok(RunResult {
                    outcome,
                    ended_processes,
                });
            }
        }
    }
    Err("it sent too many responses")
}

impl Drop for HookRunner {
    fn drop(&mut self) {
        // The monitor's seccomp filter permits no signals. Closing the pipe is how
        // it ends the hook runner.
        self.child.stdin = None;
        let deadline = Deadline::after(EXIT_TIMEOUT);
        if let Some(from) = self.child.stdout.take() {
            // Only the hook runner has the write end, so its exit ends this read.
            let rest = TimedReader::new(from, EXIT_TIMEOUT, deadline);
            _ = std::io::copy(&mut rest.take(1 << 20), &mut std::io::sink());
        }
        // Terminates: each turn sleeps, and the deadline does not move.
        while !deadline.has_passed() && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Reads responses within a limit on the time spent waiting. The time that the
/// client takes to receive the lines does not count.
struct TimedResponses<F> {
    from: F,
    left: Duration,
}

impl<F: AsFd> Read for TimedResponses<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let started = Instant::now();
        let deadline = Deadline::after(self.left);
        let read = TimedReader::new(self.from.as_fd(), self.left, deadline).read(buffer);
        self.left = self.left.saturating_sub(started.elapsed());
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ReleaseId;
    use std::io::pipe;

    const OUTPUT_A: &[u8] = b"{\"output\":\"a\"}\n";
    const EXIT_0: &[u8] = b"{\"outcome\":{\"exit\":0}}\n";

    fn request() -> RunRequest {
        RunRequest {
            stage: Stage::AfterSwap,
            index: 0,
            release: ReleaseId::try_from("r1").unwrap(),
            previous: None,
            time_limit: Duration::from_secs(1),
            dry_run: false,
        }
    }

    /// Returns what the monitor makes of these responses, and the lines it shows.
    fn exchanged(responses: &[u8]) -> (Result<RunOutcome, &'static str>, Vec<String>) {
        let (result, lines) = exchanged_with_count(responses);
        (result.map(|result| result.outcome), lines)
    }

    fn exchanged_with_count(responses: &[u8]) -> (Result<RunResult, &'static str>, Vec<String>) {
        let (mut sent, mut lines) = (Vec::new(), Vec::new());
        let mut show = |text: &str| lines.push(text.to_owned());
        let outcome = exchange(&mut sent, responses, &request(), &mut show);
        let expected: &[u8] = b"{\"stage\":\"after_swap\",\"index\":0,\"release\":\"r1\",\
                                \"previous\":null,\"time_limit\":1000,\"dry_run\":false}\n";
        assert_eq!(sent, expected);
        (outcome, lines)
    }

    #[test]
    fn valid_responses_are_accepted() {
        let responses = b"{\"output\":\"a\"}\n{\"output\":\"\"}\n{\"outcome\":{\"exit\":3}}\n";
        let (outcome, lines) = exchanged(responses);
        assert_eq!(outcome, Ok(RunOutcome::Exit(3)));
        assert_eq!(lines, ["a", ""]);
        let outcome = |response: &[u8]| exchanged(response).0;
        assert_eq!(
            outcome(b"{\"outcome\":\"timed_out\"}\n"),
            Ok(RunOutcome::TimedOut)
        );
        assert_eq!(
            outcome(b"{\"outcome\":{\"signal\":9}}\n"),
            Ok(RunOutcome::Signal(9))
        );
        let ended = [b"{\"ended_processes\":2}\n", EXIT_0].concat();
        let (result, lines) = exchanged_with_count(&ended);
        assert_eq!(result.unwrap().ended_processes, 2);
        assert!(lines.is_empty());
    }

    #[test]
    fn the_responses_of_a_hostile_hook_runner_do_no_harm() {
        for responses in [
            &b""[..],
            OUTPUT_A,
            b"{\"output\":\"a\"}",
            &EXIT_0.repeat(2),
            &[EXIT_0, b"\n"].concat(),
        ] {
            assert!(exchanged(responses).0.is_err(), "{responses:?}");
        }
        let (outcome, lines) = exchanged(&OUTPUT_A.repeat(100_000));
        assert_eq!(outcome, Err("it sent too many responses"));
        assert!(lines.len() <= MAX_RESPONSES);
        assert!(exchanged(&b"x".repeat(1 << 20)).0.is_err());
        let (_, lines) = exchanged(&[b"{\"output\":\"\\u001b[2J\\u00ff\"}\n", EXIT_0].concat());
        assert_eq!(lines, ["\\x1b[2J\\xc3\\xbf"]);
        // A line that is too long is refused as a whole.
        let long = [
            b"{\"output\":\"".as_slice(),
            &[b'x'; 2000],
            b"\"}\n",
            EXIT_0,
        ]
        .concat();
        let (outcome, lines) = exchanged(&long);
        assert!(outcome.is_err() && lines.is_empty());
    }

    #[test]
    fn silence_is_limited_and_the_time_of_a_slow_client_does_not_count() {
        let (from, mut to) = pipe().unwrap();
        let left = Duration::from_millis(50);
        let responses = TimedResponses { from: &from, left };
        let outcome = exchange(&mut Vec::new(), responses, &request(), &mut |_| ());
        assert_eq!(outcome, Err(SILENT));
        // The command has stopped the hook runner: it did not end in time.
        assert_eq!(conclude(outcome).unwrap().outcome, RunOutcome::TimedOut);
        assert!(conclude(Err(EXITED)).is_err());

        // The client takes longer for a line than the hook runner may take.
        let left = Duration::from_secs(1);
        let mut rest = [&b"{\"output\":\"b\"}\n"[..], EXIT_0].into_iter();
        to.write_all(OUTPUT_A).unwrap();
        let mut slow = |_: &str| {
            std::thread::sleep(left.mul_f32(1.2));
            to.write_all(rest.next().unwrap()).unwrap();
        };
        let responses = TimedResponses { from: &from, left };
        let outcome = exchange(&mut Vec::new(), responses, &request(), &mut slow);
        assert_eq!(outcome.unwrap().outcome, RunOutcome::Exit(0));
    }
}
