//! `swap` and `rollback`: one function that moves the link ([`commit`]), two
//! ways to say where to.

mod commit;
pub mod gate;
mod preflight;
mod prune;
mod revert;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::policy::Granted;
use crate::request::{Rollback, Swap};
use crate::signature::Requirement;
use crate::store::journal::{Event, How};
use crate::store::ledger::{Ledger, PATIENCE};
use crate::store::{Actor, Store};
use crate::success::{Activated, Change, Success};
use commit::{Activation, Transition};
use gate::Gate;

/// Makes a received release live.
///
/// Errors: [`Code::NoSuchRelease`], [`Code::NotCurrent`], [`Code::Busy`],
/// [`Code::DigestMismatch`], [`Code::BadSignature`], [`Code::Denied`],
/// [`Code::BadConfig`], [`Code::BadLayout`], [`Code::IoError`],
/// [`Code::DiskFull`], all of them before the link moves; and
/// [`Code::GateFailed`], with what was live before still live, or live again.
/// [`Code::NotCurrent`] also where another hand moves the link at any time.
pub fn swap(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    actor: &Actor,
    gate: Gate<'_>,
    asked: &Granted<Swap>,
) -> Result<Success> {
    let transition = open(config, required, store, actor, gate)?;
    expect_live(&transition.ledger, asked.if_current.as_ref())?;
    let to = asked.release.clone();
    if !store.is_present(&to)? {
        return Err(no_such(format!("there is no release '{to}'")));
    }
    move_link(transition, How::Swap, to)
}

/// Goes back to a release that was live and good.
///
/// Errors: as [`swap`]; [`Code::NoSuchRelease`] also for a release that was
/// never live or is bad.
pub fn rollback(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    actor: &Actor,
    gate: Gate<'_>,
    asked: &Granted<Rollback>,
) -> Result<Success> {
    let transition = open(config, required, store, actor, gate)?;
    expect_live(&transition.ledger, asked.if_current.as_ref())?;
    let history = &transition.ledger.history;
    let present = store.present()?;
    let to = match &asked.release {
        None => {
            // A release below the floor is passed over: it can never be meant.
            // One whose signatures hold no more is not: what is live after it
            // would be older than anybody asked for, and why is to be seen.
            let floor = preflight::floor(config, history)?;
            history
                .previous(|id| present.contains(id) && history.reaches(id, floor))
                .ok_or_else(|| {
                    no_such("no release before the present one was live and good".to_owned())
                })?
                .clone()
        }
        Some(id) => {
            let problem = match history.releases.get(id) {
                _ if !present.contains(id) => Some("does not exist"),
                Some(release) if release.bad => Some("was rolled away from and is bad"),
                Some(release) if release.good() => None,
                _ => Some("has never been live"),
            };
            if let Some(problem) = problem {
                return Err(no_such(format!("release '{id}' {problem}")));
            }
            id.clone()
        }
    };
    move_link(transition, How::Rollback, to)
}

/// Takes the lock, with all that an activation needs.
fn open<'a, 'g>(
    config: &'a Config,
    required: Option<&'a Requirement>,
    store: &'a Store,
    actor: &'a Actor,
    gate: Gate<'g>,
) -> Result<Transition<'a, 'g>> {
    Ok(Transition {
        config,
        required,
        gate,
        ledger: Ledger::open(store, actor, PATIENCE)?,
        warnings: Vec::new(),
    })
}

/// What to do when something else is live than was thought.
const LOOK: &str = "look at 'list', then decide again";

fn no_such(problem: String) -> Error {
    Error::new(Code::NoSuchRelease, problem).remedy("'list' shows what there is")
}

/// Compare and swap: what the client believes to be live must be.
fn expect_live(ledger: &Ledger<'_>, expected: Option<&ReleaseId>) -> Result<()> {
    let live = ledger.history.live.as_ref();
    match expected {
        Some(expected) if live != Some(expected) => {
            let live = live.map_or("nothing".to_owned(), |live| format!("'{live}'"));
            Err(Error::new(
                Code::NotCurrent,
                format!("{live} is live, not '{expected}'"),
            )
            .remedy(LOOK))
        }
        _ => Ok(()),
    }
}

fn move_link(mut transition: Transition<'_, '_>, how: How, to: ReleaseId) -> Result<Success> {
    let history = &transition.ledger.history;
    let from = history.live.clone();
    if from.as_ref() != Some(&to) {
        return transition.activate(Activation { from, to, how });
    }
    if history.confirmation_pending && transition.gate.asks_the_live() {
        return transition.prove_live(to, how);
    }
    // What it was to be asked, nobody asks any more.
    if history.confirmation_pending {
        let proved = transition.ledger.draft(Event::Confirmed, Some(&to));
        transition.record(proved);
    }
    Ok(Success::Activated(Activated {
        verb: commit::verb(how),
        release: to,
        previous: from,
        change: Change::Unchanged,
        signed: None,
        warnings: transition.warnings,
    }))
}
