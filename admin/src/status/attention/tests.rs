//! Each reason for attention, provoked on a site that is otherwise sound.

use jiff::SignedDuration;

use super::*;
use crate::status::site::{Failure, Live};
use deploy_shell::names::ReleaseId;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn config(extra: &str) -> Config {
    let text = format!("root = \"/srv/x\"\n{extra}");
    Config::parse("/etc/deploy-shell/blog.toml".as_ref(), &text).unwrap()
}

fn release(id: &str) -> ReleaseId {
    ReleaseId::try_from(id).unwrap()
}

fn seconds_ago(seconds: i64) -> Timestamp {
    NOW - SignedDuration::from_secs(seconds)
}

fn sound() -> SiteStatus {
    SiteStatus {
        generation: 9,
        live: Some(Live {
            release: release("a"),
            since: Some(seconds_ago(1000)),
            commit: None,
            confirmed: true,
            files: Some(10),
            bytes: Some(1000),
        }),
        was_live: true,
        releases: 2,
        pending: 0,
        used_bytes: 2000,
        available_bytes: 2000,
        available_inodes: Some(20),
        last_failure: None,
        last_key_use: None,
    }
}

/// Returns the reasons of the sound site after a change.
#[track_caller]
fn reasons(extra: &str, change: impl FnOnce(&mut SiteStatus)) -> Vec<&'static str> {
    let mut status = sound();
    change(&mut status);
    let found = find(&config(extra), &status, NOW);
    for attention in &found {
        assert!(attention.remedy.is_some(), "{attention:?}");
    }
    found
        .iter()
        .map(|attention| attention.reason.name())
        .collect()
}

#[test]
fn a_sound_site_needs_none() {
    assert_eq!(reasons("", |_| {}), [""; 0]);
    // Before the first deploy.
    let new = |status: &mut SiteStatus| (status.live, status.was_live) = (None, false);
    assert_eq!(reasons("", new), [""; 0]);
}

#[test]
fn a_site_without_a_live_release_that_had_one_needs_it() {
    assert_eq!(reasons("", |status| status.live = None), ["nothing-live"]);
}

#[test]
fn a_failure_needs_it_until_it_is_resolved() {
    let failed = |unresolved| {
        move |status: &mut SiteStatus| {
            status.last_failure = Some(Failure {
                time: seconds_ago(5),
                release: release("b"),
                key: None,
                unresolved,
            });
        }
    };
    assert_eq!(reasons("", failed(true)), ["gate-failed"]);
    assert_eq!(reasons("", failed(false)), [""; 0]);
}

#[test]
fn a_release_is_unconfirmed_once_its_checks_cannot_run_any_more() {
    let checks = "[[hooks.after_swap]]\ncommand = [\"/bin/true\"]\ntimeout = \"5m\"\n\
                  [health]\ncommand = [\"/bin/true\"]\ntimeout = \"2m\"\n";
    let unconfirmed = |since: Option<i64>| {
        move |status: &mut SiteStatus| {
            let live = status.live.as_mut().unwrap();
            live.confirmed = false;
            live.since = since.map(seconds_ago);
        }
    };
    assert_eq!(reasons(checks, unconfirmed(Some(480))), [""; 0]);
    assert_eq!(reasons(checks, unconfirmed(Some(481))), ["unconfirmed"]);
    assert_eq!(reasons("", unconfirmed(Some(61))), ["unconfirmed"]);
    assert_eq!(reasons("", unconfirmed(None)), ["unconfirmed"]);
}

#[test]
fn the_disk_is_low_below_two_live_releases() {
    type Change = fn(&mut SiteStatus);
    let cases: [(Change, &str); 4] = [
        (|status| status.available_bytes = 1999, "disk-low"),
        (|status| status.available_inodes = Some(19), "disk-low"),
        (|status| status.available_bytes = 0, "below-reserve"),
        (|status| status.available_inodes = Some(0), "below-reserve"),
    ];
    for (change, reason) in cases {
        assert_eq!(reasons("", change), [reason]);
    }
    // A file system without a table of inodes.
    assert_eq!(
        reasons("", |status| status.available_inodes = None),
        [""; 0]
    );
}

#[test]
fn the_pending_releases_are_counted() {
    let limit = "[pending]\nmax = 3\nmax_per_key = 2\n";
    assert_eq!(reasons(limit, |status| status.pending = 2), [""; 0]);
    assert_eq!(
        reasons(limit, |status| status.pending = 3),
        ["pending-full"]
    );
}

#[test]
fn the_names_are_those_of_the_messages() {
    for reason in Reason::ALL {
        let json = serde_json::to_value(reason).unwrap();
        assert_eq!(json, reason.name());
    }
}
