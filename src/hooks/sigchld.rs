//! A signalfd for SIGCHLD, so that the end of a child can be polled together
//! with the pipes.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::deadline;

/// The signals that would end the hook runner. sshd and people send them to a
/// session; the monitor blocks the same ones.
const TERMINATION_SIGNALS: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// A descriptor that is readable after a child has ended, or after a termination
/// signal, which has no other effect.
#[derive(Debug)]
pub struct ChildSignal(SignalFd);

impl ChildSignal {
    /// Blocks SIGCHLD and the termination signals, and opens the descriptor for
    /// all of them.
    ///
    /// None of the termination signals ends the hook runner, so that it always
    /// lives to kill what it has started. The end of its input ends it, and so do
    /// SIGKILL and a crash.
    pub fn open() -> nix::Result<ChildSignal> {
        let mut signals: SigSet = TERMINATION_SIGNALS.into_iter().collect();
        signals.add(Signal::SIGCHLD);
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&signals, flags).map(ChildSignal)
    }

    /// Discards the pending signals: a SIGCHLD because the caller looks at the
    /// children afterwards and so misses no later end, and a termination signal so
    /// that it does not arrive when the mask is empty for a moment.
    pub fn clear(&self) {
        // Terminates: the kernel keeps one pending signal of each kind.
        while let Ok(Some(_)) = self.0.read_signal() {}
    }

    /// Waits for a signal, at most `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        _ = poll(&mut fds, deadline::timeout(timeout));
    }
}

impl AsFd for ChildSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
