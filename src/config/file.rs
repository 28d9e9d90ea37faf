//! Reads the files that decide what a client may do: the configuration and the
//! allowed signers. Only root and this account may have written them.

use std::fs::OpenOptions;
use std::io::ErrorKind::NotFound;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::error::{Code, Error, Result, describe};
use crate::shell_word::Word;

/// The maximum size of such a file, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Returns the file's text if the file's owner and mode let only root and this
/// account write it.
///
/// The check uses the open file, not its name, so the file cannot be exchanged
/// in between. It includes the file's directory: a user who can write there can
/// replace the file (a sticky directory such as /tmp protects files of others).
/// `deploy-shell-admin check` looks at the directories above.
///
/// # Errors
///
/// [`Code::BadConfig`] with the name of the file.
pub fn read_trusted(path: &Path) -> Result<String> {
    let shown = path.display();
    let bad = |problem: String| Error::new(Code::BadConfig, format!("'{shown}' {problem}"));
    let cannot = |error: std::io::Error| bad(format!("cannot be read: {}", describe(&error)));
    if !path.is_absolute() {
        return Err(bad("is not an absolute path".to_owned()));
    }
    // O_NONBLOCK: opening a fifo must not block.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(|error| match error.kind() {
            NotFound => cannot(error).remedy("correct the name, or make the file"),
            _ => cannot(error),
        })?;
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(bad("is not a regular file".to_owned()));
    }
    // First the directory: whoever can write there can put another file at the name before root
    // corrects this one.
    let directory = path.parent().unwrap_or(Path::new("/"));
    let above = directory.metadata().map_err(cannot)?;
    if !is_trusted_owner(above.uid()) || above.mode() & 0o022 != 0 && above.mode() & 0o1000 == 0 {
        return Err(bad("is in a directory that others can write".to_owned())
            .remedy("keep it in a directory that only root can write, such as /etc/deploy-shell"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(bad("can be written by its group or by others".to_owned())
            .remedy(format!("chmod go-w {}", Word::new(path))));
    }
    if !is_trusted_owner(meta.uid()) {
        return Err(bad(format!(
            "belongs to user {}, neither root nor this account",
            meta.uid()
        ))
        .remedy(format!("chown -h root {}", Word::new(path))));
    }
    let mut text = String::new();
    let read = file
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    if read as u64 > MAX_FILE {
        return Err(bad(format!("is larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

fn is_trusted_owner(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_can_write_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blog.toml");
        std::fs::write(&path, "root = \"/srv/x\"").unwrap();
        for mode in [0o664, 0o646] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read_trusted(&path).unwrap_err();
            assert!(
                error.problem.contains("can be written"),
                "{}",
                error.problem
            );
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        read_trusted(&path).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = read_trusted(&path).unwrap_err();
        assert!(error.problem.contains("directory"), "{}", error.problem);
    }
}
