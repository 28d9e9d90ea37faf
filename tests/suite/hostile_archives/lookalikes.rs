//! Archives that only look wrong are received, and their content is on disk byte for
//! byte.

use super::DEFAULTS;
use super::borderline::{
    directory, file, many_pending, program, receive_all, symlink, valid, valid_payload,
};
use crate::archive::{Frame, Header, LINK, MODE, MTIME, NAME, PREFIX, SIZE, Tar, zstd};

#[test]
fn names_that_only_look_wrong_are_received() {
    let odd = [
        "\u{feff}bom",
        "line\u{2028}separator",
        "right\u{202e}to left",
        "no-break\u{a0}space",
        "emoji \u{1f980}",
        "single ' double \" quotes",
        "back\\slash",
        "..\\x",
        "BZh91AY",
        "-rf",
        "--checkpoint-action=exec=sh",
        "*",
        "$(id)",
        "...",
        "..a",
        "a..",
        " ",
        "~",
        ".git",
        ".deploy-shell",
        "%2e%2e%2fx",
        // On a case-sensitive file system these are different files. So are the two
        // spellings of one letter.
        "README",
        "readme",
        "caf\u{e9}",
        "cafe\u{301}",
        "ß",
        "ss",
        "CON",
        "GIT~1",
    ];
    let tar = odd
        .iter()
        .fold(Tar::new(), |tar, name| tar.file(name, *name));
    let tree: Vec<_> = odd.iter().map(|name| (*name, file(name))).collect();
    let below = Tar::new()
        .directory("d/")
        .symlink("LINK", "d")
        .file("link/x", "not through the link");
    receive_all(
        &many_pending(DEFAULTS),
        vec![
            valid("odd names", tar, &tree),
            valid(
                "a directory and a symlink whose names differ in case",
                below,
                &[
                    ("d", directory()),
                    ("LINK", symlink("d")),
                    ("link/x", file("not through the link")),
                ],
            ),
        ],
    );
}

// As GNU tar and bsdtar write them.
const LIST_OF_A_FILE: &[u8] = b"user::rw-\nuser:daemon:r--\ngroup::r--\nmask::r--\nother::r--";
const LIST_OF_A_PROGRAM: &[u8] = b"user::rwx,group::r-x,other::r-x,user:daemon:rwx:1,mask::rwx";

#[test]
fn streams_that_only_look_wrong_are_received() {
    let one = || Tar::new().file("a", "x");
    let tree = [("a", file("x"))];
    receive_all(
        &many_pending(DEFAULTS),
        vec![
            valid(
                "names with superfluous dots and slashes",
                Tar::new()
                    .directory("./")
                    .directory("./d///")
                    .file("././d//./a", "x"),
                &[("d/a", file("x"))],
            ),
            valid(
                "names of Windows behind a dot",
                Tar::new().file("./C:\\x", "x").file("./\\y", "y"),
                &[("C:\\x", file("x")), ("\\y", file("y"))],
            ),
            valid(
                "a list that gives the bits of the mode",
                Tar::new()
                    .pax(&[("SCHILY.acl.access", LIST_OF_A_FILE)])
                    .file("a", "x")
                    .pax(&[("SCHILY.acl.access", LIST_OF_A_PROGRAM)])
                    .header(Header::file("b", 1).put(MODE, "0000775\0"))
                    .data("y"),
                &[("a", file("x")), ("b", program("y"))],
            ),
            valid(
                "a directory after its file",
                Tar::new().file("d/a", "x").directory("d/"),
                &[("d/a", file("x"))],
            ),
            valid(
                "directories twice",
                Tar::new()
                    .directory("./")
                    .directory("d/")
                    .file("d/a", "x")
                    .directory("d/")
                    .directory("./d")
                    .directory("/"),
                &[("d/a", file("x"))],
            ),
            valid("hard links", hard_links(), &hard_links_on_disk()),
            valid(
                "numbers with spaces in front",
                Tar::new()
                    .header(
                        Header::file("a", 1)
                            .put(SIZE, "          1")
                            .put(MODE, "   644")
                            .put(MTIME, " 7"),
                    )
                    .data("x"),
                &tree,
            ),
            valid(
                "times at the end of the prefix",
                Tar::new()
                    .header(Header::file("a", 1).put(PREFIX, xstar_prefix("b/c")))
                    .data("x"),
                &[("b/c/a", file("x"))],
            ),
            valid(
                "bytes after the NUL of a name that a long name replaces",
                Tar::new()
                    .long_name("named")
                    .header(Header::file("cut", 1).put(NAME, "cut\0../x"))
                    .data("x")
                    .pax(&[("linkpath", b"named")])
                    .header(Header::symlink("l", "").put(LINK, "cut\0/etc")),
                &[("named", file("x")), ("l", symlink("named"))],
            ),
            valid(
                "padding that is not zero",
                Tar::new()
                    .header(Header::file("a", 1))
                    .raw("x")
                    .raw([0xff; 511]),
                &tree,
            ),
            valid("zeros up to a whole record", one().raw([0; 10240]), &tree),
            valid_payload(
                "zeros that do not fill a block",
                zstd(&[one().end(), vec![0; 100]].concat()),
                &tree,
            ),
            valid(
                "a size record equal to the header",
                Tar::new().pax(&[("size", b"1")]).file("a", "x"),
                &tree,
            ),
            valid(
                "a comment for all entries",
                Tar::new()
                    .global(&[("comment", b"3f786850e387550f")])
                    .file("a", "x"),
                &tree,
            ),
            valid(
                "vendor keys for all entries",
                Tar::new()
                    .global(&[("GOLANG.pkg.version", b"1.2"), ("comment", b"c")])
                    .global(&[("SCHILY.xattr.user.note", b"\0\n")])
                    .global(&[("GNU.volume.label", b"site")])
                    .file("a", "x"),
                &tree,
            ),
            valid("every key that is ignored", ignored_keys(), &tree),
            valid(
                "a GNU name and a GNU target",
                Tar::new()
                    .file("a", "x")
                    .long_target("a")
                    .long_name("l")
                    .header(Header::symlink("cut", "cut").gnu()),
                &[("a", file("x")), ("l", symlink("a"))],
            ),
            valid(
                "a GNU name without its NUL",
                Tar::new().extended(b'L', "named").file("a", "x"),
                &[("named", file("x"))],
            ),
            valid(
                "a file of the Unix version 7 type",
                Tar::new().header(Header::new(0, "a", 1)).data("x"),
                &tree,
            ),
            valid(
                "a name split into prefix and name",
                Tar::new()
                    .header(Header::file("a", 1).put(PREFIX, "b/c"))
                    .data("x"),
                &[("b/c/a", file("x"))],
            ),
            valid(
                "a name and a prefix that fill their fields",
                Tar::new()
                    .header(Header::file(full_name(), 1).put(PREFIX, full_prefix()))
                    .data("x"),
                &[(&format!("{}/{}", full_prefix(), full_name()), file("x"))],
            ),
            valid(
                "a size that fills its field",
                Tar::new()
                    .header(Header::file("a", 1).put(SIZE, "000000000001"))
                    .data("x"),
                &tree,
            ),
            valid_payload(
                "a frame without a checksum",
                Frame::window(20, 0).raw(&one().end()).end(),
                &tree,
            ),
        ],
    );
}

/// Appends hard links in every spelling that is allowed. Their modes have the executable
/// bits of their file, and other bits.
fn hard_links() -> Tar {
    let hard = |name: &str, target: &str| Header::new(b'1', name, 0).put(LINK, target);
    let run = |name: &str, target: &str| hard(name, target).put(MODE, "0000755");
    let program = Header::file("d/program", 7).put(MODE, "0000755");
    Tar::new()
        .header(program)
        .data("content")
        .header(run("first", "d/program"))
        .header(run("d/e/second", "./d//program").gnu())
        .header(hard("third", "d/e/second").put(MODE, "0000100"))
        .header(run("d/program", "d/program"))
        .header(run("./first", "first"))
        .header(run("first", "third"))
        .long_target("d/program")
        .header(run("fourth", "cut"))
        .pax(&[("linkpath", b"d/program"), ("path", b"fifth")])
        .header(run("cut", "cut"))
        .file("large", vec![5; 700_000])
        .header(hard("another", "large"))
        .file("empty", "")
        .header(hard("nothing", "empty"))
}

fn hard_links_on_disk() -> Vec<(&'static str, String)> {
    let programs = [
        "d/program",
        "first",
        "d/e/second",
        "third",
        "fourth",
        "fifth",
    ];
    let mut tree: Vec<_> = programs.map(|name| (name, program("content"))).into();
    tree.extend(["large", "another"].map(|name| (name, file(vec![5; 700_000]))));
    tree.extend(["empty", "nothing"].map(|name| (name, file(""))));
    tree
}

/// Returns a prefix as node-tar writes it.
fn xstar_prefix(prefix: &str) -> Vec<u8> {
    let mut field = prefix.as_bytes().to_vec();
    field.resize(131, 0);
    field.extend_from_slice(&b"15302453116\0".repeat(2));
    field
}

/// Returns 100 bytes, so that the field has no NUL.
fn full_name() -> String {
    "n".repeat(100)
}

/// Returns 155 bytes, likewise.
fn full_prefix() -> String {
    format!("{}/{}", "p".repeat(77), "q".repeat(77))
}

fn ignored_keys() -> Tar {
    Tar::new()
        .pax(&[
            ("atime", b"1792425600.123456789"),
            ("ctime", b"1792425600"),
            ("mtime", b"-1.5"),
            ("uid", b"4294967294"),
            ("gid", b"4294967294"),
            ("uname", "größe".as_bytes()),
            ("gname", b"users"),
            ("comment", b"any"),
            ("charset", b"ISO-IR 10646 2000 UTF-8"),
            ("hdrcharset", b"BINARY"),
            ("SCHILY.xattr.user.note", b"\0binary\n\xff="),
            ("SCHILY.acl.default", b"user::rwx"),
            ("LIBARCHIVE.xattr.user.note", b"AGJpbmFyeQ"),
            ("LIBARCHIVE.creationtime", b"1792425600"),
            ("RHT.security.selinux", b"system_u:object_r:tmp_t:s0\0"),
            ("MSWINDOWS.rawsd", b"AQAEgBQ="),
            ("APPLE.com.example", b"x"),
            ("NODETAR.depth", b"1"),
        ])
        .file("a", "x")
}

#[test]
fn modes_are_normalized() {
    let mode = |name: &str, mode: &str| Header::file(name, 1).put(MODE, mode);
    let tar = Tar::new()
        .header(mode("setuid", "0004755"))
        .data("x")
        .header(mode("setgid", "0002644"))
        .data("x")
        .header(mode("closed", "0000000"))
        .data("x")
        .header(mode("secret", "0000600"))
        .data("x")
        .header(mode("one-x", "0000610"))
        .data("x")
        .header(mode("open", "0000666"))
        .data("x")
        .header(Header::directory("sticky/").put(MODE, "0001777"))
        .header(Header::directory("shut/").put(MODE, "0000000"))
        .file("shut/a", "x");
    receive_all(
        DEFAULTS,
        vec![valid(
            "modes",
            tar,
            &[
                ("setuid", program("x")),
                ("setgid", file("x")),
                ("closed", file("x")),
                ("secret", file("x")),
                ("one-x", program("x")),
                ("open", file("x")),
                ("sticky", directory()),
                ("shut/a", file("x")),
            ],
        )],
    );
}

#[test]
fn symlinks_that_stay_inside_are_received() {
    let chain: Vec<_> = (0..30).map(|number| format!("c{number}")).collect();
    let mut tar = Tar::new()
        .file("a/b/file", "x")
        .symlink("a/b/root", "../..")
        .symlink("a/b/near", "file")
        .symlink("dot", ".")
        .symlink("dangling", "not/there/yet")
        .symlink("through", "a/b/root/a/b/root/a/b/file")
        .symlink("dots", "./a/.././a//b/")
        .symlink("c30", "a/b/file");
    let mut tree = vec![
        ("a/b/file", file("x")),
        ("a/b/root", symlink("../..")),
        ("a/b/near", symlink("file")),
        ("dot", symlink(".")),
        ("dangling", symlink("not/there/yet")),
        ("through", symlink("a/b/root/a/b/root/a/b/file")),
        ("dots", symlink("./a/.././a//b/")),
        ("c30", symlink("a/b/file")),
    ];
    for (number, name) in chain.iter().enumerate() {
        let target = format!("c{}", number + 1);
        tar = tar.symlink(name, &target);
        tree.push((name, symlink(&target)));
    }
    receive_all(DEFAULTS, vec![valid("symlinks", tar, &tree)]);
}
