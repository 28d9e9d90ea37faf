//! The smoke test before the swap: a real nginx serves the candidate through the
//! preview symlink, and the live release does not change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::direct::{ask, everything, live, put, states};
use crate::gating::{gate_failed, hook, log, logged_steps};
use crate::process::{Upload, eventually, serving};
use crate::service::{Answer, Service, ok};
use crate::site::{Site, set_mode};
use crate::web::{Nginx, get};

fn smoke(url: &str, timeout: &str) -> String {
    format!("[health]\nsmoke_url = \"{url}\"\ninterval = \"1s\"\ntimeout = \"{timeout}\"\n")
}

fn preview(site: &Site) -> std::path::PathBuf {
    site.root().join("preview")
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// A service that answers a smoke test, and records the targets of the site's
/// symlinks at each request.
struct Watched {
    site: Site,
    service: Service,
    links: Arc<Mutex<Vec<[String; 2]>>>,
}

impl Watched {
    fn new(mut answer: impl FnMut(usize) -> Answer + Send + 'static, timeout: &str) -> Watched {
        let site = Site::new();
        let root = site.root().to_owned();
        let links = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&links);
        let service = Service::start(move |_, before| {
            let led = ["preview", "current"].map(|link| {
                let target = fs::read_link(root.join(link)).unwrap_or_default();
                target.to_str().expect("a plain symlink").to_owned()
            });
            seen.lock().expect("no test panics here").push(led);
            answer(before)
        });
        live(&site, &["a"]);
        put(&site, "b");
        site.configure(&smoke(&service.url("/"), timeout));
        Watched {
            site,
            service,
            links,
        }
    }

    fn links(&self) -> Vec<[String; 2]> {
        self.links.lock().expect("no test panics here").clone()
    }
}

#[track_caller]
fn is_clean(site: &Site) {
    assert!(
        !is_there(&preview(site)),
        "the preview symlink still exists"
    );
}

const ONE: [&str; 2] = ["releases/b", "releases/a"];

#[test]
fn the_preview_symlink_exists_during_the_smoke_test() {
    let watched = Watched::new(
        |before| match before {
            0 => Answer::Text(404, String::new()),
            1 => Answer::Hangup,
            _ => ok(""),
        },
        "100s",
    );
    let site = &watched.site;
    assert_eq!(site.ssh("ci", "swap b").ok(), "ok swap b previous=a\n");
    assert_eq!(watched.links(), [ONE; 3]);
    is_clean(site);
    let step = logged_steps(site).pop().expect("a line");
    step.has(&[
        ("event", "gate"),
        ("step", "smoke"),
        ("release", "b"),
        ("outcome", "ok"),
    ]);
    // The target of a rollback is a candidate as well.
    site.ssh("ci", "rollback").ok();
    assert_eq!(watched.links()[3..], [["releases/a", "releases/b"]]);
    is_clean(site);
}

#[test]
fn a_candidate_that_fails_is_never_live() {
    let watched = Watched::new(|_| Answer::Elsewhere("/elsewhere"), "100s");
    let site = &watched.site;
    let before = site.snapshot();
    let reply = site.ssh("ci", "swap b");
    reply.refused(69, "gate-failed");
    let problem = gate_failed(&reply);
    assert!(
        problem.starts_with("release 'b' failed its gate: smoke ("),
        "{problem}"
    );
    assert!(problem.ends_with("; 'a' is live, as before"), "{problem}");
    assert_eq!(
        watched.links(),
        [ONE],
        "a permanent failure is final before the swap"
    );
    assert_eq!(watched.service.requested_paths(), ["/"]);
    assert!(site.snapshot() == before);
    assert_eq!(states(site), ["a current", "b bad"]);
    let events: Vec<_> = site
        .journal()
        .into_iter()
        .map(|it| it["event"].clone())
        .collect();
    assert_eq!(events[4..], ["failed"], "the current symlink never changed");
}

#[test]
fn a_candidate_that_hangs_or_dies_fails() {
    for (answer, words) in [
        ((|_| Answer::Silence) as fn(usize) -> Answer, "in time"),
        (|_| Answer::Death, "refused"),
    ] {
        let watched = Watched::new(answer, "2s");
        let site = &watched.site;
        let before = site.snapshot();
        let problem = gate_failed(&site.ssh("ci", "swap b"));
        assert!(problem.contains("not within 2 s: "), "{problem}");
        assert!(problem.contains(words), "{problem}");
        assert!(problem.ends_with("; 'a' is live, as before"), "{problem}");
        assert!(site.snapshot() == before);
        is_clean(site);
        assert_eq!(states(site), ["a current", "b bad"]);
        let step = logged_steps(site).pop().expect("a line");
        step.has(&[("step", "smoke"), ("release", "b"), ("outcome", "failed")]);
    }
}

#[test]
fn a_real_web_server_serves_the_candidate() {
    let site = Site::new();
    set_mode(site.root(), 0o755);
    let roots = ["preview", "current"].map(|link| {
        let path = site.root().join(link);
        format!("root {};", path.display())
    });
    let nginx = Nginx::start(&site, &roots);
    let url = |path: &str| format!("http://127.0.0.1:{}/{path}", nginx.ports[0]);
    live(&site, &["a"]);
    let live_page = || {
        let answer = get(nginx.ports[1], "/").expect("an answer");
        let text = String::from_utf8(answer).expect("text");
        text.rsplit("\r\n").next().expect("a body").to_owned()
    };
    put(&site, "b");
    site.configure(&smoke(&url("no-such-page"), "2s"));
    let problem = gate_failed(&site.ssh("ci", "swap b"));
    assert!(problem.contains("not within 2 s: "), "{problem}");
    assert_eq!(
        (live_page().as_str(), site.current().as_deref()),
        ("a", Some("a"))
    );
    is_clean(&site);

    site.configure(&smoke(&url("assets/app.js"), "100s"));
    site.ssh("ci", "swap b").ok();
    assert_eq!(
        (live_page().as_str(), site.current().as_deref()),
        ("b", Some("b"))
    );
    is_clean(&site);
    // After the test, the preview has no page, not that of the live release.
    let answer = get(nginx.ports[0], "/").expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{answer:?}");
}

/// Another object in place of the preview symlink is not replaced, and the request
/// fails before anything runs.
#[test]
fn an_obstacle_to_the_preview_symlink_is_refused_before_anything_runs() {
    let service = Service::start(|_, _| ok(""));
    let hooks = hook("before_swap", "echo ran >> {dir}/log");
    for what in ["directory", "file", "foreign symlink"] {
        let site = Site::new();
        live(&site, &["a"]);
        put(&site, "b");
        site.configure(&format!("{hooks}{}", smoke(&service.url("/"), "100s")));
        match what {
            "directory" => fs::create_dir(preview(&site)),
            "file" => fs::write(preview(&site), "mine"),
            _ => symlink("/etc", preview(&site)),
        }
        .expect("create the obstacle");
        let before = everything(&site);
        site.ssh("ci", "swap b").refused(78, "bad-layout");
        assert!(everything(&site) == before, "{what}");
        assert_eq!(log(&site), [] as [&str; 0], "{what}");
        site.ssh("ci", "list").ok();
    }
    assert_eq!(service.requested_paths(), [] as [&str; 0]);
}

#[test]
fn a_site_without_a_smoke_test_does_not_use_the_preview_name() {
    let site = Site::new();
    fs::create_dir(preview(&site)).expect("create a directory");
    live(&site, &["a", "b"]);
    ask(&site, "rollback").ok();
    assert!(preview(&site).is_dir());
}

#[test]
fn the_preview_symlink_can_have_another_name() {
    let watched = Watched::new(|_| ok(""), "100s");
    let site = &watched.site;
    let table = "[preview]\nlink = \"next-one\"\n";
    site.configure(&format!(
        "{table}{}",
        smoke(&watched.service.url("/"), "100s")
    ));
    fs::create_dir(preview(site)).expect("create a directory");
    site.ssh("ci", "swap b").ok();
    assert_eq!(watched.links(), [["", "releases/a"]]);
    assert!(!is_there(&site.root().join("next-one")));
}

#[test]
fn the_next_request_removes_the_symlink_of_a_killed_one() {
    let watched = Watched::new(
        |before| match before {
            0 => Answer::Silence,
            _ => ok(""),
        },
        "100s",
    );
    let site = &watched.site;
    let swap = Upload::start(site, "swap b");
    eventually("a smoke test", || !watched.links().is_empty());
    for process in serving(site) {
        kill(Pid::from_raw(process.pid), Signal::SIGKILL).expect("it exists");
    }
    assert_ne!(swap.finish().code, 0);
    let link = fs::read_link(preview(site)).expect("it still exists");
    assert_eq!(link.to_str(), Some("releases/b"));
    assert_eq!(site.current().as_deref(), Some("a"));
    // List and receive may not change symlinks. The next swap or rollback removes
    // it, even if it changes nothing else.
    ask(site, "list").ok();
    put(site, "c");
    ask(site, "swap a").ok();
    is_clean(site);
    site.ssh("ci", "swap b").ok();
    assert_eq!(watched.links(), [ONE; 2]);
    is_clean(site);
}
