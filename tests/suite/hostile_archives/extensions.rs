//! Headers that describe the next entry: pax `x` and `g`, GNU `L` and `K`. Two parsers
//! that disagree about one of them see two different archives.

use super::{Case, case, stream};
use crate::archive::{Header, MODE, SIZE, Tar, pax_record, zstd};
use crate::site::Site;

const OVER: &str = "extended header over 8 KiB";
const RECORD: &str = "pax record is malformed";
const REPEATED: &str = "pax key is repeated";
const SIZES: &str = "pax size differs from the header";
const TWICE: &str = "two pax headers for one entry";
const NAMES: &str = "two long names for one entry";
const ALONE: &str = "extended header without an entry";
const NOT_A_LINK: &str = "long link target on an entry that is not a link";
const AFTER_END: &str = "extended header has bytes after its end";
const CONTROL: &str = "name has a control character";
const GLOBAL: &str = "global pax header with more than comments and vendor keys";

pub fn pax() -> Vec<Case> {
    let mut cases = records();
    cases.extend(keys());
    cases.extend(smuggling());
    cases.extend(global());
    cases
}

/// The names of the extended headers themselves: when one of them is refused, the
/// entry after it is not known yet.
const X: &str = "./PaxHeaders/entry";
const L: &str = "././@LongLink";

/// Appends a pax header with this body, and a valid file.
fn body(tar: Tar, body: impl AsRef<[u8]>) -> Tar {
    tar.extended(b'x', body).file("a", "")
}

const TIME: &str = "mtime is not a time in 64 bits";

fn records() -> Vec<Case> {
    vec![
        case("a record one byte too long", X, RECORD, |tar| {
            body(tar, "13 path=abc\n11 mtime=1\n")
        }),
        case("a record one byte too short", X, RECORD, |tar| {
            body(tar, "11 path=abc\n")
        }),
        case("a record longer than its header", X, RECORD, |tar| {
            body(tar, "999 path=abc\n")
        }),
        case("a record length of zero", X, RECORD, |tar| {
            body(tar, "0 path=abc\n")
        }),
        case("a record shorter than its length", X, RECORD, |tar| {
            body(tar, "3 path=abc\n")
        }),
        case("a record length with a zero in front", X, RECORD, |tar| {
            body(tar, "013 path=abc\n")
        }),
        case("a record length with a plus", X, RECORD, |tar| {
            body(tar, "+13 path=abc\n")
        }),
        case("a negative record length", X, RECORD, |tar| {
            body(tar, "-12 path=abc\n")
        }),
        case("a space before a record length", X, RECORD, |tar| {
            body(tar, " 13 path=abc\n")
        }),
        case("a tab after a record length", X, RECORD, |tar| {
            body(tar, "12\tpath=abc\n")
        }),
        case("a hexadecimal record length", X, RECORD, |tar| {
            body(tar, "0xd path=abc\n")
        }),
        case("a record length beyond 64 bits", X, RECORD, |tar| {
            body(tar, "18446744073709551646 path=abc\n")
        }),
        case("a record length of 8,000 digits", X, RECORD, |tar| {
            body(tar, "1".repeat(8000) + " path=abc\n")
        }),
        case("a record without a length", X, RECORD, |tar| {
            body(tar, "path=abc\n")
        }),
        case("a record without a newline", X, RECORD, |tar| {
            body(tar, "11 path=abc")
        }),
        case("a record without an equals sign", X, RECORD, |tar| {
            body(tar, "11 pathabc\n")
        }),
        case("a record without a key", X, RECORD, |tar| {
            body(tar, "8 =abcd\n")
        }),
        case("a NUL in a name record", "abc\\x00def", CONTROL, |tar| {
            body(tar, pax_record("path", b"abc\0def"))
        }),
        case("NULs after the last record", X, RECORD, |tar| {
            body(tar, "12 path=abc\n\0\0\0\0")
        }),
        case("a second record cut short", X, RECORD, |tar| {
            body(tar, "12 path=abc\n12 pa")
        }),
        case("a size record that is not a number", X, RECORD, |tar| {
            body(tar, pax_record("size", b"0x0"))
        }),
        case("a negative size record", X, RECORD, |tar| {
            body(tar, pax_record("size", b"-1"))
        }),
        case("an empty size record", X, RECORD, |tar| {
            body(tar, pax_record("size", b""))
        }),
    ]
}

/// Returns a file of this mode with an access control list.
fn with_list(tar: Tar, mode: &str, list: &str) -> Tar {
    tar.pax(&[("SCHILY.acl.access", list.as_bytes())])
        .header(Header::file("a", 0).put(MODE, mode))
}

const LIST: &str = "access control list gives other executable bits than the mode";

fn keys() -> Vec<Case> {
    vec![
        case("a list that makes a file executable", "a", LIST, |tar| {
            with_list(tar, "0000644\0", "user::rwx,group::r-x,other::r-x")
        }),
        case("a list that makes a program a file", "a", LIST, |tar| {
            with_list(tar, "0000755\0", "user::rw-,group::r--,other::r--")
        }),
        case("a mask that makes a file executable", "a", LIST, |tar| {
            let list = "user::rw-\nuser:daemon:rwx\ngroup::r--\nmask::rwx\nother::r--";
            with_list(tar, "0000674\0", list)
        }),
        case(
            "a list that bsdtar reads in its own way",
            "a",
            LIST,
            |tar| with_list(tar, "0000644\0", "u::rw-,g::r--,o::r-x"),
        ),
        case(
            "a mark of a sparse file",
            X,
            "pax key 'GNU.sparse' is not allowed",
            |tar| tar.pax(&[("GNU.sparse", b"1")]).file("a", ""),
        ),
        case("two name records", X, REPEATED, |tar| {
            tar.pax(&[("path", b"b"), ("path", b"c")]).file("a", "")
        }),
        case("two records of a harmless key", X, REPEATED, |tar| {
            tar.pax(&[("mtime", b"1"), ("mtime", b"2")]).file("a", "")
        }),
        case("a time that is infinite", X, TIME, |tar| {
            tar.pax(&[("mtime", b"inf")]).file("a", "")
        }),
        case("a time of 23 digits", X, TIME, |tar| {
            tar.pax(&[("mtime", b"99999999999999999999999")])
                .file("a", "")
        }),
        case(
            "an unknown key",
            X,
            "pax key 'colour' is not allowed",
            |tar| tar.pax(&[("colour", b"red")]).file("a", ""),
        ),
        case(
            "a key in capitals",
            X,
            "pax key 'PATH' is not allowed",
            |tar| tar.pax(&[("PATH", b"b")]).file("a", ""),
        ),
        // POSIX reserves these for itself: only vendors write capital letters.
        case(
            "a key with a vendor in small letters",
            X,
            "pax key 'security.capability' is not allowed",
            |tar| tar.pax(&[("security.capability", b"x")]).file("a", ""),
        ),
        case(
            "names in another character set",
            X,
            "pax key 'hdrcharset' is not allowed",
            |tar| {
                tar.pax(&[("hdrcharset", b"ISO-IR 8859 1 1998")])
                    .file("a", "")
            },
        ),
        case("a key with a terminal escape", X, RECORD, |tar| {
            tar.pax(&[("\x1b[2J", b"1")]).file("a", "")
        }),
    ]
}

/// Returns a tar inside of a tar, which a reader sees that uses the wrong size.
fn inner() -> Vec<u8> {
    Tar::new().file("smuggled", "").cut()
}

fn smuggling() -> Vec<Case> {
    vec![
        // tokio-tar, CVE-2025-62518: the header said zero, the record did not, and
        // the data was read as headers.
        case("data the header does not count", "a", SIZES, |tar| {
            tar.pax(&[("size", b"512")])
                .header(Header::file("a", 0))
                .data(inner())
        }),
        case("data the record does not count", "a", SIZES, |tar| {
            tar.pax(&[("size", b"0")])
                .header(Header::file("a", 512))
                .data(inner())
        }),
        case("a directory with a size record", "a/", SIZES, |tar| {
            tar.pax(&[("size", b"512")]).directory("a/")
        }),
        // tar-rs, 2026: the record was applied to the long name between them.
        case("a size record before a long name", "a", SIZES, |tar| {
            tar.pax(&[("size", b"1024")]).long_name("a").file("b", "")
        }),
        case("two pax headers in a row", X, TWICE, |tar| {
            tar.pax(&[("mtime", b"1")])
                .pax(&[("mtime", b"2")])
                .file("a", "")
        }),
        case("two pax headers around a long name", X, TWICE, |tar| {
            tar.pax(&[("mtime", b"1")])
                .long_name("b")
                .pax(&[("mtime", b"2")])
                .file("a", "")
        }),
        case("a pax name and a GNU name", L, NAMES, |tar| {
            tar.pax(&[("path", b"b")]).long_name("c").file("a", "")
        }),
        case("a GNU name and a pax name", X, NAMES, |tar| {
            tar.long_name("c").pax(&[("path", b"b")]).file("a", "")
        }),
        case("a pax target and a GNU target", L, NAMES, |tar| {
            tar.pax(&[("linkpath", b"index.html")])
                .long_target("index.html")
                .symlink("a", "index.html")
        }),
        case("a pax header over 8 KiB", X, OVER, |tar| {
            let header = pax_record("comment", &[b'v'; 8179]);
            assert_eq!(header.len(), (8 << 10) + 1);
            body(tar, header)
        }),
        // Python and Go allocated what the header claims.
        case("a pax header that claims 4 GiB", "h", OVER, |tar| {
            tar.header(Header::new(b'x', "h", 4 << 30)).file("a", "")
        }),
        stream("a pax header at the end", ALONE, || {
            super::valid_file().pax(&[("mtime", b"1")]).end()
        }),
        case(
            "a pax header in base 256",
            "h",
            "size is not strict octal",
            |tar| {
                tar.header(Header::new(b'x', "h", 0).put(SIZE, b"\x80\0\0\0\0\0\0\0\0\0\0\x0d"))
                    .data(pax_record("path", b"b"))
                    .file("a", "")
            },
        ),
    ]
}

fn global() -> Vec<Case> {
    vec![
        case("a name for all entries", X, GLOBAL, |tar| {
            tar.global(&[("path", b"../x")]).file("a", "")
        }),
        case("a target for all entries", X, GLOBAL, |tar| {
            tar.global(&[("linkpath", b"/etc")]).symlink("a", "b")
        }),
        // libarchive, 2025: a negative size made it read the header again.
        case("a negative size for all entries", X, GLOBAL, |tar| {
            tar.global(&[("size", b"-512")]).file("a", "")
        }),
        case("a comment and a time for all entries", X, GLOBAL, |tar| {
            tar.global(&[("comment", b"c"), ("mtime", b"1")])
                .file("a", "")
        }),
        case("a sparse map for all entries", X, GLOBAL, |tar| {
            tar.global(&[("GNU.sparse.map", b"0,5")]).file("a", "")
        }),
        case(
            "a vendor key and a name for all entries",
            X,
            GLOBAL,
            |tar| {
                tar.global(&[("VENDOR.a", b"1"), ("path", b"b")])
                    .file("a", "")
            },
        ),
        case("a global record without a newline", X, RECORD, |tar| {
            tar.extended(b'g', "12 comment=a").file("a", "")
        }),
        case("a global header over 8 KiB", X, OVER, |tar| {
            tar.global(&[("comment", &[b'c'; 8192])]).file("a", "")
        }),
    ]
}

/// Returns a block that begins with these bytes.
fn padded(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut block = bytes.as_ref().to_vec();
    block.resize(512, 0);
    block
}

pub fn gnu() -> Vec<Case> {
    vec![
        case("two long names", L, NAMES, |tar| {
            tar.long_name("b").long_name("c").file("a", "")
        }),
        case("two long targets", L, NAMES, |tar| {
            tar.long_target("index.html")
                .long_target("index.html")
                .symlink("a", "x")
        }),
        case("a long name over 8 KiB", L, OVER, |tar| {
            tar.long_name(vec![b'n'; 8192]).file("a", "")
        }),
        case("a long target over 8 KiB", L, OVER, |tar| {
            tar.long_target(vec![b't'; 8192]).symlink("a", "x")
        }),
        case("a long name that claims 8 GiB", L, OVER, |tar| {
            let header = Header::new(b'L', "././@LongLink", 0).gnu();
            tar.header(header.put(SIZE, "77777777777")).file("a", "")
        }),
        stream("a long name at the end", ALONE, || {
            super::valid_file().long_name("b").end()
        }),
        stream("a long target at the end", ALONE, || {
            super::valid_file().long_target("b").end()
        }),
        // The target is for the next symlink, or for none: readers disagree.
        case("a long target before a file", "a", NOT_A_LINK, |tar| {
            tar.long_target("index.html").file("a", "")
        }),
        // GNU tar and Python read a name up to the next NUL.
        case(
            "a long name that continues in the padding",
            L,
            AFTER_END,
            |tar| {
                let header = Header::new(b'L', "././@LongLink", 1).gnu();
                tar.header(header).raw(padded("bc")).file("a", "")
            },
        ),
        // Python reads records up to the next NUL.
        case(
            "a record that continues in the padding",
            X,
            AFTER_END,
            |tar| {
                let record = pax_record("path", b"b");
                let header = Header::new(b'x', X, record.len() as u64);
                let more = [record, pax_record("size", b"512")].concat();
                tar.header(header).raw(padded(more)).file("a", "")
            },
        ),
        // bsdtar sees an empty file.
        case(
            "a long target for an empty target",
            "a",
            "link target is empty",
            |tar| tar.long_target("index.html").symlink("a", ""),
        ),
        // Python sees a directory.
        case(
            "a long name for a directory without a type",
            "b",
            "file name ends in '/'",
            |tar| tar.long_name("b").header(Header::new(0, "a/", 0)),
        ),
        case("a long name with two ends", "b\\x00../x", CONTROL, |tar| {
            tar.extended(b'L', "b\0../x\0").file("a", "")
        }),
        case("an empty long name", "", "name is empty", |tar| {
            tar.extended(b'L', "\0").file("a", "")
        }),
        case("a long name that climbs", "../x", "name has '..'", |tar| {
            tar.long_name("../x").file("a", "")
        }),
        case(
            "a long name from the root",
            "/x",
            "name is absolute",
            |tar| tar.long_name("/x").file("a", ""),
        ),
        stream("a long name cut short", "tar data is cut short", || {
            super::valid_file()
                .header(Header::new(b'L', "././@LongLink", 700).gnu())
                .raw([b'n'; 512])
                .cut()
        })
        .at(L),
    ]
}

/// The sender chooses the key. The refusal must still show the rule.
#[test]
fn a_long_pax_key_does_not_hide_the_rule() {
    let site = Site::with_config("");
    let key = "k".repeat(5000);
    let tar = Tar::new().pax(&[(&key, b"1")]).file("a", "");
    let reply = site.receive("hostile", &zstd(&tar.end()));
    reply.refused(65, "bad-archive");
    let first = reply.stderr.lines().next().unwrap_or_default();
    assert!(first.ends_with("' is not allowed"), "{reply:?}");
}
