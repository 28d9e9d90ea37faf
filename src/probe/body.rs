//! The body of a response, without its framing.

use std::io::{Error, ErrorKind, Read, Result};

/// The maximum length of a line with a chunk size, in bytes.
const MAX_LINE: usize = 1024;

/// How the end of a body is determined (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Chunked,
    Length(u64),
    UntilClosed,
}

/// A violation of the chunked coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("a chunk without a size")]
    Size,
    #[error("a chunk without an end")]
    End,
}

impl From<FramingError> for Error {
    fn from(error: FramingError) -> Error {
        Error::new(ErrorKind::InvalidData, error)
    }
}

/// Reads a body to its end.
///
/// # Errors
///
/// Reading fails with a [`FramingError`], with [`ErrorKind::UnexpectedEof`] if
/// the connection ends before the body, or with an error of the connection.
#[derive(Debug)]
pub struct Body<R> {
    from: R,
    framing: Framing,
    /// The bytes left of the body, or of the current chunk. None if a chunk size
    /// comes next.
    left: Option<u64>,
    /// Whether a chunk precedes the next chunk size.
    after_chunk: bool,
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
            after_chunk: false,
        }
    }

    /// Reads the size of the next chunk.
    fn read_chunk_size(&mut self) -> Result<u64> {
        if self.after_chunk && !self.read_line()?.is_empty() {
            return Err(FramingError::End.into());
        }
        self.after_chunk = true;
        let mut line = self.read_line()?;
        line.extend_from_slice(b"\r\n");
        match httparse::parse_chunk_size(&line) {
            // The parser takes a line without a digit for the size 0.
            Ok(httparse::Status::Complete((_, size))) if line[0].is_ascii_hexdigit() => Ok(size),
            _ => Err(FramingError::Size.into()),
        }
    }

    /// Reads a line without its end, byte by byte: the next bytes are the chunk's.
    fn read_line(&mut self) -> Result<Vec<u8>> {
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
        Err(FramingError::Size.into())
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = match self.left {
            Some(left) => left,
            // The size 0 is the end of the body. A trailer is not read.
            None => {
                let size = self.read_chunk_size()?;
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
        // After the last byte of a chunk comes the next chunk size.
        self.left = (left > 0 || self.framing != Framing::Chunked).then_some(left);
        Ok(read)
    }
}
