//! The pipeline of one request. Start reading here: [`serve`] reads the
//! environment, the configuration and the request, decides, logs, runs the verb,
//! logs the result and replies.

use std::io::IsTerminal;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::activate::gate::Gate;
use crate::activate::prune::{self, Trash};
use crate::audit::{self, AuditLog};
use crate::config::{self, Config};
use crate::error::{self, Code, Error, Result};
use crate::event::{AuditEvent, Progress, Reporter};
use crate::hooks::HookRunner;
use crate::names::{KeyLabel, ReleaseId};
use crate::policy::{self, Grants, Permit, Verb};
use crate::receive::Assembler;
use crate::reply::{LongReply, Stopped};
use crate::request::{self, Invalid, Request};
use crate::sandbox::{self, Enforcement};
use crate::session::Session;
use crate::signature::Requirement;
use crate::store::ledger::LOCK_TIMEOUT;
use crate::store::limits::{self, Counter, KeyLimits};
use crate::store::lock::Lock;
use crate::store::{Actor, Store, TreeList, checkpoint, turn};
use crate::success::Success;
use crate::{activate, list, privileges, receive, reply};

/// The options of the forced command: the site, the key and its verbs.
#[derive(Debug)]
pub struct ServeOptions {
    pub config: PathBuf,
    pub key: Option<KeyLabel>,
    pub allow: Grants,
}

/// Serves one request and returns the exit status.
pub fn serve(options: ServeOptions) -> u8 {
    let started = Instant::now();
    sandbox::reset_inherited_state();
    // Before the first audit line: a signal must not end a request between its lines.
    sandbox::block_termination_signals();
    let session = Session::from_environment(options.key);

    let config = match Config::load(&options.config) {
        Ok(config) => config,
        Err(error) => return reject_without_site(&session, &error),
    };
    let audit = AuditLog::new(&config.audit, Some(config.site()), &session);

    let request = match Request::parse(session.command.as_deref().unwrap_or_default()) {
        Ok(request) => request,
        Err(invalid) => return reject(&session, &audit, &bad_request(invalid)),
    };
    let verb = Verb::of(&request);
    let permit = match policy::decide(request, options.allow) {
        Ok(permit) => permit,
        Err(policy::Denied(what)) => {
            let error = Error::new(Code::Denied, format!("this key may not {what}"))
                .remedy("the operator grants verbs with '--allow' in authorized_keys");
            return reject(&session, &audit, &error);
        }
    };

    // A terminal changes bytes, echoes them, and turns some into signals. Refuse it
    // before a byte of it is read.
    if verb == Verb::Receive && std::io::stdin().is_terminal() {
        let error = Error::new(Code::BadRequest, "a payload cannot come through a terminal")
            .remedy("send it with 'ssh -T' and '< FILE', without -t and -tt");
        return reject(&session, &audit, &error);
    }

    let mut log = RequestLog::new(&audit);
    if let Err(error) = audit.request(None) {
        if audit.required() && verb.writes() {
            return reply::exit(&error);
        }
        log.warnings.push(error.problem);
    }
    let notices = audit::notices(&config, &session);
    let actor = session.actor(verb, started, notices);
    let (confinement, result) = run_verb(&config, verb, &actor, &permit, &mut log);
    log.keep_problem(audit.result(result.as_ref(), confinement.as_ref(), started.elapsed()));
    reply_with(result, log.warnings)
}

/// Opens the site, confines the process, and runs the verb that `permit` allows.
fn run_verb(
    config: &Config,
    verb: Verb,
    actor: &Actor,
    permit: &Permit,
    log: &mut RequestLog<'_>,
) -> (Option<Enforcement>, Result<Success>) {
    let mut confinement = None;
    let attempt = || {
        let store = Store::open(config)?;
        if verb.writes() {
            store.check_writable(verb == Verb::Receive)?;
        }
        // The allowed signers are outside of the site, and so out of reach for
        // the confined process.
        let required = match verb {
            Verb::List => None,
            _ => Requirement::load(config)?,
        };
        let required = required.as_ref();
        // The hook runner and the assembler start before the sandbox, which they must not
        // inherit, and before the lock and the journal are open.
        let runner = match verb {
            Verb::Swap | Verb::Rollback => HookRunner::start(config)?,
            Verb::Receive | Verb::List => None,
        };
        let assembler = match verb {
            Verb::Receive => Some(Assembler::start(config, &store)?),
            Verb::Swap | Verb::Rollback | Verb::List => None,
        };
        let cannot =
            |errno| store.state_io("cannot open the journal, the lock and the counters", errno);
        if verb.writes() {
            limits::create_directory(&store).map_err(cannot)?;
        }
        let lock = count_and_lock(config, &store, verb, actor, log)?;
        let trash = match permit {
            Permit::Receive(request) => {
                let spared: Vec<&ReleaseId> =
                    iter::once(&request.release).chain(&request.base).collect();
                prune::prune_for_receive(config, &store, actor, &spared, &mut log.warnings)
            }
            Permit::Swap(_) | Permit::Rollback(_) | Permit::List(_) => Trash::default(),
        };
        let records = store.records(verb.writes()).map_err(cannot)?;
        if verb == Verb::Receive {
            // The sandbox denies this.
            store.prepare_incoming(config.archive.acl)?;
        }
        confinement
            .insert(privileges::restrict_to_verb(
                verb,
                &store,
                &records,
                &config.audit.socket,
            ))
            .ensure_full(config.sandbox.required)?;
        prune::empty_trash(&store, &trash, &mut log.warnings);
        let gate = Gate::new(config, runner, log);
        match permit {
            Permit::Receive(request) => {
                let assembler = assembler.ok_or_else(error::bug)?;
                receive::receive(config, required, &store, actor, assembler, request).inspect_err(
                    |error| {
                        if error.code == Code::DiskFull {
                            KeyLimits::new(config, &store, actor).note_lack_of_space();
                        }
                    },
                )
            }
            Permit::Swap(request) => {
                let lock = lock.ok_or_else(error::bug)?;
                activate::swap(config, required, &store, actor, lock, gate, request)
            }
            Permit::Rollback(request) => {
                let lock = lock.ok_or_else(error::bug)?;
                activate::rollback(config, required, &store, actor, lock, gate, request)
            }
            Permit::List(request) => list::list(config, &store, request),
        }
    };
    // A panic must not keep the result out of the audit log. Unwind safety: the
    // attempt sets `confinement` as a whole and otherwise only appends to `log`.
    let result = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| Err(error::bug()));
    (confinement, result)
}

/// Counts the request for the limits of its key, and makes a checkpoint if one is due.
/// Returns the lock for a swap or rollback.
///
/// This comes before the sandbox: a checkpoint replaces the journal, to which the sandbox
/// of a swap or rollback then permits appending. So these two hold the lock from here on.
/// A receive holds none while its client sends, and its sandbox permits opening a journal
/// that another request has put there since.
///
/// # Errors
///
/// Those of [`KeyLimits::count`], [`turn::take_lock`] and [`checkpoint::make_if_due`].
fn count_and_lock(
    config: &Config,
    store: &Store,
    verb: Verb,
    actor: &Actor,
    log: &mut RequestLog<'_>,
) -> Result<Option<Lock>> {
    // A request that the limit refuses does not compete for the lock.
    let limits = KeyLimits::new(config, store, actor);
    match verb {
        Verb::Swap | Verb::Rollback => {
            limits.count(Counter::Activations)?;
            let lock = turn::take_lock(&limits, store, actor, LOCK_TIMEOUT)?;
            let warning = checkpoint::make_if_due(store, config, &lock)?;
            log.warnings.extend(warning);
            Ok(Some(lock))
        }
        Verb::Receive => {
            limits.count(Counter::Attempts)?;
            // Not worth waiting for.
            if checkpoint::is_due(store)
                && let Ok(lock) = Lock::take(store, actor, Duration::ZERO)
            {
                let warning = checkpoint::make_if_due(store, config, &lock)?;
                log.warnings.extend(warning);
            }
            Ok(None)
        }
        Verb::List => Ok(None),
    }
}

/// Shows progress to the client, writes audit lines, and keeps the problems of
/// lines that could not be written.
struct RequestLog<'a> {
    audit: &'a AuditLog<'a>,
    /// Failures that do not change the result of the request.
    warnings: Vec<String>,
}

impl<'a> RequestLog<'a> {
    fn new(audit: &'a AuditLog<'a>) -> RequestLog<'a> {
        RequestLog {
            audit,
            warnings: Vec::new(),
        }
    }

    /// Keeps the problem of a line that could not be written.
    fn keep_problem(&mut self, written: Result<()>) {
        if let Err(error) = written {
            self.warnings.push(error.problem);
            self.warnings.dedup();
        }
    }
}

impl Reporter for RequestLog<'_> {
    fn progress(&mut self, progress: &Progress<'_>) {
        reply::report(progress);
    }

    fn audit(&mut self, event: &AuditEvent<'_>) {
        self.keep_problem(self.audit.event(event));
    }
}

/// Writes the reply and returns the exit status. Audit lines that could not be
/// written become warnings of a success only: the reply to a failure is one
/// problem and its remedy.
fn reply_with(result: Result<Success>, warnings: Vec<String>) -> u8 {
    match result {
        Ok(Success::TreeList(mut list)) => match reply_with_tree_list(&mut list) {
            Ok(()) => {
                for warning in &warnings {
                    reply::warning(warning);
                }
                0
            }
            Err(error) => reply::exit(&error),
        },
        Ok(success) => {
            let written = reply::lines(success.lines().iter().map(String::as_str));
            // The other verbs have done what they were to do, and their one line fits into
            // any pipe. Half of a list must not look whole.
            if !written && matches!(success, Success::Listed(_)) {
                return reply::exit(&unread_list());
            }
            for warning in warnings.iter().chain(success.warnings()) {
                reply::warning(warning);
            }
            0
        }
        Err(error) => reply::exit(&error),
    }
}

/// Writes a tree list.
///
/// # Errors
///
/// [`Code::Timeout`] for a client that does not read it in time, and those of
/// [`TreeList::each`]: half of a list must not look whole.
fn reply_with_tree_list(list: &mut TreeList) -> Result<()> {
    let mut out = LongReply::default();
    let mut written = Ok(());
    list.each(|line| {
        written = out.line(line);
        written.is_ok()
    })?;
    match written.and_then(|()| out.flush()) {
        Ok(()) | Err(Stopped::Closed) => Ok(()),
        Err(Stopped::TooSlow) => Err(unread_list()),
    }
}

fn unread_list() -> Error {
    let error = Error::new(Code::Timeout, "the client did not read the list in time");
    error.remedy("read the whole output of list")
}

/// Rejects a request with one audit line. Nothing is done, so it does not
/// matter if the line cannot be written.
fn reject(session: &Session, audit: &AuditLog<'_>, error: &Error) -> u8 {
    _ = audit.request(Some(error));
    if session.command.as_deref().is_some_and(request::is_scp) {
        reply::scp_error(error);
    }
    reply::exit(error)
}

/// Rejects a request for which no site's configuration could be read. The audit
/// line goes to the default socket.
fn reject_without_site(session: &Session, error: &Error) -> u8 {
    sandbox::block_termination_signals();
    let defaults = config::Audit {
        required: false,
        ..config::Audit::default()
    };
    reject(session, &AuditLog::new(&defaults, None, session), error)
}

/// Rejects a forced command that this program cannot serve.
pub fn reject_forced_command(problem: String) -> u8 {
    let error = Error::new(Code::BadConfig, problem).remedy(
        "the operator's forced command is wrong; 'deploy-shell-admin authorize' prints one",
    );
    reject_without_site(&Session::from_environment(None), &error)
}

/// Rejects a login that has no request of a forced command.
pub fn reject_login(problem: String, command: Option<Vec<u8>>) -> u8 {
    let mut session = Session::from_environment(None);
    session.command = command.or(session.command);
    reject_without_site(&session, &bad_request(problem.into()))
}

fn bad_request(invalid: Invalid) -> Error {
    Error::new(Code::BadRequest, invalid.problem).remedy(invalid.remedy.unwrap_or(
        "a request is: receive RELEASE --sha256 HEX | swap RELEASE | rollback [RELEASE] | list [--json]",
    ))
}
