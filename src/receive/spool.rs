//! Writes the payload to an unnamed file as it arrives, where no process may interpret a
//! byte of it before its digest is known: signers have signed that digest.

use std::fs::File;
use std::io::{Seek, Write};
use std::time::Duration;

use super::arrival::{Arrival, BUFFER, Piece, VerifiedPayload};
use super::share::Share;
use super::termination::TerminationSignals;
use crate::archive::DiskNeed;
use crate::error::{Code, Error, Result};

/// The time between two looks at the free space while the client is silent.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The number of buffers between two looks at the free space.
const CHECK_EVERY: usize = 8;

/// A whole payload in a file.
#[derive(Debug)]
pub struct SpooledPayload {
    pub verified: VerifiedPayload,
    /// At its start.
    pub file: File,
}

impl SpooledPayload {
    /// Returns what the file takes on disk.
    pub fn disk_need(&self) -> DiskNeed {
        held(self.verified.bytes())
    }
}

/// Copies the payload to a file, and verifies its digest. The file has no name, so nothing
/// of it remains however the process ends.
///
/// # Errors
///
/// Those of [`Arrival`], [`Code::DiskFull`], [`Code::BadLayout`], [`Code::IoError`].
pub fn spool(share: &Share<'_>, mut arrival: Arrival<'_>) -> Result<SpooledPayload> {
    let store = share.store;
    let mut file = store.incoming.tmpfile().map_err(|errno| match errno {
        nix::errno::Errno::EOPNOTSUPP => Error::new(
            Code::BadLayout,
            format!(
                "the file system of '{}' has no unnamed files (O_TMPFILE)",
                store.path().display()
            ),
        )
        .remedy("keep the site on ext4, xfs, btrfs or tmpfs"),
        errno => store.io("cannot create the spool", errno),
    })?;
    let cannot = |error: std::io::Error| store.io("cannot write the spool", error);
    // The room that is left for this payload, by the last look at the free space.
    let mut allowance = share.allowance(DiskNeed::default())?;
    let mut unchecked = CHECK_EVERY;
    let signals = TerminationSignals::open()?;
    let mut buffer = vec![0; BUFFER];
    // Terminates: each turn adds to the bytes of the arrival, which limits them, or waits,
    // for which it has a limit too, or returns.
    loop {
        let written = held(arrival.bytes());
        let piece = arrival.read(&mut buffer)?;
        signals.check(|| format!("after {} bytes of the payload", arrival.bytes()))?;
        let read = match piece {
            Piece::End => break,
            Piece::Nothing => {
                // A silent client must not keep what others need meanwhile.
                (allowance, unchecked) = (share.allowance(written)?, CHECK_EVERY);
                continue;
            }
            Piece::Bytes(read) => read,
        };
        // Other processes use the disk too.
        if unchecked == 0 {
            (allowance, unchecked) = (share.allowance(written)?, CHECK_EVERY);
        }
        unchecked -= 1;
        let left = &mut allowance.room.bytes;
        *left = match left.checked_sub(read as u64) {
            Some(left) => left,
            None => return Err(share.exceeded(allowance)),
        };
        file.write_all(&buffer[..read]).map_err(cannot)?;
    }
    let verified = arrival.verify()?;
    file.rewind().map_err(cannot)?;
    Ok(SpooledPayload { verified, file })
}

/// Returns what a spool of this many bytes takes on disk. It has an inode of its own.
fn held(bytes: u64) -> DiskNeed {
    DiskNeed { bytes, inodes: 1 }
}
