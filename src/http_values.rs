//! The values of a health check's HTTP request and response: the Host field, other
//! header fields, and the accepted statuses. Pure.
//!
//! The value of a field can be a secret. So no message of this module contains one, and
//! [`HeaderField`] shows only its name to `Debug`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::url::HttpUrl;

/// The maximum length of a [`Host`], in bytes: a name of DNS (RFC 1035, section 2.3.4) and
/// a port.
const MAX_HOST: usize = 255 + ":65535".len();

/// The maximum number of [`HeaderFields`].
const MAX_FIELDS: usize = 16;

/// The maximum length of all [`HeaderFields`] together, in bytes.
pub const MAX_FIELDS_LENGTH: usize = 4096;

/// The maximum number of [`Statuses`].
pub const MAX_STATUSES: usize = 32;

/// The fields that the operator cannot set, in lower case. The probe sends the first
/// three itself. The others change how a message is framed, or what the connection is
/// used for (RFC 9110, section 7.6.1; RFC 9112, section 6). The probe reads one
/// response to one request without a body.
const RESERVED_FIELDS: [&str; 12] = [
    "host",
    "connection",
    "accept-encoding",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "http2-settings",
];

/// The value of the Host field: `NAME` or `NAME:PORT`, as in a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Host(String);

impl Host {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = HttpUrl::try_from(format!("http://{text}/"));
        let is_host = url.is_ok_and(|url| url.authority() == text);
        if !is_host || text.len() > MAX_HOST {
            let shown = text.escape_debug();
            return Err(format!(
                "'{shown}' is not a host such as \"www.example.com\" or \"localhost:8080\""
            ));
        }
        Ok(Host(text))
    }
}

/// One header field, `NAME: VALUE` (RFC 9110, section 5).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct HeaderField(String);

impl HeaderField {
    /// Returns the field as a line of the request, without its end.
    pub fn as_line(&self) -> &str {
        &self.0
    }

    pub fn name(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

impl fmt::Debug for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderField({}: ...)", self.name())
    }
}

/// Returns whether `name` is a token (RFC 9110, section 5.6.2).
fn is_token(name: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_tchar)
}

impl TryFrom<String> for HeaderField {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // A text that is no field can still have a secret: no message shows it.
        let field = text.split_once(':').filter(|(name, _)| is_token(name));
        let Some((name, value)) = field else {
            return Err("a header is written \"NAME: VALUE\"".to_owned());
        };
        let lower = name.to_ascii_lowercase();
        if lower == "host" {
            return Err("the header 'Host' has a key of its own: host".to_owned());
        }
        if RESERVED_FIELDS.contains(&lower.as_str()) {
            return Err(format!("the header '{name}' cannot be set"));
        }
        let value = value.trim_matches(' ');
        let is_printable = |byte: u8| matches!(byte, b' '..=b'~');
        if value.is_empty() || !value.bytes().all(is_printable) {
            return Err(format!(
                "the value of the header '{name}' is empty, or not printable ASCII"
            ));
        }
        Ok(HeaderField(format!("{name}: {value}")))
    }
}

/// The header fields of a request, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<HeaderField>")]
pub struct HeaderFields(Vec<HeaderField>);

impl HeaderFields {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &HeaderField> {
        self.0.iter()
    }

    pub fn contains(&self, name: &str) -> bool {
        self.iter()
            .any(|field| field.name().eq_ignore_ascii_case(name))
    }
}

impl TryFrom<Vec<HeaderField>> for HeaderFields {
    type Error = String;

    fn try_from(fields: Vec<HeaderField>) -> Result<Self, String> {
        let length: usize = fields.iter().map(|field| field.as_line().len()).sum();
        if fields.len() > MAX_FIELDS || length > MAX_FIELDS_LENGTH {
            return Err(format!(
                "there are more than {MAX_FIELDS} headers, or they are longer than \
                 {MAX_FIELDS_LENGTH} bytes together"
            ));
        }
        let mut taken = HeaderFields::default();
        for field in fields {
            if taken.contains(field.name()) {
                return Err(format!("the header '{}' is there twice", field.name()));
            }
            taken.0.push(field);
        }
        Ok(taken)
    }
}

/// The statuses of a final response that pass, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<i64>")]
pub struct Statuses(Vec<u16>);

impl Statuses {
    pub fn accept(&self, status: u16) -> bool {
        self.0.contains(&status)
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Statuses(vec![200])
    }
}

impl TryFrom<Vec<i64>> for Statuses {
    type Error = String;

    fn try_from(numbers: Vec<i64>) -> Result<Self, String> {
        // An informational response (1xx) comes before the final one.
        let status = |number: i64| {
            let number = u16::try_from(number).ok();
            number.filter(|number| (200..=599).contains(number))
        };
        let statuses: Option<Vec<u16>> = numbers.into_iter().map(status).collect();
        match statuses {
            Some(statuses) if (1..=MAX_STATUSES).contains(&statuses.len()) => {
                Ok(Statuses(statuses))
            }
            _ => Err(format!(
                "statuses are 1 to {MAX_STATUSES} numbers from 200 to 599, such as [200, 204]"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str) -> Result<HeaderField, String> {
        HeaderField::try_from(text.to_owned())
    }

    fn fields(texts: &[&str]) -> Result<HeaderFields, String> {
        let fields: Vec<_> = texts.iter().map(|text| field(text).unwrap()).collect();
        HeaderFields::try_from(fields)
    }

    #[test]
    fn a_host_is_that_of_a_url() {
        for good in ["www.example.com", "localhost:8080", "127.0.0.1", "[::1]:80"] {
            assert_eq!(Host::try_from(good.to_owned()).unwrap().as_str(), good);
        }
        let long = "a".repeat(300);
        for bad in [
            "",
            "a b",
            "a/b",
            "a?b",
            "user@a",
            "a:0",
            "a:99999",
            "a\r\nX: y",
            "a#b",
            "a\u{e9}",
            "http://a",
            &long,
        ] {
            assert!(Host::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_field_is_one_line() {
        for (text, line, name) in [
            ("X-Probe: 1", "X-Probe: 1", "X-Probe"),
            ("x:y:z", "x: y:z", "x"),
            (
                "Authorization:  Bearer a b ",
                "Authorization: Bearer a b",
                "Authorization",
            ),
        ] {
            let field = field(text).unwrap();
            assert_eq!((field.as_line(), field.name()), (line, name));
        }
        for bad in [
            "",
            "X-Probe",
            ": 1",
            "X Probe: 1",
            "X-Probe : 1",
            "X-Probe:",
            "X-Probe:  ",
            "X-Probe: a\r\nHost: b",
            "X-Probe: a\nb",
            "X-Probe: a\tb",
            "X-Probe: \u{e9}",
            "X\r\nY: a",
            "X-Probe: a\0",
        ] {
            assert!(field(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reserved_fields_cannot_be_set() {
        for name in RESERVED_FIELDS {
            for name in [name.to_owned(), name.to_ascii_uppercase()] {
                assert!(field(&format!("{name}: 1")).is_err(), "{name}");
            }
        }
    }

    #[test]
    fn no_message_has_a_value() {
        for bad in [
            "hunter2",
            "hunter2 : x",
            "Host: hunter2",
            "TE: hunter2",
            "X: hunter2\n",
        ] {
            let error = field(bad).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let twice = fields(&["X: hunter2", "x: hunter2"]).unwrap_err();
        assert_eq!(twice, "the header 'x' is there twice");
        let long = format!("X: {}", "hunter2".repeat(MAX_FIELDS_LENGTH));
        assert!(!fields(&[&long]).unwrap_err().contains("hunter2"));
        let shown = format!("{:?}", fields(&["X-Token: hunter2"]).unwrap());
        assert!(
            shown.contains("X-Token") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn the_number_of_fields_is_limited() {
        let texts: Vec<String> = (0..=MAX_FIELDS).map(|at| format!("X-{at}: 1")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert!(fields(&texts[1..]).is_ok());
        assert!(fields(&texts).is_err());
    }

    #[test]
    fn statuses_are_those_of_final_responses() {
        let statuses = Statuses::try_from(vec![200, 204, 599]).unwrap();
        assert!(statuses.accept(204) && !statuses.accept(201));
        assert!(Statuses::default().accept(200) && !Statuses::default().accept(204));
        let many = vec![200; MAX_STATUSES + 1];
        for bad in [
            vec![],
            vec![199],
            vec![600],
            vec![-200],
            vec![i64::MAX],
            many,
        ] {
            assert!(Statuses::try_from(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
