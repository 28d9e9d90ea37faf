//! The limits of each key: how often it may send and publish, and how many uploads may
//! run at the same time.
//!
//! Each key has its own counters and its own slots, so a stolen key uses up its share
//! and no other. The label of a key is the operator's (`--key`); all keys without a
//! label count as one key.
//!
//! ```text
//! .deploy-shell/limits/
//!     key-<label>.attempts        requests to receive, also those that fail
//!     key-<label>.swaps           swaps and rollbacks
//!     key-<label>.no-space        when an upload of the key last failed for space
//!     key-<label>.turn            a swap or rollback of the key has the lock of the site, or
//!                                 waits for it, while this is locked
//!     key-<label>.upload-<n>      an upload of the key runs while it is locked
//!     site.waiting                requests of any key wait for the lock while it is locked
//!     site.upload-<n>             an upload of any key runs while it is locked
//! ```
//!
//! The journal counts received releases; see [`History::received`].
//!
//! A counter has one time a line, the newest first, at most as many as the limit. So
//! both time and order bound it: a time of the future (the clock was ahead) does not
//! count, and no line can count once enough newer ones exist. A counter may be lost: it
//! is not synced, and its directory may be removed while no request runs.
//!
//! A slot is a file that its process locks (flock(2)). The kernel releases it when the
//! process ends in any way.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;

use crate::config::{Config, Limits};
use crate::dir::{self, Dir, Name};
use crate::error::{Code, Error, Result};
use crate::names::KeyLabel;
use crate::store::history::{History, RECEIPTS_KEPT};
use crate::store::layout::LIMITS;
use crate::store::{Actor, Store, journal, lock};

/// The time to wait for another request that reads or writes the same counter. That
/// request needs microseconds, and does not wait for its client meanwhile.
const COUNTER_TIMEOUT: Duration = Duration::from_secs(5);

/// The suffix of the file that notes a lack of space.
const NO_SPACE: &str = "no-space";

/// The length of a line of a counter, in bytes: `2026-04-12T14:20:41Z` and a line feed.
const LINE: usize = 21;

/// How long a lack of space is known: until the next run of a pipeline that runs once a day.
const LACK_OF_SPACE_KEPT: Duration = Duration::from_secs(48 * 3600);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Requests of which a key may make so many within a span of time, and which have a
/// counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Requests to receive, also those that fail and those that change nothing.
    Attempts,
    /// Requests to swap or to roll back.
    Activations,
}

/// How often something may happen.
struct Limit {
    max: usize,
    span: Duration,
    /// The key of the configuration that sets it.
    setting: &'static str,
    /// The problem of a request that reaches it.
    problem: &'static str,
}

impl Counter {
    fn suffix(self) -> &'static str {
        match self {
            Counter::Attempts => "attempts",
            Counter::Activations => "swaps",
        }
    }

    fn limit(self, limits: &Limits) -> Limit {
        match self {
            Counter::Attempts => Limit {
                max: limits.attempts_per_hour,
                span: HOUR,
                setting: "attempts_per_hour",
                problem: "too many receive requests within one hour",
            },
            Counter::Activations => Limit {
                max: limits.swaps_per_minute,
                span: MINUTE,
                setting: "swaps_per_minute",
                problem: "too many swaps and rollbacks within one minute",
            },
        }
    }
}

/// The limits of one key on one site.
#[derive(Clone, Copy)]
pub struct KeyLimits<'a> {
    store: &'a Store,
    limits: &'a Limits,
    key: Option<&'a KeyLabel>,
}

/// The right to upload, held until dropped: closing the files releases the slots.
#[derive(Debug)]
pub struct UploadSlot {
    _of_key: File,
    _of_site: File,
}

impl<'a> KeyLimits<'a> {
    pub fn new(config: &'a Config, store: &'a Store, actor: &'a Actor) -> KeyLimits<'a> {
        KeyLimits {
            store,
            limits: &config.limits,
            key: actor.key.as_ref(),
        }
    }

    /// Checks that the key has received few enough releases within the last hour.
    ///
    /// # Errors
    ///
    /// [`Code::RateLimited`].
    pub fn check_receives(&self, history: &History) -> Result<()> {
        let now = journal::now();
        let limit = Limit {
            max: self.limits.receives_per_hour,
            span: RECEIPTS_KEPT,
            setting: "receives_per_hour",
            problem: "too many releases within one hour",
        };
        let receipts = history.received.iter().rev();
        let of_key = receipts.filter(|receipt| receipt.key.as_ref() == self.key);
        let times: Vec<Timestamp> = of_key
            .map(|receipt| receipt.time)
            .filter(|time| journal::age(*time, now) < limit.span)
            .collect();
        self.check_limit(&limit, &times, now)
    }

    /// Counts a request of the key. One that the limit refuses does not count, so a
    /// client that tries repeatedly is not refused for longer.
    ///
    /// # Errors
    ///
    /// [`Code::RateLimited`], [`Code::Busy`], [`Code::IoError`] and [`Code::DiskFull`].
    pub fn count(&self, counter: Counter) -> Result<()> {
        let now = journal::now();
        let limit = counter.limit(self.limits);
        let cannot = |error: std::io::Error| {
            let name = file_name(self.key, counter.suffix());
            self.store
                .state_io(format!("cannot update '{LIMITS}/{name}'"), error)
        };
        // A rollback must be possible on a full disk, which may have no counter. There a
        // swap cannot be repeated without limit either: it appends to the journal.
        let without =
            |error: &Error| counter == Counter::Activations && error.code == Code::DiskFull;
        let mut file = match self.open_counter(counter) {
            Ok(file) => file,
            Err(Errno::ENOENT) if counter == Counter::Activations => return Ok(()),
            Err(errno) => {
                let error = cannot(errno.into());
                return if without(&error) { Ok(()) } else { Err(error) };
            }
        };
        if !lock::lock_within(&file, COUNTER_TIMEOUT).map_err(cannot)? {
            let problem = format!("the counter of {} is locked", self.shown_key());
            return Err(Error::new(Code::Busy, problem).remedy("try again"));
        }
        let mut bytes = Vec::new();
        let longest = limit.max.saturating_mul(LINE) as u64;
        (&mut file)
            .take(longest)
            .read_to_end(&mut bytes)
            .map_err(cannot)?;
        let mut times = times_that_count(&bytes, limit.span, now);
        self.check_limit(&limit, &times, now)?;
        times.insert(0, now);
        let text: String = times.iter().map(|time| format!("{time}\n")).collect();
        match overwrite(&mut file, text.as_bytes()).map_err(cannot) {
            Err(error) if without(&error) => Ok(()),
            other => other,
        }
    }

    /// Checks the limit. `times` are those that count, the newest first.
    fn check_limit(&self, limit: &Limit, times: &[Timestamp], now: Timestamp) -> Result<()> {
        let Limit { max, setting, .. } = limit;
        if times.len() < *max {
            return Ok(());
        }
        // The limit may have been lowered since.
        let wait = max.checked_sub(1).and_then(|last| times.get(last));
        let wait = wait.map_or(String::new(), |oldest| {
            let left = limit.span.saturating_sub(journal::age(*oldest, now));
            format!("wait {}, or ", in_words(left))
        });
        let (number, whose) = (times.len(), self.shown_key());
        let problem = format!("{}: {number} of {max}, by {whose}", limit.problem);
        let remedy = format!("{wait}raise {setting} in the site's configuration");
        Err(Error::new(Code::RateLimited, problem).remedy(remedy))
    }

    fn open_counter(&self, counter: Counter) -> dir::Result<File> {
        self.open_file(counter.suffix())
    }

    /// Opens a file of the key, and makes it if it does not exist.
    ///
    /// # Errors
    ///
    /// The errno of the system call.
    pub fn open_file(&self, suffix: &str) -> dir::Result<File> {
        self.open_by(suffix, |limits, name| limits.open_rw(name, 0o600))
    }

    fn open_by(
        &self,
        suffix: &str,
        open: impl FnOnce(&Dir, Name<'_>) -> dir::Result<File>,
    ) -> dir::Result<File> {
        let limits = open_directory(self.store)?;
        let name = file_name(self.key, suffix);
        open(&limits, Name::new(name.as_bytes()).ok_or(Errno::EINVAL)?)
    }

    /// Notes that an upload of the key failed for space. Ignores a failure: only the next
    /// upload needs the note.
    pub fn note_lack_of_space(&self) {
        if let Ok(mut file) = self.open_file(NO_SPACE) {
            _ = overwrite(&mut file, format!("{}\n", journal::now()).as_bytes());
        }
    }

    /// Returns whether an upload of the key failed for space, and no later one has looked for
    /// releases to remove.
    pub fn lacked_space(&self) -> bool {
        // Most keys have no note, and a request need not make an empty one.
        let Ok(file) = self.open_by(NO_SPACE, |limits, name| limits.open_file(name)) else {
            return false;
        };
        let mut bytes = Vec::new();
        _ = file.take(LINE as u64).read_to_end(&mut bytes);
        !times_that_count(&bytes, LACK_OF_SPACE_KEPT, journal::now()).is_empty()
    }

    pub fn forget_lack_of_space(&self) {
        if let Ok(mut file) = self.open_file(NO_SPACE) {
            _ = overwrite(&mut file, b"");
        }
    }

    /// Takes a slot of the key and one of the site.
    ///
    /// A key has fewer slots than the site (with the defaults), so the uploads of one key
    /// leave slots to the others.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`], and those of the system calls.
    pub fn take_upload_slot(&self) -> Result<UploadSlot> {
        let Limits {
            uploads,
            uploads_per_key,
            ..
        } = *self.limits;
        let of_key = self.free_slot(&prefix(self.key), uploads_per_key)?;
        let of_key = of_key.ok_or_else(|| {
            let key = self.shown_key();
            let problem = format!("too many uploads at the same time: {uploads_per_key} by {key}");
            Error::new(Code::Busy, problem)
                .remedy("wait until one has ended, or raise uploads_per_key in [limits]")
        })?;
        let of_site = self.free_slot("site", uploads)?.ok_or_else(|| {
            let problem = format!("too many uploads at the same time: {uploads} of all keys");
            Error::new(Code::Busy, problem)
                .remedy("wait until one has ended, or raise uploads in [limits]")
        })?;
        Ok(UploadSlot {
            _of_key: of_key,
            _of_site: of_site,
        })
    }

    /// Locks the first free slot; none if all are in use.
    fn free_slot(&self, prefix: &str, slots: u16) -> Result<Option<File>> {
        let cannot =
            |error: std::io::Error| self.store.state_io("cannot take an upload slot", error);
        let limits = open_directory(self.store).map_err(|errno| cannot(errno.into()))?;
        for slot in 0..slots {
            let name = format!("{prefix}.upload-{slot}");
            let file = Name::new(name.as_bytes())
                .ok_or(Errno::EINVAL)
                .and_then(|name| limits.open_rw(name, 0o600))
                .map_err(|errno| cannot(errno.into()))?;
            if lock::lock_within(&file, Duration::ZERO).map_err(cannot)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Returns the key, for a message.
    pub fn shown_key(&self) -> String {
        match self.key {
            Some(key) => format!("key '{key}'"),
            None => "keys without a label".to_owned(),
        }
    }
}

/// Opens the directory of the counters.
///
/// A file system that is mounted there may stall: the directory must be one of the site's own.
///
/// # Errors
///
/// The errno of the system call.
pub fn open_directory(store: &Store) -> dir::Result<Dir> {
    store.state.open_dir_of_this_mount(LIMITS)
}

/// Makes the directory of the counters if it does not exist. The sandbox of a swap or
/// rollback allows no new file, so they count before it.
///
/// # Errors
///
/// The errno of the system call. A full disk is none: a rollback must be possible.
pub fn create_directory(store: &Store) -> dir::Result<()> {
    match store.state.make_dir(LIMITS, 0o700) {
        Ok(()) | Err(Errno::EEXIST | Errno::ENOSPC | Errno::EDQUOT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Replaces the content of a file.
fn overwrite(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.rewind()?;
    file.write_all(bytes)?;
    // Only a shorter content needs this. Truncating first would make ext4 allocate a
    // block for each request (auto_da_alloc, ext4(5)).
    if file.metadata()?.len() > bytes.len() as u64 {
        file.set_len(bytes.len() as u64)?;
    }
    Ok(())
}

/// Returns what the names of a key's files begin with. No label makes it equal to that
/// of another key or of the site: the suffix follows the last dot.
fn prefix(key: Option<&KeyLabel>) -> String {
    match key {
        Some(key) => format!("key-{key}"),
        None => "key".to_owned(),
    }
}

fn file_name(key: Option<&KeyLabel>, suffix: &str) -> String {
    format!("{}.{suffix}", prefix(key))
}

/// Returns the times of a counter that are not of the future and within `span`, in the
/// order of the file. Anything else is ignored: it cannot have come from a client, and
/// a damaged counter must not stop deploys.
fn times_that_count(bytes: &[u8], span: Duration, now: Timestamp) -> Vec<Timestamp> {
    let lines = bytes.split(|byte| *byte == b'\n');
    let times = lines.filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok());
    times
        .filter(|time: &Timestamp| *time <= now && journal::age(*time, now) < span)
        .collect()
}

/// Returns a duration for a person, rounded up.
fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests;
