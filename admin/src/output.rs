//! What a command prints.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use deploy_shell::error::{Code, Error, Result};
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
    match written.and_then(|()| stdout.flush()) {
        // A reader that has closed its end, such as head(1), wants no more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Error::io("cannot write the output", error)),
    }
}

/// Returns a document as one line of JSON, all in printable ASCII.
///
/// The account can write any text into its journal. [`print`] would escape any other byte
/// as `\xNN`, which is not JSON.
///
/// # Errors
///
/// [`Code::Internal`] for a path that is not UTF-8.
pub fn json_line(document: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(document);
    let text = text.map_err(|error| {
        Error::new(
            Code::Internal,
            format!("cannot write the document as JSON: {error}"),
        )
    })?;
    Ok(only_ascii(&text))
}

/// Writes each character of a JSON text that is not printable ASCII as `\uXXXX` (RFC 8259,
/// section 7). They occur only in strings.
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
