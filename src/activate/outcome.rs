//! The end of an activation as one enum. Its message, code word, remedy and result
//! are derived here.

use std::fmt;

use jiff::Timestamp;

use super::gate::{Cause, GateFailure, NO_PROGRAM};
use super::plan::{NotGood, Refusal, RequestKind};
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::signature::Signed;
use crate::success::{Activated, Change, Success};

/// The remedy when another release is live than was expected.
pub const LOOK: &str = "look at 'list', then decide again";

/// The remedy when the live release fails its checks and no other one is better.
const LOOK_AT_SERVICE: &str =
    "look at the service itself, and at what the hooks do; 'list' shows what is live";

/// How an activation ended.
#[derive(Debug)]
pub enum Outcome {
    /// The release is live, as requested.
    Live {
        kind: RequestKind,
        release: ReleaseId,
        previous: Option<ReleaseId>,
        change: Change,
    },
    /// The release failed before the commit.
    Aborted {
        failed: ReleaseId,
        failure: GateFailure,
        live: LiveNow,
        marked_bad: bool,
    },
    /// The live release failed its checks when they ran again, and stays live.
    StaysLive {
        failed: ReleaseId,
        failure: GateFailure,
        reason: StayReason,
    },
    /// Another process changed the current symlink after the commit.
    Superseded {
        release: ReleaseId,
        change: ExternalChange,
        /// Why the release failed, if it did, and whether it is marked bad.
        failure: Option<(GateFailure, bool)>,
    },
    /// The release failed after the commit, and the revert moved the current
    /// symlink.
    Reverted {
        failed: ReleaseId,
        failure: GateFailure,
        /// From when to when the release was live.
        was_live: (Timestamp, Timestamp),
        restored: Restored,
        marked_bad: bool,
    },
    /// The release failed after the commit, and the revert could not move the
    /// current symlink.
    RevertFailed {
        failed: ReleaseId,
        failure: GateFailure,
        fallback: Option<ReleaseId>,
        error: Error,
        change: Option<ExternalChange>,
    },
}

/// What is live after a failure before the commit.
#[derive(Debug)]
pub enum LiveNow {
    AsBefore(Option<ReleaseId>),
    Changed(ExternalChange),
}

/// Why a live release that failed stays live.
#[derive(Clone, Copy, Debug)]
pub enum StayReason {
    WasConfirmed,
    NoFallback,
}

/// What a revert restored.
#[derive(Debug)]
pub enum Restored {
    /// The fallback is live and passed its checks.
    Passed(ReleaseId),
    /// The fallback is live and failed its checks as well.
    Failed(ReleaseId, GateFailure),
    /// Another process changed the current symlink after the revert.
    Superseded(ReleaseId, ExternalChange),
    /// Nothing is live, because nothing was before.
    Nothing,
    /// Nothing is live, because the previous release is marked bad.
    PreviousIsBad(ReleaseId),
    /// Nothing is live, because the previous release has no directory any more.
    PreviousIsGone(ReleaseId),
}

/// The change that another process made to the current symlink.
#[derive(Debug)]
pub enum ExternalChange {
    /// It names this release, or it is gone.
    Moved(Option<ReleaseId>),
    /// It is not a symlink to a release; the text says what it is.
    NotOurs(String),
}

impl ExternalChange {
    /// Returns the release that is live now.
    pub fn live(&self) -> Option<&ReleaseId> {
        match self {
            ExternalChange::Moved(live) => live.as_ref(),
            ExternalChange::NotOurs(_) => None,
        }
    }
}

impl Restored {
    /// Returns the release that is live now.
    pub fn live(&self) -> Option<&ReleaseId> {
        match self {
            Restored::Passed(live) | Restored::Failed(live, _) => Some(live),
            Restored::Superseded(_, change) => change.live(),
            Restored::Nothing | Restored::PreviousIsBad(_) | Restored::PreviousIsGone(_) => None,
        }
    }

    /// Returns whether the site is as good as before the failed release: a release
    /// that passed its checks is live, or nothing is because nothing was.
    pub fn is_as_good_as_before(&self) -> bool {
        matches!(self, Restored::Passed(_) | Restored::Nothing)
    }
}

impl Outcome {
    /// Returns whether the request got what it asked for.
    pub fn is_success(&self) -> bool {
        matches!(self, Outcome::Live { .. })
    }

    /// Returns the release that pruning spares, so that a person can look at it: one
    /// that failed, or that another process superseded even though it passed.
    pub fn spared(&self) -> Option<&ReleaseId> {
        match self {
            Outcome::Live { .. } => None,
            Outcome::Aborted { failed, .. }
            | Outcome::StaysLive { failed, .. }
            | Outcome::Superseded {
                release: failed, ..
            }
            | Outcome::Reverted { failed, .. }
            | Outcome::RevertFailed { failed, .. } => Some(failed),
        }
    }

    /// Returns the result of the request.
    ///
    /// # Errors
    ///
    /// Returns the code word, the problem and the remedy of every outcome but
    /// [`Outcome::Live`].
    pub fn into_result(
        self,
        signed: Option<Signed>,
        pruned: Vec<ReleaseId>,
        warnings: Vec<String>,
    ) -> Result<Success> {
        let (code, remedy) = match self {
            Outcome::Live {
                kind,
                release,
                previous,
                change,
            } => {
                return Ok(Success::Activated(Activated {
                    verb: kind.verb(),
                    release,
                    previous,
                    change,
                    signed,
                    pruned,
                    warnings,
                }));
            }
            // A program of the operator that cannot be started is found in preflight, unless
            // only the start itself can find it.
            Outcome::Aborted { ref failure, .. } if failure.cause == Cause::Program => {
                (Code::BadConfig, NO_PROGRAM)
            }
            Outcome::Aborted { marked_bad, .. } => (Code::GateFailed, retry_hint(marked_bad)),
            Outcome::StaysLive { .. } => (Code::GateFailed, LOOK_AT_SERVICE),
            Outcome::Superseded { failure: None, .. } => (Code::NotCurrent, LOOK),
            Outcome::Superseded {
                failure: Some((_, marked_bad)),
                ..
            } => (Code::GateFailed, retry_hint(marked_bad)),
            Outcome::Reverted {
                ref restored,
                marked_bad,
                ..
            } => {
                let remedy = match restored {
                    Restored::Failed(..) => LOOK_AT_SERVICE,
                    Restored::Superseded(..) => LOOK,
                    _ => retry_hint(marked_bad),
                };
                (Code::GateFailed, remedy)
            }
            Outcome::RevertFailed { ref error, .. } => (
                error.code,
                "fix that, then 'rollback'; 'list' shows what is live",
            ),
        };
        Err(Error::new(code, self.to_string()).remedy(remedy))
    }
}

/// Returns what the client can do about a release that failed.
fn retry_hint(marked_bad: bool) -> &'static str {
    if marked_bad {
        "it is marked bad: send a release that works, or swap to this one to try it again"
    } else {
        "not marked bad: fix the reported problem and retry"
    }
}

/// Writes the problem of a failure; the reply words a success.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Live { release, .. } => write!(f, "'{release}' is live"),
            Outcome::Aborted {
                failed,
                failure,
                live,
                ..
            } => match failure.cause {
                Cause::Program => write!(f, "release '{failed}' was not tried: {failure}; {live}"),
                Cause::Release | Cause::Unknown => {
                    write!(f, "release '{failed}' failed its gate: {failure}; {live}")
                }
            },
            Outcome::StaysLive {
                failed,
                failure,
                reason,
            } => write!(f, "'{failed}' is live and fails: {failure}; {reason}"),
            Outcome::Superseded {
                change,
                failure: None,
                ..
            } => change.fmt(f),
            Outcome::Superseded {
                release,
                change,
                failure: Some((failure, _)),
            } => write!(
                f,
                "release '{release}' failed its gate: {failure}; {change}"
            ),
            Outcome::Reverted {
                failed,
                failure,
                was_live: (since, until),
                restored,
                ..
            } => write!(
                f,
                "release '{failed}' failed its gate: {failure}; \
                 it was live from {since} to {until}{restored}"
            ),
            Outcome::RevertFailed {
                failed,
                failure,
                fallback,
                error,
                change,
            } => {
                write!(f, "release '{failed}' failed its gate: {failure}; ")?;
                if change.is_none() {
                    f.write_str("it is still live, because ")?;
                }
                f.write_str("the automatic rollback to ")?;
                match fallback {
                    Some(fallback) => write!(f, "'{fallback}'")?,
                    None => f.write_str("nothing")?,
                }
                write!(f, " failed: {error}")?;
                match change {
                    Some(change) => write!(f, "; {change}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for LiveNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LiveNow::AsBefore(live) => write!(f, "{}, as before", Live(live.as_ref())),
            LiveNow::Changed(change) => change.fmt(f),
        }
    }
}

impl fmt::Display for StayReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StayReason::WasConfirmed => "it passed its checks before, so it stays live",
            StayReason::NoFallback => "there is nothing good to go back to, and nothing was moved",
        })
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Restored::Passed(to) => write!(f, ", and '{to}' is live again"),
            Restored::Failed(to, failure) => {
                write!(f, "; '{to}' is live again and failed as well: {failure}")
            }
            Restored::Superseded(to, change) => {
                write!(f, "; then '{to}' was live again; {change}")
            }
            Restored::Nothing => f.write_str(", and nothing is live, as before"),
            Restored::PreviousIsBad(previous) => {
                write!(f, "; '{previous}' is bad as well, and nothing is live")
            }
            Restored::PreviousIsGone(previous) => {
                write!(f, "; '{previous}' is gone, and nothing is live")
            }
        }
    }
}

impl fmt::Display for ExternalChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CHANGED}: ")?;
        match self {
            ExternalChange::Moved(live) => Live(live.as_ref()).fmt(f),
            ExternalChange::NotOurs(problem) => f.write_str(problem),
        }
    }
}

const CHANGED: &str = "the current symlink was changed by another process during this request";

/// Returns the failure of a commit that finds the current symlink changed.
pub fn changed_before_commit() -> Error {
    Error::new(Code::NotCurrent, CHANGED).remedy(LOOK)
}

/// Says which release is live.
struct Live<'a>(Option<&'a ReleaseId>);

impl fmt::Display for Live<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(live) => write!(f, "'{live}' is live"),
            None => f.write_str("nothing is live"),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let no_such = |problem: String| {
            Error::new(Code::NoSuchRelease, problem).remedy("'list' shows what there is")
        };
        match refusal {
            Refusal::NotCurrent { live, expected } => {
                let live = live.map_or("nothing".to_owned(), |live| format!("'{live}'"));
                let problem = format!("{live} is live, not '{expected}'");
                Error::new(Code::NotCurrent, problem).remedy(LOOK)
            }
            Refusal::Absent(release) => no_such(format!("there is no release '{release}'")),
            Refusal::NoPrevious => {
                no_such("no release before the current one was live and good".to_owned())
            }
            Refusal::NotGood(release, why) => {
                let why = match why {
                    NotGood::Absent => "does not exist",
                    NotGood::Bad => "is bad: it failed its checks, or was rolled back from",
                    NotGood::NeverLive => "has never been live",
                };
                no_such(format!("release '{release}' {why}"))
            }
            // The digest of the release is not in the message: a key that may not
            // `list` does not learn what is under an id.
            Refusal::OtherPayload(release) => Error::new(
                Code::DigestMismatch,
                format!("release '{release}' is not the payload with that sha256"),
            )
            .remedy("compare the sha256 in 'list --json'; receive the payload under a new id"),
            Refusal::UnknownFloor(floor) => Error::new(
                Code::BadConfig,
                format!("floor '{floor}' was never received by this site"),
            )
            .remedy("receive it, or name another release in the site's configuration"),
            Refusal::BelowFloor { release, floor } => Error::new(
                Code::Denied,
                format!("release '{release}' came before '{floor}', this site's floor"),
            )
            .remedy("take a newer release, or lower 'floor' in the site's configuration"),
        }
    }
}
