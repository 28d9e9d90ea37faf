//! Hashes eight files side by side, in the thread of the caller.
//!
//! A lane that ends takes the next file at once, so the lanes stay full, whatever the
//! sizes of the files. Each lane has one buffer, which it fills again and again.

use fearless_simd::Level;

use super::Outcome;
use super::file::{Buffer, Job, Observer, read};
use super::kernel::{BLOCK, LANES, States, fast_level};
use super::stream::has_sha_instructions;
use crate::names::Sha256Digest;

/// The number of bytes that one read(2) asks for. The buffers of all lanes fit into the
/// second cache of a processor.
const READ: usize = 64 * 1024;

/// The padding needs one or two blocks (FIPS 180-4, 5.1.1).
const CAPACITY: usize = READ + 2 * BLOCK;

/// The number of files from which on the lanes are faster than one stream after the
/// other: a step takes the same time for one lane as for eight, and is at least three
/// times as slow as one of a stream.
const WORTHWHILE: usize = 3;

/// A file of this size, in bytes, is hashed as a stream: in a lane it would still be there
/// when all others have ended.
const LARGE: u64 = 48 << 20;

/// What a thread hashes with.
pub struct Hasher<T> {
    buffer: Buffer,
    lanes: Option<Lanes<T>>,
}

impl<T> Hasher<T> {
    /// Returns the fastest hasher for this processor.
    pub fn new() -> Hasher<T> {
        let level = if has_sha_instructions() {
            None
        } else {
            fast_level()
        };
        Hasher {
            buffer: Buffer::default(),
            lanes: level.map(Lanes::new),
        }
    }

    /// Hashes files until `next` returns no more.
    pub fn run(&mut self, mut next: impl FnMut() -> Option<Job<T>>, observer: &impl Observer<T>) {
        let Some(lanes) = &mut self.lanes else {
            while let Some(job) = next() {
                self.buffer.hash(job, observer);
            }
            return;
        };
        let buffer = &mut self.buffer;
        let mut next = move || {
            // Terminates: each turn hashes one file of the caller.
            loop {
                match next()? {
                    job if job.size >= LARGE => buffer.hash(job, observer),
                    job => return Some(job),
                }
            }
        };
        let first: Vec<Job<T>> = (0..WORTHWHILE).map_while(|_| next()).collect();
        if first.len() == WORTHWHILE {
            let mut first = first.into_iter();
            lanes.run(|| first.next().or_else(&mut next), observer);
        } else {
            for job in first {
                self.buffer.hash(job, observer);
            }
        }
    }
}

struct Lanes<T> {
    level: Level,
    states: States,
    lanes: [Option<Lane<T>>; LANES],
    /// One after the other, [`CAPACITY`] bytes for each lane.
    buffers: Vec<u8>,
}

/// A file that is being hashed.
struct Lane<T> {
    job: Job<T>,
    /// The bytes of the buffer that are not hashed yet: whole blocks.
    start: usize,
    end: usize,
    /// The number of bytes that have been read.
    len: u64,
    /// Whether the buffer has the padding, so that it is the last one.
    is_last: bool,
}

impl<T> Lanes<T> {
    fn new(level: Level) -> Lanes<T> {
        Lanes {
            level,
            states: States::new(),
            lanes: [const { None }; LANES],
            buffers: vec![0; LANES * CAPACITY],
        }
    }

    fn run(&mut self, mut next: impl FnMut() -> Option<Job<T>>, observer: &impl Observer<T>) {
        // Terminates: each turn hashes a block of each file, or there is no file.
        while !observer.is_stopped() {
            for at in 0..LANES {
                // Terminates: each turn takes a file.
                while self.lanes[at].is_none() {
                    let Some(job) = next() else { break };
                    self.begin(at, job, observer);
                }
            }
            let blocks = |lane: &Lane<T>| (lane.end - lane.start) / BLOCK;
            let Some(blocks) = self.lanes.iter().flatten().map(blocks).min() else {
                return;
            };
            self.update(blocks * BLOCK);
            for at in 0..LANES {
                self.advance(at, blocks * BLOCK, observer);
            }
        }
        self.lanes = [const { None }; LANES];
    }

    /// Puts a file into an empty lane, which stays empty if the file has an outcome.
    fn begin(&mut self, at: usize, job: Job<T>, observer: &impl Observer<T>) {
        self.states.reset(at);
        let lane = Lane {
            job,
            start: 0,
            end: 0,
            len: 0,
            is_last: false,
        };
        self.fill(at, lane, observer);
    }

    /// Fills the buffer of a lane whose bytes are all hashed.
    fn fill(&mut self, at: usize, mut lane: Lane<T>, observer: &impl Observer<T>) {
        let before = lane.len;
        let filled = lane.fill(&mut self.buffers[at * CAPACITY..][..CAPACITY]);
        observer.read(lane.len - before);
        match filled {
            Ok(true) => self.lanes[at] = Some(lane),
            Ok(false) => observer.finished(lane.job, Ok(None)),
            Err(error) => observer.finished(lane.job, Err(error)),
        }
    }

    /// Hashes the next `len` bytes of each lane. An empty lane hashes those of another;
    /// nothing uses the result.
    fn update(&mut self, len: usize) {
        let start = |at: usize| Some(at * CAPACITY + self.lanes[at].as_ref()?.start);
        let some = (0..LANES).find_map(start).unwrap_or_default();
        let messages = std::array::from_fn(|at| {
            let start = start(at).unwrap_or(some);
            &self.buffers[start..start + len]
        });
        self.states.update(self.level, messages);
    }

    /// Goes on after the next `len` bytes of a lane were hashed.
    fn advance(&mut self, at: usize, len: usize, observer: &impl Observer<T>) {
        let Some(mut lane) = self.lanes[at].take() else {
            return;
        };
        lane.start += len;
        if lane.start < lane.end {
            self.lanes[at] = Some(lane);
        } else if lane.is_last {
            let outcome: Outcome = Ok(Some(Sha256Digest(self.states.digest(at))));
            observer.finished(lane.job, outcome);
        } else {
            self.fill(at, lane, observer);
        }
    }
}

impl<T> Lane<T> {
    /// Fills `buffer` with whole blocks. Returns whether the file can still have the
    /// stated size.
    fn fill(&mut self, buffer: &mut [u8]) -> std::io::Result<bool> {
        (self.start, self.end) = (0, 0);
        // Terminates: each turn fills more of the buffer, or ends the loop.
        while self.end < READ {
            let some = read(&mut self.job.file, &mut buffer[self.end..READ])?;
            self.end += some;
            self.len += some as u64;
            if self.len > self.job.size {
                return Ok(false);
            }
            if some == 0 {
                if self.len != self.job.size {
                    return Ok(false);
                }
                self.pad(buffer);
                break;
            }
        }
        Ok(true)
    }

    /// Appends the padding (FIPS 180-4, 5.1.1): a bit, zeros, and the length in bits.
    fn pad(&mut self, buffer: &mut [u8]) {
        let end = (self.end + 1 + 8).next_multiple_of(BLOCK);
        let padding = &mut buffer[self.end..end];
        padding.fill(0);
        padding[0] = 0x80;
        let bits = self.len.wrapping_mul(8).to_be_bytes();
        buffer[end - bits.len()..end].copy_from_slice(&bits);
        self.end = end;
        self.is_last = true;
    }
}

#[cfg(test)]
mod tests;
