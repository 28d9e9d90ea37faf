//! The compressor: a process that compresses an old part of the journal.
//!
//! A checkpoint starts this program again, with a pipe as stdin, a new file as stdout
//! and an empty environment. A checkpoint is made before the monitor enters its
//! sandbox. zstd is a large library in C, and a compromised monitor could have
//! written anything into the journal. So zstd runs in a process of its own, which
//! reaches nothing but these two descriptors.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::message;
use crate::sandbox;

/// The word of argv that makes this program the compressor.
pub const WORD: &str = "compress";

/// The maximum length of a [`CompressJob`], in bytes.
pub const MAX_JOB: usize = 256;

/// The level: that of zstd(1).
const LEVEL: i32 = 3;

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
/// [`Code::IoError`] if the compressor did not finish; `to` may have a part of the
/// frame then.
pub fn compress(mut from: File, to: &File, sandbox_required: bool) -> Result<()> {
    let cannot = |error: std::io::Error| Error::io("cannot start the compressor", error);
    let job = message::encode(&CompressJob { sandbox_required })?;
    // This very program, even if an upgrade has just replaced the file under its
    // name: both processes must have the same messages.
    let mut child = Command::new("/proc/self/exe")
        .arg(WORD)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(to.try_clone().map_err(cannot)?)
        .stderr(Stdio::null())
        .spawn()
        .map_err(cannot)?;
    let sent = match child.stdin.take() {
        Some(mut stdin) => stdin
            .write_all(format!("{job}\n").as_bytes())
            .and_then(|()| std::io::copy(&mut from, &mut stdin)),
        None => Ok(0),
    };
    let status = child.wait().map_err(cannot)?;
    if !status.success() {
        let problem = format!("the compressor did not finish: {status}");
        return Err(Error::new(Code::IoError, problem));
    }
    sent.map(drop)
        .map_err(|error| Error::io("cannot read the journal", error))
}

/// Runs as the compressor, to the exit status. The job was read from stdin.
pub fn main(job: CompressJob) -> u8 {
    sandbox::reset_inherited_state();
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
