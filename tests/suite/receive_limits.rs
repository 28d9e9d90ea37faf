//! What `receive` refuses for size, time, rate and room, and that a refusal
//! leaves nothing behind.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

use crate::archive::{Frame, Tar, tarball};
use crate::process::Upload;
use crate::receive::{leaves_nothing, no_debris, noise};
use crate::site::{Reply, Site, set_mode};

/// A valid archive of exactly `length` bytes: incompressible content, and a
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
    assert_eq!(payload.len(), length, "not a multiple of three away");
    payload
}

#[test]
fn the_compressed_limit_is_exact() {
    // Both sizes are reached by cutting blocks, so neither is special.
    let limit = payload_of(65536 + 2);
    let site = Site::with_config(&format!(
        "[archive]\nmax_compressed = \"{}B\"\n",
        limit.len()
    ));
    site.receive("exact", &limit).ok();
    let more = [limit.as_slice(), b"\0"].concat();
    let before = site.snapshot();
    let reply = site.receive("more", &more);
    reply.refused(65, "too-large");
    assert_eq!(site.snapshot(), before);
    no_debris(&site);
}

#[test]
fn a_payload_without_end_is_cut_off() {
    let site = Site::with_config("[archive]\nmax_compressed = \"64KiB\"\n");
    let request = Site::receive_command("r1", b"never sent in full");
    let mut upload = Upload::start(&site, &request);
    let piece = noise(64 << 10);
    // Far more than all buffers between the two hold: it ends because the
    // server ends it.
    for _ in 0..2000 {
        if upload.client.is_over() {
            break;
        }
        upload.send(&piece);
    }
    let reply = upload.finish();
    leaves_nothing(&site, &reply, 65, "too-large");
}

#[test]
fn a_client_that_falls_silent_is_given_up() {
    let site = Site::with_config("[limits]\nidle_timeout = \"1s\"\n");
    let payload = tarball(&[("noise", &noise(200_000))]);
    let mut upload = Upload::start(&site, &Site::receive_command("r1", &payload));
    upload.send(&payload[..payload.len() / 2]);
    // The pipe stays open: nothing but the clock can end this.
    let reply = upload.outlast();
    leaves_nothing(&site, &reply, 74, "timeout");
}

#[test]
fn a_client_that_never_sends_is_given_up() {
    let site = Site::with_config("[limits]\nidle_timeout = \"1s\"\n");
    let request = Site::receive_command("r1", &tarball(&[("a", b"")]));
    let reply = Upload::start(&site, &request).outlast();
    leaves_nothing(&site, &reply, 74, "timeout");
}

#[test]
fn a_trickle_does_not_escape_the_total_limit() {
    let site = Site::with_config("[limits]\nidle_timeout = \"30s\"\ntotal_timeout = \"2s\"\n");
    let payload = tarball(&[("noise", &noise(200_000))]);
    let mut upload = Upload::start(&site, &Site::receive_command("r1", &payload));
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

#[test]
fn slow_is_not_idle() {
    let site = Site::with_config("[limits]\nidle_timeout = \"8s\"\n");
    let payload = tarball(&[("noise", &noise(200_000))]);
    let mut upload = Upload::start(&site, &Site::receive_command("r1", &payload));
    for piece in payload.chunks(payload.len() / 10) {
        upload.send(piece);
        thread::sleep(Duration::from_secs(1));
    }
    upload.finish().ok();
}

#[test]
fn receives_are_counted_over_the_last_hour() {
    let site = Site::with_config("[limits]\nreceives_per_hour = 2\n");
    let payload = |release: &str| tarball(&[("id", release.as_bytes())]);
    site.receive("r1", &payload("r1")).ok();
    // What was not received does not count.
    let request = Site::receive_command("bad", b"other bytes");
    site.ssh_with_input("ci", &request, &payload("bad"))
        .refused(65, "digest-mismatch");
    site.receive("r2", &payload("r2")).ok();
    let before = site.snapshot();
    let reply = site.receive("r3", &payload("r3"));
    reply.refused(75, "rate-limited");
    assert_eq!(site.snapshot(), before);

    age_the_journal(&site, 61);
    site.receive("r3", &payload("r3")).ok();
    site.receive("r4", &payload("r4")).ok();
    site.receive("r5", &payload("r5"))
        .refused(75, "rate-limited");
}

/// Makes everything in the journal this many minutes older.
fn age_the_journal(site: &Site, minutes: i64) {
    let mut text = String::new();
    for mut event in site.journal() {
        let time = event["time"].as_str().expect("a time");
        let time: jiff::Timestamp = time.parse().expect("RFC 3339");
        let older = time - jiff::SignedDuration::from_mins(minutes);
        event["time"] = older.to_string().into();
        text += &format!("{event}\n");
    }
    let path = site.root().join(".deploy-shell/journal.jsonl");
    fs::write(path, text).expect("the journal");
}

#[test]
fn only_so_many_releases_may_wait() {
    let site = Site::with_config("[pending]\nmax = 2\n");
    let payload = |release: &str| tarball(&[("id", release.as_bytes())]);
    site.receive("r1", &payload("r1")).ok();
    site.receive("r2", &payload("r2")).ok();
    let before = site.snapshot();
    site.receive("r3", &payload("r3")).refused(75, "busy");
    assert_eq!(site.snapshot(), before);
    // A retry adds nothing, and CI must be able to go on.
    let again = site.receive("r2", &payload("r2")).ok();
    assert!(again.ends_with("result=\"already received\"\n"), "{again}");

    site.ssh("ci", "swap r1").ok();
    site.receive("r3", &payload("r3")).ok();
}

/// One that failed before it was live has had its turn, and one that is
/// overdue is as good as gone.
#[test]
fn neither_the_bad_nor_the_overdue_wait() {
    let hook = "[[hooks.before_swap]]\ncommand = [\"/bin/false\"]\n";
    let site = Site::with_config(&format!("[pending]\nmax = 1\nmax_age = \"1h\"\n{hook}"));
    let payload = |release: &str| tarball(&[("id", release.as_bytes())]);
    site.receive("r1", &payload("r1")).ok();
    site.receive("r2", &payload("r2")).refused(75, "busy");
    site.ssh("ci", "swap r1").refused(69, "gate-failed");
    site.receive("r2", &payload("r2")).ok();
    site.receive("r3", &payload("r3")).refused(75, "busy");
    age_the_journal(&site, 61);
    site.receive("r3", &payload("r3")).ok();
}

#[test]
fn a_reserve_that_cannot_be_met_is_disk_full() {
    let site = Site::with_config("[limits]\nreserve = \"100%\"\n");
    let reply = site.receive("r1", &tarball(&[("a", b"")]));
    leaves_nothing(&site, &reply, 78, "bad-config");

    let site = Site::with_config("[limits]\nreserve = \"99%\"\n");
    let room = statvfs(site.root()).expect("the file system");
    if room.blocks_available() > room.blocks() / 100 * 98 {
        println!("skipped: the file system is as good as empty");
        return;
    }
    let reply = site.receive("r1", &tarball(&[("a", b"")]));
    leaves_nothing(&site, &reply, 74, "disk-full");
    names_path_and_room(&site, &reply);
}

/// The line names the file system by a path on it, and a count of free bytes.
#[track_caller]
pub fn names_path_and_room(site: &Site, reply: &Reply) {
    let root = site.root().to_str().expect("a plain path");
    assert!(reply.stderr.contains(root), "{}", reply.stderr);
    let words: Vec<&str> = reply.stderr.split_whitespace().collect();
    let counted = words
        .windows(2)
        .any(|pair| pair[0].parse::<u64>().is_ok() && pair[1].starts_with("bytes"));
    assert!(counted, "{}", reply.stderr);
    assert!(reply.stderr.contains("free"), "{}", reply.stderr);
}

/// A limit on file sizes ends a program by SIGXFSZ unless it sees to it.
#[test]
fn a_file_size_limit_is_an_error_and_not_a_death() {
    let site = Site::new();
    let ssh = site.ssh_command("ci");
    let payload = tarball(&[("noise", &noise(1 << 20))]);
    let mut limited = Command::new("prlimit");
    limited.arg("--fsize=524288").arg("--");
    limited.arg(ssh.get_program()).args(ssh.get_args());
    limited.arg("--").arg(Site::receive_command("r1", &payload));
    limited.env("SHELL", "/bin/sh");
    let reply = site.run(limited, &payload);
    leaves_nothing(&site, &reply, 74, "io-error");
}

/// A folder that cannot be written to is told as such, and not as a bug.
#[test]
fn a_root_we_may_not_write_to() {
    if Uid::effective().is_root() {
        println!("skipped: root may write everywhere");
        return;
    }
    let site = Site::new();
    let releases = site.root().join("releases");
    set_mode(&releases, 0o555);
    let reply = site.receive("r1", &tarball(&[("a", b"")]));
    set_mode(&releases, 0o755);
    assert!([74, 78].contains(&reply.code), "{reply:?}");
    assert_eq!(site.releases(), [""; 0]);
    no_debris(&site);
}
