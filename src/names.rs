//! The names a client or an operator may say, each with its alphabet and its
//! greatest length. Past these constructors there are no loose strings: what
//! reaches a path, a log or an argv has one of these types.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// The longest component and path of a release, in bytes, and the greatest depth.
pub const MAX_COMPONENT: usize = 255;
pub const MAX_PATH: usize = 1024;
pub const MAX_DEPTH: usize = 32;

/// The directories of a site's root whose names no symlink may have.
pub const RELEASES_DIR: &str = "releases";
pub const SHARED_DIR: &str = "shared";
const RESERVED: [&str; 2] = [RELEASES_DIR, SHARED_DIR];
/// The maximum number of signatures of a release.
pub const MAX_SIGNATURES: usize = 16;

/// Defines a name that is a checked text and nothing more. Shared, because what
/// folds a journal keeps each of them in more than one place.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $type {
            type Error = String;

            fn try_from(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok($type(text.into()))
                } else {
                    Err(format!("not {}", $what))
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::try_from(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text!($type);
    };
}

/// Writes a type to a document as its text, and reads it by its check.
macro_rules! text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Checked(PhantomData))
            }
        }
    };
}

/// Checks a text where it stands: a journal has thousands, and a copy of each
/// would be made only to be thrown away.
struct Checked<T>(PhantomData<T>);

impl<T: for<'a> TryFrom<&'a str, Error = String>> Visitor<'_> for Checked<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        T::try_from(text).map_err(E::custom)
    }
}

name!(
    /// A release: `[0-9A-Za-z][0-9A-Za-z._-]{0,63}` without `..`.
    ///
    /// It becomes one path component, so it can be neither hidden, nor an
    /// option, nor a way up.
    ReleaseId,
    |text| is_allowed_charset(text, b"._-") && !leads_up(text),
    "a release ([0-9A-Za-z][0-9A-Za-z._-]{0,63}, no '..')"
);

name!(
    /// The operator's name for a key: `[0-9A-Za-z][0-9A-Za-z._@-]{0,63}`.
    KeyLabel,
    |text| is_allowed_charset(text, b"._@-"),
    "a key label ([0-9A-Za-z][0-9A-Za-z._@-]{0,63})"
);

name!(
    /// A site, the stem of its configuration file: `[0-9A-Za-z][0-9A-Za-z._-]{0,63}` without `..`.
    SiteName,
    |text| is_allowed_charset(text, b"._-") && !leads_up(text),
    "a site's name ([0-9A-Za-z][0-9A-Za-z._-]{0,63}, no '..')"
);

name!(
    /// A link in the site's root: `[0-9A-Za-z][0-9A-Za-z._-]{0,63}`, and none of our own folders.
    LinkName,
    |text| is_allowed_charset(text, b"._-") && !RESERVED.contains(&text),
    "a link's name ([0-9A-Za-z][0-9A-Za-z._-]{0,63}, not 'releases' or 'shared')"
);

name!(
    /// A signature as the client wrote it: padded base64 (RFC 4648, section 4)
    /// on one line, not yet decoded. The request's own limit bounds it.
    SignatureText,
    base64,
    "padded base64"
);

fn base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
    let padded = text.len().is_multiple_of(4) && text.len() - body.len() <= 2;
    !body.is_empty() && padded && body.bytes().all(alphabet)
}

fn is_allowed_charset(text: &str, also: &[u8]) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}

fn leads_up(text: &str) -> bool {
    // Not str::contains: for so short a text its preparations take longest.
    text.as_bytes().windows(2).any(|pair| pair == b"..")
}

/// A SHA-256 digest (FIPS 180-4), written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Digest(pub [u8; 32]);

text!(Sha256Digest);

impl TryFrom<&str> for Sha256Digest {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        let mut digest = [0; 32];
        let digits = text.as_bytes();
        let mut all = 0;
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
            *byte = high << 4 | low;
            all |= high | low;
        }
        if digits.len() != 64 || all > 15 {
            return Err("not a sha256 (64 lower-case hexadecimal digits)".to_owned());
        }
        Ok(Sha256Digest(digest))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As a whole and not byte by byte: there are as many as files.
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
        }
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

/// What each byte is worth as a digit; more than 15 if it is none. A table,
/// because there are as many digests as files, and a processor cannot guess
/// which of its digits are letters.
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        values[hex(value) as usize] = value;
        value += 1;
    }
    values
};

const fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[nibble as usize]
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        let longest = "a".repeat(64);
        for good in ["20260412-142033", "v1.2.3_rc-1", "0", longest.as_str()] {
            assert_eq!(ReleaseId::try_from(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(65);
        for bad in [
            "", ".", "..", "-a", ".a", "_a", "a..b", "a/b", "a b", "é", &too_long,
        ] {
            assert!(ReleaseId::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn digests_round_trip_and_are_lower_case() {
        let text = "00ff".repeat(16);
        assert_eq!(
            Sha256Digest::try_from(text.as_str()).unwrap().to_string(),
            text
        );
        assert!(Sha256Digest::try_from(text.to_uppercase().as_str()).is_err());
        assert!(Sha256Digest::try_from(&text[1..]).is_err());
    }

    #[test]
    fn our_own_folders_are_no_links() {
        assert!(LinkName::try_from("app").is_ok());
        for bad in ["releases", "shared", ".deploy-shell", "a/b"] {
            assert!(LinkName::try_from(bad).is_err(), "{bad}");
        }
    }
}
