//! Archives that are valid but too large: for the limits of the site, and for the
//! limits of every site.

use super::{Case, DEFAULTS, Table, case, payload, stream};
use crate::archive::{Frame, Header, LINK, Tar, pax_record};

/// A small value for each limit.
pub const SMALL: &str = r#"
[limits]
receives_per_hour = 100000

[archive]
max_unpacked = "1MiB"
max_file = "64KiB"
max_entries = 20
"#;

const NO_SYMLINKS: &str = r#"
[archive]
symlinks = "deny"
"#;

pub fn tables() -> Vec<Table> {
    let small = Table {
        config: SMALL,
        cases: small(),
    };
    let no_symlinks = Table {
        config: NO_SYMLINKS,
        cases: no_symlinks(),
    };
    let defaults = Table {
        config: DEFAULTS,
        cases: defaults(),
    };
    vec![small, no_symlinks, defaults]
}

/// Appends `count` empty files with the names `f0`, `f1` and so on.
fn files(tar: Tar, count: usize) -> Tar {
    (0..count).fold(tar, |tar, number| tar.file(format!("f{number}"), ""))
}

const X: &str = "./PaxHeaders/entry";

fn small() -> Vec<Case> {
    const ENTRIES: &str = "more than 20 entries";
    const REPEATED: &str = "more than 1040 entries, repeated ones included";
    const UNPACKED: &str = "unpacked size over 1048576 bytes";
    const FILE: &str = "file over 65536 bytes";
    const PADDING: &str = "more than 16777216 zeros after the end of the archive";
    const EXTENDED: &str = "extended headers over 1130496 bytes together";
    vec![
        case("one file too many", "f19", ENTRIES, |tar| files(tar, 20)),
        case("one directory too many", "d/", ENTRIES, |tar| {
            files(tar, 19).directory("d/")
        }),
        case("one symlink too many", "l", ENTRIES, |tar| {
            files(tar, 19).symlink("l", "index.html")
        }),
        case("a file one byte too long", "big", FILE, |tar| {
            tar.file("big", vec![0; (64 << 10) + 1])
        }),
        case(
            "seventeen files of the maximum size",
            "m15",
            UNPACKED,
            |tar| {
                (0..17).fold(tar, |tar, number| {
                    tar.file(format!("m{number}"), vec![0; 64 << 10])
                })
            },
        ),
        // They add nothing to the tree.
        case(
            "a directory that occurs 1,040 times",
            "d/",
            REPEATED,
            |tar| (0..1040).fold(tar, |tar, _| tar.directory("d/")),
        ),
        case("1,040 links to itself", "index.html", REPEATED, |tar| {
            (0..1040).fold(tar, |tar, _| {
                tar.header(Header::new(b'1', "index.html", 0).put(LINK, "index.html"))
            })
        }),
        // Each hard link becomes a file, and counts as one.
        case("seventeen hard links to a file", "l14", UNPACKED, |tar| {
            (0..17).fold(tar.file("m", vec![0; 64 << 10]), |tar, number| {
                let header = Header::new(b'1', format!("l{number}"), 0);
                tar.header(header.put(LINK, "m"))
            })
        }),
        case("one hard link too many", "l19", ENTRIES, |tar| {
            (0..20).fold(tar, |tar, number| {
                let header = Header::new(b'1', format!("l{number}"), 0);
                tar.header(header.put(LINK, "index.html"))
            })
        }),
        // A few kilobytes that become a gigabyte.
        payload("a bomb of small frames", PADDING, || {
            let frame = Frame::window(20, 0).zeros(64 << 10).end();
            [
                crate::archive::zstd(&super::valid_file().end()),
                frame.repeat(1 << 14),
            ]
            .concat()
        }),
        payload("a bomb of one file", "file over 65536 bytes", || {
            let header = Tar::new().header(Header::file("bomb", 1 << 30)).cut();
            Frame::window(20, 0)
                .raw(&header)
                .zeros((1 << 30) + 1024)
                .end()
        })
        .at("bomb"),
        payload("a bomb of zeros after the end", PADDING, || {
            Frame::window(20, 0)
                .raw(&super::valid_file().cut())
                .zeros(1 << 30)
                .end()
        }),
        payload("a bomb of zeros from the start", PADDING, || {
            Frame::window(20, 0).zeros(1 << 30).end()
        }),
        // Headers that add nothing to the tree.
        case("1,105 global headers", X, EXTENDED, |tar| {
            (0..1105).fold(tar, |tar, _| tar.global(&[("comment", b"c")]))
        }),
        case("130 long headers of one directory", X, EXTENDED, |tar| {
            let long = pax_record("comment", &[b'c'; 8 << 10][..8178]);
            (0..130).fold(tar, |tar, _| tar.extended(b'x', &long).directory("d"))
        }),
    ]
}

fn no_symlinks() -> Vec<Case> {
    vec![case(
        "a symlink where symlinks are denied",
        "l",
        "symlinks are denied",
        |tar| tar.symlink("l", "index.html"),
    )]
}

fn defaults() -> Vec<Case> {
    vec![
        stream("100,001 entries", "more than 100000 entries", || {
            files(super::valid_file(), 100_000).end()
        })
        .at("f99999"),
    ]
}
