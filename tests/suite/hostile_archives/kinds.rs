//! Entries that are not a file, a directory or a symlink.

use super::{Case, case};
use crate::archive::{DEVICE_MAJOR, Header, LINK, Tar};

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

fn hard_links() -> Vec<Case> {
    const RULE: &str = "hard link (make the archive with --hard-dereference)";
    vec![
        case("a hard link to a file inside", "b", RULE, |tar| {
            hard(tar, "b", "index.html")
        }),
        case("a hard link to a file outside", "b", RULE, |tar| {
            hard(tar, "b", "../../../../../beside/file")
        }),
        case("a hard link by absolute path", "b", RULE, |tar| {
            hard(tar, "b", "/etc/passwd")
        }),
        // node-tar, CVE-2018-20834: the second entry wrote through the first.
        case("a hard link and a file of its name", "b", RULE, |tar| {
            hard(tar, "b", "../../../../../beside/file").file("b", "taken")
        }),
        // node-tar, CVE-2026-24842: the target was checked relative to the entry's
        // directory and used relative to the root.
        case("a hard link deep down", "a/b/c/d/x", RULE, |tar| {
            hard(tar, "a/b/c/d/x", "../../../../../beside/file")
        }),
        // tar-fs, CVE-2025-48387: the target went through a symlink.
        case("a hard link through a symlink", "b", RULE, |tar| {
            hard(
                tar.directory("d/").symlink("d/up", ".."),
                "b",
                "d/up/index.html",
            )
        }),
        case("a hard link to itself", "b", RULE, |tar| {
            hard(tar, "b", "b")
        }),
        case("a hard link with data", "b", RULE, |tar| {
            let header = Header::new(b'1', "b", 5).put(LINK, "index.html");
            tar.header(header).data("hello")
        }),
    ]
}

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
        case(
            "a GNU sparse file",
            "holes",
            "sparse file (make the archive without --sparse)",
            |tar| {
                let header = Header::new(b'S', "holes", 512).gnu();
                tar.header(header).data([1; 512])
            },
        ),
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
        case("a GNU volume label", "c", "unknown entry type 'V'", |tar| {
            tar.header(Header::new(b'V', "c", 0).gnu())
        }),
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
