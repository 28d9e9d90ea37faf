//! The messages between the monitor and the hook runner: one line of JSON each.
//!
//! The monitor sends one [`Setup`], then one [`RunRequest`] at a time. The hook
//! runner answers each request with a limited number of [`RunResponse::Output`],
//! at most one [`RunResponse::EndedProcesses`] and one [`RunResponse::Outcome`].
//!
//! Both processes are the same program file, so these messages have no version.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Argv, Config, Hook};
use crate::escape;
use crate::message::{self, millis};
use crate::names::{ReleaseId, SiteName};
use crate::probe::Exchange;
use crate::url::HttpUrl;

/// The maximum length of a [`Setup`], in bytes. It comes from a configuration
/// file of at most 256 KiB, and JSON needs fewer than four bytes for each byte of
/// it.
pub const MAX_SETUP: usize = 1 << 20;

/// The maximum length of a [`RunRequest`], in bytes.
pub const MAX_REQUEST: usize = 640;

/// The maximum length of a [`PrintableText`], in bytes.
pub const MAX_TEXT: usize = 500;

/// The maximum length of a [`RunResponse`], in bytes: JSON escapes quotation
/// marks and backslashes.
pub const MAX_RESPONSE: usize = 2 * MAX_TEXT + 64;

/// The point of a swap or rollback at which a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    #[serde(rename = "before_swap")]
    BeforeSwap,
    #[serde(rename = "after_swap")]
    AfterSwap,
    #[serde(rename = "before_rollback")]
    BeforeRollback,
    /// The probe of `health.smoke_url`, or the command of `health.smoke_command`.
    #[serde(rename = "smoke")]
    Smoke,
    /// The probe of `health.url`, or the command of `health.command`.
    #[serde(rename = "health")]
    Health,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Writes the name that serde uses.
        self.serialize(f)
    }
}

/// The part of a site's configuration that the hook runner needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    pub site: SiteName,
    /// The site's root directory.
    pub root: PathBuf,
    pub before_swap: Vec<HookCommand>,
    pub after_swap: Vec<HookCommand>,
    pub before_rollback: Vec<HookCommand>,
    pub smoke: Option<ReleaseCheck>,
    pub health: Option<ReleaseCheck>,
    /// How the probe asks, for both.
    pub exchange: Exchange,
    /// Whether the probe refuses to work when a part of its sandbox is missing.
    pub sandbox_required: bool,
}

/// A hook, and its configured time limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookCommand {
    pub command: Argv,
    #[serde(with = "millis")]
    pub timeout: Duration,
}

/// The smoke test of a candidate, or the health check of a live release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ReleaseCheck {
    Http {
        url: HttpUrl,
        /// The text that the body must contain, with `{release}` for the release.
        /// The configuration limits its length, and the probe that of its request.
        contains: Option<String>,
    },
    Command(Argv),
}

impl Setup {
    /// Returns the setup for a site; none if the site has nothing to run.
    pub fn new(config: &Config) -> Option<Setup> {
        let commands = |hooks: &[Hook]| {
            let command = |hook: &Hook| HookCommand {
                command: hook.command.clone(),
                timeout: hook.timeout,
            };
            hooks.iter().map(command).collect()
        };
        let (hooks, health) = (&config.hooks, &config.health);
        let check = |url: &Option<HttpUrl>, contains: Option<&String>, command: &Option<Argv>| {
            let http = url.as_ref().map(|url| ReleaseCheck::Http {
                url: url.clone(),
                contains: contains.cloned(),
            });
            http.or_else(|| command.clone().map(ReleaseCheck::Command))
        };
        let smoke = check(&health.smoke_url, None, &health.smoke_command);
        let check = check(&health.url, health.contains.as_ref(), &health.command);
        let idle = hooks.all().next().is_none() && smoke.is_none() && check.is_none();
        (!idle).then(|| Setup {
            site: config.site().clone(),
            root: config.root.clone(),
            before_swap: commands(&hooks.before_swap),
            after_swap: commands(&hooks.after_swap),
            before_rollback: commands(&hooks.before_rollback),
            smoke,
            health: check,
            exchange: Exchange {
                host: health.host.clone(),
                headers: health.headers.clone(),
                statuses: health.statuses.clone(),
            },
            sandbox_required: config.sandbox.required,
        })
    }
}

/// A request to run one command of the [`Setup`] for a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    pub stage: Stage,
    /// The number of the command in its stage, from 0.
    pub index: usize,
    pub release: ReleaseId,
    pub previous: Option<ReleaseId>,
    /// The time that the command may take. For a hook, the shorter one of this and
    /// [`HookCommand::timeout`] applies.
    #[serde(with = "millis")]
    pub time_limit: Duration,
    /// Whether to check only that the operator's program can be started.
    pub dry_run: bool,
}

/// Printable ASCII of at most [`MAX_TEXT`] bytes.
///
/// Deserialization escapes and truncates every text that is not so already: a command
/// may have taken over the hook runner, which then sends any text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct PrintableText(String);

impl PrintableText {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for PrintableText {
    fn from(text: String) -> PrintableText {
        PrintableText(escape::escape_if_needed_truncated(
            text.as_bytes(),
            MAX_TEXT,
        ))
    }
}

impl fmt::Display for PrintableText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the run of a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    Exit(u8),
    Signal(u8),
    /// The command reached its time limit. The hook runner then sent SIGKILL to all
    /// that was left of it. A process of another user (sudo), or one that hangs in
    /// the kernel, still runs: an output line reports it.
    TimedOut,
    /// The command has ended in time, and processes that it started still run: they
    /// fork faster than they are killed, or hang in the kernel. Output lines report
    /// them.
    ProcessesRemain,
    /// The operator's program is missing, not executable or not acceptable, with the
    /// reason.
    Unusable(PrintableText),
    /// The command could not be started for another reason.
    NotStarted(PrintableText),
    /// The command was not started: the program that the request means can be, or is one of
    /// ours.
    DryRun,
}

impl RunOutcome {
    pub fn not_started(why: impl Into<String>) -> RunOutcome {
        RunOutcome::NotStarted(why.into().into())
    }
}

/// What a run of a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunResult {
    pub outcome: RunOutcome,
    /// The number of processes that the command left running, and that the hook runner
    /// ended.
    pub ended_processes: u32,
}

/// The hook runner's answer to a [`RunRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunResponse {
    /// A line that the command wrote, or a remark about its output.
    Output(PrintableText),
    /// The number of processes that the command left running, and that were ended.
    EndedProcesses(u32),
    /// The last response to a request.
    Outcome(RunOutcome),
}

impl RunResponse {
    /// Reads one line, with its line feed.
    pub fn decode(line: &[u8]) -> Option<RunResponse> {
        message::decode(line.strip_suffix(b"\n")?, MAX_RESPONSE).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const STAGES: [(Stage, &str); 5] = [
        (Stage::BeforeSwap, "before_swap"),
        (Stage::AfterSwap, "after_swap"),
        (Stage::BeforeRollback, "before_rollback"),
        (Stage::Smoke, "smoke"),
        (Stage::Health, "health"),
    ];

    #[test]
    fn a_request_reads_back_and_is_short() {
        let longest = ReleaseId::try_from("r".repeat(64).as_str()).unwrap();
        for (stage, word) in STAGES {
            assert_eq!(stage.to_string(), word);
            let request = RunRequest {
                stage,
                index: usize::MAX,
                release: longest.clone(),
                previous: Some(longest.clone()),
                time_limit: super::super::MAX_TIME_LIMIT,
                dry_run: false,
            };
            let line = message::encode(&request).unwrap();
            assert!(
                line.starts_with(&format!("{{\"stage\":\"{word}\",")),
                "{line}"
            );
            let decoded = message::decode(line.as_bytes(), MAX_REQUEST);
            assert_eq!(decoded, Ok(request));
        }
    }

    #[test]
    fn a_malformed_request_is_refused() {
        let good = "{\"stage\":\"smoke\",\"index\":0,\"release\":\"r2\",\"previous\":null,\
                    \"time_limit\":1,\"dry_run\":false}"
            .to_owned();
        let decode = |line: &str| message::decode::<RunRequest>(line.as_bytes(), MAX_REQUEST);
        assert!(decode(&good).is_ok());
        for (old, new) in [
            ("\"smoke\"", "\"Smoke\""),
            ("\"smoke\"", "\"stop\""),
            ("\"index\":0", "\"index\":00"),
            ("\"index\":0", "\"index\":+0"),
            ("\"index\":0", "\"index\":-1"),
            ("\"index\":0", "\"index\":\"0\""),
            ("\"index\":0,", ""),
            ("\"r2\"", "\"../r2\""),
            ("\"r2\"", "\"r\u{e9}\""),
            ("null", "\".\""),
            ("null", "\"\""),
            ("\"time_limit\":1", "\"time_limit\":-1"),
            ("false", "0"),
            (",\"dry_run\":false", ""),
            (
                "\"time_limit\":1",
                "\"time_limit\":1,\"command\":[\"/bin/sh\"]",
            ),
            ("}", "} x"),
            ("}", "}{}"),
        ] {
            let bad = good.replacen(old, new, 1);
            assert_ne!(bad, good);
            assert!(decode(&bad).is_err(), "{bad}");
        }
        assert!(decode("").is_err());
        let long = format!("{good}{}", " ".repeat(MAX_REQUEST));
        assert!(decode(&long).is_err(), "a long line");
    }

    #[test]
    fn responses_read_back_and_are_short() {
        for response in [
            RunResponse::Output(String::new().into()),
            RunResponse::Output("a \\x1b b".to_owned().into()),
            RunResponse::Output("\\\"".repeat(MAX_TEXT).into()),
            RunResponse::EndedProcesses(u32::MAX),
            RunResponse::Outcome(RunOutcome::Exit(0)),
            RunResponse::Outcome(RunOutcome::Exit(255)),
            RunResponse::Outcome(RunOutcome::Signal(15)),
            RunResponse::Outcome(RunOutcome::TimedOut),
            RunResponse::Outcome(RunOutcome::ProcessesRemain),
            RunResponse::Outcome(RunOutcome::DryRun),
            RunResponse::Outcome(RunOutcome::Unusable("\"".repeat(2 * MAX_TEXT).into())),
            RunResponse::Outcome(RunOutcome::not_started("\"".repeat(2 * MAX_TEXT))),
        ] {
            let line = format!("{}\n", message::encode(&response).unwrap());
            assert_eq!(RunResponse::decode(line.as_bytes()), Some(response));
        }
    }

    #[test]
    fn a_malformed_response_is_refused() {
        for bad in [
            "",
            "\n",
            "{\"outcome\":\"exit\"}\n",
            "{\"outcome\":{\"exit\":256}}\n",
            "{\"outcome\":{\"exit\":-1}}\n",
            "{\"outcome\":{\"exit\":01}}\n",
            "{\"outcome\":{\"exit\":0}}",
            "{\"outcome\":{\"exit\":0,\"signal\":1}}\n",
            "{\"outcome\":{\"signal\":null}}\n",
            "{\"outcome\":\"timed_out\",\"more\":1}\n",
            "{\"outcome\":{\"timed_out\":1}}\n",
            "{\"output\":null}\n",
            "{\"Output\":\"x\"}\n",
            "{\"ended_processes\":-1}\n",
            "{\"ended_processes\":\"1\"}\n",
            "{\"ended_processes\":4294967296}\n",
            "{\"outcome\":{\"exit\":0}}{\"outcome\":{\"exit\":0}}\n",
        ] {
            assert_eq!(RunResponse::decode(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(RunResponse::decode(b"{\"output\":\"\xff\"}\n"), None);
    }

    #[test]
    fn the_text_of_a_response_is_escaped_and_truncated_again() {
        let hostile = RunResponse::decode(b"{\"output\":\"\\u001b[31m\\u00e9\"}\n");
        let expected = "\\x1b[31m\\xc3\\xa9".to_owned();
        assert_eq!(hostile, Some(RunResponse::Output(expected.into())));
        let long = format!("{{\"output\":\"{}\"}}\n", "\\u001b".repeat(160));
        let Some(RunResponse::Output(text)) = RunResponse::decode(long.as_bytes()) else {
            panic!("no output: {long}");
        };
        let text = text.as_str();
        assert!(text.len() <= MAX_TEXT && text.ends_with("..."), "{text}");
    }

    fn setup(text: &str) -> Option<Setup> {
        let text = format!("root = \"/srv/x\"\n{text}");
        Setup::new(&Config::parse(Path::new("/etc/blog.toml"), &text).unwrap())
    }

    #[test]
    fn a_setup_has_the_commands_of_the_site() {
        assert_eq!(setup(""), None);
        assert_eq!(setup("[health]\ninterval = \"1s\"\n"), None);
        let text = "[[hooks.after_swap]]\ncommand = [\"/bin/echo\", \"\u{e9} \\u001b\"]\n\
                    timeout = \"5m\"\n[health]\nurl = \"http://a/\"\ncontains = \"{release}\"\n";
        let full = setup(text).unwrap();
        assert_eq!(full.site.as_str(), "blog");
        assert_eq!(full.after_swap[0].timeout, Duration::from_secs(300));
        let line = message::encode(&full).unwrap();
        assert_eq!(message::decode(line.as_bytes(), MAX_SETUP), Ok(full));
        let changed = line.replacen("\"site\"", "\"more\":1,\"site\"", 1);
        assert!(message::decode::<Setup>(changed.as_bytes(), MAX_SETUP).is_err());
        let changed = line.replacen("/bin/echo", "bin/echo", 1);
        assert!(message::decode::<Setup>(changed.as_bytes(), MAX_SETUP).is_err());
        for text in [
            "[[hooks.before_swap]]\ncommand = [\"/bin/true\"]\n",
            "[[hooks.before_rollback]]\ncommand = [\"/bin/true\"]\n",
            "[health]\ncommand = [\"/bin/true\"]\n",
            "[health]\nsmoke_url = \"http://a/\"\n",
            "[health]\nsmoke_command = [\"/bin/true\"]\n",
        ] {
            assert!(setup(text).is_some(), "{text}");
        }
    }
}
