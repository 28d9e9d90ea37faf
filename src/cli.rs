//! Command-line parsing, for a forced command (`serve`) and for a login shell
//! (`-c STRING`).
//!
//! argv comes from the operator (authorized_keys), is trusted, and is the only
//! source of authority. Client input is read from SSH_ORIGINAL_COMMAND, and only
//! by `request.rs`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::panic;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::error::{self, Code, Error};
use crate::names::{KeyLabel, SiteName};
use crate::policy::Grants;
use crate::request;
use crate::serve::{self, ServeOptions};
use crate::session::Session;
use crate::{children, config, reply};

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
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct SiteArgs {
    /// A site configured in /etc/deploy-shell/NAME.toml
    #[arg(long, value_name = "NAME")]
    site: Option<SiteName>,
    /// The path of a site's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SiteArgs {
    /// Returns the path of the configuration.
    pub fn path(&self) -> PathBuf {
        match (&self.config, &self.site) {
            (Some(path), _) => path.clone(),
            (None, Some(site)) => config::path_of(site),
            (None, None) => unreachable!("clap requires one of them"),
        }
    }
}

#[derive(Args, Debug)]
struct Serve {
    #[command(flatten)]
    site: SiteArgs,
    /// Label of the key, shown in the log
    #[arg(long, value_name = "LABEL")]
    key: Option<KeyLabel>,
    /// The verbs this key may use, and 'files' for list --files [default: receive,swap,rollback,list]
    #[arg(long, value_name = "VERBS")]
    allow: Option<Grants>,
}

/// The output of `--help`. clap is built without its help feature: sshd runs this
/// program, and its clients never see a usage text.
const HELP: [&str; 2] = [
    "deploy-shell is the forced command and login shell that sshd runs for a deploy user; see deploy-shell(1).",
    "Operators use deploy-shell-admin to set up and check sites.",
];

/// The commands of deploy-shell-admin, in the order of its help.
pub const ADMIN_COMMANDS: [&str; 11] = [
    "init",
    "authorize",
    "check",
    "adopt",
    "bridge",
    "drop",
    "history",
    "repair",
    "run",
    "status",
    "verify",
];

/// Returns the command line, from which `xtask` makes the man page.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the program and returns its exit status.
pub fn run(argv: Vec<OsString>) -> u8 {
    error::catch_bugs();
    // 101, the status of a panic, must never be an answer.
    panic::catch_unwind(|| dispatch(&argv)).unwrap_or_else(|_| reply::exit(&error::bug()))
}

fn dispatch(argv: &[OsString]) -> u8 {
    if let Some(status) = children::run_child(argv) {
        return status;
    }
    // sshd starts a login shell as `-NAME` without arguments for a session
    // without a command (login(1)), and as `NAME -c STRING` otherwise.
    match argv {
        [name] if name.as_bytes().starts_with(b"-") => {
            serve::reject_login("this account has no interactive shell".to_owned(), None)
        }
        [_, flag, string] if flag == "-c" => run_login_shell(string),
        [_, word] if word == "--help" || word == "-h" || word == "help" => {
            reply::lines(HELP);
            0
        }
        _ => match Cli::try_parse_from(argv) {
            Ok(cli) => run_command(cli.command),
            Err(error) => report_usage(argv, &error),
        },
    }
}

fn run_command(command: Command) -> u8 {
    match command {
        Command::Serve(serve) => serve::serve(options(serve)),
    }
}

/// Parses the words of a forced command as this program does when sshd runs it.
pub fn parse_serve(words: &[String]) -> Option<ServeOptions> {
    match Cli::try_parse_from(words) {
        Ok(Cli {
            command: Command::Serve(serve),
        }) => Some(options(serve)),
        _ => None,
    }
}

fn options(serve: Serve) -> ServeOptions {
    ServeOptions {
        config: serve.site.path(),
        key: serve.key,
        allow: serve.allow.unwrap_or(Grants::ALL),
    }
}

/// Runs `-c STRING`. STRING must be a `serve` command line, as
/// `deploy-shell-admin authorize` writes it.
///
/// Without a forced command sshd passes the client's own string, and a client
/// can write a `serve` command line as well as the operator can. It gains
/// nothing: sshd sets SSH_ORIGINAL_COMMAND only together with a forced command,
/// and a request is read from nowhere else. This function checks that first,
/// before it opens a configuration that the string names.
fn run_login_shell(string: &OsString) -> u8 {
    let reject = |problem: String| serve::reject_login(problem, Some(string.as_bytes().to_vec()));
    let words = string
        .to_str()
        .and_then(|text| shell_words::split(text).ok());
    let Some(words) = words else {
        return reject("this account has no shell".to_owned());
    };
    let is_serve = match words.as_slice() {
        [program, verb, ..] => {
            verb == "serve" && program.rsplit('/').next() == Some("deploy-shell")
        }
        _ => false,
    };
    if !is_serve {
        let problem = request::known_client_name(string.as_bytes()).map_or_else(
            || "this account serves forced commands only".to_owned(),
            |name| format!("{name} is not served here"),
        );
        return reject(problem);
    }
    if Session::from_environment(None).command.is_none() {
        // The string is the forced command of a session without a request, or that of
        // a client whose key has no forced command. They look the same, so the message
        // is right for both, and no configuration is opened for the second.
        return reject(request::NO_REQUEST.to_owned());
    }
    match Cli::try_parse_from(&words) {
        Ok(Cli {
            command: Command::Serve(serve),
        }) => serve::serve(options(serve)),
        // Also for '--version': the reader is the client, not the operator who
        // wrote the command.
        Err(error) => serve::reject_forced_command(usage_problem(&error)),
    }
}

/// Reports a command line that clap does not accept, or prints the version.
fn report_usage(argv: &[OsString], error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        reply::lines(error.render().to_string().lines());
        return 0;
    }
    let word = argv.get(1).and_then(|word| word.to_str());
    if let Some(command) = word.filter(|word| ADMIN_COMMANDS.contains(word)) {
        let problem = format!("'{command}' is a command of deploy-shell-admin");
        return reply::exit(&Error::new(Code::BadRequest, problem));
    }
    let problem = usage_problem(error);
    // A client cannot correct the operator's forced command.
    if word == Some("serve") {
        return serve::reject_forced_command(problem);
    }
    reply::exit(&Error::new(Code::BadRequest, problem).remedy("see 'deploy-shell --help'"))
}

/// Returns clap's error message on one line, without the usage that follows it.
pub fn usage_problem(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines: Vec<&str> = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => vec!["no command is given"],
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => vec!["help is not available here"],
        // For some errors clap puts the subject on a separate line.
        _ => text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect(),
    };
    let message = lines.join(" ");
    message.trim_start_matches("error: ").replace('`', "'")
}
