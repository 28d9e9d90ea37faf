//! The only writer of stdout and stderr.
//!
//! Every line is escaped to printable ASCII here, in the sink. A client that
//! has gone is no error: what was decided has been done and audited by the
//! time a reply is written, so a closed pipe is ignored (Rust ignores SIGPIPE
//! at start, so a write fails instead of killing us).

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;
use crate::escape;
use crate::event::Told;

/// The longest line of stderr, in bytes; a longer one is cut and marked. Lines
/// of stdout are not: they are made of bounded parts, and half of a JSON
/// document is none.
const MAX_LINE: usize = 8192;

/// The longest line of what is told on the way, in bytes: a pipe that has any
/// room has room for so much (pipe(7), PIPE_BUF).
const MAX_NOTE: usize = 4000;

/// How long a client may keep such lines waiting, all together, in
/// milliseconds.
const PATIENCE: u16 = 1000;

/// How much of that is left.
static LEFT: AtomicU16 = AtomicU16::new(PATIENCE);

/// Writes lines to stdout.
pub fn lines<'a>(lines: impl IntoIterator<Item = &'a str>) {
    let mut out = String::new();
    for line in lines {
        push(&mut out, line, usize::MAX);
    }
    let mut stdout = std::io::stdout().lock();
    _ = stdout
        .write_all(out.as_bytes())
        .and_then(|()| stdout.flush());
}

/// Writes a failure to stderr: the problem, then the remedy.
pub fn failure(error: &Error) {
    let mut out = String::new();
    push(
        &mut out,
        &format!("deploy-shell: {}: {}", error.code.word(), error.problem),
        MAX_LINE,
    );
    if let Some(remedy) = &error.remedy {
        push(&mut out, remedy, MAX_LINE);
    }
    to_stderr(&out);
}

/// Writes a failure to stderr and returns its exit status.
pub fn exit(error: &Error) -> u8 {
    failure(error);
    error.code.exit()
}

/// Writes a line to stderr that is no failure: `word` says of what, and is
/// never a failure's code word.
pub fn note(word: &str, text: &str) {
    // It is told while the site is locked, and perhaps while a release is live
    // that has yet to prove itself. A client that does not read must not be
    // able to draw that out: once its time is used up, it is told no more.
    if !stderr_has_room() {
        return;
    }
    let mut out = String::new();
    push(&mut out, &format!("deploy-shell: {word}: {text}"), MAX_NOTE);
    to_stderr(&out);
}

/// Waits until stderr takes a line, for as long as is left to the client. A
/// closed one does: writing to it fails.
fn stderr_has_room() -> bool {
    let left = LEFT.load(Ordering::Relaxed);
    let stderr = std::io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let begun = Instant::now();
    let room = poll(&mut fds, PollTimeout::from(left)) != Ok(0);
    let waited = u16::try_from(begun.elapsed().as_millis()).unwrap_or(PATIENCE);
    LEFT.store(left.saturating_sub(waited), Ordering::Relaxed);
    room
}

/// Writes a warning to stderr: what was decided holds all the same.
pub fn warning(text: &str) {
    note("warning", text);
}

/// Tells what happens while a request is under way.
pub fn told(told: &Told<'_>) {
    match told {
        Told::Line { step, text } if step.is_hook() => note("hook", &format!("{step}: {text}")),
        Told::Line { step, text } => note(&step.to_string(), text),
        Told::Waiting {
            step,
            seen,
            waited,
            within,
        } => {
            let (waited, within) = (waited.as_secs(), within.as_secs());
            let text = format!("not yet, after {waited} of {within} s: {seen}");
            note(&step.to_string(), &text);
        }
        // The failure says it, or nothing needs to be said.
        Told::Ended { .. } | Told::Returned { .. } => {}
        Told::Warning(text) => warning(text),
    }
}

/// Whether somebody looks at stderr.
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Draws `text` over what was last drawn so, on a terminal's stderr.
pub fn progress(text: &str) {
    let text = escape::printable(text.as_bytes());
    // To the start of the line, and clear to its end (ECMA-48, EL).
    to_stderr(&format!("\r\x1b[K{text}"));
}

fn to_stderr(out: &str) {
    _ = std::io::stderr().lock().write_all(out.as_bytes());
}

fn push(out: &mut String, line: &str, max: usize) {
    // Names in errors are often escaped already.
    let line = escape::printable(line.as_bytes());
    match line.len() <= max {
        true => out.push_str(&line),
        false => out.push_str(&escape::bounded(&line, max)),
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
