//! Unpacking in process, and a second opinion on what is on disk afterwards.
//!
//! Everything here is written without the program's own path and link code:
//! two readers that share a mistake would agree on it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use deploy_shell::manifest::{Entries, Entry, Kind};
use deploy_shell::dir::Dir;
use deploy_shell::shared_paths::Shared;
use deploy_shell::archive::{self, Limits, Writers};
use nix::sys::stat::{Mode, umask};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub const LIMITS: Limits = Limits {
    max_unpacked: 4 << 20,
    max_file: 2 << 20,
    max_entries: 200,
    room_bytes: 4 << 20,
    room_inodes: 200,
    symlinks: true,
};

/// Most folders that a link may lead through.
const MAX_STEPS: usize = 4096;

/// By path below the release, itself `""`.
pub type Tree = BTreeMap<Vec<u8>, Kind>;

/// Unpacks `payload` and checks what is there; the tree, if it was accepted.
///
/// # Panics
/// If anything holds that must not hold for any input.
pub fn unpack(payload: &[u8]) -> Option<Tree> {
    unpack_sharing(payload, &Shared::default())
}

/// The same on a site that shares paths: each is there as its link, and
/// nothing else leads out.
pub fn unpack_sharing(payload: &[u8], shared: &Shared) -> Option<Tree> {
    umask(Mode::from_bits_truncate(0o022));
    let hold = hold();
    let release = hold.path().join("release");
    fs::create_dir(&release).expect("a folder for the release");
    let mut spool = tempfile::tempfile_in(hold.path()).expect("a spool");
    spool.write_all(payload).expect("a filled spool");

    let mut report = Vec::new();
    let accepted = read(spool, &release, shared, &mut report);
    let beside: Vec<OsString> = names(hold.path());
    assert_eq!(beside, ["release"], "something was written outside");
    let tree = accepted.then(|| {
        let tree = walk(&release);
        assert_eq!(reported(&report), tree, "the report is not what is there");
        assert!(tree.len() > 1 || tree.contains_key(b"".as_slice()));
        let links: Tree = shared_links(shared).collect();
        for (path, kind) in &links {
            assert_eq!(tree.get(path), Some(kind), "a shared link");
        }
        for (path, kind) in &tree {
            if let Kind::Link { target } = kind
                && !links.contains_key(path)
            {
                stays_inside(&tree, path, target);
            }
        }
        tree
    });
    remove(hold);
    tree
}

/// The links of `shared`, their targets in the contract's words.
pub fn shared_links(shared: &Shared) -> impl Iterator<Item = (Vec<u8>, Kind)> {
    shared.links.iter().map(|link| {
        let path = link.as_str();
        let folders = path.matches('/').count();
        let target = format!("../../{}shared/{path}", "../".repeat(folders));
        let target = target.into_bytes();
        (path.as_bytes().to_vec(), Kind::Link { target })
    })
}

fn read(spool: File, release: &Path, shared: &Shared, report: &mut Vec<u8>) -> bool {
    let staging = Dir::open_root(release).expect("the folder");
    let writers = Writers::start(2).expect("two threads");
    match archive::unpack_into(spool, staging, LIMITS, shared, writers, report) {
        Ok(()) => true,
        Err(failure @ archive::Failure::Refused { .. }) => {
            // It is shown to a client, on one line.
            let text = failure.to_string();
            assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            assert!(text.len() < 1024, "{text}");
            false
        }
        // The limits' own answer; nothing else can fail in memory.
        Err(archive::Failure::Io(error)) => {
            assert_eq!(error.code, deploy_shell::error::Code::DiskFull, "{error}");
            false
        }
        Err(archive::Failure::Stopped) => panic!("a thread stopped without a reason"),
    }
}

fn hold() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary folder")
}

/// After a refusal the writing threads may still be at work on what they were
/// given; the program itself would have ended.
fn remove(hold: TempDir) {
    static LEFT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..1000 {
        match fs::remove_dir_all(hold.path()) {
            Ok(()) => return,
            Err(_) => std::thread::yield_now(),
        }
    }
    assert!(
        LEFT.fetch_add(1, Ordering::Relaxed) < 100,
        "folders are left"
    );
}

fn names(folder: &Path) -> Vec<OsString> {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

/// What is on disk: files, folders and links of the right modes, or a panic.
fn walk(release: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let place = release.join(&path);
        let found = fs::symlink_metadata(&place).expect("it was listed");
        let mode = found.permissions().mode() & 0o7777;
        let kind = if found.is_dir() {
            assert_eq!(mode, 0o755, "{path:?}");
            waiting.extend(names(&place).iter().map(|name| path.join(name)));
            Kind::Dir
        } else if found.is_symlink() {
            let target = fs::read_link(&place).expect("a link");
            Kind::Link {
                target: target.into_os_string().into_vec(),
            }
        } else {
            assert!(found.is_file(), "{path:?} is of another kind");
            assert!(matches!(mode, 0o644 | 0o755), "{path:?} has mode {mode:o}");
            let content = fs::read(&place).expect("a file");
            Kind::File {
                executable: mode == 0o755,
                size: content.len() as u64,
                sha256: deploy_shell::names::Sha256Digest(Sha256::digest(&content).into()),
            }
        };
        let path = path.into_os_string().into_vec();
        plain(&path);
        tree.insert(path, kind);
    }
    tree
}

/// The contract's words on names.
fn plain(path: &[u8]) {
    let text = std::str::from_utf8(path).expect("names are UTF-8");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(
        path.len() <= 1024 && text.split('/').count() <= 32,
        "{text:?}"
    );
}

fn reported(report: &[u8]) -> Tree {
    let mut from = report;
    let mut entries = Entries::new(&mut from);
    let mut tree = Tree::new();
    while let Some(Entry { path, kind }) = entries.next_entry().expect("a whole report") {
        assert!(tree.insert(path, kind).is_none(), "reported twice");
    }
    tree
}

/// Follows a link by names alone. Where a part is missing anything may come
/// to stand one day, so from there on a step up counts as leaving.
fn stays_inside(tree: &Tree, link: &[u8], target: &[u8]) {
    let shown = || format!("{} -> {}", link.escape_ascii(), target.escape_ascii());
    let mut at: Vec<&[u8]> = link.split(|byte| *byte == b'/').collect();
    at.pop();
    let mut ahead: Vec<&[u8]> = parts(target);
    let mut missing = false;
    let mut steps = 0;
    while let Some(step) = ahead.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            panic!("{} leads in circles", shown());
        }
        match step {
            b"" | b"." => continue,
            b".." => {
                assert!(!missing, "{} steps up from what is not there", shown());
                assert!(at.pop().is_some(), "{} leaves the release", shown());
                continue;
            }
            name => at.push(name),
        }
        match tree.get(&at.join(&b'/')) {
            Some(Kind::Dir) => {}
            Some(Kind::Link { target }) => {
                assert!(!target.starts_with(b"/"), "{} turns absolute", shown());
                at.pop();
                ahead.extend(parts(target));
            }
            // A file with more behind it is as good as missing.
            Some(Kind::File { .. }) | None => missing = true,
        }
    }
    assert!(!target.starts_with(b"/"), "{} is absolute", shown());
}

/// The components, the first one last.
fn parts(target: &[u8]) -> Vec<&[u8]> {
    target.split(|byte| *byte == b'/').rev().collect()
}

/// For messages.
pub fn shown(tree: &Tree) -> String {
    let names: Vec<String> = tree
        .keys()
        .map(|path| OsString::from_vec(path.clone()))
        .map(|path| path.as_bytes().escape_ascii().to_string())
        .collect();
    names.join(" ")
}
