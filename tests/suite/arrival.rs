//! The payload on its way to the unpacker: what is parsed when, and what a defect at any
//! place of it leaves behind.

use std::fs;
use std::path::PathBuf;

use nix::unistd::Uid;

use crate::archive::{Frame, Tar, tarball, zstd};
use crate::mode::{self, Mode};
use crate::process::{Process, Upload, eventually, serving, unpacking};
use crate::receive::{leaves_nothing, no_debris, noise};
use crate::site::Site;

/// The size of a block, in bytes.
const BLOCK: usize = 100_000;

/// Returns an archive of two files, in blocks that zstd does not compress, and the number
/// of bytes in which the first file is whole.
fn two_files() -> (Vec<u8>, usize) {
    let first = Tar::new().file("first", noise(600_000)).cut();
    let tar = Tar::new()
        .file("first", noise(600_000))
        .file("second", noise(600_000))
        .end();
    let frame = |blocks: usize| {
        let blocks = tar.chunks(BLOCK).take(blocks);
        blocks.fold(Frame::window(20, 0), Frame::raw)
    };
    // The header of the second file shows that the first one has ended.
    let sent = frame((first.len() + 512).div_ceil(BLOCK)).cut().len();
    (frame(usize::MAX).end(), sent)
}

/// Returns the size of a file in the only staging directory, in bytes.
fn staged(site: &Site, name: &str) -> Option<u64> {
    let incoming = site.root().join(".deploy-shell/incoming");
    let staging = fs::read_dir(incoming).ok()?.flatten().next()?;
    let file = staging.path().join("tree").join(name);
    fs::metadata(file).ok().map(|meta| meta.len())
}

/// Returns whether a process that serves the site has a file without a name below its root.
/// None for an ordinary user, who cannot see the descriptors of a process that is not
/// dumpable.
fn has_spool(site: &Site) -> Option<bool> {
    let incoming = site.root().join(".deploy-shell/incoming");
    let is_spool = |target: PathBuf| {
        target.starts_with(&incoming) && target.to_string_lossy().ends_with("(deleted)")
    };
    let has_one = |process: Process| {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", process.pid));
        let mut descriptors = descriptors.into_iter().flatten().flatten();
        descriptors.any(|fd| is_spool(fs::read_link(fd.path()).unwrap_or_default()))
    };
    let is_root = Uid::effective().is_root();
    is_root.then(|| serving(site).into_iter().any(has_one))
}

#[test]
fn a_signed_payload_is_parsed_after_its_digest_and_another_one_while_it_arrives() {
    let (payload, whole_first) = two_files();
    for mode in Mode::BOTH {
        let site = mode.site("[limits]\nidle_timeout = \"100s\"\n");
        let mut upload = Upload::taken_up(&site, &mode.command("r1", &payload));
        upload.send(&payload[..whole_first]);
        match mode {
            Mode::Arriving => {
                eventually("the first file is written", || {
                    staged(&site, "first") == Some(600_000)
                });
                assert_eq!(unpacking(&site).len(), 1);
                assert_ne!(has_spool(&site), Some(true));
            }
            Mode::Spooled => {
                eventually("the payload is spooled", || has_spool(&site) != Some(false));
                assert_eq!(unpacking(&site).len(), 0);
                assert_eq!(staged(&site, "first"), None);
            }
        }
        upload.send(&payload[whole_first..]);
        upload.close();
        upload.finish().ok();
        assert_eq!(site.releases(), ["r1"]);
        no_debris(&site);
    }
}

#[test]
fn a_client_that_stops_inside_a_frame_times_out() {
    let (payload, whole_first) = two_files();
    for mode in Mode::BOTH {
        let site = mode.site("[limits]\nidle_timeout = \"2s\"\n");
        let mut upload = Upload::taken_up(&site, &mode.command("r1", &payload));
        upload.send(&payload[..whole_first]);
        let reply = upload.outlast();
        leaves_nothing(&site, &reply, 74, "timeout");
        let told = format!("nothing came for 2 s, after {whole_first} bytes of the payload");
        assert!(reply.stderr.contains(&told), "{mode:?}: {reply:?}");
        eventually("no process is left", || unpacking(&site).is_empty());
    }
}

#[test]
fn a_frame_that_ends_early_is_refused() {
    let (payload, whole_first) = two_files();
    let cut = &payload[..whole_first];
    for mode in Mode::BOTH {
        let site = mode.site("");
        // The digest is that of the cut payload.
        let reply = mode.receive(&site, "r1", cut);
        leaves_nothing(&site, &reply, 65, "bad-archive");
        let rule = "zstd data is damaged or cut short";
        assert!(reply.stderr.contains(rule), "{mode:?}: {reply:?}");
        // The digest is that of the whole payload: the connection broke.
        let reply = site.ssh_with_input("ci", &mode.command("r1", &payload), cut);
        leaves_nothing(&site, &reply, 65, "digest-mismatch");
        mode.receive(&site, "r1", &payload).ok();
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let (payload, _) = two_files();
    let longer = [payload.as_slice(), b"more"].concat();
    for mode in Mode::BOTH {
        let site = mode.site("");
        let reply = mode.receive(&site, "r1", &longer);
        leaves_nothing(&site, &reply, 65, "bad-archive");
        let rule = "data after the last zstd frame";
        assert!(reply.stderr.contains(rule), "{mode:?}: {reply:?}");
        let reply = site.ssh_with_input("ci", &mode.command("r1", &payload), &longer);
        leaves_nothing(&site, &reply, 65, "digest-mismatch");
    }
}

#[test]
fn a_wrong_digest_after_everything_was_unpacked_leaves_nothing() {
    let (payload, _) = two_files();
    for mode in Mode::BOTH {
        let site = mode.site("[limits]\nidle_timeout = \"100s\"\n");
        let mut upload = Upload::taken_up(&site, &mode.command("r1", b"something else"));
        upload.send(&payload);
        if mode == Mode::Arriving {
            eventually("the last file is written", || {
                staged(&site, "second") == Some(600_000)
            });
        }
        upload.close();
        leaves_nothing(&site, &upload.finish(), 65, "digest-mismatch");
        eventually("no process is left", || unpacking(&site).is_empty());
    }
}

/// A broken connection damages the archive too. Its digest is the reason then.
#[test]
fn a_wrong_digest_is_reported_before_a_bad_archive() {
    let hostile = zstd(&Tar::new().file("../escape", b"x").end());
    for mode in Mode::BOTH {
        let site = mode.site("");
        let reply = site.ssh_with_input("ci", &mode.command("r1", b"other"), &hostile);
        leaves_nothing(&site, &reply, 65, "digest-mismatch");
        let reply = mode.receive(&site, "r1", &hostile);
        leaves_nothing(&site, &reply, 65, "bad-archive");
    }
}

/// The unpacker refuses the first entry and ends. The client sends the other 8 MB all the
/// same, and reads the reason.
#[test]
fn a_client_can_send_everything_after_the_unpacker_has_refused() {
    let tar = Tar::new()
        .file("../escape", b"x")
        .file("big", noise(8 << 20));
    let payload = zstd(&tar.end());
    for mode in Mode::BOTH {
        let site = mode.site("");
        let mut upload = Upload::taken_up(&site, &mode.command("r1", &payload));
        let (head, tail) = payload.split_at(payload.len() / 2);
        upload.send(head);
        if mode == Mode::Arriving {
            eventually("the unpacker has refused it", || {
                unpacking(&site).is_empty()
            });
        }
        upload.send(tail);
        assert!(!upload.client.is_over(), "{mode:?}");
        upload.close();
        let reply = upload.finish();
        leaves_nothing(&site, &reply, 65, "bad-archive");
        assert!(
            reply.stderr.contains("name has '..'"),
            "{mode:?}: {reply:?}"
        );
    }
}

/// A statement about the tree covers no byte of the payload, so nothing waits for its
/// digest.
#[test]
fn a_payload_whose_tree_is_signed_is_unpacked_while_it_arrives() {
    let content = noise(600_000);
    let payload = tarball(&[("first", &content), ("second", &content)]);
    let plain = Site::new();
    let reply = plain.receive("r1", &payload).ok();
    let tree = reply
        .split_once("tree=")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .expect("a digest");

    let site = Mode::Spooled.site("[limits]\nidle_timeout = \"100s\"\n");
    let command = mode::with_signed_tree("r1", &payload, tree);
    let mut upload = Upload::taken_up(&site, &command);
    upload.send(&payload[..900_000]);
    eventually("the first file is written", || {
        staged(&site, "first") == Some(600_000)
    });
    assert_ne!(has_spool(&site), Some(true));
    upload.send(&payload[900_000..]);
    upload.close();
    upload.finish().ok();
    assert!(site.root().join("releases/r1/second").is_file());
}

/// Otherwise the files of a killed upload could leave no room, and every receive would be
/// refused before it removes them.
#[test]
fn what_a_killed_receive_has_left_goes_before_the_room_is_measured() {
    let site = Site::new();
    let left = site.root().join(".deploy-shell/incoming/old.1.0");
    std::fs::create_dir_all(left.join("tree")).expect("a directory");
    std::fs::write(left.join("tree/file"), "left").expect("a file");
    let bytes = tarball(&[("a", b"a")]);
    let mut upload = Upload::start(&site, &Site::receive_command("r1", &bytes));
    eventually("what was left is removed", || !left.exists());
    assert!(site.releases().is_empty());
    upload.send(&bytes);
    upload.close();
    upload.finish().ok();
}
