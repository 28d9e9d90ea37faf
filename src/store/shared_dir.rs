//! What stands in `shared/`: looked at, never opened to be read, never touched.
//!
//! It is the application's own, which may change it at any time. What is asked
//! here is only that a release does not come in with a link to nothing, and
//! that none leads anywhere else when it does.

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
    /// Nothing is there, or else what is there will not do.
    pub missing: bool,
    pub error: Error,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        fault.error
    }
}

impl Store {
    /// Sees that everything shared is there.
    ///
    /// Errors: [`Code::BadLayout`], for the first that is not.
    pub fn require_shared(&self, shared: &Shared) -> Result<()> {
        match self.shared_faults(shared).into_iter().next() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    /// All that is wrong; if `shared/` itself will not do, that alone.
    pub fn shared_faults(&self, shared: &Shared) -> Vec<Fault> {
        if shared.links.is_empty() {
            return Vec::new();
        }
        match self.shared_folder() {
            Ok(folder) => (shared.links.iter())
                .filter_map(|link| self.look_in(&folder, Path::new(link.as_str())).err())
                .collect(),
            Err(fault) => vec![fault],
        }
    }

    /// Sees that `path` is there in `shared/`: a file or a folder, reached
    /// without a way out.
    pub fn look_in_shared(&self, path: &Path) -> Result<(), Fault> {
        self.look_in(&self.shared_folder()?, path)
    }

    fn shared_folder(&self) -> Result<Dir, Fault> {
        let shown = self.path().join(SHARED);
        let shown = shown.display();
        self.root.open_bare(SHARED).map_err(|errno| match errno {
            Errno::ENOENT => fault(true, format!("'{shown}' does not exist"))
                .remedy("run 'deploy-shell-admin init', or make it as it does"),
            Errno::ENOTDIR | Errno::ELOOP => {
                fault(false, format!("'{shown}' is not a folder itself"))
                    .remedy("keep what is shared in a folder of the site, or mount it there")
            }
            errno => unreachable_to_us(&shown, errno),
        })
    }

    fn look_in(&self, folder: &Dir, path: &Path) -> Result<(), Fault> {
        let shown = self.path().join(SHARED).join(path);
        let shown = shown.display();
        let found = folder
            .resolve_beneath(path)
            .and_then(|found| stat::fstat(found.as_fd()));
        match found.as_ref().map(dir::kind) {
            Ok(SFlag::S_IFREG | SFlag::S_IFDIR) => Ok(()),
            Ok(_) => Err(
                fault(false, format!("'{shown}' is neither a file nor a folder"))
                    .remedy("take it out of 'links' in [shared], or put a file or a folder there"),
            ),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(fault(
                true,
                format!("'{shown}' does not exist, and every release is to lead to it"),
            )
            .remedy(format!(
                "create '{shown}', or take it out of 'links' in [shared]"
            ))),
            Err(Errno::EXDEV) => Err(fault(
                false,
                format!("'{shown}' leads out of 'shared' by a link"),
            )
            .remedy("put the thing itself there, or mount it there")),
            Err(Errno::ELOOP) => Err(fault(false, format!("'{shown}' is a link that loops"))
                .remedy("put the thing itself there")),
            Err(errno) => Err(unreachable_to_us(&shown, *errno)),
        }
    }
}

fn fault(missing: bool, problem: String) -> Fault {
    let error = Error::new(Code::BadLayout, problem);
    Fault { missing, error }
}

fn unreachable_to_us(shown: &std::path::Display<'_>, errno: Errno) -> Fault {
    let why = describe(&errno.into());
    fault(false, format!("'{shown}' cannot be looked at: {why}"))
        .remedy("let the account search the folders above it, as the web server must")
}

impl Fault {
    fn remedy(mut self, remedy: impl Into<String>) -> Fault {
        self.error = self.error.remedy(remedy);
        self
    }
}
