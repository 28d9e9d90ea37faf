//! `rollback`: which release it chooses, which it never chooses, and how it marks the
//! release that it leaves.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::direct::{ask, everything, listing, live, put, states};
use crate::site::Site;

#[track_caller]
fn says(site: &Site, request: &str, line: &str) {
    assert_eq!(ask(site, request).ok(), format!("{line}\n"), "{request}");
}

#[track_caller]
fn refused(site: &Site, request: &str) {
    let before = everything(site);
    let reply = ask(site, request);
    assert_eq!(reply.code, 66, "{request}: {reply:?}");
    reply.refused(66, "no-such-release");
    assert!(everything(site) == before, "{request}: something changed");
}

#[test]
fn repeated_rollbacks_go_back_until_no_release_is_left() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    let reply = site.ssh("ci", "rollback");
    assert_eq!(reply.ok(), "ok rollback b previous=c\n");
    assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
    says(&site, "rollback", "ok rollback a previous=b");
    assert_eq!(states(&site), ["a current", "b bad", "c bad"]);
    refused(&site, "rollback");
    assert_eq!(site.current().as_deref(), Some("a"));
}

#[test]
fn a_rollback_without_a_previous_release_is_refused() {
    let site = Site::new();
    refused(&site, "rollback");
    put(&site, "a");
    refused(&site, "rollback");
    refused(&site, "rollback a");
    ask(&site, "swap a").ok();
    refused(&site, "rollback");
    // Received later, but never live.
    put(&site, "b");
    refused(&site, "rollback");
}

/// Names in the wrong order and directories with wrong times have no effect: only the
/// journal decides.
#[test]
fn neither_names_nor_times_of_directories_decide() {
    let site = Site::new();
    live(&site, &["m", "z", "a", "k"]);
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    for (release, time) in [
        ("m", now + day),
        ("a", now - 30 * day),
        ("z", now),
        ("k", now - 60 * day),
    ] {
        for place in ["releases", ".deploy-shell/manifests"] {
            let path = site.root().join(place).join(release);
            let file = fs::File::open(&path).expect("it is there");
            file.set_modified(time).expect("a new time");
        }
    }
    says(&site, "rollback", "ok rollback a previous=k");
    says(&site, "rollback", "ok rollback z previous=a");
    says(&site, "rollback", "ok rollback m previous=z");
    refused(&site, "rollback");
}

/// The order in which releases were received does not matter.
#[test]
fn the_order_of_activation_decides() {
    let site = Site::new();
    for release in ["a", "b", "c"] {
        put(&site, release);
    }
    for release in ["c", "a", "b", "c", "b"] {
        ask(&site, &format!("swap {release}")).ok();
    }
    // Last live before b: c, then a.
    says(&site, "rollback", "ok rollback c previous=b");
    says(&site, "rollback", "ok rollback a previous=c");
    refused(&site, "rollback");
}

#[test]
fn a_swap_back_is_no_rollback() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    ask(&site, "swap a").ok();
    assert_eq!(states(&site), ["a current", "b previous"]);
    says(&site, "rollback", "ok rollback b previous=a");
    assert_eq!(states(&site), ["b current", "a bad"]);
}

#[test]
fn a_rollback_to_an_id_needs_a_release_that_was_live_and_good() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    put(&site, "pending");
    for release in ["pending", "nowhere", "C"] {
        refused(&site, &format!("rollback {release}"));
    }
    says(&site, "rollback a", "ok rollback a previous=c");
    assert_eq!(states(&site)[..3], ["a current", "c bad", "b previous"]);
    refused(&site, "rollback c");
    says(&site, "rollback b", "ok rollback b previous=a");
    refused(&site, "rollback a");
}

#[test]
fn a_rollback_to_the_current_release_changes_nothing() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let before = everything(&site);
    for request in ["rollback b", "rollback b --if-current b"] {
        says(&site, request, "ok rollback b result=unchanged");
    }
    assert!(everything(&site) == before);
}

#[test]
fn a_bad_release_is_never_chosen_until_a_swap_clears_it() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    ask(&site, "rollback").ok();
    live(&site, &["c"]);
    // b was live later than a, but it was rolled back from.
    assert_eq!(states(&site), ["c current", "a previous", "b bad"]);
    refused(&site, "rollback b");
    let reply = site.ssh("ci", "rollback b");
    let problem = "release 'b' is bad: it failed its checks, or was rolled back from";
    assert!(reply.stderr.contains(problem), "{reply:?}");

    says(&site, "swap b", "ok swap b previous=c");
    assert_eq!(states(&site), ["b current", "c previous", "a good"]);
    says(&site, "swap c", "ok swap c previous=b");
    says(&site, "rollback", "ok rollback b previous=c");
}

#[test]
fn a_rollback_with_a_condition_compares_the_live_release() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    let before = everything(&site);
    for request in [
        "rollback --if-current b",
        "rollback --if-current nowhere",
        "rollback a --if-current b",
        "rollback a --if-current a",
    ] {
        let reply = ask(&site, request);
        assert_eq!(reply.code, 75, "{request}: {reply:?}");
        reply.refused(75, "not-current");
    }
    assert!(everything(&site) == before);
    says(&site, "rollback --if-current c", "ok rollback b previous=c");
    says(
        &site,
        "rollback a --if-current b",
        "ok rollback a previous=b",
    );
}

/// `list` says beforehand what a rollback will choose.
#[test]
fn a_rollback_chooses_the_release_that_list_calls_previous() {
    let site = Site::new();
    live(&site, &["a", "b", "c", "d"]);
    for step in [
        "rollback b",
        "swap d",
        "swap a",
        "rollback",
        "swap c",
        "swap c",
    ] {
        ask(&site, step).ok();
        let previous = listing(&site)["previous"].clone();
        let previous = previous.as_str().expect("a release").to_owned();
        assert!(
            states(&site).contains(&format!("{previous} previous")),
            "{step}"
        );
    }
    let before = listing(&site);
    let previous = before["previous"].as_str().expect("a release");
    let line = format!("ok rollback {previous} previous=c");
    says(&site, "rollback", &line);
}

#[test]
fn a_release_removed_by_hand_is_skipped() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    fs::remove_dir_all(site.root().join("releases/b")).expect("removed by hand");
    assert_eq!(states(&site), ["c current", "b missing", "a previous"]);
    let reply = ask(&site, "rollback b");
    reply.refused(66, "no-such-release");
    says(&site, "rollback", "ok rollback a previous=c");
    // Its id is free again.
    put(&site, "b");
    let page = fs::read_to_string(site.root().join("releases/b/index.html"));
    assert_eq!(page.expect("received again"), "b");
    says(&site, "swap b", "ok swap b previous=a");
}

/// The live release's directory is gone: a swap must repair the site.
#[test]
fn a_swap_replaces_a_current_release_removed_by_hand() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    fs::remove_dir_all(site.root().join("releases/b")).expect("removed by hand");
    site.ssh("ci", "list").ok();
    let reply = ask(&site, "swap a");
    assert_eq!(reply.code, 0, "{reply:?}");
    assert_eq!(site.current().as_deref(), Some("a"));
    // The next change records that it was removed.
    assert_eq!(states(&site), ["a current", "b missing"]);
    put(&site, "c");
    assert_eq!(states(&site), ["a current", "c pending"]);
}

#[test]
fn a_rollback_to_a_pruned_release_is_refused() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c", "d"]);
    assert_eq!(site.releases(), ["b", "c", "d"]);
    refused(&site, "rollback a");
    says(&site, "rollback", "ok rollback c previous=d");
    says(&site, "rollback", "ok rollback b previous=c");
    refused(&site, "rollback");
    refused(&site, "rollback a");
}
