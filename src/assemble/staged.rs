//! Walks a staged tree, and checks that it is what a release may be.
//!
//! The unpacker made the tree, parsed hostile input, and may have been taken over. It has
//! ended, so nothing changes the tree any more. This module walks it by handle: regular
//! files, directories and symlinks only, each with its exact mode, a file with one name
//! only, names that a release may have, all within the limits. No symlink leads out of the
//! release but those to the site's shared paths, which must all exist with their exact
//! targets. The profile of the archive has refused what breaks these rules, with a remedy.
//! So a fault here is one of the unpacker.
//!
//! The tree of a delta was built from a list, and must be exactly that.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::geteuid;

use super::AssembleJob;
use super::delta::{Merged, Source, base_damaged};
use crate::archive::path::{self, CleanPath, LinkTarget};
use crate::archive::time::OLDEST;
use crate::config::Reuse;
use crate::dir::{self, Dir, Name};
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest::{DIR_MODE, Entry, Kind, file_mode};
use crate::names::Sha256Digest;

/// Walks `tree`, and returns its entries in the order of a manifest. Gives each file to
/// `hash`, with its size and the index of its entry. Without a list, its digest is not set
/// yet.
///
/// # Errors
///
/// [`Code::UnpackerDied`] for a tree that is not a release, [`Code::BaseDamaged`] where
/// what was taken from the base is not as listed, and [`Code::IoError`].
pub fn walk(
    tree: &Dir,
    job: &AssembleJob,
    list: Option<&Merged>,
    hash: &mut dyn FnMut(File, u64, usize),
) -> Result<Vec<Entry>> {
    let mut walk = Walk {
        job,
        list,
        hash,
        entries: Vec::new(),
        found: 0,
        bytes: 0,
        shared_symlinks: 0,
        listed: 0,
    };
    let stat = tree.metadata().map_err(|errno| io(b"", errno))?;
    walk.check_directory(b"", &stat)?;
    walk.add(b"", Kind::Dir)?;
    walk.directory(tree, b"")?;
    // No path occurs twice, so an equal number means that all of them exist.
    if walk.shared_symlinks != job.shared.links.len() {
        return Err(fault(b"", "does not contain every shared symlink"));
    }
    let entries = walk.entries;
    if let Some(Merged { entries, .. }) = list {
        return match entries.get(walk.found) {
            // They are in this order.
            Some(missing) => Err(fault(&missing.path, "is missing")),
            // The list was checked as a whole.
            None => Ok(Vec::new()),
        };
    }
    // Only now, because a symlink leads through others. The kernel may follow 40 symlinks
    // with targets of 1,024 bytes for one of the release; the deadline of the request
    // limits this work, and no count of symlinks or bytes does.
    for entry in &entries {
        if let Kind::Link { target } = &entry.kind
            && job.shared.at(&entry.path).is_none()
        {
            check_link_escape(tree, &entry.path, target)?;
        }
    }
    Ok(entries)
}

struct Walk<'a> {
    job: &'a AssembleJob,
    list: Option<&'a Merged>,
    hash: &'a mut dyn FnMut(File, u64, usize),
    /// Empty where there is a list.
    entries: Vec<Entry>,
    /// The number of entries so far.
    found: usize,
    bytes: u64,
    shared_symlinks: usize,
    /// The number of names in all directories that were opened.
    listed: usize,
}

impl Walk<'_> {
    /// Walks what is below `directory`, whose path is `path`. The depth is limited because
    /// every path is checked before the descent.
    fn directory(&mut self, directory: &Dir, path: &[u8]) -> Result<()> {
        if self.job.inherited.set_group_id {
            // It has passed its group on, and a directory of a release has mode 0755.
            directory
                .set_mode(DIR_MODE & self.job.inherited.permissions)
                .map_err(|errno| io(path, errno))?;
        }
        // The unpacker's limit covers the shared symlinks. A compromised one can make more names
        // than fit into memory, so they are counted before they are kept.
        let most = self.job.limits.max_entries as usize - self.listed;
        let found = match directory.entries_with_type_up_to(most) {
            Err(Errno::EOVERFLOW) => return Err(fault(path, "is over the limit of entries")),
            found => found.map_err(|errno| io(path, errno))?,
        };
        self.listed += found.len();
        for (name, found) in found {
            let below = match path {
                b"" => name.as_bytes().to_vec(),
                path => [path, b"/", name.as_bytes()].concat(),
            };
            let is_directory = found == SFlag::S_IFDIR;
            let clean = CleanPath::new(&below, is_directory);
            let name = Name::new(name.as_bytes())
                .filter(|_| clean.is_ok_and(|clean| clean.as_bytes() == below))
                .ok_or_else(|| fault(&below, "has a name that no release may have"))?;
            if found != SFlag::S_IFLNK && self.job.shared.at(&below).is_some() {
                return Err(fault(&below, "is not the shared symlink"));
            }
            match found {
                SFlag::S_IFDIR => {
                    let open = directory.open_dir(name);
                    let inner = open.map_err(|errno| io(&below, errno))?;
                    let stat = inner.metadata().map_err(|errno| io(&below, errno))?;
                    self.check_directory(&below, &stat)?;
                    self.add(&below, Kind::Dir)?;
                    self.directory(&inner, &below)?;
                }
                SFlag::S_IFREG => self.file(directory, name, &below)?,
                SFlag::S_IFLNK => {
                    let target = directory.read_link(name);
                    let target = target.map_err(|errno| io(&below, errno))?;
                    self.symlink(&below, &target)?;
                }
                _ => return Err(self.fault(&below, "is neither file, directory nor symlink")),
            }
        }
        Ok(())
    }

    fn check_directory(&self, path: &[u8], stat: &FileStat) -> Result<()> {
        let inherited = self.job.inherited;
        // A default list takes the same bits from every mode, and a set-group-id directory
        // makes others.
        let passed_on = if inherited.set_group_id {
            Mode::S_ISGID.bits()
        } else {
            0
        };
        let mode = DIR_MODE & inherited.permissions | passed_on;
        if dir::file_type(stat) != SFlag::S_IFDIR || stat.st_mode & 0o7777 != mode {
            return Err(self.fault(path, "has another mode than a directory of a release"));
        }
        // The assembler makes the directories of a delta, and gives some the time of the base.
        if self.list.is_some() {
            return Ok(());
        }
        check_time(path, stat)
    }

    fn file(&mut self, directory: &Dir, name: Name<'_>, path: &[u8]) -> Result<()> {
        let file = directory.open_own_file(name);
        let file = file.map_err(|errno| io(path, errno))?;
        let stat = fstat(&file).map_err(|errno| io(path, errno))?;
        let mode = |executable| file_mode(executable) & self.job.inherited.permissions;
        // The owner has all rights: `Store::prepare_incoming` requires it.
        let executable = stat.st_mode & 0o100 != 0;
        if dir::file_type(&stat) != SFlag::S_IFREG || stat.st_mode & 0o7777 != mode(executable) {
            return Err(self.fault(path, "has another type or mode than a file of a release"));
        }
        // A file of an adopted base may have any time.
        if !self.is_from_base() {
            check_time(path, &stat)?;
        }
        if self.is_linked() {
            // The account may not change a file of another one. The unpacker makes no such file.
            if stat.st_uid != geteuid().as_raw() {
                return Err(self.fault(path, "belongs to another account"));
            }
        } else if stat.st_nlink != 1 {
            return Err(self.fault(path, "has more than one name"));
        }
        let size = stat.st_size as u64;
        self.bytes = self.bytes.saturating_add(size);
        let limits = self.job.limits;
        if size > limits.max_file || self.bytes > limits.max_unpacked {
            return Err(fault(path, "is over the limit of bytes"));
        }
        let index = self.found;
        // The digest is set when the file is hashed; `set_digests` counts.
        let sha256 = Sha256Digest([0; 32]);
        let kind = Kind::File {
            executable,
            size,
            sha256,
        };
        self.add(path, kind)?;
        (self.hash)(file, size, index);
        Ok(())
    }

    fn symlink(&mut self, path: &[u8], target: &OsStr) -> Result<()> {
        let target = target.as_bytes().to_vec();
        match self.job.shared.at(path) {
            Some(shared) if target == shared.target().as_bytes() => self.shared_symlinks += 1,
            Some(_) => return Err(fault(path, "is not the shared symlink")),
            None => {
                if path::check_symlink_target(&target).is_err() {
                    return Err(self.fault(path, "has a target that no release may have"));
                }
            }
        }
        self.add(path, Kind::Link { target })
    }

    fn add(&mut self, path: &[u8], kind: Kind) -> Result<()> {
        match self.list {
            Some(list) => match list.entries.get(self.found) {
                Some(listed) if listed.path == path && is_same(&listed.kind, &kind) => {}
                Some(listed) if listed.path == path => {
                    return Err(self.fault(path, "is not as listed"));
                }
                _ => return Err(fault(path, "is not in the list")),
            },
            None => self.entries.push(Entry {
                path: path.to_vec(),
                kind,
            }),
        }
        self.found += 1;
        Ok(())
    }

    /// Returns whether the next entry is a hard link to a file of the base.
    fn is_linked(&self) -> bool {
        let delta = self.job.delta.as_ref();
        delta.is_some_and(|delta| delta.reuse == Reuse::Link) && self.is_from_base()
    }

    fn is_from_base(&self) -> bool {
        let source = self.list.and_then(|list| list.sources.get(self.found));
        source == Some(&Source::Base)
    }

    /// Returns the error of the next entry.
    fn fault(&self, path: &[u8], what: &str) -> Error {
        match &self.job.delta {
            Some(delta) if self.is_from_base() => base_damaged(&delta.base, path, what),
            _ => fault(path, what),
        }
    }
}

/// Requires a time that the unpacker gives to a file (`archive/time.rs`).
///
/// The kernel has set the time of the last change since, by its clock. That may have been set back
/// meanwhile, but hardly by more than a day.
fn check_time(path: &[u8], stat: &FileStat) -> Result<()> {
    let newest = stat.st_ctime.max(OLDEST).saturating_add(24 * 60 * 60);
    if (OLDEST..=newest).contains(&stat.st_mtime) {
        return Ok(());
    }
    Err(fault(path, "has a time that no release may have"))
}

/// Returns whether two entries are the same but for their digests.
fn is_same(listed: &Kind, found: &Kind) -> bool {
    match (listed, found) {
        (
            Kind::File {
                executable, size, ..
            },
            Kind::File {
                executable: other,
                size: other_size,
                ..
            },
        ) => executable == other && size == other_size,
        (listed, found) => listed == found,
    }
}

fn check_link_escape(tree: &Dir, path: &[u8], target: &[u8]) -> Result<()> {
    let at = Path::new(OsStr::from_bytes(path));
    let target = || Ok(OsString::from(OsStr::from_bytes(target)));
    match path::check_link_escape(tree.walk_beneath(at).map(drop), target)
        .map_err(|errno| io(path, errno))?
    {
        LinkTarget::Inside => Ok(()),
        LinkTarget::Escapes | LinkTarget::Unresolved | LinkTarget::Loop => {
            Err(fault(path, "is a symlink out of the release"))
        }
    }
}

/// Returns the error of a tree that the unpacker should have refused to make.
pub fn fault(path: &[u8], what: &str) -> Error {
    let path = escape::escape_truncated(path, 300);
    let problem = format!("the staged files are not a release: './{path}' {what}");
    Error::new(Code::UnpackerDied, problem)
        .remedy("nothing was published; keep the payload and report it")
}

fn io(path: &[u8], errno: Errno) -> Error {
    let path = escape::escape_truncated(path, 300);
    Error::io(format!("cannot inspect './{path}'"), errno)
}

#[cfg(test)]
mod tests;
