//! Signed releases through the real program: which are refused before a byte is
//! read, which signatures are kept, and what a swap checks again.

mod floor;

use std::fs;

use crate::direct::{ask, everything, held_open, payload, put, record, serve};
use crate::signing::{Key, key, one_line, statement, tree_statement};
use crate::site::{Reply, Site, sha256, write_file};

const SIGNED: &str = "[signatures]\nallowed_signers = \"{dir}/signers\"\n";

/// Returns a site that requires signatures of these signers.
fn site(signers: &[&Key]) -> Site {
    site_with("", SIGNED, signers)
}

fn site_with(top: &str, signatures: &str, signers: &[&Key]) -> Site {
    let site = Site::with_config(&format!("{top}{signatures}"));
    allow(&site, signers);
    site
}

fn allow(site: &Site, signers: &[&Key]) {
    let lines: Vec<String> = signers
        .iter()
        .map(|key| format!("blog {}\n", key.public))
        .collect();
    write_signers(site, &lines.concat());
}

fn write_signers(site: &Site, text: &str) {
    write_file(&site.dir().join("signers"), 0o644, text.as_bytes());
}

/// Replaces a string in the configuration.
fn reconfigure(site: &Site, from: &str, to: &str) {
    let text = fs::read_to_string(site.config_path()).expect("a configuration");
    assert!(text.contains(from), "{text}");
    write_file(
        site.config_path(),
        0o644,
        text.replacen(from, to, 1).as_bytes(),
    );
}

fn request(release: &str, signatures: &[String]) -> String {
    let mut request = Site::receive_command(release, &payload(release));
    for signature in signatures {
        request += &format!(" --signature {signature}");
    }
    request
}

fn send(site: &Site, release: &str, signatures: &[String]) -> Reply {
    let request = request(release, signatures);
    site.run(serve(site, "ci", request), &payload(release))
}

/// Receives a release with the signatures of these signers.
#[track_caller]
fn put_signed(site: &Site, release: &str, signers: &[&Key]) {
    let signatures: Vec<String> = signers
        .iter()
        .map(|key| key.signature("blog", release, &payload(release)))
        .collect();
    send(site, release, &signatures).ok();
}

/// Checks that the request is refused and changes nothing.
#[track_caller]
fn refused(site: &Site, request: &str, code: i32, word: &str, reason: &str) {
    let before = everything(site);
    let reply = ask(site, request);
    reply.refused(code, word);
    assert!(reply.stderr.contains(reason), "{reply:?}");
    assert!(everything(site) == before, "{request} changed something");
}

#[test]
fn a_signed_release_becomes_live_and_its_signer_is_logged() {
    let (alice, bob) = (key("ed25519/alice"), key("ecdsa-256/bob"));
    let site = site(&[&alice, &bob]);
    for (release, signer) in [("a", &alice), ("b", &bob)] {
        let payload = payload(release);
        let signature = signer.signature("blog", release, &payload);
        let request = request(release, std::slice::from_ref(&signature));
        site.ssh_with_input("ci", &request, &payload).ok();
        site.ssh("ci", &format!("swap {release}")).ok();
        assert_eq!(site.current().as_deref(), Some(release));
        let manifest = site.root().join(".deploy-shell/manifests").join(release);
        let manifest = fs::read_to_string(manifest).expect("a manifest");
        assert!(manifest.contains(&format!("\n# signature {signature}\n# received ")));
    }
    site.ssh("ci", "rollback").ok();
    let print = |key: &Key| {
        let key = ssh_key::PublicKey::from_openssh(&key.public).expect("a key");
        key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
    };
    let signed_by: Vec<String> = record(&site)
        .iter()
        .filter(|line| line.contains("event=\"result\""))
        .map(|line| {
            let after = line.split("signed_by=\"").nth(1).expect("a field");
            after.split('"').next().expect("a value").to_owned()
        })
        .collect();
    let (a, b) = (print(&alice), print(&bob));
    assert_eq!(signed_by, [&a, &a, &b, &b, &a].map(String::clone));
    // A retry succeeds at once, with the same signature and with a new one.
    let again = alice.signature("blog", "a", &payload("a"));
    let reply = send(&site, "a", &[again]).ok();
    assert!(reply.contains("already received"), "{reply}");
}

#[test]
fn an_unsigned_release_is_refused_before_a_byte_is_read() {
    let (alice, mallory) = (key("ed25519/alice"), key("ed25519/mallory"));
    let site = site(&[&alice]);
    let before = everything(&site);
    let good = |site: &str, release: &str, of: &str| alice.signature(site, release, &payload(of));
    let git = statement("blog", "a", &sha256(&payload("a")));
    let git = one_line(&alice.sign("git", &git));
    for (signatures, reason) in [
        (vec![], "0 of 1 signers"),
        (
            vec![mallory.signature("blog", "a", &payload("a"))],
            "not an allowed signer",
        ),
        (
            vec![good("shop", "a", "a")],
            "not of this site, release and payload",
        ),
        (
            vec![good("blog", "b", "a")],
            "not of this site, release and payload",
        ),
        (
            vec![good("blog", "a", "b")],
            "not of this site, release and payload",
        ),
        (vec![git], "is for 'git'"),
        (vec!["AAAA".to_owned()], "cannot be read"),
        (
            vec!["AAAA".to_owned(), good("blog", "b", "a")],
            "signature 2",
        ),
    ] {
        // A program that reads stdin to its end would hang.
        let reply = held_open(serve(&site, "ci", request("a", &signatures)), &payload("a"));
        reply.refused(65, "bad-signature");
        assert!(reply.stderr.contains(reason), "{reply:?}");
        assert!(reply.stderr.contains("ssh-keygen -Y sign"), "{reply:?}");
    }
    assert!(everything(&site) == before);
    assert!(record(&site).iter().all(|line| !line.contains("signed_by")));
    // A signature that does not count does no harm to one that does.
    let both = vec![
        mallory.signature("blog", "a", &payload("a")),
        good("blog", "a", "a"),
    ];
    send(&site, "a", &both).ok();
    let manifest = fs::read_to_string(site.root().join(".deploy-shell/manifests/a"));
    let manifest = manifest.expect("a manifest");
    assert!(!manifest.contains(&both[0]) && manifest.contains(&both[1]));
}

/// A signature of the payload says nothing of the base.
#[test]
fn a_delta_needs_a_signature_of_its_tree() {
    let alice = key("ed25519/alice");
    let site = site(&[&alice]);
    put_signed(&site, "base", &[&alice]);
    ask(&site, "swap base").ok();
    let before = everything(&site);
    let tree = sha256(b"a list");
    let of_payload = alice.signature("blog", "a", &payload("a"));
    let of_other_tree = tree_statement("blog", "a", &sha256(b"another list"));
    let of_other_tree = one_line(&alice.sign("deploy-shell", &of_other_tree));
    for (base, signature, reason) in [
        (" --base base", &of_payload, "release and tree"),
        (" --base base", &of_other_tree, "release and tree"),
        ("", &of_other_tree, "release and payload or tree"),
    ] {
        let command = Site::receive_command("a", &payload("a"));
        let request = format!("{command} --tree {tree}{base} --signature {signature}");
        let reply = held_open(serve(&site, "ci", request), &payload("a"));
        reply.refused(65, "bad-signature");
        let reason = format!("is not of this site, {reason}");
        assert!(reply.stderr.contains(&reason), "{reply:?}");
    }
    assert!(everything(&site) == before);
}

#[test]
fn a_payload_that_differs_from_the_signed_one_is_refused() {
    let alice = key("ed25519/alice");
    let site = site(&[&alice]);
    let before = everything(&site);
    let signature = alice.signature("blog", "a", &payload("a"));
    let command = serve(&site, "ci", request("a", &[signature]));
    site.run(command, &payload("b"))
        .refused(65, "digest-mismatch");
    assert!(everything(&site) == before);
}

#[test]
fn a_site_without_signatures_refuses_a_signature() {
    let site = Site::new();
    let signature = key("ed25519/alice").signature("blog", "a", &payload("a"));
    let reply = send(&site, "a", &[signature]);
    reply.refused(65, "bad-signature");
    assert!(reply.stderr.contains("not configured"), "{reply:?}");
}

#[test]
fn a_threshold_needs_different_keys() {
    let (alice, bob) = (key("ed25519/alice"), key("ecdsa-384/bob"));
    let signatures = format!("{SIGNED}threshold = 2\n");
    let site = site_with("", &signatures, &[&alice, &bob]);
    let of = |key: &Key| key.signature("blog", "a", &payload("a"));
    for (signatures, reason) in [
        (vec![of(&alice)], "1 of 2"),
        (vec![of(&alice), of(&alice)], "second one by the same key"),
        (vec![of(&bob), of(&bob)], "second one by the same key"),
    ] {
        let reply = send(&site, "a", &signatures);
        reply.refused(65, "bad-signature");
        assert!(reply.stderr.contains(reason), "{reply:?}");
    }
    put_signed(&site, "a", &[&alice, &bob]);
    ask(&site, "swap a").ok();
    // Grants still apply: each key may use its own verbs only.
    site.add_key("uploads", Some("receive"));
    site.add_key("swaps", Some("swap"));
    let signatures = [&alice, &bob].map(|key| key.signature("blog", "b", &payload("b")));
    let upload = request("b", &signatures);
    site.ssh("uploads", "swap a").refused(77, "denied");
    site.ssh_with_input("swaps", &upload, &payload("b"))
        .refused(77, "denied");
    site.ssh_with_input("uploads", &upload, &payload("b")).ok();
    site.ssh("swaps", "swap b").ok();
    assert_eq!(site.current().as_deref(), Some("b"));
}

#[test]
fn a_release_without_signatures_does_not_become_live_later() {
    let alice = key("ed25519/alice");
    let site = Site::new();
    put(&site, "old");
    put(&site, "live");
    ask(&site, "swap old").ok();
    ask(&site, "swap live").ok();
    allow(&site, &[&alice]);
    let dir = site.dir().to_str().expect("a path");
    reconfigure(
        &site,
        "[audit]",
        &format!("{}\n[audit]", SIGNED.replace("{dir}", dir)),
    );
    for request in ["swap old", "rollback", "rollback old"] {
        refused(
            &site,
            request,
            65,
            "bad-signature",
            "'old' may not become live: 0 of 1",
        );
    }
    // The live release stays live.
    assert!(ask(&site, "swap live").ok().contains("result=unchanged"));
    // Its id is in use, by a release that can never become live without a signature.
    let again = alice.signature("blog", "old", &payload("old"));
    let reply = send(&site, "old", &[again]);
    reply.refused(73, "release-exists");
    assert!(
        reply.stderr.contains("without the required signatures"),
        "{reply:?}"
    );
    put_signed(&site, "new", &[&alice]);
    ask(&site, "swap new").ok();
    refused(&site, "rollback", 65, "bad-signature", "'live'");
    // The operator can allow it.
    reconfigure(&site, "[signatures]", "[sandbox]");
    reconfigure(&site, "allowed_signers", "#");
    ask(&site, "rollback").ok();
    assert_eq!(site.current().as_deref(), Some("live"));
}

#[test]
fn a_removed_signer_no_longer_counts() {
    let (alice, bob) = (key("ed25519/alice"), key("ed25519/bob"));
    let site = site(&[&alice, &bob]);
    put_signed(&site, "a", &[&alice]);
    put_signed(&site, "b", &[&bob]);
    put_signed(&site, "both", &[&alice, &bob]);
    for release in ["a", "both", "b"] {
        ask(&site, &format!("swap {release}")).ok();
    }
    allow(&site, &[&bob]);
    ask(&site, "rollback").ok();
    assert_eq!(site.current().as_deref(), Some("both"));
    for request in ["rollback", "rollback a", "swap a"] {
        refused(&site, request, 65, "bad-signature", "not an allowed signer");
    }
    for (line, reason) in [
        (
            format!("blog valid-before=\"20200101Z\" {}", alice.public),
            "expired",
        ),
        (
            format!("blog valid-after=\"20990101Z\" {}", alice.public),
            "not valid yet",
        ),
        (format!("shop {}", alice.public), "does not sign for 'blog'"),
        (
            format!("blog namespaces=\"git\" {}", alice.public),
            "namespace",
        ),
        (String::new(), "not an allowed signer"),
    ] {
        write_signers(&site, &line);
        refused(&site, "swap a", 65, "bad-signature", reason);
    }
    allow(&site, &[&alice]);
    ask(&site, "swap a").ok();
}

#[test]
fn kept_signatures_count_for_their_release_only() {
    let alice = key("ed25519/alice");
    let site = site(&[&alice]);
    put_signed(&site, "a", &[&alice]);
    put_signed(&site, "b", &[&alice]);
    let path = |release: &str| site.root().join(".deploy-shell/manifests").join(release);
    let read = |release: &str| fs::read_to_string(path(release)).expect("a manifest");
    let signature = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("# signature "));
        line.expect("a signature").to_owned()
    };
    let (a, b) = (read("a"), read("b"));
    write_file(
        &path("a"),
        0o600,
        a.replace(&signature(&a), &signature(&b)).as_bytes(),
    );
    refused(
        &site,
        "swap a",
        65,
        "bad-signature",
        "not of this site, release and payload",
    );
    let none = a.replace(&format!("{}\n", signature(&a)), "");
    write_file(&path("a"), 0o600, none.as_bytes());
    refused(&site, "swap a", 65, "bad-signature", "0 of 1");
    // They count for their own site only.
    write_file(&path("a"), 0o600, a.as_bytes());
    let config = fs::read(site.config_path()).expect("a configuration");
    let shop = site.dir().join("shop.toml");
    write_file(&shop, 0o644, &config);
    write_signers(&site, &format!("* {}\n", alice.public));
    let mut command = std::process::Command::new(crate::site::BIN);
    command.env_clear().arg("serve").arg("--config").arg(&shop);
    command.env("SSH_ORIGINAL_COMMAND", "swap a");
    site.run(command, b"").refused(65, "bad-signature");
    ask(&site, "swap a").ok();
}

#[test]
fn an_invalid_list_of_signers_stops_every_verb_but_list() {
    let alice = key("ed25519/alice");
    let site = site(&[&alice]);
    put_signed(&site, "a", &[&alice]);
    let path = site.dir().join("signers");
    let good = format!("blog {}\n", alice.public);
    let signature = alice.signature("blog", "b", &payload("b"));
    let receive = request("b", &[signature]);
    let stopped = |reason: &str| {
        for request in ["swap a", "rollback", &receive] {
            refused(&site, request, 78, "bad-config", reason);
        }
        ask(&site, "list").ok();
    };
    for (text, reason) in [
        (
            format!("{good}blog cert-authority {}\n", alice.public),
            "signers' line 2: ",
        ),
        (
            format!("\n\nblog x=\"y\" {}\n", alice.public),
            "line 3: 'x' is not an option",
        ),
        (format!("{good}blog {}\n", &alice.public[..40]), "line 2"),
    ] {
        write_signers(&site, &text);
        stopped(reason);
    }
    write_file(&path, 0o666, good.as_bytes());
    stopped("can be written by its group or by others");
    fs::remove_file(&path).expect("it is there");
    stopped("signers' cannot be read");
    write_signers(&site, &good);
    ask(&site, "swap a").ok();
}

#[test]
fn rollback_reaches_only_former_live_releases() {
    let alice = key("ed25519/alice");
    let site = site(&[&alice]);
    for release in ["a", "b", "new"] {
        put_signed(&site, release, &[&alice]);
    }
    ask(&site, "swap a").ok();
    ask(&site, "swap b").ok();
    site.add_key("back", Some("rollback"));
    site.add_key("forth", Some("swap"));
    let before = everything(&site);
    site.ssh("back", "swap new").refused(77, "denied");
    site.ssh("back", "rollback new")
        .refused(66, "no-such-release");
    site.ssh("forth", "rollback").refused(77, "denied");
    site.ssh("forth", "rollback a").refused(77, "denied");
    assert!(everything(&site) == before);
    site.ssh("back", "rollback").ok();
    site.ssh("forth", "swap new").ok();
    assert_eq!(site.current().as_deref(), Some("new"));
}
