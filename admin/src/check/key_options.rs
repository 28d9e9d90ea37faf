//! Parses the options before a key as sshd does (sshd(8), "AUTHORIZED_KEYS FILE
//! FORMAT"). In that grammar the order counts and case does not.

use deploy_shell::signature::parse_quoted;

/// The effect of all options of a key together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOptions {
    pub restrict: bool,
    pub port_forwarding: bool,
    pub agent_forwarding: bool,
    pub x11_forwarding: bool,
    pub pty: bool,
    pub user_rc: bool,
    pub touch_required: bool,
    pub cert_authority: bool,
    pub command: Option<String>,
    pub from: Option<String>,
    pub expiry: Option<String>,
    pub tunnel: Option<String>,
    pub environment: Vec<String>,
    pub permit_open: Vec<String>,
    pub permit_listen: Vec<String>,
}

impl Default for KeyOptions {
    /// Returns what sshd grants a key without options.
    fn default() -> Self {
        KeyOptions {
            restrict: false,
            port_forwarding: true,
            agent_forwarding: true,
            x11_forwarding: true,
            pty: true,
            user_rc: true,
            touch_required: true,
            cert_authority: false,
            command: None,
            from: None,
            expiry: None,
            tunnel: None,
            environment: Vec::new(),
            permit_open: Vec::new(),
            permit_listen: Vec::new(),
        }
    }
}

/// Returns where the options end: at the first space or tab outside of quotes.
pub fn options_end(line: &str) -> Result<usize, &'static str> {
    let bytes = line.as_bytes();
    let (mut at, mut quoted) = (0, false);
    // Terminates: `at` grows in each turn.
    while let Some(byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' if !quoted => break,
            b'\\' if bytes.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => quoted = !quoted,
            _ => {}
        }
        at += 1;
    }
    if quoted {
        return Err("has a quote without its end");
    }
    Ok(at)
}

impl KeyOptions {
    /// Parses a list of options. A later option overrides an earlier one, so
    /// `restrict,pty` grants a terminal and `pty,restrict` does not. sshd ignores
    /// an empty option.
    pub fn parse_list(text: &str) -> Result<KeyOptions, &'static str> {
        let mut options = KeyOptions::default();
        let mut rest = text;
        // Terminates: each turn removes an option or a comma from `rest`.
        loop {
            rest = options.apply_option(rest)?;
            match rest.strip_prefix(',') {
                _ if rest.is_empty() => return Ok(options),
                None => return Err("has an option that is not known"),
                Some(more) => rest = more,
            }
        }
    }

    /// Applies the first option of `text`, and returns what follows it.
    fn apply_option<'a>(&mut self, text: &'a str) -> Result<&'a str, &'static str> {
        if text.is_empty() || text.starts_with(',') {
            return Ok(text);
        }
        if let Some(rest) = strip_name(text, "restrict") {
            self.restrict = true;
            for flag in self.flags() {
                *flag.1 = false;
            }
            return Ok(rest);
        }
        if let Some(rest) = strip_name(text, "cert-authority") {
            self.cert_authority = true;
            return Ok(rest);
        }
        let (bare, on) = match strip_name(text, "no-") {
            Some(bare) => (bare, false),
            None => (text, true),
        };
        for (name, flag) in self.flags() {
            if let Some(rest) = strip_name(bare, name) {
                *flag = on;
                return Ok(rest);
            }
        }
        if let Some(rest) = strip_name(bare, "touch-required") {
            self.touch_required = on;
            return Ok(rest);
        }
        if let Some(rest) = strip_name(bare, "verify-required") {
            return Ok(rest);
        }
        self.apply_option_with_value(text)
    }

    fn flags(&mut self) -> [(&'static str, &mut bool); 5] {
        [
            ("port-forwarding", &mut self.port_forwarding),
            ("agent-forwarding", &mut self.agent_forwarding),
            ("x11-forwarding", &mut self.x11_forwarding),
            ("pty", &mut self.pty),
            ("user-rc", &mut self.user_rc),
        ]
    }

    fn apply_option_with_value<'a>(&mut self, text: &'a str) -> Result<&'a str, &'static str> {
        let valued = |name: &str| strip_name(text, name).and_then(|rest| rest.strip_prefix('='));
        // sshd uses principals= for certificates only.
        let mut principals = None;
        for (name, once) in [
            ("command", &mut self.command),
            ("from", &mut self.from),
            ("expiry-time", &mut self.expiry),
            ("principals", &mut principals),
        ] {
            if let Some(rest) = valued(name) {
                let (value, rest) = unquote(rest)?;
                if once.replace(value).is_some() {
                    return Err("repeats an option that sshd accepts once");
                }
                return Ok(rest);
            }
        }
        for (name, many) in [
            ("environment", &mut self.environment),
            ("permitopen", &mut self.permit_open),
            ("permitlisten", &mut self.permit_listen),
        ] {
            if let Some(rest) = valued(name) {
                let (value, rest) = unquote(rest)?;
                many.push(value);
                return Ok(rest);
            }
        }
        if let Some(rest) = valued("tunnel") {
            let (value, rest) = unquote(rest)?;
            self.tunnel = Some(value);
            return Ok(rest);
        }
        Err("has an option that is not known")
    }
}

/// Returns what follows `name`, in any case, at the start of `text`.
fn strip_name<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.get(..name.len())?;
    start
        .eq_ignore_ascii_case(name)
        .then(|| &text[name.len()..])
}

/// Splits a value in double quotes from the text after it.
fn unquote(text: &str) -> Result<(String, &str), &'static str> {
    let text = text.strip_prefix('"').ok_or("has a value without quotes")?;
    parse_quoted(text).ok_or("has a quote without its end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<KeyOptions, &'static str> {
        assert_eq!(options_end(&format!("{text} KEY"))?, text.len());
        KeyOptions::parse_list(text)
    }

    #[test]
    fn later_options_override_earlier_ones() {
        let off = options("restrict").unwrap();
        assert!(off.restrict && !off.pty && !off.port_forwarding && !off.user_rc);
        assert!(options("RESTRICT,Pty").unwrap().pty);
        assert!(!options("pty,restrict").unwrap().pty);
        let some = options("no-pty,no-X11-forwarding").unwrap();
        assert!(!some.pty && !some.x11_forwarding && some.agent_forwarding && !some.restrict);
        for odd in ["restrict,", ",restrict", ",,restrict,,no-pty"] {
            assert_eq!(options(odd).unwrap(), off, "{odd}");
        }
        assert!(!options("no-touch-required").unwrap().touch_required);
        assert!(
            options("cert-authority,principals=\"a,b\"")
                .unwrap()
                .cert_authority
        );
    }

    #[test]
    fn values_are_unquoted_as_sshd_does() {
        let read = options(r#"restrict,command="a \"b c\" \d,e",from="192.0.2.0/24""#).unwrap();
        assert_eq!(read.command.as_deref(), Some(r#"a "b c" \d,e"#));
        assert_eq!(read.from.as_deref(), Some("192.0.2.0/24"));
        let read = options(
            r#"environment="A=1",environment="B=2",permitopen="h:1",permitlisten="2",tunnel="0""#,
        )
        .unwrap();
        assert_eq!(read.environment, ["A=1", "B=2"]);
        assert_eq!((read.permit_open.len(), read.permit_listen.len()), (1, 1));
        assert_eq!(read.tunnel.as_deref(), Some("0"));
        assert_eq!(
            options("command=\"\"").unwrap().command.as_deref(),
            Some("")
        );
    }

    #[test]
    fn options_that_sshd_refuses_are_refused() {
        for bad in [
            "restricted",
            "restrict;pty",
            "command=x",
            "command=\"x",
            "command=\"x\"y",
            "command=\"x\",command=\"y\"",
            "no-restrict",
            "no-command=\"x\"",
            "unknown",
            "é",
        ] {
            assert!(options(bad).is_err(), "{bad}");
        }
    }
}
