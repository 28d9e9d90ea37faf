//! The record: what was asked and the verdict, before anything happens; what
//! came of it, after. `key="value"` pairs in a fixed order, one line each.
//!
//! Escaping and bounding happen in [`Line`], in the sink, so that no call site
//! can forget them: whatever a client sends, it can neither end a value, nor a
//! line, nor push the verdict off its end. A line stays under 1 KiB, the least
//! that every receiver must take (RFC 5424, section 6.1, asks 2,048 of most).

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::config;
use crate::error::{Code, Error};
use crate::escape;
use crate::event::{Success, Told};
use crate::names::{ReleaseId, SiteName};
use crate::sandbox::Enforcement;
use crate::session::Session;
use crate::syslog::{Severity, Syslog};

/// The greatest length of the pairs, in bytes; the header has the rest of 1 KiB.
const MAX_TEXT: usize = 880;

/// The greatest length of the request as quoted in a line, in bytes.
const MAX_REQUEST: usize = 360;

/// The greatest length of what is quoted of a command's output, in bytes.
const MAX_OUTPUT: usize = 360;

/// The greatest length of the signers' fingerprints in a line, in bytes: four.
const MAX_SIGNED_BY: usize = 210;

/// How long one line may take to hand over, all tries together, where the
/// record is required. A daemon that is being restarted is back within that.
const PATIENCE: Duration = Duration::from_secs(2);

/// One request's way into the record.
pub struct Audit<'a> {
    syslog: Syslog,
    required: bool,
    site: Option<&'a SiteName>,
    session: &'a Session,
}

impl<'a> Audit<'a> {
    pub fn new(config: &config::Audit, site: Option<&'a SiteName>, session: &'a Session) -> Self {
        Audit {
            syslog: Syslog::new(&config.socket, config.facility),
            required: config.required,
            site,
            session,
        }
    }

    /// Whether nothing may change without a record.
    pub fn required(&self) -> bool {
        self.required
    }

    /// Records what was asked and the verdict: allowed, or why not.
    ///
    /// Errors: [`Code::AuditUnreachable`] when the line could not be handed over.
    pub fn request(&self, refused: Option<&Error>) -> Result<(), Error> {
        let mut line = self.line("request");
        let asked = self.session.command.as_deref();
        line.bytes("request", asked.unwrap_or_default(), MAX_REQUEST);
        let (decision, severity) = match refused.map(|error| error.code) {
            None => ("allowed", Severity::Info),
            Some(Code::Denied) => ("denied", Severity::Warning),
            Some(_) => ("refused", Severity::Warning),
        };
        line.pair("decision", decision);
        if let Some(error) = refused {
            line.error(error);
        }
        self.send(severity, "request", line)
    }

    /// Records what came of it.
    ///
    /// `sandbox` is what confined this process, as far as it came to that.
    pub fn result(
        &self,
        result: Result<&Success, &Error>,
        sandbox: Option<&Enforcement>,
        took: Duration,
    ) -> Result<(), Error> {
        let mut line = self.line("result");
        let asked = self.session.command.as_deref().unwrap_or_default();
        line.bytes("request", asked, MAX_REQUEST);
        match result {
            Ok(success) => {
                line.pair("outcome", "ok");
                line.pair("exit", 0);
                line.pair("ms", took.as_millis());
                if let Some(signed) = &success.signed {
                    let by = signed.to_string();
                    line.bytes("signed_by", by.as_bytes(), MAX_SIGNED_BY);
                }
                line.maybe("sandbox", sandbox);
                line.maybe("unpacker", success.unpacker.as_ref());
                line.maybe("release", success.release.as_ref());
                line.maybe("previous", success.previous.as_ref());
                line.maybe("payload", success.payload_bytes);
                line.maybe("bytes", success.bytes);
                line.maybe("files", success.files);
                if !success.warnings.is_empty() {
                    line.pair("warning", success.warnings.join("; "));
                }
            }
            Err(error) => {
                line.pair("outcome", "failed");
                line.pair("ms", took.as_millis());
                line.maybe("sandbox", sandbox);
                line.error(error);
            }
        }
        let severity = match result {
            Ok(success) if success.warnings.is_empty() => Severity::Info,
            _ => Severity::Warning,
        };
        self.send(severity, "result", line)
    }

    /// Records a hook, a smoke test or a health gate that is over, with the end
    /// of its output; and the way back.
    ///
    /// Errors: [`Code::AuditUnreachable`].
    pub fn told(&self, told: &Told<'_>) -> Result<(), Error> {
        let Told::Ended {
            step,
            release,
            what,
            exit,
            failed,
            output,
            took,
        } = told
        else {
            return self.returned(told);
        };
        let event = if step.is_hook() { "hook" } else { "gate" };
        let mut line = self.line(event);
        line.pair("step", step);
        line.pair("release", release);
        line.pair("what", what);
        let (outcome, severity) = match failed {
            None => ("ok", Severity::Info),
            Some(_) => ("failed", Severity::Warning),
        };
        line.pair("outcome", outcome);
        line.maybe("exit", *exit);
        line.maybe("why", *failed);
        line.pair("ms", took.as_millis());
        line.end("output", output, MAX_OUTPUT);
        self.send(severity, event, line)
    }

    fn returned(&self, told: &Told<'_>) -> Result<(), Error> {
        let Told::Returned { left, live, passed } = told else {
            return Ok(());
        };
        let mut line = self.line("return");
        line.pair("release", left);
        line.pair("live", live.map_or("-", ReleaseId::as_str));
        line.pair("outcome", if *passed { "ok" } else { "failed" });
        self.send(Severity::Warning, "return", line)
    }

    fn line(&self, event: &str) -> Line {
        let mut line = Line(String::new());
        line.pair("event", event);
        line.maybe("site", self.site);
        line.maybe("key", self.session.key.as_ref());
        line.maybe("fingerprint", self.session.fingerprint.as_ref());
        line.maybe("client", self.session.client);
        line
    }

    fn send(&self, severity: Severity, id: &'static str, line: Line) -> Result<(), Error> {
        let patience = match self.required {
            true => PATIENCE,
            false => Duration::ZERO,
        };
        let sent = self.syslog.send(severity, id, &line.0, patience);
        sent.map_err(|error| {
            Error::new(
                Code::AuditUnreachable,
                format!(
                    "cannot write the audit to '{}': {}",
                    self.syslog.socket().display(),
                    crate::error::describe(&error)
                ),
            )
            .remedy("start the syslog daemon, or try again when it is back")
        })
    }
}

/// The pairs of one line; what does not fit any more is left out, whole.
struct Line(String);

impl Line {
    fn pair(&mut self, key: &str, value: impl Display) {
        self.bytes(key, value.to_string().as_bytes(), 200);
    }

    fn maybe(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.pair(key, value);
        }
    }

    fn error(&mut self, error: &Error) {
        self.pair("exit", error.code.exit());
        self.pair("code", error.code.word());
        self.pair("problem", &error.problem);
    }

    /// The end of `value`, which is printable ASCII: a program says last why it
    /// failed.
    fn end(&mut self, key: &str, value: &str, max: usize) {
        let mut from = value.len().saturating_sub(max);
        // Ends: each turn leaves a byte out. Escaping makes two of one at most,
        // so with half of what is over, no more goes than must.
        loop {
            let length = escape::quoted(&value.as_bytes()[from..]).len();
            match length.checked_sub(max) {
                None | Some(0) => break,
                Some(over) => from += over.div_ceil(2),
            }
        }
        self.bytes(key, &value.as_bytes()[from..], max);
    }

    fn bytes(&mut self, key: &str, value: &[u8], max: usize) {
        // Escaping makes no byte less than one, so no more than `max` bytes of
        // the value can count; the rest is not even looked at.
        let escaped = escape::quoted(&value[..value.len().min(max + 1)]);
        let pair = format!("{key}=\"{}\"", escape::bounded(&escaped, max));
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
    fn of_an_output_the_end_is_kept() {
        for start in ["x".repeat(500), "\"\\".repeat(250), String::new()] {
            let mut line = Line(String::new());
            line.end("output", &format!("{start} | the end"), 100);
            assert!(line.0.ends_with(" | the end\""), "{}", line.0);
            assert!(line.0.len() <= "output=\"\"".len() + 100, "{}", line.0);
            let least = 98.min(start.len());
            assert!(line.0.len() >= least, "{}", line.0);
        }
    }

    #[test]
    fn a_line_is_bounded_and_keeps_the_verdict() {
        let mut line = Line(String::new());
        line.pair("site", "s".repeat(64));
        line.pair("key", "k".repeat(64));
        line.pair("fingerprint", "f".repeat(60));
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
