//! No kill takes a removal, or a release that is live, off the record: the next request
//! writes the line that the killed one owes.

use std::fs;

use crate::direct::{ask, live, payload, put, record, serve};
use crate::fields::Fields;
use crate::site::{Reply, Site};
use crate::strace;

/// The system calls between which a change may be half done.
const CALLS: [&str; 7] = [
    "renameat",
    "renameat2",
    "unlinkat",
    "fsync",
    "fdatasync",
    "write",
    "sendto",
];

/// Runs a request, and kills it at the given call with this number.
fn killed(site: &Site, request: &str, stdin: &[u8], call: &str, number: u32) -> Reply {
    let inject = format!("inject={call}:signal=KILL:when={number}");
    let options = ["-qq", "-o", "/dev/null", "-e", &inject];
    site.run(strace::under(&options, &serve(site, "ci", request)), stdin)
}

/// Sends a request with another key, which completes what a killed one has left.
fn complete(site: &Site, request: &str) {
    site.run(serve(site, "other", request), b"").ok();
}

/// Returns the lines of these releases with this event.
fn lines_of(lines: &[Fields], event: &str, release: &str) -> usize {
    let is_of =
        |line: &&Fields| line.get("event") == Some(event) && line.get("release") == Some(release);
    lines.iter().filter(is_of).count()
}

/// Requires a line for each release that was received and is not there, at most twice.
#[track_caller]
fn each_removal_has_a_line(site: &Site, received: &[String]) {
    let lines: Vec<Fields> = record(site).iter().map(|line| Fields::read(line)).collect();
    let present = site.releases();
    let mut removed = 0;
    for release in received {
        let count = lines_of(&lines, "pruned", release);
        let expected = if present.contains(release) {
            0..=0
        } else {
            1..=2
        };
        assert!(expected.contains(&count), "'{release}': {count} lines");
        removed += usize::from(count > 0);
    }
    assert!(removed > 10, "{removed}");
}

/// Returns whether the journal has this event of the release.
fn has_record(site: &Site, event: &str, release: &str) -> bool {
    let lines = site.journal_lines();
    let mut records = lines.iter();
    records.any(|record| record["event"] == event && record["release"] == release)
}

#[test]
fn each_removal_by_a_swap_that_is_killed_has_a_line() {
    let site = Site::with_config(
        "keep = 1\nmin_age = \"0s\"\n[pending]\nmax = 1000\n[limits]\nreceives_per_hour = 10000\n",
    );
    let mut received: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    live(&site, &["a", "b", "c"]);
    let (mut kills, mut recovered) = (0, 0);
    for call in CALLS {
        // Terminates: a call that the swap does not reach kills nothing.
        for number in 1.. {
            let release = format!("{call}-{number}");
            put(&site, &release);
            received.push(release.clone());
            let swap = format!("swap {release}");
            let reply = killed(&site, &swap, b"", call, number);
            let is_done = has_record(&site, "swapped", &release);
            let is_live = site.current().as_deref() == Some(&release);
            complete(&site, &swap);
            if reply.code == 0 {
                break;
            }
            assert_eq!(reply.code, -1, "{call} {number}: {reply:?}");
            kills += 1;
            let lines = record(&site);
            let mut lines = lines.iter().map(|line| Fields::read(line));
            let line = lines.find(|line| {
                line.get("event") == Some("recovered") && line.get("release") == Some(&release)
            });
            if is_live && !is_done {
                recovered += 1;
                line.expect("a line for the release that is live").has(&[
                    ("key", "other"),
                    ("change", "swapped"),
                    ("by", "ci"),
                    ("found", "interrupted"),
                ]);
            } else {
                assert!(line.is_none(), "{call} {number}: {line:?}");
            }
        }
    }
    assert!(kills > 20 && recovered > 0, "{kills} {recovered}");
    each_removal_has_a_line(&site, &received);
}

#[test]
fn each_removal_by_a_receive_that_is_killed_has_a_line() {
    let site = Site::with_config(
        "[pending]\nmax = 1000\nmax_age = \"1h\"\n[limits]\nreceives_per_hour = 10000\n",
    );
    let mut received = Vec::new();
    live(&site, &["live"]);
    let mut kills = 0;
    for call in ["renameat", "renameat2", "unlinkat", "fdatasync", "sendto"] {
        // Terminates: a call that the receive does not reach kills nothing.
        for number in 1.. {
            let releases = ["old", "new"].map(|age| format!("{age}-{call}-{number}"));
            let [old, new] = releases;
            put(&site, &old);
            site.age_journal(jiff::SignedDuration::from_mins(61));
            let payload = payload(&new);
            let request = Site::receive_command(&new, &payload);
            let reply = killed(&site, &request, &payload, call, number);
            complete(&site, "swap live");
            received.push(old);
            // A receive that was killed before its rename has sent nothing.
            received.extend(site.releases().contains(&new).then_some(new));
            if reply.code == 0 {
                break;
            }
            assert_eq!(reply.code, -1, "{call} {number}: {reply:?}");
            kills += 1;
        }
    }
    assert!(kills > 10, "{kills}");
    each_removal_has_a_line(&site, &received);
}

/// The journal alone would show what another program has done.
#[test]
fn a_change_by_another_program_has_a_line() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    fs::remove_dir_all(site.root().join("releases/a")).expect("it is removed");
    let current = site.root().join("current");
    fs::remove_file(&current).expect("it is removed");
    std::os::unix::fs::symlink("releases/b", &current).expect("a symlink");
    ask(&site, "swap b").ok();
    let lines = record(&site);
    let [_, removed, moved, _] = &lines[lines.len() - 4..] else {
        panic!("{lines:?}");
    };
    let found = ("found", "unrecorded");
    Fields::read(removed).has(&[("event", "pruned"), ("release", "a"), found]);
    let moved = Fields::read(moved);
    moved.has(&[("event", "recovered"), ("change", "reconciled"), found]);
    moved.has(&[("release", "b"), ("previous", "c"), ("key", "ci")]);
    assert_eq!(moved.get("by"), None);
    // Each once.
    ask(&site, "swap b").ok();
    assert_eq!(record(&site).len(), lines.len() + 2);
}

/// A removal that cannot be reported is left to the next request, which reports it.
#[test]
fn a_removal_without_its_required_line_is_not_completed() {
    let config = "keep = 1\nmin_age = \"0s\"\n";
    let site = Site::with_config(config);
    live(&site, &["a", "b", "c"]);
    put(&site, "d");
    // Every line from the second on fails. The filter of the program knows getpid(2).
    let inject = "inject=connect:error=ECONNREFUSED:syscall=getpid:when=2+";
    let options = ["-qq", "-o", "/dev/null", "-e", inject];
    let swap = strace::under(&options, &serve(&site, "ci", "swap d"));
    let reply = site.run(swap, b"");
    assert_eq!(reply.code, 0, "{reply:?}");
    assert!(
        reply.stderr.contains("the removal of 'a' is not complete"),
        "{reply:?}"
    );
    assert!(!has_record(&site, "pruned", "a"));
    // Nor by a request that cannot report it either.
    let before = site.leftovers();
    let swap = strace::under(&options, &serve(&site, "ci", "swap d"));
    site.run(swap, b"").refused(75, "audit-unreachable");
    assert_eq!(site.leftovers(), before);
    assert!(site.root().join(".deploy-shell/manifests/a").exists());
    ask(&site, "swap d").ok();
    let lines = record(&site);
    let removed = Fields::read(&lines[lines.len() - 2]);
    removed.has(&[
        ("event", "pruned"),
        ("release", "a"),
        ("found", "interrupted"),
    ]);
    assert_eq!(site.leftovers(), [] as [std::path::PathBuf; 0]);
}
