//! Small real file systems (ext4, xfs and tmpfs, mounted over the site's root) that
//! run out of blocks or of inodes. Only root can mount them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::archive::{Tar, tarball, zstd};
use crate::direct::states;
use crate::fallback::killed_during_checks;
use crate::gating::{gate_failed, hook};
use crate::mode::Mode;
use crate::mounted::{self, Mounted};
use crate::receive::{leaves_nothing, noise};
use crate::receive_limits::names_path_and_room;
use crate::site::Site;

/// A file system and its size.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// KiB and inodes; the smallest possible, without a journal.
    Ext4(u32, u32),
    /// The smallest possible; inodes may use 1 % of it.
    Xfs,
    /// 4 MiB, and this number of inodes.
    Tmpfs(u32),
}

const KINDS: [Kind; 2] = [Kind::Ext4(2048, 256), Kind::Xfs];

impl Kind {
    /// Makes the file system in a file, and returns the options to mount it.
    fn format(self, image: &Path) -> String {
        let (command, kibibytes) = match self {
            Kind::Ext4(kibibytes, inodes) => {
                let command = format!("mkfs.ext4 -q -F -m 0 -O ^has_journal -N {inodes}");
                (command, kibibytes)
            }
            Kind::Xfs => ("mkfs.xfs -q -f -i maxpct=1".to_owned(), 320 << 10),
            Kind::Tmpfs(inodes) => return format!("-t tmpfs -o size=4m,nr_inodes={inodes}"),
        };
        mounted::format(&command, image, u64::from(kibibytes) << 10);
        "-o loop".to_owned()
    }

    pub fn over(self, site: &Site) -> Option<Mounted> {
        Mounted::over(site, |image| self.format(image))
    }
}

impl Mounted {
    /// Uses every free block.
    fn fill(&self) -> Ballast {
        let path = self.disk.join("ballast");
        let mut file = File::create(&path).expect("a file");
        let mut piece = vec![0x5a; 16 << 20];
        // Terminates: the size is halved whenever the disk has no space for it.
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() || file.sync_data().is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        Ballast(path)
    }

    /// Uses every free inode.
    fn fill_with_files(&self) -> Ballast {
        let path = self.disk.join("ballast");
        fs::create_dir(&path).expect("a directory");
        let mut made = 0;
        while File::create(path.join(made.to_string())).is_ok() {
            made += 1;
        }
        assert!(made > 10, "only {made} inodes were left");
        Ballast(path)
    }
}

struct Ballast(PathBuf);

impl Ballast {
    /// Frees this number of bytes.
    fn free(&self, bytes: u64) {
        let file = fs::OpenOptions::new().write(true).open(&self.0);
        let file = file.expect("it exists");
        let length = file.metadata().expect("it exists").len();
        file.set_len(length - bytes)
            .and_then(|()| file.sync_all())
            .expect("it is truncated");
    }

    fn remove(self) {
        let removed = if self.0.is_dir() {
            fs::remove_dir_all(&self.0)
        } else {
            fs::remove_file(&self.0)
        };
        removed.expect("it is removed");
    }
}

/// A site without a reserve, on a small file system.
fn small(kind: Kind) -> Option<(Site, Mounted)> {
    small_with(kind, "")
}

fn small_with(kind: Kind, config: &str) -> Option<(Site, Mounted)> {
    small_in(Mode::Arriving, kind, config)
}

fn small_in(mode: Mode, kind: Kind, config: &str) -> Option<(Site, Mounted)> {
    let site = mode.site(&format!("{config}[limits]\nreserve = \"0%\"\n"));
    let mounted = kind.over(&site)?;
    Some((site, mounted))
}

/// With 1 MiB of space, the payload is too large, and nothing of it remains.
fn receive_fills_the_disk(payload: &[u8]) {
    for (mode, kind) in Mode::BOTH
        .into_iter()
        .flat_map(|mode| KINDS.map(|kind| (mode, kind)))
    {
        let Some((site, mounted)) = small_in(mode, kind, "") else {
            return;
        };
        let ballast = mounted.fill();
        ballast.free(1 << 20);
        let before = site.snapshot();
        let reply = mode.receive(&site, "big", payload);
        leaves_nothing(&site, &reply, 74, "disk-full");
        names_path_and_room(&site, &reply);
        assert_eq!(site.snapshot(), before);
        ballast.remove();
        mode.receive(&site, "small", &tarball(&[("a", b"1")])).ok();
    }
}

#[test]
fn a_disk_that_fills_while_the_client_sends_is_reported() {
    receive_fills_the_disk(&tarball(&[("noise", &noise(4 << 20))]));
}

#[test]
fn a_disk_that_fills_while_unpacking_is_reported() {
    // Small when sent; one file that is larger than the space when unpacked.
    receive_fills_the_disk(&tarball(&[("x", &vec![b'x'; 4 << 20])]));
}

/// Makes `a` and then `b` live; the page of each is its name.
fn make_two_live(site: &Site) {
    for release in ["a", "b"] {
        let payload = tarball(&[("index.html", release.as_bytes())]);
        site.receive(release, &payload).ok();
        site.ssh("ci", &format!("swap {release}")).ok();
    }
}

#[test]
fn swaps_without_free_inodes_succeed_or_change_nothing() {
    for kind in [Kind::Ext4(4096, 128), Kind::Xfs] {
        let Some((site, mounted)) = small(kind) else {
            return;
        };
        make_two_live(&site);
        let many = (0..300).fold(Tar::new(), |tar, n| tar.file(format!("f{n}"), b""));
        let many = zstd(&many.end());
        let ballast = mounted.fill_with_files();
        let before = site.snapshot();
        let reply = site.receive("many", &many);
        reply.refused(74, "disk-full");
        assert_eq!(site.snapshot(), before);
        swaps_succeed_or_change_nothing(&site);
        ballast.remove();
        requests_succeed(&site);
    }
}

#[test]
fn swaps_without_free_blocks_succeed_or_change_nothing() {
    for kind in KINDS {
        let Some((site, mounted)) = small(kind) else {
            return;
        };
        make_two_live(&site);
        let ballast = mounted.fill();
        let before = site.snapshot();
        let reply = site.receive("c", &tarball(&[("index.html", b"c")]));
        reply.refused(74, "disk-full");
        assert_eq!(site.snapshot(), before);
        swaps_succeed_or_change_nothing(&site);
        ballast.remove();
        requests_succeed(&site);
    }
}

/// Runs swaps and rollbacks without any space. Each succeeds as reported, or fails and
/// changes nothing.
fn swaps_succeed_or_change_nothing(site: &Site) {
    for request in ["swap a", "swap b", "rollback", "swap b", "rollback a"] {
        let live = site.current();
        let reply = site.ssh("ci", request);
        match reply.code {
            0 if reply.stdout.ends_with("result=unchanged\n") => {
                assert_eq!(site.current(), live, "{request}");
            }
            0 => assert_ne!(site.current(), live, "{request}: {reply:?}"),
            // After a rollback there is no earlier confirmed release.
            66 => assert_eq!(site.current(), live, "{request}"),
            _ => {
                reply.refused(74, "disk-full");
                names_path_and_room(site, &reply);
                assert_eq!(site.current(), live, "{request}");
            }
        }
        let live = site.current().expect("a release is live");
        let content = fs::read_to_string(site.root().join("current/index.html"));
        assert_eq!(content.expect("it is readable"), live);
        let shown = site.ssh("ci", "list").ok();
        let first = shown.lines().nth(1).expect("a release");
        assert!(
            first.starts_with(&live) && first.contains(" current "),
            "{shown}"
        );
    }
}

/// With space again, requests succeed.
fn requests_succeed(site: &Site) {
    site.receive("d", &tarball(&[("index.html", b"d")])).ok();
    site.ssh("ci", "swap d").ok();
    assert_eq!(site.current().as_deref(), Some("d"));
    let mut seq = 0;
    for record in site.journal() {
        seq += 1;
        assert_eq!(record["seq"], seq, "{record}");
    }
    assert!(site.leftovers().is_empty());
}

/// Makes a site whose release `c` fails its check after this script has run.
fn with_failing_release(kind: Kind, command: &str) -> Option<(Site, Mounted)> {
    let script = format!("[ $DEPLOY_RELEASE != c ] || {{ cd {{dir}}/disk; {command}; exit 1; }}");
    let (site, mounted) = small_with(kind, &hook("after_swap", &script))?;
    make_two_live(&site);
    site.receive("c", &tarball(&[("index.html", b"c")])).ok();
    Some((site, mounted))
}

/// Uses every inode. The shell ends at the redirection that fails.
const USE_EVERY_INODE: &str =
    "mkdir ballast; i=0; while printf '' > ballast/$i; do i=$((i + 1)); done";

/// Asserts that `c` is rolled back although the disk is full. `a` is the state of the
/// first release afterwards.
fn is_rolled_back(site: &Site, mounted: &Mounted, a: &str) {
    let problem = gate_failed(&site.ssh("ci", "swap c"));
    assert!(problem.ends_with(", and 'b' is live again"), "{problem}");
    assert_eq!(site.current().as_deref(), Some("b"));
    assert_eq!(states(site), ["b current", "c bad", a]);
    Ballast(mounted.disk.join("ballast")).remove();
    requests_succeed(site);
}

const WITH_FEW_INODES: [Kind; 3] = [Kind::Tmpfs(120), Kind::Ext4(4096, 128), Kind::Xfs];

#[test]
fn a_release_that_uses_every_inode_is_rolled_back() {
    for kind in WITH_FEW_INODES {
        let Some((site, mounted)) = with_failing_release(kind, USE_EVERY_INODE) else {
            return;
        };
        is_rolled_back(&site, &mounted, "a previous");
    }
}

#[test]
fn a_release_that_uses_every_inode_is_rolled_back_to_an_unconfirmed_one() {
    for kind in WITH_FEW_INODES {
        let Some((site, mounted)) = with_failing_release(kind, USE_EVERY_INODE) else {
            return;
        };
        killed_during_checks(&site, "swapped", "a");
        is_rolled_back(&site, &mounted, "a bad");
    }
}

#[test]
fn a_release_that_uses_every_block_is_rolled_back() {
    for kind in [Kind::Tmpfs(120), Kind::Ext4(2048, 256), Kind::Xfs] {
        let Some((site, mounted)) = with_failing_release(kind, "cat /dev/zero > ballast") else {
            return;
        };
        is_rolled_back(&site, &mounted, "a previous");
    }
}

#[test]
fn without_space_for_the_fallback_symlink_nothing_is_swapped() {
    for kind in WITH_FEW_INODES {
        let Some((site, mounted)) = with_failing_release(kind, "touch ../ran") else {
            return;
        };
        let ballast = mounted.fill_with_files();
        let before = site.snapshot();
        let reply = site.ssh("ci", "swap c");
        reply.refused(74, "disk-full");
        names_path_and_room(&site, &reply);
        assert_eq!(site.snapshot(), before);
        assert!(!site.dir().join("ran").exists(), "{kind:?}");
        ballast.remove();
        requests_succeed(&site);
    }
}

#[test]
fn the_reserve_is_kept_free() {
    let site = Site::with_config("[limits]\nreserve = \"60%\"\n");
    let Some(_mounted) = Kind::Ext4(4096, 256).over(&site) else {
        return;
    };
    site.receive("small", &tarball(&[("a", b"1")])).ok();
    fs::write(site.root().join("shared/filler"), noise(2 << 20)).expect("a file");
    let before = site.snapshot();
    let reply = site.receive("next", &tarball(&[("a", b"2")]));
    reply.refused(74, "disk-full");
    names_path_and_room(&site, &reply);
    assert_eq!(site.snapshot(), before);
}

#[test]
fn the_reserve_of_inodes_is_kept_free() {
    for kind in [Kind::Ext4(4096, 256), Kind::Tmpfs(256)] {
        let site = Site::with_config("[limits]\nreserve = \"40%\"\n");
        let Some(mounted) = kind.over(&site) else {
            return;
        };
        let of_files = |count: usize| {
            let files = (0..count).fold(Tar::new(), |tar, n| tar.file(format!("f{n}"), b""));
            zstd(&files.end())
        };
        site.receive("small", &of_files(20)).ok();
        let refused = |release: &str, payload: &[u8], why: &str| {
            let before = site.snapshot();
            let reply = site.receive(release, payload);
            reply.refused(74, "disk-full");
            assert!(reply.stderr.contains(why), "{kind:?}: {reply:?}");
            names_path_and_room(&site, &reply);
            assert_eq!(site.snapshot(), before, "{kind:?}");
        };
        // The inodes suffice only with those of the reserve.
        let why = "would take more than half of what uploads may use";
        refused("next", &of_files(150), why);
        site.receive("next", &of_files(21)).ok();
        // Another process has used the inodes above the reserve.
        for number in 0..100 {
            File::create(mounted.disk.join(number.to_string())).expect("a file");
        }
        site.ssh("ci", "swap next").ok();
        refused(
            "other",
            &tarball(&[("a", b"2")]),
            "the configured reserve would be used",
        );
    }
}
