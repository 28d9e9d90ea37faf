//! A builder of the bridge that is killed, or that fails, leaves a whole bridge.

use std::fs;
use std::process::Command;

use nix::sys::statvfs::statvfs;

use crate::archive::{Tar, zstd};
use crate::bridge::{PATHS, assert_bridged, build, content, deploy, read};
use crate::direct::{ask, serve};
use crate::disk_use::SMALL_DISK;
use crate::receive::noise;
use crate::site::{Reply, Site, admin};
use crate::strace;

/// Builds the bridge under strace(1), which injects this fault.
fn build_with(site: &Site, fault: &str) -> Reply {
    let mut command = Command::new(admin());
    command.args(["bridge", "--config"]).arg(site.config_path());
    let inject = format!("inject={fault}");
    let options = ["-f", "-qq", "-o", "/dev/null", "-e", &inject];
    site.run(strace::under(&options, &command), b"")
}

/// Returns the one of the releases a and b that is not live.
fn other(site: &Site) -> &'static str {
    match site.current().as_deref() {
        Some("a") => "b",
        _ => "a",
    }
}

/// The system calls that change a file.
const CHANGING: [&str; 8] = [
    "flock",
    "mkdirat",
    "mkdir",
    "symlinkat",
    "unlinkat",
    "renameat",
    "syncfs",
    "write",
];

#[test]
fn a_builder_that_is_killed_at_any_call_leaves_a_whole_bridge() {
    let site = Site::with_config(PATHS);
    deploy(&site, &["a", "b"]);
    build(&site).ok();
    let mut kills = 0;
    for call in CHANGING {
        // Terminates: a call that the builder does not reach kills nothing.
        for number in 1.. {
            // Each swap changes what the bridge has to contain.
            let live = other(&site);
            ask(&site, &format!("swap {live}")).ok();
            let reply = build_with(&site, &format!("{call}:signal=KILL:when={number}"));
            let logo = read(&site, "assets/deep/logo.txt");
            let logo = logo.unwrap_or_else(|| panic!("{call} {number}: no bridge"));
            assert_bridged(&site, &["a", "b"], &logo);
            if reply.code == 0 {
                assert_eq!(logo, live);
                break;
            }
            assert_eq!(reply.code, -1, "{call} {number}: {reply:?}");
            kills += 1;
            build(&site).ok();
            assert_bridged(&site, &["a", "b"], live);
            let builds = fs::read_dir(site.root().join(".bridge")).expect("a directory");
            assert_eq!(builds.count(), 2, "{call} {number}");
        }
    }
    assert!(kills > 8, "{kills}");
}

/// A disk that fills up at any call leaves the last bridge.
#[test]
fn a_builder_that_fails_at_any_call_leaves_the_last_bridge() {
    let site = Site::with_config(PATHS);
    deploy(&site, &["a", "b"]);
    build(&site).ok();
    let mut failures = 0;
    for call in ["mkdirat", "symlinkat", "renameat"] {
        for number in 1.. {
            let live = other(&site);
            let before = content(&site);
            ask(&site, &format!("swap {live}")).ok();
            let reply = build_with(&site, &format!("{call}:error=ENOSPC:when={number}"));
            if reply.code == 0 {
                break;
            }
            assert_eq!(reply.code, 74, "{call} {number}: {reply:?}");
            assert!(reply.stderr.contains("disk-full"), "{reply:?}");
            failures += 1;
            assert_eq!(
                content(&site).keys().collect::<Vec<_>>(),
                before.keys().collect::<Vec<_>>()
            );
            let builds = fs::read_dir(site.root().join(".bridge")).expect("a directory");
            let builds = builds.filter(|it| it.as_ref().expect("a name").file_name() != "next");
            assert_eq!(
                builds.count(),
                if failures == 1 { 1 } else { 2 },
                "{call} {number}"
            );
            build(&site).ok();
        }
    }
    assert!(failures > 5, "{failures}");
}

/// A client chooses how many directories a release has, and each takes a block and an inode.
#[test]
fn a_build_on_a_full_disk_keeps_the_reserve_and_the_bridge() {
    let site = Site::with_config(PATHS);
    let Some(mounted) = SMALL_DISK.over(&site) else {
        return;
    };
    deploy(&site, &["a", "b"]);
    build(&site).ok();
    let directories = (0..200).fold(Tar::new(), |tar, number| {
        tar.file(format!("assets/{number}/f"), "x")
    });
    let payload = zstd(&directories.file("assets/app-c.js", "c").end());
    let request = Site::receive_command("c", &payload);
    site.run(serve(&site, "ci", request), &payload).ok();
    ask(&site, "swap c").ok();
    site.configure(&format!("{PATHS}[limits]\nreserve = \"50%\"\n"));
    let before = content(&site);
    let free = |reserved: bool| {
        let found = statvfs(&mounted.disk).expect("its space");
        let blocks = if reserved {
            found.blocks() / 2
        } else {
            found.blocks_available()
        };
        blocks * found.fragment_size()
    };
    let reserve = free(true);
    let used = mounted.disk.join("used");
    // More than the build needs, and less.
    for (spare, is_built) in [(32 << 10, false), (4 << 20, true)] {
        _ = fs::remove_file(&used);
        fs::write(&used, noise((free(false) - reserve - spare) as usize)).expect("there is space");
        let reply = build(&site);
        if is_built {
            reply.ok();
            assert_eq!(content(&site).len(), before.len() + 201);
        } else {
            reply.refused(74, "disk-full");
            assert_eq!(content(&site), before);
            // What the reserve is for.
            ask(&site, "rollback").ok();
            ask(&site, "swap c").ok();
        }
        assert!(free(false) >= reserve, "{} of {reserve}", free(false));
    }
}
