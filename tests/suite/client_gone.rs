//! The client goes in mid-gate, and its connection with it: what was begun is
//! carried through and put on record, and the site is free afterwards.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::contention::hold;
use crate::direct::{ask, live, put, record, states};
use crate::fallback::killed_during_checks;
use crate::fields::Fields;
use crate::gating::{appears, hook, none_stays, returned, steps_on_record, touch, wait_for};
use crate::process::{Upload, eventually, pids_with_argument, serving};
use crate::service::{Answer, Service, ok};
use crate::site::Site;

/// How a client goes.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// ssh is killed, and sshd sees its connection end.
    Client,
    /// sshd is killed as well: nobody tells anybody anything.
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

/// The last line on record, once nobody serves the site any more.
fn outcome(site: &Site) -> Fields {
    eventually("nobody serves the site", || serving(site).is_empty());
    let line = record(site).pop().expect("a line");
    let fields = Fields::read(&line);
    fields.has(&[("event", "result")]);
    fields
}

/// The lock is free, and the next request works.
#[track_caller]
fn goes_on(site: &Site) {
    assert_eq!(ask(site, "rollback").code, 0);
    assert!(site.leftovers().is_empty());
}

fn left_at(hooks: &str, leaves: Leaves) -> Site {
    left_in(hooks, "swap c", leaves)
}

/// Makes a request on a site where a and b have been live and c waits, has the
/// client leave when the phase has begun, and then lets the phase go on.
fn left_in(hooks: &str, request: &str, leaves: Leaves) -> Site {
    let site = Site::new();
    touch(&site, "stays");
    live(&site, &["a", "b"]);
    put(&site, "c");
    site.configure(hooks);
    let client = Upload::start(&site, request);
    appears(&site, "begun");
    leaves.go(&site, client);
    // It has not ended with its client.
    assert!(!serving(&site).is_empty(), "{leaves:?}");
    touch(&site, "go");
    site
}

/// Makes a hook that waits silently and exits with `status`.
fn standing(stage: &str, status: &str) -> String {
    let script = format!(
        "tail -f {{dir}}/stays & [ -e {{dir}}/go ] || touch {{dir}}/begun; {}; \
         yes said | head -n 3000; {status}",
        wait_for("go")
    );
    hook(stage, &script)
}

#[test]
fn during_a_hook_before_the_swap() {
    for leaves in BOTH {
        let site = left_at(&standing("before_swap", "exit 0"), leaves);
        outcome(&site).has(&[("outcome", "ok"), ("exit", "0"), ("release", "c")]);
        assert_eq!(site.current().as_deref(), Some("c"), "{leaves:?}");
        none_stays(&site, "stays");
        goes_on(&site);
    }
}

#[test]
fn during_a_hook_that_fails_before_the_swap() {
    let site = left_at(&standing("before_swap", "exit 1"), Leaves::Connection);
    outcome(&site).has(&GATE_FAILED);
    assert_eq!(states(&site), ["b current", "a previous", "c bad"]);
    goes_on(&site);
}

#[test]
fn during_a_hook_before_a_rollback() {
    for leaves in BOTH {
        let site = left_in(&standing("before_rollback", "exit 0"), "rollback", leaves);
        outcome(&site).has(&[("outcome", "ok"), ("release", "a"), ("previous", "b")]);
        assert_eq!(states(&site)[..2], ["a current", "b bad"], "{leaves:?}");
        ask(&site, "swap c").ok();
    }
}

#[test]
fn during_an_automatic_rollback() {
    // It fails at once for c, and waits for the previous release.
    let waits = standing("after_swap", "exit 0");
    let hooks = waits.replace("'''tail", "'''[ $DEPLOY_RELEASE != c ] || exit 1; tail");
    assert_ne!(hooks, waits);
    for leaves in BOTH {
        let site = left_at(&hooks, leaves);
        outcome(&site).has(&GATE_FAILED);
        returned(&site).has(&[("release", "c"), ("live", "b"), ("outcome", "ok")]);
        assert_eq!(
            states(&site),
            ["b current", "c bad", "a previous"],
            "{leaves:?}"
        );
        goes_on(&site);
    }
}

#[test]
fn during_a_hook_after_the_swap() {
    for leaves in BOTH {
        let site = left_at(&standing("after_swap", "exit 0"), leaves);
        outcome(&site).has(&[("outcome", "ok"), ("release", "c"), ("previous", "b")]);
        let last = site.journal().pop().expect("a record");
        assert_eq!(last["event"], "proved", "{leaves:?}");
        goes_on(&site);
    }
}

#[test]
fn during_a_hook_after_a_rollback() {
    for leaves in BOTH {
        let site = left_in(&standing("after_swap", "exit 0"), "rollback", leaves);
        outcome(&site).has(&[("outcome", "ok"), ("release", "a"), ("previous", "b")]);
        let last = site.journal().pop().expect("a record");
        assert_eq!(last["event"], "proved", "{leaves:?}");
        none_stays(&site, "stays");
        ask(&site, "swap c").ok();
    }
}

#[test]
fn while_the_live_release_is_checked_again() {
    for (ends, expected) in [("exit 0", "b"), ("[ $DEPLOY_RELEASE != b ]", "a")] {
        for leaves in BOTH {
            let site = Site::new();
            touch(&site, "stays");
            live(&site, &["a"]);
            put(&site, "b");
            killed_during_checks(&site, "swapped", "b");
            site.configure(&standing("after_swap", ends));
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
            none_stays(&site, "stays");
        }
    }
}

#[test]
fn while_the_lock_is_waited_for() {
    for leaves in BOTH {
        let site = Site::new();
        live(&site, &["a", "b"]);
        put(&site, "c");
        let held = hold(&site);
        let client = Upload::taken_up(&site, "swap c");
        leaves.go(&site, client);
        drop(held);
        // On a slow machine it may have given up by then. Either way it is
        // true, and on record.
        let result = outcome(&site);
        match result.get("outcome") {
            Some("ok") => assert_eq!(site.current().as_deref(), Some("c")),
            _ => {
                result.has(&[("code", "busy")]);
                assert_eq!(site.current().as_deref(), Some("b"));
            }
        }
        goes_on(&site);
    }
}

#[test]
fn during_a_hook_that_fails_after_the_swap() {
    for leaves in BOTH {
        let config = standing("after_swap", "[ $DEPLOY_RELEASE != c ]");
        let site = left_at(&config, leaves);
        outcome(&site).has(&GATE_FAILED);
        assert_eq!(
            states(&site),
            ["b current", "c bad", "a previous"],
            "{leaves:?}"
        );
        // The hook of the automatic rollback ran, too.
        let last = steps_on_record(&site).pop().expect("a line");
        last.has(&[
            ("step", "after_swap 1"),
            ("release", "b"),
            ("outcome", "ok"),
        ]);
        none_stays(&site, "stays");
        goes_on(&site);
    }
}

/// A service that says `begun` when it is first asked, and says no until it
/// may go on.
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

fn left_waiting(key: &str, then: fn() -> Answer, leaves: Leaves) -> (Site, Fields) {
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
fn during_a_smoke_test() {
    let (site, result) = left_waiting("smoke_url", || ok(""), Leaves::Connection);
    result.has(&[("outcome", "ok"), ("release", "c")]);
    assert_eq!(states(&site), ["c current", "b previous", "a good"]);
    assert!(site.root().join("preview").symlink_metadata().is_err());
}

#[test]
fn during_a_smoke_test_that_fails() {
    let (site, result) = left_waiting("smoke_url", || Answer::Elsewhere("/"), Leaves::Client);
    result.has(&GATE_FAILED);
    assert_eq!(states(&site), ["b current", "a previous", "c bad"]);
    assert!(site.root().join("preview").symlink_metadata().is_err());
}

#[test]
fn while_health_is_waited_for() {
    let (site, result) = left_waiting("url", || ok(""), Leaves::Client);
    result.has(&[("outcome", "ok"), ("release", "c")]);
    assert_eq!(states(&site), ["c current", "b previous", "a good"]);
    let last = site.journal().pop().expect("a record");
    assert_eq!(last["event"], "proved");
}

#[test]
fn while_health_is_waited_for_in_vain() {
    let (site, result) = left_waiting("url", || Answer::Elsewhere("/"), Leaves::Connection);
    result.has(&GATE_FAILED);
    assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
}
