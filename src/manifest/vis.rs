//! Names as mtree(5) writes them, in one spelling (vis(3)).

use std::fmt;

/// Bytes as mtree(5) writes names: vis(3) octal for all but [`is_plain`] bytes.
pub struct Vis<'a>(pub &'a [u8]);

impl fmt::Display for Vis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        // Run by run and not byte by byte: few bytes of a name are escaped.
        while !rest.is_empty() {
            let plain = rest.iter().take_while(|byte| is_plain(**byte)).count();
            let (run, others) = rest.split_at(plain);
            f.write_str(std::str::from_utf8(run).map_err(|_| fmt::Error)?)?;
            rest = match others {
                [] => others,
                [byte, others @ ..] => {
                    write!(f, "\\{byte:03o}")?;
                    others
                }
            };
        }
        Ok(())
    }
}

/// Returns how many bytes [`Vis`] writes.
pub fn vis_len(bytes: &[u8]) -> usize {
    let escaped = bytes.iter().filter(|byte| !is_plain(**byte)).count();
    bytes.len() + 3 * escaped
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'/' | b'+' | b'@' | b',' | b':' | b'~'
        )
}

/// Reads what [`Vis`] writes, and nothing else: a plain byte is itself, and only other
/// bytes are escaped.
pub fn unvis(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        let plain = rest.iter().take_while(|byte| is_plain(**byte)).count();
        bytes.extend_from_slice(&rest[..plain]);
        rest = match &rest[plain..] {
            [] => {
                // An escape is four times as long as its byte.
                bytes.shrink_to_fit();
                return Ok(bytes);
            }
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                rest @ ..,
            ] => {
                let byte = (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0');
                if is_plain(byte) {
                    return Err("escape is of a plain byte");
                }
                bytes.push(byte);
                rest
            }
            [b'\\', ..] => return Err("escape is not octal"),
            _ => return Err("not escaped"),
        }
    }
}
