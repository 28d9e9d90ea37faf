//! What an upload may use of the disk: `max_unpacked` limits what a release takes there,
//! and the reserve stays free, whatever other processes do meanwhile.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::archive::{Tar, tarball, zstd};
use crate::delta_payload::{delta, tree, whole};
use crate::full_disk::Kind;
use crate::mode::Mode;
use crate::mounted::Mounted;
use crate::process::{Upload, eventually};
use crate::receive::{many_files, no_debris, noise, staged_trees, stopped_unpacker};
use crate::receive_limits::names_path_and_room;
use crate::site::{Reply, Site};

/// 64 MiB, so that a share of it is larger than all else.
pub const SMALL_DISK: Kind = Kind::Ext4(64 << 10, 16 << 10);

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

const RESERVE: &str = "the configured reserve would be used";
const SHARE_OF_ONE: &str = "this upload would take more than half of what uploads may use";

#[track_caller]
fn not_enough_space(site: &Site, reply: &Reply, why: &str) {
    reply.refused(74, "disk-full");
    let words = format!("not enough space: {why} (");
    assert!(reply.stderr.contains(&words), "{}", reply.stderr);
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
        not_enough_space(&site, &site.receive("r1", &payload), SHARE_OF_ONE);
        assert_eq!(site.snapshot(), before, "{what}");
    }
    site.receive("r1", &tarball(&[("a", b"1")])).ok();
}

/// Returns whether a receive has unpacked at least `bytes` bytes of this file.
fn has_unpacked(site: &Site, name: &str, bytes: u64) -> bool {
    let mut files = staged_trees(site).map(|tree| tree.join(name));
    files.any(|file| file.metadata().is_ok_and(|found| found.len() >= bytes))
}

/// What an upload has written counts for its share. So one that is unpacked while it
/// arrives reaches that limit first.
#[test]
fn the_reserve_is_kept_while_the_client_sends() {
    for (mode, why) in [(Mode::Arriving, SHARE_OF_ONE), (Mode::Spooled, RESERVE)] {
        let site = mode.site("[limits]\nreserve = \"50%\"\n");
        let Some(mounted) = SMALL_DISK.over(&site) else {
            return;
        };
        let before = site.snapshot();
        let payload = tarball(&[("noise", &noise(8 << 20))]);
        let (head, tail) = payload.split_at(payload.len() / 2);
        let mut upload = Upload::taken_up(&site, &mode.command("r1", &payload));
        upload.send(head);
        if matches!(mode, Mode::Arriving) {
            eventually("a part is unpacked", || {
                has_unpacked(&site, "noise", 2 << 20)
            });
        }
        mounted.use_up(32);
        upload.send(tail);
        not_enough_space(&site, &upload.finish(), why);
        assert_eq!(site.snapshot(), before);
        no_debris(&site);
    }
}

#[test]
fn the_reserve_is_kept_while_the_unpacker_writes() {
    let Some((site, mounted)) = with_reserve(50) else {
        return;
    };
    // It does not go on by itself, so only its monitor can end it.
    let (_, upload, _) = stopped_unpacker(Mode::Arriving, &site, &many_files(3000));
    mounted.use_up(32);
    not_enough_space(&site, &upload.finish(), RESERVE);
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
    not_enough_space(&site, &upload.finish(), RESERVE);
    assert_eq!(site.releases(), [""; 0]);
    no_debris(&site);
}

/// A site with the keys `ci` and `b` on a small disk.
fn with_two_keys(kind: Kind, config: &str) -> Option<(Site, Mounted)> {
    let site = Site::with_config(config);
    site.add_key("b", None);
    let mounted = kind.over(&site)?;
    Some((site, mounted))
}

fn receive_as(site: &Site, key: &str, release: &str, payload: &[u8]) -> Reply {
    site.ssh_with_input(key, &Site::receive_command(release, payload), payload)
}

/// The key `ci` sends releases until it is refused. Then `b` can still send one.
fn one_key_leaves_half_to_others(site: &Site, payload: &[u8]) {
    let mut number = 0;
    let refused = loop {
        let reply = receive_as(site, "ci", &format!("ci{number}"), payload);
        if reply.code != 0 || number == 5 {
            break reply;
        }
        number += 1;
    };
    let why = "this upload and the new releases of key 'ci' would take more than half \
               of what uploads may use";
    not_enough_space(site, &refused, why);
    assert!(number > 1, "{number} releases came before {refused:?}");
    let remedy = refused.stderr.lines().nth(1).expect("a remedy");
    assert!(
        remedy.contains("deploy-shell-admin drop") && !remedy.contains("swap"),
        "{remedy}"
    );
    receive_as(site, "b", "b0", payload).ok();
    no_debris(site);
    // Failed deploys leave such releases. Because an upload lacked space, the next one removes
    // those that are ten minutes old, and none of another key.
    site.age_journal(jiff::SignedDuration::from_mins(10));
    receive_as(site, "ci", "late", payload).ok();
    assert_eq!(site.releases(), ["b0", "late"]);
    no_debris(site);
    // A small one fits in any case.
    site.ssh("ci", "swap late").ok();
    receive_as(site, "ci", "more", &tarball(&[("a", b"1")])).ok();
}

/// Hard links take no blocks. Removing such releases would give nobody room.
#[test]
fn pending_deltas_of_other_keys_give_no_key_more_room() {
    let Some((site, _mounted)) = with_two_keys(SMALL_DISK, "[delta]\nreuse = \"link\"\n") else {
        return;
    };
    let large = "x".repeat(12 << 20);
    let with = |version| [("large", large.as_str()), ("v", version)];
    site.receive("old", &whole(&with("0"))).ok();
    site.ssh("ci", "swap old").ok();
    // It is no longer new.
    site.age_journal(jiff::SignedDuration::from_mins(10));
    let payload = delta(&with("0"), &with("1"));
    let command = Site::receive_command("new", &payload);
    let request = format!("{command} --tree {} --base old", tree(&with("1")));
    site.ssh_with_input("ci", &request, &payload).ok();
    // The disk has about 45 MiB for uploads.
    let payload = tarball(&[("noise", &noise(26 << 20))]);
    not_enough_space(&site, &receive_as(&site, "b", "b", &payload), SHARE_OF_ONE);
    let payload = tarball(&[("noise", &noise(20 << 20))]);
    receive_as(&site, "b", "b", &payload).ok();
    no_debris(&site);
}

/// A delta takes room for the files of its base, which the unpacker does not see.
#[test]
fn a_delta_over_the_share_of_its_key_says_so() {
    let Some((site, _mounted)) = with_two_keys(SMALL_DISK, "") else {
        return;
    };
    let large = "x".repeat(12 << 20);
    let (old, new) = (
        [("large", large.as_str()), ("v", "1")],
        [("large", large.as_str()), ("v", "2")],
    );
    site.receive("old", &whole(&old)).ok();
    site.ssh("ci", "swap old").ok();
    let payload = delta(&old, &new);
    let send = |number: usize| {
        let command = Site::receive_command(&format!("ci{number}"), &payload);
        let request = format!("{command} --tree {} --base old", tree(&new));
        site.ssh_with_input("ci", &request, &payload)
    };
    let replies: Vec<Reply> = (0..4).map(send).collect();
    let refused = replies.iter().find(|reply| reply.code != 0);
    let why = "this upload and the new releases of key 'ci' would take more than half \
               of what uploads may use";
    not_enough_space(&site, refused.expect("one is too many"), why);
    no_debris(&site);
}

#[test]
fn the_pending_releases_of_a_key_leave_half_of_the_disk_to_others() {
    // `max_per_key` of the default, so the reserve is reached before it.
    let config = "[pending]\nmax = 10\nmax_per_key = 5\n";
    if let Some((site, _mounted)) = with_two_keys(SMALL_DISK, config) {
        one_key_leaves_half_to_others(&site, &tarball(&[("noise", &noise(9 << 20))]));
    }
}

#[test]
fn the_pending_releases_of_a_key_leave_half_of_the_inodes_to_others() {
    let few_inodes = Kind::Ext4(64 << 10, 2048);
    let config = "[pending]\nmax = 10\nmax_per_key = 5\n";
    if let Some((site, _mounted)) = with_two_keys(few_inodes, config) {
        one_key_leaves_half_to_others(&site, &many_files(380));
    }
}

/// It takes no more of the disk, but it has what others need now: the spool, or the files
/// that the unpacker has written.
#[test]
fn a_silent_upload_ends_when_it_has_more_than_its_share() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        site.add_key("b", None);
        let Some(mounted) = SMALL_DISK.over(&site) else {
            return;
        };
        let half = noise(10 << 20);
        let payload = tarball(&[("a", &half), ("b", &half)]);
        let mut upload = Upload::taken_up(&site, &mode.command("r1", &payload));
        upload.send(&payload[..16 << 20]);
        mounted.use_up(32);
        not_enough_space(&site, &upload.outlast(), SHARE_OF_ONE);
        let other = tarball(&[("noise", &noise(5 << 20))]);
        let command = mode.command("r2", &other);
        site.ssh_with_input("b", &command, &other).ok();
        no_debris(&site);
    }
}

/// A key that may receive and swap makes many releases live for a moment. With checks that
/// pass, they have places at once.
#[test]
fn releases_that_were_live_for_a_moment_leave_half_of_the_disk_to_others() {
    let gate = "[health]\ncommand = [\"/bin/true\"]\n";
    let hook = "[[hooks.before_swap]]\ncommand = [\"/bin/false\"]\n";
    for config in ["", gate, hook] {
        let Some((site, _mounted)) = with_two_keys(SMALL_DISK, config) else {
            return;
        };
        receive_as(&site, "ci", "good", &tarball(&[("v", b"1")])).ok();
        site.ssh("ci", "swap good");
        let of_size = |mebibytes: usize| tarball(&[("x", &vec![b'x'; mebibytes << 20])]);
        let large = of_size(7);
        let mut number = 0;
        let refused = loop {
            let release = format!("b{number}");
            let reply = receive_as(&site, "b", &release, &large);
            if reply.code != 0 || number == 9 {
                break reply;
            }
            site.ssh("b", &format!("swap {release}"));
            number += 1;
        };
        let why = "this upload and the new releases of key 'b' would take more than half \
                   of what uploads may use";
        not_enough_space(&site, &refused, why);
        assert!((2..4).contains(&number), "{number}: {refused:?}");
        site.ssh("b", "swap good");
        receive_as(&site, "ci", "new", &of_size(12)).ok();
        // Those of the key that count for nothing are removed for its next upload, also where
        // hooks of another request hold the lock.
        site.age_journal(jiff::SignedDuration::from_mins(10));
        let lock = fs::File::open(site.root().join(".deploy-shell/lock")).expect("the lock");
        lock.lock().expect("it is free");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_secs(6));
                lock.unlock().expect("it was locked");
            });
            receive_as(&site, "b", "later", &large).ok();
        });
        assert!(!site.releases().contains(&"b0".to_owned()), "{config}");
        no_debris(&site);
    }
}

/// The removal for space is for the releases of the same key.
#[test]
fn an_upload_that_lacks_space_removes_nothing_of_another_key() {
    let Some((site, _mounted)) = with_two_keys(SMALL_DISK, "keep = 1\n") else {
        return;
    };
    for release in ["a", "b", "c"] {
        receive_as(&site, "ci", release, &tarball(&[("v", release.as_bytes())])).ok();
        site.ssh("ci", &format!("swap {release}")).ok();
    }
    receive_as(&site, "ci", "waits", &tarball(&[("v", b"1")])).ok();
    site.age_journal(jiff::SignedDuration::from_mins(10));
    let releases = site.releases();
    for large in ["large1", "large2"] {
        let payload = tarball(&[("noise", &noise(30 << 20))]);
        not_enough_space(
            &site,
            &receive_as(&site, "b", large, &payload),
            SHARE_OF_ONE,
        );
    }
    assert_eq!(site.releases(), releases);
}
