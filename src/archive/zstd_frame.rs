//! Decompresses the payload: zstd frames (RFC 8878), one after the other, as
//! `zstd -d` and bsdtar read them.
//!
//! The zstd command writes one frame. Other tools write more: pzstd writes one frame
//! for each thread, Node's stream adds an empty one, and several tools add skippable
//! frames with an index or padding. GNU tar, which runs zstd, and bsdtar read the
//! content of all frames as one stream. So this reader does the same, and every limit
//! holds for the sum of all frames.

use std::fs::File;
use std::ops::Range;

use rustix::io::{read, retry_on_intr};
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::header::BLOCK;
use super::rule::{PayloadFormat, Rule, UnpackError};
use crate::error::{Code, Error};

/// The magic number of a frame. The formats of zstd before 0.8 have other ones.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// The magic number of a skippable frame is `0x50` to `0x5F`, then these bytes
/// (RFC 8878, section 3.1.2).
const SKIPPABLE: [u8; 3] = [0x2A, 0x4D, 0x18];

/// The maximum window, as a power of two: 128 MiB, which is what `zstd -d` accepts
/// by default (zstd(1), --memory).
const WINDOW_LOG_MAX: u32 = 27;

/// The maximum number of frames, with the skippable ones. An empty frame has 9 bytes,
/// and each one takes time. Tools that make a frame for each file stay below.
pub(super) const MAX_FRAMES: u32 = 1 << 20;

/// The maximum number of bytes in skippable frames together. They hold an index or
/// padding.
pub(super) const MAX_SKIPPED: u64 = 16 << 20;

/// The maximum number of zeros after the end of the archive, and again after the last
/// frame. `tar --blocking-factor=2048` writes up to 1 MiB.
pub(super) const MAX_PADDING: u64 = 16 << 20;

/// The maximum length of the header of a frame, in bytes (RFC 8878, section 3.1.1).
const HEADER: usize = 18;

/// The size of the input buffer, in bytes.
const INPUT: usize = 128 * 1024;

/// The decompressed stream. It yields at most `max` bytes.
pub struct Frames {
    /// One context for all frames: making one costs more than a small frame.
    context: DCtx<'static>,
    input: Input,
    /// Whether a frame has begun and has not ended.
    inside: bool,
    /// Whether the payload has ended.
    ended: bool,
    frames: u32,
    /// Bytes in skippable frames so far.
    skipped: u64,
    left: u64,
    max_unpacked: u64,
}

impl Frames {
    /// Opens the payload at its start, which may be in a pipe, and reads the start of the
    /// first frame.
    ///
    /// `max` limits the whole stream, with headers and padding. The refusal names
    /// `max_unpacked`.
    pub fn open(payload: File, max: u64, max_unpacked: u64) -> Result<Frames, UnpackError> {
        let mut context = DCtx::try_create().ok_or_else(|| {
            let problem = "not enough memory for the zstd decoder";
            UnpackError::Io(Error::new(Code::IoError, problem))
        })?;
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(decoding_rule)?;
        let mut frames = Frames {
            context,
            input: Input::new(payload),
            inside: false,
            ended: false,
            frames: 0,
            skipped: 0,
            left: max,
            max_unpacked,
        };
        frames.next_frame()?;
        Ok(frames)
    }

    /// Reads some bytes; 0 is the end of the last frame. `buffer` is not empty.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        // Terminates: each turn consumes input, produces output, or is the last one.
        loop {
            if !self.inside {
                if self.ended {
                    return Ok(0);
                }
                self.next_frame()?;
                continue;
            }
            let available = self.input.at_least(1)?;
            let cut = available.is_empty();
            let mut from = InBuffer::around(available);
            let mut to = OutBuffer::around(buffer);
            // 0: the frame has ended, and all of its content was produced.
            let hint = self.context.decompress_stream(&mut to, &mut from);
            let (consumed, produced) = (from.pos(), to.pos());
            self.input.consume(consumed);
            self.inside = hint.map_err(decoding_rule)? != 0;
            if produced > 0 {
                // The stream is never cut silently: an archive over the limit is
                // refused.
                self.left = (self.left.checked_sub(produced as u64))
                    .ok_or(Rule::Unpacked(self.max_unpacked))?;
                return Ok(produced);
            }
            if cut && self.inside {
                return Err(Rule::ZstdDamaged.into());
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

    /// Reads to the end of the last frame. Only zeros may be left.
    pub fn finish(mut self) -> Result<(), UnpackError> {
        let mut buffer = vec![0; INPUT];
        let mut zeros = 0;
        // Terminates: `read` takes from a budget that never grows.
        loop {
            let read = self.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            if buffer[..read].iter().any(|byte| *byte != 0) {
                return Err(Rule::AfterEnd.into());
            }
            zeros += read as u64;
            if zeros > MAX_PADDING {
                return Err(Rule::Padding.into());
            }
        }
    }

    /// Reads one skippable frame, the start of one other frame, or the end of the
    /// payload.
    fn next_frame(&mut self) -> Result<(), UnpackError> {
        let start = self.input.at_least(HEADER)?;
        let first = self.frames == 0;
        if start.is_empty() && !first {
            self.ended = true;
            return Ok(());
        }
        self.frames += 1;
        if self.frames > MAX_FRAMES {
            return Err(Rule::Frames.into());
        }
        if start.starts_with(&MAGIC) {
            // zstd does not look at the window of a frame whose header states no content.
            if stated_window(start).is_some_and(|window| window > 1 << WINDOW_LOG_MAX) {
                return Err(Rule::Window.into());
            }
            // zstd takes a shortcut where the content fits into the output: it decodes
            // the frame at the start of this input without a look at its window. So it
            // gets the whole header now, and no room for output.
            let mut nothing = [];
            let mut from = InBuffer::around(start);
            let mut to = OutBuffer::around(&mut nothing[..]);
            let hint = self.context.decompress_stream(&mut to, &mut from);
            let consumed = from.pos();
            self.input.consume(consumed);
            // 0: the frame is empty.
            self.inside = hint.map_err(decoding_rule)? != 0;
            return Ok(());
        }
        if start.len() >= 4 && start[0] & 0xF0 == 0x50 && start[1..4] == SKIPPABLE {
            return self.skip_frame();
        }
        if first {
            let block = self.input.at_least(BLOCK)?;
            return Err(Rule::NotZstd(PayloadFormat::of(block)).into());
        }
        // bsdtar fills its last block of 10,240 bytes with zeros, and reads past
        // them. `zstd -d` writes all content before it reports them.
        if self.only_zeros_left()? {
            self.ended = true;
            return Ok(());
        }
        Err(Rule::AfterFrame.into())
    }

    /// Reads past a skippable frame: its magic number, its length, and so many bytes.
    fn skip_frame(&mut self) -> Result<(), UnpackError> {
        let header = self.input.at_least(8)?;
        let Some(len) = header.get(4..8).and_then(|len| len.try_into().ok()) else {
            return Err(Rule::ZstdDamaged.into());
        };
        let mut left = 8 + u64::from(u32::from_le_bytes(len));
        self.skipped += left;
        if self.skipped > MAX_SKIPPED {
            return Err(Rule::Skippable.into());
        }
        while left > 0 {
            let available = self.input.at_least(1)?.len();
            if available == 0 {
                return Err(Rule::ZstdDamaged.into());
            }
            let skipped = left.min(available as u64);
            self.input.consume(skipped as usize);
            left -= skipped;
        }
        Ok(())
    }

    /// Reads to the end of the payload, and returns whether all of it is zeros.
    fn only_zeros_left(&mut self) -> Result<bool, UnpackError> {
        let mut zeros = 0;
        // Terminates: each turn consumes input.
        loop {
            let available = self.input.at_least(1)?;
            if available.is_empty() {
                return Ok(true);
            }
            if available.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            let len = available.len();
            self.input.consume(len);
            zeros += len as u64;
            if zeros > MAX_PADDING {
                return Err(Rule::Padding.into());
            }
        }
    }
}

/// The payload, with a buffer. Unlike [`std::io::BufReader`] it can return as many
/// bytes in one piece as the header of a frame needs.
struct Input {
    payload: File,
    buffer: Vec<u8>,
    /// The bytes that were read and not consumed.
    unread: Range<usize>,
}

impl Input {
    fn new(payload: File) -> Input {
        Input {
            payload,
            buffer: vec![0; INPUT],
            unread: 0..0,
        }
    }

    /// Returns all unread bytes, and reads until there are at least `count`. There are
    /// fewer at the end of the payload only.
    fn at_least(&mut self, count: usize) -> Result<&[u8], UnpackError> {
        debug_assert!(count <= HEADER.max(BLOCK));
        if self.unread.len() < count {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        // Terminates: each turn reads input.
        while self.unread.len() < count {
            let end = self.unread.end;
            let read = retry_on_intr(|| read(&self.payload, &mut self.buffer[end..]));
            match read.map_err(|errno| read_error(errno.into()))? {
                0 => break,
                read => self.unread.end += read,
            }
        }
        Ok(&self.buffer[self.unread.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.unread.start += count;
    }
}

/// Returns the window that the header of a frame states, in bytes (RFC 8878, section
/// 3.1.1.1.2). None for a single segment, whose window is its content.
fn stated_window(frame: &[u8]) -> Option<u64> {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    let (descriptor, window) = (frame.get(4)?, u64::from(*frame.get(5)?));
    let base = 1 << (10 + (window >> 3));
    (descriptor & SINGLE_SEGMENT == 0).then_some(base + base / 8 * (window & 7))
}

/// Returns the rule that matches an error of the decoder. zstd's functions return a
/// code as a negated `size_t`.
fn decoding_rule(code: usize) -> Rule {
    let is = |error: ZSTD_ErrorCode| code == (error as usize).wrapping_neg();
    if is(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge) {
        Rule::Window
    } else if is(ZSTD_ErrorCode::ZSTD_error_dictionary_wrong) {
        Rule::Dictionary
    } else {
        Rule::ZstdDamaged
    }
}

fn read_error(error: std::io::Error) -> UnpackError {
    UnpackError::Io(Error::io("cannot read the payload", error))
}

#[cfg(test)]
mod tests;
