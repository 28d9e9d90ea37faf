//! `deploy-shell-admin repair`: the account gets its files again, and nothing else.
//!
//! Only root can give a file to another user, so these tests are skipped for other users.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use crate::direct::live;
use crate::mounted::in_namespace;
use crate::site::{Reply, Site, admin, set_mode, with_admin, write_file};

/// The account of the site: daemon.
const ACCOUNT: u32 = 1;

/// A site of [`ACCOUNT`] with two releases that were live; none for an ordinary user.
fn site() -> Option<Site> {
    if !Uid::effective().is_root() {
        println!("skipped: only root can give files to another user");
        return None;
    }
    let site = Site::new();
    live(&site, &["a", "b"]);
    site.give_to(&ACCOUNT.to_string());
    Some(site)
}

fn repair(site: &Site, words: &[&str]) -> Reply {
    let mut command = Command::new(admin());
    command
        .arg("repair")
        .arg("--config")
        .arg(site.config_path());
    command.args(words);
    site.run(command, b"")
}

fn state(site: &Site, name: &str) -> PathBuf {
    site.root().join(".deploy-shell").join(name)
}

fn owner(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it exists").uid()
}

fn to_root(path: &Path) {
    lchown(path, Some(0), Some(0)).expect("root takes it");
}

/// As cp(1) of root makes it, under any umask.
#[test]
fn what_root_restored_is_the_accounts_again() {
    let Some(site) = site() else { return };
    let names = [
        "journal.jsonl",
        "lock",
        "manifests/a",
        "manifests/b",
        "limits/key-ci.swaps",
    ];
    for name in names {
        to_root(&state(&site, name));
        set_mode(&state(&site, name), 0o400);
    }
    for name in ["manifests", "limits", "incoming", "trash", ""] {
        to_root(&state(&site, name));
    }
    to_root(&site.root().join("releases"));
    set_mode(&site.root().join("releases"), 0o775);
    // Nothing shows the account.
    to_root(site.root());
    repair(&site, &[]).refused(78, "bad-layout");
    let shown = repair(&site, &["--owner", "daemon"]).ok();
    assert!(shown.contains("releases to daemon\n"), "{shown}");
    for name in names {
        let found = fs::metadata(state(&site, name)).expect("it exists");
        assert_eq!(
            (found.uid(), found.mode() & 0o777),
            (ACCOUNT, 0o600),
            "{name}"
        );
    }
    lchown(site.root(), Some(ACCOUNT), None).expect("given");
    let mut check = Command::new(admin());
    check.arg("verify").arg("--config").arg(site.config_path());
    site.run(check, b"").ok();
    let nothing = format!("{} has nothing to repair\n", site.root().display());
    assert_eq!(repair(&site, &[]).ok(), nothing);
}

/// A backup without empty directories lacks some.
#[test]
fn what_is_missing_is_made_by_the_printed_command() {
    let Some(site) = site() else { return };
    fs::remove_dir(state(&site, "trash")).expect("removed");
    to_root(&state(&site, "incoming"));
    to_root(&state(&site, ""));
    let reply = repair(&site, &["--owner", "daemon"]);
    let (_, init) = reply
        .stdout
        .split_once("make what is missing: ")
        .expect("a command");
    assert_eq!(reply.code, 1, "{reply:?}");
    let done = Command::new("sh")
        .args(["-c", &with_admin(init)])
        .output()
        .expect("sh");
    assert!(done.status.success(), "{done:?}");
    for name in ["", "incoming", "trash"] {
        assert_eq!(owner(&state(&site, name)), ACCOUNT, "{name}");
    }
    repair(&site, &[]).ok();
}

/// The account owns the directories, and can move there what it may not read.
#[test]
fn nothing_but_files_of_deploy_shell_is_given_away() {
    let Some(site) = site() else { return };
    let secret = site.root().join("shared/.env");
    let places = [
        "journal.jsonl",
        "lock",
        "used-ids-1",
        "journal-1.jsonl.zst",
        "manifests/a",
        "limits/key-ci.swaps",
        "trash/a.1",
        "anything",
    ];
    for place in places {
        let away = site.dir().join("away");
        let had = fs::rename(state(&site, place), &away).is_ok();
        for content in [
            "PASSWORD=x\n",
            "2026-04-12T14:20:41Z\nPASSWORD=x\n",
            "(\u{b5}/\u{fd} of root",
        ] {
            write_file(&secret, 0o640, content.as_bytes());
            fs::rename(&secret, state(&site, place)).expect("moved");
            let reply = repair(&site, &[]);
            assert_eq!(owner(&state(&site, place)), 0, "{place}: {reply:?}");
            if place != "trash/a.1" {
                assert_eq!(reply.code, 1, "{place}: {reply:?}");
                assert!(reply.stdout.contains("left "), "{place}: {reply:?}");
            }
            fs::remove_file(state(&site, place)).expect("removed");
        }
        if had {
            fs::rename(&away, state(&site, place)).expect("moved back");
        }
    }
    // A journal of root's with another name elsewhere, and what a symlink leads to.
    let journal = state(&site, "journal.jsonl");
    to_root(&journal);
    fs::hard_link(&journal, site.dir().join("other")).expect("a link");
    assert_eq!(repair(&site, &[]).code, 1);
    assert_eq!(owner(&journal), 0);
    fs::remove_file(&journal).expect("removed");
    fs::write(site.dir().join("other"), "{\"format\":2}\n").expect("written");
    symlink(site.dir().join("other"), &journal).expect("a symlink");
    repair(&site, &[]).ok();
    assert_eq!(owner(&site.dir().join("other")), 0);
}

#[test]
fn a_directory_of_roots_with_other_content_is_not_given_away() {
    let Some(site) = site() else { return };
    let shared = site.root().join("shared");
    to_root(&shared);
    write_file(&shared.join("key"), 0o600, b"of root");
    for place in [
        state(&site, "trash"),
        site.root().join("releases"),
        state(&site, "manifests"),
    ] {
        let away = site.dir().join("away");
        fs::rename(&place, &away).expect("moved");
        fs::rename(&shared, &place).expect("moved");
        let reply = repair(&site, &[]);
        assert_eq!(reply.code, 1, "{reply:?}");
        assert_eq!(
            (owner(&place), owner(&place.join("key"))),
            (0, 0),
            "{reply:?}"
        );
        // A symlink to it is not followed.
        fs::rename(&place, &shared).expect("moved back");
        symlink(&shared, &place).expect("a symlink");
        let reply = repair(&site, &[]);
        assert!(
            reply.stdout.contains("is not a directory itself"),
            "{reply:?}"
        );
        assert_eq!(owner(&shared), 0);
        // In the root directory, the account can move an empty one of root's too.
        if place == site.root().join("releases") {
            fs::remove_file(&place).expect("removed");
            fs::create_dir(&place).expect("a directory");
            let reply = repair(&site, &[]);
            let left = "releases: it belongs to root, and is empty";
            assert!(reply.stdout.contains(left), "{reply:?}");
            assert_eq!((reply.code, owner(&place)), (1, 0));
            fs::remove_dir(&place).expect("removed");
            symlink(&shared, &place).expect("a symlink");
        }
        fs::remove_file(&place).expect("removed");
        fs::rename(&away, &place).expect("moved back");
    }
    // Another user's stays that user's.
    lchown(state(&site, "trash"), Some(2), Some(2)).expect("given");
    assert!(
        repair(&site, &[])
            .stdout
            .contains("trash: it belongs to 'bin'")
    );
}

#[test]
fn what_is_mounted_in_the_state_directory_is_left() {
    let Some(site) = site() else { return };
    let mounted = site.dir().join("mounted");
    fs::create_dir(&mounted).expect("a directory");
    write_file(&mounted.join("a"), 0o600, b"#mtree\n");
    let (manifests, config) = (state(&site, "manifests"), site.config_path());
    let script = format!(
        "mount --bind '{}' '{}' && '{}' repair --config '{}'",
        mounted.display(),
        manifests.display(),
        admin().display(),
        config.display()
    );
    let Some(done) = in_namespace(&script) else {
        return;
    };
    let shown = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(shown.contains("manifests: "), "{done:?}");
    assert_eq!((owner(&mounted), owner(&mounted.join("a"))), (0, 0));
}
