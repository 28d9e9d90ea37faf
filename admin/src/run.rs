//! `run`: runs a command of the operator as the account of a site.
//!
//! Code of the account can put a symlink at each name below the site's root, at any time. So
//! no command of root's may use a path there, and remedies print this one instead. The command
//! runs with the rights of the account, and a symlink leads nowhere that the account could not
//! go itself.
//!
//! From its execve(2) on, any process of the account may trace the command (ptrace(2)), and use
//! whatever it has. So it gets nothing of root's: no terminal, which it could read and type on,
//! no descriptor but pipes, no variable but a fixed `PATH`, no working directory below one that is
//! closed to the account, and no keyring.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};

use crate::keyrings;
use crate::site_account::{become_user, owner_of_damaged};
use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::escape::escape_if_needed;
use deploy_shell::hooks::PATH;
use deploy_shell::reply;
use deploy_shell::sandbox;
use deploy_shell::threads;

/// The first word of argv in the process that becomes the account.
const WORD: &str = "command-of-account";

/// How long the output may last after the end of the command: a process that it left may keep
/// the pipe open.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs `command` as the account, and returns its exit status.
///
/// It reads the standard input of this process, unless that is a terminal. Its output is text:
/// everything but printable ASCII is escaped.
///
/// # Errors
///
/// [`Code::BadLayout`] for a site of root's, [`Code::Denied`] for any user but root and the
/// account, and the errors of the configuration.
pub fn run(config: &Path, command: &[OsString]) -> Result<u8> {
    let config = Config::load(config)?;
    let uid = owner_of_damaged(&config)
        .map_err(|error| Error::io("cannot see whose the site is", error))?;
    if uid == 0 {
        let shown = config.root.display();
        return Err(Error::new(
            Code::BadLayout,
            format!("the site '{shown}' belongs to root"),
        )
        .remedy("a site must belong to an ordinary account; see deploy-shell-admin check"));
    }
    let stdin = std::io::stdin();
    let has_input = !stdin.is_terminal();
    let mut child = Command::new("/proc/self/exe")
        .arg(WORD)
        .arg(uid.to_string())
        .args(command)
        .env_clear()
        .stdin(if has_input {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_start)?;
    if let Some(mut to) = child.stdin.take() {
        // It ends with this process, or when the command reads no more.
        let copy = move || _ = std::io::copy(&mut stdin.lock(), &mut to);
        threads::builder().spawn(copy).map_err(cannot_start)?;
    }
    let (ended, readers) = mpsc::channel();
    let pipes = [
        (child.stdout.take().map(OwnedFd::from), false),
        (child.stderr.take().map(OwnedFd::from), true),
    ];
    for (pipe, is_error) in pipes {
        let ended = ended.clone();
        let print = move || {
            if let Some(pipe) = pipe {
                print_escaped(File::from(pipe), is_error);
            }
            _ = ended.send(());
        };
        threads::builder().spawn(print).map_err(cannot_start)?;
    }
    let status = child.wait().map_err(cannot_start)?;
    for _ in 0..2 {
        _ = readers.recv_timeout(OUTPUT_TIMEOUT);
    }
    let signal = || 128 + status.signal().unwrap_or_default();
    Ok(u8::try_from(status.code().unwrap_or_else(signal)).unwrap_or(u8::MAX))
}

fn cannot_start(error: std::io::Error) -> Error {
    Error::io("cannot start the command", error)
}

/// Copies the output of the command, so that it controls no terminal.
fn print_escaped(mut from: impl Read, is_error: bool) {
    let mut buffer = [0; 8192];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => &buffer[..read],
        };
        let mut text = String::new();
        for part in read.split_inclusive(|byte| b"\n\t".contains(byte)) {
            match part.split_last() {
                Some((end, rest)) if b"\n\t".contains(end) => {
                    text += &escape_if_needed(rest);
                    text.push(char::from(*end));
                }
                _ => text += &escape_if_needed(part),
            }
        }
        let written = if is_error {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            let mut stdout = std::io::stdout().lock();
            let written = stdout.write_all(text.as_bytes());
            written.and_then(|()| stdout.flush())
        };
        if written.is_err() {
            return;
        }
    }
}

/// Becomes the account and executes the command, if `argv` says so. Returns the exit status of
/// a failure. A person who calls this gets no rights by it.
pub fn run_child(argv: &[OsString]) -> Option<u8> {
    let (word, arguments) = argv.get(1..)?.split_first()?;
    if word != WORD {
        return None;
    }
    let (uid, command) = arguments.split_first()?;
    let uid = uid.to_str()?.parse().ok()?;
    let (program, arguments) = command.split_first()?;
    Some(reply::exit(&execute(uid, program, arguments)))
}

/// Returns only if it fails.
fn execute(uid: u32, program: &OsStr, arguments: &[OsString]) -> Error {
    sandbox::close_inherited_descriptors();
    umask(Mode::from_bits_truncate(0o022));
    if let Err(error) = std::env::set_current_dir("/") {
        return cannot_start(error);
    }
    if !keyrings::give_up() {
        return Error::new(
            Code::Internal,
            "cannot keep root's keyring from the command",
        )
        .remedy("this needs a kernel with seccomp");
    }
    if let Err(error) = become_user(uid, "run") {
        return error;
    }
    let mut command = Command::new(program);
    let error = command.args(arguments).env("PATH", PATH).exec();
    Error::io(format!("cannot start '{}'", program.display()), error)
}
