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
use crate::error::Code;
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
/// `releases/`; [`empty_trash`] deletes them inside of it. They stay removed if the upload
/// fails.
///
/// A failure becomes a warning. An upload that needs the removal is refused later.
pub fn prune_pending(
    config: &Config,
    store: &Store,
    actor: &Actor,
    incoming: &ReleaseId,
    warnings: &mut Vec<String>,
) -> Trash {
    let choose = |history: &History, present: &[ReleaseId]| {
        PendingChoice::new(config, store, actor, incoming, history, present)
    };
    let Ok((history, listing)) = ledger::read_unlocked(store) else {
        return Trash::default();
    };
    let choice = choose(&history, &listing.present);
    let timeout = match (choice.overdue.is_empty(), choice.displaced.is_empty()) {
        (true, true) => return Trash::default(),
        // A later request removes them.
        (false, true) => Duration::ZERO,
        (_, false) => LOCK_TIMEOUT,
    };
    let lock = match Lock::take(store, actor, timeout) {
        Ok(lock) => lock,
        Err(error) => {
            if !choice.displaced.is_empty() {
                warnings.push(format!("no pending release was removed: {error}"));
            }
            return Trash::default();
        }
    };
    let Ok(mut ledger) = Ledger::open_locked(store, actor, lock) else {
        return Trash::default();
    };
    ledger.leave_trees();
    let Ok(present) = store.present() else {
        return Trash::default();
    };
    let PendingChoice { overdue, displaced } = choose(&ledger.history, &present);
    let chosen = [overdue, displaced.clone()].concat();
    let trash = move_to_trash(&mut ledger, chosen, warnings);
    let displaced = trash.releases.iter().filter(|id| displaced.contains(id));
    warnings.extend(displaced.map(|release| {
        let minutes = pending::MIN_PENDING_AGE.as_secs() / 60;
        format!(
            "'{release}' was removed: this upload needed its place or its space, and it was \
             pending for at least {minutes} minutes"
        )
    }));
    trash
}

/// The pending releases that a `receive` removes.
struct PendingChoice {
    /// They are too old.
    overdue: Vec<ReleaseId>,
    /// The upload needs their places or their space.
    displaced: Vec<ReleaseId>,
}

impl PendingChoice {
    fn new(
        config: &Config,
        store: &Store,
        actor: &Actor,
        incoming: &ReleaseId,
        history: &History,
        present: &[ReleaseId],
    ) -> PendingChoice {
        let (now, max_age) = (journal::now(), config.pending.max_age);
        let overdue = pending::overdue(history, present, max_age, now);
        let without_displaced = |overdue| PendingChoice {
            overdue,
            displaced: Vec::new(),
        };
        // A repeated request adds no release.
        if present.contains(incoming) {
            return without_displaced(overdue);
        }
        let free = match store.room(config.limits.reserve) {
            Ok(room) => Some(room),
            Err(error) if error.code == Code::DiskFull => None,
            // The request reports it.
            Err(_) => return without_displaced(overdue),
        };
        let Ok(links) = store.symlinks_to_releases() else {
            return without_displaced(overdue);
        };
        let named = links.into_iter().map(|(_, release)| release);
        let kept: Vec<ReleaseId> = named.chain(history.live.clone()).collect();
        let counted = pending::counted(history, present, max_age, now);
        let (limits, key) = (&config.pending, actor.key.as_ref());
        PendingChoice {
            overdue,
            displaced: pending::displaced(&counted, limits, key, free, &kept, now),
        }
    }
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
