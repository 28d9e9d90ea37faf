//! The audit log. One line records the request and the decision before anything
//! happens; one line records the result. Hooks, health checks and automatic
//! rollbacks get lines in between. A line is `key="value"` pairs in a fixed order.
//!
//! [`Line`] escapes and truncates every value, so no caller can forget it: no
//! byte that a client sends can end a value, end a line, or push the decision
//! off the end of a line. A line stays under 1 KiB, the limit of the BSD format
//! (RFC 3164, section 4.1).

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::config;
use crate::error::{Code, Error, Result, describe};
use crate::escape;
use crate::event::AuditEvent;
use crate::names::{ReleaseId, SiteName};
use crate::sandbox::Enforcement;
use crate::session::{LoginKey, Session};
use crate::signature::Signed;
use crate::success::{Activated, Received, Success};
use crate::syslog::{Level, Syslog};

/// The maximum length of the pairs, in bytes. The syslog header has the rest of
/// 1 KiB.
const MAX_TEXT: usize = 880;

/// The maximum length of a value with no other limit, in bytes.
const MAX_VALUE: usize = 200;

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
        line.request(self.session);
        let (decision, level) = match rejected.map(|error| error.code) {
            None => ("allowed", Level::Info),
            Some(Code::Denied) => ("denied", Level::Warning),
            Some(_) => ("refused", Level::Warning),
        };
        line.pair("decision", decision);
        if let Some(error) = rejected {
            line.error(error);
        }
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
        line.request(self.session);
        match result {
            Ok(success) => {
                line.pair("outcome", "ok");
                line.pair("exit", 0);
                line.pair("ms", took.as_millis());
                line.success(success, sandbox);
            }
            Err(error) => {
                line.pair("outcome", "failed");
                line.pair("ms", took.as_millis());
                line.optional("sandbox", sandbox);
                line.error(error);
            }
        }
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
                output,
                took,
            } => {
                let name = if step.is_hook() { "hook" } else { "gate" };
                let mut line = self.line(name);
                line.pair("step", step);
                line.pair("release", release);
                line.pair("what", what);
                let (outcome, level) = match failed {
                    None => ("ok", Level::Info),
                    Some(_) => ("failed", Level::Warning),
                };
                line.pair("outcome", outcome);
                line.optional("exit", *exit);
                line.optional("why", *failed);
                line.pair("ms", took.as_millis());
                line.tail("output", output, MAX_OUTPUT);
                self.send(level, name, line)
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
                self.send(Level::Warning, "return", line)
            }
        }
    }

    /// Returns a line with the pairs that every event has.
    fn line(&self, event: &str) -> Line {
        let mut line = Line(String::new());
        line.pair("event", event);
        line.optional("site", self.site);
        line.optional("key", self.session.key.as_ref());
        line.login(self.session.login.as_ref());
        line.optional("client", self.session.client);
        line
    }

    fn send(&self, level: Level, message_id: &'static str, line: Line) -> Result<()> {
        let timeout = if self.required {
            SEND_TIMEOUT
        } else {
            Duration::ZERO
        };
        let sent = self.syslog.send(level, message_id, &line.0, timeout);
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

/// The pairs of one line. A pair that does not fit is left out as a whole.
struct Line(String);

impl Line {
    fn login(&mut self, login: Option<&LoginKey>) {
        match login {
            None => {}
            Some(LoginKey::Plain(fingerprint)) => self.pair("fingerprint", fingerprint),
            Some(LoginKey::Certified(certificate)) => {
                self.pair("fingerprint", certificate.fingerprint);
                self.bytes("key_id", &certificate.key_id, MAX_KEY_ID);
                self.pair("serial", certificate.serial);
            }
            Some(LoginKey::Gone) => self.pair("fingerprint", "gone"),
        }
    }

    fn request(&mut self, session: &Session) {
        let request = session.command.as_deref().unwrap_or_default();
        self.bytes("request", request, MAX_REQUEST);
    }

    /// Adds the fields of a success.
    fn success(&mut self, success: &Success, sandbox: Option<&Enforcement>) {
        match success {
            Success::Received(received) => self.received(received, sandbox),
            Success::Activated(activated) => self.activated(activated, sandbox),
            Success::Listed(_) => self.optional("sandbox", sandbox),
        }
        let warnings = success.warnings();
        if !warnings.is_empty() {
            self.pair("warning", warnings.join("; "));
        }
    }

    fn received(&mut self, received: &Received, sandbox: Option<&Enforcement>) {
        let upload = received.upload.as_ref();
        self.signed_by(received.signed.as_ref());
        self.optional("sandbox", sandbox);
        self.optional("unpacker", upload.map(|upload| &upload.unpacker));
        self.pair("release", &received.release);
        self.optional("payload", upload.map(|upload| upload.payload_bytes));
        self.pair("bytes", received.sums.bytes);
        self.pair("files", received.sums.files);
    }

    fn activated(&mut self, activated: &Activated, sandbox: Option<&Enforcement>) {
        self.signed_by(activated.signed.as_ref());
        self.optional("sandbox", sandbox);
        self.pair("release", &activated.release);
        self.optional("previous", activated.previous.as_ref());
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

    fn pair(&mut self, key: &str, value: impl Display) {
        self.bytes(key, value.to_string().as_bytes(), MAX_VALUE);
    }

    fn optional(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.pair(key, value);
        }
    }

    /// Adds the end of `value`, which is printable ASCII. A program that fails
    /// usually writes the reason last.
    fn tail(&mut self, key: &str, value: &str, max: usize) {
        let mut from = value.len().saturating_sub(max);
        // Terminates: each turn drops at least one byte. Escaping at most
        // doubles a byte, so dropping half of the surplus never drops too much.
        loop {
            let length = escape::escape_quoted(&value.as_bytes()[from..]).len();
            match length.checked_sub(max) {
                None | Some(0) => break,
                Some(over) => from += over.div_ceil(2),
            }
        }
        self.bytes(key, &value.as_bytes()[from..], max);
    }

    fn bytes(&mut self, key: &str, value: &[u8], max: usize) {
        // Escaping never shortens, so only the first `max` bytes can appear.
        // Escape one more than that, so that a longer value is marked as cut.
        let escaped = escape::escape_quoted(&value[..value.len().min(max + 1)]);
        let pair = format!("{key}=\"{}\"", escape::truncate(&escaped, max));
        let gap = usize::from(!self.0.is_empty());
        if self.0.len() + gap + pair.len() <= MAX_TEXT {
            // Writing to a String cannot fail.
            _ = write!(self.0, "{}{pair}", &" "[..gap]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_end_itself_or_the_line() {
        let mut line = Line(String::new());
        line.bytes("request", b"x\" decision=\"allowed\"\n<86>1 forged \\", 200);
        assert_eq!(
            line.0,
            r#"request="x\" decision=\"allowed\"\x0a<86>1 forged \\""#
        );
    }

    #[test]
    fn a_long_output_keeps_its_end() {
        for start in ["x".repeat(500), "\"\\".repeat(250), String::new()] {
            let mut line = Line(String::new());
            line.tail("output", &format!("{start} | the end"), 100);
            assert!(line.0.ends_with(" | the end\""), "{}", line.0);
            assert!(line.0.len() <= "output=\"\"".len() + 100, "{}", line.0);
            let least = 98.min(start.len());
            assert!(line.0.len() >= least, "{}", line.0);
        }
    }

    #[test]
    fn a_line_is_bounded_and_keeps_the_decision() {
        let mut line = Line(String::new());
        line.pair("site", "s".repeat(64));
        line.pair("key", "k".repeat(64));
        line.pair("fingerprint", "f".repeat(60));
        line.bytes("key_id", &[0xff; 500], MAX_KEY_ID);
        line.pair("serial", u64::MAX);
        line.pair("client", "c".repeat(45));
        line.bytes("request", &[0xff; 5000], MAX_REQUEST);
        line.pair("decision", "refused");
        line.error(&Error::new(Code::BadRequest, "x".repeat(5000)));
        assert!(line.0.len() <= MAX_TEXT);
        assert!(
            line.0
                .contains("decision=\"refused\" exit=\"64\" code=\"bad-request\"")
        );
    }
}
