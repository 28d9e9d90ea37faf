//! Modification times of files below a directory.

use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat;
use nix::sys::time::TimeSpec;

use super::{Dir, Result};

/// Sets the modification time of an open file or directory, and leaves its access time.
pub fn set_modified(file: &impl AsFd, time: TimeSpec) -> Result<()> {
    stat::futimens(file, &TimeSpec::UTIME_OMIT, &time)
}

impl Dir {
    /// Returns the modification time of the file at `path` below this directory, in
    /// whole seconds.
    ///
    /// The kernel refuses a path with a symlink, and one into a file system that is mounted
    /// below this directory: it may stall, and a swap asks under the lock.
    pub fn modified_seconds(&self, path: &Path) -> Result<i64> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = self.open_beneath(path, flags)?;
        stat::fstat(&file).map(|stat| stat.st_mtime)
    }

    /// Sets the modification time of the file at `path` below this directory. Follows
    /// no symlink. A file with several names keeps its time: the others are in other
    /// releases, which share it (`reuse = "link"`), and its time was right there.
    pub fn set_modified_seconds(&self, path: &Path, seconds: i64) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = self.open_beneath(path, flags)?;
        if stat::fstat(&file)?.st_nlink > 1 {
            return Ok(());
        }
        set_modified(&file, TimeSpec::new(seconds, 0))
    }
}
