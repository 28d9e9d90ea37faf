//! Who changes the site: for the journal, and for the note in the lock.

use std::net::IpAddr;

use ssh_key::Fingerprint;

use crate::names::KeyLabel;
use crate::policy::Verb;

/// One client's request, as far as the store records it.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The operator's name for the key, from argv.
    pub key: Option<KeyLabel>,
    /// The key's fingerprint, as sshd reports it.
    pub fingerprint: Option<Fingerprint>,
    /// The client's address.
    pub client: Option<IpAddr>,
    pub verb: Verb,
}
