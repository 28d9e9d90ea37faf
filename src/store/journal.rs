//! `journal.jsonl`: the history. One JSON object a line, only ever appended.
//! docs/formats.md specifies it.
//!
//! A line is synced before the client gets the reply about it. A crash can tear the
//! last line. No client has a reply about that line, so it is dropped when the journal
//! is next opened for writing.

mod reader;

use std::fmt;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::names::{CommitId, KeyLabel, ReleaseId, Sha256Digest};
use crate::shell_word::Word;
use crate::store::history::History;
use crate::store::layout::{JOURNAL, STATE};
use crate::store::{AS_FOR_A_FILE, Actor, Store};
pub use reader::{CHECKPOINT, FORMAT_LINE, Unreadable};
use reader::{Extent, FORMAT};

/// The maximum length of a journal, in bytes. Every process reads it as a whole. It has
/// some tens of KiB: every verb that writes makes a checkpoint first, and what a checkpoint
/// has is bounded by the releases on disk and the receives of an hour. One of a version
/// without checkpoints has about two million records within this limit. Only another
/// program of the account, or of root, can make a longer one.
pub const MAX_LEN: u64 = 512 << 20;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The release was published; it is not live.
    Received,
    /// Intent: the `current` symlink is about to move to `release`, by `how`.
    /// After a kill in between, this shows what the moved symlink means and whose
    /// request moved it.
    Activating,
    /// The symlink did not move as intended.
    Abandoned,
    /// The release is live, by a swap.
    Swapped,
    /// The release is live, by a rollback; `previous` is bad from now on.
    RolledBack,
    /// The live release passed its post-swap checks.
    #[serde(rename = "proved")]
    Confirmed,
    /// The release failed a check before the symlink moved; it is bad.
    Failed,
    /// A revert moved the symlink to `release`, the fallback, because `previous`
    /// failed its post-swap checks and is bad from now on. Without a release: there
    /// was no fallback, so the symlink is gone.
    #[serde(rename = "returned")]
    Reverted,
    /// The release was removed.
    Pruned,
    /// The symlink named `release`, and the journal did not know why.
    Reconciled,
    /// The release was live for `min_age`, or passed the checks of a site that has none
    /// after the swap: it has earned its place among the releases that pruning keeps. A
    /// `proved` record says so as well. Since format 2.
    Earned,
}

impl fmt::Display for Event {
    /// Writes its word in the journal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Event {
    /// Every event, in the order of docs/formats.md.
    #[cfg(test)]
    pub const ALL: [Event; 11] = [
        Event::Received,
        Event::Activating,
        Event::Abandoned,
        Event::Swapped,
        Event::RolledBack,
        Event::Confirmed,
        Event::Failed,
        Event::Reverted,
        Event::Pruned,
        Event::Reconciled,
        Event::Earned,
    ];
}

/// The cause of a move of the symlink: a request, or the revert (the automatic rollback) of a
/// release that failed its post-swap checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    Swap,
    Rollback,
    #[serde(rename = "return")]
    Revert,
}

impl How {
    /// Returns the event that says that the symlink has moved.
    pub fn done_event(self) -> Event {
        match self {
            How::Swap => Event::Swapped,
            How::Rollback => Event::RolledBack,
            How::Revert => Event::Reverted,
        }
    }
}

/// The content of a line of the journal.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    Record(&'a Record),
    /// The lines after this one are of this format.
    Format(u64),
    /// The state that the records before this line fold into. It is before all records
    /// of its file.
    Checkpoint(&'a History),
}

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// UTC.
    pub time: Timestamp,
    pub event: Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// The release has not passed its post-swap checks yet: a `proved` or
    /// `returned` record follows.
    #[serde(
        rename = "unproved",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub unconfirmed: bool,
    /// None where the symlink is gone: in `returned`, in the `activating` before it,
    /// and in `reconciled`.
    pub release: Option<ReleaseId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<ReleaseId>,
    /// In the first record of a release whose id was used before: the number of the
    /// id's very first record. Since format 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// Of the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// Of the tree list. Since format 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The commit that the client named. Since format 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The milliseconds from the start of the request to this record. Since format 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyLabel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
}

impl Record {
    /// The names of all fields on disk. By them the reader distinguishes a record of a
    /// newer version from a damaged one.
    const FIELDS: [&'static str; 17] = [
        "seq",
        "time",
        "event",
        "how",
        "unproved",
        "release",
        "previous",
        "first",
        "sha256",
        "tree",
        "files",
        "bytes",
        "commit",
        "ms",
        "key",
        "fingerprint",
        "client",
    ];

    /// Returns a record of now by `actor`. [`Journal::append`] numbers it.
    pub fn new(event: Event, release: Option<&ReleaseId>, actor: &Actor) -> Record {
        Record {
            key: actor.key.clone(),
            fingerprint: actor.fingerprint.map(|print| print.to_string()),
            client: actor.client,
            ms: actor.started.map(milliseconds_since),
            ..Record::unattended(event, release)
        }
    }

    /// Returns a record of now for a change whose author is not known.
    pub fn unattended(event: Event, release: Option<&ReleaseId>) -> Record {
        Record {
            seq: 0,
            time: now(),
            event,
            how: None,
            unconfirmed: false,
            release: release.cloned(),
            previous: None,
            first: None,
            sha256: None,
            tree: None,
            files: None,
            bytes: None,
            commit: None,
            ms: None,
            key: None,
            fingerprint: None,
            client: None,
        }
    }
}

fn milliseconds_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Returns the present time in whole seconds. A history of deploys needs no finer
/// time; the order of records is that of their numbers.
pub fn now() -> Timestamp {
    let second = Timestamp::now().as_second();
    Timestamp::from_second(second).expect("a second of now is in range")
}

/// Returns how long ago `time` was; zero for a time in the future (the clock was
/// set back).
pub fn age(time: Timestamp, now: Timestamp) -> Duration {
    let seconds = now.as_second() - time.as_second();
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Passes each entry of the journal to `each`, without changing the journal: for
/// `list`, which holds no lock, and for checks before the lock is taken.
///
/// # Errors
///
/// [`Code::BadLayout`] for a journal of a newer version, [`Code::IoError`] for a
/// damaged one.
pub fn read_journal(store: &Store, each: impl FnMut(Entry<'_>)) -> Result<()> {
    match store.state.open_file(JOURNAL) {
        Ok(mut file) => read_file(store, &mut file, each).map(drop),
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(store.state_io("cannot open the journal", errno)),
    }
}

/// Returns the first lines of a journal that begins with this checkpoint.
pub fn begin_with(checkpoint: &History) -> Vec<u8> {
    let mut lines = format_line();
    lines.extend_from_slice(reader::CHECKPOINT.as_bytes());
    serde_json::to_writer(&mut lines, checkpoint).expect("a history is plain JSON");
    lines.extend_from_slice(b"}\n");
    lines
}

/// Returns the length of the lines before the first record, in bytes.
///
/// # Errors
///
/// Those of `journal`.
pub fn head_length(mut journal: impl BufRead) -> std::io::Result<u64> {
    let (mut length, mut line) = (0, Vec::new());
    // Terminates: every turn reads a line.
    loop {
        line.clear();
        let read = journal.read_until(b'\n', &mut line)?;
        let is_head = [reader::FORMAT_LINE, reader::CHECKPOINT]
            .iter()
            .any(|start| line.starts_with(start.as_bytes()));
        if !is_head {
            return Ok(length);
        }
        length += read as u64;
    }
}

fn format_line() -> Vec<u8> {
    format!("{}{FORMAT}}}\n", reader::FORMAT_LINE).into_bytes()
}

/// The journal, open for appending. Its holder also holds the lock.
#[derive(Debug)]
pub struct Journal {
    file: File,
    len: u64,
    next: u64,
    format: u64,
}

impl Journal {
    /// Opens the journal, passes each entry to `each`, and drops a torn last line.
    ///
    /// # Errors
    ///
    /// As [`read_journal`]; nothing is dropped then.
    pub fn open(store: &Store, mut each: impl FnMut(Entry<'_>)) -> Result<Journal> {
        let cannot = |error: std::io::Error| store.state_io("cannot open the journal", error);
        let mut file = store
            .state
            .open_append(JOURNAL, 0o600)
            .map_err(|errno| cannot(errno.into()))?;
        let extent = read_file(store, &mut file, &mut each)?;
        let len = extent.len as u64;
        if file.metadata().map_err(cannot)?.len() != len {
            file.set_len(len).map_err(cannot)?;
        }
        // The first append writes this line.
        if extent.format < FORMAT {
            each(Entry::Format(FORMAT));
        }
        Ok(Journal {
            file,
            len,
            next: extent.last_seq + 1,
            format: extent.format,
        })
    }

    /// Numbers a record and appends it, and syncs it unless it may be lost.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`] and [`Code::DiskFull`]; nothing is appended then.
    pub fn append(&mut self, store: &Store, mut record: Record) -> Result<Record> {
        record.seq = self.next;
        let mut line = Vec::new();
        if self.format < FORMAT {
            line = format_line();
        }
        serde_json::to_writer(&mut line, &record).expect("a record is plain JSON");
        line.push(b'\n');
        // The intent of a swap is not synced. If a power failure loses it, the
        // moved symlink is reconciled to the same effect. Every other record is
        // synced, also these intents: if that of a swap with post-swap checks were
        // lost, the release would count as one that passed them. If that of a
        // rollback or of a revert were lost, its bad mark would be too,
        // and the next rollback would choose the release that this one leaves.
        //
        // `earned` is not synced either, and never needs a flush of its own: a release
        // that loses it is live, and earns its place again by the time.
        let may_be_lost = match record.event {
            Event::Activating => record.how == Some(How::Swap) && !record.unconfirmed,
            event => event == Event::Earned,
        };
        let mut written = self.file.write_all(&line);
        if !may_be_lost {
            written = written.and_then(|()| self.file.sync_data());
        }
        if let Err(error) = written {
            // A part of the line may be there, and the next append must not follow
            // it. If this fails too, the next start drops that part.
            _ = self.file.set_len(self.len);
            return Err(store.state_io("cannot append to the journal", error));
        }
        self.len += line.len() as u64;
        self.next += 1;
        self.format = FORMAT;
        Ok(record)
    }
}

/// Passes each entry of these bytes of a journal to `each`.
///
/// # Errors
///
/// As [`reader::read_entries`].
pub fn read_bytes(bytes: &[u8], each: impl FnMut(Entry<'_>)) -> Result<(), Unreadable> {
    reader::read_entries(bytes, each).map(drop)
}

fn read_file(store: &Store, file: &mut File, each: impl FnMut(Entry<'_>)) -> Result<Extent> {
    let cannot = |error| store.state_io("cannot read the journal", error);
    let len = file.metadata().map_err(cannot)?.len();
    let mut bytes = Vec::new();
    if len <= MAX_LEN {
        // Another request can append to it meanwhile.
        file.take(MAX_LEN + 1)
            .read_to_end(&mut bytes)
            .map_err(cannot)?;
    }
    if len.max(bytes.len() as u64) > MAX_LEN {
        let problem = format!("the journal is longer than {} MiB", MAX_LEN >> 20);
        return Err(Error::new(Code::BadLayout, problem).remedy(restore(store)));
    }
    reader::read_entries(&bytes, each).map_err(|why| unreadable(store, &why))
}

/// Neither remedy deletes history, because no program can make it again.
fn unreadable(store: &Store, why: &Unreadable) -> Error {
    let path = store.path().join(STATE).join(JOURNAL);
    let shown = path.display();
    match why {
        Unreadable::Newer { .. } => Error::new(Code::BadLayout, why.to_string()).remedy(format!(
            "install that version of deploy-shell or a later one, and keep '{shown}'"
        )),
        Unreadable::Damaged { .. } => {
            Error::new(Code::BadLayout, why.to_string()).remedy(restore(store))
        }
    }
}

/// Returns the remedy for a journal that is not one.
fn restore(store: &Store) -> String {
    let journal = store.path().join(STATE).join(JOURNAL);
    restore_or_move_journal(store, &journal)
}

/// Returns the remedy for a damaged file of the state directory: to restore it, or to move the
/// journal away.
pub fn restore_or_move_journal(store: &Store, damaged: &Path) -> String {
    let journal = store.path().join(STATE).join(JOURNAL);
    let (from, to) = (Word::new(&journal), Word::with_suffix(&journal, ".damaged"));
    format!(
        "restore '{}' from a backup, {AS_FOR_A_FILE}; without one, keep the journal under another name, and the next request starts a new \
         one: {}",
        damaged.display(),
        store.run_command(format_args!("mv -nT {from} {to}"))
    )
}

#[cfg(test)]
mod tests;
