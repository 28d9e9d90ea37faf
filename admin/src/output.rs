//! What a command prints.

use std::io::Write;

use serde::Serialize;

use deploy_shell::error::{Error, Result};
use deploy_shell::reply;

/// The lines of a command that succeeded.
#[derive(Debug)]
pub struct Output {
    pub lines: Vec<String>,
    /// Whether the site has no problem; the exit status is 1 otherwise.
    pub sound: bool,
}

/// Prints lines. Unlike a client, an operator may take any time to read them (`| less`).
///
/// # Errors
///
/// [`Code::IoError`](deploy_shell::error::Code::IoError) and
/// [`Code::DiskFull`](deploy_shell::error::Code::DiskFull): a script must not take half of the
/// output for the whole.
pub fn print<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let text = reply::text(lines);
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    let written = written.and_then(|()| stdout.flush());
    written.map_err(|error| Error::io("cannot write the output", error))
}

/// Returns a document as one line of JSON, all in printable ASCII.
///
/// A path of the user database or of sshd may have any bytes, and the account can write any
/// text into its journal. What prints the lines escapes other bytes, and JSON has no `\x`.
pub fn json_line(document: &impl Serialize) -> String {
    let text = serde_json::to_string(document);
    only_ascii(&text.unwrap_or_else(|_| "{}".to_owned()))
}

/// Writes every other character of a JSON text as `\uXXXX` (RFC 8259, section 7). They
/// occur only in strings.
fn only_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && !character.is_ascii_control() {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            out += &format!("\\u{unit:04x}");
        }
    }
    out
}
