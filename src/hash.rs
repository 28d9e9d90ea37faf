//! SHA-256 of streams and of many files.
//!
//! [`Stream`] hashes one message in pieces, and [`Pool`] hashes files on several threads.
//! A processor with SHA instructions hashes one message after the other. On one without,
//! [`lanes`] hash eight files side by side, which is several times as fast.
//!
//! The number of open files and the memory have a limit, whatever the sizes of the files.

mod file;
mod kernel;
mod lanes;
mod pool;
mod stream;

pub use pool::Pool;
pub use stream::{Stream, digest};

use crate::names::Sha256Digest;

/// What became of a file: its digest, or `None` if it does not have exactly the size that
/// its sender stated.
pub type Outcome = std::io::Result<Option<Sha256Digest>>;
