//! Builds the tree of a delta on disk: directories, symlinks, what is unchanged from the
//! base, and the files that the unpacker wrote.
//!
//! The list was checked as a whole, and this process alone works in the new tree. So no
//! symlink is in the way when a file is created: each component is opened from the handle
//! of the one above, and a symlink is never followed. [`super::staged`] walks the result
//! afterwards, and compares it with the list.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use nix::sys::time::TimeSpec;
use rustix::fs::{Advice, copy_file_range, fadvise};

use super::AssembleJob;
use super::delta::{
    self, DeltaJob, Merged, SEND_WHOLE, Source, base_damaged, base_error, list_damaged,
};
use crate::config::Reuse;
use crate::dir::{self, Dir, Name};
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest::{self, DIR_MODE, Identity, Kind, file_mode};
use crate::store::layout::{CHANGES_FILE, MEMBERS_FILE};

/// The maximum number of bytes that the kernel reads ahead of one copy. The walk reads the rest
/// of a larger file in order, and the kernel reads ahead of that by itself.
const READ_AHEAD: Option<NonZeroU64> = NonZeroU64::new(1 << 20);

/// What is open for a delta.
pub struct DeltaPlaces {
    pub staging: Dir,
    /// The new tree, empty.
    pub tree: Dir,
    /// What the unpacker wrote: the changes, and the files named by their numbers.
    pub members: Dir,
    pub base: Dir,
    /// The manifest of the base.
    pub manifest: File,
}

/// Reads a file, and keeps the error of a failed read: to a reader of lines that is one more
/// malformed line, for which it would blame the client.
struct Checked<'a> {
    name: &'a str,
    file: &'a File,
    failed: Option<std::io::Error>,
}

impl Checked<'_> {
    /// Reports a read that failed.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`].
    fn check(&mut self) -> Result<()> {
        match self.failed.take() {
            Some(error) => Err(Error::io(format!("cannot read {}", self.name), error)),
            None => Ok(()),
        }
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }
}

/// A directory of the new tree that is open.
struct Open {
    depth: usize,
    tree: Dir,
    /// The same directory of the base, if it has one.
    base: Option<Dir>,
    /// Whether it has the entries that it has in the base, and so its time.
    keeps_time: bool,
}

/// Merges the list of the base with the changes, and builds the tree. Returns the list of
/// the tree.
///
/// # Errors
///
/// Those of [`delta::merge`]; [`Code::BadArchive`] for an archive that does not have the
/// files of its changes; [`Code::BaseDamaged`] for a base that is not as its manifest says;
/// and those of the system calls.
pub fn build_delta(places: DeltaPlaces, job: &AssembleJob, delta: &DeltaJob) -> Result<Merged> {
    let name = format!("the manifest of '{}'", delta.base);
    let mut manifest = checked(&name, &places.manifest);
    let identity = Identity::read(&mut manifest);
    manifest.get_mut().check()?;
    let identity = identity.map_err(|flaw| list_damaged(&delta.base, &flaw.to_string()))?;
    let open = |name: Name<'_>| {
        let file = places.members.open_own_file(name);
        file.map_err(|errno| Error::io(format!("cannot open '{name}'"), errno))
    };
    let changes = open(CHANGES_FILE)?;
    let mut changes = checked("the changes", &changes);
    let list = delta::merge(
        &identity,
        &mut manifest,
        &mut changes,
        &job.shared,
        &job.limits,
        delta,
    );
    manifest.get_mut().check()?;
    changes.get_mut().check()?;
    let list = list?;
    let members = open(MEMBERS_FILE)?;
    let mut members = checked("the list of members", &members);
    let agree = check_members(&list, &mut members);
    members.get_mut().check()?;
    agree?;
    build(places, &list, delta)?;
    Ok(list)
}

fn checked<'a>(name: &'a str, file: &'a File) -> BufReader<Checked<'a>> {
    BufReader::new(Checked {
        name,
        file,
        failed: None,
    })
}

/// Checks that the archive has exactly the files of the changes, in their order.
fn check_members(list: &Merged, members: &mut impl BufRead) -> Result<()> {
    let refuse = |what: String| {
        let problem = format!("the delta: its members are not those of its changes: {what}");
        Err(Error::new(Code::BadArchive, problem).remedy(SEND_WHOLE))
    };
    for expected in delta::expected_members(list) {
        match manifest::read_line(members) {
            Ok(Some(found)) if found == expected => {}
            Ok(Some(found)) => return refuse(format!("it has '{found}' for '{expected}'")),
            _ => return refuse(format!("it has no '{expected}'")),
        }
    }
    match manifest::read_line(members) {
        Ok(None) => Ok(()),
        _ => refuse("it has more".to_owned()),
    }
}

fn build(places: DeltaPlaces, merged: &Merged, job: &DeltaJob) -> Result<()> {
    let DeltaPlaces {
        tree,
        members,
        base,
        ..
    } = places;
    let build = Build { job, members };
    let root = Open {
        depth: 0,
        tree,
        base: Some(base),
        keeps_time: !merged.changed.contains(&b""[..]),
    };
    let mut open = vec![root];
    for (entry, source) in merged.entries.iter().zip(&merged.sources) {
        let path = entry.path.as_slice();
        if path.is_empty() {
            continue;
        }
        let depth = path.iter().filter(|byte| **byte == b'/').count();
        while let Some(done) = open.pop_if(|last| last.depth > depth) {
            build.close(done)?;
        }
        let (Some(above), Some(name)) = (open.last(), last_name(path)) else {
            return Err(crate::error::bug());
        };
        match (&entry.kind, source) {
            (Kind::Dir, _) => {
                let keeps_time = !merged.changed.contains(path);
                let new =
                    build.directory(above, name, *source == Source::Base, keeps_time, path)?;
                open.push(new);
            }
            (Kind::Link { target }, _) => above
                .tree
                .symlink(OsStr::from_bytes(target), name)
                .map_err(|errno| cannot(path, errno))?,
            (
                Kind::File {
                    size, executable, ..
                },
                Source::Base,
            ) => {
                build.reuse(above, name, *size, *executable, path)?;
            }
            (Kind::File { .. }, Source::Delta(number)) => {
                let member = number.to_string();
                let member = Name::new(member.as_bytes()).ok_or_else(crate::error::bug)?;
                build
                    .members
                    .rename_new(member, &above.tree, name)
                    .map_err(|errno| cannot(path, errno))?;
            }
            (Kind::File { .. }, Source::Site) => return Err(crate::error::bug()),
        }
    }
    open.into_iter()
        .rev()
        .try_for_each(|last| build.close(last))
}

struct Build<'a> {
    job: &'a DeltaJob,
    members: Dir,
}

impl Build<'_> {
    fn directory(
        &self,
        above: &Open,
        name: Name<'_>,
        in_base: bool,
        keeps_time: bool,
        path: &[u8],
    ) -> Result<Open> {
        let open = above.tree.make_dir(name, DIR_MODE);
        let tree = open
            .and_then(|()| above.tree.open_dir(name))
            .map_err(|errno| cannot(path, errno))?;
        let base = match &above.base {
            Some(base) if in_base => {
                let base = base.open_dir_of_this_mount(name);
                Some(base.map_err(|errno| base_error(&self.job.base, path, errno))?)
            }
            _ => None,
        };
        Ok(Open {
            depth: above.depth + 1,
            tree,
            base,
            keeps_time,
        })
    }

    /// Completes a directory after everything in it has been created.
    fn close(&self, closed: Open) -> Result<()> {
        let Open {
            tree,
            base,
            keeps_time,
            ..
        } = closed;
        let set = || {
            // Each new entry has changed the time of its directory.
            if let Some(base) = base.filter(|_| keeps_time) {
                dir::set_modified(&tree, modified(&base.metadata()?))?;
            }
            Ok(())
        };
        set().map_err(|errno| cannot(b"", errno))
    }

    /// Takes a file from the base.
    fn reuse(
        &self,
        above: &Open,
        name: Name<'_>,
        size: u64,
        executable: bool,
        path: &[u8],
    ) -> Result<()> {
        let base = above.base.as_ref().ok_or_else(crate::error::bug)?;
        let damaged = |errno| base_error(&self.job.base, path, errno);
        if self.job.reuse == Reuse::Link {
            // The walk checks what this links to, by its own descriptor.
            return base.link(name, &above.tree, name).map_err(damaged);
        }
        let from = base.open_file(name).map_err(damaged)?;
        let stat = fstat(&from).map_err(damaged)?;
        if stat.st_size as u64 != size {
            return Err(base_damaged(&self.job.base, path, "has another size"));
        }
        let to = above
            .tree
            .create_new(name, file_mode(executable))
            .map_err(|errno| cannot(path, errno))?;
        let copied = copy(&from, &to, size).map_err(|error| {
            let path = escape::escape_truncated(path, 300);
            Error::io(format!("cannot copy './{path}'"), error)
        })?;
        if !copied {
            return Err(base_damaged(&self.job.base, path, "has another size"));
        }
        // A copy that shares its blocks has no pages in memory. The disk reads them while the
        // next files are copied, and the walk need not wait for it. An error is ignored: this is
        // only an optimization.
        _ = fadvise(&to, 0, READ_AHEAD, Advice::WillNeed);
        dir::set_modified(&to, modified(&stat)).map_err(|errno| cannot(path, errno))
    }
}

/// Copies `size` bytes. Returns whether there were so many.
///
/// copy_file_range(2) shares the blocks where the file system can (xfs and btrfs).
fn copy(from: &File, to: &File, size: u64) -> std::io::Result<bool> {
    let mut left = size;
    while left > 0 {
        let len = left.min(1 << 30) as usize;
        match copy_file_range(from, None, to, None, len) {
            Ok(0) => return Ok(false),
            Ok(copied) => left -= copied as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => match Errno::from_raw(errno.raw_os_error()) {
                // Some file systems do not have the call.
                Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EXDEV | Errno::EINVAL
                    if left == size =>
                {
                    return copy_by_reading(from, to, size);
                }
                errno => return Err(errno.into()),
            },
        }
    }
    Ok(true)
}

fn copy_by_reading(mut from: &File, mut to: &File, size: u64) -> std::io::Result<bool> {
    let mut buffer = vec![0; 256 * 1024];
    let mut left = size;
    while left > 0 {
        let len = left.min(buffer.len() as u64) as usize;
        let read = from.read(&mut buffer[..len])?;
        if read == 0 {
            return Ok(false);
        }
        to.write_all(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(true)
}

fn modified(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}

fn last_name(path: &[u8]) -> Option<Name<'_>> {
    path.rsplit(|byte| *byte == b'/').next().and_then(Name::new)
}

fn cannot(path: &[u8], errno: Errno) -> Error {
    let path = escape::escape_truncated(path, 300);
    Error::io(format!("cannot create './{path}'"), errno)
}
