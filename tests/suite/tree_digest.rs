//! `receive --tree`: the release has the tree that the client names, or it is not received.

use std::fs;

use crate::archive::tarball;
use crate::direct::{ask, everything, listing, live, payload, put, record, serve};
use crate::fields::Fields;
use crate::list_files::list_of;
use crate::signing::{Key, key, one_line, tree_statement};
use crate::site::{Reply, Site, sha256, write_file};

fn tree_of(release: &str) -> String {
    sha256(list_of(release).as_bytes())
}

/// Sends what the helpers send for `release`, with this tree and what follows it.
fn send(site: &Site, release: &str, tree: &str, rest: &str) -> Reply {
    let payload = payload(release);
    let command = Site::receive_command(release, &payload);
    let request = format!("{command} --tree {tree}{rest}");
    site.run(serve(site, "ci", request), &payload)
}

/// Returns the signature of the tree by `ssh-keygen`.
fn sign(key: &Key, release: &str, tree: &str) -> String {
    let statement = tree_statement("blog", release, tree);
    let signature = one_line(&key.sign("deploy-shell", &statement));
    format!(" --signature {signature}")
}

#[test]
fn a_named_tree_is_compared_and_recorded() {
    let site = Site::new();
    let tree = tree_of("a");
    let reply = send(&site, "a", &tree, "").ok();
    assert!(reply.contains(&format!(" tree={tree} files=2 ")), "{reply}");
    // A client need not name it.
    put(&site, "b");
    let journal = site.journal();
    let document = listing(&site);
    for (record, release) in journal.iter().zip(["a", "b"]) {
        assert_eq!(record["tree"], tree_of(release), "{record}");
        let rows = document["releases"].as_array().expect("an array");
        let row = rows.iter().find(|row| row["release"] == release);
        assert_eq!(row.expect("a row")["tree"], tree_of(release));
    }
    let lines = record(&site);
    let is_result = |line: &&String| line.contains("event=\"result\"");
    let first = lines.iter().find(is_result).expect("a line");
    assert_eq!(Fields::read(first).get("tree"), Some(tree.as_str()));
    // A retry succeeds, and says the same.
    let again = send(&site, "a", &tree, "").ok();
    assert_eq!(
        again,
        format!("{} result=\"already received\"\n", reply.trim_end())
    );
    let before = everything(&site);
    let reply = send(&site, "a", &tree_of("b"), "");
    reply.refused(73, "release-exists");
    assert!(
        reply.stderr.contains(&format!("exists with tree {tree}")),
        "{reply:?}"
    );
    assert!(everything(&site) == before);
}

#[test]
fn another_tree_leaves_nothing() {
    let site = Site::new();
    live(&site, &["a"]);
    let before = everything(&site);
    let reply = send(&site, "b", &tree_of("a"), "");
    reply.refused(65, "tree-mismatch");
    let words = format!("the release has tree {}", tree_of("b"));
    assert!(reply.stderr.contains(&words), "{reply:?}");
    assert!(everything(&site) == before);
    assert!(site.leftovers().is_empty());
    // The id is free.
    send(&site, "b", &tree_of("b"), "").ok();
}

/// The list has what the client sent. What the site's configuration adds to a release or
/// takes from it differs from site to site.
#[test]
fn shared_paths_are_not_in_the_tree() {
    let shared = "[shared]\nlinks = [\"var/up\", \"assets/app.js\"]\nexisting = \"replace\"\n";
    let site = Site::with_config(shared);
    fs::create_dir_all(site.root().join("shared/var/up")).expect("a directory");
    fs::create_dir_all(site.root().join("shared/assets")).expect("a directory");
    fs::write(site.root().join("shared/assets/app.js"), "").expect("a file");
    let list = list_of("a");
    let sent: Vec<&str> = list
        .lines()
        .filter(|line| !line.contains("app.js"))
        .collect();
    let sent = format!("{}\n", sent.join("\n"));
    send(&site, "a", &sha256(list.as_bytes()), "").refused(65, "tree-mismatch");
    send(&site, "a", &sha256(sent.as_bytes()), "").ok();
    site.add_key("reader", Some("list,files"));
    assert_eq!(site.ssh("reader", "list --files a").ok(), sent);
    let release = site.root().join("releases/a");
    for added in ["var/up", "assets/app.js"] {
        assert!(release.join(added).is_symlink(), "{added}");
    }
}

/// The lines are sorted by their bytes, not as directories contain them.
#[test]
fn the_order_of_the_list_is_that_of_sort() {
    let site = Site::new();
    site.add_key("reader", Some("list,files"));
    let names = ["a/b", "a-b", "a b", "a!b", "stra\u{df}e/x", "z", "Z"];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"x"[..])).collect();
    let archive = tarball(&[&[("index.html", &b"x"[..])], &files[..]].concat());
    let request = Site::receive_command("r", &archive);
    site.run(serve(&site, "ci", request), &archive).ok();
    let list = site.ssh("reader", "list --files r").ok();
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_unstable();
    assert_eq!(format!("{}\n", lines.join("\n")), list);
    assert_eq!(lines.len(), 1 + 2 + 1 + names.len());
}

#[test]
fn a_release_with_a_signed_tree_becomes_live_while_its_signer_is_allowed() {
    let (alice, bob) = (key("ed25519/alice"), key("ecdsa-256/bob"));
    let site = Site::with_config("[signatures]\nallowed_signers = \"{dir}/signers\"\n");
    let allow = |keys: &[&Key]| {
        let lines = keys.iter().map(|key| format!("blog {}\n", key.public));
        let text: String = lines.collect();
        write_file(&site.dir().join("signers"), 0o644, text.as_bytes());
    };
    allow(&[&alice, &bob]);
    for (release, signer) in [("a", &alice), ("b", &bob)] {
        let tree = tree_of(release);
        let rest = sign(signer, release, &tree);
        send(&site, release, &tree, &rest).ok();
        ask(&site, &format!("swap {release}")).ok();
    }
    ask(&site, "rollback").ok();
    assert_eq!(site.current().as_deref(), Some("a"));
    // A retry needs a signature as well, and the stored one counts.
    let rest = sign(&alice, "a", &tree_of("a"));
    let again = send(&site, "a", &tree_of("a"), &rest).ok();
    assert!(again.contains("already received"), "{again}");
    allow(&[&alice]);
    let reply = ask(&site, "swap b");
    reply.refused(65, "bad-signature");
    assert!(reply.stderr.contains("not an allowed signer"), "{reply:?}");
    // The manifest of another tree does not have a signature of it.
    allow(&[&alice, &bob]);
    let manifests = site.root().join(".deploy-shell/manifests");
    let text = fs::read_to_string(manifests.join("b")).expect("a manifest");
    let other = text.replace(&tree_of("b"), &tree_of("a"));
    fs::write(manifests.join("b"), other).expect("the manifest");
    let journal = site.root().join(".deploy-shell/journal.jsonl");
    let records = fs::read_to_string(&journal).expect("a journal");
    fs::write(&journal, records.replace(&tree_of("b"), &tree_of("a"))).expect("a journal");
    let reply = ask(&site, "swap b");
    reply.refused(65, "bad-signature");
    assert!(
        reply.stderr.contains("is not of this site, release"),
        "{reply:?}"
    );
}

/// A signature of a tree lets a client send any bytes, but it publishes that tree only.
#[test]
fn a_signed_tree_is_received_from_no_other_payload() {
    let alice = key("ed25519/alice");
    let site = Site::with_config("[signatures]\nallowed_signers = \"{dir}/signers\"\n");
    let line = format!("blog {}\n", alice.public);
    write_file(&site.dir().join("signers"), 0o644, line.as_bytes());
    let tree = tree_of("a");
    let rest = sign(&alice, "a", &tree);
    let before = everything(&site);
    let other = payload("other");
    let request = format!("{} --tree {tree}{rest}", Site::receive_command("a", &other));
    let reply = site.run(serve(&site, "ci", request), &other);
    reply.refused(65, "tree-mismatch");
    assert!(everything(&site) == before);
    // Another archive of the same files gives the same tree.
    let same = tarball(&[("assets/app.js", b"let one = 1;\n"), ("index.html", b"a")]);
    assert_ne!(same, payload("a"));
    let request = format!("{} --tree {tree}{rest}", Site::receive_command("a", &same));
    site.run(serve(&site, "ci", request), &same).ok();
    ask(&site, "swap a").ok();
}
