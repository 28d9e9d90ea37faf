//! A child of this program that looks at files for it, within a time limit.
//!
//! A file system that stalls keeps a process in the kernel, where no signal ends it
//! (fuse(4), nfs(5)). So a child looks, and its parent does not wait for one that hangs.

use std::io::{BufReader, Write};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use deploy_shell::deadline::{Deadline, TimedReader};
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::message;

/// A child. Dropping it kills the child.
pub struct Child {
    process: std::process::Child,
    answers: BufReader<TimedReader<ChildStdout>>,
    deadline: Deadline,
}

impl Child {
    /// Starts this program with the `word` that makes it the child, and gives it its job.
    /// All of its answers must come within `limit`.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`].
    pub fn start(word: &str, job: &impl Serialize, limit: Duration) -> Result<Child> {
        let line = message::encode(job)?;
        let deadline = Deadline::after(limit);
        let cannot = |error| Error::io("cannot start a process that looks at files", error);
        let mut process = Command::new("/proc/self/exe")
            .arg(word)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(cannot)?;
        let (Some(mut to), Some(from)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Error::new(Code::Internal, "the child has no pipes"));
        };
        let child = Child {
            process,
            answers: BufReader::new(TimedReader::new(from, limit, deadline)),
            deadline,
        };
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

/// Writes an answer of the child. Returns the exit status of a child that cannot.
pub fn write_answer(answer: &impl Serialize) -> std::result::Result<(), u8> {
    let line = message::encode(answer).map_err(|_| Code::Internal.exit())?;
    writeln!(std::io::stdout(), "{line}").map_err(|_| Code::IoError.exit())
}
