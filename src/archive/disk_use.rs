//! How much of the disk a release uses: an upper bound, counted before each entry is
//! created. An archive of 300 KB can have 100,000 files of one byte, which need 400 MB.
//!
//! File systems differ. This counts whole blocks for data, one for each directory, and
//! an inode for each entry, as those with the most overhead do (ext4, xfs). A file
//! system that keeps small files or symlinks in their inodes uses less.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use crate::manifest::{self, Entries, Kind};

/// The size of an inode on xfs, in bytes. ext4 has them in a table of its own.
const INODE: u64 = 512;

/// The length, in bytes, from which ext4 keeps a target outside of the inode of its
/// symlink.
const LONG_TARGET: usize = 60;

/// The size of an entry of a directory besides its name, in bytes (ext4: 8, padded to a
/// multiple of four).
const DIRECTORY_ENTRY: usize = 12;

/// The limits of a block's size, in bytes. A file system may report any number.
const BLOCK_SIZES: (u64, u64) = (512, 64 << 10);

/// The maximum disk use of a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskNeed {
    pub bytes: u64,
    pub inodes: u64,
}

impl DiskNeed {
    /// Returns the sum.
    pub fn plus(self, other: DiskNeed) -> DiskNeed {
        DiskNeed {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

/// Returns what the release of a manifest takes on a file system with blocks of this
/// size. The head of the manifest has been read. A manifest that is damaged counts up to
/// the damage.
pub fn disk_need(manifest: &mut impl BufRead, block: u64) -> DiskNeed {
    let mut entries = Entries::new(manifest);
    let mut disk_use = DiskUse::new(block);
    // The manifest.
    let mut inodes = 1;
    // Terminates: every turn consumes a line, and the manifest has an end.
    while let Ok(Some(entry)) = entries.next_entry() {
        inodes += 1;
        let path: Vec<&[u8]> = entry.path.split(|byte| *byte == b'/').collect();
        match &entry.kind {
            // Counted from the start.
            Kind::Dir if entry.path.is_empty() => {}
            Kind::Dir => disk_use.add_directory(&path),
            Kind::File { size, .. } => disk_use.add_file(&path, *size),
            Kind::Link { target } => disk_use.add_symlink(&path, target),
        }
    }
    DiskNeed {
        bytes: disk_use.bytes(),
        inodes,
    }
}

/// The disk use of the entries so far.
#[derive(Debug)]
pub struct DiskUse {
    block: u64,
    /// Bytes in whole blocks, and inodes.
    blocks: u64,
    /// Bytes that are written one after the other: names and lines of the manifest.
    text: u64,
}

impl DiskUse {
    /// Counts on a file system with blocks of this size, in bytes. The release's own
    /// directory is counted already.
    pub fn new(block: u64) -> DiskUse {
        let mut disk_use = DiskUse {
            block: block.clamp(BLOCK_SIZES.0, BLOCK_SIZES.1),
            blocks: 0,
            text: 0,
        };
        disk_use.add_directory(&[]);
        disk_use
    }

    /// Returns the bytes of all that was added.
    pub fn bytes(&self) -> u64 {
        self.blocks.saturating_add(self.whole_blocks(self.text))
    }

    pub fn add_file(&mut self, path: &[&[u8]], size: u64) {
        self.add_entry(path, b"");
        self.blocks = self.blocks.saturating_add(self.whole_blocks(size));
    }

    pub fn add_directory(&mut self, path: &[&[u8]]) {
        self.add_entry(path, b"");
        self.blocks = self.blocks.saturating_add(self.block);
    }

    pub fn add_symlink(&mut self, path: &[&[u8]], target: &[u8]) {
        self.add_entry(path, target);
        if target.len() >= LONG_TARGET {
            let target = self.whole_blocks(target.len() as u64);
            self.blocks = self.blocks.saturating_add(target);
        }
    }

    fn add_entry(&mut self, path: &[&[u8]], target: &[u8]) {
        self.blocks = self.blocks.saturating_add(INODE);
        // A large directory is a tree whose blocks are at least half full.
        let name = path.last().map_or(0, |name| name.len());
        let text = 2 * (name + DIRECTORY_ENTRY) + manifest::max_line_len(path, target);
        self.text = self.text.saturating_add(text as u64);
    }

    fn whole_blocks(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.block).saturating_mul(self.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 4096;

    fn bytes_of(add: impl FnOnce(&mut DiskUse)) -> u64 {
        let mut disk_use = DiskUse::new(BLOCK);
        let before = disk_use.blocks;
        add(&mut disk_use);
        disk_use.blocks - before
    }

    #[test]
    fn data_takes_whole_blocks() {
        for (size, blocks) in [(0, 0), (1, 1), (4096, 1), (4097, 2)] {
            let bytes = bytes_of(|it| it.add_file(&[b"f"], size));
            assert_eq!(bytes, INODE + blocks * BLOCK, "{size}");
        }
        let mut disk_use = DiskUse::new(BLOCK);
        disk_use.add_file(&[b"f"], u64::MAX);
        assert_eq!(disk_use.bytes(), u64::MAX);
    }

    #[test]
    fn directories_and_long_symlinks_take_a_block() {
        assert_eq!(bytes_of(|it| it.add_directory(&[b"d"])), INODE + BLOCK);
        assert_eq!(bytes_of(|it| it.add_symlink(&[b"l"], b"short")), INODE);
        let bytes = bytes_of(|it| it.add_symlink(&[b"l"], &[b'x'; LONG_TARGET]));
        assert_eq!(bytes, INODE + BLOCK);
    }

    #[test]
    fn long_names_take_space_in_the_manifest() {
        let long: Vec<&[u8]> = vec![&[b' '; 255]; 4];
        let mut disk_use = DiskUse::new(BLOCK);
        let before = disk_use.bytes();
        for _ in 0..100 {
            disk_use.add_file(&long, 0);
        }
        assert!(disk_use.bytes() - before > 100 * 4 * 4 * 255);
    }

    #[test]
    fn a_manifest_says_what_its_release_takes() {
        let digest = "0".repeat(64);
        let target = "x".repeat(LONG_TARGET);
        let manifest = format!(
            ". type=dir mode=0755\n\
             ./d type=dir mode=0755\n\
             ./d/f type=file mode=0644 size=4097 sha256digest={digest}\n\
             ./l type=link mode=0777 link={target}\n\
             # files 1 bytes 4097\n"
        );
        let mut counted = DiskUse::new(BLOCK);
        counted.add_directory(&[b"d"]);
        counted.add_file(&[b"d", b"f"], 4097);
        counted.add_symlink(&[b"l"], target.as_bytes());
        let expected = DiskNeed {
            bytes: counted.bytes(),
            inodes: 5,
        };
        assert_eq!(disk_need(&mut manifest.as_bytes(), BLOCK), expected);
        // The damage hides what comes after it, and nothing before it.
        let damaged = manifest.replace("./l type", "./l tape");
        let need = disk_need(&mut damaged.as_bytes(), BLOCK);
        assert_eq!(need.inodes, 4);
        assert!(need.bytes < expected.bytes && need.bytes > 2 * BLOCK);
    }

    #[test]
    fn an_odd_block_size_is_bounded() {
        for (reported, used) in [(0, 512), (1 << 20, 64 << 10), (4096, 4096)] {
            assert_eq!(DiskUse::new(reported).block, used);
        }
    }

    #[test]
    fn a_name_takes_its_entry_in_the_directory_and_its_line() {
        let mut disk_use = DiskUse::new(BLOCK);
        let before = disk_use.text;
        let path: [&[u8]; 2] = [b"d", b"abc"];
        disk_use.add_file(&path, 0);
        let line = manifest::max_line_len(&path, b"") as u64;
        assert_eq!(disk_use.text - before, 2 * (3 + 12) + line);
    }

    #[test]
    fn needs_add_up_and_do_not_overflow() {
        let need = |bytes, inodes| DiskNeed { bytes, inodes };
        assert_eq!(need(1, 2).plus(need(10, 20)), need(11, 22));
        assert_eq!(
            need(u64::MAX, 1).plus(need(1, u64::MAX)),
            need(u64::MAX, u64::MAX)
        );
    }
}
