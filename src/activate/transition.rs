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
use crate::store::journal::{self, Event, How, Record};
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

impl<'g> Transition<'_, 'g> {
    /// Makes `activation.to` live, if it passes what the site asks of it.
    ///
    /// Errors: those of [`candidate::check`]; [`Code::GateFailed`] when what
    /// was live before still is, or is again; an error of the disk when the
    /// link could not be moved.
    pub fn activate(mut self, activation: Activation) -> Result<Success> {
        let Activation { from, to, how } = &activation;
        let candidate = candidate::check(self.config, self.required, &self.ledger, to)?;
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
        // A link that leads nowhere is no release.
        let ready = match ready {
            Ok(()) if !candidate.is_as_it_was(self.ledger.store)? => Err(Failed::unasked(
                "it is gone, or not what it was when this request began",
            )),
            ready => ready,
        };
        if let Err(failed) = ready {
            return Err(self.stay(&activation, &failed));
        }
        self.lay_back(from.as_ref())?;
        self.commit(*how, from.as_ref(), Some(to))
            .inspect_err(|_| self.ledger.store.clear_links())?;
        let proof = self.prove(to, from.as_ref());
        if let Err(failed) = proof {
            return Err(self.way_back(to, from.as_ref(), &failed));
        }
        let verb = verb(*how);
        let previous = from.as_ref().map_or("-", ReleaseId::as_str);
        let line = format!("ok {verb} {to} previous={previous}");
        let warnings = self.prune(None).1;
        Ok(Success {
            lines: vec![line],
            release: Some(activation.to),
            previous: activation.from,
            signed: candidate.signed,
            warnings,
            ..Success::default()
        })
    }

    /// Asks the live release again what it has not answered yet: the request
    /// that would have seen to it was killed, or it was gone back to and failed.
    ///
    /// Errors: as [`Transition::activate`].
    pub fn prove_live(mut self, to: ReleaseId, how: How) -> Result<Success> {
        let signed = candidate::check(self.config, self.required, &self.ledger, &to)?.signed;
        let before = self.ledger.history.before.clone();
        // No reason not to ask: if it passes, none is needed.
        if let Err(error) = self.lay_back(before.as_ref()) {
            self.warnings.push(error.to_string());
        }
        if let Err(failed) = self.prove(&to, before.as_ref()) {
            let known = self.ledger.history.releases.get(&to);
            let good = known.is_none_or(|known| known.proved);
            // It may be long since the link moved, so what was live then must
            // pass what every swap asks today.
            let passes =
                |before| candidate::check(self.config, self.required, &self.ledger, before).is_ok();
            if good || !before.as_ref().is_none_or(passes) {
                // It was good, or there is nothing better. If it was, what is
                // around it has failed, and would fail any other: nothing is
                // moved for it.
                let problem = format!("'{to}' is live and fails: {failed}; nothing was moved");
                let error = Error::new(Code::GateFailed, problem).remedy(NEITHER);
                return Err(self.fail(&to, error));
            }
            return Err(self.way_back(&to, before.as_ref(), &failed));
        }
        let line = format!("ok {} {to} result=proved", verb(how));
        let warnings = self.prune(None).1;
        Ok(Success {
            lines: vec![line],
            release: Some(to),
            previous: before,
            signed,
            warnings,
            ..Success::default()
        })
    }

    /// What is left to do when a release has failed before the link moved.
    fn stay(mut self, activation: &Activation, failed: &Failed) -> Error {
        let Activation { from, to, how } = activation;
        // A rollback is made in need, and what keeps it from being made may have
        // nothing to do with where it leads: a mark would eat up the way back.
        let record = self.ledger.draft(Event::Failed, Some(to));
        let marked = *how == How::Swap && failed.asked && self.record(record);
        let live = live(from.as_ref());
        let problem = format!("release '{to}' failed its gate: {failed}; {live}, as before");
        let error = Error::new(Code::GateFailed, problem).remedy(again(marked));
        self.fail(to, error)
    }

    /// Sees to it that the way back will need no room on the disk.
    ///
    /// Errors: as [`Store::lay_back`](crate::store::Store::lay_back).
    fn lay_back(&self, to: Option<&ReleaseId>) -> Result<()> {
        match to {
            Some(to) if self.gate.asks_the_live() => self.ledger.store.lay_back(to),
            _ => Ok(()),
        }
    }

    /// Moves the link, with the intent before it and the record after it.
    ///
    /// The rename is the commit point. From there on nothing turns success into
    /// failure: what cannot be synced or written down then is mended by the
    /// next request, which takes the link as the truth.
    ///
    /// Whether the record was written.
    fn commit(
        &mut self,
        how: How,
        from: Option<&ReleaseId>,
        to: Option<&ReleaseId>,
    ) -> Result<bool> {
        let store = self.ledger.store;
        // The hooks took their time, and another hand may have moved the link
        // meanwhile: what it did is not undone unseen. The way back is: what is
        // live then has failed.
        if how != How::Return && store.current()?.as_ref() != from {
            let problem = "the link was moved by another hand while this request ran";
            return Err(Error::new(Code::NotCurrent, problem).remedy(super::LOOK));
        }
        let unproved = to.is_some() && self.gate.asks_the_live();
        let mut intent = self.ledger.draft(Event::Activating, to);
        (intent.how, intent.unproved) = (Some(how), unproved);
        intent.previous = from.cloned();
        match self.ledger.append(intent) {
            // A full disk must not keep a release live that has failed.
            Err(error) if how == How::Return => self.warnings.push(error.to_string()),
            written => written?,
        }
        match how {
            How::Return => store.point_back(to)?,
            How::Swap | How::Rollback => store.point_at(to)?,
        }
        if let Err(errno) = store.root.sync() {
            let error = store.io("cannot sync the site's root", errno);
            self.warnings.push(error.to_string());
        }
        let mut done = self.ledger.draft(how.done(), to);
        done.unproved = unproved;
        done.previous = from.cloned();
        Ok(self.record(done))
    }

    /// Writes down what has happened; where that fails, what follows goes by it
    /// all the same. Whether it is written down.
    fn record(&mut self, record: Record) -> bool {
        match self.ledger.append(record.clone()) {
            Ok(()) => true,
            Err(error) => {
                self.warnings.push(error.to_string());
                self.ledger.note(record);
                false
            }
        }
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
        self.record(proved);
        Ok(())
    }

    /// Leaves a release that did not prove itself for what was live before it,
    /// `from`, and says how far that came.
    fn way_back(mut self, left: &ReleaseId, from: Option<&ReleaseId>, why: &Failed) -> Error {
        let since = self.since(left);
        let problem = format!("release '{left}' failed its gate: {why}");
        let to = self.refuge(left, from);
        let to = to.as_ref();
        let marked = match self.commit(How::Return, Some(left), to) {
            Ok(marked) => marked,
            Err(error) => {
                let to = to.map_or("to nothing".to_owned(), |to| format!("to '{to}'"));
                let problem = format!(
                    "{problem}; it is still live, because the way back {to} failed: {error}"
                );
                let remedy = "mend that, then 'rollback'; 'list' shows what is live";
                return self.fail(left, Error::new(error.code, problem).remedy(remedy));
            }
        };
        let was = format!("it was live from {since} to {}", journal::now());
        let (outcome, remedy) = match to {
            None => (", and nothing is live, as before".to_owned(), again(marked)),
            Some(to) => match self.prove(to, Some(left)) {
                Ok(()) => (format!(", and '{to}' is live again"), again(marked)),
                Err(failed) => {
                    let outcome = format!("; '{to}' is live again and failed as well: {failed}");
                    (outcome, NEITHER)
                }
            },
        };
        self.gate.returned(left, to, !self.ledger.history.unsettled);
        let problem = format!("{problem}; {was}{outcome}");
        self.fail(left, Error::new(Code::GateFailed, problem).remedy(remedy))
    }

    /// Where to go when `left` has failed: to what was live before it, `from`.
    ///
    /// That is asked nothing before: it was live a moment ago, and what is live
    /// now is known not to work. Only if it is gone, or had yet to prove itself,
    /// another is looked for, and that must pass what every swap asks. Where
    /// there is none to serve, as before the first release, nothing is live: one
    /// that failed is not to be, the first one no more than any other.
    fn refuge(&self, left: &ReleaseId, from: Option<&ReleaseId>) -> Option<ReleaseId> {
        let from = from?;
        let (store, history) = (self.ledger.store, &self.ledger.history);
        // A folder is enough: it may be of a time before we came to this site.
        // That it cannot be told is no reason to stay with what has failed.
        let there = from != left && store.releases.exists(from).unwrap_or(true);
        let known = history.releases.get(from);
        if there && known.is_none_or(|known| known.proved) {
            return Some(from.clone());
        }
        let present = store.present().unwrap_or_default();
        let good = history.previous(|id| present.contains(id) && id != left);
        let passes = |id: &&ReleaseId| {
            candidate::check(self.config, self.required, &self.ledger, id).is_ok()
        };
        let good = good.filter(passes).cloned();
        good.or_else(|| there.then(|| from.clone()))
    }

    fn since(&self, live: &ReleaseId) -> Timestamp {
        let known = self.ledger.history.releases.get(live);
        let activated = known.and_then(|known| known.activated);
        activated.map_or_else(journal::now, |(_, time)| time)
    }

    /// Ends with a failure. What has had its time goes all the same: failing
    /// again and again must not fill the disk.
    fn fail(self, failed: &ReleaseId, error: Error) -> Error {
        let (mut gate, warnings) = self.prune(Some(failed));
        for warning in warnings {
            gate.warn(&warning);
        }
        error
    }

    /// Prunes all but `spared`, and gives back the lock; returns all the warnings.
    fn prune(self, spared: Option<&ReleaseId>) -> (Gate<'g>, Vec<String>) {
        let Transition {
            config,
            gate,
            mut ledger,
            mut warnings,
            ..
        } = self;
        // There is no going back from here.
        ledger.store.clear_links();
        // What is live is not on record: nothing is taken away by that record.
        if ledger.history.live == ledger.store.current().ok().flatten() {
            let store = ledger.store;
            let trash = prune::prune(&mut ledger, config, spared, &mut warnings);
            // Removing takes a while, and the lock is not needed for it.
            drop(ledger);
            prune::empty(store, &trash, &mut warnings);
        }
        (gate, warnings)
    }
}

/// What can be done about a release that failed; whether it is marked as bad.
fn again(marked: bool) -> &'static str {
    match marked {
        true => "it is marked bad: send a release that works, or swap to this one to try it again",
        false => "it is not marked bad: mend what is named, then try again",
    }
}

const NEITHER: &str =
    "look at the service itself, and at what the hooks do; 'list' shows what is live";

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
