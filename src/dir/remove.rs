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
    /// Returns what makes an error of `name`.
    fn of(name: Name<'_>) -> impl Fn(Errno) -> NotRemoved {
        move |errno| NotRemoved {
            path: PathBuf::from(name.as_os_str()),
            errno,
        }
    }

    /// Returns the same, from the directory in which `name` is.
    fn below(self, name: Name<'_>) -> NotRemoved {
        NotRemoved {
            path: Path::new(name.as_os_str()).join(self.path),
            errno: self.errno,
        }
    }

    /// Returns whether a file system is mounted there.
    pub fn is_mount(&self) -> bool {
        // openat2(2) fails with EXDEV at a directory, unlinkat(2) with EBUSY at a file
        // or directory on which something is mounted.
        matches!(self.errno, Errno::EXDEV | Errno::EBUSY)
    }
}

/// The maximum depth of the directories that a removal has open, each with two descriptors. A tree
/// that this program made is at most 32 deep.
const MAX_OPEN: u32 = 64;

/// The level from which directories are moved up. Each of them has another [`MAX_OPEN`] - `MOVED`
/// levels of its own below it, so a tree of any shape needs at most one move for 32 directories.
const MOVED: u32 = 32;

/// The maximum number of directories that one removal moves up, so at least 320,000 directories are
/// removed. A process of the account can make more while the removal runs, which may hold the lock.
const MAX_MOVED: u64 = 10_000;

/// The maximum number of names that one removal tries for the directories that it moves. The maker
/// of the tree may have used some of them.
const MAX_TRIED: u64 = 1_000_000;

/// Returns the name in the top for a directory that is moved there.
fn moved_name(number: u64) -> String {
    format!("moved-{number}")
}

/// A tree that is being removed.
struct Removal<'a> {
    /// Its directory.
    top: &'a Dir,
    /// How many directories were moved into `top`.
    moved: u64,
    /// How many names it has tried for them: the last one is [`moved_name`] of this number.
    tried: u64,
    /// Whether it has met a directory at the level [`MAX_OPEN`]. It then goes back to the level
    /// [`MOVED`].
    is_too_deep: bool,
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
    /// The first failure. Removal goes on with everything else, but for what is beside a directory
    /// that it cannot move up.
    pub fn remove_tree<'a>(
        &self,
        name: impl Into<Name<'a>>,
    ) -> std::result::Result<(), NotRemoved> {
        let name = name.into();
        let failed = NotRemoved::of(name);
        let Some(top) = self.remove_file_or_open(name).map_err(&failed)? else {
            return Ok(());
        };
        let mut removal = Removal::of(&top);
        let mut emptied = removal.empty(&top, name, 0);
        // By their names: to list the top again after each move takes long where many names were
        // in it. Terminates: there are at most MAX_TRIED names.
        let mut number = 0;
        while number < removal.tried {
            number += 1;
            let moved = moved_name(number);
            let moved = Name::new(moved.as_bytes()).ok_or(failed(Errno::EINVAL))?;
            let removed = removal.remove(&top, moved, 0);
            emptied = emptied.and(removed.map_err(|left| left.below(name)));
        }
        emptied?;
        self.remove_emptied(name).map_err(&failed)
    }

    /// Removes `name` if it is no directory. Else opens it.
    fn remove_file_or_open(&self, name: Name<'_>) -> nix::Result<Option<Dir>> {
        match unistd::unlinkat(&self.0, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {}
            other => return ignore_missing(other).map(|()| None),
        }
        match self.open_dir_of_this_mount(name) {
            Err(Errno::ENOENT) => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn remove_emptied(&self, name: Name<'_>) -> nix::Result<()> {
        ignore_missing(unistd::unlinkat(
            &self.0,
            name.as_os_str(),
            UnlinkatFlags::RemoveDir,
        ))
    }
}

impl<'a> Removal<'a> {
    fn of(top: &'a Dir) -> Removal<'a> {
        Removal {
            top,
            moved: 0,
            tried: 0,
            is_too_deep: false,
        }
    }

    /// Removes what is in `directory`, which is at `name` and `depth` below the top.
    fn empty(
        &mut self,
        directory: &Dir,
        name: Name<'_>,
        depth: u32,
    ) -> std::result::Result<(), NotRemoved> {
        let failed = NotRemoved::of(name);
        let mut left = None;
        // Not a list of all names: a compromised unpacker can make more of them than fit into
        // memory, and each later request would try again.
        let listed = directory.for_each_entry(|entry, _| {
            let entry = Name::new(entry.as_encoded_bytes()).ok_or(Errno::EINVAL)?;
            if let Err(below) = self.remove(directory, entry, depth) {
                left.get_or_insert(below.below(name));
            }
            if self.is_too_deep {
                return Err(Errno::ENAMETOOLONG);
            }
            Ok(())
        });
        match left {
            Some(left) => Err(left),
            None => listed.map_err(&failed),
        }
    }

    fn remove(
        &mut self,
        parent: &Dir,
        name: Name<'_>,
        depth: u32,
    ) -> std::result::Result<(), NotRemoved> {
        let failed = NotRemoved::of(name);
        let Some(directory) = parent.remove_file_or_open(name).map_err(&failed)? else {
            return Ok(());
        };
        // A process of the account, such as a compromised unpacker, can make any depth. With a
        // descriptor for each level, the descriptors would run out, and the tree would stay.
        if depth == MAX_OPEN {
            self.is_too_deep = true;
            return Err(failed(Errno::ENAMETOOLONG));
        }
        let emptied = self.empty(&directory, name, depth + 1);
        if self.is_too_deep && depth == MOVED {
            return self.move_up(parent, name).map_err(&failed);
        }
        emptied?;
        parent.remove_emptied(name).map_err(&failed)
    }

    /// Moves a directory into the top, to be removed after everything else.
    fn move_up(&mut self, parent: &Dir, name: Name<'_>) -> nix::Result<()> {
        self.is_too_deep = false;
        while self.moved < MAX_MOVED && self.tried < MAX_TRIED {
            self.tried += 1;
            let free = moved_name(self.tried);
            let free = Name::new(free.as_bytes()).ok_or(Errno::EINVAL)?;
            match parent.rename_new(name, self.top, free) {
                Err(Errno::EEXIST) => {}
                moved => {
                    self.moved += u64::from(moved.is_ok());
                    return moved;
                }
            }
        }
        Err(Errno::ENAMETOOLONG)
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

    /// As deep as a process of the account can make it.
    #[test]
    fn a_tree_that_is_deeper_than_the_number_of_descriptors_is_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temporary.path()).unwrap();
        let name = Name::new(b"tree").unwrap();
        let mut at = Dir::open_root(temporary.path()).unwrap();
        for level in 0..1_500 {
            at.make_dir(name, 0o755).unwrap();
            at = at.open_dir(name).unwrap();
            // Names that the removal takes.
            if level % 500 == 0 {
                for other in ["moved-1", "moved-2"] {
                    at.make_dir(Name::new(other.as_bytes()).unwrap(), 0o755)
                        .unwrap();
                }
            }
        }
        assert_eq!(dir.remove_tree(name), Ok(()));
        assert!(fs::read_dir(temporary.path()).unwrap().next().is_none());
    }

    /// Each directory at the limit would need a move of its own, and there may be more of them
    /// than moves.
    #[test]
    fn a_directory_is_moved_with_all_that_is_too_deep_in_it() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temporary.path()).unwrap();
        let name = Name::new(b"tree").unwrap();
        dir.make_dir(name, 0o755).unwrap();
        let mut at = dir.open_dir(name).unwrap();
        let top = dir.open_dir(name).unwrap();
        for _ in 0..=MAX_OPEN {
            at.make_dir(name, 0o755).unwrap();
            at = at.open_dir(name).unwrap();
        }
        for number in 0..100 {
            let branch = number.to_string();
            let branch = Name::new(branch.as_bytes()).unwrap();
            at.make_dir(branch, 0o755).unwrap();
            at.open_dir(branch).unwrap().make_dir(name, 0o755).unwrap();
        }
        let mut removal = Removal::of(&top);
        assert_eq!(removal.empty(&top, name, 0), Ok(()));
        assert_eq!(removal.moved, 1);
        assert_eq!(dir.remove_tree(name), Ok(()));
        assert!(fs::read_dir(temporary.path()).unwrap().next().is_none());
    }
}
