//! Pruning after a swap: which releases it removes, and which it never removes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use crate::direct::{ask, listing, live, put, record, serve, states};
use crate::gating::{gate_failed, logging_hooks, make_fail};
use crate::site::{Site, admin, set_mode};

fn manifests(site: &Site) -> Vec<String> {
    let directory = site.root().join(".deploy-shell/manifests");
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("a UTF-8 name"))
        .collect();
    names.sort();
    names
}

/// Asserts that exactly these releases exist, each with its manifest.
#[track_caller]
fn assert_releases(site: &Site, releases: &[&str]) {
    assert_eq!(site.releases(), releases);
    assert_eq!(manifests(site), releases);
    assert_eq!(site.leftovers(), [] as [PathBuf; 0]);
}

#[test]
fn the_configured_count_is_kept_besides_current_and_previous() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    for keep in [1, 2, 3] {
        let site = Site::with_config(&format!("keep = {keep}\nmin_age = \"0s\"\n"));
        for count in 1..=names.len() {
            live(&site, &names[count - 1..count]);
            let first = count.saturating_sub(keep + 2);
            assert_releases(&site, &names[first..count]);
        }
    }
}

/// A web server may serve it: the old symlink after a change of `link`, or another site with
/// the same root.
#[test]
fn a_release_to_which_another_symlink_leads_is_not_removed() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c"]);
    let root = site.root();
    for (name, target) in [
        ("old", Path::new("releases/a")),
        ("document-root", Path::new("./releases/b/public")),
        ("absolute", &root.join("releases/c")),
        ("elsewhere", Path::new("releases/d-and-more")),
    ] {
        symlink(target, root.join(name)).expect("a symlink");
    }
    let mut warned = String::new();
    for release in ["d", "e", "f", "g"] {
        put(&site, release);
        let reply = ask(&site, &format!("swap {release}"));
        warned += &reply.stderr;
        reply.ok();
    }
    let expected = "'a' was not pruned: the symlink 'old' in the root leads to 'a'";
    assert!(warned.contains(expected), "{warned}");
    assert_releases(&site, &["a", "b", "c", "e", "f", "g"]);
    let mut command = Command::new(admin());
    command.args(["drop", "--good", "e", "a", "--config"]);
    command.arg(site.config_path());
    site.run(command, b"").refused(77, "denied");
    assert_releases(&site, &["a", "b", "c", "e", "f", "g"]);
    for link in ["old", "document-root", "absolute"] {
        fs::remove_file(root.join(link)).expect("it was there");
    }
    live(&site, &["h"]);
    assert_releases(&site, &["f", "g", "h"]);
}

#[test]
fn five_are_kept_by_default() {
    let site = Site::with_config("min_age = \"0s\"\n");
    live(&site, &["a", "b", "c", "d", "e", "f", "g"]);
    assert_releases(&site, &["a", "b", "c", "d", "e", "f", "g"]);
    live(&site, &["h", "i"]);
    assert_releases(&site, &["c", "d", "e", "f", "g", "h", "i"]);
}

#[test]
fn nothing_is_pruned_before_its_time() {
    let site = Site::with_config("keep = 1\nmin_age = \"10m\"\n");
    live(&site, &["a", "b", "c"]);
    // Of those without a place, the one that was live longest stays too: let it be c.
    site.age_journal(jiff::SignedDuration::from_mins(1));
    live(&site, &["d", "e"]);
    assert_releases(&site, &["a", "b", "c", "d", "e"]);
    site.age_journal(jiff::SignedDuration::from_mins(8));
    ask(&site, "swap d").ok();
    assert_releases(&site, &["a", "b", "c", "d", "e"]);
    site.age_journal(jiff::SignedDuration::from_mins(2));
    ask(&site, "swap e").ok();
    // Current e, previous d, and the newest good one.
    assert_releases(&site, &["c", "d", "e"]);
}

/// The time when a release was last live decides, not the time when it was received.
#[test]
fn the_last_time_live_decides() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    for release in ["a", "b", "c", "d"] {
        put(&site, release);
    }
    for release in ["d", "c", "b"] {
        ask(&site, &format!("swap {release}")).ok();
    }
    assert_releases(&site, &["a", "b", "c", "d"]);
    ask(&site, "swap a").ok();
    // Last live before a: b, c, and long ago d, the last to be received.
    assert_releases(&site, &["a", "b", "c"]);
}

#[test]
fn the_age_of_a_release_restarts_when_it_is_live_again() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c"]);
    ask(&site, "swap a").ok();
    live(&site, &["d"]);
    assert_releases(&site, &["a", "c", "d"]);
    assert_eq!(states(&site), ["d current", "a previous", "c good"]);
}

#[test]
fn bad_releases_are_counted_separately() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b"]);
    for release in ["x", "y", "z"] {
        live(&site, &[release]);
        ask(&site, "rollback").ok();
        assert_eq!(site.current().as_deref(), Some("b"));
    }
    // One bad release stays, and no good one is removed for it.
    assert_eq!(states(&site), ["b current", "z bad", "a previous"]);
    assert_releases(&site, &["a", "b", "z"]);
}

/// Of the releases that failed before they were live, the newest is the one that was
/// received last, whatever its name is.
#[test]
fn bad_releases_that_were_never_live_are_kept_by_arrival() {
    let site = Site::with_config(&format!("keep = 1\nmin_age = \"0s\"\n{}", logging_hooks()));
    live(&site, &["a"]);
    for release in ["z", "x", "y"] {
        put(&site, release);
        make_fail(&site, release, "before_swap");
        gate_failed(&ask(&site, &format!("swap {release}")));
    }
    // The release that has just failed is kept; the others are counted.
    assert_releases(&site, &["a", "y"]);
    live(&site, &["b"]);
    assert_eq!(states(&site), ["b current", "a previous", "y bad"]);
    assert_releases(&site, &["a", "b", "y"]);
}

#[test]
fn a_pending_release_is_not_pruned_by_a_swap() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    put(&site, "p");
    put(&site, "q");
    live(&site, &["a", "b", "c", "d", "e"]);
    assert_releases(&site, &["c", "d", "e", "p", "q"]);
}

#[test]
fn a_pending_release_is_pruned_after_its_max_age() {
    let site = Site::with_config("[pending]\nmax_age = \"7d\"\n");
    live(&site, &["a", "b"]);
    put(&site, "p");
    site.age_journal(jiff::SignedDuration::from_hours(7 * 24 - 1));
    put(&site, "q");
    ask(&site, "swap a").ok();
    assert_releases(&site, &["a", "b", "p", "q"]);
    site.age_journal(jiff::SignedDuration::from_hours(2));
    ask(&site, "swap b").ok();
    assert_releases(&site, &["a", "b", "q"]);
}

/// They may have been live and good: the journal was lost, or an `adopt` was killed.
#[test]
fn releases_that_no_request_has_recorded_are_not_overdue() {
    for remains in [None, Some("")] {
        let site = Site::with_config("[pending]\nmax_age = \"1s\"\n");
        live(&site, &["a", "b", "c"]);
        let journal = site.root().join(".deploy-shell/journal.jsonl");
        match remains {
            None => fs::remove_file(&journal).expect("the journal"),
            Some(text) => fs::write(&journal, text).expect("the journal"),
        }
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let request = Site::receive_command("evil", b"another payload");
        site.run(serve(&site, "ci", request), b"x")
            .refused(65, "digest-mismatch");
        assert_releases(&site, &["a", "b", "c"]);
        put(&site, "p");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        ask(&site, "swap b").ok();
        // One that a request has recorded is.
        assert_releases(&site, &["a", "b", "c"]);
    }
}

/// A release can be swapped to as long as it exists, and is then not pending any
/// more.
#[test]
fn an_overdue_release_can_still_go_live() {
    let site = Site::with_config("[pending]\nmax_age = \"7d\"\n");
    live(&site, &["a"]);
    put(&site, "p");
    site.age_journal(jiff::SignedDuration::from_hours(8 * 24));
    ask(&site, "swap p").ok();
    assert_releases(&site, &["a", "p"]);
}

#[test]
fn a_foreign_entry_is_never_removed() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    let releases = site.root().join("releases");
    let old = std::time::UNIX_EPOCH;
    for name in ["20190101", "not ours!", ".hidden", "-x", "café", "a..b"] {
        let directory = releases.join(name);
        fs::create_dir(&directory).expect("a directory");
        fs::write(directory.join("index.html"), name).expect("a file");
        let handle = fs::File::open(&directory).expect("a directory");
        handle.set_modified(old).expect("a new time");
    }
    fs::write(releases.join("notes.txt"), "notes").expect("a file");
    symlink("20190101", releases.join("latest")).expect("a link");
    fs::write(site.root().join("shared/.env"), "secret").expect("a file");
    fs::create_dir(site.root().join("own")).expect("a directory");
    fs::write(site.root().join("own/file"), "own").expect("a file");
    let foreign = || {
        let mut tree = site.snapshot();
        tree.retain(|path, _| !path.starts_with(".deploy-shell") && path != Path::new("current"));
        for release in ["a", "b", "c", "d", "e"] {
            tree.retain(|path, _| !path.starts_with(Path::new("releases").join(release)));
        }
        tree
    };
    let before = foreign();
    live(&site, &["a", "b", "c", "d", "e"]);
    ask(&site, "rollback").ok();
    assert_eq!(foreign(), before);
    assert_eq!(
        states(&site),
        ["d current", "e bad", "c previous", "20190101 not-received"]
    );
}

#[test]
fn the_listing_forgets_what_was_pruned() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c", "d"]);
    assert_eq!(states(&site), ["d current", "c previous", "b good"]);
    // The id is free again.
    put(&site, "a");
    assert_eq!(states(&site).last().map(String::as_str), Some("a pending"));
    ask(&site, "swap a").ok();
    assert_eq!(listing(&site)["current"], "a");
}

/// Holds a release that cannot be removed, until this is dropped.
struct Stubborn<'a> {
    site: &'a Site,
    release: PathBuf,
}

impl Stubborn<'_> {
    /// None where this user or this file system has no way to do that.
    fn make<'a>(site: &'a Site, release: &str) -> Option<Stubborn<'a>> {
        let release = site.root().join("releases").join(release);
        if Uid::effective().is_root() {
            // Root ignores modes.
            let done = run(&["chattr", "+i"], &release);
            return done.then_some(Stubborn { site, release });
        }
        // No entry can be removed from a directory that is not writable.
        set_mode(&release.join("assets"), 0o555);
        set_mode(&release, 0o555);
        Some(Stubborn { site, release })
    }
}

impl Drop for Stubborn<'_> {
    fn drop(&mut self) {
        if Uid::effective().is_root() {
            run(&["chattr", "-i"], &self.release);
        } else {
            // The release may be in the trash by now.
            run(&["chmod", "-R", "u+w"], self.site.root());
        }
    }
}

fn run(command: &[&str], path: &Path) -> bool {
    let mut child = Command::new(command[0]);
    let output = child.args(&command[1..]).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_release_that_cannot_be_removed_is_a_warning() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c"]);
    let Some(stubborn) = Stubborn::make(&site, "a") else {
        eprintln!("skipped: root, and chattr +i is not to be had here");
        return;
    };
    put(&site, "d");
    let heard = record(&site).len();
    let reply = ask(&site, "swap d");
    assert_eq!(reply.code, 0, "{reply:?}");
    assert_eq!(reply.stdout, "ok swap d previous=c\n");
    assert_eq!(site.current().as_deref(), Some("d"));
    let lines = &record(&site)[heard..];
    let warned = lines.iter().any(|line| line.contains("warning"));
    assert!(
        warned || !site.releases().contains(&"a".to_owned()),
        "{lines:?}"
    );
    ask(&site, "rollback").ok();

    // The next request removes it as soon as that is possible.
    drop(stubborn);
    live(&site, &["e"]);
    assert!(!site.releases().contains(&"a".to_owned()));
    assert_eq!(site.leftovers(), [] as [PathBuf; 0]);
}
