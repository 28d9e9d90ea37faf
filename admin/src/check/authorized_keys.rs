//! One line of an authorized_keys file, read as sshd reads it (sshd(8),
//! "AUTHORIZED_KEYS FILE FORMAT"): where sshd would take a line for something
//! else than we do, a thief would get something else than we say.
//!
//! The key itself is only looked at as far as its kind, size and fingerprint
//! go, for every kind that sshd knows; `ssh-key` is built here without some.

use sha2::{Digest, Sha256};
use ssh_key::Fingerprint;

use super::key_options::{self, Options};

/// The kinds of key a line can have. A certificate never stands in one.
const KINDS: [&str; 8] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

#[derive(Clone, Debug)]
pub struct KeyLine {
    pub options: Options,
    pub kind: &'static str,
    /// Of an RSA or DSA key.
    pub bits: Option<usize>,
    pub fingerprint: Fingerprint,
}

/// Reads a line; none if it is empty or a comment. The error is a phrase.
pub fn read(line: &str) -> Option<Result<KeyLine, &'static str>> {
    let line = line.trim_start_matches(BLANKS).trim_end();
    (!line.is_empty() && !line.starts_with('#')).then(|| read_key(line))
}

const BLANKS: [char; 2] = [' ', '\t'];

fn read_key(line: &str) -> Result<KeyLine, &'static str> {
    // sshd looks for a key first, and for options only if there is none.
    if let Some(found) = key(line) {
        return found.map(|(kind, blob)| KeyLine::new(Options::default(), kind, &blob));
    }
    let end = key_options::end(line)?;
    let options = Options::read(&line[..end])?;
    match key(line[end..].trim_start_matches(BLANKS)) {
        Some(found) => found.map(|(kind, blob)| KeyLine::new(options, kind, &blob)),
        None => Err("has no key of a kind that sshd takes"),
    }
}

/// The kind and the bytes of the key that `text` starts with; none if it does
/// not start with a kind.
fn key(text: &str) -> Option<Result<(&'static str, Vec<u8>), &'static str>> {
    let mut words = text.split(BLANKS).filter(|word| !word.is_empty());
    let first = words.next()?;
    let kind = KINDS.into_iter().find(|kind| *kind == first)?;
    let mut read = || {
        let blob = base64(words.next()?)?;
        (string(&blob)?.0 == kind.as_bytes()).then_some((kind, blob))
    };
    Some(read().ok_or("has a key that is damaged"))
}

impl KeyLine {
    fn new(options: Options, kind: &'static str, blob: &[u8]) -> KeyLine {
        KeyLine {
            options,
            kind,
            bits: bits(kind, blob),
            fingerprint: Fingerprint::Sha256(Sha256::digest(blob).into()),
        }
    }
}

/// Base64 with its padding (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if digits.is_empty() || !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut held, mut bits) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

/// A length-prefixed string of a key (RFC 4251, section 5), and what follows.
fn string(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// The size of the number that counts: RSA's n, DSA's p.
fn bits(kind: &str, blob: &[u8]) -> Option<usize> {
    let after = string(blob)?.1;
    let number = match kind {
        "ssh-rsa" => string(string(after)?.1)?.0,
        "ssh-dss" => string(after)?.0,
        _ => return None,
    };
    let start = number.iter().position(|byte| *byte != 0)?;
    Some((number.len() - start) * 8 - number[start].leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_key_is_known_by_its_fingerprint() {
        let expected = ssh_key::PublicKey::from_openssh(KEY).unwrap();
        for line in [
            KEY.to_owned(),
            format!("  \t{KEY} comment, more \"of it\r\n"),
            KEY.replace(' ', " \t "),
        ] {
            let key = read(&line).unwrap().unwrap();
            assert_eq!(
                key.fingerprint,
                expected.fingerprint(ssh_key::HashAlg::Sha256)
            );
            assert_eq!((key.kind, key.bits), ("ssh-ed25519", None));
            assert_eq!(key.options, Options::default());
        }
        for none in ["", "  ", "\t\n", "# x", "  # x"] {
            assert!(read(none).is_none(), "{none:?}");
        }
    }

    #[test]
    fn what_sshd_skips_is_not_read() {
        for bad in [
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
            "ssh-ed25519-cert-v01@openssh.com AAAA",
            "restrict",
            "restrict ssh-ed25519 *",
        ] {
            assert!(read(bad).unwrap().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_in_bits() {
        let number = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        let mut modulus = vec![0];
        modulus.extend([0xff; 256]);
        let blob = [number(b"ssh-rsa"), number(&[1, 0, 1]), number(&modulus)].concat();
        assert_eq!(bits("ssh-rsa", &blob), Some(2048));
        let blob = [number(b"ssh-dss"), number(&[0x7f; 128])].concat();
        assert_eq!(bits("ssh-dss", &blob), Some(1023));
        assert_eq!(bits("ssh-rsa", &number(b"ssh-rsa")), None);
    }
}
