//! The gate: the operator's hooks, the smoke test of the candidate, and the
//! health check of the live release. The hook runner runs the commands; this
//! module decides their order, and which answers pass.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{Config, Hook};
use crate::error::Result;
use crate::event::{AuditEvent, Progress, Reporter, Step};
use crate::hooks::{HookRunner, NOT_YET, RunOutcome, RunRequest, Stage};
use crate::names::ReleaseId;
use crate::store::Store;
use crate::store::journal::How;

/// How long the gate waits for one HTTP answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last attempt may take once the time is up.
const MIN_ATTEMPT: Duration = Duration::from_secs(1);

/// How many bytes of a command's output the audit log keeps: the end, where a
/// program says why it failed.
const OUTPUT_TAIL: usize = 400;

/// Why a release did not pass: the step, and how that ended.
#[derive(Debug)]
pub struct GateFailure {
    why: String,
    /// Whether the check ran. A check that could not run says nothing about the release.
    pub ran: bool,
}

impl GateFailure {
    /// Makes the failure of a check that ran.
    #[cfg(test)]
    pub fn failed(why: &str) -> GateFailure {
        GateFailure {
            why: why.to_owned(),
            ran: true,
        }
    }

    /// Makes the failure of a check that did not run.
    pub fn not_run(why: &str) -> GateFailure {
        GateFailure {
            why: why.to_owned(),
            ran: false,
        }
    }
}

impl fmt::Display for GateFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Returns whether a command ran, however it ended.
fn ran(ended: &Result<RunOutcome>) -> bool {
    !matches!(ended, Err(_) | Ok(RunOutcome::NotStarted(_)))
}

/// The release that the gate checks, and the one that was live before it.
#[derive(Clone, Copy, Debug)]
pub struct GateContext<'a> {
    pub release: &'a ReleaseId,
    pub previous: Option<&'a ReleaseId>,
}

/// A site's hooks and tests, with what runs them.
pub struct Gate<'a> {
    config: &'a Config,
    /// None: the site has no commands.
    runner: Option<HookRunner>,
    reporter: &'a mut dyn Reporter,
}

/// How one run of a command ended, with the end of its output.
struct StepRun {
    ended: Result<RunOutcome>,
    output: String,
}

impl<'a> Gate<'a> {
    pub fn new(
        config: &'a Config,
        runner: Option<HookRunner>,
        reporter: &'a mut dyn Reporter,
    ) -> Gate<'a> {
        Gate {
            config,
            runner,
            reporter,
        }
    }

    pub fn warn(&mut self, text: &str) {
        self.reporter.progress(&Progress::Warning(text));
    }

    /// Reports an automatic rollback to the audit log.
    pub fn report_rollback(&mut self, failed: &ReleaseId, live: Option<&ReleaseId>, passed: bool) {
        self.reporter.audit(&AuditEvent::Reverted {
            failed,
            live,
            passed,
        });
    }

    /// Returns whether the site checks a release after it became live.
    pub fn has_post_swap_checks(&self) -> bool {
        let health = &self.config.health;
        !self.config.hooks.after_swap.is_empty() || health.url.is_some() || health.command.is_some()
    }

    /// Runs the hooks before the commit.
    ///
    /// # Errors
    ///
    /// Returns the failure of a hook.
    pub fn run_hooks_before(
        &mut self,
        how: How,
        context: GateContext<'_>,
    ) -> Result<(), GateFailure> {
        let hooks = &self.config.hooks;
        match how {
            How::Swap => self.run_hooks(Stage::BeforeSwap, &hooks.before_swap, context),
            How::Rollback => self.run_hooks(Stage::BeforeRollback, &hooks.before_rollback, context),
            // The fallback was live moments ago: it needs no preparation, and
            // no hook may block it.
            How::Return => Ok(()),
        }
    }

    /// Runs the smoke test of a candidate through the preview symlink, which
    /// exists only during the test.
    ///
    /// # Errors
    ///
    /// The outer error is a failure of the symlink itself, the inner one that of the
    /// test.
    pub fn run_smoke_test(
        &mut self,
        store: &Store,
        context: GateContext<'_>,
    ) -> Result<Result<(), GateFailure>> {
        let Some(url) = &self.config.health.smoke_url else {
            return Ok(Ok(()));
        };
        store.set_preview(Some(context.release))?;
        let passed =
            self.poll_until_healthy(Stage::Smoke, url.as_str(), Some(PROBE_TIMEOUT), context);
        // If the removal fails, the next request's sweep removes it.
        if let Err(error) = store.set_preview(None) {
            self.warn(&error.to_string());
        }
        Ok(passed)
    }

    /// Runs the post-swap checks: the hooks after the commit, then the health
    /// check.
    ///
    /// # Errors
    ///
    /// Returns the failure of a hook or of the check.
    pub fn run_post_swap_checks(&mut self, context: GateContext<'_>) -> Result<(), GateFailure> {
        let config = self.config;
        self.run_hooks(Stage::AfterSwap, &config.hooks.after_swap, context)?;
        let health = &config.health;
        match (&health.url, &health.command) {
            (Some(url), _) => {
                self.poll_until_healthy(Stage::Health, url.as_str(), Some(PROBE_TIMEOUT), context)
            }
            (_, Some(command)) => {
                let program = shown(command.program());
                self.poll_until_healthy(Stage::Health, &program, None, context)
            }
            (None, None) => Ok(()),
        }
    }

    /// Runs hooks in order, up to the first that fails.
    fn run_hooks(
        &mut self,
        stage: Stage,
        hooks: &[Hook],
        context: GateContext<'_>,
    ) -> Result<(), GateFailure> {
        for (index, hook) in hooks.iter().enumerate() {
            let step = Step { stage, index };
            let started = Instant::now();
            let run = self.run_step(step, context, hook.timeout, true);
            let what = shown(hook.command.program());
            let failed = match &run.ended {
                Ok(RunOutcome::Exit(0)) => None,
                ended => Some(how_it_ended(ended, hook.timeout)),
            };
            self.audit_step(step, context, &what, failed.as_deref(), &run, started);
            if let Some(failed) = failed {
                return Err(GateFailure {
                    why: format!("hook {step} ({what}) {failed}"),
                    ran: ran(&run.ended),
                });
            }
        }
        Ok(())
    }

    /// Repeats a check until it passes, can never pass, or the time is up.
    fn poll_until_healthy(
        &mut self,
        stage: Stage,
        what: &str,
        at_most: Option<Duration>,
        context: GateContext<'_>,
    ) -> Result<(), GateFailure> {
        let step = Step { stage, index: 0 };
        let (interval, within) = (self.config.health.interval, self.config.health.timeout);
        let started = Instant::now();
        let probe = at_most.is_some();
        let mut final_answers = 0;
        // One final answer is enough before the swap: no other release answers for
        // the candidate.
        let enough = if stage == Stage::Smoke { 1 } else { 2 };
        // Terminates: every turn but the last sleeps, and the time is bounded.
        let (failed, last) = loop {
            // The last attempt starts when the time is up, and gets MIN_ATTEMPT.
            let left = within.saturating_sub(started.elapsed()).max(MIN_ATTEMPT);
            let limit = at_most.map_or(left, |at_most| at_most.min(left));
            // The client sees a probe's answer once, below, and a command's
            // lines as they come.
            let run = self.run_step(step, context, limit, !probe);
            final_answers = match &run.ended {
                Ok(RunOutcome::Exit(0)) => break (None, run),
                Ok(RunOutcome::Exit(NOT_YET) | RunOutcome::TimedOut) => 0,
                // The process that was live before may have sent a final
                // answer: the probe tries once more.
                Ok(RunOutcome::Exit(_) | RunOutcome::Signal(_)) if probe => final_answers + 1,
                // The operator's command has only one way to say no.
                Ok(RunOutcome::Exit(_) | RunOutcome::Signal(_)) => 0,
                Ok(RunOutcome::NotStarted(_)) | Err(_) => 2,
            };
            let probed = probe && matches!(run.ended, Ok(RunOutcome::Exit(_)));
            let seen = if probed && !run.output.is_empty() {
                run.output.clone()
            } else {
                how_it_ended(&run.ended, limit)
            };
            if final_answers >= enough {
                break (Some(seen), run);
            }
            let waited = started.elapsed();
            let left = within.saturating_sub(waited);
            if left.is_zero() {
                let failed = format!("not within {} s: {seen}", within.as_secs());
                break (Some(failed), run);
            }
            self.reporter.progress(&Progress::Waiting {
                step,
                seen: &seen,
                waited,
                within,
            });
            std::thread::sleep(interval.min(left));
        };
        self.audit_step(step, context, what, failed.as_deref(), &last, started);
        match failed {
            None => Ok(()),
            Some(failed) => Err(GateFailure {
                why: format!("{step} ({what}): {failed}"),
                ran: ran(&last.ended),
            }),
        }
    }

    fn run_step(
        &mut self,
        step: Step,
        context: GateContext<'_>,
        within: Duration,
        show: bool,
    ) -> StepRun {
        let request = RunRequest {
            stage: step.stage,
            index: step.index,
            release: context.release.clone(),
            previous: context.previous.cloned(),
            time_limit: within,
        };
        let mut output = String::new();
        let reporter = &mut *self.reporter;
        let mut line = |text: &str| {
            if show {
                reporter.progress(&Progress::Output { step, line: text });
            }
            if !output.is_empty() {
                output.push_str(" | ");
            }
            output.push_str(text);
            // Lines are printable ASCII, so a cut at any byte is safe.
            let surplus = output.len().saturating_sub(OUTPUT_TAIL);
            output.drain(..surplus);
        };
        let ended = match &mut self.runner {
            Some(runner) => runner.run(&request, &mut line),
            None => Ok(RunOutcome::not_started("there is no hook runner")),
        };
        StepRun { ended, output }
    }

    fn audit_step(
        &mut self,
        step: Step,
        context: GateContext<'_>,
        what: &str,
        failed: Option<&str>,
        run: &StepRun,
        started: Instant,
    ) {
        self.reporter.audit(&AuditEvent::StepEnded {
            step,
            release: context.release,
            what,
            exit: match run.ended {
                Ok(RunOutcome::Exit(status)) => Some(status.into()),
                _ => None,
            },
            failed,
            output: &run.output,
            took: started.elapsed(),
        });
    }
}

fn shown(program: &Path) -> String {
    format!("'{}'", program.display())
}

fn how_it_ended(ended: &Result<RunOutcome>, within: Duration) -> String {
    match ended {
        Ok(RunOutcome::Exit(status)) => format!("exited with {status}"),
        Ok(RunOutcome::Signal(signal)) => format!("was ended by signal {signal}"),
        Ok(RunOutcome::TimedOut) => format!("did not end within {} s", within.as_secs_f32().ceil()),
        Ok(RunOutcome::NotStarted(why)) => format!("could not be started: {why}"),
        Err(error) => format!("could not be run: {error}"),
    }
}
