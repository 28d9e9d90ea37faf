//! Looks at what is live and at what is in `releases/`, as the account.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::facts::{Current, Releases};
use deploy_shell::config::Config;
use deploy_shell::dir;
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
    let others = present.iter().filter(|id| Some(*id) != live);
    let fallback = others
        .filter(|id| !history.releases.get(*id).is_some_and(|known| known.bad))
        .max_by_key(|id| {
            let known = history.releases.get(*id);
            known.map(|known| (known.last_live(), known.received))
        })
        .cloned();
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
        fallback,
    })
}

fn examine_current(
    store: &Store,
    config: &Config,
    present: &[ReleaseId],
) -> Result<Current, Errno> {
    let kind = match store.root.stat(&config.link) {
        Ok(stat) => dir::file_type(&stat),
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
        let is = |kept_in: &dir::Dir, kind| match kept_in.stat(&release) {
            Ok(stat) => Ok(dir::file_type(&stat) == kind),
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
    let link = config.root.join(config.link.as_str());
    Ok(Current::Elsewhere {
        target: target.to_string_lossy().into_owned(),
        leads_somewhere: link.exists(),
        leads_to_release: named_release(config, &link)
            .map(|id| (id.clone(), present.binary_search(&id).is_ok())),
    })
}

/// Returns the release in whose directory the symlink ends.
fn named_release(config: &Config, link: &Path) -> Option<ReleaseId> {
    let releases = config.root.join(RELEASES).canonicalize().ok()?;
    let target = link.canonicalize().ok()?;
    release_name(target.strip_prefix(releases).ok()?.as_os_str())
}

/// Returns the release that a target of the one accepted form names.
fn below_releases(target: &OsStr) -> Option<ReleaseId> {
    let below = target.as_bytes().strip_prefix(RELEASES.as_bytes())?;
    release_name(OsStr::from_bytes(below.strip_prefix(b"/")?))
}
