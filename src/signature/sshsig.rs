//! Verifies one signature in the format of OpenSSH's PROTOCOL.sshsig and returns
//! its key.
//!
//! Ed25519 and ECDSA are accepted, also with a security key. RSA is rejected: its
//! library has had an advisory without a fixed version since 2023
//! (RUSTSEC-2023-0071). The advisory concerns private keys, but it would need an
//! exception in every audit of our dependencies, and every signer can use another
//! kind of key.

use base64ct::{Base64, Encoding};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, PublicKey, SshSig};

use crate::escape::escape_truncated;
use crate::names::SignatureText;

/// The namespace of our signatures: `ssh-keygen -Y sign -n deploy-shell`.
pub const NAMESPACE: &str = "deploy-shell";

/// The line length of the armored form that ssh-key accepts.
const WIDTH: usize = 70;

/// The flag by which a security key reports that a person touched it (PROTOCOL.u2f).
const USER_PRESENT: u8 = 0x01;

/// The length of the flags and counter after a security key's signature.
const SECURITY_KEY_TAIL: usize = 5;

/// Returns the key that made this signature, and which of the statements it is of; `what`
/// names their digests in a message.
///
/// The caller must check that the key is an allowed signer: anybody can make a
/// key.
///
/// # Errors
///
/// Returns a phrase that follows "signature N".
pub fn verify_signature<T: Copy>(
    text: &SignatureText,
    statements: &[(T, String)],
    what: &str,
) -> Result<(KeyData, T), String> {
    let signature = parse_signature(text)?;
    let key = signature.public_key();
    check_key_kind(key)?;
    // The library reads a security key's flags from any signature, so check that
    // the signature is of the key's kind.
    if signature.algorithm() != key.algorithm() {
        return Err("is of another kind than its key".to_owned());
    }
    if signature.version() != SshSig::VERSION {
        return Err("is of an unknown version".to_owned());
    }
    if signature.namespace() != NAMESPACE {
        let shown = escape_truncated(signature.namespace().as_bytes(), 60);
        return Err(format!("is for '{shown}', not for '{NAMESPACE}'"));
    }
    if !signature.reserved().is_empty() {
        return Err("has something in its reserved field".to_owned());
    }
    if !has_user_presence(key, signature.signature_bytes()) {
        return Err("was made by a security key that nobody touched".to_owned());
    }
    let public = PublicKey::from(key.clone());
    let mut statements = statements.iter();
    let is_signed = |(_, text): &&(T, String)| {
        let verified = public.verify(NAMESPACE, text.as_bytes(), &signature);
        verified.is_ok()
    };
    match statements.find(is_signed) {
        Some((statement, _)) => Ok((key.clone(), *statement)),
        None => Err(format!("is not of this site, release and {what}")),
    }
}

/// Parses the base64 body of an armored signature, and accepts only one spelling.
fn parse_signature(text: &SignatureText) -> Result<SshSig, String> {
    let mut pem = String::from("-----BEGIN SSH SIGNATURE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // SignatureText is ASCII, so any index is a character boundary.
        let (line, after) = rest.split_at(rest.len().min(WIDTH));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END SSH SIGNATURE-----\n");
    let signature =
        SshSig::from_pem(&pem).map_err(|_| "cannot be read as a signature".to_owned())?;
    // The library ignores some lengths (that of an Ed25519 key). Encoding again
    // shows that it has parsed every byte, and that the spelling is the only one.
    if encode_signature(&signature).as_deref() == Some(text.as_str()) {
        Ok(signature)
    } else {
        Err("is not in its one exact form".to_owned())
    }
}

/// Encodes the signature in its exact form: PROTOCOL.sshsig, and for security keys
/// PROTOCOL.u2f, with the flags and the counter after the inner signature. (The
/// library's own encoder puts them inside it for ECDSA.)
fn encode_signature(signature: &SshSig) -> Option<String> {
    let key = signature.public_key();
    let raw = signature.signature_bytes();
    let end = match key {
        KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => SECURITY_KEY_TAIL,
        _ => 0,
    };
    let (raw, end) = raw.split_at(raw.len().checked_sub(end)?);
    let mut inner = Vec::new();
    put_string(&mut inner, signature.algorithm().as_str().as_bytes())?;
    put_string(&mut inner, raw)?;
    inner.extend_from_slice(end);
    let mut blob = b"SSHSIG".to_vec();
    blob.extend_from_slice(&signature.version().to_be_bytes());
    put_string(&mut blob, &PublicKey::from(key.clone()).to_bytes().ok()?)?;
    put_string(&mut blob, signature.namespace().as_bytes())?;
    put_string(&mut blob, signature.reserved())?;
    put_string(&mut blob, signature.hash_alg().as_str().as_bytes())?;
    put_string(&mut blob, &inner)?;
    Some(Base64::encode_string(&blob))
}

/// Appends a string as in RFC 4251, section 5.
fn put_string(blob: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    let length = u32::try_from(bytes.len()).ok()?;
    blob.extend_from_slice(&length.to_be_bytes());
    blob.extend_from_slice(bytes);
    Some(())
}

fn check_key_kind(key: &KeyData) -> Result<(), String> {
    match key {
        KeyData::Ed25519(_)
        | KeyData::SkEd25519(_)
        | KeyData::Ecdsa(_)
        | KeyData::SkEcdsaSha2NistP256(_) => Ok(()),
        _ => {
            let kind = match key.algorithm() {
                Algorithm::Rsa { .. } => "RSA".to_owned(),
                Algorithm::Dsa => "DSA".to_owned(),
                other => escape_truncated(other.as_str().as_bytes(), 60),
            };
            Err(format!(
                "is by a key of the unsupported kind {kind}; sign with Ed25519 or ECDSA"
            ))
        }
    }
}

/// Returns whether a person touched the security key; true for other keys.
///
/// `ssh-keygen -Y verify` does not check this, sshd does. A security key that is
/// merely plugged in must not be enough to publish a release.
fn has_user_presence(key: &KeyData, signature: &[u8]) -> bool {
    match key {
        KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => signature
            .len()
            .checked_sub(SECURITY_KEY_TAIL)
            .and_then(|at| signature.get(at))
            .is_some_and(|flags| flags & USER_PRESENT != 0),
        _ => true,
    }
}
