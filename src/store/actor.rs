//! Who changes the site: for the journal, and for the note in the lock.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use ssh_key::Fingerprint;

use super::notice::NoticeLog;
use crate::names::KeyLabel;
use crate::policy::Verb;

/// One client's request, or the operator's program, as far as the store records it.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The operator's name for the key, from argv.
    pub key: Option<KeyLabel>,
    /// The key's fingerprint, as sshd reports it.
    pub fingerprint: Option<Fingerprint>,
    /// The client's address.
    pub client: Option<IpAddr>,
    pub task: Task,
    /// When the request began; None for the operator's program.
    pub started: Option<Instant>,
    /// Takes what this actor does or finds, before the journal has it.
    pub notices: NoticeLog,
}

/// What changes the site.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// A request.
    Verb(Verb),
    /// A subcommand of the operator's program.
    Command(&'static str),
}

impl Actor {
    /// Returns the actor of a subcommand of `deploy-shell-admin`.
    pub fn operator(command: &'static str, notices: NoticeLog) -> Actor {
        Actor {
            key: None,
            fingerprint: None,
            client: None,
            task: Task::Command(command),
            started: None,
            notices,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map_or("-", |key| key.as_str());
        match self.task {
            Task::Verb(verb) => write!(f, "{verb} by key '{key}'"),
            Task::Command(command) => write!(f, "{command} by the operator"),
        }
    }
}
