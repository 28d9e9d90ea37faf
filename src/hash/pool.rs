//! Threads that hash files.
//!
//! A process enters its sandbox between [`Pool::start`] and the first file. So `start`
//! starts every thread and waits until each one runs our code. Afterwards the pool makes
//! no system call but read(2), close(2), futex(2) and those of memory, and those that end
//! a thread.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::Outcome;
use super::batch::{Buffer, Job, hash_large, hash_small};
use crate::error::{self, Error, Result};
use crate::threads;

/// The largest size of a file that is read whole and hashed in a batch, in bytes.
const SMALL: u64 = 256 * 1024;

/// The maximum number of files in a batch.
const BATCH_FILES: usize = 256;

/// The maximum number of bytes in a batch. Each thread has a buffer for one batch.
const BATCH_BYTES: u64 = 4 << 20;

/// The maximum number of files that are open: half of the descriptors that a process of
/// ours may have. More than [`BATCH_FILES`], so that a thread has work whenever
/// [`Pool::submit`] waits.
const MAX_OPEN: usize = 512;

type Done<T> = dyn Fn(T, Outcome) + Send + Sync;
type Observer = dyn Fn(u64) + Send + Sync;

/// Hashes files on threads of its own. If it is dropped before [`Pool::finish`], the
/// threads end soon, and some files get no outcome.
pub struct Pool<T: Send + 'static> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
    /// Small files that wait until a batch is full.
    batch: Vec<Job<T>>,
    /// The sum of their sizes.
    bytes: u64,
    /// Used if there are no threads.
    buffer: Buffer,
}

/// What the threads and the owner of the pool share.
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// The queue has work, or it is closed.
    work: Condvar,
    /// A file was closed, or the pool stopped.
    space: Condvar,
    /// The pool was dropped, or `done` panicked: no file is hashed any more.
    stopped: AtomicBool,
    done: Box<Done<T>>,
    read: Box<Observer>,
}

struct Queue<T> {
    batches: VecDeque<Vec<Job<T>>>,
    /// Sorted by size, the largest last.
    large: Vec<Job<T>>,
    /// The number of files that are open, also outside of the queue.
    open: usize,
    closed: bool,
}

enum Work<T> {
    Batch(Vec<Job<T>>),
    Large(Job<T>),
}

impl<T: Send + 'static> Pool<T> {
    /// Starts the threads. With 0, the pool hashes in [`Pool::submit`] and
    /// [`Pool::finish`]. Fewer threads than requested are enough.
    ///
    /// A thread calls `done` once for each file, in any order, and several threads call it
    /// at the same time.
    ///
    /// # Errors
    ///
    /// `IoError` if no thread can be started.
    pub fn start(
        threads: usize,
        done: impl Fn(T, Outcome) + Send + Sync + 'static,
    ) -> Result<Pool<T>> {
        Pool::start_observed(threads, done, |_| ())
    }

    /// Starts the threads, like [`Pool::start`]. The threads also call `read` with the
    /// number of bytes whenever they have hashed some.
    ///
    /// # Errors
    ///
    /// `IoError` if no thread can be started.
    pub fn start_observed(
        threads: usize,
        done: impl Fn(T, Outcome) + Send + Sync + 'static,
        read: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Pool<T>> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                batches: VecDeque::new(),
                large: Vec::new(),
                open: 0,
                closed: false,
            }),
            work: Condvar::new(),
            space: Condvar::new(),
            stopped: AtomicBool::new(false),
            done: Box::new(done),
            read: Box::new(read),
        });
        let (ready, started) = sync_channel(threads);
        let mut pool = Pool {
            shared,
            threads: Vec::with_capacity(threads),
            batch: Vec::new(),
            bytes: 0,
            buffer: Buffer::default(),
        };
        for _ in 0..threads {
            let (shared, ready) = (Arc::clone(&pool.shared), ready.clone());
            let spawned = threads::builder().spawn(move || {
                _ = ready.send(());
                shared.run_thread();
            });
            match spawned {
                Ok(thread) => pool.threads.push(thread),
                Err(error) if pool.threads.is_empty() => {
                    return Err(Error::io("cannot start a thread", error));
                }
                Err(_) => break,
            }
        }
        // Now every thread runs our code. None still makes the system calls that set up
        // a thread.
        for _ in &pool.threads {
            _ = started.recv();
        }
        Ok(pool)
    }

    /// Hashes `file` from its offset on, soon. Waits while too many files are open.
    pub fn submit(&mut self, file: File, size: u64, tag: T) {
        self.shared.wait_for_space();
        let job = Job { file, size, tag };
        if size > SMALL {
            return self.dispatch(Work::Large(job));
        }
        if self.batch.len() == BATCH_FILES || self.bytes + size > BATCH_BYTES {
            self.dispatch_batch();
        }
        self.bytes += size;
        self.batch.push(job);
    }

    /// Waits until every file has its outcome.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`](crate::error::Code::Internal) if `done` panicked; then some files
    /// got no outcome.
    pub fn finish(mut self) -> Result<()> {
        self.dispatch_batch();
        self.shared.close();
        // Terminates: a thread returns when the closed queue is empty.
        if self.join() {
            Ok(())
        } else {
            Err(error::bug())
        }
    }

    fn dispatch_batch(&mut self) {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.dispatch(Work::Batch(batch));
        }
    }

    fn dispatch(&mut self, work: Work<T>) {
        if self.threads.is_empty() {
            self.shared.run(work, &mut self.buffer);
        } else {
            self.shared.push(work);
        }
    }

    /// Waits for the threads. Returns whether none panicked.
    fn join(&mut self) -> bool {
        let joined = self.threads.drain(..).map(JoinHandle::join);
        joined.fold(true, |sound, joined| sound & joined.is_ok())
    }
}

impl<T: Send + 'static> Drop for Pool<T> {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.shared.stop();
            self.join();
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        // No code of a caller runs under the lock, so no queue is half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Counts one more open file, once there may be one.
    ///
    /// Terminates: each file in the queue is closed by a thread, and a thread that panics
    /// stops the pool.
    fn wait_for_space(&self) {
        let full = |queue: &mut Queue<T>| queue.open >= MAX_OPEN && !self.is_stopped();
        let queue = self.space.wait_while(self.lock(), full);
        queue.unwrap_or_else(PoisonError::into_inner).open += 1;
    }

    fn push(&self, work: Work<T>) {
        let mut queue = self.lock();
        match work {
            // Its files are closed here, so that none stays open without a thread.
            _ if self.is_stopped() => return,
            Work::Batch(batch) => queue.batches.push_back(batch),
            Work::Large(job) => {
                let at = queue.large.partition_point(|other| other.size < job.size);
                queue.large.insert(at, job);
            }
        }
        drop(queue);
        self.work.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    fn stop(&self) {
        let mut queue = self.lock();
        // Under the lock, so that no waiting thread misses it.
        self.stopped.store(true, Ordering::Relaxed);
        queue.batches.clear();
        queue.large.clear();
        drop(queue);
        self.work.notify_all();
        self.space.notify_all();
    }

    fn closed_files(&self, number: usize) {
        self.lock().open -= number;
        self.space.notify_all();
    }

    fn run_thread(&self) {
        let _stop_on_panic = StopOnPanic(self);
        let mut buffer = Buffer::default();
        while let Some(work) = self.next_work() {
            self.run(work, &mut buffer);
        }
    }

    /// Waits for work. Returns `None` when there will be no more.
    fn next_work(&self) -> Option<Work<T>> {
        let idle = |queue: &mut Queue<T>| {
            let has_work = !queue.large.is_empty() || !queue.batches.is_empty();
            !has_work && !queue.closed && !self.is_stopped()
        };
        let queue = self.work.wait_while(self.lock(), idle);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        // The largest first: otherwise it may begin when the other threads have finished.
        let large = queue.large.pop().map(Work::Large);
        large.or_else(|| queue.batches.pop_front().map(Work::Batch))
    }

    fn run(&self, work: Work<T>, buffer: &mut Buffer) {
        match work {
            Work::Batch(jobs) => {
                let number = jobs.len();
                let closed = || self.closed_files(number);
                hash_small(jobs, buffer, closed, |tag, len, outcome| {
                    (self.read)(len);
                    (self.done)(tag, outcome);
                });
            }
            Work::Large(job) => {
                let (tag, outcome) = hash_large(job, buffer, |len| {
                    (self.read)(len);
                    !self.is_stopped()
                });
                self.closed_files(1);
                if !self.is_stopped() {
                    (self.done)(tag, outcome);
                }
            }
        }
    }
}

/// Stops the pool if a thread panics: nobody waits for what that thread had to do.
struct StopOnPanic<'a, T>(&'a Shared<T>);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

#[cfg(test)]
mod tests;
