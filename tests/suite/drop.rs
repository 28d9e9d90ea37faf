//! `drop` removes pending and bad releases, and nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use nix::unistd::Uid;

use crate::direct::{ask, live, put, states};
use crate::fields::Fields;
use crate::gating::hook;
use crate::site::{Reply, Site, admin, set_mode};
use crate::strace;

fn command(site: &Site, releases: &[&str]) -> Command {
    let mut command = Command::new(admin());
    command.env_clear().arg("drop").arg("--config");
    command.arg(site.config_path()).args(releases);
    command
}

pub fn drop_releases(site: &Site, releases: &[&str]) -> Reply {
    site.run(command(site, releases), b"")
}

/// A site with a release in each state: `d` is live, `c` the previous one, `b` good, `a`
/// bad, and `p` and `q` were never live.
fn with_every_state() -> Site {
    let fails = hook("before_swap", "[ $DEPLOY_RELEASE != a ]");
    let site = Site::with_config(&fails);
    put(&site, "a");
    ask(&site, "swap a").refused(69, "gate-failed");
    live(&site, &["b", "c", "d"]);
    put(&site, "p");
    put(&site, "q");
    site
}

#[test]
fn pending_and_bad_releases_are_dropped() {
    let site = with_every_state();
    let before = site.audit_lines().len();
    let printed = drop_releases(&site, &["q", "a", "q"]).ok();
    assert_eq!(
        printed,
        "a dropped: it was bad, received from key 'ci'\n\
         q dropped: it was pending, received from key 'ci'\n"
    );
    assert_eq!(
        states(&site),
        ["d current", "c previous", "b good", "p pending"]
    );
    assert!(site.leftovers().is_empty());
    let journal = site.journal();
    for (record, release) in journal[journal.len() - 2..].iter().zip(["a", "q"]) {
        assert_eq!(record["event"], "pruned", "{record}");
        assert_eq!(record["release"], release, "{record}");
    }
    let own = site.root().join(".deploy-shell/manifests");
    assert!(!own.join("q").exists() && !own.join("a").exists());
    // Each removal is in the audit log before it happens and after it.
    let uid = Uid::effective().to_string();
    let lines = site.audit_lines();
    let lines = lines[before..]
        .iter()
        .filter(|it| it.contains("event=\"drop\""));
    let lines: Vec<Fields> = lines.map(|line| Fields::read(line)).collect();
    let expected = [
        ("a", "bad", "begins"),
        ("a", "bad", "ok"),
        ("q", "pending", "begins"),
        ("q", "pending", "ok"),
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, (release, state, outcome)) in lines.iter().zip(expected) {
        line.has(&[
            ("event", "drop"),
            ("site", "blog"),
            ("uid", &uid),
            ("release", release),
            ("state", state),
            ("received_from", "ci"),
            ("outcome", outcome),
        ]);
    }
    // The place is free.
    put(&site, "r");
}

#[test]
fn current_previous_and_good_releases_are_not_dropped() {
    let site = with_every_state();
    let before = (site.snapshot(), site.journal());
    for (release, state) in [("d", "current"), ("c", "previous"), ("b", "good")] {
        // None of those named with it is dropped either.
        let reply = drop_releases(&site, &["p", release]);
        reply.refused(77, "denied");
        let problem = format!("'{release}' is {state}, and nothing was removed\n");
        assert!(reply.stderr.contains(&problem), "{reply:?}");
    }
    drop_releases(&site, &["p", "none"]).refused(66, "no-such-release");
    drop_releases(&site, &["../p"]).refused(64, "bad-request");
    drop_releases(&site, &[]).refused(64, "bad-request");
    assert_eq!((site.snapshot(), site.journal()), before);
}

/// A stolen key may have published releases that passed every check.
#[test]
fn good_releases_are_dropped_on_request_and_the_live_one_never() {
    let site = with_every_state();
    let before = site.snapshot();
    drop_releases(&site, &["--good", "b", "d"]).refused(77, "denied");
    assert_eq!(site.snapshot(), before);
    let printed = drop_releases(&site, &["--good", "b", "c"]).ok();
    assert_eq!(
        printed,
        "b dropped: it was good, received from key 'ci'\n\
         c dropped: it was previous, received from key 'ci'\n"
    );
    let left = ["d current", "q pending", "p pending", "a bad"];
    assert_eq!(states(&site), left);
    ask(&site, "rollback").refused(66, "no-such-release");
}

#[test]
fn without_a_required_audit_log_nothing_is_dropped() {
    let site = with_every_state();
    fs::remove_file(site.dir().join("audit.socket")).expect("the socket");
    let before = (site.snapshot(), site.journal());
    drop_releases(&site, &["p"]).refused(75, "audit-unreachable");
    assert_eq!((site.snapshot(), site.journal()), before);
    let dir = site.dir().display();
    site.configure(&format!(
        "[audit]\nsocket = \"{dir}/audit.socket\"\nrequired = false\n"
    ));
    let reply = drop_releases(&site, &["p"]);
    assert!(reply.stderr.contains("warning: "), "{reply:?}");
    reply.ok();
}

#[test]
fn nothing_is_dropped_while_another_request_changes_the_site() {
    let site = with_every_state();
    let lock = fs::File::open(site.root().join(".deploy-shell/lock")).expect("the lock");
    lock.lock().expect("it is free");
    drop_releases(&site, &["p"]).refused(75, "busy");
    std::mem::drop(lock);
    drop_releases(&site, &["p"]).ok();
}

/// Every file of the site stays the account's, also those that drop makes.
#[test]
fn root_drops_as_the_account() {
    const NOBODY: &str = "65534";
    if !Uid::effective().is_root() {
        println!("skipped: only root becomes another account");
        return;
    }
    let site = with_every_state();
    set_mode(&site.dir().join("audit.socket"), 0o666);
    let own = site.root().join(".deploy-shell");
    fs::remove_file(own.join("lock")).expect("the lock");
    site.give_to(NOBODY);
    drop_releases(&site, &["p"]).ok();
    for entry in fs::read_dir(&own).expect("it exists") {
        let entry = entry.expect("a name");
        let owner = entry.metadata().expect("it exists").uid();
        assert_eq!(owner.to_string(), NOBODY, "{}", entry.path().display());
    }
    assert!(own.join("lock").exists());
}

/// The removal makes the room that the record needs.
#[test]
fn a_release_is_dropped_on_a_disk_without_room_for_the_record() {
    let site = Site::new();
    live(&site, &["a"]);
    put(&site, "p");
    let journal = site.root().join(".deploy-shell/journal.jsonl");
    let path = journal.display().to_string();
    let full = "inject=write:error=ENOSPC";
    let options = ["-f", "-qq", "-o", "/dev/null", "-P", &path, "-e", full];
    let reply = site.run(strace::under(&options, &command(&site, &["p"])), b"");
    assert_eq!(reply.code, 0, "{reply:?}");
    assert!(reply.stdout.starts_with("p dropped: "), "{reply:?}");
    let words = "the next request records the removal";
    assert!(reply.stderr.contains(words), "{reply:?}");
    assert_eq!(site.releases(), ["a"]);
    assert_ne!(site.journal().last().expect("a record")["event"], "pruned");
    ask(&site, "swap a").ok();
    let records = site.journal();
    let last = records.last().expect("a record");
    assert_eq!(
        (&last["event"], &last["release"]),
        (&"pruned".into(), &"p".into())
    );
}
