//! Quotes a word of a command that a message prints.
//!
//! root pastes the commands of remedies into a shell. A path in one may have a name that
//! an application or another user chose, so a shell must read it as one word, and a
//! terminal must not act on it. No message writes a path between quotes itself:
//! `tests/architecture.rs` looks for such messages.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;

/// A word of a printed command. It is printable ASCII, and sh(1) reads it as the bytes
/// that it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(String);

/// A shell that expands this prints the message and runs nothing: no command can print a
/// word that ends with a newline, because a command substitution removes it.
const UNWRITABLE: &str = "\"${this_ends_with_a_newline:?write it by hand}\"";

impl Word {
    /// Quotes `text`, which is a path, a name or another argument.
    pub fn new(text: impl AsRef<OsStr>) -> Word {
        let bytes = text.as_ref().as_bytes();
        match str::from_utf8(bytes) {
            Ok(text) if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => {
                Word(match shell_words::quote(text) {
                    // It leaves '{a,b}' and '!' as they are, which bash(1) expands.
                    Cow::Borrowed(plain) => format!("'{plain}'"),
                    Cow::Owned(quoted) => quoted,
                })
            }
            _ if bytes.ends_with(b"\n") => Word(UNWRITABLE.to_owned()),
            _ => Word(printed(bytes)),
        }
    }

    /// Quotes `text` only if it has more than letters, digits and `/._-@`, for commands that
    /// people read before they paste them.
    pub fn plain(text: impl AsRef<OsStr>) -> Word {
        let bytes = text.as_ref().as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-@".contains(byte);
        match str::from_utf8(bytes) {
            Ok(text) if !text.is_empty() && bytes.iter().all(is_plain) => Word(text.to_owned()),
            _ => Word::new(text),
        }
    }

    /// Quotes `text` with `suffix` at its end.
    pub fn with_suffix(text: impl AsRef<OsStr>, suffix: &str) -> Word {
        let mut text = text.as_ref().to_owned();
        text.push(suffix);
        Word::new(text)
    }
}

/// Returns the command by which root runs `command`, of quoted words, as the account of a site.
/// `site` are the words that name the site to a command of the operator.
pub fn run_command(site: &str, command: impl fmt::Display) -> String {
    format!("deploy-shell-admin run {site} -- {command}")
}

/// As [`run_command`], for a script of sh(1).
pub fn run_script(site: &str, script: &str) -> String {
    run_command(site, format_args!("sh -c {}", Word::new(script)))
}

/// Returns the command that gives the account of a site its files again, and their modes.
pub fn repair_command(site: &str) -> String {
    format!("deploy-shell-admin repair {site}")
}

/// Returns a command substitution by printf(1) of all other words: no quotes can make a
/// control character or UTF-8 printable.
fn printed(bytes: &[u8]) -> String {
    let mut out = "\"$(printf '".to_owned();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail. bash(1) expands '!' here, and printf '%'.
            _ = write!(out, "\\{byte:03o}");
        }
    }
    out + "')\""
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Returns what sh makes of a printed word.
    fn read_by_sh(word: &Word) -> Vec<u8> {
        assert!(word.0.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        let script = format!("printf '%s.' {word}");
        let done = Command::new("sh").args(["-c", &script]).output().unwrap();
        done.stdout
    }

    #[test]
    fn a_shell_reads_each_word_as_it_was() {
        let all: Vec<u8> = (1..=255).collect();
        let words: [&[u8]; 10] = [
            b"/srv/blog",
            b"",
            b"it's",
            b"/srv/$(touch x)/`id`",
            b"a b\\c \"d\" ~ * {a,b} !1 %s",
            b"/srv/\x1b[31m\nrm -rf x\n/y",
            "/srv/b\u{fc}cher/100% '$HOME'!".as_bytes(),
            b"\xff\xfe",
            b"-n",
            &all,
        ];
        for word in words {
            let mut expected = word.to_vec();
            expected.push(b'.');
            let word = Word::new(OsStr::from_bytes(word));
            assert_eq!(read_by_sh(&word), expected, "{word}");
        }
        for (word, plain) in [("deploy@node", "deploy@node"), ("", "''"), ("a b", "'a b'")] {
            assert_eq!(Word::plain(word).to_string(), plain);
        }
        let suffixed = Word::with_suffix("it's\n", ".new");
        assert_eq!(read_by_sh(&suffixed), b"it's\n.new.");
    }

    #[test]
    fn a_word_that_no_command_can_print_runs_no_command() {
        let word = Word::new("/srv/x\n");
        assert_eq!(read_by_sh(&word), b"", "{word}");
        let done = Command::new("sh")
            .args(["-c", &format!("rm {word} && echo done")])
            .output()
            .unwrap();
        assert!(!done.status.success() && done.stdout.is_empty());
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(message.contains("write it by hand"), "{message}");
    }
}
