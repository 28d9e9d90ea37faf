//! The lower bound for every unpacker: creates the directories and files of a tree and
//! fills them from memory, with two threads. It reads no archive, and hashes and syncs
//! nothing.
//!
//! `floor FROM TO` creates files of the names and sizes of those in FROM in TO, which
//! must exist.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let from = arguments.next().expect("the tree FROM");
    let to = arguments.next().expect("the directory TO");
    let (mut directories, mut files) = (Vec::new(), Vec::new());
    list(&from, Path::new(""), &mut directories, &mut files);
    // Reading the tree does not count.
    let started = Instant::now();
    for directory in &directories {
        fs::create_dir(to.join(directory)).expect("a directory");
    }
    let half = files.len().div_ceil(2).max(1);
    std::thread::scope(|scope| {
        for files in files.chunks(half) {
            scope.spawn(|| make(&to, files));
        }
    });
    println!("{}", started.elapsed().as_secs_f64());
}

fn list(
    from: &Path,
    below: &Path,
    directories: &mut Vec<PathBuf>,
    files: &mut Vec<(PathBuf, u64)>,
) {
    let mut entries: Vec<_> = fs::read_dir(from.join(below))
        .expect("a directory")
        .map(|entry| entry.expect("an entry"))
        .collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let path = below.join(entry.file_name());
        let meta = entry.metadata().expect("metadata");
        if meta.is_dir() {
            directories.push(path.clone());
            list(from, &path, directories, files);
        } else if meta.is_file() {
            files.push((path, meta.len()));
        }
    }
}

fn make(to: &Path, files: &[(PathBuf, u64)]) {
    let data = vec![b'x'; 1 << 20];
    for (path, size) in files {
        let mut file = File::create_new(to.join(path)).expect("a file");
        let mut left = *size as usize;
        while left > 0 {
            let piece = left.min(data.len());
            file.write_all(&data[..piece]).expect("room for it");
            left -= piece;
        }
    }
}
