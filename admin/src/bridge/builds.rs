//! The builds of a bridge on disk: `.bridge/N`, and the symlink `bridge` to one of them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::geteuid;

use super::tree::{Node, Tree};
use deploy_shell::config::Percent;
use deploy_shell::dir::{self, Dir, Name};
use deploy_shell::error::{Code, Error, Result, describe};
use deploy_shell::names::BRIDGE_LINK;
use deploy_shell::shell_word::Word;
use deploy_shell::store::{Store, lock};

/// In the root: the symlink to the build that a web server reads.
const BRIDGE: Name<'static> = Name::literal(BRIDGE_LINK);
/// In the root: the directory with the builds, each named by a number.
const BUILDS: Name<'static> = Name::literal(".bridge");
/// In [`BUILDS`]: the new symlink, before it is renamed into place.
const NEXT: Name<'static> = Name::literal("next");

/// The time to wait for another builder to end: less than a hook has by default.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The directory with the builds.
pub struct Builds<'a> {
    store: &'a Store,
    directory: Dir,
}

impl<'a> Builds<'a> {
    /// Opens the directory, and makes it if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Builds::find`].
    pub fn open_or_make(store: &'a Store) -> Result<Builds<'a>> {
        if let Some(builds) = Builds::find(store)? {
            return Ok(builds);
        }
        match store.root.make_dir(BUILDS, 0o755) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(cannot(store, "make the directory of the bridge", errno)),
        }
        let made = Builds::find(store)?;
        made.ok_or_else(|| cannot(store, "open the directory of the bridge", Errno::ENOENT))
    }

    /// Opens the directory, if it exists.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] for a directory that others can write, that is mounted or that
    /// is not the account's, and for a `bridge` that is not a symlink to a build.
    pub fn find(store: &'a Store) -> Result<Option<Builds<'a>>> {
        current(store)?;
        let path = store.path().join(BUILDS);
        let (shown, word) = (path.display(), Word::new(&path));
        let foreign = |why: &str| {
            let old = Word::with_suffix(&path, ".old");
            let away = store.run_command(format_args!("mv -nT {word} {old}"));
            Error::new(Code::BadLayout, format!("'{shown}' {why}"))
                .remedy(format!("move it away: {away}"))
        };
        let directory = match store.root.open_dir_of_this_mount(BUILDS) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(foreign("is not a directory")),
            Err(Errno::EXDEV) => {
                let problem = format!("a file system is mounted on '{shown}'");
                return Err(Error::new(Code::BadLayout, problem).remedy("unmount it"));
            }
            Err(errno) => return Err(cannot(store, "open the directory of the bridge", errno)),
        };
        let stat = directory.metadata();
        let stat = stat.map_err(|errno| cannot(store, "look at the bridge", errno))?;
        if stat.st_uid != geteuid().as_raw() {
            return Err(foreign("is not the account's"));
        }
        if stat.st_mode & 0o022 != 0 {
            let problem = format!("'{shown}' can be written by others");
            let remedy = store.run_command(format_args!("chmod go-w {word}"));
            return Err(Error::new(Code::BadLayout, problem).remedy(remedy));
        }
        Ok(Some(Builds { store, directory }))
    }

    /// Locks the builds until this process ends.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`] if another process has locked them for long.
    pub fn lock(&self) -> Result<()> {
        let cannot = |error| self.store.io("cannot lock the bridge", error);
        // Not `.bridge`, which every account may open and lock. The lock belongs to the open
        // directory, and so outlives this duplicate.
        let file = self
            .store
            .state
            .as_fd()
            .try_clone_to_owned()
            .map(File::from);
        if lock::lock_within(&file.map_err(cannot)?, LOCK_TIMEOUT).map_err(cannot)? {
            return Ok(());
        }
        let problem = "another process builds the bridge";
        Err(Error::new(Code::Busy, problem).remedy("try again when it has ended"))
    }

    /// Makes a build of `tree` and puts it into place. Returns false if the one in place
    /// is the same.
    ///
    /// A client chooses the number of files of a release, and the next build would exist
    /// beside the last ones. So a build that would use the `reserve` is not begun: without
    /// it, no swap could write the journal.
    ///
    /// # Errors
    ///
    /// [`Code::DiskFull`], and those of the disk. The build that was in place stays there.
    pub fn place(&self, tree: &Tree, reserve: Percent) -> Result<bool> {
        if self.has(tree)? {
            return Ok(false);
        }
        let room = self.store.room(reserve)?;
        let need = tree.disk_need(room.block);
        if need.bytes > room.bytes || need.inodes > room.inodes {
            return Err(self.store.reserve_reached());
        }
        let cannot = |errno| self.store.io("cannot build the bridge", errno);
        let current = current(self.store)?;
        let numbers = self.numbers().map_err(cannot)?;
        let number = numbers.into_iter().chain(current).max();
        let number = number.map_or(0, |number| number + 1);
        let made = self.make(tree, number);
        if made.is_err() {
            // What remains would use up blocks and inodes of a full disk.
            _ = self.remove(number);
        }
        made.map_err(cannot)?;
        Ok(true)
    }

    fn make(&self, tree: &Tree, number: u64) -> dir::Result<()> {
        let (name, root) = (number.to_string(), &self.store.root);
        let name = Name::new(name.as_bytes()).ok_or(Errno::EINVAL)?;
        self.directory.make_dir(name, 0o755)?;
        write(tree, &self.directory.open_dir(name)?)?;
        // The content before its name: after a power failure, a name without content would
        // be a bridge without files. The sync of a swap or a receive does the same later.
        if !root.commits_in_order() {
            root.sync_file_system()?;
        }
        self.directory.remove_file(NEXT)?;
        self.directory.symlink(&target(number), NEXT)?;
        self.directory.rename(NEXT, root, BRIDGE)
    }

    /// Returns whether the build in place has exactly this content.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn has(&self, tree: &Tree) -> Result<bool> {
        let Some(number) = current(self.store)? else {
            return Ok(false);
        };
        let cannot = |errno| self.store.io("cannot read the bridge", errno);
        let name = number.to_string();
        let name = Name::new(name.as_bytes()).ok_or(Errno::EINVAL);
        match name.and_then(|name| self.directory.open_dir_of_this_mount(name)) {
            Ok(build) => is_same(tree, &build).map_err(cannot),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Ok(false),
            Err(errno) => Err(cannot(errno)),
        }
    }

    /// Removes all builds but the one in place and the newest one before it: a reader may
    /// have resolved the symlink just before it was renamed. Returns what it could not
    /// remove.
    pub fn clean(&self) -> Vec<String> {
        let in_place = current(self.store).ok().flatten();
        let Ok(numbers) = self.numbers() else {
            return vec!["the old builds of the bridge cannot be listed".to_owned()];
        };
        let others = || numbers.iter().copied().filter(|it| Some(*it) != in_place);
        let before = others().filter(|it| Some(*it) < in_place).max();
        let old = others().filter(|it| Some(*it) != before);
        old.filter_map(|number| self.remove(number).err()).collect()
    }

    /// Removes a build. Follows no symlink and enters no mount.
    fn remove(&self, number: u64) -> std::result::Result<(), String> {
        let name = number.to_string();
        let Some(valid) = Name::new(name.as_bytes()) else {
            return Ok(());
        };
        self.directory.remove_tree(valid).map_err(|left| {
            let shown = self.store.path().join(BUILDS).join(&left.path);
            let why = describe(&left.errno.into());
            format!("'{}' cannot be removed: {why}", shown.display())
        })
    }

    /// Returns the numbers of all builds.
    fn numbers(&self) -> dir::Result<Vec<u64>> {
        let names = self.directory.names()?;
        Ok(names.iter().filter_map(|name| number(name)).collect())
    }
}

/// Removes the bridge and its builds. Returns whether there was one.
///
/// # Errors
///
/// As [`Builds::find`], and those of the disk.
pub fn remove_all(store: &Store) -> Result<bool> {
    let cannot = |errno| store.io("cannot remove the bridge", errno);
    let builds = Builds::find(store)?;
    let is_there = current(store)?.is_some() || builds.is_some();
    if let Some(builds) = &builds {
        builds.lock()?;
    }
    store.root.remove_file(BRIDGE).map_err(cannot)?;
    let Some(builds) = builds else {
        return Ok(is_there);
    };
    builds.directory.remove_file(NEXT).map_err(cannot)?;
    for number in builds.numbers().map_err(cannot)? {
        builds.remove(number).map_err(|left| {
            Error::new(Code::IoError, left).remedy("unmount what is mounted there, then try again")
        })?;
    }
    store.root.remove_dir(BUILDS).map_err(cannot)?;
    Ok(true)
}

/// Returns the number of the build in place.
fn current(store: &Store) -> Result<Option<u64>> {
    let path = store.path().join(BRIDGE);
    let shown = path.display();
    let foreign = |why: &str| {
        let (word, old) = (Word::new(&path), Word::with_suffix(&path, ".old"));
        let away = store.run_command(format_args!("mv -nT {word} {old}"));
        Error::new(Code::BadLayout, format!("'{shown}' {why}"))
            .remedy(format!("move it away, then build the bridge: {away}"))
    };
    match store.root.stat_of_this_mount(BRIDGE) {
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::EXDEV) => {
            let problem = format!("a file system is mounted on '{shown}'");
            return Err(Error::new(Code::BadLayout, problem).remedy("unmount it"));
        }
        Err(errno) => return Err(cannot(store, "look at the bridge", errno)),
        Ok(stat) if dir::file_type(&stat) != SFlag::S_IFLNK => {
            return Err(foreign("is not a symlink"));
        }
        Ok(_) => {}
    }
    let read = store.root.read_link(BRIDGE);
    let read = read.map_err(|errno| cannot(store, "read the symlink of the bridge", errno))?;
    let named = Path::new(&read).file_name().and_then(number);
    match named.filter(|number| target(*number) == read) {
        Some(number) => Ok(Some(number)),
        None => Err(foreign("is a symlink that the bridge command has not made")),
    }
}

/// Returns the target of the symlink to a build.
fn target(number: u64) -> OsString {
    OsString::from(format!("{BUILDS}/{number}"))
}

/// Returns the number that `name` is, as this program writes it.
fn number(name: &OsStr) -> Option<u64> {
    let number: u64 = name.to_str()?.parse().ok()?;
    (number.to_string().as_bytes() == name.as_bytes()).then_some(number)
}

/// Writes the content of a directory of the bridge.
fn write(tree: &Tree, to: &Dir) -> dir::Result<()> {
    for (name, node) in &tree.0 {
        let name = Name::new(name.as_bytes()).ok_or(Errno::EINVAL)?;
        match node {
            Node::Symlink(target) => to.symlink(target, name)?,
            Node::Directory(below) => {
                to.make_dir(name, 0o755)?;
                write(below, &to.open_dir(name)?)?;
            }
        }
    }
    Ok(())
}

/// Returns whether a directory has exactly this content.
fn is_same(tree: &Tree, found: &Dir) -> dir::Result<bool> {
    let names = found.names()?;
    // Both are sorted.
    if !names.iter().eq(tree.0.keys()) {
        return Ok(false);
    }
    for (name, node) in &tree.0 {
        let name = Name::new(name.as_bytes()).ok_or(Errno::EINVAL)?;
        let is_same = match node {
            Node::Symlink(target) => found.read_link(name).is_ok_and(|it| it == *target),
            Node::Directory(below) => match found.open_dir_of_this_mount(name) {
                Ok(directory) => is_same(below, &directory)?,
                Err(_) => false,
            },
        };
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn cannot(store: &Store, doing: &str, errno: Errno) -> Error {
    store.io(format!("cannot {doing}"), errno)
}
