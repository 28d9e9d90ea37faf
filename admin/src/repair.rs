//! `repair`: gives the account the files of deploy-shell again that root owns, and sets the
//! modes that requests need.
//!
//! An operator who restores a file with cp(1) as root leaves one that no request can open.
//! chown(1) is no safe remedy: the account owns the directories, and can move any file of
//! root's there that is in the site, such as `shared/.env`, or a directory with a mount. `-h`
//! and `-R` give it away.
//!
//! So this opens each name by the handle of its directory, on the same mount, without
//! following a symlink. It gives away a file only if it has one name and is one of
//! deploy-shell's by its content, and a directory only if all that is in it is the account's
//! already. The owner of a directory may list it, and remove or rename what is in it, and the
//! account could do that before: it owns the directory above.
//!
//! No parser reads the content as root. Each test looks at the start of a file, or at all of a
//! short one. The account cannot write a file of root's, so it can choose a file, but no
//! content.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat};
use nix::unistd::{Uid, fchown};

use crate::init::Account;
use crate::output::Output;
use crate::site_account::owner_of_damaged;
use deploy_shell::config::Config;
use deploy_shell::dir::{Dir, Name, file_type};
use deploy_shell::error::{Code, Error, Result, describe};
use deploy_shell::store::layout::{
    INCOMING, JOURNAL, LIMITS, LOCK, MANIFESTS, RELEASES, STATE, TRASH,
};
use deploy_shell::store::used_ids;

/// The most names that are read of a directory. The account can make any number.
const MAX_NAMES: usize = 1_000_000;

/// The longest file that is compared as a whole, in bytes: a counter of 100,000 lines.
const MAX_COMPARED: u64 = 100_000 * 21;

/// What a directory of the site has in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// The files of `.deploy-shell` itself.
    State,
    Manifests,
    /// Counters and upload slots.
    Limits,
    /// Directories of releases.
    Trees,
}

/// The directories in `.deploy-shell`.
const STATE_CONTENT: [(Name<'static>, Content); 4] = [
    (MANIFESTS, Content::Manifests),
    (LIMITS, Content::Limits),
    (INCOMING, Content::Trees),
    (TRASH, Content::Trees),
];

/// Repairs the site of the configuration at `config`. The output has a line for each change,
/// and one for each thing that is left as it is; then the site is not sound. `owner` names the
/// account where the directories do not show it.
///
/// # Errors
///
/// [`Code::BadLayout`] for a site of root's without `owner`, and the errors of the configuration.
pub fn repair(config: &Path, named: Option<&str>) -> Result<Output> {
    let config = Config::load(config)?;
    let account = match named {
        Some(name) => Account::named(name)?,
        None => account_of(&config)?,
    };
    let path = &config.root;
    let root = Dir::open_root(path)
        .map_err(|errno| Error::io(format!("cannot open '{}'", path.display()), errno))?;
    let mut repair = Repair {
        config: &config,
        account,
        changes: Vec::new(),
        left: Vec::new(),
    };
    let in_root = Path::new("");
    if let Some(state) = repair.open(&root, in_root, STATE) {
        let at = Path::new(STATE.as_os_str());
        // From the inside to the outside: a directory is given away last.
        for (name, content) in STATE_CONTENT {
            if let Some(inner) = repair.open(&state, at, name) {
                repair.directory(&inner, &at.join(name), content, 0o022)?;
            }
        }
        repair.directory(&state, at, Content::State, 0o077)?;
    }
    if let Some(releases) = repair.open(&root, in_root, RELEASES) {
        let at = Path::new(RELEASES.as_os_str());
        repair.directory(&releases, at, Content::Trees, 0o022)?;
    }
    Ok(repair.output())
}

/// Returns the account of the site.
fn account_of(config: &Config) -> Result<Account> {
    let site = config.site_option();
    let named = format!("name the account: deploy-shell-admin repair {site} --owner ACCOUNT");
    match owner_of_damaged(config) {
        Ok(0) => {
            let problem = "'.deploy-shell' belongs to root, so it does not show the account";
            Err(Error::new(Code::BadLayout, problem).remedy(named))
        }
        Ok(uid) => Ok(Account::of_uid(uid)),
        Err(error) => Err(Error::io("cannot see whose the site is", error).remedy(named)),
    }
}

/// The steps so far.
struct Repair<'a> {
    config: &'a Config,
    account: Account,
    /// Lines.
    changes: Vec<String>,
    /// What stays as it is: the path below the root, and why.
    left: Vec<(PathBuf, String)>,
}

impl Repair<'_> {
    /// Opens a directory of the site in `dir`, whose path below the root is `at`.
    fn open(&mut self, dir: &Dir, at: &Path, name: Name<'_>) -> Option<Dir> {
        let opened = dir.open_dir_of_this_mount(name);
        let why = match opened {
            Ok(opened) => return Some(opened),
            // The first request that writes makes it.
            Err(Errno::ENOENT) if name == LIMITS => return None,
            Err(Errno::ENOENT) => "it does not exist: deploy-shell-admin init makes it".to_owned(),
            Err(Errno::ENOTDIR | Errno::ELOOP) => "it is not a directory itself".to_owned(),
            Err(errno) => describe(&errno.into()),
        };
        self.leave(at.join(name), &why);
        None
    }

    /// Repairs what is in a directory of the site, and then the directory. `path` is relative
    /// to the root; `forbidden` are mode bits that requests refuse.
    fn directory(
        &mut self,
        dir: &Dir,
        path: &Path,
        content: Content,
        forbidden: u32,
    ) -> Result<()> {
        let cannot = |errno: Errno| Error::io(format!("cannot read '{}'", path.display()), errno);
        let stat = dir.metadata().map_err(cannot)?;
        // Nothing but a directory of root's depends on the trees that are in it.
        if content != Content::Trees || stat.st_uid == 0 {
            for name in dir.names_up_to(MAX_NAMES).map_err(cannot)? {
                if let Some(name) = Name::new(name.as_bytes()) {
                    self.entry(dir, name, &path.join(name), content);
                }
            }
        }
        let is_inside = |(left, _): &&(PathBuf, String)| left.parent() == Some(path);
        match stat.st_uid {
            uid if uid == self.account.uid => {}
            0 if self.left.iter().any(|left| is_inside(&left)) => {
                self.leave(
                    path.to_owned(),
                    "it belongs to root, and has others' files in it",
                );
                return Ok(());
            }
            0 => {
                if let Err(errno) = self.give(dir, path) {
                    self.leave(path.to_owned(), &describe(&errno.into()));
                    return Ok(());
                }
            }
            uid => {
                self.leave_others(path.to_owned(), uid);
                return Ok(());
            }
        }
        let mode = stat.st_mode & 0o7777;
        let needed = (mode | 0o700) & !forbidden;
        if mode != needed {
            let changed = dir.set_mode(needed);
            self.note(changed, path, "changed the mode of", "");
        }
        Ok(())
    }

    /// Repairs a file of deploy-shell's in `dir`. Leaves and notes what is another user's.
    fn entry(&mut self, dir: &Dir, name: Name<'_>, path: &Path, content: Content) {
        let stat = match dir.stat_of_this_mount(name) {
            Ok(stat) => stat,
            // A request has removed it.
            Err(Errno::ENOENT) => return,
            Err(errno) => return self.leave(path.to_owned(), &describe(&errno.into())),
        };
        let is_directory_of_state =
            content == Content::State && [MANIFESTS, LIMITS, INCOMING, TRASH].contains(&name);
        // Nobody needs to own a symlink, and the directories have their own turn.
        if file_type(&stat) == SFlag::S_IFLNK || is_directory_of_state {
            return;
        }
        let is_accounts = stat.st_uid == self.account.uid;
        if is_accounts && (file_type(&stat) != SFlag::S_IFREG || stat.st_mode & 0o600 == 0o600) {
            return;
        }
        if !is_accounts && stat.st_uid != 0 {
            return self.leave_others(path.to_owned(), stat.st_uid);
        }
        if let Err(why) = self.file(dir, name, path, content) {
            self.leave(path.to_owned(), &why);
        }
    }

    /// Repairs a regular file that belongs to root or to the account.
    fn file(
        &mut self,
        dir: &Dir,
        name: Name<'_>,
        path: &Path,
        content: Content,
    ) -> std::result::Result<(), String> {
        let text = |errno: Errno| describe(&errno.into());
        let mut file = match dir.open_file(name) {
            Err(Errno::EISDIR | Errno::ENXIO) => {
                return Err("it belongs to root, and is not a regular file".to_owned());
            }
            opened => opened.map_err(text)?,
        };
        // Of the file that is open: another one may have been at the name.
        let stat = fstat(&file).map_err(text)?;
        if stat.st_uid == 0 {
            if !is_ours(name, &stat, &mut file, content) {
                return Err(
                    "it belongs to root, and is not known as a file of deploy-shell".to_owned(),
                );
            }
            self.give(&file, path).map_err(text)?;
        } else if stat.st_uid != self.account.uid {
            return Err("it was exchanged".to_owned());
        }
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o777);
        let needed = mode | Mode::S_IRUSR | Mode::S_IWUSR;
        if mode != needed {
            let changed = fchmod(&file, needed);
            self.note(changed, path, "changed the mode of", "");
        }
        Ok(())
    }

    fn give(&mut self, file: impl std::os::fd::AsFd, path: &Path) -> nix::Result<()> {
        fchown(file, Some(Uid::from_raw(self.account.uid)), None)?;
        let to = format!(" to {}", self.account.name);
        self.note(Ok(()), path, "gave", &to);
        Ok(())
    }

    fn note(&mut self, done: nix::Result<()>, path: &Path, verb: &str, rest: &str) {
        match done {
            Ok(()) => {
                let shown = self.config.root.join(path);
                self.changes
                    .push(format!("{verb} {}{rest}", shown.display()));
            }
            Err(errno) => self.leave(path.to_owned(), &describe(&errno.into())),
        }
    }

    fn leave(&mut self, path: PathBuf, why: &str) {
        self.left.push((path, why.to_owned()));
    }

    fn leave_others(&mut self, path: PathBuf, uid: u32) {
        let name = Account::of_uid(uid).name;
        self.leave(path, &format!("it belongs to '{name}'"));
    }

    fn output(self) -> Output {
        let root = &self.config.root;
        let sound = self.left.is_empty();
        let mut lines = self.changes;
        if sound && lines.is_empty() {
            lines.push(format!("{} has nothing to repair", root.display()));
        }
        for (path, why) in self.left {
            lines.push(format!("left {}: {why}", root.join(path).display()));
        }
        if !sound {
            lines.push("see 'Change a file of the site' in docs/operating.md".to_owned());
        }
        Output { lines, sound }
    }
}

/// Returns whether a file of root's is one of deploy-shell's, so that the account may see what
/// is in it.
///
/// A compressed part of the journal is not: a backup of root's looks the same.
fn is_ours(name: Name<'_>, stat: &FileStat, file: &mut File, content: Content) -> bool {
    if file_type(stat) != SFlag::S_IFREG || stat.st_nlink != 1 {
        return false;
    }
    let name: &OsStr = name.as_os_str();
    match content {
        Content::State if name == LOCK.as_os_str() => is_unlocked(file),
        Content::State if name == JOURNAL.as_os_str() => {
            let starts: [&[u8]; 3] = [b"{\"format\":", b"{\"checkpoint\":", b"{\"seq\":"];
            starts.iter().any(|start| begins_with(file, start))
        }
        Content::State if name.as_bytes().starts_with(used_ids::PREFIX.as_bytes()) => {
            begins_with(file, used_ids::HEAD.as_bytes())
        }
        Content::Manifests => begins_with(file, b"#mtree\n"),
        Content::Limits => has_only_times(file),
        Content::State | Content::Trees => false,
    }
}

fn begins_with(file: &File, start: &[u8]) -> bool {
    let mut found = vec![0; start.len()];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut found, 0).is_ok() && found == start
}

/// Returns whether a file is a lock that nobody holds. Its holder writes a note for people, and
/// overwrites it with spaces.
fn is_unlocked(file: &mut File) -> bool {
    whole(file).is_some_and(|text| text.iter().all(|byte| *byte == b' '))
}

/// Returns whether a file is a slot, which is empty, or a counter: nothing but lines such as
/// `2026-04-12T14:20:41Z`.
fn has_only_times(file: &mut File) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00Z\n";
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        shape => byte == shape,
    };
    whole(file).is_some_and(|text| {
        let mut lines = text.chunks(SHAPE.len());
        lines.all(|line| line.len() == SHAPE.len() && line.iter().zip(SHAPE).all(fits))
    })
}

/// Returns the content of a short file.
fn whole(file: &mut File) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let length = file.take(MAX_COMPARED + 1).read_to_end(&mut text).ok()?;
    (length as u64 <= MAX_COMPARED).then_some(text)
}
