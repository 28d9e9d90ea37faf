//! What the reply and the record need to tell: a success, the counterpart of
//! [`crate::error::Error`], and what happens on the way to either.

use std::fmt;
use std::time::Duration;

use crate::hooks::Stage;
use crate::names::ReleaseId;
use crate::sandbox::Enforcement;
use crate::signature::Signed;

/// What a verb did.
#[derive(Debug, Default)]
pub struct Success {
    /// The lines of stdout.
    pub lines: Vec<String>,
    pub release: Option<ReleaseId>,
    /// What was live before.
    pub previous: Option<ReleaseId>,
    /// The payload's bytes as received.
    pub payload_bytes: Option<u64>,
    /// Regular files of the release, and their bytes.
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// Whose signatures counted, where the site asks for any.
    pub signed: Option<Signed>,
    /// What confined the unpacker, if it was needed.
    pub unpacker: Option<Enforcement>,
    /// What went wrong without changing success into failure.
    pub warnings: Vec<String>,
}

/// One step of the gate, as replies and the record name it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub stage: Stage,
    /// Which of the stage's hooks, from 0.
    pub index: usize,
}

impl Step {
    /// Whether it is one of the operator's hooks.
    pub fn is_hook(self) -> bool {
        !matches!(self.stage, Stage::Smoke | Stage::Health)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.index + 1;
        match self.stage {
            Stage::BeforeSwap => write!(f, "before_swap {number}"),
            Stage::AfterSwap => write!(f, "after_swap {number}"),
            Stage::BeforeRollback => write!(f, "before_rollback {number}"),
            Stage::Smoke => f.write_str("smoke"),
            Stage::Health => f.write_str("health"),
        }
    }
}

/// What is told while a request is under way, to the client and the record.
#[derive(Debug)]
pub enum Told<'a> {
    /// A line that a command wrote.
    Line { step: Step, text: &'a str },
    /// It has not passed yet, and is asked again.
    Waiting {
        step: Step,
        seen: &'a str,
        waited: Duration,
        within: Duration,
    },
    /// A step is over.
    Ended {
        step: Step,
        release: &'a ReleaseId,
        /// What was run or asked.
        what: &'a str,
        /// The last exit status, if that is how it ended.
        exit: Option<i32>,
        /// Why it failed, if it did.
        failed: Option<&'a str>,
        /// The end of what a command wrote, or what the last answer was.
        output: &'a str,
        took: Duration,
    },
    /// A release has failed and was left again.
    Returned {
        left: &'a ReleaseId,
        /// What is live now.
        live: Option<&'a ReleaseId>,
        /// Whether that has passed what is asked of it.
        passed: bool,
    },
    /// What went wrong beside a failure.
    Warning(&'a str),
}
