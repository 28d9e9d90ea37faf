//! Facts about the keys and certificates that log in.

use std::fmt;
use std::path::{Path, PathBuf};

use ssh_key::Fingerprint;

use super::ResolvedPath;
use crate::check::authorized_keys::AuthorizedKey;
use crate::check::key_options::KeyOptions;
use deploy_shell::names::{KeyLabel, SiteName};
use deploy_shell::policy::Grants;

/// A file from which sshd reads keys.
#[derive(Debug)]
pub struct KeysFile {
    pub location: ResolvedPath,
    /// Whether this process could read it, if it exists.
    pub was_read: bool,
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
