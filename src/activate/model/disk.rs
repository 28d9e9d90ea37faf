//! The disk and the operator's checks, as the model has them.

use std::time::Duration;

use super::{Disk, Run, ids, index};
use crate::activate::gate::{GateContext, GateFailure};
use crate::activate::plan::{Facts, RequestKind};
use crate::activate::prune::{self, PruneRules};
use crate::activate::site::Site;
use crate::config::Bridge;
use crate::error::{Code, Error, Result};
use crate::names::{ReleaseId, Sha256Digest};
use crate::store::history::History;
use crate::store::journal::{self, Event, How, Record};

impl Facts for Run<'_> {
    fn has_directory(&self, release: &ReleaseId) -> bool {
        self.state.disk[index(release)] != Disk::Absent
    }

    fn present(&self) -> Vec<ReleaseId> {
        let there = ids().iter().filter(|id| self.has_directory(id));
        there.cloned().collect()
    }

    fn floor(&self) -> Option<&ReleaseId> {
        None
    }

    fn passes_preflight(&self, release: &ReleaseId) -> bool {
        self.state.disk[index(release)] == Disk::Whole
    }
}

impl Site for Run<'_> {
    fn history(&self) -> &History {
        &self.state.history
    }

    fn current(&self) -> Result<Option<ReleaseId>> {
        Ok(self.state.link.map(|link| ids()[link].clone()))
    }

    fn present_for(&self, _: RequestKind, _: Option<&ReleaseId>) -> Result<Vec<ReleaseId>> {
        Ok(self.present())
    }

    fn has_post_swap_checks(&self) -> bool {
        self.has_checks
    }

    fn has_checks_before_commit(&self, _: RequestKind) -> bool {
        false
    }

    fn due_places(&self) -> Vec<ReleaseId> {
        self.state
            .history
            .due_places(Duration::ZERO, journal::now())
    }

    /// Every whole release of the model is the same payload.
    fn digests(&self, release: &ReleaseId) -> Result<Vec<Sha256Digest>> {
        if self.passes_preflight(release) {
            Ok(vec![Sha256Digest([0; 32])])
        } else {
            Err(Error::new(Code::DigestMismatch, ""))
        }
    }

    fn preflight(&mut self, _: Option<RequestKind>, context: GateContext<'_>) -> Result<()> {
        if self.passes_preflight(context.release) {
            Ok(())
        } else {
            Err(Error::new(Code::DigestMismatch, ""))
        }
    }

    fn check_before_commit(
        &mut self,
        _: RequestKind,
        context: GateContext<'_>,
    ) -> Result<Result<(), GateFailure>> {
        self.interfere();
        Ok(match self.choices.choose(3) {
            0 if self.passes_preflight(context.release) => Ok(()),
            0 | 1 => Err(GateFailure::inconclusive("")),
            _ => Err(GateFailure::failed("")),
        })
    }

    fn check_live(&mut self, context: GateContext<'_>) -> Result<(), GateFailure> {
        let live = index(context.release);
        assert_eq!(self.state.link, Some(live), "{self:?}");
        self.interfere();
        if self.choices.choose(2) == 0 {
            // If it is not live any more, another release may have answered.
            self.state.passed[live] |= self.state.link == Some(live);
            Ok(())
        } else {
            Err(GateFailure::failed(""))
        }
    }

    fn prepare_fallback_link(&mut self, _: &ReleaseId) -> Result<()> {
        Ok(())
    }

    fn move_current(&mut self, how: How, to: Option<&ReleaseId>) -> Result<()> {
        self.check_move(how, to.map(index));
        if self.choices.choose(2) == 1 {
            self.rename_failed = true;
            return Err(Error::new(Code::IoError, ""));
        }
        if let Some(from) = self.state.link
            && how != How::Swap
        {
            self.state.left[from] = true;
        }
        self.state.link = to.map(index);
        if let Some(to) = self.state.link {
            self.state.left[to] = false;
            if how != How::Revert {
                self.state.passed[to] = !self.has_checks;
            }
        }
        self.moves += 1;
        self.step();
        Ok(())
    }

    fn clear_links(&mut self) {}

    fn record_sync_persists_rename(&self) -> bool {
        true
    }

    fn sync_root(&mut self) {}

    fn new_record(&self, event: Event, release: Option<&ReleaseId>) -> Record {
        Record::unattended(event, release)
    }

    fn append_or_fail(&mut self, record: Record) -> Result<()> {
        self.apply(record);
        Ok(())
    }

    fn append_or_warn(&mut self, record: Record) {
        if record.event == Event::Confirmed && !self.has_checks {
            let live = record.release.as_ref().map(index);
            self.state.passed[live.unwrap()] = true;
        }
        self.apply(record);
    }

    fn all_bad_marks_are_durable(&self) -> bool {
        true
    }

    fn warn(&mut self, _: String) {}

    fn report_failure_after_commit(&mut self, _: &ReleaseId, live: Option<&ReleaseId>, _: bool) {
        assert_eq!(self.state.link, live.map(index), "{self:?}");
    }

    /// Prunes by the strictest rules: removes everything that may be removed.
    fn prune(&mut self, spared: Option<&ReleaseId>) {
        let rules = PruneRules {
            floor: None,
            keep: self.choices.choose(2),
            keep_for: None,
            min_age: Duration::ZERO,
            pending_max_age: Duration::ZERO,
            bridge: &Bridge::default(),
        };
        let present = self.present();
        let chosen = prune::choose_releases(&self.state.history, &present, rules, journal::now());
        for id in chosen.iter().filter(|id| Some(*id) != spared) {
            self.check_prune(index(id));
            self.state.disk[index(id)] = Disk::Absent;
            self.step();
            self.apply(Record::unattended(Event::Pruned, Some(id)));
        }
    }
}
