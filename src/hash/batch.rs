//! Reads and hashes files, in the thread of the caller.

use std::fs::File;
use std::io::{ErrorKind, Read, Result};
use std::ops::Range;

use super::{Outcome, Stream, digest};

/// The number of bytes that one read(2) of a large file asks for.
const READ: usize = 256 * 1024;

/// A file to hash.
pub struct Job<T> {
    pub file: File,
    /// The size that the file must have, in bytes.
    pub size: u64,
    pub tag: T,
}

/// The memory in which a thread hashes. It grows to what one batch needs, and is then
/// used again: new memory costs the kernel more than filling it.
#[derive(Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    fn at_least(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len {
            self.0.resize(len, 0);
        }
        &mut self.0[..len]
    }
}

/// Hashes small files: reads all, calls `closed`, then hashes all and calls `done` for
/// each.
pub fn hash_small<T>(
    mut jobs: Vec<Job<T>>,
    buffer: &mut Buffer,
    closed: impl FnOnce(),
    mut done: impl FnMut(T, u64, Outcome),
) {
    jobs.sort_by_key(|job| job.size);
    // Each file has one byte more than its size, to see whether it is longer.
    let room = |job: &Job<T>| job.size as usize + 1;
    let buffer = buffer.at_least(jobs.iter().map(room).sum());
    let mut end = 0;
    let contents = jobs
        .into_iter()
        .map(|mut job| {
            let start = end;
            end += room(&job);
            let read = read_full(&mut job.file, &mut buffer[start..end]);
            (job.tag, job.size, start, read)
        })
        .collect::<Vec<(T, u64, usize, Result<usize>)>>();
    closed();
    for (tag, size, start, read) in contents {
        let (len, outcome) = match read {
            Ok(len) if len as u64 == size => {
                let message: Range<usize> = start..start + len;
                (len, Ok(Some(digest(&buffer[message]))))
            }
            Ok(len) => (len, Ok(None)),
            Err(error) => (0, Err(error)),
        };
        done(tag, len as u64, outcome);
    }
}

/// Hashes one file of any size. Calls `read` with the number of bytes after each read(2),
/// and stops early once that returns false.
pub fn hash_large<T>(
    mut job: Job<T>,
    buffer: &mut Buffer,
    mut read: impl FnMut(u64) -> bool,
) -> (T, Outcome) {
    let buffer = buffer.at_least(READ);
    let mut stream = Stream::new();
    let mut len: u64 = 0;
    // Terminates: at the end of the file, or one read(2) after its stated size: the file
    // may be growing.
    let outcome = loop {
        match job.file.read(buffer) {
            Ok(0) => break Ok((len == job.size).then(|| stream.finish())),
            Ok(some) => {
                len += some as u64;
                if len > job.size || !read(some as u64) {
                    break Ok(None);
                }
                stream.update(&buffer[..some]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    (job.tag, outcome)
}

/// Reads until `buffer` is full or the file ends. Returns the number of bytes.
fn read_full(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut len = 0;
    // Terminates: each turn fills more of the buffer, or ends the loop.
    while len < buffer.len() {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(some) => len += some,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
