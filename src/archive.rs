//! The unpacker: a separate process, and the only one that parses an archive.
//!
//! The monitor executes this program again, with the payload as stdin, the staging
//! directory as working directory, nothing else open and an empty environment. The
//! unpacker writes the archive's files into its working directory. It says on stdout how
//! much it has written and when it has finished, or on stderr why it failed. It hashes
//! nothing: the [assembler](crate::assemble) hashes what is on disk. It knows no site, no
//! configuration and no request: it receives one [`UnpackJob`], on the socket that is its
//! stderr, and no more.

mod acl;
mod delta;
mod disk_use;
mod entries;
mod hard_link;
mod header;
mod job;
mod open_directories;
pub mod path;
pub mod pax;
mod remedy;
mod report;
mod rule;
pub mod time;
mod tree;
mod writer;
mod zstd_frame;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;

use crate::dir::{self, Dir, Name};
use crate::error::Error;
use crate::message;
use crate::sandbox;
use crate::shared_paths::{Existing, Shared, SharedPath};
use entries::{ArchiveEntries, ArchiveEntry, EntryKind};
use hard_link::Source;
use open_directories::OpenDirectories;
use path::CleanPath;
use report::check_symlinks;
use rule::Rule;
use time::FileTimes;
use tree::{Added, Node, NodeId, Tree};
use writer::Destination;
use zstd_frame::Frames;

pub use disk_use::{DiskNeed, DiskUse, disk_need};
pub use job::{MAX_JOB, UnpackJob, UnpackLimits, WORD, max_on_disk, upload_memory};
pub use report::{FailureReport, MAX_MESSAGE, Progress, ReportHead, UnpackMessage, UnpackReport};
pub use rule::UnpackError;
pub use writer::Writers;

/// The name of the first member of a delta. Nothing at the top of a release has it.
pub const CHANGES: &str = ".deploy-shell-changes";

/// Returns whether a path is [`CHANGES`] or below it.
pub fn is_changes(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').next() == Some(CHANGES.as_bytes())
}

/// Runs as the unpacker, and returns the exit status: 0 with an [`UnpackReport`] on stdout,
/// or the status of the error's code with a [`FailureReport`] on stderr.
///
/// The first line on stdout says which parts of the sandbox are in force. The
/// unpacker writes it before it reads a byte of the payload.
pub fn main(job: UnpackJob) -> u8 {
    let Err(error) = run_job(&job) else {
        return 0;
    };
    let error = error.into_error();
    let line = FailureReport::new(&error)
        .and_then(|report| message::encode(&report).ok())
        .unwrap_or(error.problem);
    _ = writeln!(std::io::stderr(), "{line}");
    error.code.exit()
}

fn run_job(job: &UnpackJob) -> Result<(), UnpackError> {
    let limits = job.limits;
    let staging = Dir::cwd().map_err(|errno| io_error("open the staging directory", errno))?;
    let payload = stdin_file()?;
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(4));
    let partial =
        sandbox::restrict_unpacker_before_threads(&staging, limits.max_file, limits.memory());
    // The threads start between the two halves of the sandbox: they inherit the
    // first half, and the second half forbids starting more.
    let writers = Writers::start(threads)?;
    let sandbox = sandbox::restrict_unpacker_after_threads(partial);
    sandbox
        .ensure_full(job.sandbox_required)
        .map_err(UnpackError::Io)?;
    let head = message::encode(&ReportHead { sandbox }).map_err(UnpackError::Io)?;
    writeln!(std::io::stdout(), "{head}").map_err(|error| io_error("write the report", error))?;
    let progress = Progress::new(Box::new(std::io::stdout()));
    let report = if job.delta {
        delta::unpack(payload, staging, limits, writers, progress)?
    } else {
        unpack_into(payload, staging, limits, &job.shared, writers, progress)?
    };
    let report = message::encode(&UnpackMessage::Done(report)).map_err(UnpackError::Io)?;
    writeln!(std::io::stdout(), "{report}").map_err(|error| io_error("write the report", error))
}

/// Unpacks `payload` into `staging`, and creates the shared symlinks.
///
/// The caller has set the umask to 022 and has entered the sandbox.
///
/// # Errors
///
/// Returns the rule that the archive breaks, or the error of the operating system.
pub fn unpack_into(
    payload: File,
    staging: Dir,
    limits: UnpackLimits,
    shared: &Shared,
    writers: Writers,
    progress: Progress,
) -> Result<UnpackReport, UnpackError> {
    let staging = Arc::new(staging);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = TimeSpec::from_duration(now.unwrap_or_default());
    let times = FileTimes::new(limits.keep_times, now);
    let frames = Frames::open(payload, limits.stream(), limits.max_unpacked)?;
    let mut unpacker = Unpacker {
        limits,
        shared,
        times,
        entries: ArchiveEntries::new(frames, limits.max_extended()),
        tree: Tree::new(limits.max_entries),
        writers,
        entries_read: 0,
        unpacked: 0,
        has_file: false,
        disk_use: DiskUse::new(limits.block),
        progress,
        open: OpenDirectories::new(Arc::clone(&staging)),
    };
    match unpacker.unpack_entries() {
        // finish() returns the error of the thread that stopped.
        Ok(()) | Err(UnpackError::WriterStopped) => {}
        Err(error) => return Err(error),
    }
    let (empty, has_file) = (unpacker.tree.len() == 0, unpacker.has_file);
    let known = unpacker.create_shared_symlinks()?;
    unpacker.writers.finish()?;
    unpacker.entries.finish()?;
    if empty {
        return Err(Rule::Empty.into());
    }
    // Such a release serves nothing. Often tar ran in the wrong directory.
    if !has_file {
        return Err(Rule::NoFile.into());
    }
    check_symlinks(&unpacker.tree, &staging)?;
    set_directory_times(&unpacker.tree, &mut unpacker.open, times)?;
    Ok(UnpackReport { known })
}

fn stdin_file() -> Result<File, UnpackError> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    stdin
        .map(File::from)
        .map_err(|error| io_error("open the payload", error))
}

fn io_error(doing: &str, error: impl Into<std::io::Error>) -> UnpackError {
    UnpackError::Io(Error::io(format!("cannot {doing}"), error))
}

struct Unpacker<'a> {
    limits: UnpackLimits,
    shared: &'a Shared,
    times: FileTimes,
    entries: ArchiveEntries,
    tree: Tree,
    writers: Writers,
    /// The entries of the archive, repeated ones included.
    entries_read: u64,
    /// The bytes of all files.
    unpacked: u64,
    /// Whether the archive has a regular file.
    has_file: bool,
    disk_use: DiskUse,
    progress: Progress,
    open: OpenDirectories,
}

impl Unpacker<'_> {
    fn unpack_entries(&mut self) -> Result<(), UnpackError> {
        while let Some(entry) = self.entries.next_entry()? {
            self.unpack_entry(&entry)
                .map_err(|error| error.at(&entry.name))?;
        }
        Ok(())
    }

    /// Counts an entry and the directories above it that are new, before any of them is
    /// created. `known` leading components of its path were directories before.
    fn count(
        &mut self,
        path: &[&[u8]],
        known: usize,
        add: impl FnOnce(&mut DiskUse),
    ) -> Result<(), UnpackError> {
        for depth in known + 1..path.len() {
            self.disk_use.add_directory(&path[..depth]);
        }
        if known < path.len() {
            add(&mut self.disk_use);
        }
        let bytes = self.disk_use.bytes();
        if bytes > self.limits.max_on_disk() {
            return Err(Rule::OnDisk(self.limits.max_on_disk()).into());
        }
        let inodes = self.tree.len();
        let uses = DiskNeed { bytes, inodes };
        self.progress.report(uses, &self.limits)
    }

    fn unpack_entry(&mut self, entry: &ArchiveEntry) -> Result<(), UnpackError> {
        // An entry that is repeated adds nothing to the tree, whose limit does not stop it.
        let max = self.limits.max_entries_read();
        self.entries_read += 1;
        if self.entries_read > max {
            return Err(Rule::EntriesRead(max).into());
        }
        let path = entry.path.as_bytes();
        if is_changes(path) {
            return Err(Rule::ChangesName.into());
        }
        let covering = self.shared.covering(path);
        if covering.is_some() && self.shared.existing == Existing::Refuse {
            return Err(Rule::AtSharedPath.into());
        }
        if !matches!(entry.kind, EntryKind::Dir) && self.shared.is_above_one(path) {
            return Err(Rule::AboveSharedPath.into());
        }
        // The same rules hold for an entry that is not unpacked.
        let components = entry.path.components();
        match &entry.kind {
            EntryKind::Dir => {
                let node = Node::Dir {
                    children: BTreeMap::new(),
                    mtime: None,
                };
                let added = self.tree.add(&components, node)?;
                self.count(&components, added.known, |disk_use| {
                    disk_use.add_directory(&components);
                })?;
                if covering.is_none() {
                    self.tree.set_mtime(added.id, entry.mtime);
                }
                if added.known == components.len() {
                    return Ok(());
                }
                // The directories above a shared symlink belong to the release.
                let len = covering.map_or(components.len(), depth_above);
                self.open
                    .directory(&components[..len], added.known)
                    .map(drop)
            }
            EntryKind::Symlink { .. } if !self.limits.symlinks => Err(Rule::SymlinksDenied.into()),
            EntryKind::Symlink { target } => {
                let added = self.tree.add(&components, Node::Symlink)?;
                self.count(&components, added.known, |disk_use| {
                    disk_use.add_symlink(&components, target);
                })?;
                match self.destination(entry, &added, covering)? {
                    Some(to) => create_symlink(&to.dir, target, &to.name),
                    None => Ok(()),
                }
            }
            EntryKind::File { executable, size } => {
                let added = self.add_file(&components, *executable, *size, None)?;
                let Some(to) = self.destination(entry, &added, covering)? else {
                    return self.skip_data(*size);
                };
                let entries = &mut self.entries;
                self.writers
                    .write_file(to, *executable, *size, |buffer| entries.read_data(buffer))
            }
            EntryKind::HardLink { target, executable } => {
                let source = hard_link::find_source(
                    &self.tree,
                    self.shared,
                    &components,
                    target,
                    *executable,
                )?;
                let Some(from) = source else {
                    return Ok(());
                };
                let original = Some(from.original);
                let added = self.add_file(&components, from.executable, from.size, original)?;
                match self.destination(entry, &added, covering)? {
                    Some(to) => self.copy_file(target, &from, to),
                    None => Ok(()),
                }
            }
        }
    }

    /// Adds a file that is within the limits to the tree, and counts it.
    fn add_file(
        &mut self,
        path: &[&[u8]],
        executable: bool,
        size: u64,
        copy_of: Option<NodeId>,
    ) -> Result<Added, UnpackError> {
        if size > self.limits.max_file {
            return Err(Rule::File(self.limits.max_file).into());
        }
        self.unpacked = self.unpacked.saturating_add(size);
        if self.unpacked > self.limits.max_unpacked {
            return Err(Rule::Unpacked(self.limits.max_unpacked).into());
        }
        self.has_file = true;
        let node = Node::File {
            executable,
            size,
            copy_of,
        };
        let added = self.tree.add(path, node)?;
        self.count(path, added.known, |disk_use| disk_use.add_file(path, size))?;
        Ok(added)
    }

    /// Writes a file with the content of the earlier file at `target`.
    ///
    /// A release has no hard links: each of its files can be replaced or removed by
    /// itself.
    fn copy_file(
        &mut self,
        target: &CleanPath,
        from: &Source,
        to: Destination,
    ) -> Result<(), UnpackError> {
        let components = target.components();
        let (name, above) = components.split_last().ok_or(Rule::NameEmpty)?;
        let name = Name::new(name).ok_or(Rule::NameEmpty)?;
        // A thread may still write that file.
        self.writers.wait_until_written()?;
        let mut file = self
            .open
            .directory(above, above.len())?
            .open_own_file(name)
            .map_err(|errno| io_error("open a file of the upload", errno))?;
        self.writers
            .write_file(to, from.executable, from.size, |buffer| {
                file.read_exact(buffer)
                    .map_err(|error| io_error("read a file of the upload", error))
            })
    }

    /// Reads a file's data and discards it.
    fn skip_data(&mut self, size: u64) -> Result<(), UnpackError> {
        let mut scratch = [0; 4096];
        let mut left = size;
        while left > 0 {
            let len = left.min(scratch.len() as u64);
            self.entries.read_data(&mut scratch[..len as usize])?;
            left -= len;
        }
        Ok(())
    }

    /// Creates the symlinks to the site's shared paths, after all entries, and the
    /// directories above them that the archive does not have. Returns how many directories
    /// above each were there before.
    fn create_shared_symlinks(&mut self) -> Result<Vec<usize>, UnpackError> {
        let shared = self.shared;
        let create = |path: &SharedPath| {
            self.create_shared_symlink(path)
                .map_err(|error| error.at(path.as_bytes()))
        };
        shared.links.iter().map(create).collect()
    }

    fn create_shared_symlink(&mut self, path: &SharedPath) -> Result<usize, UnpackError> {
        let components = path.components();
        let known = self.tree.add_shared_symlink(&components)?;
        let target = path.target();
        self.count(&components, known, |disk_use| {
            disk_use.add_symlink(&components, target.as_bytes());
        })?;
        let (name, above) = components.split_last().ok_or(Rule::NameEmpty)?;
        let dir = self.open.directory(above, known)?;
        create_symlink(&dir, target.as_bytes(), name)?;
        Ok(known)
    }

    /// Opens the directory that a file or symlink goes into. Returns none where the
    /// site has a shared symlink at or above it: only the directories above that
    /// symlink are made.
    fn destination(
        &mut self,
        entry: &ArchiveEntry,
        added: &Added,
        covering: Option<&SharedPath>,
    ) -> Result<Option<Destination>, UnpackError> {
        let path = entry.path.components();
        if let Some(shared) = covering {
            self.open
                .directory(&path[..depth_above(shared)], added.known)?;
            return Ok(None);
        }
        let (name, above) = path.split_last().ok_or(Rule::NameEmpty)?;
        Ok(Some(Destination {
            dir: self.open.directory(above, added.known)?,
            name: (*name).into(),
            mtime: self.times.for_entry(Some(entry.mtime)),
        }))
    }
}

/// Sets the times of all directories, after everything in them has been created: each
/// new entry changes the time of its directory. That includes our own symlinks to
/// shared paths, which so leave no trace in the times.
///
/// A symlink keeps the time of its creation. utimensat(2) takes the time of a symlink
/// only by a path, which the sandbox denies, and nothing serves that time.
fn set_directory_times(
    tree: &Tree,
    open: &mut OpenDirectories,
    times: FileTimes,
) -> Result<(), UnpackError> {
    tree.visit(|path, node| {
        let Node::Dir { mtime, .. } = node else {
            return Ok(());
        };
        let components: Vec<_> = match path {
            b"" => Vec::new(),
            path => path.split(|byte| *byte == b'/').collect(),
        };
        let directory = open.directory(&components, components.len())?;
        dir::set_modified(&directory, times.for_entry(*mtime))
            .map_err(|errno| io_error("set the time of a directory", errno))
    })
}

/// Returns the number of directories above a shared path.
fn depth_above(shared: &SharedPath) -> usize {
    shared.components().len() - 1
}

fn create_symlink(dir: &Dir, target: &[u8], name: &[u8]) -> Result<(), UnpackError> {
    let name = Name::new(name).ok_or(Rule::NameEmpty)?;
    match dir.symlink(OsStr::from_bytes(target), name) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(Rule::Duplicate.into()),
        Err(errno) => Err(io_error("create a symlink", errno)),
    }
}
