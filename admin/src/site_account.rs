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
    let owner = store
        .state
        .metadata()
        .map_err(|errno| store.io("cannot look at the site", errno))?
        .st_uid;
    let account = look_up_account(owner, &mut Vec::new());
    become_account(&account, command).map_err(|why| Error::new(Code::Denied, why))
}
