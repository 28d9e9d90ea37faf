//! What may be in the place of the `current` symlink: a symlink that an operator made
//! or moved, or no symlink. The symlink is the truth. Anything else in its place is
//! refused and never removed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::direct::{ask, everything, held_open, listing, live, payload, put, serve, states};
use crate::site::{Reply, Site};

/// A site with two releases that were live, one that was not, and no `current`.
fn without_link() -> Site {
    let site = Site::new();
    live(&site, &["a", "b"]);
    put(&site, "c");
    fs::remove_file(site.root().join("current")).expect("removed");
    site
}

/// Requires every request that needs the symlink to be refused, and to change nothing.
#[track_caller]
fn refused(site: &Site, what: &str) -> Vec<Reply> {
    let before = everything(site);
    let replies = ["swap a", "swap c", "rollback", "rollback a"].map(|request| {
        let reply = ask(site, request);
        assert_eq!(reply.code, 78, "{request} with {what}: {reply:?}");
        reply.refused(78, "bad-layout");
        assert!(everything(site) == before, "{request} with {what}");
        reply
    });
    replies.into()
}

#[test]
fn a_symlink_to_anything_but_a_release_is_refused() {
    let absolute = |site: &Site| site.root().join("releases/a").display().to_string();
    for target in [
        "",
        "/etc",
        "..",
        ".",
        "a",
        "releases",
        "releases/",
        "releases/..",
        "releases/../releases/a",
        "releases/../../elsewhere",
        "releases/a/assets",
        "releases/a/../b",
        "releases//a",
        "releases/.hidden",
        "releases/-a",
        "./releases/a",
        "shared",
        ".deploy-shell/incoming",
    ] {
        let site = without_link();
        let target = match target {
            "" => absolute(&site),
            target => target.to_owned(),
        };
        symlink(&target, site.root().join("current")).expect("a symlink");
        let leads_out = ["/etc", ".."].contains(&target.as_str());
        for reply in refused(&site, &target) {
            // `adopt` would refuse it.
            let stderr = &reply.stderr;
            assert_eq!(
                stderr.contains("a new root"),
                leads_out,
                "{target}: {stderr}"
            );
            assert_eq!(stderr.contains(" adopt "), !leads_out, "{target}: {stderr}");
        }
        let still = fs::read_link(site.root().join("current")).expect("a symlink");
        assert_eq!(still, Path::new(&target));
    }
}

#[test]
fn a_directory_is_refused_with_the_remedy() {
    let site = without_link();
    let directory = site.root().join("current");
    fs::create_dir_all(directory.join("uploads")).expect("a directory");
    fs::write(directory.join("uploads/photo"), "the only copy").expect("a file");
    for reply in refused(&site, "a directory") {
        assert_eq!(reply.stderr.lines().count(), 2, "{reply:?}");
        assert!(reply.stderr.contains("/current' "), "{reply:?}");
    }
    let photo = fs::read_to_string(directory.join("uploads/photo"));
    assert_eq!(photo.expect("still there"), "the only copy");

    fs::rename(&directory, site.root().join("current.old")).expect("moved away");
    ask(&site, "swap a").ok();
    assert_eq!(site.current().as_deref(), Some("a"));
}

#[test]
fn an_empty_directory_is_refused_too() {
    let site = without_link();
    fs::create_dir(site.root().join("current")).expect("a directory");
    refused(&site, "an empty directory");
    assert!(site.root().join("current").is_dir());
}

#[test]
fn a_regular_file_is_refused() {
    let site = without_link();
    fs::write(site.root().join("current"), "the only copy").expect("a file");
    refused(&site, "a file");
    let text = fs::read_to_string(site.root().join("current"));
    assert_eq!(text.expect("still there"), "the only copy");
}

/// On a new site, the directory of an earlier deployment is often there.
#[test]
fn a_directory_on_a_new_site_is_refused() {
    let site = Site::new();
    fs::create_dir(site.root().join("current")).expect("a directory");
    fs::write(site.root().join("current/index.html"), "old").expect("a page");
    let archive = payload("a");
    // Before the upload, not after it.
    let receive = serve(&site, "ci", Site::receive_command("a", &archive));
    for reply in [held_open(receive, b""), ask(&site, "swap a")] {
        reply.refused(78, "bad-layout");
        assert_eq!(reply.stderr.lines().count(), 2, "{reply:?}");
    }
    let page = fs::read_to_string(site.root().join("current/index.html"));
    assert_eq!(page.expect("still there"), "old");
}

#[test]
fn a_symlink_that_an_operator_moved_is_the_truth() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    put(&site, "c");
    fs::remove_file(site.root().join("current")).expect("removed");
    symlink("releases/a", site.root().join("current")).expect("a symlink");

    let now = listing(&site);
    assert_eq!(now["current"], "a");
    assert!(states(&site).contains(&"a current".to_owned()));
    assert!(!states(&site).contains(&"b current".to_owned()));
    let table = ask(&site, "list").ok();
    let row = table.lines().find(|line| line.starts_with("a "));
    assert!(row.expect("a row").contains(" current "), "{table}");
    ask(&site, "swap c --if-current b").refused(75, "not-current");

    let reply = ask(&site, "swap c --if-current a");
    assert_eq!(reply.ok(), "ok swap c previous=a\n");
    let journal = site.journal();
    let reconciled: Vec<_> = journal
        .iter()
        .filter(|event| event["event"] == "reconciled")
        .collect();
    let [event] = reconciled[..] else {
        panic!("{journal:?}");
    };
    assert_eq!(event["release"], "a");
    assert_eq!(event["previous"], "b");
    // No rollback left b, so it is not marked bad.
    assert_eq!(states(&site), ["c current", "a previous", "b good"]);
    let reply = ask(&site, "rollback");
    assert_eq!(reply.ok(), "ok rollback a previous=c\n");
}

#[test]
fn a_swap_to_where_an_operator_moved_the_symlink_changes_nothing() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    fs::remove_file(site.root().join("current")).expect("removed");
    symlink("releases/a", site.root().join("current")).expect("a symlink");
    let reply = ask(&site, "swap a");
    assert_eq!(reply.ok(), "ok swap a result=unchanged\n");
    assert_eq!(site.current().as_deref(), Some("a"));
    assert_eq!(states(&site), ["a current", "b previous"]);
}

#[test]
fn an_operator_may_point_the_symlink_to_a_release_that_was_never_live() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "c");
    fs::remove_file(site.root().join("current")).expect("removed");
    symlink("releases/c", site.root().join("current")).expect("a symlink");
    assert_eq!(listing(&site)["current"], "c");
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback a previous=c\n");
    assert_eq!(states(&site), ["a current", "c bad"]);
}

/// A site that another tool made: its release is live until the first swap, and no swap
/// removes it.
#[test]
fn a_symlink_to_a_release_of_another_tool_is_accepted() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    let foreign = site.root().join("releases/20190101");
    fs::create_dir(&foreign).expect("a directory");
    fs::write(foreign.join("index.html"), "old").expect("a page");
    symlink("releases/20190101", site.root().join("current")).expect("a symlink");
    put(&site, "a");
    assert_eq!(listing(&site)["current"], "20190101");
    let reply = ask(&site, "swap a --if-current 20190101");
    assert_eq!(reply.ok(), "ok swap a previous=20190101\n");
    live(&site, &["b", "c", "d", "e"]);
    assert!(foreign.join("index.html").is_file());
}

#[test]
fn a_missing_symlink_is_made_again() {
    let site = without_link();
    let now = listing(&site);
    assert!(now["current"].is_null(), "{now}");
    assert!(
        !states(&site)
            .iter()
            .any(|state| state.ends_with(" current"))
    );
    ask(&site, "swap a --if-current b").refused(75, "not-current");
    assert_eq!(ask(&site, "swap a").ok(), "ok swap a previous=-\n");
    assert_eq!(site.current().as_deref(), Some("a"));
}

#[test]
fn a_dangling_symlink_is_replaced() {
    let site = without_link();
    symlink("releases/nowhere", site.root().join("current")).expect("a symlink");
    ask(&site, "list").ok();
    ask(&site, "swap a").ok();
    assert_eq!(site.current().as_deref(), Some("a"));
}

/// A dangling symlink names an id. Receiving that id would make it live, which only
/// `swap` may do, and only for a key that may swap.
#[test]
fn a_receive_never_makes_the_target_of_a_dangling_symlink() {
    let site = without_link();
    symlink("releases/nowhere", site.root().join("current")).expect("a symlink");
    let archive = payload("nowhere");
    let request = Site::receive_command("nowhere", &archive);
    let reply = site.run(serve(&site, "ci", request), &archive);
    reply.refused(73, "release-exists");
    assert_eq!(site.releases(), ["a", "b", "c"]);
    ask(&site, "swap a").ok();
    put(&site, "nowhere");
    assert_eq!(site.current().as_deref(), Some("a"));
}

/// Every path is opened from the root's handle, and no symlink is followed.
#[test]
fn a_symlink_for_one_of_the_directories_is_refused() {
    for name in ["releases", ".deploy-shell"] {
        let site = Site::new();
        live(&site, &["a", "b"]);
        let away = site.dir().join("away");
        fs::rename(site.root().join(name), &away).expect("moved away");
        symlink(&away, site.root().join(name)).expect("a symlink");
        for request in ["swap a", "rollback"] {
            let reply = ask(&site, request);
            assert_eq!(reply.code, 78, "{name}, {request}: {reply:?}");
            reply.refused(78, "bad-layout");
        }
        assert_eq!(site.current().as_deref(), Some("b"));
    }
}
