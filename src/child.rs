//! A child of this program that looks at files for it, within a time limit.
//!
//! A file system that stalls keeps a process in the kernel, where no signal ends it
//! (fuse(4), nfs(5)). So a child looks, and its parent does not wait for one that hangs.

use std::io::{BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::deadline::{Deadline, TimedReader};
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::message;

/// What messages call a child that has no other name.
pub const LOOKS_AT_FILES: &str = "a process that looks at files";

/// A child. Dropping it kills the child.
pub struct Child {
    process: std::process::Child,
    answers: BufReader<TimedReader<ChildStdout>>,
    deadline: Deadline,
}

impl Child {
    /// Starts this program with the `word` that makes it the child, and gives it its job.
    /// All of its answers must come within `limit`. Its working directory is `directory`,
    /// or that of this process. `what` names the child for messages.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`].
    pub fn start(
        what: &str,
        word: &str,
        directory: Option<&Dir>,
        job: &impl Serialize,
        limit: Duration,
    ) -> Result<Child> {
        let line = message::encode(job)?;
        let deadline = Deadline::after(limit);
        let cannot = |error| Error::io(format!("cannot start {what}"), error);
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(word)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Nobody reads it. The sandbox of the monitor does not open /dev/null.
            .stderr(Stdio::piped());
        if let Some(directory) = directory {
            // By handle: in the child /proc/self is the child, which still has our
            // descriptors when it changes directory, and loses them at exec.
            command.current_dir(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()));
        }
        let mut process = command.spawn().map_err(cannot)?;
        let pipes = (process.stdin.take(), process.stdout.take());
        let (Some(mut to), Some(from)) = pipes else {
            return Err(Error::new(Code::Internal, "the child has no pipes"));
        };
        let child = Child {
            process,
            answers: BufReader::new(TimedReader::new(from, limit, deadline)),
            deadline,
        };
        // The child reads all of it before it looks at anything.
        to.write_all(format!("{line}\n").as_bytes())
            .map_err(cannot)?;
        Ok(child)
    }

    /// Returns the next answer, of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// Returns a phrase that says why there is none.
    pub fn answer<T: DeserializeOwned>(&mut self, max: usize) -> Result<T, String> {
        message::read_message(&mut self.answers, max)
    }

    /// Returns whether its time is over.
    pub fn has_timed_out(&self) -> bool {
        self.deadline.has_passed()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails if it has already ended. Nobody waits for one that hangs: when this
        // process ends, init adopts it.
        _ = self.process.kill();
        _ = self.process.try_wait();
    }
}

/// Writes an answer of the child.
///
/// # Errors
///
/// Returns the exit status of a child that cannot.
pub fn write_answer(answer: &impl Serialize) -> std::result::Result<(), u8> {
    let line = message::encode(answer).map_err(|_| Code::Internal.exit())?;
    writeln!(std::io::stdout(), "{line}").map_err(|_| Code::IoError.exit())
}
