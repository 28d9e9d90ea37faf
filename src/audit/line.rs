//! One line of the audit log: `key="value"` pairs, escaped and bounded.

use std::fmt::{Display, Write};

use crate::escape;

/// The maximum length of the pairs, in bytes. The syslog header has the rest of
/// 1 KiB.
const MAX_TEXT: usize = 880;

/// The maximum length of a value with no other limit, in bytes.
const MAX_VALUE: usize = 200;

/// The room for the pair `dropped` in a line that is full, in bytes.
const MAX_DROPPED: usize = 110;

/// A longer value may be cut to what fits. An id, a fingerprint or a number is never
/// cut.
const NEVER_CUT: usize = 64;

/// The shortest piece to which a value is cut.
const SHORTEST_PIECE: usize = 40;

/// The pairs of one line, the most important first. In a line that is full, a long value
/// is cut, which `...` marks, and the pair `dropped` names the pairs that are left out.
#[derive(Debug, Default)]
pub struct Line(Vec<(&'static str, String)>);

impl Line {
    pub fn pair(&mut self, key: &'static str, value: impl Display) {
        self.bytes(key, value.to_string().as_bytes(), MAX_VALUE);
    }

    pub fn optional(&mut self, key: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.pair(key, value);
        }
    }

    /// Adds the end of `value`, which is printable ASCII, of at most `max` bytes and of
    /// what fits. A program that fails usually writes the reason last.
    pub fn tail(&mut self, key: &'static str, value: &str, max: usize) {
        let room = MAX_TEXT.saturating_sub(self.length() + key.len() + " =\"\"".len());
        let max = max.min(room);
        let mut from = value.len().saturating_sub(max);
        // Terminates: each turn drops at least one byte. Escaping at most
        // doubles a byte, so dropping half of the surplus never drops too much.
        loop {
            let length = escape::escape_quoted(&value.as_bytes()[from..]).len();
            match length.checked_sub(max) {
                None | Some(0) => break,
                Some(over) => from += over.div_ceil(2),
            }
        }
        self.bytes(key, &value.as_bytes()[from..], max);
    }

    /// Adds a value of at most `max` bytes as they appear in the line.
    pub fn bytes(&mut self, key: &'static str, value: &[u8], max: usize) {
        // Escaping never shortens, so only the first `max` bytes can appear.
        // Escape one more than that, so that a longer value is marked as cut.
        let escaped = escape::escape_quoted(&value[..value.len().min(max + 1)]);
        self.0.push((key, escape::truncate(&escaped, max)));
    }

    fn length(&self) -> usize {
        let lengths = self.0.iter().map(|(key, value)| length(key, value));
        lengths.sum::<usize>().saturating_sub(1)
    }

    /// Returns the text, of at most [`MAX_TEXT`] bytes.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |key: &str, value: &str| {
            let gap = if text.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            _ = write!(text, "{gap}{key}=\"{value}\"");
            text.len()
        };
        if self.length() <= MAX_TEXT {
            for (key, value) in &self.0 {
                add(key, value);
            }
            return text;
        }
        let (mut used, mut dropped) = (0, Vec::new());
        for (key, value) in &self.0 {
            let room = (MAX_TEXT - MAX_DROPPED).saturating_sub(used + length(key, ""));
            if value.len() <= room {
                used = add(key, value);
            } else if value.len() > NEVER_CUT && room >= SHORTEST_PIECE {
                used = add(key, &escape::truncate(value, room));
            } else {
                dropped.push(*key);
            }
        }
        if !dropped.is_empty() {
            let names = dropped.join(",");
            add(
                "dropped",
                &escape::truncate(&names, MAX_DROPPED - length("dropped", "")),
            );
        }
        text
    }
}

/// Returns the length of a pair in a line, with the space before it.
fn length(key: &str, value: &str) -> usize {
    " =\"\"".len() + key.len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_end_itself_or_the_line() {
        let mut line = Line::default();
        line.bytes("request", b"x\" decision=\"allowed\"\n<86>1 forged \\", 200);
        assert_eq!(
            line.text(),
            r#"request="x\" decision=\"allowed\"\x0a<86>1 forged \\""#
        );
    }

    #[test]
    fn a_long_output_keeps_its_end() {
        for start in ["x".repeat(500), "\"\\".repeat(250), String::new()] {
            for before in [0, 4] {
                let mut line = Line::default();
                for key in &["a", "b", "c", "d"][..before] {
                    line.pair(key, "y".repeat(200));
                }
                line.tail("output", &format!("{start} | the end"), 100);
                let text = line.text();
                assert!(text.ends_with(" | the end\""), "{text}");
                assert!(text.len() <= MAX_TEXT, "{text}");
                let output = text.split_once("output=").unwrap().1;
                assert!(output.len() <= "\"\"".len() + 100, "{text}");
                assert!(output.len() >= 45.min(start.len()), "{text}");
            }
        }
    }

    #[test]
    fn a_full_line_names_what_it_lacks() {
        let mut line = Line::default();
        line.pair("event", "result");
        line.pair("site", "s".repeat(64));
        line.pair("key", "k".repeat(64));
        line.pair("release", "r".repeat(64));
        line.bytes("problem", &[0xff; 300], 200);
        line.bytes("request", &[0xff; 5000], 360);
        line.pair("fingerprint", "f".repeat(50));
        line.pair("client", "c".repeat(45));
        line.pair("payload", u64::MAX);
        line.pair("warning", "w".repeat(200));
        let text = line.text();
        assert!(text.len() <= MAX_TEXT, "{}: {text}", text.len());
        // A release is never cut.
        assert!(text.contains(&format!("release=\"{}\"", "r".repeat(64))));
        // The request is cut inside of no escape.
        let request = text.split_once("request=\"").unwrap().1;
        let request = request.split_once('"').unwrap().0;
        assert!(request.ends_with("xff...") && request.len() > 100, "{text}");
        assert!(
            text.ends_with(" dropped=\"fingerprint,client,payload,warning\""),
            "{text}"
        );
    }

    #[test]
    fn a_line_that_fits_is_whole() {
        let mut line = Line::default();
        line.pair("a", "x".repeat(200));
        line.bytes("b", &[b'y'; 500], 500);
        line.bytes(
            "c",
            &[b'z'; 200],
            MAX_TEXT - 200 - 500 - "a=\"\" b=\"\" c=\"\"".len(),
        );
        let text = line.text();
        assert_eq!((text.len(), text.contains("dropped")), (MAX_TEXT, false));
        line.pair("d", 1);
        assert!(line.text().contains("dropped"), "{}", line.text());
    }

    /// The names of all pairs fit into `dropped`.
    #[test]
    fn the_names_of_dropped_pairs_fit() {
        let names = "fingerprint,client,ms,payload,bytes,files,sandbox,commit,unpacker,signed_by,key_id,serial,warning";
        assert!(length("dropped", names) <= MAX_DROPPED, "{}", names.len());
    }
}
