//! `bridge`: makes the files of old releases reachable below `root/bridge`, for browsers
//! that got a page before the last swap and ask for its scripts after it.
//!
//! `root/bridge` is a symlink to `.bridge/N`, a directory of symlinks to files of
//! releases. A build makes the next one, and one rename puts it into place. So a reader
//! finds one whole build at any time, whatever ends this process. The build that was in
//! place before stays until the next one: a reader may have resolved `root/bridge` just
//! before the rename.
//!
//! This is a command of the operator, for a hook after the swap: nothing of it is in
//! `deploy-shell`. The monitor that runs the hook holds the lock of the site, so this
//! takes no such lock. Two builders exclude each other by a lock on `.deploy-shell`.

mod builds;
mod tree;

use std::path::Path;

use crate::site_account::run_as_account;
use builds::Builds;
use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::names::ReleaseId;
use deploy_shell::reply;
use deploy_shell::store::ledger::Seen;
use deploy_shell::store::{Store, journal};
use tree::Gathered;

/// Builds the bridge, or removes it where the configuration has none. Returns one line.
///
/// # Errors
///
/// [`Code::BadLayout`] where something that is not ours has its name, [`Code::Busy`] while
/// another process builds it, and the errors of the configuration, the layout and the
/// disk. The bridge is then as it was before.
pub fn bridge(config: &Path) -> Result<Vec<String>> {
    let config = Config::load(config)?;
    run_as_account(&Store::examine(&config)?, "bridge")?;
    let store = Store::open(&config)?;
    // Others read what this makes, whatever umask the caller has.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if !config.bridge.is_configured() {
        let removed = builds::remove_all(&store)?;
        let line = if removed {
            "the bridge was removed: no paths are set in [bridge]"
        } else {
            "there is no bridge: no paths are set in [bridge]"
        };
        return Ok(vec![line.to_owned()]);
    }
    let builds = Builds::open_or_make(&store)?;
    builds.lock()?;
    // After the lock: what another builder saw before may be older.
    let Gathered {
        tree,
        releases,
        is_cut,
        mounts,
    } = gather(&config, &store)?;
    if is_cut {
        reply::warning(&format!(
            "the bridge leaves out files: it has at most {} files and directories (max_entries), \
             and no symlink of more than {} bytes",
            config.archive.max_entries,
            tree::MAX_TARGET
        ));
    }
    if let Some(first) = mounts.first() {
        let more = match mounts.len() {
            1 => String::new(),
            number => format!(", and {} more", number - 1),
        };
        reply::warning(&format!(
            "the bridge leaves out '{}'{more}: a file system is mounted there",
            first.display()
        ));
    }
    let names: Vec<String> = releases.iter().map(|id| format!("'{id}'")).collect();
    // A build that was interrupted, and those that nobody reads any more.
    let mut left = builds.clean();
    let done = if builds.place(&tree, config.limits.reserve)? {
        "built"
    } else {
        "is up to date"
    };
    left.extend(builds.clean());
    left.dedup();
    for left in left {
        reply::warning(&left);
    }
    let (files, names) = (tree.files(), names.join(", "));
    Ok(vec![format!("bridge {done}: {files} files of {names}")])
}

/// What `check` says about the bridge of a site.
#[derive(Debug)]
pub enum BridgeState {
    /// It is as a build would make it now, or there is none and none is configured.
    Sound,
    /// A build would change it.
    Stale,
    /// Something that is not ours has its name.
    Foreign(Error),
}

/// Compares the bridge with what a build would make. Changes nothing.
///
/// # Errors
///
/// Those of reading the site.
pub fn examine(config: &Config, store: &Store) -> Result<BridgeState> {
    let builds = match Builds::find(store) {
        Ok(builds) => builds,
        Err(error) if error.code == Code::BadLayout => {
            return Ok(if config.bridge.is_configured() {
                BridgeState::Foreign(error)
            } else {
                BridgeState::Sound
            });
        }
        Err(error) => return Err(error),
    };
    let is_sound = match (builds, config.bridge.is_configured()) {
        (builds, false) => builds.is_none(),
        (None, true) => gather(config, store)?.tree.is_empty(),
        (Some(builds), true) => builds.has(&gather(config, store)?.tree)?,
    };
    Ok(if is_sound {
        BridgeState::Sound
    } else {
        BridgeState::Stale
    })
}

/// Returns what the bridge has to contain: the files of the live release, and then those
/// of the releases of [`History::bridged`](deploy_shell::store::history::History).
///
/// The live release is part of it, although a web server asks it first: then the bridge
/// of before a swap has the files of the release that the swap replaces, also in the
/// moments until the next build.
fn gather(config: &Config, store: &Store) -> Result<Gathered> {
    let Seen {
        history, listing, ..
    } = Seen::read(store)?;
    let floor = config.floor.as_ref();
    let bridged = history.bridged(&listing.present, floor, &config.bridge, journal::now());
    let releases: Vec<ReleaseId> = (history.live.iter()).chain(bridged).cloned().collect();
    tree::gather(
        store,
        releases,
        &config.bridge.paths,
        config.archive.max_entries,
    )
}
