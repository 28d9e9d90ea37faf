//! Mutations of a tar archive.
//!
//! A random change of a byte breaks a checksum, and then the code after the first
//! check never runs. So most mutations correct the checksums afterwards, and some
//! mutations change whole entries.

use std::ops::Range;

const BLOCK: usize = 512;

/// Fields where a changed byte means something: offset and length.
const FIELDS: [(usize, usize); 11] = [
    (0, 100),
    (100, 8),
    (124, 12),
    (124, 12),
    (156, 1),
    (156, 1),
    (157, 100),
    (257, 8),
    (345, 155),
    (476, 12),
    (488, 12),
];

/// Values of such fields, and values that are almost valid.
const VALUES: [&[u8]; 30] = [
    b"\0",
    b"/",
    b".",
    b"..",
    b"../",
    b"./",
    b"a",
    b"a/b",
    b"a/../b",
    b"..\0",
    b" ",
    b"\n",
    b"\x80",
    b"\xff",
    b"\xc2\x85",
    b"00000000000\0",
    b"00000000001\0",
    b"00000000777\0",
    b"7",
    b"8",
    b"ustar\x0000",
    b"ustar  \0",
    b"01251xgLKS7",
    b"xgLK25",
    b"          7\0",
    b"      644",
    b"15302453116\0",
    b"15302453116\015302453116\0",
    b"a\0b",
    b"./a",
];

/// A small random generator (xorshift32): the seed alone determines a mutation.
struct Choice(u32);

impl Choice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % bound.max(1)
    }
}

/// Changes `data[..size]` as `seed` says, and returns the new size. `blind` is the
/// fuzzer's own mutation, which makes half of the changes.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    blind: impl FnOnce(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut choice = Choice(seed | 1);
    let size = match choice.below(8) {
        0..=2 => change_field(data, size, &mut choice),
        3 => copy_entry(data, size, max_size, &mut choice),
        4 => remove_entry(data, size, &mut choice),
        _ => blind(data, size, max_size),
    };
    if choice.below(16) != 0 {
        correct_checksums(&mut data[..size]);
    }
    size
}

/// Returns the ranges of the entries, a header with its data, as the sizes state
/// them.
fn entries(data: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + BLOCK <= data.len() {
        let header = &data[at..at + BLOCK];
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let size = header[124..136]
            .iter()
            .take_while(|byte| matches!(byte, b'0'..=b'7'))
            .fold(0_usize, |size, digit| size << 3 | usize::from(digit - b'0'));
        let end = at.saturating_add(BLOCK + size.next_multiple_of(BLOCK));
        found.push(at..end.min(data.len()));
        at = end;
    }
    found
}

/// Gives every header the right checksum.
pub fn correct_checksums(data: &mut [u8]) {
    for entry in entries(data) {
        let header = &mut data[entry.start..entry.start + BLOCK];
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Puts a value into a field of one header.
fn change_field(data: &mut [u8], size: usize, choice: &mut Choice) -> usize {
    let entries = entries(&data[..size]);
    if entries.is_empty() {
        return size;
    }
    let at = entries[choice.below(entries.len())].start;
    let (offset, len) = FIELDS[choice.below(FIELDS.len())];
    let value = VALUES[choice.below(VALUES.len())];
    // A field of one byte gets one byte of the value.
    let value = if len == 1 {
        let from = choice.below(value.len());
        &value[from..=from]
    } else {
        value
    };
    let skip = if choice.below(2) == 0 {
        0
    } else {
        choice.below(len)
    };
    let field = &mut data[at + offset + skip..at + offset + len];
    let len = value.len().min(field.len());
    field[..len].copy_from_slice(&value[..len]);
    size
}

/// Puts a copy of one entry before another.
fn copy_entry(data: &mut [u8], size: usize, max_size: usize, choice: &mut Choice) -> usize {
    let entries = entries(&data[..size]);
    if entries.is_empty() {
        return size;
    }
    let copy = data[entries[choice.below(entries.len())].clone()].to_vec();
    let to = entries[choice.below(entries.len())].start;
    let new = size + copy.len();
    if new > max_size.min(data.len()) {
        return size;
    }
    data.copy_within(to..size, to + copy.len());
    data[to..to + copy.len()].copy_from_slice(&copy);
    new
}

/// Removes one entry.
fn remove_entry(data: &mut [u8], size: usize, choice: &mut Choice) -> usize {
    let entries = entries(&data[..size]);
    if entries.is_empty() {
        return size;
    }
    let gone = entries[choice.below(entries.len())].clone();
    data.copy_within(gone.end..size, gone.start);
    size - gone.len()
}
