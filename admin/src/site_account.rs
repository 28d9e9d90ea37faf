//! The account that owns a site.

use std::os::unix::fs::MetadataExt;

use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setegid, seteuid, setgroups};

use crate::check::account::look_up_account;
use crate::check::paths::resolve_path;
use crate::check::probe::become_account;
use crate::check::{PathComponent, first_writable, is_deploy_shell};
use crate::init::Account as NamedAccount;
use crate::own_session;
use crate::user_mounts;
use deploy_shell::config::Config;
use deploy_shell::dir::Dir;
use deploy_shell::error::{Code, Error, Result, describe};
use deploy_shell::shell_word::Word;
use deploy_shell::store::Store;
use deploy_shell::store::layout::STATE;

/// The remedy where another user than root can put something else at the root.
pub const MOVE_THE_SITE: &str = "move the site, as Move a site in docs/maintenance.md says, below \
                                 directories of root's";

/// Changes root to the account that owns the site, for `command`. Then the files that it
/// makes are the account's, and root follows no path that the account controls.
///
/// # Errors
///
/// [`Code::Denied`] for any user but root and the account.
/// [`Code::BadLayout`] for a root below a directory that another user owns or can write, or on a
/// file system that a user has mounted; and [`Code::IoError`].
pub fn run_as_account(store: &Store, command: &str) -> Result<()> {
    let uid = owner(store)?;
    let resolved = resolve_path(store.path());
    require_fixed(first_writable(resolved.above(), &[0, uid]), MOVE_THE_SITE)?;
    become_user(uid, command)
}

/// As [`run_as_account`], for a command that changes nothing. It also works below a directory that
/// the group of root or of the account can write, which `check` reports.
///
/// # Errors
///
/// As [`run_as_account`].
pub fn look_as_account(store: &Store, command: &str) -> Result<()> {
    let uid = owner(store)?;
    let resolved = resolve_path(store.path());
    let foreign = resolved
        .above()
        .iter()
        .find(|it| ![0, uid].contains(&it.uid));
    let foreign = foreign.map(|it| (it, format!("belongs to user {}", it.uid)));
    require_fixed(foreign, MOVE_THE_SITE)?;
    become_user(uid, command)
}

/// Returns the uid of the account of an open site: see [`choose`].
fn owner(store: &Store) -> Result<u32> {
    let (of_root, of_state) = owners(store)?;
    Ok(choose(of_root, Some(of_state)))
}

/// Refuses a component above the root by which another user can replace the site, for root.
fn require_fixed(replaced_by: Option<(&PathComponent, String)>, remedy: &str) -> Result<()> {
    match replaced_by {
        Some((component, how)) if geteuid().is_root() => {
            let shown = component.path.display();
            let problem = format!("'{shown}' {how}, who can then replace the site's directory");
            Err(Error::new(Code::BadLayout, problem).remedy(remedy))
        }
        _ => Ok(()),
    }
}

/// Returns the owners of the root directory and of the state directory.
fn owners(store: &Store) -> Result<(u32, u32)> {
    let look = |directory: &Dir| {
        let stat = directory.metadata();
        stat.map_err(|errno| store.io("cannot look at the site", errno))
    };
    let (root, state) = (look(&store.root)?, look(&store.state)?);
    user_mounts::require_none(store.path(), root.st_dev)?;
    Ok((root.st_uid, state.st_uid))
}

/// Returns the uid of the account of a site that may be damaged, for `check`: see [`choose`].
///
/// # Errors
///
/// That of the first directory that cannot be looked at, or that a user has mounted.
pub fn owner_of_damaged(config: &Config) -> std::io::Result<u32> {
    let root = config.root.metadata()?;
    let of_root = root.uid();
    user_mounts::require_none(&config.root, root.dev())
        .map_err(|error| std::io::Error::other(error.problem))?;
    let state = config.root.join(STATE).symlink_metadata()?;
    Ok(choose(of_root, state.is_dir().then(|| state.uid())))
}

/// Returns the account that a command of root's acts as or gives files to, on a site that may be
/// damaged: `named`, or the owner of the root directory.
///
/// The account can put anything at the name `.deploy-shell`: a directory of another user, or a
/// file that another user has made in `shared`. It must not choose the user. So the owner of
/// `.deploy-shell` counts only if the root directory is root's and nobody else may write it.
/// `init` gives the root directory to the account. Nor may another user be able to put another
/// directory at the root: the account can own the directories above it.
///
/// # Errors
///
/// [`Code::BadLayout`] where the owners do not show the account, and [`Code::BadConfig`] for root
/// and for an unknown account.
pub fn named_or_shown(config: &Config, named: Option<&str>, command: &str) -> Result<NamedAccount> {
    if let Some(name) = named {
        return NamedAccount::named(name);
    }
    let option = config.site_option();
    let remedy = format!("name it: deploy-shell-admin {command} {option} --owner ACCOUNT");
    let look = |error: std::io::Error| {
        Error::io("cannot see whose the site is", error).remedy(remedy.clone())
    };
    let root = config.root.symlink_metadata().map_err(look)?;
    user_mounts::require_none(&config.root, root.dev())?;
    let state = config.root.join(STATE).symlink_metadata();
    let of_state = match &state {
        // The account can mount a file system there.
        Ok(state) if state.is_dir() && state.dev() == root.dev() => state.uid(),
        _ => 0,
    };
    let uid = match root.uid() {
        _ if !root.is_dir() => 0,
        0 if root.mode() & 0o022 == 0 => of_state,
        of_root if [0, of_root].contains(&of_state) => of_root,
        _ => 0,
    };
    if uid == 0 {
        let problem = "the owners of the root and of '.deploy-shell' do not show the account";
        return Err(Error::new(Code::BadLayout, problem).remedy(remedy));
    }
    let resolved = resolve_path(&config.root);
    require_fixed(first_writable(resolved.above(), &[0, uid]), &remedy)?;
    Ok(NamedAccount::of_uid(uid))
}

/// Returns the account of a site, by the owners of the root directory and of the state
/// directory, if that is one, and by whether a user logs in with deploy-shell.
///
/// The account can put a directory of another user in the place of the state directory. It
/// cannot change whose the root directory is.
fn choose(of_root: u32, of_state: Option<u32>) -> u32 {
    choose_by(of_root, of_state, logs_in)
}

/// Returns whether a user logs in with deploy-shell.
fn logs_in(uid: u32) -> bool {
    let account = look_up_account(uid, &mut Vec::new());
    (account.passwd).is_some_and(|entry| is_deploy_shell(&entry.shell))
}

fn choose_by(of_root: u32, of_state: Option<u32>, logs_in: impl Fn(u32) -> bool) -> u32 {
    match of_state {
        Some(uid) if uid == of_root || of_root == 0 => uid,
        // A root directory of the web server's, which the account may write, is no attack.
        Some(uid) if logs_in(uid) && !logs_in(of_root) => uid,
        _ => of_root,
    }
}

/// Changes root to the user `uid`, for `command`.
///
/// # Errors
///
/// [`Code::Denied`] for any user but root and `uid`.
pub fn become_user(uid: u32, command: &str) -> Result<()> {
    let account = look_up_account(uid, &mut Vec::new());
    become_account(&account, command).map_err(|why| Error::new(Code::Denied, why))
}

/// The user and the group of the site's account.
#[derive(Clone, Copy)]
pub struct Ids {
    pub uid: u32,
    pub gid: Option<u32>,
}

impl Ids {
    /// Returns those of the owner of `.deploy-shell`: `adopt` gives the root directory to the
    /// account that `init` was told.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] for a `.deploy-shell` of root's in a directory of the account, and for a
    /// root on a file system that a user has mounted; and [`Code::IoError`].
    pub fn of_site(config: &Config, store: &Store) -> Result<Ids> {
        let (of_root, of_state) = owners(store)?;
        if choose(of_root, Some(of_state)) != of_state && logs_in(of_root) {
            let problem = "'.deploy-shell' belongs to another user than the account";
            return Err(Error::new(Code::BadLayout, problem)
                .remedy("look at what it is: the account can have put it there"));
        }
        // An account can move a directory of root's here. All of this would be done as root.
        if of_state == 0 && of_root != 0 {
            let problem = "'.deploy-shell' belongs to root, and the root directory does not";
            let (site, path) = (config.site_option(), Word::new(&config.root));
            return Err(Error::new(Code::BadLayout, problem).remedy(format!(
                "if it is one of this site: deploy-shell-admin repair {site} --owner {of_root}; else \
                 move it away, then: deploy-shell-admin init {site} --root {path} --owner {of_root}"
            )));
        }
        let uid = of_state;
        let account = look_up_account(uid, &mut Vec::new());
        let gid = account.passwd.map(|entry| entry.gid);
        Ok(Ids { uid, gid })
    }

    /// Runs `work` with the rights of the account, and has those of root again after it.
    /// So root follows no path and makes no file in the account's own directories. It has
    /// none of root's groups meanwhile, and of the account's the first one alone.
    ///
    /// No program of the account runs meanwhile in this process.
    ///
    /// # Errors
    ///
    /// Those of `work`, and [`Code::Denied`] if the rights cannot be changed.
    pub fn act<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (uid, gid) = (geteuid(), getegid());
        if uid == Uid::from_raw(self.uid) || !uid.is_root() {
            return work();
        }
        let cannot = |errno: nix::Error| {
            let why = describe(&errno.into());
            Error::new(
                Code::Denied,
                format!("cannot act as user {}: {why}", self.uid),
            )
        };
        let group = self.gid.map_or(gid, Gid::from_raw);
        let groups = getgroups().map_err(cannot)?;
        let become_account = || {
            setgroups(&[group])?;
            setegid(group)?;
            seteuid(Uid::from_raw(self.uid))
        };
        let result = become_account().map_err(cannot).and_then(|()| work());
        seteuid(uid)
            .and_then(|()| setegid(gid))
            .and_then(|()| setgroups(&groups))
            .map_err(cannot)?;
        own_session::end_with_parent();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::choose_by;

    #[test]
    fn no_account_makes_another_user_the_account() {
        let (deploy, web, other, root) = (998, 33, 1000, 0);
        let choose = |of_root, of_state| choose_by(of_root, of_state, |uid| uid == deploy);
        assert_eq!(choose(deploy, Some(deploy)), deploy);
        assert_eq!(choose(deploy, Some(other)), deploy);
        assert_eq!(choose(deploy, Some(root)), deploy);
        assert_eq!(choose(deploy, None), deploy);
        assert_eq!(choose(web, Some(deploy)), deploy);
        assert_eq!(choose(root, Some(deploy)), deploy);
        // Whoever owns the root directory, where none of the two logs in with deploy-shell.
        assert_eq!(choose(other, Some(web)), other);
        assert_eq!(choose(web, Some(other)), web);
        assert_eq!(choose(root, None), root);
    }
}
