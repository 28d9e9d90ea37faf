//! From one live release to another, in one function for swap, rollback and
//! the way back: check, prove, commit, prove again, prune.
//!
//! Before the commit (the rename of the link) a failure changes nothing of
//! what is live. After it a release that does not prove itself is left again
//! by the same steps, and what was live before is live once more. If this
//! process is killed in between, the journal says that the live release has
//! yet to prove itself: it is never gone back to until it has, and a swap to
//! it asks it again.

use jiff::Timestamp;

use super::gate::{Asked, Failed, Gate};
use super::{candidate, prune};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::outcome::Success;
use crate::policy::Verb;
use crate::signature::Requirement;
use crate::store::journal::{self, Event, How};
use crate::store::ledger::Ledger;

/// From what is live to what shall be.
pub struct Activation {
    pub from: Option<ReleaseId>,
    pub to: ReleaseId,
    pub how: How,
}

/// What an activation works with; it holds the lock.
pub struct Transition<'a, 'g> {
    pub config: &'a Config,
    pub required: Option<&'a Requirement>,
    pub gate: Gate<'g>,
    pub ledger: Ledger<'a>,
    /// What went wrong after the commit without undoing it.
    pub warnings: Vec<String>,
}

impl Transition<'_, '_> {
    /// Makes `activation.to` live, if it passes what the site asks of it.
    ///
    /// Errors: those of [`candidate::check`]; [`Code::GateFailed`] when what
    /// was live before still is, or is again; an error of the disk when the
    /// link could not be moved.
    pub fn activate(mut self, activation: Activation) -> Result<Success> {
        let Activation { from, to, how } = &activation;
        let signed = candidate::check(self.config, self.required, &self.ledger, to)?;
        let asked = Asked {
            release: to,
            previous: from.as_ref(),
        };
        // Before anything of the operator's runs: where the preview link goes, it
        // must be ours to take.
        self.ledger.store.preview(None)?;
        let ready = match self.gate.before(*how, asked) {
            Ok(()) => self.gate.smoke(self.ledger.store, asked)?,
            failed => failed,
        };
        if let Err(failed) = ready {
            let record = self.ledger.draft(Event::Failed, Some(to));
            if let Err(error) = self.ledger.append(record) {
                self.gate.warn(&error.to_string());
            }
            let live = live(from.as_ref());
            let problem = format!("release '{to}' failed its gate: {failed}; {live}, as before");
            return Err(Error::new(Code::GateFailed, problem).remedy(AGAIN));
        }
        self.commit(*how, from.as_ref(), Some(to))?;
        let proof = self.prove(to, from.as_ref());
        if let Err(failed) = proof {
            return Err(self.way_back(to, from.as_ref(), &failed));
        }
        let verb = verb(*how);
        let previous = from.as_ref().map_or("-", ReleaseId::as_str);
        let line = format!("ok {verb} {to} previous={previous}");
        let warnings = self.prune();
        Ok(Success {
            lines: vec![line],
            release: Some(activation.to),
            previous: activation.from,
            signed,
            warnings,
            ..Success::default()
        })
    }

    /// Asks the live release again what it has not answered yet: the request
    /// that made it live was killed before it could be told.
    ///
    /// Errors: as [`Transition::activate`].
    pub fn prove_live(mut self, to: ReleaseId, how: How) -> Result<Success> {
        let signed = candidate::check(self.config, self.required, &self.ledger, &to)?;
        let present = self.ledger.store.present()?;
        let floor = candidate::floor(self.config, &self.ledger.history)?;
        let history = &self.ledger.history;
        let before = history.previous(|id| present.contains(id) && history.reaches(id, floor));
        let before = before.cloned();
        if let Err(failed) = self.prove(&to, before.as_ref()) {
            return Err(self.way_back(&to, before.as_ref(), &failed));
        }
        let line = format!("ok {} {to} result=proved", verb(how));
        let warnings = self.prune();
        Ok(Success {
            lines: vec![line],
            release: Some(to),
            previous: before,
            signed,
            warnings,
            ..Success::default()
        })
    }

    /// Moves the link, with the intent before it and the record after it.
    ///
    /// The rename is the commit point. From there on nothing turns success into
    /// failure: what cannot be synced or written down then is mended by the
    /// next request, which takes the link as the truth.
    fn commit(&mut self, how: How, from: Option<&ReleaseId>, to: Option<&ReleaseId>) -> Result<()> {
        let store = self.ledger.store;
        let unproved = to.is_some() && self.gate.asks_the_live();
        let mut intent = self.ledger.draft(Event::Activating, to);
        (intent.how, intent.unproved) = (Some(how), unproved);
        intent.previous = from.cloned();
        match self.ledger.append(intent) {
            // A full disk must not keep a release live that has failed. What is
            // left without a record the next request marks bad all the same: it
            // has not proved itself.
            Err(error) if how == How::Return => self.warnings.push(error.to_string()),
            written => written?,
        }
        store.point_at(to)?;
        if let Err(errno) = store.root.sync() {
            let error = store.io("cannot sync the site's root", errno);
            self.warnings.push(error.to_string());
        }
        let mut done = self.ledger.draft(how.done(), to);
        done.unproved = unproved;
        done.previous = from.cloned();
        if let Err(error) = self.ledger.append(done) {
            self.warnings.push(error.to_string());
        }
        Ok(())
    }

    /// Asks what is asked of the live release, and writes down that it passed.
    fn prove(&mut self, live: &ReleaseId, previous: Option<&ReleaseId>) -> Result<(), Failed> {
        if !self.gate.asks_the_live() {
            return Ok(());
        }
        let asked = Asked {
            release: live,
            previous,
        };
        self.gate.after(asked)?;
        let proved = self.ledger.draft(Event::Proved, Some(live));
        if let Err(error) = self.ledger.append(proved) {
            self.warnings.push(error.to_string());
        }
        Ok(())
    }

    /// Leaves a release that did not prove itself for what was live before it,
    /// and says how far that came.
    ///
    /// Nothing is asked of the other release first: it was live a moment ago,
    /// and what is live now is known not to work. Without one the link is taken
    /// away: a release that failed is not to be live, the first one no more
    /// than any other.
    fn way_back(mut self, left: &ReleaseId, to: Option<&ReleaseId>, why: &Failed) -> Error {
        let since = self.since(left);
        // A live release that was removed by hand is nothing to go back to.
        let to = to.filter(|to| self.ledger.store.is_present(to).unwrap_or(true));
        let problem = format!("release '{left}' failed its gate: {why}");
        if let Err(error) = self.commit(How::Return, Some(left), to) {
            let to = to.map_or("to nothing".to_owned(), |to| format!("to '{to}'"));
            return Error::new(
                error.code,
                format!("{problem}; it is still live, because the way back {to} failed: {error}"),
            )
            .remedy("mend that, then 'rollback'; 'list' shows what is live");
        }
        let was = format!("it was live from {since} to {}", journal::now());
        let error = match to {
            None => {
                let nothing = "there is nothing good to go back to, so nothing is live now";
                let problem = format!("{problem}; {was}; {nothing}");
                Error::new(Code::GateFailed, problem).remedy(AGAIN)
            }
            Some(to) => match self.prove(to, Some(left)) {
                Ok(()) => {
                    let problem = format!("{problem}; {was}, and '{to}' is live again");
                    Error::new(Code::GateFailed, problem).remedy(AGAIN)
                }
                Err(failed) => {
                    let problem = format!(
                        "{problem}; {was}; '{to}' is live again and failed as well: {failed}"
                    );
                    Error::new(Code::GateFailed, problem).remedy(
                        "neither passes: look at the service itself, and at what the hooks do",
                    )
                }
            },
        };
        for warning in std::mem::take(&mut self.warnings) {
            self.gate.warn(&warning);
        }
        error
    }

    fn since(&self, live: &ReleaseId) -> Timestamp {
        let known = self.ledger.history.releases.get(live);
        let activated = known.and_then(|known| known.activated);
        activated.map_or_else(journal::now, |(_, time)| time)
    }

    /// Prunes, and gives back the lock; returns all the warnings.
    fn prune(self) -> Vec<String> {
        let Transition {
            config,
            mut ledger,
            mut warnings,
            ..
        } = self;
        // What is live is not on record: nothing is taken away by that record.
        if ledger.history.live == ledger.store.current().ok().flatten() {
            let store = ledger.store;
            let trash = prune::prune(&mut ledger, config, &mut warnings);
            // Removing takes a while, and the lock is not needed for it.
            drop(ledger);
            prune::empty(store, &trash, &mut warnings);
        }
        warnings
    }
}

/// What can be done about a release that failed.
const AGAIN: &str =
    "it is marked bad: send a release that works, or swap to this one to try it again";

fn live(release: Option<&ReleaseId>) -> String {
    release.map_or("nothing is live".to_owned(), |live| {
        format!("'{live}' is live")
    })
}

/// By which verb a link moves.
pub fn verb(how: How) -> Verb {
    match how {
        How::Rollback => Verb::Rollback,
        How::Swap | How::Return => Verb::Swap,
    }
}
