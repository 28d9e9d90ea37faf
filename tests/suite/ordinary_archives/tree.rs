//! A site's source tree, with everything a build may leave in one, and how it
//! must look as a release.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::site::{Site, sha256, write_file};

/// What the archive format at hand can carry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    Everything,
    /// No path over 255 bytes, no name or target over 100.
    Ustar,
    /// No empty folder: git knows only files.
    Git,
}

/// Path to the words [`Site::snapshot`] has for what stands there.
pub type Tree = BTreeMap<PathBuf, String>;

/// Makes the tree in the new folder `root`.
pub fn make(root: &Path, carries: Carries) {
    let big = noise(1_300_001);
    let mut files: Vec<(String, u32, &[u8])> = vec![
        ("index.html".into(), 0o644, b"<h1>one</h1>\n"),
        ("empty file".into(), 0o644, b""),
        ("bin/serve".into(), 0o755, b"#!/bin/sh\n"),
        ("bin/owner-only".into(), 0o744, b"#!/bin/sh\n"),
        ("config/secret".into(), 0o600, b"hunter2\n"),
        ("config/read-only".into(), 0o444, b"fixed\n"),
        ("assets/app.js".into(), 0o644, &big),
        ("assets/one block".into(), 0o644, &big[..512]),
        ("größe/naïve – 日本語 🦀.txt".into(), 0o644, b"unicode"),
        ("with spaces/a  b .txt".into(), 0o644, b"blanks"),
        ("odd/-dash".into(), 0o644, b"1"),
        ("odd/#hash=is;'\"*?$(x)".into(), 0o644, b"2"),
        ("odd/back\\slash\\040".into(), 0o644, b"3"),
        ("odd/.hidden".into(), 0o644, b"4"),
        // Over 100 bytes, in folders a ustar header can still hold.
        (nested(4, 40) + "/file", 0o644, b"5"),
    ];
    let mut links = vec![
        ("latest", "assets".to_owned()),
        ("assets/current.js", "app.js".to_owned()),
        ("config/from-parent", "../assets/app.js".to_owned()),
        ("größe/program", "../bin/serve".to_owned()),
        ("with spaces/to a blank", "a  b .txt".to_owned()),
        ("not-yet", "assets/later.js".to_owned()),
    ];
    let long_name = "n".repeat(200);
    if carries != Carries::Ustar {
        files.push((format!("long/{long_name}"), 0o644, b"6"));
        files.push((nested(8, 60) + "/file", 0o755, b"7"));
        links.push(("to-long", format!("long/{long_name}")));
        links.push(("to-nested", nested(8, 60)));
    }

    fs::create_dir(root).expect("a new folder");
    for (path, mode, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        write_file(&path, mode, content);
    }
    for (path, target) in links {
        symlink(target, root.join(path)).expect("a link");
    }
    if carries != Carries::Git {
        fs::create_dir_all(root.join("empty folder/inside")).expect("a folder");
    }
}

/// `depth` folders, one in the other, with names of `length` bytes.
fn nested(depth: usize, length: usize) -> String {
    vec!["d".repeat(length); depth].join("/")
}

/// Bytes no compressor makes smaller, and the same ones in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(length)
    .collect()
}

/// The tree at `root` as a release shows it: modes made plain.
pub fn expected(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

fn walk(root: &Path, folder: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let text = if meta.is_dir() {
            walk(root, &path, tree);
            "folder 0755".to_owned()
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).expect("a link");
            format!("link -> {}", target.display())
        } else {
            let program = meta.permissions().mode() & 0o111 != 0;
            let mode = if program { "0755" } else { "0644" };
            let content = fs::read(&path).expect("a file");
            format!("file {mode} {}", sha256(&content))
        };
        tree.insert(path.strip_prefix(root).expect("below").into(), text);
    }
}

/// The release as it stands on disk.
pub fn released(site: &Site, release: &str) -> Tree {
    let below = Path::new("releases").join(release);
    site.snapshot()
        .into_iter()
        .filter_map(|(path, text)| Some((path.strip_prefix(&below).ok()?.to_owned(), text)))
        .filter(|(path, _)| !path.as_os_str().is_empty())
        .collect()
}
