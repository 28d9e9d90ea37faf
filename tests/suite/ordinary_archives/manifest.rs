//! A second reader of manifests, which follows mtree(5) and not our source. libarchive
//! is a third one.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::run;
use super::tree::Tree;
use crate::site::Site;

/// Asserts that the manifest of a release lists exactly `tree`, each path once, and
/// that bsdtar reads it.
#[track_caller]
pub fn assert_lists(site: &Site, release: &str, tree: &Tree) {
    let path = site.root().join(".deploy-shell/manifests").join(release);
    let text = fs::read_to_string(&path).expect("a manifest");
    assert_eq!(text.lines().next(), Some("#mtree"), "the first line");
    assert!(text.is_ascii() && text.ends_with('\n'));

    let mut listed = Tree::new();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let (path, what) = entry(line);
        let size = what
            .size
            .is_none_or(|size| size == on_disk(site, release, &path));
        assert!(size, "the size in {line}");
        let before = listed.insert(path, what.text);
        assert_eq!(before, None, "twice: {line}");
    }
    let root = listed.remove(Path::new(""));
    assert_eq!(
        root.as_deref(),
        Some("directory 0755"),
        "the release itself"
    );
    assert_eq!(&listed, tree, "the manifest");

    let mut names: Vec<_> = libarchive(&path);
    names.sort();
    let mut wanted: Vec<_> = tree.keys().cloned().collect();
    wanted.insert(0, PathBuf::new());
    wanted.sort();
    assert_eq!(names, wanted, "what bsdtar reads");
}

fn on_disk(site: &Site, release: &str, path: &Path) -> u64 {
    let path = site.root().join("releases").join(release).join(path);
    fs::symlink_metadata(path).expect("metadata").len()
}

struct What {
    text: String,
    size: Option<u64>,
}

/// Reads one line: the path relative to the release, and its content.
fn entry(line: &str) -> (PathBuf, What) {
    let words: Vec<_> = line.split(' ').collect();
    let (text, size) = match words[1..] {
        ["type=dir", mode] => (format!("directory {}", value(mode, "mode")), None),
        ["type=link", mode, link] => {
            assert_eq!(value(mode, "mode"), "0777", "{line}");
            let target = unescaped(value(link, "link"));
            (format!("symlink -> {}", target.display()), None)
        }
        ["type=file", mode, size, digest] => {
            let digest = value(digest, "sha256digest");
            let size = value(size, "size").parse().expect("a size");
            (format!("file {} {digest}", value(mode, "mode")), Some(size))
        }
        _ => panic!("not a line of a manifest: {line}"),
    };
    (relative(words[0]), What { text, size })
}

fn value<'a>(word: &'a str, key: &str) -> &'a str {
    let (name, value) = word.split_once('=').expect("key=value");
    assert_eq!(name, key, "{word}");
    value
}

fn relative(path: &str) -> PathBuf {
    match path {
        "." => PathBuf::new(),
        path => unescaped(path.strip_prefix("./").expect("a relative path")),
    }
}

/// Reverses vis(3): `\ooo` is a byte, `\\` a backslash.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            bytes.push(b'\\');
            rest = after;
        } else {
            let (digits, after) = rest.split_at(3);
            let digits = std::str::from_utf8(digits).expect("three digits");
            bytes.push(u8::from_str_radix(digits, 8).expect("an octal byte"));
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Returns the paths that libarchive finds in the manifest.
fn libarchive(manifest: &Path) -> Vec<PathBuf> {
    let mut bsdtar = super::tool("bsdtar", "libarchive-tools");
    // A directory without the files, so that libarchive uses only the manifest.
    bsdtar.arg("-tf").arg(manifest).current_dir("/");
    let listing = String::from_utf8(run(bsdtar)).expect("escaped names");
    listing.lines().map(relative).collect()
}
