//! The modification times of a release.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::archive::{Header, MTIME, Tar, zstd};
use crate::site::Site;

/// 1980-01-01T00:00:00Z.
const OLDEST: i64 = 315_532_800;

pub fn sh(directory: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .status();
    assert!(status.expect("sh runs").success(), "{script}");
}

/// Returns the archive that a shell script writes to stdout.
pub fn archive_of(directory: &Path, script: &str) -> Vec<u8> {
    sh(directory, &format!("{script} > {directory:?}/archive.tar"));
    let tar = fs::read(directory.join("archive.tar")).expect("the archive");
    zstd(&tar)
}

pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("after the epoch").as_secs()).expect("a time")
}

fn time(path: &Path) -> (i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (meta.mtime(), meta.mtime_nsec())
}

/// Returns the times of all files and directories below `directory`, and its own.
fn times(directory: &Path) -> BTreeMap<String, (i64, i64)> {
    let mut found = BTreeMap::from([(String::new(), time(directory))]);
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_symlink() {
                continue;
            }
            let below = path.strip_prefix(directory).expect("below");
            found.insert(below.display().to_string(), time(&path));
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

#[test]
fn files_and_directories_have_the_times_that_tar_extracts() {
    let site = Site::with_config("[shared]\nlinks = [\".env\"]\n");
    fs::write(site.root().join("shared/.env"), "KEY=1").expect("a shared file");
    let source = site.dir().join("source");
    fs::create_dir(&source).expect("a directory");
    sh(
        &source,
        "mkdir -p a/b/c a/d empty
         echo one > index.html; echo two > a/b/deep; ln -s index.html link
         head -c 700000 /dev/zero > a/large
         touch -d '2021-03-04 05:06:07.123456789 UTC' index.html
         touch -d '1999-12-31 23:59:59 UTC' a/b/deep a/large
         touch -d '2020-01-02 00:00:00 UTC' empty a/b/c a/d
         touch -d '2020-01-02 12:00:00 UTC' a/b
         touch -d '2020-01-03 00:00:00.5 UTC' a
         touch -d '2020-01-04 00:00:00 UTC' .",
    );
    for (number, tar) in [
        "tar --format=gnu -c .",
        "tar --format=ustar -c .",
        "tar --format=posix -c .",
        "bsdtar -c --format=pax .",
        // Without entries for directories.
        "tar --format=posix --no-recursion -c index.html a/b/deep",
    ]
    .iter()
    .enumerate()
    {
        let archive = site.dir().join(format!("archive{number}.tar"));
        sh(&source, &format!("{tar} > '{}'", archive.display()));
        let extracted = site.dir().join(format!("extracted{number}"));
        fs::create_dir(&extracted).expect("a directory");
        // GNU tar loses the time of a directory that bsdtar lists late.
        let tool = tar.split(' ').next().expect("a word");
        sh(&extracted, &format!("{tool} -xf '{}'", archive.display()));
        let release = format!("r{number}");
        let payload = zstd(&fs::read(&archive).expect("the archive"));
        site.receive(&release, &payload).ok();
        let mut expected = times(&extracted);
        let mut found = times(&site.root().join("releases").join(&release));
        if tool == "bsdtar" {
            // It leaves the directory itself alone.
            expected.insert(String::new(), (1_578_096_000, 0));
        }
        if tar.contains("--no-recursion") {
            for implied in ["", "a", "a/b"] {
                expected.remove(implied);
                let (seconds, _) = found.remove(implied).expect("it exists");
                assert!(
                    (now() - 600..=now()).contains(&seconds),
                    "{implied}: {seconds}"
                );
            }
        }
        assert_eq!(found, expected, "{tar}");
    }
}

/// A read that changed the access time would change every inode again, and the final sync
/// would write it again.
#[test]
fn hashing_does_not_change_the_access_time_of_a_file() {
    let site = Site::new();
    site.receive("r1", &zstd(&Tar::new().file("a", b"a").end()))
        .ok();
    let path = site.root().join("releases/r1/a");
    let found = fs::metadata(&path).expect("a file");
    // The time of the archive was set last, and that is a change.
    let (access, change) = (
        (found.atime(), found.atime_nsec()),
        (found.ctime(), found.ctime_nsec()),
    );
    assert!(access <= change, "{access:?} {change:?}");
}

#[test]
fn times_before_1980_and_in_the_future_are_clamped() {
    let site = Site::new();
    let mut negative = [0xff; 12];
    negative[11] = 0xfe;
    let mut late = [0; 12];
    (late[0], late[4]) = (0x80, 1);
    let future = format!("{}", now() + 1_000_000);
    let tar = Tar::new()
        .header(Header::file("zero", 0).put(MTIME, "00000000000"))
        .header(Header::file("empty", 0).put(MTIME, ""))
        .header(Header::file("negative", 0).put(MTIME, negative))
        .header(Header::file("late", 0).put(MTIME, late))
        .pax(&[("mtime", future.as_bytes())])
        .file("future", b"")
        .pax(&[("mtime", b"-5.5")])
        .file("record-negative", b"")
        .pax(&[("mtime", b"1600000000.25")])
        .header(Header::file("record", 0).put(MTIME, "00000000001"))
        .header(Header::directory("old").put(MTIME, "00000000000"));
    let before = now();
    site.receive("r1", &zstd(&tar.end())).ok();
    let release = site.root().join("releases/r1");
    for name in ["zero", "empty", "negative", "record-negative", "old"] {
        assert_eq!(time(&release.join(name)), (OLDEST, 0), "{name}");
    }
    for name in ["late", "future"] {
        let (seconds, _) = time(&release.join(name));
        assert!((before..=now()).contains(&seconds), "{name}: {seconds}");
    }
    assert_eq!(time(&release.join("record")), (1_600_000_000, 250_000_000));
}

#[test]
fn with_received_every_file_has_the_time_of_the_receive() {
    let site = Site::with_config("[archive]\ntimes = \"received\"\n");
    let tar = Tar::new()
        .header(Header::directory("a"))
        .file("a/page", b"x")
        .file("b/page", b"y");
    let before = now();
    site.receive("r1", &zstd(&tar.end())).ok();
    let found = times(&site.root().join("releases/r1"));
    let one = found[""];
    assert!((before..=now()).contains(&one.0), "{one:?}");
    assert!(found.values().all(|time| *time == one), "{found:?}");
}

/// Python compares the time and the size of a source with those in the compiled file.
#[test]
fn compiled_python_files_are_valid_in_the_release() {
    let site = Site::new();
    let source = site.dir().join("source");
    fs::create_dir(&source).expect("a directory");
    sh(
        &source,
        "mkdir app; echo 'x = 1' > app/__init__.py; echo 'y = 2' > app/part.py
         touch -d '2021-03-04 05:06:07.5 UTC' app/*.py
         python3 -m compileall -q app",
    );
    let payload = archive_of(site.dir(), "tar -C source -c .");
    site.receive("r1", &payload).ok();
    let output = Command::new("python3")
        .args(["-v", "-B", "-c", "import app.part"])
        .current_dir(site.root().join("releases/r1"))
        .output()
        .expect("python3 runs");
    let trace = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{trace}");
    for name in ["__init__", "part"] {
        let compiled = trace
            .lines()
            .find(|line| line.contains("matches") && line.contains(&format!("app/{name}.py")));
        assert!(compiled.is_some(), "{name} is compiled again: {trace}");
    }
}
