//! Threads that hash files.
//!
//! A process enters its sandbox between [`Pool::start`] and the first file. So `start`
//! starts every thread and waits until each one runs our code. Afterwards the pool makes
//! no system call but read(2), close(2), futex(2) and those of memory, and those that end
//! a thread.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::Outcome;
use super::file::{Job, Observer};
use super::lanes::Hasher;
use crate::error::{self, Error, Result};
use crate::threads;

/// From this size on, in bytes, the order of the files decides how long the last thread
/// takes.
const LARGE: u64 = 256 * 1024;

/// The maximum number of small files that a thread takes at once, and that wait in the
/// thread of the caller: a lock for each would cost as much as its content.
const BATCH: usize = 32;

/// The maximum number of files that are open: half of the descriptors that a process of
/// ours may have. More than [`BATCH`], so that a thread has work whenever
/// [`Pool::submit`] waits.
const MAX_OPEN: usize = 512;

/// The maximum number of open files without threads.
const MAX_OPEN_ALONE: usize = 256;

type Done<T> = dyn Fn(T, Outcome) + Send + Sync;
type Read = dyn Fn(u64) + Send + Sync;

/// Hashes files on threads of its own. If it is dropped before [`Pool::finish`], the
/// threads end soon, and some files get no outcome.
pub struct Pool<T: Send + 'static> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
    /// Files that are not in the queue yet: small ones, or without threads all.
    waiting: Vec<Job<T>>,
    /// Used if there are no threads.
    hasher: Hasher<T>,
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
    read: Box<Read>,
}

struct Queue<T> {
    small: Vec<Job<T>>,
    /// Sorted by size, the largest last.
    large: Vec<Job<T>>,
    /// The number of files that are open, also outside of the queue.
    open: usize,
    closed: bool,
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
                small: Vec::new(),
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
            waiting: Vec::new(),
            hasher: Hasher::new(),
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
        let job = Job { file, size, tag };
        if self.threads.is_empty() {
            self.waiting.push(job);
            if self.waiting.len() == MAX_OPEN_ALONE {
                self.hash_waiting();
            }
            return;
        }
        self.shared.wait_for_space();
        if size >= LARGE {
            return self.shared.push([job]);
        }
        self.waiting.push(job);
        if self.waiting.len() == BATCH {
            self.shared.push(self.waiting.drain(..));
        }
    }

    /// Waits until every file has its outcome.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`](crate::error::Code::Internal) if `done` panicked; then some files
    /// got no outcome.
    pub fn finish(mut self) -> Result<()> {
        if self.threads.is_empty() {
            self.hash_waiting();
            return Ok(());
        }
        self.shared.push(self.waiting.drain(..));
        self.shared.close();
        // Terminates: a thread returns when the closed queue is empty.
        if self.join() {
            Ok(())
        } else {
            Err(error::bug())
        }
    }

    /// Hashes in this thread, the largest files first.
    fn hash_waiting(&mut self) {
        let waiting = &mut self.waiting;
        waiting.sort_by_key(|job| job.size);
        self.hasher.run(|| waiting.pop(), &*self.shared);
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

    /// Counts one more open file, once there may be one.
    ///
    /// Terminates: each file in the queue is closed by a thread, and a thread that panics
    /// stops the pool.
    fn wait_for_space(&self) {
        let full = |queue: &mut Queue<T>| queue.open >= MAX_OPEN && !self.is_stopped();
        let queue = self.space.wait_while(self.lock(), full);
        queue.unwrap_or_else(PoisonError::into_inner).open += 1;
    }

    fn push(&self, jobs: impl IntoIterator<Item = Job<T>>) {
        let mut queue = self.lock();
        for job in jobs {
            // In a stopped pool no thread closes the file.
            if self.is_stopped() {
                drop(job);
            } else if job.size < LARGE {
                queue.small.push(job);
            } else {
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
        queue.small.clear();
        queue.large.clear();
        drop(queue);
        self.work.notify_all();
        self.space.notify_all();
    }

    fn run_thread(&self) {
        let _stop_on_panic = StopOnPanic(self);
        let mut hasher = Hasher::new();
        let mut taken = Vec::new();
        while self.wait_for_work() {
            let next = || {
                if taken.is_empty() {
                    self.lock().take(&mut taken);
                }
                taken.pop()
            };
            hasher.run(next, self);
        }
    }

    /// Waits until the queue has work. Returns whether it has, or there will be no more.
    fn wait_for_work(&self) -> bool {
        let idle = |queue: &mut Queue<T>| queue.is_empty() && !queue.closed && !self.is_stopped();
        let queue = self.work.wait_while(self.lock(), idle);
        !queue.unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl<T> Queue<T> {
    fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Takes the largest file, or some small ones. Otherwise a large one may begin when
    /// the other threads have finished.
    fn take(&mut self, taken: &mut Vec<Job<T>>) {
        match self.large.pop() {
            Some(job) => taken.push(job),
            None => {
                let rest = self.small.len().saturating_sub(BATCH);
                taken.extend(self.small.drain(rest..));
            }
        }
    }
}

impl<T> Observer<T> for Shared<T> {
    fn read(&self, bytes: u64) {
        (self.read)(bytes);
    }

    fn finished(&self, job: Job<T>, outcome: Outcome) {
        let Job { file, tag, .. } = job;
        drop(file);
        let mut queue = self.lock();
        queue.open = queue.open.saturating_sub(1);
        let had_space = queue.open + 1 < MAX_OPEN;
        drop(queue);
        if !had_space {
            self.space.notify_one();
        }
        if !self.is_stopped() {
            (self.done)(tag, outcome);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
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
