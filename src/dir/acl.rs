//! The default access control list of a directory (acl(5)): what new files inherit.
//!
//! The kernel keeps it as an extended attribute, which a process may read and set for
//! its own directory. nix has no calls for attributes, so this uses rustix.

use std::os::fd::AsFd;

use nix::errno::Errno;
use rustix::buffer::spare_capacity;
use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};

use super::{Dir, Result};

const DEFAULT: &str = "system.posix_acl_default";

/// The maximum size of an attribute, in bytes (`XATTR_SIZE_MAX`, xattr(7)).
const MAX: usize = 64 * 1024;

/// The size of the header: the version, and of each entry: a tag, permissions, an id
/// (`struct posix_acl_xattr_header` and `posix_acl_xattr_entry`).
const HEADER: usize = 4;
const ENTRY: usize = 8;

/// The tags of the entries that decide a file's mode.
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// A default access control list, in the kernel's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultAcl(Vec<u8>);

impl DefaultAcl {
    /// Returns the permission bits that it leaves of the mode with which a program
    /// creates a file: the mask, or else the owning group, decides the group's bits.
    ///
    /// An entry that is missing leaves nothing. The kernel writes no such list.
    pub fn permissions(&self) -> u32 {
        let entries = self.0.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY);
        let of = |wanted: u16| {
            entries.clone().find_map(|entry| {
                let tag = u16::from_le_bytes([entry[0], entry[1]]);
                (tag == wanted).then(|| u32::from(entry[2] & 0o7))
            })
        };
        let group = of(MASK).or_else(|| of(GROUP_OBJ)).unwrap_or(0);
        of(USER_OBJ).unwrap_or(0) << 6 | group << 3 | of(OTHER).unwrap_or(0)
    }
}

impl Dir {
    /// Returns the default list; none if there is none, or if the file system has no
    /// lists.
    pub fn default_acl(&self) -> Result<Option<DefaultAcl>> {
        let mut value = Vec::with_capacity(MAX);
        match fgetxattr(self.as_fd(), DEFAULT, spare_capacity(&mut value)) {
            Ok(_) => Ok(Some(DefaultAcl(value))),
            Err(error) => if_any(error).map(|()| None),
        }
    }

    /// Sets the default list, or removes it.
    pub fn set_default_acl(&self, acl: Option<&DefaultAcl>) -> Result<()> {
        match acl {
            Some(DefaultAcl(value)) => {
                fsetxattr(self.as_fd(), DEFAULT, value, XattrFlags::empty()).map_err(errno)
            }
            None => fremovexattr(self.as_fd(), DEFAULT).or_else(if_any),
        }
    }
}

/// Returns no error where the list does not exist or cannot exist.
fn if_any(error: rustix::io::Errno) -> Result<()> {
    match errno(error) {
        Errno::ENODATA | Errno::EOPNOTSUPP => Ok(()),
        other => Err(other),
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> DefaultAcl {
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, permissions) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(u32::MAX.to_le_bytes());
        }
        DefaultAcl(bytes)
    }

    #[test]
    fn the_mask_or_the_group_decides_the_bits_of_the_group() {
        let plain = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 0)]);
        assert_eq!(plain.permissions(), 0o750);
        let named = acl(&[
            (USER_OBJ, 7),
            (0x02, 7),
            (GROUP_OBJ, 5),
            (MASK, 1),
            (OTHER, 7),
        ]);
        assert_eq!(named.permissions(), 0o717);
        assert_eq!(DefaultAcl(vec![2, 0]).permissions(), 0);
    }

    #[test]
    fn a_list_is_set_read_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(directory.path()).unwrap();
        assert_eq!(dir.default_acl(), Ok(None));
        let list = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 5)]);
        match dir.set_default_acl(Some(&list)) {
            Ok(()) => assert_eq!(dir.default_acl(), Ok(Some(list))),
            // This file system has no lists.
            Err(errno) => assert_eq!(errno, Errno::EOPNOTSUPP),
        }
        for _ in 0..2 {
            assert_eq!(dir.set_default_acl(None), Ok(()));
            assert_eq!(dir.default_acl(), Ok(None));
        }
    }
}
