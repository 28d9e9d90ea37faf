//! Killed clients and concurrent requests: a release is complete, or it does not
//! exist.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::archive::tarball;
use crate::mode::Mode;
use crate::process::{Upload, eventually, serving};
use crate::receive::{many_files, no_debris, noise, stopped_unpacker};
use crate::site::Site;

/// Waits until no process serves a request.
fn wait_for_servers(site: &Site) {
    eventually("every server ends", || serving(site).is_empty());
}

#[track_caller]
fn nothing_is_left(site: &Site) {
    site.ssh("ci", "list").ok();
    no_debris(site);
}

#[test]
fn a_client_killed_while_sending_leaves_nothing() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        let payload = tarball(&[("noise", &noise(1 << 20))]);
        let empty = site.snapshot();
        let last = payload.len() - 1;
        for (number, sent) in [0, 1, 512, last / 2, last].into_iter().enumerate() {
            let request = mode.command(&format!("r{number}"), &payload);
            let mut upload = Upload::taken_up(&site, &request);
            upload.send(&payload[..sent]);
            upload.kill();
            wait_for_servers(&site);
            assert_eq!(site.releases(), [""; 0], "killed after {sent} bytes");
            nothing_is_left(&site);
            assert_eq!(site.snapshot(), empty, "killed after {sent} bytes");
        }
        mode.receive(&site, "r0", &payload).ok();
    }
}

/// The client sent every byte, but may have ended before the end of file. The server may
/// accept the payload, because the digest is right; then the release is complete.
#[test]
fn a_client_killed_after_the_last_byte_leaves_all_or_nothing() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        let content = noise(1 << 20);
        let payload = tarball(&[("noise", &content)]);
        for number in 0..10 {
            let release = format!("r{number}");
            let mut upload = Upload::taken_up(&site, &mode.command(&release, &payload));
            upload.send(&payload);
            if number % 2 == 1 {
                upload.close();
            }
            upload.kill();
            wait_for_servers(&site);
            if site.releases().contains(&release) {
                let path = site.root().join("releases").join(&release);
                assert!(fs::read(path.join("noise")).expect("the file") == content);
            }
            nothing_is_left(&site);
            mode.receive(&site, &release, &payload).ok();
            site.ssh("ci", &format!("swap {release}")).ok();
        }
    }
}

#[test]
fn a_client_killed_while_unpacking_leaves_all_or_nothing() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        let payload = many_files(3000);
        let (release, upload, child) = stopped_unpacker(mode, &site, &payload);
        upload.kill();
        kill(Pid::from_raw(child.pid), Signal::SIGCONT).expect("it continues");
        wait_for_servers(&site);
        nothing_is_left(&site);
        // In both cases a retry succeeds and the release is complete.
        let reply = mode.receive(&site, &release, &payload).ok();
        assert!(reply.contains(" files=3000 "), "{reply}");
        site.ssh("ci", &format!("swap {release}")).ok();
    }
}

#[test]
fn a_server_killed_while_unpacking_leaves_nothing_after_the_next_start() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        let payload = many_files(3000);
        let (release, upload, child) = stopped_unpacker(mode, &site, &payload);
        kill(Pid::from_raw(child.parent), Signal::SIGKILL).expect("it exists");
        assert_ne!(upload.finish().code, 0);
        // The kernel may have ended it with its parent.
        let _ = kill(Pid::from_raw(child.pid), Signal::SIGCONT);
        let reply = mode.receive(&site, &release, &payload).ok();
        assert!(!reply.contains("already received"), "{reply}");
        wait_for_servers(&site);
        no_debris(&site);
        assert!(site.releases().contains(&release));
    }
}

#[test]
fn concurrent_receives_of_the_same_id_and_content_both_succeed() {
    let site = Site::new();
    let payload = tarball(&[("noise", &noise(300_000))]);
    let request = Site::receive_command("r1", &payload);
    let (head, tail) = payload.split_at(payload.len() / 2);
    let mut one = Upload::taken_up(&site, &request);
    one.send(head);
    let mut two = Upload::taken_up(&site, &request);
    two.send(head);
    one.send(tail);
    two.send(tail);
    one.close();
    two.close();
    let mut replies = [one.finish().ok(), two.finish().ok()];
    replies.sort_by_key(String::len);
    let again = format!("{} result=\"already received\"\n", replies[0].trim_end());
    assert_eq!(replies[1], again);
    assert_eq!(site.releases(), ["r1"]);
    no_debris(&site);
}

/// The second receive ends before the first client has sent everything: no lock is held
/// while a client sends.
#[test]
fn a_slow_client_does_not_delay_others() {
    let site = Site::new();
    let payload = tarball(&[("noise", &noise(300_000))]);
    let (head, tail) = payload.split_at(payload.len() / 2);
    let mut slow = Upload::taken_up(&site, &Site::receive_command("r1", &payload));
    slow.send(head);
    let quick = site.receive("r1", &payload).ok();
    assert!(!quick.contains("already received"), "{quick}");
    site.ssh("ci", "swap r1").ok();
    slow.send(tail);
    let reply = slow.finish().ok();
    assert!(reply.contains("already received"), "{reply}");
    no_debris(&site);
}

#[test]
fn of_concurrent_receives_of_the_same_id_and_other_content_one_succeeds() {
    let site = Site::new();
    let payloads = [b'a', b'b'].map(|byte| tarball(&[("page", &[byte; 3000])]));
    let uploads = payloads.each_ref().map(|payload| {
        let mut upload = Upload::taken_up(&site, &Site::receive_command("r1", payload));
        upload.send(payload);
        upload
    });
    let replies = uploads
        .map(|mut upload| {
            upload.close();
            upload
        })
        .map(Upload::finish);
    let winner = usize::from(replies[0].code != 0);
    assert_eq!(replies[winner].code, 0, "{replies:?}");
    replies[1 - winner].refused(73, "release-exists");
    let page = fs::read(site.root().join("releases/r1/page")).expect("the page");
    assert_eq!(page, [b"ab"[winner]; 3000]);
    no_debris(&site);
    // The manifest is the one of the release that succeeded.
    site.receive("r1", &payloads[winner]).ok();
    site.receive("r1", &payloads[1 - winner])
        .refused(73, "release-exists");
}

#[test]
fn concurrent_receives_of_other_ids_both_succeed() {
    let site = Site::new();
    let releases = ["r1", "r2"];
    let uploads = releases.map(|release| {
        let payload = tarball(&[("id", release.as_bytes()), ("noise", &noise(100_000))]);
        let mut upload = Upload::taken_up(&site, &Site::receive_command(release, &payload));
        upload.send(&payload);
        upload.close();
        upload
    });
    for upload in uploads {
        upload.finish().ok();
    }
    assert_eq!(site.releases(), releases);
    for release in releases {
        let id = fs::read(site.root().join("releases").join(release).join("id"));
        assert_eq!(id.expect("the file"), release.as_bytes());
    }
    let journal = site.journal();
    let mut numbers: Vec<u64> = journal
        .iter()
        .map(|event| event["seq"].as_u64().expect("a number"))
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), journal.len(), "{journal:?}");
}

#[test]
fn a_swap_during_a_receive_succeeds() {
    let site = Site::new();
    for release in ["r1", "r2"] {
        site.receive(release, &tarball(&[("id", release.as_bytes())]))
            .ok();
    }
    site.ssh("ci", "swap r1").ok();
    let payload = tarball(&[("id", b"r3"), ("noise", &noise(200_000))]);
    let (head, tail) = payload.split_at(payload.len() / 2);
    let mut upload = Upload::taken_up(&site, &Site::receive_command("r3", &payload));
    upload.send(head);
    assert_eq!(site.ssh("ci", "swap r2").ok(), "ok swap r2 previous=r1\n");
    upload.send(tail);
    upload.finish().ok();
    assert_eq!(site.current().as_deref(), Some("r2"));
    assert_eq!(site.ssh("ci", "swap r3").ok(), "ok swap r3 previous=r2\n");
}
