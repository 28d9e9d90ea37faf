//! Look-ups that stay on the mount of their directory.
//!
//! A file system that is mounted below a directory may stall, as a network file system
//! does whose server is gone. A process that looks at it hangs in the kernel, where no
//! signal ends it. The kernel knows each mount point without the file system, so these
//! functions fail with `EXDEV` there, and look at nothing (`RESOLVE_NO_XDEV`, openat2(2)).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{self, FileStat};

use super::{DIRECTORY, Dir, FILE, Name, Result, regular};

impl Dir {
    /// Opens `name` itself with `O_PATH`, also a symlink.
    pub fn handle_of_this_mount<'a>(&self, name: impl Into<Name<'a>>) -> Result<OwnedFd> {
        let name = Path::new(name.into().as_os_str());
        self.open_beneath(name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
    }

    /// Returns the status of `name` itself: symlinks are not followed.
    pub fn stat_of_this_mount<'a>(&self, name: impl Into<Name<'a>>) -> Result<FileStat> {
        stat::fstat(self.handle_of_this_mount(name)?)
    }

    /// Opens a directory for listing.
    pub fn open_dir_of_this_mount<'a>(&self, name: impl Into<Name<'a>>) -> Result<Dir> {
        self.open_dir_beneath(Path::new(name.into().as_os_str()))
    }

    /// Opens an existing regular file for reading.
    pub fn open_file<'a>(&self, name: impl Into<Name<'a>>) -> Result<File> {
        self.open_file_beneath(Path::new(name.into().as_os_str()))
    }

    /// Returns whether anything is at `name`. A failure to look is an error: it must
    /// not be taken for "no".
    pub fn exists<'a>(&self, name: impl Into<Name<'a>>) -> Result<bool> {
        match self.handle_of_this_mount(name) {
            // What is mounted there covers a file or a directory.
            Ok(_) | Err(Errno::EXDEV) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Opens a directory of several components below this one, for listing. The kernel
    /// refuses a path with a symlink or a `..` that leads out.
    pub fn open_dir_beneath(&self, path: &Path) -> Result<Dir> {
        self.open_beneath(path, DIRECTORY).map(Dir)
    }

    /// As [`Dir::open_dir_beneath`], for a regular file, for reading.
    pub fn open_file_beneath(&self, path: &Path) -> Result<File> {
        regular(self.open_beneath(path, OFlag::O_RDONLY | FILE)?)
    }

    pub(super) fn open_beneath(&self, path: &Path, flags: OFlag) -> Result<OwnedFd> {
        let how = OpenHow::new().flags(flags).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
        fcntl::openat2(&self.0, path, how)
    }
}
