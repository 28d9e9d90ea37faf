//! The operator's command line, and its other form: the login shell's.
//!
//! argv is the operator's and trusted; it is the only source of authority. A
//! client's bytes never come here: they are read by `request.rs` alone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::panic;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::HttpUrl;
use crate::error::{self, Code, Error};
use crate::names::{KeyLabel, SiteName};
use crate::policy::Grants;
use crate::probe::Question;
use crate::request;
use crate::serve::{self, Options};
use crate::session::Session;
use crate::{children, config, hooks, probe, reply};

/// Forced command and restricted shell for deploys over ssh.
#[derive(Debug, Parser)]
#[command(name = "deploy-shell", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the request in SSH_ORIGINAL_COMMAND (the forced command)
    Serve(Serve),
    /// What `serve` executes to run hooks; of no use by hand
    #[command(hide = true)]
    Runner(Runner),
    /// What the runner executes to ask for a release's health; of no use by hand
    #[command(hide = true)]
    Probe(Probe),
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Site {
    /// A site configured in /etc/deploy-shell/NAME.toml
    #[arg(long, value_name = "NAME")]
    site: Option<SiteName>,
    /// The path of a site's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Site {
    /// Returns the path of the configuration.
    pub fn path(&self) -> PathBuf {
        match (&self.config, &self.site) {
            (Some(path), _) => path.clone(),
            (None, Some(site)) => PathBuf::from(format!("{}/{site}.toml", config::FOLDER)),
            (None, None) => unreachable!("clap requires one of them"),
        }
    }
}

#[derive(Args, Debug)]
struct Serve {
    #[command(flatten)]
    site: Site,
    /// The operator's name for the key, for the record
    #[arg(long, value_name = "LABEL")]
    key: Option<KeyLabel>,
    /// The verbs this key may use [default: receive,swap,rollback,list]
    #[arg(long, value_name = "VERBS")]
    allow: Option<Grants>,
}

#[derive(Args, Debug)]
struct Runner {
    #[arg(long)]
    config: PathBuf,
}

#[derive(Args, Debug)]
struct Probe {
    #[arg(long, value_parser = |text: &str| HttpUrl::try_from(text.to_owned()))]
    url: HttpUrl,
    #[arg(long)]
    contains: Option<String>,
    /// In milliseconds
    #[arg(long)]
    within: u64,
    #[arg(long)]
    sandbox_optional: bool,
}

/// The operator's command line, for the manual and the completions to be made from.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the program, to its exit status.
pub fn run(argv: Vec<OsString>) -> u8 {
    error::catch_bugs();
    // 101 is never an answer of ours.
    panic::catch_unwind(|| dispatch(&argv)).unwrap_or_else(|_| reply::exit(&error::bug()))
}

fn dispatch(argv: &[OsString]) -> u8 {
    if let Some(status) = children::run(argv) {
        return status;
    }
    // sshd starts a login shell as `-NAME` without arguments for a session
    // without a command (login(1)'s custom), and as `NAME -c STRING` else.
    match argv {
        [name] if name.as_bytes().starts_with(b"-") => {
            serve::reject_login("this account has no interactive shell".to_owned(), None)
        }
        [_, flag, string] if flag == "-c" => login_shell(string),
        _ => match Cli::try_parse_from(argv) {
            Ok(cli) => command(cli.command),
            Err(error) => usage(argv, &error),
        },
    }
}

fn command(command: Command) -> u8 {
    match command {
        Command::Serve(serve) => serve::serve(options(serve)),
        Command::Runner(run) => hooks::main(&run.config),
        Command::Probe(probe) => {
            let question = Question {
                url: probe.url,
                contains: probe.contains.filter(|text| !text.is_empty()),
                within: Duration::from_millis(probe.within),
            };
            probe::main(&question, !probe.sandbox_optional)
        }
    }
}

/// Reads the words of a forced command as this program does when sshd runs it.
pub fn parse_serve(words: &[String]) -> Option<Options> {
    match Cli::try_parse_from(words) {
        Ok(Cli {
            command: Command::Serve(serve),
        }) => Some(options(serve)),
        _ => None,
    }
}

fn options(serve: Serve) -> Options {
    Options {
        config: serve.site.path(),
        key: serve.key,
        allow: serve.allow.unwrap_or(Grants::ALL),
    }
}

/// `-c STRING`: STRING must be a serve command line, as `authorize` writes it.
///
/// Without a forced command sshd hands us the client's own string, and a client
/// can write a serve command line as well as the operator can. It gains
/// nothing: sshd sets SSH_ORIGINAL_COMMAND only beside a forced command, and a
/// request is read from nowhere else. So that is looked at first, before a
/// configuration that the string names is opened.
fn login_shell(string: &OsString) -> u8 {
    let refuse = |problem: String| serve::reject_login(problem, Some(string.as_bytes().to_vec()));
    let words = string
        .to_str()
        .and_then(|text| shell_words::split(text).ok());
    let Some(words) = words else {
        return refuse("this account has no shell".to_owned());
    };
    let ours = match words.as_slice() {
        [program, verb, ..] => {
            verb == "serve" && program.rsplit('/').next() == Some("deploy-shell")
        }
        _ => false,
    };
    if !ours {
        let problem = request::known_client_name(string.as_bytes()).map_or_else(
            || "this account serves forced commands only".to_owned(),
            |name| format!("{name} is not served here"),
        );
        return refuse(problem);
    }
    if Session::from_environment(None).command.is_none() {
        return refuse("no request came with a forced command".to_owned());
    }
    match Cli::try_parse_from(&words) {
        Ok(Cli {
            command: Command::Serve(serve),
        }) => serve::serve(options(serve)),
        Ok(_) => refuse("this account serves forced commands only".to_owned()),
        // Also for '--help': nobody reads it here who wrote the command.
        Err(error) => serve::reject_forced_command(usage_problem(&error)),
    }
}

/// A command line that clap does not take, or that asks for help.
fn usage(argv: &[OsString], error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        reply::lines(error.render().to_string().lines());
        return 0;
    }
    let problem = usage_problem(error);
    // The forced command itself is wrong: the client can do nothing about it.
    if argv.get(1).is_some_and(|word| word == "serve") {
        return serve::reject_forced_command(problem);
    }
    reply::exit(&Error::new(Code::BadRequest, problem).remedy("see 'deploy-shell --help'"))
}

/// What clap says before it comes to the usage, on one line; the subject may
/// stand on a line of its own.
pub fn usage_problem(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said: Vec<&str> = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => vec!["no command is given"],
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => vec!["help is not served here"],
        _ => text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect(),
    };
    let said = said.join(" ");
    said.trim_start_matches("error: ").replace('`', "'")
}
