//! The operator's command line, and its other form: the login shell's.
//!
//! argv is the operator's and trusted; it is the only source of authority. A
//! client's bytes never come here: they are read by `request.rs` alone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::panic;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::error::{Code, Error};
use crate::names::{KeyLabel, SiteName};
use crate::policy::Grants;
use crate::request;
use crate::serve::{self, Options};
use crate::unpack::{self, Limits};
use crate::{admin, config, reply};

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
    /// Write a commented configuration and make the site's folders
    Init(Init),
    /// Print the authorized_keys line of a public key
    Authorize(Authorize),
    /// What `receive` executes to unpack; of no use by hand
    #[command(hide = true)]
    Unpack(Unpack),
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Site {
    /// A site configured in /etc/deploy-shell/NAME.toml
    #[arg(long, value_name = "NAME")]
    site: Option<SiteName>,
    /// The path of a site's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Site {
    fn path(self) -> PathBuf {
        match (self.config, self.site) {
            (Some(path), _) => path,
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
struct Init {
    #[command(flatten)]
    site: Site,
    /// The site's root folder
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
}

#[derive(Args, Debug)]
struct Authorize {
    #[command(flatten)]
    site: Site,
    /// The name for the key, for the record
    #[arg(long, value_name = "LABEL")]
    key: KeyLabel,
    /// The verbs this key may use [default: receive,swap,rollback,list]
    #[arg(long, value_name = "VERBS")]
    allow: Option<Grants>,
    /// The public key [default: standard input]
    #[arg(value_name = "FILE.pub")]
    public: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Unpack {
    #[arg(long)]
    max_unpacked: u64,
    #[arg(long)]
    max_file: u64,
    #[arg(long)]
    max_entries: u32,
    #[arg(long)]
    deny_symlinks: bool,
    #[arg(long)]
    sandbox_optional: bool,
}

/// Runs the program, to its exit status.
pub fn run(argv: Vec<OsString>) -> u8 {
    // The place of a bug is for the operator, on one line, escaped like all others.
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        reply::failure(&Error::new(Code::Internal, format!("panic at {place}")));
    }));
    // 101 is never an answer of ours.
    panic::catch_unwind(|| dispatch(&argv)).unwrap_or(Code::Internal.exit())
}

fn dispatch(argv: &[OsString]) -> u8 {
    // sshd starts a login shell as `-NAME` without arguments for a session
    // without a command (login(1)'s custom), and as `NAME -c STRING` else.
    match argv {
        [name] if name.as_bytes().starts_with(b"-") => {
            serve::refuse_login("this account has no interactive shell".to_owned(), None)
        }
        [_, flag, string] if flag == "-c" => login_shell(string),
        _ => match Cli::try_parse_from(argv) {
            Ok(cli) => command(cli.command),
            Err(error) => usage(argv, &error),
        },
    }
}

fn command(command: Command) -> u8 {
    let done = match command {
        Command::Serve(serve) => return serve::serve(options(serve)),
        Command::Unpack(unpack) => {
            let limits = Limits {
                max_unpacked: unpack.max_unpacked,
                max_file: unpack.max_file,
                max_entries: unpack.max_entries,
                symlinks: !unpack.deny_symlinks,
            };
            return unpack::main(limits, !unpack.sandbox_optional);
        }
        Command::Init(init) => admin::init::init(&init.site.path(), &init.root),
        Command::Authorize(authorize) => admin::authorize::authorize(
            &authorize.site.path(),
            &authorize.key,
            authorize.allow,
            authorize.public.as_deref(),
        ),
    };
    match done {
        Ok(lines) => {
            reply::lines(lines.iter().map(String::as_str));
            0
        }
        Err(error) => {
            reply::failure(&error);
            error.code.exit()
        }
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
    let refuse = |problem: String| serve::refuse_login(problem, Some(string.as_bytes().to_vec()));
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
        let problem = request::foreign(string.as_bytes()).map_or_else(
            || "this account serves forced commands only".to_owned(),
            |name| format!("{name} is not served here"),
        );
        return refuse(problem);
    }
    if !crate::session::has_request() {
        return refuse("no request came with a forced command".to_owned());
    }
    match Cli::try_parse_from(&words) {
        Ok(Cli {
            command: Command::Serve(serve),
        }) => serve::serve(options(serve)),
        Ok(_) => refuse("this account serves forced commands only".to_owned()),
        Err(error) => usage(&words, &error),
    }
}

/// A command line that clap does not take, or that asks for help.
fn usage<T: AsRef<std::ffi::OsStr>>(argv: &[T], error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    if !error.use_stderr() {
        reply::lines(text.lines());
        return 0;
    }
    // The forced command itself is wrong: the client can do nothing about it,
    // and learns which configuration is not acceptable.
    let serve = argv.get(1).is_some_and(|word| word.as_ref() == "serve");
    let code = if serve {
        Code::BadConfig
    } else {
        Code::BadRequest
    };
    let first = text.lines().next().unwrap_or_default();
    let problem = first.trim_start_matches("error: ").replace('`', "'");
    reply::failure(&Error::new(code, problem).remedy("see 'deploy-shell --help'"));
    code.exit()
}
