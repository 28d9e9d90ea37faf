//! What a key that holds `swap` or `rollback` can remove: no release that has earned its
//! place. Each attack here removed good releases of an earlier version.

use jiff::SignedDuration;

use crate::direct::{ask, live, put, record};
use crate::fields::Fields;
use crate::gating::hook;
use crate::site::Site;

/// More than `min_age`, which is ten minutes by default.
const WAIT: SignedDuration = SignedDuration::from_mins(11);

/// Receives each release, makes it live, and lets it be live for longer than `min_age`.
fn deploy(site: &Site, releases: &[&str]) {
    for release in releases {
        live(site, &[release]);
        site.age_journal(WAIT);
    }
}

/// Asserts that these releases exist, and that a swap to each works.
#[track_caller]
fn all_work(site: &Site, releases: &[&str]) {
    let present = site.releases();
    for release in releases {
        assert!(
            present.contains(&(*release).to_owned()),
            "'{release}' is gone: {present:?}"
        );
    }
    for release in releases {
        site.ssh("ci", &format!("swap {release}")).ok();
    }
}

const SEVEN: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

#[test]
fn a_rollback_key_removes_no_release() {
    for deployed_in_haste in [false, true] {
        let site = Site::new();
        site.add_key("leaked", Some("rollback"));
        if deployed_in_haste {
            live(&site, &SEVEN);
        } else {
            deploy(&site, &SEVEN);
        }
        for _ in 0..5 {
            site.ssh("leaked", "rollback").ok();
        }
        site.age_journal(WAIT);
        site.ssh("leaked", "rollback").ok();
        assert_eq!(site.current().as_deref(), Some("a"));
        site.age_journal(WAIT);
        site.ssh("leaked", "rollback")
            .refused(66, "no-such-release");
        assert_eq!(site.releases(), SEVEN);
        all_work(&site, &SEVEN);
    }
}

#[test]
fn a_swap_key_removes_no_good_release_by_swaps_to_bad_and_pending_ones() {
    let (good, bad) = (["a", "b", "c", "d"], ["e", "f", "g", "h"]);
    let pending = ["p", "q", "r", "s"];
    for keep in [2, 5] {
        let site = Site::with_config(&format!("keep = {keep}\n"));
        site.add_key("leaked", Some("swap"));
        deploy(&site, &good);
        for release in bad {
            live(&site, &[release]);
            ask(&site, "rollback").ok();
        }
        for release in pending {
            put(&site, release);
        }
        for release in [bad, pending].concat() {
            site.ssh("leaked", &format!("swap {release}")).ok();
        }
        site.ssh("leaked", "swap d").ok();
        site.age_journal(WAIT);
        for release in ["p", "q", "d"] {
            site.ssh("leaked", &format!("swap {release}")).ok();
        }
        all_work(&site, &good);
    }
}

/// A gate that everything passes earns places at once. They count once in `min_age`.
#[test]
fn places_displace_others_no_faster_than_min_age() {
    let site = Site::with_config(&format!("keep = 1\n{}", hook("after_swap", "exit 0")));
    deploy(&site, &["a", "b", "c"]);
    live(&site, &["p", "q", "r", "s"]);
    for release in ["p", "q", "r", "s"] {
        ask(&site, &format!("swap {release}")).ok();
    }
    all_work(&site, &["a", "b", "c"]);
    site.age_journal(WAIT);
    // Of the four, one counts.
    let reply = ask(&site, "swap s").ok();
    assert_eq!(reply, "ok swap s previous=c pruned=a\n");
    all_work(&site, &["b", "c"]);
}

#[test]
fn keep_for_keeps_by_age_what_has_a_place() {
    let site = Site::with_config("keep = 0\nkeep_for = \"2h\"\n");
    deploy(&site, &["a", "b", "c", "d"]);
    assert_eq!(site.releases(), ["a", "b", "c", "d"]);
    site.age_journal(SignedDuration::from_mins(70));
    deploy(&site, &["e"]);
    assert_eq!(site.releases(), ["a", "b", "c", "d", "e"]);
    site.age_journal(SignedDuration::from_mins(25));
    ask(&site, "swap d").ok();
    assert_eq!(site.releases(), ["c", "d", "e"]);
}

#[test]
fn every_removal_is_in_the_reply_and_in_the_audit_log() {
    let site = Site::with_config("keep = 50\nmin_age = \"0s\"\n");
    let id = |number: usize| format!("{number:02}-{}", "x".repeat(60));
    let ids: Vec<String> = (0..12).map(id).collect();
    for id in &ids {
        live(&site, &[id]);
    }
    let config = std::fs::read_to_string(site.config_path()).expect("the configuration");
    let config = config.replace("keep = 50", "keep = 0");
    std::fs::write(site.config_path(), config).expect("the configuration");
    let heard = record(&site).len();
    let reply = ask(&site, &format!("swap {}", ids[10])).ok();
    let mut removed: Vec<&str> = reply
        .trim_end()
        .rsplit_once("pruned=")
        .expect("a field")
        .1
        .split(',')
        .collect();
    removed.sort_unstable();
    assert_eq!(removed, ids[..10]);
    assert_eq!(site.releases(), ids[10..]);
    let lines: Vec<Fields> = record(&site)[heard..]
        .iter()
        .map(|line| Fields::read(line))
        .collect();
    let mut named: Vec<&str> = lines
        .iter()
        .filter(|line| line.get("event") == Some("pruned"))
        .map(|line| line.get("release").expect("a release"))
        .collect();
    named.sort_unstable();
    assert_eq!(named, ids[..10]);
    let result = lines.last().expect("a result");
    result.has(&[("event", "result"), ("outcome", "ok")]);
    assert!(result.get("pruned").is_some_and(|ids| ids.ends_with("...")));
    // A request that removes nothing does not mention it.
    let heard = record(&site).len();
    let reply = ask(&site, &format!("swap {}", ids[11])).ok();
    assert!(!reply.contains("pruned"), "{reply}");
    assert!(
        !record(&site)[heard..]
            .iter()
            .any(|line| line.contains("pruned"))
    );
}

/// A journal of format 1 is read, and its good releases keep their places.
#[test]
fn a_journal_of_format_1_keeps_its_good_releases() {
    let site = Site::with_config("keep = 1\n");
    live(&site, &["a", "b", "c"]);
    site.age_journal(WAIT);
    let path = site.root().join(".deploy-shell/journal.jsonl");
    let text = std::fs::read_to_string(&path).expect("the journal");
    let old: String = text
        .lines()
        .filter(|line| !line.contains("\"format\"") && !line.contains("\"earned\""))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&path, &old).expect("the journal");
    for release in ["p", "q", "r", "s"] {
        live(&site, &[release]);
    }
    let text = std::fs::read_to_string(&path).expect("the journal");
    assert!(
        text.starts_with(&format!("{old}{{\"format\":2}}\n")),
        "{text}"
    );
    all_work(&site, &["a", "b", "c"]);
}
