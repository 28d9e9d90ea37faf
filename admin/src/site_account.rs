//! The account that owns a site.

use crate::check::account::look_up_account;
use crate::check::probe::become_account;
use deploy_shell::error::{Code, Error, Result};
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
