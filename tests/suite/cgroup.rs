//! Hooks of an account whose sessions have a cgroup that it may divide, as
//! packaging/cgroup arranges it. Only root can arrange it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use crate::hook_runner::{Fixture, NOBODY, Runner, become_root_program, reachable_as_nobody};
use crate::process::with_argument;

/// The program that pam_exec(8) runs.
const DELEGATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/cgroup/delegate");

/// Returns the mount of cgroups of version 2, if root may create one.
fn cgroups() -> Option<PathBuf> {
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let mount = mounts
        .into_iter()
        .find(|mount| mount.join("cgroup.procs").exists())?;
    let own = fs::read_to_string("/proc/self/cgroup").expect("/proc");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let trial = mount
        .join(own)
        .join(format!("trial.{}", std::process::id()));
    let possible = fs::create_dir(&trial).is_ok() && trial.join("cgroup.kill").exists();
    let _ = fs::remove_dir(&trial);
    possible.then(|| mount.join(own))
}

#[test]
fn a_hook_with_a_cgroup_leaves_nothing_of_any_user() {
    let own = match cgroups() {
        Some(own) if Uid::effective().is_root() => own,
        _ => {
            println!("skipped: only root can delegate a cgroup, where one can be created");
            return;
        }
    };
    let fixture = Fixture::new();
    become_root_program(&fixture);
    if !reachable_as_nobody(&fixture) {
        return;
    }
    // A process of root, which the account itself cannot kill.
    let config = "[[hooks.after_swap]]\n\
        command = [\"/bin/sh\", \"-c\", \"{dir}/become-root --reuid=0 tail -f {dir}/stays & \
        until grep -qx tail /proc/$!/comm; do sleep 0.01; done; cat /proc/self/cgroup\"]\n";
    fs::write(fixture.path("stays"), "").expect("a file");
    // The shell takes the place of sshd's process.
    let script = format!(
        "PAM_TYPE=open_session PAM_USER=nobody '{DELEGATE}' nobody || exit 9; cat | \
         setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups \
         sh -c 'cat | env -i \"$0\" hooks | cat' '{}' | cat",
        crate::site::BIN
    );
    let mut session = Command::new("sh");
    session.args(["-c", &script]);
    let mut runner = Runner::start(&mut session, &fixture.setup(config));
    let session = format!("deploy-shell.{}", runner.child.id());
    for number in [2, 3] {
        let (lines, end) = runner.run("after_swap 0 r2 - 60000");
        assert_eq!(end, "exit 0", "{lines:?}");
        let is_own = |line: &String| {
            line.contains(&format!("/{session}/deploy-shell-hook."))
                && line.ends_with(&format!(".{number}"))
        };
        assert!(lines.iter().any(is_own), "{lines:?}");
        assert!(
            !lines.iter().any(|line| line.contains("still runs")),
            "{lines:?}"
        );
        let stays = fixture.path("stays");
        let left = with_argument(stays.to_str().expect("a plain path"));
        assert!(left.is_empty(), "{left:?}");
    }
    drop(runner);
    // No cgroup of a hook is left, and the next session removes that of this one.
    let session = own.join(session);
    fs::remove_dir(&session).unwrap_or_else(|error| panic!("{session:?}: {error}"));
}

/// Other accounts and other ends of a session change nothing.
#[test]
fn the_delegation_is_for_one_account() {
    for (kind, user) in [("open_session", "daemon"), ("close_session", "nobody")] {
        let mut delegate = Command::new(DELEGATE);
        delegate
            .arg("nobody")
            .env("PAM_TYPE", kind)
            .env("PAM_USER", user);
        let before = fs::read_to_string("/proc/self/cgroup").expect("/proc");
        assert!(
            delegate.status().expect("it runs").success(),
            "{kind} {user}"
        );
        assert_eq!(
            fs::read_to_string("/proc/self/cgroup").expect("/proc"),
            before
        );
    }
}
