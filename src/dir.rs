//! Folder handles, the only path resolver there is.
//!
//! A [`Dir`] is an open folder, and every operation takes one name below it: a
//! [`Name`] is a single component, never `.` or `..`. A single component that
//! is opened without following a link cannot lead anywhere else, so nothing
//! here checks a path and opens it again. The few paths of several components
//! (required paths, links in a release) go through openat2(2) with
//! `RESOLVE_BENEATH`, where the kernel itself holds them below the handle.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag};
use nix::sys::stat::{self, FileStat, Mode, SFlag};
use nix::sys::{statfs, statvfs};
use nix::unistd::{self, UnlinkatFlags};

use crate::escape;
use crate::names::{LinkName, ReleaseId};

/// What every system call of this module returns.
pub type Result<T> = nix::Result<T>;

/// One path component: never empty, `.` or `..`, at most 255 bytes, without `/`
/// and NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Returns `bytes` as a component, if they are one.
    pub const fn new(bytes: &'a [u8]) -> Option<Name<'a>> {
        if is_component(bytes) {
            Some(Name(bytes))
        } else {
            None
        }
    }

    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    pub fn as_os_str(self) -> &'a OsStr {
        OsStr::from_bytes(self.0)
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape::escape(self.0))
    }
}

impl AsRef<Path> for Name<'_> {
    fn as_ref(&self) -> &Path {
        Path::new(self.as_os_str())
    }
}

impl Name<'static> {
    /// Returns a name that is written in this program's source. As a constant, a
    /// bad one does not compile.
    pub const fn literal(text: &'static str) -> Self {
        assert!(is_component(text.as_bytes()), "not one path component");
        Name(text.as_bytes())
    }
}

const fn is_component(bytes: &[u8]) -> bool {
    if bytes.len() > 255 || matches!(bytes, b"" | b"." | b"..") {
        return false;
    }
    let mut rest = bytes;
    while let [byte, after @ ..] = rest {
        if matches!(byte, b'/' | 0) {
            return false;
        }
        rest = after;
    }
    true
}

// Both alphabets are without '/', and neither type can be '.' or '..'.
impl<'a> From<&'a ReleaseId> for Name<'a> {
    fn from(release: &'a ReleaseId) -> Self {
        Name(release.as_str().as_bytes())
    }
}

impl<'a> From<&'a LinkName> for Name<'a> {
    fn from(link: &'a LinkName) -> Self {
        Name(link.as_str().as_bytes())
    }
}

/// An open folder.
#[derive(Debug)]
pub struct Dir(OwnedFd);

const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

impl Dir {
    /// Opens the site's root, the one path that comes whole from the operator.
    pub fn open_root(path: &Path) -> Result<Dir> {
        fcntl::open(path, FOLDER, Mode::empty()).map(Dir)
    }

    /// The folder this process was started in.
    pub fn working() -> Result<Dir> {
        fcntl::open(".", FOLDER, Mode::empty()).map(Dir)
    }

    pub fn open_dir<'a>(&self, name: impl Into<Name<'a>>) -> Result<Dir> {
        fcntl::openat(&self.0, name.into().as_os_str(), FOLDER, Mode::empty()).map(Dir)
    }

    /// Opens a folder as a bare handle, to resolve paths beneath it and not to
    /// read it: that takes no right on it but to search it.
    pub fn open_bare<'a>(&self, name: impl Into<Name<'a>>) -> Result<Dir> {
        let flags = FOLDER | OFlag::O_PATH;
        fcntl::openat(&self.0, name.into().as_os_str(), flags, Mode::empty()).map(Dir)
    }

    /// Makes a folder; it must not exist.
    pub fn make_dir<'a>(&self, name: impl Into<Name<'a>>, mode: u32) -> Result<()> {
        stat::mkdirat(
            &self.0,
            name.into().as_os_str(),
            Mode::from_bits_truncate(mode),
        )
    }

    /// Opens a file that exists, to read it.
    pub fn open_file<'a>(&self, name: impl Into<Name<'a>>) -> Result<File> {
        self.open_with(name.into(), OFlag::O_RDONLY, 0)
    }

    /// Opens a file to read it and to append to it, making it if need be.
    pub fn open_append<'a>(&self, name: impl Into<Name<'a>>, mode: u32) -> Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT;
        self.open_with(name.into(), flags, mode)
    }

    /// Opens a file to read it and to write over it, making it if need be.
    pub fn open_over<'a>(&self, name: impl Into<Name<'a>>, mode: u32) -> Result<File> {
        self.open_with(name.into(), OFlag::O_RDWR | OFlag::O_CREAT, mode)
    }

    /// Makes a file that must not exist, to write it.
    pub fn create_new<'a>(&self, name: impl Into<Name<'a>>, mode: u32) -> Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        self.open_with(name.into(), flags, mode)
    }

    // O_NONBLOCK: a fifo in the place of a file must not make us wait. It has
    // no effect on regular files.
    fn open_with(&self, name: Name<'_>, flags: OFlag, mode: u32) -> Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let mode = Mode::from_bits_truncate(mode);
        fcntl::openat(&self.0, name.as_os_str(), flags, mode).map(File::from)
    }

    /// An unnamed file in this folder's file system: it is gone with its last
    /// handle, whatever ends the process (`O_TMPFILE`, open(2)).
    pub fn unnamed_file(&self) -> Result<File> {
        // O_EXCL: it can never be given a name.
        let flags = OFlag::O_TMPFILE | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        fcntl::openat(&self.0, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    }

    /// What `name` is, itself: links are not followed.
    pub fn stat<'a>(&self, name: impl Into<Name<'a>>) -> Result<FileStat> {
        stat::fstatat(
            &self.0,
            name.into().as_os_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
    }

    /// Whether anything stands at `name`. That it cannot be told is an error: it
    /// must not be taken for "no".
    pub fn exists<'a>(&self, name: impl Into<Name<'a>>) -> Result<bool> {
        match self.stat(name) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    pub fn read_link<'a>(&self, name: impl Into<Name<'a>>) -> Result<OsString> {
        fcntl::readlinkat(&self.0, name.into().as_os_str())
    }

    /// The target of a link at a path of several components below this folder.
    pub fn read_link_beneath(&self, path: &Path) -> Result<OsString> {
        // Only the last component may be a link, and it is not followed.
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let link = fcntl::openat2(&self.0, path, how)?;
        fcntl::readlinkat(&link, "")
    }

    /// Makes a symbolic link; nothing may stand there.
    pub fn symlink<'a>(&self, target: &OsStr, name: impl Into<Name<'a>>) -> Result<()> {
        unistd::symlinkat(target, &self.0, name.into().as_os_str())
    }

    /// Renames; whatever stands at `to` is replaced in the same instant.
    pub fn rename<'a, 'b>(
        &self,
        from: impl Into<Name<'a>>,
        folder: &Dir,
        to: impl Into<Name<'b>>,
    ) -> Result<()> {
        let (from, to) = (from.into(), to.into());
        fcntl::renameat(&self.0, from.as_os_str(), &folder.0, to.as_os_str())
    }

    /// Renames; fails with `EEXIST` if anything stands at `to`.
    pub fn rename_new<'a, 'b>(
        &self,
        from: impl Into<Name<'a>>,
        folder: &Dir,
        to: impl Into<Name<'b>>,
    ) -> Result<()> {
        let (from, to) = (from.into(), to.into());
        let flags = RenameFlags::RENAME_NOREPLACE;
        fcntl::renameat2(&self.0, from.as_os_str(), &folder.0, to.as_os_str(), flags)
    }

    /// Removes a file or a link; that it is gone already is no error.
    pub fn remove_file<'a>(&self, name: impl Into<Name<'a>>) -> Result<()> {
        let name = name.into();
        gone_is_fine(unistd::unlinkat(
            &self.0,
            name.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        ))
    }

    /// Removes whatever `name` is, with all below it. Links are removed, never followed.
    pub fn remove_tree<'a>(&self, name: impl Into<Name<'a>>) -> Result<()> {
        let name = name.into();
        match unistd::unlinkat(&self.0, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {}
            other => return gone_is_fine(other),
        }
        // Recursion is bounded: what we made is at most 32 folders deep, and in
        // what another made it ends where no more descriptors are to be had.
        match self.open_dir(name) {
            Ok(folder) => {
                for entry in folder.names()? {
                    folder.remove_tree(Name::new(entry.as_bytes()).ok_or(Errno::EINVAL)?)?;
                }
            }
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
        gone_is_fine(unistd::unlinkat(
            &self.0,
            name.as_os_str(),
            UnlinkatFlags::RemoveDir,
        ))
    }

    /// The names in this folder, sorted, without `.` and `..`.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.entries(|name, _| {
            names.push(name);
            Ok(())
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// The names in this folder, sorted, and what each itself is.
    ///
    /// Most file systems tell the type with the name; for those that do not, it
    /// is looked up, and none is returned for what is gone by then.
    pub fn kinds(&self) -> Result<Vec<(OsString, SFlag)>> {
        let mut kinds = Vec::new();
        self.entries(|name, told| {
            let told = told.map(|told| match told {
                Type::Fifo => SFlag::S_IFIFO,
                Type::CharacterDevice => SFlag::S_IFCHR,
                Type::Directory => SFlag::S_IFDIR,
                Type::BlockDevice => SFlag::S_IFBLK,
                Type::File => SFlag::S_IFREG,
                Type::Symlink => SFlag::S_IFLNK,
                Type::Socket => SFlag::S_IFSOCK,
            });
            let looked_up = match (told, Name::new(name.as_bytes())) {
                (Some(told), _) => Ok(told),
                (None, Some(name)) => self.stat(name).map(|stat| kind(&stat)),
                (None, None) => Err(Errno::EINVAL),
            };
            match looked_up {
                Ok(kind) => kinds.push((name, kind)),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            Ok(())
        })?;
        kinds.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(kinds)
    }

    /// Gives `each` name in this folder, in no order, with what it is as far as
    /// the file system tells.
    fn entries(&self, mut each: impl FnMut(OsString, Option<Type>) -> Result<()>) -> Result<()> {
        let mut dir = nix::dir::Dir::openat(&self.0, ".", FOLDER, Mode::empty())?;
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                each(OsString::from_vec(name.to_vec()), entry.file_type())?;
            }
        }
        Ok(())
    }

    /// Opens a path of several components below this folder as a bare handle.
    ///
    /// The kernel refuses whatever leads out (`EXDEV`), by `..` or by a link,
    /// and fails with `ELOOP` on a ring of links (openat2(2)).
    pub fn resolve_beneath(&self, path: &Path) -> Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            // EAGAIN: something, somewhere, was renamed while '..' was walked,
            // and the kernel could not tell that nothing escaped. Ends, because
            // renames do not fall into this short a walk again and again.
            match fcntl::openat2(&self.0, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// Makes this folder's own entries durable.
    pub fn sync(&self) -> Result<()> {
        unistd::fsync(&self.0)
    }

    /// Makes the whole file system durable: one call for many small files.
    pub fn sync_file_system(&self) -> Result<()> {
        unistd::syncfs(&self.0)
    }

    /// Whether the file system commits what is done to it in one order: when
    /// anything is durable, all that was done before it is. ext4 and xfs do, each
    /// by its one journal. (An ext2, or an ext4 without a journal, does not, and cannot
    /// be told from one that has it.)
    pub fn commits_in_order(&self) -> bool {
        let in_order = [statfs::EXT4_SUPER_MAGIC, statfs::XFS_SUPER_MAGIC];
        statfs::fstatfs(&self.0).is_ok_and(|found| in_order.contains(&found.filesystem_type()))
    }

    /// Bytes and inodes: free to this user, and in all.
    pub fn space(&self) -> Result<Space> {
        let found = statvfs::fstatvfs(&self.0)?;
        Ok(Space {
            free_bytes: found.blocks_available() * found.fragment_size(),
            total_bytes: found.blocks() * found.fragment_size(),
            free_inodes: found.files_available(),
            total_inodes: found.files(),
        })
    }

    /// What this folder itself is.
    pub fn own_stat(&self) -> Result<FileStat> {
        stat::fstat(&self.0)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> OwnedFd {
        dir.0
    }
}

/// A file system's room. Inodes are 0 of 0 where it has no table of them (btrfs).
#[derive(Clone, Copy, Debug)]
pub struct Space {
    pub free_bytes: u64,
    pub total_bytes: u64,
    pub free_inodes: u64,
    pub total_inodes: u64,
}

/// The type bits of `stat`.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}
