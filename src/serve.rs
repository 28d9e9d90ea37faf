//! The pipeline of one request, on one screen: who asks, under what
//! configuration, what, whether they may; the record; the act; the record; the
//! reply.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::activate::gate::Gate;
use crate::audit::Audit;
use crate::config::{self, Config};
use crate::error::{self, Code, Error, Result};
use crate::event::{Success, Told};
use crate::hooks::Runner;
use crate::names::KeyLabel;
use crate::policy::{self, Grants, Permit, Verb};
use crate::request::Request;
use crate::sandbox::{self, Enforcement};
use crate::session::Session;
use crate::signature::Requirement;
use crate::store::{Actor, Store};
use crate::{activate, list, privileges, receive, reply};

/// What the operator's argv says: which site, which key, which verbs.
#[derive(Debug)]
pub struct Options {
    pub config: PathBuf,
    pub key: Option<KeyLabel>,
    pub allow: Grants,
}

/// Serves one request, to the exit status.
pub fn serve(options: Options) -> u8 {
    let started = Instant::now();
    sandbox::reset_inherited_state();
    let session = Session::from_environment(options.key);

    let config = match Config::load(&options.config) {
        Ok(config) => config,
        Err(error) => return refuse_without_site(&session, &error),
    };
    let audit = Audit::new(&config.audit, Some(config.site()), &session);

    let request = match Request::parse(session.command.as_deref().unwrap_or_default()) {
        Ok(request) => request,
        Err(problem) => return turn_away(&audit, &bad_request(problem)),
    };
    let verb = Verb::of(&request);
    let permit = match policy::judge(request, options.allow) {
        Ok(permit) => permit,
        Err(policy::Denied) => {
            let error = Error::new(Code::Denied, format!("this key may not {verb}"))
                .remedy("the operator grants verbs with '--allow' in authorized_keys");
            return turn_away(&audit, &error);
        }
    };

    let mut unrecorded = Vec::new();
    if let Err(error) = audit.request(None) {
        if audit.required() && verb.writes() {
            reply::failure(&error);
            return error.code.exit();
        }
        unrecorded.push(error.problem);
    }
    let mut tell = |told: &Told<'_>| {
        reply::told(told);
        if let Err(error) = audit.told(told) {
            unrecorded.push(error.problem);
        }
    };
    let path = &options.config;
    let (confinement, done) = act(&config, path, &session.actor(verb), &permit, &mut tell);
    let took = started.elapsed();
    if let Err(error) = audit.result(done.as_ref(), confinement.as_ref(), took) {
        unrecorded.push(error.problem);
    }
    unrecorded.dedup();
    answer(done, unrecorded)
}

fn act(
    config: &Config,
    path: &Path,
    actor: &Actor,
    permit: &Permit,
    tell: &mut dyn FnMut(&Told<'_>),
) -> (Option<Enforcement>, Result<Success>) {
    let mut confinement = None;
    let verb = actor.verb;
    let attempt = || {
        let store = Store::open(config)?;
        // Outside the site, and so out of reach once we are confined.
        let required = match verb {
            Verb::List => None,
            _ => Requirement::load(config)?,
        };
        let required = required.as_ref();
        // Outside of what confines us, and before the lock and the journal are
        // open: what runs the operator's commands. The folders' handles end with
        // its start.
        let runner = match verb {
            Verb::Swap | Verb::Rollback => {
                sandbox::block_termination_signals();
                Runner::start(config, path)?
            }
            Verb::Receive | Verb::List => None,
        };
        let records = store
            .records(verb.writes())
            .map_err(|errno| store.io("cannot open the journal and the lock", errno))?;
        confinement
            .insert(privileges::restrict_monitor(verb, &store, &records))
            .ensure_full(config.sandbox.required)?;
        let gate = Gate::new(config, runner, tell);
        match permit {
            Permit::Receive(asked) => receive::receive(config, required, &store, actor, asked),
            Permit::Swap(asked) => activate::swap(config, required, &store, actor, gate, asked),
            Permit::Rollback(asked) => {
                activate::rollback(config, required, &store, actor, gate, asked)
            }
            Permit::List(asked) => list::list(config, &store, asked),
        }
    };
    // A bug must not keep the result out of the record. What is used after a
    // panic the attempt has only read, or set as a whole.
    let done = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| Err(error::bug()));
    (confinement, done)
}

/// Replies. What could not be recorded is told beside a success alone: a
/// failure is one problem and its remedy.
fn answer(done: Result<Success>, unrecorded: Vec<String>) -> u8 {
    match done {
        Ok(success) => {
            reply::lines(success.lines.iter().map(String::as_str));
            for warning in unrecorded.iter().chain(&success.warnings) {
                reply::warning(warning);
            }
            0
        }
        Err(error) => {
            reply::failure(&error);
            error.code.exit()
        }
    }
}

/// Refuses with one line in the record; that it cannot be written changes
/// nothing, since nothing is done.
fn turn_away(audit: &Audit<'_>, error: &Error) -> u8 {
    _ = audit.request(Some(error));
    reply::failure(error);
    error.code.exit()
}

/// The record of what no site's configuration vouches for goes to where the
/// defaults say.
fn refuse_without_site(session: &Session, error: &Error) -> u8 {
    let defaults = config::Audit {
        required: false,
        ..config::Audit::default()
    };
    turn_away(&Audit::new(&defaults, None, session), error)
}

/// Refuses a forced command that is not one of ours to serve.
pub fn refuse_forced_command(problem: String) -> u8 {
    let error = Error::new(Code::BadConfig, problem).remedy(
        "the operator's forced command is wrong; 'deploy-shell-admin authorize' prints one",
    );
    refuse_without_site(&Session::from_environment(None), &error)
}

/// Refuses a login that comes with no request of a forced command.
pub fn refuse_login(problem: String, command: Option<Vec<u8>>) -> u8 {
    let mut session = Session::from_environment(None);
    session.command = command.or(session.command);
    refuse_without_site(&session, &bad_request(problem))
}

fn bad_request(problem: String) -> Error {
    Error::new(Code::BadRequest, problem).remedy(
        "a request is: receive RELEASE --sha256 HEX | swap RELEASE | rollback [RELEASE] | list [--json]",
    )
}
