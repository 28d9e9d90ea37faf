//! Tries out whether the web server's account (`[check] reader`) can read the live
//! release.
//!
//! Modes, groups and access control lists decide together, so this computes nothing:
//! the process opens the files with the identity of that account. setfsuid(2) changes
//! the identity for files alone, and back: the checks that follow need root. With it
//! the kernel takes the capabilities by which root reads every file (capabilities(7)).

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{
    Gid, Uid, User, getegid, geteuid, getgroups, initgroups, setfsgid, setfsuid, setgroups,
};

use super::facts::{Reader, ReaderAccess};
use super::paths::resolve_path;
use deploy_shell::config::Config;
use deploy_shell::dir::Dir;
use deploy_shell::error::{Error, describe};
use deploy_shell::manifest::{Entries, Kind};
use deploy_shell::names::ReleaseId;
use deploy_shell::store::Store;
use deploy_shell::store::layout::RELEASES;

/// Tries it. Returns none for a site without a reader, and where this process cannot
/// try it: then it adds the reason to `not_checked`.
pub fn probe_reader(config: &Config, not_checked: &mut Vec<String>) -> Option<Reader> {
    let name = config.check.reader.as_ref()?.as_str();
    let access = User::from_name(name)
        .map_err(|errno| describe(&errno.into()))
        .and_then(|user| {
            let Some(user) = user else {
                return Ok(ReaderAccess::Unknown);
            };
            let release = LiveRelease::open(config)?;
            as_user(&user, || release.try_to_read())?
        });
    match access {
        Ok(access) => Some(Reader {
            name: name.to_owned(),
            access,
        }),
        Err(why) => {
            not_checked.push(format!("whether '{name}' can read the live release: {why}"));
            None
        }
    }
}

/// Runs `attempt` with the identity of `user` for files.
///
/// # Errors
///
/// Why the kernel does not let this process have that identity.
pub fn as_user<T>(user: &User, attempt: impl FnOnce() -> T) -> Result<T, String> {
    if geteuid() == user.uid {
        return Ok(attempt());
    }
    if !geteuid().is_root() {
        return Err(format!("run check as root or as '{}'", user.name));
    }
    let cannot = |errno: nix::Error| {
        let why = describe(&errno.into());
        format!("cannot become '{}': {why}", user.name)
    };
    let groups = getgroups().map_err(cannot)?;
    let name = CString::new(user.name.as_str()).map_err(|_| cannot(nix::Error::EINVAL))?;
    initgroups(&name, user.gid).map_err(cannot)?;
    let result = set_file_identity(user.uid, user.gid).then(attempt);
    let restored = set_file_identity(geteuid(), getegid());
    setgroups(&groups).map_err(cannot)?;
    result
        .filter(|_| restored)
        .ok_or_else(|| cannot(nix::Error::EPERM))
}

/// Sets the identity for files, and returns whether the kernel took it.
fn set_file_identity(user: Uid, group: Gid) -> bool {
    // Each call returns the identity before it, also if it fails.
    setfsgid(group);
    setfsuid(user);
    setfsgid(group) == group && setfsuid(user) == user
}

/// The live release, opened with this process's own identity.
struct LiveRelease {
    /// The directory above all releases, and its path.
    releases: (Dir, PathBuf),
    /// None if nothing is live.
    manifest: Option<(ReleaseId, BufReader<File>)>,
}

impl LiveRelease {
    fn open(config: &Config) -> Result<LiveRelease, String> {
        let open = || -> Result<LiveRelease, Error> {
            let store = Store::examine(config)?;
            let live = store.current()?;
            let manifest = live.map(|release| {
                let (_, manifest) = store.manifest(&release)?;
                Ok::<_, Error>((release, manifest))
            });
            Ok(LiveRelease {
                manifest: manifest.transpose()?,
                releases: (store.releases, config.root.join(RELEASES)),
            })
        };
        open().map_err(|error| error.problem)
    }

    /// Opens every directory from `/` on, and then every file of the release.
    ///
    /// Symlinks are left out: those of the release lead to other files of it, and a
    /// web server need not read what the application shares. So are mounts in the
    /// release: they may stall, and `check` reports them.
    fn try_to_read(self) -> Result<ReaderAccess, String> {
        let (releases, shown) = self.releases;
        let mut above: Vec<&Path> = shown.ancestors().collect();
        above.reverse();
        if let Some(closed) = above.into_iter().find(|path| !can_search(path)) {
            return Ok(ReaderAccess::Blocked(resolve_path(closed)));
        }
        let Some((release, mut manifest)) = self.manifest else {
            return Ok(ReaderAccess::Full(None));
        };
        let directory = Path::new(release.as_str());
        let mut denied = None;
        let mut more = 0;
        let mut entries = Entries::new(&mut manifest);
        // Terminates: each turn consumes a line of the manifest.
        while let Some(entry) = entries.next_entry()? {
            let path = directory.join(OsStr::from_bytes(&entry.path));
            let attempt = match entry.kind {
                // The name '.' needs search permission on the directory.
                Kind::Dir => releases.resolve_in_mount(&path.join(".")).map(drop),
                Kind::File { .. } => releases.open_file_beneath(&path).map(drop),
                Kind::Link { .. } => Ok(()),
            };
            match (attempt, &denied) {
                (Err(Errno::EACCES), None) => denied = Some(shown.join(path)),
                (Err(Errno::EACCES), Some(_)) => more += 1,
                _ => {}
            }
        }
        Ok(match denied {
            Some(first) => ReaderAccess::Denied { first, more },
            None => ReaderAccess::Full(Some(release)),
        })
    }
}

/// Returns false if search permission on the directory is missing. A missing directory
/// is no matter of permission, and `verify` reports it.
fn can_search(directory: &Path) -> bool {
    let found = directory.join(".").symlink_metadata();
    !found.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}
