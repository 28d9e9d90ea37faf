//! Pruning: the choice of old releases, and their removal.
//!
//! Pruning never removes the live release, the release that a rollback would choose,
//! or a directory that is not ours: it considers only releases that the journal knows.
//! [`choose`] has the rules.

mod choose;

use crate::config::Config;
use crate::names::ReleaseId;
use crate::store::Store;
use crate::store::journal;
use crate::store::ledger::Ledger;
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
    let mut trash = Trash::default();
    let present = match ledger.store.present() {
        Ok(present) => present,
        Err(error) => {
            warnings.push(format!("nothing was pruned: {error}"));
            return trash;
        }
    };
    let chosen = choose_releases(
        &ledger.history,
        &present,
        PruneRules::new(config),
        journal::now(),
    );
    for release in chosen.into_iter().filter(|id| Some(id) != spared) {
        match ledger.move_to_trash(&release) {
            Ok(name) => trash.names.push(name),
            Err(error) => {
                warnings.push(format!("'{release}' was not pruned: {error}"));
                continue;
            }
        }
        if let Err(error) = ledger.forget(&release) {
            warnings.push(format!("'{release}' was pruned: {error}"));
        }
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
