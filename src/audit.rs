//! The audit log. One line records the request and the decision before anything
//! happens; one line records the result. Hooks, health checks and automatic
//! rollbacks get lines in between. A line is `key="value"` pairs in a fixed order: what
//! happened comes first, so that a line that is full lacks the less important pairs.
//!
//! [`Line`] escapes and truncates every value, so no caller can forget it: no
//! byte that a client sends can end a value, end a line, or push the decision
//! off the end of a line. A line stays under 1 KiB, the limit of the BSD format
//! (RFC 3164, section 4.1).

mod line;

use std::time::Duration;

use crate::config::{self, Config};
use crate::error::{Code, Error, Result, describe};
use crate::event::AuditEvent;
use crate::names::{ReleaseId, SiteName};
use crate::sandbox::Enforcement;
use crate::session::{LoginKey, Session};
use crate::signature::Signed;
use crate::store::journal::Event;
use crate::store::{Notice, NoticeLog};
use crate::success::{Received, Success};
use crate::syslog::{Level, Syslog};
use line::Line;

/// The maximum length of the quoted request, in bytes.
const MAX_REQUEST: usize = 360;

/// The maximum length of a certificate's quoted key id, in bytes.
const MAX_KEY_ID: usize = 64;

/// The maximum length of a command's quoted output, in bytes.
const MAX_OUTPUT: usize = 360;

/// The maximum length of the signers' fingerprints, in bytes: four of them.
const MAX_SIGNED_BY: usize = 210;

/// How long a line may take, with all retries, on a site that requires the
/// audit log. A syslog daemon that restarts is back within this time.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// The audit log of one request.
pub struct AuditLog<'a> {
    syslog: Syslog,
    required: bool,
    site: Option<&'a SiteName>,
    session: &'a Session,
}

impl<'a> AuditLog<'a> {
    pub fn new(config: &config::Audit, site: Option<&'a SiteName>, session: &'a Session) -> Self {
        AuditLog {
            syslog: Syslog::new(&config.socket, config.facility),
            required: config.required,
            site,
            session,
        }
    }

    /// Returns whether the site refuses every change that cannot be logged.
    pub fn required(&self) -> bool {
        self.required
    }

    /// Records the request and the decision: allowed, or why not.
    ///
    /// # Errors
    ///
    /// [`Code::AuditUnreachable`] if syslog did not take the line.
    pub fn request(&self, rejected: Option<&Error>) -> Result<()> {
        let mut line = self.line("request");
        let (decision, level) = match rejected.map(|error| error.code) {
            None => ("allowed", Level::Info),
            Some(Code::Denied) => ("denied", Level::Warning),
            Some(_) => ("refused", Level::Warning),
        };
        line.pair("decision", decision);
        if let Some(error) = rejected {
            line.error(error);
        }
        line.request(self.session);
        line.client(self.session);
        line.certificate(self.session);
        self.send(level, "request", line)
    }

    /// Records the result. `sandbox` is the confinement of this process, if the
    /// request got that far.
    ///
    /// # Errors
    ///
    /// [`Code::AuditUnreachable`] if syslog did not take the line.
    pub fn result(
        &self,
        result: Result<&Success, &Error>,
        sandbox: Option<&Enforcement>,
        took: Duration,
    ) -> Result<()> {
        let mut line = self.line("result");
        match result {
            Ok(success) => {
                line.pair("outcome", "ok");
                line.pair("exit", 0);
                line.releases(success);
            }
            Err(error) => {
                line.pair("outcome", "failed");
                line.error(error);
            }
        }
        line.request(self.session);
        line.client(self.session);
        line.pair("ms", took.as_millis());
        if let Ok(Success::Received(received)) = result {
            line.sizes(received);
        }
        line.optional("sandbox", sandbox);
        if let Ok(success) = result {
            line.rest_of_success(success);
        }
        line.certificate(self.session);
        let level = match result {
            Ok(success) if success.warnings().is_empty() => Level::Info,
            _ => Level::Warning,
        };
        self.send(level, "result", line)
    }

    /// Records an event of a request that still runs.
    ///
    /// # Errors
    ///
    /// [`Code::AuditUnreachable`] if syslog did not take the line.
    pub fn event(&self, event: &AuditEvent<'_>) -> Result<()> {
        match event {
            AuditEvent::StepEnded {
                step,
                release,
                what,
                exit,
                failed,
                ended_processes,
                output,
                took,
            } => {
                let name = if step.is_hook() { "hook" } else { "gate" };
                let mut line = self.line(name);
                line.pair("step", step);
                line.pair("release", release);
                let (outcome, level) = match failed {
                    None => ("ok", Level::Info),
                    Some(_) => ("failed", Level::Warning),
                };
                line.pair("outcome", outcome);
                line.optional("exit", *exit);
                line.pair("what", what);
                line.optional("why", *failed);
                let ended = (*ended_processes > 0).then_some(*ended_processes);
                line.optional("ended_processes", ended);
                line.client(self.session);
                line.pair("ms", took.as_millis());
                line.certificate(self.session);
                line.tail("output", output, MAX_OUTPUT);
                self.send(level, name, line)
            }
            AuditEvent::Dropped {
                release,
                uid,
                state,
                received_from,
                removed,
            } => {
                let mut line = self.line("drop");
                line.pair("release", release);
                let (outcome, level) = outcome_of_operator(*removed);
                line.pair("outcome", outcome);
                line.pair("state", state.name());
                line.pair("uid", uid);
                line.optional("received_from", *received_from);
                self.send(level, "drop", line)
            }
            AuditEvent::Adopted {
                live,
                uid,
                releases,
                from,
                done,
            } => {
                let mut line = self.line("adopt");
                line.pair("release", live);
                let (outcome, level) = outcome_of_operator(*done);
                line.pair("outcome", outcome);
                line.pair("from", from);
                line.pair("releases", releases);
                line.pair("uid", uid);
                self.send(level, "adopt", line)
            }
            AuditEvent::FailedAfterCommit {
                failed,
                live,
                as_good_as_before,
            } => {
                let mut line = self.line("return");
                line.pair("release", failed);
                line.pair("live", live.map_or("-", ReleaseId::as_str));
                line.pair("outcome", if *as_good_as_before { "ok" } else { "failed" });
                line.client(self.session);
                line.certificate(self.session);
                self.send(Level::Warning, "return", line)
            }
            AuditEvent::Changed(notice) => {
                let Notice { record, found } = notice;
                let (name, change) = match record.event {
                    Event::Pruned => ("pruned", None),
                    event => ("recovered", Some(event)),
                };
                let mut line = self.line(name);
                line.optional("change", change);
                line.pair(
                    "release",
                    record.release.as_ref().map_or("-", ReleaseId::as_str),
                );
                line.optional("previous", record.previous.as_ref());
                line.optional("by", record.key.as_ref().filter(|_| found.is_some()));
                line.optional("found", *found);
                line.client(self.session);
                line.certificate(self.session);
                let level = match found {
                    None => Level::Info,
                    Some(_) => Level::Warning,
                };
                self.send(level, name, line)
            }
        }
    }

    /// Returns a line with the first pairs of every event.
    fn line(&self, event: &str) -> Line {
        let mut line = Line::default();
        line.pair("event", event);
        line.optional("site", self.site);
        line.optional("key", self.session.key.as_ref());
        line
    }

    fn send(&self, level: Level, message_id: &'static str, line: Line) -> Result<()> {
        let timeout = if self.required {
            SEND_TIMEOUT
        } else {
            Duration::ZERO
        };
        let sent = self.syslog.send(level, message_id, &line.text(), timeout);
        sent.map_err(|error| {
            Error::new(
                Code::AuditUnreachable,
                format!(
                    "cannot write the audit to '{}': {}",
                    self.syslog.socket().display(),
                    describe(&error)
                ),
            )
            .remedy("start the syslog daemon, or try again when it is back")
        })
    }
}

/// Returns the log of what the request of `session` does or finds before the journal has
/// it. A site that does not require the audit log goes on without a line: the result has
/// the same problem, or the log is back.
pub fn notices(config: &Config, session: &Session) -> NoticeLog {
    let (audit, site) = (config.audit.clone(), config.site().clone());
    let session = session.clone();
    NoticeLog::new(move |notice| {
        let log = AuditLog::new(&audit, Some(&site), &session);
        match log.event(&AuditEvent::Changed(notice)) {
            Err(error) if log.required() => Err(error),
            _ => Ok(()),
        }
    })
}

/// Returns the log of what the operator's program finds before the journal has it.
pub fn notices_of_operator(config: &Config) -> NoticeLog {
    notices(config, &NO_SESSION)
}

/// The operator's program has no session.
const NO_SESSION: Session = Session {
    key: None,
    login: None,
    client: None,
    command: None,
};

/// Connects to the audit socket as a line does, and sends nothing.
///
/// # Errors
///
/// Those of socket(2) and connect(2), and [`std::io::ErrorKind::WouldBlock`] where nobody
/// accepts.
pub fn connect(config: &Config) -> std::io::Result<()> {
    Syslog::connect(&config.audit.socket, SEND_TIMEOUT)
}

/// Records an event of the operator's program.
///
/// # Errors
///
/// [`Code::AuditUnreachable`] if syslog did not take the line.
pub fn record_by_operator(config: &Config, event: &AuditEvent<'_>) -> Result<()> {
    AuditLog::new(&config.audit, Some(config.site()), &NO_SESSION).event(event)
}

/// Returns the outcome of a change by the operator's program; none before the change.
fn outcome_of_operator(done: Option<bool>) -> (&'static str, Level) {
    match done {
        None => ("begins", Level::Warning),
        Some(true) => ("ok", Level::Info),
        Some(false) => ("failed", Level::Warning),
    }
}

impl Line {
    /// Adds who asked, as sshd knows it.
    fn client(&mut self, session: &Session) {
        match &session.login {
            None => {}
            Some(LoginKey::Plain(fingerprint)) => self.pair("fingerprint", fingerprint),
            Some(LoginKey::Certified(certificate)) => {
                self.pair("fingerprint", certificate.fingerprint);
            }
            Some(LoginKey::Gone) => self.pair("fingerprint", "gone"),
            Some(LoginKey::Unreadable) => self.pair("fingerprint", "unreadable"),
        }
        self.optional("client", session.client);
    }

    /// Adds the certificate of the login, if it was one.
    fn certificate(&mut self, session: &Session) {
        if let Some(LoginKey::Certified(certificate)) = &session.login {
            self.bytes("key_id", &certificate.key_id, MAX_KEY_ID);
            self.pair("serial", certificate.serial);
        }
    }

    fn request(&mut self, session: &Session) {
        let request = session.command.as_deref().unwrap_or_default();
        self.bytes("request", request, MAX_REQUEST);
    }

    /// Adds the releases of a success.
    fn releases(&mut self, success: &Success) {
        match success {
            Success::Received(received) => self.pair("release", &received.release),
            Success::Activated(activated) => {
                self.pair("release", &activated.release);
                self.optional("previous", activated.previous.as_ref());
                self.optional("pruned", activated.pruned_ids());
            }
            Success::Listed(_) => {}
            Success::TreeList(list) => self.pair("release", &list.release),
        }
    }

    fn sizes(&mut self, received: &Received) {
        let upload = received.upload.as_ref();
        self.optional("payload", upload.map(|upload| upload.payload_bytes));
        self.pair("bytes", received.sums.bytes);
        self.pair("files", received.sums.files);
    }

    fn rest_of_success(&mut self, success: &Success) {
        match success {
            Success::Received(received) => {
                let upload = received.upload.as_ref();
                self.optional("commit", upload.and_then(|upload| upload.commit.as_ref()));
                self.optional("tree", received.tree);
                self.optional("unpacker", upload.map(|upload| &upload.unpacker));
                self.signed_by(received.signed.as_ref());
            }
            Success::Activated(activated) => self.signed_by(activated.signed.as_ref()),
            Success::Listed(_) | Success::TreeList(_) => {}
        }
        let warnings = success.warnings();
        if !warnings.is_empty() {
            self.pair("warning", warnings.join("; "));
        }
    }

    fn signed_by(&mut self, signed: Option<&Signed>) {
        if let Some(signed) = signed {
            let fingerprints = signed.to_string();
            self.bytes("signed_by", fingerprints.as_bytes(), MAX_SIGNED_BY);
        }
    }

    fn error(&mut self, error: &Error) {
        let (name, exit) = error.code.parts();
        self.pair("exit", exit);
        self.pair("code", name);
        self.pair("problem", &error.problem);
    }
}
