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

use crate::names::{CommitId, ReleaseId, Sha256Digest, SignatureText};

/// The maximum length of a request, in bytes. Four signatures fit. sshd's own
/// limit is much higher.
pub const MAX_LEN: usize = 4096;

/// The problem of a session without a request.
pub const NO_REQUEST: &str = "no request";

/// The problem of a delta that names no result: nothing would say what base and changes
/// must give.
const BASE_ALONE: &str = "'--base RELEASE' comes after '--tree HEX' only";

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Receive(Receive),
    Swap(Swap),
    Rollback(Rollback),
    List(List),
}

/// `receive <release> --sha256 <hex> [--tree <hex> [--base <release>]] [--commit <hex>]
/// [--signature <base64>]...`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    pub release: ReleaseId,
    pub sha256: Sha256Digest,
    /// The digest that the tree list of the release must have.
    pub tree: Option<Sha256Digest>,
    /// The release that the payload changes: it is then a delta. Never without `tree`.
    pub base: Option<ReleaseId>,
    pub commit: Option<CommitId>,
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

/// `list [--json]` and `list --files <release>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    Table,
    Json,
    /// The tree list of a release. It needs a word of `--allow` of its own.
    Files(ReleaseId),
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
        match words {
            ["receive", id, "--sha256", digest, rest @ ..] => {
                let release = release(id)?;
                let sha256 = sha256(digest)?;
                let (tree, rest) = match rest {
                    ["--tree", digest, rest @ ..] => (Some(self::sha256(digest)?), rest),
                    _ => (None, rest),
                };
                let (base, rest) = match rest {
                    ["--base", ..] if tree.is_none() => return Err(BASE_ALONE.to_owned()),
                    ["--base", id, rest @ ..] => (Some(self::release(id)?), rest),
                    _ => (None, rest),
                };
                let (commit, rest) = match rest {
                    ["--commit", commit, rest @ ..] => (Some(self::commit(commit)?), rest),
                    _ => (None, rest),
                };
                let signatures = rest
                    .chunks(2)
                    .map(|pair| match pair {
                        ["--signature", text] => SignatureText::try_from(*text)
                            .map_err(|error| format!("signature is {error}")),
                        _ => Err("the words at the end are not \
                                  '[--tree HEX [--base RELEASE]] [--commit HEX] \
                                  [--signature BASE64]...'"
                            .to_owned()),
                    })
                    .collect::<Result<_, _>>()?;
                Ok(Request::Receive(Receive {
                    release,
                    sha256,
                    tree,
                    base,
                    commit,
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
            ["list"] => Ok(Request::List(List::Table)),
            ["list", "--json"] => Ok(Request::List(List::Json)),
            ["list", "--files", id] => Ok(Request::List(List::Files(release(id)?))),
            ["receive", ..] => Err("receive is not 'receive RELEASE --sha256 HEX'".to_owned()),
            ["swap"] => Err("swap has no release".to_owned()),
            ["list", ..] => {
                Err("list has words that are not '--json' or '--files RELEASE'".to_owned())
            }
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

fn release(word: &str) -> Result<ReleaseId, String> {
    ReleaseId::try_from(word).map_err(|_| invalid::not_a_release(word))
}

fn sha256(word: &str) -> Result<Sha256Digest, String> {
    Sha256Digest::try_from(word).map_err(|error| format!("'{word}' is {error}"))
}

fn commit(word: &str) -> Result<CommitId, String> {
    CommitId::try_from(word).map_err(|error| format!("'{word}' is {error}"))
}

/// Parses the conditions of a swap or rollback, which have one order.
fn conditions(words: &[&str]) -> Result<(Option<Sha256Digest>, Option<ReleaseId>), String> {
    let (digest, rest) = match words {
        ["--sha256", digest, rest @ ..] => (Some(sha256(digest)?), rest),
        _ => (None, words),
    };
    let if_current = match rest {
        [] => None,
        ["--if-current", id] => Some(release(id)?),
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
                if let Some(tree) = &receive.tree {
                    write!(f, " --tree {tree}")?;
                }
                if let Some(base) = &receive.base {
                    write!(f, " --base {base}")?;
                }
                if let Some(commit) = &receive.commit {
                    write!(f, " --commit {commit}")?;
                }
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
            Request::List(List::Table) => f.write_str("list"),
            Request::List(List::Json) => f.write_str("list --json"),
            Request::List(List::Files(release)) => write!(f, "list --files {release}"),
        }
    }
}

#[cfg(test)]
mod tests;
