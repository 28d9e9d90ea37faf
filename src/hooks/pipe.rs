//! The runner's end of its pipes to the monitor.

use std::io::{Result, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::protocol::{Answer, MAX, Order};
use crate::deadline::{self, Deadline};

/// How long the last answers of a command may take to leave.
const FLUSH: Duration = Duration::from_secs(5);

/// Where tasks come from and answers go to.
#[derive(Debug)]
pub struct MonitorPipe {
    from: OwnedFd,
    to: OwnedFd,
    /// Answers that the pipe had no room for. Bounded by what is shown of one
    /// command: the next task comes when the last answer has left.
    unsent: Vec<u8>,
    /// An answer could not be sent, so there is to be no other: the monitor
    /// would wait for it until the time is up.
    broken: bool,
}

impl MonitorPipe {
    /// Of this process's own input and output.
    pub fn open() -> Result<MonitorPipe> {
        let from = std::io::stdin().as_fd().try_clone_to_owned()?;
        let to = std::io::stdout().as_fd().try_clone_to_owned()?;
        // A monitor that stops reading must not keep us from ending a command
        // in time. The other end of the pipe is not affected.
        let flags = OFlag::from_bits_retain(fcntl(&to, FcntlArg::F_GETFL)?);
        fcntl(&to, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(MonitorPipe {
            from,
            to,
            unsent: Vec::new(),
            broken: false,
        })
    }

    /// Waits for the next task. None: the monitor has ended, or says what no
    /// monitor says.
    pub fn order(&mut self) -> Option<Order> {
        if self.broken {
            return None;
        }
        let mut line = Vec::new();
        let mut buffer = [0; MAX as usize];
        while !line.contains(&b'\n') && line.len() < MAX as usize {
            match nix::unistd::read(&self.from, &mut buffer) {
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => return None,
                Ok(read) => line.extend_from_slice(&buffer[..read]),
            }
        }
        // A second task behind it makes it none.
        Order::parse(&line)
    }

    /// Readable once the monitor has ended, or speaks out of turn.
    pub fn from(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// Where to wait for room, if there are answers that have not left.
    pub fn to(&self) -> Option<BorrowedFd<'_>> {
        (!self.unsent.is_empty()).then(|| self.to.as_fd())
    }

    pub fn say(&mut self, answer: &Answer) {
        // Writing to memory cannot fail.
        _ = writeln!(self.unsent, "{answer}");
        self.send();
    }

    /// Sends what there is room for.
    pub fn send(&mut self) {
        while !self.unsent.is_empty() {
            match nix::unistd::write(&self.to, &self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // Nobody reads it any more, or will know what is missing.
                Err(_) => {
                    self.unsent.clear();
                    self.broken = true;
                }
            }
        }
    }

    /// Sends all of it, or gives up.
    pub fn flush(&mut self) {
        use nix::poll::{PollFd, PollFlags, poll};
        let deadline = Deadline::after(FLUSH);
        // Ends: the deadline does not move.
        while let Some(to) = self.to()
            && !deadline.has_passed()
        {
            let mut fds = [PollFd::new(to, PollFlags::POLLOUT)];
            _ = poll(&mut fds, deadline::timeout(deadline.left()));
            self.send();
        }
    }
}
