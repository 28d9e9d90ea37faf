//! A clock that was wrong: the order of the records limits their times.

use std::fs;

use jiff::{SignedDuration, Timestamp};

use crate::direct::{ask, listing, payload, put, serve, states};
use crate::site::{Reply, Site};

/// Changes the time of every record by `span`.
fn shift(site: &Site, span: SignedDuration) {
    let mut text = String::new();
    for mut event in site.journal() {
        let time: Timestamp = event["time"]
            .as_str()
            .expect("a time")
            .parse()
            .expect("RFC 3339");
        event["time"] = (time + span).to_string().into();
        text += &format!("{event}\n");
    }
    fs::write(site.root().join(".deploy-shell/journal.jsonl"), text).expect("a journal");
}

fn try_put(site: &Site, release: &str) -> Reply {
    let payload = payload(release);
    let request = Site::receive_command(release, &payload);
    site.run(serve(site, "ci", request), &payload)
}

const AHEAD: SignedDuration = SignedDuration::from_hours(400 * 24);

#[test]
fn a_clock_that_was_ahead_does_not_block_receives() {
    let site = Site::with_config("[limits]\nreceives_per_hour = 3\n");
    for release in ["a", "b", "c"] {
        put(&site, release);
    }
    try_put(&site, "d").refused(75, "rate-limited");
    shift(&site, AHEAD);
    put(&site, "d");
    // Now the earlier ones are known to be not later than this one: they count for one
    // hour, and not for 400 days.
    try_put(&site, "e").refused(75, "rate-limited");
    let start = site.journal();
    let last = start.last().expect("a record")["time"].clone();
    let last: Timestamp = last.as_str().expect("a time").parse().expect("RFC 3339");
    assert!(last <= Timestamp::now());
    // An hour later: only the last record has a time in the past.
    let mut records = start;
    records.last_mut().expect("a record")["time"] =
        (last - SignedDuration::from_mins(61)).to_string().into();
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    fs::write(site.root().join(".deploy-shell/journal.jsonl"), text).expect("a journal");
    put(&site, "e");
}

#[test]
fn pending_releases_age_again_after_a_clock_that_was_ahead() {
    let site = Site::with_config("[pending]\nmax = 2\nmax_age = \"7d\"\n");
    put(&site, "a");
    put(&site, "b");
    shift(&site, AHEAD);
    try_put(&site, "c").refused(75, "busy");
    ask(&site, "swap a").ok();
    // The swap is eight days ago: so is what was received before it.
    let mut records = site.journal();
    let eight_days = SignedDuration::from_hours(8 * 24);
    for record in records.iter_mut().skip(2) {
        record["time"] = (Timestamp::now() - eight_days).to_string().into();
    }
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    fs::write(site.root().join(".deploy-shell/journal.jsonl"), text).expect("a journal");
    for release in ["c", "d"] {
        put(&site, release);
    }
    assert_eq!(states(&site)[0], "a current");
}

/// `list` shows no time after now.
#[test]
fn no_listed_time_is_in_the_future() {
    let site = Site::new();
    put(&site, "a");
    ask(&site, "swap a").ok();
    shift(&site, AHEAD);
    let listing = listing(&site);
    for key in ["received", "last_live"] {
        let time = listing["releases"][0][key].as_str().expect("a time");
        let time: Timestamp = time.parse().expect("RFC 3339");
        assert!(time <= Timestamp::now(), "{key}: {time}");
    }
}
