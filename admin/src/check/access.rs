//! Tries what the account may use, with access(2), after this process has become the
//! account. The kernel decides: modes, groups, access control lists and read-only
//! mounts count together.

use std::fs::symlink_metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::facts::{Blocked, Unusable, UnusableFault};
use super::filesystem::Mounts;
use super::paths::resolve_path;
use deploy_shell::config::Config;
use deploy_shell::store::layout::{LIMITS, MANIFESTS, RELEASES, STATE, STATE_DIRS};

/// What the account must be able to do with a file.
#[derive(Clone, Copy)]
pub enum Need {
    Read,
    /// Execute a program, or search a directory.
    Execute,
}

/// Returns the first directory on the way to `path` that the account cannot search, or
/// `path` itself if the account cannot use it. A missing file is no matter of access.
pub fn blocked(path: &Path, need: Need) -> Option<Blocked> {
    let denied = |at: &Path, flags| access(at, flags) == Err(Errno::EACCES);
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let found = |at: &Path, directory| Blocked {
        path: path.to_owned(),
        at: resolve_path(at),
        directory,
    };
    if let Some(directory) = (above.into_iter()).find(|at| denied(at, AccessFlags::X_OK)) {
        return Some(found(directory, true));
    }
    let flags = match need {
        Need::Read => AccessFlags::R_OK,
        Need::Execute => AccessFlags::X_OK,
    };
    denied(path, flags).then(|| found(path, path.is_dir()))
}

/// Returns the site's directories and state files that a request of the account would
/// fail on. The root is the first, because every swap renames a symlink in it. Leaves out
/// what is mounted.
pub fn unusable_entries(config: &Config, mounts: &Mounts) -> Vec<Unusable> {
    let state = config.root.join(STATE);
    let mut directories = vec![
        config.root.clone(),
        config.root.join(RELEASES),
        state.clone(),
    ];
    directories.extend(STATE_DIRS.map(|name| state.join(name)));
    directories.push(state.join(LIMITS));
    let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    let mut found: Vec<Unusable> = directories
        .into_iter()
        .filter(|path| !mounts.cover(path))
        .filter_map(|path| try_access(path, all))
        .collect();
    let is_directory = |path: &Path| symlink_metadata(path).is_ok_and(|it| it.is_dir());
    for (directory, flags) in [
        (state.clone(), AccessFlags::R_OK | AccessFlags::W_OK),
        (state.join(LIMITS), AccessFlags::R_OK | AccessFlags::W_OK),
        (state.join(MANIFESTS), AccessFlags::R_OK),
    ] {
        // Behind a symlink of the account are no files of the site.
        if mounts.cover(&directory) || ![&state, &directory].iter().all(|it| is_directory(it)) {
            continue;
        }
        // A directory that cannot be read is one of those above.
        let entries = directory.read_dir().into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| !mounts.cover(path) && !is_directory(path))
            .collect();
        files.sort();
        found.extend(files.into_iter().filter_map(|path| try_file(path, flags)));
    }
    found
}

/// Tries a file of the state directory. `next` and `back` are symlinks during a swap.
fn try_file(path: PathBuf, flags: AccessFlags) -> Option<Unusable> {
    let metadata = symlink_metadata(&path).ok()?;
    let name = path.file_name()?.to_str().unwrap_or_default();
    if metadata.is_symlink() && ["next", "back"].contains(&name) {
        return None;
    }
    if !metadata.is_file() {
        return Some(Unusable {
            uid: metadata.uid(),
            fault: UnusableFault::NotAFile,
            path,
        });
    }
    // Old parts of the history are read only, and removed by their directory.
    let is_old = ["journal-", "used-ids-"]
        .iter()
        .any(|start| name.starts_with(start));
    let flags = if is_old { AccessFlags::R_OK } else { flags };
    try_access(path, flags)
}

fn try_access(path: PathBuf, flags: AccessFlags) -> Option<Unusable> {
    let fault = match access(&path, flags) {
        Err(Errno::EACCES | Errno::EPERM) => UnusableFault::Denied,
        Err(Errno::EROFS) => UnusableFault::ReadOnly,
        _ => return None,
    };
    let uid = symlink_metadata(&path).ok()?.uid();
    Some(Unusable { path, uid, fault })
}
