//! `receive --base`: a release from what changed, and the base.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::archive::{Header, Tar, zstd};
use crate::delta_payload::{Release, changes, content, delta, tree, whole};
use crate::direct::{ask, everything, listing, serve};
use crate::site::{Reply, Site, sha256};

const OLD: &Release<'_> = &[
    ("assets/", ""),
    ("assets/app.js", "one"),
    ("assets/keep.css", "keep"),
    ("gone", "gone"),
    ("index.html", "old"),
    ("latest>", "assets/app.js"),
];

const NEW: &Release<'_> = &[
    ("assets/", ""),
    ("assets/app.js", "two"),
    ("assets/keep.css", "keep"),
    ("index.html", "old"),
    ("latest>", "index.html"),
    ("new/", ""),
    ("new/a b", "space"),
];

fn send(site: &Site, release: &str, payload: &[u8], tree: &str, base: &str) -> Reply {
    let command = Site::receive_command(release, payload);
    let request = format!("{command} --tree {tree} --base {base}");
    site.run(serve(site, "ci", request), payload)
}

/// Makes a site whose release `old` is live.
fn site_with_base(extra: &str) -> Site {
    let site = Site::with_config(extra);
    site.receive("old", &whole(OLD)).ok();
    ask(&site, "swap old").ok();
    site
}

/// Returns the lines of a manifest below its head.
fn entries(site: &Site, release: &str) -> Vec<String> {
    let path = site.root().join(".deploy-shell/manifests").join(release);
    let text = fs::read_to_string(path).expect("a manifest");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

fn verify(site: &Site) {
    let mut command = std::process::Command::new(crate::site::admin());
    command
        .arg("verify")
        .arg("--config")
        .arg(site.config_path());
    let output = command.output().expect("verify runs");
    assert!(output.status.success(), "{output:?}");
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").ino()
}

#[test]
fn a_delta_gives_the_release_of_a_whole_payload() {
    for (extra, linked) in [("", false), ("[delta]\nreuse = \"link\"\n", true)] {
        let site = site_with_base(extra);
        let reply = send(&site, "new", &delta(OLD, NEW), &tree(NEW), "old").ok();
        assert!(
            reply.contains(&format!(" tree={} files=4 ", tree(NEW))),
            "{reply}"
        );
        site.receive("whole", &whole(NEW)).ok();
        assert_eq!(entries(&site, "new"), entries(&site, "whole"));
        verify(&site);
        let file =
            |release: &str, name: &str| site.root().join("releases").join(release).join(name);
        for (name, text) in NEW.iter().filter(|(name, _)| !name.ends_with(['/', '>'])) {
            assert_eq!(
                fs::read_to_string(file("new", name)).expect("a file"),
                *text
            );
        }
        let latest = fs::read_link(file("new", "latest")).expect("a symlink");
        assert_eq!(latest, Path::new("index.html"));
        assert!(!file("new", "gone").exists());
        let (kept, other) = (
            file("new", "assets/keep.css"),
            file("old", "assets/keep.css"),
        );
        assert_eq!(inode(&kept) == inode(&other), linked, "{extra}");
        let time = |path: &Path| fs::metadata(path).expect("a file").mtime();
        assert_eq!(
            time(&kept),
            time(&other),
            "an unchanged file keeps its time"
        );
        let mode = fs::metadata(&kept).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
        assert!(site.leftovers().is_empty());
        // The base of the next one, and an older base after it.
        ask(&site, "swap new").ok();
        send(&site, "third", &delta(NEW, OLD), &tree(OLD), "new").ok();
        assert_eq!(entries(&site, "third"), entries(&site, "old"));
        let document = listing(&site);
        let rows = document["releases"].as_array().expect("an array");
        let row = rows
            .iter()
            .find(|row| row["release"] == "third")
            .expect("a row");
        assert_eq!(row["tree"], tree(OLD));
        // The removal of the base leaves the linked files.
        let pruned = ask(&site, "swap third");
        pruned.ok();
        verify(&site);
    }
}

#[test]
fn shared_paths_are_in_no_delta() {
    let site = Site::with_config("[shared]\nlinks = [\"storage/logs\", \".env\"]\n");
    fs::create_dir_all(site.root().join("shared/storage/logs")).expect("a shared directory");
    fs::write(site.root().join("shared/.env"), "").expect("a shared file");
    site.receive("old", &whole(OLD)).ok();
    ask(&site, "swap old").ok();
    send(&site, "new", &delta(OLD, NEW), &tree(NEW), "old").ok();
    site.receive("whole", &whole(NEW)).ok();
    assert_eq!(entries(&site, "new"), entries(&site, "whole"));
    let target = fs::read_link(site.root().join("releases/new/storage/logs"));
    assert_eq!(
        target.expect("a symlink"),
        Path::new("../../../shared/storage/logs")
    );
    verify(&site);
    // A base that has shared symlinks.
    ask(&site, "swap new").ok();
    send(&site, "third", &delta(NEW, OLD), &tree(OLD), "new").ok();
    assert_eq!(entries(&site, "third"), entries(&site, "old"));
}

#[test]
fn a_damaged_base_is_refused_with_its_path() {
    for extra in ["", "[delta]\nreuse = \"link\"\n"] {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 5] = [
            ("other content", |path| {
                fs::write(path, "kepp").expect("a file")
            }),
            ("another size", |path| {
                fs::write(path, "longer").expect("a file")
            }),
            ("missing", |path| fs::remove_file(path).expect("a file")),
            ("a symlink", |path| {
                fs::remove_file(path).expect("a file");
                std::os::unix::fs::symlink("app.js", path).expect("a symlink");
            }),
            ("another mode", |path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a file");
            }),
        ];
        for (what, damage) in damages {
            let site = site_with_base(extra);
            damage(&site.root().join("releases/old/assets/keep.css"));
            let before = everything(&site);
            let reply = send(&site, "new", &delta(OLD, NEW), &tree(NEW), "old");
            if what == "another mode" && extra.is_empty() {
                // A copy gets the mode that the manifest states.
                reply.ok();
                continue;
            }
            reply.refused(74, "base-damaged");
            assert!(
                reply.stderr.contains("./assets/keep.css"),
                "{what}: {reply:?}"
            );
            assert!(everything(&site) == before, "{what}");
            assert!(site.leftovers().is_empty(), "{what}");
        }
    }
}

#[test]
fn members_and_changes_must_agree() {
    let site = site_with_base("");
    let before = everything(&site);
    let (text, added) = changes(OLD, NEW);
    let start = || Tar::new().file(".deploy-shell-changes", &text);
    let all = |tar: Tar| {
        added
            .iter()
            .fold(tar, |tar, name| tar.file(name, content(NEW, name)))
    };
    let refused = |what: &str, tar: Tar, code: i32, word: &str| {
        let reply = send(&site, "new", &zstd(&tar.end()), &tree(NEW), "old");
        reply.refused(code, word);
        assert!(everything(&site) == before, "{what}");
        assert!(site.leftovers().is_empty(), "{what}");
    };
    let bad = |what: &str, tar: Tar| refused(what, tar, 65, "bad-archive");
    bad("no changes", all(Tar::new()));
    bad(
        "changes at the end",
        all(Tar::new()).file(".deploy-shell-changes", &text),
    );
    bad(
        "changes twice",
        all(start()).file(".deploy-shell-changes", &text),
    );
    bad(
        "a directory first",
        all(Tar::new()
            .directory("new")
            .file(".deploy-shell-changes", &text)),
    );
    bad("a directory", all(start().directory("new")));
    bad("a symlink", all(start()).symlink("more", "index.html"));
    bad(
        "a hard link",
        all(start()).header(Header::new(b'1', "more", 0).put(crate::archive::LINK, "index.html")),
    );
    bad(
        "a missing member",
        start().file(&added[0], content(NEW, &added[0])),
    );
    bad(
        "a member that is not listed",
        all(start()).file("more", "x"),
    );
    bad(
        "another order",
        added
            .iter()
            .rev()
            .fold(start(), |tar, name| tar.file(name, content(NEW, name))),
    );
    bad(
        "another size",
        added.iter().fold(start(), |tar, name| tar.file(name, "xx")),
    );
    bad("a path that leads out", start().file("../evil", "x"));
    let other = added.iter().fold(start(), |tar, name| {
        tar.file(name, content(NEW, name).to_uppercase())
    });
    refused("other content", other, 65, "tree-mismatch");
    let reply = send(&site, "new", &delta(OLD, NEW), &tree(OLD), "old");
    reply.refused(65, "tree-mismatch");
    assert!(everything(&site) == before);
    // Outside of a delta no entry has the name.
    let tar = Tar::new()
        .file(".deploy-shell-changes", &text)
        .file("index.html", "x");
    site.receive("new", &zstd(&tar.end()))
        .refused(65, "bad-archive");
    send(&site, "new", &delta(OLD, NEW), &tree(NEW), "old").ok();
}

#[test]
fn a_base_that_may_not_be_live_is_refused_before_the_payload() {
    let site = site_with_base("");
    site.receive("pending", &whole(NEW)).ok();
    for (base, code, word) in [
        ("nothing", 66, "no-such-release"),
        ("pending", 77, "denied"),
    ] {
        let reply = send(&site, "new", &delta(OLD, NEW), &tree(NEW), base);
        reply.refused(code, word);
    }
    send(&site, "new", &delta(OLD, NEW), &tree(NEW), "old").ok();
}

/// With another base, the same payload gives another release.
#[test]
fn the_payload_of_a_delta_names_it_for_its_key_alone() {
    let site = site_with_base("");
    site.add_key("upload", Some("receive"));
    let other = [OLD, &[("other", "other")]].concat();
    site.receive("other", &whole(&other)).ok();
    ask(&site, "swap other").ok();
    ask(&site, "swap old").ok();
    // The delta removes `gone`, which both bases have.
    let mut new = OLD.to_vec();
    new[3] = ("index.html", "new");
    new.remove(3);
    let payload = delta(OLD, &new);
    let mut theirs = other.clone();
    theirs.retain(|(name, _)| new.iter().any(|(kept, _)| kept == name) || *name == "other");
    let command = Site::receive_command("next", &payload);
    let request = format!("{command} --tree {} --base other", tree(&theirs));
    site.run(serve(&site, "upload", request), &payload).ok();
    send(&site, "next", &payload, &tree(&new), "old").refused(73, "release-exists");
    let digest = sha256(&payload);
    let swap = |digest: &str| ask(&site, &format!("swap next --sha256 {digest}"));
    swap(&digest).refused(65, "digest-mismatch");
    swap(&tree(&new)).refused(65, "digest-mismatch");
    // The tree names it for every key, and the payload for its own.
    swap(&tree(&theirs)).ok();
    send(&site, "mine", &payload, &tree(&new), "old").ok();
    ask(&site, &format!("swap mine --sha256 {digest}")).ok();
}
