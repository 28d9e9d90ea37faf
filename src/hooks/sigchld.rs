//! The runner's bell: it is told of a child's end as of anything else that can
//! be read.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::deadline;

/// Rings when a child has ended.
#[derive(Debug)]
pub struct ChildSignal(SignalFd);

impl ChildSignal {
    /// SIGCHLD is blocked from here on and read as a file.
    ///
    /// So are the signals that ask a process to end: the runner ends with its
    /// input and not before, so that nothing it has started is left without it.
    pub fn set() -> nix::Result<ChildSignal> {
        let ending = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
        let signals: SigSet = ending.into_iter().chain([Signal::SIGCHLD]).collect();
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&signals, flags).map(ChildSignal)
    }

    /// Forgets that it rang.
    pub fn clear(&self) {
        // Ends: of each kind one signal is kept.
        while let Ok(Some(_)) = self.0.read_signal() {}
    }

    pub fn wait(&self, span: Duration) {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        _ = poll(&mut fds, deadline::timeout(span));
    }
}

impl AsFd for ChildSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
