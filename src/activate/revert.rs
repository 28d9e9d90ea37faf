//! What becomes of a live release that does not prove itself: it is left for
//! what was live before it, which is then live once more.

use jiff::Timestamp;

use super::commit::{Live, Transition, Unproved, verb};
use super::gate::Failed;
use super::preflight;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::store::journal::{self, Event, How};
use crate::success::{Activated, Change, Success};

const NEITHER: &str =
    "look at the service itself, and at what the hooks do; 'list' shows what is live";

impl Transition<'_, '_> {
    /// Asks the live release again what it has not answered yet: the request
    /// that would have seen to it was killed, or it was gone back to and failed.
    ///
    /// Errors: as [`Transition::activate`].
    pub fn prove_live(mut self, to: ReleaseId, how: How) -> Result<Success> {
        let signed = preflight::check(self.config, self.required, &self.ledger, &to)?.signed;
        let before = self.ledger.history.before.clone();
        // No reason not to ask: if it passes, none is needed.
        let refuge = before.as_ref().and_then(|before| self.better(&to, before));
        if let Err(error) = self.lay_back(refuge.as_ref()) {
            self.warnings.push(error.to_string());
        }
        match self.prove(&to, before.as_ref()) {
            Ok(()) => {}
            Err(Unproved::Failed(failed)) => {
                return Err(self.fails_live(&to, before.as_ref(), &failed));
            }
            Err(Unproved::Overtaken(now, failed)) => {
                return Err(self.overtaken(&to, &now, failed.as_ref()));
            }
        }
        let warnings = self.prune(None).1;
        Ok(Success::Activated(Activated {
            verb: verb(how),
            release: to,
            previous: before,
            change: Change::Confirmed,
            signed,
            warnings,
        }))
    }

    /// What becomes of a release that was asked again and failed.
    fn fails_live(self, to: &ReleaseId, before: Option<&ReleaseId>, failed: &Failed) -> Error {
        // It was good, so what is around it has failed, and would fail any
        // other: nothing is moved for it.
        if self.is_proved(to) {
            return self.stay_live(to, failed, "nothing was moved");
        }
        let Some(before) = before else {
            return self.way_back(to, None, None, failed);
        };
        match self.better(to, before) {
            Some(refuge) => self.way_back(to, Some(before), Some(&refuge), failed),
            None => {
                let outcome = "there is nothing good to go back to, and nothing was moved";
                self.stay_live(to, failed, outcome)
            }
        }
    }

    /// Where to go from a release that was asked again and failed. It may be long
    /// since the link moved, so what was live then, `before`, must be good, and
    /// pass what every swap asks today.
    fn better(&self, left: &ReleaseId, before: &ReleaseId) -> Option<ReleaseId> {
        match self.is_proved(before) && !self.is_bad(before) && self.passes(before) {
            true => Some(before.clone()),
            false => self.good(left),
        }
    }

    fn stay_live(self, live: &ReleaseId, failed: &Failed, outcome: &str) -> Error {
        let problem = format!("'{live}' is live and fails: {failed}; {outcome}");
        let error = Error::new(Code::GateFailed, problem).remedy(NEITHER);
        self.fail(live, error)
    }

    /// Ends where another hand has moved the link away from `left`: what it did
    /// is not undone unseen.
    pub(super) fn overtaken(
        mut self,
        left: &ReleaseId,
        now: &Live,
        failed: Option<&Failed>,
    ) -> Error {
        let Some(failed) = failed else {
            let error = Error::new(Code::NotCurrent, now.to_string()).remedy(super::LOOK);
            return self.fail(left, error);
        };
        // One that was good before may have failed for what is around it.
        let marked = !self.is_proved(left);
        if marked {
            let record = self.ledger.draft(Event::Failed, Some(left));
            self.record(record);
        }
        self.gate.returned(left, now.release.as_ref(), false);
        let problem = format!("release '{left}' failed its gate: {failed}; {now}");
        let error = Error::new(Code::GateFailed, problem).remedy(self.again(marked));
        self.fail(left, error)
    }

    /// Leaves a release that did not prove itself for `to`, and says how far
    /// that came. `from` is what was live before it.
    pub(super) fn way_back(
        mut self,
        left: &ReleaseId,
        from: Option<&ReleaseId>,
        to: Option<&ReleaseId>,
        why: &Failed,
    ) -> Error {
        // To choose where to go may have taken a while.
        if let Some(now) = self.moved_from(Some(left)) {
            return self.overtaken(left, &now, Some(why));
        }
        let since = self.since(left);
        let problem = format!("release '{left}' failed its gate: {why}");
        if let Err(error) = self.commit(How::Return, Some(left), to) {
            let to = to.map_or("to nothing".to_owned(), |to| format!("to '{to}'"));
            let failed = format!("the way back {to} failed: {error}");
            let moved = self.moved_from(Some(left));
            let (live, outcome) = match &moved {
                None => (Some(left), format!("it is still live, because {failed}")),
                Some(now) => (now.release.as_ref(), format!("{failed}; {now}")),
            };
            self.gate.returned(left, live, false);
            let problem = format!("{problem}; {outcome}");
            let remedy = "mend that, then 'rollback'; 'list' shows what is live";
            return self.fail(left, Error::new(error.code, problem).remedy(remedy));
        }
        let was = format!("it was live from {since} to {}", journal::now());
        let (outcome, remedy) = match to {
            None => (self.nothing(from), self.again(true)),
            Some(to) => match self.prove(to, Some(left)) {
                Ok(()) => (format!(", and '{to}' is live again"), self.again(true)),
                Err(Unproved::Failed(failed)) => {
                    let outcome = format!("; '{to}' is live again and failed as well: {failed}");
                    (outcome, NEITHER)
                }
                Err(Unproved::Overtaken(now, _)) => {
                    self.gate.returned(left, now.release.as_ref(), false);
                    let problem = format!("{problem}; {was}, and '{to}' again after it; {now}");
                    let error = Error::new(Code::GateFailed, problem).remedy(super::LOOK);
                    return self.fail(left, error);
                }
            },
        };
        // Nothing is as good as before only where nothing was live before.
        let passed = match to {
            Some(_) => !self.ledger.history.confirmation_pending,
            None => from.is_none(),
        };
        self.gate.returned(left, to, passed);
        let problem = format!("{problem}; {was}{outcome}");
        self.fail(left, Error::new(Code::GateFailed, problem).remedy(remedy))
    }

    /// Why nothing is live after the way back from what followed `from`.
    fn nothing(&self, from: Option<&ReleaseId>) -> String {
        let store = self.ledger.store;
        match from {
            None => ", and nothing is live, as before".to_owned(),
            Some(from) if store.releases.exists(from).unwrap_or(true) => {
                format!("; '{from}' is bad as well, and nothing is live")
            }
            Some(from) => format!("; '{from}' is gone, and nothing is live"),
        }
    }

    /// Where to go when `left` has failed: to what was live before it, `from`,
    /// unless it was `bad` by then.
    ///
    /// That is asked nothing before: it was live a moment ago, and what is live
    /// now is known not to work. Only if it is gone or bad, or had yet to prove
    /// itself, another is looked for, and that must pass what every swap asks.
    /// Where there is none to serve, as before the first release, nothing is
    /// live: one that failed is not to be, the first one no more than any other.
    pub(super) fn refuge(
        &self,
        left: &ReleaseId,
        from: Option<&ReleaseId>,
        bad: bool,
    ) -> Option<ReleaseId> {
        let from = from?;
        // A folder is enough: it may be of a time before we came to this site.
        // That it cannot be told is no reason to stay with what has failed.
        let there = self.ledger.store.releases.exists(from).unwrap_or(true);
        let takes = there && !bad;
        if takes && self.is_proved(from) {
            return Some(from.clone());
        }
        self.good(left).or_else(|| takes.then(|| from.clone()))
    }

    /// The release that a rollback would choose, if it passes.
    fn good(&self, left: &ReleaseId) -> Option<ReleaseId> {
        let present = self.ledger.store.present().unwrap_or_default();
        let history = &self.ledger.history;
        let good = history.previous(|id| present.contains(id) && id != left);
        good.filter(|id| self.passes(id)).cloned()
    }

    /// Whether it is there and passes what every swap asks.
    fn passes(&self, release: &ReleaseId) -> bool {
        self.ledger.store.is_present(release).unwrap_or(false)
            && preflight::check(self.config, self.required, &self.ledger, release).is_ok()
    }

    pub(super) fn is_bad(&self, release: &ReleaseId) -> bool {
        let known = self.ledger.history.releases.get(release);
        known.is_some_and(|known| known.bad)
    }

    /// Whether it has passed what was asked of it; or nothing is known of it.
    fn is_proved(&self, release: &ReleaseId) -> bool {
        let known = self.ledger.history.releases.get(release);
        known.is_none_or(|known| known.confirmed)
    }

    fn since(&self, live: &ReleaseId) -> Timestamp {
        let known = self.ledger.history.releases.get(live);
        let activated = known.and_then(|known| known.activated);
        activated.map_or_else(journal::now, |(_, time)| time)
    }
}
