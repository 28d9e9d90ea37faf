//! The names of entries: relative, without `..`, UTF-8 without control characters, and
//! short enough.

use super::{Case, case};
use crate::archive::{Header, LINK, NAME, PREFIX, Tar};

const EMPTY: &str = "name is empty";
const ABSOLUTE: &str = "name is absolute";
const DOTS: &str = "name has '..'";
const UTF8: &str = "name is not utf-8";
const CONTROL: &str = "name has a control character";
const COMPONENT: &str = "name component over 255 bytes";
const PATH: &str = "path over 1024 bytes";
const DEEP: &str = "path deeper than 32";
const AFTER_NUL: &str = "name has bytes after its NUL";
const PREFIX_AFTER_NUL: &str = "prefix has bytes after its NUL";
const SLASH: &str = "file name ends in '/'";

pub fn cases() -> Vec<Case> {
    let mut cases = places();
    cases.extend(bytes());
    cases.extend(lengths());
    cases.extend(fields());
    cases
}

const WINDOWS: &str = "name begins with a drive letter or a backslash, which bsdtar removes";

fn pax_file(tar: Tar, name: &str) -> Tar {
    tar.pax(&[("path", name.as_bytes())]).file("a", "")
}

fn places() -> Vec<Case> {
    vec![
        case("a file with a drive letter", "C:\\\\x", WINDOWS, |tar| {
            tar.file("C:\\x", "")
        }),
        case("a directory with a drive letter", "c:/", WINDOWS, |tar| {
            tar.directory("c:/")
        }),
        case("a backslash in front", "\\\\x", WINDOWS, |tar| {
            tar.file("\\x", "")
        }),
        case(
            "a hard link to a name with a drive letter",
            "h",
            "hard link to 'c:x', which no entry can have",
            |tar| {
                let link = Header::new(b'1', "h", 0).put(LINK, "c:x");
                tar.file("./c:x", "").header(link)
            },
        ),
        case("a file above the release", "../x", DOTS, |tar| {
            tar.file("../x", "")
        }),
        case(
            "a file beside the site",
            "../../../../../beside/file",
            DOTS,
            |tar| tar.file("../../../../../beside/file", "taken"),
        ),
        case("a way down and up again", "a/../../x", DOTS, |tar| {
            tar.file("a/../../x", "")
        }),
        case("a way up that stays inside", "a/../x", DOTS, |tar| {
            tar.file("a/../x", "")
        }),
        case("a name that ends above", "a/..", DOTS, |tar| {
            tar.directory("a/..")
        }),
        case("the directory above", "../", DOTS, |tar| {
            tar.directory("../")
        }),
        case("a way up after a dot", "./../x", DOTS, |tar| {
            tar.file("./../x", "")
        }),
        case("an absolute name", "/etc/cron.d/x", ABSOLUTE, |tar| {
            tar.file("/etc/cron.d/x", "")
        }),
        case("a file called slash", "/", ABSOLUTE, |tar| {
            tar.file("/", "")
        }),
        case(
            "a directory below the root of the system",
            "/d/",
            ABSOLUTE,
            |tar| tar.directory("/d/"),
        ),
        case("a directory of two slashes", "//", ABSOLUTE, |tar| {
            tar.directory("//")
        }),
        case("two slashes in front", "//x", ABSOLUTE, |tar| {
            tar.file("//x", "")
        }),
        case("a pax name that climbs", "b/../../x", DOTS, |tar| {
            pax_file(tar, "b/../../x")
        }),
        case("a pax name from the root", "/x", ABSOLUTE, |tar| {
            pax_file(tar, "/x")
        }),
        case(
            "a pax name that climbs, for a directory",
            "../x/",
            DOTS,
            |tar| tar.pax(&[("path", b"../x/")]).directory("a/"),
        ),
        case("a symlink above the release", "../x", DOTS, |tar| {
            tar.symlink("../x", "index.html")
        }),
    ]
}

fn bytes() -> Vec<Case> {
    vec![
        case("Latin-1", "caf\\xe9", UTF8, |tar| tar.file(b"caf\xe9", "")),
        // Old decoders turned these into '..' after the check.
        case(
            "an overlong dot-dot",
            "\\xc0\\xae\\xc0\\xae/x",
            UTF8,
            |tar| tar.file(b"\xc0\xae\xc0\xae/x", ""),
        ),
        case("an overlong slash", "..\\xc0\\xafx", UTF8, |tar| {
            tar.file(b"..\xc0\xafx", "")
        }),
        case("half a surrogate pair", "\\xed\\xa0\\x80", UTF8, |tar| {
            tar.file(b"\xed\xa0\x80", "")
        }),
        case("a character cut short", "a\\xe2\\x82", UTF8, |tar| {
            tar.file(b"a\xe2\x82", "")
        }),
        case("a pax name that is not UTF-8", "\\xff", UTF8, |tar| {
            tar.pax(&[("path", b"\xff")]).file("a", "")
        }),
        case("a newline", "a\\x0ab", CONTROL, |tar| tar.file("a\nb", "")),
        case(
            "a newline in a pax name",
            "a\\x0a12 path=x",
            CONTROL,
            |tar| pax_file(tar, "a\n12 path=x"),
        ),
        case("a terminal escape", "\\x1b[2Ja", CONTROL, |tar| {
            tar.file("\x1b[2Ja", "")
        }),
        case("a tab", "a\\x09b", CONTROL, |tar| tar.file("a\tb", "")),
        case("delete", "a\\x7f", CONTROL, |tar| tar.file("a\x7f", "")),
        case("a C1 next line", "a\\xc2\\x85b", CONTROL, |tar| {
            tar.file("a\u{85}b", "")
        }),
        case("a C1 sequence introducer", "\\xc2\\x9b2J", CONTROL, |tar| {
            tar.file("\u{9b}2J", "")
        }),
        case(
            "a directory with a control character",
            "a\\x01/",
            CONTROL,
            |tar| tar.directory("a\x01/"),
        ),
    ]
}

/// Returns a path of `depth` components of one letter.
fn deep(depth: usize) -> String {
    vec!["d"; depth].join("/")
}

/// Returns a path of `depth` components of `length` bytes each.
fn wide(depth: usize, length: usize) -> String {
    vec!["p".repeat(length); depth].join("/")
}

fn lengths() -> Vec<Case> {
    vec![
        case("a component of 256 bytes", wide(1, 256), COMPONENT, |tar| {
            pax_file(tar, &wide(1, 256))
        }),
        case("a directory of 256 bytes", wide(2, 256), COMPONENT, |tar| {
            pax_file(tar, &wide(2, 256))
        }),
        case("a path of 1,025 bytes", wide(5, 204) + "p", PATH, |tar| {
            let name = wide(5, 204) + "p";
            assert_eq!(name.len(), 1025);
            pax_file(tar, &name)
        }),
        case("a path of 8,000 bytes", wide(32, 249), PATH, |tar| {
            pax_file(tar, &wide(32, 249))
        }),
        case("a file 33 deep", deep(33), DEEP, |tar| {
            pax_file(tar, &deep(33))
        }),
        case("a directory 33 deep", deep(33) + "/", DEEP, |tar| {
            tar.directory(deep(33) + "/")
        }),
        case("a file 500 deep", deep(500), DEEP, |tar| {
            pax_file(tar, &deep(500))
        }),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        case("no name at all", "", EMPTY, |tar| tar.file("", "")),
        case("an empty pax name", "", EMPTY, |tar| pax_file(tar, "")),
        case("a prefix without a name", "a/", SLASH, |tar| {
            tar.header(Header::file("", 0).put(PREFIX, "a"))
        }),
        case("a file called dot", ".", EMPTY, |tar| tar.file(".", "")),
        case("a symlink called dot", "./", EMPTY, |tar| {
            tar.symlink("./", "index.html")
        }),
        case("a name with two ends", "a", AFTER_NUL, |tar| {
            tar.header(Header::file("a", 0).put(NAME, "a\0../x"))
        }),
        case("a prefix with two ends", "b/a", PREFIX_AFTER_NUL, |tar| {
            tar.header(Header::file("a", 0).put(PREFIX, "b\0.."))
        }),
        // node-tar keeps times at the end of this field. Nothing else may be there.
        case(
            "times that are no numbers after a prefix",
            "b/a",
            PREFIX_AFTER_NUL,
            |tar| {
                let prefix = [b"b".as_slice(), &[0; 130], b"15302453116\0../../../x"].concat();
                tar.header(Header::file("a", 0).put(PREFIX, prefix))
            },
        ),
        case(
            "text between a prefix and times",
            "b/a",
            PREFIX_AFTER_NUL,
            |tar| {
                let times = "15302453116\0".repeat(2);
                let prefix = [b"b\0/x".as_slice(), &[0; 127], times.as_bytes()].concat();
                tar.header(Header::file("a", 0).put(PREFIX, prefix))
            },
        ),
        case("a prefix that climbs", "../a", DOTS, |tar| {
            tar.header(Header::file("a", 0).put(PREFIX, ".."))
        }),
        case("a prefix from the root", "/etc/a", ABSOLUTE, |tar| {
            tar.header(Header::file("a", 0).put(PREFIX, "/etc"))
        }),
        // Python, CVE-2025-13462: a slash turned a file into a directory for some readers.
        case("a file that ends in a slash", "a/", SLASH, |tar| {
            tar.file("a/", "")
        }),
        case(
            "a file with data that ends in a slash",
            "a/",
            SLASH,
            |tar| tar.file("a/", "data"),
        ),
        case(
            "an old-style file that ends in a slash",
            "a/",
            SLASH,
            |tar| tar.header(Header::new(0, "a/", 0)),
        ),
        case("a pax file that ends in a slash", "a/", SLASH, |tar| {
            pax_file(tar, "a/")
        }),
        case("a symlink that ends in a slash", "a/", SLASH, |tar| {
            tar.symlink("a/", "index.html")
        }),
    ]
}
