//! The links that say what is live and what is tried: how they move.

use std::ffi::OsString;

use super::Store;
use super::layout::{BACK, NEXT, RELEASES};
use crate::dir::{self, Name};
use crate::error::Result;
use crate::names::{LinkName, ReleaseId};

impl Store {
    /// Moves the live link to `release` in one instant, or takes it away.
    /// Durable it is when the root has been synced.
    ///
    /// The rename is the commit point: before it nothing has changed, after it
    /// the release is live.
    ///
    /// Errors: as [`Store::io`].
    pub fn point_at(&self, release: Option<&ReleaseId>) -> Result<()> {
        self.point(&self.link, release)
    }

    /// Makes the link by which [`Store::point_back`] will go to `release`, while
    /// there still is room for one.
    ///
    /// A link takes an inode, and its name may take a block. A release that
    /// fails may have used up the last of either, and must not stay live by that.
    ///
    /// Errors: as [`Store::io`]; the link that says what is live is not touched.
    pub fn lay_back(&self, release: &ReleaseId) -> Result<()> {
        let laid = self.lay(BACK, release);
        laid.map_err(|errno| self.io("cannot make the link for the way back", errno))
    }

    /// As [`Store::point_at`], by the link that was laid for it, if that is there
    /// and leads to `release`.
    ///
    /// That rename needs no room: both names are there, so it writes another
    /// inode's number over one and takes the other away, and no folder grows.
    ///
    /// Errors: as [`Store::io`].
    pub fn point_back(&self, release: Option<&ReleaseId>) -> Result<()> {
        let laid = self.state.read_link(BACK).ok();
        if release.is_some_and(|release| laid == Some(target(release))) {
            let moved = self.state.rename(BACK, &self.root, &self.link);
            return moved.map_err(|errno| self.cannot_move(&self.link, errno));
        }
        // One that leads elsewhere is of no use, and its inode may be the last.
        _ = self.state.remove_file(BACK);
        self.point_at(release)
    }

    /// Takes away what a swap that is over, or a crash, has left of links that
    /// are not in their place. Where that fails, the next sweep does it.
    pub fn clear_links(&self) {
        for name in [NEXT, BACK] {
            _ = self.state.remove_file(name);
        }
    }

    /// Moves the preview link to a candidate, or takes it away; nothing where
    /// the site has no smoke test.
    ///
    /// Errors: as [`Store::leads`], so that nothing of another's is replaced.
    pub fn preview(&self, release: Option<&ReleaseId>) -> Result<()> {
        let Some(link) = &self.preview else {
            return Ok(());
        };
        match (self.leads(link)?, release) {
            (None, None) => Ok(()),
            _ => self.point(link, release),
        }
    }

    /// A new link is renamed over the old one because that is the only way in
    /// which no reader ever finds neither.
    fn point(&self, link: &LinkName, release: Option<&ReleaseId>) -> Result<()> {
        let moved = match release {
            None => self.root.remove_file(link),
            Some(release) => self
                .lay(NEXT, release)
                .and_then(|()| self.state.rename(NEXT, &self.root, link)),
        };
        moved.map_err(|errno| self.cannot_move(link, errno))
    }

    /// Makes a link to `release` that is not in its place yet, in the place of
    /// one that a crash has left.
    fn lay(&self, name: Name<'_>, release: &ReleaseId) -> dir::Result<()> {
        self.state
            .remove_file(name)
            .and_then(|()| self.state.symlink(&target(release), name))
    }

    fn cannot_move(&self, link: &LinkName, errno: nix::Error) -> crate::error::Error {
        let shown = self.path.join(link.as_str());
        self.io(format!("cannot move the link '{}'", shown.display()), errno)
    }
}

fn target(release: &ReleaseId) -> OsString {
    OsString::from(format!("{RELEASES}/{release}"))
}
