//! Bytes to printable ASCII, one way, for every line that leaves the process.
//!
//! Replies and audit lines carry names that a client or an archive chose. A
//! terminal must not be driven by them, and a log line must not be split or
//! forged by them, so escaping happens here, in the sinks, where no call site
//! can forget it.

use std::borrow::Cow;
use std::fmt::Write;

/// `bytes` with everything but printable ASCII written as `\xNN`.
///
/// A backslash is doubled, so that two different inputs never print alike.
pub fn line(bytes: &[u8]) -> String {
    escaped(bytes, b"\\")
}

/// `text` as it is if it is printable ASCII, and escaped if not: for text that
/// may have been escaped already, where a second time would not be the same.
pub fn printable(text: &[u8]) -> Cow<'_, str> {
    // To the end of it and not to the first that is not: so it is quick.
    let plain = |plain, byte: &u8| plain & matches!(byte, b' '..=b'~');
    match std::str::from_utf8(text) {
        Ok(plain_text) if text.iter().fold(true, plain) => plain_text.into(),
        _ => line(text).into(),
    }
}

/// Like [`line`], and safe between double quotes as well (`"` becomes `\"`).
pub fn quoted(bytes: &[u8]) -> String {
    escaped(bytes, b"\\\"")
}

fn escaped(bytes: &[u8], backslashed: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            _ if backslashed.contains(&byte) => {
                out.push('\\');
                out.push(byte as char);
            }
            b' '..=b'~' => out.push(byte as char),
            // Writing to a String cannot fail.
            _ => _ = write!(out, "\\x{byte:02x}"),
        }
    }
    out
}

/// The longest prefix of `text` (printable ASCII) of at most `max` bytes that
/// does not end inside an escape; `...` marks a cut.
pub fn bounded(text: &str, max: usize) -> String {
    debug_assert!(text.is_ascii());
    if text.len() <= max {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let room = max.saturating_sub(3);
    let (mut end, mut at) = (0, 0);
    while at < room {
        at += match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'x')) => 4,
            (b'\\', _) => 2,
            _ => 1,
        };
        if at <= room {
            end = at;
        }
    }
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_and_utf8_become_hex() {
        assert_eq!(line(b"a\n\x1b[31m\xc3\xa9"), "a\\x0a\\x1b[31m\\xc3\\xa9");
        assert_eq!(line(b"a\\x0a"), "a\\\\x0a");
        assert_eq!(quoted(b"k=\"v\""), "k=\\\"v\\\"");
    }

    #[test]
    fn a_cut_never_splits_an_escape() {
        let text = quoted(b"\n\"\\abc");
        for max in 0..text.len() + 2 {
            let cut = bounded(&text, max);
            assert!(cut.len() <= max.max(3), "{cut}");
            let body = cut.strip_suffix("...").unwrap_or(&cut);
            assert!(text.starts_with(body));
            assert!(!body.ends_with("\\x") && !body.ends_with("\\x0"));
        }
    }
}
