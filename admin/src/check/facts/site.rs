//! Facts about the site: its file system, its releases, and what a request of the
//! account would meet.

use std::path::PathBuf;

use deploy_shell::error::Error;
use deploy_shell::names::ReleaseId;
use deploy_shell::sandbox::Enforcement;
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
    Blocked(PathBuf),
    /// It cannot read this file or search this directory of the live release, and so
    /// many more.
    Denied { first: PathBuf, more: usize },
    /// It can read the live release; `None` if nothing is live.
    Full(Option<ReleaseId>),
}
