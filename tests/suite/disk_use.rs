//! What an upload may use of the disk: `max_unpacked` limits what a release takes there,
//! and the reserve stays free, whatever other processes do meanwhile.

use std::fs;

use crate::archive::{Tar, tarball, zstd};
use crate::full_disk::Kind;
use crate::mounted::Mounted;
use crate::process::{Upload, eventually};
use crate::receive::{many_files, no_debris, noise, stopped_unpacker};
use crate::receive_limits::names_path_and_room;
use crate::site::{Reply, Site};

/// 64 MiB, so that a share of it is larger than all else.
const SMALL_DISK: Kind = Kind::Ext4(64 << 10, 16 << 10);

/// Small payloads that need much more space on disk.
fn payloads() -> Vec<(&'static str, Vec<u8>)> {
    let each = |add: fn(Tar, usize) -> Tar| zstd(&(0..2000).fold(Tar::new(), add).end());
    // An archive without a file is refused.
    let with_a_file =
        |add: fn(Tar, usize) -> Tar| zstd(&(0..2000).fold(Tar::new(), add).file("file", "").end());
    let spaces = " ".repeat(250);
    let long_path = |number: usize| format!("{number:04}/{spaces}/{spaces}/{spaces}");
    let long_names = (0..800).fold(Tar::new(), |tar, number| {
        tar.pax(&[("path", long_path(number).as_bytes())])
            .file("", "")
    });
    vec![
        ("small files", each(|tar, n| tar.file(format!("f{n}"), "x"))),
        (
            "directories",
            with_a_file(|tar, n| tar.directory(format!("d{n}/"))),
        ),
        (
            "directories without an entry",
            each(|tar, n| tar.file(format!("d{n}/f"), "")),
        ),
        (
            "long symlinks",
            with_a_file(|tar, n| tar.symlink(format!("l{n}"), "x".repeat(99))),
        ),
        ("long names", zstd(&long_names.end())),
    ]
}

#[test]
fn max_unpacked_limits_what_a_release_takes_on_disk() {
    let site = Site::with_config("[archive]\nmax_unpacked = \"1MiB\"\n");
    let before = site.snapshot();
    for (what, payload) in payloads() {
        assert!(payload.len() < 300_000, "{what}: {}", payload.len());
        let reply = site.receive("r1", &payload);
        reply.refused(65, "bad-archive");
        let rule = "size on disk over 1245184 bytes (each file takes whole blocks";
        assert!(reply.stderr.contains(rule), "{what}: {}", reply.stderr);
        assert_eq!(site.snapshot(), before, "{what}");
    }
    no_debris(&site);
    // Each of them fits into more.
    site.configure("[archive]\nmax_unpacked = \"32MiB\"\n");
    for (index, (_, payload)) in payloads().into_iter().enumerate() {
        site.receive(&format!("r{index}"), &payload).ok();
    }
}

#[track_caller]
fn reserve_is_kept(site: &Site, reply: &Reply) {
    reply.refused(74, "disk-full");
    let words = "not enough space: the configured reserve would be used";
    assert!(reply.stderr.contains(words), "{}", reply.stderr);
    names_path_and_room(site, reply);
}

fn with_reserve(share: u32) -> Option<(Site, Mounted)> {
    let site = Site::with_config(&format!("[limits]\nreserve = \"{share}%\"\n"));
    let mounted = SMALL_DISK.over(&site)?;
    Some((site, mounted))
}

impl Mounted {
    /// Another process uses this much.
    fn use_up(&self, mebibytes: usize) {
        let path = self.disk.join("used");
        fs::write(path, noise(mebibytes << 20)).expect("there is space");
    }
}

#[test]
fn one_upload_does_not_use_the_reserve() {
    let Some((site, _mounted)) = with_reserve(97) else {
        return;
    };
    let before = site.snapshot();
    for (what, payload) in payloads() {
        println!("{what}");
        reserve_is_kept(&site, &site.receive("r1", &payload));
        assert_eq!(site.snapshot(), before, "{what}");
    }
    site.receive("r1", &tarball(&[("a", b"1")])).ok();
}

#[test]
fn the_reserve_is_kept_while_the_client_sends() {
    let Some((site, mounted)) = with_reserve(50) else {
        return;
    };
    let before = site.snapshot();
    let payload = tarball(&[("noise", &noise(8 << 20))]);
    let (head, tail) = payload.split_at(payload.len() / 2);
    let mut upload = Upload::taken_up(&site, &Site::receive_command("r1", &payload));
    upload.send(head);
    mounted.use_up(32);
    upload.send(tail);
    reserve_is_kept(&site, &upload.finish());
    assert_eq!(site.snapshot(), before);
    no_debris(&site);
}

#[test]
fn the_reserve_is_kept_while_the_unpacker_writes() {
    let Some((site, mounted)) = with_reserve(50) else {
        return;
    };
    // It does not go on by itself, so only its monitor can end it.
    let (_, upload, _) = stopped_unpacker(&site, &many_files(3000));
    mounted.use_up(32);
    reserve_is_kept(&site, &upload.finish());
    no_debris(&site);
}

#[test]
fn the_reserve_is_kept_when_a_release_is_published() {
    let Some((site, mounted)) = with_reserve(50) else {
        return;
    };
    let own = site.root().join(".deploy-shell");
    let lock = fs::File::create(own.join("lock")).expect("the lock");
    lock.lock().expect("it is free");
    let payload = many_files(100);
    let mut upload = Upload::taken_up(&site, &Site::receive_command("r1", &payload));
    upload.send(&payload);
    upload.close();
    eventually("the release is staged", || {
        let staged = fs::read_dir(own.join("incoming")).expect("it exists");
        staged.flatten().any(|staging| {
            let manifest = fs::read_to_string(staging.path().join("manifest"));
            manifest.is_ok_and(|manifest| manifest.contains("\n# files 100 "))
        })
    });
    mounted.use_up(32);
    // The unpacker ends before its monitor waits for the lock.
    drop(lock);
    reserve_is_kept(&site, &upload.finish());
    assert_eq!(site.releases(), [""; 0]);
    no_debris(&site);
}
