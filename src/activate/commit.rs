//! From one live release to another, in one function for swap and rollback (the
//! way back: [`way_back`](super::way_back)): check, prove, commit, prove again, prune.
//!
//! Before the commit (the rename of the link) a failure changes nothing of
//! what is live. After it a release that does not prove itself is left again
//! by the same steps, and what was live before is live once more. If this
//! process is killed in between, the journal says that the live release has
//! yet to prove itself: it is never gone back to until it has, and a swap to
//! it asks it again.

use std::fmt;

use super::gate::{Asked, Failed, Gate};
use super::{preflight, prune};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::policy::Verb;
use crate::signature::Requirement;
use crate::store::journal::{Event, How, Record};
use crate::store::ledger::Ledger;
use crate::success::{Activated, Change, Success};

/// From what is live to what shall be.
pub struct Activation {
    pub from: Option<ReleaseId>,
    pub to: ReleaseId,
    pub how: How,
}

/// Why the live release has not proved itself.
pub(super) enum Unproved {
    Failed(Failed),
    /// It is not live any more; and why it failed, if it did.
    Overtaken(Live, Option<Failed>),
}

/// What another hand has made live.
pub(super) struct Live {
    pub(super) release: Option<ReleaseId>,
    words: String,
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MOVED}: {}", self.words)
    }
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
    /// Errors: those of [`preflight::check`]; [`Code::GateFailed`] when what
    /// was live before still is, or is again; [`Code::NotCurrent`] when another
    /// hand has moved the link; an error of the disk when it could not be moved.
    pub fn activate(mut self, activation: Activation) -> Result<Success> {
        let Activation { from, to, how } = &activation;
        let candidate = preflight::check(self.config, self.required, &self.ledger, to)?;
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
        // Before the commit, which marks what a rollback leaves.
        let bad = from.as_ref().is_some_and(|from| self.is_bad(from));
        if self.gate.asks_the_live() {
            self.lay_back(self.refuge(to, from.as_ref(), bad).as_ref())?;
        }
        self.commit(*how, from.as_ref(), Some(to))
            .inspect_err(|_| self.ledger.store.clear_links())?;
        match self.prove(to, from.as_ref()) {
            Ok(()) => {}
            Err(Unproved::Failed(failed)) => {
                let refuge = self.refuge(to, from.as_ref(), bad);
                return Err(self.way_back(to, from.as_ref(), refuge.as_ref(), &failed));
            }
            Err(Unproved::Overtaken(now, failed)) => {
                return Err(self.overtaken(to, &now, failed.as_ref()));
            }
        }
        let warnings = self.prune(None).1;
        Ok(Success::Activated(Activated {
            verb: verb(activation.how),
            release: activation.to,
            previous: activation.from,
            change: Change::Moved,
            signed: candidate.signed,
            warnings,
        }))
    }

    /// What is left to do when a release has failed before the link moved.
    fn stay(mut self, activation: &Activation, failed: &Failed) -> Error {
        let Activation { from, to, how } = activation;
        // A rollback is made in need, and what keeps it from being made may have
        // nothing to do with where it leads: a mark would eat up the way back.
        let marked = *how == How::Swap && failed.asked;
        if marked {
            let record = self.ledger.draft(Event::Failed, Some(to));
            self.record(record);
        }
        let live = match self.moved_from(from.as_ref()) {
            None => format!("{}, as before", live(from.as_ref())),
            Some(now) => now.to_string(),
        };
        let problem = format!("release '{to}' failed its gate: {failed}; {live}");
        let error = Error::new(Code::GateFailed, problem).remedy(self.again(marked));
        self.fail(to, error)
    }

    /// Sees to it that the way back will need no room on the disk.
    ///
    /// Errors: as [`Store::lay_back`](crate::store::Store::lay_back).
    pub(super) fn lay_back(&self, to: Option<&ReleaseId>) -> Result<()> {
        match to {
            Some(to) => self.ledger.store.lay_back(to),
            None => Ok(()),
        }
    }

    /// Moves the link, with the intent before it and the record after it.
    ///
    /// The rename is the commit point. From there on nothing turns success into
    /// failure: what cannot be synced or written down then is mended by the
    /// next request, which takes the link as the truth.
    ///
    /// Errors: [`Code::NotCurrent`], [`Code::IoError`], [`Code::DiskFull`]; the
    /// link has not moved, an intent may be written.
    pub(super) fn commit(
        &mut self,
        how: How,
        from: Option<&ReleaseId>,
        to: Option<&ReleaseId>,
    ) -> Result<()> {
        let store = self.ledger.store;
        // The hooks took their time, and another hand may have moved the link
        // meanwhile: what it did is not undone unseen. The way back has looked,
        // and goes on also where it cannot be told.
        if how != How::Return && store.current()?.as_ref() != from {
            return Err(Error::new(Code::NotCurrent, MOVED).remedy(super::LOOK));
        }
        let asks = self.gate.asks_the_live();
        let unconfirmed = to.is_some() && asks;
        let mut intent = self.ledger.draft(Event::Activating, to);
        (intent.how, intent.unconfirmed) = (Some(how), unconfirmed);
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
        let mut done = self.ledger.draft(how.done(), to);
        done.unconfirmed = unconfirmed;
        done.previous = from.cloned();
        // The record first, where the file system commits in order: it has the link
        // on the disk with it, and nothing to do for the root any more. Elsewhere
        // (btrfs) power might fail when the record is durable and the link is not,
        // and a release that was not to become live would pass for one that was and
        // was left: a rollback would go to it. With a gate more would be lost, what
        // failed would have proved itself, and an ext4 may be without a journal.
        if !asks && store.root.commits_in_order() {
            self.record(done);
            self.sync_root();
        } else {
            self.sync_root();
            self.record(done);
        }
        Ok(())
    }

    fn sync_root(&mut self) {
        let store = self.ledger.store;
        if let Err(errno) = store.root.sync() {
            let error = store.io("cannot sync the site's root", errno);
            self.warnings.push(error.to_string());
        }
    }

    /// Writes down what has happened; where that fails, what follows goes by it
    /// all the same.
    pub(super) fn record(&mut self, record: Record) {
        if let Err(error) = self.ledger.append_or_keep(record) {
            self.warnings.push(error.to_string());
        }
    }

    /// Asks what is asked of the live release, and writes down that it passed.
    pub(super) fn prove(
        &mut self,
        live: &ReleaseId,
        previous: Option<&ReleaseId>,
    ) -> Result<(), Unproved> {
        if !self.gate.asks_the_live() {
            return Ok(());
        }
        let asked = Asked {
            release: live,
            previous,
        };
        let passed = self.gate.after(asked);
        // Where it is not live any more, who knows whose answers those were.
        if let Some(now) = self.moved_from(Some(live)) {
            return Err(Unproved::Overtaken(now, passed.err()));
        }
        passed.map_err(Unproved::Failed)?;
        let proved = self.ledger.draft(Event::Confirmed, Some(live));
        self.record(proved);
        Ok(())
    }

    /// What is live, if another hand has made it so in the place of `expected`.
    pub(super) fn moved_from(&self, expected: Option<&ReleaseId>) -> Option<Live> {
        match self.ledger.store.current() {
            Ok(live) if live.as_ref() == expected => None,
            Ok(release) => Some(Live {
                words: live(release.as_ref()),
                release,
            }),
            // Nor is it, where something stands there that is no link of ours.
            Err(error) if error.code == Code::BadLayout => Some(Live {
                words: error.problem,
                release: None,
            }),
            // That it cannot be told does not say that it was moved.
            Err(_) => None,
        }
    }

    /// What can be done about a release that failed; `marked` as bad it is once
    /// that is written down.
    pub(super) fn again(&self, marked: bool) -> &'static str {
        match marked && self.ledger.has_marked() {
            true => {
                "it is marked bad: send a release that works, or swap to this one to try it again"
            }
            false => "it is not marked bad: mend what is named, then try again",
        }
    }

    /// Ends with a failure. What has had its time goes all the same: failing
    /// again and again must not fill the disk.
    pub(super) fn fail(self, failed: &ReleaseId, error: Error) -> Error {
        let (mut gate, warnings) = self.prune(Some(failed));
        for warning in warnings {
            gate.warn(&warning);
        }
        error
    }

    /// Prunes all but `spared`, and gives back the lock; returns all the warnings.
    pub(super) fn prune(self, spared: Option<&ReleaseId>) -> (Gate<'g>, Vec<String>) {
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

const MOVED: &str = "the link was moved by another hand while this request ran";

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
