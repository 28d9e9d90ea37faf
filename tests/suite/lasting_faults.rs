//! Faults of the site's own files that only a person can repair. A client repeats what
//! fails with 74 or 75, so they have another status, and each remedy works.

use std::path::Path;
use std::process::Command;

use nix::unistd::Uid;

use crate::archive::tarball;
use crate::mounted::{self, Mounted, in_namespace, replies, request_line};
use crate::receive::noise;
use crate::site::{Site, set_mode, write_file};

fn payload() -> Vec<u8> {
    tarball(&[("index.html", b"<p>")])
}

/// Returns whether the immutable attribute was set or removed.
fn set_immutable(path: &Path, sign: char) -> bool {
    let done = Command::new("chattr")
        .arg(format!("{sign}i"))
        .arg(path)
        .output();
    done.is_ok_and(|done| done.status.success())
}

/// Directories of a site below its root, each with a request that writes there.
fn writes() -> [(&'static str, String); 3] {
    let receive = || Site::receive_command("r2", &payload());
    [
        ("releases", receive()),
        (".deploy-shell/incoming", receive()),
        ("", "swap r1".to_owned()),
    ]
}

#[test]
fn an_immutable_directory_is_reported_with_the_remedy() {
    let site = Site::new();
    site.receive("r1", &payload()).ok();
    for (directory, request) in writes() {
        let path = site.root().join(directory);
        if !set_immutable(&path, '+') {
            println!("skipped: this user or file system has no immutable files");
            return;
        }
        let reply = site.ssh_with_input("ci", &request, &payload());
        assert!(set_immutable(&path, '-'), "{directory}");
        reply.refused(78, "bad-layout");
        assert!(reply.stderr.contains("'chattr -i' ends that"), "{reply:?}");
    }
    site.receive("r2", &payload()).ok();
    site.ssh("ci", "swap r2").ok();
}

#[test]
fn a_directory_that_the_account_may_not_write_is_reported_with_the_remedy() {
    if Uid::effective().is_root() {
        println!("skipped: root may write everywhere");
        return;
    }
    let site = Site::new();
    site.receive("r1", &payload()).ok();
    let config = site.config_path().display();
    for (directory, request) in writes() {
        let path = site.root().join(directory);
        set_mode(&path, 0o500);
        let reply = site.ssh_with_input("ci", &request, &payload());
        set_mode(&path, 0o755);
        reply.refused(78, "bad-layout");
        let remedy = match directory {
            "" => format!("deploy-shell-admin check --config '{config}'\n"),
            _ => format!("as root: deploy-shell-admin repair --config '{config}'\n"),
        };
        assert!(reply.stderr.contains(&remedy), "{reply:?}");
    }
}

#[test]
fn a_read_only_file_system_is_reported_with_the_remedy() {
    let site = Site::new();
    let payload = payload();
    let file = site.dir().join("payload");
    write_file(&file, 0o644, &payload);
    let root = site.root().display();
    let receive = request_line(&site, 0, &Site::receive_command("r1", &payload));
    let script = format!(
        "set -e\nmount --bind '{root}' '{root}'\nmount -o remount,bind,ro '{root}'\nset +e\n{receive}",
    );
    let script = script.replace("env -i", &format!("< '{}' env -i", file.display()));
    let Some(done) = in_namespace(&script) else {
        return;
    };
    assert!(done.status.success(), "{done:?}");
    let reply = replies(&site, 1).remove(0);
    reply.refused(78, "bad-layout");
    assert!(
        reply
            .stderr
            .contains("mount the file system read-write again"),
        "{reply:?}"
    );
}

/// The quota of btrfs holds for root as well, and btrfs has no table of inodes.
#[test]
fn a_quota_is_not_a_full_disk() {
    let site = Site::new();
    let over = Mounted::over(&site, |image| {
        mounted::format("mkfs.btrfs -q", image, 512 << 20);
        "-o loop".to_owned()
    });
    let Some(over) = over else {
        return;
    };
    let btrfs = |words: &[&str]| {
        let mut command = Command::new("btrfs");
        mounted::succeed(command.args(words).arg(&over.disk));
    };
    btrfs(&["quota", "enable"]);
    btrfs(&["qgroup", "limit", "4M", "0/5"]);
    let reply = site.receive("r1", &tarball(&[("noise", &noise(16 << 20))]));
    reply.refused(74, "disk-full");
    assert!(reply.stderr.contains("quota"), "{reply:?}");
    assert!(
        reply.stderr.contains("raise the disk quota of the account"),
        "{reply:?}"
    );
    assert!(!reply.stderr.contains("inodes"), "{reply:?}");
    btrfs(&["qgroup", "limit", "none", "0/5"]);
    site.receive("r1", &tarball(&[("noise", &noise(1 << 20))]))
        .ok();
}
