//! Writes the payload to an unnamed file and hashes it as it arrives, under limits
//! of size and time. Nothing here interprets a byte of it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::share::Share;
use super::termination::TerminationSignals;
use crate::archive::DiskNeed;
use crate::config::Config;
use crate::deadline::{Deadline, TimedReader};
use crate::error::{self, Code, Error, Result};
use crate::names::Sha256Digest;
use crate::threads;

/// The size of a buffer, in bytes.
const BUFFER: usize = 256 * 1024;

/// The number of buffers: while one is hashed, the next ones are read and written.
/// No other part of the payload is in memory.
const BUFFERS: usize = 4;

/// The silence of a client after which this process compares the digest so far with the
/// expected one. A client that has sent everything may never close its input.
const PAUSE: Duration = Duration::from_secs(1);

/// The input of the hashing thread.
enum Piece {
    /// A buffer, and the number of bytes that were read into it.
    Bytes(Vec<u8>, usize),
    /// A question: is what came so far the payload?
    Compare(SyncSender<bool>),
}

/// The number of buffers between two looks at the free space.
const CHECK_EVERY: usize = 8;

/// A payload whose digest equals the digest of the request. The fields are private:
/// no other module can create one, and the unpacker gets nothing else.
#[derive(Debug)]
pub struct VerifiedPayload {
    file: File,
    bytes: u64,
}

impl VerifiedPayload {
    /// Returns the size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns what the file takes on disk.
    pub fn disk_need(&self) -> DiskNeed {
        held(self.bytes)
    }

    /// Returns the file, whose offset is at its end.
    pub fn into_file(self) -> File {
        self.file
    }
}

/// Copies stdin to a file until the payload is whole or stdin ends, and verifies the
/// digest. The file has no
/// name, so nothing of it remains however the process ends.
///
/// # Errors
///
/// [`Code::DigestMismatch`], [`Code::TooLarge`], [`Code::Timeout`],
/// [`Code::DiskFull`], [`Code::BadLayout`], [`Code::IoError`].
pub fn spool(
    share: &Share<'_>,
    config: &Config,
    expected: &Sha256Digest,
    deadline: Deadline,
) -> Result<VerifiedPayload> {
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
    let mut bytes = 0;
    // A second thread hashes: a client on a fast network sends faster than one
    // processor hashes and writes.
    let found = std::thread::scope(|scope| {
        let (pieces, to_hash) = sync_channel(BUFFERS);
        let (give_back, free_buffers) = sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            give_back.send(vec![0; BUFFER]).map_err(|_| error::bug())?;
        }
        let hash = threads::builder()
            .spawn_scoped(scope, move || hash(&to_hash, &give_back, expected))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        copy_payload(
            share,
            config,
            deadline,
            &mut file,
            &mut bytes,
            pieces,
            &free_buffers,
        )?;
        hash.join().map_err(|_| error::bug())
    })?;
    // The end of stdin proves nothing, because a broken connection ends it too. Only
    // the digest proves that the payload is complete.
    if found != *expected {
        if bytes == 0 {
            let problem = "nothing came: the payload has 0 bytes";
            return Err(Error::new(Code::DigestMismatch, problem).remedy(SEND_A_FILE));
        }
        return Err(Error::new(
            Code::DigestMismatch,
            format!("the payload of {bytes} bytes has sha256 {found}, not {expected} as requested"),
        )
        .remedy("send the file that was hashed; the connection may have broken"));
    }
    Ok(VerifiedPayload { file, bytes })
}

/// Hashes the buffers in their order, and gives each back.
fn hash(
    pieces: &Receiver<Piece>,
    give_back: &SyncSender<Vec<u8>>,
    expected: &Sha256Digest,
) -> Sha256Digest {
    let mut hash = Sha256::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(buffer, read) => {
                hash.update(&buffer[..read]);
                // After the last one no thread receives it.
                _ = give_back.send(buffer);
            }
            Piece::Compare(answer) => {
                let so_far: [u8; 32] = hash.clone().finalize().into();
                _ = answer.send(so_far == expected.0);
            }
        }
    }
    Sha256Digest(hash.finalize().into())
}

/// Copies stdin to `file` until the payload is whole or stdin ends, and sends every
/// buffer to be hashed.
fn copy_payload(
    share: &Share<'_>,
    config: &Config,
    deadline: Deadline,
    file: &mut File,
    bytes: &mut u64,
    pieces: SyncSender<Piece>,
    free_buffers: &Receiver<Vec<u8>>,
) -> Result<()> {
    let limits = &config.limits;
    let max = config.archive.max_compressed;
    // The room that is left for this payload, by the last look at the free space.
    let mut allowance = share.allowance(DiskNeed::default())?;
    let mut unchecked = CHECK_EVERY;
    let signals = TerminationSignals::open()?;
    let pause = PAUSE.min(limits.idle_timeout);
    let mut input = TimedReader::new(std::io::stdin(), pause, deadline);
    let mut buffer = free_buffers.recv().map_err(|_| error::bug())?;
    let mut idle = Deadline::after(limits.idle_timeout);
    let mut compared = false;
    // Terminates: each turn adds to `bytes`, which is bounded, or waits, until `idle`
    // or `deadline` has passed, or returns.
    loop {
        let read = input.read(&mut buffer);
        signals.check(|| format!("after {bytes} bytes of the payload"))?;
        let read = match read {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                // Once for each pause: the digest changes only with the next byte.
                if !compared && is_whole(&pieces)? {
                    return Ok(());
                }
                compared = true;
                if idle.has_passed() || deadline.has_passed() {
                    return Err(timeout(config, deadline, *bytes));
                }
                // A silent client must not keep what others need meanwhile.
                (allowance, unchecked) = (share.allowance(held(*bytes))?, CHECK_EVERY);
                continue;
            }
            Err(error) => return Err(Error::io("cannot read the payload", error)),
        };
        (idle, compared) = (Deadline::after(limits.idle_timeout), false);
        *bytes += read as u64;
        if *bytes > max {
            return Err(Error::new(
                Code::TooLarge,
                format!("the payload is larger than {max} bytes"),
            )
            .remedy("make it smaller, or raise max_compressed in the site's configuration"));
        }
        // Other processes use the disk too. The bytes of this turn are not written yet.
        if unchecked == 0 {
            let written = held(*bytes - read as u64);
            (allowance, unchecked) = (share.allowance(written)?, CHECK_EVERY);
        }
        unchecked -= 1;
        let left = &mut allowance.room.bytes;
        *left = match left.checked_sub(read as u64) {
            Some(left) => left,
            None => return Err(share.exceeded(allowance)),
        };
        file.write_all(&buffer[..read])
            .map_err(|error| share.store.io("cannot write the spool", error))?;
        let next = Piece::Bytes(buffer, read);
        pieces.send(next).map_err(|_| error::bug())?;
        buffer = free_buffers.recv().map_err(|_| error::bug())?;
    }
}

/// Returns what a spool of this many bytes takes on disk. It has an inode of its own.
fn held(bytes: u64) -> DiskNeed {
    DiskNeed { bytes, inodes: 1 }
}

/// Returns whether the bytes so far have the digest of the request. They are the whole
/// payload then, although the client has not closed its input: paramiko and others
/// wait for the answer first.
fn is_whole(pieces: &SyncSender<Piece>) -> Result<bool> {
    let (answer, answered) = sync_channel(1);
    let question = Piece::Compare(answer);
    pieces.send(question).map_err(|_| error::bug())?;
    answered.recv().map_err(|_| error::bug())
}

/// The remedy of a payload that did not come.
const SEND_A_FILE: &str = "send the payload with '< FILE'";

fn timeout(config: &Config, deadline: Deadline, bytes: u64) -> Error {
    let problem = if deadline.has_passed() {
        let seconds = config.limits.total_timeout.as_secs();
        format!("the payload took longer than {seconds} s, {bytes} bytes of it came")
    } else {
        let seconds = config.limits.idle_timeout.as_secs();
        format!("nothing came for {seconds} s, after {bytes} bytes of the payload")
    };
    let remedy = if bytes == 0 {
        SEND_A_FILE
    } else {
        "send the payload again, with '< FILE'"
    };
    Error::new(Code::Timeout, problem).remedy(remedy)
}
