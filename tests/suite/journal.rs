//! The journal: what each request writes into it, and what happens when it is
//! torn, gone or damaged.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value;

use crate::direct::{ask, everything, listing, live, payload, put, serve, states};
use crate::receive::fingerprint;
use crate::site::{Site, sha256};

fn path(site: &Site) -> PathBuf {
    site.root().join(".deploy-shell/journal.jsonl")
}

fn bytes(site: &Site) -> Vec<u8> {
    fs::read(path(site)).expect("a journal")
}

/// The events that tell what happened; an intent tells only what was meant.
fn done(site: &Site) -> Vec<Value> {
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
    let events: Vec<String> = done(&site)
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
        "swapped b a",
        "swapped c b",
        "rolled-back b c",
        "swapped c b",
        "received d -",
        "swapped d c",
        "pruned a -",
        "received e -",
        "swapped e d",
        "pruned b -",
    ];
    assert_eq!(events, expected);
}

#[test]
fn an_event_says_when_what_and_who() {
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
    let events = done(&site);
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
fn what_changes_nothing_is_no_event() {
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
    // A retry of CI's, and a payload that is not what it was said to be.
    put(&site, "c");
    let request = Site::receive_command("d", &payload("d"));
    let reply = site.run(serve(&site, "ci", request), &payload("e"));
    reply.refused(65, "digest-mismatch");
    assert!(bytes(&site) == before);
}

/// A crash in the middle of a write leaves part of a line, or a hole.
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
        // Every line is JSON again, or this panics.
        assert!(site.journal().len() >= 6, "{case}");
        assert_eq!(states(&site), ["a current", "b bad", "c pending"], "{case}");
    }
}

/// The link was moved, its line was not written whole: the link is the truth.
#[test]
fn a_swap_whose_own_line_was_torn_has_happened() {
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
fn without_a_journal_the_link_and_the_releases_are_left() {
    for content in [None, Some(b"")] {
        let site = Site::new();
        live(&site, &["a", "b"]);
        put(&site, "c");
        fs::remove_file(path(&site)).expect("removed by hand");
        if let Some(content) = content {
            fs::write(path(&site), content).expect("emptied by hand");
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

/// What the journal says in its middle cannot be guessed, so nothing is done
/// on the strength of it.
#[test]
fn a_journal_damaged_in_its_middle_stops_every_change() {
    let damages: [(&str, &[u8]); 8] = [
        ("prose", b"no event"),
        ("half a line", b"{\"seq\":2,\"time\":\"2026-11"),
        ("an empty object", b"{}"),
        ("an array", b"[]"),
        ("null", b"null"),
        ("zeros", &[0; 64]),
        ("no UTF-8", b"\xff\xfe\xfd"),
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
            assert!(
                matches!(reply.code, 74 | 78),
                "{request}, {what}: {reply:?}"
            );
            assert_eq!(reply.stdout, "", "{what}");
            assert!(reply.stderr.contains("journal"), "{what}: {reply:?}");
            assert!(everything(&site) == before, "{request}, {what}");
        }
        let archive = payload("d");
        let request = Site::receive_command("d", &archive);
        let reply = site.run(serve(&site, "ci", request), &archive);
        assert!(matches!(reply.code, 74 | 78), "{what}: {reply:?}");
        assert!(everything(&site) == before, "receive, {what}");

        // Put right by hand, all is well.
        fs::write(path(&site), &whole).expect("mended");
        assert_eq!(ask(&site, "rollback").ok(), "ok rollback b previous=c\n");
    }
}
