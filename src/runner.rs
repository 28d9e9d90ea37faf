//! The runner: the process that runs the operator's commands around a swap.
//!
//! The monitor is confined before it touches the site, and may execute
//! nothing; a hook is the operator's own program and needs whatever it needs
//! (sudo, systemctl, a database). So the runner is started first, and stays
//! outside. Nothing of ours is open in it: not the lock, not the journal, not
//! the client's socket. All it takes from the monitor is which of the
//! operator's commands to run, and for which release; the commands it reads
//! from the site's file itself.

use std::time::Duration;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;

/// What a command is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    BeforeSwap,
    AfterSwap,
    BeforeRollback,
    /// `smoke_url`, asked by the probe.
    Smoke,
    /// `url`, asked by the probe, or the health command.
    Health,
}

/// One of the operator's commands, to be run for a release.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    pub stage: Stage,
    /// Which of the stage's commands, from 0.
    pub index: usize,
    pub release: &'a ReleaseId,
    pub previous: Option<&'a ReleaseId>,
    /// How long it may take; no longer than the site's file says.
    pub within: Duration,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
    /// It took longer than it may, and was ended with all that it started.
    TimedOut,
    /// It could not be started: why.
    NotStarted(String),
}

/// The monitor's end of the runner.
#[derive(Debug)]
pub struct Runner {}

impl Runner {
    /// Starts the runner, if the site has anything for it to run.
    pub fn start(_config: &Config, _path: &std::path::Path) -> Result<Option<Runner>> {
        Ok(None)
    }

    /// Runs one command to its end; each line that it writes goes to `line`,
    /// escaped and bounded.
    ///
    /// Errors: [`Code::Internal`]: the runner itself is gone.
    pub fn run(&mut self, _task: Task<'_>, _line: &mut dyn FnMut(&str)) -> Result<Ended> {
        Err(Error::new(Code::Internal, "there is no runner yet"))
    }
}
