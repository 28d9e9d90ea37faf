//! The compressor: a process that compresses an old part of the journal.
//!
//! A checkpoint starts this program again, with a pipe as stdin, a new file as stdout
//! and an empty environment. A checkpoint is made before the monitor enters its
//! sandbox. zstd is a large library in C, and a compromised monitor could have
//! written anything into the journal. So zstd runs in a process of its own, which
//! reaches nothing but these two descriptors.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::deadline::{Deadline, TimedWriter};
use crate::error::{Code, Error, Result};
use crate::message;
use crate::sandbox;

/// The word of argv that makes this program the compressor.
pub const WORD: &str = "compress";

/// The maximum length of a [`CompressJob`], in bytes.
pub const MAX_JOB: usize = 256;

/// The level: that of zstd(1).
const LEVEL: i32 = 3;

/// How long the compressor may make no progress. It takes some milliseconds for a piece,
/// and the monitor holds the lock meanwhile.
const STALL: Duration = Duration::from_secs(5);

/// How long it may take. The journal of 500,000 changes takes about a second.
const LIMIT: Duration = Duration::from_secs(60);

/// What a checkpoint asks the compressor to do. The journal follows on stdin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressJob {
    /// Whether to refuse to work when a part of the sandbox is missing.
    pub sandbox_required: bool,
}

/// Compresses all of `from` into one zstd frame, and writes it to `to` at its position.
///
/// # Errors
///
/// [`Code::IoError`] if the compressor did not finish, or not in time; `to` may have a
/// part of the frame then.
pub fn compress(from: File, to: &File, sandbox_required: bool) -> Result<()> {
    let cannot = |error: std::io::Error| Error::io("cannot start the compressor", error);
    let job = message::encode(&CompressJob { sandbox_required })?;
    // This very program, even if an upgrade has just replaced the file under its
    // name: both processes must have the same messages.
    let child = Command::new("/proc/self/exe")
        .arg(WORD)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(to.try_clone().map_err(cannot)?)
        .stderr(Stdio::null())
        .spawn()
        .map_err(cannot)?;
    let head = format!("{job}\n");
    feed(
        child,
        head.as_bytes().chain(from),
        STALL,
        Deadline::after(LIMIT),
    )
}

/// Sends all of `from` to the child, and waits for its exit.
fn feed(child: Child, mut from: impl Read, stall: Duration, deadline: Deadline) -> Result<()> {
    let mut child = CompressorProcess(child);
    let sent = match child.0.stdin.take() {
        Some(stdin) => TimedWriter::new(stdin, stall, deadline)
            .and_then(|mut stdin| std::io::copy(&mut from, &mut stdin).map(drop)),
        None => Ok(()),
    };
    let stalled = || {
        let seconds = stall.as_secs_f32();
        let problem = format!("the compressor did not go on within {seconds} s");
        Error::new(Code::IoError, problem)
    };
    if sent
        .as_ref()
        .is_err_and(|it| it.kind() == ErrorKind::TimedOut)
    {
        return Err(stalled());
    }
    match child.wait(stall.min(deadline.left()))? {
        None => Err(stalled()),
        Some(status) if !status.success() => {
            let problem = format!("the compressor did not finish: {status}");
            Err(Error::new(Code::IoError, problem))
        }
        Some(_) => sent.map_err(|error| Error::io("cannot read the journal", error)),
    }
}

/// The child process. It is killed when this value is dropped, and nobody waits for one
/// that hangs in the kernel: when this process ends, init adopts it. It has no lock, and
/// its output is removed.
struct CompressorProcess(Child);

impl CompressorProcess {
    /// Waits for the exit; returns none if it does not come within `limit`.
    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Deadline::after(limit);
        // Polled, because wait(2) has no time limit. Terminates: every turn sleeps, and
        // the deadline does not move.
        loop {
            let status = self.0.try_wait();
            let status =
                status.map_err(|error| Error::io("cannot wait for the compressor", error))?;
            if status.is_some() || deadline.has_passed() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for CompressorProcess {
    fn drop(&mut self) {
        // Both fail if it has already ended.
        _ = self.0.kill();
        _ = self.0.try_wait();
    }
}

/// Runs as the compressor, to the exit status. The job was read from stdin.
pub fn main(job: CompressJob) -> u8 {
    match run(&job) {
        Ok(()) => 0,
        Err(error) => error.code.exit(),
    }
}

fn run(job: &CompressJob) -> Result<()> {
    sandbox::restrict_to_descriptors().ensure_full(job.sandbox_required)?;
    compress_stream(std::io::stdin().lock(), std::io::stdout().lock())
        .map_err(|error| Error::io("cannot compress", error))
}

fn compress_stream(mut from: impl Read, to: impl Write) -> std::io::Result<()> {
    let mut encoder = zstd::stream::write::Encoder::new(to, LEVEL)?;
    // Nobody reads an old part for months: its reader should notice damage.
    encoder.include_checksum(true)?;
    let mut buffer = vec![0; 128 * 1024];
    // Terminates: the monitor sends the journal, which does not grow meanwhile, and
    // closes the pipe.
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            read => encoder.write_all(&buffer[..read])?,
        }
    }
    encoder.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a script of sh that is not the compressor.
    fn feed_script(script: &str) -> Result<()> {
        let mut command = Command::new("/bin/sh");
        let child = command.args(["-c", script]).stdin(Stdio::piped()).spawn();
        let journal = vec![b'x'; 1 << 20];
        let stall = Duration::from_millis(300);
        feed(child.unwrap(), &journal[..], stall, Deadline::after(LIMIT))
    }

    #[test]
    fn a_compressor_that_stalls_or_is_killed_is_given_up() {
        for script in [
            "exec sleep 600",
            "cat > /dev/null; exec sleep 600",
            "kill -STOP $$",
        ] {
            let problem = feed_script(script).unwrap_err().problem;
            assert_eq!(
                problem, "the compressor did not go on within 0.3 s",
                "{script}"
            );
        }
        for script in ["kill -KILL $$", "cat > /dev/null; kill -KILL $$"] {
            let problem = feed_script(script).unwrap_err().problem;
            assert!(problem.contains("did not finish: signal: 9"), "{problem}");
        }
        assert_eq!(feed_script("exec cat > /dev/null"), Ok(()));
    }

    #[test]
    fn frames_one_after_the_other_are_read_back() {
        let parts = [b"one\n".repeat(100_000), Vec::new(), b"two\n".to_vec()];
        let mut compressed = Vec::new();
        for part in &parts {
            compress_stream(&part[..], &mut compressed).unwrap();
        }
        assert!(compressed.len() < 2000);
        assert_eq!(zstd::decode_all(&compressed[..]).unwrap(), parts.concat());
    }
}
