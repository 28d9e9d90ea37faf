//! `swap`: what is live afterwards, what the reply says, and what does not change.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::direct::{ask, everything, listing, live, put, states};
use crate::site::{Reply, Site};

/// Asserts that the reply is exactly this line, and that the symlink names the same
/// release by a relative target.
#[track_caller]
fn went_live(site: &Site, reply: Reply, line: &str) {
    let stdout = reply.ok();
    assert_eq!(stdout, format!("{line}\n"));
    let release = line.split(' ').nth(2).expect("a release");
    let link = fs::read_link(site.root().join("current")).expect("a link");
    assert_eq!(link, Path::new("releases").join(release));
    let page = fs::read_to_string(site.root().join("current/index.html"));
    assert_eq!(page.expect("the release is there"), release);
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("a UTF-8 name"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_swap_says_what_was_live_and_leaves_one_relative_symlink() {
    let site = Site::new();
    put(&site, "a");
    put(&site, "b");
    assert_eq!(site.current(), None, "receive makes nothing live");
    went_live(&site, site.ssh("ci", "swap a"), "ok swap a previous=-");
    went_live(&site, site.ssh("ci", "swap b"), "ok swap b previous=a");
    went_live(&site, site.ssh("ci", "swap a"), "ok swap a previous=b");
    // The temporary name of the symlink is gone.
    let root = names(site.root());
    assert_eq!(root, [".deploy-shell", "current", "releases", "shared"]);
    assert_eq!(site.leftovers(), [] as [PathBuf; 0]);
}

#[test]
fn a_swap_to_the_current_release_changes_nothing() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let link = site.root().join("current");
    let inode = |path: &Path| {
        let meta = fs::symlink_metadata(path).expect("a link");
        (meta.ino(), meta.ctime(), meta.ctime_nsec())
    };
    let (before, generation) = (everything(&site), listing(&site)["generation"].clone());
    let first = inode(&link);
    for request in ["swap b", "swap b --if-current b"] {
        went_live(&site, ask(&site, request), "ok swap b result=unchanged");
    }
    assert_eq!(inode(&link), first);
    assert_eq!(listing(&site)["generation"], generation);
    assert!(everything(&site) == before);
}

#[test]
fn the_generation_grows_with_every_activation() {
    let site = Site::new();
    let mut seen = Vec::new();
    let mut note = || {
        let listing = listing(&site);
        seen.push(listing["generation"].as_u64().expect("a number"));
    };
    put(&site, "a");
    put(&site, "b");
    note();
    for request in ["swap a", "swap b", "rollback", "swap b"] {
        ask(&site, request).ok();
        note();
    }
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
}

#[test]
fn if_current_is_compare_and_swap() {
    let site = Site::new();
    put(&site, "a");
    // Nothing is live, so no condition can be true.
    let before = everything(&site);
    for request in ["swap a --if-current a", "swap a --if-current b"] {
        let reply = ask(&site, request);
        reply.refused(75, "not-current");
    }
    assert!(everything(&site) == before);

    live(&site, &["a", "b"]);
    put(&site, "c");
    let before = everything(&site);
    for request in [
        "swap a --if-current a",
        "swap c --if-current a",
        "swap c --if-current c",
        "swap c --if-current nowhere",
        "swap c --if-current b.",
        "swap c --if-current B",
        // Live already, but something else than expected is live too.
        "swap b --if-current a",
        "swap b --if-current nowhere",
        "rollback --if-current a",
        "rollback a --if-current a",
    ] {
        let reply = ask(&site, request);
        assert_eq!(reply.code, 75, "{request}: {reply:?}");
        reply.refused(75, "not-current");
        assert!(everything(&site) == before, "{request}");
    }
    let reply = site.ssh("ci", "swap c --if-current b");
    went_live(&site, reply, "ok swap c previous=b");
}

/// The refusal names the live release, so that a person need not run `list`.
#[test]
fn a_failed_comparison_names_what_is_live() {
    let site = Site::new();
    live(&site, &["first", "second"]);
    let reply = ask(&site, "swap first --if-current first");
    reply.refused(75, "not-current");
    assert!(reply.stderr.contains("'second'"), "{reply:?}");
}

#[test]
fn only_received_releases_can_go_live() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "gone");
    let releases = site.root().join("releases");
    fs::remove_dir_all(releases.join("gone")).expect("removed by hand");
    fs::create_dir(releases.join("foreign")).expect("a directory");
    fs::write(releases.join("foreign/index.html"), "foreign").expect("a page");
    fs::write(releases.join("file"), "no directory").expect("a file");
    symlink("a", releases.join("alias")).expect("a link");
    symlink("/etc", releases.join("outside")).expect("a link");
    // The first request finds out which releases are gone, and journals that once.
    ask(&site, "swap gone").refused(66, "no-such-release");
    let last = site.journal().pop().expect("a record");
    assert_eq!(
        (&last["event"], &last["release"]),
        (&"pruned".into(), &"gone".into())
    );
    let journal = fs::read(site.root().join(".deploy-shell/journal.jsonl")).expect("a journal");
    let before = tree_of(&site);
    for release in [
        "nowhere", "gone", "foreign", "file", "alias", "outside", "A",
    ] {
        for condition in ["", " --if-current a"] {
            let reply = ask(&site, &format!("swap {release}{condition}"));
            assert_eq!(reply.code, 66, "{release}: {reply:?}");
            reply.refused(66, "no-such-release");
            assert_eq!(tree_of(&site), before, "{release}");
        }
    }
    let now = fs::read(site.root().join(".deploy-shell/journal.jsonl")).expect("a journal");
    assert!(now == journal);
    assert_eq!(site.current().as_deref(), Some("a"));
}

/// Returns everything but the manifests: a request may remove the manifest of a
/// release that is gone.
fn tree_of(site: &Site) -> Vec<(PathBuf, String)> {
    let tree = site.snapshot().into_iter();
    tree.filter(|(path, _)| !path.starts_with(".deploy-shell/manifests/"))
        .collect()
}

/// The manifest describes a directory, not a symlink in its place.
#[test]
fn a_symlink_in_the_place_of_a_release_is_not_followed() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    let release = site.root().join("releases/b");
    fs::rename(&release, site.dir().join("b")).expect("moved away");
    symlink(site.dir().join("b"), &release).expect("a link");
    let before = tree_of(&site);
    let reply = ask(&site, "swap b");
    assert!(matches!(reply.code, 66 | 78), "{reply:?}");
    assert_eq!(reply.stdout, "");
    assert_eq!(tree_of(&site), before);
}

#[test]
fn the_current_symlink_can_have_another_name() {
    let site = Site::with_config("link = \"app\"\n");
    live(&site, &["a", "b"]);
    let link = fs::read_link(site.root().join("app")).expect("a link");
    assert_eq!(link, Path::new("releases/b"));
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback a previous=b\n");
    let link = fs::read_link(site.root().join("app")).expect("a link");
    assert_eq!(link, Path::new("releases/a"));
    let root = names(site.root());
    assert_eq!(root, [".deploy-shell", "app", "releases", "shared"]);
    assert_eq!(states(&site), ["a current", "b bad"]);
}

/// The entry `current` then has no meaning.
#[test]
fn an_entry_named_current_is_left_alone_if_the_symlink_has_another_name() {
    let site = Site::with_config("link = \"app\"\n");
    fs::create_dir(site.root().join("current")).expect("a directory");
    fs::write(site.root().join("current/own"), "own").expect("a file");
    live(&site, &["a"]);
    let own = fs::read_to_string(site.root().join("current/own"));
    assert_eq!(own.expect("still there"), "own");
}

#[test]
fn a_swap_does_not_touch_the_releases() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    let contents = || -> Vec<(PathBuf, String)> {
        let tree = site.snapshot().into_iter();
        tree.filter(|(path, _)| path.starts_with("releases") || path.starts_with("shared"))
            .collect()
    };
    let before = contents();
    for request in ["swap b", "swap a", "rollback", "swap a"] {
        ask(&site, request).ok();
        assert_eq!(contents(), before, "{request}");
    }
}
