//! Converts a command's output to lines of printable ASCII, with limits on
//! their length and number.

use super::protocol::MAX_TEXT;
use crate::escape;

/// The maximum number of lines shown of one command.
pub const MAX_LINES: usize = 200;

/// The maximum length of the lines shown of one command, in bytes, when escaped.
const MAX_SHOWN: usize = 32 << 10;

/// Splits a command's output into lines. It never keeps more than the beginning of
/// one line: at most `MAX_TEXT + 1` bytes.
#[derive(Debug, Default)]
pub struct Output {
    /// The beginning of the line that has not ended yet.
    line: Vec<u8>,
    /// The number of bytes of that line that are not kept.
    not_kept: u64,
    /// The number of lines shown.
    shown_lines: usize,
    /// The number of bytes of escaped lines shown.
    shown_bytes: usize,
    /// Whether a line was dropped. All later lines are dropped too.
    full: bool,
    /// About how many bytes of the output are in no shown line: it counts a line
    /// feed that an unfinished last line lacks, and the bytes that `truncate` cuts
    /// from a shown line are not in it.
    dropped: u64,
}

impl Output {
    /// Takes bytes of the output, and gives each complete line to `show`.
    pub fn take(&mut self, mut bytes: &[u8], show: &mut dyn FnMut(String)) {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..at]);
            self.end_line(show);
            bytes = &bytes[at + 1..];
        }
        self.extend(bytes);
    }

    /// Shows a last line without a line feed, and the number of bytes not shown.
    pub fn finish(mut self, show: &mut dyn FnMut(String)) {
        if !self.line.is_empty() {
            self.end_line(show);
        }
        if self.dropped > 0 {
            show(format!("... {} more bytes not shown", self.dropped));
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        // One byte more than a shown line has, so that `truncate` marks the cut.
        let room = (MAX_TEXT + 1).saturating_sub(self.line.len());
        let (kept, over) = bytes.split_at(bytes.len().min(room));
        self.line.extend_from_slice(kept);
        self.not_kept += over.len() as u64;
    }

    fn end_line(&mut self, show: &mut dyn FnMut(String)) {
        let line = std::mem::take(&mut self.line);
        let not_kept = std::mem::take(&mut self.not_kept);
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        let text = escape::escape_truncated(text, MAX_TEXT);
        self.full |= self.shown_lines == MAX_LINES || self.shown_bytes + text.len() > MAX_SHOWN;
        if self.full {
            self.dropped += line.len() as u64 + not_kept + 1;
            return;
        }
        self.dropped += not_kept;
        self.shown_lines += 1;
        self.shown_bytes += text.len();
        show(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut output = Output::default();
        for piece in pieces {
            output.take(piece, &mut |line| lines.push(line));
            assert!(output.line.capacity() <= 2 * (MAX_TEXT + 1));
        }
        output.finish(&mut |line| lines.push(line));
        lines
    }

    #[test]
    fn lines_are_joined_and_escaped() {
        let lines = shown(&[b"on", b"e\ntw", b"o\r\n\n\x1b[2J\0\xff", b"end"]);
        assert_eq!(lines, ["one", "two", "", "\\x1b[2J\\x00\\xffend"]);
        assert!(shown(&[]).is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_counted() {
        let chunk = [b'x'; 4096];
        let lines = shown(&[&chunk[..]; 256]);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].len() == MAX_TEXT && lines[0].ends_with("x..."));
        let rest = 256 * 4096 - (MAX_TEXT + 1);
        assert_eq!(lines[1], format!("... {rest} more bytes not shown"));
        // Escaping makes the line longer, and it is still cut.
        let lines = shown(&[&[0xff; 400][..], b"\n"]);
        assert!(lines[0].len() <= MAX_TEXT && lines[0].ends_with("\\xff..."));
    }

    #[test]
    fn the_number_of_lines_and_bytes_is_limited() {
        let lines = shown(&[&b"y\n".repeat(1000)[..]]);
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(lines[MAX_LINES], "... 1600 more bytes not shown");
        let line = [&[b'z'; 400][..], b"\n"].concat();
        let lines = shown(&[&line.repeat(150)[..], b"short\n"]);
        let bytes: usize = lines.iter().map(String::len).sum();
        assert!(bytes <= MAX_SHOWN + 100, "{bytes}");
        assert!(lines.last().unwrap().starts_with("... "));
        assert!(!lines.contains(&"short".to_owned()));
    }
}
