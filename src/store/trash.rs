//! The trash: pruned releases whose removal is not complete.
//!
//! A name in it is `<release>.<seq>`. Each request that changes the site tries again to
//! remove what is there. A mounted file system and a file that this account may not
//! remove stay, until an operator removes them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use super::hold::Removal;
use super::journal::Event;
use super::layout::{STATE, TRASH};
use super::ledger::Ledger;
use super::{Notice, Store, release_name};
use crate::dir::{Dir, Name};
use crate::error::{Result, describe};
use crate::names::ReleaseId;

impl Ledger<'_> {
    /// Moves a release to the trash by one rename. Returns its name for
    /// [`Store::remove_from_trash`], which needs no lock. [`Ledger::forget`] follows, with
    /// the same right.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`](crate::error::Code::IoError): the release is where it was.
    pub fn move_to_trash(&mut self, removal: &Removal) -> Result<String> {
        let release = removal.release();
        let name = format!("{release}.{}", self.history.generation);
        Name::new(name.as_bytes())
            .ok_or(Errno::EINVAL)
            .and_then(|to| self.store.releases.rename(release, &self.store.trash, to))
            .map_err(|errno| self.store.io("cannot move it to the trash", errno))?;
        Ok(name)
    }

    /// Reports the removal of a release that is in the trash, before [`Ledger::forget`].
    ///
    /// # Errors
    ///
    /// [`Code::AuditUnreachable`](crate::error::Code::AuditUnreachable) on a site that
    /// requires the audit log.
    pub fn report(&self, removal: &Removal) -> Result<()> {
        let record = &self.new_record(Event::Pruned, Some(removal.release()));
        let found = None;
        self.actor().notices.write(&Notice { record, found })
    }

    /// Removes the manifest of a release that is in the trash, and journals its removal.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`](crate::error::Code::IoError) and
    /// [`Code::DiskFull`](crate::error::Code::DiskFull). The next request that changes
    /// the site completes what a failure leaves.
    pub fn forget(&mut self, removal: &Removal) -> Result<()> {
        let release = removal.release();
        let removed = self.store.manifests.remove_file(release);
        removed.map_err(|errno| self.store.io("cannot remove its manifest", errno))?;
        self.append(self.new_record(Event::Pruned, Some(release)))
    }
}

impl Store {
    /// Deletes a pruned release. Returns a warning if something of it is left.
    ///
    /// # Errors
    ///
    /// Returns the warning: it names what is left, and why.
    pub fn remove_from_trash(&self, name: &str) -> std::result::Result<(), String> {
        match Name::new(name.as_bytes()) {
            Some(name) => self.remove_trashed(name),
            None => Err(format!("'{TRASH}/{name}' has no valid name")),
        }
    }

    /// As [`Store::remove_from_trash`], for an entry of the trash.
    pub(super) fn remove_trashed(&self, name: Name<'_>) -> std::result::Result<(), String> {
        let directory = self.trash.open_dir_of_this_mount(name);
        let is_locked = directory.as_ref().map(Dir::try_lock);
        // Another request is removing it, or has removed it.
        if matches!(is_locked, Ok(Ok(false)) | Err(Errno::ENOENT)) {
            return Ok(());
        }
        self.trash.remove_tree(name).map_err(|left| {
            let shown = self.path().join(STATE).join(TRASH).join(&left.path);
            let shown = shown.display();
            if left.is_mount() {
                return format!(
                    "'{shown}' is a mount point, and no removal crosses it: unmount it"
                );
            }
            let why = describe(&left.errno.into());
            format!("'{shown}' cannot be removed: {why}")
        })
    }

    /// Returns the releases in the trash, sorted: their removal is not complete.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`](crate::error::Code::IoError) if the trash cannot be listed.
    pub fn removals_pending(&self) -> Result<Vec<ReleaseId>> {
        let removals = self.trashed()?.into_iter();
        let mut releases: Vec<ReleaseId> = removals.map(|(release, _)| release).collect();
        releases.dedup();
        Ok(releases)
    }

    /// Returns the releases in the trash, each with the number of the newest record when it
    /// was moved there.
    ///
    /// # Errors
    ///
    /// As [`Store::removals_pending`].
    pub(super) fn trashed(&self) -> Result<Vec<(ReleaseId, Option<u64>)>> {
        let names = self
            .trash
            .names()
            .map_err(|errno: Errno| self.io("cannot list the trash", errno))?;
        let parse = |name: &OsString| {
            let bytes = name.as_bytes();
            let dot = bytes.iter().rposition(|byte| *byte == b'.')?;
            let release = release_name(OsStr::from_bytes(&bytes[..dot]))?;
            let seq = std::str::from_utf8(&bytes[dot + 1..]).ok();
            Some((release, seq.and_then(|seq| seq.parse().ok())))
        };
        Ok(names.iter().filter_map(parse).collect())
    }
}
