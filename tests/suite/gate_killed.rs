//! The process that serves a request is killed during its checks, as when the
//! machine goes down. The live release is unconfirmed until its checks pass.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::direct::{ask, listing, live, put, states};
use crate::gating::{
    appears, gate_failed, hook, log, logging_hooks, make_fail, make_pass, touch, wait_for,
    wait_until_none_is_left,
};
use crate::process::{Upload, serving};
use crate::site::Site;

/// Kills the processes that serve a request, while a hook waits at `begun`.
fn kill_server_at(site: &Site, request: &str, begun: &str) {
    let client = Upload::start(site, request);
    appears(site, begun);
    let servers = serving(site);
    assert!(!servers.is_empty(), "no process serves it");
    for process in servers {
        kill(Pid::from_raw(process.pid), Signal::SIGKILL).expect("it is there");
    }
    let reply = client.finish();
    assert_ne!(reply.code, 0, "{reply:?}");
    assert_eq!(reply.stdout, "");
}

/// Makes a hook that waits in its first run, with a child process.
fn waiting_hook(stage: &str) -> String {
    let script = format!(
        "[ -e {{dir}}/go ] || {{ tail -f {{dir}}/stays & setsid tail -f {{dir}}/stays & \
         touch {{dir}}/begun; {}; }}",
        wait_for("go")
    );
    hook(stage, &script)
}

/// Makes a site with b live, a live before it and c pending. No hook waits yet.
fn site(config: &str) -> Site {
    let site = Site::with_config(config);
    touch(&site, "stays");
    touch(&site, "go");
    live(&site, &["a", "b"]);
    put(&site, "c");
    fs::remove_file(site.dir().join("go")).expect("it was there");
    log(&site);
    site
}

fn row(site: &Site, release: &str) -> serde_json::Value {
    let listing = listing(site);
    let rows = listing["releases"].as_array().expect("an array");
    let row = rows.iter().find(|row| row["release"] == release);
    row.expect("it is there").clone()
}

#[test]
fn a_kill_before_the_swap_changes_nothing() {
    let site = site(&waiting_hook("before_swap"));
    let before = site.snapshot();
    kill_server_at(&site, "swap c", "begun");
    wait_until_none_is_left(&site, "stays");
    assert!(site.snapshot() == before);
    assert_eq!(states(&site), ["b current", "a previous", "c pending"]);
    touch(&site, "go");
    assert_eq!(site.ssh("ci", "swap c").ok(), "ok swap c previous=b\n");
}

#[test]
fn a_kill_after_the_swap_leaves_the_release_unconfirmed() {
    let config = format!("{}{}", logging_hooks(), waiting_hook("after_swap"));
    let site = site(&config);
    kill_server_at(&site, "swap c", "begun");
    wait_until_none_is_left(&site, "stays");
    assert_eq!(
        site.current().as_deref(),
        Some("c"),
        "no process was left to roll back"
    );
    for (release, state, proved) in [("c", "current", false), ("b", "previous", true)] {
        let row = row(&site, release);
        assert_eq!(
            (&row["state"], &row["proved"]),
            (&state.into(), &proved.into())
        );
    }
    log(&site);

    // A swap that names another payload runs no check.
    let other = "0".repeat(64);
    site.ssh("ci", &format!("swap c --sha256 {other}"))
        .refused(65, "digest-mismatch");
    assert_eq!(log(&site), [] as [&str; 0]);
    assert_eq!(row(&site, "c")["proved"], false);

    // A swap to it runs the checks again, and changes nothing else.
    touch(&site, "go");
    assert_eq!(site.ssh("ci", "swap c").ok(), "ok swap c result=proved\n");
    assert_eq!(
        log(&site),
        ["after_swap c b c"],
        "no hook runs before: it is live"
    );
    assert_eq!(row(&site, "c")["proved"], true);
    assert_eq!(states(&site), ["c current", "b previous", "a good"]);
    assert_eq!(
        site.ssh("ci", "swap c").ok(),
        "ok swap c result=unchanged\n"
    );
    assert_eq!(log(&site), [] as [&str; 0]);
    put(&site, "d");
    ask(&site, "swap d").ok();
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback c previous=d\n");
}

#[test]
fn a_rollback_from_an_unconfirmed_release_marks_it_bad() {
    let site = site(&waiting_hook("after_swap"));
    kill_server_at(&site, "swap c", "begun");
    touch(&site, "go");
    assert_eq!(
        site.ssh("ci", "rollback").ok(),
        "ok rollback b previous=c\n"
    );
    assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
    site.ssh("ci", "rollback c").refused(66, "no-such-release");
}

#[test]
fn a_swap_from_an_unconfirmed_release_marks_it_bad() {
    let site = site(&waiting_hook("after_swap"));
    kill_server_at(&site, "swap c", "begun");
    touch(&site, "go");
    put(&site, "d");
    assert_eq!(site.ssh("ci", "swap d").ok(), "ok swap d previous=c\n");
    // c is unconfirmed: a rollback skips it.
    let expected = ["d current", "c bad", "b previous", "a good"];
    assert_eq!(states(&site), expected);
    assert_eq!(
        site.ssh("ci", "rollback").ok(),
        "ok rollback b previous=d\n"
    );
}

#[test]
fn a_repeated_check_that_fails_rolls_back() {
    let config = format!("{}{}", logging_hooks(), waiting_hook("after_swap"));
    let site = site(&config);
    kill_server_at(&site, "swap c", "begun");
    touch(&site, "go");
    make_fail(&site, "c", "after_swap");
    log(&site);
    let problem = gate_failed(&site.ssh("ci", "swap c"));
    assert!(problem.ends_with("'b' is live again"), "{problem}");
    assert_eq!(log(&site), ["after_swap c b c", "after_swap b c b"]);
    assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
    make_pass(&site, "c");
    ask(&site, "swap c").ok();
}

#[test]
fn a_site_without_checks_confirms_the_release() {
    let site = site(&waiting_hook("after_swap"));
    kill_server_at(&site, "swap c", "begun");
    // The operator removes the checks from the configuration.
    site.configure("");
    assert_eq!(row(&site, "c")["proved"], false);
    let swap = || site.ssh("ci", "swap c").ok();
    assert_eq!(swap(), "ok swap c result=unchanged\n");
    assert_eq!(row(&site, "c")["proved"], true);
    let journal = site.journal();
    assert_eq!(swap(), "ok swap c result=unchanged\n");
    assert_eq!(site.journal(), journal, "once is enough");
    put(&site, "d");
    ask(&site, "swap d").ok();
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback c previous=d\n");
}

#[test]
fn a_killed_rollback_leaves_its_target_unconfirmed() {
    let site = site(&waiting_hook("after_swap"));
    kill_server_at(&site, "rollback", "begun");
    assert_eq!(site.current().as_deref(), Some("a"));
    assert_eq!(row(&site, "a")["proved"], false);
    // The release that a rollback left is bad, confirmed or not.
    assert_eq!(row(&site, "b")["state"], "bad");
    touch(&site, "go");
    assert_eq!(
        site.ssh("ci", "rollback a").ok(),
        "ok rollback a result=proved\n"
    );
    assert_eq!(row(&site, "a")["proved"], true);
}

/// A release that was good stays good: only the state of the service is unknown.
#[test]
fn after_a_killed_automatic_rollback_the_checks_run_again() {
    // c fails, and the hook of the automatic rollback waits.
    let script = format!(
        "[ $DEPLOY_RELEASE != c ] || exit 1; [ -e {{dir}}/go ] || \
         {{ touch {{dir}}/begun; {}; }}",
        wait_for("go")
    );
    for swapped_to in [true, false] {
        let site = site(&hook("after_swap", &script));
        kill_server_at(&site, "swap c", "begun");
        assert_eq!(site.current().as_deref(), Some("b"));
        assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
        assert_eq!(row(&site, "b")["proved"], false);
        touch(&site, "go");
        if swapped_to {
            let reply = site.ssh("ci", "swap b");
            assert_eq!(reply.ok(), "ok swap b result=proved\n");
            assert_eq!(row(&site, "b")["proved"], true);
        }
        put(&site, "d");
        assert_eq!(ask(&site, "swap d").ok(), "ok swap d previous=b\n");
        assert_eq!(ask(&site, "rollback").ok(), "ok rollback b previous=d\n");
    }
}
