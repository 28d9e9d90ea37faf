//! Checks `shared/`, which belongs to the application: nothing there is opened for
//! reading or changed.
//!
//! The application may change it at any time. The checks only make sure that no
//! release is published with a symlink to nothing or out of `shared/`.
//!
//! Every call that looks at `shared/` may never return: a network file system or FUSE
//! may be mounted there, and stall. So a child looks ([`crate::look_up`]), and no process
//! waits for it under the lock.

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{self, SFlag};
use serde::{Deserialize, Serialize};

use super::Store;
use super::layout::SHARED;
use crate::config::RelativePath;
use crate::dir::{self, Dir};
use crate::error::{Code, Error, describe};

/// A fault of a shared path.
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

/// The kind of a path in `shared/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// A file or a directory that no symlink leads out of `shared/`.
    Usable,
    /// A device, a socket or a fifo.
    WrongType,
    /// The errno with which the path cannot be resolved.
    Unresolved(i32),
    /// The errno with which `shared/` itself cannot be opened.
    Unopened(i32),
}

/// Looks at `path` in `shared/` below `root`.
pub fn look_at(root: &Dir, path: &Path) -> Found {
    let directory = match root.open_path(SHARED) {
        Ok(directory) => directory,
        Err(errno) => return Found::Unopened(errno as i32),
    };
    let found = directory
        .resolve_beneath(path)
        .and_then(|found| stat::fstat(found.as_fd()));
    match found.as_ref().map(dir::file_type) {
        Ok(SFlag::S_IFREG | SFlag::S_IFDIR) => Found::Usable,
        Ok(_) => Found::WrongType,
        Err(errno) => Found::Unresolved(*errno as i32),
    }
}

impl Store {
    /// Returns every fault of the paths at which this was found; a fault of `shared/`
    /// itself alone, if there is one.
    pub fn shared_faults<'a>(
        &self,
        found: impl IntoIterator<Item = (&'a RelativePath, Found)>,
    ) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (path, found) in found {
            faults.extend(self.shared_fault(path.as_path(), found));
            if let Found::Unopened(_) = found {
                break;
            }
        }
        faults
    }

    /// Returns what is wrong with a path at which this was found; none if nothing is.
    pub fn shared_fault(&self, path: &Path, found: Found) -> Option<Fault> {
        let shared = self.path().join(SHARED);
        let shown = shared.join(path);
        let shown = shown.display();
        Some(match found {
            Found::Usable => return None,
            Found::Unopened(errno) => self.unopened(&shared.display(), Errno::from_raw(errno)),
            Found::WrongType => fault(
                false,
                format!("'{shown}' is neither a file nor a directory"),
            )
            .remedy("take it out of 'links' in [shared], or put a file or a directory there"),
            Found::Unresolved(errno) => unresolved(&shown, Errno::from_raw(errno)),
        })
    }

    fn unopened(&self, shown: &std::path::Display<'_>, errno: Errno) -> Fault {
        match errno {
            Errno::ENOENT => fault(true, format!("'{shown}' does not exist"))
                .remedy(format!("make it: {}", self.init_command())),
            Errno::ENOTDIR | Errno::ELOOP => {
                fault(false, format!("'{shown}' is not a directory itself"))
                    .remedy("make it a directory")
            }
            errno => inaccessible(shown, errno),
        }
    }
}

fn unresolved(shown: &std::path::Display<'_>, errno: Errno) -> Fault {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => fault(
            true,
            format!("'{shown}' does not exist, and every release has a symlink to it"),
        )
        .remedy(format!(
            "create '{shown}', or take it out of 'links' in [shared]"
        )),
        Errno::EXDEV => fault(
            false,
            format!("'{shown}' leads out of 'shared' by a symlink"),
        )
        .remedy("put the file or directory itself there"),
        Errno::ELOOP => fault(false, format!("'{shown}' is a symlink loop"))
            .remedy("put the file or directory itself there"),
        errno => inaccessible(shown, errno),
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
