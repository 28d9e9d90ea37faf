//! The path of the installed `deploy-shell`.

use std::path::PathBuf;

use deploy_shell::error::{Error, Result};

/// Returns the path of the `deploy-shell` in the directory of this program.
///
/// Packages install both programs together, so this one has the same version.
///
/// # Errors
///
/// [`Code::IoError`](deploy_shell::error::Code::IoError) when the kernel does not
/// return this program's own path.
pub fn deploy_shell() -> Result<PathBuf> {
    let own = std::env::current_exe()
        .map_err(|error| Error::io("cannot find this program's own path", error))?;
    Ok(own.with_file_name("deploy-shell"))
}
