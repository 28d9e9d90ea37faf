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

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child::{self, Child};
use crate::config::RelativePath;
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::escape;
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
    sandbox::end_with_parent();
    let Ok(root) = Dir::cwd() else {
        return Code::IoError.exit();
    };
    for path in &job.paths {
        let found = shared_dir::look_at(&root, path.as_path());
        if let Err(status) = child::write_answer(&found) {
            return status;
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
    let job = LookUpJob {
        paths: paths.to_vec(),
    };
    let what = "the look-up of shared paths";
    let mut child = Child::start(what, WORD, Some(root), &job, limit)?;
    let answer = |path: &RelativePath| {
        child.answer::<Found>(MAX_ANSWER).map_err(|why| {
            if child.has_timed_out() {
                return stalled(shown, path.as_path(), limit);
            }
            Error::new(Code::IoError, format!("{what} ended early: {why}"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;

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
