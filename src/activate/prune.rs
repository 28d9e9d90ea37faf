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

use crate::config::Config;
use crate::names::ReleaseId;
use crate::store::history::History;
use crate::store::ledger::{self, LOCK_TIMEOUT, Ledger};
use crate::store::lock::Lock;
use crate::store::{Actor, Store, journal};
pub use choose::{PruneRules, choose_releases};

/// The releases that this request moved to the trash.
#[derive(Debug, Default)]
pub struct Trash {
    pub releases: Vec<ReleaseId>,
    /// Their names there.
    names: Vec<String>,
}

/// Moves old releases to the trash, except `spared`. The rename removes a
/// release atomically; [`empty_trash`] deletes it after the lock is released.
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
    let mut chosen = choose_releases(
        &ledger.history,
        &present,
        PruneRules::new(config),
        journal::now(),
    );
    chosen.retain(|id| Some(id) != spared);
    move_to_trash(ledger, chosen, warnings)
}

/// Moves pending releases to the trash for a `receive` of `incoming`: those that are too
/// old, because nobody may swap for long, and those that [`pending::displaced`] chooses. A
/// `receive` does this before its sandbox, which does not permit a move out of
/// `releases/`; [`empty_trash`] deletes them inside of it. So they go as well if the upload
/// fails later.
///
/// A failure becomes a warning: the request will say what it cannot do without this.
pub fn prune_pending(
    config: &Config,
    store: &Store,
    actor: &Actor,
    incoming: &ReleaseId,
    warnings: &mut Vec<String>,
) -> Trash {
    let choose = |history: &History, present: &[ReleaseId]| {
        choose_pending(config, store, actor, incoming, history, present)
    };
    let Ok((history, listing)) = ledger::read_unlocked(store) else {
        return Trash::default();
    };
    let timeout = match choose(&history, &listing.present) {
        (overdue, displaced) if overdue.is_empty() && displaced.is_empty() => {
            return Trash::default();
        }
        // Not worth waiting for.
        (_, displaced) if displaced.is_empty() => Duration::ZERO,
        _ => LOCK_TIMEOUT,
    };
    let Ok(lock) = Lock::take(store, actor, timeout) else {
        return Trash::default();
    };
    let Ok(mut ledger) = Ledger::open_locked(store, actor, lock) else {
        return Trash::default();
    };
    ledger.leave_trees();
    let Ok(present) = store.present() else {
        return Trash::default();
    };
    let (mut chosen, displaced) = choose(&ledger.history, &present);
    chosen.extend_from_slice(&displaced);
    let trash = move_to_trash(&mut ledger, chosen, warnings);
    let displaced = trash.releases.iter().filter(|id| displaced.contains(id));
    warnings.extend(displaced.map(|release| {
        format!(
            "'{release}' was removed: it was pending for more than ten minutes, and this upload \
             needed its place or its room"
        )
    }));
    trash
}

/// Chooses the pending releases that a `receive` of `incoming` removes: those that are too
/// old, and those that give it place and room.
fn choose_pending(
    config: &Config,
    store: &Store,
    actor: &Actor,
    incoming: &ReleaseId,
    history: &History,
    present: &[ReleaseId],
) -> (Vec<ReleaseId>, Vec<ReleaseId>) {
    let (now, max_age) = (journal::now(), config.pending.max_age);
    let overdue = pending::overdue(history, present, max_age, now);
    // A repeated request needs no place.
    if present.contains(incoming) {
        return (overdue, Vec::new());
    }
    let free = store.room(config.limits.reserve).ok();
    let counted = pending::counted(history, present, max_age, now);
    let key = actor.key.as_ref();
    let displaced = pending::displaced(history, &counted, &config.pending, key, free, now);
    (overdue, displaced)
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
