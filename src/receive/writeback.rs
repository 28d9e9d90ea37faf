//! Writes staged files to the disk in the background, so that the disk works while
//! the unpacker does, and the final sync has little left to write.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::dir::{self, Dir};
use crate::error::{self, Error, Result};
use crate::store::Store;
use crate::threads;

/// The number of written bytes after which the background thread syncs.
const SYNC_EVERY: u64 = 64 << 20;

/// The interval at which it looks at the free space.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Handle for requesting an early sync of the staged files.
pub struct BackgroundSync(SyncSender<()>);

impl BackgroundSync {
    /// Requests a sync now, and does not wait for it.
    pub fn request(&self) {
        // If a request is waiting already, that one is enough.
        _ = self.0.try_send(());
    }
}

/// Runs `work` while a background thread calls syncfs(2), so that the final sync
/// has little left to write.
///
/// # Errors
///
/// Returns `work`'s error, or `IoError`/`DiskFull` if any background sync failed:
/// the kernel reports a write error to only one syncfs call, so the final sync
/// would not see it.
pub fn with_background_sync<T>(
    store: &Store,
    tree: &Dir,
    work: impl FnOnce(&BackgroundSync) -> Result<T>,
) -> Result<T> {
    std::thread::scope(|scope| {
        let (sender, requests) = sync_channel(1);
        let thread = threads::builder()
            .spawn_scoped(scope, move || sync_repeatedly(tree, &requests))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        let handle = BackgroundSync(sender);
        let result = work(&handle);
        // The thread ends when the handle is gone.
        drop(handle);
        let synced = thread.join().map_err(|_| error::bug())?;
        let value = result?;
        synced.map_err(|errno| store.io("cannot sync the release", errno))?;
        Ok(value)
    })
}

/// Syncs on request, and whenever [`SYNC_EVERY`] bytes of free space are used up.
/// Writes of other processes count as well; that does no harm.
///
/// Terminates: the channel closes when `work` ends.
fn sync_repeatedly(tree: &Dir, requests: &Receiver<()>) -> dir::Result<()> {
    // If the free space is unknown, the final sync writes everything.
    let free_bytes = || tree.space().map_or(0, |space| space.free_bytes);
    let mut before = free_bytes();
    loop {
        let requested = match requests.recv_timeout(POLL_INTERVAL) {
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => false,
            Ok(()) => true,
        };
        let now = free_bytes();
        if requested || before.saturating_sub(now) >= SYNC_EVERY {
            tree.sync_file_system()?;
            before = free_bytes();
        } else {
            // Another process may have freed space.
            before = before.max(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn the_thread_ends_with_the_work() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Dir::open_root(directory.path()).unwrap();
        let (sender, requests) = sync_channel::<()>(0);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| sync_repeatedly(&tree, &{ requests }));
            assert!(!thread.is_finished());
            drop(sender);
            assert_eq!(thread.join().unwrap(), Ok(()));
        });
    }
}
