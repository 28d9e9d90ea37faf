//! `authorize`: prints the authorized_keys line that limits a public key to a site
//! and to verbs (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").

use std::io::Read;
use std::path::Path;

use ssh_key::{Algorithm, PublicKey};

use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::names::KeyLabel;
use deploy_shell::policy::Grants;

/// The maximum size of a public key file, in bytes.
const MAX_KEY: u64 = 16 * 1024;

/// Returns the line for the key in `public`, or on standard input.
///
/// # Errors
///
/// [`Code::BadConfig`] when the site's configuration does not load,
/// [`Code::BadRequest`] when the input is not exactly one plain public key.
pub fn authorize(
    config: &Path,
    label: &KeyLabel,
    allow: Option<Grants>,
    public: Option<&Path>,
) -> Result<Vec<String>> {
    // With a configuration that does not load, every request would fail.
    Config::load(config)?;
    let key = read_public_key(public)?;
    let program = crate::program::deploy_shell()?;
    let mut command = format!(
        "{} serve --config {} --key {label}",
        command_word(&program)?,
        command_word(config)?
    );
    if let Some(allow) = allow {
        command.push_str(&format!(" --allow {allow}"));
    }
    Ok(vec![format!("restrict,command=\"{command}\" {key}")])
}

/// Returns a path as one word of the command. A shell and sshd both read the line,
/// so a path may only contain characters that neither interprets.
fn command_word(path: &Path) -> Result<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@,".contains(&byte);
    path.to_str()
        .filter(|text| text.starts_with('/') && text.bytes().all(plain))
        .ok_or_else(|| {
            Error::new(
                Code::BadConfig,
                format!("'{}' cannot be part of a forced command", path.display()),
            )
            .remedy("use an absolute path of letters, digits and '/._-+@,'")
        })
}

fn read_public_key(public: Option<&Path>) -> Result<String> {
    let shown = public.map_or("standard input".into(), Path::to_string_lossy);
    let mut bytes = Vec::new();
    let read = match public {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_KEY + 1).read_to_end(&mut bytes)),
        None => std::io::stdin()
            .lock()
            .take(MAX_KEY + 1)
            .read_to_end(&mut bytes),
    };
    read.map_err(|error| Error::io(format!("cannot read '{shown}'"), error))?;
    let bad = |problem: &str| {
        Error::new(Code::BadRequest, format!("'{shown}' {problem}"))
            .remedy("give the one line of a .pub file: TYPE BASE64 COMMENT")
    };
    if bytes.len() as u64 > MAX_KEY {
        return Err(bad("is larger than a public key"));
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("is not text"))?;
    if text.contains("PRIVATE KEY") {
        return Err(bad("is a private key"));
    }
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(bad("is not a single line"));
    };
    normalize_key(line).map_err(bad)
}

/// Parses `TYPE BASE64 COMMENT` and writes it again from the parsed key, so that the
/// line contains nothing else.
fn normalize_key(line: &str) -> std::result::Result<String, &'static str> {
    let line = line.trim();
    // The parser takes an option before the type ('command="…"', 'no-pty') for the
    // type, and refuses it.
    let mut key =
        PublicKey::from_openssh(line).map_err(|_| "is not a public key without options")?;
    match key.algorithm() {
        Algorithm::Ed25519
        | Algorithm::SkEd25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::SkEcdsaSha2NistP256
        | Algorithm::Rsa { .. } => {}
        _ => return Err("is a key of a type that is not accepted"),
    }
    let comment = key.comment();
    if !comment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err("has a comment that is not printable ASCII");
    }
    let comment = comment.to_owned();
    key.set_comment(comment);
    key.to_openssh().map_err(|_| "cannot be written again")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn one_plain_key_is_accepted() {
        assert_eq!(normalize_key(KEY).unwrap(), KEY);
        let commented = format!("{KEY} ci@example.com runner 7");
        assert_eq!(normalize_key(&commented).unwrap(), commented);
    }

    #[test]
    fn text_around_a_key_is_refused() {
        for bad in [
            format!("no-pty {KEY}"),
            format!("command=\"/bin/sh\" {KEY}"),
            format!("cert-authority {KEY}"),
            format!("{KEY} \u{1b}[31m"),
            KEY[..40].to_owned(),
            "ssh-dss AAAAB3NzaC1kc3MAAAAA".to_owned(),
            "# comment".to_owned(),
        ] {
            assert!(normalize_key(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_that_a_shell_interprets_are_refused() {
        assert!(command_word(Path::new("/etc/deploy-shell/blog.toml")).is_ok());
        for bad in ["/a b", "/a\"b", "/a$b", "/a;b", "a", "/a'b", "/a\\b"] {
            assert!(command_word(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
