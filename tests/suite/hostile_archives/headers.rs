//! Header blocks and the shape of the stream: checksums, numbers, magic, sizes,
//! and the end.

use super::{Case, case, sound, stream};
use crate::archive::{BLOCK, CHECKSUM, Field, Header, MAGIC, MODE, MTIME, PREFIX, SIZE, Tar, UID};

const SUM: &str = "header checksum does not match";
const MAGICS: &str = "header is neither ustar nor gnu";
const OCTAL: &str = "number is not strict octal";
const CUT: &str = "tar data is cut short";
const ENDLESS: &str = "no two zero blocks at the end";
const AFTER: &str = "data after the end of the archive";
const EMPTY: &str = "archive is empty";
const RAGGED: &str = "name has bytes after its end";
const SIZED: &str = "size on an entry without data";

pub fn cases() -> Vec<Case> {
    let mut cases = checksums();
    cases.extend(magic());
    cases.extend(numbers());
    cases.extend(sizes());
    cases.extend(ends());
    cases
}

/// An empty file whose header has `bytes` in `field`.
fn with(tar: Tar, field: Field, bytes: impl AsRef<[u8]>) -> Tar {
    tar.header(Header::file("a", 0).put(field, bytes))
}

fn checksums() -> Vec<Case> {
    vec![
        case("a checksum one too high", "a", SUM, |tar| {
            let header = Header::file("a", 0);
            let sum = header.unsigned_sum() + 1;
            tar.header(header.sum(format!("{sum:06o}\0 ")))
        }),
        // Old Unix tars summed signed bytes; two sums for one header is one too many.
        case(
            "a checksum of the signed kind",
            "bl\\xc3\\xbcte",
            SUM,
            |tar| {
                let header = Header::file("blüte", 0);
                let sum = header.signed_sum();
                tar.header(header.sum(format!("{sum:06o}\0 ")))
            },
        ),
        case("a checksum of nought", "a", SUM, |tar| {
            tar.header(Header::file("a", 0).sum("000000\0 "))
        }),
        case("a blank checksum", "a", OCTAL, |tar| {
            tar.header(Header::file("a", 0).sum("        "))
        }),
        case("a checksum in decimal digits", "a", OCTAL, |tar| {
            tar.header(Header::file("a", 0).sum("009999\0 "))
        }),
        case(
            "file data where a header should be",
            "A".repeat(100),
            OCTAL,
            |tar| tar.header(Header::file("a", 0)).data([b'A'; BLOCK]),
        ),
    ]
}

fn magic() -> Vec<Case> {
    vec![
        case("a Unix version 7 header", "a", MAGICS, |tar| {
            with(tar, MAGIC, "")
        }),
        case("ustar of an unknown version", "a", MAGICS, |tar| {
            with(tar, MAGIC, "ustar\x0099")
        }),
        case("ustar without a version", "a", MAGICS, |tar| {
            with(tar, MAGIC, "ustar")
        }),
        case("a magic in capitals", "a", MAGICS, |tar| {
            with(tar, MAGIC, "USTAR\x0000")
        }),
    ]
}

fn numbers() -> Vec<Case> {
    vec![
        // Neither is kept, but Python ends where it cannot read one, without a
        // word: what follows is there for us and not for it.
        case("an owner that is no number", "a", OCTAL, |tar| {
            with(tar, UID, "nobody\0\0")
        }),
        case("a time that is no number", "a", OCTAL, |tar| {
            with(tar, MTIME, "yesterday\0\0\0")
        }),
        // GNU tar keeps times where ustar keeps the prefix; Python takes them
        // for a prefix all the same.
        case(
            "a GNU header with something in its prefix",
            "a",
            RAGGED,
            |tar| tar.header(Header::file("a", 0).gnu().put(PREFIX, "14664000000")),
        ),
        case("a size with the digit 8", "a", OCTAL, |tar| {
            with(tar, SIZE, "00000000008")
        }),
        case("a negative size", "a", OCTAL, |tar| {
            with(tar, SIZE, "-0000000001")
        }),
        case("a size with a plus", "a", OCTAL, |tar| {
            with(tar, SIZE, "+0000000000")
        }),
        case("a hexadecimal size", "a", OCTAL, |tar| {
            with(tar, SIZE, "0x000000000")
        }),
        case("a size with a blank inside", "a", OCTAL, |tar| {
            with(tar, SIZE, "00000 00000")
        }),
        case("a size with text after its end", "a", OCTAL, |tar| {
            with(tar, SIZE, "0000000\x001000")
        }),
        case("a size that is missing", "a", OCTAL, |tar| {
            with(tar, SIZE, "")
        }),
        // Two encodings of one number are two parsers' opinions of where the
        // next header starts.
        case("a size in base 256", "a", OCTAL, |tar| {
            with(tar, SIZE, b"\x80\0\0\0\0\0\0\0\0\0\0\0")
        }),
        case("minus one in base 256", "a", OCTAL, |tar| {
            with(tar, SIZE, [0xff; 12])
        }),
        case("a size beyond 64 bits in base 256", "a", OCTAL, |tar| {
            with(tar, SIZE, b"\x80\x01\0\0\0\0\0\0\0\0\0\0")
        }),
        case("a mode that is text", "a", OCTAL, |tar| {
            with(tar, MODE, "rwxr-xr")
        }),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        case("3 GB promised, nothing sent", "a", BIG, |tar| {
            with(tar, SIZE, "26264057000")
        }),
        case("the largest octal size", "a", BIG, |tar| {
            with(tar, SIZE, "77777777777")
        }),
        stream("512 MiB promised, nothing sent", CUT, || {
            sound().header(Header::file("a", 512 << 20)).cut()
        })
        .at("a"),
        case("a folder with a size", "a/", SIZED, |tar| {
            tar.header(Header::new(b'5', "a/", 5)).data("hello")
        }),
        case("a link with a size", "a", SIZED, |tar| {
            let link = Header::link("a", "index.html").put(SIZE, "00000000005");
            tar.header(link).data("hello")
        }),
    ]
}

const BIG: &str = "file over 1073741824 bytes";

fn ends() -> Vec<Case> {
    vec![
        stream("a stream cut inside a header", CUT, || {
            sound().raw(&Tar::new().file("a", "").cut()[..100]).cut()
        }),
        stream("a stream cut inside data", CUT, || {
            sound().header(Header::file("a", 1000)).raw([1; 999]).cut()
        })
        .at("a"),
        stream("a stream cut inside padding", CUT, || {
            sound().header(Header::file("a", 5)).raw("hello").cut()
        })
        .at("a"),
        stream("data without an end block", ENDLESS, || sound().cut()),
        stream("a single zero block", ENDLESS, || {
            sound().raw([0; BLOCK]).cut()
        }),
        stream("a zero block and a half", CUT, || {
            sound().raw([0; BLOCK + BLOCK / 2]).cut()
        }),
        stream("a lone zero block between entries", ENDLESS, || {
            sound().raw([0; BLOCK]).file("a", "").end()
        }),
        stream("one byte after the end", AFTER, || {
            [sound().end(), b"x".to_vec()].concat()
        }),
        stream("two archives in one stream", AFTER, || {
            [sound().end(), Tar::new().file("a", "").end()].concat()
        }),
        stream("an entry far behind the end", AFTER, || {
            [sound().end(), vec![0; 10240], sound().end()].concat()
        }),
        stream("nothing but the end", EMPTY, || Tar::new().end()),
        stream("nothing but the root folder", EMPTY, || {
            Tar::new().folder("./").end()
        }),
        stream("nothing but a comment", EMPTY, || {
            Tar::new().global(&[("comment", b"4b825dc6")]).end()
        }),
        stream("a tar of no bytes", ENDLESS, Vec::new),
    ]
}

/// The checksum field is where the tests think it is.
#[test]
fn a_right_checksum_is_what_the_builder_writes() {
    let block = Tar::new().header(Header::file("a", 0)).cut();
    let Field(start, length) = CHECKSUM;
    let text = std::str::from_utf8(&block[start..start + length]).expect("digits");
    let sum = Header::file("a", 0).unsigned_sum();
    assert_eq!(text, format!("{sum:06o}\0 "));
}
