//! The probe: a process of its own that asks a service one question by HTTP
//! and judges the answer.
//!
//! It is this program, executed anew by the runner, with nothing to read and
//! an empty environment. What answers may be what a client has sent, so the
//! answer is hostile: it is read in a process that is confined before the
//! first byte of it is. The name is looked up and the connection made before
//! that, so that afterwards neither is allowed any more: all that is left to
//! it is to write and read what is open.

mod body;
mod http;

use std::fs::File;
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::config::HttpUrl;
use crate::deadline::{Deadline, TimedReader};
use crate::error::{self, Error};
use crate::escape;
use crate::sandbox;

/// The exit status that says that to ask again may help (sysexits(3), EX_TEMPFAIL).
pub const NOT_YET: u8 = 75;

/// The longest that is said of an answer, in bytes.
const MAX_SAID: usize = 400;

/// What is to be asked.
#[derive(Debug)]
pub struct Question {
    pub url: HttpUrl,
    /// What the body must contain.
    pub contains: Option<String>,
    /// How long all of it may take.
    pub within: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The answer is the one that was wished for.
    Passes,
    /// It is not, and may be in a while.
    NotYet,
    /// It is not, and to wait does not change it.
    Never,
}

impl Verdict {
    /// The exit status: of sysexits(3), EX_TEMPFAIL and EX_UNAVAILABLE.
    pub fn exit(self) -> u8 {
        match self {
            Verdict::Passes => 0,
            Verdict::NotYet => NOT_YET,
            Verdict::Never => 69,
        }
    }
}

/// A verdict, and what was seen, in one line.
type Seen = (Verdict, String);

/// Runs as the probe, to the exit status: that of the verdict, or that of a
/// sandbox that is not on, with a line on stdout that says what was seen.
pub fn main(question: &Question, sandbox_required: bool) -> u8 {
    sandbox::reset_inherited_state();
    let (status, said) = match ask(question, sandbox_required) {
        Ok((verdict, said)) => (verdict.exit(), said),
        Err(error) => (error.code.exit(), error.problem),
    };
    let said = escape::truncate(&escape::escape_if_needed(said.as_bytes()), MAX_SAID);
    // The status tells the same to whoever does not read it.
    _ = writeln!(std::io::stdout(), "{said}");
    status
}

/// Errors: [`error::Code::NoSandbox`].
fn ask(question: &Question, sandbox_required: bool) -> Result<Seen, Error> {
    let deadline = Deadline::after(question.within);
    let stream = match connect(&question.url, deadline) {
        Ok(stream) => stream,
        Err(seen) => return Ok(seen),
    };
    let on = sandbox::restrict_probe();
    on.ensure_full(sandbox_required)?;
    // As a file it is written with write(2), which is all that is left.
    let mut stream = File::from(OwnedFd::from(stream));
    let contains = question.contains.as_deref().map(str::as_bytes);
    let (verdict, mut said) = match stream.write_all(request(&question.url).as_bytes()) {
        Ok(()) => {
            let mut answer = TimedReader::new(stream, deadline.left(), deadline);
            http::judge(&mut answer, contains)
        }
        Err(error) => http::broken(&error),
    };
    if !on.is_full() {
        said += &format!(" (confined {on})");
    }
    Ok((verdict, said))
}

/// Connects to the first of the addresses that takes it.
///
/// Looking a name up has no time limit of its own; the runner ends us.
fn connect(url: &HttpUrl, deadline: Deadline) -> Result<TcpStream, Seen> {
    let host = url.host();
    // No release makes a name known: it is the operator's, or it is wrong.
    let unknown = |_| {
        let said = format!("the name '{host}' does not resolve");
        (Verdict::Never, said)
    };
    let addresses: Vec<_> = (host, url.port())
        .to_socket_addrs()
        .map_err(unknown)?
        .collect();
    let mut said = format!("the name '{host}' has no address");
    for (at, address) in addresses.iter().enumerate() {
        // One that does not answer leaves the others their share.
        let share = deadline.left() / (addresses.len() - at) as u32;
        if share.is_zero() {
            said = "no connection in time".to_owned();
            break;
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok(stream),
            // Whatever it is: a service that is being restarted does not
            // listen, and its network may come with it.
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                said = format!("no connection to {address} in time");
            }
            Err(error) => {
                let why = error::describe(&error);
                said = format!("no connection to {address}: {why}");
            }
        }
    }
    Err((Verdict::NotYet, said))
}

/// No redirect is followed, no proxy asked, no connection kept.
fn request(url: &HttpUrl) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: deploy-shell/{}\r\nAccept: */*\r\n\
         Accept-Encoding: identity\r\nConnection: close\r\n\r\n",
        url.target(),
        url.authority(),
        env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_and_its_target() {
        for (url, first, host) in [
            (
                "http://127.0.0.1:8080/health?x=1",
                "/health?x=1",
                "127.0.0.1:8080",
            ),
            ("http://localhost", "/", "localhost"),
            ("http://[::1]:9000?x", "/?x", "[::1]:9000"),
        ] {
            let text = request(&HttpUrl::try_from(url.to_owned()).unwrap());
            let head = format!("GET {first} HTTP/1.1\r\nHost: {host}\r\n");
            assert!(text.starts_with(&head), "{text}");
            assert!(text.contains("\r\nConnection: close\r\n") && text.ends_with("\r\n\r\n"));
        }
    }
}
