//! Entries that meet an earlier one: the same name again, and names beneath
//! something that is no folder.

use super::{Case, case};
use crate::archive::{Header, PREFIX, Tar};

const DUPLICATE: &str = "duplicate name";
const BENEATH: &str = "below an entry that is not a directory";

pub fn cases() -> Vec<Case> {
    let mut cases = duplicates();
    cases.extend(beneath());
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
        case("a file again behind a dot", "./a", DUPLICATE, |tar| {
            tar.file("a", "").file("./a", "")
        }),
        case(
            "a file again behind two slashes",
            "d//a",
            DUPLICATE,
            |tar| tar.file("d/a", "").file("d//a", ""),
        ),
        case("a file again by PAX name", "a", DUPLICATE, |tar| {
            tar.file("a", "").pax(&[("path", b"a")]).file("b", "")
        }),
        case("a file again by prefix", "d/a", DUPLICATE, |tar| {
            tar.file("d/a", "")
                .header(Header::file("a", 0).put(PREFIX, "d"))
        }),
        case("a folder where a file is", "a/", DUPLICATE, |tar| {
            tar.file("a", "").folder("a/")
        }),
        case("a file where a folder is", "a", DUPLICATE, |tar| {
            tar.folder("a/").file("a", "")
        }),
        case("a file where a folder must be", "d", DUPLICATE, |tar| {
            tar.file("d/a", "").file("d", "")
        }),
        case("a link where a folder must be", "d", DUPLICATE, |tar| {
            tar.file("d/a", "").link("d", "index.html")
        }),
        case("a folder twice", "d/", DUPLICATE, |tar| {
            tar.folder("d/").folder("d/")
        }),
        case("a folder twice around its file", "d/", DUPLICATE, |tar| {
            tar.folder("d/").file("d/a", "").folder("d/")
        }),
        case("the root folder twice", "./", DUPLICATE, |tar| {
            tar.folder("./").folder("./")
        }),
        case("a link twice", "l", DUPLICATE, |tar| {
            tar.link("l", "index.html").link("l", "index.html")
        }),
        // The write goes through the link, if anyone lets it.
        case("a file where a link is", "l", DUPLICATE, |tar| {
            tar.link("l", "index.html").file("l", "taken")
        }),
        // node-tar, CVE-2021-32803, and tar-rs, CVE-2026-33056: the folder's mode
        // was set on what the link led to.
        case("a folder where a link is", "l/", DUPLICATE, |tar| {
            tar.folder("d/").link("l", "d").folder("l/")
        }),
    ]
}

/// A folder `d` and a link `l` to it: both inside, both allowed.
fn linked(tar: Tar) -> Tar {
    tar.folder("d/").link("l", "d")
}

fn beneath() -> Vec<Case> {
    vec![
        case("a file beneath a file", "a/b", BENEATH, |tar| {
            tar.file("a", "").file("a/b", "")
        }),
        case("a folder beneath a file", "a/b/", BENEATH, |tar| {
            tar.file("a", "").folder("a/b/")
        }),
        case("a file far beneath a file", "a/b/c/d", BENEATH, |tar| {
            tar.file("a", "").file("a/b/c/d", "")
        }),
        case("a file through a link", "l/x", BENEATH, |tar| {
            linked(tar).file("l/x", "")
        }),
        case("a folder through a link", "l/x/", BENEATH, |tar| {
            linked(tar).folder("l/x/")
        }),
        case("a link through a link", "l/x", BENEATH, |tar| {
            linked(tar).link("l/x", "../index.html")
        }),
        case("a file through a link to nothing", "l/x", BENEATH, |tar| {
            tar.link("l", "later").file("l/x", "")
        }),
        case("a file through a link and a dot", "l/./x", BENEATH, |tar| {
            linked(tar).file("l/./x", "")
        }),
        case(
            "a file through a link and slashes",
            "l//x",
            BENEATH,
            |tar| linked(tar).file("l//x", ""),
        ),
        case("a PAX name through a link", "l/x", BENEATH, |tar| {
            linked(tar).pax(&[("path", b"l/x")]).file("a", "")
        }),
        case(
            "a file beneath the sound file",
            "index.html/x",
            BENEATH,
            |tar| tar.file("index.html/x", ""),
        ),
    ]
}
