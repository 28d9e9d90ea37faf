//! Paths of several components without openat2(2), for the unpacker.
//!
//! openat2(2) has its flags in memory, where no seccomp filter reads them, and one of
//! them is `O_TRUNC`: with it and the access mode 3, which asks for neither reading nor
//! writing, a process empties any file that its user may write. Landlock controls that
//! only from Linux 6.2 on. So the unpacker may call openat(2) alone, without `O_TRUNC`.
//!
//! The walk opens one component after the other and follows no symlink by the kernel: it
//! reads the target and walks that. For `..` it returns to the handle that it came from,
//! and never asks the kernel for the directory above. So it cannot leave its first
//! directory. The tests compare the results with those of openat2(2). The monitor, which
//! does not trust the unpacker, resolves the same symlinks by openat2(2) afterwards.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;

use super::{Dir, Name, Result};

/// How many symlinks one path may lead through, as in the kernel (path_resolution(7)).
pub const MAX_SYMLINKS: usize = 40;

/// How many components one path may have, those of its symlinks included. A release is
/// 32 directories deep, so an ordinary path has far fewer. Without a limit, 40 symlinks
/// with targets of 1,024 bytes have 20,000.
pub const MAX_STEPS: usize = 2048;

impl Dir {
    /// Opens a path of several components below this directory with `O_PATH`, and
    /// follows symlinks.
    ///
    /// Fails with `EXDEV` if the path leads out, by `..` or by a symlink, and with
    /// `ELOOP` on a loop of symlinks or a path with too many components.
    pub fn walk_beneath(&self, path: &Path) -> Result<OwnedFd> {
        // The directories between this one and the present one, and what is left to
        // walk, the next component last.
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut left = Vec::new();
        push_components(&mut left, path.as_os_str())?;
        let (mut steps, mut symlinks) = (0, 0);
        // Terminates: each round is one of at most `MAX_STEPS`.
        while let Some(component) = left.pop() {
            steps += 1;
            if steps > MAX_STEPS {
                return Err(Errno::ELOOP);
            }
            let name = match component.as_bytes() {
                b"." => continue,
                b".." => {
                    above.pop().ok_or(Errno::EXDEV)?;
                    continue;
                }
                name => OsStr::from_bytes(name),
            };
            let here = above.last().map_or(self.as_fd(), AsFd::as_fd);
            match fcntl::readlinkat(here, name) {
                Ok(_) if symlinks == MAX_SYMLINKS => return Err(Errno::ELOOP),
                Ok(target) => {
                    symlinks += 1;
                    push_components(&mut left, &target)?;
                }
                // It is not a symlink.
                Err(Errno::EINVAL) if left.is_empty() => {
                    return open_path(here, name, OFlag::empty());
                }
                Err(Errno::EINVAL) => above.push(open_path(here, name, OFlag::O_DIRECTORY)?),
                Err(errno) => return Err(errno),
            }
        }
        match above.pop() {
            Some(directory) => Ok(directory),
            None => open_path(self, OsStr::new("."), OFlag::O_DIRECTORY),
        }
    }

    /// Returns the target of a symlink at a path of several components below this
    /// directory.
    pub fn read_link_beneath(&self, path: &Path) -> Result<OsString> {
        let (parent, name) = self.parent_beneath(path)?;
        parent.as_ref().unwrap_or(self).read_link(name)
    }

    /// Opens a file of this directory for reading. The unpacker and the assembler call it for
    /// a file of this upload.
    ///
    /// Reading it leaves its access time alone. Otherwise the first read after a write would
    /// change every inode again (`relatime`, mount(8)), and the final sync would write it
    /// again: a tenth of the assembler's processor time on ext4.
    pub fn open_own_file<'a>(&self, name: impl Into<Name<'a>>) -> Result<File> {
        let name = name.into().as_os_str();
        let open = |flags| fcntl::openat(self, name, flags, Mode::empty()).map(File::from);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match open(flags | OFlag::O_NOATIME) {
            // A file of another account. `assemble/staged.rs` refuses a linked one with its path.
            Err(Errno::EPERM) => open(flags),
            opened => opened,
        }
    }

    /// Opens the directory that a path of several components leads to without its last
    /// one, and returns that as well. The directory is `None` if it is this one.
    fn parent_beneath<'a>(&self, path: &'a Path) -> Result<(Option<Dir>, Name<'a>)> {
        let mut parent: Option<Dir> = None;
        let mut components = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
        let mut component = components.next().unwrap_or_default();
        loop {
            let name = Name::new(component).ok_or(Errno::EINVAL)?;
            let Some(next) = components.next() else {
                return Ok((parent, name));
            };
            parent = Some(parent.as_ref().unwrap_or(self).open_path(name)?);
            component = next;
        }
    }
}

/// Pushes the components of `path`, the first one last.
///
/// # Errors
///
/// `ENOENT` for an empty path, and `EXDEV` for an absolute one.
fn push_components(left: &mut Vec<OsString>, path: &OsStr) -> Result<()> {
    let bytes = path.as_bytes();
    match bytes.first() {
        None => return Err(Errno::ENOENT),
        Some(b'/') => return Err(Errno::EXDEV),
        Some(_) => {}
    }
    // A slash at the end says that the component before it is a directory.
    if bytes.ends_with(b"/") {
        left.push(".".into());
    }
    let components = bytes.rsplit(|byte| *byte == b'/');
    left.extend(
        components
            .filter(|component| !component.is_empty())
            .map(|component| OsStr::from_bytes(component).to_owned()),
    );
    Ok(())
}

/// Opens one component with `O_PATH`, also a symlink.
fn open_path(directory: impl AsFd, name: &OsStr, more: OFlag) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | more;
    fcntl::openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::{FileStat, fstat};
    use proptest::prelude::*;

    fn identity(found: Result<OwnedFd>) -> Result<(u64, u64)> {
        let stat: FileStat = fstat(found?)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    fn path() -> impl Strategy<Value = String> {
        let component = prop::sample::select(&["a", "b", "c", "d", "e", "f", ".", "..", ""][..]);
        prop::collection::vec(component, 1..7).prop_map(|components| components.join("/"))
    }

    proptest! {
        /// The tree has directories, files and symlinks of one alphabet, so most paths
        /// lead somewhere, and many of them out.
        #[test]
        fn every_path_leads_where_the_kernel_leads(
            entries in prop::collection::vec((path(), 0..3u8, path()), 1..25),
            paths in prop::collection::vec(path(), 30),
        ) {
            let temporary = tempfile::tempdir().unwrap();
            let root = temporary.path().join("root");
            fs::create_dir_all(root.join("a/b")).unwrap();
            let directory = Dir::open_root(&root).unwrap();
            for (at, kind, target) in entries {
                let at = at.trim_start_matches('/');
                let (above, name) = at.rsplit_once('/').unwrap_or((".", at));
                // Beneath the root only: by their paths, some would be made in `/`.
                let Ok(above) = directory.resolve_beneath(Path::new(above)) else {
                    continue;
                };
                let at = format!("/proc/self/fd/{}/{name}", above.as_raw_fd());
                // Many of them exist already, or are below a file: that is no failure.
                _ = match kind {
                    0 => fs::create_dir(at),
                    1 => fs::File::create_new(at).map(drop),
                    _ => symlink(target, at),
                };
            }
            for path in paths {
                let ours = directory.walk_beneath(Path::new(&path));
                let kernels = directory.resolve_beneath(Path::new(&path));
                prop_assert_eq!(identity(ours), identity(kernels), "{}", path);
            }
        }
    }

    #[test]
    fn loops_and_long_chains_are_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("c0"), "").unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for link in 1..=41 {
            symlink(format!("c{}", link - 1), root.join(format!("c{link}"))).unwrap();
        }
        let directory = Dir::open_root(root).unwrap();
        for path in ["loop", "loop/x", "c40", "c41"] {
            let ours = identity(directory.walk_beneath(Path::new(path)));
            assert_eq!(
                ours,
                identity(directory.resolve_beneath(Path::new(path))),
                "{path}"
            );
        }
        let long = |steps: usize| format!("{}c0", "d/../".repeat(steps / 2));
        let ends = |path: &str| directory.walk_beneath(Path::new(path)).map(drop);
        assert_eq!(ends(&long(MAX_STEPS - 2)), Ok(()));
        assert_eq!(ends(&long(MAX_STEPS)), Err(Errno::ELOOP));
    }

    #[test]
    fn a_path_without_symlinks_is_read_and_any_other_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a", root.join("s")).unwrap();
        symlink("over/there", root.join("a/b/link")).unwrap();
        let directory = Dir::open_root(root).unwrap();
        let read = |path| directory.read_link_beneath(Path::new(path));
        assert_eq!(read("a/b/link"), Ok("over/there".into()));
        assert_eq!(read("s/b/link"), Err(Errno::ENOTDIR));
        for path in ["a/../a/b/link", "/a/b/link", "a/b/link/", "", "."] {
            assert!(read(path).is_err(), "{path}");
        }
    }
}
