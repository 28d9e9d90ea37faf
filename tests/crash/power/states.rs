//! The states in which a power failure can leave a disk.

use super::disk::Event;
use super::image::Image;

/// The unit that a disk writes whole, in bytes. btrfs needs that of its superblock.
const BLOCK: usize = 4096;

/// What the disk has after a power failure.
pub struct State {
    pub image: Image,
    /// Whether the client had its reply before.
    pub answered: bool,
    /// For messages: the number of flushes before, and which writes after the last one
    /// it has.
    pub what: String,
}

/// Returns the states at each flush, at the reply and at the end: without the writes
/// since the flush before, with all of them, and with `samples` seeded choices.
///
/// A disk may keep any of the writes since its last flush. It does not exchange two writes
/// of one block that the kernel sent one after the other, so a choice keeps their order.
pub fn states(base: &Image, events: &[Event], samples: usize, seed: u64) -> Vec<State> {
    let mut random = Random(seed);
    let mut durable = base.clone();
    let mut since: Vec<(u64, &[u8])> = Vec::new();
    let (mut flushes, mut answered) = (0, false);
    let mut found = Vec::new();
    for event in events.iter().chain([&Event::Flush]) {
        if let Event::Write { offset, bytes } = event {
            since.push((*offset, bytes));
            continue;
        }
        // Two flushes without a write between them have the same states.
        let mut add = |image, kept: &str| {
            found.push(State {
                image,
                answered,
                what: format!(
                    "after {flushes} flushes{}, {kept} of {} writes",
                    if answered { " and the reply" } else { "" },
                    since.len()
                ),
            });
        };
        if flushes == 0 || answered || !since.is_empty() {
            add(durable.clone(), "none");
        }
        if since.len() > 1 {
            for _ in 0..samples {
                let (image, kept) = choose(&durable, &since, &mut random);
                add(image, &kept);
            }
        }
        let mut all = durable.clone();
        for (offset, bytes) in &since {
            all.write(*offset, bytes);
        }
        if !since.is_empty() {
            add(all.clone(), "all");
        }
        match event {
            Event::Answered => answered = true,
            _ => {
                durable = all;
                since.clear();
                flushes += 1;
            }
        }
    }
    found
}

/// Applies a part of the writes; the last blocks of some of them are missing.
fn choose(durable: &Image, writes: &[(u64, &[u8])], random: &mut Random) -> (Image, String) {
    let mut image = durable.clone();
    let share = 1 + random.below(7);
    let mut kept = String::new();
    for (offset, bytes) in writes {
        if random.below(8) >= share {
            kept.push('-');
            continue;
        }
        let blocks = (bytes.len() / BLOCK) as u64;
        let torn = blocks > 1 && random.below(8) == 0;
        let len = if torn {
            (1 + random.below(blocks - 1)) as usize * BLOCK
        } else {
            bytes.len()
        };
        image.write(*offset, &bytes[..len]);
        kept.push(if torn { '/' } else { '+' });
    }
    (image, kept)
}

/// SplitMix64: the choices are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
