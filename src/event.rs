//! What a request reports while it runs: [`Progress`] for the client, and
//! [`AuditEvent`] for the audit log.

use std::fmt;
use std::time::Duration;

use crate::hooks::Stage;
use crate::names::{KeyLabel, ReleaseId};
use crate::store::Notice;
use crate::store::history::State;

/// One step of the gate, as replies and the audit log name it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub stage: Stage,
    /// The number of the hook within its stage, from 0.
    pub index: usize,
}

impl Step {
    /// Returns whether the step is one of the operator's hooks.
    pub fn is_hook(self) -> bool {
        !matches!(self.stage, Stage::Smoke | Stage::Health)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage;
        if self.is_hook() {
            write!(f, "{stage} {}", self.index + 1)
        } else {
            write!(f, "{stage}")
        }
    }
}

/// Progress that the client sees on stderr.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A command wrote a line.
    Output { step: Step, line: &'a str },
    /// A check has not passed yet and will be repeated.
    Waiting {
        step: Step,
        /// The last answer.
        seen: &'a str,
        waited: Duration,
        within: Duration,
    },
    /// Something went wrong beside the failure that the reply reports.
    Warning(&'a str),
}

/// An event that gets an audit line before the result is known.
#[derive(Debug)]
pub enum AuditEvent<'a> {
    /// A hook, the smoke test or the health check has ended.
    StepEnded {
        step: Step,
        release: &'a ReleaseId,
        /// The program or the address.
        what: &'a str,
        /// The last exit status, if the program exited.
        exit: Option<i32>,
        /// Why the step failed, if it did.
        failed: Option<&'a str>,
        /// The number of processes that the command left running, and that were ended.
        ended_processes: u32,
        /// The end of the command's output, or the last answer.
        output: &'a str,
        took: Duration,
    },
    /// The operator removes a release.
    Dropped {
        release: &'a ReleaseId,
        /// The user who runs the program.
        uid: u32,
        state: State,
        /// The key that sent the release, if that is known.
        received_from: Option<&'a KeyLabel>,
        /// Whether it is removed; none before that.
        removed: Option<bool>,
    },
    /// The operator adopts the releases of another tool.
    Adopted {
        /// The live release.
        live: &'a ReleaseId,
        /// The user who runs the program.
        uid: u32,
        /// The number of releases.
        releases: usize,
        /// The program that made them.
        from: &'a str,
        /// Whether they are adopted; none before that.
        done: Option<bool>,
    },
    /// A release failed its checks after the swap. The automatic rollback has ended,
    /// or has failed, or was not tried because another process moved the symlink.
    FailedAfterCommit {
        failed: &'a ReleaseId,
        /// The release that is live now.
        live: Option<&'a ReleaseId>,
        /// Whether the site is as good as before: the live release passed its checks,
        /// or nothing is live because nothing was.
        as_good_as_before: bool,
    },
    /// The site was changed, and the journal does not have it yet.
    Changed(&'a Notice<'a>),
}

/// Takes the reports of a running request.
pub trait Reporter {
    /// Shows progress to the client.
    fn progress(&mut self, progress: &Progress<'_>);

    /// Writes an audit line.
    fn audit(&mut self, event: &AuditEvent<'_>);
}
