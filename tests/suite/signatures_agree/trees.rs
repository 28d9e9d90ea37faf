//! Statements of version 2, which name the tree, beside those of version 1.

use deploy_shell::names::{ReleaseId, Sha256Digest, SignatureText, SiteName};
use deploy_shell::signature::{AllowedSigners, Requirement, Signable, Signed, TimeZone};

use super::{HEX, RELEASE};
use crate::signing::{Key, key, one_line, ssh_keygen_accepts, statement, tree_statement};

const TREE: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn digest(hex: &str) -> Sha256Digest {
    Sha256Digest::try_from(hex).unwrap()
}

/// Returns what a request with this payload, tree and base lets a signature name.
fn signable(tree: Option<&str>, base: Option<&str>) -> Signable {
    let base = base.map(|base| ReleaseId::try_from(base).unwrap());
    Signable::of_request(digest(HEX), tree.map(digest), base.as_ref())
}

fn check(
    keys: &[&Key],
    threshold: usize,
    signable: Signable,
    signatures: &[String],
) -> Result<Signed, String> {
    let lines: Vec<String> = keys
        .iter()
        .map(|key| format!("blog {}\n", key.public))
        .collect();
    let signers = AllowedSigners::parse(&lines.concat(), &TimeZone::UTC).unwrap();
    let signatures: Vec<SignatureText> = (signatures.iter())
        .map(|armored| SignatureText::try_from(one_line(armored).as_str()).unwrap())
        .collect();
    let site = SiteName::try_from("blog").unwrap();
    let release = ReleaseId::try_from(RELEASE).unwrap();
    Requirement::new(signers, threshold).check(&site, &release, signable, &signatures)
}

fn sign(key: &Key, text: &str) -> String {
    key.sign("deploy-shell", text)
}

#[test]
fn a_signature_of_the_tree_counts_for_its_site_release_and_tree_only() {
    let alice = key("ed25519/alice");
    let right = tree_statement("blog", RELEASE, TREE);
    let signature = sign(&alice, &right);
    let dir = tempfile::tempdir().unwrap();
    let signers = format!("blog {}\n", alice.public);
    assert!(ssh_keygen_accepts(
        dir.path(),
        "UTC0",
        &signers,
        &signature,
        &right
    ));
    for base in [None, Some("b")] {
        let signed = check(
            &[&alice],
            1,
            signable(Some(TREE), base),
            std::slice::from_ref(&signature),
        );
        assert!(!signed.unwrap().covers_payload());
    }
    for (text, what) in [
        (tree_statement("shop", RELEASE, TREE), "another site"),
        (tree_statement("blog", "r2", TREE), "another release"),
        (
            tree_statement("blog", RELEASE, HEX),
            "the payload as the tree",
        ),
        (statement("blog", RELEASE, TREE), "the tree as the payload"),
        (right.replace("v2", "v1"), "version 1 with a tree"),
        (
            statement("blog", RELEASE, HEX).replace("v1", "v2"),
            "version 2 with a payload",
        ),
        (right.trim_end().to_owned(), "no line feed at the end"),
        (
            format!("{}sha256 {HEX}\n", right),
            "the tree and the payload in one statement",
        ),
    ] {
        let error = check(
            &[&alice],
            1,
            signable(Some(TREE), None),
            &[sign(&alice, &text)],
        );
        let error = error.expect_err(what);
        assert!(
            error.contains("not of this site, release and payload or tree"),
            "{error}"
        );
    }
}

/// A client that names no tree promises none, so a signature of it proves nothing.
#[test]
fn a_signature_of_the_tree_needs_a_request_that_names_it() {
    let alice = key("ed25519/alice");
    for hex in [TREE, HEX] {
        let signature = sign(&alice, &tree_statement("blog", RELEASE, hex));
        let error = check(&[&alice], 1, signable(None, None), &[signature]).unwrap_err();
        assert!(
            error.ends_with("not of this site, release and payload"),
            "{error}"
        );
    }
}

/// The same changes give other content with another base.
#[test]
fn a_signature_of_the_payload_of_a_delta_does_not_count() {
    let alice = key("ed25519/alice");
    let payload = sign(&alice, &statement("blog", RELEASE, HEX));
    let tree = sign(&alice, &tree_statement("blog", RELEASE, TREE));
    let delta = || signable(Some(TREE), Some("b"));
    let error = check(&[&alice], 1, delta(), std::slice::from_ref(&payload)).unwrap_err();
    assert!(
        error.contains("not of this site, release and tree"),
        "{error}"
    );
    let signed = check(&[&alice], 1, delta(), &[payload.clone(), tree.clone()]).unwrap();
    assert!(!signed.covers_payload());
    assert_eq!(signed.signatures().len(), 1, "the other is not kept");
    assert_eq!(signed.signatures()[0].as_str(), one_line(&tree));
}

#[test]
fn both_statements_reach_a_threshold_together_and_cover_the_payload_apart() {
    let (alice, bob) = (key("ed25519/alice"), key("ecdsa-256/bob"));
    let v1 = |key: &Key| sign(key, &statement("blog", RELEASE, HEX));
    let v2 = |key: &Key| sign(key, &tree_statement("blog", RELEASE, TREE));
    let both = || signable(Some(TREE), None);
    let (a1, a2, b1, b2) = (v1(&alice), v2(&alice), v1(&bob), v2(&bob));
    for (signatures, covers_payload, kept) in [
        (vec![&a1, &b1], true, 2),
        (vec![&a1, &b2], false, 2),
        (vec![&a2, &b2], false, 2),
        (vec![&a2, &a1, &b1], true, 3),
        (vec![&a2, &b1, &b2], false, 3),
        (vec![&a1, &a2, &b2, &b1], true, 4),
    ] {
        let signatures: Vec<String> = signatures.into_iter().cloned().collect();
        let signed = check(&[&alice, &bob], 2, both(), &signatures).unwrap();
        assert_eq!(signed.covers_payload(), covers_payload);
        assert_eq!(signed.signatures().len(), kept);
        assert_eq!(
            signed.to_string().split(',').count(),
            2,
            "a signer counts once"
        );
    }
    for (signatures, reason) in [
        (vec![&a1, &a2], "1 of 2 signers"),
        (vec![&a2, &a2], "second one by the same key"),
    ] {
        let signatures: Vec<String> = signatures.into_iter().cloned().collect();
        let error = check(&[&alice, &bob], 2, both(), &signatures).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    // One of two signers, and the threshold is one: the payload needs one of its own.
    let signed = check(&[&alice, &bob], 1, both(), &[a2, b1]).unwrap();
    assert!(signed.covers_payload());
}
