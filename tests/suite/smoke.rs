//! The smoke test before the swap: a real nginx serves the candidate through the
//! preview symlink, and the live release does not change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::direct::{ask, everything, live, put, record, states};
use crate::gating::{gate_failed, hook, log, logged_steps, output_lines};
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

/// A virtual host that sends http to https, and the answers of which need a header.
#[test]
fn a_virtual_host_behind_a_proxy_is_tested() {
    let site = Site::new();
    set_mode(site.root(), 0o755);
    let preview = preview(&site);
    let server = format!(
        "root {};\nif ($http_x_forwarded_proto != https) {{ return 301 https://$host$uri; }}\n\
         if ($host != www.example.com) {{ return 404; }}\n\
         location /old {{ return 301 /new; }}\n\
         if ($http_x_token != hunter2) {{ return 403; }}",
        preview.display()
    );
    let nginx = Nginx::start(&site, &[server]);
    live(&site, &["a"]);
    let configure = |path: &str, more: &str| {
        let url = format!("http://127.0.0.1:{}{path}", nginx.ports[0]);
        site.configure(&format!("{}{more}", smoke(&url, "2s")));
    };
    let host = "host = \"www.example.com\"\n";
    let headers = "headers = [\"X-Forwarded-Proto: https\", \"X-Token: hunter2\"]\n";
    for (more, status) in [("", "301"), (headers, "404")] {
        put(&site, &format!("no-{status}"));
        configure("/", more);
        let reply = site.ssh("ci", &format!("swap no-{status}"));
        let problem = gate_failed(&reply);
        assert!(problem.contains(&format!("answers {status}")), "{problem}");
        assert!(!reply.stderr.contains("hunter2"), "{reply:?}");
    }
    configure("/", &format!("{host}{headers}"));
    put(&site, "b");
    site.ssh("ci", "swap b").ok();
    configure("/old", &format!("{host}{headers}statuses = [200, 301]\n"));
    put(&site, "c");
    site.ssh("ci", "swap c").ok();
    // The value of a header is in no record.
    let (files, _) = everything(&site);
    assert!(!format!("{files:?}").contains("hunter2"));
    assert!(!record(&site).join("\n").contains("hunter2"));
}

/// Configures a script of sh as the smoke test.
fn smoke_script(script: &str, timeout: &str) -> String {
    format!(
        "[health]\nsmoke_command = ['/bin/sh', '-c', '''{script}''']\n\
         interval = \"1s\"\ntimeout = \"{timeout}\"\n"
    )
}

#[test]
fn a_command_tests_the_candidate_before_the_swap() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    let script = "env | sort | grep -v ^PWD= >> {dir}/log\n\
                  echo \"$(basename \"$PWD\") $(readlink {dir}/root/preview) \
                  $(readlink {dir}/root/current)\" >> {dir}/log\necho tested";
    site.configure(&smoke_script(script, "100s"));
    let reply = site.ssh("ci", "swap b");
    assert_eq!(output_lines(&reply, "smoke"), ["tested"]);
    assert_eq!(reply.ok(), "ok swap b previous=a\n");
    let lines = log(&site);
    let variables: Vec<&String> = lines
        .iter()
        .filter(|it| it.starts_with("DEPLOY_"))
        .collect();
    assert_eq!(
        variables,
        ["DEPLOY_PREVIOUS=a", "DEPLOY_RELEASE=b", "DEPLOY_SITE=blog"]
    );
    assert_eq!(lines.last().expect("a line"), "b releases/b releases/a");
    is_clean(&site);
    let step = logged_steps(&site).pop().expect("a line");
    step.has(&[("event", "gate"), ("step", "smoke"), ("release", "b")]);
    step.has(&[("outcome", "ok"), ("exit", "0"), ("what", "'/bin/sh'")]);
    // The target of a rollback is a candidate as well.
    site.ssh("ci", "rollback").ok();
    assert_eq!(
        log(&site).last().expect("a line"),
        "a releases/a releases/b"
    );
}

#[test]
fn a_candidate_that_fails_a_command_is_bad_at_once() {
    let before = |site: &Site| (site.snapshot(), site.current());
    for (script, timeout, words) in [
        ("echo x >> {dir}/log; exit 3", "100s", "): exited with 3; "),
        (
            "echo x >> {dir}/log; kill -9 $$",
            "100s",
            "): was ended by signal 9; ",
        ),
        (
            "echo x >> {dir}/log; sleep 1000",
            "1s",
            "): not within 1 s: did not end within 1 s; ",
        ),
    ] {
        let site = Site::new();
        live(&site, &["a"]);
        put(&site, "b");
        site.configure(&smoke_script(script, timeout));
        let whole = before(&site);
        let problem = gate_failed(&site.ssh("ci", "swap b"));
        let start = "release 'b' failed its gate: smoke ('/bin/sh'";
        assert!(
            problem.starts_with(start) && problem.contains(words),
            "{problem}"
        );
        assert!(problem.ends_with("; 'a' is live, as before"), "{problem}");
        assert_eq!(log(&site), ["x"], "the command ran once");
        assert!(before(&site) == whole, "{script}");
        assert_eq!(states(&site), ["a current", "b bad"]);
        is_clean(&site);
    }
}

#[test]
fn a_command_can_ask_for_another_try() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    let script = "echo x >> {dir}/log; [ $(wc -l < {dir}/log) -ge 3 ] || exit 75";
    site.configure(&smoke_script(script, "100s"));
    site.ssh("ci", "swap b").ok();
    assert_eq!(log(&site), ["x"; 3]);
}

#[test]
fn a_missing_smoke_command_marks_no_release_bad() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    site.configure("[health]\nsmoke_command = ['{dir}/nowhere']\n");
    let before = site.snapshot();
    let reply = site.ssh("ci", "swap b");
    reply.refused(78, "bad-config");
    assert!(reply.stderr.contains("bad-config: smoke: '"), "{reply:?}");
    assert!(site.snapshot() == before);
    is_clean(&site);
    assert_eq!(states(&site), ["a current", "b pending"]);
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
