//! `repair`: gives root's files of deploy-shell to the account of the site, and sets the modes
//! that requests need.
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
//! short one. It takes no file that other users can write. So the account can choose a file of
//! root's, and no content.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat};
use nix::unistd::{Uid, fchown};

use crate::init::Account;
use crate::output::Output;
use crate::site_account::named_or_shown;
use deploy_shell::config::Config;
use deploy_shell::dir::{Dir, Name, file_type};
use deploy_shell::error::{Error, Result, describe};
use deploy_shell::shell_word::Word;
use deploy_shell::store::layout::{
    INCOMING, JOURNAL, LIMITS, LOCK, MANIFESTS, RELEASES, STATE, TRASH,
};
use deploy_shell::store::{journal, used_ids};

/// The maximum number of names that this reads in a directory. The account can make any number.
const MAX_NAMES: usize = 1_000_000;

/// The longest file that is compared as a whole, in bytes: a counter of 100,000 lines.
const MAX_COMPARED: u64 = 100_000 * 21;

/// What a directory of the site has in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// The files of `.deploy-shell` itself.
    State,
    Manifests,
    /// Counters, and files that requests lock.
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
/// and one for each thing that is left as it is; then the site is not sound. `named` is the
/// account, where the owners of the directories do not show it.
///
/// # Errors
///
/// Those of [`named_or_shown`] and of the configuration.
pub fn repair(config: &Path, named: Option<&str>) -> Result<Output> {
    let config = Config::load(config)?;
    let account = named_or_shown(&config, named, "repair")?;
    let path = &config.root;
    let root = Dir::open_root(path)
        .map_err(|errno| Error::io(format!("cannot open '{}'", path.display()), errno))?;
    let mut repair = Repair {
        config: &config,
        account,
        changes: Vec::new(),
        left: Vec::new(),
        missing: Vec::new(),
    };
    let in_root = Path::new("");
    if let Some(state) = repair.open(&root, in_root, STATE) {
        let at = Path::new(STATE.as_os_str());
        // From the inside to the outside: a directory is given away last.
        for (name, content) in STATE_CONTENT {
            if let Some(inner) = repair.open(&state, at, name) {
                repair.directory(&inner, &at.join(name), content, 0o022);
            }
        }
        repair.directory(&state, at, Content::State, 0o077);
    }
    if let Some(releases) = repair.open(&root, in_root, RELEASES) {
        let at = Path::new(RELEASES.as_os_str());
        repair.directory(&releases, at, Content::Trees, 0o022);
    }
    Ok(repair.output())
}

/// The steps so far. Each path is one below the root.
struct Repair<'a> {
    config: &'a Config,
    account: Account,
    /// Lines.
    changes: Vec<String>,
    /// What stays as it is, and why.
    left: Vec<(PathBuf, String)>,
    /// Directories that do not exist.
    missing: Vec<PathBuf>,
}

impl Repair<'_> {
    /// Opens a directory of the site in `dir`, whose path is `at`.
    fn open(&mut self, dir: &Dir, at: &Path, name: Name<'_>) -> Option<Dir> {
        let path = at.join(name);
        match dir.open_dir_of_this_mount(name) {
            Ok(opened) => return Some(opened),
            // The first request that writes makes it.
            Err(Errno::ENOENT) if name == LIMITS => {}
            Err(Errno::ENOENT) => self.missing.push(path),
            Err(Errno::ENOTDIR | Errno::ELOOP) => self.leave(path, "it is not a directory itself"),
            Err(errno) => self.leave(path, &text(errno)),
        }
        None
    }

    /// Repairs what is in a directory of the site, and then the directory. `forbidden` are mode
    /// bits that requests refuse.
    fn directory(&mut self, dir: &Dir, path: &Path, content: Content, forbidden: u32) {
        if let Err(why) = self.try_directory(dir, path, content, forbidden) {
            self.leave(path.to_owned(), &why);
        }
    }

    fn try_directory(
        &mut self,
        dir: &Dir,
        path: &Path,
        content: Content,
        forbidden: u32,
    ) -> std::result::Result<(), String> {
        let stat = dir.metadata().map_err(text)?;
        if ![0, self.account.uid].contains(&stat.st_uid) {
            return Err(others(stat.st_uid));
        }
        // Nothing but a directory of root's depends on the trees that are in it.
        if content != Content::Trees || stat.st_uid == 0 {
            let names = dir.names_up_to(MAX_NAMES).map_err(text)?;
            // The account can rename a directory of root's within the root directory, and nothing
            // says that an empty one is the site's.
            let is_in_root = path.components().count() == 1;
            if is_in_root && stat.st_uid == 0 && names.is_empty() {
                return Err("it belongs to root, and is empty".to_owned());
            }
            for name in names {
                if let Some(name) = Name::new(name.as_bytes()) {
                    self.entry(dir, name, &path.join(name), content);
                }
            }
        }
        if stat.st_uid == 0 {
            if self
                .left
                .iter()
                .any(|(left, _)| left.parent() == Some(path))
            {
                return Err("it belongs to root, and not all in it is the account's".to_owned());
            }
            self.give(dir, path).map_err(text)?;
        }
        let mode = stat.st_mode & 0o7777;
        let needed = (mode | 0o700) & !forbidden;
        if mode != needed {
            dir.set_mode(needed).map_err(text)?;
            self.note("changed the mode of", path, "");
        }
        Ok(())
    }

    /// Repairs a file of deploy-shell's in `dir`. Leaves and notes what is another user's.
    fn entry(&mut self, dir: &Dir, name: Name<'_>, path: &Path, content: Content) {
        let stat = match dir.stat_of_this_mount(name) {
            Ok(stat) => stat,
            // A request has removed it.
            Err(Errno::ENOENT) => return,
            Err(errno) => return self.leave(path.to_owned(), &text(errno)),
        };
        let is_known_directory =
            content == Content::State && STATE_CONTENT.iter().any(|(known, _)| *known == name);
        // No request needs the owner of a symlink. `directory` repairs the directories.
        if file_type(&stat) == SFlag::S_IFLNK || is_known_directory {
            return;
        }
        let is_accounts = stat.st_uid == self.account.uid;
        if is_accounts && (file_type(&stat) != SFlag::S_IFREG || stat.st_mode & 0o600 == 0o600) {
            return;
        }
        let done = match stat.st_uid {
            uid if uid != 0 && !is_accounts => Err(others(uid)),
            _ => self.file(dir, name, path, content),
        };
        if let Err(why) = done {
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
        let mut file = match dir.open_file(name) {
            Err(Errno::EISDIR) => return Err("it is a directory of root's".to_owned()),
            Err(Errno::ENXIO) => return Err("it is not a regular file".to_owned()),
            opened => opened.map_err(text)?,
        };
        // Of the file that is open: another one may have been at the name.
        let stat = fstat(&file).map_err(text)?;
        if stat.st_uid == 0 {
            if !is_ours(name, &stat, &mut file, content) {
                let why = "it belongs to root, and is not known as a file of deploy-shell";
                return Err(why.to_owned());
            }
            self.give(&file, path).map_err(text)?;
        } else if stat.st_uid != self.account.uid {
            return Err("it was exchanged".to_owned());
        }
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o777);
        let needed = mode | Mode::S_IRUSR | Mode::S_IWUSR;
        if mode != needed {
            fchmod(&file, needed).map_err(text)?;
            self.note("changed the mode of", path, "");
        }
        Ok(())
    }

    fn give(&mut self, file: impl AsFd, path: &Path) -> nix::Result<()> {
        fchown(file, Some(Uid::from_raw(self.account.uid)), None)?;
        let to = format!(" to {}", self.account.name);
        self.note("gave", path, &to);
        Ok(())
    }

    fn note(&mut self, verb: &str, path: &Path, rest: &str) {
        let shown = self.config.root.join(path);
        self.changes
            .push(format!("{verb} {}{rest}", shown.display()));
    }

    fn leave(&mut self, path: PathBuf, why: &str) {
        self.left.push((path, why.to_owned()));
    }

    fn output(self) -> Output {
        let root = &self.config.root;
        let sound = self.left.is_empty() && self.missing.is_empty();
        let mut lines = self.changes;
        if sound && lines.is_empty() {
            lines.push(format!("{} has nothing to repair", root.display()));
        }
        let missing = self.missing.iter();
        lines.extend(missing.map(|path| format!("{} does not exist", root.join(path).display())));
        if !self.missing.is_empty() {
            let (site, root) = (self.config.site_option(), Word::new(root));
            let owner = Word::new(&self.account.name);
            let init = format!("deploy-shell-admin init {site} --root {root} --owner {owner}");
            lines.push(format!("make what is missing: {init}"));
        }
        let has_left = !self.left.is_empty();
        let left = self.left.into_iter();
        lines.extend(left.map(|(path, why)| format!("left {}: {why}", root.join(path).display())));
        if has_left {
            lines.push("see Change a file of the site in docs/operating.md".to_owned());
        }
        Output { lines, sound }
    }
}

fn text(errno: Errno) -> String {
    match errno {
        Errno::EXDEV => "it is a mount point".to_owned(),
        errno => describe(&errno.into()),
    }
}

fn others(uid: u32) -> String {
    format!("it belongs to '{}'", Account::of_uid(uid).name)
}

/// Returns whether a regular file of root's is one of deploy-shell's, so that the account may see what
/// is in it.
///
/// A compressed part of the journal is not: a backup of root's looks the same.
fn is_ours(name: Name<'_>, stat: &FileStat, file: &mut File, content: Content) -> bool {
    let has_writers = stat.st_mode & 0o022 != 0;
    if stat.st_nlink != 1 || has_writers {
        return false;
    }
    match content {
        Content::State if name == LOCK => is_unlocked(file),
        Content::State if name == JOURNAL => {
            let starts = [journal::FORMAT_LINE, journal::CHECKPOINT, "{\"seq\":"];
            starts
                .iter()
                .any(|start| begins_with(file, start.as_bytes()))
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
