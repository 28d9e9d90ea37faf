//! The URLs that a health check may use.

use serde::{Deserialize, Serialize};

/// The maximum length of a URL, in bytes.
pub const MAX_URL: usize = 1024;

/// A checked URL: `http://HOST[:PORT][/PATH]`, printable ASCII.
///
/// TLS and credentials are not supported: the service that vouches for a release
/// runs on the same machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpUrl(String);

impl HttpUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `HOST` or `HOST:PORT`, as the URL spells it.
    pub fn authority(&self) -> &str {
        let rest = &self.0["http://".len()..];
        rest.split(['/', '?']).next().unwrap_or_default()
    }

    /// Returns the host (a name, an IPv4 address, or an IPv6 address without
    /// brackets) and the port; none if they are not valid.
    fn host_and_port(&self) -> Option<(&str, u16)> {
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
        let valid = if authority.starts_with('[') {
            host.parse::<std::net::Ipv6Addr>().is_ok()
        } else {
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
            !host.is_empty() && host.chars().all(allowed)
        };
        valid.then_some((host, port))
    }

    /// Returns the request target: path and query (RFC 9112, section 3.2.1).
    pub fn target(&self) -> String {
        let rest = &self.0["http://".len() + self.authority().len()..];
        if rest.starts_with('/') {
            rest.to_owned()
        } else {
            format!("/{rest}")
        }
    }

    /// Returns the host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host_and_port().map_or("", |(host, _)| host)
    }

    pub fn port(&self) -> u16 {
        self.host_and_port().map_or(80, |(_, port)| port)
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
        match url.host_and_port() {
            Some(_) => Ok(url),
            None => wrong("write http://HOST:PORT/PATH"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_port() {
        for (text, host, port) in [
            ("http://127.0.0.1:8080/health", "127.0.0.1", 8080),
            ("http://localhost", "localhost", 80),
            ("http://[::1]:9000/x?y=1", "::1", 9000),
            ("http://app?x", "app", 80),
        ] {
            let url = HttpUrl::try_from(text.to_owned()).unwrap();
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn an_invalid_url_is_refused() {
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
