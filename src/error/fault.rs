//! Why the system refused a call, as far as it changes the answer to a client.

use serde::{Deserialize, Serialize};

use super::Code;
use nix::errno::Errno;

/// A class of errno values. A client repeats what fails with 74, so a fault that only a
/// person can repair has another code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// ENOSPC.
    DiskFull,
    /// EDQUOT: the file system has free space, and the account may not use it.
    QuotaExceeded,
    /// EROFS. ext4 mounts itself read-only after an error of the disk.
    ReadOnly,
    /// EACCES.
    AccessDenied,
    /// EPERM: neither owner nor mode, but an attribute such as immutable.
    Protected,
    /// The file system cannot do what this program does, or cannot hold such a name or so
    /// many directories: EOPNOTSUPP, ENOSYS, ENAMETOOLONG, EMLINK; and EINVAL, for a flag of
    /// renameat2(2) (NFS).
    Unsupported,
    /// Any other errno.
    Other,
}

impl Fault {
    /// Every class.
    #[cfg(test)]
    pub const ALL: [Fault; 7] = [
        Fault::DiskFull,
        Fault::QuotaExceeded,
        Fault::ReadOnly,
        Fault::AccessDenied,
        Fault::Protected,
        Fault::Unsupported,
        Fault::Other,
    ];

    /// Returns the class of an error of the operating system.
    pub fn of(error: &std::io::Error) -> Fault {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC) => Fault::DiskFull,
            Some(Errno::EDQUOT) => Fault::QuotaExceeded,
            Some(Errno::EROFS) => Fault::ReadOnly,
            Some(Errno::EACCES) => Fault::AccessDenied,
            Some(Errno::EPERM) => Fault::Protected,
            Some(
                Errno::EOPNOTSUPP
                | Errno::ENOSYS
                | Errno::ENAMETOOLONG
                | Errno::EMLINK
                | Errno::EINVAL,
            ) => Fault::Unsupported,
            _ => Fault::Other,
        }
    }

    /// Returns the code for the client.
    pub const fn code(self) -> Code {
        match self {
            Fault::DiskFull | Fault::QuotaExceeded => Code::DiskFull,
            Fault::ReadOnly | Fault::AccessDenied | Fault::Protected | Fault::Unsupported => {
                Code::BadLayout
            }
            Fault::Other => Code::IoError,
        }
    }

    /// Returns the remedy of the fault, if all such faults have the same.
    pub const fn remedy(self) -> Option<&'static str> {
        match self {
            Fault::QuotaExceeded => {
                Some("raise the disk quota of the account, or remove other files that count for it")
            }
            Fault::ReadOnly => Some("mount the file system read-write again"),
            Fault::AccessDenied => {
                Some("let the account use it again: docs/operating.md, 'Change a file of the site'")
            }
            Fault::Protected => {
                Some("make it writable: 'lsattr' shows an immutable file, 'chattr -i' ends that")
            }
            Fault::Unsupported => Some("keep the site on ext4, xfs, btrfs or tmpfs"),
            Fault::DiskFull | Fault::Other => None,
        }
    }
}
