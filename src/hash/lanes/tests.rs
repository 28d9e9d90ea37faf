use super::*;
use crate::hash::kernel::tests::levels;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};

#[derive(Default)]
struct Outcomes {
    finished: RefCell<BTreeMap<usize, Outcome>>,
    bytes: Cell<u64>,
}

impl Observer<usize> for Outcomes {
    fn read(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn finished(&self, job: Job<usize>, outcome: Outcome) {
        let before = self.finished.borrow_mut().insert(job.tag, outcome);
        assert!(before.is_none(), "file {} has two outcomes", job.tag);
    }

    fn is_stopped(&self) -> bool {
        false
    }
}

fn content(len: usize, seed: usize) -> Vec<u8> {
    let byte = |at: usize| (at * 31 + (at >> 8) * 7 + seed * 97) as u8;
    (0..len).map(byte).collect()
}

fn job(tag: usize, content: &[u8], size: u64) -> Job<usize> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    Job { file, size, tag }
}

/// Hashes files of these lengths in `lanes`, and compares every digest with sha2.
fn check(lanes: &mut Lanes<usize>, lens: &[usize]) {
    let contents: Vec<Vec<u8>> = (lens.iter().enumerate())
        .map(|(seed, len)| content(*len, seed))
        .collect();
    let mut jobs =
        (contents.iter().enumerate()).map(|(tag, content)| job(tag, content, content.len() as u64));
    let outcomes = Outcomes::default();
    lanes.run(|| jobs.next(), &outcomes);
    assert_eq!(outcomes.bytes.get(), lens.iter().sum::<usize>() as u64);
    let finished = outcomes.finished.into_inner();
    assert_eq!(finished.len(), lens.len());
    for (content, (tag, outcome)) in contents.iter().zip(finished) {
        let expected = Sha256Digest(Sha256::digest(content).into());
        let found = outcome.unwrap();
        assert!(
            found == Some(expected),
            "{:?}: file {tag} of {lens:?}",
            lanes.level
        );
    }
}

#[test]
fn files_of_every_length_have_the_digest_of_their_content() {
    for level in levels() {
        let mut lanes = Lanes::new(level);
        check(&mut lanes, &[]);
        check(&mut lanes, &[0]);
        check(&mut lanes, &[0; 20]);
        // Every number of lanes, and every place of a long file among short ones.
        for number in 1..=LANES + 1 {
            check(&mut lanes, &vec![130; number]);
            let mut lens = vec![1; number];
            for at in 0..number {
                lens[at] = 1000;
                check(&mut lanes, &lens);
                lens[at] = 1;
            }
        }
        let lens: Vec<usize> = (0..300).collect();
        check(&mut lanes, &lens);
    }
}

#[test]
fn files_longer_than_a_buffer_have_the_digest_of_their_content() {
    for level in levels() {
        let mut lanes = Lanes::new(level);
        let around = |at: usize| [at - 64, at - 9, at - 8, at - 1, at, at + 1, at + 64];
        check(&mut lanes, &around(READ));
        check(&mut lanes, &around(2 * READ));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn mixes_of_lengths_have_the_digests_of_their_contents(
        lens in proptest::collection::vec(prop_oneof![0..3usize, 0..5000usize], 0..40),
        level in 0..8usize,
    ) {
        let levels = levels();
        check(&mut Lanes::new(levels[level % levels.len()]), &lens);
    }
}

/// A lane of a file without a digest takes the next file, and harms no other lane.
#[test]
fn files_of_another_size_and_unreadable_ones_leave_the_others_alone() {
    let good = content(3000, 0);
    let expected = Sha256Digest(Sha256::digest(&good).into());
    let mut lanes = Lanes::new(levels()[0]);
    let mut jobs = Vec::new();
    for round in 0..10 {
        let tag = 5 * round;
        jobs.push(job(tag, &good, 3000));
        jobs.push(job(tag + 1, &good, 2999));
        jobs.push(job(tag + 2, &good, 3001));
        jobs.push(job(tag + 3, &content(READ + 10, 0), READ as u64 + 9));
        let directory = std::fs::File::open("/").unwrap();
        jobs.push(Job {
            file: directory,
            size: 10,
            tag: tag + 4,
        });
    }
    let number = jobs.len();
    let outcomes = Outcomes::default();
    lanes.run(|| jobs.pop(), &outcomes);
    let finished = outcomes.finished.into_inner();
    assert_eq!(finished.len(), number);
    for (tag, outcome) in finished {
        match (tag % 5, outcome) {
            (0, Ok(Some(found))) => assert_eq!(found, expected),
            (1..=3, Ok(None)) | (4, Err(_)) => {}
            (_, outcome) => panic!("file {tag} has the outcome {outcome:?}"),
        }
    }
}

/// Both kinds of hasher: the processor that runs the tests has the one or the other.
#[test]
fn a_hasher_hashes_every_file_in_lanes_or_as_streams() {
    let with_lanes = |lanes| Hasher {
        buffer: Buffer::default(),
        lanes,
    };
    for number in [0, 1, 2, 3, 4, 30] {
        for mut hasher in [
            with_lanes(None),
            with_lanes(Some(Lanes::new(levels()[0]))),
            Hasher::new(),
        ] {
            let contents: Vec<Vec<u8>> = (0..number).map(|seed| content(500, seed)).collect();
            let mut jobs: Vec<_> = (contents.iter().enumerate())
                .map(|(tag, content)| job(tag, content, 500))
                .collect();
            let outcomes = Outcomes::default();
            hasher.run(|| jobs.pop(), &outcomes);
            let finished = outcomes.finished.into_inner();
            assert_eq!(finished.len(), number);
            for (content, outcome) in contents.iter().zip(finished.into_values()) {
                let expected = Sha256Digest(Sha256::digest(content).into());
                assert_eq!(outcome.unwrap(), Some(expected));
            }
        }
    }
}
