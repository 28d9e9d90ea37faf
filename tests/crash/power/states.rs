//! The states in which a power failure can leave a disk.

use std::fmt;
use std::rc::Rc;

use super::disk::Event;
use super::image::Image;

/// The unit that a disk writes whole, in bytes. btrfs needs that of its superblock.
const BLOCK: usize = 4096;

/// What the disk has after a power failure.
pub struct State<'a> {
    /// What it had at its last flush.
    durable: Rc<Image>,
    /// The writes since then, and what it kept of each.
    writes: Rc<Vec<Write<'a>>>,
    kept: Vec<Kept>,
    /// Whether the client had its reply before.
    pub answered: bool,
    /// The number of flushes before.
    flushes: usize,
}

impl State<'_> {
    /// Makes the content of the disk. The images of all states at once would be so much memory
    /// that each start of a program, which copies its page tables, would take most of the time.
    pub fn image(&self) -> Image {
        apply(&self.durable, &self.writes, &self.kept)
    }
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reply = if self.answered { " and the reply" } else { "" };
        write!(f, "after {} flushes{reply}, writes ", self.flushes)?;
        self.kept.iter().try_for_each(|kept| write!(f, "{kept}"))
    }
}

/// Returns the states at each flush, at the reply and at the end: without the writes
/// since the flush before, with all of them, and with up to `samples` seeded choices, each
/// once.
///
/// A disk may keep any of the writes since its last flush, and any blocks of one write. It
/// does not exchange two writes of one block that the kernel sent one after the other, so a
/// choice keeps their order.
pub fn states<'a>(base: &Image, events: &'a [Event], samples: usize, seed: u64) -> Vec<State<'a>> {
    let mut random = Random(seed);
    let mut durable = Rc::new(base.clone());
    let mut since: Vec<Write> = Vec::new();
    let (mut flushes, mut answered) = (0, false);
    let mut found = Vec::new();
    for event in events.iter().chain([&Event::Flush]) {
        if let Event::Write { offset, bytes } = event {
            since.push((*offset, bytes));
            continue;
        }
        let all = vec![Kept::All; since.len()];
        let mut choices = vec![vec![Kept::Nothing; since.len()], all.clone()];
        // Few writes have fewer choices than samples.
        for _ in 0..8 * samples {
            let choice = choose(&since, &mut random);
            if choices.len() < samples + 2 && !choices.contains(&choice) {
                choices.push(choice);
            }
        }
        // Two flushes without a write between them have the same states.
        choices.dedup();
        if since.is_empty() && flushes > 0 && !answered {
            choices.clear();
        }
        let writes = Rc::new(since.clone());
        found.extend(choices.into_iter().map(|kept| State {
            durable: Rc::clone(&durable),
            writes: Rc::clone(&writes),
            kept,
            answered,
            flushes,
        }));
        match event {
            Event::Answered => answered = true,
            _ => {
                durable = Rc::new(apply(&durable, &since, &all));
                since.clear();
                flushes += 1;
            }
        }
    }
    found
}

type Write<'a> = (u64, &'a [u8]);

/// What a disk keeps of a write.
#[derive(Clone, PartialEq)]
enum Kept {
    Nothing,
    All,
    /// Some of its blocks.
    Blocks(Vec<bool>),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |is_kept: bool| if is_kept { '+' } else { '-' };
        match self {
            Kept::Nothing => write!(f, "{}", sign(false)),
            Kept::All => write!(f, "{}", sign(true)),
            Kept::Blocks(blocks) => {
                let signs: String = blocks.iter().copied().map(sign).collect();
                write!(f, "({signs})")
            }
        }
    }
}

/// Chooses what is kept of each write: a share that differs from choice to choice. Of some
/// writes the last blocks are missing, or any blocks.
fn choose(writes: &[Write], random: &mut Random) -> Vec<Kept> {
    let share = 1 + random.below(7);
    let mut choose_one = |&(_, bytes): &Write| {
        let blocks = bytes.len().div_ceil(BLOCK) as u64;
        let is_kept = random.below(8) < share;
        if blocks > 1 && random.below(4) == 0 {
            let first = 1 + random.below(blocks - 1);
            let is_prefix = random.below(2) == 0;
            let mut keep = |block| {
                if is_prefix {
                    block < first
                } else {
                    random.below(8) < share
                }
            };
            let kept: Vec<bool> = (0..blocks).map(&mut keep).collect();
            if kept.contains(&true) && kept.contains(&false) {
                return Kept::Blocks(kept);
            }
        }
        if is_kept { Kept::All } else { Kept::Nothing }
    };
    writes.iter().map(&mut choose_one).collect()
}

fn apply(durable: &Image, writes: &[Write], choice: &[Kept]) -> Image {
    let mut image = durable.clone();
    for ((offset, bytes), kept) in writes.iter().zip(choice) {
        for (number, block) in bytes.chunks(BLOCK).enumerate() {
            let is_kept = match kept {
                Kept::Nothing => false,
                Kept::All => true,
                Kept::Blocks(blocks) => blocks[number],
            };
            if is_kept {
                image.write(offset + (number * BLOCK) as u64, block);
            }
        }
    }
    image
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
