//! Reads the journal's bytes: whole records, a torn end, or a reason to refuse.
//!
//! Three cases are kept apart, because a mistake loses history:
//!
//! - A crash tears the last line: it has no line feed, or it is not JSON. No client
//!   has a reply about it, so it is dropped.
//! - A newer version of this program wrote a line. Nothing is dropped; the
//!   request is refused and says what is unknown.
//! - Anything else is damage. Nothing is dropped; the request is refused and says
//!   the line.

use std::fmt;
use std::io::BufRead;

use serde::Deserialize;
use serde_json::Value;

use super::{Entry, Event, How, Record};
use crate::escape;
use crate::store::history::History;

/// The newest format that this program reads, and the one that it writes. A
/// journal begins in format 1. The line `{"format":N}` says that the lines after
/// it are of format N; a newer version writes one before its first new event,
/// field or meaning. Format 2 has the event `earned`.
pub const FORMAT: u64 = 2;

/// No journal has so many records; larger numbers would overflow.
const MAX_SEQ: u64 = u64::MAX >> 1;

/// The beginning of a format line.
pub const FORMAT_LINE: &str = "{\"format\":";

/// The beginning of a checkpoint.
pub const CHECKPOINT: &str = "{\"checkpoint\":";

/// The whole lines of a journal.
#[derive(Debug, PartialEq, Eq)]
pub struct Extent {
    /// The number of the last record; 0 if there is none.
    pub last_seq: u64,
    /// The format of the next line.
    pub format: u64,
    /// Bytes.
    pub len: usize,
}

/// Why a journal cannot be read. Lines count from 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A newer version of this program wrote the line; `what` is unknown here.
    Newer { line: usize, what: String },
    /// No version of this program wrote the line.
    Damaged { line: usize, why: &'static str },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Newer { line, what } => write!(
                f,
                "the journal is of a newer version of deploy-shell: line {line} has {what}"
            ),
            Unreadable::Damaged { line, why } => {
                write!(f, "the journal is damaged: line {line} {why}")
            }
        }
    }
}

/// Passes each entry of the journal `bytes` to `each`.
///
/// # Errors
///
/// [`Unreadable`]; the entries before it were passed on.
pub fn read_entries(bytes: &[u8], mut each: impl FnMut(Entry<'_>)) -> Result<Extent, Unreadable> {
    let mut extent = Extent {
        last_seq: 0,
        format: 1,
        len: 0,
    };
    let mut line = 0;
    // Terminates: every turn takes a line.
    while extent.len < bytes.len() {
        let rest = &bytes[extent.len..];
        // skip_until() for its search, which is fast.
        let until = BufRead::skip_until(&mut &*rest, b'\n').unwrap_or(0);
        let [text @ .., b'\n'] = &rest[..until] else {
            line += 1;
            // A checkpoint is complete before its file becomes the journal.
            if rest.starts_with(CHECKPOINT.as_bytes()) {
                let why = "is a part of a checkpoint";
                return Err(Unreadable::Damaged { line, why });
            }
            break;
        };
        line += 1;
        match read_line(text) {
            Ok(Line::Record(record)) if record.seq == extent.last_seq + 1 => {
                each(Entry::Record(&record));
                extent.last_seq = record.seq;
            }
            Ok(Line::Record(_)) => {
                let why = "does not have the next sequence number";
                return Err(Unreadable::Damaged { line, why });
            }
            Ok(Line::Format(format)) => {
                each(Entry::Format(format));
                extent.format = format;
            }
            Ok(Line::Checkpoint(history)) if history.generation > MAX_SEQ => {
                let why = "has a number that no journal reaches";
                return Err(Unreadable::Damaged { line, why });
            }
            Ok(Line::Checkpoint(history)) if extent.last_seq == 0 => {
                each(Entry::Checkpoint(&history));
                extent.last_seq = history.generation;
            }
            Ok(Line::Checkpoint(_)) => {
                let why = "is a checkpoint that follows a record";
                return Err(Unreadable::Damaged { line, why });
            }
            Err(Flaw::NotACheckpoint) => {
                let why = "is not a checkpoint";
                return Err(Unreadable::Damaged { line, why });
            }
            Err(Flaw::NotJson) if until == rest.len() => break,
            Err(Flaw::NotJson) => {
                let why = "is not JSON";
                return Err(Unreadable::Damaged { line, why });
            }
            Err(Flaw::NotARecord) => {
                let why = "is not a record";
                return Err(Unreadable::Damaged { line, why });
            }
            Err(Flaw::Newer(what)) => return Err(Unreadable::Newer { line, what }),
        }
        extent.len += until;
    }
    Ok(extent)
}

enum Line {
    Record(Box<Record>),
    /// A format that this program reads.
    Format(u64),
    Checkpoint(Box<History>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointLine {
    checkpoint: Box<History>,
}

enum Flaw {
    NotJson,
    NotARecord,
    NotACheckpoint,
    Newer(String),
}

fn read_line(text: &[u8]) -> Result<Line, Flaw> {
    if text.starts_with(CHECKPOINT.as_bytes()) {
        // An unknown field is damage: a newer version says its format in a line before.
        return serde_json::from_slice(text)
            .map(|CheckpointLine { checkpoint }| Line::Checkpoint(checkpoint))
            .map_err(|_| Flaw::NotACheckpoint);
    }
    let text = std::str::from_utf8(text).map_err(|_| Flaw::NotJson)?;
    match serde_json::from_str(text) {
        Ok(record) => Ok(Line::Record(record)),
        Err(_) => classify(text),
    }
}

/// Says what a line is that is not a record of this version.
fn classify(text: &str) -> Result<Line, Flaw> {
    let line = serde_json::from_str(text).map_err(|_| Flaw::NotJson)?;
    let Value::Object(fields) = line else {
        return Err(Flaw::NotARecord);
    };
    if let Some(format) = fields.get("format") {
        return match format.as_u64() {
            Some(newer) if newer > FORMAT => {
                let known = format!("this version reads up to format {FORMAT}");
                Err(Flaw::Newer(format!("format {newer}, and {known}")))
            }
            Some(format @ 1..) if fields.len() == 1 => Ok(Line::Format(format)),
            _ => Err(Flaw::NotARecord),
        };
    }
    let unknown = |name: &str, text: &str| {
        let text = escape::escape_truncated(text.as_bytes(), 80);
        Err(Flaw::Newer(format!("the {name} '{text}'")))
    };
    match fields.get("event") {
        Some(Value::String(event)) if Event::deserialize(&fields["event"]).is_err() => {
            return unknown("event", event);
        }
        Some(Value::String(_)) => {}
        _ => return Err(Flaw::NotARecord),
    }
    if let Some(field) = fields
        .keys()
        .find(|key| !Record::FIELDS.contains(&key.as_str()))
    {
        return unknown("field", field);
    }
    match fields.get("how") {
        Some(Value::String(how)) if How::deserialize(&fields["how"]).is_err() => {
            unknown("value of 'how'", how)
        }
        _ => Err(Flaw::NotARecord),
    }
}
