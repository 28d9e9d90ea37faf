//! What a release must pass around the moment in which it becomes live: the
//! operator's hooks, the smoke test of the candidate, and its health once it
//! is live. What runs them is the runner; here is only in which order, and
//! what counts as passed.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{Config, Hook};
use crate::error::Result;
use crate::event::{AuditEvent, Progress, Reporter, Step};
use crate::hooks::{Ended, NOT_YET, Runner, Stage, Task};
use crate::names::ReleaseId;
use crate::store::Store;
use crate::store::journal::How;

/// How long one answer over HTTP is waited for.
const PROBE: Duration = Duration::from_secs(10);

/// How long the last try may take, when the time is up.
const LEAST: Duration = Duration::from_secs(1);

/// As much of a command's output as is kept for the record, in bytes: its end,
/// which is where a program says why it failed.
const KEPT: usize = 400;

/// Why a release did not pass: the step, and how it ended.
#[derive(Debug)]
pub struct Failed {
    why: String,
    /// Whether it was asked at all: what could not be run says nothing of it.
    pub asked: bool,
}

impl Failed {
    /// For a reason that says nothing of the release.
    pub fn unasked(why: &str) -> Failed {
        Failed {
            why: why.to_owned(),
            asked: false,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Whether anything was run, however it ended.
fn was_run(ended: &Result<Ended>) -> bool {
    !matches!(ended, Err(_) | Ok(Ended::NotStarted(_)))
}

/// The release that is asked, and the one that was live before it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub release: &'a ReleaseId,
    pub previous: Option<&'a ReleaseId>,
}

/// A site's hooks and tests, with what runs them.
pub struct Gate<'a> {
    config: &'a Config,
    /// None: the site has nothing to be run.
    runner: Option<Runner>,
    reporter: &'a mut dyn Reporter,
}

/// How one run of a command ended, with the end of its output.
struct Run {
    ended: Result<Ended>,
    output: String,
}

impl<'a> Gate<'a> {
    pub fn new(
        config: &'a Config,
        runner: Option<Runner>,
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

    /// Tells of the way back: what was left, what is live now, and whether that
    /// has passed.
    pub fn returned(&mut self, failed: &ReleaseId, live: Option<&ReleaseId>, passed: bool) {
        self.reporter.audit(&AuditEvent::Reverted {
            failed,
            live,
            passed,
        });
    }

    /// Whether anything is asked of a release once it is live.
    pub fn asks_the_live(&self) -> bool {
        let health = &self.config.health;
        !self.config.hooks.after_swap.is_empty() || health.url.is_some() || health.command.is_some()
    }

    /// The hooks before the link moves.
    pub fn before(&mut self, how: How, asked: Asked<'_>) -> Result<(), Failed> {
        let hooks = &self.config.hooks;
        match how {
            How::Swap => self.hooks(Stage::BeforeSwap, &hooks.before_swap, asked),
            How::Rollback => self.hooks(Stage::BeforeRollback, &hooks.before_rollback, asked),
            // What was live a moment ago needs no preparing, and nothing may
            // stand in its way.
            How::Return => Ok(()),
        }
    }

    /// The smoke test of a candidate, through the preview link: the link is
    /// there for as long as that takes.
    ///
    /// Errors: the outer one is of the link itself.
    pub fn smoke(&mut self, store: &Store, asked: Asked<'_>) -> Result<Result<(), Failed>> {
        let Some(url) = &self.config.health.smoke_url else {
            return Ok(Ok(()));
        };
        store.preview(Some(asked.release))?;
        let passed = self.wait(Stage::Smoke, url.as_str(), Some(PROBE), asked);
        // Taken away before anything else happens; where that fails, the next
        // request's sweep does it.
        if let Err(error) = store.preview(None) {
            self.warn(&error.to_string());
        }
        Ok(passed)
    }

    /// What is asked of the live release: the hooks after the link has moved,
    /// then its health.
    pub fn after(&mut self, asked: Asked<'_>) -> Result<(), Failed> {
        let config = self.config;
        self.hooks(Stage::AfterSwap, &config.hooks.after_swap, asked)?;
        let health = &config.health;
        match (&health.url, &health.command) {
            (Some(url), _) => self.wait(Stage::Health, url.as_str(), Some(PROBE), asked),
            (_, Some(command)) => {
                let program = shown(command.program());
                self.wait(Stage::Health, &program, None, asked)
            }
            (None, None) => Ok(()),
        }
    }

    /// Runs hooks in their order, to the first that fails.
    fn hooks(&mut self, stage: Stage, hooks: &[Hook], asked: Asked<'_>) -> Result<(), Failed> {
        for (index, hook) in hooks.iter().enumerate() {
            let step = Step { stage, index };
            let started = Instant::now();
            let run = self.run(step, asked, hook.timeout, true);
            let what = shown(hook.command.program());
            let failed = match &run.ended {
                Ok(Ended::Exit(0)) => None,
                ended => Some(how_it_ended(ended, hook.timeout)),
            };
            self.ended(step, asked, &what, failed.as_deref(), &run, started);
            if let Some(failed) = failed {
                return Err(Failed {
                    why: format!("hook {step} ({what}) {failed}"),
                    asked: was_run(&run.ended),
                });
            }
        }
        Ok(())
    }

    /// Asks again and again until it passes, can never pass, or the time is up.
    fn wait(
        &mut self,
        stage: Stage,
        what: &str,
        at_most: Option<Duration>,
        asked: Asked<'_>,
    ) -> Result<(), Failed> {
        let step = Step { stage, index: 0 };
        let (interval, within) = (self.config.health.interval, self.config.health.timeout);
        let started = Instant::now();
        let probe = at_most.is_some();
        let mut nevers = 0;
        // Before the swap, nobody else answers for the candidate.
        let enough = if stage == Stage::Smoke { 1 } else { 2 };
        // Ends: every turn but the last sleeps, and the time is bounded.
        let (failed, last) = loop {
            // The last try is made when the time is up, and is given a moment.
            let left = within.saturating_sub(started.elapsed()).max(LEAST);
            let limit = at_most.map_or(left, |at_most| at_most.min(left));
            // The answer of a probe is told once, below; a command's own lines
            // as they come.
            let run = self.run(step, asked, limit, !probe);
            nevers = match &run.ended {
                Ok(Ended::Exit(0)) => break (None, run),
                Ok(Ended::Exit(NOT_YET) | Ended::TimedOut) => 0,
                // What the probe says can never come right may be the last word
                // of the process that was live before: it is asked once more.
                Ok(Ended::Exit(_) | Ended::Signal(_)) if probe => nevers + 1,
                // A command of the operator's knows one way to say no.
                Ok(Ended::Exit(_) | Ended::Signal(_)) => 0,
                Ok(Ended::NotStarted(_)) | Err(_) => 2,
            };
            let probed = probe && matches!(run.ended, Ok(Ended::Exit(_)));
            let seen = match probed && !run.output.is_empty() {
                true => run.output.clone(),
                false => how_it_ended(&run.ended, limit),
            };
            if nevers >= enough {
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
        self.ended(step, asked, what, failed.as_deref(), &last, started);
        match failed {
            None => Ok(()),
            Some(failed) => Err(Failed {
                why: format!("{step} ({what}): {failed}"),
                asked: was_run(&last.ended),
            }),
        }
    }

    fn run(&mut self, step: Step, asked: Asked<'_>, within: Duration, aloud: bool) -> Run {
        let task = Task {
            stage: step.stage,
            index: step.index,
            release: asked.release,
            previous: asked.previous,
            within,
        };
        let mut output = String::new();
        let reporter = &mut *self.reporter;
        let mut line = |text: &str| {
            if aloud {
                reporter.progress(&Progress::Output { step, line: text });
            }
            if !output.is_empty() {
                output.push_str(" | ");
            }
            output.push_str(text);
            // Lines are printable ASCII, so any byte is a place to cut.
            let surplus = output.len().saturating_sub(KEPT);
            output.drain(..surplus);
        };
        let ended = match &mut self.runner {
            Some(runner) => runner.run(task, &mut line),
            None => Ok(Ended::NotStarted("there is no runner".to_owned())),
        };
        Run { ended, output }
    }

    fn ended(
        &mut self,
        step: Step,
        asked: Asked<'_>,
        what: &str,
        failed: Option<&str>,
        run: &Run,
        started: Instant,
    ) {
        self.reporter.audit(&AuditEvent::StepEnded {
            step,
            release: asked.release,
            what,
            exit: match run.ended {
                Ok(Ended::Exit(status)) => Some(status),
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

fn how_it_ended(ended: &Result<Ended>, within: Duration) -> String {
    match ended {
        Ok(Ended::Exit(status)) => format!("exited with {status}"),
        Ok(Ended::Signal(signal)) => format!("was ended by signal {signal}"),
        Ok(Ended::TimedOut) => format!("did not end within {} s", within.as_secs_f32().ceil()),
        Ok(Ended::NotStarted(why)) => format!("could not be started: {why}"),
        Err(error) => format!("could not be run: {error}"),
    }
}
