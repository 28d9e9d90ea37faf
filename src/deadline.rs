//! Reads from a peer that may stop sending, and writes to one that may stop reading: a
//! client, or a child process that handles hostile bytes. Every call has a time limit.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Code;

/// The time at which a whole operation must be finished.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(duration: Duration) -> Deadline {
        Deadline(Instant::now() + duration)
    }

    /// Returns the time left, zero once the deadline has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub fn has_passed(self) -> bool {
        self.left().is_zero()
    }

    /// Checks that time is left for `work`, which begins a message. Every loop over what a
    /// client chose calls this: a small payload can cause much work.
    ///
    /// # Errors
    ///
    /// [`Code::Timeout`].
    pub fn check(self, work: &str) -> crate::error::Result<()> {
        if !self.has_passed() {
            return Ok(());
        }
        let problem = format!("{work} took longer than the total_timeout left");
        Err(crate::error::Error::new(Code::Timeout, problem)
            .remedy("raise total_timeout in the site's configuration"))
    }
}

/// Converts a duration for poll(2), rounded up: rounded down, the last wait
/// would become a busy loop. Zero stays zero, and does not wait.
pub fn timeout(duration: Duration) -> PollTimeout {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// Reads from a descriptor, and waits at most `idle` for each read and never
/// past `deadline`. A read that takes longer fails with [`ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct TimedReader<F> {
    from: F,
    idle: Duration,
    deadline: Deadline,
}

impl<F: AsFd> TimedReader<F> {
    pub fn new(from: F, idle: Duration, deadline: Deadline) -> TimedReader<F> {
        TimedReader {
            from,
            idle,
            deadline,
        }
    }

    /// Returns whether the other end is closed and nothing is left to read.
    pub fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].revents() == Some(PollFlags::POLLHUP)
    }

    /// Waits at most `wait`, and returns whether a read would return at once: with
    /// bytes, at the end, or with an error, such as the one after the deadline.
    pub fn is_readable_within(&self, wait: Duration) -> bool {
        let wait = wait.min(self.deadline.left());
        let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout(wait)) {
            Ok(0) | Err(Errno::EINTR) => self.deadline.has_passed(),
            Ok(_) | Err(_) => true,
        }
    }

    fn wait_until_readable(&self) -> Result<()> {
        let wait = self.idle.min(self.deadline.left());
        wait_until_ready(&self.from, PollFlags::POLLIN, wait)
    }
}

/// Waits until the descriptor is ready, has failed or was closed.
///
/// # Errors
///
/// [`ErrorKind::TimedOut`] after `wait`, and those of poll(2).
fn wait_until_ready(descriptor: &impl AsFd, what: PollFlags, wait: Duration) -> Result<()> {
    let until = Instant::now() + wait;
    // Terminates: `until` does not move, and only signals cut a wait short.
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(descriptor.as_fd(), what)];
        match poll(&mut fds, timeout(left)) {
            Ok(0) if Instant::now() >= until => return Err(ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Writes to a pipe, and waits at most `idle` for each write and never past `deadline`.
/// A write that takes longer fails with [`ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct TimedWriter<F> {
    to: F,
    idle: Duration,
    deadline: Deadline,
}

impl<F: AsFd> TimedWriter<F> {
    /// # Errors
    ///
    /// Those of fcntl(2).
    pub fn new(to: F, idle: Duration, deadline: Deadline) -> Result<TimedWriter<F>> {
        // poll(2) promises room for one byte, and a write of more would wait for the rest.
        let flags = OFlag::from_bits_retain(fcntl(&to, FcntlArg::F_GETFL)?);
        fcntl(&to, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(TimedWriter { to, idle, deadline })
    }
}

impl<F: AsFd> Write for TimedWriter<F> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        // Terminates: each turn waits for the peer until the time limit.
        loop {
            let wait = self.idle.min(self.deadline.left());
            wait_until_ready(&self.to, PollFlags::POLLOUT, wait)?;
            match nix::unistd::write(self.to.as_fd(), bytes) {
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                other => return other.map_err(Error::from),
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<F: AsFd> Read for TimedReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        // A peer that sends single bytes must not extend the whole operation.
        if self.deadline.has_passed() {
            return Err(ErrorKind::TimedOut.into());
        }
        loop {
            self.wait_until_readable()?;
            match nix::unistd::read(self.from.as_fd(), buffer) {
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                other => return other.map_err(Error::from),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Write, pipe};

    #[test]
    fn a_wait_is_rounded_up_and_no_wait_stays_none() {
        let millis = |nanos| timeout(Duration::from_nanos(nanos)).as_millis();
        assert_eq!(millis(0), Some(0));
        for (nanos, rounded) in [(1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(millis(nanos), Some(rounded), "{nanos}");
        }
    }

    #[test]
    fn a_silent_and_a_slow_peer_both_time_out() {
        let (from, mut to) = pipe().unwrap();
        let short = Duration::from_millis(30);
        let long = Duration::from_secs(600);
        let mut buffer = [0; 8];

        let mut silent = TimedReader::new(&from, short, Deadline::after(long));
        assert_eq!(
            silent.read(&mut buffer).unwrap_err().kind(),
            ErrorKind::TimedOut
        );

        let mut trickle = TimedReader::new(&from, long, Deadline::after(short));
        let ended = loop {
            to.write_all(b"x").unwrap();
            match trickle.read(&mut buffer) {
                Ok(read) => {
                    assert_eq!(read, 1);
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => break error,
            }
        };
        assert_eq!(ended.kind(), ErrorKind::TimedOut);

        // A peer that never reads: the pipe is full after a while.
        let mut full = TimedWriter::new(&to, short, Deadline::after(long)).unwrap();
        let written = full.write_all(&[0; 1 << 20]);
        assert_eq!(written.unwrap_err().kind(), ErrorKind::TimedOut);

        drop(to);
        let mut closed = TimedReader::new(&from, long, Deadline::after(long));
        let mut rest = Vec::new();
        assert!(closed.read_to_end(&mut rest).is_ok());
    }
}
