//! Which releases have had their time, and their removal.
//!
//! Never the live one, never the one a rollback would choose, never anything
//! that is not ours: only releases that the journal knows are looked at.

use jiff::Timestamp;

use crate::config::Config;
use crate::dir::Name;
use crate::error::Result;
use crate::names::ReleaseId;
use crate::store::Store;
use crate::store::history::{History, Release, State};
use crate::store::journal::{self, Event};
use crate::store::ledger::Ledger;

/// Releases that were moved to the trash, under their names there.
#[derive(Debug, Default)]
pub struct Trash(Vec<String>);

/// Chooses what to prune of `present`. Pure.
fn choose(
    history: &History,
    present: &[ReleaseId],
    config: &Config,
    now: Timestamp,
) -> Vec<ReleaseId> {
    let floor = config.floor.0.as_ref();
    let eligible = |id: &ReleaseId| present.contains(id) && history.reaches(id, floor);
    let previous = history.previous(eligible);
    let in_state = |state: State| {
        let mut found: Vec<_> = present
            .iter()
            .filter(|id| history.state(id, previous) == state)
            .filter_map(|id| Some((id, history.releases.get(id)?)))
            .collect();
        // By when each became live; what never was, by when it came.
        let newest = |release: &Release| release.activated.map_or(release.seq, |(seq, _)| seq);
        found.sort_by_key(|(_, release)| std::cmp::Reverse(newest(release)));
        found
    };
    // Bad ones are kept by the same count: they are what one wants to look at.
    let mut chosen: Vec<ReleaseId> = [State::Good, State::Bad]
        .into_iter()
        .flat_map(|state| in_state(state).into_iter().skip(config.keep))
        .filter(|(_, release)| {
            // Workers may still run in one that has just been replaced.
            let last = release.last_live().unwrap_or(release.received);
            journal::age(last, now) >= config.min_age
        })
        .map(|(id, _)| id.clone())
        .collect();
    chosen.extend(
        in_state(State::Pending)
            .into_iter()
            .filter(|(_, release)| journal::age(release.received, now) >= config.pending.max_age)
            .map(|(id, _)| id.clone()),
    );
    chosen
}

/// Moves what has had its time to the trash. The rename takes a release away
/// as a whole; [`empty`] removes it, after the lock is given back.
///
/// What cannot be moved is a warning: the swap before it has been made.
/// `spared` has just failed: it is what one wants to look at.
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
    let chosen = choose(&ledger.history, &present, config, journal::now());
    for release in chosen.into_iter().filter(|id| Some(id) != spared) {
        match move_away(ledger, &release) {
            Ok(name) => trash.0.push(name),
            Err(error) => warnings.push(format!("'{release}' was not pruned: {error}")),
        }
    }
    trash
}

fn move_away(ledger: &mut Ledger<'_>, release: &ReleaseId) -> Result<String> {
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
    ledger.append(ledger.draft(Event::Pruned, Some(release)))?;
    Ok(name)
}

/// Removes what was moved to the trash.
pub fn empty(store: &Store, trash: &Trash, warnings: &mut Vec<String>) {
    for name in &trash.0 {
        let removed = Name::new(name.as_bytes())
            .ok_or(nix::Error::EINVAL)
            .and_then(|name| store.trash.remove_tree(name));
        if let Err(errno) = removed {
            let error = store.io(format!("cannot remove 'trash/{name}'"), errno);
            warnings.push(error.to_string());
        }
    }
}
