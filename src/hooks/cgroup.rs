//! A cgroup for each command, where the account may create one (cgroups(7), version 2).
//!
//! The kernel kills all processes of a cgroup at once (`cgroup.kill`, Linux 5.14): those
//! that fork faster than they are killed one by one, and those of other users. So a host
//! that delegates a cgroup to the account's sessions keeps a stronger promise; see
//! SECURITY.md, and packaging/cgroup.
//!
//! A process that is started is in the cgroup of the process that starts it. So the hook
//! runner moves itself into the new cgroup, starts the command, and moves back. It may
//! do so because it has one thread, and because the account may write `cgroup.procs` of
//! its own cgroup, which is above both.
//!
//! This is no boundary either: a command may write the same files, and move away. The
//! reaper kills what has done so.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::dir::{Dir, Name, Result};

/// Where cgroups of version 2 are mounted: beside those of version 1, and alone.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// In a cgroup: the processes in it. Writing 0 moves the writer there.
const PROCS: Name<'static> = Name::literal("cgroup.procs");

/// In a cgroup: writing 1 kills all of it.
const KILL: Name<'static> = Name::literal("cgroup.kill");

/// The first part of the name of a command's cgroup; the process number of the hook
/// runner and a number follow.
const PREFIX: &str = "deploy-shell-hook";

/// The cgroup of the hook runner, in which it may create others.
#[derive(Debug)]
pub struct OwnCgroup {
    directory: Rc<Dir>,
    /// How many it has created.
    created: usize,
}

impl OwnCgroup {
    /// Opens the cgroup of this process. Returns none if there is no cgroup of version
    /// 2, or this process may not create one in it.
    pub fn open() -> Option<OwnCgroup> {
        let listed = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = path_of_version_2(&listed)?;
        let is_mount = |mount: &&&str| {
            statfs(**mount).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
        };
        let mount = Dir::open_root(Path::new(MOUNTS.iter().find(is_mount)?)).ok()?;
        let directory = match path {
            "" => mount,
            below => mount.open_dir_beneath(Path::new(below)).ok()?,
        };
        let mut own = OwnCgroup {
            directory: Rc::new(directory),
            created: 0,
        };
        own.remove_left();
        // Try it out: most hosts delegate nothing.
        own.create().ok()?;
        Some(own)
    }

    /// Creates a cgroup for one command.
    ///
    /// # Errors
    ///
    /// The errno of the system call.
    pub fn create(&mut self) -> Result<CommandCgroup> {
        self.created += 1;
        let name = format!("{PREFIX}.{}.{}", std::process::id(), self.created);
        let as_name = Name::new(name.as_bytes()).ok_or(Errno::EINVAL)?;
        self.directory.make_dir(as_name, 0o700)?;
        let directory = self.directory.open_dir(as_name);
        let directory = directory.inspect_err(|_| _ = self.directory.remove_dir(as_name))?;
        let cgroup = CommandCgroup {
            own: Rc::clone(&self.directory),
            name,
            directory,
        };
        // A process that may not move itself back must not move itself away.
        write(&self.directory, PROCS, b"")?;
        Ok(cgroup)
    }

    /// Removes the cgroups of hook runners that were killed. The kernel removes none
    /// with a process in it.
    fn remove_left(&self) {
        for name in self.directory.names().unwrap_or_default() {
            let mut parts = name.to_str().unwrap_or_default().split('.');
            if parts.next() == Some(PREFIX)
                && let Some(pid) = parts.next()
                && !Path::new("/proc").join(pid).exists()
                && let Some(name) = Name::new(name.as_encoded_bytes())
            {
                _ = self.directory.remove_dir(name);
            }
        }
    }
}

/// The cgroup of one command. It is removed when this value is dropped, if no process is
/// left in it.
#[derive(Debug)]
pub struct CommandCgroup {
    own: Rc<Dir>,
    name: String,
    directory: Dir,
}

impl CommandCgroup {
    /// Moves this process into the cgroup, so that the next child starts there.
    ///
    /// # Errors
    ///
    /// The errno of the system call.
    pub fn enter(&self) -> Result<()> {
        write(&self.directory, PROCS, b"0")
    }

    /// Moves this process back.
    ///
    /// # Errors
    ///
    /// The errno of the system call. Then [`CommandCgroup::kill`] must not be called: it
    /// would kill this process too.
    pub fn leave(&self) -> Result<()> {
        write(&self.own, PROCS, b"0")
    }

    /// Kills all processes in the cgroup. One that forks meanwhile cannot escape.
    pub fn kill(&self) {
        // Fails before Linux 5.14. The reaper then kills them one by one.
        _ = write(&self.directory, KILL, b"1");
    }
}

impl Drop for CommandCgroup {
    fn drop(&mut self) {
        // Fails if a process hangs in it. The next hook runner tries again.
        if let Some(name) = Name::new(self.name.as_bytes()) {
            _ = self.own.remove_dir(name);
        }
    }
}

/// Writes to a file of a cgroup, in one call.
fn write(cgroup: &Dir, name: Name<'_>, bytes: &[u8]) -> Result<()> {
    let mut file = cgroup.open_for_writing(name)?;
    let written = file.write_all(bytes);
    written.map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
}

/// Returns the path of a process's cgroup of version 2, without the first slash, from
/// the text of `/proc/PID/cgroup` (cgroups(7)).
fn path_of_version_2(listed: &str) -> Option<&str> {
    listed.lines().find_map(|line| line.strip_prefix("0::/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_version_2_is_found() {
        let hybrid = "4:memory:/a\n1:name=systemd:/b\n0::/user.slice/x.scope\n";
        assert_eq!(path_of_version_2(hybrid), Some("user.slice/x.scope"));
        assert_eq!(path_of_version_2("0::/\n"), Some(""));
        assert_eq!(path_of_version_2("4:memory:/a\n"), None);
        assert_eq!(path_of_version_2(""), None);
    }
}
