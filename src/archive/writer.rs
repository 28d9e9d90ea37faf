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
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use sha2::{Digest, Sha256};

use super::rule::{Failure, Rule};
use super::tree::Id;
use crate::dir::{Dir, Name};
use crate::error::Error;
use crate::manifest;
use crate::names::Sha256Digest;

/// A piece of a large file and the fill of a batch, in bytes.
const PIECE: usize = 512 * 1024;

/// Most files in a batch. Each may hold another folder's handle, and so
/// (queue + threads + 1) × this many are open at most: 624, of the 1,024 that
/// the unpacker may have.
const BATCH_FILES: usize = 48;

/// Jobs that wait, for whichever thread is free first.
const QUEUE: usize = 8;

/// Pieces that wait for each of the two threads of a large file.
const PIECES: usize = 4;

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
    /// A large file, written from its pieces.
    Write {
        target: Target,
        executable: bool,
        pieces: Receiver<Arc<Piece>>,
    },
    /// The same pieces, hashed by another thread meanwhile.
    Hash {
        id: Id,
        pieces: Receiver<Arc<Piece>>,
    },
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

/// What is to be done; none once a thread has stopped. One for all threads:
/// with one each, one could wait for work while another had too much.
type Queue = Mutex<Option<Receiver<Job>>>;

/// The threads, and the batch that is being filled.
pub struct Writers {
    threads: Vec<JoinHandle<Result<Digests, Failure>>>,
    jobs: SyncSender<Job>,
    /// Buffers that were written out. A new one costs more than to fill it: the
    /// kernel clears its pages first.
    free: Receiver<Vec<u8>>,
    /// The batch's, of which the first `filled` bytes are taken.
    data: Vec<u8>,
    filled: usize,
    files: Vec<Small>,
}

impl Writers {
    /// Starts threads, two at least: with one, a large file would wait for ever
    /// for somebody to hash what it writes.
    pub fn start(count: usize) -> Result<Writers, Failure> {
        let count = count.max(2);
        let cannot = |error| Failure::Io(Error::io("cannot start a thread", error));
        let (ready, stands) = sync_channel(count);
        // As many as go round while one large file is written. Several that wait
        // behind one another may have more, up to PIECES for each job; what has
        // no room here is freed.
        let (give_back, free) = sync_channel(QUEUE + 2 * PIECES + count + 1);
        let (jobs, queue) = sync_channel(QUEUE);
        let queue = Arc::new(Mutex::new(Some(queue)));
        let threads = (0..count)
            .map(|_| {
                let (ready, give_back) = (ready.clone(), give_back.clone());
                let queue = Arc::clone(&queue);
                std::thread::Builder::new().spawn(move || {
                    _ = ready.send(());
                    work(&queue, &give_back)
                })
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
            jobs,
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
        let (write, to_write) = sync_channel(PIECES);
        let (hash, to_hash) = sync_channel(PIECES);
        let id = target.id;
        self.send(Job::Write {
            target,
            executable,
            pieces: to_write,
        })?;
        self.send(Job::Hash {
            id,
            pieces: to_hash,
        })?;
        let mut left = size;
        while left > 0 {
            let mut buffer = self.buffer();
            let len = left.min(PIECE as u64) as usize;
            read(&mut buffer[..len])?;
            left -= len as u64;
            let piece = Arc::new(Piece { buffer, len });
            // Ends: what was queued before ends by itself, and there are two
            // threads at least, so that both jobs are taken.
            write
                .send(Arc::clone(&piece))
                .and_then(|()| hash.send(piece))
                .map_err(|_| Failure::Stopped)?;
        }
        Ok(())
    }

    /// A buffer of [`PIECE`] bytes, with whatever was in it before.
    fn buffer(&self) -> Vec<u8> {
        self.free.try_recv().unwrap_or_else(|_| vec![0; PIECE])
    }

    fn send(&self, job: Job) -> Result<(), Failure> {
        self.jobs.send(job).map_err(|_| Failure::Stopped)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.files.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.data);
        self.filled = 0;
        let files = std::mem::replace(&mut self.files, Vec::with_capacity(BATCH_FILES));
        self.send(Job::Batch(data, files))
    }

    /// Writes what is left, waits for all threads, and gives the digests.
    pub fn finish(mut self) -> Result<Digests, Failure> {
        // If a thread has stopped, its own failure is what join() returns.
        _ = self.flush();
        let mut digests = Vec::new();
        let mut failed = None;
        drop(self.jobs);
        for thread in self.threads {
            match thread.join() {
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

fn work(queue: &Queue, give_back: &SyncSender<Vec<u8>>) -> Result<Digests, Failure> {
    let _stop = Stop(queue);
    let mut digests = Vec::new();
    // Whoever is done with a piece last gives its buffer back.
    let done = |piece| {
        if let Some(Piece { buffer, .. }) = Arc::into_inner(piece) {
            _ = give_back.try_send(buffer);
        }
    };
    while let Some(job) = next(queue) {
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
            Job::Write {
                target,
                executable,
                pieces,
            } => {
                let mut file = create(&target, executable)?;
                for piece in pieces {
                    file.write_all(piece.bytes())
                        .map_err(|error| cannot(&target, error))?;
                    done(piece);
                }
            }
            Job::Hash { id, pieces } => {
                let mut hash = Sha256::new();
                for piece in pieces {
                    hash.update(piece.bytes());
                    done(piece);
                }
                digests.push((id, Sha256Digest(hash.finalize().into())));
            }
        }
    }
    Ok(digests)
}

/// The next job; none if there will be no more. Whoever waits here holds the
/// lock, and the others wait for it.
fn next(queue: &Queue) -> Option<Job> {
    lock(queue).as_ref()?.recv().ok()
}

fn lock(queue: &Queue) -> MutexGuard<'_, Option<Receiver<Job>>> {
    // What it holds is whole whatever panicked.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that stops, for whatever reason, ends the queue, and with it what
/// waits there: nobody may wait for a thread that will not come. It may wait for
/// the lock itself, until the next job comes or there will be no more.
struct Stop<'a>(&'a Queue);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
    }
}

/// Makes the file. Its mode is one of two; the mask is 022 in this process.
fn create(target: &Target, executable: bool) -> Result<File, Failure> {
    let mode = manifest::file_mode(executable);
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
    let name = crate::escape::escape(&target.name);
    Failure::Io(Error::io(format!("cannot write '{name}'"), error))
}
