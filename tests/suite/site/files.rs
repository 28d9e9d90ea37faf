//! Writes, lists and describes files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file with exactly this mode, whatever the umask is.
pub fn write_file(path: &Path, mode: u32, content: &[u8]) {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    set_mode(path, mode);
    if mode & 0o111 != 0 {
        // A child that another thread starts at this moment may inherit the open
        // file, and execve(2) then fails with ETXTBSY. So another process writes
        // the file again.
        let written = path.with_extension("written");
        fs::rename(path, &written).expect("another name");
        let copied = Command::new("cp").arg(&written).arg(path).status();
        assert!(copied.expect("cp runs").success(), "{}", path.display());
        fs::remove_file(&written).expect("it was there");
        set_mode(path, mode);
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

pub fn make_directory(path: &Path, mode: u32) {
    if !path.is_dir() {
        fs::create_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        set_mode(path, mode);
    }
}

/// Returns the entries of a directory, sorted; none if it does not exist.
pub fn children(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.expect("entry").path()).collect(),
        Err(_) => Vec::new(),
    };
    found.sort();
    found
}

pub fn file_name(path: &Path) -> String {
    let name = path.file_name().expect("a name");
    name.to_str().expect("a UTF-8 name").to_owned()
}

/// Adds a line for each file below `directory`, by its path relative to `root`.
pub fn describe(root: &Path, directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for path in children(directory) {
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let mode = meta.permissions().mode() & 0o7777;
        let kind = meta.file_type();
        let text = if kind.is_symlink() {
            let target = fs::read_link(&path).expect("a symlink");
            format!("symlink -> {}", target.display())
        } else if kind.is_dir() {
            describe(root, &path, found);
            format!("directory {mode:04o}")
        } else if kind.is_file() {
            let content = fs::read(&path).expect("a file");
            format!("file {mode:04o} {}", sha256(&content))
        } else {
            format!("special {kind:?}")
        };
        let below = path.strip_prefix(root).expect("below the root");
        found.insert(below.to_owned(), text);
    }
}
