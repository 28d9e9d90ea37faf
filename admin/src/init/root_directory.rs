//! Opens the root directory of a site by handles, one component after the other, and makes
//! what is missing.
//!
//! root runs `init`, and gives the directory to the deploy account. So nobody but root and
//! the account may be able to replace a directory on the way, as sshd demands of its files
//! (`StrictModes`, sshd_config(5)). A symlink on the way must be root's own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::geteuid;

use super::Account;
use super::directories::{cannot, not_a_directory};
use deploy_shell::dir::{Dir, Name, file_type};
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::shell_word::Word;

/// The maximum number of symlinks in one path, as in the kernel (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// The mode of a directory that is made.
const MODE: u32 = 0o755;

/// Opens the directory at the absolute path `root`, and makes it and its parents if they do
/// not exist. The path itself must not be a symlink.
///
/// # Errors
///
/// [`Code::BadLayout`] for a directory or a symlink on the way that another user can
/// replace, or if something else is at `root`.
pub fn open(root: &Path, account: &Account) -> Result<Dir> {
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return Err(not_a_directory(root, Errno::ENOTDIR));
    };
    let name = Name::new(name.as_bytes()).ok_or_else(|| cannot(root, Errno::EINVAL))?;
    let slash = Dir::open_root(Path::new("/")).map_err(|errno| cannot(root, errno))?;
    let mut walk = Walk {
        account,
        is_strict: geteuid().is_root(),
        reached: vec![(PathBuf::from("/"), slash)],
        pending: Vec::new(),
        symlinks: 0,
    };
    walk.add_names(parent);
    // Terminates: each turn removes a name, and only a symlink adds any.
    while let Some(next) = walk.pending.pop() {
        walk.step(&next)?;
    }
    let (_, parent) = walk.last()?;
    make(parent, name, root)?;
    parent
        .open_dir(name)
        .map_err(|errno| not_a_directory(root, errno))
}

fn make(parent: &Dir, name: Name<'_>, path: &Path) -> Result<()> {
    match parent.make_dir(name, MODE) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        // A parent on a file system that is mounted read-only.
        Err(_) if parent.exists(name) == Ok(true) => Ok(()),
        Err(errno) => Err(cannot(path, errno)),
    }
}

struct Walk<'a> {
    account: &'a Account,
    /// Whether this process is root, who must not trust every user. Another user can give
    /// no directory away.
    is_strict: bool,
    /// The directories from `/` on, with their paths.
    reached: Vec<(PathBuf, Dir)>,
    /// The names that follow, the last one first.
    pending: Vec<OsString>,
    symlinks: usize,
}

impl Walk<'_> {
    fn last(&self) -> Result<(&Path, &Dir)> {
        let last = self.reached.last();
        let (path, dir) = last.ok_or_else(|| Error::new(Code::Internal, "no directory"))?;
        Ok((path, dir))
    }

    /// Adds the names of a path, which come before those that are pending.
    fn add_names(&mut self, path: &Path) {
        let names = path.components().rev().filter_map(|it| match it {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        });
        self.pending.extend(names);
    }

    fn step(&mut self, name: &OsStr) -> Result<()> {
        if name == ".." {
            // That of `/` is `/` itself.
            self.reached
                .truncate(self.reached.len().saturating_sub(1).max(1));
            return Ok(());
        }
        let (above, dir) = self.last()?;
        let path = above.join(name);
        let name = Name::new(name.as_bytes()).ok_or_else(|| cannot(&path, Errno::EINVAL))?;
        if !dir.exists(name).map_err(|errno| cannot(&path, errno))? {
            make(dir, name, &path)?;
        }
        let next = match dir.open_path(name) {
            Ok(next) => next,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let target = self.target(dir, name, &path)?;
                self.symlinks += 1;
                if target.is_absolute() {
                    self.reached.truncate(1);
                }
                self.add_names(&target);
                return Ok(());
            }
            Err(errno) => return Err(not_a_directory(&path, errno)),
        };
        let stat = next.metadata().map_err(|errno| cannot(&path, errno))?;
        if let Some(how) = self.distrust(&stat) {
            let shown = path.display();
            let name = &self.account.name;
            let problem = format!("'{shown}' {how}, who can then replace the site's directory");
            return Err(Error::new(Code::BadLayout, problem).remedy(format!(
                "give --root a path below directories that only root and '{name}' can write"
            )));
        }
        self.reached.push((path, next));
        Ok(())
    }

    /// Returns the target of the symlink that is at `path`.
    fn target(&self, dir: &Dir, name: Name<'_>, path: &Path) -> Result<PathBuf> {
        let stat = dir.stat(name).map_err(|errno| cannot(path, errno))?;
        if file_type(&stat) != SFlag::S_IFLNK {
            return Err(not_a_directory(path, Errno::ENOTDIR));
        }
        if self.is_strict && stat.st_uid != 0 {
            let (shown, uid) = (path.display(), stat.st_uid);
            let problem = format!("'{shown}' is a symlink of user {uid}, who can change it");
            let path = Word::new(path);
            return Err(Error::new(Code::BadLayout, problem).remedy(format!(
                "give --root the path without the symlink; this prints where it leads: \
                 readlink -f {path}"
            )));
        }
        if self.symlinks == MAX_SYMLINKS {
            return Err(cannot(path, Errno::ELOOP));
        }
        let target = dir.read_link(name).map_err(|errno| cannot(path, errno))?;
        Ok(PathBuf::from(target))
    }

    /// Returns why another user can replace what is in a directory. In a sticky directory,
    /// such as /tmp, only the owner of an entry can, and the next component decides.
    fn distrust(&self, stat: &FileStat) -> Option<String> {
        let is_trusted = [0, self.account.uid].contains(&stat.st_uid);
        if !self.is_strict || is_trusted && stat.st_mode & 0o1000 != 0 {
            None
        } else if !is_trusted {
            Some(format!("belongs to user {}", stat.st_uid))
        } else if stat.st_mode & 0o002 != 0 {
            Some("can be written by every user".to_owned())
        } else if stat.st_mode & 0o020 != 0 {
            Some(format!("can be written by group {}", stat.st_gid))
        } else {
            None
        }
    }
}
