//! The site on disk. docs/formats.md specifies all of it.
//!
//! ```text
//! root/current -> releases/20260412-142033
//! root/releases/<release>/            content: files 0644 or 0755, directories 0755
//! root/shared/                        the application's own; never written by us
//! root/.deploy-shell/                 0700
//!     lock                            flock(2): its holder may change the site
//!     journal.jsonl                   the history
//!     journal-<seq>.jsonl.zst         old parts of it
//!     used-ids-<seq>                  the ids of removed releases
//!     manifests/<release>             mtree(5)
//!     incoming/<staging>/             of one receive: tree/ and manifest
//!     trash/<release>.<seq>           pruned, being removed
//!     limits/                         counters and upload slots of each key
//!     next                            the new symlink, before it is renamed into place
//!     back                            the symlink to the fallback, made in advance
//! ```
//!
//! A release exists when `releases/<release>` does; its manifest is in place before
//! it. The `current` symlink says which release is live; the journal follows it.

mod access;
mod actor;
pub mod checkpoint;
pub mod history;
pub mod hold;
mod inheritance;
pub mod journal;
pub mod layout;
pub mod ledger;
pub mod limits;
pub mod lock;
mod notice;
pub mod shared_dir;
mod symlink;
mod trash;
mod tree_list;
pub mod turn;
pub mod used_ids;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use crate::config::{Config, Percent};
use crate::dir::{self, Dir, Name};
use crate::error::{Code, Error, Fault, Result};
use crate::manifest::{HeadFlaw, Identity};
use crate::names::{LinkName, ReleaseId, Sha256Digest};
use crate::shell_word::Word;

pub use access::{AS_FOR_A_FILE, COPY_THE_SITE, ONE_FILE_SYSTEM};
pub use actor::{Actor, Task};
pub use inheritance::Inherited;
use layout::{INCOMING, JOURNAL, LOCK, MANIFESTS, RELEASES, STATE, TRASH};
pub use notice::{Found, Notice, NoticeLog};
pub use tree_list::TreeList;

/// An open site: handles of its directories, checked.
pub struct Store {
    pub root: Dir,
    pub releases: Dir,
    pub state: Dir,
    pub manifests: Dir,
    pub incoming: Dir,
    pub trash: Dir,
    link: LinkName,
    /// The symlink to the candidate, if the site has a smoke test.
    preview: Option<LinkName>,
    /// The release that the configuration names as the floor.
    floor: Option<ReleaseId>,
    path: PathBuf,
    /// The words by which a command of the operator names this site.
    options: String,
}

/// The room of a file system: everything above the reserve.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub bytes: u64,
    pub inodes: u64,
    /// The size of a block, in bytes.
    pub block: u64,
}

/// The content of `releases/` at one time.
#[derive(Debug)]
pub struct Listing {
    /// The releases, sorted; see [`Store::is_present`].
    pub present: Vec<ReleaseId>,
    /// The directories with the name of a release and without a manifest, sorted.
    pub without_manifest: Vec<ReleaseId>,
    /// All names, also those that are not names of releases, sorted.
    names: Vec<OsString>,
}

impl Listing {
    /// Returns whether the directory of a release exists, with or without a manifest.
    pub fn has_directory(&self, release: &ReleaseId) -> bool {
        [&self.present, &self.without_manifest]
            .iter()
            .any(|sorted| sorted.binary_search(release).is_ok())
    }
}

impl Store {
    /// Opens the site's directories and checks their owners, modes and file system.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] with the remedy.
    pub fn open(config: &Config) -> Result<Store> {
        let store = Store::open_unchecked(config)?;
        store.check_directories(nix::unistd::geteuid().as_raw())?;
        Ok(store)
    }

    /// Opens the directories for an operator who only reads. root may read the site of
    /// any account; the directories must still be of one account.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn examine(config: &Config) -> Result<Store> {
        let store = Store::open_unchecked(config).map_err(|error| match error.fault {
            // Only the account and root may look into `.deploy-shell`.
            Some(Fault::AccessDenied) => {
                error.remedy("run this as root, or as the account that owns the site")
            }
            _ => error,
        })?;
        let mut owner = nix::unistd::geteuid().as_raw();
        if owner == 0
            && let Ok(stat) = store.state.metadata()
        {
            owner = stat.st_uid;
        }
        store.check_directories(owner)?;
        Ok(store)
    }

    /// Opens the directories, whatever their owners and modes are, for a command that
    /// repairs them.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] for one that is missing or is not a directory itself.
    pub fn open_unchecked(config: &Config) -> Result<Store> {
        let path = &config.root;
        let options = config.site_option();
        let init = || init_command(&options, path);
        let open =
            |path: &Path, parent: &Dir, name| access::open_subdirectory(path, parent, name, &init);
        let root =
            Dir::open_root(path).map_err(|errno| access::cannot_open_root(path, errno, &init))?;
        let releases = open(path, &root, RELEASES)?;
        let state = open(path, &root, STATE)?;
        let below = path.join(STATE);
        Ok(Store {
            manifests: open(&below, &state, MANIFESTS)?,
            incoming: open(&below, &state, INCOMING)?,
            trash: open(&below, &state, TRASH)?,
            root,
            releases,
            state,
            link: config.link.clone(),
            preview: (config.health.has_smoke_test()).then(|| config.preview.link.clone()),
            floor: config.floor.clone(),
            path: path.clone(),
            options,
        })
    }

    /// Returns the command of the operator that makes the directories of this site.
    fn init_command(&self) -> String {
        init_command(&self.options, &self.path)
    }

    /// Returns the path of the root, for messages only: nothing is opened by it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the journal and the lock file, and makes them if they do not exist. Opens
    /// neither for a request that only reads (`write` is false).
    ///
    /// # Errors
    ///
    /// The errno of the system call.
    pub fn records(&self, write: bool) -> dir::Result<Vec<File>> {
        let names = if write { &[JOURNAL, LOCK][..] } else { &[] };
        let open = |name: &Name<'_>| self.state.open_append(*name, 0o600);
        names.iter().map(open).collect()
    }

    /// Returns the live release: the one that the `current` symlink names.
    ///
    /// # Errors
    ///
    /// As [`Store::resolve_link`].
    pub fn current(&self) -> Result<Option<ReleaseId>> {
        self.resolve_link(&self.link)
    }

    /// Returns the releases that have a directory and a manifest, sorted.
    ///
    /// # Errors
    ///
    /// As [`Store::listing`].
    pub fn present(&self) -> Result<Vec<ReleaseId>> {
        Ok(self.listing()?.present)
    }

    /// Reads `releases/` once.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`] if a directory cannot be listed.
    pub fn listing(&self) -> Result<Listing> {
        let cannot = |errno| {
            Error::io(
                format!("cannot list '{}/releases'", self.path.display()),
                errno,
            )
        };
        // Two listings, and not two stat calls for each release: there may be many. The
        // manifests last, because a manifest is in place before its release.
        let releases = self.releases.entries_with_type().map_err(cannot)?;
        let manifests = self.manifests.entries_with_type().map_err(cannot)?;
        let regular = manifests.iter().filter(|(_, kind)| *kind == SFlag::S_IFREG);
        let mut has_manifest = sorted_contains(regular.map(|(name, _)| name.as_bytes()));
        let (mut present, mut without_manifest) = (Vec::new(), Vec::new());
        for (name, kind) in &releases {
            if *kind == SFlag::S_IFDIR
                && let Some(release) = release_name(name)
            {
                if has_manifest(name.as_bytes()) {
                    present.push(release);
                } else {
                    without_manifest.push(release);
                }
            }
        }
        Ok(Listing {
            present,
            without_manifest,
            names: releases.into_iter().map(|(name, _)| name).collect(),
        })
    }

    /// Returns whether the release has a directory and a manifest.
    ///
    /// # Errors
    ///
    /// The error of the look-up. A caller must not take it for "no": a rollback would
    /// choose the wrong release.
    pub fn is_present(&self, release: &ReleaseId) -> Result<bool> {
        let is = |dir: &Dir, expected: SFlag| match dir.stat_of_this_mount(release) {
            Ok(stat) => Ok(dir::file_type(&stat) == expected),
            // Something is mounted there, and covers it: [`Store::listing`] has it too.
            Err(Errno::EXDEV) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.io(format!("cannot look for '{release}'"), errno)),
        };
        Ok(is(&self.releases, SFlag::S_IFDIR)? && is(&self.manifests, SFlag::S_IFREG)?)
    }

    /// Opens the manifest of a release. Returns its head, and a reader of its entries.
    ///
    /// # Errors
    ///
    /// [`Code::NoSuchRelease`] if there is none or it is of another release,
    /// [`Code::BadLayout`] if a newer version of this program wrote it.
    pub fn manifest(&self, release: &ReleaseId) -> Result<(Identity, BufReader<File>)> {
        let bad = |why: &str| {
            Error::new(
                Code::NoSuchRelease,
                format!("release '{release}' has no manifest of its own: {why}"),
            )
            .remedy("receive it again under another id")
        };
        let file = self
            .manifests
            .open_file(release)
            .map_err(|errno| match errno {
                Errno::ENOENT | Errno::ELOOP | Errno::EISDIR => {
                    bad(&crate::error::describe(&errno.into()))
                }
                errno => self.io(format!("cannot open the manifest of '{release}'"), errno),
            })?;
        let mut manifest = BufReader::with_capacity(4096, file);
        // The head is in the first buffer. A failure to read it does not mean that the
        // manifest is bad.
        manifest
            .fill_buf()
            .map_err(|error| self.io(format!("cannot read the manifest of '{release}'"), error))?;
        let identity = Identity::read(&mut manifest).map_err(|flaw| match flaw {
            HeadFlaw::Malformed(why) => bad(why),
            HeadFlaw::Newer(_) => Error::new(
                Code::BadLayout,
                format!("the manifest of '{release}' is of a newer version: {flaw}"),
            )
            .remedy("install that version of deploy-shell or a later one"),
        })?;
        if identity.release != *release {
            return Err(bad("it names another release"));
        }
        Ok((identity, manifest))
    }

    /// Opens the manifest of a release that has a tree list. Returns its head, the digest
    /// of the list, and a reader of its entries.
    ///
    /// # Errors
    ///
    /// Those of [`Store::manifest`]; [`Code::NoSuchRelease`] also if the release does not
    /// exist, and if its manifest is of format 1.
    pub fn tree_manifest(
        &self,
        release: &ReleaseId,
    ) -> Result<(Identity, Sha256Digest, BufReader<File>)> {
        if !self.is_present(release)? {
            let problem = format!("there is no release '{release}'");
            return Err(
                Error::new(Code::NoSuchRelease, problem).remedy("'list' shows what there is")
            );
        }
        let (identity, entries) = self.manifest(release)?;
        let Some(tree) = identity.tree else {
            let problem = format!(
                "release '{release}' has no tree digest: an older version of deploy-shell received it"
            );
            return Err(Error::new(Code::NoSuchRelease, problem)
                .remedy("send the next release whole, without --base"));
        };
        Ok((identity, tree, entries))
    }

    /// Returns how many bytes and inodes may be used before only the reserve is left. A
    /// file system without a table of inodes does not limit them.
    ///
    /// # Errors
    ///
    /// [`Code::DiskFull`] if nothing may be written.
    pub fn room(&self, reserve: Percent) -> Result<Room> {
        let space = self
            .root
            .space()
            .map_err(|errno| self.io("cannot read the free space of the file system", errno))?;
        let left = |free: u64, total: u64| free.saturating_sub(reserve.of(total));
        let bytes = left(space.free_bytes, space.total_bytes);
        let inodes = match space.total_inodes {
            0 => u64::MAX,
            total => left(space.free_inodes, total),
        };
        if bytes == 0 || inodes == 0 {
            return Err(self.reserve_reached());
        }
        Ok(Room {
            bytes,
            inodes,
            block: space.block,
        })
    }

    /// Returns the error of a receive that would use the reserve.
    pub fn reserve_reached(&self) -> Error {
        self.with_room(Error::new(
            Code::DiskFull,
            "not enough space: the configured reserve would be used",
        ))
    }

    /// Returns an error of the operating system, with the free space if the disk is full.
    pub fn io(&self, doing: impl std::fmt::Display, error: impl Into<std::io::Error>) -> Error {
        self.with_room(Error::io(doing, error))
    }

    /// Adds the file system's name and free space to [`Code::DiskFull`].
    pub fn with_room(&self, mut error: Error) -> Error {
        if error.code == Code::DiskFull
            && error.fault != Some(Fault::QuotaExceeded)
            && let Ok(space) = self.root.space()
        {
            // btrfs has no table of inodes, and so none that could be used up.
            let inodes = match space.total_inodes {
                0 => String::new(),
                _ => format!(" and {} inodes", space.free_inodes),
            };
            error.problem = format!(
                "{} (the file system of '{}' has {} bytes{inodes} free)",
                error.problem,
                self.path.display(),
                space.free_bytes,
            );
            error.remedy = Some("make room, then try again; nothing was published".to_owned());
        }
        error
    }
}

/// Returns the command of the operator that makes the directories of a site.
///
/// `init` takes the account from a root directory that is not root's. Otherwise it needs
/// the account, which is this user: by its number, because this program looks up no name.
fn init_command(options: &str, root: &Path) -> String {
    let uid = nix::unistd::geteuid();
    let is_accounts = root.metadata().is_ok_and(|root| root.uid() != 0);
    let owner = if is_accounts || uid.is_root() {
        String::new()
    } else {
        format!(" --owner {uid}")
    };
    let root = Word::new(root);
    format!("deploy-shell-admin init {options} --root {root}{owner}")
}

/// Returns a function that says whether `sorted` contains a name. Its callers pass
/// names in order, so one walk along both suffices: there may be thousands.
fn sorted_contains<'a>(sorted: impl Iterator<Item = &'a [u8]>) -> impl FnMut(&[u8]) -> bool {
    let mut sorted = sorted.peekable();
    move |name: &[u8]| {
        while sorted.next_if(|other| *other < name).is_some() {}
        sorted.peek().is_some_and(|other| *other == name)
    }
}

/// Returns the release of which `name` is the directory name.
pub fn release_name(name: &OsStr) -> Option<ReleaseId> {
    ReleaseId::try_from(name.to_str()?).ok()
}
