//! The names that a client or an operator may use, each with its alphabet and its
//! maximum length. Whatever reaches a path, a log or an argv has one of these types,
//! and their constructors validate it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// The maximum length of a component and of a path of a release, in bytes, and the
/// maximum depth.
pub const MAX_COMPONENT: usize = 255;
pub const MAX_PATH: usize = 1024;
pub const MAX_DEPTH: usize = 32;

/// The directories of a site's root: no symlink may have their names.
pub const RELEASES_DIR: &str = "releases";
pub const SHARED_DIR: &str = "shared";
/// The symlink to the bridge, if the site has one.
pub const BRIDGE_LINK: &str = "bridge";
const RESERVED: [&str; 2] = [RELEASES_DIR, SHARED_DIR];

/// The maximum number of signatures of a release.
pub const MAX_SIGNATURES: usize = 16;

/// Defines a validated string type. It holds an `Arc<str>`, because folding the
/// journal clones each name several times.
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

        serde_as_str!($type);
    };
}

/// Serializes a type as its string, and deserializes it by its validation.
macro_rules! serde_as_str {
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

/// Validates a string in place. A journal has thousands, and an owned copy of each
/// would be dropped at once.
struct Checked<T>(PhantomData<T>);

impl<T: for<'a> TryFrom<&'a str, Error = String>> Visitor<'_> for Checked<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        T::try_from(text).map_err(E::custom)
    }
}

name!(
    /// A release: `[0-9A-Za-z][0-9A-Za-z._-]{0,63}` without `..`.
    ///
    /// It becomes one path component, so it must not be a hidden name, an option or a
    /// way out of the directory.
    ReleaseId,
    |text| is_allowed_charset(text, b"._-") && !has_dot_dot(text),
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
    |text| is_allowed_charset(text, b"._-") && !has_dot_dot(text),
    "a site's name ([0-9A-Za-z][0-9A-Za-z._-]{0,63}, no '..')"
);

name!(
    /// A symlink in the site's root: `[0-9A-Za-z][0-9A-Za-z._-]{0,63}`, and not the name
    /// of a directory there.
    LinkName,
    |text| is_allowed_charset(text, b"._-") && !RESERVED.contains(&text),
    "a symlink's name ([0-9A-Za-z][0-9A-Za-z._-]{0,63}, not 'releases' or 'shared')"
);

name!(
    /// A signature as the client wrote it: padded base64 (RFC 4648, section 4)
    /// on one line, not decoded yet. The limit of a request bounds its length.
    SignatureText,
    base64,
    "padded base64"
);

name!(
    /// The commit that a release was made from: 7 to 64 lower-case hexadecimal digits, an
    /// abbreviated or whole object name of git (gitglossary(7)). It is the word of the
    /// client: nothing verifies it.
    CommitId,
    |text| (7..=64).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
    "a commit (7 to 64 lower-case hexadecimal digits)"
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

fn has_dot_dot(text: &str) -> bool {
    // Not str::contains: for a string this short, its setup takes longest.
    text.as_bytes().windows(2).any(|pair| pair == b"..")
}

/// A SHA-256 digest (FIPS 180-4), written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Digest(pub [u8; 32]);

serde_as_str!(Sha256Digest);

impl TryFrom<&str> for Sha256Digest {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        let mut digest = [0; 32];
        match base16ct::lower::decode(text, &mut digest) {
            Ok(decoded) if decoded.len() == 32 => Ok(Sha256Digest(digest)),
            _ => Err("not a sha256 (64 lower-case hexadecimal digits)".to_owned()),
        }
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        f.write_str(base16ct::lower::encode_str(&self.0, &mut digits).map_err(|_| fmt::Error)?)
    }
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
    fn release_ids_are_of_the_alphabet_and_the_length() {
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
        assert_eq!(format!("{:?}", Sha256Digest([0xab; 32])), "ab".repeat(32));
        // An even number of digits that is too small would leave the rest of the digest zero.
        for bad in [&text[1..], &text[2..], ""] {
            assert!(Sha256Digest::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_of_another_json_type_is_refused_with_the_expected_type() {
        let error = serde_json::from_str::<ReleaseId>("7").unwrap_err();
        assert!(error.to_string().contains("expected a string"), "{error}");
    }

    #[test]
    fn signatures_have_two_padding_characters_at_most() {
        for good in ["AAAA", "AAA=", "AA==", "AAAAAA==", "a+/9"] {
            assert!(SignatureText::try_from(good).is_ok(), "{good:?}");
        }
        for bad in ["", "====", "A===", "AAAAA===", "AAA", "AA=A", "AA-_"] {
            assert!(SignatureText::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn commits_are_of_the_alphabet_and_the_length() {
        let longest = "0f".repeat(32);
        for good in ["0123abc", longest.as_str()] {
            assert_eq!(CommitId::try_from(good).unwrap().as_str(), good);
        }
        let too_long = format!("{longest}0");
        for bad in ["", "0123ab", "0123ABC", "main000", "-123abc", &too_long] {
            assert!(CommitId::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_symlink_may_not_have_the_name_of_a_directory() {
        assert!(LinkName::try_from("app").is_ok());
        for bad in ["releases", "shared", ".deploy-shell", "a/b"] {
            assert!(LinkName::try_from(bad).is_err(), "{bad}");
        }
    }
}
