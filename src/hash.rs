//! SHA-256 of streams and of many files.
//!
//! [`Stream`] hashes one message in pieces. [`Pool`] hashes files on several threads: small
//! files in batches, and each large file as a stream, the largest first. The number of
//! open files and the size of each buffer have a limit, whatever the sizes of the files.

mod batch;
mod pool;

pub use pool::Pool;

use sha2::{Digest, Sha256};

use crate::names::Sha256Digest;

/// What became of a file: its digest, or `None` if it does not have exactly the size that
/// its sender stated.
pub type Outcome = std::io::Result<Option<Sha256Digest>>;

/// The SHA-256 of one message.
#[derive(Clone, Default)]
pub struct Stream(Sha256);

impl Stream {
    /// Returns the state before the first byte.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// Adds `data` to the message.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// Returns the digest of the message.
    pub fn finish(self) -> Sha256Digest {
        Sha256Digest(self.0.finalize().into())
    }
}

/// Returns the digest of a message that is in memory.
pub fn digest(message: &[u8]) -> Sha256Digest {
    let mut stream = Stream::new();
    stream.update(message);
    stream.finish()
}
