//! Reads the payload from stdin and hashes it as it arrives, under limits of size and
//! time. Nothing here interprets a byte of it.

use std::io::{ErrorKind, Read, Stdin};
use std::time::Duration;

use crate::config::Config;
use crate::deadline::{Deadline, TimedReader};
use crate::error::{Code, Error, Result};
use crate::hash;
use crate::names::Sha256Digest;

/// The size of a buffer for the payload, in bytes.
pub const BUFFER: usize = 256 * 1024;

/// The silence of a client after which this process compares the digest so far with the
/// expected one. A client that has sent everything may never close its input: paramiko and
/// others wait for the answer first.
const PAUSE: Duration = Duration::from_secs(1);

/// The remedy of a request without a payload.
const SEND_A_FILE: &str = "send the payload with '< FILE'";

/// What one read of the payload gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// The number of bytes, which are at the start of the buffer.
    Bytes(usize),
    /// The client has sent nothing in the time.
    Nothing,
    /// The client has ended its input, or was silent after the whole payload.
    End,
}

/// A payload whose digest equals the digest of the request. Only [`Arrival::verify`] makes
/// one, and nothing is published without it.
#[derive(Debug)]
pub struct VerifiedPayload {
    bytes: u64,
    sha256: Sha256Digest,
}

impl VerifiedPayload {
    /// Returns the size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn sha256(&self) -> Sha256Digest {
        self.sha256
    }
}

/// The payload that a client sends.
pub struct Arrival<'a> {
    config: &'a Config,
    expected: Sha256Digest,
    deadline: Deadline,
    input: TimedReader<Stdin>,
    hash: hash::Stream,
    bytes: u64,
    /// Since the last read that gave bytes. None while the monitor waits for the disk or the
    /// unpacker, and not for the client.
    silence: Option<Silence>,
}

/// The end of a pause, and of the client's time.
struct Silence {
    pause: Deadline,
    idle: Deadline,
    /// Whether the digest was compared: it changes only with the next byte.
    compared: bool,
}

impl<'a> Arrival<'a> {
    /// Each read waits at most `wait`.
    pub fn new(
        config: &'a Config,
        expected: Sha256Digest,
        deadline: Deadline,
        wait: Duration,
    ) -> Arrival<'a> {
        Arrival {
            config,
            expected,
            deadline,
            input: TimedReader::new(std::io::stdin(), wait, deadline),
            hash: hash::Stream::new(),
            bytes: 0,
            silence: None,
        }
    }

    /// Returns how many bytes have come.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads some bytes into `buffer`.
    ///
    /// # Errors
    ///
    /// [`Code::TooLarge`], [`Code::Timeout`], [`Code::IoError`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Piece> {
        let limits = &self.config.limits;
        let silence = self.silence.get_or_insert_with(|| Silence {
            pause: Deadline::after(PAUSE.min(limits.idle_timeout)),
            idle: Deadline::after(limits.idle_timeout),
            compared: false,
        });
        match self.input.read(buffer) {
            Ok(0) => Ok(Piece::End),
            Ok(read) => {
                self.silence = None;
                self.bytes += read as u64;
                let max = self.config.archive.max_compressed;
                if self.bytes > max {
                    let problem = format!("the payload is larger than {max} bytes");
                    return Err(Error::new(Code::TooLarge, problem).remedy(
                        "make it smaller, or raise max_compressed in the site's configuration",
                    ));
                }
                self.hash.update(&buffer[..read]);
                Ok(Piece::Bytes(read))
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                if silence.pause.has_passed() && !silence.compared {
                    silence.compared = true;
                    if self.hash.clone().finish() == self.expected {
                        return Ok(Piece::End);
                    }
                }
                if silence.idle.has_passed() || self.deadline.has_passed() {
                    return Err(self.timeout());
                }
                Ok(Piece::Nothing)
            }
            Err(error) => Err(Error::io("cannot read the payload", error)),
        }
    }

    /// Compares the digest of all bytes with that of the request.
    ///
    /// The end of stdin proves nothing, because a broken connection ends it too. Only the
    /// digest proves that the payload is complete.
    ///
    /// # Errors
    ///
    /// [`Code::DigestMismatch`].
    pub fn verify(self) -> Result<VerifiedPayload> {
        let (bytes, expected, found) = (self.bytes, self.expected, self.hash.finish());
        if found == expected {
            return Ok(VerifiedPayload {
                bytes,
                sha256: found,
            });
        }
        if bytes == 0 {
            let problem = "nothing came: the payload has 0 bytes";
            return Err(Error::new(Code::DigestMismatch, problem).remedy(SEND_A_FILE));
        }
        Err(Error::new(
            Code::DigestMismatch,
            format!("the payload of {bytes} bytes has sha256 {found}, not {expected} as requested"),
        )
        .remedy("send the file that was hashed; the connection may have broken"))
    }

    fn timeout(&self) -> Error {
        let (limits, bytes) = (&self.config.limits, self.bytes);
        let problem = if self.deadline.has_passed() {
            let seconds = limits.total_timeout.as_secs();
            format!("the payload took longer than {seconds} s, {bytes} bytes of it came")
        } else {
            let seconds = limits.idle_timeout.as_secs();
            format!("nothing came for {seconds} s, after {bytes} bytes of the payload")
        };
        let remedy = if bytes == 0 {
            SEND_A_FILE
        } else {
            "send the payload again, with '< FILE'"
        };
        Error::new(Code::Timeout, problem).remedy(remedy)
    }
}
