//! Inherited state, blocked signals, and the process attributes of prctl(2).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};

use super::rlimits::max_files;

/// Closes inherited descriptors, resets ignored signals, sets the umask, blocks SIGXFSZ, and
/// makes the process not dumpable, so that no other process of the account can trace it. Call
/// it first, while there is one thread and nothing of ours is open.
pub fn reset_inherited_state() {
    // The sandbox does this again, and reports a failure.
    _ = prctl::set_dumpable(false);
    close_inherited_descriptors();
    reset_ignored_signals();
    // New files have the modes that we give them, whatever umask sshd has.
    umask(Mode::from_bits_truncate(0o022));
    // With SIGXFSZ blocked, a file that exceeds the size limit is an error of
    // write(2), EFBIG, instead of the end of the process without a reply. SIGPIPE
    // needs nothing: the Rust runtime ignores it.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    _ = signals.thread_block();
}

/// Blocks the signals by which a session or an operator ends a process, so that none
/// of them takes a request off the record. A swap then completes although the client
/// has gone, and a receive ends with a result: only SIGKILL and a power failure leave
/// an unconfirmed release live.
///
/// A child inherits the mask. The hook runner keeps it, and starts the operator's
/// commands with an empty one.
pub fn block_termination_signals() {
    _ = termination_signals().thread_block();
}

/// Returns a descriptor from which each termination signal that arrives can be read.
///
/// # Errors
///
/// Those of signalfd(2).
pub fn termination_signal_fd() -> nix::Result<SignalFd> {
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    SignalFd::with_flags(&termination_signals(), flags)
}

/// The signals that a terminal, sshd or an operator sends (RFC 4254, section 6.9, has
/// those that a client may ask its server to send). A fault of the program itself,
/// such as SIGSEGV, ends it despite a mask.
fn termination_signals() -> SigSet {
    SigSet::from_iter([
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGALRM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ])
}

/// Resets the signals that are ignored to a handler that does nothing here, and that
/// execve(2) replaces by the default.
///
/// A process that ignores SIGCHLD has no zombies: the kernel discards the exit status of
/// its children (sigaction(2)). Then no hook could be seen to succeed. A hook that
/// ignores SIGTERM cannot clean up. A caller of ours may ignore any signal, and
/// execve(2) keeps that.
///
/// Only sigaction(2) changes a disposition, which is unsafe in general; `signal-hook`
/// has a safe form for a handler that sets a flag.
fn reset_ignored_signals() {
    // A child in the sandbox of the monitor cannot read this. Its parent has done it.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let seen = Arc::new(AtomicBool::new(false));
    for signal in ignored_signals(&status) {
        // The Rust runtime ignores SIGPIPE, and resets it for children. Some signals
        // cannot be handled, and nobody ignores those of a fault.
        let unchanged = [Signal::SIGPIPE, Signal::SIGKILL, Signal::SIGSTOP];
        let fault = [Signal::SIGILL, Signal::SIGFPE, Signal::SIGSEGV];
        if !unchanged.contains(&signal) && !fault.contains(&signal) {
            _ = signal_hook::flag::register(signal as i32, Arc::clone(&seen));
        }
    }
}

/// Returns the ignored signals of a process, from the text of its status
/// (proc_pid_status(5)).
fn ignored_signals(status: &str) -> Vec<Signal> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    let is_ignored = |signal: &Signal| mask.unwrap_or(0) >> (*signal as u32 - 1) & 1 == 1;
    Signal::iterator().filter(is_ignored).collect()
}

/// Closes every inherited descriptor but 0, 1 and 2.
///
/// A failure is ignored: sshd leaves nothing open, and our own descriptors are
/// close-on-exec. This is a precaution against other callers.
pub fn close_inherited_descriptors() {
    let open: Vec<i32> = match std::fs::read_dir("/proc/self/fd") {
        // The directory's own descriptor is in the list, and closed by then.
        Ok(directory) => directory
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|fd| *fd > 2)
            .collect(),
        // The monitor's Landlock rules hide /proc from the unpacker.
        Err(_) => (3..max_files() as i32).collect(),
    };
    for fd in open {
        _ = nix::unistd::close(fd);
    }
}

/// Sets no_new_privs, so that no executed program gains a privilege, and makes the
/// process non-dumpable, so that no other process of this user can read its memory
/// (prctl(2)).
pub fn set_attributes() -> bool {
    prctl::set_no_new_privs().is_ok()
        && prctl::set_dumpable(false).is_ok()
        && prctl::get_no_new_privs() == Ok(true)
}

/// Has the kernel kill this process when its parent ends: nobody reads its report
/// then.
///
/// The kernel sends nothing if the parent has ended before this call. Such a process
/// ends by itself: the unpacker's first line goes to a pipe without a reader, and the
/// probe has a deadline.
pub fn end_with_parent() -> bool {
    prctl::set_pdeathsig(Signal::SIGKILL).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignored_signals_are_read_from_the_status() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000011001\n";
        let ignored = [Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGCHLD];
        assert_eq!(ignored_signals(status), ignored);
        assert_eq!(ignored_signals(""), []);
    }
}
