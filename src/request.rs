//! Parses the client's bytes into a [`Request`]. Pure.
//!
//! Four steps follow each other, and each can only reject. The alphabet has no
//! character that is special to a shell, pager or option parser. The words are
//! split. Their number is exact, and each is parsed into its type. The parsed
//! request, written back, must equal the input byte for byte: every request has
//! exactly one spelling, so the audit line shows what ran.

mod invalid;

use std::fmt;

pub use invalid::Invalid;

use crate::names::{ReleaseId, Sha256Digest, SignatureText};

/// The maximum length of a request, in bytes. Four signatures fit. sshd's own
/// limit is much higher.
pub const MAX_LEN: usize = 4096;

/// The problem of a session without a request.
pub const NO_REQUEST: &str = "no request";

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Receive(Receive),
    Swap(Swap),
    Rollback(Rollback),
    List(List),
}

/// `receive <release> --sha256 <hex> [--signature <base64>]...`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    pub release: ReleaseId,
    pub sha256: Sha256Digest,
    pub signatures: Vec<SignatureText>,
}

/// `swap <release> [--sha256 <hex>] [--if-current <release>]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    pub release: ReleaseId,
    /// The payload that the release must be.
    pub sha256: Option<Sha256Digest>,
    pub if_current: Option<ReleaseId>,
}

/// `rollback [<release>] [--sha256 <hex>] [--if-current <release>]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    pub release: Option<ReleaseId>,
    /// The payload that the release must be, also one that the request does not name.
    pub sha256: Option<Sha256Digest>,
    pub if_current: Option<ReleaseId>,
}

/// `list [--json]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    pub json: bool,
}

impl Request {
    /// Parses a request.
    ///
    /// # Errors
    ///
    /// Returns one line of prose, and the remedy.
    pub fn parse(bytes: &[u8]) -> Result<Request, Invalid> {
        if bytes.is_empty() {
            return Err(NO_REQUEST.to_owned().into());
        }
        if let Some(name) = known_client_name(bytes) {
            return Err(format!("{name} is not served here").into());
        }
        if bytes.len() > MAX_LEN {
            return Err(format!("request over {MAX_LEN} bytes").into());
        }
        if let Some(invalid) = invalid::bad_byte(bytes, is_allowed_byte) {
            return Err(invalid);
        }
        // Neither of these two can fail with this alphabet.
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let words = shell_words::split(text).map_err(|error| error.to_string())?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // These two only explain: the exact form below would refuse the same.
        if let Some(invalid) = invalid::bad_spaces(text).or_else(|| invalid::bad_option(&words)) {
            return Err(invalid);
        }
        let request = Request::from_words(&words)?;
        if request.to_string() != text {
            return Err("request is not in its one exact form".to_owned().into());
        }
        Ok(request)
    }

    fn from_words(words: &[&str]) -> Result<Request, String> {
        let release =
            |word: &str| ReleaseId::try_from(word).map_err(|_| invalid::not_a_release(word));
        match words {
            ["receive", id, "--sha256", digest, rest @ ..] => {
                let release = release(id)?;
                let sha256 = sha256(digest)?;
                let signatures = rest
                    .chunks(2)
                    .map(|pair| match pair {
                        ["--signature", text] => SignatureText::try_from(*text)
                            .map_err(|error| format!("signature is {error}")),
                        _ => Err("receive has words that are not '--signature BASE64'".to_owned()),
                    })
                    .collect::<Result<_, _>>()?;
                Ok(Request::Receive(Receive {
                    release,
                    sha256,
                    signatures,
                }))
            }
            ["swap", id, rest @ ..] => {
                let release = release(id)?;
                let (sha256, if_current) = conditions(rest)?;
                Ok(Request::Swap(Swap {
                    release,
                    sha256,
                    if_current,
                }))
            }
            ["rollback", rest @ ..] => {
                let (id, rest) = match rest {
                    [id, rest @ ..] if !id.starts_with('-') => (Some(release(id)?), rest),
                    _ => (None, rest),
                };
                let (sha256, if_current) = conditions(rest)?;
                Ok(Request::Rollback(Rollback {
                    release: id,
                    sha256,
                    if_current,
                }))
            }
            ["list"] => Ok(Request::List(List { json: false })),
            ["list", "--json"] => Ok(Request::List(List { json: true })),
            ["receive", ..] => Err("receive is not 'receive RELEASE --sha256 HEX'".to_owned()),
            ["swap"] => Err("swap has no release".to_owned()),
            ["list", ..] => Err("list has words that are not '--json'".to_owned()),
            [verb, ..] => Err(format!("'{verb}' is not a request")),
            [] => Err(NO_REQUEST.to_owned()),
        }
    }
}

/// Returns whether a valid request can contain the byte: no quote, no backslash,
/// no '#', no metacharacter of any shell.
fn is_allowed_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" ._+/=-".contains(&byte)
}

/// Returns the name of the client program that sends such a command to an
/// ordinary account: sftp, scp, rsync or git.
pub fn known_client_name(bytes: &[u8]) -> Option<&'static str> {
    let program = bytes.split(|byte| *byte == b' ').next()?;
    // sshd requests the sftp subsystem by the path of its server.
    match program.rsplit(|byte| *byte == b'/').next()? {
        b"sftp-server" | b"internal-sftp" | b"sftp" => Some("sftp"),
        b"scp" => Some("scp"),
        b"rsync" => Some("rsync"),
        b"git-upload-pack" | b"git-receive-pack" | b"git-upload-archive" => Some("git"),
        _ => None,
    }
}

/// Returns whether the bytes are a command of scp's own protocol, to send (`-f`) or to
/// take (`-t`) files.
pub fn is_scp(bytes: &[u8]) -> bool {
    let mut words = bytes.split(|byte| *byte == b' ');
    let transfers = |word: &[u8]| word == b"-t" || word == b"-f";
    known_client_name(bytes) == Some("scp") && words.any(transfers)
}

fn sha256(word: &str) -> Result<Sha256Digest, String> {
    Sha256Digest::try_from(word).map_err(|error| format!("'{word}' is {error}"))
}

/// Parses the conditions of a swap or rollback, which have one order.
fn conditions(words: &[&str]) -> Result<(Option<Sha256Digest>, Option<ReleaseId>), String> {
    let (digest, rest) = match words {
        ["--sha256", digest, rest @ ..] => (Some(sha256(digest)?), rest),
        _ => (None, words),
    };
    let if_current = match rest {
        [] => None,
        ["--if-current", id] => {
            Some(ReleaseId::try_from(*id).map_err(|_| invalid::not_a_release(id))?)
        }
        _ => {
            let forms = "the words at the end are not '[--sha256 HEX] [--if-current RELEASE]'";
            return Err(forms.to_owned());
        }
    };
    Ok((digest, if_current))
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = |f: &mut fmt::Formatter<'_>,
                          sha256: &Option<Sha256Digest>,
                          if_current: &Option<ReleaseId>| {
            if let Some(sha256) = sha256 {
                write!(f, " --sha256 {sha256}")?;
            }
            match if_current {
                Some(id) => write!(f, " --if-current {id}"),
                None => Ok(()),
            }
        };
        match self {
            Request::Receive(receive) => {
                write!(f, "receive {} --sha256 {}", receive.release, receive.sha256)?;
                receive
                    .signatures
                    .iter()
                    .try_for_each(|signature| write!(f, " --signature {signature}"))
            }
            Request::Swap(swap) => {
                write!(f, "swap {}", swap.release)?;
                conditions(f, &swap.sha256, &swap.if_current)
            }
            Request::Rollback(rollback) => {
                f.write_str("rollback")?;
                if let Some(id) = &rollback.release {
                    write!(f, " {id}")?;
                }
                conditions(f, &rollback.sha256, &rollback.if_current)
            }
            Request::List(List { json: true }) => f.write_str("list --json"),
            Request::List(List { json: false }) => f.write_str("list"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn release() -> impl Strategy<Value = ReleaseId> {
        "[0-9A-Za-z]([0-9A-Za-z_-]|[.][0-9A-Za-z_-]){0,31}"
            .prop_map(|text| ReleaseId::try_from(text.as_str()).unwrap())
    }

    fn request() -> impl Strategy<Value = Request> {
        let signature = "([0-9A-Za-z+/]{4}){1,40}"
            .prop_map(|text| SignatureText::try_from(text.as_str()).unwrap());
        let guard = || proptest::option::of(release());
        let payload = || {
            let digest = any::<[u8; 32]>();
            proptest::option::of(digest.prop_map(Sha256Digest))
        };
        prop_oneof![
            (
                release(),
                any::<[u8; 32]>(),
                proptest::collection::vec(signature, 0..3)
            )
                .prop_map(|(release, digest, signatures)| Request::Receive(Receive {
                    release,
                    sha256: Sha256Digest(digest),
                    signatures
                })),
            (release(), payload(), guard()).prop_map(|(release, sha256, if_current)| {
                Request::Swap(Swap {
                    release,
                    sha256,
                    if_current,
                })
            }),
            (guard(), payload(), guard()).prop_map(|(release, sha256, if_current)| {
                Request::Rollback(Rollback {
                    release,
                    sha256,
                    if_current,
                })
            }),
            any::<bool>().prop_map(|json| Request::List(List { json })),
        ]
    }

    proptest! {
        #[test]
        fn every_request_parses_from_its_own_text(request in request()) {
            prop_assert_eq!(Request::parse(request.to_string().as_bytes()), Ok(request));
        }

        #[test]
        fn an_accepted_request_is_written_back_exactly(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert_eq!(request.to_string().into_bytes(), bytes);
            }
        }

        #[test]
        fn one_changed_byte_never_gives_the_same_request(
            request in request(), at in any::<proptest::sample::Index>(), byte in any::<u8>()
        ) {
            let mut bytes = request.to_string().into_bytes();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            prop_assert_ne!(Request::parse(&bytes), Ok(request));
        }
    }

    #[test]
    fn other_spellings_are_rejected() {
        for text in [
            " list",
            "list ",
            "list  --json",
            "LIST",
            "list --json --json",
            "list --js",
            "swap",
            "swap a b",
            "swap a --if-current",
            "rollback --if-current",
            "rollback a b",
            "swap a --sha256",
            "rollback --sha256",
            "rollback --sha256 a",
            "receive a",
            "receive a --sha256",
            "--help",
            "-h",
            "",
        ] {
            assert!(Request::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        for text in [
            "swap --sha256 HEX",
            "swap --sha256 HEX a",
            "swap a --sha256 HEX b",
            "swap a --sha256 HEX --sha256 HEX",
            "swap a --if-current b --sha256 HEX",
            "rollback --if-current b --sha256 HEX",
            "rollback --sha256 HEX a",
        ] {
            let text = text.replace("HEX", HEX);
            assert!(Request::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        for text in [
            "swap a --sha256 HEX",
            "swap a --sha256 HEX --if-current b",
            "rollback --sha256 HEX",
            "rollback a --sha256 HEX --if-current b",
        ] {
            let text = text.replace("HEX", HEX);
            assert!(Request::parse(text.as_bytes()).is_ok(), "{text:?}");
        }
        for option in [
            " --signature",
            " --signature abc",
            " --signature a===",
            " --sha256 x",
        ] {
            let text = format!("receive a --sha256 {HEX}{option}");
            assert!(Request::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_length_limit_is_exact() {
        let head = format!("receive a --sha256 {HEX} --signature ");
        let fill = |len: usize| format!("{head}{}", "A".repeat(len - head.len()));
        let longest = MAX_LEN - (MAX_LEN - head.len()) % 4;
        assert!(Request::parse(fill(longest).as_bytes()).is_ok());
        let error = Request::parse(fill(longest + 4).as_bytes()).unwrap_err();
        assert_eq!(error.problem, "request over 4096 bytes");
    }

    #[test]
    fn other_clients_are_named() {
        for (text, name) in [
            ("/usr/lib/openssh/sftp-server", "sftp"),
            ("scp -t /tmp", "scp"),
            ("rsync --server -vlogDtpre.iLsfxC . x", "rsync"),
            ("git-upload-pack 'x.git'", "git"),
        ] {
            let error = Request::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.problem, format!("{name} is not served here"));
        }
    }

    #[test]
    fn the_first_wrong_character_is_named_with_its_position() {
        for (text, problem, remedy) in [
            ("swap R\r", "a carriage return (\\r) at byte 7", "Windows"),
            ("swap R\nlist", "a newline (\\n) at byte 7", "one request"),
            ("swap\tR", "a tab (\\t) at byte 5", "one space"),
            ("swap 'R'", "a single quote (') at byte 6", "no shell"),
            ("A=\"\" bash", "a double quote (\") at byte 3", "no shell"),
            ("swap R;", "';' at byte 7", "no shell"),
            ("cd x && swap R", "'&' at byte 6", "no shell"),
            ("swap R 2>&1", "'>' at byte 9", "no shell"),
            ("swap ~R", "'~' at byte 6", "letters, digits"),
            ("swap a@b", "'@' at byte 7", "letters, digits"),
            ("swap a:b", "':' at byte 7", "letters, digits"),
            ("swap \u{e9}", "the byte \\xc3 at byte 6", "ASCII"),
            ("swap \x1b[m", "the byte \\x1b at byte 6", "ASCII"),
        ] {
            let error = Request::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.problem, format!("request has {problem}"));
            assert!(error.remedy.unwrap().contains(remedy), "{error:?}");
        }
        for byte in (0..=u8::MAX).filter(|byte| !is_allowed_byte(*byte)) {
            let error = Request::parse(&[b'a', byte]).unwrap_err();
            let plain = |byte| matches!(byte, b' '..=b'~');
            assert!(error.problem.bytes().all(plain), "{error:?}");
            assert!(error.problem.ends_with(" at byte 2"), "{error:?}");
        }
    }

    #[test]
    fn spaces_that_separate_no_words_are_named() {
        for (text, problem) in [
            (" list", "request begins with a space"),
            ("swap ", "request ends with a space"),
            ("receive  --sha256 x", "request has two spaces at byte 8"),
        ] {
            let error = Request::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.problem, problem);
            assert!(error.remedy.unwrap().contains("may be empty"), "{error:?}");
        }
    }

    #[test]
    fn mistakes_of_a_digest_and_of_a_release_are_named() {
        let upper = HEX.to_uppercase();
        let receive = |rest: &str| format!("receive R {rest}");
        for (text, problem, remedy) in [
            (receive(&format!("--sha256={HEX}")), "after '='", "a space"),
            ("swap a --if-current=b".to_owned(), "after '='", "a space"),
            (
                receive(&format!("--sha256 {HEX} -")),
                "'-' follows",
                "cut -c1-64",
            ),
            (
                receive(&format!("--sha256 {HEX}  -")),
                "'-' follows",
                "cut -c1-64",
            ),
            (
                receive(&format!("--sha256 {HEX}  site.tar.zst")),
                "'site.tar.zst' follows the sha256, as in an uncut line of sha256sum",
                "cut -c1-64",
            ),
            (
                receive(&format!("--sha256 {upper}")),
                "upper-case",
                "cut -c1-64",
            ),
            (
                receive(&format!("--sha256 {}", &HEX[1..])),
                "63 digits, not 64",
                "cut",
            ),
            (receive("--sha256 site"), "'site' is not a sha256", "cut"),
        ] {
            let error = Request::parse(text.as_bytes()).unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error:?}");
            assert!(error.remedy.unwrap().contains(remedy), "{text}: {error:?}");
        }
        let long = "a".repeat(65);
        for (id, why) in [
            ("v1+x", "it has '+' at character 3"),
            ("../../etc", "it has '/' at character 3"),
            ("a..b", "it has '..'"),
            ("_a", "it begins with '_'"),
            (&long, "it has 65 characters, more than 64"),
        ] {
            for text in [format!("swap {id}"), format!("swap a --if-current {id}")] {
                let error = Request::parse(text.as_bytes()).unwrap_err();
                assert!(
                    error
                        .problem
                        .starts_with(&format!("'{id}' is not a release "))
                );
                assert!(error.problem.ends_with(why), "{error:?}");
            }
        }
    }
}
