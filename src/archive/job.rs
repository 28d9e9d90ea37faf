//! The message from the monitor to the unpacker.

use serde::{Deserialize, Serialize};

use super::zstd_frame::MAX_PADDING;
use crate::shared_paths::Shared;

/// The size of a block of the tar format, in bytes.
const BLOCK: u64 = super::header::BLOCK as u64;

/// The word of argv that makes this program the unpacker.
pub const WORD: &str = "unpack";

/// The maximum length of a job, in bytes.
pub const MAX_JOB: usize = 128 * 1024;

/// Everything that the unpacker needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpackJob {
    pub limits: UnpackLimits,
    pub shared: Shared,
    /// Whether the payload is a delta: see `delta`.
    pub delta: bool,
    /// Whether to refuse to work when a part of the sandbox is missing.
    pub sandbox_required: bool,
}

/// The profile's limits that the operator sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpackLimits {
    /// Bytes of all files together.
    pub max_unpacked: u64,
    /// Bytes of one file.
    pub max_file: u64,
    /// Files, directories and symlinks together.
    pub max_entries: u32,
    /// The size of the file system's blocks, in bytes.
    pub block: u64,
    /// Bytes and inodes that may be used before only the reserve is left.
    pub room_bytes: u64,
    pub room_inodes: u64,
    /// Whether the archive may have symlinks.
    pub symlinks: bool,
    /// Whether files keep the times of the archive.
    pub keep_times: bool,
}

/// Returns the memory that one upload may use, in bytes, in the unpacker and in its
/// monitor: the zstd window of 128 MiB; 32 MiB for programs, threads and buffers; and 1
/// KiB for each entry, for names of 255 bytes in both processes.
///
/// Measured: 140 MiB in the unpacker with a window of 128 MiB and one file; 178 MiB in the
/// unpacker and 38 MiB in the monitor with 100,000 names of 255 bytes.
pub fn upload_memory(max_entries: u32) -> u64 {
    (160 << 20) + u64::from(max_entries) * 1024
}

impl UnpackLimits {
    /// Returns the maximum length of the whole tar stream, in bytes: the data; for
    /// each entry its header and its padding; the extended headers; and the zeros at
    /// the end, with the two blocks that are the end.
    pub(super) fn stream(&self) -> u64 {
        let entries = self.max_entries_read() * 2 * BLOCK;
        entries
            .saturating_add(self.max_unpacked)
            .saturating_add(self.max_extended())
            .saturating_add(MAX_PADDING + 2 * BLOCK)
    }

    /// Returns how many entries the archive may have, repeated ones included.
    pub(super) fn max_entries_read(&self) -> u64 {
        2 * u64::from(self.max_entries) + 1000
    }

    /// Returns how many bytes all extended headers may have together, with the blocks
    /// that introduce them: 4 KiB for each entry that the release may have. GNU tar,
    /// bsdtar and Python write 1 KiB or 1.5 KiB.
    pub(super) fn max_extended(&self) -> u64 {
        (1 << 20) + u64::from(self.max_entries) * (4 << 10)
    }

    /// As [`max_on_disk`].
    pub(super) fn max_on_disk(&self) -> u64 {
        max_on_disk(self.max_unpacked)
    }

    /// Returns the address space that the unpacker may use, in bytes: the zstd
    /// window of 128 MiB, the allocator's reservation for each thread, and the
    /// tree of names.
    pub(super) fn memory(&self) -> u64 {
        (1 << 30) + u64::from(self.max_entries) * 512
    }
}

/// Returns how many bytes a release may use on disk: an eighth more than the bytes of its
/// files, and 64 KiB. That suffices for whole blocks, directories and the manifest unless
/// most files are small; see `disk_use`.
pub fn max_on_disk(max_unpacked: u64) -> u64 {
    max_unpacked
        .saturating_add(max_unpacked / 8)
        .saturating_add(64 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;
    use crate::shared_paths::{MAX_LINKS, SharedPath};

    fn job(links: Vec<String>) -> UnpackJob {
        let links = links
            .into_iter()
            .map(|link| link.try_into().unwrap())
            .collect();
        UnpackJob {
            limits: UnpackLimits {
                max_unpacked: u64::MAX,
                max_file: u64::MAX,
                max_entries: u32::MAX,
                block: u64::MAX,
                room_bytes: u64::MAX,
                room_inodes: u64::MAX,
                symlinks: false,
                keep_times: false,
            },
            shared: Shared {
                links,
                ..Shared::default()
            },
            delta: false,
            sandbox_required: false,
        }
    }

    /// A quotation mark takes two bytes in JSON; no byte that a shared path may
    /// have takes more.
    #[test]
    fn the_longest_job_fits_into_its_limit() {
        let long = |number: usize| {
            let directories = format!("{}/", "\"".repeat(249)).repeat(3);
            format!("{directories}{number:02}{}", "\"".repeat(250))
        };
        let longest = long(0);
        assert!(SharedPath::try_from(format!("{longest}\"")).is_err());
        let job = job((0..MAX_LINKS).map(long).collect());
        let line = message::encode(&job).unwrap();
        assert!(line.len() > MAX_JOB - 4096, "{}", line.len());
        assert_eq!(message::decode(line.as_bytes(), MAX_JOB), Ok(job));
    }

    #[test]
    fn a_job_with_an_unknown_field_or_a_bad_path_is_refused() {
        let line = message::encode(&job(vec!["a".to_owned()])).unwrap();
        let decode = |line: &str| message::decode::<UnpackJob>(line.as_bytes(), MAX_JOB);
        assert!(decode(&line).is_ok());
        for (old, new) in [
            ("{\"limits\":{", "{\"limits\":{\"more\":1,"),
            ("{\"limits\":", "{\"more\":1,\"limits\":"),
            ("{\"links\":", "{\"more\":1,\"links\":"),
            ("\"symlinks\":false", "\"symlinks\":0"),
            ("[\"a\"]", "[\"../a\"]"),
        ] {
            let changed = line.replacen(old, new, 1);
            assert_ne!(changed, line);
            assert!(decode(&changed).is_err(), "{changed}");
        }
    }

    /// The numbers of docs/archives.md and SECURITY.md, worked out by hand.
    #[test]
    fn the_limits_of_an_upload_are_what_the_documents_say() {
        let limits = UnpackLimits {
            max_unpacked: 80 << 20,
            max_entries: 1000,
            ..UnpackLimits::default()
        };
        assert_eq!(limits.max_entries_read(), 3000);
        assert_eq!(limits.max_extended(), 1_048_576 + 4_096_000);
        assert_eq!(limits.max_on_disk(), 94_371_840 + 65_536);
        assert_eq!(limits.memory(), 1_073_741_824 + 512_000);
        // Entries, data, extended headers, and the zeros at the end.
        assert_eq!(
            limits.stream(),
            3_072_000 + 83_886_080 + 5_144_576 + 16_777_216 + 1024
        );
        assert_eq!(upload_memory(1000), 167_772_160 + 1_024_000);
    }
}
