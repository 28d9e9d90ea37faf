//! The turn of a key: which swaps and rollbacks wait for the site's lock.
//!
//! Hooks and health checks may hold the lock for minutes. A stolen key could get it again and
//! again while another key waits: it can have many requests that wait, and can send the next
//! one at once. So each key has one swap or rollback that waits for the lock, and one that has
//! not waited comes after those that do. A queue in the order of arrival would need a lock
//! with a time limit, which flock(2) does not have.

use std::fs::File;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::store::limits::KeyLimits;
use crate::store::lock::{self, Lock, POLL_INTERVAL};
use crate::store::{Actor, Store};

/// Takes the lock for a swap or rollback, and waits for it at most `timeout`.
///
/// # Errors
///
/// [`Code::Busy`](crate::error::Code::Busy), naming the holder, and
/// [`Code::IoError`](crate::error::Code::IoError).
pub fn take_lock(
    limits: &KeyLimits<'_>,
    store: &Store,
    actor: &Actor,
    timeout: Duration,
) -> Result<Lock> {
    let deadline = Instant::now() + timeout;
    // None on a full disk, for example: a rollback must be possible.
    let turn: Option<File> = limits.open_file("turn").ok();
    if let Some(turn) = &turn {
        let cannot = |error| store.state_io("cannot take the turn of the key", error);
        if !lock::lock_within(turn, timeout).map_err(cannot)? {
            return Err(Lock::busy(store));
        }
    }
    if lock::has_waiters(store) {
        // They look at the lock within this time.
        std::thread::sleep(POLL_INTERVAL * 2);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let mut lock = Lock::take(store, actor, left)?;
    lock.set_turn(turn);
    Ok(lock)
}
