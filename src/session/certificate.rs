//! Reads which key an OpenSSH certificate certifies, its serial number and its key id
//! (PROTOCOL.certkeys of OpenSSH). `ssh-key` has a parser too, but refuses a
//! certificate that is valid without limit, which ssh-keygen(1) makes by default.

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};
use ssh_key::Fingerprint;

/// The certificate types with the type of the certified key and the number of the
/// key's fields. Each field is a length-prefixed string (RFC 4253, section 6.6).
const TYPES: [(&str, &str, usize); 8] = [
    ("ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519", 1),
    ("ssh-rsa-cert-v01@openssh.com", "ssh-rsa", 2),
    ("ssh-dss-cert-v01@openssh.com", "ssh-dss", 4),
    (
        "ecdsa-sha2-nistp256-cert-v01@openssh.com",
        "ecdsa-sha2-nistp256",
        2,
    ),
    (
        "ecdsa-sha2-nistp384-cert-v01@openssh.com",
        "ecdsa-sha2-nistp384",
        2,
    ),
    (
        "ecdsa-sha2-nistp521-cert-v01@openssh.com",
        "ecdsa-sha2-nistp521",
        2,
    ),
    (
        "sk-ssh-ed25519-cert-v01@openssh.com",
        "sk-ssh-ed25519@openssh.com",
        2,
    ),
    (
        "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        3,
    ),
];

/// What the audit log says about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The fingerprint of the certified key, as sshd logs it.
    pub fingerprint: Fingerprint,
    pub serial: u64,
    /// The bytes that the authority chose, not validated.
    pub key_id: Vec<u8>,
}

/// Parses a line of a certificate's `.pub` file. The caller trusts that sshd verified
/// the signature.
pub fn parse(line: &str) -> Option<Certificate> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    let (_, key_type, fields) = TYPES.into_iter().find(|known| known.0 == name)?;
    let blob = Base64::decode_vec(words.next()?).ok()?;
    let (inner, rest) = split_string(&blob)?;
    if inner != name.as_bytes() {
        return None;
    }
    let (_nonce, key) = split_string(rest)?;
    let mut rest = key;
    for _ in 0..fields {
        rest = split_string(rest)?.1;
    }
    let key = &key[..key.len() - rest.len()];
    let (serial, rest) = rest.split_first_chunk::<8>()?;
    let (_kind, rest) = rest.split_first_chunk::<4>()?;
    let (key_id, _) = split_string(rest)?;
    // The blob of a plain key has the same fields after its type.
    let digest = Sha256::new()
        .chain_update(u32::try_from(key_type.len()).ok()?.to_be_bytes())
        .chain_update(key_type)
        .chain_update(key)
        .finalize();
    Some(Certificate {
        fingerprint: Fingerprint::Sha256(digest.into()),
        serial: u64::from_be_bytes(*serial),
        key_id: key_id.to_owned(),
    })
}

/// Splits a length-prefixed string (RFC 4251, section 5) from what follows it.
fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn keygen(dir: &Path, arguments: &[&str]) -> String {
        let run = Command::new("ssh-keygen")
            .args(arguments)
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(run.status.success(), "{arguments:?}: {run:?}");
        String::from_utf8(run.stdout).unwrap()
    }

    #[test]
    fn the_fingerprint_is_that_of_the_certified_key() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        keygen(dir, &["-q", "-t", "ed25519", "-N", "", "-f", "ca"]);
        for (name, bits) in [
            ("ed25519", "256"),
            ("rsa", "2048"),
            ("ecdsa", "256"),
            ("ecdsa", "384"),
            ("ecdsa", "521"),
        ] {
            let file = &format!("{name}{bits}");
            let make = ["-q", "-t", name, "-b", bits, "-N", "", "-f", file];
            keygen(dir, &make);
            let public = &format!("{file}.pub");
            let sign = [
                "-q",
                "-s",
                "ca",
                "-I",
                "an id",
                "-z",
                "18446744073709551615",
            ];
            keygen(dir, &[&sign[..], &["-n", "x", public]].concat());
            let line = std::fs::read_to_string(dir.join(format!("{file}-cert.pub"))).unwrap();
            let read = parse(&line).unwrap();
            let shown = keygen(dir, &["-l", "-f", public]);
            let print = shown.split(' ').nth(1).unwrap();
            assert_eq!(read.fingerprint.to_string(), print, "{file}");
            assert_eq!((read.serial, &*read.key_id), (u64::MAX, &b"an id"[..]));

            let blob = Base64::decode_vec(line.split(' ').nth(1).unwrap()).unwrap();
            let word = line.split(' ').next().unwrap();
            for end in 0..blob.len() {
                // No cut panics; one behind the key id leaves all that is read.
                let cut = format!("{word} {}", Base64::encode_string(&blob[..end]));
                let found = parse(&cut);
                assert!(found.is_none() || found.as_ref() == Some(&read), "{end}");
            }
        }
    }

    #[test]
    fn other_lines_are_no_certificates() {
        for bad in [
            "",
            "ssh-ed25519-cert-v01@openssh.com",
            "ssh-ed25519-cert-v01@openssh.com evil",
            "ssh-ed25519-cert-v01@openssh.com AAAA",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
