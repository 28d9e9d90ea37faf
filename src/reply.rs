//! The only module that writes to the client, on stdout and stderr.
//!
//! Every line is escaped to printable ASCII here. A closed pipe is ignored: the
//! request has been decided, done and logged before the reply is written. (Rust
//! ignores SIGPIPE at start, so a write fails instead of killing the process.)

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;
use crate::escape;
use crate::event::Progress;

/// The longest line of stderr, in bytes; a longer one is cut and marked. Lines
/// of stdout are never cut: their parts are bounded, and half of a JSON document
/// would be useless.
const MAX_LINE: usize = 8192;

/// The longest progress line, in bytes. A pipe that poll(2) reports writable has
/// room for PIPE_BUF bytes (pipe(7)), so such a line never blocks.
const MAX_NOTE: usize = 4000;

/// How long a client may delay all progress lines together, in milliseconds.
const MAX_DELAY: u16 = 1000;

/// How long a client may delay a reply, in milliseconds. The request is done then, and the
/// lock is free, but a process must not wait without limit for a client that reads nothing. sshd
/// and the kernel buffer the reply, so only that client reaches the limit. A list of 1,000
/// releases has 200 KB, which 160 kbit/s carry in this time.
const MAX_REPLY_DELAY: u16 = 10_000;

/// The number of bytes of a [`LongReply`] that are gathered before they are written.
const LONG_PIECE: usize = 16 * MAX_NOTE;

/// How much of [`MAX_REPLY_DELAY`] is left.
static REPLY_DELAY_LEFT: AtomicU16 = AtomicU16::new(MAX_REPLY_DELAY);

/// How much of [`MAX_DELAY`] is left.
static DELAY_LEFT: AtomicU16 = AtomicU16::new(MAX_DELAY);

/// Writes lines to stdout. Returns whether all of them were written in time; a client that
/// has closed its end counts as if they were.
pub fn lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> bool {
    write_in_time(&mut std::io::stdout().lock(), &text(lines))
}

/// Returns lines as they are written: each escaped where necessary, and ended.
pub fn text<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for line in lines {
        push(&mut out, line, usize::MAX);
    }
    out
}

/// A long reply on stdout, written piece by piece.
#[derive(Debug, Default)]
pub struct LongReply {
    out: String,
}

/// Why a long reply ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The client has closed its end.
    Closed,
    /// The client has read nothing for [`MAX_REPLY_DELAY`].
    TooSlow,
}

impl LongReply {
    /// Adds a line.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: no further line reaches the client.
    pub fn line(&mut self, line: &str) -> std::result::Result<(), Stopped> {
        push(&mut self.out, line, usize::MAX);
        if self.out.len() < LONG_PIECE {
            return Ok(());
        }
        self.flush()
    }

    /// Writes what is left.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub fn flush(&mut self) -> std::result::Result<(), Stopped> {
        let stdout = &mut std::io::stdout().lock();
        for piece in self.out.as_bytes().chunks(MAX_NOTE) {
            // A list of thousands of files takes as long as the line of the client needs.
            // So each piece has its own limit, and the caller limits the whole.
            if !has_room(stdout, &AtomicU16::new(MAX_REPLY_DELAY)) {
                return Err(Stopped::TooSlow);
            }
            let written = stdout.write_all(piece).and_then(|()| stdout.flush());
            written.map_err(|_| Stopped::Closed)?;
        }
        self.out.clear();
        Ok(())
    }
}

/// Writes an error to stderr, the problem and then the remedy, and returns its
/// exit status.
pub fn exit(error: &Error) -> u8 {
    let (name, exit) = error.code.parts();
    let mut out = String::new();
    push(
        &mut out,
        &format!("deploy-shell: {name}: {}", error.problem),
        MAX_LINE,
    );
    if let Some(remedy) = &error.remedy {
        push(&mut out, remedy, MAX_LINE);
    }
    write_stderr(&out);
    exit
}

/// Writes an error to stdout in scp's own protocol: a byte 0x01 and a line (scp.c of
/// OpenSSH, `run_err`). scp, pscp and curl show it and fail. Without it, curl takes the
/// silence for a success. This is the one failure with something on stdout.
pub fn scp_error(error: &Error) {
    let mut out = String::from("\x01");
    let line = format!("deploy-shell: {}: {}", error.code.name(), error.problem);
    push(&mut out, &line, MAX_LINE);
    write_in_time(&mut std::io::stdout().lock(), &out);
}

/// Writes a line to stderr that does not report an error. `word` names its
/// source and is never a code word.
fn note(word: &str, text: &str) {
    // The site is locked meanwhile, and an unconfirmed release may be live. A
    // client that does not read must not prolong that: once it has used up its
    // time, it gets no more progress lines.
    if !stderr_has_room() {
        return;
    }
    let mut out = String::new();
    push(&mut out, &format!("deploy-shell: {word}: {text}"), MAX_NOTE);
    write_stderr(&out);
}

/// Waits until stderr takes a line, at most for the time that the client has
/// left. A closed stderr counts as ready: the write fails at once.
fn stderr_has_room() -> bool {
    has_room(&std::io::stderr(), &DELAY_LEFT)
}

/// Waits until `to` takes a line, at most for the `left` milliseconds, and subtracts the
/// wait from them.
fn has_room(to: &impl AsFd, left: &AtomicU16) -> bool {
    let milliseconds = left.load(Ordering::Relaxed);
    let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    let begun = Instant::now();
    let room = poll(&mut fds, PollTimeout::from(milliseconds)) != Ok(0);
    let waited = u16::try_from(begun.elapsed().as_millis()).unwrap_or(u16::MAX);
    left.store(milliseconds.saturating_sub(waited), Ordering::Relaxed);
    room
}

/// Writes a reply in pieces that do not block, and gives up when the client has used up its
/// time. Returns false then. Not by `O_NONBLOCK`: other processes share the descriptor of a
/// terminal, and would get the flag.
fn write_in_time(to: &mut (impl Write + AsFd), out: &str) -> bool {
    for piece in out.as_bytes().chunks(MAX_NOTE) {
        if !has_room(to, &REPLY_DELAY_LEFT) {
            return false;
        }
        if to.write_all(piece).and_then(|()| to.flush()).is_err() {
            return true;
        }
    }
    true
}

/// Writes a warning to stderr: a problem that does not change the result.
pub fn warning(text: &str) {
    note("warning", text);
}

/// Writes the progress of a running request to stderr.
pub fn report(progress: &Progress<'_>) {
    match progress {
        Progress::Output { step, line } if step.is_hook() => {
            note("hook", &format!("{step}: {line}"));
        }
        Progress::Output { step, line } => note(&step.to_string(), line),
        Progress::Waiting {
            step,
            seen,
            waited,
            within,
        } => {
            let (waited, within) = (waited.as_secs(), within.as_secs());
            let text = format!("not yet, after {waited} of {within} s: {seen}");
            note(&step.to_string(), &text);
        }
        Progress::Warning(text) => warning(text),
    }
}

/// Returns whether stderr is a terminal.
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Replaces the last line of a terminal's stderr by `text`.
pub fn replace_line(text: &str) {
    let text = escape::escape_if_needed(text.as_bytes());
    // To the start of the line, and clear to its end (ECMA-48, EL).
    _ = write!(std::io::stderr(), "\r\x1b[K{text}");
}

fn write_stderr(out: &str) {
    write_in_time(&mut std::io::stderr().lock(), out);
}

fn push(out: &mut String, line: &str, max: usize) {
    // Names in error messages are often escaped already.
    let line = escape::escape_if_needed(line.as_bytes());
    if line.len() <= max {
        out.push_str(&line);
    } else {
        out.push_str(&escape::truncate(&line, max));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::push;

    #[test]
    fn every_line_is_one_printable_line() {
        let mut out = String::new();
        push(&mut out, "a\nb\x1b]0;x\x07\u{e9}", 100);
        assert_eq!(out, "a\\x0ab\\x1b]0;x\\x07\\xc3\\xa9\n");
        out.clear();
        push(&mut out, "already \\x0a escaped", 100);
        assert_eq!(out, "already \\x0a escaped\n");
    }

    #[test]
    fn a_long_line_is_cut() {
        let mut out = String::new();
        push(&mut out, &"x".repeat(100_000), super::MAX_LINE);
        assert_eq!(out.len(), super::MAX_LINE + 1);
        assert!(out.ends_with("...\n"));
    }
}
