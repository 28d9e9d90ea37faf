//! Reading a manifest ahead of whoever holds it against something: one thread
//! reads lines while another asks the kernel.

use std::io::BufRead;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::error::{Error, Result};
use crate::manifest::{Entries, Entry};

/// Entries in a batch, and batches that wait. With the one that is being read and
/// the one that is being used, no more of a manifest is in memory.
const BATCH: usize = 256;
const QUEUE: usize = 4;

/// Entries in order; none of them at the end of a whole manifest.
type Batch = std::result::Result<Vec<Entry>, &'static str>;

/// Does `work`, which takes entry by entry what is read of `manifest` meanwhile.
///
/// Errors: those of `work`; [`crate::error::Code::IoError`] if there can be no
/// thread. What is wrong with the manifest is told to `work`.
pub fn meanwhile<T>(
    manifest: &mut (impl BufRead + Send),
    work: impl FnOnce(&mut dyn FnMut() -> std::result::Result<Option<Entry>, &'static str>) -> Result<T>,
) -> Result<T> {
    std::thread::scope(|scope| {
        let (give, take) = sync_channel::<Batch>(QUEUE);
        std::thread::Builder::new()
            .spawn_scoped(scope, move || read(manifest, &give))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        let mut batch = Vec::new().into_iter();
        work(&mut move || {
            if let Some(entry) = batch.next() {
                return Ok(Some(entry));
            }
            // A reader that is gone without an end has not read all of it.
            batch = take.recv().unwrap_or(Err("it was not read"))?.into_iter();
            Ok(batch.next())
        })
    })
}

/// Reads to the end, to what is wrong, or until nobody takes any more.
fn read(manifest: &mut impl BufRead, give: &SyncSender<Batch>) {
    let mut entries = Entries::new(manifest);
    // Ends: every turn consumes lines, and the manifest has an end.
    loop {
        let batch = batch(&mut entries);
        let last = batch.as_ref().map_or(true, Vec::is_empty);
        if give.send(batch).is_err() || last {
            return;
        }
    }
}

fn batch(entries: &mut Entries<'_, impl BufRead>) -> Batch {
    let mut batch = Vec::with_capacity(BATCH);
    while batch.len() < BATCH {
        match entries.next_entry()? {
            Some(entry) => batch.push(entry),
            None => break,
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Sums, trailer};

    /// What is taken of a manifest of so many folders that ends like this.
    fn taken(count: usize, end: &str) -> (usize, std::result::Result<(), &'static str>) {
        let lines = (0..count).map(|number| format!("./{number} type=dir mode=0755\n"));
        let text = lines.collect::<String>() + end;
        let mut taken = 0;
        let all = meanwhile(&mut text.as_bytes(), |next| {
            loop {
                match next() {
                    Ok(Some(entry)) => assert_eq!(entry.path, taken.to_string().as_bytes()),
                    Ok(None) => return Ok(Ok(())),
                    Err(why) => return Ok(Err(why)),
                }
                taken += 1;
            }
        });
        (taken, all.unwrap())
    }

    #[test]
    fn all_of_it_comes_in_order_and_a_manifest_that_is_not_whole_is_told() {
        let end = trailer(Sums::default());
        for count in [0, 1, BATCH - 1, BATCH, BATCH + 1, 10 * BATCH] {
            assert_eq!(taken(count, &end), (count, Ok(())));
            assert!(taken(count, "").1.is_err());
            assert!(taken(count, "# files 1 bytes 0\n").1.is_err());
        }
    }

    #[test]
    fn whoever_takes_may_stop() {
        let text = "./a type=dir mode=0755\n".repeat(20 * BATCH);
        meanwhile(&mut text.as_bytes(), |next| {
            next().unwrap().unwrap();
            Ok(())
        })
        .unwrap();
    }
}
