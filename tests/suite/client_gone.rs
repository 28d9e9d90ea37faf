//! The client and its connection end while the gate runs: the request completes and
//! is logged, and the site's lock is free afterwards.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::contention::hold;
use crate::direct::{ask, live, put, record, states};
use crate::fallback::killed_during_checks;
use crate::fields::Fields;
use crate::gating::{
    appears, hook, logged_steps, rollback_line, touch, wait_for, wait_until_none_is_left,
};
use crate::process::{Upload, eventually, pids_with_argument, serving};
use crate::service::{Answer, Service, ok};
use crate::site::Site;

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// ssh is killed, and sshd sees its connection end.
    Client,
    /// sshd is killed as well: no process is notified.
    Connection,
}

const GATE_FAILED: [(&str, &str); 3] = [
    ("outcome", "failed"),
    ("exit", "69"),
    ("code", "gate-failed"),
];

const BOTH: [Leaves; 2] = [Leaves::Client, Leaves::Connection];

impl Leaves {
    fn go(self, site: &Site, client: Upload) {
        client.kill();
        let sshd = site.dir().join("sshd_config");
        let sshd = sshd.to_str().expect("a plain path");
        let connection = || pids_with_argument(sshd);
        if let Leaves::Connection = self {
            for pid in connection() {
                // It may have seen the end of its client already.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        eventually("the connection is gone", || connection().is_empty());
    }
}

/// Returns the last line of the audit log, once no process serves the site.
fn outcome(site: &Site) -> Fields {
    eventually("nobody serves the site", || serving(site).is_empty());
    let line = record(site).pop().expect("a line");
    let fields = Fields::read(&line);
    fields.has(&[("event", "result")]);
    fields
}

/// Asserts that the lock is free and the next request works.
#[track_caller]
fn next_request_works(site: &Site) {
    assert_eq!(ask(site, "rollback").code, 0);
    assert!(site.leftovers().is_empty());
}

fn swap_whose_client_leaves(hooks: &str, leaves: Leaves) -> Site {
    request_whose_client_leaves(hooks, "swap c", leaves)
}

/// Makes a request on a site where a and b have been live and c waits, has the
/// client leave when the phase has begun, and then lets the phase go on.
fn request_whose_client_leaves(hooks: &str, request: &str, leaves: Leaves) -> Site {
    let site = Site::new();
    touch(&site, "stays");
    live(&site, &["a", "b"]);
    put(&site, "c");
    site.configure(hooks);
    let client = Upload::start(&site, request);
    appears(&site, "begun");
    leaves.go(&site, client);
    // The server has not ended with its client.
    assert!(!serving(&site).is_empty(), "{leaves:?}");
    touch(&site, "go");
    site
}

/// Makes a hook that waits silently and exits with `status`.
fn waiting_hook(stage: &str, status: &str) -> String {
    let script = format!(
        "tail -f {{dir}}/stays & [ -e {{dir}}/go ] || touch {{dir}}/begun; {}; \
         yes said | head -n 3000; {status}",
        wait_for("go")
    );
    hook(stage, &script)
}

#[test]
fn a_swap_completes_when_its_client_leaves_during_a_hook_before_it() {
    for leaves in BOTH {
        let site = swap_whose_client_leaves(&waiting_hook("before_swap", "exit 0"), leaves);
        outcome(&site).has(&[("outcome", "ok"), ("exit", "0"), ("release", "c")]);
        assert_eq!(site.current().as_deref(), Some("c"), "{leaves:?}");
        wait_until_none_is_left(&site, "stays");
        next_request_works(&site);
    }
}

#[test]
fn a_failed_hook_aborts_a_swap_whose_client_has_left() {
    let site = swap_whose_client_leaves(&waiting_hook("before_swap", "exit 1"), Leaves::Connection);
    outcome(&site).has(&GATE_FAILED);
    assert_eq!(states(&site), ["b current", "a previous", "c bad"]);
    next_request_works(&site);
}

#[test]
fn a_rollback_completes_when_its_client_leaves_during_a_hook_before_it() {
    for leaves in BOTH {
        let site = request_whose_client_leaves(
            &waiting_hook("before_rollback", "exit 0"),
            "rollback",
            leaves,
        );
        outcome(&site).has(&[("outcome", "ok"), ("release", "a"), ("previous", "b")]);
        assert_eq!(states(&site)[..2], ["a current", "b bad"], "{leaves:?}");
        ask(&site, "swap c").ok();
    }
}

#[test]
fn an_automatic_rollback_completes_when_the_client_leaves() {
    // The hook fails at once for c, and waits for the previous release.
    let waits = waiting_hook("after_swap", "exit 0");
    let hooks = waits.replace("'''tail", "'''[ $DEPLOY_RELEASE != c ] || exit 1; tail");
    assert_ne!(hooks, waits);
    for leaves in BOTH {
        let site = swap_whose_client_leaves(&hooks, leaves);
        outcome(&site).has(&GATE_FAILED);
        rollback_line(&site).has(&[("release", "c"), ("live", "b"), ("outcome", "ok")]);
        assert_eq!(
            states(&site),
            ["b current", "c bad", "a previous"],
            "{leaves:?}"
        );
        next_request_works(&site);
    }
}

#[test]
fn a_release_is_confirmed_when_the_client_leaves_during_a_hook_after_the_swap() {
    for leaves in BOTH {
        let site = swap_whose_client_leaves(&waiting_hook("after_swap", "exit 0"), leaves);
        outcome(&site).has(&[("outcome", "ok"), ("release", "c"), ("previous", "b")]);
        let last = site.journal().pop().expect("a record");
        assert_eq!(last["event"], "proved", "{leaves:?}");
        next_request_works(&site);
    }
}

#[test]
fn a_release_is_confirmed_when_the_client_leaves_during_a_hook_after_a_rollback() {
    for leaves in BOTH {
        let site =
            request_whose_client_leaves(&waiting_hook("after_swap", "exit 0"), "rollback", leaves);
        outcome(&site).has(&[("outcome", "ok"), ("release", "a"), ("previous", "b")]);
        let last = site.journal().pop().expect("a record");
        assert_eq!(last["event"], "proved", "{leaves:?}");
        wait_until_none_is_left(&site, "stays");
        ask(&site, "swap c").ok();
    }
}

#[test]
fn a_repeated_check_completes_when_the_client_leaves() {
    for (ends, expected) in [("exit 0", "b"), ("[ $DEPLOY_RELEASE != b ]", "a")] {
        for leaves in BOTH {
            let site = Site::new();
            touch(&site, "stays");
            live(&site, &["a"]);
            put(&site, "b");
            killed_during_checks(&site, "swapped", "b");
            site.configure(&waiting_hook("after_swap", ends));
            let client = Upload::start(&site, "swap b");
            appears(&site, "begun");
            leaves.go(&site, client);
            assert!(!serving(&site).is_empty(), "{leaves:?}");
            touch(&site, "go");
            if expected == "b" {
                outcome(&site).has(&[("outcome", "ok"), ("release", "b")])
            } else {
                outcome(&site).has(&GATE_FAILED)
            }
            let last = site.journal().pop().expect("a record");
            assert_eq!([&last["event"], &last["release"]], ["proved", expected]);
            assert_eq!(site.current().as_deref(), Some(expected), "{leaves:?}");
            wait_until_none_is_left(&site, "stays");
        }
    }
}

#[test]
fn a_swap_waits_for_the_lock_after_its_client_has_left() {
    for leaves in BOTH {
        let site = Site::new();
        live(&site, &["a", "b"]);
        put(&site, "c");
        let held = hold(&site);
        let client = Upload::taken_up(&site, "swap c");
        leaves.go(&site, client);
        drop(held);
        // On a slow machine the request may have timed out by then. Either way the
        // audit log has its true result.
        let result = outcome(&site);
        match result.get("outcome") {
            Some("ok") => assert_eq!(site.current().as_deref(), Some("c")),
            _ => {
                result.has(&[("code", "busy")]);
                assert_eq!(site.current().as_deref(), Some("b"));
            }
        }
        next_request_works(&site);
    }
}

#[test]
fn a_failed_release_is_rolled_back_when_the_client_has_left() {
    for leaves in BOTH {
        let config = waiting_hook("after_swap", "[ $DEPLOY_RELEASE != c ]");
        let site = swap_whose_client_leaves(&config, leaves);
        outcome(&site).has(&GATE_FAILED);
        assert_eq!(
            states(&site),
            ["b current", "c bad", "a previous"],
            "{leaves:?}"
        );
        // The hook of the automatic rollback ran as well.
        let last = logged_steps(&site).pop().expect("a line");
        last.has(&[
            ("step", "after_swap 1"),
            ("release", "b"),
            ("outcome", "ok"),
        ]);
        wait_until_none_is_left(&site, "stays");
        next_request_works(&site);
    }
}

/// Starts a service that makes the file `begun` at its first request, and answers
/// 503 until the file `go` exists.
fn slow_service(site: &Site, then: fn() -> Answer) -> Service {
    let directory = site.dir().to_owned();
    Service::start(move |_, _| {
        if directory.join("go").exists() {
            return then();
        }
        std::fs::write(directory.join("begun"), "").expect("a file");
        Answer::Text(503, String::new())
    })
}

fn check_whose_client_leaves(key: &str, then: fn() -> Answer, leaves: Leaves) -> (Site, Fields) {
    let site = Site::new();
    live(&site, &["a", "b"]);
    put(&site, "c");
    let service = slow_service(&site, then);
    site.configure(&format!(
        "[health]\n{key} = \"{}\"\ninterval = \"1s\"\ntimeout = \"100s\"\n",
        service.url("/")
    ));
    let client = Upload::start(&site, "swap c");
    appears(&site, "begun");
    leaves.go(&site, client);
    assert!(!serving(&site).is_empty(), "{leaves:?}");
    touch(&site, "go");
    let result = outcome(&site);
    (site, result)
}

#[test]
fn a_smoke_test_completes_when_the_client_leaves() {
    let (site, result) = check_whose_client_leaves("smoke_url", || ok(""), Leaves::Connection);
    result.has(&[("outcome", "ok"), ("release", "c")]);
    assert_eq!(states(&site), ["c current", "b previous", "a good"]);
    assert!(site.root().join("preview").symlink_metadata().is_err());
}

#[test]
fn a_failed_smoke_test_aborts_a_swap_whose_client_has_left() {
    let (site, result) =
        check_whose_client_leaves("smoke_url", || Answer::Elsewhere("/"), Leaves::Client);
    result.has(&GATE_FAILED);
    assert_eq!(states(&site), ["b current", "a previous", "c bad"]);
    assert!(site.root().join("preview").symlink_metadata().is_err());
}

#[test]
fn a_health_check_completes_when_the_client_leaves() {
    let (site, result) = check_whose_client_leaves("url", || ok(""), Leaves::Client);
    result.has(&[("outcome", "ok"), ("release", "c")]);
    assert_eq!(states(&site), ["c current", "b previous", "a good"]);
    let last = site.journal().pop().expect("a record");
    assert_eq!(last["event"], "proved");
}

#[test]
fn a_failed_health_check_rolls_back_when_the_client_has_left() {
    let (site, result) =
        check_whose_client_leaves("url", || Answer::Elsewhere("/"), Leaves::Connection);
    result.has(&GATE_FAILED);
    assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
}
