//! Reads and judges an HTTP/1 response (RFC 9112).
//!
//! `httparse` parses the head. This module limits how much is read, and decides
//! where the body ends.

use std::io::{Error, ErrorKind, Read};

use super::body::{Body, Framing, FramingError};
use super::{Judgement, Verdict};
use crate::error;
use crate::escape;
use crate::http_values::Statuses;

/// The maximum length of a head, in bytes, with those of interim responses.
const MAX_HEAD: usize = 16 << 10;

/// The maximum number of header fields in a head.
const MAX_FIELDS: usize = 64;

/// The maximum number of bytes of a body that are searched.
const MAX_BODY: u64 = 1 << 20;

/// The same with the framing: a chunk of one byte can have a long line.
const MAX_FRAMED: u64 = 4 << 20;

/// The parts of a head that the probe uses.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
    /// Whether the body has a content coding, such as gzip.
    encoded: bool,
}

/// Reads and judges a response: its status must be one of `statuses`, and its body must
/// contain the text.
pub fn judge_response(
    from: &mut impl Read,
    statuses: &Statuses,
    contains: Option<&[u8]>,
) -> Judgement {
    let mut read = Vec::new();
    let head = match read_head(from, &mut read) {
        Ok(head) => head,
        Err(judgement) => return judgement,
    };
    let answers = format!("answers {}", head.status);
    if !statuses.accept(head.status) {
        return (judge_status(head.status), answers);
    }
    let Some(text) = contains else {
        return (Verdict::Passes, answers);
    };
    let shown = escape::escape(text);
    if head.encoded {
        let detail = "the body is encoded, though the request allows no encoding";
        return (Verdict::Never, detail.to_owned());
    }
    let body = Body::new(read.as_slice().chain(from).take(MAX_FRAMED), head.framing);
    match body_contains(body, text) {
        Ok(true) => (
            Verdict::Passes,
            format!("{answers}, and the body contains '{shown}'"),
        ),
        // The process of the previous release may have answered.
        Ok(false) => (
            Verdict::NotYet,
            format!("{answers}, but the body does not contain '{shown}'"),
        ),
        Err(error) => match error
            .get_ref()
            .and_then(|it| it.downcast_ref::<FramingError>())
        {
            Some(error) => (Verdict::Never, format!("does not answer in HTTP: {error}")),
            None => connection_failed(&error),
        },
    }
}

/// Judges a status that is not accepted.
///
/// In doubt, the status may change: the process of the previous release may have
/// answered, or the new one is not ready. Giving up too early rolls a good
/// release back. Waiting too long costs at most the operator's timeout.
fn judge_status(status: u16) -> Verdict {
    match status {
        // The probe follows no redirect: the configured address is not that of the
        // service.
        300..=399 => Verdict::Never,
        // The service or a proxy wants credentials, and the probe has none.
        401 | 407 => Verdict::Never,
        // The service does not accept GET, or not by HTTP/1.1.
        405 | 426 | 501 | 505 => Verdict::Never,
        // A web server answers 403 or 404 for a file that is not there yet. 429
        // and 5xx are temporary. An application may use all others as it likes.
        _ => Verdict::NotYet,
    }
}

/// Judges a failure to read or write.
pub fn connection_failed(error: &Error) -> Judgement {
    let detail = match error.kind() {
        ErrorKind::TimedOut => "no answer, or no end of it, in time".to_owned(),
        ErrorKind::UnexpectedEof => "the answer breaks off".to_owned(),
        // A service that restarts drops its connections.
        _ => format!("the connection breaks off: {}", error::describe(error)),
    };
    (Verdict::NotYet, detail)
}

/// Reads the head of the final response. Leaves the bytes that were read after
/// the head in `read`.
fn read_head(from: &mut impl Read, read: &mut Vec<u8>) -> Result<Head, Judgement> {
    let never = |why: &str| (Verdict::Never, format!("does not answer in HTTP: {why}"));
    let mut total = 0;
    let mut buffer = [0; 4096];
    // Terminates: each turn reads bytes, whose number is limited, or removes an
    // interim response from them.
    loop {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(read) {
            Err(httparse::Error::TooManyHeaders) => return Err(never("too many fields")),
            Err(error) => return Err(never(&error.to_string())),
            Ok(httparse::Status::Complete(length)) => {
                let status = response.code.unwrap_or_default();
                // 101 is final here: what follows it is not HTTP.
                let interim = (100..=199).contains(&status) && status != 101;
                let head = Head::new(status, response.headers).map_err(never)?;
                read.drain(..length);
                if !interim {
                    return Ok(head);
                }
                continue;
            }
            Ok(httparse::Status::Partial) => {}
        }
        if total >= MAX_HEAD {
            return Err(never("its head is too long"));
        }
        let room = buffer.len().min(MAX_HEAD - total);
        match from.read(&mut buffer[..room]) {
            Ok(0) if total == 0 => {
                let detail = "closes the connection without an answer";
                return Err((Verdict::NotYet, detail.to_owned()));
            }
            Ok(0) => return Err(connection_failed(&ErrorKind::UnexpectedEof.into())),
            Ok(more) => {
                read.extend_from_slice(&buffer[..more]);
                total += more;
            }
            Err(error) => return Err(connection_failed(&error)),
        }
    }
}

impl Head {
    fn new(status: u16, fields: &[httparse::Header<'_>]) -> Result<Head, &'static str> {
        let values = |name: &'static str| {
            let named = move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
            fields
                .iter()
                .filter(named)
                .map(|field| field.value.trim_ascii())
        };
        // RFC 9112, section 6.3: a 204 and a 304 have no body. A transfer coding overrides
        // a content length.
        let mut codings = values("transfer-encoding");
        let framing = match (codings.next(), codings.next()) {
            _ if matches!(status, 204 | 304) => Framing::Length(0),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            (Some(_), _) => return Err("a transfer coding that was not requested"),
            (None, _) => {
                let mut lengths = values("content-length");
                match lengths.next() {
                    None => Framing::UntilClosed,
                    Some(first) if lengths.all(|other| other == first) => {
                        Framing::Length(parse_length(first).ok_or("a content length that is none")?)
                    }
                    Some(_) => return Err("two content lengths"),
                }
            }
        };
        let encoded = values("content-encoding").any(|it| !it.eq_ignore_ascii_case(b"identity"));
        Ok(Head {
            status,
            framing,
            encoded,
        })
    }
}

/// Parses digits only; `str::parse` also accepts a sign.
fn parse_length(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

/// Returns whether `text` is in the first [`MAX_BODY`] bytes of the body.
fn body_contains(body: impl Read, text: &[u8]) -> Result<bool, Error> {
    let mut body = body.take(MAX_BODY);
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    // Terminates: the body is cut at its maximum.
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        seen.extend_from_slice(&buffer[..read]);
        if seen.windows(text.len()).any(|part| part == text) {
            return Ok(true);
        }
        // Keep the bytes that can be the beginning of the text.
        seen.drain(..seen.len().saturating_sub(text.len() - 1));
    }
}

#[cfg(test)]
mod tests;
