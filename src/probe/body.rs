//! The body of an answer: where it ends, and its bytes without the framing.

use std::io::{Error, ErrorKind, Read, Result};

/// The longest line of a chunk's size, or of what follows the last chunk, in
/// bytes.
const MAX_LINE: usize = 1024;

/// How a body says where it ends (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Chunked,
    Length(u64),
    UntilClosed,
}

/// A body that is not framed as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("a chunk without a size")]
    Size,
    #[error("a chunk without an end")]
    End,
}

impl From<Flaw> for Error {
    fn from(flaw: Flaw) -> Error {
        Error::new(ErrorKind::InvalidData, flaw)
    }
}

/// Reads a body to its end.
///
/// Errors: a [`Flaw`]; [`ErrorKind::UnexpectedEof`] where it breaks off; those
/// of what it is read from.
#[derive(Debug)]
pub struct Body<R> {
    from: R,
    framing: Framing,
    /// What is left of the body, or of its chunk. None: the chunk's size
    /// comes next.
    left: Option<u64>,
    /// Whether a chunk stands before the size that comes next.
    between: bool,
}

impl<R: Read> Body<R> {
    pub fn new(from: R, framing: Framing) -> Body<R> {
        let left = match framing {
            Framing::Chunked => None,
            Framing::Length(length) => Some(length),
            Framing::UntilClosed => Some(u64::MAX),
        };
        Body {
            from,
            framing,
            left,
            between: false,
        }
    }

    /// Reads the size of the next chunk.
    fn size(&mut self) -> Result<u64> {
        if self.between && !self.line()?.is_empty() {
            return Err(Flaw::End.into());
        }
        self.between = true;
        let mut line = self.line()?;
        line.extend_from_slice(b"\r\n");
        match httparse::parse_chunk_size(&line) {
            // Without a digit it is no size, though the parser takes it for 0.
            Ok(httparse::Status::Complete((_, size))) if line[0].is_ascii_hexdigit() => Ok(size),
            _ => Err(Flaw::Size.into()),
        }
    }

    /// One line without its end, read byte by byte: what follows is not ours.
    fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        while line.len() < MAX_LINE {
            let mut byte = [0];
            self.from.read_exact(&mut byte)?;
            match byte {
                [b'\n'] if line.last() == Some(&b'\r') => {
                    line.pop();
                    return Ok(line);
                }
                [byte] => line.push(byte),
            }
        }
        Err(Flaw::Size.into())
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = match self.left {
            Some(left) => left,
            // The size 0 is the end; of what may follow nothing is wanted.
            None => {
                let size = self.size()?;
                *self.left.insert(size)
            }
        };
        let room = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut buffer[..room])?;
        if self.framing == Framing::UntilClosed {
            return Ok(read);
        }
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let left = left - read as u64;
        // Behind the last byte of a chunk comes another, if it is one.
        self.left = (left > 0 || self.framing != Framing::Chunked).then_some(left);
        Ok(read)
    }
}
