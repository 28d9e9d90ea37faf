//! Quarantine: a folder of its own for each receive, gone unless published.

use std::fs::File;
use std::io::BufReader;
use std::os::fd::OwnedFd;

use crate::dir::{Dir, Name};
use crate::error::{Code, Error, Result};
use crate::manifest::Identity;
use crate::names::ReleaseId;
use crate::store::Store;
use crate::store::layout::{INCOMING, STAGED_MANIFEST, STAGED_TREE, STATE};
use crate::store::ledger;
use crate::store::lock::Held;

/// `incoming/<staging>/` with `tree/` in it.
pub struct Staging<'a> {
    store: &'a Store,
    name: String,
    pub folder: Dir,
    pub tree: Dir,
    /// Tells other requests, which clear away what crashes left, that this
    /// folder is in use. It ends with the process.
    _hold: Held<OwnedFd>,
}

impl<'a> Staging<'a> {
    pub fn make(store: &'a Store, release: &ReleaseId) -> Result<Staging<'a>> {
        let cannot = |errno: nix::Error| store.io("cannot make a staging folder", errno);
        let pid = std::process::id();
        // Between making the folder and holding it, another request may take
        // it for debris and remove it; then the next turn makes another. A
        // name that is taken (the same process number, in another namespace)
        // is passed over.
        for attempt in 0..100 {
            let name = format!("{release}.{pid}.{attempt}");
            let as_name = || Name::new(name.as_bytes()).ok_or(nix::Error::EINVAL);
            match store.incoming.make_dir(as_name().map_err(cannot)?, 0o700) {
                Ok(()) => {}
                Err(nix::Error::EEXIST) => continue,
                Err(errno) => return Err(cannot(errno)),
            }
            let held = || {
                let folder = store.incoming.open_dir(as_name()?)?;
                let hold = ledger::hold(&folder);
                let there = store.incoming.stat(as_name()?)?;
                let same = folder.own_stat()?.st_ino == there.st_ino;
                Ok::<_, nix::Error>(hold.filter(|_| same).map(|hold| (folder, hold)))
            };
            match held() {
                Ok(Some((folder, hold))) => {
                    folder.make_dir(STAGED_TREE, 0o755).map_err(cannot)?;
                    let tree = folder.open_dir(STAGED_TREE).map_err(cannot)?;
                    return Ok(Staging {
                        store,
                        name,
                        folder,
                        tree,
                        _hold: hold,
                    });
                }
                Ok(None) | Err(nix::Error::ENOENT) => {}
                Err(errno) => return Err(cannot(errno)),
            }
        }
        Err(Error::new(Code::Busy, "no staging folder could be made")
            .remedy(format!("look into '{STATE}/{INCOMING}'")))
    }

    /// The manifest's file, empty, to be written.
    pub fn make_manifest(&self) -> Result<File> {
        self.folder
            .create_new(STAGED_MANIFEST, 0o600)
            .map_err(|errno| self.store.io("cannot make the manifest", errno))
    }

    /// The manifest as written, to be read from its first entry on.
    pub fn manifest(&self) -> Result<BufReader<File>> {
        let cannot = |error: std::io::Error| self.store.io("cannot read the manifest", error);
        let file = self.folder.open_file(STAGED_MANIFEST);
        let mut manifest = BufReader::new(file.map_err(|errno| cannot(errno.into()))?);
        Identity::read(&mut manifest).map_err(|why| cannot(std::io::Error::other(why)))?;
        Ok(manifest)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next request's sweep.
        if let Some(name) = Name::new(self.name.as_bytes()) {
            _ = self.store.incoming.remove_tree(name);
        }
    }
}
