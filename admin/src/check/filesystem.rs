//! Looking at the file system the site is on.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::statfs;

use super::facts::Disk;
use deploy_shell::error::describe;

const MOUNTS: &str = "/proc/self/mountinfo";

/// File systems whose other end is elsewhere, or a program: what a rename or a
/// sync means there is not the kernel's to promise (statfs(2), linux/magic.h).
const NETWORK: [(u32, &str); 12] = [
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x7375_7245, "coda"),
    (0x7461_636f, "ocfs2"),
    (0x0116_1970, "gfs2"),
    (0x0bd0_0bd0, "lustre"),
];

/// Looks at the root and the folders below it that we rely on.
pub fn look(root: &Path, below: &[PathBuf], unseen: &mut Vec<String>) -> Disk {
    let network = match statfs(root) {
        Ok(found) => network(found.filesystem_type().0 as u64 as u32),
        Err(errno) => {
            let why = describe(&errno.into());
            unseen.push(format!("the file system of '{}': {why}", root.display()));
            None
        }
    };
    let mut elsewhere = match std::fs::read(MOUNTS) {
        Ok(text) => mounts(
            &text,
            &root.canonicalize().unwrap_or_else(|_| root.to_owned()),
        ),
        Err(error) => {
            unseen.push(format!("mounts below the root: {}", describe(&error)));
            Vec::new()
        }
    };
    let device = |path: &Path| path.metadata().ok().map(|meta| meta.dev());
    let others = below
        .iter()
        .filter(|path| device(path).is_some_and(|found| Some(found) != device(root)));
    elsewhere.extend(others.cloned());
    elsewhere.sort();
    elsewhere.dedup();
    let folders = below.iter().map(PathBuf::as_path).chain([root]);
    let (mut folding, mut unread) = (Vec::new(), Vec::new());
    for folder in folders {
        match folds(folder) {
            Some(true) => folding.push(folder.to_owned()),
            Some(false) => {}
            None => unread.push(format!("'{}'", folder.display())),
        }
    }
    if !unread.is_empty() {
        unseen.push(format!("whether case counts in {}", unread.join(", ")));
    }
    Disk {
        network,
        elsewhere,
        folding,
    }
}

fn network(magic: u32) -> Option<&'static str> {
    let row = NETWORK.iter().find(|(known, _)| *known == magic);
    row.map(|(_, name)| *name)
}

/// The mount points of proc_pid_mountinfo(5) below `root`, without those in
/// `shared/`, which is the application's own. A bind mount counts: it has the
/// root's device, and yet no rename leads across it.
fn mounts(text: &[u8], root: &Path) -> Vec<PathBuf> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .filter(|path| path != root && path.starts_with(root))
        .filter(|path| !path.starts_with(root.join("shared")))
        .collect()
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let octal = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(text, 8).ok()
    };
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < field.len() {
        let escaped = (field[at] == b'\\')
            .then(|| field.get(at + 1..at + 4).and_then(octal))
            .flatten();
        bytes.push(escaped.unwrap_or(field[at]));
        at += if escaped.is_some() { 4 } else { 1 };
    }
    bytes
}

/// Whether names in a folder that differ only by case are the same name: a
/// name in it is looked up in another case. The kernel's own flag for it can
/// only be read by ioctl(2), and not every such file system has it.
fn folds(folder: &Path) -> Option<bool> {
    let mut names = folder
        .read_dir()
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name()));
    let other = |name: &OsString| {
        let mut bytes = name.as_bytes().to_vec();
        for byte in &mut bytes {
            *byte ^= u8::from(byte.is_ascii_alphabetic()) << 5;
        }
        (bytes != name.as_bytes()).then(|| OsString::from_vec(bytes))
    };
    // The first name with a letter in it decides.
    let Some((name, other)) = names.find_map(|name| Some((name.clone(), other(&name)?))) else {
        return Some(false);
    };
    let same = || {
        let left = folder.join(name).symlink_metadata().ok()?;
        let right = folder.join(other).symlink_metadata().ok()?;
        Some((left.dev(), left.ino()) == (right.dev(), right.ino()))
    };
    Some(same().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_the_root_are_found() {
        let text = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            23 22 0:5 / /srv/a rw - tmpfs x rw\n\
            24 22 0:6 / /srv/a/releases rw - tmpfs x rw\n\
            25 22 0:7 / /srv/a/shared/uploads rw - nfs x rw\n\
            26 22 0:8 / /srv/a/b\\040c rw - tmpfs x rw\n\
            27 22 0:8 / /srv/ab rw - tmpfs x rw\nodd\n";
        let found = mounts(text, Path::new("/srv/a"));
        assert_eq!(
            found,
            [Path::new("/srv/a/releases"), Path::new("/srv/a/b c")]
        );
    }

    #[test]
    fn network_file_systems_are_known_by_their_number() {
        assert_eq!(network(0x6969), Some("nfs"));
        assert_eq!(network(0xff53_4d42), Some("cifs"));
        assert_eq!(network(0xef53), None);
    }

    #[test]
    fn a_folder_that_keeps_case_does_not_fold() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(folds(folder.path()), Some(false));
        std::fs::write(folder.path().join("Name"), "").unwrap();
        assert_eq!(folds(folder.path()), Some(false));
        // Both cases there, and two files.
        std::fs::write(folder.path().join("nAME"), "").unwrap();
        assert_eq!(folds(folder.path()), Some(false));
        std::fs::remove_file(folder.path().join("nAME")).unwrap();
        assert_eq!(folds(&folder.path().join("none")), None);
        // A hard link is what a folding file system would show.
        std::fs::hard_link(folder.path().join("Name"), folder.path().join("nAME")).unwrap();
        assert_eq!(folds(folder.path()), Some(true));
    }

    #[test]
    fn a_plain_folder_is_on_one_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("releases");
        std::fs::create_dir(&below).unwrap();
        let mut unseen = Vec::new();
        let found = look(folder.path(), &[below], &mut unseen);
        assert!(found.elsewhere.is_empty() && found.folding.is_empty());
        assert!(unseen.is_empty(), "{unseen:?}");
    }
}
