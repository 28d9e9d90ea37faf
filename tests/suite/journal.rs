//! The journal: what each request writes into it, and what a request does when it is
//! torn, missing, damaged or of a newer version. Manifests of a newer version too.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value;

use crate::direct::{ask, everything, listing, live, payload, put, serve, states};
use crate::receive::fingerprint;
use crate::site::{Reply, Site, sha256};

fn path(site: &Site) -> PathBuf {
    site.root().join(".deploy-shell/journal.jsonl")
}

fn bytes(site: &Site) -> Vec<u8> {
    fs::read(path(site)).expect("a journal")
}

/// The events of what happened, without the intents.
fn completed_events(site: &Site) -> Vec<Value> {
    let mut events = site.journal();
    events.retain(|event| event["event"] != "activating");
    events
}

#[test]
fn every_change_is_an_event() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    for release in ["a", "b", "c"] {
        put(&site, release);
    }
    for request in ["swap a", "swap b", "swap c", "rollback", "swap c"] {
        ask(&site, request).ok();
    }
    live(&site, &["d", "e"]);
    let events: Vec<String> = completed_events(&site)
        .iter()
        .map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("event"), text("release"), text("previous"))
        })
        .collect();
    let expected = [
        "received a -",
        "received b -",
        "received c -",
        "swapped a -",
        "earned a -",
        "swapped b a",
        "earned b -",
        "swapped c b",
        "earned c -",
        "rolled-back b c",
        "swapped c b",
        "received d -",
        "swapped d c",
        "earned d -",
        "received e -",
        "swapped e d",
        "earned e -",
        "pruned a -",
    ];
    assert_eq!(events, expected);
}

#[test]
fn an_event_has_its_time_release_and_author() {
    let site = Site::new();
    site.receive("a", &payload("a")).ok();
    put(&site, "b");
    site.add_key("laptop", Some("swap,rollback"));
    site.ssh("laptop", "swap a").ok();
    site.ssh("ci", "swap b").ok();
    site.ssh("laptop", "rollback").ok();
    let start = Timestamp::now() - jiff::SignedDuration::from_mins(10);
    let mut last = (0, start);
    for event in site.journal() {
        let number = event["seq"].as_u64().expect("a number");
        let text = event["time"].as_str().expect("a time");
        assert!(text.ends_with('Z'), "{text}");
        let time: Timestamp = text.parse().expect("RFC 3339");
        assert!(number > last.0 && time >= last.1, "{event} after {last:?}");
        last = (number, time);
    }
    let events = completed_events(&site);
    let received = &events[0];
    assert_eq!(received["event"], "received");
    assert_eq!(received["sha256"], sha256(&payload("a")).as_str());
    assert_eq!(received["files"], 2);
    assert_eq!(received["bytes"], 14);
    for (event, key) in [(0, "ci"), (2, "laptop"), (3, "ci"), (4, "laptop")] {
        let event = &events[event];
        assert_eq!(event["key"], key, "{event}");
        let print = fingerprint(&site, key);
        assert_eq!(event["fingerprint"], print.as_str(), "{event}");
    }
}

#[test]
fn a_request_that_changes_nothing_writes_no_event() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    put(&site, "c");
    let before = bytes(&site);
    for request in [
        "list",
        "list --json",
        "swap b",
        "swap nowhere",
        "swap a --if-current a",
        "rollback c",
        "rollback nowhere",
        "rollback --if-current a",
        "swap a;b",
    ] {
        ask(&site, request);
        assert!(bytes(&site) == before, "{request}");
    }
    // A retry of a receive, and a payload with another digest.
    put(&site, "c");
    let request = Site::receive_command("d", &payload("d"));
    let reply = site.run(serve(&site, "ci", request), &payload("e"));
    reply.refused(65, "digest-mismatch");
    assert!(bytes(&site) == before);
}

/// A crash during a write leaves part of a line, or a hole.
#[test]
fn a_torn_last_line_is_dropped() {
    for torn in [
        &b"{"[..],
        b"{\"seq\":",
        b"{\"seq\":99,\"time\":\"2026-11-20T15:38:12Z\",\"event\":\"swapped\",\"release\":\"a",
        b"\0",
        &[0; 4096],
        b"\xff\xfe",
    ] {
        let site = Site::new();
        live(&site, &["a", "b"]);
        let whole = bytes(&site);
        fs::write(path(&site), [&whole, torn].concat()).expect("torn");
        let case = torn[..torn.len().min(40)].escape_ascii();
        assert_eq!(states(&site), ["b current", "a previous"], "{case}");
        put(&site, "c");
        let reply = ask(&site, "rollback");
        assert_eq!(reply.ok(), "ok rollback a previous=b\n", "{case}");
        assert!(bytes(&site).starts_with(&whole), "{case}");
        // Panics unless every line is JSON again.
        assert!(site.journal().len() >= 6, "{case}");
        assert_eq!(states(&site), ["a current", "b bad", "c pending"], "{case}");
    }
}

/// The symlink was moved and its record was torn: the symlink is the truth.
#[test]
fn a_swap_with_a_torn_record_has_happened() {
    let probe = Site::new();
    live(&probe, &["a", "b"]);
    let line = bytes(&probe);
    let length = line[..line.len() - 1].rsplit(|&byte| byte == b'\n').next();
    let length = length.map_or(0, <[u8]>::len) + 1;
    for cut in [1, 2, 10, length / 2, length - 1, length] {
        let site = Site::new();
        live(&site, &["a", "b"]);
        let whole = bytes(&site);
        fs::write(path(&site), &whole[..whole.len() - cut]).expect("cut");
        let now = listing(&site);
        assert_eq!(now["current"], "b", "cut by {cut}");
        let reply = ask(&site, "rollback");
        assert_eq!(reply.ok(), "ok rollback a previous=b\n", "cut by {cut}");
        assert_eq!(states(&site), ["a current", "b bad"], "cut by {cut}");
        ask(&site, "rollback").refused(66, "no-such-release");
    }
}

#[test]
fn a_missing_journal_is_made_again_from_the_symlink_and_the_releases() {
    for content in [None, Some(b"")] {
        let site = Site::new();
        live(&site, &["a", "b"]);
        put(&site, "c");
        fs::remove_file(path(&site)).expect("removed");
        if let Some(content) = content {
            fs::write(path(&site), content).expect("emptied");
        }
        let tree = site.snapshot();
        let now = listing(&site);
        assert_eq!(now["current"], "b");
        let rows = now["releases"].as_array().expect("an array");
        assert_eq!(rows.len(), 3, "{now}");
        ask(&site, "rollback").refused(66, "no-such-release");
        assert!(site.snapshot() == tree);

        let reply = ask(&site, "swap a");
        assert_eq!(reply.ok(), "ok swap a previous=b\n");
        assert_eq!(site.releases(), ["a", "b", "c"]);
        let reply = ask(&site, "rollback");
        assert_eq!(reply.ok(), "ok rollback b previous=a\n");
    }
}

/// Damage in the middle cannot be repaired by guessing, so every change is refused.
#[test]
fn a_journal_damaged_in_its_middle_refuses_every_change() {
    let damages: [(&str, &[u8]); 9] = [
        ("prose", b"no event"),
        ("half a line", b"{\"seq\":2,\"time\":\"2026-11"),
        ("an empty object", b"{}"),
        ("an array", b"[]"),
        ("null", b"null"),
        ("zeros", &[0; 64]),
        ("no UTF-8", b"\xff\xfe\xfd"),
        (
            "a wrong number",
            b"{\"seq\":7,\"time\":\"2026-11-20T15:38:12Z\",\"event\":\"swapped\",\"release\":\"a\"}",
        ),
        ("an unsafe release", b"{\"seq\":3,\"time\":\"2026-11-20T15:38:12Z\",\"event\":\"swapped\",\"release\":\"../x\"}"),
    ];
    for (what, damage) in damages {
        let site = Site::new();
        live(&site, &["a", "b", "c"]);
        let whole = bytes(&site);
        let mut lines: Vec<&[u8]> = whole.split(|&byte| byte == b'\n').collect();
        lines[2] = damage;
        fs::write(path(&site), lines.join(&b'\n')).expect("damaged");
        let before = everything(&site);
        for request in ["swap a", "rollback", "rollback a"] {
            let reply = ask(&site, request);
            reply.refused(78, "bad-layout");
            let words = "the journal is damaged: line 3 ";
            assert!(reply.stderr.contains(words), "{what}: {reply:?}");
            assert!(everything(&site) == before, "{request}, {what}");
        }
        let archive = payload("d");
        let request = Site::receive_command("d", &archive);
        let reply = site.run(serve(&site, "ci", request), &archive);
        reply.refused(78, "bad-layout");
        assert!(everything(&site) == before, "receive, {what}");

        // The remedy: restored from a backup, every request works again.
        fs::write(path(&site), &whole).expect("restored");
        assert_eq!(ask(&site, "rollback").ok(), "ok rollback b previous=c\n");
    }
}

/// The other remedy: the next request starts a new journal, and the old one is kept.
#[test]
fn a_damaged_journal_can_be_moved_aside() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let damaged = [&b"prose\n"[..], &bytes(&site)].concat();
    fs::write(path(&site), &damaged).expect("damaged");
    let reply = site.ssh("ci", "rollback");
    reply.refused(78, "bad-layout");
    let aside = format!("{}.damaged", path(&site).display());
    let (_, remedy) = reply.stderr.split_once("a new one: ").expect("a command");
    site.follow(remedy);
    assert_eq!(states(&site), ["b current", "a pending"]);
    ask(&site, "swap a").ok();
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback b previous=a\n");
    assert_eq!(fs::read(&aside).expect("kept"), damaged);
}

/// An intact line that this version does not know is never dropped and never taken for
/// damage, wherever it is.
#[test]
fn a_journal_of_a_newer_version_is_refused_and_kept() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    let whole = bytes(&site);
    let lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    for (line, what) in [
        (
            "{\"format\":3}",
            "has format 3, and this version reads up to format 2",
        ),
        (
            "{\"seq\":99,\"event\":\"adopted\"}",
            "has the event 'adopted'",
        ),
        (
            "{\"event\":\"pruned\",\"colour\":\"x\"}",
            "has the field 'colour'",
        ),
        (
            "{\"event\":\"swapped\",\"how\":\"adopt\"}",
            "has the value of 'how' 'adopt'",
        ),
    ] {
        for at in [0, 4, lines.len()] {
            let line = format!("{line}\n").into_bytes();
            let newer = [lines[..at].concat(), line, lines[at..].concat()].concat();
            fs::write(path(&site), &newer).expect("a newer journal");
            // What a crash left is kept too: it may be of the newer version.
            let debris = site.root().join(".deploy-shell/incoming/newer");
            fs::write(&debris, "").expect("a file");
            let before = everything(&site);
            for request in ["swap a", "rollback", "list"] {
                let reply = if at == lines.len() {
                    site.ssh("ci", request)
                } else {
                    ask(&site, request)
                };
                reply.refused(78, "bad-layout");
                let words = format!("of a newer version of deploy-shell: line {} {what}", at + 1);
                assert!(reply.stderr.contains(&words), "{reply:?}");
                let remedy = "install that version of deploy-shell or a later one, and keep '";
                assert!(reply.stderr.contains(remedy), "{reply:?}");
            }
            site.receive("d", &payload("d")).refused(78, "bad-layout");
            assert!(everything(&site) == before, "{what} at {at}");
            assert_eq!(bytes(&site), newer, "{what} at {at}");
            fs::remove_file(debris).expect("a file");
        }
    }
    // A newer version may say a format that this one reads.
    for format in [1, 2] {
        let line = format!("{{\"format\":{format}}}\n").into_bytes();
        fs::write(path(&site), [line, whole.clone()].concat()).expect("a journal");
        ask(&site, "swap c").ok();
    }
    let reply = site.ssh("ci", "rollback");
    assert_eq!(reply.ok(), "ok rollback b previous=c\n");
}

#[test]
fn a_manifest_of_a_newer_version_is_refused_and_kept() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let path = site.root().join(".deploy-shell/manifests/a");
    let manifest = fs::read_to_string(&path).expect("a manifest");
    let newer = manifest.replacen("# format 2\n", "", 1);
    let newer = newer.replacen("#mtree\n", "#mtree\n# format 3\n", 1);
    fs::write(&path, &newer).expect("a newer manifest");
    let refused = |reply: &Reply| {
        reply.refused(78, "bad-layout");
        let words = "the manifest of 'a' is of a newer version: it has format 3";
        assert!(reply.stderr.contains(words), "{reply:?}");
    };
    refused(&site.ssh("ci", "swap a"));
    refused(&site.ssh("ci", "rollback"));
    refused(&site.receive("a", &payload("a")));
    // Other releases are not concerned.
    assert_eq!(states(&site), ["b current", "a previous"]);
    put(&site, "c");
    ask(&site, "swap c").ok();
    assert_eq!(fs::read_to_string(&path).expect("kept"), newer);
    fs::write(&path, &manifest).expect("a manifest");
    ask(&site, "swap a").ok();
}
