//! The share of a key: how much of the disk its releases may take until they have earned more.
//!
//! A pending release stays until a person drops it or until it is too old. A release that was
//! live for a moment stays until later ones displace it. Without this limit, a stolen key
//! could fill the disk down to the reserve with a few of them, within seconds, and stop the
//! uploads of every key.
//!
//! A release takes part of the share until its place counts
//! ([`crate::activate::prune::releases_that_count`]): once it was live or passed its checks,
//! and then `min_age` has passed; of several within one `min_age`, one counts. The room is
//! the free space above the reserve, plus the disk use of the releases of all keys that take
//! part of a share, but deltas. A delta counts as nothing there, because its files may be those
//! of its base. It counts whole in the part of its key. These releases of a key, its upload and
//! the payload of that upload, if it is spooled, take at most half of the room; bytes and
//! inodes are counted apart. So the other half is always left to the other keys. All keys
//! without a label are one key, as in every limit.
//!
//! Another upload of the same key counts from its publication on. Before that it only
//! makes the room smaller, for both: the upload looks at the room repeatedly, also
//! while its client is silent.
//!
//! This walks no tree: a manifest gives the maximum disk use of its release. It reads the
//! manifests before the request takes the lock, except those of releases that another
//! request published meanwhile. Of the manifests of other keys it reads a limited number of
//! bytes, so that no key delays another, and counts the rest as the most that it can be.
//! Then the half of this key is too large. It ends at the reserve all the same.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::activate::prune::{self, PruneRules};
use crate::archive::{self, DiskNeed};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::manifest::MAX_OTHER_MANIFESTS;
use crate::names::ReleaseId;
use crate::store::history::History;
use crate::store::limits::KeyLimits;
use crate::store::{Actor, Room, Store, journal};

/// The length of the shortest line of a manifest but the first, in bytes:
/// `./a type=dir mode=0755`, and its line feed.
const MIN_LINE: u64 = 23;

/// The room that is left for an upload.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    pub room: Room,
    /// Whether the share of the key is the limit, and not the reserve.
    by_share: bool,
}

/// A release, measured by its manifest.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// The most that it takes.
    need: DiskNeed,
    /// Whether it may share what it takes with its base.
    is_delta: bool,
}

/// The releases of a site that take part of a share, measured.
pub struct Share<'a> {
    pub store: &'a Store,
    actor: &'a Actor,
    config: &'a Config,
    /// The key, for a message.
    shown_key: String,
    measured: BTreeMap<ReleaseId, Measured>,
    /// How many bytes of the manifests of other keys may still be read.
    left: u64,
    /// The disk use of those of the key.
    own: DiskNeed,
    /// The disk use of those of all keys, without deltas.
    all: DiskNeed,
}

impl<'a> Share<'a> {
    /// Measures the releases.
    ///
    /// # Errors
    ///
    /// As [`Share::measure_new`].
    pub fn measure(
        config: &'a Config,
        store: &'a Store,
        actor: &'a Actor,
        history: &History,
    ) -> Result<Share<'a>> {
        let mut share = Share {
            store,
            actor,
            config,
            shown_key: KeyLimits::new(config, store, actor).shown_key(),
            measured: BTreeMap::new(),
            left: MAX_OTHER_MANIFESTS,
            own: DiskNeed::default(),
            all: DiskNeed::default(),
        };
        share.measure_new(history)?;
        Ok(share)
    }

    /// Measures the releases again, and reads only the manifests of new ones.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`]; [`Code::DiskFull`] if nothing may be written.
    pub fn measure_new(&mut self, history: &History) -> Result<()> {
        let store = self.store;
        let block = store.room(self.config.limits.reserve)?.block;
        (self.own, self.all) = (DiskNeed::default(), DiskNeed::default());
        let present = store.present()?;
        let rules = PruneRules::new(self.config);
        let counting = prune::releases_that_count(history, &present, rules, journal::now());
        for id in &present {
            let known = history.releases.get(id).filter(|_| !counting.contains(id));
            let Some(known) = known else {
                continue;
            };
            let is_own = known.key == self.actor.key;
            let measured = match self.measured.get(id) {
                Some(measured) => *measured,
                None => {
                    // The limits of the key bound the own ones, and `max_entries` each of them.
                    let limit = if is_own { u64::MAX } else { self.left };
                    let (measured, read) = self.measure_release(id, limit, block);
                    if !is_own {
                        self.left -= read;
                    }
                    measured
                }
            };
            // The files of a delta may be those of its base, or share their blocks. If its whole
            // use counted as room, the half of a key could be more than all that is free.
            if !measured.is_delta {
                self.all = self.all.plus(measured.need);
            }
            if is_own {
                self.own = self.own.plus(measured.need);
            }
            self.measured.insert(id.clone(), measured);
        }
        Ok(())
    }

    /// Measures a release by at most `limit` bytes of its manifest, and returns how many
    /// were read.
    fn measure_release(&self, id: &ReleaseId, limit: u64, block: u64) -> (Measured, u64) {
        // No client can make a manifest unreadable. Such a release must not stop uploads;
        // `verify` reports it.
        let Ok((identity, manifest)) = self.store.manifest(id) else {
            return (Measured::default(), 0);
        };
        let size = manifest.get_ref().metadata().map_or(0, |meta| meta.len());
        let read = size.min(limit);
        let measured = Measured {
            need: measure_manifest(manifest, size, read, block),
            is_delta: identity.base.is_some(),
        };
        (measured, read)
    }

    /// Returns what the upload may use besides what it `holds`, by a new look at the
    /// free space.
    ///
    /// # Errors
    ///
    /// [`Code::DiskFull`] if it may use nothing more.
    pub fn allowance(&self, holds: DiskNeed) -> Result<Allowance> {
        let room = self.store.room(self.config.limits.reserve)?;
        let left = |free: u64, pick: fn(DiskNeed) -> u64| {
            let (own, all, holds) = (pick(self.own), pick(self.all), pick(holds));
            let all = free.saturating_add(all).saturating_add(holds);
            (all / 2).saturating_sub(own.saturating_add(holds))
        };
        let bytes = left(room.bytes, |need| need.bytes);
        let inodes = match room.inodes {
            // The file system has no table of inodes.
            u64::MAX => u64::MAX,
            free => left(free, |need| need.inodes),
        };
        let allowance = Allowance {
            by_share: bytes < room.bytes || inodes < room.inodes,
            room: Room {
                bytes: room.bytes.min(bytes),
                inodes: room.inodes.min(inodes),
                block: room.block,
            },
        };
        if allowance.room.bytes == 0 || allowance.room.inodes == 0 {
            return Err(self.exceeded(allowance));
        }
        Ok(allowance)
    }

    /// Checks that a release which takes this much may be published.
    ///
    /// # Errors
    ///
    /// [`Code::DiskFull`].
    pub fn check(&self, release: DiskNeed) -> Result<()> {
        self.allowance(release).map(drop)
    }

    /// Completes an error that a child reports. The unpacker and the assembler count what
    /// they need against the allowance, and have no free space to name.
    pub fn complete(&self, error: Error, allowance: Option<Allowance>) -> Error {
        match allowance {
            Some(allowance) if error.code == Code::DiskFull && error.fault.is_none() => {
                self.exceeded(allowance)
            }
            _ => self.store.with_room(error),
        }
    }

    /// Returns the error of an upload that needs more than its allowance.
    pub fn exceeded(&self, allowance: Allowance) -> Error {
        if !allowance.by_share {
            return self.store.reserve_reached();
        }
        // No remedy publishes a release. A new try removes only old ones.
        let (whose, remedy) = match self.own.bytes {
            0 => (
                "this upload".to_owned(),
                "try again (the next upload may remove old releases), or make room",
            ),
            _ => (
                format!("this upload and the new releases of {}", self.shown_key),
                "try again (the next upload removes old ones of them), drop some on the node \
                 (deploy-shell-admin drop), or make room",
            ),
        };
        let problem =
            format!("not enough space: {whose} would take more than half of what uploads may use");
        self.store
            .with_room(Error::new(Code::DiskFull, problem))
            .remedy(format!("{remedy}; nothing was published"))
    }
}

/// Counts the first `read` of the `size` bytes of a manifest by their entries, and the rest
/// as the shortest lines of directories.
fn measure_manifest(manifest: impl BufRead, size: u64, read: u64, block: u64) -> DiskNeed {
    let counted = archive::disk_need(&mut manifest.take(read), block);
    let unread = (size - read).div_ceil(MIN_LINE);
    counted.plus(DiskNeed {
        // Twice a block: a directory, and its inode, its name and its line.
        bytes: unread.saturating_mul(block.saturating_mul(2)),
        inodes: unread,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_is_read_in_part_counts_at_least_as_much() {
        let lines = (100..200).map(|n| format!("./{n} type=dir mode=0755\n"));
        let text = format!(". type=dir mode=0755\n{}", lines.collect::<String>());
        let size = text.len() as u64;
        let measure = |read| measure_manifest(text.as_bytes(), size, read, 4096);
        let whole = measure(size);
        assert_eq!(whole.inodes, 102);
        for read in [0, 20, size / 2, size - 1] {
            let part = measure(read);
            assert!(
                part.bytes >= whole.bytes && part.inodes + 2 >= whole.inodes,
                "{read}"
            );
        }
    }
}
