//! Decides what of a release of another tool can stay as it is, what is changed, and
//! what stops the adoption. Pure: it knows stat(2) results and texts, and no files.
//!
//! A release has files of 0644 or 0755 and directories of 0755. A mode may lose rights
//! only if nobody uses them, because an application that writes into its release would
//! fail. A mode never gains a right of the group or of others, because a file may be
//! secret.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use deploy_shell::config::AclPolicy;
use deploy_shell::error::describe;
use deploy_shell::manifest::{DIR_MODE, file_mode};
use deploy_shell::shell_word::Word;

/// Why a release cannot be adopted. The text of each is a phrase after the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Others than the owner may write it.
    Writable(String),
    /// Not everybody may read it, and `acl` is `strip`.
    Private,
    /// It belongs to neither the account nor the owner of the release.
    ForeignOwner(u32),
    /// It belongs to the owner of the release, and this process is not root.
    NeedsRoot(u32),
    /// A name of the file is outside of the tree that is adopted.
    OtherName,
    SpecialFile(&'static str),
    MountPoint,
    /// The rule of the archive profile that its name breaks.
    Name(String),
    /// Why the target of a symlink is not acceptable.
    Target(String),
    Unreadable(String),
    /// It has more than an archive may have: the limit.
    TooLarge(String),
}

impl Fault {
    /// Returns the fault of a file that cannot be opened.
    pub fn of_errno(errno: Errno) -> Fault {
        match errno {
            // `Dir` crosses no mount: no rename moves one, its content is not part of the
            // release, and it may stall.
            Errno::EXDEV => Fault::MountPoint,
            errno => Fault::Unreadable(describe(&errno.into())),
        }
    }

    /// Returns what ends the fault for all `paths` in `release` that have it. Commands for
    /// several paths are for the whole release, so that one of them is enough.
    ///
    /// `as_owner` makes a command one of the owner of the release: he can exchange each name
    /// there, and root's commands use no path that another user can exchange.
    pub fn remedy(
        &self,
        release: &Path,
        paths: &BTreeSet<Vec<u8>>,
        as_owner: impl Fn(&str) -> String,
    ) -> String {
        let first = paths.first().map_or(&b""[..], Vec::as_slice);
        let (recursive, path) = match (first, paths.len()) {
            (b"", 1) => ("", Word::new(release)),
            (first, 1) => ("", Word::new(release.join(OsStr::from_bytes(first)))),
            _ => ("-R ", Word::new(release)),
        };
        match self {
            Fault::Writable(_) => {
                let chmod = as_owner(&format!("chmod {recursive}go-w {path}"));
                format!(
                    "move what the application writes to shared/ and list it in [shared]; \
                     if nobody writes it: {chmod}"
                )
            }
            Fault::Private => {
                "set acl = \"inherit\" in [archive], and such modes stay as they are; \
                 or move secrets to shared/ and list them in [shared]"
                    .to_owned()
            }
            Fault::ForeignOwner(_) => {
                "move what the application writes to shared/ and list it in [shared]; or delete \
                 it, if the application does not need it"
                    .to_owned()
            }
            Fault::NeedsRoot(_) => "run adopt as root".to_owned(),
            Fault::OtherName => {
                // The application can put a symlink at either name, or at that of a directory
                // above. -execdir works by the names in one open directory.
                let copy = as_owner(&format!(
                    "find {path} -type f -links +1 -execdir sh -c 'cp -pPT --remove-destination \
                     \"$1\" \"$1.new\" && mv -T \"$1.new\" \"$1\"' sh {{}} ';'"
                ));
                format!("give each a file of its own: {copy}")
            }
            Fault::SpecialFile(_) => {
                "let the program that made it use a directory outside of the release".to_owned()
            }
            Fault::MountPoint => {
                "let the application use the mounted directory outside of the site".to_owned()
            }
            Fault::Name(_) => "rename it".to_owned(),
            Fault::Target(_) => {
                "make it a relative symlink to a path in the release, or a shared path: \
                 docs/adopting.md, 'Symlinks'"
                    .to_owned()
            }
            Fault::Unreadable(_) => "run adopt as root, or let the account read it".to_owned(),
            Fault::TooLarge(_) => "move what the application writes to shared/ and list it in \
                 [shared]; or raise the limit in [archive]"
                .to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Writable(by) => write!(f, "can be written by {by}"),
            Fault::Private => f.write_str("cannot be read by everybody"),
            Fault::ForeignOwner(uid) => write!(f, "belongs to user {uid}, as nothing else"),
            Fault::NeedsRoot(uid) => write!(f, "belongs to user {uid}, not to the account"),
            Fault::OtherName => f.write_str("has another name outside of the releases"),
            Fault::SpecialFile(kind) => write!(f, "is a {kind}"),
            Fault::MountPoint => f.write_str("is a mount point"),
            Fault::Name(why) => write!(f, "has a name that no release may have: {why}"),
            Fault::Target(why) => write!(f, "is a symlink that no release may have: {why}"),
            Fault::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Fault::TooLarge(limit) => write!(f, "has more than {limit}"),
        }
    }
}

/// Who may write through the group's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupWriters {
    /// Nobody but the owner: the group is the owner's own.
    Nobody,
    /// The members of a group, or users of an access control list.
    Others,
}

/// Returns the mode that a file or directory gets. It is the present one where nothing
/// has to change.
///
/// # Errors
///
/// Returns the fault that a person must end.
pub fn adopted_mode(
    is_dir: bool,
    mode: u32,
    acl: AclPolicy,
    writers: GroupWriters,
) -> Result<u32, Fault> {
    let profile = if is_dir {
        DIR_MODE
    } else {
        file_mode(mode & 0o100 != 0)
    };
    if mode & 0o002 != 0 {
        return Err(Fault::Writable("everybody".to_owned()));
    }
    if mode & 0o020 != 0 && writers == GroupWriters::Others {
        return Err(Fault::Writable("its group or its ACL".to_owned()));
    }
    // The owner can give every right to itself, so its rights may grow.
    let permissions = mode & profile | profile & 0o700;
    if permissions != profile && acl != AclPolicy::Inherit {
        return Err(Fault::Private);
    }
    // The bit of a directory decides the group of new files there, and `verify` accepts it.
    let group_id = if is_dir { mode & 0o2000 } else { 0 };
    Ok(permissions | group_id)
}

/// Whether a tree entry keeps its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Stays,
    Changes,
}

/// Decides about the owner of an entry of a release that belongs to `release_owner`.
///
/// Another user's file in it is one that the application writes. It would fail if the
/// account owned the file.
///
/// # Errors
///
/// Returns the fault that a person must end.
pub fn adopted_owner(
    uid: u32,
    account: u32,
    release_owner: u32,
    is_root: bool,
) -> Result<Owner, Fault> {
    if uid == account {
        Ok(Owner::Stays)
    } else if uid != release_owner {
        Err(Fault::ForeignOwner(uid))
    } else if is_root {
        Ok(Owner::Changes)
    } else {
        Err(Fault::NeedsRoot(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AclPolicy::{Inherit, Strip};
    use GroupWriters::{Nobody, Others};

    #[test]
    fn a_mode_loses_only_rights_that_nobody_uses() {
        let file = |mode, acl, writers| adopted_mode(false, mode, acl, writers);
        for (mode, new) in [
            (0o644, 0o644),
            (0o755, 0o755),
            (0o664, 0o644),
            (0o775, 0o755),
            (0o444, 0o644),
            (0o555, 0o755),
            (0o4755, 0o755),
            (0o2755, 0o755),
            (0o645, 0o644),
        ] {
            assert_eq!(file(mode, Strip, Nobody), Ok(new), "{mode:o}");
        }
        for mode in [0o666, 0o777, 0o646, 0o664, 0o775] {
            let found = file(mode, Strip, Others);
            assert!(matches!(found, Err(Fault::Writable(_))), "{mode:o}");
        }
        assert_eq!(adopted_mode(true, 0o2775, Strip, Nobody), Ok(0o2755));
        assert!(adopted_mode(true, 0o1777, Strip, Nobody).is_err());
    }

    #[test]
    fn a_mode_never_gains_a_right_of_others() {
        for mode in [0o600, 0o640, 0o400, 0o750, 0o700, 0o711] {
            let found = adopted_mode(false, mode, Strip, Nobody);
            assert_eq!(found, Err(Fault::Private), "{mode:o}");
            let kept = adopted_mode(false, mode, Inherit, Nobody).unwrap();
            assert_eq!(kept & 0o077, mode & 0o077, "{mode:o}");
        }
        assert_eq!(adopted_mode(true, 0o750, Inherit, Nobody), Ok(0o750));
        assert_eq!(adopted_mode(true, 0o770, Inherit, Nobody), Ok(0o750));
    }

    #[test]
    fn only_files_of_the_old_owner_change_their_owner() {
        let (account, old, web) = (998, 1000, 33);
        assert_eq!(
            adopted_owner(account, account, old, false),
            Ok(Owner::Stays)
        );
        assert_eq!(adopted_owner(old, account, old, true), Ok(Owner::Changes));
        let found = adopted_owner(old, account, old, false);
        assert_eq!(found, Err(Fault::NeedsRoot(old)));
        let found = adopted_owner(web, account, old, true);
        assert_eq!(found, Err(Fault::ForeignOwner(web)));
    }
}
