//! Reading the files that decide what a client may do (the configuration, the
//! allowed signers), and whom they are believed.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::error::{Code, Error, Result, describe};

/// The largest such file, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// The file's text, if by its own mode and owner nobody but root and ourselves
/// could have written it.
///
/// What is checked is the open file, not its name, so it cannot be exchanged
/// in between. Its folder counts as well: who can write there can put another
/// file in its place (a sticky folder such as /tmp protects what is not
/// theirs). The folders above are the business of `check`.
///
/// Errors: [`Code::BadConfig`], naming the file.
pub fn read_trusted(path: &Path) -> Result<String> {
    let shown = path.display();
    let bad = |problem: String| Error::new(Code::BadConfig, format!("'{shown}' {problem}"));
    let cannot = |error: std::io::Error| bad(format!("cannot be read: {}", describe(&error)));
    if !path.is_absolute() {
        return Err(bad("is not an absolute path".to_owned()));
    }
    // O_NONBLOCK: a fifo in its place must not make us wait.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(bad("is not a regular file".to_owned()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(bad("can be written by its group or by others".to_owned())
            .remedy(format!("chmod go-w '{shown}'")));
    }
    if !trusted(meta.uid()) {
        return Err(bad(format!(
            "belongs to user {}, neither root nor this account",
            meta.uid()
        ))
        .remedy(format!("chown root '{shown}'")));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let meta = folder.metadata().map_err(cannot)?;
    if !trusted(meta.uid()) || meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 {
        return Err(
            bad("stands in a folder that others can write".to_owned()).remedy(format!(
                "chown root '{0}' && chmod go-w '{0}'",
                folder.display()
            )),
        );
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

fn trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blog.toml");
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
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = read_trusted(&path).unwrap_err();
        assert!(error.problem.contains("folder"), "{}", error.problem);
    }
}
