//! An answer by HTTP/1 (RFC 9112), read and judged.
//!
//! The lines are read by `httparse`; how much is read, and until when, is
//! decided here.

use std::io::{Error, ErrorKind, Read};

use super::body::{Body, Flaw, Framing};
use super::{Seen, Verdict};
use crate::error;
use crate::escape;

/// The longest head of an answer, in bytes, those of interim answers included.
const MAX_HEAD: usize = 16 << 10;

/// The most header fields of an answer.
const MAX_FIELDS: usize = 64;

/// As much of a body as is looked at, in bytes.
const MAX_BODY: u64 = 1 << 20;

/// The same with its framing: chunks of one byte may each have a line of text.
const MAX_FRAMED: u64 = 4 << 20;

/// The parts of a head that matter.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
    /// Whether the body is compressed or the like.
    encoded: bool,
}

/// Reads an answer and judges it.
pub fn judge(from: &mut impl Read, contains: Option<&[u8]>) -> Seen {
    let mut read = Vec::new();
    let head = match head(from, &mut read) {
        Ok(head) => head,
        Err(seen) => return seen,
    };
    if head.status != 200 {
        return (status(head.status), format!("answers {}", head.status));
    }
    let Some(text) = contains else {
        return (Verdict::Passes, "answers 200".to_owned());
    };
    let shown = escape::escape(text);
    if head.encoded {
        let said = "the body is encoded, and was asked for as it is";
        return (Verdict::Never, said.to_owned());
    }
    let body = Body::new(read.as_slice().chain(from).take(MAX_FRAMED), head.framing);
    match find(body, text) {
        Ok(true) => (
            Verdict::Passes,
            format!("answers 200, and the body contains '{shown}'"),
        ),
        // The old process may be the one that answers.
        Ok(false) => (
            Verdict::NotYet,
            format!("answers 200, but the body does not contain '{shown}'"),
        ),
        Err(error) => match error.get_ref().and_then(|it| it.downcast_ref::<Flaw>()) {
            Some(flaw) => (Verdict::Never, format!("does not answer in HTTP: {flaw}")),
            None => broken(&error),
        },
    }
}

/// What a status other than 200 means for those who wait.
///
/// In doubt it may change: the process that answers may still be the old one,
/// or one that is not ready. To give up too early takes a good release back;
/// to wait too long costs the time that the operator has set.
fn status(status: u16) -> Verdict {
    match status {
        // A redirect is not followed, and what is there is not what was asked
        // for: the address in the site's file is not that of the service.
        300..=399 => Verdict::Never,
        // It wants credentials, and there are none to give; of a proxy: it
        // is not the service that answers.
        401 | 407 => Verdict::Never,
        // It does not take GET, or not by HTTP/1.1.
        405 | 426 | 501 | 505 => Verdict::Never,
        // 403 and 404 are what a web server says of a folder without an index
        // and of a file that is not there yet, 429 and 5xx pass by their
        // nature, and an application may use all others as it likes.
        _ => Verdict::NotYet,
    }
}

/// What it means that reading or writing failed.
pub fn broken(error: &Error) -> Seen {
    let said = match error.kind() {
        ErrorKind::TimedOut => "no answer, or no end of it, in time".to_owned(),
        ErrorKind::UnexpectedEof => "the answer breaks off".to_owned(),
        // A service that is being restarted drops its connections.
        _ => format!("the connection breaks off: {}", error::describe(error)),
    };
    (Verdict::NotYet, said)
}

/// Reads the head of the final answer; what was read behind it is left in
/// `read`.
fn head(from: &mut impl Read, read: &mut Vec<u8>) -> Result<Head, Seen> {
    let never = |why: &str| (Verdict::Never, format!("does not answer in HTTP: {why}"));
    let mut total = 0;
    let mut buffer = [0; 4096];
    // Ends: each turn reads, and what is read is bounded; or takes an interim
    // answer away.
    loop {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut answer = httparse::Response::new(&mut fields);
        match answer.parse(read) {
            Err(httparse::Error::TooManyHeaders) => return Err(never("too many fields")),
            Err(error) => return Err(never(&error.to_string())),
            Ok(httparse::Status::Complete(length)) => {
                let status = answer.code.unwrap_or_default();
                // 101 was not asked for, and what follows it is not HTTP.
                let interim = (100..=199).contains(&status) && status != 101;
                let head = Head::of(status, answer.headers).map_err(never)?;
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
                let said = "closes the connection without an answer";
                return Err((Verdict::NotYet, said.to_owned()));
            }
            Ok(0) => return Err(broken(&ErrorKind::UnexpectedEof.into())),
            Ok(more) => {
                read.extend_from_slice(&buffer[..more]);
                total += more;
            }
            Err(error) => return Err(broken(&error)),
        }
    }
}

impl Head {
    fn of(status: u16, fields: &[httparse::Header<'_>]) -> Result<Head, &'static str> {
        let of = |name: &'static str| {
            let named = move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
            fields
                .iter()
                .filter(named)
                .map(|field| field.value.trim_ascii())
        };
        // RFC 9112, 6.3: a transfer coding stands above a length.
        let mut codings = of("transfer-encoding");
        let framing = match (codings.next(), codings.next()) {
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            (Some(_), _) => return Err("a transfer coding that was not asked for"),
            (None, _) => {
                let mut lengths = of("content-length");
                match lengths.next() {
                    None => Framing::UntilClosed,
                    Some(first) if lengths.all(|other| other == first) => {
                        Framing::Length(length(first).ok_or("a content length that is none")?)
                    }
                    Some(_) => return Err("two content lengths"),
                }
            }
        };
        let encoded = of("content-encoding").any(|it| !it.eq_ignore_ascii_case(b"identity"));
        Ok(Head {
            status,
            framing,
            encoded,
        })
    }
}

/// Digits and nothing else, unlike what `parse` takes.
fn length(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

/// Whether `text` is in the body, as far as it is looked at.
fn find(body: impl Read, text: &[u8]) -> Result<bool, Error> {
    let mut body = body.take(MAX_BODY);
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
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
        // It may have begun: as much is kept as can be the beginning of it.
        seen.drain(..seen.len().saturating_sub(text.len() - 1));
    }
}

#[cfg(test)]
mod tests;
