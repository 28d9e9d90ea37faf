//! The gate: the operator's hooks, the smoke test of the candidate, and the
//! health check of the live release. The hook runner runs the commands; this
//! module decides their order, and which answers pass.
//!
//! All of them run while this process holds the site's lock: another swap, rollback
//! or the last step of a receive waits for them, or is `busy`.

mod programs;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::plan::RequestKind;
use crate::config::{Argv, Config, Hook};
use crate::error::Result;
use crate::event::{AuditEvent, Progress, Reporter, Step};
use crate::hooks::{HookRunner, NOT_YET, RunOutcome, RunRequest, Stage};
use crate::names::ReleaseId;
use crate::store::Store;
use crate::url::HttpUrl;
pub use programs::NO_PROGRAM;

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
    /// It matters only before the commit; see
    /// [`super::plan::should_mark_bad_before_commit`].
    pub cause: Cause,
}

/// What a failure says about the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The release is bad.
    Release,
    /// Nothing: the operator's program is missing, not executable or not acceptable.
    Program,
    /// Nothing: the check could not run, or the release was removed or replaced.
    Unknown,
}

impl GateFailure {
    /// Makes a failure that says that the release is bad.
    #[cfg(test)]
    pub fn failed(why: &str) -> GateFailure {
        GateFailure {
            why: why.to_owned(),
            cause: Cause::Release,
        }
    }

    /// Makes a failure that does not say that the release is bad.
    pub fn inconclusive(why: &str) -> GateFailure {
        GateFailure {
            why: why.to_owned(),
            cause: Cause::Unknown,
        }
    }
}

impl fmt::Display for GateFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Returns what the end of a command that failed says about the release.
fn cause(ended: &Result<RunOutcome>) -> Cause {
    match ended {
        Ok(RunOutcome::Unusable(_)) => Cause::Program,
        Ok(RunOutcome::NotStarted(_) | RunOutcome::DryRun) | Err(_) => Cause::Unknown,
        Ok(
            RunOutcome::Exit(_)
            | RunOutcome::Signal(_)
            | RunOutcome::TimedOut
            | RunOutcome::ProcessesRemain,
        ) => Cause::Release,
    }
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

/// A check that is repeated: its name for messages is the address or the program.
#[derive(Clone, Copy)]
enum Check<'a> {
    Probe(&'a str),
    Command(&'a str),
}

/// How one run of a command ended, with the end of its output.
struct StepRun {
    ended: Result<RunOutcome>,
    /// The number of processes that the command left running, and that were ended.
    ended_processes: u32,
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

    /// Reports to the audit log what is live after a release failed its post-swap
    /// checks.
    pub fn report_failure_after_commit(
        &mut self,
        failed: &ReleaseId,
        live: Option<&ReleaseId>,
        as_good_as_before: bool,
    ) {
        self.reporter.audit(&AuditEvent::FailedAfterCommit {
            failed,
            live,
            as_good_as_before,
        });
    }

    /// Returns whether the site checks a release after it became live.
    pub fn has_post_swap_checks(&self) -> bool {
        let health = &self.config.health;
        !self.config.hooks.after_swap.is_empty() || health.url.is_some() || health.command.is_some()
    }

    /// Returns whether the site checks a release before such a request makes it live.
    pub fn has_checks_before_commit(&self, kind: RequestKind) -> bool {
        self.config.health.has_smoke_test() || !self.hooks_before(kind).is_empty()
    }

    fn hooks_before(&self, kind: RequestKind) -> &'a [Hook] {
        match kind {
            RequestKind::Swap => &self.config.hooks.before_swap,
            RequestKind::Rollback => &self.config.hooks.before_rollback,
        }
    }

    /// Runs the hooks before the commit. A revert has none: no hook may block it.
    ///
    /// # Errors
    ///
    /// Returns the failure of a hook.
    pub fn run_hooks_before(
        &mut self,
        kind: RequestKind,
        context: GateContext<'_>,
    ) -> Result<(), GateFailure> {
        self.run_hooks(stage_before(kind), self.hooks_before(kind), context)
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
        let health = &self.config.health;
        if !health.has_smoke_test() {
            return Ok(Ok(()));
        }
        store.set_preview(Some(context.release))?;
        let (url, command) = (&health.smoke_url, &health.smoke_command);
        let passed = self.run_check(Stage::Smoke, url.as_ref(), command.as_ref(), context);
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
        let (url, command) = (&config.health.url, &config.health.command);
        self.run_check(Stage::Health, url.as_ref(), command.as_ref(), context)
    }

    /// Runs the smoke test or the health check: a request or a command, or neither.
    fn run_check(
        &mut self,
        stage: Stage,
        url: Option<&HttpUrl>,
        command: Option<&Argv>,
        context: GateContext<'_>,
    ) -> Result<(), GateFailure> {
        match (url, command) {
            (Some(url), _) => self.poll_until_healthy(stage, Check::Probe(url.as_str()), context),
            (None, Some(command)) => {
                let program = shown(command.program());
                self.poll_until_healthy(stage, Check::Command(&program), context)
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
                    cause: cause(&run.ended),
                });
            }
        }
        Ok(())
    }

    /// Repeats a check until it passes, can never pass, or the time is up.
    fn poll_until_healthy(
        &mut self,
        stage: Stage,
        check: Check<'_>,
        context: GateContext<'_>,
    ) -> Result<(), GateFailure> {
        let step = Step { stage, index: 0 };
        let (interval, within) = (self.config.health.interval, self.config.health.timeout);
        let started = Instant::now();
        let (probe, what) = match check {
            Check::Probe(url) => (true, url),
            Check::Command(program) => (false, program),
        };
        // The client sees a command's lines as they come. A probe's answer it sees only
        // as what the gate waits for, or as the reason of the failure.
        let stream_output = !probe;
        let mut definite_failures = 0;
        // After the commit, a process of the old release may still answer once, so a
        // definite failure must come twice. Before it, no other release answers for
        // the candidate. So a command that tests it runs once, as a hook does, unless
        // it asks for another try by its exit status.
        let before_commit = stage == Stage::Smoke;
        let needed = if before_commit { 1 } else { 2 };
        let can_be_definite = probe || before_commit;
        // Terminates: every turn but the last sleeps, and the time is bounded.
        let (failed, last) = loop {
            // The last attempt starts when the time is up, and gets MIN_ATTEMPT.
            let left = within.saturating_sub(started.elapsed()).max(MIN_ATTEMPT);
            let limit = if probe { PROBE_TIMEOUT.min(left) } else { left };
            let run = self.run_step(step, context, limit, stream_output);
            definite_failures = match &run.ended {
                Ok(RunOutcome::Exit(0)) => break (None, run),
                Ok(RunOutcome::Exit(NOT_YET) | RunOutcome::TimedOut) => 0,
                Ok(RunOutcome::Exit(_) | RunOutcome::Signal(_)) if can_be_definite => {
                    definite_failures + 1
                }
                // Any other end of the operator's command means: not yet.
                Ok(RunOutcome::Exit(_) | RunOutcome::Signal(_)) => 0,
                // Each further run would leave more processes.
                Ok(RunOutcome::ProcessesRemain)
                // Waiting changes nothing about these.
                | Ok(RunOutcome::Unusable(_) | RunOutcome::NotStarted(_) | RunOutcome::DryRun)
                | Err(_) => needed,
            };
            let probed = probe && matches!(run.ended, Ok(RunOutcome::Exit(_)));
            let seen = if probed && !run.output.is_empty() {
                run.output.clone()
            } else {
                how_it_ended(&run.ended, limit)
            };
            if definite_failures >= needed {
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
                cause: cause(&last.ended),
            }),
        }
    }

    fn run_step(
        &mut self,
        step: Step,
        context: GateContext<'_>,
        within: Duration,
        stream_output: bool,
    ) -> StepRun {
        let request = RunRequest {
            stage: step.stage,
            index: step.index,
            release: context.release.clone(),
            previous: context.previous.cloned(),
            time_limit: within,
            dry_run: false,
        };
        let mut output = String::new();
        let reporter = &mut *self.reporter;
        let mut line = |text: &str| {
            if stream_output {
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
        let mut ended_processes = 0;
        let ended = match &mut self.runner {
            Some(runner) => runner.run(&request, &mut line).map(|result| {
                ended_processes = result.ended_processes;
                result.outcome
            }),
            None => Ok(RunOutcome::not_started("there is no hook runner")),
        };
        StepRun {
            ended,
            ended_processes,
            output,
        }
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
            ended_processes: run.ended_processes,
            output: &run.output,
            took: started.elapsed(),
        });
    }
}

/// Returns the stage of the hooks that such a request runs before the commit.
fn stage_before(kind: RequestKind) -> Stage {
    match kind {
        RequestKind::Swap => Stage::BeforeSwap,
        RequestKind::Rollback => Stage::BeforeRollback,
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
        Ok(RunOutcome::ProcessesRemain) => "left processes that could not be killed".to_owned(),
        Ok(RunOutcome::Unusable(why) | RunOutcome::NotStarted(why)) => {
            format!("could not be started: {why}")
        }
        Ok(RunOutcome::DryRun) => "was not started".to_owned(),
        Err(error) => format!("could not be run: {error}"),
    }
}
