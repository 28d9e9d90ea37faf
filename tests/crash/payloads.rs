//! The payloads of the crash tests, and the requests that send them.

use std::sync::LazyLock;

use crate::archive::{Tar, zstd};
use crate::delta_payload;
use crate::signing::{Key, key};
use crate::site::sha256;

/// Returns the payload of `release`. No two are equal, and each has directories, a
/// symlink and an empty file. The one that is received under faults has a file in
/// several pieces too.
pub fn payload(release: &str) -> Vec<u8> {
    let mut tar = Tar::new().file("index.html", release);
    for number in 0..6 {
        tar = tar.file(format!("part {}/{number}", number % 2), release);
    }
    tar = tar.file("empty", "").symlink("latest", "index.html");
    if release == NEW {
        tar = tar.file("large", vec![b'n'; 700_000]);
    }
    zstd(&tar.end())
}

/// The base of the delta. A swap prunes it.
pub const BASE: &str = "a";

/// The payload of a delta, and the digest of the tree that it gives.
pub struct Delta {
    pub payload: Vec<u8>,
    pub tree: String,
}

/// The delta from [`BASE`] to [`NEW`]: it changes, adds and removes files, a directory and a
/// symlink, and leaves others as they are.
pub static DELTA: LazyLock<Delta> = LazyLock::new(|| {
    let base = [
        ("index.html", BASE),
        ("part 0/", ""),
        ("part 0/0", BASE),
        ("part 0/2", BASE),
        ("part 0/4", BASE),
        ("part 1/", ""),
        ("part 1/1", BASE),
        ("part 1/3", BASE),
        ("part 1/5", BASE),
        ("empty", ""),
        ("latest>", "index.html"),
    ];
    let large = NEW.repeat(100_000);
    let mut new = Vec::from(base);
    new.retain(|(name, _)| !["part 0/2", "latest>"].contains(name));
    new[0] = ("index.html", NEW);
    new.extend([
        ("large", large.as_str()),
        ("part 2/", ""),
        ("part 2/1", NEW),
        ("newest>", "large"),
    ]);
    Delta {
        payload: delta_payload::delta(&base, &new),
        tree: delta_payload::tree(&new),
    }
});

/// The release that is received under faults.
pub const NEW: &str = "new";

pub fn receive_command(release: &str) -> String {
    format!("receive {release} --sha256 {}", sha256(&payload(release)))
}

/// Returns the request whose payload is the delta.
pub fn receive_delta_command() -> String {
    let Delta { payload, tree } = &*DELTA;
    let digest = sha256(payload);
    format!("receive {NEW} --sha256 {digest} --tree {tree} --base {BASE}")
}

fn signer() -> Key {
    key("ed25519/payloads")
}

/// Returns the file of allowed signers for [`receive_signed_command`].
pub fn signers() -> String {
    format!("blog {}\n", signer().public)
}

/// Returns the request whose payload is signed, so that it is spooled.
pub fn receive_signed_command() -> String {
    let signature = signer().signature("blog", NEW, &payload(NEW));
    format!("{} --signature {signature}", receive_command(NEW))
}
