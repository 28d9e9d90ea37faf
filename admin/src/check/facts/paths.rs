//! Facts about paths: every component on the way to a file, and the programs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A path with every component on the way to its end, symlinks followed, from
/// `/` on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolvedPath {
    pub path: PathBuf,
    pub components: Vec<PathComponent>,
    pub resolution: Resolution,
}

/// How far a path could be followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// To its end.
    Complete,
    /// There is no file of that name.
    Missing,
    /// A component could not be looked at, for this reason.
    NotChecked(String),
}

/// One directory, symlink or file on the way to the end of a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PathComponent {
    pub path: PathBuf,
    pub uid: u32,
    pub mode: u32,
    pub kind: ComponentKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ComponentKind {
    Directory,
    Symlink,
    Other,
}

impl ResolvedPath {
    /// Returns the components above what is at the end, or above what is missing there.
    pub fn above(&self) -> &[PathComponent] {
        let end = usize::from(self.end().is_some());
        &self.components[..self.components.len() - end]
    }

    /// Returns what is at the end of the path, if something is.
    pub fn end(&self) -> Option<&PathComponent> {
        let is_complete = self.resolution == Resolution::Complete;
        self.components.last().filter(|_| is_complete)
    }
}

impl PathComponent {
    /// Returns whether this is a directory in which only a file's owner can
    /// rename or remove it, such as `/tmp`.
    pub fn is_sticky_directory(&self) -> bool {
        self.kind == ComponentKind::Directory && self.mode & 0o1000 != 0
    }
}

/// The paths that matter for every account.
#[derive(Debug)]
pub struct SitePaths {
    pub config: ResolvedPath,
    /// The list of signers, if the site requires signatures.
    pub signers: Option<ResolvedPath>,
    /// The programs of the hooks and of the health check.
    pub hooks: Vec<ResolvedPath>,
    pub root: ResolvedPath,
    /// The current symlink, to what visitors get.
    pub current: ResolvedPath,
    /// The directories below the root that deploy-shell relies on.
    pub directories: Vec<ResolvedPath>,
    /// The shared paths, in `shared/`.
    pub shared: Vec<ResolvedPath>,
    pub socket: ResolvedPath,
    /// The files of sshd's configuration, and the directories of its includes.
    pub sshd_config: Vec<ResolvedPath>,
}

/// A path by which `deploy-shell` is run.
#[derive(Debug)]
pub struct InstalledProgram {
    pub location: ResolvedPath,
    /// Whether its bytes are not those of the `deploy-shell` beside this program.
    pub differs: bool,
}
