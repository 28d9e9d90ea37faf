//! Merges the list of the base with the changes of a delta, and checks the result as a
//! whole, before anything of it is created. Pure.
//!
//! The changes come from a client, and so do the base and its list, from an earlier
//! request. Each of the two may be harmless where the result is not: a file of the delta
//! below a symlink of the base would leave the release (CVE-2025-45582 of GNU tar is of this
//! class). So no rule looks at the changes alone. Every rule looks at the result.
//!
//! A key that may not list files must not learn from a refusal what the base contains. So
//! there is one answer to all changes that do not give the promised tree. Only a client that
//! knows the whole tree gets further.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::TreeLimits;
use super::resolve::resolve;
use crate::archive::path::{self, CleanPath, LinkTarget};
use crate::archive::{self, CHANGES, DiskUse, max_on_disk};
use crate::config::Reuse;
use crate::error::{self, Code, Error, Result};
use crate::escape;
use crate::manifest::tree_list::{self, compare_lines};
use crate::manifest::{self, Entries, Entry, Identity, Kind, Sums, compare_paths};
use crate::names::{ReleaseId, Sha256Digest};
use crate::shared_paths::Shared;

/// The remedy that always works.
pub const SEND_WHOLE: &str = "send the whole release, without --base";

/// What the assembler needs to know of a delta.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaJob {
    pub base: ReleaseId,
    /// The digest of the tree list that the result must have.
    pub tree: Sha256Digest,
    pub reuse: Reuse,
    /// Whether the release may have symlinks.
    pub symlinks: bool,
    /// The size of the file system's blocks, and what may be used before only the reserve
    /// is left, in bytes and inodes.
    pub block: u64,
    pub room_bytes: u64,
    pub room_inodes: u64,
}

/// Where an entry of the result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is the same in the base.
    Base,
    /// The changes name it. For a file, the number of its member in the archive.
    Delta(usize),
    /// The configuration of the site adds it: a shared symlink or a directory above one.
    Site,
}

/// The whole release.
#[derive(Debug)]
pub struct Merged {
    /// Sorted as a manifest sorts them.
    pub entries: Vec<Entry>,
    /// One for each entry.
    pub sources: Vec<Source>,
    /// As [`crate::archive::UnpackReport::known`].
    pub known: Vec<usize>,
    /// The directories in which the changes add or remove an entry.
    pub changed: BTreeSet<Vec<u8>>,
}

/// What the changes say of one path.
#[derive(Debug, Default)]
struct Change {
    removed: bool,
    /// The new entry, and the number of its member if it is a file.
    new: Option<(Kind, usize)>,
}

/// Reads the list of the base and the changes, and returns the result if it may be a
/// release. `identity` is the head of the manifest that `base` goes on with.
///
/// # Errors
///
/// [`Code::BadArchive`] for changes that are malformed, and for a result that may not be a
/// release; [`Code::TreeMismatch`] for changes that do not fit the base or do not give the
/// promised tree; [`Code::BaseDamaged`] for a list that cannot be read, has a path that no
/// release has, or another digest than its head; [`Code::DiskFull`].
pub fn merge(
    identity: &Identity,
    base: &mut impl BufRead,
    changes: &mut impl BufRead,
    shared: &Shared,
    limits: &TreeLimits,
    job: &DeltaJob,
) -> Result<Merged> {
    let mut memory = Memory::of(limits);
    let mut changes = read_changes(changes, limits, &mut memory)?;
    let mut fits = true;
    let max = limits.max_entries as usize;
    let (mut result, mut removed) = (Vec::new(), Vec::new());
    let mut from_base = Entries::new(base);
    let unreadable = |why: &str| list_damaged(&job.base, why);
    while let Some(entry) = from_base.next_entry().map_err(unreadable)? {
        let is_added = (identity.added).binary_search_by(|path| compare_paths(path, &entry.path));
        if is_added.is_ok() {
            continue;
        }
        // The account can write the list. No result has a path that only such a list has.
        if !entry.path.is_empty() && !is_of_a_release(&entry.path, entry.kind == Kind::Dir) {
            return Err(unreadable("a path is not one of a release"));
        }
        // One answer, whatever the base contains.
        let room = memory.take(&entry.path, Some(&entry.kind));
        room.map_err(|_| mismatch())?;
        match changes.get_mut(&entry.path) {
            None => result.push((entry, Source::Base)),
            Some(change) => {
                let is_same = |(kind, _): &(Kind, usize)| *kind == entry.kind;
                fits &= change.removed && !change.new.as_ref().is_some_and(is_same);
                removed.push(entry);
            }
        }
        // One more is for the release itself.
        if result.len() > max + 1 {
            return Err(mismatch());
        }
    }
    let mut changed = BTreeSet::new();
    let in_base: BTreeSet<_> = removed.iter().map(|entry| &entry.path).collect();
    for (path, change) in changes {
        let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        changed.insert(path[..parent].to_vec());
        fits &= in_base.contains(&path) || !change.removed;
        if let Some((kind, member)) = change.new {
            result.push((Entry { path, kind }, Source::Delta(member)));
        }
    }
    result.sort_by(|(one, _), (other, _)| compare_paths(&one.path, &other.path));
    let (entries, sources): (Vec<_>, Vec<_>) = result.into_iter().unzip();
    let tree = tree_list::digest(tree_list::in_order(&entries, &[]));
    if !fits || tree != job.tree {
        let kept = entries.iter().zip(&sources);
        let kept = kept.filter(|(_, source)| **source == Source::Base);
        let base = kept.map(|(entry, _)| entry).chain(&removed);
        let digest = tree_list::digest(tree_list::in_order(base, &[]));
        // With a damaged list, correct changes do not fit either.
        return Err(match identity.tree {
            Some(tree) if tree != digest => {
                unreadable("its entries do not have the digest of its head")
            }
            _ => mismatch(),
        });
    }
    check(&entries, &sources, shared, limits, job)?;
    let merged = add_shared(entries, sources, shared, changed);
    check_count(merged.entries.len(), limits)?;
    // Only now: a symlink may lead through one of the site, which leads out of the release.
    for (Entry { path, kind }, source) in merged.entries.iter().zip(&merged.sources) {
        if let (Kind::Link { target }, false) = (kind, *source == Source::Site) {
            check_symlink(&merged.entries, path, target)?;
        }
    }
    Ok(merged)
}

/// The memory that the lists may take in any case, in bytes.
const BASE_MEMORY: u64 = 32 << 20;

/// The memory for each entry that a release may have, in bytes: as much as `upload_memory`
/// has for it.
const ENTRY_MEMORY: u64 = 1024;

/// The memory of a path or an entry besides its bytes: vectors that double, nodes of maps, and
/// the allocator.
const OVERHEAD: u64 = 320;

/// Returns the one error of changes that do not give the promised tree.
fn mismatch() -> Error {
    let problem = "the base and the changes do not give the tree of the request";
    Error::new(Code::TreeMismatch, problem).remedy(SEND_WHOLE)
}

/// Reads the changes, sorted by the bytes of their paths as lines have them.
fn read_changes(
    from: &mut impl BufRead,
    limits: &TreeLimits,
    memory: &mut Memory,
) -> Result<BTreeMap<Vec<u8>, Change>> {
    let mut changes: BTreeMap<Vec<u8>, Change> = BTreeMap::new();
    let mut last: Option<Vec<u8>> = None;
    let mut members = 0;
    let malformed = |why: &str| {
        Error::new(Code::BadArchive, format!("'{CHANGES}' is malformed: {why}")).remedy(SEND_WHOLE)
    };
    // Terminates: each turn consumes a line.
    while let Some(line) = manifest::read_line(from).map_err(malformed)? {
        let (path, new) = match line.split_at_checked(2) {
            Some(("- ", path)) => (manifest::parse_path(path).map_err(malformed)?, None),
            Some(("+ ", line)) => {
                let entry = Entry::parse(line).map_err(malformed)?;
                (entry.path, Some(entry.kind))
            }
            _ => return Err(malformed("a line has neither '-' nor '+'")),
        };
        let is_dir = matches!(new, None | Some(Kind::Dir));
        if path.is_empty() || !is_of_a_release(&path, is_dir) {
            return Err(refuse(&path, "is not a path of a release"));
        }
        // A path has one line of each kind, the removal first.
        let order = last.as_ref().map(|last| compare_lines(last, &path));
        let replaces = order.is_some_and(std::cmp::Ordering::is_eq) && new.is_some();
        if !replaces && !order.is_none_or(std::cmp::Ordering::is_lt) {
            return Err(malformed("its lines are not in order"));
        }
        if changes.len() > 2 * limits.max_entries as usize {
            return Err(malformed(
                "it has more lines than a release may have entries",
            ));
        }
        if replaces {
            memory.take(b"", new.as_ref())?;
        } else {
            memory.take(&path, new.as_ref())?;
            // The directory of the path is kept as well.
            memory.take(&path, None)?;
        }
        let change = changes.entry(path.clone()).or_default();
        match new {
            None => change.removed = true,
            Some(_) if change.new.is_some() => {
                return Err(malformed("its lines are not in order"));
            }
            Some(kind) => {
                let member = members;
                members += usize::from(matches!(kind, Kind::File { .. }));
                change.new = Some((kind, member));
            }
        }
        last = Some(path);
    }
    if changes.is_empty() {
        return Err(malformed("it names no change"));
    }
    Ok(changes)
}

/// The memory that the lists may still take, in bytes. A client chooses the lines of the
/// changes, and may have sent the base.
struct Memory(u64);

impl Memory {
    fn of(limits: &TreeLimits) -> Memory {
        Memory(BASE_MEMORY + u64::from(limits.max_entries) * ENTRY_MEMORY)
    }

    /// Counts a path with its target.
    ///
    /// # Errors
    ///
    /// [`Code::BadArchive`] if the lists have no room for it.
    fn take(&mut self, path: &[u8], kind: Option<&Kind>) -> Result<()> {
        let target = match kind {
            Some(Kind::Link { target }) => target.len(),
            _ => 0,
        };
        let size = (path.len() + target) as u64 + OVERHEAD;
        self.0 = self.0.checked_sub(size).ok_or_else(|| {
            let problem = "the names and targets of the changes are too long together";
            Error::new(Code::BadArchive, problem).remedy(SEND_WHOLE)
        })?;
        Ok(())
    }
}

/// Returns whether the profile permits a path, written as a manifest writes it.
fn is_of_a_release(path: &[u8], is_dir: bool) -> bool {
    CleanPath::new(path, is_dir).is_ok_and(|clean| clean.as_bytes() == path)
}

fn check_count(entries: usize, limits: &TreeLimits) -> Result<()> {
    // One more is for the release itself.
    if entries <= limits.max_entries as usize + 1 {
        return Ok(());
    }
    let problem = format!("the release has more than {} entries", limits.max_entries);
    Err(Error::new(Code::BadArchive, problem)
        .remedy("leave files out, or raise max_entries in [archive]"))
}

/// Checks that the entries may be a release.
fn check(
    entries: &[Entry],
    sources: &[Source],
    shared: &Shared,
    limits: &TreeLimits,
    job: &DeltaJob,
) -> Result<()> {
    let mut above: Vec<&[u8]> = Vec::new();
    let mut sums = Sums::default();
    // On disk, and of that what the base does not have.
    let (mut on_disk, mut new) = (DiskUse::new(job.block), DiskUse::new(job.block));
    for (index, (Entry { path, kind }, source)) in entries.iter().zip(sources).enumerate() {
        if index == 0 {
            if !path.is_empty() || *kind != Kind::Dir {
                return Err(refuse(path, "is not the release itself"));
            }
            continue;
        }
        let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let (_, parent) = components.split_last().unwrap_or((&&b""[..], &[]));
        // The entries are sorted, so the directories above this one are the last ones that
        // begin its path.
        let shared_part = above.iter().zip(parent);
        let same = shared_part.take_while(|(one, other)| one == other).count();
        above.truncate(same);
        if same != parent.len() {
            return Err(refuse(path, "is not in a directory of the release"));
        }
        if archive::is_changes(path) {
            return Err(refuse(path, "has the name of the changes"));
        }
        if shared.covering(path).is_some() {
            return Err(refuse(path, "is at a shared path"));
        }
        if *kind != Kind::Dir && shared.is_above_one(path) {
            return Err(refuse(path, "is above a shared path, but not a directory"));
        }
        match kind {
            Kind::Dir => {
                above.extend(components.last());
                on_disk.add_directory(&components);
                new.add_directory(&components);
            }
            Kind::File { size, .. } => {
                if *size > limits.max_file {
                    return Err(refuse(path, "is over the limit max_file"));
                }
                sums.files += 1;
                sums.bytes = sums.bytes.saturating_add(*size);
                on_disk.add_file(&components, *size);
                // A hard link uses no more than its name. A copy may share its blocks, but not
                // on every file system.
                let linked = *source == Source::Base && job.reuse == Reuse::Link;
                new.add_file(&components, if linked { 0 } else { *size });
            }
            Kind::Link { .. } if !job.symlinks => {
                return Err(refuse(path, "is a symlink, and symlinks are denied"));
            }
            Kind::Link { target } => {
                on_disk.add_symlink(&components, target);
                new.add_symlink(&components, target);
            }
        }
        if sums.bytes > limits.max_unpacked {
            return Err(refuse(path, "is over the limit max_unpacked of all files"));
        }
    }
    if sums.files == 0 {
        return Err(refuse(b"", "has no file"));
    }
    if on_disk.bytes() > max_on_disk(limits.max_unpacked) {
        return Err(refuse(b"", "is over the limit max_unpacked on disk"));
    }
    if new.bytes() > job.room_bytes || entries.len() as u64 > job.room_inodes {
        let full = "not enough space: the configured reserve would be used";
        return Err(Error::new(Code::DiskFull, full));
    }
    Ok(())
}

fn check_symlink(entries: &[Entry], path: &[u8], target: &[u8]) -> Result<()> {
    path::check_symlink_target(target).map_err(|rule| refuse(path, &rule.to_string()))?;
    let found = path::check_link_escape(resolve(entries, path), || {
        Ok(OsStr::from_bytes(target).to_owned())
    });
    match found.unwrap_or(LinkTarget::Loop) {
        LinkTarget::Inside => Ok(()),
        LinkTarget::Escapes => Err(refuse(path, "is a symlink out of the release")),
        LinkTarget::Unresolved => Err(refuse(
            path,
            "is a symlink with '..' after a part that does not exist",
        )),
        LinkTarget::Loop => Err(refuse(path, "is a symlink that loops")),
    }
}

/// Adds what the site adds to every release.
fn add_shared(
    mut entries: Vec<Entry>,
    mut sources: Vec<Source>,
    shared: &Shared,
    changed: BTreeSet<Vec<u8>>,
) -> Merged {
    let mut known = Vec::with_capacity(shared.links.len());
    for link in &shared.links {
        let components = link.components();
        let mut found = 0;
        for depth in 1..=components.len() {
            let path = components[..depth].join(&b'/');
            let at = entries.binary_search_by(|entry| compare_paths(&entry.path, &path));
            let Err(at) = at else {
                found = depth;
                continue;
            };
            let kind = if depth < components.len() {
                Kind::Dir
            } else {
                let target = link.target().into_bytes();
                Kind::Link { target }
            };
            entries.insert(at, Entry { path, kind });
            sources.insert(at, Source::Site);
        }
        known.push(found);
    }
    Merged {
        entries,
        sources,
        known,
        changed,
    }
}

/// Returns the lines that the file `members` must have: one for each file of the changes, in
/// their order.
pub fn expected_members(merged: &Merged) -> Vec<String> {
    let mut members: Vec<_> = merged
        .entries
        .iter()
        .zip(&merged.sources)
        .filter_map(|(entry, source)| match (source, &entry.kind) {
            (Source::Delta(number), Kind::File { .. }) => Some((*number, member_line(entry))),
            _ => None,
        })
        .collect();
    members.sort();
    members.into_iter().map(|(_, line)| line).collect()
}

/// Returns the line of a manifest without the digest.
fn member_line(entry: &Entry) -> String {
    let line = entry.to_string();
    let end = line.rfind(" sha256digest=").unwrap_or(line.len());
    line[..end].to_owned()
}

/// Returns the error of a change that does not fit.
fn refuse(path: &[u8], what: &str) -> Error {
    let path = escape::escape_truncated(path, 300);
    Error::new(Code::BadArchive, format!("the delta: './{path}' {what}")).remedy(SEND_WHOLE)
}

/// Returns the error of a base that is not as its manifest says.
pub fn base_damaged(base: &ReleaseId, path: &[u8], what: &str) -> Error {
    let path = escape::escape_truncated(path, 300);
    let problem = format!("the base '{base}' is damaged: './{path}' {what}");
    Error::new(Code::BaseDamaged, problem).remedy(SEND_WHOLE)
}

/// As [`base_damaged`], for a failed system call.
pub fn base_error(base: &ReleaseId, path: &[u8], errno: Errno) -> Error {
    if is_damage(errno) {
        return base_damaged(base, path, &error::describe(&errno.into()));
    }
    let path = escape::escape_truncated(path, 300);
    Error::io(format!("cannot take './{path}' from '{base}'"), errno)
}

/// Returns the error of a manifest that is not the one of its release.
pub fn list_damaged(base: &ReleaseId, why: &str) -> Error {
    let problem = format!("the manifest of the base '{base}' is damaged: {why}");
    Error::new(Code::BaseDamaged, problem).remedy(SEND_WHOLE)
}

/// As [`list_damaged`], for a failed system call.
pub fn list_error(base: &ReleaseId, errno: Errno) -> Error {
    if is_damage(errno) {
        return list_damaged(base, &error::describe(&errno.into()));
    }
    Error::io(format!("cannot open the manifest of '{base}'"), errno)
}

/// Returns whether a system call failed for the state of a file. A full disk is no damage.
fn is_damage(errno: Errno) -> bool {
    // The last five: not a regular file, of another account, or with too many names.
    matches!(
        errno,
        Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::ELOOP
            | Errno::EISDIR
            | Errno::EXDEV
            | Errno::EINVAL
            | Errno::ENXIO
            | Errno::EACCES
            | Errno::EPERM
            | Errno::EMLINK
    )
}

#[cfg(test)]
mod tests;
