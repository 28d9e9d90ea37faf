//! `receive --commit`: the journal, the log and `list` show the commit, also after a
//! checkpoint.

use serde_json::Value;

use crate::checkpoint::lengthen;
use crate::direct::{ask, listing, payload};
use crate::fields::Fields;
use crate::site::{Site, sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn receive(site: &Site, release: &str, commit: &str) -> String {
    let payload = payload(release);
    let request = format!(
        "receive {release} --sha256 {} --commit {commit}",
        sha256(&payload)
    );
    site.ssh_with_input("ci", &request, &payload).ok()
}

fn row(site: &Site, release: &str) -> Value {
    let object = listing(site);
    let rows = object["releases"].as_array().expect("an array");
    let row = rows.iter().find(|row| row["release"] == release);
    row.expect("a row").clone()
}

#[test]
fn the_journal_the_log_and_list_show_the_commit() {
    let site = Site::new();
    site.receive("a", &payload("a")).ok();
    let head = |site: &Site| ask(site, "list").ok().lines().next().map(str::to_owned);
    assert!(!head(&site).expect("a head").contains("COMMIT"));

    receive(&site, "b", COMMIT);
    let lines = site.audit_lines();
    let result = Fields::read(lines.last().expect("a line"));
    assert_eq!(result.get("event"), Some("result"));
    assert_eq!(result.get("commit"), Some(COMMIT));
    assert_eq!(site.journal().last().expect("a record")["commit"], COMMIT);
    assert_eq!(row(&site, "b")["commit"], COMMIT);
    assert!(row(&site, "a")["commit"].is_null());
    let table = ask(&site, "list").ok();
    let ends: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().next_back().expect("a cell"))
        .collect();
    assert_eq!(ends, ["COMMIT", &COMMIT[..12], "-"]);
}

#[test]
fn a_second_receive_does_not_change_the_commit() {
    let site = Site::new();
    receive(&site, "a", COMMIT);
    let again = receive(&site, "a", "7654321");
    assert!(again.contains("already received"), "{again}");
    assert_eq!(row(&site, "a")["commit"], COMMIT);
}

#[test]
fn a_checkpoint_keeps_the_commit() {
    let site = Site::with_config("[limits]\nreceives_per_hour = 10000\n");
    receive(&site, "a", COMMIT);
    lengthen(&site, "filler");
    ask(&site, "swap a").ok();
    let journal = site.root().join(".deploy-shell/journal.jsonl");
    let journal = std::fs::read_to_string(journal).expect("a journal");
    assert!(journal.contains("{\"checkpoint\":"), "{journal}");
    assert_eq!(row(&site, "a")["commit"], COMMIT);
}
