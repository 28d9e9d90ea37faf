//! A source tree with everything that a build can leave in it, and its expected state
//! as a release.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::site::{Site, sha256, write_file};

/// What an archive format can contain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    Everything,
    /// No path over 255 bytes, no name or target over 100.
    Ustar,
    /// No empty directory: git knows only files.
    Git,
}

/// Each path with its text from [`Site::snapshot`].
pub type Tree = BTreeMap<PathBuf, String>;

/// Creates the tree in the new directory `root`.
pub fn create(root: &Path, carries: Carries) {
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
        ("with spaces/a  b .txt".into(), 0o644, b"spaces"),
        ("odd/-dash".into(), 0o644, b"1"),
        ("odd/#hash=is;'\"*?$(x)".into(), 0o644, b"2"),
        ("odd/back\\slash\\040".into(), 0o644, b"3"),
        ("odd/.hidden".into(), 0o644, b"4"),
        // Over 100 bytes, in directories a ustar header can still hold.
        (nested(4, 40) + "/file", 0o644, b"5"),
    ];
    let mut links = vec![
        ("latest", "assets".to_owned()),
        ("assets/current.js", "app.js".to_owned()),
        ("config/from-parent", "../assets/app.js".to_owned()),
        ("größe/program", "../bin/serve".to_owned()),
        ("with spaces/to a space", "a  b .txt".to_owned()),
        ("not-yet", "assets/later.js".to_owned()),
    ];
    let long_name = "n".repeat(200);
    if carries != Carries::Ustar {
        files.push((format!("long/{long_name}"), 0o644, b"6"));
        files.push((nested(8, 60) + "/file", 0o755, b"7"));
        links.push(("to-long", format!("long/{long_name}")));
        links.push(("to-nested", nested(8, 60)));
    }

    fs::create_dir(root).expect("a new directory");
    for (path, mode, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        write_file(&path, mode, content);
    }
    for (path, target) in links {
        symlink(target, root.join(path)).expect("a symlink");
    }
    if carries != Carries::Git {
        fs::create_dir_all(root.join("empty directory/inside")).expect("a directory");
    }
}

/// Returns `depth` nested directories with names of `length` bytes.
fn nested(depth: usize, length: usize) -> String {
    vec!["d".repeat(length); depth].join("/")
}

/// Returns bytes that do not compress, the same in every run.
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

/// Returns the tree at `root` as a release has it, with normalized modes.
pub fn expected(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

fn walk(root: &Path, directory: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("metadata");
        let text = if meta.is_dir() {
            walk(root, &path, tree);
            "directory 0755".to_owned()
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).expect("a symlink");
            format!("symlink -> {}", target.display())
        } else {
            let program = meta.permissions().mode() & 0o111 != 0;
            let mode = if program { "0755" } else { "0644" };
            let content = fs::read(&path).expect("a file");
            format!("file {mode} {}", sha256(&content))
        };
        tree.insert(path.strip_prefix(root).expect("below").into(), text);
    }
}

/// Returns the release on disk.
pub fn released(site: &Site, release: &str) -> Tree {
    let below = Path::new("releases").join(release);
    site.snapshot()
        .into_iter()
        .filter_map(|(path, text)| Some((path.strip_prefix(&below).ok()?.to_owned(), text)))
        .filter(|(path, _)| !path.as_os_str().is_empty())
        .collect()
}
