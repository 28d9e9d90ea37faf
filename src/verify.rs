//! A release held against its manifest, content and all.
//!
//! `receive/inspect.rs` walks in step with a report and ends at a lie;
//! this is for a release that has stood for a while, and goes on: what is told
//! is every difference. Whatever stands in the tree, nothing but regular files
//! is ever opened to be read, no link is followed, and only folders that the
//! manifest knows are entered.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};
use sha2::{Digest, Sha256};

use crate::dir::{self, Dir, Name};
use crate::error::{Code, Error, Result, describe};
use crate::escape;
use crate::manifest::{Entries, Kind};
use crate::names::{ReleaseId, Sha256Digest};
use crate::store::Store;

/// Files that wait, open, for a thread to read them.
const WAITING: usize = 32;

/// More threads than this outrun any disk.
const MAX_THREADS: usize = 8;

const BUFFER: usize = 256 * 1024;

/// One way in which a release is not what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Relative to the release; empty for the release itself.
    path: Vec<u8>,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Missing,
    /// Below an extra folder nothing more is told.
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
    /// It is there and cannot be read.
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
            What::Unreadable(why) => write!(f, "unreadable {path}: {why}"),
        }
    }
}

/// As many threads as the machine has use for.
pub fn threads() -> usize {
    thread::available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(MAX_THREADS)
}

/// Compares a release with its manifest, sorted by path. With one thread, none
/// is started. `read` is told, as the work goes on, how many bytes were read.
///
/// Errors: [`Code::NoSuchRelease`] without a manifest that can be read,
/// [`Code::IoError`].
pub fn release(
    store: &Store,
    release: &ReleaseId,
    threads: usize,
    read: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Difference>> {
    let (_, mut manifest) = store.manifest(release)?;
    let mut entries = Entries::new(&mut manifest);
    let mut expected = BTreeMap::new();
    let bad = |why: &str| {
        let problem = format!("the manifest of '{release}' cannot be read: {why}");
        Error::new(Code::NoSuchRelease, problem).remedy("receive it again under another id")
    };
    while let Some(entry) = entries.next_entry().map_err(bad)? {
        expected.insert(entry.path, entry.kind);
    }
    let tree = match store.releases.open_dir(release) {
        Ok(tree) => tree,
        Err(errno) => return Err(store.io(format!("cannot open release '{release}'"), errno)),
    };
    Ok(compare(&tree, expected, threads, read))
}

/// What is to be read, and what it must come to.
struct Job {
    path: Vec<u8>,
    file: File,
    size: u64,
    sha256: Sha256Digest,
}

fn compare(
    tree: &Dir,
    expected: BTreeMap<Vec<u8>, Kind>,
    threads: usize,
    read: &(dyn Fn(u64) + Sync),
) -> Vec<Difference> {
    let found = Mutex::new(Vec::new());
    let (send, receive) = sync_channel::<Job>(WAITING);
    let receive = Mutex::new(receive);
    let missing = thread::scope(|scope| {
        let workers = match threads {
            0 | 1 => 0,
            // Fewer than asked for are as good; with none, this one reads.
            more => (0..more)
                .filter(|_| {
                    let work = || work(&receive, &found, read);
                    thread::Builder::new().spawn_scoped(scope, work).is_ok()
                })
                .count(),
        };
        let mut walk = Walk {
            expected,
            found: &found,
            submit: &mut |job| match workers {
                0 => hash(&job, &found, read),
                // It cannot fail: the receiver is ours.
                _ => _ = send.send(job),
            },
        };
        walk.root(tree);
        let missing = walk.expected;
        // Workers end when nothing more can come.
        drop(send);
        missing
    });
    let mut found = found.into_inner().unwrap_or_default();
    found.extend(missing.into_keys().map(|path| Difference {
        path,
        what: What::Missing,
    }));
    found.sort();
    found
}

type Found = Mutex<Vec<Difference>>;

fn note(found: &Found, path: &[u8], what: What) {
    // Poisoned means that another thread has panicked, which the scope tells.
    if let Ok(mut found) = found.lock() {
        let path = path.to_vec();
        found.push(Difference { path, what });
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, found: &Found, read: &(dyn Fn(u64) + Sync)) {
    loop {
        // Held for as long as it takes to wait for one: who waits for the lock
        // would wait for a job as well.
        let job = jobs.lock().ok().and_then(|jobs| jobs.recv().ok());
        match job {
            Some(job) => hash(&job, found, read),
            None => return,
        }
    }
}

fn hash(job: &Job, found: &Found, read: &(dyn Fn(u64) + Sync)) {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    // One byte more than there should be, and no further: the file may grow
    // under our hands.
    let mut file = (&job.file).take(job.size.saturating_add(1));
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(some) => {
                hash.update(&buffer[..some]);
                bytes += some as u64;
                read(some as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return note(found, &job.path, What::Unreadable(describe(&error))),
        }
    }
    if bytes != job.size || Sha256Digest(hash.finalize().into()) != job.sha256 {
        note(found, &job.path, What::Content);
    }
}

struct Walk<'a> {
    /// What has not been found yet.
    expected: BTreeMap<Vec<u8>, Kind>,
    found: &'a Found,
    submit: &'a mut dyn FnMut(Job),
}

impl Walk<'_> {
    fn root(&mut self, tree: &Dir) {
        if self.expected.remove(&b""[..]) != Some(Kind::Dir) {
            return note(self.found, b"", What::Extra);
        }
        match tree.own_stat() {
            Ok(stat) => self.mode(b"", &stat, Kind::Dir.mode()),
            Err(errno) => self.unreadable(b"", errno),
        }
        self.below(b"", tree);
    }

    /// Bounded in depth: only folders of the manifest are entered.
    fn below(&mut self, path: &[u8], folder: &Dir) {
        let names = match folder.names() {
            Ok(names) => names,
            Err(errno) => return self.unreadable(path, errno),
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
            match folder.stat(name) {
                Ok(stat) => self.thing(&below, name, &stat, folder),
                // Gone since its name was read.
                Err(Errno::ENOENT) => {}
                Err(errno) => self.unreadable(&below, errno),
            }
        }
    }

    fn thing(&mut self, path: &[u8], name: Name<'_>, stat: &FileStat, parent: &Dir) {
        let Some(kind) = self.expected.remove(path) else {
            return note(self.found, path, What::Extra);
        };
        if dir::kind(stat) != kind.file_type() {
            return note(self.found, path, What::Type(word(stat)));
        }
        self.mode(path, stat, kind.mode());
        match kind {
            Kind::Dir => match parent.open_dir(name) {
                Ok(folder) => self.below(path, &folder),
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
                if found != size {
                    let expected = size;
                    return note(self.found, path, What::Size { found, expected });
                }
                self.file(path, name, parent, size, sha256);
            }
        }
    }

    fn file(&mut self, path: &[u8], name: Name<'_>, parent: &Dir, size: u64, sha256: Sha256Digest) {
        // Opened without waiting and without following; and looked at once
        // more, since it may not be the one that stat saw.
        let opened = parent.open_file(name).map_err(std::io::Error::from);
        let file = opened.and_then(|file| Ok((file.metadata()?.is_file(), file)));
        match file {
            Ok((true, file)) => (self.submit)(Job {
                path: path.to_vec(),
                file,
                size,
                sha256,
            }),
            Ok((false, _)) => note(self.found, path, What::Type("special file")),
            Err(error) => note(self.found, path, What::Unreadable(describe(&error))),
        }
    }

    fn mode(&self, path: &[u8], stat: &FileStat, expected: u32) {
        let found = stat.st_mode & 0o7777;
        if found != expected {
            note(self.found, path, What::Mode { found, expected });
        }
    }

    fn unreadable(&self, path: &[u8], errno: Errno) {
        note(self.found, path, What::Unreadable(describe(&errno.into())));
    }
}

fn word(stat: &FileStat) -> &'static str {
    match dir::kind(stat) {
        SFlag::S_IFDIR => "folder",
        SFlag::S_IFREG => "file",
        SFlag::S_IFLNK => "link",
        SFlag::S_IFIFO => "fifo",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFCHR => "character device",
        SFlag::S_IFBLK => "block device",
        _ => "special file",
    }
}
