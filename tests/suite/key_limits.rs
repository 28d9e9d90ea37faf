//! The limits of each key on requests, uploads and pending releases. A key that has used
//! up its share is refused, and every other key is served.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::PathBuf;

use crate::archive::tarball;
use crate::direct::live;
use crate::process::{Upload, eventually, serving};
use crate::receive::{no_debris, noise};
use crate::site::{BIN, Reply, Site, children, generate_key};

fn payload(release: &str) -> Vec<u8> {
    tarball(&[("id", release.as_bytes())])
}

fn receive_as(site: &Site, key: &str, release: &str) -> Reply {
    let payload = payload(release);
    site.ssh_with_input(key, &Site::receive_command(release, &payload), &payload)
}

/// A site with these settings and the keys `ci`, `b` and `c`.
fn with_keys(config: &str) -> Site {
    let site = Site::with_config(config);
    site.add_key("b", None);
    site.add_key("c", None);
    site
}

fn counter(site: &Site, name: &str) -> PathBuf {
    site.root().join(".deploy-shell/limits").join(name)
}

/// Makes every time of a counter this many minutes older; younger, if negative.
fn age_the_counter(site: &Site, name: &str, minutes: i64) {
    let path = counter(site, name);
    let text = fs::read_to_string(&path).expect("the counter");
    let older = text.lines().map(|line| {
        let time: jiff::Timestamp = line.parse().expect("RFC 3339");
        format!("{}\n", time - jiff::SignedDuration::from_mins(minutes))
    });
    fs::write(&path, older.collect::<String>()).expect("the counter");
}

#[track_caller]
fn rate_limited(reply: &Reply, words: &str, setting: &str) {
    reply.refused(75, "rate-limited");
    assert!(reply.stderr.contains(words), "{}", reply.stderr);
    let remedy = reply.stderr.lines().nth(1).expect("a remedy");
    assert!(remedy.starts_with("wait "), "{remedy}");
    assert!(remedy.contains(setting), "{remedy}");
}

#[test]
fn receives_of_the_last_hour_are_counted_for_each_key() {
    let site = with_keys("[limits]\nreceives_per_hour = 2\n");
    receive_as(&site, "ci", "r1").ok();
    // Neither a failed receive nor a retry counts.
    let request = Site::receive_command("bad", b"other bytes");
    site.ssh_with_input("ci", &request, &payload("bad"))
        .refused(65, "digest-mismatch");
    receive_as(&site, "ci", "r1").ok();
    receive_as(&site, "ci", "r2").ok();
    let before = site.snapshot();
    let reply = receive_as(&site, "ci", "r3");
    let words = "too many releases within one hour: 2 of 2, by key 'ci'";
    rate_limited(&reply, words, "receives_per_hour");
    assert_eq!(site.snapshot(), before);
    // A retry changes nothing, and another key has its own count.
    receive_as(&site, "ci", "r2").ok();
    receive_as(&site, "b", "r3").ok();

    site.age_journal(jiff::SignedDuration::from_mins(61));
    receive_as(&site, "ci", "r4").ok();
    receive_as(&site, "ci", "r5").ok();
    rate_limited(&receive_as(&site, "ci", "r6"), words, "receives_per_hour");
}

#[test]
fn failed_and_repeated_receives_count_as_attempts() {
    let site = with_keys("[limits]\nattempts_per_hour = 4\n");
    receive_as(&site, "ci", "r1").ok();
    receive_as(&site, "ci", "r1").ok();
    let wrong = Site::receive_command("bad", b"other bytes");
    site.ssh_with_input("ci", &wrong, &payload("bad"))
        .refused(65, "digest-mismatch");
    let other = Site::receive_command("r1", b"other bytes");
    site.ssh_with_input("ci", &other, b"")
        .refused(73, "release-exists");
    let words = "too many receive requests within one hour: 4 of 4, by key 'ci'";
    for release in ["r1", "r2"] {
        rate_limited(
            &receive_as(&site, "ci", release),
            words,
            "attempts_per_hour",
        );
    }
    // Other verbs and other keys are served.
    site.ssh("ci", "swap r1").ok();
    receive_as(&site, "b", "r2").ok();
    // Refused requests did not count.
    age_the_counter(&site, "key-ci.attempts", 61);
    receive_as(&site, "ci", "r3").ok();
}

#[test]
fn swaps_and_rollbacks_of_the_last_minute_are_counted_for_each_key() {
    let site = with_keys("[limits]\nswaps_per_minute = 4\n");
    for release in ["r1", "r2"] {
        receive_as(&site, "ci", release).ok();
    }
    site.ssh("ci", "swap r1").ok();
    site.ssh("ci", "swap r2").ok();
    // Those that change nothing and those that fail count too.
    site.ssh("ci", "swap r2").ok();
    site.ssh("ci", "swap none").refused(66, "no-such-release");
    let words = "too many swaps and rollbacks within one minute: 4 of 4, by key 'ci'";
    for request in ["swap r1", "rollback"] {
        rate_limited(&site.ssh("ci", request), words, "swaps_per_minute");
    }
    assert_eq!(site.current().as_deref(), Some("r2"));
    assert!(
        site.ssh("b", "rollback")
            .ok()
            .starts_with("ok rollback r1 ")
    );
    age_the_counter(&site, "key-ci.swaps", 2);
    site.ssh("ci", "swap r2").ok();
}

#[test]
fn a_clock_that_was_ahead_blocks_no_key() {
    let site = Site::with_config("[limits]\nattempts_per_hour = 2\nswaps_per_minute = 2\n");
    live(&site, &["r1", "r2"]);
    receive_as(&site, "ci", "r3").refused(75, "rate-limited");
    site.ssh("ci", "swap r1").refused(75, "rate-limited");
    for name in ["key-ci.attempts", "key-ci.swaps"] {
        age_the_counter(&site, name, -400 * 24 * 60);
    }
    receive_as(&site, "ci", "r3").ok();
    site.ssh("ci", "swap r1").ok();
}

/// The counters are bounded, whatever is in them.
#[test]
fn a_damaged_counter_is_replaced() {
    let site = Site::with_config("[limits]\nswaps_per_minute = 3\n");
    receive_as(&site, "ci", "r1").ok();
    site.ssh("ci", "swap r1").ok();
    let path = counter(&site, "key-ci.swaps");
    fs::write(&path, noise(100_000)).expect("the counter");
    site.ssh("ci", "swap r1").ok();
    let length = fs::metadata(&path).expect("the counter").len();
    assert_eq!(length, 21, "one line");
}

#[test]
fn keys_without_a_label_count_as_one() {
    let site = with_keys("[limits]\nswaps_per_minute = 1\n");
    for name in ["one", "two"] {
        let public = generate_key(&site.dir().join(format!("key-{name}")));
        let config = site.config_path().display();
        let line = format!("restrict,command=\"{BIN} serve --config {config}\" {public}");
        let path = site.dir().join("authorized_keys");
        let keys = fs::read_to_string(&path).expect("the keys");
        fs::write(&path, keys + &line).expect("the keys");
    }
    receive_as(&site, "ci", "r1").ok();
    site.ssh("one", "swap r1").ok();
    let words = "by keys without a label";
    rate_limited(&site.ssh("two", "swap r1"), words, "swaps_per_minute");
    site.ssh("ci", "swap r1").ok();
}

/// Starts an upload that holds its slot until its client ends. Its files do not change any
/// more: it waits for its payload.
fn stalled(site: &Site, key: &str, release: &str) -> Upload {
    let held = locked_slots(site);
    let request = Site::receive_command(release, &payload(release));
    let upload = Upload::start_as(site, key, &request);
    eventually("the upload has its slot", || locked_slots(site) > held);
    let tree = |directory: PathBuf| {
        let name = directory.file_name().unwrap_or_default();
        let is_own = name.to_string_lossy().starts_with(&format!("{release}."));
        is_own && directory.join("tree").is_dir()
    };
    eventually("the upload has its directory", || {
        let incoming = site.root().join(".deploy-shell/incoming");
        children(&incoming).into_iter().any(tree)
    });
    upload
}

/// Returns how many slots of the site are in use, by proc_locks(5). Trying to lock them
/// could get in the way of a server.
fn locked_slots(site: &Site) -> usize {
    let own = site.root().join(".deploy-shell/limits");
    let locks = fs::read_to_string("/proc/locks").expect("the locks");
    let is_locked = |inode: u64| {
        let place = format!(":{inode} ");
        locks
            .lines()
            .any(|line| line.contains("FLOCK") && line.contains(&place))
    };
    let entries = fs::read_dir(own).into_iter().flatten();
    let entries = entries.map(|entry| entry.expect("a name"));
    let of_site = entries.filter(|entry| entry.file_name().as_bytes().starts_with(b"site."));
    of_site.filter(|entry| is_locked(entry.ino())).count()
}

#[test]
fn a_key_that_fills_its_upload_slots_stops_no_other_key() {
    let site = with_keys("[limits]\nuploads = 3\nuploads_per_key = 2\n");
    let one = stalled(&site, "ci", "r1");
    let two = stalled(&site, "ci", "r2");
    let before = site.snapshot();
    let reply = receive_as(&site, "ci", "r3");
    reply.refused(75, "busy");
    let words = "too many uploads at the same time: 2 by key 'ci'\n";
    assert!(reply.stderr.contains(words), "{}", reply.stderr);
    assert_eq!(site.snapshot(), before);
    // Another key is served, and holds the last slot of the site.
    receive_as(&site, "b", "r3").ok();
    let three = stalled(&site, "b", "r4");
    let reply = receive_as(&site, "c", "r5");
    reply.refused(75, "busy");
    let words = "too many uploads at the same time: 3 of all keys\n";
    assert!(reply.stderr.contains(words), "{}", reply.stderr);
    // A retry needs no slot.
    receive_as(&site, "c", "r3").ok();
    // A slot is free once the process that held it has ended, in whatever way.
    for upload in [one, two, three] {
        upload.kill();
    }
    eventually("every server ends", || serving(&site).is_empty());
    receive_as(&site, "ci", "r5").ok();
    no_debris(&site);
}

#[test]
fn the_default_limits_of_uploads_hold() {
    // The keys are named, so that the harness does not raise them.
    let site = with_keys("[limits]\nuploads = 4\nuploads_per_key = 2\n");
    let uploads = [("ci", "r1"), ("ci", "r2"), ("b", "r3"), ("b", "r4")];
    let uploads = uploads.map(|(key, release)| stalled(&site, key, release));
    receive_as(&site, "c", "r5").refused(75, "busy");
    for upload in uploads {
        upload.kill();
    }
}

#[test]
fn pending_releases_of_a_key_leave_places_to_others() {
    let site = with_keys("[pending]\nmax = 3\nmax_per_key = 2\n");
    receive_as(&site, "ci", "r1").ok();
    receive_as(&site, "ci", "r2").ok();
    let before = site.snapshot();
    let reply = receive_as(&site, "ci", "r3");
    reply.refused(75, "busy");
    let words = "too many pending releases of key 'ci', which were never live: 2 of 2\n";
    assert!(reply.stderr.contains(words), "{}", reply.stderr);
    // No remedy publishes what an attacker may have sent.
    assert!(!reply.stderr.contains("swap"), "{}", reply.stderr);
    assert_eq!(site.snapshot(), before);
    receive_as(&site, "b", "r3").ok();
    let reply = receive_as(&site, "b", "r4");
    reply.refused(75, "busy");
    let words = "too many pending releases, which were never live: 3 of 3\n";
    assert!(reply.stderr.contains(words), "{}", reply.stderr);
    // The journal says whose they are, so the count survives.
    assert_eq!(site.journal()[0]["key"], "ci");
    site.ssh("b", "swap r1").ok();
    receive_as(&site, "ci", "r4").ok();
    site.age_journal(jiff::SignedDuration::from_hours(8 * 24));
    receive_as(&site, "ci", "r5").ok();
}

/// Another key fails each deploy by a swap in between, so each leaves its release pending,
/// under the label of its owner.
#[test]
fn failed_deploys_block_no_key_for_longer_than_ten_minutes() {
    let site = with_keys("[pending]\nmax = 6\nmax_per_key = 3\n");
    live(&site, &["good", "other"]);
    for release in ["f1", "f2", "f3"] {
        receive_as(&site, "ci", release).ok();
        site.ssh("b", "swap good").ok();
        site.ssh("ci", &format!("swap {release} --if-current other"))
            .refused(75, "not-current");
        site.ssh("b", "swap other").ok();
    }
    for release in ["e1", "e2", "e3"] {
        receive_as(&site, "b", release).ok();
    }
    let wait = "wait at most 10 minutes, ";
    for key in ["ci", "c"] {
        let reply = receive_as(&site, key, "f4");
        reply.refused(75, "busy");
        assert!(reply.stderr.contains(wait), "{}", reply.stderr);
    }
    age(&site);
    let before = site.snapshot();
    // A request that is refused removes nothing.
    let request = Site::receive_command("f4", b"other bytes");
    site.ssh_with_input("ci", &request, &payload("f4"))
        .refused(65, "digest-mismatch");
    assert_eq!(site.snapshot(), before);
    receive_as(&site, "ci", "f4").ok();
    assert!(site.releases().contains(&"f1".to_owned()));
    // A key without any takes as many of the places as the others have then.
    receive_as(&site, "c", "n1").ok();
    receive_as(&site, "c", "n2").ok();
    receive_as(&site, "c", "n3").refused(75, "busy");
    let kept = ["e2", "e3", "f3", "f4", "good", "n1", "n2", "other"];
    assert_eq!(site.releases(), kept);
    let removed = site.removal_lines();
    assert_eq!(removed.len(), 3, "{removed:?}");
    for (line, release) in removed.iter().zip(["f1", "f2", "e1"]) {
        assert!(line.contains(&format!("release=\"{release}\"")), "{line}");
    }
}

/// Two releases of the key may be too many until a later request removes them, and no more.
#[test]
fn old_pending_releases_do_not_count_for_an_upload() {
    let site = with_keys("[pending]\nmax_per_key = 2\n");
    for release in ["r1", "r2"] {
        receive_as(&site, "ci", release).ok();
    }
    age(&site);
    let uploads = ["r3", "r4", "r5"].map(|release| {
        let payload = payload(release);
        let upload = Upload::taken_up(&site, &Site::receive_command(release, &payload));
        (upload, payload)
    });
    let codes = uploads.map(|(mut upload, payload)| {
        upload.send(&payload);
        upload.finish().code
    });
    assert_eq!(codes, [0, 0, 75]);
    assert_eq!(site.releases(), ["r1", "r2", "r3", "r4"]);
    // A repeated request removes no release that it names.
    let again = receive_as(&site, "ci", "r1").ok();
    assert!(again.contains("already received"), "{again}");
    assert_eq!(site.releases(), ["r1", "r3", "r4"]);
    receive_as(&site, "ci", "r6").refused(75, "busy");
    assert_eq!(site.releases(), ["r3", "r4"]);
    no_debris(&site);
}

/// A `receive` does not wait for the lock to remove them, so where hooks hold it, the swaps do.
#[test]
fn a_swap_removes_pending_releases_that_are_too_many() {
    let site = with_keys("[pending]\nmax_per_key = 2\n");
    live(&site, &["one", "two"]);
    for release in ["r1", "r2"] {
        receive_as(&site, "ci", release).ok();
    }
    age(&site);
    receive_as(&site, "ci", "r3").ok();
    assert_eq!(site.releases(), ["one", "r1", "r2", "r3", "two"]);
    let reply = site.ssh("b", "swap one").ok();
    assert_eq!(reply, "ok swap one previous=two pruned=r1\n");
    assert_eq!(site.removal_lines().len(), 1);
    // Two are not too many, however old they are.
    let reply = site.ssh("b", "swap two").ok();
    assert_eq!(reply, "ok swap two previous=one\n");
}

/// Makes what was received ten minutes older.
fn age(site: &Site) {
    site.age_journal(jiff::SignedDuration::from_mins(10));
}
