//! The probe: a process that sends one HTTP request to a service and judges the
//! response.
//!
//! The hook runner starts this program again, with an empty environment, and sends it
//! a [`ProbeRequest`] on stdin: argv is readable by every local user, and a URL can have
//! a secret. The response is hostile: the service can be code that a
//! client has sent. So the probe resolves the name and connects first, and then
//! enters a sandbox before it reads a byte. In the sandbox it can neither
//! resolve nor connect; it can write to and read from what is open.
//!
//! `httparse` reads the status line, the fields and the chunk sizes. `ureq-proto`
//! would read bodies too, but adds `http` and `base64` to the program that sshd
//! runs, for about a hundred lines of ours.

mod body;
mod http;

use std::fs::File;
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::deadline::{Deadline, TimedReader};
use crate::error::{self, Error};
use crate::escape;
use crate::http_values::{HeaderFields, Host, Statuses};
use crate::message::millis;
use crate::sandbox;
use crate::url::HttpUrl;

/// The word of argv that makes this program the probe.
pub const WORD: &str = "probe";

/// The maximum length of a [`ProbeRequest`], in bytes.
pub const MAX_REQUEST: usize = 16 << 10;

/// The exit status of [`Verdict::NotYet`] (sysexits(3), EX_TEMPFAIL).
pub const NOT_YET: u8 = 75;

/// The maximum length of the line that describes the response, in bytes.
const MAX_DETAIL: usize = 400;

/// What the hook runner asks the probe to do: one message, on stdin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    pub url: HttpUrl,
    /// The text that the body must contain.
    pub contains: Option<String>,
    pub exchange: Exchange,
    /// The time limit of connection, request and response together.
    #[serde(with = "millis")]
    pub time_limit: Duration,
    /// Whether to refuse to work when a part of the sandbox is missing.
    pub sandbox_required: bool,
}

/// The configured parts of a request and its response that are the same for
/// `smoke_url` and `url`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The Host field, if it is not the authority of the URL.
    pub host: Option<Host>,
    pub headers: HeaderFields,
    /// The statuses that pass.
    pub statuses: Statuses,
}

/// The judgement of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The status is accepted, and the body contains the text.
    Passes,
    /// The response is a different one, and may be right after a while.
    NotYet,
    /// The response is a different one, and waiting does not change it.
    Never,
}

impl Verdict {
    /// Returns the exit status: for failures EX_TEMPFAIL and EX_UNAVAILABLE of
    /// sysexits(3).
    pub fn exit(self) -> u8 {
        match self {
            Verdict::Passes => 0,
            Verdict::NotYet => NOT_YET,
            Verdict::Never => 69,
        }
    }
}

/// A verdict, and a line that describes the response.
type Judgement = (Verdict, String);

/// Runs as the probe, to the exit status: that of the verdict, or that of a
/// missing sandbox. Writes one line on stdout that describes the response.
pub fn main(request: ProbeRequest) -> u8 {
    let (status, detail) = match probe_service(&request) {
        Ok((verdict, detail)) => (verdict.exit(), detail),
        Err(error) => (error.code.exit(), error.problem),
    };
    let detail = escape::escape_if_needed_truncated(detail.as_bytes(), MAX_DETAIL);
    // If nobody reads the line, the exit status still has the verdict.
    _ = writeln!(std::io::stdout(), "{detail}");
    status
}

/// Connects, enters the sandbox, sends the request, and judges the response.
///
/// # Errors
///
/// [`error::Code::NoSandbox`]
fn probe_service(request: &ProbeRequest) -> Result<Judgement, Error> {
    let deadline = Deadline::after(request.time_limit);
    let stream = match connect(&request.url, deadline) {
        Ok(stream) => stream,
        Err(judgement) => return Ok(judgement),
    };
    let enforcement = sandbox::restrict_to_descriptors();
    enforcement.ensure_full(request.sandbox_required)?;
    // The sandbox permits write(2), which a `File` uses, and no send(2).
    let mut stream = File::from(OwnedFd::from(stream));
    let contains = request.contains.as_deref().map(str::as_bytes);
    let contains = contains.filter(|text| !text.is_empty());
    let text = http_request(&request.url, &request.exchange);
    let (verdict, mut detail) = match stream.write_all(text.as_bytes()) {
        Ok(()) => {
            let mut response = TimedReader::new(stream, deadline.left(), deadline);
            http::judge_response(&mut response, &request.exchange.statuses, contains)
        }
        Err(error) => http::connection_failed(&error),
    };
    if !enforcement.is_full() {
        detail += &format!(" (sandbox {enforcement})");
    }
    Ok((verdict, detail))
}

/// Connects to the first address that accepts the connection.
///
/// Resolving a name has no time limit here. The hook runner kills a probe that
/// takes too long.
fn connect(url: &HttpUrl, deadline: Deadline) -> Result<TcpStream, Judgement> {
    let host = url.host();
    // A release cannot change this: the operator chose the name.
    let unknown = |_| {
        let detail = format!("the name '{host}' does not resolve");
        (Verdict::Never, detail)
    };
    let addresses: Vec<_> = (host, url.port())
        .to_socket_addrs()
        .map_err(unknown)?
        .collect();
    let mut detail = format!("the name '{host}' has no address");
    for (at, address) in addresses.iter().enumerate() {
        // Divides the time, so that a silent address leaves some to the others.
        let share = deadline.left() / (addresses.len() - at) as u32;
        if share.is_zero() {
            detail = "no connection in time".to_owned();
            break;
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok(stream),
            // Every error is temporary: a service that restarts does not listen,
            // and its network may start with it.
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                detail = format!("no connection to {address} in time");
            }
            Err(error) => {
                let why = error::describe(&error);
                detail = format!("no connection to {address}: {why}");
            }
        }
    }
    Err((Verdict::NotYet, detail))
}

/// Returns the HTTP request. The probe follows no redirect, uses no proxy and
/// closes the connection.
///
/// The configured fields take the place of `User-Agent` and `Accept`. They cannot be one
/// of the others: [`HeaderFields`] refuses those.
fn http_request(url: &HttpUrl, exchange: &Exchange) -> String {
    let host = exchange.host.as_ref().map_or(url.authority(), Host::as_str);
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: identity\r\nConnection: close\r\n",
        url.target(),
    );
    let agent = concat!("deploy-shell/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [("User-Agent", agent), ("Accept", "*/*")] {
        if !exchange.headers.contains(name) {
            text += &format!("{name}: {value}\r\n");
        }
    }
    for field in exchange.headers.iter() {
        text += &format!("{}\r\n", field.as_line());
    }
    text + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_values::{MAX_FIELDS_LENGTH, MAX_STATUSES};
    use crate::message;
    use crate::url::MAX_URL;

    fn url(text: &str) -> HttpUrl {
        HttpUrl::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_request_names_its_host_and_its_target() {
        for (text, target, host) in [
            (
                "http://127.0.0.1:8080/health?x=1",
                "/health?x=1",
                "127.0.0.1:8080",
            ),
            ("http://localhost", "/", "localhost"),
            ("http://[::1]:9000?x", "/?x", "[::1]:9000"),
        ] {
            let request = http_request(&url(text), &Exchange::default());
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n");
            assert!(request.starts_with(&head), "{request}");
            assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
            assert!(request.ends_with("\r\n\r\n"), "{request}");
        }
    }

    #[test]
    fn a_request_has_the_configured_fields() {
        let exchange = Exchange {
            host: Some(Host::try_from("www.example.com".to_owned()).unwrap()),
            headers: fields(&["X-Forwarded-Proto: https", "user-agent: probe"]),
            statuses: Statuses::default(),
        };
        let request = http_request(&url("http://127.0.0.1:8080/health"), &exchange);
        let version = env!("CARGO_PKG_VERSION");
        assert!(!request.contains(version), "{request}");
        let expected = "GET /health HTTP/1.1\r\nHost: www.example.com\r\n\
                        Accept-Encoding: identity\r\nConnection: close\r\nAccept: */*\r\n\
                        X-Forwarded-Proto: https\r\nuser-agent: probe\r\n\r\n";
        assert_eq!(request, expected);
    }

    fn fields(texts: &[&str]) -> HeaderFields {
        let fields = texts.iter().map(|text| (*text).to_owned().try_into());
        let fields: Result<Vec<_>, String> = fields.collect();
        HeaderFields::try_from(fields.unwrap()).unwrap()
    }

    /// A configured text has at most 256 bytes, and `{release}` in it becomes at
    /// most 64 bytes.
    #[test]
    fn the_longest_request_fits_into_its_limit() {
        let start = "http://a/";
        let request = ProbeRequest {
            url: url(&format!("{start}{}", "\"".repeat(MAX_URL - start.len()))),
            contains: Some(format!("{}{}", "r".repeat(28 * 64), "\"".repeat(256))),
            exchange: Exchange {
                host: Some(Host::try_from("h".repeat(255)).unwrap()),
                headers: fields(&[&format!("X: {}", "\"".repeat(MAX_FIELDS_LENGTH - 3))]),
                statuses: Statuses::try_from(vec![599; MAX_STATUSES]).unwrap(),
            },
            time_limit: Duration::MAX,
            sandbox_required: false,
        };
        let line = message::encode(&request).unwrap();
        let decoded: Result<ProbeRequest, _> = message::decode(line.as_bytes(), MAX_REQUEST);
        let decoded = decoded.unwrap();
        assert_eq!(
            (decoded.url, decoded.contains, decoded.exchange),
            (request.url, request.contains, request.exchange)
        );
    }

    #[test]
    fn an_invalid_request_is_refused() {
        let good = "{\"url\":\"http://a/\",\"contains\":null,\"exchange\":{\"host\":null,\
                    \"headers\":[\"X: 1\"],\"statuses\":[200]},\"time_limit\":1,\
                    \"sandbox_required\":true}";
        let decode = |line: &str| message::decode::<ProbeRequest>(line.as_bytes(), MAX_REQUEST);
        assert!(decode(good).is_ok());
        for (old, new) in [
            ("http:", "https:"),
            ("null", "1"),
            ("\"host\":null", "\"host\":\"a b\""),
            ("X: 1", "X: 1\\r\\nY: 1"),
            ("X: 1", "Host: a"),
            ("[200]", "[]"),
            ("[200]", "[100]"),
            ("\"time_limit\":1", "\"time_limit\":-1"),
            ("\"time_limit\":1", "\"time_limit\":1,\"more\":1"),
            (",\"sandbox_required\":true", ""),
        ] {
            let bad = good.replacen(old, new, 1);
            assert!(decode(&bad).is_err(), "{bad}");
        }
    }
}
