//! A signalfd for SIGCHLD, so that the end of a child can be polled together
//! with the pipes.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::deadline;

/// A descriptor that is readable after a child has ended.
#[derive(Debug)]
pub struct ChildSignal(SignalFd);

impl ChildSignal {
    /// Blocks SIGCHLD and opens the descriptor for it.
    ///
    /// SIGHUP, SIGINT and SIGTERM are blocked too: the hook runner ends with its
    /// input and not before, so that no process that it started outlives it.
    pub fn open() -> nix::Result<ChildSignal> {
        let ending = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
        let signals: SigSet = ending.into_iter().chain([Signal::SIGCHLD]).collect();
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&signals, flags).map(ChildSignal)
    }

    /// Discards the pending signals. Call it before looking at the children, so
    /// that a later end of a child is not missed.
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
