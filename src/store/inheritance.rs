//! What the files of a new release inherit from their directory: the group of a
//! set-group-id directory (inode(7)), and a default access control list (acl(5)).
//!
//! The unpacker works below `incoming/`, and a rename into `releases/` changes neither
//! group nor list. So `incoming/` gets the properties that decide, before a receive
//! enters its sandbox: then the kernel applies them to each new file, and no process
//! needs a right to change groups or lists.

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::Gid;
use serde::{Deserialize, Serialize};

use super::Store;
use super::layout::{INCOMING, RELEASES, STATE};
use crate::config::AclPolicy;
use crate::dir;
use crate::error::{Code, Error, Result};
use crate::shell_word::Word;

const SET_GROUP_ID: u32 = Mode::S_ISGID.bits();

/// The properties that everything below `incoming/` inherits from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inherited {
    /// Whether new directories are set-group-id.
    pub set_group_id: bool,
    /// The permission bits that are left of a mode: all, or those of a default list.
    pub permissions: u32,
}

impl Inherited {
    pub const NOTHING: Inherited = Inherited {
        set_group_id: false,
        permissions: 0o777,
    };
}

impl Store {
    /// Makes `incoming/` pass on what a directory in `releases/` would inherit: its
    /// group if it is set-group-id, and, where the configuration says so, the default
    /// list of `releases/` or else of the root. Otherwise `incoming/` has no list.
    ///
    /// # Errors
    ///
    /// [`Code::BadLayout`] for a list that takes a right from the owner, without which
    /// the account could neither unpack nor remove a release.
    pub fn prepare_incoming(&self, policy: AclPolicy) -> Result<()> {
        let cannot = |errno: Errno| {
            let shown = self.path().join(STATE).join(INCOMING);
            self.io(format!("cannot prepare '{}'", shown.display()), errno)
        };
        self.follow_group_of_releases().map_err(cannot)?;
        let mut acl = None;
        if policy == AclPolicy::Inherit {
            acl = self.releases.default_acl().map_err(cannot)?;
            if acl.is_none() {
                acl = self.root.default_acl().map_err(cannot)?;
            }
        }
        if let Some(acl) = &acl
            && acl.permissions() & 0o700 != 0o700
        {
            let shown = self.path().join(RELEASES);
            let problem = format!(
                "the default ACL of '{}' or of the root takes rights from the owner",
                shown.display()
            );
            let (releases, root) = (Word::new(&shown), Word::new(self.path()));
            let setfacl = format!("setfacl -d -m u::rwx {releases} {root}");
            return Err(Error::new(Code::BadLayout, problem).remedy(self.run_command(setfacl)));
        }
        self.incoming.set_default_acl(acl.as_ref()).map_err(cannot)
    }

    fn follow_group_of_releases(&self) -> dir::Result<()> {
        let releases = self.releases.metadata()?;
        let incoming = self.incoming.metadata()?;
        let bits = |mode: u32| mode & SET_GROUP_ID;
        let wanted = bits(releases.st_mode);
        if wanted != 0 && incoming.st_gid != releases.st_gid {
            let group = Some(Gid::from_raw(releases.st_gid));
            match nix::unistd::fchown(&self.incoming, None, group) {
                Ok(()) => {}
                // Only a member of a group may give a directory to it. New files then
                // have the group of `incoming/`, which everybody can read as well.
                Err(Errno::EPERM) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        if bits(incoming.st_mode) != wanted {
            let mode = incoming.st_mode & 0o777 | wanted;
            self.incoming.set_mode(mode)?;
        }
        Ok(())
    }

    /// Returns what `incoming/` passes on.
    ///
    /// # Errors
    ///
    /// The errno of the system call.
    pub fn inherited(&self) -> dir::Result<Inherited> {
        let acl = self.incoming.default_acl()?;
        let everything = Inherited::NOTHING.permissions;
        Ok(Inherited {
            set_group_id: self.incoming.metadata()?.st_mode & SET_GROUP_ID != 0,
            permissions: acl.map_or(everything, |acl| acl.permissions()),
        })
    }
}
