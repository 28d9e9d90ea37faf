//! `run`: runs a command of the operator as the account of a site.
//!
//! Code of the account can put a symlink at each name below the site's root, at any time. So
//! no command of root's may use a path there, and remedies print this one instead. The command
//! runs with the rights of the account, and a symlink leads nowhere that the account could not
//! go itself.
//!
//! From its execve(2) on, any process of the account may trace the command (ptrace(2)), and use
//! whatever it has. So it gets no terminal of root's, which it could read and type on, no
//! descriptor but pipes, no variable but a fixed `PATH`, `/` as its working directory, and no
//! keyring, capability or raised priority.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, fstat, umask};
use nix::unistd::{Uid, fchown, setsid};
use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::keyrings;
use crate::own_session;
use crate::site_account::{become_user, named_or_shown};
use deploy_shell::config::Config;
use deploy_shell::dir::file_type;
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::escape::escape_if_needed;
use deploy_shell::hooks::PATH;
use deploy_shell::reply;
use deploy_shell::sandbox;
use deploy_shell::threads;

/// The first word of argv in the process that becomes the account.
const WORD: &str = "command-of-account";

/// How often a reader of output looks whether the command has ended, in milliseconds.
const INTERVAL: u16 = 500;

/// The output that is read after the end of the command, in bytes: as much as a pipe can hold
/// (pipe(7)). A process that the command left may keep the pipe open, and write for ever.
const MAX_REST: usize = 1 << 20;

/// Runs `command` as the account, and returns its exit status. `named` is the account, where
/// the owners of the directories do not show it.
///
/// With `reads` the command gets the standard input of this process. A command without it must
/// not take the rest of a script that sh(1) reads there. The output is text: everything but
/// printable ASCII is escaped.
///
/// # Errors
///
/// Those of [`named_or_shown`] and of the configuration, [`Code::Denied`] for any user but root
/// and the account, and [`Code::IoError`] for input or output that fails.
pub fn run(config: &Path, named: Option<&str>, reads: bool, command: &[OsString]) -> Result<u8> {
    let config = Config::load(config)?;
    let account = named_or_shown(&config, named, "run")?;
    let mut child = Command::new("/proc/self/exe")
        .arg(WORD)
        .arg(account.uid.to_string())
        .args(command)
        .env_clear()
        .stdin(if reads { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_run)?;
    let (sender, copied) = mpsc::channel();
    if let Some(mut to) = child.stdin.take() {
        let copy = move || {
            let copied = io::copy(&mut io::stdin().lock(), &mut to);
            // Before the command sees the end of its input.
            _ = sender.send(copied);
        };
        threads::builder().spawn(copy).map_err(cannot_run)?;
    }
    let status =
        print_until_end(&mut child).map_err(|error| Error::io("cannot write the output", error))?;
    // That thread may wait for input that the command did not want. It ends with this process.
    if let Ok(Err(error)) = copied.try_recv()
        && error.kind() != ErrorKind::BrokenPipe
    {
        return Err(Error::io("cannot read the input", error));
    }
    Ok(status)
}

fn cannot_run(error: io::Error) -> Error {
    Error::io("cannot run the command", error)
}

/// Prints what a command writes until it ends, and returns its exit status. A reader of this
/// output may take any time (`| less`).
fn print_until_end(child: &mut Child) -> io::Result<u8> {
    let ended = AtomicBool::new(false);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let print_out = || print_escaped(out, io::stdout(), &ended);
        let print_err = || print_escaped(err, io::stderr(), &ended);
        let printers = [
            threads::builder().spawn_scoped(scope, print_out)?,
            threads::builder().spawn_scoped(scope, print_err)?,
        ];
        let status = child.wait();
        ended.store(true, Ordering::Relaxed);
        for printer in printers {
            match printer.join() {
                // A reader that has closed its end, such as head(1), wants no more.
                Ok(Err(error)) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        status.map(own_session::exit_status)
    })
}

/// Copies the output of a command, so that it controls no terminal.
fn print_escaped(
    from: Option<impl Read + AsFd>,
    mut to: impl Write,
    ended: &AtomicBool,
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let (mut buffer, mut rest) = ([0; 8192], MAX_REST);
    while rest > 0 {
        let is_last = ended.load(Ordering::Relaxed);
        let mut wait = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wait, INTERVAL) {
            Ok(0) if is_last => break,
            Ok(0) | Err(Errno::EINTR) => continue,
            ready => ready?,
        };
        let length = from.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        if is_last {
            rest = rest.saturating_sub(length);
        }
        let mut text = String::new();
        for byte in &buffer[..length] {
            match byte {
                b'\n' | b'\t' => text.push(char::from(*byte)),
                _ => text += &escape_if_needed(&[*byte]),
            }
        }
        to.write_all(text.as_bytes())?;
        to.flush()?;
    }
    Ok(())
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
    let error = match give_up_rights(uid) {
        Ok(()) => execute(program, arguments),
        Err(error) => error,
    };
    Some(reply::exit(&error))
}

/// Returns only if it fails.
fn execute(program: &OsStr, arguments: &[OsString]) -> Error {
    let mut command = Command::new(program);
    let error = command.args(arguments).env("PATH", PATH).exec();
    Error::io(format!("cannot start '{}'", program.display()), error)
}

/// Leaves this process with nothing of root's: see the top of this file.
fn give_up_rights(uid: u32) -> Result<()> {
    sandbox::close_inherited_descriptors();
    // The command may open its pipes again, as /dev/stdin and /dev/stderr.
    for stream in [
        io::stdin().as_fd(),
        io::stdout().as_fd(),
        io::stderr().as_fd(),
    ] {
        let is_pipe = fstat(stream).is_ok_and(|stat| file_type(&stat) == SFlag::S_IFIFO);
        if is_pipe {
            // A failure costs the command what it seldom needs.
            _ = fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
    umask(Mode::from_bits_truncate(0o022));
    // A process group of root's would get the signals of the command, and the reverse.
    setsid().map_err(|errno| cannot_run(errno.into()))?;
    std::env::set_current_dir("/").map_err(cannot_run)?;
    // Only a raised priority is one of root's.
    if getpriority_process(None).is_ok_and(|nice| nice < 0) {
        setpriority_process(None, 0).map_err(|errno| cannot_run(errno.into()))?;
    }
    if !keyrings::give_up() {
        let problem = "cannot keep root's keyrings from the command";
        return Err(Error::new(Code::NoSandbox, problem).remedy("this needs a kernel with seccomp"));
    }
    become_user(uid, "this")?;
    // setuid(2) takes them all, unless the secure bits of root's session say otherwise
    // (capabilities(7)). The ambient ones go with the inheritable ones.
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets).map_err(|errno| cannot_run(errno.into()))?;
    // A change of the user clears this (PR_SET_PDEATHSIG, prctl(2)).
    set_pdeathsig(Signal::SIGTERM).map_err(|errno| cannot_run(errno.into()))
}
