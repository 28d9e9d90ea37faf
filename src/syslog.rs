//! Handing one line to the machine's syslog, without ever waiting long for it.
//!
//! The `syslog` crate would do the sending, but its sockets block without a
//! bound when the daemon stands still and the socket's queue is full, and a
//! deploy must not hang on that. What remains is small: connect, set a time
//! limit, send one datagram.
//!
//! A socket is opened for each line and closed again. A daemon that was
//! restarted in between (in mid-upload, say) has made a new socket under the
//! same name, and the next line finds it.

use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::config::Facility;

/// Between tries, while the daemon is away.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the readers expect the local BSD form: journald and rsyslog's and
/// syslog-ng's local sockets parse what syslog(3) writes and nothing newer.
const LOCAL: [&str; 2] = ["/dev/log", "/run/systemd/journal/dev-log"];

/// A severity (RFC 5424, table 2).
#[derive(Clone, Copy, Debug)]
pub enum Severity {
    Warning = 4,
    Info = 6,
}

#[derive(Debug)]
pub struct Syslog {
    socket: PathBuf,
    facility: Facility,
}

impl Syslog {
    pub fn new(socket: &Path, facility: Facility) -> Self {
        Syslog {
            socket: socket.to_owned(),
            facility,
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends one line of printable ASCII; `id` is the RFC 5424 MSGID.
    ///
    /// Errors: that of the last try, when `patience` did not suffice to hand it over.
    pub fn send(&self, severity: Severity, id: &str, text: &str, patience: Duration) -> Result<()> {
        debug_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        let line = self.format(severity, id, text);
        let deadline = Instant::now() + patience;
        loop {
            match self.hand_over(line.as_bytes(), deadline) {
                Ok(()) => return Ok(()),
                // Ends: each turn sleeps, and the deadline does not move.
                Err(error) if Instant::now() + PAUSE < deadline && may_come_back(&error) => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn hand_over(&self, line: &[u8], deadline: Instant) -> Result<()> {
        let left = || {
            Some(
                deadline
                    .saturating_duration_since(Instant::now())
                    .max(PAUSE),
            )
        };
        let datagram = UnixDatagram::unbound()?;
        match datagram.connect(&self.socket) {
            Ok(()) => {
                datagram.set_write_timeout(left())?;
                datagram.send(line).map(drop)
            }
            // EPROTOTYPE: somebody listens there, with a stream socket.
            Err(error) if error.raw_os_error() == Some(nix::libc::EPROTOTYPE) => {
                let mut stream = self.connect_stream(deadline)?;
                stream.set_write_timeout(left())?;
                // Framed by a line feed, which the text cannot hold (RFC 6587, 3.4.2).
                stream.write_all(&[line, b"\n"].concat())
            }
            Err(error) => Err(error),
        }
    }

    /// A stream's connect waits as well, while the daemon accepts nobody. Only a
    /// time limit that is set before it bounds it (unix(7), SO_SNDTIMEO), which
    /// is why the standard library's own will not do.
    fn connect_stream(&self, deadline: Instant) -> Result<UnixStream> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(PAUSE);
        let limit = TimeVal::milliseconds(left.as_millis() as i64);
        socket::setsockopt(&socket, SendTimeout, &limit)?;
        socket::connect(socket.as_raw_fd(), &UnixAddr::new(&self.socket)?)?;
        Ok(UnixStream::from(socket))
    }

    fn format(&self, severity: Severity, id: &str, text: &str) -> String {
        let priority = self.facility as u8 * 8 + severity as u8;
        let pid = std::process::id();
        let now = Timestamp::now();
        if LOCAL.iter().any(|local| Path::new(local) == self.socket) {
            // What glibc's syslog(3) writes; local sockets carry no host name.
            // In UTC: TZ is not read, and both journald and rsyslog stamp the
            // time of arrival themselves.
            let stamp = now.strftime("%b %e %H:%M:%S");
            format!("<{priority}>{stamp} deploy-shell[{pid}]: {text}")
        } else {
            // RFC 5424, section 6: version, time, host, application, process,
            // message id, no structured data.
            let host = host_name();
            format!("<{priority}>1 {now:.6} {host} deploy-shell {pid} {id} - {text}")
        }
    }
}

/// Gone, refusing or full: what a daemon's restart looks like from here.
fn may_come_back(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
    )
}

/// The host's name, or `-` (RFC 5424's nil) if it is not printable ASCII.
fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic()))
        .unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_form_follows_the_socket() {
        let local = Syslog::new(Path::new("/dev/log"), Facility::Authpriv);
        let line = local.format(Severity::Info, "request", "a=\"b\"");
        assert!(
            line.starts_with("<86>") && line.ends_with("]: a=\"b\""),
            "{line}"
        );
        let other = Syslog::new(Path::new("/run/x"), Facility::Local7);
        let line = other.format(Severity::Warning, "result", "a=\"b\"");
        let words: Vec<_> = line.splitn(8, ' ').collect();
        assert_eq!(
            (words[0], words[3], words[5], words[6]),
            ("<188>1", "deploy-shell", "result", "-")
        );
        assert_eq!(
            words[1].len(),
            "2026-11-20T15:38:12.123456Z".len(),
            "{line}"
        );
        assert_eq!(words[7], "a=\"b\"");
    }

    #[test]
    fn a_stream_socket_is_taken_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let listener = UnixListener::bind(&path).unwrap();
        Syslog::new(&path, Facility::User)
            .send(
                Severity::Info,
                "result",
                "x=\"1\"",
                Duration::from_millis(200),
            )
            .unwrap();
        let mut line = String::new();
        BufReader::new(listener.accept().unwrap().0)
            .read_line(&mut line)
            .unwrap();
        assert!(line.ends_with("x=\"1\"\n"), "{line}");
    }

    #[test]
    fn a_full_queue_is_an_error_and_not_a_wait_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let _never_read = UnixDatagram::bind(&path).unwrap();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"x", &path).is_ok() {}
        let sent = Syslog::new(&path, Facility::User).send(
            Severity::Info,
            "result",
            "x=\"1\"",
            Duration::from_millis(200),
        );
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
