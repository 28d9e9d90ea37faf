//! Looks at what is live and at what is in `releases/`, as the account.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{self, SFlag};

use super::facts::{Current, Releases};
use crate::fallback::fallback;
use deploy_shell::config::Config;
use deploy_shell::dir::{self, Dir};
use deploy_shell::error::describe;
use deploy_shell::names::ReleaseId;
use deploy_shell::store::history::History;
use deploy_shell::store::layout::{JOURNAL, RELEASES};
use deploy_shell::store::{Store, release_name};

/// Compares the `current` symlink, `releases/` and the manifests with each other and
/// with `history`. The error is prose.
pub fn examine_releases(
    store: &Store,
    config: &Config,
    history: &History,
) -> Result<Releases, String> {
    let cannot = |errno: Errno| describe(&errno.into());
    let present = store.present().map_err(|error| error.problem)?;
    let current = examine_current(store, config, &present).map_err(cannot)?;
    let live = match &current {
        Current::Release { release, .. } => Some(release),
        _ => None,
    };
    let mut not_received = Vec::new();
    let mut without_manifest = Vec::new();
    for name in store.releases.names().map_err(cannot)? {
        let release = release_name(&name);
        let is_present = (release.as_ref()).is_some_and(|id| present.binary_search(id).is_ok());
        // The live one has findings of its own.
        if is_present || release.is_some() && release.as_ref() == live {
            continue;
        }
        match release.filter(|id| history.releases.contains_key(id)) {
            Some(known) => without_manifest.push(known),
            None => not_received.push(name.to_string_lossy().into_owned()),
        }
    }
    let mut other_links = store
        .symlinks_to_releases()
        .map_err(|error| error.problem)?;
    other_links.retain(|(name, _)| *name != config.link.as_str());
    other_links.sort();
    let fallback = fallback(&present, history, live);
    let journal = store.state.exists(JOURNAL).map_err(cannot)?;
    Ok(Releases {
        had_swaps: history
            .releases
            .values()
            .any(|known| known.activated.is_some()),
        journal_missing: !journal && !present.is_empty(),
        current,
        not_received,
        without_manifest,
        other_links,
        fallback,
    })
}

fn examine_current(
    store: &Store,
    config: &Config,
    present: &[ReleaseId],
) -> Result<Current, Errno> {
    let kind = match store.root.stat_of_this_mount(&config.link) {
        Ok(stat) => dir::file_type(&stat),
        // A finding of the mounts says so.
        Err(Errno::EXDEV) => return Ok(Current::Directory),
        Err(Errno::ENOENT) => return Ok(Current::Nothing),
        Err(errno) => return Err(errno),
    };
    if kind == SFlag::S_IFDIR {
        return Ok(Current::Directory);
    }
    if kind != SFlag::S_IFLNK {
        return Ok(Current::OtherFile);
    }
    let target = store.root.read_link(&config.link)?;
    if let Some(release) = below_releases(&target) {
        let is = |kept_in: &Dir, kind| match kept_in.stat_of_this_mount(&release) {
            Ok(stat) => Ok(dir::file_type(&stat) == kind),
            // As for a request: see `Store::is_present`.
            Err(Errno::EXDEV) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        };
        let has_directory = is(&store.releases, SFlag::S_IFDIR)?;
        let has_manifest = is(&store.manifests, SFlag::S_IFREG)?;
        return Ok(Current::Release {
            release,
            has_directory,
            has_manifest,
        });
    }
    let end = follow(store, config, &target);
    Ok(Current::Elsewhere {
        target: target.to_string_lossy().into_owned(),
        leads_somewhere: !matches!(end, Err(Errno::ENOENT | Errno::ENOTDIR)),
        leads_to_release: (end.ok().flatten())
            .map(|id| (id.clone(), present.binary_search(&id).is_ok())),
    })
}

/// Follows the target of a symlink in the root directory to its end. Returns the release
/// in whose directory it ends, if it does.
///
/// Below the root directory this looks at no file system that is mounted there: it may
/// stall.
///
/// # Errors
///
/// The errno of the system call: `EXDEV` if it leads to such a file system.
fn follow(store: &Store, config: &Config, target: &OsStr) -> Result<Option<ReleaseId>, Errno> {
    let root = path_of(&store.root)?;
    let target = root.join(target);
    let below = [&config.root, &root]
        .into_iter()
        .find_map(|root| target.strip_prefix(root).ok());
    let below = below.filter(|below| !below.components().any(|it| it == Component::ParentDir));
    let Some(below) = below else {
        return stat::stat(&target).map(|_| None);
    };
    let end = store.root.resolve_in_mount(below)?;
    let end = path_of(&end)?;
    let below = end.strip_prefix(path_of(&store.releases)?);
    Ok(below.ok().and_then(|name| release_name(name.as_os_str())))
}

/// Returns the path of an open file (proc_pid_fd(5)).
fn path_of(file: &impl AsFd) -> Result<PathBuf, Errno> {
    let file = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    nix::fcntl::readlink(file.as_str()).map(PathBuf::from)
}

/// Returns the release that a target of the one accepted form names.
fn below_releases(target: &OsStr) -> Option<ReleaseId> {
    let below = target.as_bytes().strip_prefix(RELEASES.as_bytes())?;
    release_name(OsStr::from_bytes(below.strip_prefix(b"/")?))
}
