//! Pruning: the choice of old releases, and their removal.
//!
//! Pruning never removes the live release, the release that a rollback would choose,
//! or a directory that is not ours: it considers only releases that the journal knows.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Config;
use crate::dir::Name;
use crate::error::Result;
use crate::names::ReleaseId;
use crate::store::Store;
use crate::store::history::{History, Release, State};
use crate::store::journal::{self, Event};
use crate::store::ledger::Ledger;

/// The releases in the trash, by their names there.
#[derive(Debug, Default)]
pub struct Trash(Vec<String>);

/// What the configuration says of pruning.
#[derive(Clone, Copy, Debug)]
pub struct PruneRules<'a> {
    pub floor: Option<&'a ReleaseId>,
    /// How many good releases stay, besides the live and the previous one, and how
    /// many bad ones.
    pub keep: usize,
    /// How long a release stays after it was last live.
    pub min_age: Duration,
    /// How long a release stays that was never live.
    pub pending_max_age: Duration,
}

impl<'a> PruneRules<'a> {
    fn new(config: &'a Config) -> PruneRules<'a> {
        PruneRules {
            floor: config.floor.as_ref(),
            keep: config.keep,
            min_age: config.min_age,
            pending_max_age: config.pending.max_age,
        }
    }
}

/// Chooses the releases of `present` to prune. Pure.
///
/// The live release and the previous one have their own states, so they are never
/// chosen, and do not count for `rules.keep`.
pub fn choose_releases(
    history: &History,
    present: &[ReleaseId],
    rules: PruneRules<'_>,
    now: Timestamp,
) -> Vec<ReleaseId> {
    let previous = history.rollback_target(present, rules.floor);
    let in_state = |state: State| {
        let mut found: Vec<_> = present
            .iter()
            .filter(|id| history.state(id, previous) == state)
            .filter_map(|id| Some((id, history.releases.get(id)?)))
            .collect();
        // Newest first: by when each became live, or by when it was received.
        let newest = |release: &Release| release.activated.map_or(release.seq, |(seq, _)| seq);
        found.sort_by_key(|(_, release)| std::cmp::Reverse(newest(release)));
        found
    };
    // The same number of bad releases stays: a person may want to look at them.
    let mut chosen: Vec<ReleaseId> = [State::Good, State::Bad]
        .into_iter()
        .flat_map(|state| in_state(state).into_iter().skip(rules.keep))
        .filter(|(_, release)| {
            // Processes may still use a release that was just replaced.
            let last = release.last_live().unwrap_or(release.received);
            journal::age(last, now) >= rules.min_age
        })
        .map(|(id, _)| id.clone())
        .collect();
    chosen.extend(
        in_state(State::Pending)
            .into_iter()
            .filter(|(_, release)| journal::age(release.received, now) >= rules.pending_max_age)
            .map(|(id, _)| id.clone()),
    );
    chosen
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
        match move_to_trash(ledger, &release) {
            Ok(name) => trash.0.push(name),
            Err(error) => warnings.push(format!("'{release}' was not pruned: {error}")),
        }
    }
    trash
}

fn move_to_trash(ledger: &mut Ledger<'_>, release: &ReleaseId) -> Result<String> {
    let store = ledger.store;
    let cannot = |errno: nix::Error| store.io("cannot move it to the trash", errno);
    let name = format!("{release}.{}", ledger.history.generation);
    let to = Name::new(name.as_bytes())
        .ok_or(nix::Error::EINVAL)
        .map_err(cannot)?;
    store
        .releases
        .rename(release, &store.trash, to)
        .and_then(|()| store.manifests.remove_file(release))
        .map_err(cannot)?;
    ledger.append(ledger.new_record(Event::Pruned, Some(release)))?;
    Ok(name)
}

/// Deletes the releases that [`prune`] moved to the trash.
pub fn empty_trash(store: &Store, trash: &Trash, warnings: &mut Vec<String>) {
    for name in &trash.0 {
        if let Err(warning) = store.remove_from_trash(name) {
            warnings.push(warning);
        }
    }
}

#[cfg(test)]
mod tests;
