//! Trying out, as the account itself, what a request would meet. The last
//! thing that is done: root becomes the account for it, and then the process
//! confines itself, neither of which can be taken back.

use std::ffi::CString;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use nix::unistd::{Gid, Uid, geteuid, initgroups, setgid, setgroups, setuid};

use super::facts::{Account, Probe};
use deploy_shell::config::Config;
use deploy_shell::error::describe;
use deploy_shell::policy::Verb;
use deploy_shell::privileges;
use deploy_shell::receive;
use deploy_shell::sandbox::Enforcement;
use deploy_shell::store::Store;

/// Tries everything out. What cannot be tried is added to `unseen`.
pub fn all(
    path: &Path,
    config: &Config,
    account: Option<&Account>,
    unseen: &mut Vec<String>,
) -> Probe {
    let mut probe = Probe::default();
    let Some(account) = account else {
        // Whatever keeps us from telling whose the site is: this names it.
        probe.layout = Store::open(config).err();
        return probe;
    };
    if let Err(why) = switch(account) {
        unseen.push(format!(
            "what the account meets, and what confines it: {why}"
        ));
        return probe;
    }
    probe.config = Config::load(path).err();
    probe.socket = reach(&config.audit.socket)
        .err()
        .map(|error| describe(&error));
    let store = match Store::open(config) {
        Ok(store) => store,
        Err(error) => {
            probe.layout = Some(error);
            unseen.push("what confines a request: the site cannot be opened".to_owned());
            return probe;
        }
    };
    probe.shared = store.shared_faults(&config.shared);
    probe.unnamed = store
        .incoming
        .unnamed_file()
        .err()
        .map(|errno| describe(&errno.into()));
    match unpacker(&config.root) {
        Ok(on) => probe.unpacker = Some(on),
        Err(why) => unseen.push(format!("what confines the unpacker: {why}")),
    }
    // Every verb's process confines itself by the same means; that of `list`
    // leaves us what is left to do, which is to print.
    probe.monitor = Some(privileges::restrict_monitor(Verb::List, &store, &[]));
    probe
}

/// Makes this process the account's, if it is not.
fn switch(account: &Account) -> Result<(), String> {
    let (ours, uid) = (geteuid(), Uid::from_raw(account.uid));
    if ours == uid {
        return Ok(());
    }
    let name = account.name();
    if !ours.is_root() {
        return Err(format!("run check as root or as '{name}'"));
    }
    let entry = account.entry.as_ref().ok_or("it has no passwd entry")?;
    let user = nix::unistd::User::from_name(&entry.name).ok().flatten();
    let gid = user.map_or(Gid::from_raw(account.uid), |user| user.gid);
    let groups = match CString::new(entry.name.as_str()) {
        Ok(name) => initgroups(&name, gid),
        Err(_) => setgroups(&[gid]),
    };
    groups
        .and_then(|()| setgid(gid))
        .and_then(|()| setuid(uid))
        .map_err(|errno| format!("cannot become '{name}': {}", describe(&errno.into())))
}

/// Connects to a datagram or stream socket, and sends nothing.
fn reach(socket: &Path) -> std::io::Result<()> {
    match UnixDatagram::unbound()?.connect(socket) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EPROTOTYPE) => {
            UnixStream::connect(socket).map(drop)
        }
        other => other,
    }
}

/// Returns the sandbox that an unpacker of the installed `deploy-shell` reports.
fn unpacker(root: &Path) -> Result<Enforcement, String> {
    let program = crate::program::deploy_shell().map_err(|error| error.problem)?;
    receive::probe_unpacker_sandbox(&program, &root.join(".deploy-shell/incoming"))
        .map_err(|error| error.problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let _datagram = UnixDatagram::bind(path("datagram")).unwrap();
        let _stream = UnixListener::bind(path("stream")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        assert!(reach(&path("datagram")).is_ok());
        assert!(reach(&path("stream")).is_ok());
        for bad in ["file", "none"] {
            assert!(reach(&path(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_root_becomes_another_account() {
        let account = |uid: u32| Account {
            uid,
            entry: None,
            twins: Vec::new(),
            groups: Vec::new(),
            password: None,
            home: super::super::facts::HomeFolder::default(),
        };
        assert_eq!(switch(&account(geteuid().as_raw())), Ok(()));
        // Root cannot either, without an entry that says which groups.
        assert!(switch(&account(54_321)).is_err());
    }
}
