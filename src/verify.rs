//! Compares a release with its manifest, content included.
//!
//! `receive/inspect.rs` compares a new tree with a report and stops at the first
//! mismatch. This module compares a published release and reports every difference.
//! Whatever is in the tree, it opens only regular files for reading, follows no
//! symlink, enters only directories of the manifest, and looks at no file system that
//! is mounted in the release.

use std::fmt;
use std::io::BufRead;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, SFlag};

use crate::config::AclPolicy;
use crate::dir::{self, Dir, Name};
use crate::error::{self, Code, Error, Result, describe};
use crate::escape;
use crate::hash::{Outcome, Pool};
use crate::manifest::{Entries, Entry, Kind, compare_paths};
use crate::names::{ReleaseId, Sha256Digest};
use crate::store::Store;

/// More threads than this read no faster from any disk.
const MAX_THREADS: usize = 8;

/// One difference between a release and its manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Relative to the release; empty for the release itself.
    path: Vec<u8>,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Missing,
    /// The report names an extra directory, and not its contents.
    Extra,
    Type(&'static str),
    Mode {
        found: u32,
        expected: u32,
    },
    Size {
        found: u64,
        expected: u64,
    },
    Content,
    Link {
        found: Vec<u8>,
    },
    /// Something is mounted there. It is not part of the release, and may stall.
    Mounted,
    /// It exists and cannot be read.
    Unreadable(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.path.as_slice() {
            b"" => ".".to_owned(),
            path => format!("./{}", escape::escape(path)),
        };
        match &self.what {
            What::Missing => write!(f, "missing {path}"),
            What::Extra => write!(f, "extra {path}"),
            What::Type(kind) => write!(f, "type {path}: it is a {kind}"),
            What::Mode { found, expected } => {
                write!(f, "mode {path}: {found:04o}, not {expected:04o}")
            }
            What::Size { found, expected } => {
                write!(f, "changed {path}: {found} bytes, not {expected}")
            }
            What::Content => write!(f, "changed {path}: other content of the same size"),
            What::Link { found } => write!(f, "link {path}: to '{}'", escape::escape(found)),
            What::Mounted => write!(f, "mount {path}: a file system is mounted there"),
            What::Unreadable(why) => write!(f, "unreadable {path}: {why}"),
        }
    }
}

/// Returns the number of threads with which this machine hashes fastest: 0 with one
/// processor.
pub fn threads() -> usize {
    match thread::available_parallelism().map_or(1, NonZeroUsize::get) {
        1 => 0,
        more => more.min(MAX_THREADS),
    }
}

/// Compares a release with its manifest. Returns the differences, sorted by path. Hashes
/// on `threads` threads, and in this one with 0. Calls `read` with the number of bytes
/// whenever some are hashed.
///
/// # Errors
///
/// [`Code::NoSuchRelease`] without a manifest that can be read, [`Code::IoError`],
/// [`Code::BadLayout`] for a manifest of a newer version, and [`Code::Internal`].
pub fn verify_release(
    store: &Store,
    release: &ReleaseId,
    acl: AclPolicy,
    threads: usize,
    read: impl Fn(u64) + Clone + Send + Sync + 'static,
) -> Result<Vec<Difference>> {
    let (_, mut manifest) = store.manifest(release)?;
    let tree = match store.releases.open_dir_of_this_mount(release) {
        Ok(tree) => tree,
        Err(Errno::EXDEV) => {
            return Ok(vec![Difference {
                path: Vec::new(),
                what: What::Mounted,
            }]);
        }
        Err(errno) => return Err(store.io(format!("cannot open release '{release}'"), errno)),
    };
    compare_tree(&tree, &mut manifest, acl, threads, read)?.map_err(|why| {
        let problem = format!("the manifest of '{release}' cannot be read: {why}");
        Error::new(Code::NoSuchRelease, problem).remedy("receive it again under another id")
    })
}

/// A file that is hashed, and what its manifest says.
struct Expected {
    path: Vec<u8>,
    sha256: Sha256Digest,
}

/// Walks `tree` in step with its manifest, while `threads` threads hash. So the memory
/// does not grow with the manifest: that of 100,000 long names has 800 MB.
///
/// # Errors
///
/// [`Code::Internal`]. The inner error says why the manifest cannot be read.
fn compare_tree(
    tree: &Dir,
    manifest: &mut impl BufRead,
    acl: AclPolicy,
    threads: usize,
    read: impl Fn(u64) + Clone + Send + Sync + 'static,
) -> Result<Result<Vec<Difference>, &'static str>> {
    let found = Found::default();
    let start = |threads| {
        let found = Arc::clone(&found);
        let done = move |expected, outcome| judge_content(&found, &expected, outcome);
        Pool::start_observed(threads, done, read.clone())
    };
    // Without any thread, this one hashes.
    let mut pool = start(threads).or_else(|_| start(0))?;
    let mut walk = VerifyWalk {
        entries: Entries::new(manifest),
        next: None,
        acl,
        found: &found,
        pool: &mut pool,
    };
    if let Err(why) = walk.check_root(tree) {
        return Ok(Err(why));
    }
    pool.finish()?;
    let mut found = std::mem::take(&mut *found.lock().map_err(|_| error::bug())?);
    found.sort();
    Ok(Ok(found))
}

type Found = Arc<Mutex<Vec<Difference>>>;

fn note(found: &Found, path: &[u8], what: What) {
    // A poisoned mutex means that another thread panicked; `compare_tree` reports that.
    if let Ok(mut found) = found.lock() {
        let path = path.to_vec();
        found.push(Difference { path, what });
    }
}

fn judge_content(found: &Found, expected: &Expected, outcome: Outcome) {
    match outcome {
        Ok(Some(sha256)) if sha256 == expected.sha256 => {}
        // A file of another size was changed after stat(2) had compared its size.
        Ok(_) => note(found, &expected.path, What::Content),
        Err(error) => note(found, &expected.path, What::Unreadable(describe(&error))),
    }
}

/// A walk in the order of the manifest: a directory before what is in it, names by their
/// bytes.
struct VerifyWalk<'a, R> {
    entries: Entries<'a, R>,
    /// The first entry that was not found yet.
    next: Option<Entry>,
    acl: AclPolicy,
    found: &'a Found,
    pool: &'a mut Pool<Expected>,
}

impl<R: BufRead> VerifyWalk<'_, R> {
    fn check_root(&mut self, tree: &Dir) -> Result<(), &'static str> {
        self.next = self.entries.next_entry()?;
        if self.take(b"")? != Some(Kind::Dir) {
            return Err("its first entry is not that of the release");
        }
        match tree.metadata() {
            Ok(stat) => self.check_mode(b"", &stat, &Kind::Dir),
            Err(errno) => self.unreadable(b"", errno),
        }
        self.check_directory(b"", tree)?;
        while let Some(entry) = self.advance()? {
            note(self.found, &entry.path, What::Missing);
        }
        Ok(())
    }

    /// Returns the next entry, and reads the one after it.
    fn advance(&mut self) -> Result<Option<Entry>, &'static str> {
        let Some(entry) = self.next.take() else {
            return Ok(None);
        };
        self.next = self.entries.next_entry()?;
        match &self.next {
            Some(next) if compare_paths(&entry.path, &next.path).is_ge() => {
                Err("its entries are not in order")
            }
            _ => Ok(Some(entry)),
        }
    }

    /// Returns the entry of `path`, if the manifest has one. Those before it are missing
    /// in the tree.
    fn take(&mut self, path: &[u8]) -> Result<Option<Kind>, &'static str> {
        while let Some(next) = &self.next {
            let is_same = next.path == path;
            if !is_same && compare_paths(&next.path, path).is_gt() {
                break;
            }
            let Some(entry) = self.advance()? else {
                break;
            };
            if is_same {
                return Ok(Some(entry.kind));
            }
            note(self.found, &entry.path, What::Missing);
        }
        Ok(None)
    }

    /// Terminates: only directories of the manifest are entered.
    fn check_directory(&mut self, path: &[u8], directory: &Dir) -> Result<(), &'static str> {
        let names = match directory.names() {
            Ok(names) => names,
            Err(errno) => {
                self.unreadable(path, errno);
                return Ok(());
            }
        };
        for name in names {
            let below = match path {
                b"" => name.as_bytes().to_vec(),
                path => [path, b"/", name.as_bytes()].concat(),
            };
            let Some(name) = Name::new(name.as_bytes()) else {
                note(self.found, &below, What::Extra);
                continue;
            };
            match directory.stat_of_this_mount(name) {
                Ok(stat) => self.check_entry(&below, name, &stat, directory)?,
                // It was removed after its name was listed.
                Err(Errno::ENOENT) => {}
                Err(errno) => {
                    self.take(&below)?;
                    self.unreadable(&below, errno);
                }
            }
        }
        Ok(())
    }

    fn check_entry(
        &mut self,
        path: &[u8],
        name: Name<'_>,
        stat: &FileStat,
        parent: &Dir,
    ) -> Result<(), &'static str> {
        let Some(kind) = self.take(path)? else {
            note(self.found, path, What::Extra);
            return Ok(());
        };
        if dir::file_type(stat) != kind.file_type() {
            note(self.found, path, What::Type(type_name(stat)));
            return Ok(());
        }
        self.check_mode(path, stat, &kind);
        match kind {
            Kind::Dir => match parent.open_dir_of_this_mount(name) {
                Ok(directory) => self.check_directory(path, &directory)?,
                Err(errno) => self.unreadable(path, errno),
            },
            Kind::Link { target } => match parent.read_link(name) {
                Ok(found) if found.as_bytes() == target => {}
                Ok(found) => {
                    let found = found.as_bytes().to_vec();
                    note(self.found, path, What::Link { found });
                }
                Err(errno) => self.unreadable(path, errno),
            },
            Kind::File { size, sha256, .. } => {
                let found = stat.st_size as u64;
                if found == size {
                    self.check_file(path, name, parent, size, sha256);
                } else {
                    let expected = size;
                    note(self.found, path, What::Size { found, expected });
                }
            }
        }
        Ok(())
    }

    fn check_file(
        &mut self,
        path: &[u8],
        name: Name<'_>,
        parent: &Dir,
        size: u64,
        sha256: Sha256Digest,
    ) {
        // It may not be the file that stat saw.
        match parent.open_file(name) {
            Ok(file) => {
                let path = path.to_vec();
                self.pool.submit(file, size, Expected { path, sha256 });
            }
            Err(errno) => self.unreadable(path, errno),
        }
    }

    fn check_mode(&self, path: &[u8], stat: &FileStat, kind: &Kind) {
        let (found, expected) = (stat.st_mode & 0o7777, kind.mode());
        if !is_same_mode(found, kind, self.acl) {
            note(self.found, path, What::Mode { found, expected });
        }
    }

    fn unreadable(&self, path: &[u8], errno: Errno) {
        let what = match errno {
            Errno::EXDEV => What::Mounted,
            errno => What::Unreadable(describe(&errno.into())),
        };
        note(self.found, path, what);
    }
}

/// Returns whether a file of this kind may have the mode `found`.
///
/// An operator may make the directories of a live site set-group-id (`chmod -R g+s`).
/// The bit decides the group of new files, and means nothing for a file that nobody can
/// execute; an executable file would run as its group. With an inherited list, the group
/// and others have fewer rights, and never more: the group's bits of a mode are at least
/// the rights of every named user and group in a list (acl(5)).
fn is_same_mode(found: u32, kind: &Kind, acl: AclPolicy) -> bool {
    let expected = kind.mode();
    let permissions = match kind {
        Kind::File { executable, .. } if *executable => found,
        Kind::Dir | Kind::File { .. } => found & !Mode::S_ISGID.bits(),
        Kind::Link { .. } => found,
    };
    permissions == expected
        || acl == AclPolicy::Inherit
            && permissions & !expected == 0
            && permissions & 0o700 == expected & 0o700
}

fn type_name(stat: &FileStat) -> &'static str {
    match dir::file_type(stat) {
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFREG => "file",
        SFlag::S_IFLNK => "symlink",
        SFlag::S_IFIFO => "fifo",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFCHR => "character device",
        SFlag::S_IFBLK => "block device",
        _ => "special file",
    }
}
