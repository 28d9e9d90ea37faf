//! Sites whose directories are set-group-id or have a default access control list.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Group, geteuid, getgroups};

use crate::archive::{Tar, zstd};
use crate::operator::{init, take_back};
use crate::site::{Site, admin, set_mode};
use crate::times::sh;

fn payload() -> Vec<u8> {
    let tar = Tar::new()
        .header(crate::archive::Header::file("tool", 0).put(crate::archive::MODE, "0000755"))
        .file("index.html", b"<p>")
        .directory("assets")
        .file("assets/deep/page.css", b"a{}")
        .symlink("link", "index.html");
    zstd(&tar.end())
}

/// Returns a group that is not the first one of this user, if it may use another.
pub fn other_group() -> Option<u32> {
    if geteuid().is_root() {
        let group = Group::from_name("www-data").expect("the groups can be read");
        return group.map(|group| group.gid.as_raw());
    }
    let own = nix::unistd::getegid();
    let groups = getgroups().expect("the groups of this process");
    groups
        .into_iter()
        .find(|group| *group != own)
        .map(|group| group.as_raw())
}

/// Returns every path of a release, without symlinks.
fn paths(release: &Path) -> Vec<PathBuf> {
    let mut found = vec![release.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.is_dir() {
            let entries = fs::read_dir(path).expect("a directory");
            found.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        found.retain(|path| !path.is_symlink());
    }
    found
}

fn mode(path: &Path) -> u32 {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    meta.permissions().mode() & 0o7777
}

#[track_caller]
fn assert_plain_modes(release: &Path) {
    for path in paths(release) {
        let expected = if path.is_dir() || path.ends_with("tool") {
            0o755
        } else {
            0o644
        };
        assert_eq!(mode(&path), expected, "{path:?}");
    }
}

/// Returns the lines of getfacl(1) that a plain mode would not have.
pub fn extended(path: &Path) -> String {
    let output = Command::new("getfacl").args(["-cpsE"]).arg(path).output();
    let text = output.expect("getfacl runs").stdout;
    String::from_utf8(text).expect("text")
}

pub fn set_acl(directory: &Path, acl: &str) {
    sh(directory, &format!("setfacl {acl} ."));
}

/// Returns whether lists can be set here.
pub fn has_lists() -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let set = Command::new("setfacl")
        .args(["-d", "-m", "u::rwx"])
        .arg(directory.path())
        .status();
    let has = set.is_ok_and(|status| status.success());
    if !has {
        println!("skipped: no setfacl, or a file system without lists");
    }
    has
}

#[track_caller]
fn verify(site: &Site) {
    let mut command = Command::new(admin());
    command.args(["verify", "--config"]).arg(site.config_path());
    site.run(command, b"").ok();
}

#[test]
fn the_group_follows_a_set_group_id_directory_and_the_modes_are_plain() {
    let Some(group) = other_group() else {
        println!("skipped: this user has one group");
        return;
    };
    type Prepare = fn(&Path, u32);
    let cases: [(&str, Prepare, bool); 3] = [
        (
            "all directories",
            |root, group| {
                for name in ["", "releases", ".deploy-shell", ".deploy-shell/incoming"] {
                    set_group(&root.join(name), group);
                }
            },
            true,
        ),
        (
            "releases",
            |root, group| set_group(&root.join("releases"), group),
            true,
        ),
        ("the root", |root, group| set_group(root, group), false),
    ];
    for (name, prepare, follows) in cases {
        let site = Site::with_config("verify_on_swap = true\n");
        prepare(site.root(), group);
        for release in ["r1", "r2"] {
            site.receive(release, &payload()).ok();
            let release = site.root().join("releases").join(release);
            assert_plain_modes(&release);
            for path in paths(&release) {
                let found = fs::metadata(&path).expect("it exists").gid();
                assert_eq!(found == group, follows, "{name}: {path:?}");
            }
        }
        site.ssh("ci", "swap r1").ok();
        site.ssh("ci", "swap r2").ok();
        site.ssh("ci", "rollback").ok();
        verify(&site);
    }
}

pub fn set_group(directory: &Path, group: u32) {
    chown(directory, None, Some(group)).expect("a group of this user");
    let mode = mode(directory);
    set_mode(directory, mode | 0o2000);
}

#[test]
fn a_site_in_a_set_group_id_directory_is_initialized_and_works() {
    let site = Site::new();
    let root = site.dir().join("new");
    fs::create_dir(&root).expect("a directory");
    set_mode(&root, 0o2775);
    let config = site.dir().join("new.toml");
    site.run(init(&config, &root), b"").ok();
    take_back(&root);
    let request = |request: &str, input: &[u8]| {
        let mut serve = Command::new(crate::site::BIN);
        serve
            .args(["serve", "--key", "ci", "--config"])
            .arg(&config);
        serve.env("SSH_ORIGINAL_COMMAND", request);
        site.run(serve, input)
    };
    let text = fs::read_to_string(&config).expect("the configuration");
    let socket = format!("socket = \"{}/audit.socket\"", site.dir().display());
    fs::write(&config, text.replace("#socket = \"/dev/log\"", &socket)).expect("it is ours");
    let payload = payload();
    request(&Site::receive_command("r1", &payload), &payload).ok();
    assert_plain_modes(&root.join("releases/r1"));
    request("swap r1", b"").ok();
}

#[test]
fn set_group_id_on_a_live_site_breaks_neither_verify_nor_rollback() {
    let site = Site::with_config("verify_on_swap = true\n");
    let payload = zstd(&Tar::new().file("a/index.html", b"<p>").end());
    for release in ["r1", "r2"] {
        site.receive(release, &payload).ok();
        site.ssh("ci", &format!("swap {release}")).ok();
    }
    sh(site.root(), "chmod -R g+s .");
    verify(&site);
    site.ssh("ci", "rollback").ok();
    site.receive("r3", &payload).ok();
    assert_plain_modes(&site.root().join("releases/r3"));
    site.ssh("ci", "swap r3").ok();
    // An executable file would run as its group.
    let tool = site.root().join("releases/r3/a/index.html");
    set_mode(&tool, 0o2755);
    let mut command = Command::new(admin());
    command.args(["verify", "--config"]).arg(site.config_path());
    let reply = site.run(command, b"");
    assert!(
        reply.stdout.contains("mode ./a/index.html: 2755, not 0644"),
        "{reply:?}"
    );
}

#[test]
fn a_default_list_is_not_inherited() {
    if !has_lists() {
        return;
    }
    for acl in [
        "-R -d -m u:nobody:rwx,o::rwx,g::rwx",
        "-R -d -m u:nobody:rx",
        "-R -d -m o::---,g::---",
        "-d -m u:nobody:rwx",
    ] {
        let site = Site::with_config("verify_on_swap = true\n");
        set_acl(site.root(), acl);
        site.receive("r1", &payload()).ok();
        site.ssh("ci", "swap r1").ok();
        // And once more, now that the journal exists.
        set_acl(site.root(), acl);
        site.receive("r2", &payload()).ok();
        site.ssh("ci", "swap r2").ok();
        site.ssh("ci", "rollback").ok();
        verify(&site);
        for release in ["r1", "r2"] {
            let release = site.root().join("releases").join(release);
            assert_plain_modes(&release);
            for path in paths(&release) {
                // The second call of setfacl has changed r1, as the operator wanted.
                if release.ends_with("r2") || !acl.contains("-R") {
                    let list = extended(&path);
                    assert!(
                        !list.contains("nobody") && !list.contains("default"),
                        "{acl}: {list}"
                    );
                }
            }
        }
        for name in ["journal.jsonl", "lock", "manifests/r1", "manifests/r2"] {
            let path = site.root().join(".deploy-shell").join(name);
            assert_eq!(mode(&path) & 0o077, 0, "{acl}: {path:?}");
        }
    }
}

#[test]
fn a_default_list_is_inherited_where_the_configuration_says_so() {
    if !has_lists() {
        return;
    }
    let site = Site::with_config("verify_on_swap = true\n[archive]\nacl = \"inherit\"\n");
    // A list that gives more than the modes, and one that gives less. The first is of
    // the root, the second of 'releases'.
    set_acl(site.root(), "-d -m u:nobody:rwx,o::rwx");
    site.receive("r1", &payload()).ok();
    set_acl(&site.root().join("releases"), "-d -m u:nobody:rx,o::---");
    sh(site.root(), "chmod g+s releases");
    site.receive("r2", &payload()).ok();
    for release in ["r1", "r2"] {
        site.ssh("ci", &format!("swap {release}")).ok();
    }
    site.ssh("ci", "rollback").ok();
    verify(&site);
    let release = |name: &str| site.root().join("releases").join(name);
    assert_plain_modes(&release("r1"));
    for path in paths(&release("r1")) {
        let list = extended(&path);
        assert!(list.contains("user:nobody:rwx"), "{path:?}: {list}");
        // Nobody may write: the mask limits every named user.
        assert!(mode(&path) & 0o022 == 0, "{path:?}");
    }
    for path in paths(&release("r2")) {
        let list = extended(&path);
        assert!(list.contains("user:nobody:r-x"), "{path:?}: {list}");
        let narrow = if path.is_dir() || path.ends_with("tool") {
            0o750
        } else {
            0o640
        };
        assert_eq!(mode(&path), narrow, "{path:?}");
    }
    set_acl(&site.root().join("releases"), "-d -m u::rx");
    let reply = site.receive("r3", &payload());
    reply.refused(78, "bad-layout");
    assert!(reply.stderr.contains("setfacl -d -m u::rwx"), "{reply:?}");
    // Without the key, nothing is inherited any more, and 'verify' reports what r2 has.
    site.configure("verify_on_swap = true\n");
    site.receive("r3", &payload()).ok();
    assert_plain_modes(&release("r3"));
    assert!(!extended(&release("r3")).contains("nobody"));
}
