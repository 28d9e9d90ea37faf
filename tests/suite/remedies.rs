//! Faults of a site that only its operator can repair: the account of the site is
//! refused before anything happens, and the second line of the answer is a command that
//! repairs the site and harms nothing.
//!
//! Only root can give a file to another user, so most of these tests are skipped for
//! other users.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use crate::direct::{held_open, live, payload, put, states};
use crate::process::copy_program;
use crate::site::{BIN, Reply, Site, admin, set_mode, with_admin};

/// The account of the site: daemon.
const ACCOUNT: u32 = 1;

/// Another ordinary user.
const OTHER: u32 = 4712;

/// A site of [`ACCOUNT`] with two releases that were live; none for an ordinary user.
fn site_of_the_account() -> Option<Site> {
    if !Uid::effective().is_root() {
        println!("skipped: only root can give files to another user");
        return None;
    }
    let site = Site::new();
    live(&site, &["a", "b"]);
    give_tree(site.root(), ACCOUNT);
    set_mode(&site.dir().join("audit.socket"), 0o777);
    copy_program(BIN, &program(&site));
    Some(site)
}

/// Other users cannot reach a checkout in root's home.
fn program(site: &Site) -> PathBuf {
    site.dir().join("deploy-shell")
}

fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap_or_else(|error| panic!("{path:?}: {error}"));
}

fn give_tree(path: &Path, user: u32) {
    give(path, user);
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a directory") {
            give_tree(&entry.expect("an entry").path(), user);
        }
    }
}

fn owner(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it exists").uid()
}

fn command_of(site: &Site, user: u32, request: &str) -> Command {
    let mut command = Command::new(program(site));
    command
        .env_clear()
        .args(["serve", "--key", "ci", "--config"])
        .arg(site.config_path())
        .env("SSH_ORIGINAL_COMMAND", request)
        .uid(user)
        .gid(user);
    command
}

fn ask_as(site: &Site, user: u32, request: &str) -> Reply {
    site.run(command_of(site, user, request), b"")
}

fn receive_as_account(site: &Site, release: &str) -> Reply {
    let payload = payload(release);
    let request = Site::receive_command(release, &payload);
    site.run(command_of(site, ACCOUNT, &request), &payload)
}

/// Returns the second line of an answer.
#[track_caller]
fn remedy(reply: &Reply) -> String {
    reply.refused(78, "bad-layout");
    let remedy = reply.stderr.lines().nth(1);
    remedy
        .unwrap_or_else(|| panic!("no remedy: {reply:?}"))
        .to_owned()
}

/// Runs the command of a remedy, as root.
#[track_caller]
fn follow(remedy: &str) {
    let script = remedy.strip_prefix("as root: ").unwrap_or(remedy);
    // Of the root directory, `check` prints the command.
    if let Some(check) = script.strip_prefix("this says how to correct it: ") {
        let done = Command::new("sh").args(["-c", &with_admin(check)]).output();
        let done = done.expect("sh starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let reply = Reply {
            code: done.status.code().expect("it exits"),
            stdout: text(done.stdout),
            stderr: text(done.stderr),
        };
        return follow(&crate::check::remedy(&reply, "root-not-writable"));
    }
    let done = Command::new("sh")
        .args(["-ec", &with_admin(script)])
        .output();
    let done = done.expect("sh starts");
    assert!(done.status.success(), "{remedy}: {done:?}");
}

/// Every request works, and the one before was refused without a change.
#[track_caller]
fn works(site: &Site) {
    receive_as_account(site, "c").ok();
    ask_as(site, ACCOUNT, "swap c").ok();
    assert_eq!(
        ask_as(site, ACCOUNT, "rollback").ok(),
        "ok rollback b previous=c\n"
    );
    ask_as(site, ACCOUNT, "list").ok();
}

#[test]
fn a_root_that_the_account_cannot_write_is_refused_before_any_work() {
    let Some(site) = site_of_the_account() else {
        return;
    };
    give(site.root(), 0);
    let before = site.snapshot();
    let payload = payload("c");
    let receive = command_of(&site, ACCOUNT, &Site::receive_command("c", &payload));
    // The client has sent nothing yet.
    let reply = held_open(receive, b"");
    let words = format!(
        "cannot write to '{}': permission denied",
        site.root().display()
    );
    assert!(reply.stderr.contains(&words), "{reply:?}");
    for request in ["swap a", "rollback"] {
        assert_eq!(remedy(&ask_as(&site, ACCOUNT, request)), remedy(&reply));
    }
    // Reading needs no write access.
    ask_as(&site, ACCOUNT, "list").ok();
    assert!(
        site.snapshot() == before,
        "a refused request changed something"
    );
    follow(&remedy(&reply));
    assert_eq!(owner(site.root()), ACCOUNT);
    works(&site);
}

#[test]
fn a_directory_of_roots_is_given_back() {
    for name in [
        "releases",
        ".deploy-shell",
        ".deploy-shell/manifests",
        ".deploy-shell/incoming",
        ".deploy-shell/trash",
    ] {
        let Some(site) = site_of_the_account() else {
            return;
        };
        let path = site.root().join(name);
        give(&path, 0);
        set_mode(&path, 0o755);
        let reply = ask_as(&site, ACCOUNT, "swap a");
        let words = format!("'{}' belongs to user 0, not to this", path.display());
        assert!(reply.stderr.contains(&words), "{reply:?}");
        follow(&remedy(&reply));
        works(&site);
    }
}

/// The account can move a directory of another user here.
#[test]
fn no_remedy_takes_a_directory_from_another_user() {
    let Some(site) = site_of_the_account() else {
        return;
    };
    for name in ["releases", ".deploy-shell/trash"] {
        let path = site.root().join(name);
        give(&path, OTHER);
        set_mode(&path, 0o755);
        let remedy = remedy(&ask_as(&site, ACCOUNT, "swap a"));
        assert!(remedy.starts_with("copy the site and "), "{remedy}");
        give(&path, ACCOUNT);
    }
    works(&site);
}

#[test]
fn a_directory_that_its_owner_may_not_write_gets_its_mode_back() {
    let Some(site) = site_of_the_account() else {
        return;
    };
    for name in ["", "releases", ".deploy-shell/incoming"] {
        let path = site.root().join(name);
        set_mode(&path, 0o555);
        let reply = receive_as_account(&site, "c");
        follow(&remedy(&reply));
    }
    works(&site);
}

/// As after a command that root ran in the directory.
#[test]
fn records_of_another_owner_are_given_back() {
    for name in ["journal.jsonl", "lock", "limits", "limits/key-ci.swaps"] {
        let Some(site) = site_of_the_account() else {
            return;
        };
        ask_as(&site, ACCOUNT, "swap b").ok();
        let path = site.root().join(".deploy-shell").join(name);
        give(&path, 0);
        if path.is_dir() {
            set_mode(&path, 0o700);
        }
        let reply = ask_as(&site, ACCOUNT, "swap a");
        assert!(
            reply.stderr.contains("permission denied"),
            "{name}: {reply:?}"
        );
        follow(&remedy(&reply));
        assert_eq!(owner(&path), ACCOUNT, "{name}");
        works(&site);
    }
}

/// The remedy follows no symlink that the account has put there.
#[test]
fn the_remedy_changes_nothing_outside_of_the_site() {
    let Some(site) = site_of_the_account() else {
        return;
    };
    let outside = site.dir().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("secret"), "").expect("a file");
    set_mode(&outside.join("secret"), 0o400);
    let state = site.root().join(".deploy-shell");
    std::os::unix::fs::symlink(&outside, state.join("trash/x")).expect("a symlink");
    std::os::unix::fs::symlink(outside.join("secret"), state.join("y")).expect("a symlink");
    give(&state.join("journal.jsonl"), 0);
    follow(&remedy(&ask_as(&site, ACCOUNT, "swap a")));
    let meta = fs::metadata(outside.join("secret")).expect("a file");
    assert_eq!(
        (owner(&outside), meta.uid(), meta.mode() & 0o777),
        (0, 0, 0o400)
    );
    works(&site);
}

#[test]
fn root_is_told_to_change_no_owner() {
    let Some(site) = site_of_the_account() else {
        return;
    };
    for request in ["list", "swap a"] {
        let remedy = remedy(&ask_as(&site, 0, request));
        let expected = "run this as the account that owns the site, not as root; change no owner";
        assert_eq!(remedy, expected);
    }
    works(&site);
}

#[test]
fn another_user_who_verifies_is_told_who_may() {
    let Some(site) = site_of_the_account() else {
        return;
    };
    let program = site.dir().join("deploy-shell-admin");
    copy_program(admin(), &program);
    let verify = |user| {
        let mut command = Command::new(&program);
        command.env_clear().args(["verify", "--config"]);
        command.arg(site.config_path()).uid(user).gid(user);
        command.stdin(Stdio::null());
        site.run(command, b"")
    };
    let expected = "run this as root, or as the account that owns the site";
    assert_eq!(remedy(&verify(OTHER)), expected);
    verify(ACCOUNT).ok();
    verify(0).ok();
}

/// The remedy of a directory that does not exist: `init` finds the owner.
#[test]
fn a_missing_directory_is_made_by_the_command_of_the_remedy() {
    let Some(site) = site_of_the_account() else {
        return;
    };
    let state = site.root().join(".deploy-shell");
    for gone in [state.join("trash"), site.root().join("shared"), state] {
        fs::remove_dir_all(&gone).expect("removed");
        if !gone.ends_with("shared") {
            let remedy = remedy(&ask_as(&site, ACCOUNT, "list"));
            follow(remedy.strip_prefix("make it: ").expect("a command"));
            assert_eq!(owner(&gone), ACCOUNT, "{}", gone.display());
        }
        ask_as(&site, ACCOUNT, "list").ok();
    }
    // No directory is left that says who the account is. The command names this one, which
    // needs an entry of the user database then.
    let nobody = User::from_name("nobody").expect("the user database");
    let nobody = nobody.expect("an account").uid.as_raw();
    fs::remove_dir_all(site.root()).expect("removed");
    let reply = ask_as(&site, nobody, "list");
    assert!(
        reply.stderr.contains("correct 'root' in the site's"),
        "{reply:?}"
    );
    let remedy = remedy(&reply);
    let (_, command) = remedy.split_once("or make it: ").expect("a command");
    follow(command);
    assert_eq!(owner(site.root()), nobody);
    ask_as(&site, nobody, "list").ok();
}

/// `rm current` and `mv current current.old` would leave visitors without a site.
#[test]
fn no_remedy_for_the_symlink_takes_the_site_offline() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    put(&site, "c");
    let link = site.root().join("current");
    let absolute = site.root().join("releases/b");
    for target in [absolute.clone(), PathBuf::from("/nonexistent")] {
        fs::remove_file(&link).expect("removed");
        std::os::unix::fs::symlink(&target, &link).expect("a symlink");
        let remedy = remedy(&crate::direct::ask(&site, "swap c"));
        let (step, way) = remedy.split_once("; or: ").expect("two ways");
        let other = if target == absolute {
            let config = site.config_path().display();
            format!("deploy-shell-admin adopt --config '{config}'")
        } else {
            "docs/adopting.md has the way to a new root".to_owned()
        };
        assert_eq!(way, other);
        let step = step.strip_prefix("in one step: ").expect("a command");
        let step = step.replace("releases/RELEASE", "releases/b");
        site.follow(&step);
        assert_eq!(states(&site), ["b current", "a previous", "c pending"]);
        crate::direct::ask(&site, "swap b").ok();
    }
    fs::remove_file(&link).expect("removed");
    fs::create_dir(&link).expect("a directory");
    let remedy = remedy(&crate::direct::ask(&site, "swap c"));
    assert!(remedy.contains("while the site is served: deploy-shell-admin adopt --config "));
    assert!(
        !remedy.contains("mv ") && !remedy.contains("rm "),
        "{remedy}"
    );
}
