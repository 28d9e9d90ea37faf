//! Pruning: the choice of old releases, and their removal.
//!
//! Pruning never removes the live release, the release that a rollback would choose, a
//! release that another symlink in the root names, or a directory that is not ours: it considers
//! only releases that the journal knows. It leaves the base of a running receive to a later
//! request (see [`crate::store::hold`]).
//! [`choose`] has the rules.

mod choose;

use crate::config::Config;
use crate::names::ReleaseId;
use crate::store::ledger::{self, Ledger};
use crate::store::lock::Lock;
use crate::store::{Actor, Store, journal};
use choose::overdue_releases;
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

/// Returns whether a pending release is too old. Takes no lock.
pub fn is_overdue(store: &Store, config: &Config) -> bool {
    let max_age = config.pending.max_age;
    // The request will say why the history cannot be read.
    ledger::read_unlocked(store).is_ok_and(|(history, listing)| {
        !overdue_releases(&history, &listing.present, max_age, journal::now()).is_empty()
    })
}

/// Moves pending releases that are too old to the trash: for a `receive`, because nobody
/// may swap for long, and then a key that was stolen keeps its part of the disk. A
/// `receive` does this before its sandbox, which does not permit a move out of
/// `releases/`; [`empty_trash`] deletes them inside of it.
///
/// A failure becomes a warning: the upload needs nothing of this.
pub fn prune_overdue(
    config: &Config,
    store: &Store,
    actor: &Actor,
    lock: Lock,
    warnings: &mut Vec<String>,
) -> Trash {
    // The request will say why the site is not as it should be.
    let Ok(mut ledger) = Ledger::open_locked(store, actor, lock) else {
        return Trash::default();
    };
    ledger.leave_trees();
    let Ok(present) = store.present() else {
        return Trash::default();
    };
    let max_age = config.pending.max_age;
    let chosen = overdue_releases(&ledger.history, &present, max_age, journal::now());
    move_to_trash(&mut ledger, chosen, warnings)
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
