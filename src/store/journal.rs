//! `journal.jsonl`: one JSON object a line, only ever appended.
//!
//! A line is synced before the client is told of what it records. A crash can
//! leave the last line torn; it was then never answered for, and is dropped
//! when the journal is next opened to be written.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::names::{KeyLabel, ReleaseId, Sha256Digest};
use crate::store::layout::{JOURNAL, STATE};
use crate::store::{Actor, Store};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A release was published; it is not live.
    Received,
    /// Intent: the link is about to move to `release`, by `how`. It tells, after
    /// a kill in between, what the moved link meant, and whose doing it was.
    Activating,
    /// The link was found not to have moved as intended.
    Abandoned,
    /// The release is live, by a swap.
    Swapped,
    /// The release is live, by a rollback; `previous` is bad from now on.
    RolledBack,
    /// The release has passed what is asked of one that is live.
    #[serde(rename = "proved")]
    Confirmed,
    /// The release failed what is asked before the link moves; it is bad.
    Failed,
    /// The link is back at `release`, because `previous` failed what is asked
    /// of one that is live, and is bad from now on. Without a release: nothing
    /// was live before, and so the link is gone.
    Returned,
    /// The release was removed.
    Pruned,
    /// The link was found to name `release`, which the journal did not know of.
    Reconciled,
}

/// By what a link moves: a request, or the way back from a failed gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    Swap,
    Rollback,
    Return,
}

impl How {
    /// The event that completes it.
    pub fn done(self) -> Event {
        match self {
            How::Swap => Event::Swapped,
            How::Rollback => Event::RolledBack,
            How::Return => Event::Returned,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// UTC.
    pub time: Timestamp,
    pub event: Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// The release has yet to prove itself: a `proved` or `returned` record follows.
    #[serde(
        rename = "unproved",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub unconfirmed: bool,
    /// None where the link is gone: in `returned`, the intent to it, and
    /// `reconciled`.
    pub release: Option<ReleaseId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<ReleaseId>,
    /// Of the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyLabel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
}

impl Record {
    /// A record of now by `actor`; its number comes when it is appended.
    pub fn new(event: Event, release: Option<&ReleaseId>, actor: &Actor) -> Record {
        Record {
            key: actor.key.clone(),
            fingerprint: actor.fingerprint.map(|print| print.to_string()),
            client: actor.client,
            ..Record::unattended(event, release)
        }
    }

    /// A record of what was found to have happened, by nobody that is known.
    pub fn unattended(event: Event, release: Option<&ReleaseId>) -> Record {
        Record {
            seq: 0,
            time: now(),
            event,
            how: None,
            unconfirmed: false,
            release: release.cloned(),
            previous: None,
            sha256: None,
            files: None,
            bytes: None,
            key: None,
            fingerprint: None,
            client: None,
        }
    }
}

/// The time of now, to the second: finer than that is false precision in a
/// history of deploys. The order of records is that of their numbers.
pub fn now() -> Timestamp {
    let second = Timestamp::now().as_second();
    Timestamp::from_second(second).expect("a second of now is in range")
}

/// How long ago `time` was; nothing for one that lies ahead (a clock set back).
pub fn age(time: Timestamp, now: Timestamp) -> Duration {
    let seconds = now.as_second() - time.as_second();
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Gives `each` record of the journal as it stands, without changing it: for
/// `list`, which holds no lock, and for checks before the lock is taken.
pub fn read(store: &Store, mut each: impl FnMut(&Record)) -> Result<()> {
    match store.state.open_file(JOURNAL) {
        Ok(mut file) => parse(store, &mut file, &mut each).map(|_| ()),
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(store.io("cannot open the journal", errno)),
    }
}

/// The journal, open to be appended to. Whoever holds it holds the lock.
#[derive(Debug)]
pub struct Journal {
    file: File,
    len: u64,
    next: u64,
}

impl Journal {
    /// Opens the journal, gives `each` record of it, and drops a torn last line.
    pub fn open(store: &Store, mut each: impl FnMut(&Record)) -> Result<Journal> {
        let cannot = |error: std::io::Error| store.io("cannot open the journal", error);
        let mut file = store
            .state
            .open_append(JOURNAL, 0o600)
            .map_err(|errno| cannot(errno.into()))?;
        let (last, len) = parse(store, &mut file, &mut each)?;
        if file.metadata().map_err(cannot)?.len() != len {
            file.set_len(len).map_err(cannot)?;
        }
        let next = last + 1;
        Ok(Journal { file, len, next })
    }

    /// Appends a record, durably unless it is only an intent, and numbers it.
    pub fn append(&mut self, store: &Store, mut record: Record) -> Result<Record> {
        record.seq = self.next;
        let mut line = serde_json::to_vec(&record).expect("a record is plain JSON");
        line.push(b'\n');
        // A swap's intent is not synced: if power fails and it is lost, a link
        // that moved is reconciled to the same effect. Not so of a release that
        // has yet to prove itself, which would pass for one that has; nor a
        // rollback's or a return's, whose bad mark would be lost with it, and
        // the next rollback would go back to the very release that was left.
        let swap = (record.event, record.how) == (Event::Activating, Some(How::Swap));
        let may_be_lost = swap && !record.unconfirmed;
        let mut written = self.file.write_all(&line);
        if !may_be_lost {
            written = written.and_then(|()| self.file.sync_data());
        }
        if let Err(error) = written {
            // A part of the line may be there: the next append must not land
            // behind it. If this fails too, the next start drops it.
            _ = self.file.set_len(self.len);
            return Err(store.io("cannot append to the journal", error));
        }
        self.len += line.len() as u64;
        self.next += 1;
        Ok(record)
    }
}

/// Gives the records one by one; returns the number of the last, and the length
/// in bytes of what they were read from.
fn parse(store: &Store, file: &mut File, each: &mut impl FnMut(&Record)) -> Result<(u64, u64)> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(|error| store.io("cannot read the journal", error))?;
    let mut last = 0;
    let mut len = 0;
    while len < bytes.len() {
        let rest = &bytes[len..];
        // read_until() for its search, which is a fast one.
        let until = BufRead::skip_until(&mut &*rest, b'\n').unwrap_or(0);
        let end = until.checked_sub(1).filter(|end| rest[*end] == b'\n');
        let text = end.and_then(|end| std::str::from_utf8(&rest[..end]).ok());
        let line = text.and_then(|text| serde_json::from_str::<Record>(text).ok());
        match (line, end) {
            (Some(record), Some(end)) if record.seq == last + 1 => {
                each(&record);
                last = record.seq;
                len += end + 1;
            }
            // Torn: without its end, or the last and not a record.
            (_, None) => break,
            (None, Some(end)) if len + end + 1 == bytes.len() => break,
            _ => {
                return Err(Error::new(
                    Code::IoError,
                    format!("the journal is damaged at its line {}", last + 1),
                )
                .remedy(format!(
                    "look at '{}'; cut it there to go on",
                    store.path().join(STATE).join(JOURNAL).display()
                )));
            }
        }
    }
    Ok((last, len as u64))
}
