//! `drop`: removes releases that nobody needs: pending and bad ones, and with `--good`
//! good ones, such as those that a stolen key has published.
//!
//! It works as the account: root becomes the account first, so the files that it makes
//! are the account's, and root follows no path that the account controls.

use std::path::Path;

use nix::unistd::getuid;

use crate::record::{record_after, record_before};
use crate::site_account::run_as_account;
use deploy_shell::audit;
use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::event::AuditEvent;
use deploy_shell::names::{KeyLabel, ReleaseId};
use deploy_shell::reply;
use deploy_shell::store::history::State;
use deploy_shell::store::hold::Removal;
use deploy_shell::store::ledger::{LOCK_TIMEOUT, Ledger};
use deploy_shell::store::{Actor, Store};

/// A release that may be removed.
struct Candidate<'a> {
    release: &'a ReleaseId,
    state: State,
    received_from: Option<KeyLabel>,
}

impl Candidate<'_> {
    /// Returns the audit event of the removal; `removed` is none before it.
    fn event(&self, uid: u32, removed: Option<bool>) -> AuditEvent<'_> {
        AuditEvent::Dropped {
            release: self.release,
            uid,
            state: self.state,
            received_from: self.received_from.as_ref(),
            removed,
        }
    }
}

/// Removes the releases: all of them, or none if one of them must stay. With `good`, only
/// the live one and those that another symlink names must. Returns a line for each.
///
/// # Errors
///
/// [`Code::NoSuchRelease`], [`Code::Denied`] for a release that must stay, [`Code::Busy`],
/// [`Code::AuditUnreachable`], and the errors of the configuration and the layout.
pub fn drop_releases(config: &Path, named: &[ReleaseId], good: bool) -> Result<Vec<String>> {
    let uid = getuid().as_raw();
    let config = Config::load(config)?;
    run_as_account(&Store::examine(&config)?, "drop")?;
    let store = Store::open(&config)?;
    let actor = Actor::operator("drop", audit::notices_of_operator(&config));
    let mut ledger = Ledger::open(&store, &actor, LOCK_TIMEOUT)?;
    let candidates = candidates(&config, &ledger, named, good)?;
    let removals = (candidates.iter())
        .map(|candidate| removal(&store, candidate.release))
        .collect::<Result<Vec<_>>>()?;
    let (mut lines, mut trash) = (Vec::new(), Vec::new());
    for (candidate, removal) in candidates.iter().zip(&removals) {
        record_before(&config, &candidate.event(uid, None))?;
        let moved = ledger.move_to_trash(removal);
        record_after(&config, &candidate.event(uid, Some(moved.is_ok())));
        trash.push(moved?);
        // The release is gone, so this is no failure of the command: `forget` fails on a full
        // disk, and the removal makes room.
        if let Err(error) = ledger.forget(removal) {
            let problem = error.problem;
            reply::warning(&format!("{problem}; the next request records the removal"));
        }
        lines.push(describe(candidate));
    }
    // Deleting is slow, and safe without the lock.
    drop(ledger);
    for name in trash {
        if let Err(warning) = store.remove_from_trash(&name) {
            reply::warning(&warning);
        }
    }
    Ok(lines)
}

/// Takes the right to remove a release.
///
/// # Errors
///
/// [`Code::Busy`] if a running receive builds on it, and those of [`Store::try_removal`].
fn removal(store: &Store, release: &ReleaseId) -> Result<Removal> {
    store.try_removal(release)?.ok_or_else(|| {
        let problem =
            format!("'{release}' is the base of a running receive, and nothing was removed");
        Error::new(Code::Busy, problem)
            .remedy("try again when it has ended, or end it: total_timeout limits it")
    })
}

/// Returns the releases with their states, each once.
fn candidates<'a>(
    config: &Config,
    ledger: &Ledger<'_>,
    named: &'a [ReleaseId],
    good: bool,
) -> Result<Vec<Candidate<'a>>> {
    let (store, history) = (ledger.store, &ledger.history);
    let present = store.present()?;
    let previous = history.rollback_target(&present, config.floor.as_ref());
    let mut named: Vec<&ReleaseId> = named.iter().collect();
    named.sort_unstable();
    named.dedup();
    let candidate = |release: &'a ReleaseId| {
        if !present.contains(release) {
            let problem = format!("there is no release '{release}'");
            return Err(
                Error::new(Code::NoSuchRelease, problem).remedy("'list' shows the releases")
            );
        }
        let state = history.state(release, previous);
        let may_go = match state {
            State::Pending | State::Bad => true,
            State::Previous | State::Good => good,
            State::Current | State::Missing | State::NotReceived => false,
        };
        if !may_go {
            let problem = format!("'{release}' is {}, and nothing was removed", state.name());
            let remedy = match state {
                State::Current => "swap to another release first",
                _ => "pruning removes old good releases; --good removes this one now",
            };
            return Err(Error::new(Code::Denied, problem).remedy(remedy));
        }
        let known = history.releases.get(release);
        Ok(Candidate {
            release,
            state,
            received_from: known.and_then(|known| known.key.clone()),
        })
    };
    named.into_iter().map(candidate).collect()
}

fn describe(candidate: &Candidate<'_>) -> String {
    let Candidate { release, state, .. } = candidate;
    let from = match &candidate.received_from {
        Some(key) => format!(", received from key '{key}'"),
        None => String::new(),
    };
    format!("{release} dropped: it was {}{from}", state.name())
}
