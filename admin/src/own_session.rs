//! A session of its own for a command that root starts on a terminal.
//!
//! Most commands become the account of the site, and some of these execute this program or
//! `deploy-shell` again. From that execve(2) until it enters its sandbox, any process of
//! the account may trace the new process (ptrace(2)). In root's session, the tracer could make
//! it open root's terminal, to read what root types, and to type for root (TIOCSTI,
//! ioctl_tiocsti(2const), which Linux before 6.2 always permits).
//!
//! setsid(2) takes the terminal away, but not from the leader of a process group, and a
//! shell makes each command one. So this program runs the command in a child. The child still
//! has the terminal as stdin, stdout and stderr. Every program that it starts as the account
//! gets other ones.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{geteuid, setsid};

use deploy_shell::error::Error;
use deploy_shell::reply;

/// The first word of argv in the child. A person who gives it does no harm.
const WORD: &str = "own-session";

/// Whether this process is the child.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Returns the arguments of the command that this process is to run. If root has started
/// it on a terminal, a child runs the command, and this returns its exit status as the
/// error.
///
/// # Errors
///
/// An exit status, which is also that of a failure to start.
pub fn begin(mut argv: Vec<OsString>) -> Result<Vec<OsString>, u8> {
    let cannot = |error| reply::exit(&Error::io("cannot start a session", error));
    if argv.get(1).is_some_and(|word| word == WORD) {
        argv.remove(1);
        setsid().map_err(|errno| cannot(errno.into()))?;
        IS_CHILD.store(true, Ordering::Relaxed);
        end_with_parent();
        return Ok(argv);
    }
    // Only a process that has a controlling terminal can open this.
    if !geteuid().is_root() || File::open("/dev/tty").is_err() {
        return Ok(argv);
    }
    let mut words = argv.into_iter();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    let status = command.arg(WORD).args(words).status().map_err(cannot)?;
    Err(exit_status(status))
}

/// Returns the exit status that a shell shows for a process.
pub fn exit_status(status: ExitStatus) -> u8 {
    let signal = || 128 + status.signal().unwrap_or_default();
    u8::try_from(status.code().unwrap_or_else(signal)).unwrap_or(u8::MAX)
}

/// Lets a signal that ends the parent end this child too: the terminal sends none to
/// another session. A change of the user ends the effect, so call this again after it.
pub fn end_with_parent() {
    if IS_CHILD.load(Ordering::Relaxed) {
        // A failure costs a command that runs to its end.
        _ = set_pdeathsig(Signal::SIGTERM);
    }
}
