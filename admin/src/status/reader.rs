//! The child that reads one site, and its parent.
//!
//! The child loads the configuration as the user of this program, opens the site, becomes
//! the account, and reads the rest. Then that account may send it a signal, and may have
//! written each file that it reads: the answer is as trustworthy as the account. So the
//! parent limits its time, its memory and the length of its answer, and every value of it
//! is of a validated type or is escaped when it is printed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};

use super::attention::Reason;
use super::site::{self, Answer};
use deploy_shell::child::{self, Child, write_answer};
use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error, Result, bug};
use deploy_shell::message;
use deploy_shell::sandbox;

/// The word of argv that makes this program the child.
const WORD: &str = "site-status";

/// How long a child may take.
const LIMIT: Duration = Duration::from_secs(15);

/// How many children run at once.
const AT_ONCE: usize = 8;

/// The memory that a child may use, in bytes: all of them together as much as another
/// command of this program.
const MAX_MEMORY: u64 = 256 << 20;

/// The maximum length of a [`Job`], in bytes.
const MAX_JOB: usize = 32 << 10;

/// The maximum length of an [`Answer`], in bytes.
const MAX_ANSWER: usize = 32 << 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    config: PathBuf,
}

/// Reads the sites of these configurations, and returns an answer for each.
pub fn read_sites(configs: &[PathBuf]) -> Vec<Answer> {
    let read_some = |configs: &[PathBuf]| {
        thread::scope(|scope| {
            let readers = configs
                .iter()
                .map(|config| scope.spawn(|| read_site(config)));
            // All of them start before the first answer is awaited.
            let readers: Vec<_> = readers.collect();
            let answer = |reader: ScopedJoinHandle<'_, _>| reader.join().unwrap_or(Err(bug()));
            readers.into_iter().map(answer).collect::<Vec<_>>()
        })
    };
    let answers = configs.chunks(AT_ONCE).flat_map(read_some);
    answers
        .map(|answer| answer.unwrap_or_else(|error| Answer::unread(Reason::NotReadable, error)))
        .map(Answer::escaped)
        .collect()
}

fn read_site(config: &Path) -> Result<Answer> {
    let job = Job {
        config: config.to_owned(),
    };
    let mut child = Child::start(child::LOOKS_AT_FILES, WORD, None, &job, LIMIT)?;
    child.answer(MAX_ANSWER).map_err(|why| {
        let seconds = LIMIT.as_secs();
        let shown = config.display();
        if child.has_timed_out() {
            let problem = format!("the site of '{shown}' does not answer within {seconds} s");
            return Error::new(Code::Timeout, problem)
                .remedy("repair or unmount the file system that stalls, then try again");
        }
        let problem = format!("the process that reads the site of '{shown}' failed: {why}");
        Error::new(Code::IoError, problem)
            .remedy("see what 'deploy-shell-admin check' and 'history' say about the site")
    })
}

/// Runs as the child if `argv` says so, and returns the exit status. The child only reads,
/// so a person who starts it does no harm.
pub fn run_child(argv: &[OsString]) -> Option<u8> {
    match argv {
        [_, word] if word == WORD => Some(main().err().unwrap_or(0)),
        _ => None,
    }
}

fn main() -> std::result::Result<(), u8> {
    sandbox::reset_inherited_state();
    // The limit of the parent is higher. A failure leaves that one.
    _ = setrlimit(Resource::RLIMIT_DATA, MAX_MEMORY, MAX_MEMORY);
    let job = message::read_message(&mut std::io::stdin().lock(), MAX_JOB);
    let Job { config } = job.map_err(|_| Code::BadRequest.exit())?;
    write_answer(&site::read(Config::load(&config)))
}
