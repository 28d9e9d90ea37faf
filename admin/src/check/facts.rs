//! What was found out, before anything is judged. Plain data: whoever gathers
//! it does I/O, whoever judges it does none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::authorized_keys::KeyLine;
use deploy_shell::config::Config;
use deploy_shell::error::Error;
use deploy_shell::names::{KeyLabel, SiteName};
use deploy_shell::policy::Grants;
use deploy_shell::sandbox::Enforcement;
use deploy_shell::store::shared_dir::Fault;

/// Everything.
#[derive(Debug)]
pub struct Facts {
    /// The configuration's path.
    pub path: PathBuf,
    pub config: Config,
    pub places: Places,
    /// This program, as far as an account or a key runs it by some path.
    pub programs: Vec<Program>,
    /// The account that serves the site; none if it could not be told.
    pub account: Option<Account>,
    /// What sshd says holds for the account; none if it could not be asked.
    pub server: Option<Settings>,
    /// The files that sshd reads keys from, in its order.
    pub sources: Vec<Source>,
    pub disk: Disk,
    pub probe: Probe,
    /// What could not be seen, and why. Not findings.
    pub unseen: Vec<String>,
}

/// Every component of a path, links followed, from `/` on.
#[derive(Clone, Debug)]
pub struct Way {
    pub path: PathBuf,
    pub steps: Vec<Step>,
    /// Whether it could be followed to its end.
    pub end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Reached,
    /// There is nothing of that name.
    Missing,
    /// It could not be looked at, in the system's words.
    Unseen(String),
}

/// One component.
#[derive(Clone, Debug)]
pub struct Step {
    pub path: PathBuf,
    pub uid: u32,
    pub mode: u32,
    pub kind: StepKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    Folder,
    Link,
    Other,
}

/// The paths that matter whoever the account is.
#[derive(Debug)]
pub struct Places {
    pub config: Way,
    /// The list of signers, if the site asks for signatures.
    pub signers: Option<Way>,
    /// The programs of hooks and of the health check.
    pub hooks: Vec<Way>,
    pub root: Way,
    /// The folders below the root that we rely on.
    pub below: Vec<Way>,
    /// What every release leads to, in `shared/`.
    pub shared: Vec<Way>,
    pub socket: Way,
    /// What sshd reads, and the folders of what it includes.
    pub sshd_config: Vec<Way>,
}

/// A path by which this program, or one of its name, is run.
#[derive(Debug)]
pub struct Program {
    pub way: Way,
    /// Whether it is byte for byte the program that runs this check.
    pub same: bool,
}

/// The deploy account: the owner of the site's state folder.
#[derive(Debug)]
pub struct Account {
    pub uid: u32,
    /// Its passwd entry.
    pub entry: Option<Entry>,
    /// Other names with the same uid in /etc/passwd.
    pub twins: Vec<String>,
    /// The groups it is in.
    pub groups: Vec<String>,
    /// None: could not be seen.
    pub password: Option<Password>,
    pub home: HomeFolder,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub shell: PathBuf,
    pub home: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Password {
    /// No password matches.
    Locked,
    Empty,
    Set,
}

/// What is in the account's home folder, if it has one.
#[derive(Debug, Default)]
pub struct HomeFolder {
    pub way: Option<Way>,
    pub ssh: Option<Way>,
    pub rc: bool,
    pub environment: bool,
    /// Keys files in `~/.ssh`, whether or not sshd reads them.
    pub keys: Vec<PathBuf>,
}

/// `sshd -T`: keywords in lower case, with their values in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(pub BTreeMap<String, Vec<String>>);

impl Settings {
    /// A keyword's only or first value; `sshd -T` leaves out what is unset.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword)?.first().map(String::as_str)
    }

    pub fn all(&self, keyword: &str) -> &[String] {
        self.0.get(keyword).map_or(&[], Vec::as_slice)
    }

    /// Whether it is set to anything but `no` or `none`.
    pub fn on(&self, keyword: &str) -> bool {
        self.get(keyword)
            .is_some_and(|value| !matches!(value, "no" | "none" | ""))
    }
}

/// A file of keys.
#[derive(Debug)]
pub struct Source {
    pub way: Way,
    pub lines: Vec<Line>,
}

/// A line of it that is neither empty nor a comment.
#[derive(Debug)]
pub struct Line {
    pub number: usize,
    /// Or why it cannot be read.
    pub key: Result<Key, &'static str>,
}

#[derive(Debug)]
pub struct Key {
    pub line: KeyLine,
    pub runs: Runs,
}

/// What a key's `command=` runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// There is none.
    Anything,
    Serve(Serve),
    /// This program, and not its `serve`, or in a way that it does not take.
    NotServe,
    /// Another program, or several.
    Other,
    /// It has characters that a shell gives a meaning to.
    Obscure,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    pub program: PathBuf,
    pub site: Site,
    pub key: Option<KeyLabel>,
    pub allow: Grants,
}

/// The site that a forced command serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Site {
    This,
    Other(SiteName),
    /// There is no such configuration.
    None(PathBuf),
    /// Its configuration does not load here; for the account it may.
    Unread(PathBuf),
}

/// The file system of the site.
#[derive(Debug, Default)]
pub struct Disk {
    /// The kind of network file system it is on.
    pub network: Option<&'static str>,
    /// Folders below the root that are on another file system.
    pub elsewhere: Vec<PathBuf>,
    /// Folders in which names differ only by case.
    pub folding: Vec<PathBuf>,
}

/// What the account itself meets, tried out as that account.
#[derive(Debug, Default)]
pub struct Probe {
    /// Why it cannot read the configuration.
    pub config: Option<Error>,
    /// Why it cannot open the site.
    pub layout: Option<Error>,
    /// What it finds wrong with the shared paths.
    pub shared: Vec<Fault>,
    /// Why it cannot make an unnamed file.
    pub unnamed: Option<String>,
    /// Why it cannot reach the audit socket.
    pub socket: Option<String>,
    /// What confined the unpacker, and the monitor; none if not tried.
    pub unpacker: Option<Enforcement>,
    pub monitor: Option<Enforcement>,
}

impl Facts {
    /// The keys that could be read, each with its file.
    pub fn keys(&self) -> impl Iterator<Item = (Place<'_>, &Key)> {
        self.sources.iter().flat_map(|source| {
            source.lines.iter().filter_map(|line| {
                let key = line.key.as_ref().ok()?;
                Some((Place::of(source, line), key))
            })
        })
    }

    /// The account's name, or its uid where it has none.
    pub fn account_name(&self) -> String {
        match &self.account {
            Some(account) => account.name(),
            None => "the account".to_owned(),
        }
    }

    /// Whether the account's login shell is this program.
    pub fn shell_is_ours(&self) -> bool {
        let entry = self.account.as_ref().and_then(|it| it.entry.as_ref());
        entry.is_some_and(|entry| named_ours(&entry.shell))
    }
}

impl Account {
    pub fn name(&self) -> String {
        match &self.entry {
            Some(entry) => entry.name.clone(),
            None => format!("uid {}", self.uid),
        }
    }
}

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub file: &'a Path,
    pub line: usize,
}

impl<'a> Place<'a> {
    pub fn of(source: &'a Source, line: &Line) -> Place<'a> {
        Place {
            file: &source.way.path,
            line: line.number,
        }
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} line {}", self.file.display(), self.line)
    }
}

/// Whether a path has this program's name.
pub fn named_ours(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "deploy-shell")
}
