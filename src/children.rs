//! The child processes of this program: which word of argv starts which of them.
//!
//! A parent starts this same program with one of these words, no further argument and
//! an empty environment, and sends it one message over a descriptor: every local user
//! can read argv (proc_pid_cmdline(5)). clap never sees such a command line.
//!
//! A child refuses to run with any environment variable. The hook runner executes
//! the commands that its first message names. sshd, su, sudo and every shell set
//! variables, so no mistake in a forced command or in sudoers
//! (`command="deploy-shell $SSH_ORIGINAL_COMMAND"`) makes it a shell for a client.

use std::ffi::OsString;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sys::stat::{SFlag, fstat};

use crate::archive;
use crate::assemble;
use crate::compressor;
use crate::dir;
use crate::error::{Code, Error};
use crate::hooks;
use crate::look_up;
use crate::message;
use crate::probe;
use crate::reply;
use crate::sandbox;
use crate::session;

/// Runs the child process that `argv` names, and returns its exit status; none if
/// `argv` names none.
pub fn run_child(argv: &[OsString]) -> Option<u8> {
    let words = [
        archive::WORD,
        assemble::WORD,
        assemble::LINKING_WORD,
        compressor::WORD,
        hooks::WORD,
        look_up::WORD,
        probe::WORD,
    ];
    run_one_of(&words, argv)
}

/// As [`run_child`], for the look-up alone: `deploy-shell-admin check` starts itself.
pub fn run_look_up(argv: &[OsString]) -> Option<u8> {
    run_one_of(&[look_up::WORD], argv)
}

fn run_one_of(words: &[&str], argv: &[OsString]) -> Option<u8> {
    let (word, arguments) = argv.get(1..)?.split_first()?;
    let word = word.to_str()?;
    if !words.contains(&word) {
        return None;
    }
    if !session::environment_is_empty() {
        let error = misuse(word, "its environment is not empty");
        return Some(reply::exit(&error));
    }
    // Before a child waits for its job: it may wait as long as a client sends.
    sandbox::reset_inherited_state();
    let status = match word {
        _ if !arguments.is_empty() => Err(misuse(word, "it takes no argument")),
        // stdin of the unpacker is the payload.
        archive::WORD => stderr_socket()
            .and_then(|socket| message::read_message(&mut BufReader::new(socket), archive::MAX_JOB))
            .map(archive::main)
            .map_err(|why| misuse(word, &why)),
        // The hook runner gets several messages on stdin.
        hooks::WORD => Ok(hooks::main()),
        // The journal follows on stdin.
        compressor::WORD => from_stdin(word, compressor::MAX_JOB).map(compressor::main),
        // It waits for its job while the client sends, and must not outlive the monitor. If that
        // has ended already, stdin has ended too.
        assemble::WORD | assemble::LINKING_WORD => {
            _ = sandbox::end_with_parent();
            let may_link = word == assemble::LINKING_WORD;
            from_stdin(word, assemble::MAX_JOB).map(|job| assemble::main(&job, may_link))
        }
        look_up::WORD => from_stdin(word, look_up::MAX_JOB).map(|job| look_up::main(&job)),
        _ => from_stdin(word, probe::MAX_REQUEST).map(probe::main),
    };
    Some(status.unwrap_or_else(|error| reply::exit(&error)))
}

/// Reads the single message that a parent sends to a child.
fn from_stdin<T: serde::de::DeserializeOwned>(word: &str, max: usize) -> Result<T, Error> {
    let mut stdin = std::io::stdin().lock();
    message::read_message(&mut stdin, max).map_err(|why| misuse(word, &why))
}

/// Returns the socket on which the unpacker gets its job, and reports a failure.
///
/// It is a socket because its descriptor is for both; a pipe has one direction.
fn stderr_socket() -> Result<UnixStream, String> {
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let stderr = stderr.map_err(|error| error.to_string())?;
    match fstat(&stderr) {
        Ok(stat) if dir::file_type(&stat) == SFlag::S_IFSOCK => Ok(stderr.into()),
        _ => Err("its stderr is not a socket".to_owned()),
    }
}

fn misuse(word: &str, why: &str) -> Error {
    Error::new(Code::BadRequest, format!("cannot start '{word}': {why}"))
        .remedy("deploy-shell starts this process itself; do not run it by hand")
}
