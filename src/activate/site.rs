//! The site as an activation sees it: the history, the symlinks, the checks.
//! [`LockedSite`] is the real one; the model test has another.

use super::gate::{Gate, GateContext, GateFailure};
use super::plan::{Facts, RequestKind};
use super::preflight::{self, Candidate};
use super::prune::{self, Trash};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::names::{ReleaseId, Sha256Digest};
use crate::signature::{Requirement, Signed};
use crate::store::history::History;
use crate::store::journal::{self, Event, How, Record};
use crate::store::ledger::Ledger;
use crate::validators;

/// Everything that [`super::run_plan`] and what it calls do to a site.
pub trait Site: Facts {
    fn history(&self) -> &History;

    /// Returns the release that the current symlink names.
    fn current(&self) -> Result<Option<ReleaseId>>;

    /// Returns the present releases, of those that a request for `release` may mean.
    fn present_for(&self, kind: RequestKind, release: Option<&ReleaseId>)
    -> Result<Vec<ReleaseId>>;

    fn has_post_swap_checks(&self) -> bool;

    /// Whether the site checks the target of such a request before the commit.
    fn has_checks_before_commit(&self, kind: RequestKind) -> bool;

    /// Returns the releases that have earned their places by the time (see
    /// [`History::due_places`]).
    fn due_places(&self) -> Vec<ReleaseId>;

    /// Returns the digests that name a present release: see [`preflight::digests`].
    fn digests(&self, release: &ReleaseId) -> Result<Vec<Sha256Digest>>;

    /// Checks that the release may become live, and that the programs of its checks can
    /// be started: those before the commit too, if a request of this kind runs them.
    fn preflight(&mut self, before: Option<RequestKind>, context: GateContext<'_>) -> Result<()>;

    /// Runs the hooks before the commit and the smoke test, and checks that the
    /// release is unchanged after them.
    ///
    /// # Errors
    ///
    /// Outer `Err`: the site cannot be used (I/O). Inner `Err`: the release failed.
    fn check_before_commit(
        &mut self,
        kind: RequestKind,
        context: GateContext<'_>,
    ) -> Result<Result<(), GateFailure>>;

    /// Runs the hooks after the commit and the health check.
    fn check_live(&mut self, context: GateContext<'_>) -> Result<(), GateFailure>;

    /// Creates the symlink by which a revert to `release` needs no free space.
    fn prepare_fallback_link(&mut self, release: &ReleaseId) -> Result<()>;

    /// Points the current symlink at a release, or removes it. A revert uses the
    /// prepared symlink, if that names the release.
    fn move_current(&mut self, how: How, to: Option<&ReleaseId>) -> Result<()>;

    /// Removes the temporary symlinks.
    fn clear_links(&mut self);

    /// Whether the file system makes an earlier rename durable when the next record
    /// is synced.
    fn record_sync_persists_rename(&self) -> bool;

    /// Syncs the root directory. A failure becomes a warning.
    fn sync_root(&mut self);

    /// Returns a record of this request, to be completed and appended.
    fn new_record(&self, event: Event, release: Option<&ReleaseId>) -> Record;

    /// Appends a record of what is about to happen, so a failure stops the request.
    /// The record is synced, except the intent of a swap without post-swap checks
    /// (`Journal::append` says why).
    fn append_or_fail(&mut self, record: Record) -> Result<()>;

    /// Appends and syncs a record of what has already happened. If that fails, the
    /// history takes it into account all the same, and the failure becomes a
    /// warning: it cannot undo what has happened.
    fn append_or_warn(&mut self, record: Record);

    /// Whether the journal has every record of this request that marks a release
    /// bad. The next request may not know of a mark that is not there.
    fn all_bad_marks_are_durable(&self) -> bool;

    fn warn(&mut self, warning: String);

    /// Reports to the audit log which release failed its post-swap checks, which one
    /// is live now, and whether the site is as good as before: after a revert,
    /// also if it failed, and where another process superseded the release.
    fn report_failure_after_commit(
        &mut self,
        failed: &ReleaseId,
        live: Option<&ReleaseId>,
        as_good_as_before: bool,
    );

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
    /// Failures that do not change the result of the request.
    warnings: Vec<String>,
}

/// What a site leaves after its lock is released.
pub struct Closed<'g> {
    pub gate: Gate<'g>,
    /// The signers of the candidate, if it passed preflight.
    pub signed: Option<Signed>,
    pub pruned: Vec<ReleaseId>,
    pub warnings: Vec<String>,
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

    /// Releases the lock, and empties the trash: slow, and safe without the lock.
    pub fn close(self) -> Closed<'g> {
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
        Closed {
            gate,
            signed: candidate.and_then(|it| it.signed),
            pruned: trash.releases,
            warnings,
        }
    }
}

impl Facts for LockedSite<'_, '_> {
    fn has_directory(&self, release: &ReleaseId) -> bool {
        self.ledger.store.releases.exists(release).unwrap_or(true)
    }

    fn present(&self) -> Vec<ReleaseId> {
        self.ledger.store.present().unwrap_or_default()
    }

    fn floor(&self) -> Option<&ReleaseId> {
        self.config.floor.as_ref()
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

    fn present_for(
        &self,
        kind: RequestKind,
        release: Option<&ReleaseId>,
    ) -> Result<Vec<ReleaseId>> {
        let store = self.ledger.store;
        match (kind, release) {
            (RequestKind::Swap, Some(release)) => {
                let present = store.is_present(release)?;
                Ok(present.then(|| release.clone()).into_iter().collect())
            }
            _ => store.present(),
        }
    }

    fn has_post_swap_checks(&self) -> bool {
        self.gate.has_post_swap_checks()
    }

    fn has_checks_before_commit(&self, kind: RequestKind) -> bool {
        self.gate.has_checks_before_commit(kind)
    }

    fn due_places(&self) -> Vec<ReleaseId> {
        let min_age = self.config.min_age;
        self.ledger.history.due_places(min_age, journal::now())
    }

    fn digests(&self, release: &ReleaseId) -> Result<Vec<Sha256Digest>> {
        preflight::digests(&self.ledger, release)
    }

    fn preflight(&mut self, before: Option<RequestKind>, context: GateContext<'_>) -> Result<()> {
        let GateContext { release, .. } = context;
        let candidate =
            preflight::check_candidate(self.config, self.required, &self.ledger, release)?;
        self.candidate = Some(candidate);
        // Before a hook or a smoke test looks at the release. No failure here stops a swap:
        // only caches could be wrong.
        if before == Some(RequestKind::Swap) {
            let Ledger { store, history, .. } = &self.ledger;
            let deadline = Deadline::after(self.config.limits.total_timeout);
            if let Err(error) = validators::separate_again(store, history, release, deadline) {
                self.warn(error.to_string());
            }
        }
        self.gate.check_programs(before, context)
    }

    fn check_before_commit(
        &mut self,
        kind: RequestKind,
        context: GateContext<'_>,
    ) -> Result<Result<(), GateFailure>> {
        let store = self.ledger.store;
        // Check before any program of the operator runs that no other file is in
        // the place of the preview symlink.
        store.set_preview(None)?;
        if let Err(failure) = self.gate.run_hooks_before(kind, context) {
            return Ok(Err(failure));
        }
        if let Err(failure) = self.gate.run_smoke_test(store, context)? {
            return Ok(Err(failure));
        }
        // The hooks may have removed the release: no symlink may name a missing
        // directory.
        match &self.candidate {
            Some(candidate) if !candidate.is_unchanged(store)? => Ok(Err(
                GateFailure::inconclusive("it is gone, or not what it was when this request began"),
            )),
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
            How::Revert => self.ledger.store.revert_current(to),
            How::Swap | How::Rollback => self.ledger.store.set_current(to),
        }
    }

    fn clear_links(&mut self) {
        self.ledger.store.clear_links();
    }

    fn record_sync_persists_rename(&self) -> bool {
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

    fn append_or_fail(&mut self, record: Record) -> Result<()> {
        self.ledger.append(record)
    }

    fn append_or_warn(&mut self, record: Record) {
        if let Err(error) = self.ledger.append_or_keep(record) {
            self.warn(error.to_string());
        }
    }

    fn all_bad_marks_are_durable(&self) -> bool {
        self.ledger.all_bad_marks_are_durable()
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn report_failure_after_commit(
        &mut self,
        failed: &ReleaseId,
        live: Option<&ReleaseId>,
        as_good_as_before: bool,
    ) {
        self.gate
            .report_failure_after_commit(failed, live, as_good_as_before);
    }

    fn prune(&mut self, spared: Option<&ReleaseId>) {
        self.trash = prune::prune(&mut self.ledger, self.config, spared, &mut self.warnings);
    }
}
