//! Header blocks and the structure of the stream: checksums, magic, numbers, sizes,
//! and the end.

use super::{Case, case, stream, valid_file};
use crate::archive::{BLOCK, CHECKSUM, Field, Header, MAGIC, MODE, MTIME, PREFIX, SIZE, Tar, UID};

const SUM: &str = "header checksum does not match";
const MAGICS: &str = "header is neither ustar nor gnu";
const VERSION_7: &str = "header is in the Unix version 7 format";
const SUM_OCTAL: &str = "checksum is not strict octal";
const SIZE_OCTAL: &str = "size is not strict octal";
const CUT: &str = "tar data is cut short";
const ENDLESS: &str = "no two zero blocks at the end";
const AFTER: &str = "data after the end of the archive";
const EMPTY: &str = "archive is empty";
const GNU_TIMES: &str = "gnu header has a time at byte 345, which Python reads as part of the name";
const NO_FILE: &str = "archive has no file";
const SIZED: &str = "size on an entry without data";

pub fn cases() -> Vec<Case> {
    let mut cases = checksums();
    cases.extend(magic());
    cases.extend(numbers());
    cases.extend(sizes());
    cases.extend(ends());
    cases.extend(other_formats());
    cases
}

/// Appends an empty file whose header has `bytes` in `field`.
fn with(tar: Tar, field: Field, bytes: impl AsRef<[u8]>) -> Tar {
    tar.header(Header::file("a", 0).put(field, bytes))
}

const FIRST: &str =
    "first header begins like a compressed file, which bsdtar and Python unpack first";

/// Returns an archive whose first header, which is valid, has this name.
fn first(kind: u8, name: impl AsRef<[u8]>) -> Tar {
    let body: &[u8] = if kind == b'x' { b"13 comment=c\n" } else { b"" };
    let tar = Tar::new().header(Header::new(kind, name, body.len() as u64));
    tar.data(body).file("a", "x")
}

/// bsdtar and Python look for a compressed file before they look for a header. A gzip
/// file has a field of any bytes, which can be a header, before its content.
fn other_formats() -> Vec<Case> {
    vec![
        stream("a first header that begins a gzip file", FIRST, || {
            first(b'x', b"\x1f\x8b\x08\x04\0\0\0\0\0\x03\xf4\x05").end()
        }),
        stream("a first header that begins an xz file", FIRST, || {
            first(b'g', b"\xfd7zXZ\0\0\x04").end()
        }),
        stream("a first header that begins a zstd frame", FIRST, || {
            first(b'x', b"\x28\xb5\x2f\xfd").end()
        }),
        stream("a first header that begins an lzip file", FIRST, || {
            first(b'x', b"LZIP\x01\x0c").end()
        }),
        stream("a first header that begins an lzma file", FIRST, || {
            first(b'x', b"]\0\0\x80\0").end()
        }),
        stream("a first file that begins a bzip2 file", FIRST, || {
            first(b'0', "BZh91AY&SY").end()
        }),
    ]
}

fn checksums() -> Vec<Case> {
    vec![
        case("a checksum one too high", "a", SUM, |tar| {
            let header = Header::file("a", 0);
            let sum = header.unsigned_sum() + 1;
            tar.header(header.sum(format!("{sum:06o}\0 ")))
        }),
        // Old Unix tars added signed bytes. Only one sum may be valid for a header.
        case("a checksum of signed bytes", "bl\\xc3\\xbcte", SUM, |tar| {
            let header = Header::file("blüte", 0);
            let sum = header.signed_sum();
            tar.header(header.sum(format!("{sum:06o}\0 ")))
        }),
        case("a checksum of zero", "a", SUM, |tar| {
            tar.header(Header::file("a", 0).sum("000000\0 "))
        }),
        case("a checksum of spaces", "a", SUM_OCTAL, |tar| {
            tar.header(Header::file("a", 0).sum("        "))
        }),
        case("a checksum in decimal digits", "a", SUM_OCTAL, |tar| {
            tar.header(Header::file("a", 0).sum("009999\0 "))
        }),
        case(
            "file data where a header should be",
            "A".repeat(100),
            SUM_OCTAL,
            |tar| tar.header(Header::file("a", 0)).data([b'A'; BLOCK]),
        ),
    ]
}

fn magic() -> Vec<Case> {
    vec![
        case("a Unix version 7 header", "a", VERSION_7, |tar| {
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
        // We keep neither field, but Python stops silently where it cannot read one:
        // then we see the following entries, and it does not.
        case(
            "an owner that is not a number",
            "a",
            "uid is not strict octal",
            |tar| with(tar, UID, "nobody\0\0"),
        ),
        case(
            "a time that is not a number",
            "a",
            "mtime is not strict octal",
            |tar| with(tar, MTIME, "yesterday\0\0\0"),
        ),
        // As tar-stream writes a time after 2038. bsdtar takes no archive that begins
        // like this; GNU tar reads some of them as base 64.
        case(
            "a negative time in digits",
            "a",
            "mtime is not strict octal",
            |tar| with(tar, MTIME, "-2145154000\0"),
        ),
        case(
            "a time with a fraction in digits",
            "a",
            "mtime is not strict octal",
            |tar| with(tar, MTIME, "1473613.4\0\0\0"),
        ),
        case(
            "a time of more than 64 bits",
            "a",
            "mtime is not a time in 64 bits",
            |tar| with(tar, MTIME, b"\x80\0\0\x01\0\0\0\0\0\0\0\0"),
        ),
        // GNU tar keeps times where ustar keeps the prefix. Python takes them for a
        // prefix.
        case(
            "a GNU header with something in its prefix",
            "a",
            GNU_TIMES,
            |tar| tar.header(Header::file("a", 0).gnu().put(PREFIX, "14664000000")),
        ),
        case("a size with the digit 8", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "00000000008")
        }),
        case("a negative size", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "-0000000001")
        }),
        case("a size with a plus", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "+0000000000")
        }),
        case("a hexadecimal size", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "0x000000000")
        }),
        case("a size with a space inside", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "00000 00000")
        }),
        case("a size with text after its end", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "0000000\x001000")
        }),
        // GNU tar skips a tab in front of the digits, and bsdtar and Python do as well,
        // but each of them skips other characters too.
        case("a size after a tab", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "\t0000000000")
        }),
        // GNU tar skips one NUL in front of the digits.
        case("a size after a NUL", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "\x000000000000")
        }),
        case("a size of spaces", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "            ")
        }),
        case("a size that is missing", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, "")
        }),
        // With two encodings of a number, two parsers can disagree about where the
        // next header starts.
        case("a size in base 256", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, b"\x80\0\0\0\0\0\0\0\0\0\0\0")
        }),
        case("minus one in base 256", "a", SIZE_OCTAL, |tar| {
            with(tar, SIZE, [0xff; 12])
        }),
        case(
            "a size beyond 64 bits in base 256",
            "a",
            SIZE_OCTAL,
            |tar| with(tar, SIZE, b"\x80\x01\0\0\0\0\0\0\0\0\0\0"),
        ),
        case(
            "a mode that is text",
            "a",
            "mode is not strict octal",
            |tar| with(tar, MODE, "rwxr-xr"),
        ),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        case("3 GB claimed, nothing sent", "a", BIG, |tar| {
            with(tar, SIZE, "26264057000")
        }),
        case("the largest octal size", "a", BIG, |tar| {
            with(tar, SIZE, "77777777777")
        }),
        stream("512 MiB claimed, nothing sent", CUT, || {
            valid_file().header(Header::file("a", 512 << 20)).cut()
        })
        .at("a"),
        case("a directory with a size", "a/", SIZED, |tar| {
            tar.header(Header::new(b'5', "a/", 5)).data("hello")
        }),
        case("a symlink with a size", "a", SIZED, |tar| {
            let link = Header::symlink("a", "index.html").put(SIZE, "00000000005");
            tar.header(link).data("hello")
        }),
    ]
}

const BIG: &str = "file over 1073741824 bytes";

fn ends() -> Vec<Case> {
    vec![
        stream("a stream cut inside a header", CUT, || {
            valid_file()
                .raw(&Tar::new().file("a", "").cut()[..100])
                .cut()
        }),
        stream("a stream cut inside data", CUT, || {
            valid_file()
                .header(Header::file("a", 1000))
                .raw([1; 999])
                .cut()
        })
        .at("a"),
        stream("a stream cut inside padding", CUT, || {
            valid_file().header(Header::file("a", 5)).raw("hello").cut()
        })
        .at("a"),
        stream("data without an end block", ENDLESS, || valid_file().cut()),
        stream("a single zero block", ENDLESS, || {
            valid_file().raw([0; BLOCK]).cut()
        }),
        stream("a zero block and a half", CUT, || {
            valid_file().raw([0; BLOCK + BLOCK / 2]).cut()
        }),
        stream("a lone zero block between entries", ENDLESS, || {
            valid_file().raw([0; BLOCK]).file("a", "").end()
        }),
        stream("one byte after the end", AFTER, || {
            [valid_file().end(), b"x".to_vec()].concat()
        }),
        stream("two archives in one stream", AFTER, || {
            [valid_file().end(), Tar::new().file("a", "").end()].concat()
        }),
        stream("an entry far after the end", AFTER, || {
            [valid_file().end(), vec![0; 10240], valid_file().end()].concat()
        }),
        stream("nothing but the end", EMPTY, || Tar::new().end()),
        stream("nothing but the root directory", EMPTY, || {
            Tar::new().directory("./").end()
        }),
        stream("nothing but directories", NO_FILE, || {
            Tar::new()
                .directory("./")
                .directory("a/")
                .directory("a/b/")
                .end()
        }),
        stream("nothing but a directory and a symlink", NO_FILE, || {
            Tar::new().directory("a/").symlink("l", "a").end()
        }),
        stream("nothing but a comment", EMPTY, || {
            Tar::new().global(&[("comment", b"4b825dc6")]).end()
        }),
        stream("a tar of no bytes", "zstd frame without content", Vec::new),
    ]
}

/// The offset of the checksum field in these tests is right.
#[test]
fn the_builder_writes_the_right_checksum() {
    let block = Tar::new().header(Header::file("a", 0)).cut();
    let Field(start, length) = CHECKSUM;
    let text = std::str::from_utf8(&block[start..start + length]).expect("digits");
    let sum = Header::file("a", 0).unsigned_sum();
    assert_eq!(text, format!("{sum:07o}\0"));
}
