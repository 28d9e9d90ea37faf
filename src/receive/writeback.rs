//! Having the disk work while the processor does: what is written goes out a
//! part at a time, and the sync at the end has little left to wait for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::dir::{self, Dir};
use crate::error::{Error, Result};
use crate::store::Store;

/// How much is written before it is sent on its way, in bytes.
const STEP: u64 = 64 << 20;

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What has the disk work, as whoever makes it work sees it.
pub struct Flusher(SyncSender<()>);

impl Flusher {
    /// Has what is written by now go out at once.
    pub fn now(&self) {
        // Where one is to come already, that one will do.
        _ = self.0.try_send(());
    }
}

/// Does `work`, and has what is written in `tree`'s file system meanwhile go out.
///
/// Errors: those of `work`; and [`crate::error::Code::IoError`],
/// [`crate::error::Code::DiskFull`] if a sync failed. None of them may be passed
/// over: the kernel reports a failed write to one sync alone (syncfs(2)), and the
/// one at the end would know nothing of it.
pub fn meanwhile<T>(
    store: &Store,
    tree: &Dir,
    work: impl FnOnce(&Flusher) -> Result<T>,
) -> Result<T> {
    std::thread::scope(|scope| {
        let (asks, asked) = sync_channel(1);
        let flushing = std::thread::Builder::new()
            .spawn_scoped(scope, move || flush(tree, &asked))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        let flusher = Flusher(asks);
        let done = work(&flusher);
        drop(flusher);
        let flushed = flushing.join().map_err(|_| crate::error::bug())?;
        let done = done?;
        flushed.map_err(|errno| store.io("cannot sync the release", errno))?;
        Ok(done)
    })
}

/// Syncs when it is asked to, and after each [`STEP`], by the room that is gone,
/// until nobody holds the other end any more. What others write counts as well;
/// that does no harm.
fn flush(tree: &Dir, asked: &Receiver<()>) -> dir::Result<()> {
    // Where it cannot be told, the sync at the end does it all.
    let free = || tree.space().map_or(0, |space| space.free_bytes);
    let mut before = free();
    loop {
        let at_once = match asked.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => false,
            Ok(()) => true,
        };
        let now = free();
        if at_once || before.saturating_sub(now) >= STEP {
            tree.sync_file_system()?;
            before = free();
        } else {
            // Somebody may have made room.
            before = before.max(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn it_ends_with_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Dir::open_root(folder.path()).unwrap();
        let (ended, wait) = sync_channel::<()>(0);
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| flush(&tree, &{ wait }));
            assert!(!flushing.is_finished());
            drop(ended);
            assert_eq!(flushing.join().unwrap(), Ok(()));
        });
    }
}
