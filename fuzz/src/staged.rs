//! Unpacks in process, and then checks what is on disk.
//!
//! Nothing here uses the program's own code for paths and symlinks: two readers
//! that share a mistake would agree on it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use deploy_shell::archive::{self, Progress, UnpackError, UnpackLimits, Writers};
use deploy_shell::assemble::{AssembleJob, TreeLimits, staged};
use deploy_shell::dir::Dir;
use deploy_shell::manifest::{Entry, Kind};
use deploy_shell::names::Sha256Digest;
use deploy_shell::shared_paths::Shared;
use deploy_shell::store::Inherited;
use nix::sys::stat::{Mode, umask};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub const LIMITS: UnpackLimits = UnpackLimits {
    keep_times: true,
    max_unpacked: 4 << 20,
    max_file: 2 << 20,
    max_entries: 200,
    block: 512,
    room_bytes: 4 << 20,
    room_inodes: 200,
    symlinks: true,
};

/// The maximum number of steps when following a symlink.
const MAX_STEPS: usize = 4096;

/// Everything in a release, by path. The release itself is `""`.
pub type Tree = BTreeMap<Vec<u8>, Kind>;

/// Unpacks `payload`, checks what is on disk, and returns the tree if the payload
/// was accepted.
///
/// # Panics
///
/// Panics if a property that must hold for every input does not hold.
pub fn unpack(payload: &[u8]) -> Option<Tree> {
    unpack_sharing(payload, &Shared::default())
}

/// Does the same on a site with shared paths: each of them is a symlink, and no
/// other symlink leads out.
pub fn unpack_sharing(payload: &[u8], shared: &Shared) -> Option<Tree> {
    umask(Mode::from_bits_truncate(0o022));
    let hold = hold();
    let release = hold.path().join("release");
    fs::create_dir(&release).expect("a directory for the release");
    let mut file = tempfile::tempfile_in(hold.path()).expect("a file");
    file.write_all(payload).expect("the payload is written");
    file.rewind().expect("a regular file");

    let accepted = unpack_payload(file, &release, shared);
    let beside: Vec<OsString> = names(hold.path());
    assert_eq!(beside, ["release"], "nothing is outside of the release");
    let tree = accepted.then(|| {
        let tree = walk(&release);
        assert_eq!(
            assembled(&release, shared),
            tree,
            "the assembler sees what is on disk"
        );
        assert!(tree.len() > 1 || tree.contains_key(b"".as_slice()));
        let links: Tree = shared_links(shared).collect();
        for (path, kind) in &links {
            assert_eq!(tree.get(path), Some(kind), "a shared link");
        }
        for (path, kind) in &tree {
            if let Kind::Link { target } = kind
                && !links.contains_key(path)
            {
                assert_inside(&tree, path, target);
            }
        }
        tree
    });
    remove(hold);
    tree
}

/// Returns the symlinks for `shared`, with the targets that the contract states.
pub fn shared_links(shared: &Shared) -> impl Iterator<Item = (Vec<u8>, Kind)> {
    shared.links.iter().map(|link| {
        let path = link.as_str();
        let depth = path.matches('/').count();
        let target = format!("../../{}shared/{path}", "../".repeat(depth));
        let target = target.into_bytes();
        (path.as_bytes().to_vec(), Kind::Link { target })
    })
}

fn unpack_payload(payload: File, release: &Path, shared: &Shared) -> bool {
    let staging = Dir::open_root(release).expect("the directory");
    let writers = Writers::start(2).expect("two threads");
    let progress = Progress::new(Box::new(std::io::sink()));
    match archive::unpack_into(payload, staging, LIMITS, shared, writers, progress) {
        Ok(report) => {
            assert_eq!(report.known.len(), shared.links.len());
            true
        }
        Err(error @ UnpackError::Refused { .. }) => {
            // The client sees this text, on one line.
            let text = error.to_string();
            assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            assert!(text.len() < 1024, "{text}");
            false
        }
        // A limit was reached. Nothing else can fail: the files are in memory.
        Err(UnpackError::Io(error)) => {
            assert_eq!(error.code, deploy_shell::error::Code::DiskFull, "{error}");
            false
        }
        Err(UnpackError::WriterStopped) => panic!("a thread stopped without an error"),
    }
}

fn hold() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary directory")
}

/// Removes the directory. After a refusal the writer threads can still write; in the
/// program itself the process would have ended.
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
        "directories can be removed"
    );
}

fn names(dir: &Path) -> Vec<OsString> {
    fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

/// Returns what is on disk: files, directories and symlinks with the right modes.
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
            let target = fs::read_link(&place).expect("a symlink");
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
                sha256: Sha256Digest(Sha256::digest(&content).into()),
            }
        };
        let path = path.into_os_string().into_vec();
        assert_valid_name(&path);
        tree.insert(path, kind);
    }
    tree
}

/// Checks a name by the rules of the contract.
fn assert_valid_name(path: &[u8]) {
    let text = std::str::from_utf8(path).expect("names are UTF-8");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(
        path.len() <= 1024 && text.split('/').count() <= 32,
        "{text:?}"
    );
}

/// Returns what the assembler finds. The program hashes what it submits.
fn assembled(release: &Path, shared: &Shared) -> Tree {
    let job = AssembleJob {
        staging: "unused".to_owned(),
        limits: TreeLimits {
            max_unpacked: LIMITS.max_unpacked,
            max_file: LIMITS.max_file,
            max_entries: LIMITS.max_entries,
        },
        shared: shared.clone(),
        known: Vec::new(),
        delta: None,
        inherited: Inherited::NOTHING,
        sandbox_required: true,
    };
    let tree = Dir::open_root(release).expect("the release");
    let mut digests = BTreeMap::new();
    let mut hash = |mut file: File, size: u64, index: usize| {
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("a file");
        assert_eq!(content.len() as u64, size);
        digests.insert(index, Sha256Digest(Sha256::digest(&content).into()));
    };
    let entries = staged::walk(&tree, &job, None, &mut hash).expect("a release");
    let mut tree = Tree::new();
    for (index, Entry { path, mut kind }) in entries.into_iter().enumerate() {
        if let Kind::File { sha256, .. } = &mut kind {
            *sha256 = digests[&index];
        }
        assert!(tree.insert(path, kind).is_none(), "an entry occurs twice");
    }
    tree
}

/// Follows a symlink by names alone. A missing part can become anything one day, so
/// a step up after it counts as leaving the release.
pub fn assert_inside(tree: &Tree, link: &[u8], target: &[u8]) {
    let shown = || format!("{} -> {}", link.escape_ascii(), target.escape_ascii());
    let mut at: Vec<&[u8]> = link.split(|byte| *byte == b'/').collect();
    at.pop();
    let mut ahead: Vec<&[u8]> = parts(target);
    let mut missing = false;
    let mut steps = 0;
    while let Some(step) = ahead.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            panic!("{} does not end", shown());
        }
        match step {
            b"" | b"." => continue,
            b".." => {
                assert!(!missing, "{} steps up from a missing part", shown());
                assert!(at.pop().is_some(), "{} leaves the release", shown());
                continue;
            }
            name => at.push(name),
        }
        match tree.get(&at.join(&b'/')) {
            Some(Kind::Dir) => {}
            Some(Kind::Link { target }) => {
                assert!(!target.starts_with(b"/"), "{} becomes absolute", shown());
                at.pop();
                ahead.extend(parts(target));
            }
            // A path through a file leads nowhere, as if it was missing.
            Some(Kind::File { .. }) | None => missing = true,
        }
    }
    assert!(!target.starts_with(b"/"), "{} is absolute", shown());
}

/// Returns the components in reverse order.
fn parts(target: &[u8]) -> Vec<&[u8]> {
    target.split(|byte| *byte == b'/').rev().collect()
}

/// Returns the names in the tree, for a message.
pub fn shown(tree: &Tree) -> String {
    let names: Vec<String> = tree
        .keys()
        .map(|path| OsString::from_vec(path.clone()))
        .map(|path| path.as_bytes().escape_ascii().to_string())
        .collect();
    names.join(" ")
}
