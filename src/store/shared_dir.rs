//! Checks `shared/`, which belongs to the application: nothing there is opened for
//! reading or changed.
//!
//! The application may change it at any time. The checks only make sure that no
//! release is published with a symlink to nothing or out of `shared/`.

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{self, SFlag};

use super::Store;
use super::layout::SHARED;
use crate::dir::{self, Dir};
use crate::error::{Code, Error, Result, describe};
use crate::shared_paths::Shared;

/// What is wrong with a shared path.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Whether nothing is there. If false, what is there cannot be used.
    pub missing: bool,
    pub error: Error,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        fault.error
    }
}

impl Store {
    /// Requires every shared path to exist.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`], for the first one that does not.
    pub fn require_shared(&self, shared: &Shared) -> Result<()> {
        match self.shared_faults(shared).into_iter().next() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    /// Returns every fault; a fault of `shared/` itself alone, if there is one.
    pub fn shared_faults(&self, shared: &Shared) -> Vec<Fault> {
        if shared.links.is_empty() {
            return Vec::new();
        }
        match self.open_shared() {
            Ok(directory) => (shared.links.iter())
                .filter_map(|link| self.check_path(&directory, Path::new(link.as_str())).err())
                .collect(),
            Err(fault) => vec![fault],
        }
    }

    /// Requires `path` in `shared/` to be a file or a directory that no symlink leads
    /// out of `shared/`.
    ///
    /// # Errors
    ///
    /// The fault of `path`, or of `shared/` itself.
    pub fn check_shared_path(&self, path: &Path) -> Result<(), Fault> {
        self.check_path(&self.open_shared()?, path)
    }

    fn open_shared(&self) -> Result<Dir, Fault> {
        let shown = self.path().join(SHARED);
        let shown = shown.display();
        self.root.open_path(SHARED).map_err(|errno| match errno {
            Errno::ENOENT => fault(true, format!("'{shown}' does not exist"))
                .remedy("run 'deploy-shell-admin init', or make it as it does"),
            Errno::ENOTDIR | Errno::ELOOP => {
                fault(false, format!("'{shown}' is not a directory itself"))
                    .remedy("make it a directory, or mount one there")
            }
            errno => inaccessible(&shown, errno),
        })
    }

    fn check_path(&self, directory: &Dir, path: &Path) -> Result<(), Fault> {
        let shown = self.path().join(SHARED).join(path);
        let shown = shown.display();
        let found = directory
            .resolve_beneath(path)
            .and_then(|found| stat::fstat(found.as_fd()));
        match found.as_ref().map(dir::file_type) {
            Ok(SFlag::S_IFREG | SFlag::S_IFDIR) => Ok(()),
            Ok(_) => Err(fault(
                false,
                format!("'{shown}' is neither a file nor a directory"),
            )
            .remedy("take it out of 'links' in [shared], or put a file or a directory there")),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(fault(
                true,
                format!("'{shown}' does not exist, and every release has a symlink to it"),
            )
            .remedy(format!(
                "create '{shown}', or take it out of 'links' in [shared]"
            ))),
            Err(Errno::EXDEV) => Err(fault(
                false,
                format!("'{shown}' leads out of 'shared' by a symlink"),
            )
            .remedy("put the file or directory itself there, or mount it there")),
            Err(Errno::ELOOP) => Err(fault(false, format!("'{shown}' is a symlink loop"))
                .remedy("put the file or directory itself there")),
            Err(errno) => Err(inaccessible(&shown, *errno)),
        }
    }
}

fn fault(missing: bool, problem: String) -> Fault {
    let error = Error::new(Code::BadLayout, problem);
    Fault { missing, error }
}

fn inaccessible(shown: &std::path::Display<'_>, errno: Errno) -> Fault {
    let why = describe(&errno.into());
    fault(false, format!("'{shown}' cannot be accessed: {why}"))
        .remedy("let the account search the directories above it, as the web server must")
}

impl Fault {
    fn remedy(mut self, remedy: impl Into<String>) -> Fault {
        self.error = self.error.remedy(remedy);
        self
    }
}
