//! File systems that a user has mounted with fusermount3(1).
//!
//! The server of such a file system says whose each file is. With `allow_other`, which
//! `user_allow_other` in /etc/fuse.conf permits, root sees it too. So the owners of a site in it
//! say nothing about its account.

use std::fs;
use std::path::Path;

use nix::sys::stat::{major, minor};
use nix::unistd::geteuid;

use deploy_shell::error::{Code, Error, Result};

/// The mounts that this process sees: proc_pid_mountinfo(5).
pub const MOUNTS: &str = "/proc/self/mountinfo";

/// Refuses a root directory on a file system that a user has mounted, if this process is root's.
/// `device` is that of the directory at `path`.
///
/// # Errors
///
/// [`Code::BadLayout`] for such a directory, and [`Code::IoError`] where the mounts cannot be
/// read.
pub fn require_none(path: &Path, device: u64) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let mounts = fs::read_to_string(MOUNTS)
        .map_err(|error| Error::io(format!("cannot read '{MOUNTS}'"), error))?;
    let Some(user) = mounter(&mounts, device) else {
        return Ok(());
    };
    let shown = path.display();
    let problem = format!("'{shown}' is on a file system that user {user} has mounted");
    Err(Error::new(Code::BadLayout, problem)
        .remedy("end the processes of that user, and unmount it: it can show any owner of a file"))
}

/// Returns the user who has mounted the file system of `device`, if another user than root has.
/// `mounts` is the text of proc_pid_mountinfo(5): after " - " come the type, the source, and the
/// options, which have the user in a file system of FUSE (Documentation/filesystems/fuse.rst of Linux).
fn mounter(mounts: &str, device: u64) -> Option<u32> {
    let number = format!("{}:{}", major(device), minor(device));
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(number.as_str());
    let lines = mounts.lines().filter(of_device);
    let mut users = lines.filter_map(|line| {
        let options = line.rsplit_once(" - ")?.1.split(' ').nth(2)?;
        let user = options
            .split(',')
            .find_map(|option| option.strip_prefix("user_id="));
        user?.parse().ok()
    });
    users.find(|user| *user != 0)
}

#[cfg(test)]
mod tests {
    use super::mounter;
    use nix::sys::stat::makedev;

    #[test]
    fn a_mount_of_a_user_is_found_by_its_device() {
        let text = "23 22 8:1 / / rw - ext4 /dev/sda1 rw,user_id=7\n\
            24 22 0:45 / /srv/a rw,nosuid shared:3 - fuse.bindfs bindfs rw,user_id=1000,allow_other\n\
            25 22 0:46 / /srv/b rw - fuse.x x rw,user_id=0,group_id=0\nodd\n";
        let user = |minor| mounter(text, makedev(0, minor));
        assert_eq!(user(45), Some(1000));
        assert_eq!(user(46), None);
        assert_eq!(user(47), None);
        assert_eq!(mounter(text, makedev(8, 1)), Some(7));
    }
}
