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

mod brood;
mod job;
mod line;
mod link;
mod output;
mod site;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::timed::{Deadline, Timed};
use line::Answer;

pub use site::main;

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
        if !site::has_work(config) {
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

    fn ask(&mut self, task: Task<'_>, line: &mut dyn FnMut(&str)) -> Result<Ended, String> {
        let gone = || "it is gone".to_owned();
        if !self.sound {
            return Err(gone());
        }
        let to = self.child.stdin.as_mut().ok_or_else(gone)?;
        let from = self.child.stdout.as_ref().ok_or_else(gone)?;
        // One line is one write, and shorter than what a pipe takes at once.
        to.write_all(format!("{task}\n").as_bytes())
            .map_err(|_| gone())?;
        let mut answers = BufReader::new(Answers {
            from,
            left: task.within.min(LONGEST) + GRACE,
        });
        // The lines of the output, those that are added to them, and the end.
        for _ in 0..output::MAX_LINES + 8 {
            let mut bytes = Vec::new();
            (&mut answers)
                .take(line::MAX)
                .read_until(b'\n', &mut bytes)
                .map_err(|_| "it does not answer".to_owned())?;
            if bytes.is_empty() {
                return Err(gone());
            }
            match Answer::parse(&bytes).ok_or("its answer is not acceptable")? {
                Answer::Line(text) => line(&text),
                Answer::End(_) if !answers.buffer().is_empty() => {
                    return Err("it answers unasked".to_owned());
                }
                Answer::End(ended) => return Ok(ended),
            }
        }
        Err("it answers without end".to_owned())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // To close its input is all that the monitor may do: its filter leaves
        // it no signals.
        self.child.stdin = None;
        let deadline = Deadline::after(FAREWELL);
        if let Some(from) = self.child.stdout.take() {
            // It alone has the other end, so this is over when it is.
            let rest = Timed::new(from, FAREWELL, deadline);
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
struct Answers<'a> {
    from: &'a ChildStdout,
    left: Duration,
}

impl Read for Answers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let begun = Instant::now();
        let read = Timed::new(self.from, self.left, Deadline::after(self.left)).read(buffer);
        self.left = self.left.saturating_sub(begun.elapsed());
        read
    }
}
