//! `--sha256` of `swap` and `rollback`: the release is the payload that the client
//! names, or nothing happens.

use crate::direct::{ask, everything, live, payload, put, states};
use crate::gating::{log, logging_hooks};
use crate::site::{Site, sha256};

/// Returns `--sha256` and the digest of what the helpers send for `release`.
fn payload_of(release: &str) -> String {
    format!("--sha256 {}", sha256(&payload(release)))
}

/// Asserts that the request is refused because `release` is another payload, that no
/// hook runs, and that nothing changes.
#[track_caller]
fn refused(site: &Site, key: &str, request: &str, release: &str) {
    let before = everything(site);
    let reply = site.ssh(key, request);
    reply.refused(65, "digest-mismatch");
    let expected = format!(
        "deploy-shell: digest-mismatch: release '{release}' is not the payload with that sha256\n\
         compare the sha256 in 'list --json'; receive the payload under a new id\n"
    );
    assert_eq!(reply.stderr, expected, "{request}");
    assert_eq!(log(site), [] as [&str; 0], "{request}: a hook ran");
    assert!(everything(site) == before, "{request}: something changed");
}

#[test]
fn a_swap_takes_only_the_named_payload() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a"]);
    put(&site, "b");
    log(&site);
    let (a, b) = (payload_of("a"), payload_of("b"));
    refused(&site, "ci", &format!("swap b {a}"), "b");
    refused(&site, "ci", &format!("swap b {a} --if-current a"), "b");
    // Also where the release is live and the swap would change nothing.
    refused(&site, "ci", &format!("swap a {b}"), "a");
    assert_eq!(states(&site), ["a current", "b pending"], "no mark");
    site.ssh("ci", &format!("swap b {b} --if-current b"))
        .refused(75, "not-current");
    site.ssh("ci", &format!("swap nowhere {b}"))
        .refused(66, "no-such-release");
    let reply = site.ssh("ci", &format!("swap a {a}"));
    assert_eq!(reply.ok(), "ok swap a result=unchanged\n");
    let reply = site.ssh("ci", &format!("swap b {b} --if-current a"));
    assert_eq!(reply.ok(), "ok swap b previous=a\n");
}

#[test]
fn a_rollback_takes_only_the_named_payload() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a", "b", "c"]);
    log(&site);
    let (a, b) = (payload_of("a"), payload_of("b"));
    // Without an id, the digest is that of the release that a rollback chooses.
    refused(&site, "ci", &format!("rollback {a}"), "b");
    refused(&site, "ci", &format!("rollback {a} --if-current c"), "b");
    refused(&site, "ci", &format!("rollback a {b}"), "a");
    assert_eq!(states(&site)[0], "c current", "no mark");
    let reply = site.ssh("ci", &format!("rollback {b} --if-current c"));
    assert_eq!(reply.ok(), "ok rollback b previous=c\n");
    let reply = site.ssh("ci", &format!("rollback a {a}"));
    assert_eq!(reply.ok(), "ok rollback a previous=b\n");
}

/// An attacker with an upload key receives under the id of the next deploy. The swap
/// of a pipeline that continues after its refused receive publishes nothing.
#[test]
fn an_upload_key_that_takes_an_id_first_does_not_become_live() {
    let site = Site::new();
    live(&site, &["a"]);
    site.add_key("leaked", Some("receive"));
    let stolen = payload("stolen");
    let request = Site::receive_command("next", &stolen);
    site.ssh_with_input("leaked", &request, &stolen).ok();
    site.receive("next", &payload("next"))
        .refused(73, "release-exists");
    let swap = format!("swap next {}", payload_of("next"));
    refused(&site, "ci", &swap, "next");
    assert_eq!(site.current().as_deref(), Some("a"));
}

/// A key without `list` learns only that the digests differ.
#[test]
fn a_swap_key_does_not_learn_the_digest_of_a_release() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    site.add_key("swapper", Some("swap"));
    let swap = format!("swap b {}", payload_of("a"));
    refused(&site, "swapper", &swap, "b");
}

/// The journal and the manifest must agree before either is compared with the request.
#[test]
fn a_changed_manifest_does_not_satisfy_the_condition() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let path = site.root().join(".deploy-shell/manifests/b");
    let text = std::fs::read_to_string(&path).expect("a manifest");
    let (old, new) = (sha256(&payload("b")), sha256(&payload("x")));
    std::fs::remove_file(&path).expect("the manifest can be removed");
    std::fs::write(&path, text.replace(&old, &new)).expect("the manifest can be written");
    for digest in [old, new] {
        ask(&site, &format!("swap b --sha256 {digest}")).refused(65, "digest-mismatch");
    }
}
