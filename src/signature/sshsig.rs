//! One signature in the form of OpenSSH's PROTOCOL.sshsig, to the key that has
//! made it.
//!
//! Ed25519 and ECDSA, each also of a security key. RSA is refused: the library
//! for it has stood under an advisory without a mended version since 2023
//! (RUSTSEC-2023-0071; it concerns private keys, but an exception in every
//! audit of what we depend on is a price that nobody has to pay who can sign
//! with another key).

use base64ct::{Base64, Encoding};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, PublicKey, SshSig};

use crate::names::SignatureText;

/// What the signature must be for: `ssh-keygen -Y sign -n deploy-shell`.
pub const NAMESPACE: &str = "deploy-shell";

/// Characters on a line of the armored form, which ssh-key reads exactly so.
const WIDTH: usize = 70;

/// The flag of a security key that somebody has touched it (PROTOCOL.u2f).
const PRESENT: u8 = 0x01;

/// Flags and counter, which follow the signature proper of a security key.
const SECURITY_KEY_END: usize = 5;

/// The key that has made this signature of `message`.
///
/// Whether that key may sign is another question: anybody can make a key.
///
/// Errors: a phrase, after "signature N".
pub fn verify(text: &SignatureText, message: &[u8]) -> Result<KeyData, String> {
    let signature = read(text)?;
    let key = signature.public_key();
    accept_kind(key)?;
    // The library reads a security key's flags off whatever signature it is
    // given; so it must be one of that kind.
    if signature.algorithm() != key.algorithm() {
        return Err("is of another kind than its key".to_owned());
    }
    if signature.version() != SshSig::VERSION {
        return Err("is of a version that is not known".to_owned());
    }
    if signature.namespace() != NAMESPACE {
        let shown = crate::escape::escape(signature.namespace().as_bytes());
        let shown = crate::escape::truncate(&shown, 60);
        return Err(format!("is for '{shown}', not for '{NAMESPACE}'"));
    }
    if !signature.reserved().is_empty() {
        return Err("has something in its reserved field".to_owned());
    }
    if !present(key, signature.signature_bytes()) {
        return Err("was made by a security key that nobody touched".to_owned());
    }
    PublicKey::from(key.clone())
        .verify(NAMESPACE, message, &signature)
        .map_err(|_| "is not of this site, release and payload".to_owned())?;
    Ok(key.clone())
}

/// Reads the base64 body of an armored signature, exactly.
fn read(text: &SignatureText) -> Result<SshSig, String> {
    let mut pem = String::from("-----BEGIN SSH SIGNATURE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // The text is ASCII by its type.
        let (line, after) = rest.split_at(rest.len().min(WIDTH));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END SSH SIGNATURE-----\n");
    let signature = SshSig::from_pem(&pem).map_err(|_| "cannot be read as one".to_owned())?;
    // The library passes over some lengths (that of an Ed25519 key); so what it
    // has read must be all there was, in the one form there is.
    match encode(&signature).as_deref() == Some(text.as_str()) {
        true => Ok(signature),
        false => Err("is not in its one exact form".to_owned()),
    }
}

/// The signature in its exact form: PROTOCOL.sshsig, and for security keys
/// PROTOCOL.u2f, whose flags and counter stand behind the inner signature (the
/// library's own writer has them inside it for ECDSA).
fn encode(signature: &SshSig) -> Option<String> {
    let key = signature.public_key();
    let raw = signature.signature_bytes();
    let end = match key {
        KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => SECURITY_KEY_END,
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

/// A string of RFC 4251, section 5.
fn put_string(blob: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    let length = u32::try_from(bytes.len()).ok()?;
    blob.extend_from_slice(&length.to_be_bytes());
    blob.extend_from_slice(bytes);
    Some(())
}

fn accept_kind(key: &KeyData) -> Result<(), String> {
    match key {
        KeyData::Ed25519(_)
        | KeyData::SkEd25519(_)
        | KeyData::Ecdsa(_)
        | KeyData::SkEcdsaSha2NistP256(_) => Ok(()),
        _ => {
            let kind = match key.algorithm() {
                Algorithm::Rsa { .. } => "RSA".to_owned(),
                Algorithm::Dsa => "DSA".to_owned(),
                other => {
                    crate::escape::truncate(&crate::escape::escape(other.as_str().as_bytes()), 60)
                }
            };
            Err(format!(
                "is by a key of a kind that is not taken here, {kind}; sign with Ed25519 or ECDSA"
            ))
        }
    }
}

/// Whether somebody was there, as far as the kind of key can tell. `ssh-keygen
/// -Y verify` does not ask, sshd does; here nobody is to publish anything with a
/// key that only happens to be plugged in.
fn present(key: &KeyData, signature: &[u8]) -> bool {
    match key {
        KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => signature
            .len()
            .checked_sub(SECURITY_KEY_END)
            .and_then(|at| signature.get(at))
            .is_some_and(|flags| flags & PRESENT != 0),
        _ => true,
    }
}
