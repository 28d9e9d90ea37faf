//! The admission of an upload: the limits on received and on pending releases.

use std::time::Duration;

use crate::activate::prune::pending::{self, MIN_PENDING_AGE, Pending};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::store::history::History;
use crate::store::limits::KeyLimits;
use crate::store::{Actor, Store, journal};

/// Checks the limits on received and on pending releases for an upload of `incoming`.
///
/// # Errors
///
/// [`Code::RateLimited`], [`Code::Busy`] and [`Code::IoError`].
pub fn check(
    config: &Config,
    store: &Store,
    actor: &Actor,
    history: &History,
    incoming: &ReleaseId,
) -> Result<()> {
    let key_limits = KeyLimits::new(config, store, actor);
    key_limits.check_receives(history)?;
    // There must be few enough once a later request has removed those that are too many.
    let limits = &config.pending;
    let kept = store.releases_named_by_symlinks()?;
    let present = store.present()?;
    let counted = pending::counted(history, &present, &kept, limits.max_age, journal::now());
    let key = actor.key.as_ref();
    let numbers = |pending: &[Pending<'_>]| {
        let own = pending.iter().filter(|it| it.key == key).count();
        (own, pending.len())
    };
    let numbers_after = |age: Duration| {
        let mut all = counted.clone();
        all.push(Pending::incoming(incoming, key));
        let surplus = pending::surplus(&all, limits, age);
        numbers(&pending::without(&all, &surplus))
    };
    let fits = |(own, all): (usize, usize)| own <= limits.max_per_key && all <= limits.max;
    let after = numbers_after(MIN_PENDING_AGE);
    let (own, all) = numbers(&counted);
    // Without a lack of space, a receive removes none unless it gets the lock at once.
    let (twice_own, twice_all) = (
        limits.max_per_key.saturating_mul(2),
        limits.max.saturating_mul(2),
    );
    if fits(after) && own < twice_own && all < twice_all {
        return Ok(());
    }
    let (whose, number, max, setting) = if after.0 > limits.max_per_key || own >= twice_own {
        let whose = format!(" of {}", key_limits.shown_key());
        (whose, own, limits.max_per_key, "max_per_key")
    } else {
        (String::new(), all, limits.max, "max")
    };
    let problem =
        format!("too many pending releases{whose}, which were never live: {number} of {max}");
    let wait = if fits(numbers_after(Duration::ZERO)) {
        let minutes = MIN_PENDING_AGE.as_secs() / 60;
        format!("wait at most {minutes} minutes, ")
    } else {
        String::new()
    };
    // No permanent fault, so not 77: swaps of other clients end it, such as those of
    // pipelines that send to all nodes before they swap, and time does. A client may
    // try again, as with the lock and the uploads.
    Err(Error::new(Code::Busy, problem).remedy(format!(
        "{wait}remove some on the node (deploy-shell-admin drop), or raise {setting} in [pending]"
    )))
}
