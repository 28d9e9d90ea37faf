//! The child processes of this program: which word of argv starts which of them.
//!
//! A parent starts this same program with one of these words, one message and an
//! empty environment. clap never sees such a command line, so a child's message
//! never meets the command-line parser.
//!
//! A child refuses to run with any environment variable. The hook runner executes
//! the commands that its first message names. sshd, su, sudo and every shell set
//! variables, so no mistake in a forced command or in sudoers
//! (`command="deploy-shell $SSH_ORIGINAL_COMMAND"`) makes it a shell for a client.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::archive;
use crate::error::{Code, Error};
use crate::hooks;
use crate::message;
use crate::probe;
use crate::reply;
use crate::session;

/// Runs the child process that `argv` names, and returns its exit status; none if
/// `argv` names none.
pub fn run_child(argv: &[OsString]) -> Option<u8> {
    let (word, messages) = argv.get(1..)?.split_first()?;
    let word = word.to_str()?;
    if ![archive::WORD, hooks::WORD, probe::WORD].contains(&word) {
        return None;
    }
    if !session::environment_is_empty() {
        let error = misuse(word, "its environment is not empty");
        return Some(reply::exit(&error));
    }
    let status = match word {
        archive::WORD => decode_one(word, messages, archive::MAX_JOB).map(archive::main),
        // The hook runner gets its messages on stdin.
        hooks::WORD if messages.is_empty() => Ok(hooks::main()),
        hooks::WORD => Err(misuse(word, "it takes no argument")),
        _ => decode_one(word, messages, probe::MAX_REQUEST).map(probe::main),
    };
    Some(status.unwrap_or_else(|error| reply::exit(&error)))
}

/// Reads the single message that a parent hands to a child.
fn decode_one<T: serde::de::DeserializeOwned>(
    word: &str,
    messages: &[OsString],
    max: usize,
) -> Result<T, Error> {
    let decoded = match messages {
        [one] => message::decode(one.as_bytes(), max),
        _ => Err("it takes one message".to_owned()),
    };
    decoded.map_err(|why| misuse(word, &why))
}

fn misuse(word: &str, why: &str) -> Error {
    Error::new(Code::BadRequest, format!("cannot start '{word}': {why}"))
        .remedy("deploy-shell starts this process itself; do not run it by hand")
}
