//! The site's lock: one process at a time changes anything.
//!
//! It is held by the process (flock(2) on an open file), so it ends with it,
//! however it ends, and there is never a stale lock to remove by hand.

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, Flockable};

use crate::error::{Code, Error, Result};
use crate::escape;
use crate::store::layout::LOCK;
use crate::store::{Actor, Store};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The length of every holder's note, in bytes, filled up with blanks: more than
/// a verb, the longest label of a key, a process and a time come to (126).
const NOTE: usize = 200;

/// The lock, held until dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] Held<File>);

/// What flock(2) holds, until dropped.
#[derive(Debug)]
pub struct Held<T: Flockable>(Option<Flock<T>>);

impl<T: Flockable> Held<T> {
    pub fn new(held: Flock<T>) -> Self {
        Held(Some(held))
    }
}

impl<T: Flockable> Drop for Held<T> {
    fn drop(&mut self) {
        // nix's own drop panics where the lock cannot be given back, and the
        // work is done by then: a success would be reported as a bug. Kept
        // instead, it ends with the process.
        if let Some(Err((held, _))) = self.0.take().map(Flock::unlock) {
            std::mem::forget(held);
        }
    }
}

impl Lock {
    /// Takes the lock, waiting for it `patience` at most.
    ///
    /// Errors: [`Code::Busy`], naming the holder.
    pub fn take(store: &Store, actor: &Actor, patience: Duration) -> Result<Lock> {
        let cannot = |error: std::io::Error| store.io("cannot take the lock", error);
        let deadline = Instant::now() + patience;
        let mut file = store
            .state
            .open_over(LOCK, 0o600)
            .map_err(|errno| cannot(errno.into()))?;
        // Polled, because flock(2) itself can only wait without a bound. Ends:
        // every turn sleeps, and the deadline does not move.
        let mut held = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => break held,
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                    file = back;
                    std::thread::sleep(PAUSE);
                }
                Err((back, Errno::EWOULDBLOCK)) => return Err(busy(back)),
                Err((_, errno)) => return Err(cannot(errno.into())),
            }
        };
        // A note for those who wait; that it cannot be written (a full disk)
        // does not make the lock any less held.
        let verb = actor.verb;
        let key = actor.key.as_ref().map_or("-", |key| key.as_str());
        let note = format!(
            "{verb} by key '{key}', process {}, since {:.0}",
            std::process::id(),
            jiff::Timestamp::now()
        );
        // Over the last one, at one length: to truncate a file and write it anew
        // makes ext4 free a block, take one and begin to write it to the disk, in
        // each request (auto_da_alloc, ext4(5)).
        if held.write_all(format!("{note:<NOTE$}").as_bytes()).is_err() {
            // Rather none than the last holder's.
            _ = held.set_len(0);
        }
        Ok(Lock(Held::new(held)))
    }
}

fn busy(file: File) -> Error {
    let mut note = Vec::new();
    _ = file.take(NOTE as u64).read_to_end(&mut note);
    let holder = match note.trim_ascii_end() {
        b"" => "another request".to_owned(),
        note => escape::escape(note),
    };
    Error::new(Code::Busy, format!("the site is locked: {holder}"))
        .remedy("try again when that request has ended")
}
