//! Archives that meddle with what the site shares: things at or beneath a
//! shared path, things in the way of one, and links that go through one.

use super::{Case, Table, case};
use crate::archive::{Header, LINK};
use crate::site::{Site, write_file};

const REFUSE: &str = r#"
[limits]
receives_per_hour = 100000

[shared]
links = [".env", "public/uploads", "a/b/c"]
"#;

/// With limits that what is left out counts against.
const REPLACE: &str = r#"
[limits]
receives_per_hour = 100000

[archive]
max_unpacked = "100KiB"
max_file = "64KiB"
max_entries = 20

[shared]
links = [".env", "public/uploads", "a/b/c"]
existing = "replace"
"#;

const AT: &str = r#"at a shared path (leave it out, or set existing = "replace" in [shared])"#;
const ABOVE: &str = "above a shared path, but not a directory";
const LEAVES: &str = "symlink leads outside of the release";

/// What has to stand in `shared/`; sites without `[shared]` do not mind.
pub fn prepare(site: &Site) {
    let shared = site.root().join("shared");
    write_file(&shared.join(".env"), 0o600, b"SECRET=1\n");
    for folder in ["public/uploads", "a/b/c"] {
        std::fs::create_dir_all(shared.join(folder)).expect("a folder");
    }
    write_file(&shared.join("public/uploads/photo"), 0o644, b"theirs");
}

pub fn tables() -> Vec<Table> {
    let mut refuse = held();
    refuse.extend(through());
    refuse.extend(above());
    vec![
        Table {
            config: REFUSE,
            cases: refuse,
        },
        Table {
            config: REPLACE,
            cases: left_out(),
        },
    ]
}

fn held() -> Vec<Case> {
    vec![
        case("a file at a shared path", ".env", AT, |tar| {
            tar.file(".env", "SECRET=mine")
        }),
        case("the same, spelled otherwise", ".//./.env", AT, |tar| {
            tar.file(".//./.env", "SECRET=mine")
        }),
        case("a folder at a shared path", "public/uploads/", AT, |tar| {
            tar.folder("public/").folder("public/uploads/")
        }),
        case("a link at a shared path", ".env", AT, |tar| {
            tar.link(".env", "index.html")
        }),
        case("the very link that will be made", ".env", AT, |tar| {
            tar.link(".env", "../../shared/.env")
        }),
        case(
            "a file beneath a shared path",
            "public/uploads/x/y",
            AT,
            |tar| tar.file("public/uploads/x/y", ""),
        ),
        case("a link beneath a shared path", "a/b/c/d", AT, |tar| {
            tar.link("a/b/c/d", "../../../index.html")
        }),
        case("a PAX name at a shared path", ".env", AT, |tar| {
            tar.pax(&[("path", b".env")]).file("harmless", "x")
        }),
        case("a GNU name at a shared path", ".env", AT, |tar| {
            tar.long_name(".env").file("harmless", "x")
        }),
    ]
}

fn above() -> Vec<Case> {
    vec![
        case("a file above a shared path", "public", ABOVE, |tar| {
            tar.file("public", "")
        }),
        case("a link above a shared path", "public", ABOVE, |tar| {
            tar.folder("web/").link("public", "web")
        }),
        case("a link far above a shared path", "a", ABOVE, |tar| {
            tar.link("a", ".")
        }),
        case("a link half way to a shared path", "a/b", ABOVE, |tar| {
            tar.link("a/b", "..")
        }),
        case("a link where a folder above is", "public", ABOVE, |tar| {
            tar.file("public/index.php", "").link("public", "web")
        }),
    ]
}

fn through() -> Vec<Case> {
    vec![
        case("a link to a shared file", "l", LEAVES, |tar| {
            tar.link("l", ".env")
        }),
        case("a link through a shared folder", "l", LEAVES, |tar| {
            tar.link("l", "public/uploads/photo")
        }),
        case("up from a shared folder", "l", LEAVES, |tar| {
            tar.link("l", "public/uploads/../../.deploy-shell/journal.jsonl")
        }),
        case("out and in by a shared folder", "l", LEAVES, |tar| {
            tar.link("l", "a/b/c/../../../../releases/live/index.html")
        }),
        case("a shared link's text elsewhere", "l", LEAVES, |tar| {
            tar.link("l", "../../shared/.env")
        }),
        case("a link to shared itself", "l", LEAVES, |tar| {
            tar.link("l", "../../shared")
        }),
        case("through a link to a shared path", "l", LEAVES, |tar| {
            tar.folder("d/").link("m", "public").link("l", "m/uploads")
        }),
        case("a link to what is not shared yet", "l", LEAVES, |tar| {
            tar.link("l", "public/uploads/missing")
        }),
    ]
}

fn left_out() -> Vec<Case> {
    const ENTRIES: &str = "more than 20 entries";
    vec![
        case("a link above what is replaced", "public", ABOVE, |tar| {
            tar.link("public", "web")
        }),
        case("a file above what is replaced", "a/b", ABOVE, |tar| {
            tar.file("a/b", "")
        }),
        case("a link to what is replaced", "l", LEAVES, |tar| {
            tar.file(".env", "").link("l", ".env")
        }),
        case("twice what is replaced", ".env", "duplicate name", |tar| {
            tar.file(".env", "").file(".env", "")
        }),
        case(
            "beneath a file that is replaced",
            ".env/x",
            "below an entry that is not a directory",
            |tar| tar.file(".env", "").file(".env/x", ""),
        ),
        case(
            "an absolute link in the place of a shared one",
            ".env",
            "symlink target is absolute",
            |tar| tar.link(".env", "/etc/passwd"),
        ),
        case("a hard link at a shared path", ".env", HARD, |tar| {
            tar.header(Header::new(b'1', ".env", 0).put(LINK, "index.html"))
        }),
        case(
            "too long a file at a shared path",
            "public/uploads/big",
            "file over 65536 bytes",
            |tar| tar.file("public/uploads/big", vec![0; (64 << 10) + 1]),
        ),
        case(
            "too much at shared paths",
            "public/uploads/two",
            "unpacked size over 102400 bytes",
            |tar| {
                tar.file("public/uploads/one", vec![0; 60 << 10])
                    .file("public/uploads/two", vec![0; 60 << 10])
            },
        ),
        case(
            "too many at shared paths",
            "public/uploads/17",
            ENTRIES,
            |tar| {
                (0..18).fold(tar, |tar, number| {
                    tar.file(format!("public/uploads/{number}"), "")
                })
            },
        ),
        case(
            "no room for the shared links",
            "public/uploads",
            ENTRIES,
            |tar| (0..17).fold(tar, |tar, number| tar.file(format!("f{number}"), "")),
        ),
    ]
}

const HARD: &str = "hard link (make the archive with --hard-dereference)";

#[test]
fn archives_that_meddle_with_what_is_shared() {
    for table in tables() {
        table.replay();
    }
}
