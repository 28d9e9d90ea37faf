//! The site's lock: one process at a time changes the site.
//!
//! The process holds it by an open file (flock(2)), so the kernel releases it when
//! the process ends in any way. No operator ever has to remove a stale lock.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};
use crate::escape;
use crate::store::layout::LOCK;
use crate::store::limits::{self, KeyLimits, Turn};
use crate::store::{Actor, Store};

/// The time between two attempts.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The length of every holder's note, in bytes, filled up with spaces: more than a
/// verb, the longest label of a key, a process and a time need (126).
const NOTE_LEN: usize = 200;

/// The lock, held until dropped: closing the file releases it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// After the file, because fields are dropped in this order: other keys get the lock first.
    turn: Option<Turn>,
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
    /// Takes the lock for a swap or rollback. Waits at most `timeout`.
    ///
    /// Hooks and health checks may hold the lock for minutes. A stolen key could get it again
    /// and again while another key waits. So each key has one request that waits for the lock
    /// ([`KeyLimits::take_turn`]), and a request that has not waited comes after those that do.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`], naming the holder.
    pub fn take_in_turn(
        limits: &KeyLimits<'_>,
        store: &Store,
        actor: &Actor,
        timeout: Duration,
    ) -> Result<Lock> {
        let deadline = Instant::now() + timeout;
        let turn = limits.take_turn(timeout)?;
        let left = match turn {
            Some(_) => deadline.saturating_duration_since(Instant::now()),
            // The error names the request that has the lock.
            None => Duration::ZERO,
        };
        if someone_waits(store) {
            // They look at the lock within this time.
            std::thread::sleep(POLL_INTERVAL * 2);
        }
        let mut lock = Lock::take(store, actor, left)?;
        lock.turn = turn;
        Ok(lock)
    }

    /// Takes the lock, and waits for it at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`], naming the holder.
    pub fn take(store: &Store, actor: &Actor, timeout: Duration) -> Result<Lock> {
        let cannot = |error: std::io::Error| store.state_io("cannot take the lock", error);
        let mut file = store
            .state
            .open_rw(LOCK, 0o600)
            .map_err(|errno| cannot(errno.into()))?;
        if !lock_within(&file, Duration::ZERO).map_err(cannot)? {
            let _waits = waiting(store);
            if !lock_within(&file, timeout).map_err(cannot)? {
                return Err(busy(&mut file));
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

/// Shows to other requests that this one waits for the lock, until the file is closed. None
/// where that is not possible, as on a full disk.
fn waiting(store: &Store) -> Option<File> {
    let file = limits::open_waiting(store).ok()?;
    file.try_lock_shared().ok()?;
    Some(file)
}

/// Returns whether a request waits for the lock.
fn someone_waits(store: &Store) -> bool {
    let file = limits::open_waiting(store);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn busy(file: &mut File) -> Error {
    let mut note = Vec::new();
    _ = file.take(NOTE_LEN as u64).read_to_end(&mut note);
    let holder = match note.trim_ascii_end() {
        b"" => "another request, or a program such as a backup".to_owned(),
        note => escape::escape(note),
    };
    Error::new(Code::Busy, format!("the site is locked: {holder}"))
        .remedy("try again when it has ended")
}
