//! What a bridge contains: the symlinks to the files of several releases, of which each
//! path names the file of the first release that has it.
//!
//! Releases are content of clients. This opens one component at a time below a directory
//! handle, follows no symlink and enters no mount. It leaves out everything but regular
//! files: a symlink of a release could lead to what the application shares.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use deploy_shell::archive::{DiskNeed, DiskUse};
use deploy_shell::config::RelativePath;
use deploy_shell::dir::{self, Dir, Name};
use deploy_shell::error::Result;
use deploy_shell::names::{MAX_DEPTH, ReleaseId};
use deploy_shell::store::Store;
use deploy_shell::store::layout::RELEASES;

/// The directories above the content of a release: `releases/ID`. Those above the content
/// of a build are as many: `.bridge/N`.
const ABOVE: usize = 2;

/// The maximum length of the target of a symlink, in bytes: that of xfs
/// (`XFS_SYMLINK_MAXLEN`), which is the shortest. A path of a release and the way up to
/// its directory can be longer; one such file must not end the build.
pub const MAX_TARGET: usize = 1023;

/// A directory of a bridge.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<OsString, Node>);

#[derive(Debug, PartialEq, Eq)]
pub enum Node {
    Directory(Tree),
    /// A symlink to this target.
    Symlink(OsString),
}

impl Tree {
    /// Returns the number of files in it and below it.
    pub fn files(&self) -> usize {
        let files = |node: &Node| match node {
            Node::Directory(below) => below.files(),
            Node::Symlink(_) => 1,
        };
        self.0.values().map(files).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what a build of it takes on a file system with blocks of this size, with the
    /// directory of the build and the symlink to it.
    pub fn disk_need(&self, block: u64) -> DiskNeed {
        let mut disk_use = DiskUse::new(block);
        let mut inodes = 2;
        self.count(&mut Vec::new(), &mut disk_use, &mut inodes);
        DiskNeed {
            bytes: disk_use.bytes(),
            inodes,
        }
    }

    // Terminates: the depth of a tree is limited.
    fn count<'a>(&'a self, at: &mut Vec<&'a [u8]>, disk_use: &mut DiskUse, inodes: &mut u64) {
        for (name, node) in &self.0 {
            at.push(name.as_bytes());
            *inodes += 1;
            match node {
                Node::Directory(below) => {
                    disk_use.add_directory(at);
                    below.count(at, disk_use, inodes);
                }
                Node::Symlink(target) => disk_use.add_symlink(at, target.as_bytes()),
            }
            at.pop();
        }
    }
}

/// The result of [`gather`].
pub struct Gathered {
    pub tree: Tree,
    /// The releases, the most important first.
    pub releases: Vec<ReleaseId>,
    /// Whether something was left out because there is too much.
    pub is_cut: bool,
    /// What was left out because a file system is mounted there, relative to the root.
    pub mounts: Vec<PathBuf>,
}

/// Gathers the files below `paths` of the releases, the first release first. The bridge,
/// and what is looked at of each release, has at most `max_entries` files and
/// directories. A release that is removed meanwhile is left out.
///
/// # Errors
///
/// [`Code::IoError`](deploy_shell::error::Code::IoError).
pub fn gather(
    store: &Store,
    releases: Vec<ReleaseId>,
    paths: &[RelativePath],
    max_entries: u32,
) -> Result<Gathered> {
    let mut tree = Tree::default();
    let mut room = max_entries;
    let (mut is_cut, mut mounts) = (false, Vec::new());
    for release in &releases {
        let mut walk = Walk {
            target: Path::new(RELEASES.as_os_str()).join(release.as_str()),
            room,
            unseen: max_entries,
            is_cut: false,
            mounts: Vec::new(),
        };
        let opened = store.releases.open_dir_of_this_mount(release);
        if matches!(opened, Err(Errno::EXDEV)) {
            mounts.push(walk.target.clone());
        }
        let added = match reachable(opened) {
            Ok(Some(directory)) => paths.iter().try_for_each(|path| {
                let parts: Vec<&OsStr> = path.as_path().iter().collect();
                walk.add_path(&mut tree, &directory, &parts)
            }),
            Ok(None) => Ok(()),
            Err(errno) => Err(errno),
        };
        added.map_err(|errno| store.io(format!("cannot read '{release}'"), errno))?;
        room = walk.room;
        is_cut |= walk.is_cut;
        mounts.append(&mut walk.mounts);
    }
    Ok(Gathered {
        tree,
        releases,
        is_cut,
        mounts,
    })
}

/// The walk through one release.
struct Walk {
    /// The directory that the walk is in, from the root of the site.
    target: PathBuf,
    /// How many more nodes the bridge may have.
    room: u32,
    /// How many more entries the walk looks at.
    unseen: u32,
    is_cut: bool,
    mounts: Vec<PathBuf>,
}

impl Walk {
    /// Adds what is at a path below `from`; nothing, if nothing is there.
    fn add_path(&mut self, to: &mut Tree, from: &Dir, path: &[&OsStr]) -> dir::Result<()> {
        let Some((name, below)) = path.split_first() else {
            return self.add_all(to, from);
        };
        let Some(valid) = Name::new(name.as_bytes()) else {
            return Ok(());
        };
        self.add_name(to, from, valid, below)
    }

    fn add_all(&mut self, to: &mut Tree, from: &Dir) -> dir::Result<()> {
        for name in from.names()? {
            if let Some(name) = Name::new(name.as_bytes()) {
                self.add_name(to, from, name, &[])?;
            }
        }
        Ok(())
    }

    /// Adds what has this name, unless it is a mount point. Also a single file can be one,
    /// and a reader of the bridge would get what is mounted there. The kind that the
    /// directory lists is that of the file below the mount.
    fn add_name(
        &mut self,
        to: &mut Tree,
        from: &Dir,
        name: Name<'_>,
        below: &[&OsStr],
    ) -> dir::Result<()> {
        // A stalled mount would hold up the builder, and with it the hook that runs it.
        match from.stat_of_this_mount(name) {
            Ok(stat) => self.add_entry(to, from, name, dir::file_type(&stat), below),
            Err(Errno::EXDEV) => {
                self.mounts.push(self.target.join(name));
                Ok(())
            }
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Adds a regular file, or what is at `below` in a directory: all of it, if `below` is
    /// empty.
    fn add_entry(
        &mut self,
        to: &mut Tree,
        from: &Dir,
        name: Name<'_>,
        kind: SFlag,
        below: &[&OsStr],
    ) -> dir::Result<()> {
        let is_directory = kind == SFlag::S_IFDIR;
        let is_file = kind == SFlag::S_IFREG && below.is_empty();
        if !is_directory && !is_file {
            return Ok(());
        }
        // The releases of a receive are not so deep. This limits the open descriptors.
        let depth = self.target.iter().count() - ABOVE;
        if self.unseen == 0 || depth > MAX_DEPTH {
            self.is_cut = true;
            return Ok(());
        }
        self.unseen -= 1;
        let entry = match to.0.entry(name.as_os_str().to_owned()) {
            Entry::Vacant(_) if self.room == 0 => {
                self.is_cut = true;
                return Ok(());
            }
            entry => entry,
        };
        if is_file {
            // An earlier release may have a file or a directory here. It comes first.
            if let Entry::Vacant(entry) = entry {
                let target = self.symlink_target(name);
                if target.len() > MAX_TARGET {
                    self.is_cut = true;
                    return Ok(());
                }
                entry.insert(Node::Symlink(target));
                self.room -= 1;
            }
            return Ok(());
        }
        let Some(directory) = reachable(from.open_dir_of_this_mount(name))? else {
            return Ok(());
        };
        let mut is_new = false;
        let node = entry.or_insert_with(|| {
            is_new = true;
            Node::Directory(Tree::default())
        });
        let Node::Directory(tree) = node else {
            return Ok(());
        };
        self.room -= u32::from(is_new);
        self.target.push(name);
        // Terminates: `depth` grows with each call, and is limited.
        self.add_path(tree, &directory, below)?;
        self.target.pop();
        if tree.is_empty() {
            to.0.remove(name.as_os_str());
            self.room += 1;
        }
        Ok(())
    }

    /// Returns the target of the symlink to the file `name` of the directory that the walk
    /// is in: relative, so that the site can be moved.
    fn symlink_target(&self, name: Name<'_>) -> OsString {
        // The symlink is as deep below the root as the file: see `ABOVE`.
        let up = self.target.iter().map(|_| "..");
        let mut target: PathBuf = up.collect();
        target.push(&self.target);
        target.push(name);
        target.into_os_string()
    }
}

/// Returns nothing for a directory that is gone, is another file by now, or on which a
/// file system is mounted.
fn reachable(opened: dir::Result<Dir>) -> dir::Result<Option<Dir>> {
    match opened {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}
