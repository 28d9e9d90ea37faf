//! The lock that keeps one release from being removed: flock(2) on its manifest.
//!
//! A receive that builds on a release holds this lock shared while its client sends, so
//! without the site's lock. Pruning and `drop` take it exclusively before they move the
//! release to the trash.
//!
//! No two processes wait for each other. A removal has the site's lock and does not wait
//! for this one: it leaves the release to a later request. A holder takes the site's lock
//! only to publish, when it has this one already.

use std::fs::{File, TryLockError};
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;

use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest::Identity;
use crate::names::ReleaseId;
use crate::store::Store;

/// A release that nobody removes until this is dropped.
#[derive(Debug)]
pub struct Held {
    pub identity: Identity,
    /// The lock belongs to this open file.
    _manifest: BufReader<File>,
}

/// The right to remove a release, until this is dropped.
#[derive(Debug)]
pub struct Removal {
    release: ReleaseId,
    _manifest: File,
}

impl Removal {
    pub fn release(&self) -> &ReleaseId {
        &self.release
    }
}

impl Store {
    /// Holds a release that has a tree list.
    ///
    /// # Errors
    ///
    /// Those of [`Store::tree_manifest`]; [`Code::NoSuchRelease`] also if another request
    /// is removing it.
    pub fn hold(&self, release: &ReleaseId) -> Result<Held> {
        let (identity, _, manifest) = self.tree_manifest(release)?;
        let removed = || {
            let problem = format!("release '{release}' is being removed");
            Error::new(Code::NoSuchRelease, problem).remedy("'list' shows what there is")
        };
        let cannot = |error| self.io(format!("cannot lock the manifest of '{release}'"), error);
        match manifest.get_ref().try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(removed()),
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        // The release can have been removed between the two calls, and even received
        // again. From here on it cannot be.
        let named = self.manifests.open_file(release);
        let is_same = match named.map_err(std::io::Error::from) {
            Ok(named) => is_same_file(&named, manifest.get_ref()).map_err(cannot)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(cannot(error)),
        };
        if !is_same || !self.is_present(release)? {
            return Err(removed());
        }
        Ok(Held {
            identity,
            _manifest: manifest,
        })
    }

    /// Takes the right to remove a release that no symlink in the root names, for a caller
    /// that has the site's lock. Returns
    /// none, without waiting, if a running receive builds on the release.
    ///
    /// # Errors
    ///
    /// [`Code::Denied`] if a symlink in the root leads to the release, and [`Code::IoError`].
    pub fn try_removal(&self, release: &ReleaseId) -> Result<Option<Removal>> {
        let links = self.symlinks_to_releases()?;
        if let Some((link, _)) = links.iter().find(|(_, named)| named == release) {
            let link = escape::escape_truncated(link.as_bytes(), 300);
            let problem = format!("the symlink '{link}' in the root leads to '{release}'");
            return Err(Error::new(Code::Denied, problem).remedy(
                "if nothing serves it, remove the symlink; give each site a root of its own",
            ));
        }
        let cannot = |error| self.io(format!("cannot lock the manifest of '{release}'"), error);
        let manifest = self.manifests.open_file(release);
        let manifest = manifest.map_err(|errno| cannot(errno.into()))?;
        match manifest.try_lock() {
            Ok(()) => Ok(Some(Removal {
                release: release.clone(),
                _manifest: manifest,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(cannot(error)),
        }
    }
}

fn is_same_file(one: &File, other: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let id = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
    Ok(id(one)? == id(other)?)
}
