//! `floor`: no release from before it becomes live.

use std::fs;

use super::{SIGNED, put_signed, reconfigure, refused, site_with};
use crate::direct::{ask, listing, put};
use crate::signing::key;
use crate::site::Site;

#[test]
fn no_release_from_before_the_floor_becomes_live() {
    let site = Site::with_config("keep = 50\n");
    for release in ["a", "b", "c", "d"] {
        put(&site, release);
        ask(&site, &format!("swap {release}")).ok();
    }
    put(&site, "0-last");
    reconfigure(&site, "keep = 50", "keep = 50\nfloor = \"c\"");
    for request in ["swap a", "swap b", "rollback b"] {
        refused(&site, request, 77, "denied", "came before 'c'");
    }
    assert_eq!(listing(&site)["previous"], "c");
    ask(&site, "rollback").ok();
    assert_eq!(site.current().as_deref(), Some("c"));
    refused(
        &site,
        "rollback",
        66,
        "no-such-release",
        "no release before",
    );
    assert!(listing(&site)["previous"].is_null());
    ask(&site, "swap 0-last").ok();
    // A floor that the site never received stops every release except the live one.
    reconfigure(&site, "\"c\"", "\"cc\"");
    for request in ["swap d", "swap a", "rollback", "rollback c"] {
        refused(&site, request, 78, "bad-config", "'cc' was never received");
    }
    assert!(ask(&site, "swap 0-last").ok().contains("unchanged"));
    put(&site, "cc");
    ask(&site, "swap cc").ok();
    reconfigure(&site, "\"cc\"", "\"\"");
    ask(&site, "swap a").ok();
}

#[test]
fn a_pruned_release_that_is_received_again_keeps_its_age() {
    let alice = key("ed25519/alice");
    let top = "keep = 0\nmin_age = \"0s\"\nfloor = \"b\"\n";
    let site = site_with(top, SIGNED, &[&alice]);
    for release in ["a", "b", "c", "d"] {
        put_signed(&site, release, &[&alice]);
    }
    refused(&site, "swap a", 77, "denied", "came before 'b'");
    fs::remove_dir_all(site.root().join("releases/a")).expect("it is there");
    ask(&site, "swap c").ok();
    ask(&site, "swap d").ok();
    // The release of the floor itself may be pruned too.
    fs::remove_dir_all(site.root().join("releases/b")).expect("it is there");
    ask(&site, "swap c").ok();
    put_signed(&site, "a", &[&alice]);
    refused(&site, "swap a", 77, "denied", "came before 'b'");
    put_signed(&site, "b", &[&alice]);
    ask(&site, "swap b").ok();
}
