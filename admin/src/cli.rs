//! The command line of `deploy-shell-admin` (clap).

use std::ffi::OsString;
use std::panic;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

use deploy_shell::children;
use deploy_shell::cli::{SiteArgs, usage_problem};
use deploy_shell::config;
use deploy_shell::error::{self, Code, Error, Result};
use deploy_shell::names::{KeyLabel, ReleaseId, SiteName};
use deploy_shell::policy::Grants;
use deploy_shell::reply;

use crate::output::{self, Output};
use crate::own_session;
use crate::{
    adopt, authorize, bridge, check, drop_releases, history, init, keyrings, repair, run, status,
    verify,
};

/// Set up and check sites that deploy-shell serves.
#[derive(Debug, Parser)]
#[command(name = "deploy-shell-admin", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented configuration and create the directories of a site
    Init(Init),
    /// Print the authorized_keys line for a public key
    Authorize(Authorize),
    /// Audit a site: what could someone do with each key? Reports problems with fixes
    Check(Check),
    /// Adopt the releases of Deployer, Capistrano, a script or a plain directory
    Adopt(Adopt),
    /// Make files of old releases reachable for pages that visitors have open
    Bridge(Bridge),
    /// Remove releases that were never live, or that are bad
    Drop(DropReleases),
    /// Show who deployed what and when
    History(History),
    /// Give the account of a site its own files again, with the modes that requests need
    Repair(Repair),
    /// Run a command as the account of a site, without root's terminal, files and keys
    Run(Run),
    /// Show the state of all sites, and what needs attention; for Prometheus too
    Status(Status),
    /// Hash releases again and compare them with their manifests
    Verify(Verify),
}

#[derive(Args, Debug)]
struct Init {
    #[command(flatten)]
    site: SiteArgs,
    /// The root directory of the site
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// The account that the site belongs to, never root [default: the owner of DIR]
    #[arg(long, value_name = "ACCOUNT")]
    owner: Option<String>,
}

#[derive(Args, Debug)]
struct Authorize {
    #[command(flatten)]
    site: SiteArgs,
    /// Label of the key, shown in the log
    #[arg(long, value_name = "LABEL")]
    key: KeyLabel,
    /// The verbs this key may use, and 'files' for list --files [default: receive,swap,rollback,list]
    #[arg(long, value_name = "VERBS")]
    allow: Option<Grants>,
    /// The public key [default: standard input]
    #[arg(value_name = "FILE.pub")]
    public: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    site: SiteArgs,
    /// The configuration file of sshd [default: the one sshd reads]
    #[arg(long, value_name = "FILE")]
    sshd_config: Option<PathBuf>,
    /// Print one JSON document in place of the report
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Adopt {
    #[command(flatten)]
    site: SiteArgs,
    /// Do it [default: print what would be done]
    #[arg(long)]
    yes: bool,
}

#[derive(Args, Debug)]
struct Bridge {
    #[command(flatten)]
    site: SiteArgs,
    /// For a hook: report a failure as a warning and exit with 0
    #[arg(long)]
    warn_only: bool,
}

#[derive(Args, Debug)]
struct DropReleases {
    #[command(flatten)]
    site: SiteArgs,
    /// Remove good releases too, but never the live one
    #[arg(long)]
    good: bool,
    /// The releases
    #[arg(value_name = "RELEASE", required = true)]
    releases: Vec<ReleaseId>,
}

#[derive(Args, Debug)]
struct History {
    #[command(flatten)]
    site: SiteArgs,
    /// Print one object of JSON
    #[arg(long)]
    json: bool,
    /// Only events of this time, such as 12h or 7d [default: all]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
}

#[derive(Args, Debug)]
struct Repair {
    #[command(flatten)]
    site: SiteArgs,
    /// The account of the site [default: what the owners of its directories show]
    #[arg(long, value_name = "ACCOUNT")]
    owner: Option<String>,
}

#[derive(Args, Debug)]
struct Run {
    #[command(flatten)]
    site: SiteArgs,
    /// The account of the site [default: what the owners of its directories show]
    #[arg(long, value_name = "ACCOUNT")]
    owner: Option<String>,
    /// Give the command the standard input of this program
    #[arg(long)]
    stdin: bool,
    /// The command and its arguments, after '--'
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<OsString>,
}

#[derive(Args, Debug)]
struct Status {
    /// A site configured in /etc/deploy-shell/NAME.toml [default: all of them]
    #[arg(long, value_name = "NAME")]
    site: Vec<SiteName>,
    /// The path of a site's configuration
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Print one object of JSON
    #[arg(long)]
    json: bool,
    /// Write the metrics of the sites to FILE, for node_exporter, in place of the table
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Verify {
    #[command(flatten)]
    site: SiteArgs,
    /// The releases [default: all]
    #[arg(value_name = "RELEASE")]
    releases: Vec<ReleaseId>,
}

fn duration(text: &str) -> std::result::Result<Duration, &'static str> {
    config::parse_duration(text).ok_or("not a time such as 30m, 12h or 7d")
}

/// Returns the definition of the command line, for the man page and the completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The memory that a command may use, in bytes. root reads files that the account can
/// write: a journal or a compressed part of it may have any size.
const MAX_MEMORY: u64 = 2 << 30;

/// Runs the program and returns its exit status.
pub fn run(argv: Vec<OsString>) -> u8 {
    error::catch_bugs();
    // A failure leaves the limit as it is, which is one of the operator's.
    _ = getrlimit(Resource::RLIMIT_DATA)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_DATA, soft.min(MAX_MEMORY), hard));
    // It gives up the keyrings itself.
    if let Some(status) = run::run_child(&argv) {
        return status;
    }
    if geteuid().is_root() {
        // Without seccomp the other precautions remain; `run` refuses to start a command.
        _ = keyrings::give_up();
    }
    let child = children::run_look_up(&argv)
        .or_else(|| status::run_child(&argv))
        .or_else(|| check::run_child(&argv));
    if let Some(status) = child {
        return status;
    }
    let argv = match own_session::begin(argv) {
        Ok(argv) => argv,
        Err(status) => return status,
    };
    panic::catch_unwind(|| dispatch(&argv)).unwrap_or_else(|_| reply::exit(&error::bug()))
}

fn dispatch(argv: &[OsString]) -> u8 {
    match Cli::try_parse_from(argv) {
        Ok(cli) => run_command(cli.command).unwrap_or_else(|error| reply::exit(&error)),
        Err(error) if !error.use_stderr() => {
            match output::print(error.render().to_string().lines()) {
                Ok(()) => 0,
                Err(error) => reply::exit(&error),
            }
        }
        Err(error) => reply::exit(
            &Error::new(Code::BadRequest, usage_problem(&error))
                .remedy("see 'deploy-shell-admin --help'"),
        ),
    }
}

fn run_command(command: Command) -> Result<u8> {
    let done = |lines| Output { lines, sound: true };
    let output = match command {
        Command::Init(init) => {
            let owner = init.owner.as_deref();
            done(init::init(&init.site.path(), &init.root, owner)?)
        }
        Command::Authorize(authorize) => {
            let lines = authorize::authorize(
                &authorize.site.path(),
                &authorize.key,
                authorize.allow,
                authorize.public.as_deref(),
            )?;
            done(lines)
        }
        Command::Check(check) => {
            check::check(&check.site.path(), check.sshd_config.as_deref(), check.json)?
        }
        Command::Adopt(adopt) => adopt::adopt(&adopt.site.path(), adopt.yes)?,
        Command::Bridge(bridge) => match bridge::bridge(&bridge.site.path()) {
            // A hook that fails ends a swap or a rollback, which is worth more than files
            // of old releases.
            Err(error) if bridge.warn_only => {
                let remedy = error.remedy.map_or(String::new(), |it| format!("; {it}"));
                reply::warning(&format!(
                    "the bridge was not built: {}{remedy}",
                    error.problem
                ));
                done(Vec::new())
            }
            other => done(other?),
        },
        Command::Drop(drop) => done(drop_releases::drop_releases(
            &drop.site.path(),
            &drop.releases,
            drop.good,
        )?),
        Command::History(history) => done(history::history(
            &history.site.path(),
            history.json,
            history.since,
        )?),
        Command::Repair(repair) => repair::repair(&repair.site.path(), repair.owner.as_deref())?,
        Command::Run(run) => {
            return run::run(
                &run.site.path(),
                run.owner.as_deref(),
                run.stdin,
                &run.command,
            );
        }
        Command::Status(status) => {
            let named = status.site.iter().map(config::path_of);
            let named = named.chain(status.config).collect();
            let (lines, exit) = status::status(named, status.json, status.prometheus.as_deref())?;
            output::print(lines.iter().map(String::as_str))?;
            return Ok(exit);
        }
        Command::Verify(verify) => verify::verify(&verify.site.path(), &verify.releases)?,
    };
    output::print(output.lines.iter().map(String::as_str))?;
    Ok(u8::from(!output.sound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deploy_shell_names_every_command_of_this_program() {
        let definition = Cli::command();
        let names = definition.get_subcommands().map(clap::Command::get_name);
        assert_eq!(names.collect::<Vec<_>>(), deploy_shell::cli::ADMIN_COMMANDS);
    }
}
