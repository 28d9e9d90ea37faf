//! Replaces the file that the textfile collector of node_exporter reads.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use deploy_shell::error::{Code, Error, Result};

/// Replaces the file at `path` by `text`, with the mode 0644. A reader finds the old file
/// or the new one. The temporary file has a name that no reader of `*.prom` opens, and
/// that nobody can predict: the directory may belong to another account.
///
/// # Errors
///
/// [`Code::BadRequest`] for a name that node_exporter does not read, or that is not a
/// regular file. [`Code::IoError`] and [`Code::DiskFull`].
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let shown = path.display();
    let bad = |why: &str| {
        Error::new(Code::BadRequest, format!("'{shown}' {why}"))
            .remedy("name a file in the directory of --collector.textfile.directory")
    };
    if path.extension().is_none_or(|extension| extension != "prom") {
        return Err(bad(
            "does not end in '.prom', so node_exporter does not read it",
        ));
    }
    // A rename would also replace a symlink or a socket.
    if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(bad("is not a regular file"));
    }
    let cannot = |error| Error::io(format!("cannot write '{shown}'"), error);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(cannot)?;
    file.write_all(text.as_bytes()).map_err(cannot)?;
    let mode = Permissions::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(cannot)?;
    file.persist(path).map_err(|error| cannot(error.error))?;
    Ok(())
}
