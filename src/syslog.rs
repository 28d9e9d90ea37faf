//! Sends one line to the machine's syslog socket within a time limit.
//!
//! The `syslog` crate supplies the facilities, the severities, [`LogFormat`] and
//! [`Logger`]. The rest of it does not fit:
//!
//! - `syslog::unix` connects and sends without a time limit. A daemon that has
//!   stopped reading would hang a deploy, so [`Connection`] is our own.
//! - `Formatter3164` pads the day with a zero; syslog(3) pads it with a space.
//! - `Formatter5424` takes a number as the MSGID, and writes `localhost` for an
//!   unknown host and a fraction of a second of varying length. Our MSGID is a
//!   word (`request`, `result`).
//!
//! Every line opens a new socket. A daemon that restarts during an upload makes
//! a new socket under the same name, and the next line finds it.

use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::syslog::{Facility, LogFormat, Logger, Severity};
use jiff::Timestamp;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::time::{TimeVal, TimeValLike};

/// The pause between two attempts while the daemon is away, and the shortest
/// time limit of one attempt.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The local sockets of journald, rsyslog and syslog-ng. Their readers parse the
/// BSD format that syslog(3) writes, and not RFC 5424.
const LOCAL: [&str; 2] = ["/dev/log", "/run/systemd/journal/dev-log"];

/// The severities that the audit log uses.
#[derive(Clone, Copy, Debug)]
pub enum Level {
    Info,
    Warning,
}

/// A syslog socket and the facility for its lines.
#[derive(Debug)]
pub struct Syslog {
    socket: PathBuf,
    format: Format,
}

impl Syslog {
    pub fn new(socket: &Path, facility: Facility) -> Self {
        Syslog {
            socket: socket.to_owned(),
            format: Format {
                facility,
                local: LOCAL.iter().any(|local| Path::new(local) == socket),
            },
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connects to a datagram or stream socket, and sends nothing.
    ///
    /// # Errors
    ///
    /// Those of socket(2) and connect(2), and [`ErrorKind::WouldBlock`] where nobody accepts
    /// within `timeout`.
    pub fn connect(socket: &Path, timeout: Duration) -> Result<()> {
        Connection::open(socket, Instant::now() + timeout).map(drop)
    }

    /// Sends one line of printable ASCII; `id` is the MSGID of RFC 5424.
    ///
    /// # Errors
    ///
    /// Returns the error of the last attempt if no attempt within `timeout`
    /// succeeded.
    pub fn send(&self, level: Level, id: &str, text: &str, timeout: Duration) -> Result<()> {
        debug_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        let deadline = Instant::now() + timeout;
        loop {
            match self.try_send(level, Message { id, text }, deadline) {
                Ok(()) => return Ok(()),
                // Terminates: each turn sleeps, and the deadline does not move.
                Err(error)
                    if Instant::now() + RETRY_INTERVAL < deadline && is_transient(&error) =>
                {
                    std::thread::sleep(RETRY_INTERVAL);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_send(&self, level: Level, message: Message<'_>, deadline: Instant) -> Result<()> {
        let connection = Connection::open(&self.socket, deadline)?;
        let mut logger = Logger::new(connection, self.format);
        let sent = match level {
            Level::Info => logger.info(message),
            Level::Warning => logger.warning(message),
        };
        sent.map_err(|error| match error {
            ::syslog::Error::Write(error) | ::syslog::Error::Io(error) => error,
            other => Error::other(other.to_string()),
        })
    }
}

/// The message of one line.
#[derive(Clone, Copy)]
struct Message<'a> {
    /// The MSGID of RFC 5424.
    id: &'a str,
    text: &'a str,
}

/// The header of our lines.
#[derive(Clone, Copy, Debug)]
struct Format {
    facility: Facility,
    /// Whether to use the BSD format instead of RFC 5424.
    local: bool,
}

impl LogFormat<Message<'_>> for Format {
    /// Writes the line with one call, because a datagram is one write.
    fn format<W: Write>(
        &self,
        out: &mut W,
        severity: Severity,
        message: Message<'_>,
    ) -> ::syslog::Result<()> {
        let Message { id, text } = message;
        // The crate's facilities are shifted past the severity already.
        let priority = self.facility as u8 | severity as u8;
        let pid = std::process::id();
        let now = Timestamp::now();
        let line = if self.local {
            // The format of glibc's syslog(3); local sockets carry no host name.
            // The time is UTC: this program does not read TZ, and journald and
            // rsyslog use the time of arrival.
            let stamp = now.strftime("%b %e %H:%M:%S");
            format!("<{priority}>{stamp} deploy-shell[{pid}]: {text}")
        } else {
            // RFC 5424, section 6: version, time, host, application, process,
            // message id, no structured data.
            let host = host_name();
            format!("<{priority}>1 {now:.6} {host} deploy-shell {pid} {id} - {text}")
        };
        out.write_all(line.as_bytes())
            .map_err(::syslog::Error::Write)
    }
}

/// A connected socket with a time limit. Each write is one message.
enum Connection {
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

impl Connection {
    fn open(path: &Path, deadline: Instant) -> Result<Connection> {
        let datagram = UnixDatagram::unbound()?;
        match datagram.connect(path) {
            Ok(()) => {
                datagram.set_write_timeout(Some(time_left(deadline)))?;
                Ok(Connection::Datagram(datagram))
            }
            // EPROTOTYPE: a stream socket listens there.
            Err(error) if error.raw_os_error() == Some(nix::libc::EPROTOTYPE) => {
                let stream = connect_stream(path, deadline)?;
                stream.set_write_timeout(Some(time_left(deadline)))?;
                Ok(Connection::Stream(stream))
            }
            Err(error) => Err(error),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, message: &[u8]) -> Result<usize> {
        match self {
            Connection::Datagram(socket) => socket.send(message),
            Connection::Stream(socket) => {
                // Framed by a line feed, which the text cannot contain (RFC 6587,
                // section 3.4.2).
                socket.write_all(&[message, b"\n"].concat())?;
                Ok(message.len())
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Connects a stream socket. connect(2) blocks while the daemon accepts nobody,
/// and only a send timeout that was set before limits it (unix(7), SO_SNDTIMEO).
/// The standard library cannot set one before it connects.
fn connect_stream(path: &Path, deadline: Instant) -> Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let limit = TimeVal::milliseconds(time_left(deadline).as_millis() as i64);
    socket::setsockopt(&socket, SendTimeout, &limit)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Returns the time left for one attempt. It is never zero, which would mean
/// "without a limit" to the kernel.
fn time_left(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .max(RETRY_INTERVAL)
}

/// Returns whether the error can be that of a daemon that restarts: its socket
/// is missing, refuses or is full.
fn is_transient(error: &Error) -> bool {
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

/// Returns the host's name, or `-` (RFC 5424's nil) if it is not printable ASCII.
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

    fn formatted(syslog: &Syslog, severity: Severity, id: &str) -> String {
        let text = "a=\"b\"";
        let mut out = Vec::new();
        syslog
            .format
            .format(&mut out, severity, Message { id, text })
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_format_follows_the_socket() {
        let local = Syslog::new(Path::new("/dev/log"), Facility::LOG_AUTHPRIV);
        let line = formatted(&local, Severity::LOG_INFO, "request");
        assert!(
            line.starts_with("<86>") && line.ends_with("]: a=\"b\""),
            "{line}"
        );
        let other = Syslog::new(Path::new("/run/x"), Facility::LOG_LOCAL7);
        let line = formatted(&other, Severity::LOG_WARNING, "result");
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
    fn a_stream_socket_gets_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let listener = UnixListener::bind(&path).unwrap();
        Syslog::new(&path, Facility::LOG_USER)
            .send(Level::Info, "result", "x=\"1\"", Duration::from_millis(200))
            .unwrap();
        let mut line = String::new();
        BufReader::new(listener.accept().unwrap().0)
            .read_line(&mut line)
            .unwrap();
        assert!(line.ends_with("x=\"1\"\n"), "{line}");
    }

    #[test]
    fn both_kinds_of_socket_can_be_connected() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let _datagram = UnixDatagram::bind(path("datagram")).unwrap();
        let _stream = UnixListener::bind(path("stream")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        let connect = |name: &str| Syslog::connect(&path(name), Duration::from_millis(200));
        assert!(connect("datagram").is_ok());
        assert!(connect("stream").is_ok());
        for bad in ["file", "none"] {
            assert!(connect(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stream_socket_that_nobody_accepts_from_is_an_error_after_the_time_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _never_accepts = UnixListener::bind(&path).unwrap();
        let connect = || Syslog::connect(&path, Duration::from_millis(50));
        // Each connection that nobody accepts stays in the queue, which listen(2) limits.
        let error = (0..100_000).find_map(|_| connect().err());
        assert_eq!(error.unwrap().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_full_queue_is_an_error_after_the_time_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _never_read = UnixDatagram::bind(&path).unwrap();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"x", &path).is_ok() {}
        let sent = Syslog::new(&path, Facility::LOG_USER).send(
            Level::Info,
            "result",
            "x=\"1\"",
            Duration::from_millis(200),
        );
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
