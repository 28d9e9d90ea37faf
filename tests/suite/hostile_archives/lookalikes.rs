//! What only looks wrong is received, and is on disk byte for byte.

use super::DEFAULTS;
use super::borderline::{file, folder, link, program, receive_all, roomy, sent_as, sound};
use crate::archive::{Frame, Header, MODE, PREFIX, SIZE, Tar, zstd};

#[test]
fn names_that_only_look_wrong_are_received() {
    let odd = [
        "\u{feff}bom",
        "line\u{2028}separator",
        "right\u{202e}to left",
        "no-break\u{a0}blank",
        "emoji \u{1f980}",
        "single ' double \" quotes",
        "back\\slash",
        "..\\x",
        "C:\\x",
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
        // On a case-sensitive file system these are different files, as are the
        // two spellings of one letter.
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
    let beneath = Tar::new()
        .folder("d/")
        .link("LINK", "d")
        .file("link/x", "not through the link");
    receive_all(
        &roomy(DEFAULTS),
        vec![
            sound("odd names", tar, &tree),
            sound(
                "a folder and a link whose names differ in case",
                beneath,
                &[
                    ("d", folder()),
                    ("LINK", link("d")),
                    ("link/x", file("not through the link")),
                ],
            ),
        ],
    );
}

#[test]
fn streams_that_only_look_wrong_are_received() {
    let one = || Tar::new().file("a", "x");
    let tree = [("a", file("x"))];
    receive_all(
        &roomy(DEFAULTS),
        vec![
            sound(
                "names with dots and slashes to drop",
                Tar::new()
                    .folder("./")
                    .folder("./d///")
                    .file("././d//./a", "x"),
                &[("d/a", file("x"))],
            ),
            sound(
                "a folder after its file",
                Tar::new().file("d/a", "x").folder("d/"),
                &[("d/a", file("x"))],
            ),
            sound(
                "padding that is not zero",
                Tar::new()
                    .header(Header::file("a", 1))
                    .raw("x")
                    .raw([0xff; 511]),
                &tree,
            ),
            sound("zeros up to a whole record", one().raw([0; 10240]), &tree),
            sent_as(
                "zeros that do not fill a block",
                zstd(&[one().end(), vec![0; 100]].concat()),
                &tree,
            ),
            sound(
                "a size record equal to the header",
                Tar::new().pax(&[("size", b"1")]).file("a", "x"),
                &tree,
            ),
            sound(
                "a comment for all entries",
                Tar::new()
                    .global(&[("comment", b"3f786850e387550f")])
                    .file("a", "x"),
                &tree,
            ),
            sound("every key that is ignored", ignored_keys(), &tree),
            sound(
                "a GNU name and a GNU target",
                Tar::new()
                    .file("a", "x")
                    .long_link("a")
                    .long_name("l")
                    .header(Header::link("cut", "cut").gnu()),
                &[("a", file("x")), ("l", link("a"))],
            ),
            sound(
                "a GNU name without its NUL",
                Tar::new().extended(b'L', "named").file("a", "x"),
                &[("named", file("x"))],
            ),
            sound(
                "a file of the kind Unix version 7 had",
                Tar::new().header(Header::new(0, "a", 1)).data("x"),
                &tree,
            ),
            sound(
                "a name shared out over prefix and name",
                Tar::new()
                    .header(Header::file("a", 1).put(PREFIX, "b/c"))
                    .data("x"),
                &[("b/c/a", file("x"))],
            ),
            sound(
                "a name and a prefix that fill their fields",
                Tar::new()
                    .header(Header::file(full_name(), 1).put(PREFIX, full_prefix()))
                    .data("x"),
                &[(&format!("{}/{}", full_prefix(), full_name()), file("x"))],
            ),
            sound(
                "a size that fills its field",
                Tar::new()
                    .header(Header::file("a", 1).put(SIZE, "000000000001"))
                    .data("x"),
                &tree,
            ),
            sent_as(
                "a frame without a checksum",
                Frame::window(20, 0).raw(&one().end()).end(),
                &tree,
            ),
        ],
    );
}

/// 100 bytes, so that no NUL ends them.
fn full_name() -> String {
    "n".repeat(100)
}

/// 155 bytes, likewise.
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
            ("SCHILY.acl.access", b"user::rw-"),
            ("LIBARCHIVE.xattr.user.note", b"AGJpbmFyeQ"),
            ("LIBARCHIVE.creationtime", b"1792425600"),
            ("RHT.security.selinux", b"system_u:object_r:tmp_t:s0\0"),
            ("MSWINDOWS.rawsd", b"AQAEgBQ="),
        ])
        .file("a", "x")
}

#[test]
fn modes_are_made_plain() {
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
        .header(Header::folder("sticky/").put(MODE, "0001777"))
        .header(Header::folder("shut/").put(MODE, "0000000"))
        .file("shut/a", "x");
    receive_all(
        DEFAULTS,
        vec![sound(
            "modes",
            tar,
            &[
                ("setuid", program("x")),
                ("setgid", file("x")),
                ("closed", file("x")),
                ("secret", file("x")),
                ("one-x", program("x")),
                ("open", file("x")),
                ("sticky", folder()),
                ("shut/a", file("x")),
            ],
        )],
    );
}

#[test]
fn links_that_stay_inside_are_received() {
    let chain: Vec<_> = (0..30).map(|number| format!("c{number}")).collect();
    let mut tar = Tar::new()
        .file("a/b/file", "x")
        .link("a/b/root", "../..")
        .link("a/b/near", "file")
        .link("dot", ".")
        .link("dangling", "not/there/yet")
        .link("through", "a/b/root/a/b/root/a/b/file")
        .link("dots", "./a/.././a//b/")
        .link("c30", "a/b/file");
    let mut tree = vec![
        ("a/b/file", file("x")),
        ("a/b/root", link("../..")),
        ("a/b/near", link("file")),
        ("dot", link(".")),
        ("dangling", link("not/there/yet")),
        ("through", link("a/b/root/a/b/root/a/b/file")),
        ("dots", link("./a/.././a//b/")),
        ("c30", link("a/b/file")),
    ];
    for (number, name) in chain.iter().enumerate() {
        let target = format!("c{}", number + 1);
        tar = tar.link(name, &target);
        tree.push((name, link(&target)));
    }
    receive_all(DEFAULTS, vec![sound("links", tar, &tree)]);
}
