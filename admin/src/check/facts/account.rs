//! Facts about the deploy account, and what sshd allows it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::ResolvedPath;

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
    /// `None` where it could not be checked.
    pub aging: Option<Aging>,
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
    /// No password matches, and the account itself is locked (`!`, passwd(1)).
    AccountLocked,
    Empty,
    Set,
}

/// The dates of shadow(5), in days since 1970; `None` where a field is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aging {
    pub today: i64,
    pub last_change: Option<i64>,
    pub max_age: Option<i64>,
    pub expires: Option<i64>,
}

/// What is in the account's home directory, if it exists.
#[derive(Debug, Default)]
pub struct HomeDirectory {
    /// It does not exist.
    pub is_missing: bool,
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

impl Account {
    /// Returns an account of which only the uid is known.
    pub fn of_uid(uid: u32) -> Account {
        Account {
            uid,
            passwd: None,
            uid_aliases: Vec::new(),
            groups: Vec::new(),
            password: None,
            aging: None,
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
