//! Tries out what a request of the account would meet.
//!
//! This comes last. For it, root becomes the account, and the process then enters
//! the sandbox of a request; neither can be undone.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, geteuid, initgroups, setgid, setgroups, setuid};

use super::SHARED_LIMIT;
use super::access::{Need, blocked, unusable_entries};
use super::facts::{Account, AccountProbe, JournalFault, ResolvedPath};
use super::filesystem::Mounts;
use super::releases::examine_releases;
use super::rules::first_writable;
use crate::bridge;
use crate::own_session;
use deploy_shell::audit;
use deploy_shell::config::{Argv, Config};
use deploy_shell::error::{Code, describe};
use deploy_shell::hooks;
use deploy_shell::look_up;
use deploy_shell::policy::Verb;
use deploy_shell::privileges;
use deploy_shell::receive;
use deploy_shell::sandbox::Enforcement;
use deploy_shell::store::history::History;
use deploy_shell::store::journal::Unreadable;
use deploy_shell::store::layout::{INCOMING, JOURNAL, STATE};
use deploy_shell::store::shared_dir::Fault;
use deploy_shell::store::{Store, journal, ledger};

/// Tries everything out as the account; `needed` are the files on the way to a request.
/// Adds to `not_checked` what it cannot try.
pub fn probe_as_account(
    config_path: &Path,
    config: &Config,
    program: &ResolvedPath,
    account: Option<&Account>,
    needed: &[(PathBuf, Need)],
    mounts: &Mounts,
    not_checked: &mut Vec<String>,
) -> AccountProbe {
    let mut probe = AccountProbe::default();
    let Some(account) = account else {
        // The layout's error says why the account is unknown.
        probe.layout = Store::open(config).err();
        return probe;
    };
    // Root executes nothing that another user can replace, not even as the account: a
    // file of the account would also decide what `check` reports.
    let replaceable = geteuid().is_root() && first_writable(&program.components, &[0]).is_some();
    if let Err(why) = become_account(account, "check") {
        not_checked.push(format!("what the account can do, and its sandbox: {why}"));
        return probe;
    }
    probe.config = Config::load(config_path).err();
    probe.socket = audit::connect(config).err().map(|error| describe(&error));
    let needed = needed.iter();
    probe.blocked = needed
        .filter_map(|(path, need)| blocked(path, *need))
        .collect();
    probe.hooks = unusable_hooks(config);
    probe.unusable = unusable_entries(config, mounts);
    let store = match Store::open(config) {
        Ok(store) => store,
        Err(error) => {
            probe.layout = Some(error);
            not_checked.push("the sandbox: the site cannot be opened".to_owned());
            return probe;
        }
    };
    // Again, as the account: root may be refused at once where the account waits.
    let shared = super::paths_in_shared(config);
    match look_up::look_up(&store.root, store.path(), &shared, SHARED_LIMIT) {
        Ok(found) => probe.shared = store.shared_faults(shared.iter().zip(found)),
        Err(error) if error.code == Code::Timeout => {
            let missing = false;
            probe.shared = vec![Fault { missing, error }];
        }
        Err(error) => not_checked.push(format!("the shared paths: {}", error.problem)),
    }
    match store.removals_pending() {
        Ok(removing) => probe.removing = removing,
        Err(error) => not_checked.push(format!("what is in the trash: {error}")),
    }
    probe.unnamed_file = store
        .incoming
        .tmpfile()
        .err()
        .map(|errno| describe(&errno.into()));
    probe.room = Some(store.room(config.limits.reserve));
    read_records(&store, config, &mut probe, not_checked);
    let sandbox = if replaceable {
        let shown = program.path.display();
        Err(format!("another user than root can replace '{shown}'"))
    } else {
        unpacker_sandbox(&program.path, &config.root)
    };
    match sandbox {
        Ok(sandbox) => probe.unpacker = Some(sandbox),
        Err(why) => not_checked.push(format!("the sandbox of the unpacker: {why}")),
    }
    // The process of each verb enters its sandbox by the same calls. That of
    // `list` still lets this process print.
    probe.monitor = Some(privileges::restrict_to_verb(
        Verb::List,
        &store,
        &[],
        &config.audit.socket,
    ));
    probe
}

/// Returns the programs of hooks and checks that exist and that this process cannot start.
/// A missing one is a finding that needs no account.
fn unusable_hooks(config: &Config) -> Vec<(PathBuf, String)> {
    let programs: BTreeSet<&Path> = config.commands().map(Argv::program).collect();
    let existing = programs.into_iter().filter(|program| program.exists());
    let faulty = existing.filter_map(|program| {
        let fault = hooks::check_program(program, &config.root).err()?;
        Some((program.to_owned(), fault.why().to_owned()))
    });
    faulty.collect()
}

/// Reads the journal, and compares it with what is on disk.
fn read_records(
    store: &Store,
    config: &Config,
    probe: &mut AccountProbe,
    not_checked: &mut Vec<String>,
) {
    let mut history = History::default();
    // Not as a request reads it: that fails on a 'current' which is not ours.
    if let Err(error) = journal::read_journal(store, |entry| history.take(entry)) {
        let is_newer = is_of_a_newer_version(store);
        probe.journal = Some(JournalFault { is_newer, error });
        return;
    }
    let latest = history.latest();
    probe.future_record = (latest > journal::now()).then(|| latest.to_string());
    match examine_releases(store, config, &history) {
        Ok(releases) => probe.releases = Some(releases),
        Err(why) => not_checked.push(format!("what is live, and what is in 'releases': {why}")),
    }
    // The rules report a 'current' that is not ours.
    if store.current().is_ok() {
        probe.used_ids = ledger::read_unlocked(store).err();
        match bridge::examine(config, store) {
            Ok(state) => probe.bridge = Some(state),
            Err(error) => not_checked.push(format!("the bridge: {}", error.problem)),
        }
    }
}

/// Returns whether a newer version of this program wrote the journal.
fn is_of_a_newer_version(store: &Store) -> bool {
    let mut bytes = Vec::new();
    let file = store.state.open_file(JOURNAL);
    let read = file.map(|file| file.take(journal::MAX_LEN).read_to_end(&mut bytes));
    matches!(read, Ok(Ok(_)))
        && matches!(
            journal::read_bytes(&bytes, |_| ()),
            Err(Unreadable::Newer { .. })
        )
}

/// Changes this process's user and groups to the account's, if they differ. `command` is
/// the subcommand that needs it.
pub(crate) fn become_account(account: &Account, command: &str) -> Result<(), String> {
    let (effective, uid) = (geteuid(), Uid::from_raw(account.uid));
    if effective == uid {
        return Ok(());
    }
    let name = account.name();
    if !effective.is_root() {
        return Err(format!("run {command} as root or as '{name}'"));
    }
    let entry = account.passwd.as_ref().ok_or("it has no passwd entry")?;
    let gid = Gid::from_raw(entry.gid);
    let groups = match CString::new(entry.name.as_str()) {
        Ok(name) => initgroups(&name, gid),
        Err(_) => setgroups(&[gid]),
    };
    groups
        .and_then(|()| setgid(gid))
        .and_then(|()| setuid(uid))
        .inspect(|()| own_session::end_with_parent())
        .map_err(|errno| format!("cannot become '{name}': {}", describe(&errno.into())))
}

/// Returns the sandbox that an unpacker of `program` reports.
fn unpacker_sandbox(program: &Path, root: &Path) -> Result<Enforcement, String> {
    receive::probe_unpacker_sandbox(program, &root.join(STATE).join(INCOMING))
        .map_err(|error| format!("'{}': {}", program.display(), error.problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_becomes_another_account() {
        assert_eq!(
            become_account(&Account::of_uid(geteuid().as_raw()), "check"),
            Ok(())
        );
        // Not even root can, without an entry that has the groups.
        assert!(become_account(&Account::of_uid(54_321), "check").is_err());
    }

    #[test]
    fn a_program_that_cannot_be_started_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join(STATE).join(INCOMING)).unwrap();
        let program = root.join("deploy-shell");
        for problem in ["no such file", "permission denied"] {
            let why = unpacker_sandbox(&program, root).unwrap_err();
            assert!(why.contains(problem), "{why}");
            assert!(why.contains(program.to_str().unwrap()), "{why}");
            // There, but not executable.
            std::fs::write(&program, "").unwrap();
        }
    }
}
