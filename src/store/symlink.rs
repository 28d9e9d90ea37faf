//! The symlinks that say which release is live, and which one is under test.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::layout::{BACK, NEXT, RELEASES};
use super::{Store, release_name};
use crate::dir::{self, Name};
use crate::error::{Code, Error, Result};
use crate::names::{LinkName, ReleaseId};
use crate::shell_word::{Word, run_script};

impl Store {
    /// Points the current symlink at `release` atomically, or removes it. The
    /// change is durable once the root directory is synced.
    ///
    /// The rename is the commit point: before it nothing has changed, after it
    /// the release is live.
    ///
    /// # Errors
    ///
    /// As [`Store::io`].
    pub fn set_current(&self, release: Option<&ReleaseId>) -> Result<()> {
        self.replace_link(&self.link, release)
    }

    /// Creates `.deploy-shell/back` now, so that a revert (an automatic rollback)
    /// needs no free inode or block on a full disk: a release that fails may have
    /// used up the last of either, and must not stay live because of that.
    ///
    /// # Errors
    ///
    /// As [`Store::io`]. The current symlink is unchanged.
    pub fn prepare_fallback_link(&self, release: &ReleaseId) -> Result<()> {
        let created = self.create_link(BACK, release);
        created.map_err(|errno| self.io("cannot create the symlink for the fallback", errno))
    }

    /// Does what [`Store::set_current`] does, for a revert: it renames the symlink
    /// that [`Store::prepare_fallback_link`] created, if that one names `release`.
    ///
    /// The rename needs no free space: both names exist, so the file system
    /// replaces one inode number and removes the other name, and no directory
    /// grows.
    ///
    /// # Errors
    ///
    /// As [`Store::io`].
    pub fn revert_current(&self, release: Option<&ReleaseId>) -> Result<()> {
        let prepared = self.state.read_link(BACK).ok();
        if release.is_some_and(|release| prepared == Some(target(release))) {
            let moved = self.state.rename(BACK, &self.root, &self.link);
            return moved.map_err(|errno| self.cannot_move(&self.link, errno));
        }
        // A prepared symlink to another release is useless, and may use the last
        // inode.
        _ = self.state.remove_file(BACK);
        self.set_current(release)
    }

    /// Removes the temporary symlinks of a finished or killed activation. If
    /// that fails, the next request's sweep removes them.
    pub fn clear_links(&self) {
        for name in [NEXT, BACK] {
            _ = self.state.remove_file(name);
        }
    }

    /// Points the preview symlink at a candidate, or removes it. Does nothing
    /// if the site has no smoke test.
    ///
    /// # Errors
    ///
    /// As [`Store::current`]: a file that is not our symlink is not replaced.
    pub fn set_preview(&self, release: Option<&ReleaseId>) -> Result<()> {
        let Some(link) = &self.preview else {
            return Ok(());
        };
        match (self.resolve_link(link)?, release) {
            (None, None) => Ok(()),
            _ => self.replace_link(link, release),
        }
    }

    /// Returns the releases that symlinks in the root name: no request removes them.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`].
    pub fn releases_named_by_symlinks(&self) -> Result<Vec<ReleaseId>> {
        let links = self.symlinks_to_releases()?;
        Ok(links.into_iter().map(|(_, release)| release).collect())
    }

    /// Returns each symlink in the root that leads to a release or into it, but the one of the
    /// preview, and the release.
    ///
    /// Another symlink than `link` can be what a web server serves: that of a site with the same
    /// root and another `link`, or the old one after a change of `link`.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`].
    pub fn symlinks_to_releases(&self) -> Result<Vec<(OsString, ReleaseId)>> {
        let cannot = |errno| {
            let problem = format!("cannot read the symlinks in '{}'", self.path.display());
            Error::io(problem, errno)
        };
        let absolute = self.path.join(RELEASES);
        let mut found = Vec::new();
        for (name, kind) in self.root.entries_with_type().map_err(cannot)? {
            let is_preview = (self.preview.as_ref()).is_some_and(|link| name == link.as_str());
            let Some(link) = Name::new(name.as_bytes()) else {
                continue;
            };
            if kind != SFlag::S_IFLNK || is_preview {
                continue;
            }
            let target = match self.root.read_link(link) {
                Ok(target) => target,
                // It went away, or became something else.
                Err(Errno::ENOENT | Errno::EINVAL) => continue,
                Err(errno) => return Err(cannot(errno)),
            };
            let target = Path::new(&target);
            let target = target.strip_prefix(".").unwrap_or(target);
            let below = target.strip_prefix(RELEASES.as_os_str());
            let below = below.or_else(|_| target.strip_prefix(&absolute));
            let first = below.ok().and_then(|below| below.components().next());
            if let Some(release) = first.and_then(|first| release_name(first.as_os_str())) {
                found.push((name, release));
            }
        }
        Ok(found)
    }

    /// Returns the release that the symlink `link` names; none if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] if something other than a symlink to `releases/<release>` is
    /// there. It is never replaced: it may be a directory with content, or a symlink
    /// that another tool made.
    pub(super) fn resolve_link(&self, link: &LinkName) -> Result<Option<ReleaseId>> {
        let path = self.path.join(link.as_str());
        let shown = path.display();
        let move_away = || {
            let (from, to) = (Word::new(&path), Word::with_suffix(&path, ".old"));
            self.run_command(format_args!("mv -nT {from} {to}"))
        };
        let is_live = *link == self.link;
        let bad = |problem: &str, remedy: String| {
            // Nobody visits what is at the place of the preview.
            let remedy = if is_live {
                remedy
            } else {
                format!("move it away: {}", move_away())
            };
            Err(Error::new(Code::BadLayout, format!("'{shown}' {problem}")).remedy(remedy))
        };
        match self.root.stat_of_this_mount(link) {
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::EXDEV) => {
                let error = Error::new(Code::BadLayout, format!("'{shown}' is a mount point"));
                // To unmount what is live would leave visitors without a site.
                return Err(error.remedy(if is_live {
                    "docs/adopting.md has the way to a new directory".to_owned()
                } else {
                    "unmount it".to_owned()
                }));
            }
            Err(errno) => return Err(Error::io(format!("cannot look at '{shown}'"), errno)),
            Ok(stat) if dir::file_type(&stat) != SFlag::S_IFLNK => {
                let what = dir::file_type(&stat);
                // To move a directory away would leave visitors without a site.
                let remedy = if what == SFlag::S_IFDIR {
                    format!(
                        "print how it is replaced while the site is served: {}; the same with \
                         --yes does it",
                        self.adopt_command()
                    )
                } else {
                    format!("move it away, then swap: {}", move_away())
                };
                return bad("is not a symlink", remedy);
            }
            Ok(_) => {}
        }
        let target = self
            .root
            .read_link(link)
            .map_err(|errno| Error::io(format!("cannot read the symlink '{shown}'"), errno))?;
        let release_in = |releases: &[u8]| {
            let id = (target.as_bytes().strip_prefix(releases)?).strip_prefix(b"/")?;
            ReleaseId::try_from(str::from_utf8(id).ok()?).ok()
        };
        match release_in(RELEASES.as_bytes()) {
            Some(release) => Ok(Some(release)),
            None => {
                // Other tools write an absolute path.
                let named = release_in(self.path.join(RELEASES).as_os_str().as_bytes());
                let named = named.as_ref().map_or("RELEASE", ReleaseId::as_str);
                let (link, new) = (Word::new(&path), Word::with_suffix(&path, ".new"));
                let exchange = format!("ln -sT releases/{named} {new} && mv -T {new} {link}");
                let exchange = run_script(&self.options, &exchange);
                let other = if leads_out(Path::new(&target), &self.path) {
                    // `adopt` takes over what is below the root alone.
                    "docs/adopting.md has the way to a new root".to_owned()
                } else {
                    self.adopt_command()
                };
                bad(
                    "is a symlink to something that is not a release of this site",
                    // To remove it would leave visitors without a site.
                    format!("in one step: {exchange}; or: {other}"),
                )
            }
        }
    }

    /// Returns the command of the operator that takes over what is there. Without
    /// `--yes`, it says what it would do.
    fn adopt_command(&self) -> String {
        format!("deploy-shell-admin adopt {}", self.options)
    }

    /// Renames a new symlink over the old one, so that a reader always finds one of
    /// the two.
    fn replace_link(&self, link: &LinkName, release: Option<&ReleaseId>) -> Result<()> {
        let moved = match release {
            None => self.root.remove_file(link),
            Some(release) => self
                .create_link(NEXT, release)
                .and_then(|()| self.state.rename(NEXT, &self.root, link)),
        };
        moved.map_err(|errno| self.cannot_move(link, errno))
    }

    /// Creates a symlink to `release` in the state directory, in place of one
    /// that a crash has left.
    fn create_link(&self, name: Name<'_>, release: &ReleaseId) -> dir::Result<()> {
        self.state
            .remove_file(name)
            .and_then(|()| self.state.symlink(&target(release), name))
    }

    fn cannot_move(&self, link: &LinkName, errno: Errno) -> Error {
        let shown = self.path.join(link.as_str());
        self.io(
            format!("cannot move the symlink '{}'", shown.display()),
            errno,
        )
    }
}

/// Returns whether the target of a symlink in `root` is written as one outside of it.
fn leads_out(target: &Path, root: &Path) -> bool {
    target.starts_with("..") || target.is_absolute() && !target.starts_with(root)
}

fn target(release: &ReleaseId) -> OsString {
    OsString::from(format!("{RELEASES}/{release}"))
}
