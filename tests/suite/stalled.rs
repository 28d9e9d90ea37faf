//! A file system below `shared/` that stalls, as a network file system does whose server
//! is gone. A process that looks at it hangs in the kernel, where no signal ends it.

use std::fs;
use std::path::Path;

use crate::adopt_layouts::plain_directory;
use crate::archive::tarball;
use crate::direct::{ask, live, put, states};
use crate::gating::{gate_failed, hook, output_lines};
use crate::mounted::{in_namespace, replies, request_line, stalled_fs};
use crate::receive::{no_debris, noise};
use crate::site::{Reply, Site, admin};

/// A site with a live release `a` and a pending one `b`, and the start of a script for
/// [`in_namespace`]: `stall` mounts the file system that stalls, and `unmount` ends it.
/// It ends by itself after a while, so that a request that waits for it fails.
fn site() -> (Site, String) {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    let uploads = site.root().join("shared/uploads");
    fs::create_dir(&uploads).expect("a directory");
    let script = stall_at(&site, &uploads);
    site.configure(
        "[shared]\nlinks = [\"uploads\"]\n\
         [archive]\nrequired_paths = [\"uploads/kept\"]\n\
         [limits]\nidle_timeout = \"2s\"\n",
    );
    fs::write(uploads.join("kept"), "").expect("a file");
    (site, script)
}

/// Returns the functions of sh `stall` and `unmount`, for a file system at this directory.
/// `stall attributes` mounts one that first answers for its root.
fn stall_at(site: &Site, directory: &Path) -> String {
    format!(
        "stall() {{\n\
         timeout 50 '{program}' '{uploads}' $1 > /dev/null 2>&1 & fs=$!\n\
         until grep -q ' {uploads} ' /proc/self/mountinfo; do\n\
         kill -0 $fs 2> /dev/null || exit 77\n\
         sleep 0.05\n\
         done\n\
         }}\n\
         unmount() {{ kill $fs; wait $fs; true; }}\n",
        program = stalled_fs(site).display(),
        uploads = directory.display(),
    )
}

/// Runs the script; returns false where it could not mount the file system.
#[track_caller]
fn ran(script: &str) -> bool {
    let Some(done) = in_namespace(script) else {
        return false;
    };
    if done.status.code() == Some(77) {
        println!("skipped: this user may not use /dev/fuse");
        return false;
    }
    assert!(done.status.success(), "{done:?}");
    true
}

#[track_caller]
fn names_the_path(reply: &Reply) {
    reply.refused(74, "timeout");
    let path = "/root/shared/uploads";
    assert!(
        reply.stderr.contains(path) && reply.stderr.contains("' does not answer within 2 s"),
        "{reply:?}"
    );
}

#[test]
fn a_stalled_mount_refuses_an_upload_at_once() {
    let (site, start) = site();
    let payload = tarball(&[("index.html", b"x")]);
    fs::write(site.dir().join("payload"), &payload).expect("a file");
    let receive = request_line(&site, 0, &Site::receive_command("c", &payload));
    let swap = request_line(&site, 1, "swap b");
    let script = format!(
        "{start}stall\n{{ {receive} }} < '{}/payload'\n{swap}unmount\n",
        site.dir().display()
    );
    if !ran(&script) {
        return;
    }
    let replies = replies(&site, 2);
    names_the_path(&replies[0]);
    assert_eq!(replies[1].clone().ok(), "ok swap b previous=a\n");
    no_debris(&site);
}

#[test]
fn a_mount_that_stalls_during_an_upload_does_not_hold_the_lock() {
    let (site, start) = site();
    let payload = tarball(&[("noise", &noise(2 << 20))]);
    fs::write(site.dir().join("payload"), &payload).expect("a file");
    let receive = request_line(&site, 0, &Site::receive_command("c", &payload));
    let swap = request_line(&site, 1, "swap b");
    // The server has looked at the shared paths before it reads more than a pipe holds.
    let script = format!(
        "{start}cd '{}'\nmkfifo fifo\n\
         {{ {receive} }} < fifo & receive=$!\n\
         exec 4> fifo\n\
         head -c 1000000 payload >&4\n\
         stall\n\
         tail -c +1000001 payload >&4\n\
         exec 4>&-\n\
         wait $receive\n\
         {swap}unmount\n",
        site.dir().display()
    );
    if !ran(&script) {
        return;
    }
    let replies = replies(&site, 2);
    names_the_path(&replies[0]);
    assert_eq!(replies[1].clone().ok(), "ok swap b previous=a\n");
    assert_eq!(states(&site), ["b current", "a previous"]);
    no_debris(&site);
}

/// It says so, and checks everything else. The file system may stall at the first look or
/// at a later one.
#[test]
fn check_does_not_wait_for_a_stalled_mount() {
    for stall in ["stall", "stall attributes"] {
        let (site, start) = site();
        let check = operator_line(&site, 0, "check");
        if !ran(&format!("{start}{stall}\n{check}unmount\n")) {
            return;
        }
        let shown = replies(&site, 1).remove(0).stdout;
        let words = "who can write the shared paths: '";
        let line = shown.lines().find(|line| line.contains(words));
        // Older kernels ask for nothing more than the attributes.
        if stall == "stall" || line.is_some() {
            let line = line.unwrap_or_else(|| panic!("{stall}: {shown}"));
            assert!(
                line.contains("/uploads' does not answer within 5 s"),
                "{stall}: {shown}"
            );
        }
        let found = shown.lines().any(|line| line.contains("shared-unsafe"));
        assert_eq!(found, stall == "stall", "{shown}");
        // A fact that it gathers later.
        assert!(shown.contains("\nsandbox: requests "), "{stall}: {shown}");
    }
}

/// No signal ends a process that hangs in the kernel, and none may hold the lock.
#[test]
fn a_hook_that_leaves_a_process_which_cannot_be_killed_has_failed() {
    let (site, start) = site();
    let script = "cat {dir}/root/shared/uploads/kept > /dev/null 2>&1 & \
                  until grep -qx cat /proc/$!/comm; do sleep 0.01; done; sleep 0.5";
    site.configure(&hook("before_swap", script));
    let swap = request_line(&site, 0, "swap b");
    let list = request_line(&site, 1, "list");
    if !ran(&format!("{start}stall\n{swap}{list}unmount\n")) {
        return;
    }
    let replies = replies(&site, 2);
    let problem = gate_failed(&replies[0]);
    let why = "hook before_swap 1 ('/bin/sh') left processes that could not be killed";
    assert!(problem.contains(why), "{problem}");
    let lines = output_lines(&replies[0], "hook: before_swap 1");
    let named = "(cat) could not be killed, and still runs";
    assert!(lines.iter().any(|line| line.contains(named)), "{lines:?}");
    assert_eq!(replies[1].code, 0, "{replies:?}");
    assert_eq!(states(&site), ["a current", "b bad"]);
}

/// Returns a line of sh that runs a command of the operator. [`replies`] reads its reply.
/// A command that waits for the mount fails: with 124, after half of the time for which the
/// mount exists.
fn operator_line(site: &Site, number: usize, words: &str) -> String {
    format!(
        "timeout 25 '{admin}' {words} --config '{config}' > '{dir}/out{number}' \
         2> '{dir}/err{number}'; echo $? > '{dir}/code{number}'\n",
        admin = admin().display(),
        config = site.config_path().display(),
        dir = site.dir().display(),
    )
}

/// The operator can have mounted something there, and the account too where it may use
/// FUSE. Root must not hang because of that, and neither may a request that holds the lock.
#[test]
fn a_stalled_mount_in_a_release_is_reported_and_not_looked_at() {
    for place in ["releases/a", "releases/b", "releases/b/data"] {
        let site = Site::with_config("[check]\nreader = \"nobody\"\n");
        put(&site, "a");
        site.receive("b", &tarball(&[("index.html", b"x"), ("data/kept", b"x")]))
            .ok();
        live(&site, &["c"]);
        ask(&site, "swap b").ok();
        let mount = site.root().join(place);
        let lines: String = [
            operator_line(&site, 0, "verify"),
            operator_line(&site, 1, "check"),
            request_line(&site, 2, "list"),
            request_line(&site, 3, "swap c"),
            request_line(&site, 4, "rollback b"),
        ]
        .concat();
        let start = stall_at(&site, &mount);
        if !ran(&format!("{start}stall\n{lines}unmount\n")) {
            return;
        }
        let replies = replies(&site, 5);
        let named = match place.split_once('/').expect("two names").1 {
            "b/data" => "b mount ./data: a file system is mounted there".to_owned(),
            release => format!("{release} mount .: a file system is mounted there"),
        };
        let verified = &replies[0];
        assert_eq!(verified.code, 1, "{place}: {verified:?}");
        assert!(
            verified.stdout.lines().any(|line| line == named),
            "{place}: {verified:?}"
        );
        let checked = &replies[1];
        assert_eq!(checked.code, 1, "{place}: {checked:?}");
        assert!(
            checked.stdout.contains("finding: several-file-systems")
                && checked.stdout.contains(&mount.display().to_string()),
            "{place}: {checked:?}"
        );
        for reply in &replies[2..] {
            assert_eq!(reply.code, 0, "{place}: {replies:?}");
        }
    }
}

/// A receive and the first swap of a release compare times with other releases, and the
/// bridge leads to their files.
#[test]
fn times_and_bridges_do_not_look_at_a_stalled_mount_in_another_release() {
    let site =
        Site::with_config("[bridge]\npaths = [\"data\"]\n[limits]\ntotal_timeout = \"20s\"\n");
    let of = |text: &str| tarball(&[("index.html", b"x"), ("data/kept", text.as_bytes())]);
    site.receive("a", &of("a")).ok();
    ask(&site, "swap a").ok();
    // Another key's pending release, whose times the swap compares again.
    site.add_key("other", Some("receive"));
    let pending = of("p");
    let request = Site::receive_command("p", &pending);
    site.ssh_with_input("other", &request, &pending).ok();
    site.receive("b", &of("b")).ok();
    ask(&site, "swap b").ok();
    let start = stall_at(&site, &site.root().join("releases/b/data"));
    let payload = of("c");
    fs::write(site.dir().join("payload"), &payload).expect("a file");
    let receive = request_line(&site, 0, &Site::receive_command("c", &payload));
    let lines: String = [
        request_line(&site, 1, "swap p"),
        operator_line(&site, 2, "bridge"),
        request_line(&site, 3, "swap c"),
    ]
    .concat();
    let script = format!(
        "{start}stall\n{{ {receive} }} < '{}/payload'\n{lines}unmount\n",
        site.dir().display()
    );
    if !ran(&script) {
        return;
    }
    for reply in replies(&site, 4) {
        assert_eq!(reply.code, 0, "{reply:?}");
    }
}

#[test]
fn adopt_does_not_look_at_a_stalled_mount() {
    for (place, named) in [("current", "'.'"), ("current/assets", "'./assets'")] {
        let site = Site::new();
        plain_directory(&site);
        let start = stall_at(&site, &site.root().join(place));
        let adopt = operator_line(&site, 0, "adopt --yes");
        if !ran(&format!("{start}stall\n{adopt}unmount\n")) {
            return;
        }
        let reply = replies(&site, 1).remove(0);
        assert_eq!(reply.code, 1, "{place}: {reply:?}");
        let fault = format!("cannot be adopted: {named} is a mount point\n");
        assert!(reply.stdout.contains(&fault), "{place}: {reply:?}");
    }
}

/// Only root and the account's own processes can mount something there.
#[test]
fn a_stalled_mount_in_the_state_does_not_hold_the_lock() {
    for place in ["trash/x.1", "incoming/x"] {
        let site = Site::new();
        live(&site, &["a", "b"]);
        put(&site, "c");
        let mount = site.root().join(".deploy-shell").join(place);
        fs::create_dir(&mount).expect("a directory");
        let start = stall_at(&site, &mount);
        let drop = operator_line(&site, 0, "drop c");
        let swap = request_line(&site, 1, "swap a");
        if !ran(&format!("{start}stall\n{drop}{swap}unmount\n")) {
            return;
        }
        for reply in replies(&site, 2) {
            assert_eq!(reply.code, 0, "{place}: {reply:?}");
        }
    }
}

/// No rename leads to another mount, so such a site is of no use, and every request and
/// command says so.
#[test]
fn a_stalled_mount_at_a_directory_of_the_site_is_reported_and_not_looked_at() {
    for place in [
        "releases",
        "current",
        ".deploy-shell",
        ".deploy-shell/manifests",
    ] {
        let site = Site::with_config("[bridge]\npaths = [\"data\"]\n");
        live(&site, &["a"]);
        put(&site, "b");
        let mount = site.root().join(place);
        if place == "current" {
            fs::remove_file(&mount).expect("the symlink");
            fs::create_dir(&mount).expect("a directory");
        }
        let init = format!("init --root '{}'", site.root().display());
        let lines: String = [
            operator_line(&site, 0, "verify"),
            operator_line(&site, 1, "bridge"),
            operator_line(&site, 2, "adopt"),
            operator_line(&site, 3, &init),
            request_line(&site, 4, "swap b"),
            request_line(&site, 5, "list"),
            operator_line(&site, 6, "check"),
        ]
        .concat();
        let start = stall_at(&site, &mount);
        if !ran(&format!("{start}stall\n{lines}unmount\n")) {
            return;
        }
        let replies = replies(&site, 7);
        let named = format!("'{}' is a mount point", mount.display());
        for (number, reply) in replies[..6].iter().enumerate() {
            match number {
                // `init` refuses a site of root's first.
                3 => assert_ne!(reply.code, 124, "{place}: {reply:?}"),
                _ => {
                    assert_eq!(reply.code, 78, "{place}, {number}: {reply:?}");
                    assert!(
                        reply.stderr.contains(&named),
                        "{place}, {number}: {reply:?}"
                    );
                }
            }
        }
        let checked = &replies[6];
        assert_eq!(checked.code, 1, "{place}: {checked:?}");
        let finding = format!("'{}' is on another file system", mount.display());
        assert!(checked.stdout.contains(&finding), "{place}: {checked:?}");
    }
}

#[test]
fn a_stalled_mount_at_the_counters_refuses_what_counts_at_once() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "b");
    let start = stall_at(&site, &site.root().join(".deploy-shell/limits"));
    let swap = request_line(&site, 0, "swap b");
    let list = request_line(&site, 1, "list");
    if !ran(&format!("{start}stall\n{swap}{list}unmount\n")) {
        return;
    }
    let replies = replies(&site, 2);
    replies[0].refused(74, "io-error");
    assert!(replies[0].stderr.contains("limits/"), "{replies:?}");
    assert_eq!(replies[1].code, 0, "{replies:?}");
    assert_eq!(states(&site), ["a current", "b pending"]);
}
