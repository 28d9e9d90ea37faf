//! Symlinks: each must resolve inside the release, in any order of the entries and
//! through any other symlinks.

use super::{Case, case};
use crate::archive::{Header, LINK, Tar};

const EMPTY: &str = "link target is empty";
const ABSOLUTE: &str = "symlink target is absolute";
const OVER: &str = "symlink target over 1024 bytes";
const LEAVES: &str = "symlink leads outside of the release";
const UNRESOLVED: &str = "symlink has '..' after a part that does not exist";
const LOOPS: &str = "symlink loops";

pub fn cases() -> Vec<Case> {
    let mut cases = targets();
    cases.extend(straight());
    cases.extend(through());
    cases.extend(loops());
    cases
}

fn targets() -> Vec<Case> {
    vec![
        case("a symlink without a target", "l", EMPTY, |tar| {
            tar.symlink("l", "")
        }),
        case("a symlink with an empty pax target", "l", EMPTY, |tar| {
            tar.pax(&[("linkpath", b"")]).symlink("l", "index.html")
        }),
        case("a symlink to a system file", "l", ABSOLUTE, |tar| {
            tar.symlink("l", "/etc/passwd")
        }),
        case("a symlink to the system's root", "l", ABSOLUTE, |tar| {
            tar.symlink("l", "/")
        }),
        case("a pax target from the root", "l", ABSOLUTE, |tar| {
            tar.pax(&[("linkpath", b"/etc")]).symlink("l", "index.html")
        }),
        case("a GNU target from the root", "l", ABSOLUTE, |tar| {
            tar.long_target("/etc").symlink("l", "index.html")
        }),
        case("a target of 1,025 bytes", "l", OVER, |tar| {
            tar.pax(&[("linkpath", &[b't'; 1025])]).symlink("l", "t")
        }),
        case(
            "a target that is not UTF-8",
            "l",
            "symlink target is not utf-8",
            |tar| tar.symlink("l", b"\xff"),
        ),
        case(
            "a target with a control character",
            "l",
            "symlink target has a control character",
            |tar| tar.symlink("l", "a\x1b[2J"),
        ),
        case("a target with two ends", "l", AFTER_NUL, |tar| {
            tar.header(Header::symlink("l", "").put(LINK, "index.html\0/etc"))
        }),
    ]
}

const AFTER_NUL: &str = "linkname has bytes after its NUL";

fn straight() -> Vec<Case> {
    vec![
        case("a symlink to the directory above", "l", LEAVES, |tar| {
            tar.symlink("l", "..")
        }),
        case("a symlink beside the site", "l", LEAVES, |tar| {
            tar.symlink("l", "../../../../../beside/file")
        }),
        case("a deep symlink one step too high", "a/b/l", LEAVES, |tar| {
            tar.symlink("a/b/l", "../../../x")
        }),
        case("a target that goes down and up", "l", LEAVES, |tar| {
            tar.directory("d/").symlink("l", "d/../../x")
        }),
        case("a target out and in again", "l", LEAVES, |tar| {
            tar.symlink("l", "../release/index.html")
        }),
        case("a pax target that leaves", "l", LEAVES, |tar| {
            tar.pax(&[("linkpath", b"../../x")])
                .symlink("l", "index.html")
        }),
        case("a GNU target that leaves", "l", LEAVES, |tar| {
            tar.long_target("../../x").symlink("l", "index.html")
        }),
        // A missing part could become a symlink out of the release.
        case("a target up from a missing part", "l", UNRESOLVED, |tar| {
            tar.symlink("l", "missing/../index.html")
        }),
        case("a target of dots and slashes", "l", LEAVES, |tar| {
            tar.symlink("l", ".//.//..//")
        }),
    ]
}

/// Appends a symlink for each name and target of an attack.
fn chain(tar: Tar, links: &[(&str, &str)]) -> Tar {
    links
        .iter()
        .fold(tar, |tar, (name, target)| tar.symlink(name, target))
}

fn through() -> Vec<Case> {
    vec![
        case("up through a symlink to the root", "l", LEAVES, |tar| {
            chain(tar, &[("a/b/c/s", "../../.."), ("l", "a/b/c/s/../x")])
        }),
        case(
            "the same, with the symlink to the root last",
            "l",
            LEAVES,
            |tar| chain(tar, &[("l", "a/b/c/s/../x"), ("a/b/c/s", "../../..")]),
        ),
        // node-tar, CVE-2026-26960: the text of the second one stays inside.
        case(
            "up through a symlink halfway",
            "a/b/escape",
            LEAVES,
            |tar| {
                chain(
                    tar.directory("a/b/c/"),
                    &[("a/b/c/up", "../.."), ("a/b/escape", "c/up/../..")],
                )
            },
        ),
        case("three symlinks, each one step", "l3", LEAVES, |tar| {
            chain(
                tar.directory("a/b/"),
                &[("l1", "a/b"), ("l2", "l1/.."), ("l3", "l2/../../x")],
            )
        }),
        case("a symlink to dot, then up", "l", LEAVES, |tar| {
            chain(tar, &[("dot", "."), ("l", "dot/dot/dot/../x")])
        }),
        // Python, CVE-2025-4517: the resolved path was too long for the check.
        case("a chain longer than any path", "escape", LEAVES, |tar| {
            long_chain(tar)
        }),
    ]
}

/// Fifteen nested directories with long names, and beside each a symlink of one letter
/// to it: the target is short, and its resolved path has almost a kilobyte.
fn long_chain(mut tar: Tar) -> Tar {
    let long = "n".repeat(60);
    let mut directory = String::new();
    let mut target = String::new();
    for _ in 0..15 {
        let name = format!("{directory}s");
        tar = tar
            .pax(&[("path", name.as_bytes())])
            .symlink("s", &long)
            .pax(&[("path", format!("{directory}{long}/").as_bytes())])
            .directory("n/");
        directory = format!("{directory}{long}/");
        target += "s/";
    }
    target += &"../".repeat(16);
    tar.pax(&[("linkpath", format!("{target}x").as_bytes())])
        .symlink("escape", "x")
}

fn loops() -> Vec<Case> {
    vec![
        case("a symlink to itself", "l", LOOPS, |tar| {
            tar.symlink("l", "l")
        }),
        case("two symlinks to each other", "a", LOOPS, |tar| {
            chain(tar, &[("a", "b"), ("b", "a")])
        }),
        case("a symlink below itself", "a", LOOPS, |tar| {
            tar.symlink("a", "a/b")
        }),
        case("a loop through a directory", "d/l", LOOPS, |tar| {
            tar.symlink("d/l", "../d/l/x")
        }),
        case("a loop of three, met from outside", "a", LOOPS, |tar| {
            chain(tar, &[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")])
        }),
    ]
}
