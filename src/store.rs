//! What is on disk, and the only code that knows where it stands:
//!
//! ```text
//! root/current -> releases/20260412-142033
//! root/releases/<release>/            content: files 0644 or 0755, folders 0755
//! root/shared/                        the application's own; never written by us
//! root/.deploy-shell/                 0700
//!     lock                            flock(2): who may change anything
//!     journal.jsonl                   the history
//!     manifests/<release>             mtree(5)
//!     incoming/<staging>/             one receive's: tree/ and manifest
//!     trash/<release>.<seq>           pruned, being removed
//!     next                            the link before it is renamed into place
//!     back                            the same for the way back, laid before it is needed
//! ```
//!
//! A release exists when `releases/<release>` does; its manifest is in place
//! before it. What is live is what the link says; the journal follows it.

mod actor;
pub mod history;
pub mod journal;
pub mod layout;
pub mod ledger;
pub mod lock;
pub mod shared_dir;
mod symlink;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use crate::config::{Config, Percent};
use crate::dir::{self, Dir, Name};
use crate::error::{Code, Error, Result};
use crate::manifest::Identity;
use crate::names::{LinkName, ReleaseId};

pub use actor::Actor;
use layout::{INCOMING, JOURNAL, LOCK, MANIFESTS, RELEASES, STATE, TRASH};

/// An open site: handles of its folders, checked.
pub struct Store {
    pub root: Dir,
    pub releases: Dir,
    pub state: Dir,
    pub manifests: Dir,
    pub incoming: Dir,
    pub trash: Dir,
    link: LinkName,
    /// The link to the candidate, where the site has a smoke test.
    preview: Option<LinkName>,
    path: PathBuf,
}

/// What stood in `releases/`.
#[derive(Debug)]
pub struct Listing {
    /// The releases, sorted; see [`Store::is_present`].
    pub present: Vec<ReleaseId>,
    /// All names, those of releases and any others, sorted.
    names: Vec<OsString>,
}

impl Store {
    /// Opens the site's folders and checks that they are as they must be.
    ///
    /// Errors: [`Code::BadLayout`] with the remedy.
    pub fn open(config: &Config) -> Result<Store> {
        let store = Store::open_folders(config)?;
        store.check(nix::unistd::geteuid().as_raw())?;
        Ok(store)
    }

    /// Opens the folders for an operator who only looks: root may, whosever
    /// site it is. What it holds must be of one account all the same.
    ///
    /// Errors: as [`Store::open`].
    pub fn examine(config: &Config) -> Result<Store> {
        let store = Store::open_folders(config)?;
        let mut owner = nix::unistd::geteuid().as_raw();
        if owner == 0
            && let Ok(stat) = store.state.own_stat()
        {
            owner = stat.st_uid;
        }
        store.check(owner)?;
        Ok(store)
    }

    fn open_folders(config: &Config) -> Result<Store> {
        let path = &config.root;
        let root = Dir::open_root(path).map_err(|errno| layout(path, errno))?;
        let releases = subfolder(path, &root, RELEASES)?;
        let state = subfolder(path, &root, STATE)?;
        let below = path.join(STATE);
        Ok(Store {
            manifests: subfolder(&below, &state, MANIFESTS)?,
            incoming: subfolder(&below, &state, INCOMING)?,
            trash: subfolder(&below, &state, TRASH)?,
            root,
            releases,
            state,
            link: config.link.clone(),
            preview: config
                .health
                .smoke_url
                .as_ref()
                .map(|_| config.preview.link.clone()),
            path: path.clone(),
        })
    }

    /// The root, to be named in messages; nothing is opened by it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check(&self, owner: u32) -> Result<()> {
        let device = |dir: &Dir| dir.own_stat().map(|stat| stat.st_dev).ok();
        let state = self.path.join(STATE);
        // (folder, path, whether it must be ours, bits it must not have)
        let folders = [
            (&self.root, self.path.clone(), false, 0o002),
            (&self.releases, self.path.join(RELEASES), true, 0o022),
            (&self.state, state.clone(), true, 0o077),
            (&self.manifests, state.join(MANIFESTS), true, 0o022),
            (&self.incoming, state.join(INCOMING), true, 0o022),
            (&self.trash, state.join(TRASH), true, 0o022),
        ];
        for (folder, path, must_be_ours, forbidden) in folders {
            let shown = path.display();
            let bad = |problem: String| Error::new(Code::BadLayout, format!("'{shown}' {problem}"));
            let stat = folder
                .own_stat()
                .map_err(|errno| Error::io(format!("cannot look at '{shown}'"), errno))?;
            if must_be_ours && stat.st_uid != owner {
                return Err(bad(format!(
                    "belongs to user {}, not to this account",
                    stat.st_uid
                ))
                .remedy(format!("chown it to user {owner}")));
            }
            if stat.st_mode & forbidden != 0 {
                return Err(
                    bad("can be reached or written by others".to_owned()).remedy(format!(
                        "chmod {} '{shown}'",
                        octal_less(stat.st_mode, forbidden)
                    )),
                );
            }
            // One rename is only atomic within one file system.
            if device(folder) != device(&self.root) {
                return Err(bad("is on another file system than the root".to_owned())
                    .remedy("keep the whole site on one file system, without mounts inside it"));
            }
        }
        Ok(())
    }

    /// The journal and the lock, made if need be; neither for who only reads.
    pub fn records(&self, write: bool) -> dir::Result<Vec<File>> {
        let names = if write { &[JOURNAL, LOCK][..] } else { &[] };
        let open = |name: &Name<'_>| self.state.open_append(*name, 0o600);
        names.iter().map(open).collect()
    }

    /// What is live: the release the link names.
    ///
    /// Errors: as [`Store::resolve_link`].
    pub fn current(&self) -> Result<Option<ReleaseId>> {
        self.resolve_link(&self.link)
    }

    /// The release that `link` names.
    ///
    /// Errors: [`Code::BadLayout`] when something other than a link to
    /// `releases/<release>` stands there. It is never replaced: it may be a
    /// folder with content, or a link that another tool made.
    fn resolve_link(&self, link: &LinkName) -> Result<Option<ReleaseId>> {
        let shown = self.path.join(link.as_str());
        let shown = shown.display();
        let bad = |problem: &str, remedy: String| {
            Err(Error::new(Code::BadLayout, format!("'{shown}' {problem}")).remedy(remedy))
        };
        match self.root.stat(link) {
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(Error::io(format!("cannot look at '{shown}'"), errno)),
            Ok(stat) if dir::kind(&stat) != SFlag::S_IFLNK => {
                let remedy = format!("move it away, then swap: mv '{shown}' '{shown}.old'");
                return bad("is not a link", remedy);
            }
            Ok(_) => {}
        }
        let target = self
            .root
            .read_link(link)
            .map_err(|errno| Error::io(format!("cannot read the link '{shown}'"), errno))?;
        let release = (target.as_bytes())
            .strip_prefix(RELEASES.as_bytes())
            .and_then(|below| below.strip_prefix(b"/"))
            .and_then(|id| ReleaseId::try_from(str::from_utf8(id).ok()?).ok());
        match release {
            Some(release) => Ok(Some(release)),
            None => bad(
                "is a link to something that is not a release of ours",
                format!("point it at 'releases/RELEASE' or remove it, then swap: rm '{shown}'"),
            ),
        }
    }

    /// The releases that are there and whose manifests are ours, sorted.
    pub fn present(&self) -> Result<Vec<ReleaseId>> {
        Ok(self.listing()?.present)
    }

    /// What stands in `releases/`, read once.
    pub fn listing(&self) -> Result<Listing> {
        let cannot = |errno| {
            Error::io(
                format!("cannot list '{}/releases'", self.path.display()),
                errno,
            )
        };
        // Two readings, and not two looks at each release: there may be many.
        // The manifests last: one that comes is there before its release.
        let releases = self.releases.kinds().map_err(cannot)?;
        let manifests = self.manifests.kinds().map_err(cannot)?;
        let regular = manifests.iter().filter(|(_, kind)| *kind == SFlag::S_IFREG);
        let mut has_manifest = among(regular.map(|(name, _)| name.as_bytes()));
        let present = releases
            .iter()
            .filter(|(name, kind)| *kind == SFlag::S_IFDIR && has_manifest(name.as_bytes()))
            .filter_map(|(name, _)| release_name(name))
            .collect();
        Ok(Listing {
            present,
            names: releases.into_iter().map(|(name, _)| name).collect(),
        })
    }

    /// Whether the release is a folder of ours with a manifest beside it.
    ///
    /// Errors: it cannot be told. Taken for "no", a rollback would go back to
    /// the wrong release.
    pub fn is_present(&self, release: &ReleaseId) -> Result<bool> {
        let is = |dir: &Dir, expected: SFlag| match dir.stat(release) {
            Ok(stat) => Ok(dir::kind(&stat) == expected),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.io(format!("cannot look for '{release}'"), errno)),
        };
        Ok(is(&self.releases, SFlag::S_IFDIR)? && is(&self.manifests, SFlag::S_IFREG)?)
    }

    /// The manifest beside a release: whose it is, and its entries to be read.
    ///
    /// Errors: [`Code::NoSuchRelease`] when there is none or it is another's.
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
        // The head is in the first buffer. That it cannot be read does not say
        // that it is not ours.
        manifest
            .fill_buf()
            .map_err(|error| self.io(format!("cannot read the manifest of '{release}'"), error))?;
        let identity = Identity::read(&mut manifest).map_err(bad)?;
        if identity.release != *release {
            return Err(bad("it names another release"));
        }
        Ok((identity, manifest))
    }

    /// What may still be written before only the reserve is left: bytes, and
    /// inodes (no limit where the file system has no table of them).
    ///
    /// Errors: [`Code::DiskFull`] when nothing may.
    pub fn room(&self, reserve: Percent) -> Result<(u64, u64)> {
        let space = self
            .root
            .space()
            .map_err(|errno| self.io("cannot look at the file system", errno))?;
        let left = |free: u64, total: u64| free.saturating_sub(reserve.of(total));
        let bytes = left(space.free_bytes, space.total_bytes);
        let inodes = match space.total_inodes {
            0 => u64::MAX,
            total => left(space.free_inodes, total),
        };
        if bytes == 0 || inodes == 0 {
            return Err(self.only_reserve());
        }
        Ok((bytes, inodes))
    }

    /// The failure of a receive that would use up the reserve.
    pub fn only_reserve(&self) -> Error {
        self.with_room(Error::new(
            Code::DiskFull,
            "not enough space: the configured reserve would be used",
        ))
    }

    /// An operating system's failure, with the room left if the disk is full.
    pub fn io(&self, doing: impl std::fmt::Display, error: impl Into<std::io::Error>) -> Error {
        self.with_room(Error::io(doing, error))
    }

    /// Adds the file system's name and free room to [`Code::DiskFull`].
    pub fn with_room(&self, mut error: Error) -> Error {
        if error.code == Code::DiskFull
            && let Ok(space) = self.root.space()
        {
            error.problem = format!(
                "{} (the file system of '{}' has {} bytes and {} inodes free)",
                error.problem,
                self.path.display(),
                space.free_bytes,
                space.free_inodes
            );
            error.remedy = Some("make room, then try again; nothing was changed".to_owned());
        }
        error
    }
}

fn subfolder(path: &Path, parent: &Dir, name: Name<'_>) -> Result<Dir> {
    let shown = path.join(name);
    parent.open_dir(name).map_err(|errno| layout(&shown, errno))
}

fn layout(path: &Path, errno: Errno) -> Error {
    let shown = path.display();
    let problem = match errno {
        Errno::ENOENT => format!("'{shown}' does not exist"),
        Errno::ENOTDIR | Errno::ELOOP => format!("'{shown}' is not a folder itself"),
        errno => format!(
            "cannot open '{shown}': {}",
            crate::error::describe(&errno.into())
        ),
    };
    Error::new(Code::BadLayout, problem)
        .remedy("run 'deploy-shell-admin init', or make it as it does")
}

fn octal_less(mode: u32, forbidden: u32) -> String {
    format!("{:04o}", mode & 0o7777 & !forbidden)
}

/// Tells of names, asked for in order, whether each is among `sorted`: one walk
/// along both, because there may be thousands.
fn among<'a>(sorted: impl Iterator<Item = &'a [u8]>) -> impl FnMut(&[u8]) -> bool {
    let mut sorted = sorted.peekable();
    move |name: &[u8]| {
        while sorted.next_if(|other| *other < name).is_some() {}
        sorted.peek().is_some_and(|other| *other == name)
    }
}

/// The release that a folder of this name would be.
pub fn release_name(name: &OsStr) -> Option<ReleaseId> {
    ReleaseId::try_from(name.to_str()?).ok()
}
