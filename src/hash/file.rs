//! Hashes one file after the other, in the thread of the caller.

use std::fs::File;
use std::io::{ErrorKind, Read};

use super::{Outcome, Stream};

/// The number of bytes that one read(2) asks for.
const READ: usize = 256 * 1024;

/// A file to hash.
pub struct Job<T> {
    pub file: File,
    /// The size that the file must have, in bytes.
    pub size: u64,
    pub tag: T,
}

/// What learns how the hashing goes on.
pub trait Observer<T> {
    /// `bytes` more have been read.
    fn read(&self, bytes: u64);

    /// A file has its outcome.
    fn finished(&self, job: Job<T>, outcome: Outcome);

    /// Returns whether no outcome is needed any more.
    fn is_stopped(&self) -> bool;
}

/// The memory in which a thread reads files.
#[derive(Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// Hashes one file as a stream.
    pub fn hash<T>(&mut self, mut job: Job<T>, observer: &impl Observer<T>) {
        self.0.resize(READ, 0);
        let mut stream = Stream::new();
        let mut len: u64 = 0;
        // Terminates: at the end of the file, or one read(2) after its stated size: the
        // file may be growing.
        let outcome = loop {
            match read(&mut job.file, &mut self.0) {
                Ok(0) => break Ok((len == job.size).then(|| stream.finish())),
                Ok(some) => {
                    len += some as u64;
                    observer.read(some as u64);
                    if len > job.size || observer.is_stopped() {
                        break Ok(None);
                    }
                    stream.update(&self.0[..some]);
                }
                Err(error) => break Err(error),
            }
        };
        observer.finished(job, outcome);
    }
}

/// Makes one read(2) that no signal interrupts.
pub fn read(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
