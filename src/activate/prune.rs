//! Pruning: the choice of old releases, and their removal.
//!
//! Pruning never removes the live release, the release that a rollback would choose, a
//! release that another symlink in the root names, or a directory that is not ours: it considers
//! only releases that the journal knows. It leaves the base of a running receive to a later
//! request (see [`crate::store::hold`]).
//! [`choose`] has the rules.

mod choose;
pub mod pending;

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Config;
use crate::error::Result;
use crate::names::ReleaseId;
use crate::store::history::History;
use crate::store::ledger::{self, Ledger};
use crate::store::limits::KeyLimits;
use crate::store::lock::Lock;
use crate::store::{Actor, Store, journal};
use choose::releases_that_do_not_count;
pub use choose::{PruneRules, choose_releases, releases_that_count};
use pending::{MIN_PENDING_AGE, Pending};

/// How long a `receive` waits for the lock to remove releases for space. Swaps of a stolen key
/// may run hooks, which hold the lock for longer than other requests wait. Not longer: a signal
/// does not end this wait.
const SPACE_LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The releases that this request moved to the trash.
#[derive(Debug, Default)]
pub struct Trash {
    pub releases: Vec<ReleaseId>,
    /// Their names there.
    names: Vec<String>,
}

/// Moves old releases to the trash, except `spared`, and pending ones that are too many (see
/// [`pending::surplus`]). The rename removes a release atomically; [`empty_trash`] deletes it
/// after the lock is released.
///
/// A `receive` waits for the lock only after a lack of space. If hooks of successive swaps hold
/// the lock, these swaps remove the pending releases that are too many.
///
/// A failure becomes a warning: the commit before it stays.
pub fn prune(
    ledger: &mut Ledger<'_>,
    config: &Config,
    spared: Option<&ReleaseId>,
    warnings: &mut Vec<String>,
) -> Trash {
    let present = match ledger.store.present() {
        Ok(present) => present,
        Err(error) => {
            warnings.push(format!("nothing was pruned: {error}"));
            return Trash::default();
        }
    };
    let (history, now) = (&ledger.history, journal::now());
    let mut chosen = choose_releases(history, &present, PruneRules::new(config), now);
    match ledger.store.releases_named_by_symlinks() {
        Ok(named) => {
            let (_, surplus) = count_pending(config, history, &present, &named, now);
            chosen.extend(surplus.into_iter().cloned());
        }
        Err(error) => warnings.push(format!(
            "pending releases that are too many were not pruned: {error}"
        )),
    }
    chosen.retain(|id| Some(id) != spared);
    move_to_trash(ledger, chosen, warnings)
}

/// Moves releases to the trash for a `receive`: pending ones that are too old, because nobody
/// may swap for long, and those that are too many (see [`pending::surplus`]). After a lack of
/// space it also moves the old ones of the label that take part of its half (see
/// [`releases_that_count`]). Those of `spared` stay.
///
/// This comes before the sandbox of a `receive`, which does not permit a move out of
/// `releases/`. [`empty_trash`] deletes them inside of it.
///
/// A failure to read or to lock is ignored: a later request removes them. A failed move
/// becomes a warning.
pub fn prune_for_receive(
    config: &Config,
    store: &Store,
    actor: &Actor,
    spared: &[&ReleaseId],
    warnings: &mut Vec<String>,
) -> Trash {
    let limits = KeyLimits::new(config, store, actor);
    let lacked_space = limits.lacked_space();
    let choose = |history: &History, present: &[ReleaseId]| {
        let chosen = choose_for_receive(config, store, actor, history, present, lacked_space);
        let mut chosen = chosen.unwrap_or_default();
        chosen.retain(|id| !spared.contains(&id));
        chosen
    };
    let Ok((history, listing)) = ledger::read_unlocked(store) else {
        return Trash::default();
    };
    let mut trash = Trash::default();
    if !choose(&history, &listing.present).is_empty() {
        // Without this removal, the upload is refused for lack of space, and so are the next ones.
        let timeout = if lacked_space {
            SPACE_LOCK_TIMEOUT
        } else {
            Duration::ZERO
        };
        let Ok(lock) = Lock::take(store, actor, timeout) else {
            return Trash::default();
        };
        let Ok(mut ledger) = Ledger::open_locked(store, actor, lock) else {
            return Trash::default();
        };
        ledger.leave_trees();
        let present = store.present().unwrap_or_default();
        let chosen = choose(&ledger.history, &present);
        trash = move_to_trash(&mut ledger, chosen, warnings);
    }
    if lacked_space {
        limits.forget_lack_of_space();
    }
    trash
}

/// Returns the pending releases that count for the limits, and those of them that are too many.
fn count_pending<'a>(
    config: &Config,
    history: &'a History,
    present: &[ReleaseId],
    named: &[ReleaseId],
    now: Timestamp,
) -> (Vec<Pending<'a>>, Vec<&'a ReleaseId>) {
    let limits = &config.pending;
    let counted = pending::counted(history, present, named, limits.max_age, now);
    let surplus = pending::surplus(&counted, limits, MIN_PENDING_AGE);
    (counted, surplus)
}

/// Chooses the releases that a `receive` removes.
///
/// # Errors
///
/// [`Code::IoError`](crate::error::Code::IoError).
fn choose_for_receive(
    config: &Config,
    store: &Store,
    actor: &Actor,
    history: &History,
    present: &[ReleaseId],
    lacked_space: bool,
) -> Result<Vec<ReleaseId>> {
    let now = journal::now();
    let named = store.releases_named_by_symlinks()?;
    let (counted, surplus) = count_pending(config, history, present, &named, now);
    let mut chosen = pending::overdue(history, present, config.pending.max_age, now);
    chosen.extend(surplus.iter().copied().cloned());
    if lacked_space {
        let stay = pending::without(&counted, &surplus);
        let key = actor.key.as_ref();
        let old = pending::old_ones(&stay, key);
        chosen.extend(old.into_iter().cloned());
        let rules = PruneRules::new(config);
        chosen.extend(releases_that_do_not_count(
            history, present, rules, key, now,
        ));
    }
    // A warning would name them to a client that may only send.
    chosen.retain(|id| !named.contains(id));
    Ok(chosen)
}

fn move_to_trash(
    ledger: &mut Ledger<'_>,
    chosen: Vec<ReleaseId>,
    warnings: &mut Vec<String>,
) -> Trash {
    let mut trash = Trash::default();
    for release in chosen {
        let removal = match ledger.store.try_removal(&release) {
            Ok(Some(removal)) => removal,
            // A running receive builds on it. A later request prunes it.
            Ok(None) => continue,
            Err(error) => {
                warnings.push(format!("'{release}' was not pruned: {error}"));
                continue;
            }
        };
        let name = match ledger.move_to_trash(&removal) {
            Ok(name) => name,
            Err(error) => {
                warnings.push(format!("'{release}' was not pruned: {error}"));
                continue;
            }
        };
        // Before the record: a request that is killed from here on leaves a line, or a
        // removal without a record, for which the next request writes one. A line for each
        // release: one line for all could be too long.
        if let Err(error) = ledger.report(&removal) {
            // The site requires the audit log. The next request completes this removal
            // and reports it. The rest would wait for the log again, under the lock.
            warnings.push(format!(
                "the removal of '{release}' is not complete: {error}"
            ));
            ledger.leave_trees();
            trash.releases.push(release);
            break;
        }
        if let Err(error) = ledger.forget(&removal) {
            warnings.push(format!("'{release}' was pruned: {error}"));
        }
        trash.names.push(name);
        trash.releases.push(release);
    }
    trash
}

/// Deletes the releases that [`prune`] moved to the trash.
pub fn empty_trash(store: &Store, trash: &Trash, warnings: &mut Vec<String>) {
    for name in &trash.names {
        if let Err(warning) = store.remove_from_trash(name) {
            warnings.push(warning);
        }
    }
}
