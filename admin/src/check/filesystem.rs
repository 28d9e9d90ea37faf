//! Gathers facts about the file system of the site.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::statfs;

use super::facts::Filesystem;
use crate::user_mounts::MOUNTS;
use deploy_shell::dir::{Dir, Name};
use deploy_shell::error::describe;
use deploy_shell::store::layout::SHARED;

/// In a directory with more names, this does not look for one with a letter in it.
const MAX_NAMES: usize = 100_000;

/// File systems that a server or a user-space program implements: there the
/// kernel alone cannot guarantee what a rename or a sync does (statfs(2),
/// linux/magic.h).
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

/// The mount points below the root of a site, but those in `shared/`, which belongs to the
/// application. A file system that is mounted there may stall, so `check` looks at none of
/// them.
pub struct Mounts(Vec<PathBuf>);

impl Mounts {
    pub fn find(root: &Path, not_checked: &mut Vec<String>) -> Mounts {
        match std::fs::read(MOUNTS) {
            Ok(text) => {
                let canonical = root.canonicalize().unwrap_or_else(|_| root.to_owned());
                let found = mounts_below(&text, &canonical).into_iter();
                let below =
                    found.filter_map(|path| Some(path.strip_prefix(&canonical).ok()?.into()));
                Mounts(below.map(|below: PathBuf| root.join(below)).collect())
            }
            Err(error) => {
                let why = describe(&error);
                not_checked.push(format!("mounts below the root: {why}"));
                Mounts(Vec::new())
            }
        }
    }

    /// Returns whether a path is a mount point or is below one.
    pub fn cover(&self, path: &Path) -> bool {
        self.0.iter().any(|mount| path.starts_with(mount))
    }
}

/// Examines the root, and the directories below it that deploy-shell relies on. None of
/// them is below a mount.
pub fn examine_filesystem(
    root: &Path,
    directories: &[PathBuf],
    mounts: &Mounts,
    not_checked: &mut Vec<String>,
) -> Filesystem {
    let network = match statfs(root) {
        Ok(found) => network_kind(found.filesystem_type().0 as u64 as u32),
        Err(errno) => {
            let why = describe(&errno.into());
            not_checked.push(format!("the file system of '{}': {why}", root.display()));
            None
        }
    };
    let mut other_filesystems = mounts.0.clone();
    let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
    // Such as a subvolume of btrfs, which is no mount.
    let elsewhere = directories
        .iter()
        .filter(|path| device(path).is_some_and(|found| Some(found) != device(root)));
    other_filesystems.extend(elsewhere.cloned());
    other_filesystems.sort();
    other_filesystems.dedup();
    let (mut case_insensitive, mut unreadable) = (Vec::new(), Vec::new());
    for directory in directories.iter().map(PathBuf::as_path).chain([root]) {
        match is_case_insensitive(directory) {
            Some(true) => case_insensitive.push(directory.to_owned()),
            Some(false) => {}
            None => unreadable.push(format!("'{}'", directory.display())),
        }
    }
    if !unreadable.is_empty() {
        let shown = unreadable.join(", ");
        not_checked.push(format!(
            "whether the file system is case-insensitive ({shown})"
        ));
    }
    Filesystem {
        network,
        other_filesystems,
        case_insensitive,
    }
}

fn network_kind(magic: u32) -> Option<&'static str> {
    let row = NETWORK.iter().find(|(known, _)| *known == magic);
    row.map(|(_, name)| *name)
}

/// Returns the mount points below `root`, from the text of
/// proc_pid_mountinfo(5). It leaves out those in `shared/`, which belongs to the
/// application. Bind mounts count: they have the root's device, but rename(2) does
/// not cross them either.
fn mounts_below(text: &[u8], root: &Path) -> Vec<PathBuf> {
    let shared = root.join(SHARED);
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape_octal(field))))
        .filter(|path| path != root && path.starts_with(root))
        .filter(|path| !path.starts_with(&shared))
        .collect()
}

/// The kernel escapes spaces and the like as a backslash and three octal digits.
fn unescape_octal(field: &[u8]) -> Vec<u8> {
    let octal = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(text, 8).ok()
    };
    let mut bytes = Vec::new();
    let mut at = 0;
    // Terminates: `at` grows in each turn.
    while at < field.len() {
        let escaped = (field[at] == b'\\')
            .then(|| field.get(at + 1..at + 4).and_then(octal))
            .flatten();
        bytes.push(escaped.unwrap_or(field[at]));
        at += if escaped.is_some() { 4 } else { 1 };
    }
    bytes
}

/// Returns whether two names that differ only by case are one name in a
/// directory; `None` if it cannot be read. This looks up an existing name in the
/// other case: only ioctl(2) reads the kernel's own flag, and not every such file
/// system has it.
fn is_case_insensitive(directory: &Path) -> Option<bool> {
    let directory = Dir::open_root(directory).ok()?;
    let swap_case = |name: &OsString| {
        let mut bytes = name.as_bytes().to_vec();
        for byte in &mut bytes {
            *byte ^= u8::from(byte.is_ascii_alphabetic()) << 5;
        }
        (bytes != name.as_bytes()).then(|| OsString::from_vec(bytes))
    };
    let inode = |name: &OsString| {
        let stat = directory
            .stat_of_this_mount(Name::new(name.as_bytes())?)
            .ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    // The first name with a letter in it decides, if nothing is mounted there.
    let mut names = directory.names_up_to(MAX_NAMES).ok()?.into_iter();
    let found = names.find_map(|name| Some((inode(&name)?, swap_case(&name)?)));
    Some(found.is_some_and(|(found, other)| inode(&other) == Some(found)))
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
        assert_eq!(
            mounts_below(text, Path::new("/srv/a")),
            [Path::new("/srv/a/releases"), Path::new("/srv/a/b c")]
        );
    }

    #[test]
    fn a_mount_covers_what_is_below_it() {
        let mounts = Mounts(vec!["/srv/a/releases".into()]);
        assert!(mounts.cover(Path::new("/srv/a/releases")));
        assert!(mounts.cover(Path::new("/srv/a/releases/r/file")));
        assert!(!mounts.cover(Path::new("/srv/a/releases-old")));
        assert!(!mounts.cover(Path::new("/srv/a")));
    }

    #[test]
    fn network_file_systems_are_known_by_their_magic_number() {
        assert_eq!(network_kind(0x6969), Some("nfs"));
        assert_eq!(network_kind(0xff53_4d42), Some("cifs"));
        assert_eq!(network_kind(0xef53), None);
    }

    #[test]
    fn case_sensitive_and_case_insensitive_directories_are_distinguished() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(is_case_insensitive(directory.path()), Some(false));
        std::fs::write(path("Name"), "").unwrap();
        assert_eq!(is_case_insensitive(directory.path()), Some(false));
        // Both cases exist, as two files.
        std::fs::write(path("nAME"), "").unwrap();
        assert_eq!(is_case_insensitive(directory.path()), Some(false));
        std::fs::remove_file(path("nAME")).unwrap();
        assert_eq!(is_case_insensitive(&path("none")), None);
        // A hard link looks like a case-insensitive file system.
        std::fs::hard_link(path("Name"), path("nAME")).unwrap();
        assert_eq!(is_case_insensitive(directory.path()), Some(true));
    }

    #[test]
    fn an_ordinary_directory_is_on_one_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("releases")).unwrap();
        let mut not_checked = Vec::new();
        let directories = [path("releases")];
        let mounts = Mounts::find(directory.path(), &mut not_checked);
        let found = examine_filesystem(directory.path(), &directories, &mounts, &mut not_checked);
        assert!(found.other_filesystems.is_empty() && found.case_insensitive.is_empty());
        assert!(not_checked.is_empty(), "{not_checked:?}");
    }
}
