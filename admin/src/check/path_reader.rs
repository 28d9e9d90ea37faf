//! Follows paths in `shared/`, in a child: the application owns `shared/`, and a file
//! system that is mounted there may stall at any look.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::facts::ResolvedPath;
use super::paths::resolve_path;
use deploy_shell::child::{self, Child, write_answer};
use deploy_shell::error::Code;
use deploy_shell::look_up::MAX_JOB;
use deploy_shell::message;
use deploy_shell::sandbox;

/// The word of argv that makes this program the child.
const WORD: &str = "resolve-paths";

/// The maximum length of one answer, in bytes: a path of 4,096 bytes with 40 symlinks has
/// far fewer components than this holds.
const MAX_ANSWER: usize = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    paths: Vec<PathBuf>,
}

/// Follows each path, all of them within `limit`.
///
/// # Errors
///
/// Says which path could not be followed, and why.
pub fn resolve_paths(paths: Vec<PathBuf>, limit: Duration) -> Result<Vec<ResolvedPath>, String> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let job = Job { paths };
    let mut child = Child::start(child::LOOKS_AT_FILES, WORD, None, &job, limit)
        .map_err(|error| error.problem)?;
    let answer = |path: &PathBuf| {
        child.answer(MAX_ANSWER).map_err(|why| {
            let shown = path.display();
            if child.has_timed_out() {
                format!("'{shown}' does not answer within {} s", limit.as_secs())
            } else {
                format!("the process that follows '{shown}' failed: {why}")
            }
        })
    };
    job.paths.iter().map(answer).collect()
}

/// Runs as the child if `argv` says so, and returns the exit status. The child only
/// reads, so a person who starts it does no harm.
pub fn run_child(argv: &[OsString]) -> Option<u8> {
    match argv {
        [_, word] if word == WORD => Some(main().err().unwrap_or(0)),
        _ => None,
    }
}

fn main() -> Result<(), u8> {
    sandbox::reset_inherited_state();
    let job = message::read_message(&mut std::io::stdin().lock(), MAX_JOB);
    let Job { paths } = job.map_err(|_| Code::BadRequest.exit())?;
    paths
        .iter()
        .try_for_each(|path| write_answer(&resolve_path(path)))
}
