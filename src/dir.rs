//! Directory handles: all path resolution of this program.
//!
//! A [`Dir`] is an open directory, and every operation takes one name below it. A
//! [`Name`] is a single component, never `.` or `..`. A single component that is
//! opened without following a symlink cannot lead anywhere else, so nothing here
//! checks a path and then opens it again. The few paths of several components
//! (required paths, symlinks in a release) go through openat2(2) with
//! `RESOLVE_BENEATH`: the kernel itself keeps them below the handle.

#![expect(
    clippy::missing_errors_doc,
    reason = "every function returns the errno of its system call: see `Result`"
)]

mod acl;
mod mount;
mod name;
mod remove;
mod resolve;
mod time;

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag};
use nix::sys::stat::{self, FileStat, Mode, SFlag};
use nix::sys::{statfs, statvfs};
use nix::unistd::{self, AccessFlags, UnlinkatFlags};

pub use acl::DefaultAcl;
pub use name::Name;
pub use remove::NotRemoved;
pub use resolve::{MAX_STEPS, MAX_SYMLINKS};
pub use time::set_modified;

/// The result of the functions of this module: the error is the errno of the system
/// call that failed.
pub type Result<T> = nix::Result<T>;

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

/// How often one path is resolved at most.
const MAX_ATTEMPTS: usize = 1000;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// `O_NONBLOCK`: opening a fifo in the place of a file must not block. The flag has no
/// effect on regular files.
const FILE: OFlag = OFlag::O_NOFOLLOW
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY);

impl Dir {
    /// Opens a directory by a trusted path: one of the configuration, or `/`.
    pub fn open_root(path: &Path) -> Result<Dir> {
        fcntl::open(path, DIRECTORY, Mode::empty()).map(Dir)
    }

    /// Opens the working directory of this process.
    pub fn cwd() -> Result<Dir> {
        fcntl::open(".", DIRECTORY, Mode::empty()).map(Dir)
    }

    /// Opens a directory for listing.
    pub fn open_dir<'a>(&self, name: impl Into<Name<'a>>) -> Result<Dir> {
        fcntl::openat(&self.0, name.into().as_os_str(), DIRECTORY, Mode::empty()).map(Dir)
    }

    /// Opens a directory with `O_PATH`: for resolving paths below it, not for listing
    /// it. This needs only search permission on the directory.
    pub fn open_path<'a>(&self, name: impl Into<Name<'a>>) -> Result<Dir> {
        let flags = DIRECTORY | OFlag::O_PATH;
        fcntl::openat(&self.0, name.into().as_os_str(), flags, Mode::empty()).map(Dir)
    }

    /// Makes a directory; it must not exist.
    pub fn make_dir<'a>(&self, name: impl Into<Name<'a>>, mode: u32) -> Result<()> {
        stat::mkdirat(
            &self.0,
            name.into().as_os_str(),
            Mode::from_bits_truncate(mode),
        )
    }

    /// Opens a file for reading and appending, and makes it if it does not exist.
    pub fn open_append<'a>(&self, name: impl Into<Name<'a>>, mode: u32) -> Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT;
        self.open_with(name.into(), flags, mode)
    }

    /// Opens a file for reading and overwriting, and makes it if it does not exist.
    pub fn open_rw<'a>(&self, name: impl Into<Name<'a>>, mode: u32) -> Result<File> {
        self.open_with(name.into(), OFlag::O_RDWR | OFlag::O_CREAT, mode)
    }

    /// Opens an existing file for writing only.
    pub fn open_for_writing<'a>(&self, name: impl Into<Name<'a>>) -> Result<File> {
        self.open_with(name.into(), OFlag::O_WRONLY, 0)
    }

    /// Makes a file for writing; it must not exist.
    pub fn create_new<'a>(&self, name: impl Into<Name<'a>>, mode: u32) -> Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        self.open_with(name.into(), flags, mode)
    }

    fn open_with(&self, name: Name<'_>, flags: OFlag, mode: u32) -> Result<File> {
        let mode = Mode::from_bits_truncate(mode);
        let file = fcntl::openat(&self.0, name.as_os_str(), flags | FILE, mode)?;
        if flags.contains(OFlag::O_EXCL) {
            // A new file.
            return Ok(File::from(file));
        }
        regular(file)
    }

    /// Makes an unnamed file in this directory's file system. The kernel removes it
    /// with its last descriptor, whatever ends the process (`O_TMPFILE`, open(2)).
    pub fn tmpfile(&self) -> Result<File> {
        // O_EXCL: it can never be given a name.
        let flags = OFlag::O_TMPFILE | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        fcntl::openat(&self.0, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    }

    /// Returns the status of `name` itself: symlinks are not followed.
    pub fn stat<'a>(&self, name: impl Into<Name<'a>>) -> Result<FileStat> {
        stat::fstatat(
            &self.0,
            name.into().as_os_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
    }

    /// Returns the target of a symlink.
    pub fn read_link<'a>(&self, name: impl Into<Name<'a>>) -> Result<OsString> {
        fcntl::readlinkat(&self.0, name.into().as_os_str())
    }

    /// Makes a symlink; nothing may be at `name`.
    pub fn symlink<'a>(&self, target: &OsStr, name: impl Into<Name<'a>>) -> Result<()> {
        unistd::symlinkat(target, &self.0, name.into().as_os_str())
    }

    /// Renames, and replaces whatever is at `to` in the same instant.
    pub fn rename<'a, 'b>(
        &self,
        from: impl Into<Name<'a>>,
        dir: &Dir,
        to: impl Into<Name<'b>>,
    ) -> Result<()> {
        let (from, to) = (from.into(), to.into());
        fcntl::renameat(&self.0, from.as_os_str(), &dir.0, to.as_os_str())
    }

    /// Renames; fails with `EEXIST` if anything is at `to`.
    pub fn rename_new<'a, 'b>(
        &self,
        from: impl Into<Name<'a>>,
        dir: &Dir,
        to: impl Into<Name<'b>>,
    ) -> Result<()> {
        let (from, to) = (from.into(), to.into());
        let flags = RenameFlags::RENAME_NOREPLACE;
        fcntl::renameat2(&self.0, from.as_os_str(), &dir.0, to.as_os_str(), flags)
    }

    /// Makes `to` in `to_dir` another name of the file `from`; it must not exist. A symlink
    /// is not followed.
    pub fn link<'a, 'b>(
        &self,
        from: impl Into<Name<'a>>,
        to_dir: &Dir,
        to: impl Into<Name<'b>>,
    ) -> Result<()> {
        let (from, to) = (from.into().as_os_str(), to.into().as_os_str());
        unistd::linkat(&self.0, from, &to_dir.0, to, AtFlags::empty())
    }

    /// Removes a file or a symlink. One that does not exist is no error.
    pub fn remove_file<'a>(&self, name: impl Into<Name<'a>>) -> Result<()> {
        let name = name.into();
        ignore_missing(unistd::unlinkat(
            &self.0,
            name.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        ))
    }

    /// Removes an empty directory.
    pub fn remove_dir<'a>(&self, name: impl Into<Name<'a>>) -> Result<()> {
        unistd::unlinkat(&self.0, name.into().as_os_str(), UnlinkatFlags::RemoveDir)
    }

    /// Returns the names in this directory, sorted, without `.` and `..`.
    pub fn names(&self) -> Result<Vec<OsString>> {
        self.names_up_to(usize::MAX)
    }

    /// As [`Dir::names`]. Fails with `EOVERFLOW` after `max` names: the owner of the
    /// directory must not be able to fill the memory of a command of root's.
    pub fn names_up_to(&self, max: usize) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.for_each_entry(|name, _| {
            if names.len() == max {
                return Err(Errno::EOVERFLOW);
            }
            names.push(name);
            Ok(())
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the names in this directory, sorted, each with its file type.
    ///
    /// Most file systems list the type with the name. For those that do not, this
    /// looks it up, and leaves out what is gone by then.
    pub fn entries_with_type(&self) -> Result<Vec<(OsString, SFlag)>> {
        self.entries_with_type_up_to(usize::MAX)
    }

    /// As [`Dir::entries_with_type`], with the limit of [`Dir::names_up_to`].
    pub fn entries_with_type_up_to(&self, max: usize) -> Result<Vec<(OsString, SFlag)>> {
        let mut entries = Vec::new();
        self.for_each_entry(|name, listed| {
            if entries.len() == max {
                return Err(Errno::EOVERFLOW);
            }
            let listed = listed.map(|listed| match listed {
                Type::Fifo => SFlag::S_IFIFO,
                Type::CharacterDevice => SFlag::S_IFCHR,
                Type::Directory => SFlag::S_IFDIR,
                Type::BlockDevice => SFlag::S_IFBLK,
                Type::File => SFlag::S_IFREG,
                Type::Symlink => SFlag::S_IFLNK,
                Type::Socket => SFlag::S_IFSOCK,
            });
            let found = match (listed, Name::new(name.as_bytes())) {
                (Some(listed), _) => Ok(listed),
                (None, Some(name)) => self.stat(name).map(|stat| file_type(&stat)),
                (None, None) => Err(Errno::EINVAL),
            };
            match found {
                Ok(found) => entries.push((name, found)),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            Ok(())
        })?;
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(entries)
    }

    /// Passes each name in this directory to `each`, in no order, with its file type
    /// where the file system lists it. `each` may remove what it is given (readdir(3)).
    fn for_each_entry(
        &self,
        mut each: impl FnMut(OsString, Option<Type>) -> Result<()>,
    ) -> Result<()> {
        let mut dir = nix::dir::Dir::openat(&self.0, ".", DIRECTORY, Mode::empty())?;
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                each(OsString::from_vec(name.to_vec()), entry.file_type())?;
            }
        }
        Ok(())
    }

    /// Opens a path of several components below this directory with `O_PATH`.
    ///
    /// The kernel refuses a path that leads out (`EXDEV`), by `..` or by a symlink,
    /// and fails with `ELOOP` on a loop of symlinks (openat2(2)). `EAGAIN`: other
    /// processes rename files all the time.
    pub fn resolve_beneath(&self, path: &Path) -> Result<OwnedFd> {
        self.resolve(path, ResolveFlag::RESOLVE_BENEATH)
    }

    /// As [`Dir::resolve_beneath`]. A path that crosses a mount leads out as well: see
    /// `mount.rs`.
    pub fn resolve_in_mount(&self, path: &Path) -> Result<OwnedFd> {
        let both = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV;
        self.resolve(path, both)
    }

    fn resolve(&self, path: &Path, within: ResolveFlag) -> Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(within | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        retry(|| fcntl::openat2(&self.0, path, how))
    }

    /// Makes this directory's own entries durable.
    pub fn sync(&self) -> Result<()> {
        unistd::fsync(&self.0)
    }

    /// Makes the whole file system durable, by one call for many small files.
    pub fn sync_file_system(&self) -> Result<()> {
        unistd::syncfs(&self.0)
    }

    /// Returns whether the file system commits changes in the order in which they are
    /// made: once a change is durable, every earlier one is. ext4 and xfs do, each by
    /// its one journal. (An ext2, or an ext4 without a journal, does not, and looks
    /// like an ext4 that has one.)
    pub fn commits_in_order(&self) -> bool {
        let in_order = [statfs::EXT4_SUPER_MAGIC, statfs::XFS_SUPER_MAGIC];
        statfs::fstatfs(&self.0).is_ok_and(|found| in_order.contains(&found.filesystem_type()))
    }

    /// Returns the bytes and inodes of the file system: free to this user, and in all.
    pub fn space(&self) -> Result<Space> {
        let found = statvfs::fstatvfs(&self.0)?;
        Ok(Space {
            block: found.fragment_size(),
            free_bytes: found.blocks_available() * found.fragment_size(),
            total_bytes: found.blocks() * found.fragment_size(),
            free_inodes: found.files_available(),
            total_inodes: found.files(),
        })
    }

    /// Takes an exclusive lock on this directory (flock(2)) without waiting. Returns
    /// false if another process holds it. Dropping the handle releases the lock.
    pub fn try_lock(&self) -> std::io::Result<bool> {
        // The lock belongs to the open directory, and so outlives this duplicate.
        let file = File::from(self.0.try_clone()?);
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Sets the permission bits of this directory itself.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        stat::fchmod(&self.0, Mode::from_bits_truncate(mode))
    }

    /// Checks that this process may make and remove names in this directory (access(2),
    /// with its effective user and groups).
    pub fn check_writable(&self) -> Result<()> {
        let access = AccessFlags::W_OK | AccessFlags::X_OK;
        unistd::faccessat(&self.0, ".", access, AtFlags::AT_EACCESS)
    }

    /// Returns the status of this directory itself.
    pub fn metadata(&self) -> Result<FileStat> {
        stat::fstat(&self.0)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The space of a file system. Inodes are 0 of 0 where it has no table of them
/// (btrfs).
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// The size of a block.
    pub block: u64,
    pub free_bytes: u64,
    pub total_bytes: u64,
    pub free_inodes: u64,
    pub total_inodes: u64,
}

/// Requires a file that was opened to be a regular one. Another fails with `EISDIR`, or
/// with `ENXIO`, the errno with which open(2) refuses a socket: a device could be without
/// end, and a fifo would read as an empty file.
fn regular(file: OwnedFd) -> Result<File> {
    match file_type(&stat::fstat(&file)?) {
        SFlag::S_IFREG => Ok(File::from(file)),
        SFlag::S_IFDIR => Err(Errno::EISDIR),
        _ => Err(Errno::ENXIO),
    }
}

/// Returns the file type in `stat`.
pub fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Repeats a resolution that other processes disturb: `EAGAIN` says that one renamed
/// something while the kernel resolved a '..', so that the kernel could not exclude an
/// escape. One that never stops renaming must not keep this process here, so the number
/// of attempts is limited. Few are ever needed.
fn retry<T>(mut resolve: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..MAX_ATTEMPTS {
        match resolve() {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
    resolve()
}

fn ignore_missing(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolution_that_is_always_disturbed_fails() {
        let mut attempts = 0;
        let always = retry(|| {
            attempts += 1;
            Err::<(), _>(Errno::EAGAIN)
        });
        assert_eq!((always, attempts), (Err(Errno::EAGAIN), MAX_ATTEMPTS));
        let mut disturbed = [Errno::EAGAIN, Errno::EINTR].into_iter();
        assert_eq!(retry(|| disturbed.next().map_or(Ok(()), Err)), Ok(()));
        let refused = retry(|| Err::<(), _>(Errno::EXDEV));
        assert_eq!(refused, Err(Errno::EXDEV));
    }
}
