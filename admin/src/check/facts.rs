//! What `check` gathers before it judges anything. Plain data: the gathering
//! modules do I/O, and the rules do none.

mod account;
mod keys;
mod paths;
mod site;

use std::path::{Path, PathBuf};

use deploy_shell::config::Config;
use deploy_shell::shell_word::Word;

pub use account::*;
pub use keys::*;
pub use paths::*;
pub use site::*;

/// Everything that the rules and the report read.
#[derive(Debug)]
pub struct Facts {
    pub config_path: PathBuf,
    pub config: Config,
    pub paths: SitePaths,
    /// The `deploy-shell` beside this program.
    pub program: PathBuf,
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
    /// Those of the two files of nologin(5) that exist.
    pub nologin_files: Vec<PathBuf>,
    /// The script of all users that sshd runs at each login (sshd(8)), if there is one.
    pub system_rc: Option<PathBuf>,
    pub filesystem: Filesystem,
    /// Whether the sessions of the account are known to have a cgroup that it may divide.
    pub delegated_cgroup: bool,
    /// The web server's account; `None` if none is configured, or if it was not tried.
    pub reader: Option<Reader>,
    pub probe: AccountProbe,
    /// What could not be checked, and why. These are not findings.
    pub not_checked: Vec<String>,
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

    /// Returns the account as a command takes it: its name, or its uid where it has none.
    pub fn account_word(&self) -> Word {
        Word::new(self.account_login())
    }

    /// As [`Facts::account_word`], for a part of a word.
    pub fn account_login(&self) -> String {
        match &self.account {
            Some(account) if account.passwd.is_none() => account.uid.to_string(),
            _ => self.account_name(),
        }
    }

    /// Returns whether the account's login shell is `deploy-shell`.
    pub fn login_shell_is_deploy_shell(&self) -> bool {
        self.passwd()
            .is_some_and(|entry| is_deploy_shell(&entry.shell))
    }
}

/// Returns whether a path has the file name of `deploy-shell`.
pub fn is_deploy_shell(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "deploy-shell")
}
