//! The floor below every unpacker: makes the folders and files of a tree and
//! fills them from memory, by two threads, and does nothing else. No archive is
//! read, nothing hashed, nothing synced.
//!
//! `floor FROM TO`: as many files of the same names and sizes as there are below
//! FROM, made below TO, which must exist.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let from = arguments.next().expect("where from");
    let to = arguments.next().expect("where to");
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    list(&from, Path::new(""), &mut folders, &mut files);
    // Looking is not part of it.
    let started = Instant::now();
    for folder in &folders {
        fs::create_dir(to.join(folder)).expect("a folder");
    }
    let half = files.len().div_ceil(2).max(1);
    std::thread::scope(|scope| {
        for files in files.chunks(half) {
            scope.spawn(|| make(&to, files));
        }
    });
    println!("{}", started.elapsed().as_secs_f64());
}

fn list(from: &Path, below: &Path, folders: &mut Vec<PathBuf>, files: &mut Vec<(PathBuf, u64)>) {
    let mut entries: Vec<_> = fs::read_dir(from.join(below))
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let path = below.join(entry.file_name());
        let meta = entry.metadata().expect("it can be looked at");
        if meta.is_dir() {
            folders.push(path.clone());
            list(from, &path, folders, files);
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
