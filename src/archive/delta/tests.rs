use std::fs;
use std::io::{Seek, Write};
use std::path::Path;

use super::*;

const LIMITS: UnpackLimits = UnpackLimits {
    max_unpacked: 1000,
    max_file: 600,
    max_entries: 3,
    block: 512,
    room_bytes: u64::MAX,
    room_inodes: u64::MAX,
    symlinks: true,
    keep_times: true,
};

/// Unpacks an archive of these files as a delta. Returns the directory with the members, or
/// the error.
fn unpacked(files: &[(&str, &[u8])], limits: UnpackLimits) -> Result<tempfile::TempDir, String> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(if name.ends_with(".sh") { 0o755 } else { 0o644 });
        header.set_size(data.len() as u64);
        header.set_mtime(1_700_000_000);
        if let Some(target) = name.strip_prefix("link to ") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, "link", target).unwrap();
        } else {
            builder.append_data(&mut header, name, *data).unwrap();
        }
    }
    unpacked_tar(&builder.into_inner().unwrap(), limits)
}

fn unpacked_tar(tar: &[u8], limits: UnpackLimits) -> Result<tempfile::TempDir, String> {
    let members = tempfile::tempdir().unwrap();
    let mut payload = tempfile::tempfile().unwrap();
    payload
        .write_all(&zstd::bulk::compress(tar, 1).unwrap())
        .unwrap();
    payload.rewind().unwrap();
    let staging = Dir::open_root(members.path()).unwrap();
    let progress = Progress::new(Box::new(std::io::sink()));
    unpack(
        payload,
        staging,
        limits,
        Writers::start(1).unwrap(),
        progress,
    )
    .map(|_| members)
    .map_err(|error| error.to_string())
}

fn refused(files: &[(&str, &[u8])]) -> String {
    unpacked(files, LIMITS).expect_err("it is refused")
}

fn text(directory: &Path, name: impl AsRef<Path>) -> String {
    fs::read_to_string(directory.join(name)).unwrap()
}

#[test]
fn members_get_numbers_as_names_and_their_names_become_lines() {
    use std::os::unix::fs::MetadataExt;
    let files: [(&str, &[u8]); 4] = [
        (CHANGES, b"changes"),
        ("a b", b"one"),
        ("d/run.sh", b""),
        ("z", b"three"),
    ];
    let members = unpacked(&files, LIMITS).unwrap();
    let directory = members.path();
    assert_eq!(text(directory, CHANGES_FILE), "changes");
    assert_eq!(
        text(directory, MEMBERS_FILE),
        "./a\\040b type=file mode=0644 size=3\n\
         ./d/run.sh type=file mode=0755 size=0\n\
         ./z type=file mode=0644 size=5\n"
    );
    assert_eq!(
        [
            text(directory, "0"),
            text(directory, "1"),
            text(directory, "2")
        ],
        ["one", "", "three"]
    );
    let run = fs::metadata(directory.join("1")).unwrap();
    assert_eq!((run.mode() & 0o777, run.mtime()), (0o755, 1_700_000_000));
    assert_eq!(fs::read_dir(directory).unwrap().count(), 5);
}

#[test]
fn the_changes_come_first_and_once() {
    let first = "first member of a delta is not";
    assert!(
        refused(&[("a", b"")]).contains(first),
        "{}",
        refused(&[("a", b"")])
    );
    assert!(refused(&[(&format!("{CHANGES}/x"), b"")]).contains(first));
    let twice = refused(&[(CHANGES, b""), (CHANGES, b"")]);
    assert!(twice.contains(CHANGES), "{twice}");
    let empty = unpacked_tar(&[0; 1024], LIMITS).expect_err("it is refused");
    assert!(empty.contains(first), "{empty}");
}

#[test]
fn only_files_are_members() {
    let link = refused(&[(CHANGES, b""), ("link to a", b"")]);
    assert!(link.starts_with("'link': "), "{link}");
}

#[test]
fn a_delta_keeps_the_limits_of_the_site() {
    let (at, over): (&[u8], &[u8]) = (&[7; 600], &[7; 601]);
    assert!(unpacked(&[(CHANGES, b""), ("a", at)], LIMITS).is_ok());
    assert_eq!(
        refused(&[(CHANGES, b""), ("a", over)]),
        "'a': file over 600 bytes"
    );
    let many = [
        (CHANGES, &b""[..]),
        ("a", b""),
        ("b", b""),
        ("c", b""),
        ("d", b""),
    ];
    assert!(unpacked(&many[..4], LIMITS).is_ok());
    assert_eq!(refused(&many), "'d': more than 3 entries");
    // Two lines for each entry that a release may have, besides the data of all members.
    assert_eq!(LIMITS.max_changes(), 6 * MAX_LINE as u64);
    let large = UnpackLimits {
        max_entries: u32::MAX,
        ..LIMITS
    };
    assert_eq!(large.max_changes(), 268_435_456);
    let limits = UnpackLimits {
        max_entries: 1,
        max_unpacked: 0,
        max_file: 1 << 20,
        ..LIMITS
    };
    let changes = vec![b'x'; 2 * MAX_LINE];
    assert!(unpacked(&[(CHANGES, &changes)], limits).is_ok());
    let long = vec![b'x'; 2 * MAX_LINE + 1];
    let error = unpacked(&[(CHANGES, &long)], limits).expect_err("it is refused");
    assert!(error.starts_with(&format!("'{CHANGES}': ")), "{error}");
    let error = unpacked(&[(CHANGES, &changes), ("a", b"x")], limits).expect_err("it is refused");
    assert_eq!(error, "'a': unpacked size over 0 bytes");
}

#[test]
fn the_lists_count_as_inodes() {
    let files: [(&str, &[u8]); 2] = [(CHANGES, b""), ("a", b"")];
    let limits = |room_inodes| UnpackLimits {
        room_inodes,
        ..LIMITS
    };
    assert!(unpacked(&files, limits(3)).is_ok());
    assert!(unpacked(&files, limits(2)).is_err());
}
