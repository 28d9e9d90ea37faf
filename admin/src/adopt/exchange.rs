//! Makes `current` a symlink again, where a directory replaced it after the first swap.
//!
//! Every request is refused then, and the old deployments of another tool cannot come
//! before those of the journal. So a release that was received becomes live, by one
//! exchange of two names, and the directory stays in the root under another name.

use std::ffi::{OsStr, OsString};

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::{apply, history, layout};
use crate::fallback::fallback;
use deploy_shell::config::Config;
use deploy_shell::dir::{self, Name};
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::names::ReleaseId;
use deploy_shell::store::Store;
use deploy_shell::store::layout::RELEASES;

/// The directory gets the first of `NAME.replaced`, `NAME.replaced-2` and so on that is
/// free.
const MAX_NAMES: u32 = 1000;

/// An exchange of the directory at `current` for a symlink.
pub struct Exchange {
    /// The received release that becomes live.
    pub release: ReleaseId,
    /// The name that the directory gets, in the root.
    kept_as: OsString,
}

impl Exchange {
    /// Returns the exchange that the site needs, if `current` is a directory and
    /// deploy-shell has made a release live before.
    ///
    /// # Errors
    ///
    /// Those of the look-up and of the journal, and [`Code::BadLayout`] if a file system is
    /// mounted there.
    pub fn find(config: &Config, store: &Store) -> Result<Option<Exchange>> {
        let found = store.root.stat_of_this_mount(&config.link);
        let is_mounted = matches!(found, Err(Errno::EXDEV));
        let is_directory = found.is_ok_and(|stat| dir::file_type(&stat) == SFlag::S_IFDIR);
        if !is_directory && !is_mounted {
            return Ok(None);
        }
        let (history, _) = history::read(store)?;
        // The release that a killed adoption makes of the directory was not received.
        let adopted = layout::unfinished_exchange(store)?;
        let had_swaps = (history.releases.iter())
            .any(|(id, known)| known.activated.is_some() && adopted.as_ref() != Some(id));
        if !had_swaps {
            return Ok(None);
        }
        let Some(release) = fallback(&store.present()?, &history, None) else {
            return Ok(None);
        };
        // rename(2) moves no mount point.
        if is_mounted {
            let shown = store.path().join(config.link.as_str());
            let problem = format!("'{}' is a mount point", shown.display());
            return Err(Error::new(Code::BadLayout, problem)
                .remedy("docs/adopting.md has the way to a new directory"));
        }
        let kept_as = free_name(config, store, &target(&release))?;
        Ok(Some(Exchange { release, kept_as }))
    }

    /// Returns the lines of the plan.
    pub fn lines(&self, config: &Config) -> Vec<String> {
        let (link, release) = (&config.link, &self.release);
        vec![
            format!("found a directory at '{link}', and releases that were live before it"),
            format!(
                "exchange the directory '{link}' for a symlink to '{RELEASES}/{release}', in one \
                 step: visitors see that release"
            ),
            format!("keep the directory as '{}'", self.kept_as.display()),
        ]
    }

    /// Exchanges the two names. A reader finds the directory before, and the release after
    /// it. If this is killed before, the next one uses the same symlink.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`], and those of [`apply::exchange_names`]. `current` is as it was.
    pub fn carry_out(&self, config: &Config, store: &Store) -> Result<()> {
        let cannot = |errno| store.io("cannot prepare the symlink", errno);
        let (link, kept_as) = (Name::from(&config.link), self.kept_as()?);
        store.root.remove_file(kept_as).map_err(cannot)?;
        let target = target(&self.release);
        store.root.symlink(&target, kept_as).map_err(cannot)?;
        let exchanged = apply::exchange_names(store, &store.root, link, &store.root, kept_as);
        if exchanged.is_err() {
            _ = store.root.remove_file(kept_as);
        }
        exchanged?;
        let synced = store.root.sync();
        synced.map_err(|errno| store.io("cannot sync the site", errno))
    }

    fn kept_as(&self) -> Result<Name<'_>> {
        let name = Name::new(self.kept_as.as_encoded_bytes());
        name.ok_or_else(|| Error::new(Code::BadLayout, "the name of the symlink is too long"))
    }
}

fn target(release: &ReleaseId) -> OsString {
    OsString::from(format!("{RELEASES}/{release}"))
}

/// Returns a name for the directory that nothing has, or that a killed exchange has left
/// with this target.
fn free_name(config: &Config, store: &Store, target: &OsStr) -> Result<OsString> {
    let link = &config.link;
    for number in 1..=MAX_NAMES {
        let name = match number {
            1 => format!("{link}.replaced"),
            number => format!("{link}.replaced-{number}"),
        };
        let Some(entry) = Name::new(name.as_bytes()) else {
            break;
        };
        let exists = store.root.exists(entry);
        let exists = exists.map_err(|errno| store.io("cannot look at the site", errno))?;
        if !exists || store.root.read_link(entry).is_ok_and(|it| it == target) {
            return Ok(name.into());
        }
    }
    let problem = format!("no name is free for the directory '{link}'");
    Err(Error::new(Code::BadLayout, problem)
        .remedy(format!("move '{link}.replaced' out of the root")))
}
