//! Writing files, by several threads.
//!
//! Small files travel in batches, so that a thread is woken for half a
//! megabyte and not for each file; a large one goes in pieces to two threads,
//! of which one writes and the other hashes. Queues are short, and buffers go
//! round: what is in memory is bounded by their number, whatever the archive
//! says of its sizes.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::errno::Errno;
use sha2::{Digest, Sha256};

use super::rule::{Failure, Rule};
use super::tree::Id;
use crate::dir::{Dir, Name};
use crate::error::Error;
use crate::names::Sha256Digest;

/// A piece of a large file and the fill of a batch, in bytes.
const PIECE: usize = 512 * 1024;

/// Most files in a batch. Each may hold another folder's handle, and so
/// threads × (queue + 2) × this many are open at most: 768, of the 1,024 that
/// the unpacker may have.
const BATCH_FILES: usize = 48;

/// Jobs that wait for one thread.
const QUEUE: usize = 2;

/// Where a file goes.
#[derive(Debug)]
pub struct Target {
    pub folder: Arc<Dir>,
    pub name: Box<[u8]>,
    /// Its node, under which its digest is reported.
    pub id: Id,
}

/// A whole file, its data a range of its batch's.
struct Small {
    target: Target,
    executable: bool,
    data: Range<usize>,
}

enum Job {
    /// Whole files, their data side by side.
    Batch(Vec<u8>, Vec<Small>),
    /// A large file begins, which this thread writes; its pieces follow, then
    /// its end.
    Begin {
        target: Target,
        executable: bool,
    },
    Write(Arc<Piece>),
    Written,
    /// A piece of the one that the other thread writes.
    Hash(Arc<Piece>),
    Hashed(Id),
}

/// So many bytes from the start of the buffer.
struct Piece {
    buffer: Vec<u8>,
    len: usize,
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

type Digests = Vec<(Id, Sha256Digest)>;

struct Thread {
    jobs: SyncSender<Job>,
    handle: JoinHandle<Result<Digests, Failure>>,
}

/// The threads, and the batch that is being filled.
pub struct Writers {
    threads: Vec<Thread>,
    turn: usize,
    /// Buffers that were written out. A new one costs more than to fill it: the
    /// kernel clears its pages first.
    free: Receiver<Vec<u8>>,
    /// The batch's, of which the first `filled` bytes are taken.
    data: Vec<u8>,
    filled: usize,
    files: Vec<Small>,
}

impl Writers {
    pub fn start(count: usize) -> Result<Writers, Failure> {
        let cannot = |error| Failure::Io(Error::io("cannot start a thread", error));
        let (ready, stands) = sync_channel(count);
        // Room for all there can be, so that no thread waits to give one back:
        // in each queue, in each thread, and the one that is being filled.
        let (give_back, free) = sync_channel(count * (QUEUE + 1) + 1);
        let threads = (0..count)
            .map(|_| {
                let (jobs, queue) = sync_channel(QUEUE);
                let (ready, give_back) = (ready.clone(), give_back.clone());
                let handle = std::thread::Builder::new().spawn(move || {
                    _ = ready.send(());
                    work(&queue, &give_back)
                })?;
                Ok(Thread { jobs, handle })
            })
            .collect::<std::io::Result<_>>()
            .map_err(cannot)?;
        // All of them run our code by now, and none is still in the calls by
        // which a thread sets itself up.
        for _ in 0..count {
            _ = stands.recv();
        }
        Ok(Writers {
            threads,
            turn: 0,
            free,
            data: Vec::new(),
            filled: 0,
            files: Vec::with_capacity(BATCH_FILES),
        })
    }

    /// Writes a file of `size` bytes, which `read` fills piece by piece.
    pub fn file(
        &mut self,
        target: Target,
        executable: bool,
        size: u64,
        mut read: impl FnMut(&mut [u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if size > (PIECE / 2) as u64 {
            return self.large(target, executable, size, read);
        }
        let size = size as usize;
        if self.filled + size > PIECE || self.files.len() == BATCH_FILES {
            self.flush()?;
        }
        if self.data.is_empty() {
            self.data = self.buffer();
        }
        let data = self.filled..self.filled + size;
        if size > 0 {
            read(&mut self.data[data.clone()])?;
        }
        self.filled += size;
        self.files.push(Small {
            target,
            executable,
            data,
        });
        Ok(())
    }

    fn large(
        &mut self,
        target: Target,
        executable: bool,
        size: u64,
        mut read: impl FnMut(&mut [u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        // Neither waits for the other, so each can always be sent the next piece.
        let (writes, hashes) = (self.next_turn(), self.next_turn());
        let id = target.id;
        self.send(writes, Job::Begin { target, executable })?;
        let mut left = size;
        while left > 0 {
            let mut buffer = self.buffer();
            let len = left.min(PIECE as u64) as usize;
            read(&mut buffer[..len])?;
            left -= len as u64;
            let piece = Arc::new(Piece { buffer, len });
            self.send(writes, Job::Write(Arc::clone(&piece)))?;
            self.send(hashes, Job::Hash(piece))?;
        }
        self.send(writes, Job::Written)?;
        self.send(hashes, Job::Hashed(id))
    }

    /// A buffer of [`PIECE`] bytes, with whatever was in it before.
    fn buffer(&self) -> Vec<u8> {
        self.free.try_recv().unwrap_or_else(|_| vec![0; PIECE])
    }

    fn send(&self, turn: usize, job: Job) -> Result<(), Failure> {
        let sent = self.threads[turn].jobs.send(job);
        sent.map_err(|_| Failure::Stopped)
    }

    fn next_turn(&mut self) -> usize {
        self.turn = (self.turn + 1) % self.threads.len();
        self.turn
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.files.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.data);
        self.filled = 0;
        let files = std::mem::replace(&mut self.files, Vec::with_capacity(BATCH_FILES));
        let turn = self.next_turn();
        self.send(turn, Job::Batch(data, files))
    }

    /// Writes what is left, waits for all threads, and gives the digests.
    pub fn finish(mut self) -> Result<Digests, Failure> {
        // If a thread has stopped, its own failure is what join() returns.
        _ = self.flush();
        let mut digests = Vec::new();
        let mut failed = None;
        for Thread { jobs, handle } in self.threads {
            drop(jobs);
            match handle.join() {
                Ok(Ok(written)) => digests.extend(written),
                Ok(Err(failure)) => failed = failed.or(Some(failure)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok(digests),
        }
    }
}

fn work(queue: &Receiver<Job>, give_back: &SyncSender<Vec<u8>>) -> Result<Digests, Failure> {
    let mut digests = Vec::new();
    let mut open: Option<(Target, File)> = None;
    let mut hash = Sha256::new();
    // Whoever is done with a piece last gives its buffer back.
    let done = |piece| {
        if let Some(Piece { buffer, .. }) = Arc::into_inner(piece) {
            _ = give_back.try_send(buffer);
        }
    };
    for job in queue {
        match job {
            Job::Batch(data, files) => {
                for small in files {
                    let (bytes, target) = (&data[small.data], small.target);
                    let mut file = create(&target, small.executable)?;
                    file.write_all(bytes)
                        .map_err(|error| cannot(&target, error))?;
                    digests.push((target.id, Sha256Digest(Sha256::digest(bytes).into())));
                }
                // Nobody takes it any more when the last one has come.
                _ = give_back.try_send(data);
            }
            Job::Begin { target, executable } => {
                let file = create(&target, executable)?;
                open = Some((target, file));
            }
            Job::Write(piece) => {
                if let Some((target, file)) = &mut open {
                    file.write_all(piece.bytes())
                        .map_err(|error| cannot(target, error))?;
                }
                done(piece);
            }
            Job::Written => open = None,
            Job::Hash(piece) => {
                hash.update(piece.bytes());
                done(piece);
            }
            Job::Hashed(id) => {
                digests.push((id, Sha256Digest(hash.finalize_reset().into())));
            }
        }
    }
    Ok(digests)
}

/// Makes the file. Its mode is one of two; the mask is 022 in this process.
fn create(target: &Target, executable: bool) -> Result<File, Failure> {
    let mode = if executable { 0o755 } else { 0o644 };
    let name = Name::new(&target.name).ok_or(Failure::from(Rule::NameEmpty))?;
    match target.folder.create_new(name, mode) {
        Ok(file) => Ok(file),
        // The tree knows of no such name, but the file system takes another
        // name for the same: one that ignores case or normalises.
        Err(Errno::EEXIST) => Err(Failure::from(Rule::Duplicate).at(&target.name)),
        Err(errno) => Err(cannot(target, errno)),
    }
}

fn cannot(target: &Target, error: impl Into<std::io::Error>) -> Failure {
    let name = crate::escape::line(&target.name);
    Failure::Io(Error::io(format!("cannot write '{name}'"), error))
}
