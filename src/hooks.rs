//! The runner: the process that runs the operator's commands around a swap.
//!
//! The monitor is confined before it touches the site, and may execute
//! nothing; a hook is the operator's own program and needs whatever it needs
//! (sudo, systemctl, a database). So the runner is started first, and stays
//! outside. It is the one process of ours that nothing confines, on purpose, and
//! so it parses nothing that a client has written: what a hook prints it cuts
//! and escapes, and what a service answers is read by the probe. Nothing of
//! ours is open in it: not the lock, not the journal, not the client's socket.
//! All it takes from the monitor is which of the operator's commands to run,
//! and for which release; the commands it reads from the site's file itself.
//!
//! A command may run what a release brought (`php artisan migrate`), and so
//! what a thief of a key has sent. What such a command starts ends with it:
//! see [`brood`].

mod job;
mod main;
mod output;
mod pipe;
mod protocol;
mod reaper;
mod sigchld;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::deadline::{Deadline, TimedReader};
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::probe;
use protocol::Answer;

pub use main::main;

/// The exit status by which the probe says that asking again may help.
pub const NOT_YET: i32 = probe::NOT_YET as i32;

/// What a command is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    BeforeSwap,
    AfterSwap,
    BeforeRollback,
    /// `smoke_url`, asked by the probe.
    Smoke,
    /// `url`, asked by the probe, or the health command.
    Health,
}

/// One of the operator's commands, to be run for a release.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    pub stage: Stage,
    /// Which of the stage's commands, from 0.
    pub index: usize,
    pub release: &'a ReleaseId,
    pub previous: Option<&'a ReleaseId>,
    /// How long it may take; no longer than the site's file says.
    pub within: Duration,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
    /// It took longer than it may, and was ended with all that it started.
    TimedOut,
    /// It could not be started: why.
    NotStarted(String),
}

/// The longest that any command may take.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// What the runner may need beyond a command's own time: to end it politely,
/// then by force, and to read what is left of its output.
const GRACE: Duration = Duration::from_secs(15);

/// How long the end of the runner itself is waited for.
const FAREWELL: Duration = Duration::from_secs(10);

/// The monitor's end of the runner.
#[derive(Debug)]
pub struct Runner {
    child: Child,
    /// Whether it may be spoken to: it has answered by the rules until now.
    sound: bool,
}

impl Runner {
    /// Starts the runner, if the site has anything for it to run. `path` is
    /// the site's file.
    ///
    /// To be called before the monitor confines itself, and while it has one
    /// thread.
    ///
    /// Errors: [`Code::IoError`].
    pub fn start(config: &Config, path: &Path) -> Result<Option<Runner>> {
        if !main::has_work(config) {
            return Ok(None);
        }
        // This very program, even if the file under its name was just
        // exchanged by an upgrade: both ends must agree about the lines.
        let child = Command::new("/proc/self/exe")
            .args(["runner", "--config"])
            .arg(path)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A signal that is meant for the monitor's group is not for it.
            .process_group(0)
            .spawn()
            .map_err(|error| Error::io("cannot start the runner", error))?;
        Ok(Some(Runner { child, sound: true }))
    }

    /// Runs one command to its end; each line that it writes goes to `line`,
    /// escaped and bounded.
    ///
    /// Errors: [`Code::Internal`]: the runner itself is gone.
    pub fn run(&mut self, task: Task<'_>, line: &mut dyn FnMut(&str)) -> Result<Ended> {
        let done = self.ask(task, line);
        if done.is_err() {
            // Whatever it may be doing, it ends with this.
            self.sound = false;
            self.child.stdin = None;
        }
        done.map_err(|why| {
            Error::new(Code::Internal, format!("the runner of hooks failed: {why}"))
                .remedy("see 'list' for what is live, and report it")
        })
    }

    fn ask(&mut self, task: Task<'_>, line: &mut dyn FnMut(&str)) -> Result<Ended, &'static str> {
        match (&mut self.child.stdin, &self.child.stdout) {
            (Some(to), Some(from)) if self.sound => {
                let left = task.within.min(LONGEST) + GRACE;
                converse(to, Answers { from, left }, task, line)
            }
            _ => Err(GONE),
        }
    }
}

const GONE: &str = "it is gone";

/// Gives the runner a task and takes its answers, to the end of the task. What
/// it says is held to its form: a hook may have become its master.
fn converse(
    to: &mut impl Write,
    from: impl Read,
    task: Task<'_>,
    line: &mut dyn FnMut(&str),
) -> Result<Ended, &'static str> {
    // One line is one write, and shorter than what a pipe takes at once.
    to.write_all(format!("{task}\n").as_bytes())
        .map_err(|_| GONE)?;
    let mut answers = BufReader::new(from);
    // The lines of the output, those that are added to them, and the end.
    for _ in 0..output::MAX_LINES + 8 {
        let mut bytes = Vec::new();
        (&mut answers)
            .take(protocol::MAX)
            .read_until(b'\n', &mut bytes)
            .map_err(|_| "it does not answer")?;
        if bytes.is_empty() {
            return Err(GONE);
        }
        match Answer::parse(&bytes).ok_or("its answer is not acceptable")? {
            Answer::Line(text) => line(&text),
            Answer::End(_) if !answers.buffer().is_empty() => return Err("it answers unasked"),
            Answer::End(ended) => return Ok(ended),
        }
    }
    Err("it answers without end")
}

impl Drop for Runner {
    fn drop(&mut self) {
        // To close its input is all that the monitor may do: its filter leaves
        // it no signals.
        self.child.stdin = None;
        let deadline = Deadline::after(FAREWELL);
        if let Some(from) = self.child.stdout.take() {
            // It alone has the other end, so this is over when it is.
            let rest = TimedReader::new(from, FAREWELL, deadline);
            _ = std::io::copy(&mut rest.take(1 << 20), &mut std::io::sink());
        }
        // Ends: every turn sleeps, and the deadline does not move.
        while !deadline.has_passed() && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Reads what the runner says, for a span of time in which only the waiting
/// counts: a client that is slow to take the lines is no fault of the runner.
struct Answers<F> {
    from: F,
    left: Duration,
}

impl<F: AsFd> Read for Answers<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let begun = Instant::now();
        let read =
            TimedReader::new(self.from.as_fd(), self.left, Deadline::after(self.left)).read(buffer);
        self.left = self.left.saturating_sub(begun.elapsed());
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;

    fn task(release: &ReleaseId) -> Task<'_> {
        Task {
            stage: Stage::AfterSwap,
            index: 0,
            release,
            previous: None,
            within: Duration::from_secs(1),
        }
    }

    /// What the monitor makes of these answers, and which lines it takes.
    fn told(answers: &[u8]) -> (Result<Ended, &'static str>, Vec<String>) {
        let release = ReleaseId::try_from("r1").unwrap();
        let (mut asked, mut lines) = (Vec::new(), Vec::new());
        let mut line = |text: &str| lines.push(text.to_owned());
        let done = converse(&mut asked, answers, task(&release), &mut line);
        assert_eq!(asked, b"run after_swap 0 r1 - 1000\n");
        (done, lines)
    }

    #[test]
    fn answers_are_taken_by_the_rules() {
        let (done, lines) = told(b"out a\nout \nexit 3\n");
        assert_eq!(done, Ok(Ended::Exit(3)));
        assert_eq!(lines, ["a", ""]);
        assert_eq!(told(b"timeout\n").0, Ok(Ended::TimedOut));
        assert_eq!(told(b"signal 9\n").0, Ok(Ended::Signal(9)));
    }

    #[test]
    fn what_a_hostile_runner_says_does_no_harm() {
        for answers in [
            &b""[..],
            b"out a\n",
            b"out a",
            b"exit 0\nexit 0\n",
            b"exit 0\n\n",
        ] {
            assert!(told(answers).0.is_err(), "{answers:?}");
        }
        let (done, lines) = told(&b"out a\n".repeat(100_000));
        assert_eq!(done, Err("it answers without end"));
        assert!(lines.len() <= output::MAX_LINES + 8);
        assert!(told(&b"x".repeat(1 << 20)).0.is_err());
        let (_, lines) = told(b"out \x1b[2J\xff\nexit 0\n");
        assert_eq!(lines, ["\\x1b[2J\\xff"]);
        // More than a line may hold is no line, and nothing is made of it.
        let long = [b"out ".as_slice(), &[b'x'; 2000], b"\nexit 0\n"].concat();
        assert!(told(&long).0.is_err());
    }

    #[test]
    fn silence_is_borne_for_so_long_and_slow_readers_do_not_count() {
        let release = ReleaseId::try_from("r1").unwrap();
        let (from, mut to) = pipe().unwrap();
        let left = Duration::from_millis(50);
        let answers = Answers { from: &from, left };
        let done = converse(&mut Vec::new(), answers, task(&release), &mut |_| ());
        assert_eq!(done, Err("it does not answer"));

        // Whoever takes the lines needs longer than the runner may.
        let left = Duration::from_secs(1);
        let mut rest = ["out b\n", "exit 0\n"].into_iter();
        to.write_all(b"out a\n").unwrap();
        let mut slow = |_: &str| {
            std::thread::sleep(left.mul_f32(1.2));
            to.write_all(rest.next().unwrap().as_bytes()).unwrap();
        };
        let answers = Answers { from: &from, left };
        let done = converse(&mut Vec::new(), answers, task(&release), &mut slow);
        assert_eq!(done, Ok(Ended::Exit(0)));
    }
}
