//! A staging directory for each receive, which is removed unless it is published.

use std::fs::File;
use std::io::BufReader;

use crate::dir::{Dir, Name};
use crate::error::{Code, Error, Result};
use crate::manifest::{DIR_MODE, Identity};
use crate::names::ReleaseId;
use crate::store::Store;
use crate::store::layout::{INCOMING, STAGED_MANIFEST, STAGED_MEMBERS, STAGED_TREE, STATE};

/// A directory in `incoming/`, with `tree/` and the manifest in it.
pub struct Staging<'a> {
    store: &'a Store,
    name: String,
    /// Locked. Other requests remove what a crash has left, and the lock shows them
    /// that this directory is in use. The kernel releases the lock when the process
    /// ends.
    pub directory: Dir,
    pub tree: Dir,
}

impl<'a> Staging<'a> {
    /// Creates and locks the directory.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`], and those of the system calls.
    pub fn create(store: &'a Store, release: &ReleaseId) -> Result<Staging<'a>> {
        let cannot = |errno: nix::Error| store.io("cannot create a staging directory", errno);
        let pid = std::process::id();
        // Before this process has locked the new directory, another request may remove
        // it as a leftover; the next turn creates another. A name that exists (the
        // same process number in another namespace) is skipped.
        for attempt in 0..100 {
            let name = format!("{release}.{pid}.{attempt}");
            let as_name = || Name::new(name.as_bytes()).ok_or(nix::Error::EINVAL);
            match store.incoming.make_dir(as_name().map_err(cannot)?, 0o700) {
                Ok(()) => {}
                Err(nix::Error::EEXIST) => continue,
                Err(errno) => return Err(cannot(errno)),
            }
            let locked = || {
                let directory = store.incoming.open_dir(as_name()?)?;
                let locked = matches!(directory.try_lock(), Ok(true));
                let found = store.incoming.stat(as_name()?)?;
                let same = directory.metadata()?.st_ino == found.st_ino;
                Ok::<_, nix::Error>((locked && same).then_some(directory))
            };
            match locked() {
                Ok(Some(directory)) => {
                    directory.make_dir(STAGED_TREE, DIR_MODE).map_err(cannot)?;
                    let tree = directory.open_dir(STAGED_TREE).map_err(cannot)?;
                    return Ok(Staging {
                        store,
                        name,
                        directory,
                        tree,
                    });
                }
                Ok(None) | Err(nix::Error::ENOENT) => {}
                Err(errno) => return Err(cannot(errno)),
            }
        }
        Err(Error::new(
            Code::Busy,
            "cannot create a staging directory: every name exists",
        )
        .remedy(format!("examine '{STATE}/{INCOMING}'")))
    }

    /// Returns the name of the directory in `incoming/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates the directory into which the unpacker writes a delta.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`].
    pub fn create_members(&self) -> Result<Dir> {
        let made = self.directory.make_dir(STAGED_MEMBERS, DIR_MODE);
        made.and_then(|()| self.directory.open_dir(STAGED_MEMBERS))
            .map_err(|errno| self.store.io("cannot create a staging directory", errno))
    }

    /// Creates the manifest's file.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn create_manifest(&self) -> Result<File> {
        self.directory
            .create_new(STAGED_MANIFEST, 0o600)
            .map_err(|errno| self.store.io("cannot create the manifest", errno))
    }

    /// Opens the written manifest at its first entry.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`].
    pub fn open_report(&self) -> Result<BufReader<File>> {
        let cannot = |error: std::io::Error| self.store.io("cannot read the manifest", error);
        let file = self.directory.open_file(STAGED_MANIFEST);
        let mut manifest = BufReader::new(file.map_err(|errno| cannot(errno.into()))?);
        Identity::read(&mut manifest)
            .map_err(|why| cannot(std::io::Error::other(why.to_string())))?;
        Ok(manifest)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // After a failure, the next request's sweep removes it.
        if let Some(name) = Name::new(self.name.as_bytes()) {
            _ = self.store.incoming.remove_tree(name);
        }
    }
}
