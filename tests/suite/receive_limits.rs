//! The limits of `receive` on size, time, rate and space. A refusal leaves nothing
//! behind.

use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

use crate::archive::{Frame, Tar, tarball, zstd};
use crate::mode::Mode;
use crate::process::Upload;
use crate::receive::{leaves_nothing, no_debris, noise};
use crate::site::{Reply, Site, set_mode};

/// Returns a valid archive of exactly `length` bytes: incompressible content, and a
/// zstd frame whose blocks are cut until it has the right size.
fn payload_of(length: usize) -> Vec<u8> {
    let frame = |content: usize, cuts: usize| {
        let tar = Tar::new().file("noise", noise(content)).end();
        let (head, tail) = tar.split_at(cuts);
        let frame = head
            .iter()
            .fold(Frame::window(20, 0), |frame, byte| frame.raw(&[*byte]));
        frame.raw(tail).end()
    };
    let fixed = frame(0, 0).len();
    let content = (length - fixed) / 512 * 512 - 512;
    // Each cut adds a block header of three bytes.
    let payload = (0..512)
        .map(|cuts| frame(content, cuts))
        .find(|payload| payload.len() >= length)
        .expect("enough cuts");
    assert_eq!(
        payload.len(),
        length,
        "the difference is not a multiple of three"
    );
    payload
}

#[test]
fn the_compressed_limit_is_exact() {
    for mode in Mode::BOTH {
        // Cut blocks reach every size, so this one is not special.
        let limit = payload_of(65536 + 2);
        let site = mode.site(&format!(
            "[archive]\nmax_compressed = \"{}B\"\n",
            limit.len()
        ));
        mode.receive(&site, "exact", &limit).ok();
        let more = [limit.as_slice(), b"\0"].concat();
        let before = site.snapshot();
        let reply = mode.receive(&site, "more", &more);
        reply.refused(65, "too-large");
        assert_eq!(site.snapshot(), before);
        no_debris(&site);
    }
}

#[test]
fn an_endless_payload_is_refused() {
    for mode in Mode::BOTH {
        let site = mode.site("[archive]\nmax_compressed = \"64KiB\"\n");
        let request = mode.command("r1", b"never sent in full");
        let mut upload = Upload::start(&site, &request);
        let piece = noise(64 << 10);
        // Far more than all buffers hold, so only the server can end it.
        for _ in 0..2000 {
            if upload.client.is_over() {
                break;
            }
            upload.send(&piece);
        }
        let reply = upload.finish();
        leaves_nothing(&site, &reply, 65, "too-large");
    }
}

#[test]
fn a_client_that_stops_sending_times_out() {
    for mode in Mode::BOTH {
        let site = mode.site("[limits]\nidle_timeout = \"1s\"\n");
        let payload = tarball(&[("noise", &noise(200_000))]);
        let mut upload = Upload::start(&site, &mode.command("r1", &payload));
        upload.send(&payload[..payload.len() / 2]);
        // The pipe stays open, so only the timeout can end this.
        let reply = upload.outlast();
        leaves_nothing(&site, &reply, 74, "timeout");
    }
}

#[test]
fn a_client_that_never_sends_times_out() {
    for mode in Mode::BOTH {
        let site = mode.site("[limits]\nidle_timeout = \"1s\"\n");
        let request = mode.command("r1", &tarball(&[("a", b"")]));
        let reply = Upload::start(&site, &request).outlast();
        leaves_nothing(&site, &reply, 74, "timeout");
    }
}

#[test]
fn slow_sending_does_not_escape_the_total_timeout() {
    for mode in Mode::BOTH {
        let site = mode.site("[limits]\nidle_timeout = \"30s\"\ntotal_timeout = \"2s\"\n");
        let payload = tarball(&[("noise", &noise(200_000))]);
        let mut upload = Upload::start(&site, &mode.command("r1", &payload));
        for byte in payload.chunks(1).take(1000) {
            if upload.client.is_over() {
                break;
            }
            upload.send(byte);
            thread::sleep(Duration::from_millis(50));
        }
        let reply = upload.outlast();
        leaves_nothing(&site, &reply, 74, "timeout");
    }
}

#[test]
fn a_slow_client_is_not_idle() {
    for mode in Mode::BOTH {
        let site = mode.site("[limits]\nidle_timeout = \"8s\"\n");
        let payload = tarball(&[("noise", &noise(200_000))]);
        let mut upload = Upload::start(&site, &mode.command("r1", &payload));
        for piece in payload.chunks(payload.len() / 10) {
            upload.send(piece);
            thread::sleep(Duration::from_secs(1));
        }
        upload.finish().ok();
    }
}

#[test]
fn the_number_of_pending_releases_is_limited() {
    let site = Site::with_config("[pending]\nmax = 2\n");
    let payload = |release: &str| tarball(&[("id", release.as_bytes())]);
    site.receive("r1", &payload("r1")).ok();
    site.receive("r2", &payload("r2")).ok();
    let before = site.snapshot();
    site.receive("r3", &payload("r3")).refused(75, "busy");
    assert_eq!(site.snapshot(), before);
    // A retry adds no release, and CI must be able to repeat it.
    let again = site.receive("r2", &payload("r2")).ok();
    assert!(again.ends_with("result=\"already received\"\n"), "{again}");

    site.ssh("ci", "swap r1").ok();
    site.receive("r3", &payload("r3")).ok();
}

/// A release that failed its checks is no longer pending, and the next swap removes one
/// that is too old.
#[test]
fn bad_and_expired_releases_are_not_pending() {
    let hook = "[[hooks.before_swap]]\ncommand = [\"/bin/false\"]\n";
    let site = Site::with_config(&format!("[pending]\nmax = 1\nmax_age = \"1h\"\n{hook}"));
    let payload = |release: &str| tarball(&[("id", release.as_bytes())]);
    site.receive("r1", &payload("r1")).ok();
    site.receive("r2", &payload("r2")).refused(75, "busy");
    site.ssh("ci", "swap r1").refused(69, "gate-failed");
    site.receive("r2", &payload("r2")).ok();
    site.receive("r3", &payload("r3")).refused(75, "busy");
    site.age_journal(jiff::SignedDuration::from_mins(61));
    site.receive("r3", &payload("r3")).ok();
}

/// Nobody may swap for long.
#[test]
fn a_receive_removes_pending_releases_that_are_too_old() {
    let site = Site::with_config("[pending]\nmax_age = \"1h\"\n");
    let payload = |release: &str| tarball(&[("id", release.as_bytes())]);
    for release in ["live", "old1", "old2"] {
        site.receive(release, &payload(release)).ok();
    }
    site.ssh("ci", "swap live").ok();
    site.age_journal(jiff::SignedDuration::from_mins(61));
    site.receive("new", &payload("new")).ok();
    assert_eq!(site.releases(), ["live", "new"]);
    let removed = site.removal_lines();
    assert_eq!(removed.len(), 2, "{removed:?}");
    assert!(removed[1].contains("release=\"old2\""), "{removed:?}");
    assert!(removed[1].contains("key=\"ci\""), "{removed:?}");
    no_debris(&site);
    // Also one that fails later.
    site.age_journal(jiff::SignedDuration::from_mins(61));
    let request = Site::receive_command("bad", b"other bytes");
    site.ssh_with_input("ci", &request, &payload("bad"))
        .refused(65, "digest-mismatch");
    assert_eq!(site.releases(), ["live"]);
    assert_eq!(site.current().as_deref(), Some("live"));
    no_debris(&site);
    // Another request that holds the lock is not waited for.
    site.receive("r1", &payload("r1")).ok();
    site.age_journal(jiff::SignedDuration::from_mins(61));
    let lock = std::fs::File::create(site.root().join(".deploy-shell/lock")).expect("the lock");
    lock.lock().expect("it is free");
    site.ssh_with_input("ci", &request, &payload("bad"))
        .refused(65, "digest-mismatch");
    assert_eq!(site.releases(), ["live", "r1"]);
}

#[test]
fn a_reserve_that_cannot_be_met_is_disk_full() {
    let site = Site::with_config("[limits]\nreserve = \"100%\"\n");
    let reply = site.receive("r1", &tarball(&[("a", b"")]));
    leaves_nothing(&site, &reply, 78, "bad-config");

    let site = Site::with_config("[limits]\nreserve = \"99%\"\n");
    let room = statvfs(site.root()).expect("the file system");
    if room.blocks_available() > room.blocks() / 100 * 98 {
        println!("skipped: the file system is almost empty");
        return;
    }
    let reply = site.receive("r1", &tarball(&[("a", b"")]));
    leaves_nothing(&site, &reply, 74, "disk-full");
    names_path_and_room(&site, &reply);
}

/// Asserts that the message names a path on the file system and its free bytes.
#[track_caller]
pub fn names_path_and_room(site: &Site, reply: &Reply) {
    let root = site.root().to_str().expect("the path is UTF-8");
    assert!(reply.stderr.contains(root), "{}", reply.stderr);
    let words: Vec<&str> = reply.stderr.split_whitespace().collect();
    let counted = words
        .windows(2)
        .any(|pair| pair[0].parse::<u64>().is_ok() && pair[1].starts_with("bytes"));
    assert!(counted, "{}", reply.stderr);
    assert!(reply.stderr.contains("free"), "{}", reply.stderr);
}

/// By default, SIGXFSZ ends a process that exceeds its limit of file sizes.
#[test]
fn a_file_size_limit_is_an_error_and_does_not_kill() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        let ssh = site.ssh_command("ci");
        let payload = tarball(&[("noise", &noise(1 << 20))]);
        let mut limited = Command::new("prlimit");
        limited.arg("--fsize=524288").arg("--");
        limited.arg(ssh.get_program()).args(ssh.get_args());
        limited.arg("--").arg(mode.command("r1", &payload));
        limited.env("SHELL", "/bin/sh");
        let reply = site.run(limited, &payload);
        leaves_nothing(&site, &reply, 74, "io-error");
    }
}

/// A directory without write permission is a reported error and not a bug.
#[test]
fn a_root_without_write_permission_is_reported() {
    if Uid::effective().is_root() {
        println!("skipped: root may write everywhere");
        return;
    }
    let site = Site::new();
    let releases = site.root().join("releases");
    set_mode(&releases, 0o555);
    let reply = site.receive("r1", &tarball(&[("a", b"")]));
    set_mode(&releases, 0o755);
    reply.refused(78, "bad-layout");
    assert_eq!(site.releases(), [""; 0]);
    no_debris(&site);
}

/// The kernel follows 30 symlinks with long targets for each short one.
#[test]
fn long_chains_of_symlinks_do_not_escape_the_total_timeout() {
    let site = Site::with_config("[limits]\ntotal_timeout = \"2s\"\n");
    let mut tar = Tar::new().directory("d").file("c0", "x");
    for link in 1..30 {
        let target = format!("{}c{}", "d/../".repeat(18), link - 1);
        tar = tar.symlink(format!("c{link}"), target);
    }
    for link in 0..90_000 {
        tar = tar.symlink(format!("l{link}"), "c29");
    }
    let reply = site.receive("r1", &zstd(&tar.end()));
    leaves_nothing(&site, &reply, 74, "timeout");
}
