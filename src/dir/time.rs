//! Modification times of files below a directory.

use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag};
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
    /// A symlink on the way is followed, also one that leads out: use the result for
    /// comparisons only. One call takes half the time of openat2(2) and fstat(2).
    pub fn modified_seconds(&self, path: &Path) -> Result<i64> {
        stat::fstatat(&self.0, path, AtFlags::AT_SYMLINK_NOFOLLOW).map(|stat| stat.st_mtime)
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
