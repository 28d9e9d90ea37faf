use super::*;
use crate::hash::digest;
use crate::names::Sha256Digest;
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::sync::atomic::AtomicUsize;

/// The numbers of threads that the tests try.
const THREADS: [usize; 4] = [0, 1, 2, 16];

/// Tests that open [`MAX_OPEN`] files take turns: they are threads of one process, which
/// may have 1,024 descriptors open.
static MANY_FILES: Mutex<()> = Mutex::new(());

fn take_turns() -> std::sync::MutexGuard<'static, ()> {
    MANY_FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

type Outcomes = Arc<Mutex<BTreeMap<usize, Vec<Outcome>>>>;

/// Returns a place for outcomes, and a `done` that puts them there.
fn outcomes() -> (Outcomes, impl Fn(usize, Outcome) + Send + Sync + 'static) {
    let outcomes = Outcomes::default();
    let place = Arc::clone(&outcomes);
    let done = move |tag, outcome| {
        place.lock().unwrap().entry(tag).or_default().push(outcome);
    };
    (outcomes, done)
}

/// Returns the one outcome of each file, in the order of the tags.
fn only(outcomes: &Outcomes) -> Vec<Outcome> {
    let outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
    let only_one = |mut of_one: Vec<Outcome>| {
        assert_eq!(of_one.len(), 1, "`done` was not called once for each file");
        of_one.remove(0)
    };
    outcomes.into_values().map(only_one).collect()
}

fn content(len: usize, seed: usize) -> Vec<u8> {
    let byte = |at: usize| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(97)) as u8;
    (0..len).map(byte).collect()
}

/// Returns an open file without a name, at its start.
fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

/// Hashes files with these contents, and returns the digests.
fn hash_all(threads: usize, contents: &[Vec<u8>]) -> Vec<Option<Sha256Digest>> {
    let (outcomes, done) = outcomes();
    let mut pool = Pool::start(threads, done).unwrap();
    for (tag, content) in contents.iter().enumerate() {
        pool.submit(file(content), content.len() as u64, tag);
    }
    pool.finish().unwrap();
    only(&outcomes).into_iter().map(Result::unwrap).collect()
}

#[test]
fn files_of_every_size_have_the_digest_of_their_content() {
    let _turn = take_turns();
    let small = LARGE as usize;
    let sizes = [
        0,
        1,
        55,
        56,
        63,
        64,
        65,
        119,
        128,
        4095,
        4096,
        4097,
        small - 1,
        small,
        small + 1,
    ];
    let mut contents = sizes.map(|size| content(size, size)).to_vec();
    contents.push(content(3 * small + 7, 3));
    // More than one batch by the number of files.
    contents.extend((0..MAX_OPEN_ALONE + 10).map(|seed| content(seed % 200, seed)));
    // Enough large files for every lane.
    contents.extend((0..9).map(|seed| content(small + 1000 * seed, seed)));
    let expected: Vec<_> = contents.iter().map(|it| Some(digest(it))).collect();
    for threads in THREADS {
        assert!(
            hash_all(threads, &contents) == expected,
            "{threads} threads returned other digests"
        );
    }
}

#[test]
fn more_files_than_may_be_open_are_hashed() {
    let _turn = take_turns();
    let contents: Vec<_> = (0..3 * MAX_OPEN).map(|at| content(at % 7, at)).collect();
    let expected: Vec<_> = contents.iter().map(|it| Some(digest(it))).collect();
    for threads in THREADS {
        assert!(
            hash_all(threads, &contents) == expected,
            "{threads} threads"
        );
    }
}

#[test]
fn at_most_the_maximum_number_of_files_is_open() {
    let _turn = take_turns();
    let (submitted, finished) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let total = 3 * MAX_OPEN;
    let counter = Arc::clone(&submitted);
    let mut pool = Pool::start(2, move |(), _| {
        let before = finished.load(Ordering::SeqCst);
        // Terminates: `before` files are closed, so as many more may be open.
        while counter.load(Ordering::SeqCst) < total.min(before + MAX_OPEN) {
            std::thread::yield_now();
        }
        // Each of the two threads has closed one more.
        let now = counter.load(Ordering::SeqCst);
        let limit = finished.load(Ordering::SeqCst) + 2 + MAX_OPEN;
        assert!(now <= limit, "too many files are open");
        finished.fetch_add(1, Ordering::SeqCst);
    })
    .unwrap();
    let empty = tempfile::NamedTempFile::new().unwrap();
    for _ in 0..total {
        pool.submit(File::open(&empty).unwrap(), LARGE + 1, ());
        submitted.fetch_add(1, Ordering::SeqCst);
    }
    pool.finish().unwrap();
}

#[test]
fn a_file_of_another_size_has_no_digest() {
    let small = LARGE as usize;
    for threads in THREADS {
        let (outcomes, done) = outcomes();
        let mut pool = Pool::start(threads, done).unwrap();
        let cases = [
            (0, 1),
            (1, 0),
            (10, 9),
            (9, 10),
            (small + 1, small),
            (small, small + 1),
            (3 * small, 2 * small),
            (2 * small, 3 * small),
        ];
        for (tag, (len, stated)) in cases.into_iter().enumerate() {
            pool.submit(file(&content(len, 0)), stated as u64, tag);
        }
        // A good file beside them.
        pool.submit(file(b"abc"), 3, cases.len());
        pool.finish().unwrap();
        let mut found = only(&outcomes);
        assert_eq!(found.pop().unwrap().unwrap(), Some(digest(b"abc")));
        assert!(
            found.into_iter().all(|it| matches!(it, Ok(None))),
            "{threads}"
        );
    }
}

/// A thread that reads to the end of the file would never end here.
#[test]
fn a_growing_file_is_read_until_its_stated_size_and_no_further() {
    let size = 10 * LARGE;
    let mut growing = tempfile::NamedTempFile::new().unwrap();
    growing.write_all(&vec![1; size as usize]).unwrap();
    let opened = File::open(growing.path()).unwrap();
    let (outcomes, done) = outcomes();
    let read = Arc::new(AtomicUsize::new(0));
    let (bytes, grow) = (Arc::clone(&read), Mutex::new(growing));
    let mut pool = Pool::start_observed(1, done, move |some| {
        bytes.fetch_add(some as usize, Ordering::SeqCst);
        let more = vec![2; 2 * some as usize];
        grow.lock().unwrap().write_all(&more).unwrap();
    })
    .unwrap();
    pool.submit(opened, size, 0);
    pool.finish().unwrap();
    assert!(matches!(only(&outcomes)[..], [Ok(None)]));
    let read = read.load(Ordering::SeqCst) as u64;
    assert!(read <= size + LARGE, "{read} bytes of {size} were read");
}

#[test]
fn the_outcome_of_an_unreadable_file_is_the_error_of_read() {
    for threads in THREADS {
        for size in [0, 10, 10 * LARGE] {
            let (outcomes, done) = outcomes();
            let mut pool = Pool::start(threads, done).unwrap();
            // read(2) of a directory fails.
            pool.submit(File::open("/").unwrap(), size, 0);
            pool.submit(file(b"abc"), 3, 1);
            pool.finish().unwrap();
            let found = only(&outcomes);
            let error = found[0].as_ref().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::EISDIR));
            assert!(matches!(found[1], Ok(Some(_))));
        }
    }
}

#[test]
fn a_file_is_hashed_from_its_offset_on() {
    let (outcomes, done) = outcomes();
    let mut pool = Pool::start(1, done).unwrap();
    let mut opened = file(b"head, body");
    opened.seek(SeekFrom::Start(6)).unwrap();
    pool.submit(opened, 4, 0);
    pool.finish().unwrap();
    assert!(matches!(only(&outcomes)[..], [Ok(Some(found))] if found == digest(b"body")));
}

#[test]
fn the_observer_gets_every_byte() {
    for threads in THREADS {
        let (outcomes, done) = outcomes();
        let total = Arc::new(AtomicUsize::new(0));
        let sum = Arc::clone(&total);
        let observer = move |bytes| _ = sum.fetch_add(bytes as usize, Ordering::SeqCst);
        let mut pool = Pool::start_observed(threads, done, observer).unwrap();
        let sizes = [0, 1, 1000, 300 * 1024, 5 << 20];
        for (tag, size) in sizes.into_iter().enumerate() {
            pool.submit(file(&content(size, 0)), size as u64, tag);
        }
        pool.finish().unwrap();
        assert_eq!(total.load(Ordering::SeqCst), sizes.iter().sum::<usize>());
        assert_eq!(only(&outcomes).len(), sizes.len());
    }
}

#[test]
fn a_pool_without_files_finishes() {
    for threads in THREADS {
        let (outcomes, done) = outcomes();
        Pool::start(threads, done).unwrap().finish().unwrap();
        assert!(only(&outcomes).is_empty());
    }
}

#[test]
fn a_dropped_pool_ends_its_threads() {
    let (_, done) = outcomes();
    let mut pool = Pool::start(2, done).unwrap();
    let shared = Arc::downgrade(&pool.shared);
    for tag in 0..10 {
        pool.submit(file(&content(1 << 20, tag)), 1 << 20, tag);
    }
    drop(pool);
    assert!(shared.upgrade().is_none(), "a thread still runs");
}

#[test]
fn a_panic_in_done_is_an_error_of_finish_and_hangs_nobody() {
    let _turn = take_turns();
    for threads in [1, 2, 16] {
        let mut pool = Pool::start(threads, |(), _| panic!("a panic of a test")).unwrap();
        // More than may be open, so that `submit` would wait for the threads.
        for _ in 0..2 * MAX_OPEN {
            pool.submit(file(b""), 0, ());
        }
        for _ in 0..10 {
            pool.submit(file(&content(300 * 1024, 0)), 300 * 1024, ());
        }
        let error = pool.finish().unwrap_err();
        assert_eq!(error.code, crate::error::Code::Internal);
    }
}

#[test]
fn without_threads_a_panic_in_done_reaches_the_caller() {
    let mut pool = Pool::start(0, |(), _| panic!("a panic of a test")).unwrap();
    pool.submit(file(b"abc"), 3, ());
    let finish = std::panic::AssertUnwindSafe(|| pool.finish());
    assert!(std::panic::catch_unwind(finish).is_err());
}
