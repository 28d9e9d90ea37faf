//! The client of a request: its key, its address and its command. Only this
//! module reads the environment, and only three variables, which sshd sets:
//!
//! - `SSH_ORIGINAL_COMMAND`, the request;
//! - `SSH_USER_AUTH`, the path of the file in which sshd names the key
//!   (`ExposeAuthInfo yes`, sshd_config(5));
//! - `SSH_CONNECTION`, the client's address.
//!
//! Only the request decides what happens. The other two are for the audit log:
//! authority comes from argv, which the operator wrote, and so does the key's
//! label.

mod certificate;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use nix::fcntl::OFlag;
use ssh_key::{Fingerprint, HashAlg, PublicKey};

use crate::names::KeyLabel;
use crate::policy::Verb;
use crate::store::{Actor, NoticeLog, Task};

pub use certificate::Certificate;

/// The maximum size of sshd's file, in bytes. sshd writes one line for each
/// authentication method that the client used. A certificate of 256 principals and long
/// options fits into a packet of 256 KiB (OpenSSH, packet.h), and the line has it in
/// base64. Few logins use more than one key.
const MAX_AUTH_INFO: u64 = 1 << 20;

/// One request and its client.
#[derive(Clone, Debug)]
pub struct Session {
    /// The operator's label for the key, from argv. Authoritative.
    pub key: Option<KeyLabel>,
    /// The key as sshd reports it: a cross-check in the audit log.
    pub login: Option<LoginKey>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// `SSH_ORIGINAL_COMMAND`, byte for byte; none for a login without a command.
    pub command: Option<Vec<u8>>,
}

/// What sshd's file says about the key of the login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginKey {
    Plain(Fingerprint),
    Certified(Certificate),
    /// sshd has removed the file: the client left before this process read it.
    Gone,
    /// The file is there, and this program does not read the key in it.
    Unreadable,
}

impl LoginKey {
    /// Returns the fingerprint, if it is known.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            LoginKey::Plain(fingerprint) => Some(*fingerprint),
            LoginKey::Certified(certificate) => Some(certificate.fingerprint),
            LoginKey::Gone | LoginKey::Unreadable => None,
        }
    }
}

impl Session {
    /// Reads the environment.
    #[expect(
        clippy::disallowed_methods,
        reason = "only this function reads the environment"
    )]
    pub fn from_environment(key: Option<KeyLabel>) -> Session {
        let client = std::env::var_os("SSH_CONNECTION");
        Session {
            key,
            login: std::env::var_os("SSH_USER_AUTH").and_then(|path| login_key(Path::new(&path))),
            client: client.and_then(|text| client_address(text.as_bytes())),
            command: std::env::var_os("SSH_ORIGINAL_COMMAND").map(OsStringExt::into_vec),
        }
    }

    /// Returns what the store records of this session's request, which began at
    /// `started`. `notices` takes what it does or finds.
    pub fn actor(&self, verb: Verb, started: Instant, notices: NoticeLog) -> Actor {
        Actor {
            key: self.key.clone(),
            fingerprint: self.login.as_ref().and_then(LoginKey::fingerprint),
            client: self.client,
            task: Task::Verb(verb),
            started: Some(started),
            notices,
        }
    }
}

/// Returns the first of the four words of `SSH_CONNECTION` if it is an IP
/// address. It is `UNKNOWN` if sshd does not run on a socket. A scope
/// (`fe80::1%eth0`) is dropped, so that only an address can reach a log.
fn client_address(text: &[u8]) -> Option<IpAddr> {
    let word = text.split(|byte| *byte == b' ').next()?;
    let address = word.split(|byte| *byte == b'%').next()?;
    std::str::from_utf8(address).ok()?.parse().ok()
}

/// Returns the key that sshd's file names; none for a login without a key.
fn login_key(path: &Path) -> Option<LoginKey> {
    // The path comes from the environment: do not wait for a fifo, follow no
    // symlink, and read only a file that this user owns. sshd writes the file as
    // this user.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(path);
    let file = match file {
        Ok(file) => file,
        // sshd names a file that exists, and removes it when the connection ends.
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_absolute() => {
            return Some(LoginKey::Gone);
        }
        Err(_) => return Some(LoginKey::Unreadable),
    };
    let Some(text) = own_text(file) else {
        return Some(LoginKey::Unreadable);
    };
    let key = text
        .lines()
        .find_map(|line| line.strip_prefix("publickey "))?;
    Some(parse_key(key).unwrap_or(LoginKey::Unreadable))
}

/// Returns the content of a regular file that this user owns.
fn own_text(file: File) -> Option<String> {
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.uid() != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let mut text = String::new();
    let limited = &mut file.take(MAX_AUTH_INFO + 1);
    let read = limited.read_to_string(&mut text).ok()?;
    (read as u64 <= MAX_AUTH_INFO).then_some(text)
}

/// Parses a key or a certificate in the form of a `.pub` file. sshd has accepted both
/// it and its signature, so nothing of it is verified here.
fn parse_key(text: &str) -> Option<LoginKey> {
    if let Ok(key) = PublicKey::from_openssh(text) {
        return Some(LoginKey::Plain(key.fingerprint(HashAlg::Sha256)));
    }
    certificate::parse(text).map(LoginKey::Certified)
}

/// Returns whether this process has no environment variable at all, as our parent
/// processes start their children.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the one place that reads the environment"
)]
pub fn environment_is_empty() -> bool {
    std::env::vars_os().next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ip_address_is_a_client_address() {
        let read = |text: &str| client_address(text.as_bytes()).map(|ip| ip.to_string());
        assert_eq!(
            read("192.0.2.7 50000 192.0.2.1 22").as_deref(),
            Some("192.0.2.7")
        );
        assert_eq!(
            read("2001:db8::7 1 2001:db8::1 22").as_deref(),
            Some("2001:db8::7")
        );
        assert_eq!(
            read("fe80::1%eth0 1 fe80::2 22").as_deref(),
            Some("fe80::1")
        );
        for bad in [
            "",
            "UNKNOWN 65535 UNKNOWN 65535",
            "1.2.3.4\" x=\"y",
            "host 1 2 3",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_fingerprint_is_that_of_the_key_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("auth");
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        std::fs::write(&note, format!("publickey {key}\n")).unwrap();
        let found = login_key(&note).unwrap().fingerprint().unwrap().to_string();
        assert!(found.starts_with("SHA256:") && found.len() == 50, "{found}");

        std::fs::write(&note, "password\n").unwrap();
        assert!(login_key(&note).is_none());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&note, &link).unwrap();
        let unreadable = Some(LoginKey::Unreadable);
        assert_eq!(login_key(&link), unreadable);
        assert_eq!(login_key(dir.path()), unreadable);
        std::fs::write(&note, "publickey ssh-new AAAA\n").unwrap();
        assert_eq!(login_key(&note), unreadable);
        std::fs::write(&note, vec![b'\n'; MAX_AUTH_INFO as usize]).unwrap();
        assert_eq!(login_key(&note), None);
        std::fs::write(&note, vec![b'\n'; MAX_AUTH_INFO as usize + 1]).unwrap();
        assert_eq!(login_key(&note), unreadable);
        assert_eq!(LoginKey::Unreadable.fingerprint(), None);
    }

    #[test]
    fn a_file_that_sshd_has_removed_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let removed = login_key(&dir.path().join("auth"));
        assert_eq!(removed, Some(LoginKey::Gone));
        assert_eq!(LoginKey::Gone.fingerprint(), None);
        for no_path in ["", "evil"] {
            let found = login_key(Path::new(no_path));
            assert_eq!(found, Some(LoginKey::Unreadable), "{no_path:?}");
        }
    }
}
