//! The SHA-256 of one message, by the fastest code for this processor.
//!
//! sha2 uses the SHA instructions of x86-64 where they exist. It has only portable code
//! for every other processor; there ring has assembly, of BoringSSL, that is almost twice
//! as fast, and uses the SHA instructions of aarch64.

use ring::digest::{Context, SHA256};
use sha2::{Digest, Sha256};

use crate::names::Sha256Digest;

/// The SHA-256 of one message.
#[derive(Clone)]
pub struct Stream(State);

#[derive(Clone)]
enum State {
    Sha2(Sha256),
    Ring(Context),
}

impl Stream {
    /// Returns the state before the first byte.
    pub fn new() -> Stream {
        let sha2 = cfg!(target_arch = "x86_64") && has_sha_instructions();
        Stream(if sha2 {
            State::Sha2(Sha256::new())
        } else {
            State::Ring(Context::new(&SHA256))
        })
    }

    /// Adds `data` to the message.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Sha2(state) => state.update(data),
            State::Ring(state) => state.update(data),
        }
    }

    /// Returns the digest of the message.
    pub fn finish(self) -> Sha256Digest {
        let mut digest = [0; 32];
        match self.0 {
            State::Sha2(state) => digest = state.finalize().into(),
            State::Ring(state) => digest.copy_from_slice(state.finish().as_ref()),
        }
        Sha256Digest(digest)
    }
}

impl Default for Stream {
    fn default() -> Stream {
        Stream::new()
    }
}

/// Returns the digest of a message that is in memory.
pub fn digest(message: &[u8]) -> Sha256Digest {
    let mut stream = Stream::new();
    stream.update(message);
    stream.finish()
}

/// Returns whether the processor has instructions for SHA-256. A benchmark builds with
/// `--cfg no_sha`, to measure on such a processor what others do.
pub fn has_sha_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1");
    #[cfg(target_arch = "aarch64")]
    let found = std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found = false;
    found && !cfg!(no_sha)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both kinds of state, each in pieces of every length up to three blocks.
    #[test]
    fn each_code_returns_the_digest_of_sha2() {
        let message: Vec<u8> = (0..4096u32).map(|at| ((at * 31) >> 3) as u8).collect();
        for len in 0..message.len() {
            let message = &message[..len];
            let expected = Sha256Digest(Sha256::digest(message).into());
            let states = [
                State::Sha2(Sha256::new()),
                State::Ring(Context::new(&SHA256)),
            ];
            for mut stream in states.map(Stream) {
                for piece in message.chunks(len % 192 + 1) {
                    stream.update(piece);
                }
                assert_eq!(stream.clone().finish(), expected, "{len} bytes");
                assert_eq!(stream.finish(), expected, "{len} bytes, after a clone");
            }
            assert_eq!(digest(message), expected);
        }
    }
}
