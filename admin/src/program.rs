//! Where `deploy-shell` is: beside this program.

use std::path::PathBuf;

use deploy_shell::error::{Error, Result};

/// Returns the path of the `deploy-shell` that is installed beside this program.
///
/// The two are released together, so the one beside us is the one that this
/// version knows.
///
/// # Errors
///
/// [`Code::IoError`](deploy_shell::error::Code::IoError) when the kernel does not
/// tell this program's own path.
pub fn deploy_shell() -> Result<PathBuf> {
    let own = std::env::current_exe()
        .map_err(|error| Error::io("cannot find this program's own path", error))?;
    Ok(own.with_file_name("deploy-shell"))
}
