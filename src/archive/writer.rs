//! Writes files on several threads.
//!
//! Small files are sent in batches, so that a thread wakes for half a megabyte and
//! not for each file. A large file is sent to one thread in pieces. Queues are short and
//! buffers are reused. Their number limits the memory, whatever sizes the archive states.
//!
//! [`Writers::wait_until_written`] waits for all threads: a hard link copies a file
//! that they may still write.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;

use super::rule::{Rule, UnpackError};
use crate::dir::{self, Dir, Name};
use crate::error::Error;
use crate::manifest::file_mode;
use crate::threads;

/// The size of a piece of a large file, and of a batch, in bytes.
const PIECE: usize = 524_288;

/// The largest file that goes into a batch, in bytes.
const MAX_SMALL: u64 = 262_144;

/// The maximum number of files in a batch. Each file can hold the handle of another
/// directory, so at most (queue + threads + 1) times this many are open: 624 of the
/// 1,024 descriptors that the unpacker may have.
const BATCH_FILES: usize = 48;

/// The maximum number of jobs that wait for a free thread.
const QUEUE: usize = 8;

/// The maximum number of pieces that wait for the thread of a large file.
const PIECES: usize = 4;

/// The maximum number of free buffers: as many as are in use with four threads, one of which writes
/// a large file. Several large files in the queue can have more, up to `PIECES` for each job;
/// buffers that do not fit are freed.
const FREE: usize = 17;

/// The place of a file that a thread writes.
#[derive(Debug)]
pub struct Destination {
    pub dir: Arc<Dir>,
    pub name: Box<[u8]>,
    pub mtime: TimeSpec,
}

/// A whole file. Its data is a range of its batch's data.
struct SmallFile {
    destination: Destination,
    executable: bool,
    data: Range<usize>,
}

enum WriteJob {
    /// Whole files, with their data side by side.
    Batch(Vec<u8>, Vec<SmallFile>),
    /// A large file, to be written from its pieces.
    Write {
        destination: Destination,
        executable: bool,
        pieces: Receiver<Piece>,
    },
}

/// The first `len` bytes of `buffer`.
struct Piece {
    buffer: Vec<u8>,
    len: usize,
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// The jobs; none after a thread has stopped. All threads share one queue: with one
/// queue each, a thread could be idle while another has several jobs.
type Queue = Mutex<Option<Receiver<WriteJob>>>;

/// How far the threads are.
#[derive(Default)]
struct Progress {
    state: Mutex<ProgressState>,
    changed: Condvar,
}

#[derive(Default)]
struct ProgressState {
    /// Jobs that were sent and have not ended.
    unfinished: u64,
    /// Whether a thread has exited.
    stopped: bool,
}

impl Progress {
    fn update(&self, change: impl FnOnce(&mut ProgressState)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }
}

/// The threads, and the batch that is being filled.
pub struct Writers {
    threads: Vec<JoinHandle<Result<(), UnpackError>>>,
    jobs: SyncSender<WriteJob>,
    progress: Arc<Progress>,
    /// Buffers whose data has been written. A new buffer costs more than filling
    /// it: the kernel clears its pages first.
    free: Receiver<Vec<u8>>,
    /// The batch's data, of which the first `filled` bytes are in use.
    data: Vec<u8>,
    filled: usize,
    files: Vec<SmallFile>,
}

impl Writers {
    /// Starts the threads, at least one.
    ///
    /// # Errors
    ///
    /// Returns [`UnpackError::Io`] if a thread cannot be started.
    pub fn start(count: usize) -> Result<Writers, UnpackError> {
        let count = count.max(1);
        let start_error = |error| UnpackError::Io(Error::io("cannot start a thread", error));
        let (ready, started) = sync_channel(count);
        let (give_back, free) = sync_channel(FREE);
        let (jobs, queue) = sync_channel(QUEUE);
        let queue = Arc::new(Mutex::new(Some(queue)));
        let progress = Arc::new(Progress::default());
        let threads = (0..count)
            .map(|_| {
                let (ready, give_back) = (ready.clone(), give_back.clone());
                let (queue, progress) = (Arc::clone(&queue), Arc::clone(&progress));
                threads::builder().spawn(move || {
                    _ = ready.send(());
                    run_jobs(&queue, &progress, &give_back)
                })
            })
            .collect::<std::io::Result<_>>()
            .map_err(start_error)?;
        // Now every thread runs our code. None still makes the system calls that
        // set up a thread.
        for _ in 0..count {
            _ = started.recv();
        }
        Ok(Writers {
            threads,
            jobs,
            progress,
            free,
            data: Vec::new(),
            filled: 0,
            files: Vec::with_capacity(BATCH_FILES),
        })
    }

    /// Writes a file of `size` bytes. `read` fills the buffers that it gets.
    ///
    /// # Errors
    ///
    /// Returns the error of `read`, or [`UnpackError::WriterStopped`].
    pub fn write_file(
        &mut self,
        destination: Destination,
        executable: bool,
        size: u64,
        mut read: impl FnMut(&mut [u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        if size > MAX_SMALL {
            return self.write_large(destination, executable, size, read);
        }
        let size = size as usize;
        if self.filled + size > PIECE || self.files.len() == BATCH_FILES {
            self.flush()?;
        }
        if self.data.is_empty() {
            self.data = self.take_buffer();
        }
        let data = self.filled..self.filled + size;
        if size > 0 {
            read(&mut self.data[data.clone()])?;
        }
        self.filled += size;
        self.files.push(SmallFile {
            destination,
            executable,
            data,
        });
        Ok(())
    }

    fn write_large(
        &mut self,
        destination: Destination,
        executable: bool,
        size: u64,
        mut read: impl FnMut(&mut [u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        let (write, to_write) = sync_channel(PIECES);
        self.send(WriteJob::Write {
            destination,
            executable,
            pieces: to_write,
        })?;
        let mut left = size;
        while left > 0 {
            let mut buffer = self.take_buffer();
            let len = left.min(PIECE as u64) as usize;
            read(&mut buffer[..len])?;
            left -= len as u64;
            // Terminates: the jobs before this one end by themselves, so a thread takes it.
            write
                .send(Piece { buffer, len })
                .map_err(|_| UnpackError::WriterStopped)?;
        }
        Ok(())
    }

    /// Returns a buffer of [`PIECE`] bytes. It still has its old content.
    fn take_buffer(&self) -> Vec<u8> {
        self.free.try_recv().unwrap_or_else(|_| vec![0; PIECE])
    }

    /// Waits until every file so far is on disk with all of its content.
    ///
    /// # Errors
    ///
    /// Returns [`UnpackError::WriterStopped`].
    pub fn wait_until_written(&mut self) -> Result<(), UnpackError> {
        self.flush()?;
        let state = lock(&self.progress.state);
        // Terminates: a job ends by itself once all of its pieces were sent, and a
        // thread that exits before says so.
        let state = self
            .progress
            .changed
            .wait_while(state, |state| state.unfinished > 0 && !state.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return Err(UnpackError::WriterStopped);
        }
        Ok(())
    }

    fn send(&self, job: WriteJob) -> Result<(), UnpackError> {
        self.progress.update(|state| state.unfinished += 1);
        self.jobs.send(job).map_err(|_| UnpackError::WriterStopped)
    }

    fn flush(&mut self) -> Result<(), UnpackError> {
        if self.files.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.data);
        self.filled = 0;
        let files = std::mem::replace(&mut self.files, Vec::with_capacity(BATCH_FILES));
        self.send(WriteJob::Batch(data, files))
    }

    /// Writes the last batch, and waits for all threads.
    ///
    /// # Errors
    ///
    /// Returns the error of the first thread that stopped with one.
    pub fn finish(mut self) -> Result<(), UnpackError> {
        // If a thread has stopped, join() returns its own error.
        _ = self.flush();
        let mut first_error = None;
        drop(self.jobs);
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => first_error = first_error.or(Some(error)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// Runs jobs until there are no more.
fn run_jobs(
    queue: &Queue,
    progress: &Progress,
    give_back: &SyncSender<Vec<u8>>,
) -> Result<(), UnpackError> {
    let _close_on_exit = CloseQueue(queue, progress);
    while let Some(job) = next_job(queue) {
        match job {
            WriteJob::Batch(data, files) => {
                for small in files {
                    let (bytes, destination) = (&data[small.data], small.destination);
                    let mut file = create_file(&destination, small.executable)?;
                    file.write_all(bytes)
                        .map_err(|error| write_error(&destination, error))?;
                    set_time(&file, &destination)?;
                }
                // This fails after the last entry: nothing receives buffers then.
                _ = give_back.try_send(data);
            }
            WriteJob::Write {
                destination,
                executable,
                pieces,
            } => {
                let mut file = create_file(&destination, executable)?;
                for piece in pieces {
                    file.write_all(piece.bytes())
                        .map_err(|error| write_error(&destination, error))?;
                    _ = give_back.try_send(piece.buffer);
                }
                set_time(&file, &destination)?;
            }
        }
        progress.update(|state| state.unfinished -= 1);
    }
    Ok(())
}

/// Returns the next job; none if there will be no more. The thread that waits here
/// holds the lock, and the other threads wait for the lock.
fn next_job(queue: &Queue) -> Option<WriteJob> {
    lock(queue).as_ref()?.recv().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic cannot leave the content half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops the job queue when a thread exits for any reason, so that the sender fails
/// instead of waiting for a thread that no longer exists. The drop can wait for the
/// lock until the next job comes, or until there will be no more.
struct CloseQueue<'a>(&'a Queue, &'a Progress);

impl Drop for CloseQueue<'_> {
    fn drop(&mut self) {
        // First: the sender may wait for the progress, and would send no next job.
        self.1.update(|state| state.stopped = true);
        *lock(self.0) = None;
    }
}

/// Creates the file with one of its two modes. The umask of this process is 022.
fn create_file(destination: &Destination, executable: bool) -> Result<File, UnpackError> {
    let mode = file_mode(executable);
    let name = Name::new(&destination.name).ok_or(UnpackError::from(Rule::NameEmpty))?;
    match destination.dir.create_new(name, mode) {
        Ok(file) => Ok(file),
        // The tree has no such name, but the file system takes another name for the
        // same one: it ignores case, or it normalizes names.
        Err(Errno::EEXIST) => Err(UnpackError::from(Rule::Duplicate).at(&destination.name)),
        Err(errno) => Err(write_error(destination, errno)),
    }
}

/// Sets the time of a written file by its descriptor: the sandbox denies a time by path.
fn set_time(file: &File, destination: &Destination) -> Result<(), UnpackError> {
    dir::set_modified(file, destination.mtime).map_err(|errno| write_error(destination, errno))
}

fn write_error(destination: &Destination, error: impl Into<std::io::Error>) -> UnpackError {
    let name = crate::escape::escape(&destination.name);
    UnpackError::Io(Error::io(format!("cannot write '{name}'"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ in each file and at each place of a buffer.
    fn content(number: usize, size: usize) -> Vec<u8> {
        (0..size).map(|at| (at / 7 + number) as u8).collect()
    }

    #[test]
    fn files_of_every_size_have_their_content() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Arc::new(Dir::open_root(directory.path()).unwrap());
        let small = MAX_SMALL as usize;
        let mut sizes = vec![0, 1, small, small + 1, PIECE, PIECE + 1, 3 * PIECE, 7];
        sizes.extend([small - 1, small, small]);
        sizes.extend([9; 2 * BATCH_FILES + 1]);
        let mut writers = Writers::start(2).unwrap();
        for (number, size) in sizes.iter().enumerate() {
            let destination = Destination {
                dir: Arc::clone(&dir),
                name: number.to_string().into_bytes().into(),
                mtime: TimeSpec::new(number as i64, 0),
            };
            let bytes = content(number, *size);
            let mut rest = bytes.as_slice();
            let written =
                writers.write_file(destination, number % 2 == 1, *size as u64, |buffer| {
                    // No read is empty: a reader of a stream could take it for the end.
                    assert!(!buffer.is_empty());
                    let (now, later) = rest.split_at(buffer.len());
                    buffer.copy_from_slice(now);
                    rest = later;
                    Ok(())
                });
            written.unwrap();
            assert_eq!(rest, b"");
        }
        writers.wait_until_written().unwrap();
        for (number, size) in sizes.iter().enumerate() {
            let path = directory.path().join(number.to_string());
            assert!(
                std::fs::read(&path).unwrap() == content(number, *size),
                "{number}"
            );
            let metadata = path.metadata().unwrap();
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
            assert_eq!(mode & 0o100 != 0, number % 2 == 1);
            assert_eq!(
                std::os::unix::fs::MetadataExt::mtime(&metadata),
                number as i64
            );
        }
        writers.finish().unwrap();
    }

    #[test]
    fn nobody_waits_for_a_thread_that_has_stopped() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("there"), "").unwrap();
        let mut writers = Writers::start(2).unwrap();
        let destination = Destination {
            dir: Arc::new(Dir::open_root(directory.path()).unwrap()),
            name: b"there".as_slice().into(),
            mtime: TimeSpec::new(0, 0),
        };
        let nothing = |_: &mut [u8]| Ok(());
        writers
            .write_file(destination, false, 0, nothing)
            .expect("it waits for its batch");
        let waited = writers.wait_until_written();
        assert!(
            matches!(waited, Err(UnpackError::WriterStopped)),
            "{waited:?}"
        );
        let error = writers.finish().expect_err("the error of the thread");
        assert!(!matches!(error, UnpackError::WriterStopped), "{error:?}");
    }
}
