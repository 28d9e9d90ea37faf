//! Another hand moves the link while a request runs: what it did is neither
//! undone nor passed off as what was asked for.

use std::fs;

use crate::direct::{ask, live, put, states};
use crate::fallback::killed_in_mid_gate;
use crate::gating::{gate_failed, hook, returned};
use crate::site::Site;

/// What such a hand does.
const TO_C: &str = "ln -sfn releases/c {dir}/root/current";

const MOVED: &str =
    "the current symlink was changed by another process during this request: 'c' is live";

/// A site where c and then a are live and b is to come, with this hook after
/// the swap.
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
fn before_the_swap_nothing_is_moved() {
    let site = Site::new();
    live(&site, &["c", "a"]);
    put(&site, "b");
    site.configure(&hook("before_swap", TO_C));
    ask(&site, "swap b").refused(75, "not-current");
    assert_eq!(site.current().as_deref(), Some("c"));
    ask(&site, "swap a").ok();
}

#[test]
fn before_the_swap_a_failure_says_what_is_live() {
    let site = Site::new();
    live(&site, &["c", "a"]);
    put(&site, "b");
    site.configure(&hook("before_swap", &format!("{TO_C}; exit 1")));
    let problem = gate_failed(&ask(&site, "swap b"));
    assert!(problem.ends_with(MOVED), "{problem}");
}

#[test]
fn what_passes_is_no_success_where_it_is_not_live_any_more() {
    let site = site(&for_b(TO_C));
    let reply = site.ssh("ci", "swap b");
    reply.refused(75, "not-current");
    assert!(reply.stderr.contains(MOVED), "{reply:?}");
    assert_eq!(site.current().as_deref(), Some("c"));
    let last = site.journal().pop().expect("a record");
    assert_eq!(last["event"], "swapped", "that b passed is not known");
    // Nobody knows of b that it works.
    site.configure("");
    put(&site, "d");
    assert_eq!(ask(&site, "swap d").ok(), "ok swap d previous=c\n");
    assert_eq!(
        states(&site),
        ["d current", "c previous", "b bad", "a good"]
    );
}

#[test]
fn what_fails_is_not_gone_back_from_where_it_is_not_live_any_more() {
    let site = site(&for_b(&format!("{TO_C}; exit 1")));
    let problem = gate_failed(&site.ssh("ci", "swap b"));
    let end = format!("hook after_swap 1 ('/bin/sh') exited with 1; {MOVED}");
    assert!(problem.ends_with(&end), "{problem}");
    assert_eq!(site.current().as_deref(), Some("c"));
    returned(&site).has(&[("release", "b"), ("live", "c"), ("outcome", "failed")]);
    assert_eq!(states(&site), ["c current", "b bad", "a previous"]);
}

#[test]
fn a_link_that_is_none_any_more_is_not_replaced() {
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
        returned(&site).has(&[("live", "-"), ("outcome", "failed")]);
        let _ = fs::remove_dir(&link);
        ask(&site, "swap a").ok();
        assert_eq!(states(&site), ["a current", "b bad", "c previous"]);
    }
}

#[test]
fn on_the_way_back_it_is_not_undone_either() {
    let hook = format!("[ $DEPLOY_RELEASE != b ] || exit 1; {TO_C}");
    let site = site(&hook);
    let problem = gate_failed(&site.ssh("ci", "swap b"));
    assert!(problem.contains(", and 'a' again after it; "), "{problem}");
    assert!(problem.ends_with(MOVED), "{problem}");
    assert_eq!(site.current().as_deref(), Some("c"));
    returned(&site).has(&[("release", "b"), ("live", "c"), ("outcome", "failed")]);
}

#[test]
fn what_is_asked_again_is_no_success_either() {
    let site = Site::new();
    live(&site, &["c", "a"]);
    put(&site, "b");
    killed_in_mid_gate(&site, "swapped", "b");
    site.configure(&hook("after_swap", TO_C));
    ask(&site, "swap b").refused(75, "not-current");
    assert_eq!(site.current().as_deref(), Some("c"));
}
