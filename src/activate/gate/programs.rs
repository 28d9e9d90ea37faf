//! The check of the operator's programs in preflight.

use super::{Gate, GateContext, PROBE_TIMEOUT, stage_before};
use crate::activate::plan::RequestKind;
use crate::error::{Code, Error, Result};
use crate::event::Step;
use crate::hooks::{RunOutcome, RunRequest, RunResult, Stage};

/// The remedy for a program that cannot be started.
pub const NO_PROGRAM: &str = "install the program, or correct its path in the site's configuration";

impl Gate<'_> {
    /// Checks that each program of the operator can be started that the checks of the
    /// release start: those before the commit only if a request of this kind runs them. So
    /// a program that is missing neither stops a swap halfway nor makes a release bad.
    ///
    /// # Errors
    ///
    /// [`Code::BadConfig`] names the first program that cannot be started. Every other
    /// problem is left to the start itself.
    pub fn check_programs(
        &mut self,
        before: Option<RequestKind>,
        context: GateContext<'_>,
    ) -> Result<()> {
        let config = self.config;
        let steps = |stage: Stage, count: usize| (0..count).map(move |index| Step { stage, index });
        let (hooks, health) = (&config.hooks, &config.health);
        let mut all = Vec::new();
        if let Some(kind) = before {
            all.extend(steps(stage_before(kind), self.hooks_before(kind).len()));
            all.extend(steps(Stage::Smoke, health.smoke_command.iter().len()));
        }
        all.extend(steps(Stage::AfterSwap, hooks.after_swap.len()));
        all.extend(steps(Stage::Health, health.command.iter().len()));
        let Some(runner) = &mut self.runner else {
            return Ok(());
        };
        for step in all {
            let request = RunRequest {
                stage: step.stage,
                index: step.index,
                release: context.release.clone(),
                previous: context.previous.cloned(),
                time_limit: PROBE_TIMEOUT,
                dry_run: true,
            };
            let checked = runner.run(&request, &mut |_| ());
            if let Ok(RunResult {
                outcome: RunOutcome::Unusable(why),
                ..
            }) = checked
            {
                let what = if step.is_hook() { "hook " } else { "" };
                let problem = format!("{what}{step}: {why}");
                return Err(Error::new(Code::BadConfig, problem).remedy(NO_PROGRAM));
            }
        }
        Ok(())
    }
}
