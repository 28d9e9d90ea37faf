//! The checkpoint: replaces a long journal by one that begins with the folded state.
//! docs/formats.md specifies the files, and what follows a crash between two steps.
//!
//! So a request reads a bounded number of records, also on an old site. The old records
//! stay in compressed parts for `keep_history`, for people.
//!
//! The monitor makes a checkpoint before it enters its sandbox. Inside of it, `swap` and
//! `rollback` would need the right to create files in `.deploy-shell/` and to move
//! them onto others there: a compromised monitor could then replace manifests. Outside,
//! this code needs no further right, and it interprets nothing of a client: it reads the
//! journal and the lists of used ids, which have fixed formats, and the compressor has
//! a sandbox of its own.
//!
//! Every verb that appends to the journal calls this first, so no key can make the
//! journal grow without limit.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::compressor;
use crate::config::Config;
use crate::dir::{Dir, Name};
use crate::error::Result;
use crate::store::Store;
use crate::store::history::History;
use crate::store::journal::{self, Entry, Journal};
use crate::store::layout::{JOURNAL, NEXT_JOURNAL, NEXT_PART};
use crate::store::lock::Lock;
use crate::store::used_ids::{self, UsedIds};

/// The maximum size of the records in the journal, in bytes, unless its folded state is
/// longer: a few hundred records, which a request reads in about half a millisecond.
const MAX_RECORDS: u64 = 32 << 10;

/// The size, in bytes, at which a part gets no more records. So there are few files.
const MAX_PART: u64 = 1 << 20;

const PART_PREFIX: &str = "journal-";
const PART_SUFFIX: &str = ".jsonl.zst";

/// The newest compressed part of the journal, as the checkpoint names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The number of its first record; a part of its name.
    pub first: u64,
    /// Its length. A checkpoint that was killed has written the bytes after it.
    pub bytes: u64,
}

impl Part {
    /// Returns the file's name.
    pub fn name(self) -> String {
        part_name(self.first)
    }
}

fn part_name(first: u64) -> String {
    format!("{PART_PREFIX}{first}{PART_SUFFIX}")
}

/// Opens every part of the journal, the oldest first: zstd frames of journals, as
/// docs/formats.md says.
///
/// # Errors
///
/// Those of openat(2).
pub fn open_parts(store: &Store) -> nix::Result<Vec<File>> {
    let open = |first| {
        let name = part_name(first);
        Name::new(name.as_bytes()).map(|name| store.state.open_file(name))
    };
    part_numbers(store).into_iter().filter_map(open).collect()
}

fn part_numbers(store: &Store) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    for_each_number(store, PART_PREFIX, PART_SUFFIX, |number, _| {
        numbers.insert(number);
    });
    numbers
}

/// Returns whether the journal is too long. Returns false for a journal that cannot be
/// read: the request reports that.
pub fn is_due(store: &Store) -> bool {
    let size = store.state.stat(JOURNAL).map_or(0, |stat| stat.st_size);
    let size = u64::try_from(size).unwrap_or(0);
    // Most requests end here.
    (MAX_RECORDS..=journal::MAX_LEN).contains(&size)
        && store.state.open_file(JOURNAL).is_ok_and(|file| {
            let journal = BufReader::new(file.take(journal::MAX_LEN));
            let head = journal::head_length(journal).unwrap_or(size);
            size.saturating_sub(head) > MAX_RECORDS.max(head)
        })
}

/// Makes a checkpoint, if the journal is too long. `_lock` shows that the caller holds
/// the lock. Returns a warning if the checkpoint fails: that must block no request.
///
/// # Errors
///
/// Returns [`Code::IoError`](crate::error::Code::IoError) if the new journal is in place
/// and the sync of its directory fails. After a power failure the old one could be back,
/// without the records that this request appends.
pub fn make_if_due(store: &Store, config: &Config, _lock: &Lock) -> Result<Option<String>> {
    if !is_due(store) {
        return Ok(None);
    }
    let Folded {
        history,
        begin,
        earliest,
    } = match read_journal(store) {
        // The records are too few for their length. There is nothing to fold.
        Ok(folded) if folded.history.generation == folded.begin => return Ok(None),
        Ok(folded) => folded,
        // The request reports it.
        Err(_) => return Ok(None),
    };
    let old = history.used_ids.clone();
    let history = match make(store, history, begin, config.sandbox.required) {
        Ok(history) => history,
        Err(error) => {
            _ = store.state.remove_file(NEXT_PART);
            _ = store.state.remove_file(NEXT_JOURNAL);
            remove_used_ids(store, &old);
            let warning = format!("the journal stays longer than it should be: {error}");
            return Ok(Some(warning));
        }
    };
    let synced = store.state.sync();
    synced.map_err(|errno| store.state_io("cannot sync the new journal", errno))?;
    remove_oldest_part(
        store,
        history.part.map(|part| part.first),
        config.keep_history,
        earliest.min(journal::now()),
    );
    // The files of the last checkpoint stay until the next one: a `list` may have read
    // the old journal, and a backup may have copied it.
    remove_used_ids(store, &[old, history.used_ids].concat());
    Ok(None)
}

/// A journal that was read and folded.
struct Folded {
    history: History,
    /// The number of the last record that its checkpoint has folded.
    begin: u64,
    /// The earliest time of the records that follow.
    earliest: Timestamp,
}

/// Folds the journal. Drops a torn last line.
fn read_journal(store: &Store) -> Result<Folded> {
    let (mut history, mut begin, mut earliest) = (History::default(), 0, Timestamp::MAX);
    Journal::open(store, |entry| {
        history.take(entry);
        match entry {
            Entry::Checkpoint(checkpoint) => begin = checkpoint.generation,
            Entry::Record(record) => earliest = earliest.min(record.time),
            Entry::Format(_) => {}
        }
    })?;
    Ok(Folded {
        history,
        begin,
        earliest,
    })
}

/// Writes every file, then renames the new journal over the old one: the commit point.
/// `begin` is the number of the last record before the journal's own ones.
fn make(store: &Store, mut history: History, begin: u64, sandboxed: bool) -> Result<History> {
    let removed = history.take_removed();
    history.used_ids = used_ids::write(store, &history.used_ids, &removed, history.generation)?;
    let part = write_part(store, history.part, begin + 1, sandboxed)?;
    history.part = Some(part);
    let cannot = |error: std::io::Error| store.state_io("cannot write a new journal", error);
    let mut next = emptied(&store.state, NEXT_JOURNAL).map_err(cannot)?;
    next.write_all(&journal::begin_with(&history))
        .and_then(|()| next.sync_data())
        .map_err(cannot)?;
    // The files that the new journal names are durable before the journal itself.
    (store.state.sync())
        .and_then(|()| store.state.rename(NEXT_JOURNAL, &store.state, JOURNAL))
        .map_err(|errno| cannot(errno.into()))?;
    Ok(history)
}

/// Compresses the journal, and adds it to the newest part or makes a new one, which
/// begins with the record `first`.
///
/// The new file has everything and is renamed into place. If a checkpoint is killed
/// after that, the next one writes the same again, because the journal that it
/// replaces still has the old length of the part.
fn write_part(store: &Store, newest: Option<Part>, first: u64, sandboxed: bool) -> Result<Part> {
    let cannot =
        |error: std::io::Error| store.state_io("cannot write a part of the journal", error);
    let mut next = emptied(&store.state, NEXT_PART).map_err(cannot)?;
    let newest = newest.filter(|part| part.bytes < MAX_PART);
    let extended = match newest {
        Some(part) => copy_part(store, part, &mut next).map_err(cannot)?,
        None => false,
    };
    let journal = store.state.open_file(JOURNAL);
    let journal = journal.map_err(|errno| cannot(errno.into()))?;
    compressor::compress(journal, &next, sandboxed).map_err(|error| store.with_room(error))?;
    next.sync_data().map_err(cannot)?;
    let part = Part {
        first: newest.filter(|_| extended).map_or(first, |part| part.first),
        bytes: next.stream_position().map_err(cannot)?,
    };
    let name = part.name();
    Name::new(name.as_bytes())
        .ok_or(Errno::EINVAL)
        .and_then(|name| store.state.rename(NEXT_PART, &store.state, name))
        .map_err(|errno| cannot(errno.into()))?;
    Ok(part)
}

/// Copies a part. Returns false, and copies nothing, if the part is not there as a
/// whole: an operator may have moved it away.
fn copy_part(store: &Store, part: Part, to: &mut File) -> std::io::Result<bool> {
    let name = part.name();
    let Some(Ok(from)) = Name::new(name.as_bytes()).map(|name| store.state.open_file(name)) else {
        return Ok(false);
    };
    let copied = std::io::copy(&mut from.take(part.bytes), to)?;
    if copied != part.bytes {
        to.set_len(0)?;
        to.rewind()?;
    }
    Ok(copied == part.bytes)
}

/// Opens a file of an earlier checkpoint that did not finish, or a new one, without
/// content.
fn emptied(dir: &Dir, name: Name<'_>) -> std::io::Result<File> {
    let file = dir.open_rw(name, 0o600)?;
    file.set_len(0)?;
    Ok(file)
}

/// Removes the oldest part, if it was last written more than `keep` before `by` and is
/// not the newest. The next checkpoint repeats a removal that fails.
///
/// `by` is the earliest time of the records that the checkpoint folds, so order bounds
/// the age as well as time: a clock that is ahead removes nothing before it has been ahead
/// for all records of a journal, some hundreds. One part has many checkpoints, so removing
/// one at a time suffices, and a clock that stays ahead removes one part for each journal
/// that it fills.
fn remove_oldest_part(store: &Store, newest: Option<u64>, keep: Duration, by: Timestamp) {
    let oldest = part_numbers(store).first().copied();
    let Some(first) = oldest.filter(|first| Some(*first) != newest) else {
        return;
    };
    let name = part_name(first);
    let Some(name) = Name::new(name.as_bytes()) else {
        return;
    };
    if let Ok(stat) = store.state.stat(name) {
        let written = Timestamp::from_second(stat.st_mtime).unwrap_or(by);
        if journal::age(written, by) >= keep {
            _ = store.state.remove_file(name);
        }
    }
}

/// Removes the lists of used ids that are not among `kept`.
fn remove_used_ids(store: &Store, kept: &[UsedIds]) {
    let kept: BTreeSet<u64> = kept.iter().map(|file| file.seq).collect();
    for_each_number(store, used_ids::PREFIX, "", |number, name| {
        if !kept.contains(&number) {
            _ = store.state.remove_file(name);
        }
    });
}

/// Passes each name of `.deploy-shell/` that consists of `prefix`, a number and `suffix`
/// to `each`.
fn for_each_number(store: &Store, prefix: &str, suffix: &str, mut each: impl FnMut(u64, Name<'_>)) {
    for entry in store.state.names().unwrap_or_default() {
        let number = (entry.to_str())
            .and_then(|name| name.strip_prefix(prefix)?.strip_suffix(suffix))
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        if let (Some(number), Some(name)) = (number, Name::new(entry.as_bytes())) {
            each(number, name);
        }
    }
}

#[cfg(test)]
mod tests;
