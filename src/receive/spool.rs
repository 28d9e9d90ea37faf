//! The payload on its way in: to an unnamed file, hashed as it arrives, under
//! limits of size and time. Not a byte of it is interpreted here.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::deadline::{Deadline, TimedReader};
use crate::error::{self, Code, Error, Result};
use crate::names::Sha256Digest;
use crate::store::Store;

/// How much is read at once, in bytes.
const BUFFER: usize = 256 * 1024;

/// How many buffers there are: while one is hashed, the next are read and written.
/// All that is in memory of the payload is in them.
const BUFFERS: usize = 4;

/// A buffer, and how many bytes of it were read.
type Piece = (Vec<u8>, usize);

/// A payload whose digest was the promised one. The fields are private: no
/// other module can make one, and nothing unpacks anything else.
#[derive(Debug)]
pub struct Verified {
    file: File,
    bytes: u64,
}

impl Verified {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn into_file(self) -> File {
        self.file
    }
}

/// Spools stdin to its end and verifies it.
///
/// Errors: [`Code::DigestMismatch`], [`Code::TooLarge`], [`Code::Timeout`],
/// [`Code::DiskFull`], [`Code::BadLayout`], [`Code::IoError`]. The file has no name, so that nothing is left of it,
/// whatever happens.
pub fn spool(
    store: &Store,
    config: &Config,
    promised: &Sha256Digest,
    deadline: Deadline,
) -> Result<Verified> {
    let mut file = store.incoming.unnamed_file().map_err(|errno| match errno {
        nix::errno::Errno::EOPNOTSUPP => Error::new(
            Code::BadLayout,
            format!(
                "the file system of '{}' has no unnamed files (O_TMPFILE)",
                store.path().display()
            ),
        )
        .remedy("keep the site on ext4, xfs, btrfs or tmpfs"),
        errno => store.io("cannot make the spool", errno),
    })?;
    let mut bytes = 0;
    // Hashed by another thread: a client on a fast line sends sooner than one
    // processor hashes and writes.
    let found = std::thread::scope(|scope| {
        let (pieces, to_hash) = sync_channel(BUFFERS);
        let (give_back, free) = sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            give_back.send(vec![0; BUFFER]).map_err(|_| error::bug())?;
        }
        let hash = std::thread::Builder::new()
            .spawn_scoped(scope, move || hash(&to_hash, &give_back))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        take_in(
            store, config, deadline, &mut file, &mut bytes, pieces, &free,
        )?;
        hash.join().map_err(|_| error::bug())
    })?;
    // The end of stdin proves nothing: a connection that broke ends it just as
    // well. Only the digest tells a whole payload.
    if found != *promised {
        return Err(Error::new(
            Code::DigestMismatch,
            format!(
                "the payload of {bytes} bytes has sha256 {found}, not the {promised} asked for"
            ),
        )
        .remedy("send the very file that was hashed; the connection may have broken"));
    }
    Ok(Verified { file, bytes })
}

/// Hashes what comes, in the order in which it came, and gives it back.
fn hash(pieces: &Receiver<Piece>, give_back: &SyncSender<Vec<u8>>) -> Sha256Digest {
    let mut hash = Sha256::new();
    for (buffer, read) in pieces {
        hash.update(&buffer[..read]);
        // Nobody takes it any more when the last one has come.
        _ = give_back.send(buffer);
    }
    Sha256Digest(hash.finalize().into())
}

/// Reads stdin to its end, writes what comes, and hands it on to be hashed.
fn take_in(
    store: &Store,
    config: &Config,
    deadline: Deadline,
    file: &mut File,
    bytes: &mut u64,
    pieces: SyncSender<Piece>,
    free: &Receiver<Vec<u8>>,
) -> Result<()> {
    let limits = &config.limits;
    let max = config.archive.max_compressed;
    let (room, _) = store.room(limits.reserve)?;
    let mut input = TimedReader::new(std::io::stdin(), limits.idle_timeout, deadline);
    // Ends: each turn adds to `bytes`, which is bounded, or ends it.
    loop {
        let mut buffer = free.recv().map_err(|_| error::bug())?;
        let read = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                return Err(timeout(config, deadline, *bytes));
            }
            Err(error) => return Err(Error::io("cannot read the payload", error)),
        };
        *bytes += read as u64;
        if *bytes > max {
            return Err(Error::new(
                Code::TooLarge,
                format!("the payload is larger than {max} bytes"),
            )
            .remedy("make it smaller, or raise max_compressed in the site's configuration"));
        }
        if *bytes > room {
            return Err(store.only_reserve());
        }
        file.write_all(&buffer[..read])
            .map_err(|error| store.io("cannot write the spool", error))?;
        pieces.send((buffer, read)).map_err(|_| error::bug())?;
    }
}

fn timeout(config: &Config, deadline: Deadline, bytes: u64) -> Error {
    let problem = if deadline.has_passed() {
        let seconds = config.limits.total_timeout.as_secs();
        format!("the payload took longer than {seconds} s, {bytes} bytes of it came")
    } else {
        let seconds = config.limits.idle_timeout.as_secs();
        format!("nothing came for {seconds} s, after {bytes} bytes of the payload")
    };
    Error::new(Code::Timeout, problem).remedy("send the payload again, with '< FILE'")
}
