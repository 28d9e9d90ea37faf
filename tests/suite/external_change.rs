//! Another process changes the current symlink while a request runs. The
//! request neither undoes the change nor reports it as its own success.

use std::fs;

use crate::direct::{ask, live, put, states};
use crate::fallback::killed_during_checks;
use crate::gating::{gate_failed, hook, rollback_line};
use crate::site::Site;

/// The command of the other process.
const TO_C: &str = "ln -sfn releases/c {dir}/root/current";

const MOVED: &str =
    "the current symlink was changed by another process during this request: 'c' is live";

/// Makes a site with a live, c live before it and b pending, and this hook
/// after the swap.
fn site(script: &str) -> Site {
    let site = Site::new();
    live(&site, &["c", "a"]);
    put(&site, "b");
    site.configure(&hook("after_swap", script));
    site
}

fn for_b(script: &str) -> String {
    format!("[ $DEPLOY_RELEASE != b ] || {{ {script}; }}")
}

#[test]
fn a_change_before_the_swap_is_not_undone() {
    let site = Site::new();
    live(&site, &["c", "a"]);
    put(&site, "b");
    site.configure(&hook("before_swap", TO_C));
    ask(&site, "swap b").refused(75, "not-current");
    assert_eq!(site.current().as_deref(), Some("c"));
    ask(&site, "swap a").ok();
}

#[test]
fn a_failure_before_the_swap_says_what_is_live() {
    let site = Site::new();
    live(&site, &["c", "a"]);
    put(&site, "b");
    site.configure(&hook("before_swap", &format!("{TO_C}; exit 1")));
    let problem = gate_failed(&ask(&site, "swap b"));
    assert!(problem.ends_with(MOVED), "{problem}");
}

#[test]
fn a_symlink_that_cannot_be_read_prevents_pruning() {
    let script = "[ $DEPLOY_RELEASE != b ] || mkdir {dir}/root/current; exit 1";
    let hook = hook("before_swap", script);
    let site = Site::with_config(&format!("keep = 0\nmin_age = \"0s\"\n{hook}"));
    for release in ["a", "b"] {
        put(&site, release);
        gate_failed(&ask(&site, &format!("swap {release}")));
    }
    // The journal says that nothing is live. The directory may hide a live release.
    assert_eq!(site.releases(), ["a", "b"]);
    fs::remove_dir(site.root().join("current")).expect("it was there");
    gate_failed(&ask(&site, "swap a"));
    assert_eq!(site.releases(), ["a"]);
}

#[test]
fn a_passed_check_is_no_success_if_the_release_is_not_live_any_more() {
    let site = site(&for_b(TO_C));
    let reply = site.ssh("ci", "swap b");
    reply.refused(75, "not-current");
    assert!(reply.stderr.contains(MOVED), "{reply:?}");
    assert_eq!(site.current().as_deref(), Some("c"));
    let last = site.journal().pop().expect("a record");
    assert_eq!(last["event"], "swapped", "that b passed is not known");
    // b is unconfirmed.
    site.configure("");
    put(&site, "d");
    assert_eq!(ask(&site, "swap d").ok(), "ok swap d previous=c\n");
    assert_eq!(
        states(&site),
        ["d current", "c previous", "b bad", "a good"]
    );
}

#[test]
fn a_failure_moves_nothing_if_the_release_is_not_live_any_more() {
    let site = site(&for_b(&format!("{TO_C}; exit 1")));
    let problem = gate_failed(&site.ssh("ci", "swap b"));
    let end = format!("hook after_swap 1 ('/bin/sh') exited with 1; {MOVED}");
    assert!(problem.ends_with(&end), "{problem}");
    assert_eq!(site.current().as_deref(), Some("c"));
    rollback_line(&site).has(&[("release", "b"), ("live", "c"), ("outcome", "failed")]);
    assert_eq!(states(&site), ["c current", "b bad", "a previous"]);
}

#[test]
fn a_symlink_that_was_removed_or_replaced_is_left_alone() {
    let link = "{dir}/root/current";
    for (script, words) in [
        (format!("rm {link}; exit 1"), "nothing is live"),
        (
            format!("rm {link}; mkdir {link}; exit 1"),
            "is not a symlink",
        ),
    ] {
        let site = site(&for_b(&script));
        let problem = gate_failed(&site.ssh("ci", "swap b"));
        assert!(problem.ends_with(words), "{problem}");
        let link = site.root().join("current");
        assert_eq!(link.exists(), words == "is not a symlink");
        rollback_line(&site).has(&[("live", "-"), ("outcome", "failed")]);
        let _ = fs::remove_dir(&link);
        ask(&site, "swap a").ok();
        assert_eq!(states(&site), ["a current", "b bad", "c previous"]);
    }
}

#[test]
fn a_change_after_the_automatic_rollback_is_not_undone() {
    let hook = format!("[ $DEPLOY_RELEASE != b ] || exit 1; {TO_C}");
    let site = site(&hook);
    let problem = gate_failed(&site.ssh("ci", "swap b"));
    assert!(problem.contains("; then 'a' was live again; "), "{problem}");
    assert!(problem.ends_with(MOVED), "{problem}");
    assert_eq!(site.current().as_deref(), Some("c"));
    rollback_line(&site).has(&[("release", "b"), ("live", "c"), ("outcome", "failed")]);
}

#[test]
fn a_repeated_check_is_no_success_if_the_release_is_not_live_any_more() {
    let site = Site::new();
    live(&site, &["c", "a"]);
    put(&site, "b");
    killed_during_checks(&site, "swapped", "b");
    site.configure(&hook("after_swap", TO_C));
    ask(&site, "swap b").refused(75, "not-current");
    assert_eq!(site.current().as_deref(), Some("c"));
}
