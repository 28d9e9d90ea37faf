//! Whether this account may use the site's directories, and what an operator does about
//! it where it may not. Each remedy changes files of the site alone, and widens access
//! for nobody but the account.
//!
//! No remedy has a command of root's for a path below the root: the account can put anything
//! at each name there. `deploy-shell-admin repair` works by handles.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::geteuid;

use super::Store;
use super::layout::{INCOMING, MANIFESTS, RELEASES, STATE, TRASH};
use crate::dir::{self, Dir, Name};
use crate::error::{Code, Error, Fault, Result, describe};
use crate::shell_word::{self, Word, repair_command};

/// The remedy for a directory that is on another mount than the root.
pub const ONE_FILE_SYSTEM: &str =
    "keep the whole site on one file system, without mounts inside it";

/// Where the documents say how root moves and restores files of a site.
pub const AS_FOR_A_FILE: &str = "as Change a file of the site in docs/operating.md says";

/// The remedy for a directory of another user. Nothing takes it from that user: the account can
/// move such a directory here.
pub const COPY_THE_SITE: &str = "copy the site and give the copy to the account, as Move a site and \
                             Restore in docs/maintenance.md say";

/// A directory of the site, as [`Store::check_directories`] looks at it.
struct Directory<'a> {
    handle: &'a Dir,
    path: std::path::PathBuf,
    /// Whether it must be the account's.
    is_owned: bool,
    /// The mode bits that it must not have.
    forbidden: u32,
}

impl Store {
    fn directories(&self) -> [Directory<'_>; 6] {
        let state = self.path.join(STATE);
        let directory = |handle, path, is_owned, forbidden| Directory {
            handle,
            path,
            is_owned,
            forbidden,
        };
        [
            directory(&self.root, self.path.clone(), false, 0o002),
            directory(&self.releases, self.path.join(RELEASES), true, 0o022),
            directory(&self.state, state.clone(), true, 0o077),
            directory(&self.manifests, state.join(MANIFESTS), true, 0o022),
            directory(&self.incoming, state.join(INCOMING), true, 0o022),
            directory(&self.trash, state.join(TRASH), true, 0o022),
        ]
    }

    /// Checks the owners, modes and file system of the site's directories. `owner` is the
    /// account of the site.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] with the remedy.
    pub(super) fn check_directories(&self, owner: u32) -> Result<()> {
        let device = |dir: &Dir| dir.metadata().map(|stat| stat.st_dev).ok();
        for directory in self.directories() {
            let shown = directory.path.display();
            let bad = |problem: String| Error::new(Code::BadLayout, format!("'{shown}' {problem}"));
            let stat = directory
                .handle
                .metadata()
                .map_err(|errno| Error::io(format!("cannot look at '{shown}'"), errno))?;
            if directory.is_owned && stat.st_uid != owner {
                let problem = format!("belongs to user {}, not to this account", stat.st_uid);
                return Err(match owner {
                    // A site that belongs to root would be no safer, and no key could use it.
                    0 => bad(problem).remedy(
                        "run this as the account that owns the site, not as root; change no owner",
                    ),
                    _ if stat.st_uid != 0 => bad(problem).remedy(COPY_THE_SITE),
                    // `.deploy-shell` would show the account.
                    _ => bad(problem).remedy(format!("{} --owner {owner}", self.repair_command())),
                });
            }
            if stat.st_mode & directory.forbidden != 0 {
                return Err(bad("can be reached or written by others".to_owned())
                    .remedy(self.mode_command(&directory)));
            }
            // A rename is atomic only within one file system.
            if device(directory.handle) != device(&self.root) {
                return Err(bad("is on another file system than the root".to_owned())
                    .remedy(ONE_FILE_SYSTEM));
            }
        }
        Ok(())
    }

    /// Checks that the account may write where a request that changes the site writes: a
    /// receive also before its payload is sent, because a release that no swap can make
    /// live is of no use.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] with the remedy.
    pub fn check_writable(&self, receives: bool) -> Result<()> {
        for directory in self.directories() {
            // A swap needs to write neither of the others, and must not depend on them:
            // it may be the rollback of an emergency.
            let is_needed = [&self.root, &self.state]
                .iter()
                .any(|needed| std::ptr::eq(*needed, directory.handle));
            if let Err(errno) = directory.handle.check_writable()
                && (receives || is_needed)
            {
                return Err(self.not_writable(&directory, errno));
            }
        }
        Ok(())
    }

    fn not_writable(&self, directory: &Directory<'_>, errno: Errno) -> Error {
        let shown = directory.path.display();
        let error = Error::io(format!("cannot write to '{shown}'"), errno);
        let account = geteuid().as_raw();
        match directory.handle.metadata() {
            Ok(stat) if errno == Errno::EACCES && stat.st_uid == account => {
                error.remedy(self.mode_command(directory))
            }
            Ok(_) if errno == Errno::EACCES => error.remedy(self.check_command()),
            _ => error,
        }
    }

    /// Returns the command that corrects the mode of a directory, or that says how.
    fn mode_command(&self, directory: &Directory<'_>) -> String {
        if directory.path == self.path {
            return self.check_command();
        }
        self.repair_command()
    }

    /// `check` knows whether somebody but root can exchange the root directory.
    fn check_command(&self) -> String {
        format!(
            "this says how to correct it: deploy-shell-admin check {}",
            self.options
        )
    }

    fn repair_command(&self) -> String {
        format!("as root: {}", repair_command(&self.options))
    }

    /// See [`shell_word::run_command`].
    pub fn run_command(&self, command: impl std::fmt::Display) -> String {
        shell_word::run_command(&self.options, command)
    }

    /// As [`Store::run_command`], as the user `owner`.
    pub fn run_command_of(&self, owner: u32, command: &str) -> String {
        shell_word::run_command(&format!("{} --owner {owner}", self.options), command)
    }

    /// As [`Store::io`], for files in `.deploy-shell`. All of them are the account's own.
    pub fn state_io(
        &self,
        doing: impl std::fmt::Display,
        error: impl Into<std::io::Error>,
    ) -> Error {
        let error = error.into();
        // No request repairs it, so a client must not try again.
        if error.raw_os_error() == Some(Errno::ENXIO as i32) {
            let problem = format!("{doing}: {}", describe(&error));
            return Error::new(Code::BadLayout, problem).remedy(format!(
                "move it away; this names it: deploy-shell-admin check {}",
                self.options
            ));
        }
        let error = self.io(doing, error);
        if error.fault != Some(Fault::AccessDenied) {
            return error;
        }
        error.remedy(self.repair_command())
    }
}

/// Opens a directory of the site. `init` is the command that makes what is missing.
pub(super) fn open_subdirectory(
    path: &Path,
    parent: &Dir,
    name: Name<'_>,
    init: &dyn Fn() -> String,
) -> Result<Dir> {
    // A file system that is mounted there may stall. No rename leads there either, also
    // where it is a bind mount of the same file system.
    let opened = parent.open_dir_of_this_mount(name);
    opened.map_err(|errno| {
        let is_symlink = parent
            .stat_of_this_mount(name)
            .is_ok_and(|stat| dir::file_type(&stat) == SFlag::S_IFLNK);
        cannot_open(&path.join(name), errno, is_symlink, init)
    })
}

/// Returns the error of the site's root.
pub(super) fn cannot_open_root(path: &Path, errno: Errno, init: &dyn Fn() -> String) -> Error {
    let is_symlink = path.is_symlink();
    let error = cannot_open(path, errno, is_symlink, init);
    match errno {
        Errno::ENOENT => error.remedy(format!(
            "correct 'root' in the site's configuration, or make it: {}",
            init()
        )),
        _ if is_symlink => error.remedy(format!(
            "set 'root' in the site's configuration to what this prints: readlink -f {}",
            Word::new(path)
        )),
        _ => error,
    }
}

pub(super) fn cannot_open(
    path: &Path,
    errno: Errno,
    is_symlink: bool,
    init: &dyn Fn() -> String,
) -> Error {
    let shown = path.display();
    let bad = |problem: &str| Error::new(Code::BadLayout, format!("'{shown}' {problem}"));
    match errno {
        Errno::ENOENT => bad("does not exist").remedy(format!("make it: {}", init())),
        Errno::ENOTDIR | Errno::ELOOP if is_symlink => bad("is a symlink, not a directory itself")
            .remedy("keep the whole site below one directory, and set 'root' to that; see bad-layout in docs/troubleshooting.md"),
        Errno::ENOTDIR | Errno::ELOOP => bad("is not a directory itself")
            .remedy(format!("move it away, then make the directory: {}", init())),
        Errno::EXDEV => bad("is a mount point").remedy(ONE_FILE_SYSTEM),
        errno => Error::io(format!("cannot open '{shown}'"), errno),
    }
}
