//! Decompresses exactly one zstd frame (RFC 8878), with nothing before or after it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};

use zstd::stream::read::Decoder;
use zstd::zstd_safe::get_error_name;
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;

use super::rule::{Rule, UnpackError};
use crate::error::Error;

/// The magic number of a frame. A skippable frame has another one and is refused:
/// tools disagree about what follows it.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// The maximum window, as a power of two: 128 MiB, which is what `zstd -d` accepts
/// by default (zstd(1), --memory).
const WINDOW_LOG_MAX: u32 = 27;

/// The size of one read from the spool, in bytes.
const INPUT: usize = 128 * 1024;

/// The decompressed stream. It yields at most `max` bytes.
pub struct Frame {
    decoder: Decoder<'static, BufReader<File>>,
    left: u64,
    max_unpacked: u64,
}

impl Frame {
    /// Opens the frame in `spool`.
    ///
    /// `max` limits the whole stream, with headers and padding. The refusal names
    /// `max_unpacked`.
    pub fn open(mut spool: File, max: u64, max_unpacked: u64) -> Result<Frame, UnpackError> {
        let read_error = |error| UnpackError::Io(Error::io("cannot read the payload", error));
        let mut magic = [0; 4];
        spool.rewind().map_err(read_error)?;
        match spool.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(read_error(error));
            }
            _ => return Err(Rule::NotZstd.into()),
        }
        spool.rewind().map_err(read_error)?;
        let input = BufReader::with_capacity(INPUT, spool);
        let mut decoder = Decoder::with_buffer(input)
            .map_err(read_error)?
            .single_frame();
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(read_error)?;
        Ok(Frame {
            decoder,
            left: max,
            max_unpacked,
        })
    }

    /// Reads some bytes; 0 is the end of the frame.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        // Terminates: only a signal makes another turn.
        loop {
            match self.decoder.read(buffer) {
                Ok(read) => {
                    // The stream is never cut silently: an archive over the
                    // limit is refused.
                    self.left = (self.left.checked_sub(read as u64))
                        .ok_or(Rule::Unpacked(self.max_unpacked))?;
                    return Ok(read);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // zstd's own errors have no error number.
                Err(error) if error.raw_os_error().is_none() => {
                    return Err(decoding_rule(&error).into());
                }
                Err(error) => {
                    return Err(UnpackError::Io(Error::io("cannot read the payload", error)));
                }
            }
        }
    }

    /// Fills `buffer`. An early end is an error.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<(), UnpackError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => return Err(Rule::CutShort.into()),
                read => filled += read,
            }
        }
        Ok(())
    }

    /// Reads to the end of the frame, which must be zeros, and checks that the
    /// payload ends there as well.
    pub fn finish(mut self) -> Result<(), UnpackError> {
        let mut buffer = vec![0; INPUT];
        // Terminates: `read` takes from a budget that never grows.
        loop {
            match self.read(&mut buffer)? {
                0 => break,
                read if buffer[..read].iter().any(|byte| *byte != 0) => {
                    return Err(Rule::AfterEnd.into());
                }
                _ => {}
            }
        }
        let mut input = self.decoder.finish();
        match input.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(Rule::AfterFrame.into()),
            Err(error) => Err(UnpackError::Io(Error::io("cannot read the payload", error))),
        }
    }
}

/// Returns the rule that matches an error of the decoder.
///
/// The `zstd` crate keeps only the name of an error code. So this function converts
/// the code that it looks for to its name, in the same way, and compares the names.
fn decoding_rule(error: &std::io::Error) -> Rule {
    // zstd's functions return a code as a negated `size_t`.
    let too_large = ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as usize;
    if error.to_string() == get_error_name(too_large.wrapping_neg()) {
        Rule::Window
    } else {
        Rule::ZstdDamaged
    }
}
