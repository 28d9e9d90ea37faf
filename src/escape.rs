//! Converts bytes to printable ASCII, in one way, for every line that leaves
//! the process.
//!
//! Replies and audit lines contain names that a client or an archive chose.
//! Such a name must not control a terminal, and must not split or forge a log
//! line. The functions that write lines call this module, so no caller can
//! forget to escape.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns `bytes` with everything except printable ASCII written as `\xNN`.
///
/// A backslash is doubled, so that two different inputs never print alike.
pub fn escape(bytes: &[u8]) -> String {
    escape_with(bytes, b"\\")
}

/// Returns `text` with everything except printable ASCII written as `\xNN`.
///
/// Use it for text that may be escaped already, or has a quoted word of a command: a
/// backslash stays as it is, because a second one would change either.
pub fn escape_if_needed(text: &[u8]) -> Cow<'_, str> {
    // Reads to the end instead of stopping early: the compiler vectorizes that.
    let printable = |so_far, byte: &u8| so_far & matches!(byte, b' '..=b'~');
    match std::str::from_utf8(text) {
        Ok(unchanged) if text.iter().fold(true, printable) => unchanged.into(),
        _ => escape_with(text, b"").into(),
    }
}

/// Escapes like [`escape`], and cuts the result like [`truncate`].
pub fn escape_truncated(bytes: &[u8], max: usize) -> String {
    truncate(&escape(bytes), max)
}

/// Escapes like [`escape_if_needed`], and cuts the result like [`truncate`].
pub fn escape_if_needed_truncated(text: &[u8], max: usize) -> String {
    truncate(&escape_if_needed(text), max)
}

/// Escapes like [`escape`], and `"` as `\"`, so that the result can be placed
/// between double quotes.
pub fn escape_quoted(bytes: &[u8]) -> String {
    escape_with(bytes, b"\\\"")
}

fn escape_with(bytes: &[u8], backslashed: &[u8]) -> String {
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

/// Returns the longest prefix of `text` (printable ASCII) of at most `max`
/// bytes that does not end inside an escape; `...` marks a cut.
pub fn truncate(text: &str, max: usize) -> String {
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
        assert_eq!(escape(b"a\n\x1b[31m\xc3\xa9"), "a\\x0a\\x1b[31m\\xc3\\xa9");
        assert_eq!(escape(b"a\\x0a"), "a\\\\x0a");
        assert_eq!(escape_quoted(b"k=\"v\""), "k=\\\"v\\\"");
    }

    #[test]
    fn truncating_never_splits_an_escape() {
        let text = escape_quoted(b"\n\"\\abc");
        for max in 0..text.len() + 2 {
            let cut = truncate(&text, max);
            assert!(cut.len() <= max.max(3), "{cut}");
            let body = cut.strip_suffix("...").unwrap_or(&cut);
            assert!(text.starts_with(body));
            assert!(!body.ends_with("\\x") && !body.ends_with("\\x0"));
        }
    }
}
