//! An id is used once: never for other content, also long after its release was removed.

use crate::direct::{ask, everything, live, payload, put, serve, states};
use crate::site::{Reply, Site, sha256};

/// Sends the content of `other` under the id `release`.
fn put_other(site: &Site, release: &str, other: &str) -> Reply {
    let payload = payload(other);
    let request = Site::receive_command(release, &payload);
    site.run(serve(site, "ci", request), &payload)
}

#[test]
fn an_id_is_never_received_with_other_content() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c", "d"]);
    assert_eq!(states(&site), ["d current", "c previous", "b good"]);
    let before = everything(&site);
    let reply = put_other(&site, "a", "other");
    reply.refused(73, "release-exists");
    let received = sha256(&payload("a"));
    let words = format!("'a' was received before, with sha256 {received}");
    assert!(reply.stderr.contains(&words), "{reply:?}");
    assert!(reply.stderr.contains("choose another id"), "{reply:?}");
    assert!(everything(&site) == before);
    // The remedy.
    put_other(&site, "a2", "other").ok();
}

#[test]
fn the_same_content_is_received_again_after_pruning() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c", "d"]);
    put(&site, "a");
    ask(&site, "swap a").ok();
    assert_eq!(site.current().as_deref(), Some("a"));
    put_other(&site, "a", "other").refused(73, "release-exists");
}

/// The operator removes a release; its id stays used.
#[test]
fn an_id_stays_used_after_its_release_was_removed_by_hand() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    let remove = |path: &str| std::fs::remove_dir_all(site.root().join(path));
    remove("releases/a").expect("removed");
    put_other(&site, "a", "other").refused(73, "release-exists");
    put(&site, "a");
}

/// The same changes give other content with another base, so their digest does not show
/// that a removed release had the same content.
#[test]
fn the_id_of_a_removed_release_takes_no_delta() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c", "d"]);
    let before = everything(&site);
    let (payload, tree) = (payload("a"), sha256(b"a list"));
    let command = Site::receive_command("a", &payload);
    let request = format!("{command} --tree {tree} --base d");
    let reply = site.run(serve(&site, "ci", request), &payload);
    reply.refused(73, "release-exists");
    assert!(reply.stderr.contains("was removed since"), "{reply:?}");
    assert!(everything(&site) == before);
}
