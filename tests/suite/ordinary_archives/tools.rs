//! Payloads that ordinary tools made, in files of `tests/data/archives`: the names say
//! which tool. The release is the tree that GNU tar and bsdtar extract, or the refusal
//! says what the user can do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;

use super::tree::{self, Carries};
use super::{Bench, piped, run, tool, zstd};
use crate::inheritance::{has_lists, set_acl};
use crate::site::Site;

fn input(name: &str) -> (PathBuf, Vec<u8>) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/archives");
    let path = directory.join(format!("{name}.tar.zst"));
    let payload = fs::read(&path).expect("an input");
    (path, payload)
}

/// bsdtar of libarchive 3.6 removes a file before it makes the hard link of the
/// file to itself, and reports an error.
const REFUSED_BY_BSDTAR: &str = "09-find-T-duplicates";

/// Returns what GNU tar extracts from the payload, and bsdtar as well.
fn extracted(site: &Site, name: &str) -> tree::Tree {
    let (path, _) = input(name);
    let [by_tar, by_bsdtar] = ["tar", "bsdtar"].map(|program| {
        let target = site.dir().join(format!("{name}-{program}"));
        fs::create_dir(&target).expect("a directory");
        target
    });
    let mut tar = tool("tar", "tar");
    tar.args(["-x", "-C"]).arg(&by_tar).stderr(Stdio::null());
    // zstd reports zeros after the last frame as an error, after all of the content.
    let mut decompress = zstd(&["-d"]);
    decompress.arg(&path);
    piped(decompress, tar);
    let tree = tree::expected(&by_tar);
    if name != REFUSED_BY_BSDTAR {
        let mut bsdtar = tool("bsdtar", "libarchive-tools");
        bsdtar.arg("-xf").arg(&path).arg("-C").arg(&by_bsdtar);
        run(bsdtar);
        assert_eq!(tree, tree::expected(&by_bsdtar), "{name}");
    }
    tree
}

#[test]
fn payloads_of_other_tools_are_received() {
    let site = Site::with_config("[archive]\nrequired_paths = []\n[pending]\nmax = 100\n");
    let mut refused = Vec::new();
    for name in [
        "01-node-tar-default",
        "02-node-createZstdCompress",
        "03-pzstd",
        "04-two-frames",
        "06-python-arcname-empty",
        "07-perl-archive-tar",
        "09-find-T-duplicates",
        "10-gnu-transform-root",
        "17-klauspost-padding",
        "21-rust-tar-crate-dot-long",
    ] {
        let reply = site.receive(name, &input(name).1);
        if reply.code != 0 {
            refused.push(format!("{name}: {reply:?}"));
            continue;
        }
        assert_eq!(
            tree::released(&site, name),
            extracted(&site, name),
            "{name}"
        );
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn payloads_of_other_tools_that_are_refused_get_a_remedy() {
    let site = Site::with_config("");
    for (name, problem, remedy) in [
        (
            "12-go-FormatGNU-FileInfoHeader",
            "'index.html': gnu header has a time at byte 345",
            "Go: use tar.FormatPAX",
        ),
        (
            "18-dangling-inside",
            "'x': symlink has '..' after a part that does not exist",
            "ln -sr",
        ),
        (
            "20-v7",
            "'./': header is in the Unix version 7 format",
            "GNU tar: --format=gnu",
        ),
    ] {
        let reply = site.receive("refused", &input(name).1);
        reply.refused(65, "bad-archive");
        let start = format!("deploy-shell: bad-archive: {problem}");
        assert!(reply.stderr.starts_with(&start), "{name}: {reply:?}");
        let second = reply.stderr.lines().nth(1).unwrap_or_default();
        assert!(second.contains(remedy), "{name}: {reply:?}");
    }
    assert!(site.releases().is_empty());
}

/// Returns a bench whose source has hard links to a small and to a large file.
fn linked() -> Bench {
    let bench = Bench::new(Carries::Ustar);
    for (file, link) in [
        ("bin/serve", "bin/also"),
        ("assets/app.js", "a-link.js"),
        ("assets/app.js", "z-link.js"),
        ("empty file", "an empty link"),
    ] {
        let (file, link) = (bench.source.join(file), bench.source.join(link));
        fs::hard_link(file, link).expect("a hard link");
    }
    bench
}

#[test]
fn hard_links_are_received_as_files_of_their_own() {
    let mut bench = linked();
    bench.receive_from(bench.gnu_tar(&[]));
    bench.receive_from(bench.gnu_tar(&["--format=pax", "--sort=name"]));
    bench.receive_from(bench.gnu_tar(&["--hard-dereference"]));
    bench.receive_from(bench.bsdtar(&[]));
    bench.receive_from(bench.bsdtar(&["--format", "gnutar"]));
    bench.receive_from(bench.python("format=tarfile.DEFAULT_FORMAT"));
    let mut busybox = tool("busybox", "busybox");
    busybox.args(["tar", "-cf", "-", "-C"]);
    busybox.arg(&bench.source).arg(".");
    bench.receive_from(busybox);

    let release = bench.site.root().join("releases/release-1");
    let inode = |path: &str| {
        let metadata = fs::metadata(release.join(path)).expect("metadata");
        assert_eq!(metadata.nlink(), 1, "{path}");
        metadata.ino()
    };
    assert_ne!(inode("assets/app.js"), inode("a-link.js"));
    assert_ne!(inode("a-link.js"), inode("z-link.js"));
    assert_ne!(inode("bin/serve"), inode("bin/also"));
}

/// `find` lists a directory and each file in it, and tar archives them once for each
/// directory above: the file again is a hard link to itself.
#[test]
fn archives_of_a_list_with_directories_are_received() {
    let mut bench = linked();
    let list = bench.site.dir().join("list");
    let mut find = tool("find", "findutils");
    find.current_dir(&bench.source).args([".", "-print0"]);
    fs::write(&list, run(find)).expect("the list");
    let mut tar = tool("tar", "tar");
    tar.arg("-C").arg(&bench.source);
    tar.args(["-c", "--null", "-T"]).arg(&list);
    bench.receive_from(tar);
}

/// bsdtar archives access control lists unless `--no-acls` is set.
#[test]
fn archives_with_access_control_lists_are_received_or_refused_with_a_remedy() {
    if !has_lists() {
        return;
    }
    let mut bench = linked();
    set_acl(&bench.source, "-d -m u:daemon:rx");
    set_acl(
        &bench.source.join("bin"),
        "-m u:daemon:rx -d -m u:daemon:rwx",
    );
    let list = |bench: &Bench, entry, path| {
        let mut setfacl = tool("setfacl", "acl");
        setfacl.args(["-m", entry]).arg(bench.source.join(path));
        run(setfacl);
    };
    list(&bench, "u:daemon:r", "assets/app.js");
    list(&bench, "u:daemon:rwx,g:daemon:rx", "bin/serve");
    let archivers = |bench: &Bench| [bench.bsdtar(&[]), bench.gnu_tar(&["--acls"])];
    for archiver in archivers(&bench) {
        bench.receive_from(archiver);
    }
    // The mask makes the file executable for its group, but its owner may not run it.
    list(&bench, "u:daemon:rwx", "assets/app.js");
    for archiver in archivers(&bench) {
        let reply = bench.site.receive("refused", &piped(archiver, zstd(&[])));
        reply.refused(65, "bad-archive");
        let second = reply.stderr.lines().nth(1).unwrap_or_default();
        assert_eq!(second, "GNU tar: leave out --acls; bsdtar: add --no-acls");
    }
    bench.receive_from(bench.bsdtar(&["--no-acls"]));
    bench.receive_from(bench.gnu_tar(&[]));
}

#[test]
fn frames_of_every_tool_are_received() {
    let mut bench = Bench::new(Carries::Everything);
    let mut bsdtar = bench.bsdtar(&["--zstd"]);
    bsdtar.stderr(Stdio::null());
    bench.receive(&run(bsdtar));

    let plain = run(bench.gnu_tar(&[]));
    let frame = |bytes: &[u8]| crate::archive::zstd(bytes);
    let skippable = b"\x5e\x2a\x4d\x18\x04\0\0\0skip".as_slice();
    // One frame for every 10,000 bytes, with skippable frames and empty ones between.
    let mut many = skippable.to_vec();
    for piece in plain.chunks(10_000) {
        many.extend([&frame(piece), skippable, &frame(b"")].concat());
    }
    bench.receive(&many);
    bench.receive(&[many.as_slice(), &[0; 3]].concat());
    bench.receive(&[many.as_slice(), &[0; 10240]].concat());
}

#[test]
fn names_that_an_archiver_adds_by_mistake_get_one_warning() {
    let site = Site::with_config("");
    let files: [(&str, &[u8]); 4] = [
        ("index.html", b"x"),
        ("._index.html", b"x"),
        ("d/.DS_Store", b"x"),
        ("css\\site.css", b"x"),
    ];
    let reply = site.receive("odd", &crate::archive::tarball(&files));
    assert_eq!(reply.code, 0, "{reply:?}");
    let warnings: Vec<_> = reply.stderr.lines().collect();
    assert_eq!(warnings.len(), 1, "{reply:?}");
    for part in [
        "deploy-shell: warning: the release has 2 names (first './._index.html')",
        "COPYFILE_DISABLE=1",
        "--no-mac-metadata",
        "--exclude",
        "backslash",
    ] {
        assert!(warnings[0].contains(part), "{part}: {reply:?}");
    }
    let reply = site.receive("plain", &crate::archive::tarball(&files[..1]));
    assert_eq!((reply.code, reply.stderr.as_str()), (0, ""), "{reply:?}");
}
