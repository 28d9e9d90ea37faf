//! Symbolic links: each must resolve inside the release, whatever order the
//! entries came in and through whatever other links it goes.

use super::{Case, case};
use crate::archive::{Header, LINK, Tar};

const EMPTY: &str = "symlink target is empty";
const ABSOLUTE: &str = "symlink target is absolute";
const OVER: &str = "symlink target over 1024 bytes";
const LEAVES: &str = "symlink leads outside of the release";
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
        case("a link to nowhere", "l", EMPTY, |tar| tar.link("l", "")),
        case("a link with an empty PAX target", "l", EMPTY, |tar| {
            tar.pax(&[("linkpath", b"")]).link("l", "index.html")
        }),
        case("a link to a system file", "l", ABSOLUTE, |tar| {
            tar.link("l", "/etc/passwd")
        }),
        case("a link to the system's root", "l", ABSOLUTE, |tar| {
            tar.link("l", "/")
        }),
        case("a PAX target from the root", "l", ABSOLUTE, |tar| {
            tar.pax(&[("linkpath", b"/etc")]).link("l", "index.html")
        }),
        case("a GNU target from the root", "l", ABSOLUTE, |tar| {
            tar.long_link("/etc").link("l", "index.html")
        }),
        case("a target of 1,025 bytes", "l", OVER, |tar| {
            tar.pax(&[("linkpath", &[b't'; 1025])]).link("l", "t")
        }),
        case(
            "a target that is not UTF-8",
            "l",
            "symlink target is not utf-8",
            |tar| tar.link("l", b"\xff"),
        ),
        case(
            "a target with a control character",
            "l",
            "symlink target has a control character",
            |tar| tar.link("l", "a\x1b[2J"),
        ),
        case("a target with two ends", "l", BEHIND, |tar| {
            tar.header(Header::link("l", "").put(LINK, "index.html\0/etc"))
        }),
    ]
}

const BEHIND: &str = "name has bytes after its end";

fn straight() -> Vec<Case> {
    vec![
        case("a link to the folder above", "l", LEAVES, |tar| {
            tar.link("l", "..")
        }),
        case("a link beside the site", "l", LEAVES, |tar| {
            tar.link("l", "../../../../../beside/file")
        }),
        case("a deep link one step too high", "a/b/l", LEAVES, |tar| {
            tar.link("a/b/l", "../../../x")
        }),
        case("a target that goes down and up", "l", LEAVES, |tar| {
            tar.folder("d/").link("l", "d/../../x")
        }),
        case("a target out and in again", "l", LEAVES, |tar| {
            tar.link("l", "../release/index.html")
        }),
        case("a PAX target that leaves", "l", LEAVES, |tar| {
            tar.pax(&[("linkpath", b"../../x")]).link("l", "index.html")
        }),
        case("a GNU target that leaves", "l", LEAVES, |tar| {
            tar.long_link("../../x").link("l", "index.html")
        }),
        // What is not there cannot be shown to stay inside.
        case("a target up from what is missing", "l", LEAVES, |tar| {
            tar.link("l", "missing/../index.html")
        }),
        case("a target of dots and slashes", "l", LEAVES, |tar| {
            tar.link("l", ".//.//..//")
        }),
    ]
}

/// A link with a name and a target for each step of an attack.
fn chain(tar: Tar, links: &[(&str, &str)]) -> Tar {
    links
        .iter()
        .fold(tar, |tar, (name, target)| tar.link(name, target))
}

fn through() -> Vec<Case> {
    vec![
        case("up through a link to the root", "l", LEAVES, |tar| {
            chain(tar, &[("a/b/c/s", "../../.."), ("l", "a/b/c/s/../x")])
        }),
        case("the same, the link to the root last", "l", LEAVES, |tar| {
            chain(tar, &[("l", "a/b/c/s/../x"), ("a/b/c/s", "../../..")])
        }),
        // node-tar, CVE-2026-26960: as text the second stays inside.
        case("up through a link half way", "a/b/escape", LEAVES, |tar| {
            chain(
                tar.folder("a/b/c/"),
                &[("a/b/c/up", "../.."), ("a/b/escape", "c/up/../..")],
            )
        }),
        case("three links, each one step", "l3", LEAVES, |tar| {
            chain(
                tar.folder("a/b/"),
                &[("l1", "a/b"), ("l2", "l1/.."), ("l3", "l2/../../x")],
            )
        }),
        case("a link to dot, then up", "l", LEAVES, |tar| {
            chain(tar, &[("dot", "."), ("l", "dot/dot/dot/../x")])
        }),
        // Python, CVE-2025-4517: so long when resolved that the check gave up.
        case("a chain longer than any path", "escape", LEAVES, |tar| {
            long_chain(tar)
        }),
    ]
}

/// Fifteen folders with long names, one in the other, and beside each a link of
/// one letter to it: the target is short, and resolved it is near a kilobyte.
fn long_chain(mut tar: Tar) -> Tar {
    let long = "n".repeat(60);
    let mut folder = String::new();
    let mut target = String::new();
    for _ in 0..15 {
        let name = format!("{folder}s");
        tar = tar
            .pax(&[("path", name.as_bytes())])
            .link("s", &long)
            .pax(&[("path", format!("{folder}{long}/").as_bytes())])
            .folder("n/");
        folder = format!("{folder}{long}/");
        target += "s/";
    }
    target += &"../".repeat(16);
    tar.pax(&[("linkpath", format!("{target}x").as_bytes())])
        .link("escape", "x")
}

fn loops() -> Vec<Case> {
    vec![
        case("a link to itself", "l", LOOPS, |tar| tar.link("l", "l")),
        case("two links to each other", "a", LOOPS, |tar| {
            chain(tar, &[("a", "b"), ("b", "a")])
        }),
        case("a link beneath itself", "a", LOOPS, |tar| {
            tar.link("a", "a/b")
        }),
        case("a loop through a folder", "d/l", LOOPS, |tar| {
            tar.link("d/l", "../d/l/x")
        }),
        case("a loop of three, met from outside", "a", LOOPS, |tar| {
            chain(tar, &[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")])
        }),
    ]
}
