//! Unpacks a delta: the changes, and the files that they add.
//!
//! The first member is the file [`CHANGES`]. The unpacker does not read it. The others are
//! regular files, and nothing else. They get their numbers as names, from 0, side by side in
//! one directory. So no name of the archive becomes a path here. The names go into a file of
//! their own, as lines without digests. The assembler compares them with the changes, and
//! moves each file to its place in a tree that this process never reaches.

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::SystemTime;

use nix::sys::time::TimeSpec;

use super::disk_use::{DiskNeed, DiskUse};
use super::entries::{ArchiveEntries, ArchiveEntry, EntryKind};
use super::job::UnpackLimits;
use super::report::{Progress, UnpackReport};
use super::rule::{Rule, UnpackError};
use super::time::FileTimes;
use super::writer::{Destination, Writers};
use super::zstd_frame::Frames;
use super::{CHANGES, io_error, is_changes};
use crate::dir::Dir;
use crate::manifest::{MAX_LINE, Vis, file_mode};
use crate::store::layout::{CHANGES_FILE, MEMBERS_FILE};

/// Unpacks a delta into `members`, which is empty.
///
/// # Errors
///
/// Returns the rule that the archive breaks, or the error of the operating system.
pub fn unpack(
    payload: std::fs::File,
    members: Dir,
    limits: UnpackLimits,
    writers: Writers,
    progress: Progress,
) -> Result<UnpackReport, UnpackError> {
    let members = Arc::new(members);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = TimeSpec::from_duration(now.unwrap_or_default());
    let frames = Frames::open(payload, limits.stream(), limits.max_unpacked)?;
    let list = members
        .create_new(MEMBERS_FILE, 0o644)
        .map_err(|errno| io_error("create the list of members", errno))?;
    let mut delta = Delta {
        limits,
        times: FileTimes::new(limits.keep_times, now),
        entries: ArchiveEntries::new(frames, limits.max_extended()),
        writers,
        members,
        list: BufWriter::new(list),
        disk_use: DiskUse::new(limits.block),
        progress,
        count: 0,
        unpacked: 0,
    };
    match delta.unpack_members() {
        // finish() returns the error of the thread that stopped.
        Ok(()) | Err(UnpackError::WriterStopped) => {}
        Err(error) => return Err(error),
    }
    let written = delta.list.flush();
    written.map_err(|error| io_error("write the list of members", error))?;
    delta.writers.finish()?;
    delta.entries.finish()?;
    Ok(UnpackReport { known: Vec::new() })
}

struct Delta {
    limits: UnpackLimits,
    times: FileTimes,
    entries: ArchiveEntries,
    writers: Writers,
    members: Arc<Dir>,
    list: BufWriter<std::fs::File>,
    disk_use: DiskUse,
    progress: Progress,
    /// The members after the first one.
    count: u64,
    /// The bytes of all files.
    unpacked: u64,
}

impl Delta {
    fn unpack_members(&mut self) -> Result<(), UnpackError> {
        let Some(first) = self.entries.next_entry()? else {
            return Err(Rule::ChangesFirst.into());
        };
        self.changes(&first)
            .map_err(|error| error.at(&first.name))?;
        while let Some(entry) = self.entries.next_entry()? {
            self.member(&entry).map_err(|error| error.at(&entry.name))?;
        }
        Ok(())
    }

    fn changes(&mut self, entry: &ArchiveEntry) -> Result<(), UnpackError> {
        let size = match entry.kind {
            EntryKind::File { size, .. } if entry.path.as_bytes() == CHANGES.as_bytes() => size,
            _ => return Err(Rule::ChangesFirst.into()),
        };
        let max = self.limits.max_changes();
        if size > max {
            return Err(Rule::ChangesLong(max).into());
        }
        self.write(
            entry,
            CHANGES_FILE.as_os_str().as_encoded_bytes(),
            false,
            size,
        )
    }

    fn member(&mut self, entry: &ArchiveEntry) -> Result<(), UnpackError> {
        let EntryKind::File { executable, size } = entry.kind else {
            return Err(Rule::DeltaMember.into());
        };
        if is_changes(entry.path.as_bytes()) {
            return Err(Rule::ChangesName.into());
        }
        if self.count == u64::from(self.limits.max_entries) {
            return Err(Rule::Entries(self.limits.max_entries).into());
        }
        if size > self.limits.max_file {
            return Err(Rule::File(self.limits.max_file).into());
        }
        let (path, mode) = (Vis(entry.path.as_bytes()), file_mode(executable));
        writeln!(self.list, "./{path} type=file mode={mode:04o} size={size}")
            .map_err(|error| io_error("write the list of members", error))?;
        let name = self.count.to_string();
        self.count += 1;
        self.write(entry, name.as_bytes(), executable, size)
    }

    fn write(
        &mut self,
        entry: &ArchiveEntry,
        name: &[u8],
        executable: bool,
        size: u64,
    ) -> Result<(), UnpackError> {
        self.unpacked = self.unpacked.saturating_add(size);
        if self.unpacked
            > self
                .limits
                .max_unpacked
                .saturating_add(self.limits.max_changes())
        {
            return Err(Rule::Unpacked(self.limits.max_unpacked).into());
        }
        // A file takes its blocks; its line in the list is like that in a manifest.
        self.disk_use.add_file(&entry.path.components(), size);
        // The list of members and the changes are files too.
        let (bytes, inodes) = (self.disk_use.bytes(), self.count + 2);
        let uses = DiskNeed { bytes, inodes };
        self.progress.report(uses, &self.limits)?;
        let destination = Destination {
            dir: Arc::clone(&self.members),
            name: name.into(),
            mtime: self.times.for_entry(Some(entry.mtime)),
        };
        let entries = &mut self.entries;
        self.writers
            .write_file(destination, executable, size, |buffer| {
                entries.read_data(buffer)
            })
    }
}

impl UnpackLimits {
    /// Returns how many bytes the changes may have: two lines for each entry that a release
    /// may have, but at most 256 MiB.
    pub(super) fn max_changes(&self) -> u64 {
        let lines = u64::from(self.max_entries) * 2 * MAX_LINE as u64;
        lines.min(256 << 20)
    }
}

#[cfg(test)]
mod tests;
