//! Archives that are sound but too much: for the site's own limits, and for
//! those every site has.

use super::{Case, DEFAULTS, Table, case, payload, stream};
use crate::archive::{Frame, Header, Tar};

/// Small limits, one for each kind.
pub const SMALL: &str = r#"
[limits]
receives_per_hour = 100000

[archive]
max_unpacked = "1MiB"
max_file = "64KiB"
max_entries = 20
"#;

const NO_LINKS: &str = r#"
[archive]
symlinks = "deny"
"#;

pub fn tables() -> Vec<Table> {
    let small = Table {
        config: SMALL,
        cases: small(),
    };
    let no_links = Table {
        config: NO_LINKS,
        cases: no_links(),
    };
    let defaults = Table {
        config: DEFAULTS,
        cases: defaults(),
    };
    vec![small, no_links, defaults]
}

/// `count` empty files with the names `f0`, `f1` and so on.
fn files(tar: Tar, count: usize) -> Tar {
    (0..count).fold(tar, |tar, number| tar.file(format!("f{number}"), ""))
}

fn small() -> Vec<Case> {
    const ENTRIES: &str = "more than 20 entries";
    const UNPACKED: &str = "unpacked size over 1048576 bytes";
    const FILE: &str = "file over 65536 bytes";
    vec![
        case("one file too many", "f19", ENTRIES, |tar| files(tar, 20)),
        case("one folder too many", "d/", ENTRIES, |tar| {
            files(tar, 19).folder("d/")
        }),
        case("one link too many", "l", ENTRIES, |tar| {
            files(tar, 19).link("l", "index.html")
        }),
        case("a file one byte too long", "big", FILE, |tar| {
            tar.file("big", vec![0; (64 << 10) + 1])
        }),
        case(
            "seventeen files of the longest kind",
            "m15",
            UNPACKED,
            |tar| {
                (0..17).fold(tar, |tar, number| {
                    tar.file(format!("m{number}"), vec![0; 64 << 10])
                })
            },
        ),
        // A few kilobytes that stand for a gigabyte.
        payload("a bomb of one file", "file over 65536 bytes", || {
            let header = Tar::new().header(Header::file("bomb", 1 << 30)).cut();
            Frame::window(20, 0)
                .raw(&header)
                .zeros((1 << 30) + 1024)
                .end()
        })
        .at("bomb"),
        payload("a bomb of zeros after the end", UNPACKED, || {
            Frame::window(20, 0)
                .raw(&super::sound().cut())
                .zeros(1 << 30)
                .end()
        }),
        payload("a bomb of zeros from the start", UNPACKED, || {
            Frame::window(20, 0).zeros(1 << 30).end()
        }),
    ]
}

fn no_links() -> Vec<Case> {
    vec![case(
        "a link where links are denied",
        "l",
        "symlinks are denied",
        |tar| tar.link("l", "index.html"),
    )]
}

fn defaults() -> Vec<Case> {
    vec![
        stream("100,001 entries", "more than 100000 entries", || {
            files(super::sound(), 100_000).end()
        })
        .at("f99999"),
    ]
}
