//! Concurrent requests: one at a time gets the lock, the others wait a little, and
//! at most one request succeeds with the same condition.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::direct::{ask, everything, live, payload, put, record, serve, states};
use crate::process::{Running, Upload, eventually};
use crate::site::{Reply, Site};

fn lock_file(site: &Site) -> File {
    let path = site.root().join(".deploy-shell/lock");
    let options = File::options().read(true).write(true).open(path);
    options.expect("the lock is a file")
}

/// Takes the lock, as another process would.
pub fn hold(site: &Site) -> Flock<File> {
    Flock::lock(lock_file(site), FlockArg::LockExclusiveNonblock).expect("nobody holds it")
}

#[test]
fn a_request_is_busy_when_the_lock_is_not_released_in_time() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let before = everything(&site);
    let held = hold(&site);
    thread::scope(|scope| {
        for request in ["swap a", "rollback", "rollback a"] {
            let site = &site;
            scope.spawn(move || site.ssh("ci", request).refused(75, "busy"));
        }
        // Reading needs no lock.
        site.ssh("ci", "list").ok();
        site.ssh("ci", "list --json").ok();
    });
    assert!(everything(&site) == before);
    drop(held);
    ask(&site, "rollback").ok();
}

/// A backup holds the lock with flock(1), and writes no note.
#[test]
fn a_request_that_waits_for_a_program_does_not_name_the_last_request() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let held = hold(&site);
    let reply = site.ssh("ci", "rollback");
    drop(held);
    assert_eq!(
        reply.stderr,
        "deploy-shell: busy: the site is locked: another request, or a program such as a backup\n\
         try again when it has ended\n"
    );
}

#[test]
fn a_receive_that_cannot_get_the_lock_leaves_nothing() {
    // A finished upload waits for the lock as long as a receive may last.
    let site = Site::with_config("[limits]\ntotal_timeout = \"4s\"\n");
    live(&site, &["a"]);
    let before = everything(&site);
    let held = hold(&site);
    site.receive("b", &payload("b")).refused(75, "busy");
    drop(held);
    assert!(everything(&site) == before);
    site.receive("b", &payload("b")).ok();
}

#[test]
fn a_released_lock_lets_the_next_request_continue() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let held = hold(&site);
    let heard = record(&site).len();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&site, "swap a"));
        eventually("the request is in the audit log", || {
            site.audit_lines().len() > heard
        });
        assert_eq!(site.current().as_deref(), Some("b"));
        drop(held);
        let reply = waiting.join().expect("it ends");
        assert_eq!(reply.ok(), "ok swap a previous=b\n");
    });
}

/// The hooks of the request that holds the lock may change the release meanwhile.
#[test]
fn verify_on_swap_reads_the_release_after_the_wait_for_the_lock() {
    let site = Site::with_config("verify_on_swap = true\n");
    live(&site, &["a"]);
    put(&site, "b");
    let held = hold(&site);
    let heard = record(&site).len();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&site, "swap b"));
        eventually("the request is in the audit log", || {
            site.audit_lines().len() > heard
        });
        // Time enough for a request that reads before it has the lock.
        thread::sleep(Duration::from_millis(500));
        fs::write(site.root().join("releases/b/index.html"), "B").expect("a file");
        drop(held);
        let reply = waiting.join().expect("it ends");
        reply.refused(65, "digest-mismatch");
    });
    assert_eq!(site.current().as_deref(), Some("a"));
}

/// Starts a swap and stops it while it holds the lock. The swap removes much debris
/// first, so there is time to stop it: what is in `manifests/` and belongs to no release.
fn stopped_holder(site: &Site) -> Running {
    for attempt in 0..8 {
        let debris = site.root().join(".deploy-shell/manifests/debris");
        fs::create_dir(&debris).expect("a directory");
        for file in 0..10_000 {
            File::create(debris.join(file.to_string())).expect("a file");
        }
        let release = ["a", "b"][attempt % 2];
        let child = serve(site, "ci", format!("swap {release}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut holder = Running(child.expect("it starts"));
        let pid = Pid::from_raw(i32::try_from(holder.0.id()).expect("a process id"));
        let remaining = || fs::read_dir(&debris).map_or(0, Iterator::count);
        eventually("it removes debris, or has done so", || {
            remaining() < 10_000 || holder.is_over()
        });
        if !holder.is_over() {
            kill(pid, Signal::SIGSTOP).expect("it is there");
            if remaining() > 0 {
                return holder;
            }
            kill(pid, Signal::SIGCONT).expect("it is there");
        }
        holder.reply().ok();
    }
    panic!("no swap was stopped in time");
}

#[test]
fn the_holder_of_the_lock_is_named() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let holder = stopped_holder(&site);
    let pid = holder.0.id();
    let reply = ask(&site, "swap b");
    reply.refused(75, "busy");
    assert!(reply.stderr.contains(&pid.to_string()), "{pid}: {reply:?}");
    assert!(reply.stderr.contains("ci"), "{reply:?}");
    ask(&site, "list").ok();
    let id = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    kill(id, Signal::SIGCONT).expect("it is there");
    let line = holder.reply().ok();
    assert!(line.starts_with("ok swap "), "{line}");
    ask(&site, "rollback").ok();
}

/// Sends all requests at the same moment, each through its own sshd.
fn at_once<const N: usize>(site: &Site, requests: [&str; N]) -> [Reply; N] {
    let start = Barrier::new(N);
    thread::scope(|scope| {
        let threads = requests.map(|request| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                site.ssh("ci", request)
            })
        });
        threads.map(|thread| thread.join().expect("it ends"))
    })
}

#[test]
fn concurrent_swaps_run_one_after_the_other() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    put(&site, "c");
    for _ in 0..5 {
        ask(&site, "swap a").ok();
        let replies = at_once(&site, ["swap b", "swap c"]).map(Reply::ok);
        let last = site.current().expect("a link");
        let expected = match last.as_str() {
            "b" => ["ok swap b previous=c\n", "ok swap c previous=a\n"],
            _ => ["ok swap b previous=a\n", "ok swap c previous=b\n"],
        };
        assert_eq!(replies, expected);
        let first = if last == "b" { "c" } else { "b" };
        let state = [format!("{last} current"), format!("{first} previous")];
        assert_eq!(states(&site)[..2], state);
    }
}

#[test]
fn of_two_requests_with_the_same_condition_exactly_one_succeeds() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    put(&site, "c");
    for requests in [
        ["swap b --if-current a", "swap c --if-current a"],
        ["swap b --if-current a", "swap b --if-current a"],
        ["swap b --if-current a", "rollback --if-current a"],
        ["swap c --if-current a", "swap b --if-current a"],
    ] {
        // Make c live before a, so that a rollback has a target.
        ask(&site, "swap c").ok();
        ask(&site, "swap a").ok();
        let replies = at_once(&site, requests);
        let won = replies.iter().filter(|reply| reply.code == 0).count();
        assert_eq!(won, 1, "{requests:?}: {replies:?}");
        let loser = replies.iter().find(|reply| reply.code != 0);
        loser.expect("the other").refused(75, "not-current");
        let winner = replies.iter().find(|reply| reply.code == 0);
        let line = &winner.expect("the one").stdout;
        let live = line.split(' ').nth(2).map(str::to_owned);
        assert_eq!(site.current(), live, "{requests:?}: {replies:?}");
    }
}

#[test]
fn concurrent_rollbacks_take_one_step_each() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    let mut replies = at_once(&site, ["rollback", "rollback"]).map(Reply::ok);
    replies.sort();
    let expected = ["ok rollback a previous=b\n", "ok rollback b previous=c\n"];
    assert_eq!(replies, expected);
    assert_eq!(states(&site), ["a current", "b bad", "c bad"]);
}

/// All uploads pass the first check before any is published, so the limits must
/// be checked again when a release is published.
#[test]
fn limits_hold_for_concurrent_receives() {
    for (config, word) in [
        ("[pending]\nmax = 1\n", "busy"),
        ("[limits]\nreceives_per_hour = 1\n", "rate-limited"),
    ] {
        let site = Site::with_config(config);
        let uploads = ["a", "b", "c"].map(|release| {
            let archive = payload(release);
            let request = Site::receive_command(release, &archive);
            let mut upload = Upload::taken_up(&site, &request);
            upload.send(&archive);
            upload
        });
        let replies = uploads.map(Upload::finish);
        let (done, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.code == 0);
        assert_eq!(done.len(), 1, "{config}: {replies:?}");
        for reply in refused {
            reply.refused(75, word);
        }
        assert_eq!(site.releases().len(), 1, "{config}");
        assert_eq!(site.leftovers(), [] as [PathBuf; 0], "{config}");
    }
}

/// A stolen key has many requests waiting while its hooks hold the lock.
#[test]
fn a_request_of_another_key_comes_before_the_next_one_of_the_same() {
    let hook = "[[hooks.after_swap]]\ncommand = [\"/bin/sleep\", \"1\"]\n";
    let site = Site::with_config(hook);
    site.add_key("b", None);
    live(&site, &["a", "b"]);
    let records = site.journal().len();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| site.ssh("ci", "swap a"));
        }
        thread::sleep(Duration::from_millis(500));
        site.ssh("b", "swap b").ok();
    });
    let journal = site.journal();
    let swapped = journal[records..]
        .iter()
        .filter(|record| record["event"] == "swapped");
    let keys: Vec<&str> = swapped
        .filter_map(|record| record["key"].as_str())
        .collect();
    assert_eq!(&keys[..2], ["ci", "b"], "{keys:?}");
}
