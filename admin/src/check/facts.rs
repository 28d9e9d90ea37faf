//! What `check` gathers before it judges anything. Plain data: the gathering
//! modules do I/O, and the rules do none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ssh_key::Fingerprint;

use super::authorized_keys::AuthorizedKey;
use super::key_options::KeyOptions;
use deploy_shell::config::Config;
use deploy_shell::error::Error;
use deploy_shell::names::{KeyLabel, ReleaseId, SiteName};
use deploy_shell::policy::Grants;
use deploy_shell::sandbox::Enforcement;
use deploy_shell::store::shared_dir::Fault;

/// Everything that the rules and the report read.
#[derive(Debug)]
pub struct Facts {
    pub config_path: PathBuf,
    pub config: Config,
    pub paths: SitePaths,
    /// Each path by which the account or a key runs `deploy-shell`.
    pub programs: Vec<InstalledProgram>,
    /// The account that serves the site; `None` where its owner is unknown.
    pub account: Option<Account>,
    /// sshd's settings for the account; `None` where sshd gave no answer.
    pub sshd: Option<SshdSettings>,
    /// Why sshd gave no answer.
    pub sshd_failure: Option<String>,
    pub certificates: Certificates,
    /// The files from which sshd reads the account's keys, in sshd's order.
    pub keys_files: Vec<KeysFile>,
    pub filesystem: Filesystem,
    /// Whether the sessions of the account are known to have a cgroup that it may divide.
    pub delegated_cgroup: bool,
    /// The web server's account; `None` if none is configured, or if it was not tried.
    pub reader: Option<Reader>,
    pub probe: AccountProbe,
    /// What could not be checked, and why. These are not findings.
    pub not_checked: Vec<String>,
}

/// A path with every component on the way to its end, symlinks followed, from
/// `/` on.
#[derive(Clone, Debug)]
pub struct ResolvedPath {
    pub path: PathBuf,
    pub components: Vec<PathComponent>,
    pub resolution: Resolution,
}

/// How far a path could be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// To its end.
    Complete,
    /// There is no file of that name.
    Missing,
    /// A component could not be looked at, for this reason.
    NotChecked(String),
}

/// One directory, symlink or file on the way to the end of a path.
#[derive(Clone, Debug)]
pub struct PathComponent {
    pub path: PathBuf,
    pub uid: u32,
    pub mode: u32,
    pub kind: ComponentKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentKind {
    Directory,
    Symlink,
    Other,
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

/// The deploy account: the owner of the site's state directory.
#[derive(Debug)]
pub struct Account {
    pub uid: u32,
    /// Its entry in the user database.
    pub passwd: Option<PasswdEntry>,
    /// Other names of the same uid in /etc/passwd.
    pub uid_aliases: Vec<String>,
    /// The names of its groups.
    pub groups: Vec<String>,
    /// `None` where it could not be checked.
    pub password: Option<PasswordState>,
    pub home: HomeDirectory,
}

#[derive(Clone, Debug)]
pub struct PasswdEntry {
    pub name: String,
    /// The primary group.
    pub gid: u32,
    pub shell: PathBuf,
    pub home: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordState {
    /// No password matches.
    Locked,
    Empty,
    Set,
}

/// What is in the account's home directory, if it exists.
#[derive(Debug, Default)]
pub struct HomeDirectory {
    pub location: Option<ResolvedPath>,
    pub ssh: Option<ResolvedPath>,
    pub has_rc: bool,
    pub has_environment: bool,
    /// The keys files in `~/.ssh`, whether or not sshd reads them.
    pub keys_files: Vec<PathBuf>,
}

/// The output of `sshd -T`: keywords in lower case, with their values in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshdSettings(pub BTreeMap<String, Vec<String>>);

impl SshdSettings {
    /// Returns the only or first value of `keyword`. `sshd -T` omits some
    /// keywords that are not set.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword)?.first().map(String::as_str)
    }

    pub fn all(&self, keyword: &str) -> &[String] {
        self.0.get(keyword).map_or(&[], Vec::as_slice)
    }

    /// Returns whether `keyword` is set to anything but `no` or `none`.
    pub fn is_on(&self, keyword: &str) -> bool {
        self.get(keyword)
            .is_some_and(|value| !matches!(value, "no" | "none" | ""))
    }
}

/// A file from which sshd reads keys.
#[derive(Debug)]
pub struct KeysFile {
    pub location: ResolvedPath,
    pub lines: Vec<KeysFileLine>,
}

/// A line of a keys file that is neither empty nor a comment.
#[derive(Debug)]
pub struct KeysFileLine {
    pub number: usize,
    /// The key, or why it cannot be read.
    pub key: Result<Key, &'static str>,
}

#[derive(Debug)]
pub struct Key {
    pub entry: AuthorizedKey,
    pub command: ForcedCommand,
}

/// What decides which certificates log in.
#[derive(Debug, Default)]
pub struct Certificates {
    /// TrustedUserCAKeys and AuthorizedPrincipalsFile.
    pub files: Vec<PathBuf>,
    pub authorities: Vec<Authority>,
    /// The lines of AuthorizedPrincipalsFile that are neither empty nor a comment.
    pub principals: Vec<Principal>,
}

/// A key of TrustedUserCAKeys.
#[derive(Debug)]
pub struct Authority {
    pub file: PathBuf,
    pub line: usize,
    pub fingerprint: Fingerprint,
}

/// A line of AuthorizedPrincipalsFile.
#[derive(Debug)]
pub struct Principal {
    pub file: PathBuf,
    pub line: usize,
    /// The name, its options and its command, or why the line cannot be read.
    pub entry: Result<(String, KeyOptions, ForcedCommand), &'static str>,
}

impl Principal {
    pub fn position(&self) -> KeyPosition<'_> {
        KeyPosition {
            file: &self.file,
            line: self.line,
        }
    }
}

/// What the `command=` of a key runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForcedCommand {
    /// The key has no `command=`.
    None,
    Serve(ServeCommand),
    /// It runs `deploy-shell`, with arguments that are no valid `serve`.
    NotServe,
    /// It runs another program, or nothing.
    OtherProgram,
    /// It has characters with a meaning to a shell.
    NotPlain,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeCommand {
    pub program: PathBuf,
    pub site: ServedSite,
    pub label: Option<KeyLabel>,
    pub allow: Grants,
}

/// The site that a forced command serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServedSite {
    /// The site that this run of `check` is about.
    This,
    Other(SiteName),
    /// Its configuration does not exist.
    Missing(PathBuf),
    /// Its configuration does not load here. It may load for the account.
    Unreadable(PathBuf),
}

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

impl Facts {
    /// Iterates over the keys that could be read, each with its position.
    pub fn keys(&self) -> impl Iterator<Item = (KeyPosition<'_>, &Key)> {
        self.keys_files.iter().flat_map(|file| {
            file.lines.iter().filter_map(|line| {
                let key = line.key.as_ref().ok()?;
                Some((KeyPosition::new(file, line), key))
            })
        })
    }

    /// Returns the account's entry in the user database, where it is known.
    pub fn passwd(&self) -> Option<&PasswdEntry> {
        self.account.as_ref()?.passwd.as_ref()
    }

    /// Returns the account's name, or its uid where it has none.
    pub fn account_name(&self) -> String {
        match &self.account {
            Some(account) => account.name(),
            None => "the account".to_owned(),
        }
    }

    /// Returns whether the account's login shell is `deploy-shell`.
    pub fn login_shell_is_deploy_shell(&self) -> bool {
        self.passwd()
            .is_some_and(|entry| is_deploy_shell(&entry.shell))
    }
}

impl Account {
    /// Returns an account of which only the uid is known.
    pub fn of_uid(uid: u32) -> Account {
        Account {
            uid,
            passwd: None,
            uid_aliases: Vec::new(),
            groups: Vec::new(),
            password: None,
            home: HomeDirectory::default(),
        }
    }

    pub fn name(&self) -> String {
        match &self.passwd {
            Some(entry) => entry.name.clone(),
            None => format!("uid {}", self.uid),
        }
    }
}

/// The file and the line of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPosition<'a> {
    pub file: &'a Path,
    pub line: usize,
}

impl<'a> KeyPosition<'a> {
    pub fn new(file: &'a KeysFile, line: &KeysFileLine) -> KeyPosition<'a> {
        KeyPosition {
            file: &file.location.path,
            line: line.number,
        }
    }
}

impl fmt::Display for KeyPosition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file.display(), self.line)
    }
}

/// Returns whether a path has the file name of `deploy-shell`.
pub fn is_deploy_shell(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "deploy-shell")
}
