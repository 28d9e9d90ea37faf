//! Tries to kill every process that a command has started.
//!
//! A command may run code that a client has sent. A process that it leaves
//! behind, to listen or to wait, would outlive the release. So nothing remains:
//! neither the command's process group nor a process that left it by setsid(2)
//! or a double fork. The hook runner is a child subreaper (prctl(2)): orphaned
//! descendants are reparented to it, and it kills and reaps children until none
//! remain. Start long-running services through systemd instead.
//!
//! The hook runner signals its own children, and the process groups of the command
//! and of its children. It does so only before it reaps the child, or the leader of
//! the command's group: until then the kernel gives their numbers to no other process
//! and no other group.
//!
//! Processes that fork faster than they are killed may win, where the account may not
//! create cgroups. So each call has a
//! deadline, also while it reaps, and returns what remains. The orphans that end
//! while a command runs are reaped at once: zombies would use up the process numbers
//! of the machine.
//!
//! This is a cleanup, not a security boundary. Code that runs as the deploy user
//! can kill the hook runner itself, or leave work with cron. See SECURITY.md.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp, getppid};

use super::cgroup::CommandCgroup;
use super::sigchld::ChildSignal;
use crate::deadline::Deadline;
use crate::escape;

/// The time that all descendants may take to end. A killed process ends at once,
/// unless it hangs in the kernel.
pub const DESCENDANTS_KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// How many children one call reaps before its caller looks at its other work.
const MAX_REAPED_AT_ONCE: usize = 512;

/// How many times the last turn reaps that many: more than the processes that a machine
/// has by default (`kernel.pid_max`, 32,768).
const MAX_LAST_REAPS: usize = 128;

/// The maximum length of a program's name in a message, in bytes. The kernel keeps 15,
/// and escaping can make four of each.
const MAX_PROGRAM: usize = 60;

/// Kills and reaps the descendants of this process.
#[derive(Debug, Default)]
pub struct Reaper {
    /// The children that were still there when a call gave up on them: another
    /// user's (sudo), or hanging in the kernel. No later call signals them.
    reported: BTreeSet<i32>,
}

/// A process that is still there when [`Reaper::kill_all`] gives up.
#[derive(Debug, PartialEq, Eq)]
pub struct Remaining {
    pub pid: i32,
    /// The name of its program, in printable ASCII.
    pub program: String,
    /// Whether this user may not signal it: another user's (sudo).
    pub foreign: bool,
}

impl Remaining {
    fn look_up(pid: i32) -> Remaining {
        let program = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        Remaining {
            pid,
            program: escape::escape_truncated(program.trim_ascii_end(), MAX_PROGRAM),
            // Signal 0 only checks the permission (kill(2)).
            foreign: kill(Pid::from_raw(pid), None) == Err(Errno::EPERM),
        }
    }
}

impl Reaper {
    /// Kills `cgroup`, `group` and all other descendants. Only this function reaps the
    /// group's leader: until then no other group can have its number.
    ///
    /// Each remaining process is returned once, by the first call that gives up on
    /// it. A process that becomes a child of this process after the last call is
    /// neither killed nor returned.
    pub fn kill_all(
        &mut self,
        group: Option<Pid>,
        cgroup: Option<&CommandCgroup>,
        child_signal: &ChildSignal,
    ) -> Vec<Remaining> {
        let deadline = Deadline::after(DESCENDANTS_KILL_TIMEOUT);
        if let Some(cgroup) = cgroup {
            cgroup.kill();
        }
        if let Some(group) = group {
            // Fails if this user may signal none of the group; then it remains.
            _ = killpg(group, Signal::SIGKILL);
        }
        // Terminates: the deadline does not move, each turn reaps a bounded number of
        // children, and a turn that finds one waits or is the last.
        loop {
            child_signal.clear();
            let last_turn = deadline.has_passed();
            let mut all_reaped = reap(None);
            if last_turn {
                // Only what still runs is to be named.
                all_reaped = all_reaped || (1..MAX_LAST_REAPS).any(|_| reap(None));
            }
            let remaining = self.kill_unreported(children(), last_turn, send_sigkill, has_ended);
            if last_turn {
                return remaining.into_iter().map(Remaining::look_up).collect();
            }
            if remaining.is_empty() {
                return Vec::new();
            }
            // No signal reports that an orphan becomes a child of this process, so
            // look again after 50 ms.
            if all_reaped {
                child_signal.wait(deadline.left().min(Duration::from_millis(50)));
            }
        }
    }

    /// Returns the living children of this process but `leader`: what a command that has
    /// ended left behind. A child of another user that an earlier command left is not
    /// among them.
    pub fn left_behind(&self, leader: Pid) -> Vec<Remaining> {
        let is_alive = |pid: &i32| matches!(state(*pid), Some(state) if !is_dead(state));
        let left = children().into_iter().filter(|pid| *pid != leader.as_raw());
        left.filter(|pid| !self.reported.contains(pid))
            .filter(is_alive)
            .map(Remaining::look_up)
            .collect()
    }

    /// Kills the children that no call has reported yet, and returns them; in the last
    /// turn, those that have not ended. The last turn kills them too: it may be the first
    /// to see one of them, and no later call signals a child that this call reports.
    fn kill_unreported(
        &mut self,
        children: Vec<i32>,
        last_turn: bool,
        send_sigkill: impl FnOnce(&[i32]),
        has_ended: impl Fn(i32) -> bool,
    ) -> Vec<i32> {
        let children: BTreeSet<i32> = children.into_iter().collect();
        self.reported.retain(|pid| children.contains(pid));
        let mut unreported: Vec<i32> = children.difference(&self.reported).copied().collect();
        send_sigkill(&unreported);
        if last_turn {
            unreported.retain(|pid| !has_ended(*pid));
            self.reported.extend(&unreported);
        }
        unreported
    }
}

/// Returns how the leader has ended, if it has, without reaping it.
pub fn peek_status(leader: Pid) -> nix::Result<Option<WaitStatus>> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // Terminates: the call does not wait, so no second signal interrupts it.
    loop {
        match waitid(Id::Pid(leader), flags) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::StillAlive) => return Ok(None),
            other => return other.map(Some),
        }
    }
}

/// Reaps children that have ended, at most [`MAX_REAPED_AT_ONCE`], and not `leader`.
/// Returns whether no other one is left.
pub fn reap(leader: Option<Pid>) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    for _ in 0..MAX_REAPED_AT_ONCE {
        match waitid(Id::All, flags) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                // The kernel returns the leader until it is reaped. The caller is
                // about to see that it has ended.
                if Some(pid) == leader {
                    return true;
                }
                _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            }
            Err(Errno::EINTR) => {}
            _ => return true,
        }
    }
    false
}

/// Returns whether a child has ended, and is only not reaped yet. One whose state cannot be
/// read counts as running.
fn has_ended(pid: i32) -> bool {
    state(pid).is_some_and(is_dead)
}

fn is_dead(state: u8) -> bool {
    matches!(state, b'Z' | b'X')
}

/// Returns the letter of a process's state (proc_pid_stat(5)).
fn state(pid: i32) -> Option<u8> {
    stat(pid)?.first().copied()
}

/// Returns the fields of a process after its name, from its state on (proc_pid_stat(5)).
fn stat(pid: i32) -> Option<Vec<u8>> {
    let mut stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses, and can contain any byte.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.drain(..stat.len().min(end + 2));
    Some(stat)
}

/// Kills children, and their process groups where these have no process but descendants
/// of a command: the kernel kills all of a group at once, so that none of them forks
/// meanwhile (kill(2), fork(2)).
///
/// A descendant of a command can move itself into this process's group, which it
/// could signal itself, and into the monitor's.
fn send_sigkill(children: &[i32]) {
    let group_of = |pid: i32| getpgid(Some(Pid::from_raw(pid))).ok();
    let not_ours = [Some(getpgrp()), getpgid(Some(getppid())).ok()];
    for group in groups(children, group_of) {
        if !not_ours.contains(&Some(group)) {
            _ = killpg(group, Signal::SIGKILL);
        }
    }
    for pid in children {
        _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

/// Returns the process groups of children, each once. A signal to a group takes as long as
/// the group has processes, and the thousands of a fork bomb are in one.
fn groups(children: &[i32], group_of: impl Fn(i32) -> Option<Pid>) -> BTreeSet<Pid> {
    children.iter().filter_map(|pid| group_of(*pid)).collect()
}

/// Returns the children of this process. It has one thread, so the list of its first
/// thread is complete.
fn children() -> Vec<i32> {
    let own = Pid::this().as_raw();
    // proc(5) warns that this list can lack a child if another one leaves the list
    // during the read. A child leaves it when it is reaped, and only this thread
    // reaps. The kernel may be built without this file (CONFIG_PROC_CHILDREN).
    match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(text) => parse_pids(&text),
        Err(_) => children_by_parent(own),
    }
}

fn parse_pids(text: &str) -> Vec<i32> {
    let words = text.split_ascii_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Returns the children of this process by reading the parent of every process.
fn children_by_parent(own: i32) -> Vec<i32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let fields = stat(*pid).unwrap_or_default();
            fields.split(|byte| *byte == b' ').nth(1) == Some(own.to_string().as_bytes())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_killed_before_it_is_reported() {
        const DEAD: i32 = 99;
        let mut reaper = Reaper::default();
        let mut turn = |children: &[i32], last: bool| {
            let mut killed = Vec::new();
            let kill = |pids: &[i32]| killed.extend(pids);
            let has_ended = |pid| pid == DEAD;
            let remaining = reaper.kill_unreported(children.to_vec(), last, kill, has_ended);
            (remaining, killed)
        };
        assert_eq!(turn(&[5, 7], false), (vec![5, 7], vec![5, 7]));
        // The last turn is the first to see 9.
        assert_eq!(turn(&[7, 9], true), (vec![7, 9], vec![7, 9]));
        // A later call neither reports nor signals the same two again.
        assert_eq!(turn(&[7, 9, 11], false), (vec![11], vec![11]));
        assert_eq!(turn(&[7], true), (vec![], vec![]));
        // 9 has ended, so this is another process.
        assert_eq!(turn(&[7, 9], true), (vec![9], vec![9]));
        // One that has ended, and that nobody has reaped, does not still run.
        assert_eq!(turn(&[7, 9, DEAD], true), (vec![], vec![DEAD]));
    }

    #[test]
    fn each_process_group_is_killed_once() {
        let group_of = |pid| (pid != 5).then(|| Pid::from_raw(pid / 10));
        let found = groups(&[5, 10, 11, 12, 20], group_of);
        let found: Vec<i32> = found.into_iter().map(Pid::as_raw).collect();
        assert_eq!(found, [1, 2]);
    }

    #[test]
    fn children_are_found_by_their_parent() {
        // Not by `children`: it reads the list of the first thread, and a test runs
        // in another one. The parent in `stat` is the process, whichever thread it is.
        let mut child = Command::new("/bin/cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let own = Pid::this().as_raw();
        assert!(children_by_parent(own).contains(&pid));
        assert!(!children_by_parent(pid).contains(&pid));
        assert_eq!(parse_pids("12 345 \n"), [12, 345]);
        assert_eq!(peek_status(Pid::from_raw(pid)), Ok(None));
        drop(child.stdin.take());
        let status = loop {
            match peek_status(Pid::from_raw(pid)).unwrap() {
                None => std::thread::sleep(Duration::from_millis(1)),
                Some(status) => break status,
            }
        };
        assert_eq!(status, WaitStatus::Exited(Pid::from_raw(pid), 0));
        // The child was not reaped.
        assert!(child.wait().unwrap().success());
    }
}
