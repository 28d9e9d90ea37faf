//! Messages between this program's own processes: one JSON value on one line.
//!
//! A parent and the child that it starts are the same program. Each message is
//! one serde type with `deny_unknown_fields`, so both sides share one
//! definition, and neither of them writes or reads a field by hand.

use std::io::{BufRead, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Code, Error, Result};

/// Returns `message` as one line of JSON, without a line feed.
///
/// # Errors
///
/// [`Code::Internal`]: no message of ours has a value that JSON cannot hold.
pub fn encode(message: &impl Serialize) -> Result<String> {
    serde_json::to_string(message)
        .map_err(|error| Error::new(Code::Internal, format!("cannot encode a message: {error}")))
}

/// Reads a message of at most `max` bytes.
///
/// # Errors
///
/// Returns why the bytes are not a message of this type, as a phrase. The phrase
/// can contain bytes of the message: escape it.
pub fn decode<T: DeserializeOwned>(line: &[u8], max: usize) -> Result<T, String> {
    if line.len() > max {
        return Err(format!("message has more than {max} bytes"));
    }
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// Reads one line of at most `max` bytes from a pipe, and decodes it. Reads no byte
/// after its line feed.
///
/// # Errors
///
/// Returns why there is no such message, as [`decode`] does.
pub fn read_message<T: DeserializeOwned>(from: &mut impl BufRead, max: usize) -> Result<T, String> {
    let mut line = Vec::new();
    from.take(max as u64 + 1)
        .read_until(b'\n', &mut line)
        .map_err(|error| error.to_string())?;
    match line.pop() {
        Some(b'\n') => decode(&line, max),
        Some(_) if line.len() >= max => Err(format!("message has more than {max} bytes")),
        _ => Err("message is cut short".to_owned()),
    }
}

/// Durations in whole milliseconds, for serde's `with`.
pub mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes `duration` as a number.
    ///
    /// # Errors
    ///
    /// The error of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// Reads a duration from a number.
    ///
    /// # Errors
    ///
    /// The error of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        number: u8,
        text: String,
    }

    #[test]
    fn a_message_is_one_line_and_reads_back() {
        let message = Example {
            number: 7,
            text: "a\n\"b\\".to_owned(),
        };
        let line = encode(&message).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(decode(line.as_bytes(), line.len()), Ok(message));
        let short = decode::<Example>(line.as_bytes(), line.len() - 1);
        assert!(short.unwrap_err().contains("bytes"));
    }

    #[test]
    fn one_line_is_read_from_a_pipe() {
        let line = b"{\"number\":1,\"text\":\"\"}\nrest";
        let max = line.len() - 5;
        fn read(mut from: &[u8], max: usize) -> (Result<u8, String>, &[u8]) {
            let read = read_message::<Example>(&mut from, max);
            (read.map(|message| message.number), from)
        }
        assert_eq!(read(line, max), (Ok(1), b"rest".as_slice()));
        let too_long = read(line, max - 1).0.unwrap_err();
        assert!(too_long.contains("more than"), "{too_long}");
        for cut in [0, 5, max] {
            let cut_short = read(&line[..cut], max + 1).0.unwrap_err();
            assert!(cut_short.contains("cut short"), "{cut_short}");
        }
    }

    #[test]
    fn unknown_missing_repeated_and_trailing_parts_are_refused() {
        for bad in [
            r#"{"number":1,"text":"","more":1}"#,
            r#"{"number":1}"#,
            r#"{"number":1,"number":1,"text":""}"#,
            r#"{"number":256,"text":""}"#,
            r#"{"number":1,"text":""}{}"#,
            "",
        ] {
            assert!(decode::<Example>(bad.as_bytes(), 100).is_err(), "{bad}");
        }
        assert!(decode::<Example>(b"{\"number\":1,\"text\":\"\xff\"}", 100).is_err());
    }
}
