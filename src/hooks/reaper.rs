//! The end of everything that a command has started.
//!
//! A command may run code that a client has sent. What that leaves behind, a
//! process that listens or waits for the night, would stay when the release is
//! long gone, so nothing stays: not what is in the command's process group,
//! and not what has left it (setsid(2), a double fork). The runner is a child
//! subreaper (prctl(2)): whoever loses his parent below it becomes its child,
//! and its children it ends until there are none. Services are systemd's to
//! start.
//!
//! Only children of our own are signalled, and only before they are reaped, so
//! no number that was given to somebody else in between is ever hit.
//!
//! This tidies up; it is no wall. Code that runs as the deploy user can end
//! the runner itself, or leave work with cron. See SECURITY.md.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::sigchld::ChildSignal;
use crate::deadline::Deadline;

/// How long the end of all is waited for. What is killed ends at once, unless
/// it hangs in the kernel.
const BOUND: Duration = Duration::from_secs(2);

/// The children of this process that could not be ended: another user's
/// (sudo), or such as hang in the kernel.
#[derive(Debug, Default)]
pub struct Descendants {
    left: BTreeSet<i32>,
}

impl Descendants {
    /// Ends `group` and whatever else is below this process. Its leader is
    /// reaped here and nowhere else: until then its number, which is the
    /// group's, cannot be another's.
    ///
    /// Gives the numbers of those that go on all the same.
    pub fn end(&mut self, group: Option<Pid>, alarm: &ChildSignal) -> Vec<i32> {
        let deadline = Deadline::after(BOUND);
        if let Some(group) = group {
            // Fails where none of it may be signalled; then it is among the left.
            _ = killpg(group, Signal::SIGKILL);
        }
        // Ends: the deadline does not move, and the alarm waits.
        loop {
            alarm.clear();
            reap();
            let children: BTreeSet<i32> = children().into_iter().collect();
            self.left.retain(|pid| children.contains(pid));
            let fresh: Vec<i32> = children.difference(&self.left).copied().collect();
            if fresh.is_empty() || deadline.has_passed() {
                self.left.extend(&fresh);
                return fresh;
            }
            for pid in fresh {
                _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            // Not for longer: one that is handed to us in this moment rings no
            // bell.
            alarm.wait(deadline.left().min(Duration::from_millis(50)));
        }
    }
}

/// How the leader has ended, if it has; it stays to be reaped.
pub fn ended(leader: Pid) -> nix::Result<Option<WaitStatus>> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // Ends: it does not wait, so it is not interrupted twice.
    loop {
        match waitid(Id::Pid(leader), flags) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::StillAlive) => return Ok(None),
            other => return other.map(Some),
        }
    }
}

/// Takes leave of all that have ended.
fn reap() {
    // Ends: each turn has one child less.
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// The children of this process.
fn children() -> Vec<i32> {
    let own = Pid::this().as_raw();
    // The kernel may be built without this file (CONFIG_PROC_CHILDREN).
    match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(text) => numbers(&text),
        Err(_) => children_by_parent(own),
    }
}

fn numbers(text: &str) -> Vec<i32> {
    let words = text.split_ascii_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The same, by asking each process for its parent.
fn children_by_parent(own: i32) -> Vec<i32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name stands in brackets and may have anything in it.
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            rest.split(' ').nth(1) == Some(own.to_string().as_str())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn children_are_found_in_both_ways() {
        // Started by another thread than the first: the file of that thread has
        // it, and the parent is the process.
        let mut child = Command::new("/bin/cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let own = Pid::this().as_raw();
        assert!(children_by_parent(own).contains(&pid));
        assert!(!children_by_parent(pid).contains(&pid));
        assert_eq!(numbers("12 345 \n"), [12, 345]);
        assert_eq!(ended(Pid::from_raw(pid)), Ok(None));
        drop(child.stdin.take());
        let over = loop {
            match ended(Pid::from_raw(pid)).unwrap() {
                None => std::thread::sleep(Duration::from_millis(1)),
                Some(over) => break over,
            }
        };
        assert_eq!(over, WaitStatus::Exited(Pid::from_raw(pid), 0));
        // It was not reaped.
        assert!(child.wait().unwrap().success());
    }
}
