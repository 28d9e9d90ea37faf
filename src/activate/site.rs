//! The site as an activation sees it: the history, the symlinks, the checks.
//! [`LockedSite`] is the real one; the model test has another.

use super::gate::{Gate, GateContext, GateFailure};
use super::plan::Facts;
use super::preflight::{self, Candidate};
use super::prune::{self, Trash};
use crate::config::Config;
use crate::error::Result;
use crate::names::ReleaseId;
use crate::signature::{Requirement, Signed};
use crate::store::history::History;
use crate::store::journal::{Event, How, Record};
use crate::store::ledger::Ledger;

/// Everything that [`super::run_plan`] and what it calls do to a site.
pub trait Site: Facts {
    fn history(&self) -> &History;

    /// Returns the release that the current symlink names.
    fn current(&self) -> Result<Option<ReleaseId>>;

    /// Returns the releases on disk, of those that a request for `release` may mean.
    fn present_for(&self, how: How, release: Option<&ReleaseId>) -> Result<Vec<ReleaseId>>;

    fn has_post_swap_checks(&self) -> bool;

    /// Checks that the release may become live.
    fn preflight(&mut self, release: &ReleaseId) -> Result<()>;

    /// Runs the hooks before the commit and the smoke test, and checks that the
    /// release is unchanged after them. The outer error is that of the site itself.
    fn check_before_commit(
        &mut self,
        how: How,
        context: GateContext<'_>,
    ) -> Result<Result<(), GateFailure>>;

    /// Runs the hooks after the commit and the health check.
    fn check_live(&mut self, context: GateContext<'_>) -> Result<(), GateFailure>;

    fn prepare_fallback_link(&mut self, release: &ReleaseId) -> Result<()>;

    /// Points the current symlink at a release, or removes it.
    fn move_current(&mut self, how: How, to: Option<&ReleaseId>) -> Result<()>;

    /// Removes the temporary symlinks.
    fn clear_links(&mut self);

    /// Whether the file system makes the rename durable with the next record.
    fn commits_in_order(&self) -> bool;

    /// Syncs the root directory. A failure becomes a warning.
    fn sync_root(&mut self);

    /// Returns a record of this request, to be completed and appended.
    fn new_record(&self, event: Event, release: Option<&ReleaseId>) -> Record;

    /// Appends a record of what is about to happen.
    fn append(&mut self, record: Record) -> Result<()>;

    /// Appends a record of what has happened. If that fails, the history takes
    /// it into account all the same, and the failure becomes a warning.
    fn record(&mut self, record: Record);

    /// Whether every record that marks a release bad is in the journal.
    fn marks_are_written(&self) -> bool;

    fn warn(&mut self, warning: String);

    /// Reports to the audit log which release failed, which is live now, and
    /// whether that one passed its checks.
    fn report_rollback(&mut self, failed: &ReleaseId, live: Option<&ReleaseId>, passed: bool);

    /// Moves old releases to the trash, except `spared`.
    fn prune(&mut self, spared: Option<&ReleaseId>);
}

/// A site whose lock this process holds.
pub struct LockedSite<'a, 'g> {
    config: &'a Config,
    required: Option<&'a Requirement>,
    gate: Gate<'g>,
    ledger: Ledger<'a>,
    /// The release that passed preflight.
    candidate: Option<Candidate>,
    trash: Trash,
    /// Failures that did not undo the commit.
    warnings: Vec<String>,
}

impl<'a, 'g> LockedSite<'a, 'g> {
    pub fn new(
        config: &'a Config,
        required: Option<&'a Requirement>,
        gate: Gate<'g>,
        ledger: Ledger<'a>,
    ) -> Self {
        LockedSite {
            config,
            required,
            gate,
            ledger,
            candidate: None,
            trash: Trash::default(),
            warnings: Vec::new(),
        }
    }

    /// Releases the lock, then empties the trash, which takes a while and does not
    /// need the lock. Returns the gate, the signers of the candidate, and
    /// the warnings.
    pub fn close(self) -> (Gate<'g>, Option<Signed>, Vec<String>) {
        let LockedSite {
            gate,
            ledger,
            candidate,
            trash,
            mut warnings,
            ..
        } = self;
        let store = ledger.store;
        drop(ledger);
        prune::empty_trash(store, &trash, &mut warnings);
        (gate, candidate.and_then(|it| it.signed), warnings)
    }
}

impl Facts for LockedSite<'_, '_> {
    fn exists(&self, release: &ReleaseId) -> bool {
        self.ledger.store.releases.exists(release).unwrap_or(true)
    }

    fn present(&self) -> Vec<ReleaseId> {
        self.ledger.store.present().unwrap_or_default()
    }

    fn floor(&self) -> Option<&ReleaseId> {
        self.config.floor.0.as_ref()
    }

    fn passes_preflight(&self, release: &ReleaseId) -> bool {
        self.ledger.store.is_present(release).unwrap_or(false)
            && preflight::check_candidate(self.config, self.required, &self.ledger, release).is_ok()
    }
}

impl Site for LockedSite<'_, '_> {
    fn history(&self) -> &History {
        &self.ledger.history
    }

    fn current(&self) -> Result<Option<ReleaseId>> {
        self.ledger.store.current()
    }

    fn present_for(&self, how: How, release: Option<&ReleaseId>) -> Result<Vec<ReleaseId>> {
        let store = self.ledger.store;
        match (how, release) {
            (How::Swap, Some(release)) => {
                let present = store.is_present(release)?;
                Ok(present.then(|| release.clone()).into_iter().collect())
            }
            _ => store.present(),
        }
    }

    fn has_post_swap_checks(&self) -> bool {
        self.gate.has_post_swap_checks()
    }

    fn preflight(&mut self, release: &ReleaseId) -> Result<()> {
        let candidate =
            preflight::check_candidate(self.config, self.required, &self.ledger, release)?;
        self.candidate = Some(candidate);
        Ok(())
    }

    fn check_before_commit(
        &mut self,
        how: How,
        context: GateContext<'_>,
    ) -> Result<Result<(), GateFailure>> {
        let store = self.ledger.store;
        // Check before any program of the operator runs that no other file is in
        // the place of the preview symlink.
        store.set_preview(None)?;
        if let Err(failure) = self.gate.run_hooks_before(how, context) {
            return Ok(Err(failure));
        }
        if let Err(failure) = self.gate.run_smoke_test(store, context)? {
            return Ok(Err(failure));
        }
        // The hooks may have removed the release: no symlink may name a missing
        // directory.
        match &self.candidate {
            Some(candidate) if !candidate.is_unchanged(store)? => Ok(Err(GateFailure::not_run(
                "it is gone, or not what it was when this request began",
            ))),
            _ => Ok(Ok(())),
        }
    }

    fn check_live(&mut self, context: GateContext<'_>) -> Result<(), GateFailure> {
        self.gate.run_post_swap_checks(context)
    }

    fn prepare_fallback_link(&mut self, release: &ReleaseId) -> Result<()> {
        self.ledger.store.prepare_fallback_link(release)
    }

    fn move_current(&mut self, how: How, to: Option<&ReleaseId>) -> Result<()> {
        match how {
            How::Return => self.ledger.store.swap_to_fallback(to),
            How::Swap | How::Rollback => self.ledger.store.set_current(to),
        }
    }

    fn clear_links(&mut self) {
        self.ledger.store.clear_links();
    }

    fn commits_in_order(&self) -> bool {
        self.ledger.store.root.commits_in_order()
    }

    fn sync_root(&mut self) {
        let store = self.ledger.store;
        if let Err(errno) = store.root.sync() {
            let error = store.io("cannot sync the site's root", errno);
            self.warn(error.to_string());
        }
    }

    fn new_record(&self, event: Event, release: Option<&ReleaseId>) -> Record {
        self.ledger.new_record(event, release)
    }

    fn append(&mut self, record: Record) -> Result<()> {
        self.ledger.append(record)
    }

    fn record(&mut self, record: Record) {
        if let Err(error) = self.ledger.append_or_keep(record) {
            self.warn(error.to_string());
        }
    }

    fn marks_are_written(&self) -> bool {
        self.ledger.marks_are_written()
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn report_rollback(&mut self, failed: &ReleaseId, live: Option<&ReleaseId>, passed: bool) {
        self.gate.report_rollback(failed, live, passed);
    }

    fn prune(&mut self, spared: Option<&ReleaseId>) {
        self.trash = prune::prune(&mut self.ledger, self.config, spared, &mut self.warnings);
    }
}
