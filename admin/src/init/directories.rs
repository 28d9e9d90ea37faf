//! Finds and creates the directories of a site.
//!
//! root runs this, and what is below the root directory belongs to the deploy account,
//! which may have put symlinks there. So each directory is opened by handle, from the
//! handle of its parent, without following a symlink. Only the directories of
//! docs/on-disk.md get an owner, never what is in them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, geteuid};

use deploy_shell::config::Config;
use deploy_shell::dir::{Dir, Name};
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::shell_word::{Word, repair_command};
use deploy_shell::store::ONE_FILE_SYSTEM;
use deploy_shell::store::layout::{LOCK, RELEASES, SHARED, STATE, STATE_DIRS};

use super::{Account, root_directory};
use crate::check::chown_or_move;
use crate::check::paths::resolve_path;
use crate::site_account::Ids;

/// What Deployer and Capistrano have in the root directory of a site (see `adopt`), and what a new
/// file system of ext4 has.
const OF_OTHERS: [&[u8]; 4] = [b".dep", b"repo", b"revisions.log", b"lost+found"];

/// The directories of a site before they are created.
pub struct Directories<'a> {
    config: &'a Config,
    /// None if the root directory does not exist. Only its owner is looked up here.
    root: Option<Dir>,
}

impl<'a> Directories<'a> {
    /// Opens the root directory of the site, if it exists.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] if something else is there.
    pub fn find(config: &'a Config) -> Result<Directories<'a>> {
        let root = match Dir::open_root(&config.root) {
            Ok(root) => Some(root),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(not_a_directory(&config.root, errno)),
        };
        Ok(Directories { config, root })
    }

    /// Returns the owner of the directories that exist, first of one that only the
    /// account can own; the user who runs this if none exists.
    pub fn account(&self) -> u32 {
        let Some(root) = &self.root else {
            return nix::unistd::geteuid().as_raw();
        };
        let owners = [STATE, RELEASES].map(|name| root.stat_of_this_mount(name).ok());
        let mut owners = owners.into_iter().chain([root.metadata().ok()]).flatten();
        owners
            .find(|stat| stat.st_uid != 0)
            .map_or(0, |stat| stat.st_uid)
    }

    /// Creates what is missing, and gives directories of root's to the account. Returns
    /// a line for each step.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] for a directory that is another user's, or a root directory
    /// of root's that holds something else.
    pub fn create(self, account: &Account) -> Result<Vec<String>> {
        let path = &self.config.root;
        let mut work = Work {
            account,
            config: self.config,
            gid: account.gid,
            has_writers: false,
            created: Vec::new(),
            given: Vec::new(),
        };
        let is_new = self.root.is_none();
        let root = root_directory::open(path, account)?;
        let stat = root.metadata().map_err(|errno| cannot(path, errno))?;
        let owner = stat.st_uid;
        // Its owner could replace a new directory before `init` gives it to the account. In a
        // directory of the account, `init` makes everything as the account.
        if owner != 0 && owner != account.uid {
            return Err(work.is_another_accounts(path, owner));
        }
        // A directory of root's with mode 2775 is an ordinary web root. Nobody else writes
        // there until everything in it is given away.
        let mode = Mode::from_bits_truncate(stat.st_mode);
        let writers = mode & (Mode::S_IWGRP | Mode::S_IWOTH);
        let set_mode = |mode| fchmod(&root, mode).map_err(|errno| cannot(path, errno));
        work.has_writers = owner == 0 && !writers.is_empty() && geteuid().is_root();
        if owner == 0 {
            // Before any mode changes: the directory may be /tmp. It is checked again.
            require_only_a_site(self.config, &root)?;
        }
        if work.has_writers {
            set_mode(mode - writers)?;
        }
        // The site's own group, such as that of a set-group-id directory.
        if owner == account.uid {
            work.gid = stat.st_gid;
        }
        let filled = self.fill_and_give(&mut work, &root, owner, is_new);
        // Also after a refusal: the directory may be /tmp.
        if work.has_writers {
            set_mode(mode)?;
        }
        filled?;
        Ok(work.lines(path))
    }

    /// Makes what is missing in the root directory, which belongs to `owner`, and gives it to
    /// the account.
    fn fill_and_give(
        &self,
        work: &mut Work<'_>,
        root: &Dir,
        owner: u32,
        is_new: bool,
    ) -> Result<()> {
        let path = &self.config.root;
        if owner == 0 {
            // Also for a new one: an account that can write above it can exchange it for
            // another directory of root's before it is opened.
            require_only_a_site(self.config, root)?;
        }
        work.fill(root, path)?;
        // Last: until then, no account can change what is in a directory of root's.
        if owner == 0 {
            work.give(root, path)?;
            if !is_new {
                work.given.push(path.display().to_string());
            }
        }
        Ok(())
    }
}

/// The steps so far.
struct Work<'a> {
    account: &'a Account,
    config: &'a Config,
    gid: u32,
    /// Whether other users than root could write in the root directory, which is root's.
    has_writers: bool,
    /// Relative to the root directory.
    created: Vec<PathBuf>,
    /// What belonged to root, as text.
    given: Vec<String>,
}

impl Work<'_> {
    fn fill(&mut self, root: &Dir, path: &Path) -> Result<()> {
        self.directory(root, path, RELEASES, 0o755)?;
        self.directory(root, path, SHARED, 0o755)?;
        let had = self.created.len();
        let state = self.directory(root, path, STATE, 0o700)?;
        let below = path.join(STATE);
        let is_new_state = self.created.len() > had;
        let shown = self.created.len();
        for name in STATE_DIRS {
            self.directory(&state, &below, name, 0o700)?;
        }
        if is_new_state {
            self.created.truncate(shown);
        }
        self.lock_file(&state, &below)
    }

    fn give(&self, directory: &Dir, path: &Path) -> Result<()> {
        let (user, group) = (Uid::from_raw(self.account.uid), Gid::from_raw(self.gid));
        nix::unistd::fchown(directory, Some(user), Some(group)).map_err(|errno| {
            let (shown, name) = (path.display(), &self.account.name);
            let error = Error::io(format!("cannot give '{shown}' to '{name}'"), errno);
            match errno {
                Errno::EPERM => error.remedy(format!("run this as root, or as '{name}'")),
                _ => error,
            }
        })
    }

    /// Makes a directory. In a directory of the account, root makes it as the account: one
    /// that root made and then gave away could be exchanged for another one of root's in
    /// between.
    fn make(
        &self,
        in_accounts: bool,
        parent: &Dir,
        name: Name<'_>,
        mode: u32,
    ) -> Result<nix::Result<()>> {
        if !in_accounts {
            return Ok(parent.make_dir(name, mode));
        }
        self.as_account(|| Ok(parent.make_dir(name, mode)))
    }

    fn as_account<T>(&self, action: impl FnOnce() -> Result<T>) -> Result<T> {
        let (uid, gid) = (self.account.uid, Some(self.gid));
        Ids { uid, gid }.act(action)
    }

    /// Makes the file of the lock. A backup locks it as root with flock(1), which would make
    /// a file that requests cannot open.
    fn lock_file(&self, state: &Dir, at: &Path) -> Result<()> {
        let made = self.as_account(|| Ok(state.create_new(LOCK, 0o600).map(drop)))?;
        let path = at.join(LOCK);
        match made {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => match state.stat(LOCK) {
                Ok(stat) if stat.st_uid == 0 && self.account.uid != 0 => Err(self.is_roots(&path)),
                _ => Ok(()),
            },
            Err(errno) => Err(cannot(&path, errno)),
        }
    }

    fn directory(&mut self, parent: &Dir, at: &Path, name: Name<'_>, mode: u32) -> Result<Dir> {
        let path = at.join(name);
        let stat = parent.metadata().map_err(|errno| cannot(at, errno))?;
        let in_accounts = stat.st_uid == self.account.uid;
        let made = self.make(in_accounts, parent, name, mode)?;
        if let Err(errno) = made
            && errno != Errno::EEXIST
        {
            return Err(cannot(&path, errno));
        }
        // Only `shared/` may be on another file system, which may stall.
        let opened = match name {
            SHARED => parent.open_dir(name),
            _ => parent.open_dir_of_this_mount(name),
        };
        let directory = opened.map_err(|errno| not_a_directory(&path, errno))?;
        let owner = directory
            .metadata()
            .map_err(|errno| cannot(&path, errno))?
            .st_uid;
        let is_accounts = owner == self.account.uid;
        // In a directory of the account, one of another owner is not the one that was made.
        if made.is_ok() && (is_accounts || !in_accounts) {
            if !is_accounts {
                self.give(&directory, &path)?;
            }
            let below = if at.ends_with(STATE) {
                Path::new(STATE.as_os_str()).join(name)
            } else {
                PathBuf::from(name.as_os_str())
            };
            self.created.push(below);
        } else if !is_accounts && name != SHARED {
            // `shared/` is the application's. So is the decision who owns it.
            if owner != 0 {
                return Err(self.is_another_accounts(&path, owner));
            }
            // A user who can write here can have moved any directory of root's here.
            let is_empty = directory.names_up_to(0).is_ok();
            if (in_accounts || self.has_writers) && (made.is_ok() || !is_empty) {
                return Err(self.is_roots(&path));
            }
            self.give(&directory, &path)?;
            self.given.push(path.display().to_string());
        }
        Ok(directory)
    }

    fn is_roots(&self, path: &Path) -> Error {
        let shown = path.display();
        let problem = format!("'{shown}' belongs to root, in a directory that others can write");
        let remedy = if self.config.file.exists() {
            let repair = repair_command(&self.config.site_option());
            let name = Word::new(&self.account.name);
            format!("if it is one of this site: {repair} --owner {name}")
        } else {
            // It is a new site, and no other command finds it yet.
            "move it away, then run this again".to_owned()
        };
        Error::new(Code::BadLayout, problem).remedy(remedy)
    }

    fn is_another_accounts(&self, path: &Path, owner: u32) -> Error {
        let (shown, name) = (path.display(), &self.account.name);
        let other = Account::of_uid(owner).name;
        let problem = format!("'{shown}' belongs to '{other}', not to '{name}'");
        let right = if path == self.config.root {
            let command = format!("chown -h {} {}", Word::new(name), Word::new(path));
            chown_or_move(resolve_path(path).above(), command)
        } else {
            // The account can move a directory of another user here.
            "docs/adopting.md has the way for a site of another tool".to_owned()
        };
        let other = Word::new(&other);
        Error::new(Code::BadLayout, problem).remedy(format!(
            "give --owner {other}; or, if '{name}' is right: {right}"
        ))
    }

    fn lines(&self, root: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        let root = root.display();
        let names: Vec<String> = (self.created.iter())
            .map(|below| below.display().to_string())
            .collect();
        match names.as_slice() {
            [] if self.given.is_empty() => lines.push(format!("{root} has all its directories")),
            [] => {}
            [name] => lines.push(format!("created {root}/{name}")),
            names => lines.push(format!("created {root}/{{{}}}", names.join(","))),
        }
        let name = &self.account.name;
        let given = self.given.iter();
        lines.extend(given.map(|path| format!("gave {path} to {name}")));
        lines
    }
}

/// Requires a root directory of root's to hold nothing but a site. A typing error such as
/// `--root /etc` must not give that directory to the account.
fn require_only_a_site(config: &Config, root: &Dir) -> Result<()> {
    let shown = config.root.display();
    let names = root.names().map_err(|errno| cannot(&config.root, errno))?;
    let own = [RELEASES, SHARED, STATE].map(|name| name.as_os_str().as_bytes());
    let links = [&config.link, &config.preview.link].map(|link| link.as_str().as_bytes());
    let is_own =
        |name: &[u8]| own.contains(&name) || links.contains(&name) || OF_OTHERS.contains(&name);
    match names.iter().find(|name| !is_own(name.as_bytes())) {
        None => Ok(()),
        Some(other) => {
            let other = other.display();
            let problem = format!("'{shown}' belongs to root, and has '{other}' in it");
            Err(Error::new(Code::BadLayout, problem)
                .remedy("choose a directory for this site alone, or change its owner yourself"))
        }
    }
}

pub(super) fn cannot(path: &Path, errno: Errno) -> Error {
    let shown = path.display();
    let error = Error::io(format!("cannot create '{shown}'"), errno);
    match errno {
        Errno::EACCES => error.remedy("run this as root"),
        _ => error,
    }
}

pub(super) fn not_a_directory(path: &Path, errno: Errno) -> Error {
    let shown = path.display();
    match errno {
        Errno::ENOTDIR | Errno::ELOOP => Error::new(
            Code::BadLayout,
            format!("'{shown}' is a symlink or a file, not a directory itself"),
        )
        .remedy("keep the whole site below one directory, and give that as the root"),
        Errno::EXDEV => Error::new(Code::BadLayout, format!("'{shown}' is a mount point"))
            .remedy(ONE_FILE_SYSTEM),
        errno => Error::io(format!("cannot open '{shown}'"), errno),
    }
}
