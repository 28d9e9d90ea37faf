//! The look-up: a process that looks at paths in `shared/` for the monitor of a
//! `receive`, and for `deploy-shell-admin check`.
//!
//! The application owns `shared/`, and the operator may mount file systems there. A
//! mount that stalls keeps a process in the kernel, where no signal ends it (FUSE and
//! NFS, fuse(4), nfs(5)). So a child looks, and the monitor waits for it only until its
//! time limit, and never under the lock. A child that still hangs then has the site's
//! root open and no lock. It ends when the mount answers or is removed.
//!
//! The child inherits the sandbox of its monitor, which may read the site. It is the
//! program that starts it: `check` starts `deploy-shell-admin` again.

use std::io::{BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::RelativePath;
use crate::deadline::{Deadline, TimedReader};
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::message;
use crate::sandbox;
use crate::store::layout::SHARED;
use crate::store::shared_dir::{self, Found};

/// The word of argv that makes this program the look-up.
pub const WORD: &str = "look-up";

/// The maximum length of a [`LookUpJob`], in bytes: the configuration has at most 256
/// KiB, and JSON needs fewer than four bytes for each byte of a path.
pub const MAX_JOB: usize = 1 << 20;

/// The maximum length of one answer, in bytes.
const MAX_ANSWER: usize = 64;

/// The paths to look at, relative to `shared/`. The working directory of the look-up is
/// the site's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookUpJob {
    pub paths: Vec<RelativePath>,
}

/// Runs as the look-up, and returns the exit status. Writes one [`Found`] for each path,
/// as soon as it is known.
pub fn main(job: &LookUpJob) -> u8 {
    sandbox::reset_inherited_state();
    sandbox::end_with_parent();
    let Ok(root) = Dir::cwd() else {
        return Code::IoError.exit();
    };
    for path in &job.paths {
        let found = shared_dir::look_at(&root, path.as_path());
        let Ok(line) = message::encode(&found) else {
            return Code::Internal.exit();
        };
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return Code::IoError.exit();
        }
    }
    0
}

/// Looks at paths in `shared/` of the site at `root`, and returns what is at each. Call it
/// without the lock. `shown` is the path of the root, for messages.
///
/// # Errors
///
/// [`Code::Timeout`] if one of them does not answer within `limit`, and
/// [`Code::IoError`] if the look-up cannot be started, or ends early.
pub fn look_up(
    root: &Dir,
    shown: &Path,
    paths: &[RelativePath],
    limit: Duration,
) -> Result<Vec<Found>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let line = message::encode(&LookUpJob {
        paths: paths.to_vec(),
    })?;
    let deadline = Deadline::after(limit);
    let cannot = |error| Error::io("cannot start the look-up of shared paths", error);
    let directory = format!("/proc/self/fd/{}", root.as_fd().as_raw_fd());
    let mut child = LookUpProcess(
        Command::new("/proc/self/exe")
            .arg(WORD)
            .env_clear()
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Nobody reads it. The sandbox of the monitor does not open /dev/null.
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot)?,
    );
    let (Some(mut to), Some(from)) = (child.0.stdin.take(), child.0.stdout.take()) else {
        return Err(Error::new(Code::Internal, "the look-up has no pipes"));
    };
    // The look-up reads all of it before it looks at anything.
    to.write_all(format!("{line}\n").as_bytes())
        .map_err(cannot)?;
    drop(to);
    let mut answers = BufReader::new(TimedReader::new(from, limit, deadline));
    let answer = |path: &RelativePath| {
        message::read_message::<Found>(&mut answers, MAX_ANSWER).map_err(|why| {
            if deadline.has_passed() {
                return stalled(shown, path.as_path(), limit);
            }
            Error::new(
                Code::IoError,
                format!("the look-up of shared paths ended early: {why}"),
            )
        })
    };
    paths.iter().map(answer).collect()
}

fn stalled(root: &Path, path: &Path, limit: Duration) -> Error {
    let shown = root.join(SHARED).join(path);
    let shown = escape::escape_if_needed_truncated(shown.as_os_str().as_encoded_bytes(), 400);
    let seconds = limit.as_secs_f32().ceil();
    Error::new(
        Code::Timeout,
        format!("'{shown}' does not answer within {seconds} s"),
    )
    .remedy("repair or unmount the file system that is mounted there, then try again")
}

/// The child process. It is killed when this value is dropped, and nobody waits for
/// one that hangs in the kernel: when this process ends, init adopts it.
struct LookUpProcess(Child);

impl Drop for LookUpProcess {
    fn drop(&mut self) {
        // Fails if it has already ended.
        _ = self.0.kill();
        _ = self.0.try_wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_and_its_answers_read_back_and_nothing_else_does() {
        let job = r#"{"paths":["a/b","\"c"]}"#;
        let read = |line: &str| message::decode::<LookUpJob>(line.as_bytes(), MAX_JOB);
        let decoded = read(job).unwrap();
        assert_eq!(message::encode(&decoded).as_deref(), Ok(job));
        for (old, new) in [
            ("a/b", "../b"),
            ("a/b", "/b"),
            ("a/b", ""),
            ("{", "{\"more\":1,"),
        ] {
            assert!(read(&job.replacen(old, new, 1)).is_err(), "{new}");
        }
        for found in [
            Found::Usable,
            Found::WrongType,
            Found::Unresolved(i32::MIN),
            Found::Unopened(13),
        ] {
            let line = message::encode(&found).unwrap();
            assert_eq!(message::decode(line.as_bytes(), MAX_ANSWER), Ok(found));
        }
    }
}
