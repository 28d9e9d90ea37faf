//! Killed in mid-gate: the process that serves the request dies at once, as
//! when the machine goes down. What is live says so until it is asked again.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::direct::{ask, listing, live, put, states};
use crate::gating::{
    appears, cure, gate_failed, hook, log, logging_hooks, none_stays, sicken, touch, wait_for,
};
use crate::process::{Upload, serving};
use crate::site::Site;

/// Kills whoever serves a request, while a hook stands at `begun`.
fn killed_at(site: &Site, request: &str, begun: &str) {
    let client = Upload::start(site, request);
    appears(site, begun);
    let servers = serving(site);
    assert!(!servers.is_empty(), "nobody serves it");
    for process in servers {
        kill(Pid::from_raw(process.pid), Signal::SIGKILL).expect("it is there");
    }
    let reply = client.finish();
    assert_ne!(reply.code, 0, "{reply:?}");
    assert_eq!(reply.stdout, "");
}

/// A hook that stands still in its first run, with something it has started.
fn standing(stage: &str) -> String {
    let script = format!(
        "[ -e {{dir}}/go ] || {{ tail -f {{dir}}/stays & setsid tail -f {{dir}}/stays & \
         touch {{dir}}/begun; {}; }}",
        wait_for("go")
    );
    hook(stage, &script)
}

/// A site with a and b once live, and c to come; nothing stands still yet.
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
fn before_the_swap_nothing_has_happened() {
    let site = site(&standing("before_swap"));
    let before = site.snapshot();
    killed_at(&site, "swap c", "begun");
    none_stays(&site, "stays");
    assert!(site.snapshot() == before);
    assert_eq!(states(&site), ["b current", "a previous", "c pending"]);
    touch(&site, "go");
    assert_eq!(site.ssh("ci", "swap c").ok(), "ok swap c previous=b\n");
}

#[test]
fn after_the_swap_what_is_live_has_yet_to_prove_itself() {
    let config = format!("{}{}", logging_hooks(), standing("after_swap"));
    let site = site(&config);
    killed_at(&site, "swap c", "begun");
    none_stays(&site, "stays");
    assert_eq!(
        site.current().as_deref(),
        Some("c"),
        "nobody was there to go back"
    );
    for (release, state, proved) in [("c", "current", false), ("b", "previous", true)] {
        let row = row(&site, release);
        assert_eq!(
            (&row["state"], &row["proved"]),
            (&state.into(), &proved.into())
        );
    }
    log(&site);

    // A swap to it asks again, and changes nothing else.
    touch(&site, "go");
    assert_eq!(site.ssh("ci", "swap c").ok(), "ok swap c result=proved\n");
    assert_eq!(
        log(&site),
        ["after_swap c b c"],
        "no hook before: it is live"
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
fn a_rollback_leaves_it_for_good() {
    let site = site(&standing("after_swap"));
    killed_at(&site, "swap c", "begun");
    touch(&site, "go");
    assert_eq!(
        site.ssh("ci", "rollback").ok(),
        "ok rollback b previous=c\n"
    );
    assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
    site.ssh("ci", "rollback c").refused(66, "no-such-release");
}

#[test]
fn a_swap_away_from_it_leaves_it_for_good_as_well() {
    let site = site(&standing("after_swap"));
    killed_at(&site, "swap c", "begun");
    touch(&site, "go");
    put(&site, "d");
    assert_eq!(site.ssh("ci", "swap d").ok(), "ok swap d previous=c\n");
    // It has never proved itself: a rollback passes it over.
    let expected = ["d current", "c bad", "b previous", "a good"];
    assert_eq!(states(&site), expected);
    assert_eq!(
        site.ssh("ci", "rollback").ok(),
        "ok rollback b previous=d\n"
    );
}

#[test]
fn asked_again_it_may_fail_and_goes_back() {
    let config = format!("{}{}", logging_hooks(), standing("after_swap"));
    let site = site(&config);
    killed_at(&site, "swap c", "begun");
    touch(&site, "go");
    sicken(&site, "c", "after_swap");
    log(&site);
    let problem = gate_failed(&site.ssh("ci", "swap c"));
    assert!(problem.ends_with("'b' is live again"), "{problem}");
    assert_eq!(log(&site), ["after_swap c b c", "after_swap b c b"]);
    assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
    cure(&site, "c");
    ask(&site, "swap c").ok();
}

#[test]
fn what_nobody_asks_any_more_is_taken_for_proved() {
    let site = site(&standing("after_swap"));
    killed_at(&site, "swap c", "begun");
    // The operator takes the gate away.
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
fn in_a_rollback_it_is_the_same() {
    let site = site(&standing("after_swap"));
    killed_at(&site, "rollback", "begun");
    assert_eq!(site.current().as_deref(), Some("a"));
    assert_eq!(row(&site, "a")["proved"], false);
    // What was rolled away from is bad, proved or not.
    assert_eq!(row(&site, "b")["state"], "bad");
    touch(&site, "go");
    assert_eq!(
        site.ssh("ci", "rollback a").ok(),
        "ok rollback a result=proved\n"
    );
    assert_eq!(row(&site, "a")["proved"], true);
}

/// A release that was good before stays so: what was not answered for is
/// whether all around it has come back with it.
#[test]
fn on_the_way_back_what_is_back_is_asked_once_more() {
    // c fails, and the hook of the way back stands still.
    let script = format!(
        "[ $DEPLOY_RELEASE != c ] || exit 1; [ -e {{dir}}/go ] || \
         {{ touch {{dir}}/begun; {}; }}",
        wait_for("go")
    );
    for asked in [true, false] {
        let site = site(&hook("after_swap", &script));
        killed_at(&site, "swap c", "begun");
        assert_eq!(site.current().as_deref(), Some("b"));
        assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
        assert_eq!(row(&site, "b")["proved"], false);
        touch(&site, "go");
        if asked {
            let reply = site.ssh("ci", "swap b");
            assert_eq!(reply.ok(), "ok swap b result=proved\n");
            assert_eq!(row(&site, "b")["proved"], true);
        }
        put(&site, "d");
        assert_eq!(ask(&site, "swap d").ok(), "ok swap d previous=b\n");
        assert_eq!(ask(&site, "rollback").ok(), "ok rollback b previous=d\n");
    }
}
