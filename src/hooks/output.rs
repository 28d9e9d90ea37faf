//! What a command writes, made fit to be shown: lines of printable ASCII, not
//! too long, not too many, whatever it writes.

use super::protocol::MAX_TEXT;
use crate::escape;

/// The most lines of one command that are shown.
pub const MAX_LINES: usize = 200;

/// The most that is shown of one command, in bytes of its escaped lines.
const MAX_SHOWN: usize = 32 << 10;

/// Bytes of a command on their way to lines. It never keeps more than a line.
#[derive(Debug, Default)]
pub struct Output {
    /// The line that has not ended yet, as far as it could be shown.
    begun: Vec<u8>,
    /// How much of that line came beyond.
    beyond: u64,
    lines: usize,
    shown: usize,
    /// Bytes that were read and are in no line.
    dropped: u64,
}

impl Output {
    /// Takes in what was read; each line that is complete goes to `show`.
    pub fn take(&mut self, mut bytes: &[u8], show: &mut dyn FnMut(String)) {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..at]);
            self.end_line(show);
            bytes = &bytes[at + 1..];
        }
        self.extend(bytes);
    }

    /// Shows what is left: a line without an end, and how much was not shown.
    pub fn finish(mut self, show: &mut dyn FnMut(String)) {
        if !self.begun.is_empty() {
            self.end_line(show);
        }
        if self.dropped > 0 {
            show(format!("... {} more bytes not shown", self.dropped));
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        // One more than a line may have, so that the cut is marked.
        let room = (MAX_TEXT + 1).saturating_sub(self.begun.len());
        let (kept, over) = bytes.split_at(bytes.len().min(room));
        self.begun.extend_from_slice(kept);
        self.beyond += over.len() as u64;
    }

    fn end_line(&mut self, show: &mut dyn FnMut(String)) {
        let line = std::mem::take(&mut self.begun);
        let beyond = std::mem::take(&mut self.beyond);
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        let text = escape::truncate(&escape::escape(text), MAX_TEXT);
        if self.lines == MAX_LINES || self.shown + text.len() > MAX_SHOWN {
            // Nothing is shown behind a gap.
            self.lines = MAX_LINES;
            self.dropped += line.len() as u64 + beyond + 1;
            return;
        }
        self.dropped += beyond;
        self.lines += 1;
        self.shown += text.len();
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
            assert!(output.begun.capacity() <= 2 * (MAX_TEXT + 1));
        }
        output.finish(&mut |line| lines.push(line));
        lines
    }

    #[test]
    fn lines_are_put_together_and_escaped() {
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
        // All of it escaped, and still not longer.
        let lines = shown(&[&[0xff; 400][..], b"\n"]);
        assert!(lines[0].len() <= MAX_TEXT && lines[0].ends_with("\\xff..."));
    }

    #[test]
    fn there_are_not_too_many_lines_or_bytes() {
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
