//! Archives that conflict with the shared paths of the site: entries at or below a
//! shared path, entries above one, and symlinks through one.

use super::{Case, Table, case};
use crate::archive::{Header, LINK};
use crate::site::{Site, write_file};

const REFUSE: &str = r#"
[limits]
receives_per_hour = 100000

[shared]
links = [".env", "public/uploads", "a/b/c"]
"#;

/// With limits, which entries that are not unpacked count against.
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

const AT: &str = "at a shared path";
const ABOVE: &str = "above a shared path, but not a directory";
const LEAVES: &str = "symlink leads outside of the release";

/// Creates what `shared/` must contain. Sites without `[shared]` ignore it.
pub fn prepare(site: &Site) {
    let shared = site.root().join("shared");
    write_file(&shared.join(".env"), 0o600, b"SECRET=1\n");
    for directory in ["public/uploads", "a/b/c"] {
        std::fs::create_dir_all(shared.join(directory)).expect("a directory");
    }
    write_file(
        &shared.join("public/uploads/photo"),
        0o644,
        b"of the application",
    );
}

pub fn tables() -> Vec<Table> {
    let mut refuse = at_shared_paths();
    refuse.extend(through());
    refuse.extend(above());
    vec![
        Table {
            config: REFUSE,
            cases: refuse,
        },
        Table {
            config: REPLACE,
            cases: replaced(),
        },
    ]
}

fn at_shared_paths() -> Vec<Case> {
    vec![
        case("a file at a shared path", ".env", AT, |tar| {
            tar.file(".env", "SECRET=mine")
        }),
        case("the same, in another spelling", ".//./.env", AT, |tar| {
            tar.file(".//./.env", "SECRET=mine")
        }),
        case(
            "a directory at a shared path",
            "public/uploads/",
            AT,
            |tar| tar.directory("public/").directory("public/uploads/"),
        ),
        case("a symlink at a shared path", ".env", AT, |tar| {
            tar.symlink(".env", "index.html")
        }),
        case("the symlink that will be created", ".env", AT, |tar| {
            tar.symlink(".env", "../../shared/.env")
        }),
        case(
            "a file below a shared path",
            "public/uploads/x/y",
            AT,
            |tar| tar.file("public/uploads/x/y", ""),
        ),
        case("a symlink below a shared path", "a/b/c/d", AT, |tar| {
            tar.symlink("a/b/c/d", "../../../index.html")
        }),
        case("a pax name at a shared path", ".env", AT, |tar| {
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
        case("a symlink above a shared path", "public", ABOVE, |tar| {
            tar.directory("web/").symlink("public", "web")
        }),
        case("a symlink far above a shared path", "a", ABOVE, |tar| {
            tar.symlink("a", ".")
        }),
        case("a symlink halfway to a shared path", "a/b", ABOVE, |tar| {
            tar.symlink("a/b", "..")
        }),
        case(
            "a symlink where a directory above is",
            "public",
            ABOVE,
            |tar| tar.file("public/index.php", "").symlink("public", "web"),
        ),
    ]
}

fn through() -> Vec<Case> {
    vec![
        case("a symlink to a shared file", "l", LEAVES, |tar| {
            tar.symlink("l", ".env")
        }),
        case("a symlink through a shared directory", "l", LEAVES, |tar| {
            tar.symlink("l", "public/uploads/photo")
        }),
        case("up from a shared directory", "l", LEAVES, |tar| {
            tar.symlink("l", "public/uploads/../../.deploy-shell/journal.jsonl")
        }),
        case("out and in by a shared directory", "l", LEAVES, |tar| {
            tar.symlink("l", "a/b/c/../../../../releases/live/index.html")
        }),
        case(
            "the target of a shared symlink elsewhere",
            "l",
            LEAVES,
            |tar| tar.symlink("l", "../../shared/.env"),
        ),
        case("a symlink to shared itself", "l", LEAVES, |tar| {
            tar.symlink("l", "../../shared")
        }),
        case("through a symlink to a shared path", "l", LEAVES, |tar| {
            tar.directory("d/")
                .symlink("m", "public")
                .symlink("l", "m/uploads")
        }),
        case("a symlink to what is not shared yet", "l", LEAVES, |tar| {
            tar.symlink("l", "public/uploads/missing")
        }),
    ]
}

fn replaced() -> Vec<Case> {
    const ENTRIES: &str = "more than 20 entries";
    vec![
        case("a symlink above what is replaced", "public", ABOVE, |tar| {
            tar.symlink("public", "web")
        }),
        case("a file above what is replaced", "a/b", ABOVE, |tar| {
            tar.file("a/b", "")
        }),
        case("a symlink to what is replaced", "l", LEAVES, |tar| {
            tar.file(".env", "").symlink("l", ".env")
        }),
        case("twice what is replaced", ".env", "duplicate name", |tar| {
            tar.file(".env", "").file(".env", "")
        }),
        case(
            "below a file that is replaced",
            ".env/x",
            "below an entry that is not a directory",
            |tar| tar.file(".env", "").file(".env/x", ""),
        ),
        case(
            "an absolute symlink in the place of a shared one",
            ".env",
            "symlink target is absolute",
            |tar| tar.symlink(".env", "/etc/passwd"),
        ),
        case(
            "a hard link to a file at a shared path",
            "copy",
            "hard link to '.env', which is at a shared path",
            |tar| {
                let link = Header::new(b'1', "copy", 0).put(LINK, ".env");
                tar.file(".env", "SECRET=mine").header(link)
            },
        ),
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
            "no room for the shared symlinks",
            "public/uploads",
            ENTRIES,
            |tar| (0..17).fold(tar, |tar, number| tar.file(format!("f{number}"), "")),
        ),
    ]
}

#[test]
fn archives_that_conflict_with_shared_paths_are_refused() {
    for table in tables() {
        table.replay();
    }
}
