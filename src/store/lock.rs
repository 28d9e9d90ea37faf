//! The site's lock: one process at a time changes the site.
//!
//! The process holds it by an open file (flock(2)), so the kernel releases it when
//! the process ends in any way. No operator ever has to remove a stale lock.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use crate::dir::{self, Name};
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::store::layout::{LIMITS, LOCK};
use crate::store::{Actor, Store};

/// The time between two attempts.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The length of every holder's note, in bytes, filled up with spaces: more than a
/// verb, the longest label of a key, a process and a time need (126).
const NOTE_LEN: usize = 200;

/// The lock, held until dropped: closing the file releases it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// The turn of a key; see [`crate::store::turn`]. Fields are dropped in this order, so
    /// other keys get the lock first.
    turn: Option<File>,
}

/// Overwrites the note. Other programs lock the file too (a backup with flock(1)), and
/// write no note: a request that waits for them must not name the last request.
impl Drop for Lock {
    fn drop(&mut self) {
        _ = self.file.rewind();
        _ = self.file.write_all(&[b' '; NOTE_LEN]);
    }
}

impl Lock {
    /// Takes the lock, and waits for it at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`], naming the holder, and [`Code::IoError`].
    pub fn take(store: &Store, actor: &Actor, timeout: Duration) -> Result<Lock> {
        let mut file = open(store)?;
        let cannot = |error| store.state_io("cannot take the lock", error);
        if !lock_within(&file, Duration::ZERO).map_err(cannot)? {
            let _mark = (!timeout.is_zero()).then(|| mark_as_waiting(store));
            if !lock_within(&file, timeout).map_err(cannot)? {
                return Err(busy(file));
            }
        }
        // The note is for requests that wait. A failure to write it (a full disk)
        // does not release the lock.
        let note = format!(
            "{actor}, process {}, since {:.0}",
            std::process::id(),
            jiff::Timestamp::now()
        );
        // Every note has the same length and overwrites the last one. Truncating a file
        // and writing it again would make ext4 free a block, allocate one and start to
        // write it to the disk, in each request (auto_da_alloc, ext4(5)).
        if file
            .write_all(format!("{note:<NOTE_LEN$}").as_bytes())
            .is_err()
        {
            // No note is better than the last holder's.
            _ = file.set_len(0);
        }
        Ok(Lock { file, turn: None })
    }

    /// Returns the error of a request that cannot get the lock, naming the holder.
    pub fn busy(store: &Store) -> Error {
        open(store).map_or_else(|error| error, busy)
    }

    /// Holds the turn of a key until the lock is dropped.
    pub fn set_turn(&mut self, turn: Option<File>) {
        self.turn = turn;
    }
}

fn open(store: &Store) -> Result<File> {
    let opened = store.state.open_rw(LOCK, 0o600);
    opened.map_err(|errno| store.state_io("cannot take the lock", errno))
}

/// Locks a file, and waits for it at most `timeout`. Returns whether it is locked.
///
/// # Errors
///
/// That of the system call.
pub fn lock_within(file: &File, timeout: Duration) -> std::io::Result<bool> {
    let deadline = Instant::now() + timeout;
    // Polled, because flock(2) has no time limit. Terminates: every turn sleeps, and the
    // deadline does not move.
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(POLL_INTERVAL);
            }
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Opens the file that each request locks, together with others, while it waits for the lock.
fn open_marks(store: &Store) -> dir::Result<File> {
    let limits = store.state.open_dir_of_this_mount(LIMITS)?;
    limits.open_rw(Name::literal("site.waiting"), 0o600)
}

/// Shows to other requests that this one waits for the lock, until the file is closed. None
/// where that is not possible, as on a full disk.
fn mark_as_waiting(store: &Store) -> Option<File> {
    let file = open_marks(store).ok()?;
    // The second time for a request that looks at the marks just now, for microseconds.
    if file.try_lock_shared().is_err() {
        std::thread::sleep(Duration::from_millis(1));
        file.try_lock_shared().ok()?;
    }
    Some(file)
}

/// Returns whether a request waits for the lock.
pub fn has_waiters(store: &Store) -> bool {
    let file = open_marks(store);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn busy(file: File) -> Error {
    let mut note = Vec::new();
    _ = file.take(NOTE_LEN as u64).read_to_end(&mut note);
    let holder = match note.trim_ascii_end() {
        b"" => "another request, or a program such as a backup".to_owned(),
        note => escape::escape(note),
    };
    Error::new(Code::Busy, format!("the site is locked: {holder}"))
        .remedy("try again when it has ended")
}
