//! Exactly one zstd frame (RFC 8878), nothing before it and nothing after it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};

use zstd::stream::read::Decoder;

use super::rule::{Failure, Rule};
use crate::error::Error;

/// The frame's magic number. A skippable frame has another and is refused:
/// tools disagree about what follows one.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// The largest window, as a power of two: 128 MiB, what `zstd -d` takes
/// without being told to (zstd(1), --memory).
const WINDOW_LOG_MAX: u32 = 27;

/// How much is read from the spool at once, in bytes.
const INPUT: usize = 128 * 1024;

/// The decompressed stream, which ends for good after `max` bytes.
pub struct Frame {
    decoder: Decoder<'static, BufReader<File>>,
    left: u64,
    max_unpacked: u64,
}

impl Frame {
    /// `max` bounds the whole stream, headers and padding included;
    /// `max_unpacked` is what the refusal names.
    pub fn open(mut spool: File, max: u64, max_unpacked: u64) -> Result<Frame, Failure> {
        let cannot = |error| Failure::Io(Error::io("cannot read the payload", error));
        let mut magic = [0; 4];
        spool.rewind().map_err(cannot)?;
        match spool.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(cannot(error));
            }
            _ => return Err(Rule::NotZstd.into()),
        }
        spool.rewind().map_err(cannot)?;
        let input = BufReader::with_capacity(INPUT, spool);
        let mut decoder = Decoder::with_buffer(input).map_err(cannot)?.single_frame();
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(cannot)?;
        Ok(Frame {
            decoder,
            left: max,
            max_unpacked,
        })
    }

    /// Reads some bytes; 0 is the end of the frame.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.decoder.read(buffer) {
                Ok(read) => {
                    // Nothing is cut silently: what passes the limit refuses
                    // the archive.
                    self.left = (self.left.checked_sub(read as u64))
                        .ok_or(Rule::Unpacked(self.max_unpacked))?;
                    return Ok(read);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // zstd's own errors come without an error number.
                Err(error) if error.raw_os_error().is_none() => {
                    let window = error.to_string().contains("too much memory");
                    return Err(if window {
                        Rule::Window
                    } else {
                        Rule::ZstdDamaged
                    }
                    .into());
                }
                Err(error) => return Err(Failure::Io(Error::io("cannot read the payload", error))),
            }
        }
    }

    /// Fills `buffer`; an early end is an error.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => return Err(Rule::CutShort.into()),
                read => filled += read,
            }
        }
        Ok(())
    }

    /// Reads to the end of the frame, which must be zeros, and sees that it is
    /// the end of the payload, too.
    pub fn finish(mut self) -> Result<(), Failure> {
        let mut buffer = vec![0; INPUT];
        // Ends: `read` takes from a budget that never grows.
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
            Err(error) => Err(Failure::Io(Error::io("cannot read the payload", error))),
        }
    }
}
