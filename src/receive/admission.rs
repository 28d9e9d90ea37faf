//! The admission of an upload: the limits on received and on pending releases.

use crate::activate::prune::pending;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::store::history::History;
use crate::store::limits::KeyLimits;
use crate::store::{Actor, Store, journal};

/// Checks the limits on received and on pending releases.
///
/// # Errors
///
/// [`Code::RateLimited`] and [`Code::Busy`].
pub fn check(config: &Config, store: &Store, actor: &Actor, history: &History) -> Result<()> {
    KeyLimits::new(config, store, actor).check_receives(history)?;
    check_pending(config, store, actor, history)
}

/// Checks the limits on pending releases: those of the key, and those of all keys.
///
/// # Errors
///
/// [`Code::Busy`].
fn check_pending(config: &Config, store: &Store, actor: &Actor, history: &History) -> Result<()> {
    let now = journal::now();
    let present = store.present()?;
    let pending = pending::counted(history, &present, config.pending.max_age, now);
    let too_many = |whose: &str, number: usize, max: usize, setting: &str| {
        let problem =
            format!("too many pending releases{whose}, which were never live: {number} of {max}");
        let remedy = format!(
            "try again in ten minutes (an upload removes an old one, unless the site is locked), \
             remove some on the node (deploy-shell-admin drop), or raise {setting} in [pending]"
        );
        // No permanent fault, so not 77: swaps of other clients end it, such as those of
        // pipelines that send to all nodes before they swap, and time does. A client may
        // try again, as with the lock and the uploads.
        Err(Error::new(Code::Busy, problem).remedy(remedy))
    };
    let own = pending.iter().filter(|it| it.release.key == actor.key);
    let (own, max) = (own.count(), config.pending.max_per_key);
    if own >= max {
        let whose = KeyLimits::new(config, store, actor).shown_key();
        return too_many(&format!(" of {whose}"), own, max, "max_per_key");
    }
    let (all, max) = (pending.len(), config.pending.max);
    if all >= max {
        return too_many("", all, max, "max");
    }
    Ok(())
}
