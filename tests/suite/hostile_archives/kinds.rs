//! Entries that are not a file, a directory or a symlink, and hard links to anything
//! but an earlier file.

use super::{Case, case};
use crate::archive::{DEVICE_MAJOR, Header, LINK, MAGIC, MODE, Tar};

pub fn cases() -> Vec<Case> {
    let mut cases = hard_links();
    cases.extend(special());
    cases.extend(sparse());
    cases.extend(unknown());
    cases
}

fn hard(tar: Tar, name: &str, target: &str) -> Tar {
    tar.header(Header::new(b'1', name, 0).put(LINK, target))
}

const HARD_MODE: &str = "mode of a hard link has other executable bits than its file";

/// Each target must be a regular file that an earlier entry made.
fn hard_links() -> Vec<Case> {
    const NOWHERE: &str = "which no entry can have";
    const MISSING: &str = "which is no earlier entry of the archive";
    const DUPLICATE: &str = "duplicate name";
    const SIZED: &str = "size on an entry without data";
    const EMPTY: &str = "link target is empty";
    let to = |name, entry: &str, target: &str, fault, entries: fn(Tar) -> Tar| {
        let rule = format!("hard link to '{target}', {fault}");
        case(name, entry, rule.leak(), entries)
    };
    vec![
        to(
            "a hard link to a file outside",
            "b",
            OUTSIDE,
            NOWHERE,
            |tar| hard(tar, "b", OUTSIDE),
        ),
        to(
            "a hard link by absolute path",
            "b",
            "/etc/passwd",
            NOWHERE,
            |tar| hard(tar, "b", "/etc/passwd"),
        ),
        to("a hard link to the release", "b", ".", NOWHERE, |tar| {
            hard(tar, "b", ".")
        }),
        to(
            "a hard link with a slash at its end",
            "b",
            "index.html/",
            NOWHERE,
            |tar| hard(tar, "b", "index.html/"),
        ),
        to(
            "a hard link up and down again",
            "b",
            "d/../index.html",
            NOWHERE,
            |tar| hard(tar.directory("d/"), "b", "d/../index.html"),
        ),
        // node-tar, CVE-2018-20834: the second entry wrote through the first.
        to(
            "a hard link and a file of its name",
            "b",
            OUTSIDE,
            NOWHERE,
            |tar| hard(tar, "b", OUTSIDE).file("b", "taken"),
        ),
        // node-tar, CVE-2026-24842: the target was checked relative to the entry's
        // directory and used relative to the root.
        to(
            "a hard link deep down",
            "a/b/c/d/x",
            OUTSIDE,
            NOWHERE,
            |tar| hard(tar, "a/b/c/d/x", OUTSIDE),
        ),
        to(
            "a hard link by a long target",
            "b",
            OUTSIDE,
            NOWHERE,
            |tar| hard(tar.long_target(OUTSIDE), "b", "index.html"),
        ),
        // tar-fs, CVE-2025-48387: the target went through a symlink.
        to(
            "a hard link through a symlink",
            "b",
            "d/up/index.html",
            MISSING,
            |tar| {
                hard(
                    tar.directory("d/").symlink("d/up", ".."),
                    "b",
                    "d/up/index.html",
                )
            },
        ),
        to(
            "a hard link to a symlink",
            "b",
            "l",
            "which is a symlink",
            |tar| hard(tar.symlink("l", "index.html"), "b", "l"),
        ),
        to(
            "a hard link to a directory",
            "b",
            "d",
            "which is a directory",
            |tar| hard(tar.directory("d/"), "b", "d"),
        ),
        to("a hard link to nothing", "b", "missing", MISSING, |tar| {
            hard(tar, "b", "missing")
        }),
        to(
            "a hard link to a later file",
            "b",
            "later",
            MISSING,
            |tar| hard(tar, "b", "later").file("later", ""),
        ),
        to("a hard link to itself alone", "b", "b", MISSING, |tar| {
            hard(tar, "b", "b")
        }),
        case("a hard link where another file is", "b", DUPLICATE, |tar| {
            hard(tar.file("b", "other"), "b", "index.html")
        }),
        case("a file where a hard link is", "b", DUPLICATE, |tar| {
            hard(tar, "b", "index.html").file("b", "taken")
        }),
        case("a hard link where a symlink is", "l", DUPLICATE, |tar| {
            hard(tar.symlink("l", "index.html"), "l", "index.html")
        }),
        case("a hard link where a directory is", "d", DUPLICATE, |tar| {
            hard(tar.directory("d/"), "d", "index.html")
        }),
        // Python gives the file the mode of the link.
        case("an executable hard link to a file", "b", HARD_MODE, |tar| {
            let link = Header::new(b'1', "b", 0).put(LINK, "index.html");
            tar.header(link.put(MODE, "0000755"))
        }),
        case(
            "an executable hard link to itself",
            "index.html",
            HARD_MODE,
            |tar| {
                let link = Header::new(b'1', "index.html", 0).put(LINK, "index.html");
                tar.header(link.put(MODE, "0000755"))
            },
        ),
        case(
            "a hard link that ends in a slash",
            "b/",
            "file name ends in '/'",
            |tar| hard(tar, "b/", "index.html"),
        ),
        case("a hard link without a target", "b", EMPTY, |tar| {
            hard(tar, "b", "")
        }),
        case("a hard link with a long target alone", "b", EMPTY, |tar| {
            hard(tar.long_target("index.html"), "b", "")
        }),
        // libarchive, CVE-2016-5418: the data overwrote another file. GNU tar takes the
        // data for the next header.
        case("a hard link with data", "b", SIZED, |tar| {
            let header = Header::new(b'1', "b", 5).put(LINK, "index.html");
            tar.header(header).data("hello")
        }),
    ]
}

const OUTSIDE: &str = "../../../../../beside/file";

fn special() -> Vec<Case> {
    vec![
        case("a character device", "null", "character device", |tar| {
            let header = Header::new(b'3', "null", 0).put(DEVICE_MAJOR, "0000001");
            tar.header(header)
        }),
        case("a block device", "disk", "block device", |tar| {
            let header = Header::new(b'4', "disk", 0).put(DEVICE_MAJOR, "0000010");
            tar.header(header)
        }),
        case("a named pipe", "pipe", "fifo", |tar| {
            tar.header(Header::new(b'6', "pipe", 0))
        }),
    ]
}

fn sparse() -> Vec<Case> {
    vec![
        case("a GNU sparse file", "holes", "sparse file", |tar| {
            let header = Header::new(b'S', "holes", 512).gnu();
            tar.header(header).data([1; 512])
        }),
        // Go, CVE-2025-58183: the sender chooses the length of the map of regions.
        case(
            "a sparse file of format 1.0",
            "./PaxHeaders/entry",
            "pax key 'GNU.sparse.major' is not allowed",
            |tar| {
                tar.pax(&[("GNU.sparse.major", b"1")])
                    .file("holes", "1\n0\n512\n")
            },
        ),
        case(
            "a sparse file of format 0.1",
            "./PaxHeaders/entry",
            "pax key 'GNU.sparse.map' is not allowed",
            |tar| {
                tar.pax(&[("GNU.sparse.map", b"0,5")])
                    .file("holes", "hello")
            },
        ),
        case(
            "a sparse file of format 0.0",
            "./PaxHeaders/entry",
            "pax key 'GNU.sparse.size' is not allowed",
            |tar| {
                tar.pax(&[("GNU.sparse.size", b"1000")])
                    .file("holes", "hello")
            },
        ),
        case(
            "a name in the sparse keys",
            "./PaxHeaders/entry",
            "pax key 'GNU.sparse.name' is not allowed",
            |tar| tar.pax(&[("GNU.sparse.name", b"../x")]).file("holes", ""),
        ),
        case(
            "a sparse map of Solaris",
            "./PaxHeaders/entry",
            "pax key 'SUN.holesdata' is not allowed",
            |tar| {
                tar.pax(&[("SUN.holesdata", b" 0 5")])
                    .file("holes", "hello")
            },
        ),
        case(
            "a part of a file",
            "./PaxHeaders/entry",
            "pax key 'GNU.volume.offset' is not allowed",
            |tar| {
                tar.pax(&[("GNU.volume.offset", b"99")])
                    .file("holes", "hello")
            },
        ),
        case(
            "a size in a star key",
            "./PaxHeaders/entry",
            "pax key 'SCHILY.realsize' is not allowed",
            |tar| {
                tar.pax(&[("SCHILY.realsize", b"99")])
                    .file("holes", "hello")
            },
        ),
    ]
}

fn unknown() -> Vec<Case> {
    vec![
        case("a contiguous file", "c", "unknown entry type '7'", |tar| {
            tar.header(Header::new(b'7', "c", 0))
        }),
        case(
            "a GNU directory dump",
            "c/",
            "unknown entry type 'D'",
            |tar| tar.header(Header::new(b'D', "c/", 0).gnu()),
        ),
        case("a GNU volume label", "c", "volume label", |tar| {
            tar.header(Header::new(b'V', "c", 0).gnu())
        }),
        // As GNU tar writes it.
        case(
            "a volume label without a magic",
            "c",
            "volume label",
            |tar| tar.header(Header::new(b'V', "c", 0).put(MAGIC, "")),
        ),
        case("a later volume", "c", "unknown entry type 'M'", |tar| {
            tar.header(Header::new(b'M', "c", 0).gnu())
        }),
        // GNU tar, CVE-2006-6097: this type made symlinks without any check.
        case("old GNU renames", "c", "unknown entry type 'N'", |tar| {
            let script = "Symlink ../../../../../beside/file to c\n";
            tar.header(Header::new(b'N', "c", script.len() as u64).gnu())
                .data(script)
        }),
        case("a Solaris header", "c", "unknown entry type 'X'", |tar| {
            tar.header(Header::new(b'X', "c", 0))
        }),
        case("a Solaris list", "c", "unknown entry type 'A'", |tar| {
            tar.header(Header::new(b'A', "c", 0))
        }),
        case("an inode only", "c", "unknown entry type 'I'", |tar| {
            tar.header(Header::new(b'I', "c", 0))
        }),
        case("an unknown type", "c", "unknown entry type 'z'", |tar| {
            tar.header(Header::new(b'z', "c", 0))
        }),
    ]
}
