//! Facts about the site: its file system, its releases, and what a request of the
//! account would meet.

use std::ffi::OsString;
use std::path::PathBuf;

use super::ResolvedPath;
use crate::bridge::BridgeState;
use deploy_shell::error::Error;
use deploy_shell::names::ReleaseId;
use deploy_shell::sandbox::Enforcement;
use deploy_shell::store::Room;
use deploy_shell::store::shared_dir::Fault;

/// The file system of the site.
#[derive(Debug, Default)]
pub struct Filesystem {
    /// The kind of network file system that the root is on.
    pub network: Option<&'static str>,
    /// Directories below the root that are on another file system.
    pub other_filesystems: Vec<PathBuf>,
    /// Directories in which case does not distinguish names.
    pub case_insensitive: Vec<PathBuf>,
}

/// What a request of the account would meet, tried out as the account.
#[derive(Debug, Default)]
pub struct AccountProbe {
    /// Why the account cannot load the configuration.
    pub config: Option<Error>,
    /// Why it cannot open the site.
    pub layout: Option<Error>,
    /// What the account cannot use of the home directory, the programs and the keys
    /// files on the way to a request.
    pub blocked: Vec<Blocked>,
    /// The programs of hooks and checks that exist and that it cannot start, with the
    /// reasons.
    pub hooks: Vec<(PathBuf, String)>,
    /// What it cannot use of the site.
    pub unusable: Vec<Unusable>,
    /// Why it cannot read the journal.
    pub journal: Option<JournalFault>,
    /// Why it cannot read what a checkpoint has moved out of the journal.
    pub used_ids: Option<Error>,
    /// What is live and what is in `releases/`.
    pub releases: Option<Releases>,
    /// What `check` says about the bridge; none if it was not looked at.
    pub bridge: Option<BridgeState>,
    /// What an upload may use, or why nothing may be written.
    pub room: Option<Result<Room, Error>>,
    /// What is wrong with the shared paths.
    pub shared: Vec<Fault>,
    /// The pruned releases whose removal is not complete.
    pub removing: Vec<ReleaseId>,
    /// Why it cannot create an unnamed file.
    pub unnamed_file: Option<String>,
    /// Why it cannot connect to the audit socket.
    pub socket: Option<String>,
    /// The time of the newest record, if it is in the future.
    pub future_record: Option<String>,
    /// The sandbox of the unpacker, and of the monitor; `None` if not tried.
    pub unpacker: Option<Enforcement>,
    pub monitor: Option<Enforcement>,
}

/// A file on the way to a request that the account cannot use.
#[derive(Debug)]
pub struct Blocked {
    /// The home directory, a program or a keys file.
    pub path: PathBuf,
    /// The directory above it that the account cannot search, or the path itself.
    pub at: ResolvedPath,
    /// Whether `at` is a directory.
    pub directory: bool,
}

/// A file or directory of the site that the account cannot use.
#[derive(Debug)]
pub struct Unusable {
    pub path: PathBuf,
    /// Its owner.
    pub uid: u32,
    pub fault: UnusableFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnusableFault {
    /// Its owner or its mode denies the access.
    Denied,
    /// Its file system is mounted read-only.
    ReadOnly,
    /// It is not a regular file.
    NotAFile,
}

/// Why the journal cannot be read.
#[derive(Debug)]
pub struct JournalFault {
    /// A newer version wrote it. Otherwise it is damaged, or cannot be opened.
    pub is_newer: bool,
    pub error: Error,
}

/// What is live, and what `releases/` contains besides received releases.
#[derive(Debug)]
pub struct Releases {
    pub current: Current,
    /// Names that no request has received. The live release is not among them.
    pub not_received: Vec<String>,
    /// Releases of the journal without a manifest. The live one is not among them.
    pub without_manifest: Vec<ReleaseId>,
    /// Other symlinks in the root that lead to a release, and the release.
    pub other_links: Vec<(OsString, ReleaseId)>,
    /// The journal has a release that was live. Then `adopt` has nothing to take over.
    pub had_swaps: bool,
    /// There are releases, and no journal.
    pub journal_missing: bool,
    /// The release that was live last, other than the live one; or one that was never
    /// live. None is bad.
    pub fallback: Option<ReleaseId>,
}

/// What the `current` symlink is.
#[derive(Debug)]
pub enum Current {
    /// It does not exist.
    Nothing,
    /// A symlink to `releases/<release>`.
    Release {
        release: ReleaseId,
        has_directory: bool,
        has_manifest: bool,
    },
    Directory,
    /// A regular file or another file that is no directory.
    OtherFile,
    /// A symlink to something else, such as an absolute path.
    Elsewhere {
        target: String,
        leads_somewhere: bool,
        /// The directory in `releases/` that it leads to, in another spelling, and whether
        /// that is a received release.
        leads_to_release: Option<(ReleaseId, bool)>,
    },
}

/// The web server's account, and what it can read.
#[derive(Debug)]
pub struct Reader {
    pub name: String,
    pub access: ReaderAccess,
}

#[derive(Debug)]
pub enum ReaderAccess {
    /// There is no account of that name.
    Unknown,
    /// It cannot search this directory above the releases.
    Blocked(ResolvedPath),
    /// It cannot read this file or search this directory of the live release, and so
    /// many more.
    Denied { first: PathBuf, more: usize },
    /// It can read the live release; `None` if nothing is live.
    Full(Option<ReleaseId>),
}
