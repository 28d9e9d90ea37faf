//! Entries that conflict with an earlier one: the same name again, and names below an
//! entry that is not a directory.

use super::{Case, case};
use crate::archive::{Header, PREFIX, Tar};

const DUPLICATE: &str = "duplicate name";
const BELOW: &str = "below an entry that is not a directory";

pub fn cases() -> Vec<Case> {
    let mut cases = duplicates();
    cases.extend(below());
    cases
}

fn duplicates() -> Vec<Case> {
    vec![
        case("a file twice", "a", DUPLICATE, |tar| {
            tar.file("a", "1").file("a", "2")
        }),
        case("a file twice with equal bytes", "a", DUPLICATE, |tar| {
            tar.file("a", "1").file("a", "1")
        }),
        case("a file again after a dot", "./a", DUPLICATE, |tar| {
            tar.file("a", "").file("./a", "")
        }),
        case("a file again after two slashes", "d//a", DUPLICATE, |tar| {
            tar.file("d/a", "").file("d//a", "")
        }),
        case("a file again by pax name", "a", DUPLICATE, |tar| {
            tar.file("a", "").pax(&[("path", b"a")]).file("b", "")
        }),
        case("a file again by prefix", "d/a", DUPLICATE, |tar| {
            tar.file("d/a", "")
                .header(Header::file("a", 0).put(PREFIX, "d"))
        }),
        case("a directory where a file is", "a/", DUPLICATE, |tar| {
            tar.file("a", "").directory("a/")
        }),
        case("a file where a directory is", "a", DUPLICATE, |tar| {
            tar.directory("a/").file("a", "")
        }),
        case("a file where a directory must be", "d", DUPLICATE, |tar| {
            tar.file("d/a", "").file("d", "")
        }),
        case(
            "a symlink where a directory must be",
            "d",
            DUPLICATE,
            |tar| tar.file("d/a", "").symlink("d", "index.html"),
        ),
        case("a symlink twice", "l", DUPLICATE, |tar| {
            tar.symlink("l", "index.html").symlink("l", "index.html")
        }),
        // The write must not go through the symlink.
        case("a file where a symlink is", "l", DUPLICATE, |tar| {
            tar.symlink("l", "index.html").file("l", "taken")
        }),
        // node-tar, CVE-2021-32803, and tar-rs, CVE-2026-33056: the mode of the
        // directory was set on the target of the symlink.
        case("a directory where a symlink is", "l/", DUPLICATE, |tar| {
            tar.directory("d/").symlink("l", "d").directory("l/")
        }),
    ]
}

/// Appends a directory `d` and a symlink `l` to it: both inside, both allowed.
fn linked(tar: Tar) -> Tar {
    tar.directory("d/").symlink("l", "d")
}

fn below() -> Vec<Case> {
    vec![
        case("a file below a file", "a/b", BELOW, |tar| {
            tar.file("a", "").file("a/b", "")
        }),
        case("a directory below a file", "a/b/", BELOW, |tar| {
            tar.file("a", "").directory("a/b/")
        }),
        case("a file far below a file", "a/b/c/d", BELOW, |tar| {
            tar.file("a", "").file("a/b/c/d", "")
        }),
        case("a file through a symlink", "l/x", BELOW, |tar| {
            linked(tar).file("l/x", "")
        }),
        case("a directory through a symlink", "l/x/", BELOW, |tar| {
            linked(tar).directory("l/x/")
        }),
        case("a symlink through a symlink", "l/x", BELOW, |tar| {
            linked(tar).symlink("l/x", "../index.html")
        }),
        case("a file through a symlink to nothing", "l/x", BELOW, |tar| {
            tar.symlink("l", "later").file("l/x", "")
        }),
        case(
            "a file through a symlink and a dot",
            "l/./x",
            BELOW,
            |tar| linked(tar).file("l/./x", ""),
        ),
        case(
            "a file through a symlink and slashes",
            "l//x",
            BELOW,
            |tar| linked(tar).file("l//x", ""),
        ),
        case("a pax name through a symlink", "l/x", BELOW, |tar| {
            linked(tar).pax(&[("path", b"l/x")]).file("a", "")
        }),
        case(
            "a file below the valid file",
            "index.html/x",
            BELOW,
            |tar| tar.file("index.html/x", ""),
        ),
    ]
}
