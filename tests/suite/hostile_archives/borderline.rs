//! The other side of every limit: an archive exactly at the limit is received, and its
//! content is on disk byte for byte.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::DEFAULTS;
use super::limits::SMALL;
use crate::archive::{Frame, Header, Tar, pax_record, zstd};
use crate::site::{Site, sha256};

/// The expected content of a release: each path with its text from
/// [`Site::snapshot`].
type Tree = BTreeMap<PathBuf, String>;

pub struct ValidArchive {
    name: &'static str,
    payload: Vec<u8>,
    tree: Tree,
}

/// Returns an archive that must be received. `tar` has no end yet.
pub fn valid(name: &'static str, tar: Tar, tree: &[(&str, String)]) -> ValidArchive {
    valid_payload(name, zstd(&tar.end()), tree)
}

/// Returns a payload that must be received.
pub fn valid_payload(
    name: &'static str,
    payload: Vec<u8>,
    tree: &[(&str, String)],
) -> ValidArchive {
    let mut whole = Tree::new();
    for (path, what) in tree {
        let path = PathBuf::from(path);
        let parents = path.ancestors().skip(1);
        for parent in parents.filter(|parent| !parent.as_os_str().is_empty()) {
            whole.entry(parent.into()).or_insert_with(directory);
        }
        whole.insert(path, what.clone());
    }
    ValidArchive {
        name,
        payload,
        tree: whole,
    }
}

pub fn file(content: impl AsRef<[u8]>) -> String {
    format!("file 0644 {}", sha256(content.as_ref()))
}

pub fn program(content: impl AsRef<[u8]>) -> String {
    format!("file 0755 {}", sha256(content.as_ref()))
}

pub fn directory() -> String {
    "directory 0755".to_owned()
}

pub fn symlink(target: &str) -> String {
    format!("symlink -> {target}")
}

#[track_caller]
pub fn receive_all(config: &str, archives: Vec<ValidArchive>) {
    let site = Site::with_config(config);
    let mut refused = Vec::new();
    for (number, archive) in archives.into_iter().enumerate() {
        let release = format!("valid-{number}");
        let reply = site.receive(&release, &archive.payload);
        if reply.code != 0 {
            refused.push(format!("{}: {reply:?}", archive.name));
            continue;
        }
        let below = PathBuf::from("releases").join(&release);
        let on_disk: Tree = site
            .snapshot()
            .into_iter()
            .filter_map(|(path, what)| Some((path.strip_prefix(&below).ok()?.into(), what)))
            .filter(|(path, _): &(PathBuf, _)| !path.as_os_str().is_empty())
            .collect();
        assert_eq!(on_disk, archive.tree, "{}", archive.name);
        assert!(site.leftovers().is_empty(), "{}", archive.name);
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// Returns a configuration with all defaults but a higher number of pending releases.
pub fn many_pending(config: &str) -> String {
    format!("{config}\n[pending]\nmax = 1000\n")
}

#[test]
fn archives_exactly_at_a_limit_are_received() {
    let component = "c".repeat(255);
    let path = vec!["p".repeat(204); 5].join("/");
    let deep = vec!["d"; 32].join("/");
    assert_eq!(path.len(), 1024);
    let named = |name: &str| {
        let tar = Tar::new().pax(&[("path", name.as_bytes())]);
        tar.file("a", "x")
    };
    let header = [
        pax_record("path", b"named"),
        pax_record("comment", &[b'c'; 8178 - 14]),
    ];
    let header = header.concat();
    assert_eq!(header.len(), 8 << 10);
    receive_all(
        &many_pending(DEFAULTS),
        vec![
            valid(
                "a component of 255 bytes",
                named(&component),
                &[(&component, file("x"))],
            ),
            valid("a path of 1,024 bytes", named(&path), &[(&path, file("x"))]),
            valid("32 deep", named(&deep), &[(&deep, file("x"))]),
            valid(
                "a pax header of 8 KiB",
                Tar::new().extended(b'x', &header).file("a", "x"),
                &[("named", file("x"))],
            ),
            valid(
                "a symlink target of 1,024 bytes",
                Tar::new()
                    .file("a", "x")
                    .pax(&[("linkpath", path.as_bytes())])
                    .symlink("l", "x"),
                &[("a", file("x")), ("l", symlink(&path))],
            ),
            valid_payload(
                "a window of 128 MiB",
                Frame::window(27, 0)
                    .raw(&Tar::new().file("a", "x").end())
                    .end(),
                &[("a", file("x"))],
            ),
            valid_payload(
                "a file larger than the window",
                Frame::window(17, 0)
                    .raw(&Tar::new().header(Header::file("a", 16 << 20)).cut())
                    .zeros((16 << 20) + 1024)
                    .end(),
                &[("a", file(vec![0; 16 << 20]))],
            ),
        ],
    );
}

#[test]
fn archives_exactly_at_the_limits_of_the_site_are_received() {
    let longest = vec![7; 64 << 10];
    let names: Vec<_> = (0..20).map(|number| format!("f{number}")).collect();
    let files = |count: usize, data: &[u8]| {
        let tar = names[..count]
            .iter()
            .fold(Tar::new(), |tar, name| tar.file(name, data));
        let tree: Vec<_> = names[..count]
            .iter()
            .map(|name| (name.as_str(), file(data)))
            .collect();
        (tar, tree)
    };
    let (twenty, twenty_on_disk) = files(20, b"");
    let (full, full_on_disk) = files(16, &longest);
    let repeated = (0..1039).fold(Tar::new().file("f0", ""), |tar, _| tar.directory("d/"));
    receive_all(
        &many_pending(SMALL),
        vec![
            valid("exactly as many entries", twenty, &twenty_on_disk),
            valid("exactly as many bytes", full, &full_on_disk),
            valid(
                "exactly as many entries, repeated ones included",
                repeated,
                &[("f0", file("")), ("d", directory())],
            ),
        ],
    );
}

/// Each file holds the handle of another directory while it waits to be written.
#[test]
fn a_file_in_each_of_many_directories_is_received() {
    let paths: Vec<_> = (0..3000)
        .map(|number| format!("{}/{number}/{}/file", number % 7, number % 3))
        .collect();
    let tar = paths
        .iter()
        .fold(Tar::new(), |tar, path| tar.file(path, path));
    let tree: Vec<_> = paths
        .iter()
        .map(|path| (path.as_str(), file(path)))
        .collect();
    receive_all(DEFAULTS, vec![valid("many directories", tar, &tree)]);
}
