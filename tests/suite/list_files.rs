//! `list --files`: the tree list of a release, for a key that was granted the word `files`.

use std::fs;
use std::path::PathBuf;

use crate::direct::{ask, everything, live, record};
use crate::fields::Fields;
use crate::site::{Site, sha256};

fn manifest_of(site: &Site, release: &str) -> PathBuf {
    let manifests = site.root().join(".deploy-shell/manifests");
    manifests.join(release)
}

/// Returns the tree list of what the helpers send for `release`.
pub fn list_of(release: &str) -> String {
    let file = |path: &str, content: &[u8]| {
        let (size, digest) = (content.len(), sha256(content));
        format!("./{path} type=file mode=0644 size={size} sha256digest={digest}\n")
    };
    [
        ". type=dir mode=0755\n".to_owned(),
        "./assets type=dir mode=0755\n".to_owned(),
        file("assets/app.js", b"let one = 1;\n"),
        file("index.html", release.as_bytes()),
    ]
    .concat()
}

/// Removes from a manifest what an older version did not write.
pub fn make_old(site: &Site, release: &str) {
    let path = manifest_of(site, release);
    let text = fs::read_to_string(&path).expect("a manifest");
    let is_new = |line: &&str| line.starts_with("# format") || line.starts_with("# tree");
    let old: Vec<&str> = text.lines().filter(|line| !is_new(line)).collect();
    assert_eq!(old.len() + 2, text.lines().count(), "{text}");
    fs::write(&path, format!("{}\n", old.join("\n"))).expect("the manifest");
}

fn site_with_reader() -> Site {
    let site = Site::new();
    live(&site, &["a", "b"]);
    site.add_key("reader", Some("list,files"));
    site
}

#[test]
fn the_list_has_what_the_client_sent_in_the_order_of_its_bytes() {
    let site = site_with_reader();
    let before = everything(&site);
    let reply = site.ssh("reader", "list --files a");
    assert_eq!(reply.stderr, "", "{reply:?}");
    assert_eq!(reply.ok(), list_of("a"));
    assert!(everything(&site) == before);
    let lines = record(&site);
    Fields::read(lines.last().expect("a line")).has(&[
        ("event", "result"),
        ("outcome", "ok"),
        ("release", "a"),
        ("request", "list --files a"),
    ]);
}

#[test]
fn a_release_without_a_tree_digest_is_refused() {
    let site = site_with_reader();
    site.ssh("reader", "list --files a").ok();
    make_old(&site, "a");
    let reply = site.ssh("reader", "list --files a");
    reply.refused(66, "no-such-release");
    assert!(reply.stderr.contains("tree digest"), "{reply:?}");
    let reply = site.ssh("reader", "list --files nowhere");
    reply.refused(66, "no-such-release");
}

#[test]
fn a_damaged_manifest_gives_no_part_of_a_list() {
    let site = site_with_reader();
    let path = manifest_of(&site, "a");
    let text = fs::read_to_string(&path).expect("a manifest");
    for damaged in [
        text.replace("size=", "size=1"),
        text.replace("./assets/app.js", "./assets/app.jz"),
        text.split("# files ").next().expect("entries").to_owned(),
    ] {
        assert_ne!(damaged, text);
        fs::write(&path, damaged).expect("the manifest");
        site.ssh("reader", "list --files a").refused(74, "io-error");
    }
}

/// Every set of words, and no `--allow` at all: the word `files` is never a default.
#[test]
fn only_a_key_with_both_words_lists_files() {
    let site = site_with_reader();
    let words = ["receive", "swap", "rollback", "list", "files"];
    for set in 1..1 << words.len() {
        let chosen = words.iter().enumerate();
        let chosen: Vec<&str> = chosen
            .filter(|(bit, _)| set & 1 << bit != 0)
            .map(|(_, word)| *word)
            .collect();
        let mut command = crate::direct::serve(&site, "ci", "list --files a");
        command.args(["--allow", &chosen.join(",")]);
        let reply = site.run(command, b"");
        if chosen.contains(&"list") && chosen.contains(&"files") {
            reply.ok();
        } else {
            assert_eq!(reply.code, 77, "{chosen:?}: {reply:?}");
            reply.refused(77, "denied");
        }
    }
    let reply = ask(&site, "list --files a");
    reply.refused(77, "denied");
    assert!(
        reply.stderr.contains("this key may not list files"),
        "{reply:?}"
    );
    site.ssh("reader", "list").ok();
    site.ssh("reader", "list --json").ok();
    site.ssh("reader", "swap a").refused(77, "denied");
    // A key without the words learns nothing of which releases exist.
    ask(&site, "list --files nowhere").refused(77, "denied");
}

/// The digest is in the records of receives. Where that of one is missing, the manifest
/// has it.
#[test]
fn the_tree_digest_is_recovered_from_the_manifest() {
    let site = Site::new();
    live(&site, &["b"]);
    crate::direct::put(&site, "a");
    let tree = sha256(list_of("a").as_bytes());
    fs::remove_file(site.root().join(".deploy-shell/journal.jsonl")).expect("a journal");
    let listed = || row(&site, "a")["tree"].clone();
    assert_eq!(listed(), tree.as_str());
    crate::direct::put(&site, "c");
    let journal = site.journal();
    let is_of_a = |record: &&serde_json::Value| record["release"] == "a";
    let record = journal.iter().find(is_of_a).expect("a record");
    assert_eq!(
        (&record["event"], &record["tree"]),
        (&"received".into(), &tree.into())
    );
    // A manifest with another tree is not the one that the journal knows.
    let path = manifest_of(&site, "a");
    let text = fs::read_to_string(&path).expect("a manifest");
    let other = text.replace(record["tree"].as_str().expect("a digest"), &sha256(b"x"));
    fs::write(&path, other).expect("the manifest");
    ask(&site, "swap a").refused(65, "digest-mismatch");
}

fn row(site: &Site, release: &str) -> serde_json::Value {
    let document = crate::direct::listing(site);
    let rows = document["releases"].as_array().expect("an array");
    let found = rows.iter().find(|row| row["release"] == release);
    found.expect("a row").clone()
}
