//! The unpacker: a process of its own, the only one that parses an archive.
//!
//! It is this program, executed anew, with the verified spool as its standard
//! input, the staging folder as its working directory, nothing else open and
//! an empty environment. It writes the archive's files below its working
//! directory and reports their manifest on its standard output, or why not on
//! its standard error. It knows no site, no configuration and no request.

mod entries;
mod header;
mod job;
pub mod path;
pub mod pax;
mod report;
mod rule;
mod tree;
mod writer;
mod zstd_frame;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::errno::Errno;

use crate::dir::{Dir, Name};
use crate::error::{Code, Error};
use crate::message;
use crate::sandbox;
use crate::shared_paths::{Existing, Shared, SharedPath};
use entries::{Entries, Entry, Kind};
use report::{check_links, report};
use rule::Rule;
use tree::{Added, Node, Tree};
use writer::Target;
use zstd_frame::Frame;

pub use job::{Limits, MAX_JOB, UnpackJob, WORD};
pub use rule::Failure;
pub use writer::Writers;

/// Runs as the unpacker, to the exit status: 0 with the manifest on stdout, or
/// the status of the failure with its prose on stderr.
///
/// The first line on stdout tells what confinement is on, before a byte of
/// the payload is read.
pub fn main(job: UnpackJob) -> u8 {
    sandbox::reset_inherited_state();
    let Err(failure) = run(&job) else {
        return 0;
    };
    let code = match &failure {
        Failure::Refused { .. } => Code::BadArchive,
        Failure::Io(error) => error.code,
        Failure::Stopped => Code::Internal,
    };
    _ = writeln!(std::io::stderr(), "{failure}");
    // The monitor tells a full disk by its status alone.
    match code {
        Code::DiskFull => FULL,
        code => code.exit(),
    }
}

fn run(job: &UnpackJob) -> Result<(), Failure> {
    let limits = job.limits;
    let opened = |errno| cannot("open the staging folder", errno);
    let staging = Dir::working().map_err(opened)?;
    let spool = payload()?;
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(4));
    let on = sandbox::restrict_unpacker(&staging, limits.max_file, limits.memory());
    // Threads are started between the two halves: they inherit the first, and
    // the second leaves nobody the calls to start more.
    let writers = Writers::start(threads)?;
    let on = sandbox::restrict_unpacker_syscalls(on);
    on.ensure_full(job.sandbox_required).map_err(Failure::Io)?;
    let on = message::encode(&on).map_err(Failure::Io)?;
    writeln!(std::io::stdout(), "{SANDBOX}{on}")
        .map_err(|error| cannot("write the report", error))?;
    let out = &mut std::io::stdout();
    unpack_into(spool, staging, limits, &job.shared, writers, out)
}

/// Unpacks `spool` below `staging`, makes the shared links, and writes the
/// entries of the manifest with their sums to `out`. To be confined by now is
/// the caller's part, and so is the mask of 022.
pub fn unpack_into(
    spool: File,
    staging: Dir,
    limits: Limits,
    shared: &Shared,
    writers: Writers,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let staging = Arc::new(staging);
    let tree = unpack(spool, &staging, limits, shared, writers)?;
    report(&tree, &staging, out)
}

/// What the first line of the report begins with.
pub const SANDBOX: &str = "# sandbox ";

/// The status by which the unpacker tells the monitor that the disk is full;
/// no client ever sees it.
pub const FULL: u8 = 76;

fn payload() -> Result<File, Failure> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    stdin
        .map(File::from)
        .map_err(|error| cannot("open the payload", error))
}

fn cannot(doing: &str, error: impl Into<std::io::Error>) -> Failure {
    Failure::Io(Error::io(format!("cannot {doing}"), error))
}

/// Unpacks, and gives what there is now below `staging`.
fn unpack(
    spool: File,
    staging: &Arc<Dir>,
    limits: Limits,
    shared: &Shared,
    writers: Writers,
) -> Result<Tree, Failure> {
    let frame = Frame::open(spool, limits.stream(), limits.max_unpacked)?;
    let mut unpacker = Unpacker {
        limits,
        shared,
        entries: Entries::new(frame),
        tree: Tree::new(limits.max_entries),
        writers,
        unpacked: 0,
        open: vec![(Vec::new(), Arc::clone(staging))],
    };
    match unpacker.place_all() {
        // finish() has the failure of the thread that stopped.
        Ok(()) | Err(Failure::Stopped) => {}
        Err(failure) => return Err(failure),
    }
    let empty = unpacker.tree.len() == 0;
    unpacker.link_shared()?;
    let digests = unpacker.writers.finish()?;
    unpacker.entries.finish()?;
    if empty {
        return Err(Rule::Empty.into());
    }
    let mut tree = unpacker.tree;
    for (id, digest) in digests {
        tree.set_digest(id, digest);
    }
    check_links(&tree, staging)?;
    Ok(tree)
}

struct Unpacker<'a> {
    limits: Limits,
    shared: &'a Shared,
    entries: Entries,
    tree: Tree,
    writers: Writers,
    unpacked: u64,
    /// The folders from the release down to where the last entry went. Their
    /// handles stay open because entries come folder by folder.
    open: Vec<(Vec<u8>, Arc<Dir>)>,
}

impl Unpacker<'_> {
    fn place_all(&mut self) -> Result<(), Failure> {
        while let Some(entry) = self.entries.next()? {
            let placed = self.place(&entry);
            placed.map_err(|failure| failure.at(&entry.name))?;
            self.check_room()?;
        }
        Ok(())
    }

    fn check_room(&self) -> Result<(), Failure> {
        if self.unpacked > self.limits.room_bytes || self.tree.len() > self.limits.room_inodes {
            let full = "not enough space: the configured reserve would be used";
            return Err(Failure::Io(Error::new(Code::DiskFull, full)));
        }
        Ok(())
    }

    fn place(&mut self, entry: &Entry) -> Result<(), Failure> {
        let path = entry.path.as_bytes();
        let covering = self.shared.covering(path);
        if covering.is_some() && self.shared.existing == Existing::Refuse {
            return Err(Rule::Shared.into());
        }
        if !matches!(entry.kind, Kind::Dir) && self.shared.is_above_one(path) {
            return Err(Rule::AboveShared.into());
        }
        // By the same rules, whether it will be there or is left out.
        let node = self.admit(&entry.kind)?;
        let components = entry.path.components();
        let added = self.tree.add(&components, node)?;
        if let Some(link) = covering {
            // The folders above the link are the release's.
            let above = link.components().len() - 1;
            self.folder(&components[..above], added.known)?;
            return match entry.kind {
                Kind::File { size, .. } => self.pass_over(size),
                _ => Ok(()),
            };
        }
        match &entry.kind {
            Kind::Dir => self.folder(&components, added.known).map(drop),
            Kind::Link { target } => {
                let place = self.target(&components, &added)?;
                make_link(&place.folder, target, &place.name)
            }
            Kind::File { executable, size } => {
                let target = self.target(&components, &added)?;
                let entries = &mut self.entries;
                self.writers
                    .file(target, *executable, *size, |piece| entries.read_data(piece))
            }
        }
    }

    /// What an entry is in the tree, if the limits let it be there.
    fn admit(&mut self, kind: &Kind) -> Result<Node, Failure> {
        match *kind {
            Kind::Dir => Ok(Node::Dir {
                children: BTreeMap::new(),
                named: true,
            }),
            Kind::Link { .. } if !self.limits.symlinks => Err(Rule::LinksDenied.into()),
            Kind::Link { .. } => Ok(Node::Link),
            Kind::File { executable, size } => {
                if size > self.limits.max_file {
                    return Err(Rule::File(self.limits.max_file).into());
                }
                self.unpacked = self.unpacked.saturating_add(size);
                if self.unpacked > self.limits.max_unpacked {
                    return Err(Rule::Unpacked(self.limits.max_unpacked).into());
                }
                Ok(Node::File {
                    executable,
                    size,
                    sha256: None,
                })
            }
        }
    }

    /// Reads a file's data, and keeps none of it.
    fn pass_over(&mut self, size: u64) -> Result<(), Failure> {
        let mut scrap = [0; 4096];
        let mut left = size;
        while left > 0 {
            let piece = left.min(scrap.len() as u64);
            self.entries.read_data(&mut scrap[..piece as usize])?;
            left -= piece;
        }
        Ok(())
    }

    /// Makes the links to what the site shares, once everything else has its
    /// place, and the folders above them that the archive did not bring.
    fn link_shared(&mut self) -> Result<(), Failure> {
        let shared = self.shared;
        for link in &shared.links {
            self.link_one(link)
                .map_err(|failure| failure.at(link.as_bytes()))?;
        }
        self.check_room()
    }

    fn link_one(&mut self, link: &SharedPath) -> Result<(), Failure> {
        let components = link.components();
        let known = self.tree.share(&components)?;
        let (name, above) = components.split_last().ok_or(Rule::NameEmpty)?;
        let folder = self.folder(above, known)?;
        make_link(&folder, link.target().as_bytes(), name)
    }

    /// Opens the folder that a file or a link goes into.
    fn target(&mut self, path: &[&[u8]], added: &Added) -> Result<Target, Failure> {
        let (name, above) = path.split_last().ok_or(Rule::NameEmpty)?;
        Ok(Target {
            folder: self.folder(above, added.known)?,
            name: (*name).into(),
            id: added.id,
        })
    }

    /// Opens a folder; of its path the first `known` components exist.
    ///
    /// One component at a time, each opened without following a link, from
    /// the handle of the one above.
    fn folder(&mut self, path: &[&[u8]], known: usize) -> Result<Arc<Dir>, Failure> {
        let same = self.open[1..]
            .iter()
            .zip(path)
            .take_while(|((open, _), name)| open == *name)
            .count();
        self.open.truncate(1 + same);
        for (depth, component) in path.iter().enumerate().skip(same) {
            let parent = &self.open[depth].1;
            let name = Name::new(component).ok_or(Rule::NameEmpty)?;
            if depth >= known {
                match parent.make_dir(name, 0o755) {
                    Ok(()) => {}
                    Err(Errno::EEXIST) => return Err(Rule::Duplicate.into()),
                    Err(errno) => return Err(cannot("make a folder", errno)),
                }
            }
            let folder = parent
                .open_dir(name)
                .map_err(|errno| cannot("open a folder", errno))?;
            self.open.push((component.to_vec(), Arc::new(folder)));
        }
        Ok(Arc::clone(&self.open[path.len()].1))
    }
}

fn make_link(folder: &Dir, target: &[u8], name: &[u8]) -> Result<(), Failure> {
    let name = Name::new(name).ok_or(Rule::NameEmpty)?;
    match folder.symlink(OsStr::from_bytes(target), name) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(Rule::Duplicate.into()),
        Err(errno) => Err(cannot("make a link", errno)),
    }
}
