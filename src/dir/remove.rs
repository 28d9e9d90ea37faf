//! Removal of whole trees, which never crosses a mount.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{self, UnlinkatFlags};

use super::{Dir, Name, ignore_missing};

/// What the removal of a tree has left.
#[derive(Debug, PartialEq, Eq)]
pub struct NotRemoved {
    /// The path of the first file or directory that is left, from the directory in
    /// which the tree is.
    pub path: PathBuf,
    pub errno: Errno,
}

impl NotRemoved {
    /// Returns whether a file system is mounted there.
    pub fn is_mount(&self) -> bool {
        // openat2(2) fails with EXDEV at a directory, unlinkat(2) with EBUSY at a file
        // or directory on which something is mounted.
        matches!(self.errno, Errno::EXDEV | Errno::EBUSY)
    }
}

impl Dir {
    /// Removes `name`, with everything below it. It removes symlinks and never follows
    /// them.
    ///
    /// A file system that is mounted below it stays as it is, with the directories
    /// above it: the content is not part of the tree. Removal does not even look at it, because
    /// a mount may stall.
    ///
    /// # Errors
    ///
    /// The first failure. Removal goes on with everything else.
    pub fn remove_tree<'a>(
        &self,
        name: impl Into<Name<'a>>,
    ) -> std::result::Result<(), NotRemoved> {
        let name = name.into();
        let failed = |errno| NotRemoved {
            path: PathBuf::from(name.as_os_str()),
            errno,
        };
        match unistd::unlinkat(&self.0, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {}
            other => return ignore_missing(other).map_err(failed),
        }
        let directory = match self.open_dir_of_this_mount(name) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        let mut left = None;
        // Terminates: a tree that this program made is at most 32 directories deep. In
        // any other tree the recursion fails when the descriptors run out.
        for entry in directory.names().map_err(failed)? {
            let Some(entry) = Name::new(entry.as_encoded_bytes()) else {
                return Err(failed(Errno::EINVAL));
            };
            if let Err(below) = directory.remove_tree(entry) {
                left.get_or_insert(NotRemoved {
                    path: Path::new(name.as_os_str()).join(below.path),
                    errno: below.errno,
                });
            }
        }
        match left {
            Some(left) => Err(left),
            None => ignore_missing(unistd::unlinkat(
                &self.0,
                name.as_os_str(),
                UnlinkatFlags::RemoveDir,
            ))
            .map_err(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn everything_but_what_cannot_be_removed_is_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let tree = temporary.path().join("tree");
        for directory in ["a/b", "kept/deep", "z"] {
            fs::create_dir_all(tree.join(directory)).unwrap();
            fs::write(tree.join(directory).join("file"), "x").unwrap();
        }
        std::os::unix::fs::symlink("/", tree.join("root")).unwrap();
        let dir = Dir::open_root(temporary.path()).unwrap();
        let kept = tree.join("kept/deep");
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o500)).unwrap();
        let removed = dir.remove_tree(Name::new(b"tree").unwrap());
        if !nix::unistd::geteuid().is_root() {
            let left = NotRemoved {
                path: PathBuf::from("tree/kept/deep/file"),
                errno: Errno::EACCES,
            };
            assert!(!left.is_mount());
            assert_eq!(removed, Err(left));
            assert_eq!(fs::read_dir(&tree).unwrap().count(), 1);
            fs::set_permissions(&kept, fs::Permissions::from_mode(0o700)).unwrap();
        }
        assert_eq!(dir.remove_tree(Name::new(b"tree").unwrap()), Ok(()));
        assert_eq!(dir.remove_tree(Name::new(b"tree").unwrap()), Ok(()));
        assert!(!tree.exists());
    }
}
