//! The removal of pruned releases that contain what is not to be removed, or cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::Uid;
use serde_json::json;

use crate::check::{check, codes};
use crate::direct::{ask, listing, live, put, serve};
use crate::drop::drop_releases;
use crate::mounted::{in_namespace, replies, request_line};
use crate::site::{Reply, Site};
use crate::strace::started_by;

/// A site that prunes `a` when `d`, which is pending, becomes live.
fn site() -> Site {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c"]);
    put(&site, "d");
    site
}

/// Asserts that `list` and `check` report the removal of `a`.
#[track_caller]
fn is_reported(list: &Reply) {
    assert_eq!(list.code, 0, "{list:?}");
    let warning = "deploy-shell: warning: the removal of 'a' is not complete";
    assert!(list.stderr.starts_with(warning), "{list:?}");
    assert!(!list.stdout.contains("\na "), "{list:?}");
}

#[test]
fn a_removal_never_crosses_a_mount() {
    let site = site();
    let outside = site.dir().join("outside");
    fs::create_dir_all(outside.join("deep")).expect("a directory");
    fs::write(outside.join("deep/kept"), "x").expect("a file");
    let data = site.root().join("releases/a/assets/data");
    fs::create_dir(&data).expect("the test owns it");
    let requests = ["swap d", "list", "list --json", "swap c", "list"];
    let mut script = format!(
        "mount --bind '{}' '{}' || exit 1\n",
        outside.display(),
        data.display()
    );
    for (number, request) in requests.iter().enumerate() {
        script += &request_line(&site, number, request);
    }
    let Some(done) = in_namespace(&script) else {
        return;
    };
    assert!(done.status.success(), "{done:?}");
    let replies = replies(&site, requests.len());
    // The request succeeds, and names the mount.
    let swap = &replies[0];
    assert_eq!(swap.code, 0, "{swap:?}");
    assert!(swap.stdout.starts_with("ok swap d previous=c"), "{swap:?}");
    let mount = "/trash/a.";
    assert!(
        swap.stderr.contains(mount) && swap.stderr.contains("/assets/data' is a mount point"),
        "{swap:?}"
    );
    is_reported(&replies[1]);
    let document: serde_json::Value = serde_json::from_str(&replies[2].stdout).expect("JSON");
    assert_eq!(document["removing"], json!(["a"]));
    // A later request tries again, and crosses the mount neither.
    assert_eq!(replies[3].code, 0, "{:?}", replies[3]);
    is_reported(&replies[4]);
    assert!(outside.join("deep/kept").exists());
    // The mount is gone with its namespace. The next request removes the rest.
    assert_eq!(listing(&site)["removing"], json!(["a"]));
    ask(&site, "swap d").ok();
    assert_eq!(listing(&site).get("removing"), None);
    assert_eq!(site.leftovers(), [] as [PathBuf; 0]);
    assert!(outside.join("deep/kept").exists());
}

/// Makes a directory from which this user cannot remove its file; returns false where
/// that is not possible.
fn make_undeletable(directory: &Path) -> bool {
    if !Uid::effective().is_root() {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o555)).expect("our directory");
        return true;
    }
    let done = Command::new("chattr").arg("+i").arg(directory).output();
    let possible = done.is_ok_and(|done| done.status.success());
    if !possible {
        println!("skipped: root can remove every file of this file system");
    }
    possible
}

fn make_deletable(directory: &Path) {
    if Uid::effective().is_root() {
        let done = Command::new("chattr").arg("-i").arg(directory).status();
        assert!(done.expect("chattr runs").success());
    } else {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("our directory");
    }
}

#[test]
fn files_that_cannot_be_removed_are_reported_until_they_are_gone() {
    let site = site();
    let before = codes(&check(&site));
    if !make_undeletable(&site.root().join("releases/a/assets")) {
        return;
    }
    let swap = ask(&site, "swap d");
    let trash = site.root().join(".deploy-shell/trash");
    let left = fs::read_dir(&trash).expect("the trash").next();
    let left = left.expect("what is left").expect("an entry").path();
    assert!(
        swap.stderr.contains("/assets") && swap.stderr.contains("' cannot be removed: "),
        "{swap:?}"
    );
    swap.ok();
    is_reported(&ask(&site, "list"));
    assert!(!left.join("index.html").exists());
    let now = codes(&check(&site));
    let found: Vec<&String> = now.difference(&before).collect();
    assert_eq!(found, ["removal-pending"]);
    make_deletable(&left.join("assets"));
    ask(&site, "swap c").ok();
    assert_eq!(site.leftovers(), [] as [PathBuf; 0]);
    assert_eq!(ask(&site, "list").stderr, "");
}

/// Makes directories in each other, more than a process may have descriptors.
fn make_deep(parent: &Path) {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = open(parent, flags, Mode::empty()).expect("a directory");
    for _ in 0..1_200 {
        mkdirat(&at, "deep", Mode::S_IRWXU).expect("a directory");
        at = openat(&at, "deep", flags, Mode::empty()).expect("a directory");
    }
}

/// A compromised unpacker can make a deep tree, and so can a process of the account.
#[test]
fn a_tree_of_any_depth_is_removed() {
    let site = site();
    let left = site.root().join(".deploy-shell/incoming/left.1.0");
    fs::create_dir(&left).expect("the test owns it");
    make_deep(&left);
    make_deep(&site.root().join("releases/a"));
    let reply = ask(&site, "swap d");
    assert_eq!((reply.code, reply.stderr.as_str()), (0, ""), "{reply:?}");
    assert_eq!(listing(&site).get("removing"), None);
    assert_eq!(site.leftovers(), [] as [PathBuf; 0]);
    // The account's own command.
    make_deep(&site.root().join("releases/b"));
    drop_releases(&site, &["--good", "b"]).ok();
    assert_eq!(site.leftovers(), [] as [PathBuf; 0]);
}

/// A compromised unpacker can make more names in one directory than fit into memory. A request
/// that read them all would be killed, and so would each one after it.
#[test]
fn a_directory_with_very_many_names_is_removed_within_little_memory() {
    let site = site();
    let left = site.root().join(".deploy-shell/incoming/left.1.0");
    fs::create_dir(&left).expect("the test owns it");
    // A list of them takes 43 MB.
    for number in 0..150_000 {
        let name = format!("{number:0>250}");
        fs::write(left.join(name), "").expect("a file");
    }
    // Bytes of address space. The swap alone needs less than half of it.
    let limited = started_by("prlimit", &["--as=40000000"], &serve(&site, "ci", "swap d"));
    let reply = site.run(limited, b"");
    assert_eq!((reply.code, reply.stderr.as_str()), (0, ""), "{reply:?}");
    assert_eq!(site.leftovers(), [] as [PathBuf; 0]);
}
