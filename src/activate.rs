//! `swap` and `rollback`: one function that moves the link, two ways to say
//! where to.

mod candidate;
mod prune;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::outcome::Success;
use crate::policy::{Granted, Verb};
use crate::request::{Rollback, Swap};
use crate::session::Session;
use crate::signature::Requirement;
use crate::store::Store;
use crate::store::journal::{Event, How};
use crate::store::ledger::{Ledger, PATIENCE};

/// From what is live to what shall be.
struct Activation {
    from: Option<ReleaseId>,
    to: ReleaseId,
    how: How,
}

/// Makes a received release live.
///
/// Errors: [`Code::NoSuchRelease`], [`Code::NotCurrent`], [`Code::Busy`],
/// [`Code::DigestMismatch`], [`Code::BadSignature`], [`Code::Denied`],
/// [`Code::BadConfig`], [`Code::BadLayout`], [`Code::IoError`],
/// [`Code::DiskFull`]; all of them before the link moves.
pub fn swap(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    session: &Session,
    asked: &Granted<Swap>,
) -> Result<Success> {
    let ledger = Ledger::open(store, session, PATIENCE)?;
    expect_live(&ledger, asked.if_current.as_ref())?;
    let to = asked.release.clone();
    if !store.is_present(&to)? {
        return Err(no_such(format!("there is no release '{to}'")));
    }
    move_link(config, required, ledger, How::Swap, to)
}

/// Goes back to a release that was live and good.
///
/// Errors: as [`swap`]; [`Code::NoSuchRelease`] also for a release that was
/// never live or is bad.
pub fn rollback(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    session: &Session,
    asked: &Granted<Rollback>,
) -> Result<Success> {
    let ledger = Ledger::open(store, session, PATIENCE)?;
    expect_live(&ledger, asked.if_current.as_ref())?;
    let history = &ledger.history;
    let present = store.present()?;
    let to = match &asked.release {
        None => {
            // A release below the floor is passed over: it can never be meant.
            // One whose signatures hold no more is not: what is live after it
            // would be older than anybody asked for, and why is to be seen.
            let floor = candidate::floor(config, history)?;
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
    move_link(config, required, ledger, How::Rollback, to)
}

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
            .remedy("look at 'list', then decide again"))
        }
        _ => Ok(()),
    }
}

fn move_link(
    config: &Config,
    required: Option<&Requirement>,
    ledger: Ledger<'_>,
    how: How,
    to: ReleaseId,
) -> Result<Success> {
    let activation = Activation {
        from: ledger.history.live.clone(),
        to,
        how,
    };
    if activation.from.as_ref() == Some(&activation.to) {
        let verb = verb(how);
        return Ok(Success {
            lines: vec![format!("ok {verb} {} result=unchanged", activation.to)],
            release: Some(activation.to),
            previous: activation.from,
            ..Success::default()
        });
    }
    activate(config, required, ledger, activation)
}

/// Makes `activation.to` live.
fn activate(
    config: &Config,
    required: Option<&Requirement>,
    mut ledger: Ledger<'_>,
    activation: Activation,
) -> Result<Success> {
    let Activation { from, to, how } = activation;
    let store = ledger.store;
    let signed = candidate::check(config, required, &ledger, &to)?;
    let mut warnings = Vec::new();

    let mut intent = ledger.draft(Event::Activating, Some(&to));
    (intent.how, intent.previous) = (Some(how), from.clone());
    ledger.append(intent)?;
    store.point_at(&to)?;
    // The commit point is behind us: from here on nothing turns success into
    // failure. What cannot be synced or written down now is mended by the next
    // request, which takes the link as the truth.
    if let Err(errno) = store.root.sync() {
        warnings.push(store.io("cannot sync the site's root", errno).to_string());
    }
    let mut done = ledger.draft(how.done(), Some(&to));
    done.previous.clone_from(&from);
    match ledger.append(done) {
        Ok(()) => {
            let trash = prune::prune(&mut ledger, config, &mut warnings);
            // Removing takes a while, and the lock is not needed for it.
            drop(ledger);
            prune::empty(store, &trash, &mut warnings);
        }
        Err(error) => warnings.push(error.to_string()),
    }

    let previous = from.as_ref().map_or("-", ReleaseId::as_str);
    Ok(Success {
        lines: vec![format!("ok {} {to} previous={previous}", verb(how))],
        release: Some(to),
        previous: from,
        signed,
        warnings,
        ..Success::default()
    })
}

fn verb(how: How) -> Verb {
    match how {
        How::Swap => Verb::Swap,
        How::Rollback => Verb::Rollback,
    }
}
