//! Says why bytes are not a request: which byte, where, and what to write instead.
//! Nothing here decides; [`super::Request::parse`] has refused the bytes already, or
//! refuses them after this.

use crate::names::{CommitId, ReleaseId, Sha256Digest};

/// A problem, and a remedy where there is a better one than the list of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub problem: String,
    pub remedy: Option<&'static str>,
}

impl From<String> for Invalid {
    fn from(problem: String) -> Invalid {
        Invalid {
            problem,
            remedy: None,
        }
    }
}

impl Invalid {
    fn new(problem: String, remedy: &'static str) -> Invalid {
        Invalid {
            problem,
            remedy: Some(remedy),
        }
    }
}

/// Returns the problem of the first byte for which `is_allowed` is false.
pub fn bad_byte(bytes: &[u8], is_allowed: fn(u8) -> bool) -> Option<Invalid> {
    let at = bytes.iter().position(|byte| !is_allowed(*byte))?;
    let byte = bytes[at];
    let remedy = match byte {
        b'\n' => "send one request with each ssh command",
        b'\r' => "remove the carriage return: the script has the line ends of Windows",
        b'\t' => "separate words by one space",
        b'~' | b'@' | b':' | b'%' | b'^' | b',' => {
            "use letters, digits, '.', '_' and '-' for a release"
        }
        b'!'..=b'/' | b';'..=b'?' | b'['..=b'`' | b'{'..=b'}' => {
            "write the request without quotes and shell syntax: no shell reads it"
        }
        _ => "write the request in printable ASCII",
    };
    let name = byte_name(byte);
    let problem = format!("request has {name} at byte {}", at + 1);
    Some(Invalid::new(problem, remedy))
}

/// Returns the name of a byte: itself in quotes, or a word.
fn byte_name(byte: u8) -> String {
    match byte {
        b'\n' => "a newline (\\n)".to_owned(),
        b'\r' => "a carriage return (\\r)".to_owned(),
        b'\t' => "a tab (\\t)".to_owned(),
        b'\'' => "a single quote (')".to_owned(),
        b'"' => "a double quote (\")".to_owned(),
        b'!'..=b'~' => format!("'{}'", char::from(byte)),
        _ => format!("the byte \\x{byte:02x}"),
    }
}

/// Returns the problem of spaces that separate no words.
pub fn bad_spaces(text: &str) -> Option<Invalid> {
    const EMPTY: &str = "write one space between words; a variable may be empty";
    if let Some(digest) = uncut_digest(text) {
        return Some(digest);
    }
    if text.starts_with(' ') {
        return Some(Invalid::new(
            "request begins with a space".to_owned(),
            EMPTY,
        ));
    }
    if text.ends_with(' ') {
        return Some(Invalid::new("request ends with a space".to_owned(), EMPTY));
    }
    let at = text.find("  ")?;
    let problem = format!("request has two spaces at byte {}", at + 1);
    Some(Invalid::new(problem, EMPTY))
}

const CUT: &str = "cut the digest: $(sha256sum < site.tar.zst | cut -c1-64)";

const CUT_TREE: &str = "cut the digest: $(sha256sum < tree.list | cut -c1-64)";

const RELEASE_FIRST: &str = "write the release after the first word: rollback RELEASE --sha256 HEX";

/// Returns the problem of a digest with the rest of its line: sha256sum(1) prints two
/// spaces and a name, `-` for stdin.
fn uncut_digest(text: &str) -> Option<Invalid> {
    let (_, after) = text.split_once("--sha256 ")?;
    let (digest, rest) = after.split_at_checked(64)?;
    Sha256Digest::try_from(digest).ok()?;
    let rest = rest.strip_prefix("  ")?;
    let name = rest.split(' ').next()?;
    (!name.is_empty() && !name.starts_with("--")).then(|| uncut(name))
}

fn uncut(rest: &str) -> Invalid {
    let problem = format!("'{rest}' follows the sha256, as in an uncut line of sha256sum");
    Invalid::new(problem, CUT)
}

/// Returns the problem of an option, of the digest after `--sha256` or `--tree`, or of the
/// commit after `--commit`.
pub fn bad_option(words: &[&str]) -> Option<Invalid> {
    for option in [
        "--sha256",
        "--tree",
        "--base",
        "--if-current",
        "--commit",
        "--signature",
        "--files",
    ] {
        let joined = |word: &&&str| {
            word.strip_prefix(option)
                .is_some_and(|rest| rest.starts_with('='))
        };
        if words.iter().find(joined).is_some() {
            let problem = format!("'{option}=' has its value after '='");
            let remedy = "write a space between an option and its value";
            return Some(Invalid::new(problem, remedy));
        }
    }
    let at = words.iter().position(|word| *word == "--sha256")?;
    let digest = words.get(at + 1)?;
    if Sha256Digest::try_from(*digest).is_err() {
        return Some(bad_digest(digest));
    }
    let rest = words.get(at + 2)?;
    // The name of a file in an uncut line can be that of a release.
    let is_release_late = at == 1 && ReleaseId::try_from(*rest).is_ok();
    if is_release_late {
        let problem = format!("'{rest}' follows the sha256: a release comes before the options");
        return Some(Invalid::new(problem, RELEASE_FIRST));
    }
    if !rest.starts_with("--") {
        return Some(uncut(rest));
    }
    let value_of = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        words.get(at + 1).copied()
    };
    if let Some(tree) = value_of("--tree")
        && Sha256Digest::try_from(tree).is_err()
    {
        return Some(Invalid::new(not_a_digest(tree), CUT_TREE));
    }
    let commit = value_of("--commit")?;
    CommitId::try_from(commit).err().map(|error| {
        let problem = format!("'{commit}' is {error}");
        Invalid::new(problem, "name it by its digits: $(git rev-parse HEAD)")
    })
}

fn bad_digest(word: &str) -> Invalid {
    Invalid::new(not_a_digest(word), CUT)
}

/// Returns why `word` is not a digest.
fn not_a_digest(word: &str) -> String {
    let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && word.len() != 64 {
        format!(
            "'{word}' is not a sha256: it has {} digits, not 64",
            word.len()
        )
    } else if is_hex {
        format!("'{word}' is not a sha256: it has upper-case digits")
    } else {
        format!("'{word}' is not a sha256 (64 lower-case hexadecimal digits)")
    }
}

/// Returns why `word` is not a release, in one line.
pub fn not_a_release(word: &str) -> String {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let why = if let Some(at) = word.bytes().position(|byte| !is_allowed(byte)) {
        let name = byte_name(word.as_bytes()[at]);
        format!("it has {name} at character {}", at + 1)
    } else if word.len() > 64 {
        format!("it has {} characters, more than 64", word.len())
    } else if word.contains("..") {
        "it has '..'".to_owned()
    } else if word.starts_with(['.', '_', '-']) {
        format!("it begins with '{}'", &word[..1])
    } else {
        "it is empty".to_owned()
    };
    debug_assert!(ReleaseId::try_from(word).is_err());
    format!("'{word}' is not a release ([0-9A-Za-z][0-9A-Za-z._-]{{0,63}}, no '..'): {why}")
}
