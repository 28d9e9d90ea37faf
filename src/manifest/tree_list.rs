//! The tree list of a release: the lines of its manifest for what the client sent, sorted
//! by their bytes, each ended by a line feed.
//!
//! A client makes the same list of its own directory with `sort` in the C locale, and
//! names its SHA-256 digest as `--tree`. So the list has what a client knows: neither the
//! symlinks to shared paths nor the directories above them that only the site has.
//!
//! The order differs from that of the manifest, which has a directory before its content
//! and names by their bytes: `a`, `a/b`, `a-b` there, and `a`, `a-b`, `a/b` here.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::vis::{Vis, vis_len};
use super::{Entry, compare_paths};
use crate::hash;
use crate::names::Sha256Digest;

/// Returns the entries of the tree list in its order. `entries` and `added` are sorted as
/// a manifest sorts them; `added` are the paths of `entries` that the client did not send.
pub fn in_order<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    added: &[Vec<u8>],
) -> Vec<&'a Entry> {
    let is_sent = |entry: &&Entry| {
        let found = added.binary_search_by(|path| compare_paths(path, &entry.path));
        found.is_err()
    };
    let mut sent: Vec<_> = entries.into_iter().filter(is_sent).collect();
    // Not by keys that are made once: an escaped path has four times as many bytes.
    sent.sort_by(|one, other| compare_lines(&one.path, &other.path));
    sent
}

/// Compares two paths by the bytes of their lines. A space follows the path on a line, and
/// no byte of a path on a line is lower. So a path comes directly before those that it
/// begins.
pub fn compare_lines(one: &[u8], other: &[u8]) -> Ordering {
    on_line(one).cmp(&on_line(other))
}

/// Returns a path as a line has it, without `./`.
fn on_line(path: &[u8]) -> Cow<'_, [u8]> {
    if vis_len(path) == path.len() {
        return Cow::Borrowed(path);
    }
    Cow::Owned(Vis(path).to_string().into_bytes())
}

/// Returns the digest of the tree list, given its entries in its order.
pub fn digest<'a>(in_order: impl IntoIterator<Item = &'a Entry>) -> Sha256Digest {
    let mut hash = hash::Stream::new();
    for entry in in_order {
        hash.update(format!("{entry}\n").as_bytes());
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Kind;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn directory(path: &[u8]) -> Entry {
        Entry {
            path: path.to_vec(),
            kind: Kind::Dir,
        }
    }

    #[test]
    fn the_digest_is_that_of_the_lines_without_the_added_paths() {
        let paths = ["", "a", "a/b", "a b", "a-b"].map(str::as_bytes);
        let mut entries: Vec<_> = paths.into_iter().map(directory).collect();
        entries.sort_by(|one, other| compare_paths(&one.path, &other.path));
        let added = [b"a/b".to_vec()];
        let list = ". type=dir mode=0755\n./a type=dir mode=0755\n\
                    ./a-b type=dir mode=0755\n./a\\040b type=dir mode=0755\n";
        let expected = Sha256Digest(Sha256::digest(list).into());
        assert_eq!(digest(in_order(&entries, &added)), expected);
    }

    proptest! {
        /// `LC_ALL=C sort` of the lines gives the same order.
        #[test]
        fn the_order_is_that_of_the_bytes_of_the_lines(
            paths in prop::collection::btree_set(
                prop::collection::vec(prop::sample::select(&b"a/-. \\\xc3"[..]), 1..6), 0..12),
        ) {
            let mut entries: Vec<_> = paths.iter().map(|path| directory(path)).collect();
            entries.push(directory(b""));
            let mut lines: Vec<_> = entries.iter().map(Entry::to_string).collect();
            lines.sort();
            let ordered = in_order(&entries, &[]);
            let ordered: Vec<_> = ordered.iter().map(ToString::to_string).collect();
            prop_assert_eq!(ordered, lines);
        }
    }
}
