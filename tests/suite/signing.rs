//! Keys and signatures as `ssh-keygen` makes them, and some that it would not make.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use signature::Signer;
use ssh_key::public::{KeyData, SkEcdsaSha2NistP256, SkEd25519};
use ssh_key::{HashAlg, PrivateKey, PublicKey, SshSig};
use tempfile::TempDir;

use crate::site::sha256;

/// A key pair, made once for the whole run. The part of its name before the `/` is
/// the kind (`ed25519/alice`, `ecdsa-384/bob`, `rsa-2048/carol`).
#[derive(Clone, Debug)]
pub struct Key {
    pub path: PathBuf,
    /// `KIND BASE64`, without a comment.
    pub public: String,
}

pub fn key(name: &str) -> Key {
    static KEYS: OnceLock<(TempDir, Mutex<BTreeMap<String, Key>>)> = OnceLock::new();
    let (dir, keys) = KEYS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        (dir, Mutex::default())
    });
    let mut keys = keys.lock().expect("no test panics here");
    let make = || {
        let path = dir.path().join(name.replace('/', "-"));
        let (kind, _) = name.split_once('/').expect("KIND/NAME");
        let (kind, bits) = kind.split_once('-').unwrap_or((kind, "256"));
        // One in 256 ECDSA secrets is a byte shorter, and the library that replaces
        // a security key here does not read it. Make another one then.
        loop {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", kind, "-b", bits, "-N", "", "-C", name, "-f"])
                .arg(&path)
                .stdin(Stdio::null())
                .status();
            assert!(made.expect("ssh-keygen starts").success());
            if kind != "ecdsa" || PrivateKey::read_openssh_file(&path).is_ok() {
                break;
            }
            fs::remove_file(&path).expect("it was made");
        }
        let line = fs::read_to_string(path.with_extension("pub")).expect("the public key");
        let words: Vec<&str> = line.split(' ').take(2).collect();
        let public = words.join(" ");
        Key { path, public }
    };
    keys.entry(name.to_owned()).or_insert_with(make).clone()
}

impl Key {
    /// Returns the armored signature of `text` by `ssh-keygen -Y sign`.
    pub fn sign(&self, namespace: &str, text: &str) -> String {
        self.sign_with(namespace, text, &[])
    }

    pub fn sign_with(&self, namespace: &str, text: &str, options: &[&str]) -> String {
        let mut child = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", namespace, "-f"])
            .arg(&self.path)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("ssh-keygen starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, text.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("ssh-keygen ends");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    }

    /// Returns the release's signature as a client sends it.
    pub fn signature(&self, site: &str, release: &str, payload: &[u8]) -> String {
        let text = statement(site, release, &sha256(payload));
        one_line(&self.sign("deploy-shell", &text))
    }

    /// Uses this key's secret as a security key would, with these flags. Returns
    /// the public line and the armored signature.
    pub fn as_security_key(&self, flags: u8, text: &str) -> (String, String) {
        let private = PrivateKey::read_openssh_file(&self.path).expect("a private key");
        let application = "ssh:";
        let (public, algorithm) = match private.public_key().key_data() {
            KeyData::Ed25519(key) => (
                KeyData::SkEd25519(SkEd25519::new(*key, application)),
                "sk-ssh-ed25519@openssh.com",
            ),
            KeyData::Ecdsa(ssh_key::public::EcdsaPublicKey::NistP256(key)) => (
                KeyData::SkEcdsaSha2NistP256(SkEcdsaSha2NistP256::new(*key, application)),
                "sk-ecdsa-sha2-nistp256@openssh.com",
            ),
            other => panic!("no security key has the kind of {other:?}"),
        };
        let signed = SshSig::signed_data("deploy-shell", HashAlg::Sha512, text.as_bytes());
        let mut end = vec![flags];
        end.extend(7u32.to_be_bytes());
        let answer = [
            digest(application.as_bytes()),
            end.clone(),
            digest(&signed.expect("data")),
        ]
        .concat();
        let raw = private.key_data().try_sign(&answer).expect("a signature");
        let signature = [string(algorithm.as_bytes()), string(raw.as_bytes()), end].concat();
        let public = PublicKey::from(public);
        let blob = sshsig(
            &public.to_bytes().expect("a key"),
            "deploy-shell",
            b"",
            &signature,
        );
        let line = public.to_openssh().expect("a line");
        (line.trim_end().to_owned(), armor(&blob))
    }
}

pub fn statement(site: &str, release: &str, sha256: &str) -> String {
    format!("deploy-shell release v1\nsite {site}\nrelease {release}\nsha256 {sha256}\n")
}

pub fn tree_statement(site: &str, release: &str, tree: &str) -> String {
    format!("deploy-shell release v2\nsite {site}\nrelease {release}\ntree {tree}\n")
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).to_vec()
}

/// An RFC 4251 string.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes(), bytes].concat()
}

/// Returns a blob as in PROTOCOL.sshsig.
pub fn sshsig(key: &[u8], namespace: &str, reserved: &[u8], signature: &[u8]) -> Vec<u8> {
    [
        b"SSHSIG\0\0\0\x01".to_vec(),
        string(key),
        string(namespace.as_bytes()),
        string(reserved),
        string(b"sha512"),
        string(signature),
    ]
    .concat()
}

const HEAD: &str = "-----BEGIN SSH SIGNATURE-----\n";
const FOOT: &str = "-----END SSH SIGNATURE-----\n";
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Returns the result of the README's `sed` and `tr`.
pub fn one_line(armored: &str) -> String {
    armored
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect()
}

pub fn armor_line(line: &str) -> String {
    let lines: Vec<String> = line
        .as_bytes()
        .chunks(70)
        .map(|chunk| format!("{}\n", String::from_utf8_lossy(chunk)))
        .collect();
    format!("{HEAD}{}{FOOT}", lines.concat())
}

/// Returns base64 (RFC 4648) in lines of 70 between OpenSSH's begin and end lines.
pub fn armor(blob: &[u8]) -> String {
    let mut line = String::new();
    for chunk in blob.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                line.push(DIGITS[(bits >> (18 - 6 * place) & 63) as usize] as char);
            } else {
                line.push('=');
            }
        }
    }
    armor_line(&line)
}

pub fn dearmor(armored: &str) -> Vec<u8> {
    let mut blob = Vec::new();
    let line = one_line(armored);
    for chunk in line.trim_end_matches('=').as_bytes().chunks(4) {
        let value = |byte: &u8| {
            DIGITS
                .iter()
                .position(|digit| digit == byte)
                .expect("base64")
        };
        let bits = chunk.iter().fold(0, |bits, byte| bits << 6 | value(byte));
        let bits = bits << (6 * (4 - chunk.len()));
        blob.extend((1..chunk.len()).map(|place| (bits >> (24 - 8 * place)) as u8));
    }
    blob
}

/// Runs `ssh-keygen -Y verify` in `dir` with this time zone and returns its
/// decision.
pub fn ssh_keygen_accepts(
    dir: &Path,
    zone: &str,
    signers: &str,
    armored: &str,
    text: &str,
) -> bool {
    ssh_keygen_accepts_at(dir, zone, signers, armored, text, None)
}

/// As [`ssh_keygen_accepts`], at another time than now.
pub fn ssh_keygen_accepts_at(
    dir: &Path,
    zone: &str,
    signers: &str,
    armored: &str,
    text: &str,
    time: Option<&str>,
) -> bool {
    let time = time.map(|time| ["-O".to_owned(), format!("verify-time={time}")]);
    fs::write(dir.join("signers"), signers).expect("written");
    fs::write(dir.join("statement.sig"), armored).expect("written");
    fs::write(dir.join("statement"), text).expect("written");
    let input = fs::File::open(dir.join("statement")).expect("it is there");
    Command::new("ssh-keygen")
        .args(["-Y", "verify", "-n", "deploy-shell", "-I", "blog"])
        .args(["-f", "signers", "-s", "statement.sig"])
        .args(time.iter().flatten())
        .current_dir(dir)
        .env("TZ", zone)
        .stdin(input)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("ssh-keygen starts")
        .success()
}
