//! SHA-256 of eight messages side by side (FIPS 180-4).
//!
//! Each round of SHA-256 needs the result of the one before, so a processor with vectors
//! gains nothing for one message. For eight messages every operation is one on a vector
//! of eight words, one word of each message.
//!
//! The code is that of the standard, with arrays of eight words instead of words.
//! fearless_simd compiles it once for each set of vector instructions, and the compiler
//! makes the vectors. The tests compare every such version with sha2.

use fearless_simd::{Level, Simd, dispatch};

/// The number of messages.
pub const LANES: usize = 8;

/// The length of a block, in bytes.
pub const BLOCK: usize = 64;

/// One word of each message.
type Words = [u32; LANES];

/// The hash values of the messages: word, then message.
#[derive(Clone)]
pub struct States([Words; 8]);

/// The initial hash value (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The constants of the rounds (FIPS 180-4, 4.2.2).
const ROUND: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// Returns the vector instructions with which the lanes are faster than one stream after
/// the other: those of AVX2. Vectors of four words are too short. A processor with the
/// AVX-512 that fearless_simd knows, of 2019 and later, has SHA instructions, which are as
/// fast.
pub fn fast_level() -> Option<Level> {
    #[cfg(target_arch = "x86_64")]
    let level = Level::new().as_avx2().map(Level::Avx2);
    #[cfg(not(target_arch = "x86_64"))]
    let level = None;
    level
}

impl States {
    /// Returns the initial hash value of every message.
    pub fn new() -> States {
        States(INITIAL.map(|word| [word; LANES]))
    }

    /// Begins a new message in `lane`.
    pub fn reset(&mut self, lane: usize) {
        for (words, initial) in self.0.iter_mut().zip(INITIAL) {
            words[lane] = initial;
        }
    }

    /// Adds the blocks of each message: as many as the shortest slice has.
    pub fn update(&mut self, level: Level, messages: [&[u8]; LANES]) {
        dispatch!(level, simd => update(simd, &mut self.0, messages));
    }

    /// Returns the hash value of the message in `lane`.
    pub fn digest(&self, lane: usize) -> [u8; 32] {
        let mut digest = [0; 32];
        for (bytes, words) in digest.as_chunks_mut().0.iter_mut().zip(&self.0) {
            *bytes = words[lane].to_be_bytes();
        }
        digest
    }
}

/// The vector instructions of `Simd` are those of the functions that are inlined here.
#[inline(always)]
fn update<S: Simd>(_: S, states: &mut [Words; 8], messages: [&[u8]; LANES]) {
    let blocks = messages.map(|message| message.as_chunks::<BLOCK>().0);
    let len = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
    // One length for all, so that no access in the loop needs a check.
    let blocks = blocks.map(|blocks| &blocks[..len]);
    for at in 0..len {
        compress(states, blocks.map(|blocks| &blocks[at]));
    }
}

/// FIPS 180-4, 6.2.2, for one block of each message.
#[inline(always)]
fn compress(states: &mut [Words; 8], blocks: [&[u8; BLOCK]; LANES]) {
    // The last 16 words of the message schedule.
    let mut w = [[0; LANES]; 16];
    let (first, second) = w.split_at_mut(8);
    first.copy_from_slice(&transposed(&blocks, 0));
    second.copy_from_slice(&transposed(&blocks, 32));
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *states;
    for t in 0..64 {
        let at = t % 16;
        if t >= 16 {
            let before = |distance: usize| w[(t - distance) % 16];
            let older = add(before(16), small_sigma::<7, 18, 3>(before(15)));
            let newer = add(before(7), small_sigma::<17, 19, 10>(before(2)));
            w[at] = add(older, newer);
        }
        let choice = each(|i| (e[i] & f[i]) ^ (!e[i] & g[i]));
        let majority = each(|i| (a[i] & b[i]) | (c[i] & (a[i] | b[i])));
        let wk = each(|i| w[at][i].wrapping_add(ROUND[t]));
        let t1 = add(add(h, big_sigma::<6, 11, 25>(e)), add(choice, wk));
        let t2 = add(big_sigma::<2, 13, 22>(a), majority);
        (h, g, f, e) = (g, f, e, add(d, t1));
        (d, c, b, a) = (c, b, a, add(t1, t2));
    }
    for (state, word) in states.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *state = add(*state, word);
    }
}

#[inline(always)]
fn each(word: impl Fn(usize) -> u32) -> Words {
    let mut words = [0; LANES];
    for (lane, of_lane) in words.iter_mut().enumerate() {
        *of_lane = word(lane);
    }
    words
}

#[inline(always)]
fn add(a: Words, b: Words) -> Words {
    each(|i| a[i].wrapping_add(b[i]))
}

#[inline(always)]
fn big_sigma<const X: u32, const Y: u32, const Z: u32>(a: Words) -> Words {
    each(|i| a[i].rotate_right(X) ^ a[i].rotate_right(Y) ^ a[i].rotate_right(Z))
}

#[inline(always)]
fn small_sigma<const X: u32, const Y: u32, const Z: u32>(a: Words) -> Words {
    each(|i| a[i].rotate_right(X) ^ a[i].rotate_right(Y) ^ a[i] >> Z)
}

/// Returns eight words of each block, from the byte `from` on: word, then message.
#[inline(always)]
fn transposed(blocks: &[&[u8; BLOCK]; LANES], from: usize) -> [Words; 8] {
    let mut rows = blocks.map(|block| {
        let words = block[from..from + 32].as_chunks().0;
        each(|i| u32::from_be_bytes(words[i]))
    });
    exchange::<1>(&mut rows);
    exchange::<2>(&mut rows);
    exchange::<4>(&mut rows);
    rows
}

/// Exchanges the bit `D` of the row number with that of the column number.
#[inline(always)]
fn exchange<const D: usize>(rows: &mut [Words; 8]) {
    for low in (0..8).filter(|row| row & D == 0) {
        let (a, b) = (rows[low], rows[low | D]);
        rows[low] = each(|i| if i & D == 0 { a[i] } else { b[i ^ D] });
        rows[low | D] = each(|i| if i & D == 0 { a[i ^ D] } else { b[i] });
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// Returns every set of vector instructions that this processor has.
    pub fn levels() -> Vec<Level> {
        let best = Level::new();
        #[cfg(target_arch = "x86_64")]
        let others = [
            best.as_avx512().map(Level::Avx512),
            best.as_avx2().map(Level::Avx2),
            best.as_sse4_2().map(Level::Sse4_2),
            best.as_sse2().map(Level::Sse2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let others = [Some(best)];
        others.into_iter().flatten().collect()
    }

    fn padded(message: &[u8]) -> Vec<u8> {
        let mut padded = message.to_vec();
        padded.push(0x80);
        padded.resize((message.len() + 9).next_multiple_of(BLOCK) - 8, 0);
        padded.extend((message.len() as u64 * 8).to_be_bytes());
        padded
    }

    #[test]
    fn every_version_returns_the_digests_of_sha2_for_all_lengths() {
        let content = |len: usize, lane: usize| -> Vec<u8> {
            let byte = |at: usize| (at * 31 + (at >> 8) * 7 + lane * 97 + len) as u8;
            (0..len).map(byte).collect()
        };
        let levels = levels();
        assert!(!levels.is_empty());
        for len in 0..1200 {
            let messages: [_; LANES] = std::array::from_fn(|lane| content(len, lane));
            let padded = messages.each_ref().map(|message| padded(message));
            for level in &levels {
                let mut states = States::new();
                states.update(*level, padded.each_ref().map(Vec::as_slice));
                for (lane, message) in messages.iter().enumerate() {
                    let expected: [u8; 32] = Sha256::digest(message).into();
                    assert!(
                        states.digest(lane) == expected,
                        "{level:?}, {len} bytes, lane {lane}"
                    );
                }
            }
        }
    }
}
