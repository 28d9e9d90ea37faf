//! The health check after the swap: which answer counts, which failures are
//! repeated, and which are final.

use std::sync::{Arc, Mutex};
use std::thread;

use crate::audit::value;
use crate::direct::{live, put, states};
use crate::gating::{gate_failed, hook, logged_steps, output_lines, touch};
use crate::service::{Answer, Service, ok};
use crate::site::{Reply, Site};

/// A site that checks `service` once a second, at most for `timeout`. The answer
/// must name the release.
fn site(service: &Service, timeout: &str, hooks: &str) -> Site {
    Site::with_config(&format!(
        "{hooks}[health]\nurl = \"{}\"\ncontains = \"release {{release}}\"\n\
         interval = \"1s\"\ntimeout = \"{timeout}\"\n",
        service.url("/health")
    ))
}

/// A timeout that no test reaches.
const LONG: &str = "100s";

#[track_caller]
fn swap(site: &Site, release: &str) -> Reply {
    put(site, release);
    site.ssh("ci", &format!("swap {release}"))
}

/// Asserts that the first swap fails, so that no release is live.
#[track_caller]
fn fails(site: &Site, words: &[&str]) -> String {
    let problem = gate_failed(&swap(site, "r1"));
    for word in words {
        assert!(problem.contains(word), "{problem}");
    }
    assert!(problem.starts_with("release 'r1' failed its gate: health ("));
    assert_eq!(site.current(), None);
    assert_eq!(states(site), ["r1 bad"]);
    problem
}

#[test]
fn a_healthy_release_is_checked_once() {
    let service = Service::start(|_, _| ok("r1"));
    let site = site(&service, LONG, "");
    let reply = swap(&site, "r1");
    assert_eq!(reply.stderr, "", "there is nothing to wait for");
    assert_eq!(reply.ok(), "ok swap r1 previous=-\n");
    assert_eq!(service.requested_paths(), ["/health"]);
    let [step] = &logged_steps(&site)[..] else {
        panic!("not one line");
    };
    step.has(&[("event", "gate"), ("step", "health"), ("release", "r1")]);
    step.has(&[("outcome", "ok"), ("what", &service.url("/health"))]);
    let events: Vec<_> = site
        .journal()
        .into_iter()
        .map(|it| it["event"].clone())
        .collect();
    assert_eq!(events, ["received", "activating", "swapped", "proved"]);
}

#[test]
fn a_service_that_recovers_passes_and_the_wait_is_shown() {
    let service = Service::start(|_, before| match before {
        0 => Answer::Text(503, "starting".to_owned()),
        1 => Answer::Hangup,
        2 => ok("an older one"),
        _ => ok("r1"),
    });
    let site = site(&service, LONG, "");
    let reply = swap(&site, "r1");
    let seen = output_lines(&reply, "health");
    assert_eq!(seen.len(), 3, "{reply:?}");
    for (seen, words) in seen
        .iter()
        .zip(["503", "without an answer", "does not contain"])
    {
        assert!(seen.starts_with("not yet, after "), "{seen}");
        assert!(
            seen.contains(" of 100 s: ") && seen.contains(words),
            "{seen}"
        );
    }
    assert_eq!(reply.ok(), "ok swap r1 previous=-\n");
    assert_eq!(service.requested_paths().len(), 4);
}

/// One good answer is enough.
#[test]
fn a_flapping_service_passes_with_its_first_good_answer() {
    let service = Service::start(|_, before| match before {
        1 => ok("r1"),
        _ => Answer::Text(503, "not now".to_owned()),
    });
    let site = site(&service, LONG, "");
    assert_eq!(swap(&site, "r1").ok(), "ok swap r1 previous=-\n");
    assert_eq!(service.requested_paths().len(), 2);
}

#[test]
fn a_service_that_stays_unhealthy_fails() {
    let service = Service::start(|_, _| Answer::Text(503, String::new()));
    let site = site(&service, "4s", "");
    fails(&site, &["not within 4 s", "503"]);
    let requests = service.requested_paths().len();
    assert!(requests >= 1);
    let step = logged_steps(&site).pop().expect("a line");
    step.has(&[("event", "gate"), ("step", "health"), ("outcome", "failed")]);
    assert!(value(&step, "why").contains("503"), "{step:?}");
}

#[test]
fn a_service_that_hangs_fails() {
    for (answer, words) in [
        ((|| Answer::Silence) as fn() -> Answer, "in time"),
        (|| Answer::Half, "in time"),
    ] {
        let service = Service::start(move |_, _| answer());
        let site = site(&service, "2s", "");
        fails(&site, &["not within 2 s", words]);
    }
}

#[test]
fn a_service_that_dies_fails() {
    let service = Service::start(|_, _| Answer::Death);
    let site = site(&service, "3s", "");
    fails(&site, &["not within 3 s"]);
    assert_eq!(service.requested_paths(), ["/health"]);
}

#[test]
fn a_refused_connection_is_repeated_until_the_timeout() {
    // Nothing listens on the port once the service has ended.
    let port = Service::start(|_, _| Answer::Death).port;
    let site = Site::with_config(&format!(
        "[health]\nurl = \"http://127.0.0.1:{port}/\"\ninterval = \"1s\"\ntimeout = \"2s\"\n"
    ));
    fails(&site, &["not within 2 s", "refused"]);
}

/// A permanent failure ends the wait when it is seen twice: the first answer may be
/// that of the previous release's process.
#[test]
fn a_permanent_failure_is_checked_twice() {
    for (answer, words) in [
        (
            (|| Answer::Elsewhere("http://127.0.0.1/login")) as fn() -> Answer,
            "302",
        ),
        (|| Answer::Text(401, String::new()), "401"),
        (|| Answer::Text(501, String::new()), "501"),
    ] {
        let service = Service::start(move |_, _| answer());
        let site = site(&service, LONG, "");
        let problem = fails(&site, &[words]);
        assert!(!problem.contains("not within"), "{problem}");
        assert_eq!(service.requested_paths(), ["/health"; 2]);
    }
}

/// The process of the previous release answers for that release until the hook
/// after the swap restarts it.
#[test]
fn an_answer_of_the_previous_process_does_not_pass() {
    let runs = Arc::new(Mutex::new("r1".to_owned()));
    let own = Arc::clone(&runs);
    let service = Service::start(move |path, _| {
        let mut runs = own.lock().expect("no test panics here");
        if let Some(release) = path.strip_prefix("/restart/") {
            *runs = release.to_owned();
        }
        ok(&runs)
    });
    let restart = format!(
        "[ ! -e {{dir}}/restarts ] || curl -sf {}/$DEPLOY_RELEASE",
        service.url("/restart")
    );
    let site = site(&service, "5s", &hook("after_swap", &restart));
    swap(&site, "r1").ok();
    let problem = gate_failed(&swap(&site, "r2"));
    assert!(
        problem.contains("does not contain 'release r2'"),
        "{problem}"
    );
    assert!(problem.contains("'r1' is live again"), "{problem}");
    assert_eq!(states(&site), ["r1 current", "r2 bad"]);

    touch(&site, "restarts");
    site.ssh("ci", "swap r2").ok();
    assert_eq!(*runs.lock().expect("no test panics here"), "r2");
    assert_eq!(states(&site), ["r2 current", "r1 previous"]);
    // A rollback restarts it as well.
    site.ssh("ci", "rollback").ok();
    assert_eq!(*runs.lock().expect("no test panics here"), "r1");
}

#[test]
fn a_rollback_is_checked_as_well() {
    let service = Service::start(|path, _| match path {
        "/health" => ok("r2"),
        _ => Answer::Hangup,
    });
    let site = Site::with_config("");
    live(&site, &["r1", "r2"]);
    site.configure(&format!(
        "[health]\nurl = \"{}\"\ncontains = \"{{release}}\"\ninterval = \"1s\"\ntimeout = \"1s\"\n",
        service.url("/health")
    ));
    // The service answers for r2 only, so r1 fails and r2 is live again.
    let problem = gate_failed(&site.ssh("ci", "rollback"));
    assert!(
        problem.starts_with("release 'r1' failed its gate: "),
        "{problem}"
    );
    assert_eq!(states(&site), ["r2 current", "r1 bad"]);
}

#[test]
fn a_command_can_replace_the_url() {
    let script = "echo \"checks $DEPLOY_RELEASE in $(basename \"$PWD\")\"; \
                  echo x >> {dir}/requests; [ $(wc -l < {dir}/requests) -ge 3 ]";
    let site = Site::with_config(&format!(
        "[health]\ncommand = ['/bin/sh', '-c', '''{script}''']\n\
         interval = \"1s\"\ntimeout = \"{LONG}\"\n"
    ));
    let reply = swap(&site, "r1");
    let lines = output_lines(&reply, "health");
    let own: Vec<&String> = lines
        .iter()
        .filter(|line| line.starts_with("checks"))
        .collect();
    assert_eq!(own, ["checks r1 in r1"; 3], "{reply:?}");
    assert_eq!(lines.len(), 5, "two waits: {reply:?}");
    assert!(lines[1].ends_with(": exited with 1"), "{reply:?}");
    reply.ok();
    let step = logged_steps(&site).pop().expect("a line");
    step.has(&[
        ("event", "gate"),
        ("step", "health"),
        ("outcome", "ok"),
        ("exit", "0"),
    ]);
}

#[test]
fn a_command_that_fails_or_hangs_fails_the_release() {
    thread::scope(|scope| {
        for (command, timeout, words) in [
            ("'/bin/false'", "3s", "not within 3 s: exited with 1"),
            ("'/bin/sleep', '1000'", "1s", "did not end within 1 s"),
            (
                "'/bin/sh', '-c', 'kill -9 $$'",
                "3s",
                "was ended by signal 9",
            ),
        ] {
            scope.spawn(move || {
                let site = Site::with_config(&format!(
                    "[health]\ncommand = [{command}]\n\
                     interval = \"1s\"\ntimeout = \"{timeout}\"\n"
                ));
                fails(&site, &[words]);
            });
        }
    });
}
