//! What the operator has the program do around a swap: argv arrays, and the
//! addresses that are asked for a release's health.

use std::path::{Component, Path};

use serde::Deserialize;

/// The maximum number of arguments, and of bytes in one.
const MAX_ARGUMENTS: usize = 64;
const MAX_ARGUMENT: usize = 4096;

/// The longest address, in bytes.
const MAX_URL: usize = 1024;

/// A program by its absolute path, and its arguments. No shell reads them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Argv(Vec<String>);

impl Argv {
    pub fn program(&self) -> &Path {
        Path::new(&self.0[0])
    }

    pub fn arguments(&self) -> &[String] {
        &self.0[1..]
    }
}

impl TryFrom<Vec<String>> for Argv {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        let Some(program) = words.first() else {
            return Err("a command needs a program".to_owned());
        };
        // Not looked up in PATH: the program that runs is the one that the
        // operator has named.
        let path = Path::new(program);
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Err(format!("the program '{program}' is not an absolute path"));
        }
        if words.len() > MAX_ARGUMENTS || words.iter().any(|word| word.len() > MAX_ARGUMENT) {
            return Err(format!("the command of '{program}' is too long"));
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err(format!("the command of '{program}' has a zero byte"));
        }
        Ok(Argv(words))
    }
}

/// An address that is asked by HTTP: `http://HOST[:PORT][/PATH]`.
///
/// No TLS and no credentials: what vouches for a release runs beside it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpUrl(String);

impl HttpUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `HOST` or `HOST:PORT`, as it is written.
    pub fn authority(&self) -> &str {
        let rest = &self.0["http://".len()..];
        rest.split(['/', '?']).next().unwrap_or_default()
    }

    /// A name, an IPv4 address, or an IPv6 address without its brackets; and the port.
    fn parts(&self) -> Option<(&str, u16)> {
        let authority = self.authority();
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => match authority.find(':') {
                Some(at) => authority.split_at(at),
                None => (authority, ""),
            },
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => 80,
            None => return None,
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        };
        let bracketed = authority.starts_with('[');
        let sound = match bracketed {
            true => host.parse::<std::net::Ipv6Addr>().is_ok(),
            false => {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
                !host.is_empty() && host.chars().all(plain)
            }
        };
        sound.then_some((host, port))
    }

    /// What is asked for there: path and query (RFC 9112, 3.2.1).
    pub fn target(&self) -> String {
        let rest = &self.0["http://".len() + self.authority().len()..];
        match rest.starts_with('/') {
            true => rest.to_owned(),
            false => format!("/{rest}"),
        }
    }

    /// Without its brackets, where it is an IPv6 address.
    pub fn host(&self) -> &str {
        self.parts().map_or("", |(host, _)| host)
    }

    pub fn port(&self) -> u16 {
        self.parts().map_or(80, |(_, port)| port)
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("'{text}' is not an http address: {why}"));
        if text.starts_with("https://") {
            return wrong("there is no TLS here; ask the service itself, on its own port");
        }
        if !text.starts_with("http://") {
            return wrong("write http://HOST:PORT/PATH");
        }
        if text.len() > MAX_URL || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("it is too long, or not printable ASCII");
        }
        if text.contains('#') {
            return wrong("it has a fragment");
        }
        let url = HttpUrl(text.clone());
        match url.parts() {
            Some(_) => Ok(url),
            None => wrong("write http://HOST:PORT/PATH"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_needs_an_absolute_path() {
        let argv = |words: &[&str]| {
            Argv::try_from(words.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let good = argv(&["/usr/bin/php", "artisan", "migrate"]).unwrap();
        assert_eq!(good.program(), Path::new("/usr/bin/php"));
        assert_eq!(good.arguments(), ["artisan", "migrate"]);
        for bad in [
            &[][..],
            &["php"],
            &["./php"],
            &["/srv/../bin/php"],
            &["/bin/x", "a\0b"],
        ] {
            assert!(argv(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (text, host, port) in [
            ("http://127.0.0.1:8080/health", "127.0.0.1", 8080),
            ("http://localhost", "localhost", 80),
            ("http://[::1]:9000/x?y=1", "::1", 9000),
            ("http://app?x", "app", 80),
        ] {
            let url = HttpUrl::try_from(text.to_owned()).unwrap();
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
        }
        for bad in [
            "https://127.0.0.1/",
            "ftp://x/",
            "http://",
            "http:///x",
            "http://user@host/",
            "http://host:0/",
            "http://host:99999/",
            "http://ho st/",
            "http://::1/",
            "http://[::1/",
            "http://[x]/",
            "http://host/#x",
            "http://host/\u{e9}",
        ] {
            assert!(HttpUrl::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
