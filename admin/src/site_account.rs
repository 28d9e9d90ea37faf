//! The account that owns a site.

use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setegid, seteuid, setgroups};

use crate::check::account::look_up_account;
use crate::check::probe::become_account;
use crate::own_session;
use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error, Result, describe};
use deploy_shell::shell_word::Word;
use deploy_shell::store::Store;

/// Changes root to the account that owns the site, for `command`. Then the files that it
/// makes are the account's, and root follows no path that the account controls.
///
/// # Errors
///
/// [`Code::Denied`] for any user but root and the account.
pub fn run_as_account(store: &Store, command: &str) -> Result<()> {
    become_user(owner(store)?, command)
}

/// Returns the uid of the account: the owner of `.deploy-shell`, which `init` has made.
///
/// # Errors
///
/// [`Code::IoError`].
pub fn owner(store: &Store) -> Result<u32> {
    let stat = store.state.metadata();
    let stat = stat.map_err(|errno| store.io("cannot look at the site", errno))?;
    Ok(stat.st_uid)
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
    /// Returns those of the owner of `.deploy-shell`, which `init` has made.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] for a `.deploy-shell` of root's in a directory of the account, and
    /// [`Code::IoError`].
    pub fn of_site(config: &Config, store: &Store) -> Result<Ids> {
        let uid = owner(store)?;
        let root = store.root.metadata();
        let root = root.map_err(|errno| store.io("cannot look at the site", errno))?;
        // An account can move a directory of root's here. All of this would be done as root.
        if uid == 0 && root.st_uid != 0 {
            let problem = "'.deploy-shell' belongs to root, and the root directory does not";
            let (site, path) = (config.site_option(), Word::new(&config.root));
            let owner = root.st_uid;
            return Err(Error::new(Code::BadLayout, problem).remedy(format!(
                "move it away, then: deploy-shell-admin init {site} --root {path} --owner {owner}"
            )));
        }
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
