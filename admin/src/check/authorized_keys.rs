//! Parses a line of an authorized_keys file as sshd does (sshd(8),
//! "AUTHORIZED_KEYS FILE FORMAT"). If sshd understood a line differently, the key
//! would grant something else than `check` reports.
//!
//! Of the key itself only the type, size and fingerprint are read, for every type
//! that sshd knows. `ssh-key` is built here without some of them.

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};
use ssh_key::Fingerprint;

use super::key_options::{KeyOptions, options_end};

/// The types of key that a line can have. sshd accepts no certificate in a line.
const KEY_TYPES: [&str; 8] = [
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
pub struct AuthorizedKey {
    pub options: KeyOptions,
    pub key_type: &'static str,
    /// The size of an RSA or DSA key.
    pub bits: Option<usize>,
    pub fingerprint: Fingerprint,
}

/// Parses a line; `None` if it is empty or a comment. The error is a phrase whose
/// subject is the line.
pub fn parse_key_line(line: &str) -> Option<Result<AuthorizedKey, &'static str>> {
    let line = line.trim_start_matches(SPACES).trim_end();
    (!line.is_empty() && !line.starts_with('#')).then(|| parse_entry(line))
}

const SPACES: [char; 2] = [' ', '\t'];

fn parse_entry(line: &str) -> Result<AuthorizedKey, &'static str> {
    // sshd looks for a key first, and for options only if it finds none.
    if let Some(found) = decode_key(line) {
        return found.map(|(name, blob)| AuthorizedKey::new(KeyOptions::default(), name, &blob));
    }
    let end = options_end(line)?;
    let options = KeyOptions::parse_list(&line[..end])?;
    match decode_key(line[end..].trim_start_matches(SPACES)) {
        Some(found) => found.map(|(name, blob)| AuthorizedKey::new(options, name, &blob)),
        None => Err("has no key of a type that sshd accepts"),
    }
}

/// Decodes the key that `text` starts with to its type and bytes; `None` if
/// `text` does not start with a type.
fn decode_key(text: &str) -> Option<Result<(&'static str, Vec<u8>), &'static str>> {
    let mut words = text.split(SPACES).filter(|word| !word.is_empty());
    let first = words.next()?;
    let key_type = KEY_TYPES.into_iter().find(|known| *known == first)?;
    let mut decode = || {
        // Padded, and without bits after the last byte, as sshd requires.
        let blob = Base64::decode_vec(words.next()?).ok()?;
        let (name, _) = split_string(&blob)?;
        (name == key_type.as_bytes()).then_some((key_type, blob))
    };
    Some(decode().ok_or("has a damaged key"))
}

impl AuthorizedKey {
    fn new(options: KeyOptions, key_type: &'static str, blob: &[u8]) -> AuthorizedKey {
        AuthorizedKey {
            options,
            key_type,
            bits: key_bits(key_type, blob),
            fingerprint: Fingerprint::Sha256(Sha256::digest(blob).into()),
        }
    }
}

/// Splits a length-prefixed string (RFC 4251, section 5) from what follows it.
fn split_string(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// Returns the size of the modulus: RSA's n, DSA's p.
fn key_bits(key_type: &str, blob: &[u8]) -> Option<usize> {
    let after = split_string(blob)?.1;
    let number = match key_type {
        "ssh-rsa" => split_string(split_string(after)?.1)?.0,
        "ssh-dss" => split_string(after)?.0,
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
    fn a_key_is_identified_by_its_fingerprint() {
        let expected = ssh_key::PublicKey::from_openssh(KEY).unwrap();
        for line in [
            KEY.to_owned(),
            format!("  \t{KEY} comment, more \"of it\r\n"),
            KEY.replace(' ', " \t "),
        ] {
            let key = parse_key_line(&line).unwrap().unwrap();
            assert_eq!(
                key.fingerprint,
                expected.fingerprint(ssh_key::HashAlg::Sha256)
            );
            assert_eq!((key.key_type, key.bits), ("ssh-ed25519", None));
            assert_eq!(key.options, KeyOptions::default());
        }
        for none in ["", "  ", "\t\n", "# x", "  # x"] {
            assert!(parse_key_line(none).is_none(), "{none:?}");
        }
    }

    #[test]
    fn lines_that_sshd_skips_are_refused() {
        for bad in [
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
            "ssh-ed25519-cert-v01@openssh.com AAAA",
            "restrict",
            "restrict ssh-ed25519 *",
        ] {
            assert!(parse_key_line(bad).unwrap().is_err(), "{bad}");
        }
    }

    /// Returns an ssh string with its length.
    fn string(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    #[test]
    fn bits_after_the_last_byte_are_refused() {
        let blob = [string(b"ssh-rsa"), string(&[1, 0, 1]), string(&[0x7f; 256])].concat();
        let key = Base64::encode_string(&blob);
        assert!(parse_key_line(&format!("ssh-rsa {key}")).unwrap().is_ok());
        // The last digit has two bits that belong to no byte.
        let digits = key.strip_suffix("8=").unwrap();
        for last in ["9=", "+=", "/=", "8", "8=="] {
            let line = format!("ssh-rsa {digits}{last}");
            assert!(parse_key_line(&line).unwrap().is_err(), "{last}");
        }
    }

    #[test]
    fn sizes_are_in_bits() {
        let mut modulus = vec![0];
        modulus.extend([0xff; 256]);
        let blob = [string(b"ssh-rsa"), string(&[1, 0, 1]), string(&modulus)].concat();
        assert_eq!(key_bits("ssh-rsa", &blob), Some(2048));
        let blob = [string(b"ssh-dss"), string(&[0x7f; 128])].concat();
        assert_eq!(key_bits("ssh-dss", &blob), Some(1023));
        assert_eq!(key_bits("ssh-rsa", &string(b"ssh-rsa")), None);
    }
}
