//! The hook runner's end of the pipes to the monitor.

use std::io::Result;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};

use super::protocol::{MAX_REQUEST, MAX_SETUP, RunRequest, RunResponse, Setup};
use crate::deadline::{self, Deadline};
use crate::message;

/// The time in which the monitor must read the last responses to a request.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The pipes that carry messages from and to the monitor.
#[derive(Debug)]
pub struct MonitorPipe {
    /// The read end of the pipe from the monitor.
    requests: OwnedFd,
    /// The write end of the pipe to the monitor. It does not block.
    responses: OwnedFd,
    /// Bytes that were read after the last message.
    unread: Vec<u8>,
    /// Responses that did not fit into the pipe. Their size is bounded by what
    /// is shown of one command: the next request comes after the last response.
    unsent: Vec<u8>,
    /// Set when a response could not be sent. The hook runner then ends: otherwise
    /// the monitor would wait for that response until its time limit.
    broken: bool,
}

impl MonitorPipe {
    /// Takes this process's standard input and output.
    pub fn open() -> Result<MonitorPipe> {
        let requests = std::io::stdin().as_fd().try_clone_to_owned()?;
        let responses = std::io::stdout().as_fd().try_clone_to_owned()?;
        MonitorPipe::new(requests, responses)
    }

    fn new(requests: OwnedFd, responses: OwnedFd) -> Result<MonitorPipe> {
        // A monitor that stops reading must not keep the hook runner from
        // killing a command in time. The monitor's end stays blocking.
        let flags = OFlag::from_bits_retain(fcntl(&responses, FcntlArg::F_GETFL)?);
        fcntl(&responses, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(MonitorPipe {
            requests,
            responses,
            unread: Vec::new(),
            unsent: Vec::new(),
            broken: false,
        })
    }

    /// Waits for the first message; none if the monitor has ended or sent
    /// something else.
    pub fn setup(&mut self) -> Option<Setup> {
        let line = self.read_line(MAX_SETUP)?;
        message::decode(&line, MAX_SETUP).ok()
    }

    /// Waits for the next request; none if the monitor has ended, sent something
    /// else, or sent two requests at once.
    pub fn request(&mut self) -> Option<RunRequest> {
        if self.broken {
            return None;
        }
        let line = self.read_line(MAX_REQUEST)?;
        if !self.unread.is_empty() {
            return None;
        }
        message::decode(&line, MAX_REQUEST).ok()
    }

    /// Reads a line of at most `max` bytes, and returns it without its line feed.
    fn read_line(&mut self, max: usize) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        let mut searched = 0;
        // Terminates: each turn reads bytes, and their number is bounded.
        loop {
            let rest = &self.unread[searched..];
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.unread.drain(..=searched + at).collect();
                line.pop();
                return Some(line);
            }
            searched = self.unread.len();
            if searched > max {
                return None;
            }
            match nix::unistd::read(&self.requests, &mut buffer) {
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => return None,
                Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// Returns the descriptor of the requests. While a command runs, it becomes
    /// readable only if the monitor ends, or sends a request out of turn.
    pub fn request_fd(&self) -> BorrowedFd<'_> {
        self.requests.as_fd()
    }

    /// Returns the descriptor of the responses, to poll for space; none if there is
    /// nothing to send.
    pub fn response_fd_if_pending(&self) -> Option<BorrowedFd<'_>> {
        (!self.unsent.is_empty()).then(|| self.responses.as_fd())
    }

    /// Queues a response, and sends as much of the queue as the pipe takes.
    pub fn queue_response(&mut self, response: &RunResponse) {
        match message::encode(response) {
            Ok(line) => {
                self.unsent.extend_from_slice(line.as_bytes());
                self.unsent.push(b'\n');
            }
            Err(_) => self.broken = true,
        }
        self.write_unsent();
    }

    /// Sends as much of the queue as the pipe takes.
    pub fn write_unsent(&mut self) {
        while !self.unsent.is_empty() {
            match nix::unistd::write(&self.responses, &self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // The monitor has ended, or the write failed for another reason. A
                // gap in the responses cannot be repaired.
                Err(_) => {
                    self.unsent.clear();
                    self.broken = true;
                }
            }
        }
    }

    /// Sends everything, or gives up after [`FLUSH_TIMEOUT`]. Then no further
    /// request is read.
    pub fn flush(&mut self) {
        self.flush_until(Deadline::after(FLUSH_TIMEOUT));
    }

    fn flush_until(&mut self, deadline: Deadline) {
        // Terminates: the deadline does not move.
        while let Some(responses) = self.response_fd_if_pending()
            && !deadline.has_passed()
        {
            let mut fds = [PollFd::new(responses, PollFlags::POLLOUT)];
            _ = poll(&mut fds, deadline::timeout(deadline.left()));
            self.write_unsent();
        }
        self.broken |= !self.unsent.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write, pipe};

    const REQUEST: &[u8] = b"{\"stage\":\"smoke\",\"index\":0,\"release\":\"r1\",\
                             \"previous\":null,\"time_limit\":1,\"dry_run\":false}\n";

    /// Returns the hook runner's end of two pipes, and the monitor's: the write
    /// end for requests and the read end for responses.
    fn pipes() -> (MonitorPipe, impl Write, impl Read) {
        let (requests, to_runner) = pipe().unwrap();
        let (from_runner, responses) = pipe().unwrap();
        let pipe = MonitorPipe::new(requests.into(), responses.into()).unwrap();
        (pipe, to_runner, from_runner)
    }

    #[test]
    fn no_request_is_read_after_a_flush_that_gave_up() {
        let (mut pipe, mut to_runner, _from_runner) = pipes();
        to_runner.write_all(REQUEST).unwrap();
        let line = RunResponse::Output("x".repeat(400).into());
        // Terminates: a pipe holds a limited number of bytes.
        while pipe.unsent.is_empty() {
            pipe.queue_response(&line);
        }
        pipe.flush_until(Deadline::after(Duration::from_millis(20)));
        assert!(pipe.broken);
        assert_eq!(pipe.request(), None);
    }

    #[test]
    fn a_request_is_read_after_a_flush_that_sent_everything() {
        let (mut pipe, mut to_runner, mut from_runner) = pipes();
        to_runner.write_all(REQUEST).unwrap();
        let line = RunResponse::Output("x".to_owned().into());
        pipe.queue_response(&line);
        pipe.flush_until(Deadline::after(Duration::from_secs(60)));
        assert!(pipe.request().is_some());
        drop(pipe);
        let mut sent = String::new();
        from_runner.read_to_string(&mut sent).unwrap();
        assert_eq!(sent, "{\"output\":\"x\"}\n");
    }
}
