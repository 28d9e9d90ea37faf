//! Compares the staged tree with the unpacker's report.
//!
//! Both are untrusted: the unpacker parsed hostile input and may have been taken
//! over. It has ended, so nothing changes the tree any more. This module walks
//! the tree by handle in step with the report and requires the same names in the
//! same order, and the reported type, mode, size and target of each. A file has
//! one name only. No symlink leads out of the release but those to the site's
//! shared paths, which must all exist with their exact targets. File contents are
//! not read again; [`crate::verify`] does that.

use std::ffi::OsStr;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode};

use super::CHECKING;
use super::odd_names::OddNames;
use crate::archive::path::{self, CleanPath, LinkTarget};
use crate::deadline::Deadline;
use crate::dir::{self, Dir, Name};
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest::{DIR_MODE, Entries, Entry, Kind, Sums};
use crate::shared_paths::Shared;
use crate::store::Inherited;

/// Walks `tree` and compares it with the entries of `report`. `shared` has the
/// symlinks that the release must contain. Returns the sums of the entries, and the
/// names to warn about.
///
/// The deadline bounds the work, and no count of symlinks or bytes does: the kernel may
/// follow 40 symlinks with targets of 1,024 bytes for one of the release (about 2 ms), so
/// 40 long targets make each of `max_entries` short ones expensive.
///
/// # Errors
///
/// [`Code::UnpackerDied`] for a difference or a malformed report,
/// [`Code::Timeout`] after the deadline, and [`Code::IoError`].
pub fn inspect(
    tree: &Dir,
    shared: &Shared,
    inherited: Inherited,
    report: &mut impl BufRead,
    deadline: Deadline,
) -> Result<(Sums, OddNames)> {
    let mut inspection = Inspection {
        tree,
        shared,
        inherited,
        deadline,
        report: Entries::new(report),
        sums: Sums::default(),
        odd_names: OddNames::default(),
        shared_symlinks: 0,
    };
    inspection.release()?;
    // No path occurs twice, so an equal number means that all of them exist.
    if inspection.shared_symlinks != shared.links.len() {
        return Err(report_mismatch(
            b"",
            "does not contain every shared symlink",
        ));
    }
    Ok((inspection.sums, inspection.odd_names))
}

struct Inspection<'a, R> {
    tree: &'a Dir,
    shared: &'a Shared,
    inherited: Inherited,
    deadline: Deadline,
    report: Entries<'a, R>,
    sums: Sums,
    odd_names: OddNames,
    shared_symlinks: usize,
}

impl<R: BufRead> Inspection<'_, R> {
    fn release(&mut self) -> Result<()> {
        let entry = self.next_entry(b"")?;
        let stat = self.tree.metadata().map_err(|errno| io(b"", errno))?;
        check_metadata(&entry, &stat, self.inherited)?;
        self.directory(self.tree, b"")?;
        match self.report.next_entry() {
            Ok(None) => Ok(()),
            Ok(Some(entry)) => Err(report_mismatch(&entry.path, "is reported but missing")),
            Err(why) => Err(malformed(b"", why)),
        }
    }

    /// Compares everything below `directory`, whose path is `path`. The depth is
    /// limited because every path is checked before the descent.
    fn directory(&mut self, directory: &Dir, path: &[u8]) -> Result<()> {
        if self.inherited.set_group_id {
            // It has passed its group on, and a directory of a release has mode 0755.
            directory
                .set_mode(DIR_MODE & self.inherited.permissions)
                .map_err(|errno| io(path, errno))?;
        }
        for name in directory.names().map_err(|errno| io(path, errno))? {
            let name = name.as_bytes();
            let below = match path {
                b"" => name.to_vec(),
                path => [path, b"/", name].concat(),
            };
            let entry = self.next_entry(&below)?;
            let is_directory = entry.kind == Kind::Dir;
            let clean = CleanPath::new(&below, is_directory);
            let name = Name::new(name)
                .filter(|_| clean.is_ok_and(|clean| clean.as_bytes() == below))
                .ok_or_else(|| report_mismatch(&below, "has a name that no release may have"))?;
            self.compare(directory, name, &entry)?;
            if is_directory {
                let inner = directory
                    .open_dir(name)
                    .map_err(|errno| io(&below, errno))?;
                self.directory(&inner, &below)?;
            }
        }
        Ok(())
    }

    /// Returns the next entry, which must be the one of `path`.
    fn next_entry(&mut self, path: &[u8]) -> Result<Entry> {
        self.deadline.check(CHECKING)?;
        match self.report.next_entry() {
            Ok(Some(entry)) if entry.path == path => {
                self.sums.add(&entry);
                self.odd_names.add(path);
                Ok(entry)
            }
            Ok(_) => Err(report_mismatch(path, "exists but is not reported")),
            Err(why) => Err(malformed(path, why)),
        }
    }

    /// Compares `name` in `directory` with its entry.
    fn compare(&mut self, directory: &Dir, name: Name<'_>, entry: &Entry) -> Result<()> {
        let path = entry.path.as_slice();
        let stat = directory.stat(name).map_err(|errno| io(path, errno))?;
        check_metadata(entry, &stat, self.inherited)?;
        let shared = self.shared.at(path);
        let Kind::Link { target } = &entry.kind else {
            return match shared {
                Some(_) => Err(report_mismatch(path, "is not the shared symlink")),
                None => Ok(()),
            };
        };
        let found = directory.read_link(name).map_err(|errno| io(path, errno))?;
        if found.as_bytes() != target || path::check_symlink_target(target).is_err() {
            return Err(report_mismatch(path, "has another target than reported"));
        }
        match shared {
            Some(shared) if *target == shared.target().as_bytes() => {
                self.shared_symlinks += 1;
                Ok(())
            }
            Some(_) => Err(report_mismatch(path, "is not the shared symlink")),
            None => check_link_escape(self.tree, path, target),
        }
    }
}

/// Compares what stat(2) returns: type, mode, size and number of names. A default list
/// takes the same bits from every mode, and a set-group-id directory makes others.
fn check_metadata(entry: &Entry, stat: &FileStat, inherited: Inherited) -> Result<()> {
    let mode = match entry.kind {
        Kind::Link { .. } => entry.kind.mode(),
        Kind::File { .. } => entry.kind.mode() & inherited.permissions,
        Kind::Dir if inherited.set_group_id => {
            entry.kind.mode() & inherited.permissions | Mode::S_ISGID.bits()
        }
        Kind::Dir => entry.kind.mode() & inherited.permissions,
    };
    if dir::file_type(stat) != entry.kind.file_type() || stat.st_mode & 0o7777 != mode {
        return Err(report_mismatch(
            &entry.path,
            "has another type or mode than reported",
        ));
    }
    match entry.kind {
        Kind::File { size, .. } if stat.st_size as u64 != size || stat.st_nlink != 1 => Err(
            report_mismatch(&entry.path, "has another size or more names than reported"),
        ),
        _ => Ok(()),
    }
}

fn check_link_escape(tree: &Dir, path: &[u8], target: &[u8]) -> Result<()> {
    let at = Path::new(OsStr::from_bytes(path));
    let target = || Ok(OsStr::from_bytes(target).to_owned());
    match path::check_link_escape(tree.resolve_in_mount(at), target)
        .map_err(|errno| io(path, errno))?
    {
        LinkTarget::Inside => Ok(()),
        LinkTarget::Escapes | LinkTarget::Unresolved | LinkTarget::Loop => {
            Err(report_mismatch(path, "is a symlink out of the release"))
        }
    }
}

fn report_mismatch(path: &[u8], difference: &str) -> Error {
    let path = shown(path);
    unpacker_died(format!(
        "the unpacker's report does not match the staged files: './{path}' {difference}"
    ))
}

/// `path` is the one that was expected next.
fn malformed(path: &[u8], why: &str) -> Error {
    let path = shown(path);
    unpacker_died(format!(
        "the unpacker's report is malformed at './{path}': {why}"
    ))
}

fn unpacker_died(problem: String) -> Error {
    Error::new(Code::UnpackerDied, problem)
        .remedy("nothing was published; keep the payload and report it")
}

fn io(path: &[u8], errno: Errno) -> Error {
    Error::io(format!("cannot inspect './{}'", shown(path)), errno)
}

fn shown(path: &[u8]) -> String {
    escape::escape_truncated(path, 300)
}

#[cfg(test)]
mod tests;
