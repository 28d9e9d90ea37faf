//! `deploy-shell-admin history`: one row for each event, from the journal and its old
//! parts.

use std::io::Read;
use std::process::Command;

use serde_json::Value;

use crate::checkpoint::lengthen;
use crate::direct::{ask, live, payload, put};
use crate::gating::hook;
use crate::site::{Reply, Site, admin, sha256};

fn history(site: &Site, options: &[&str]) -> Reply {
    let mut command = Command::new(admin());
    command.env_clear().arg("history").arg("--config");
    command.arg(site.config_path()).args(options);
    site.run(command, b"")
}

fn events(site: &Site) -> Vec<Value> {
    let text = history(site, &["--json"]).ok();
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["site"], "blog");
    document["events"].as_array().expect("an array").clone()
}

/// Returns the event, the release and the result of the checks of each row.
fn short(events: &[Value]) -> Vec<(&str, &str, &str)> {
    fn text(value: &Value) -> &str {
        value.as_str().unwrap_or("-")
    }
    let row = |row| {
        let at = |field: &str| text(Value::get(row, field).expect("a field"));
        (at("event"), at("release"), at("gate"))
    };
    events.iter().map(row).collect()
}

#[test]
fn every_event_has_a_row_with_the_result_of_its_checks() {
    let site = Site::with_config(&hook("after_swap", "[ $DEPLOY_RELEASE != b ]"));
    live(&site, &["a"]);
    put(&site, "b");
    ask(&site, "swap b").refused(69, "gate-failed");
    let events = events(&site);
    assert_eq!(
        short(&events),
        [
            ("received", "a", "-"),
            ("swapped", "a", "passed"),
            ("received", "b", "-"),
            ("swapped", "b", "failed"),
            ("returned", "a", "passed"),
        ]
    );
    for event in &events {
        assert_eq!(event["key"], "ci", "{event}");
        assert!(event["ms"].is_u64(), "{event}");
        assert!(event["sha256"].is_string(), "{event}");
    }
    let table = history(&site, &[]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 1 + events.len(), "{table}");
    assert!(lines[0].starts_with("TIME"), "{table}");
    assert!(
        lines[2].contains("  swapped ") && lines[2].ends_with("passed"),
        "{table}"
    );
}

#[test]
fn the_old_parts_are_read_and_no_record_counts_twice() {
    let site = Site::with_config("[limits]\nreceives_per_hour = 10000\n");
    let payload = payload("a");
    let request = format!("receive a --sha256 {} --commit 0123abc", sha256(&payload));
    site.ssh_with_input("ci", &request, &payload).ok();
    for turn in ["x", "y"] {
        lengthen(&site, turn);
        ask(&site, "swap a").ok();
    }
    let journal = std::fs::read_to_string(site.root().join(".deploy-shell/journal.jsonl"));
    assert!(
        !journal
            .expect("a journal")
            .contains("\"event\":\"received\"")
    );
    let events = events(&site);
    let numbers: Vec<_> = events.iter().map(|event| event["seq"].as_u64()).collect();
    assert!(
        numbers.is_sorted_by(|one, other| one < other),
        "{numbers:?}"
    );
    let of_a: Vec<_> = events
        .iter()
        .filter(|event| event["release"] == "a")
        .collect();
    assert_eq!(of_a[0]["event"], "received");
    assert_eq!(of_a[1]["event"], "swapped");
    assert!(
        of_a.iter().all(|event| event["commit"] == "0123abc"),
        "{of_a:?}"
    );
    // `lengthen` has received ten ids in each turn.
    let received = events.iter().filter(|event| event["event"] == "received");
    assert_eq!(received.count(), 1 + 20);
}

#[test]
fn since_leaves_out_older_events() {
    let site = Site::new();
    live(&site, &["a"]);
    site.age_journal(jiff::SignedDuration::from_hours(48));
    put(&site, "b");
    let table = history(&site, &["--since", "1d"]).ok();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("  b  "), "{table}");
    assert_eq!(history(&site, &["--since", "3d"]).ok().lines().count(), 4);
    history(&site, &["--since", "tomorrow"]).refused(64, "bad-request");
}

#[test]
fn a_part_of_a_newer_version_is_refused() {
    let site = Site::new();
    live(&site, &["a"]);
    let line =
        "{\"seq\":1,\"time\":\"2026-04-12T14:20:41Z\",\"event\":\"moved\",\"release\":\"a\"}\n";
    let part = zstd::encode_all(line.as_bytes(), 1).expect("a frame");
    let path = site.root().join(".deploy-shell/journal-1.jsonl.zst");
    std::fs::write(path, part).expect("a part");
    history(&site, &[]).refused(78, "bad-layout");
}

/// A part is a file of the account, and some KiB of it can be a line of gigabytes.
#[test]
fn a_long_line_of_an_old_part_is_not_kept_in_memory() {
    let site = Site::new();
    live(&site, &["a"]);
    let mut part = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    std::io::copy(&mut std::io::repeat(b'x').take(1 << 30), &mut part).expect("memory");
    let path = site.root().join(".deploy-shell/journal-1.jsonl.zst");
    std::fs::write(path, part.finish().expect("a frame")).expect("a part");
    let mut command = Command::new("sh");
    command.env_clear().arg("-c").arg(format!(
        "ulimit -v 700000; exec '{}' history --config '{}'",
        admin().display(),
        site.config_path().display()
    ));
    assert_eq!(site.run(command, b"").ok().lines().count(), 3);
}
