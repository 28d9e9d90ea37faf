//! The next request that changes the site removes what a crash left. It does not touch
//! what a running process uses.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::direct::{ask, live, put, states};
use crate::mode::Mode;
use crate::receive::{many_files, stopped_unpacker};
use crate::site::Site;

/// Leaves what processes leave that were killed while unpacking, while pruning, and
/// between the manifest and the release.
fn leave_debris(site: &Site) {
    let own = site.root().join(".deploy-shell");
    for place in ["incoming", "trash"] {
        let directory = own.join(place).join("half-a-release");
        fs::create_dir_all(directory.join("deep/deeper")).expect("a directory");
        fs::write(directory.join("index.html"), "half").expect("a file");
        fs::write(directory.join("deep/deeper/file"), "half").expect("a file");
        symlink("/etc/passwd", directory.join("link")).expect("a symlink");
        symlink(site.root().join("releases"), directory.join("deep/link")).expect("a symlink");
        fs::create_dir(own.join(place).join("empty")).expect("a directory");
        fs::write(own.join(place).join("file"), "a file").expect("a file");
    }
    fs::write(own.join("manifests/ghost"), "#mtree\n./index.html type=fi").expect("a file");
}

#[test]
fn debris_is_gone_after_the_next_change() {
    for change in ["swap a", "swap b", "rollback", "receive"] {
        let site = Site::new();
        live(&site, &["a", "b"]);
        let tidy = site.snapshot();
        leave_debris(&site);
        ask(&site, "list").ok();
        match change {
            "receive" => put(&site, "c"),
            request => _ = ask(&site, request).ok(),
        }
        assert_eq!(site.leftovers(), [] as [PathBuf; 0], "{change}");
        let ghost = site.root().join(".deploy-shell/manifests/ghost");
        assert!(!ghost.exists(), "{change}");
        // Symlinks in the debris led here, and their targets remain.
        for release in ["releases/a/index.html", "releases/b/index.html"] {
            let path = PathBuf::from(release);
            assert_eq!(site.snapshot().get(&path), tidy.get(&path), "{change}");
        }
    }
}

/// A release always has its manifest, so a manifest without a release is debris, and
/// the id is free.
#[test]
fn an_id_with_only_part_of_a_manifest_can_be_received() {
    let site = Site::new();
    leave_debris(&site);
    put(&site, "ghost");
    ask(&site, "swap ghost").ok();
    assert_eq!(states(&site), ["ghost current"]);
}

#[test]
fn the_staging_directory_of_a_running_receive_is_not_removed() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let (release, upload, child) = stopped_unpacker(Mode::Arriving, &site, &many_files(3000));
    let staging = site.leftovers();
    assert_eq!(staging.len(), 1, "{staging:?}");
    let held = site.snapshot();
    leave_debris(&site);
    for request in ["swap a", "swap b", "rollback", "swap b"] {
        ask(&site, request).ok();
        assert_eq!(site.leftovers(), staging, "{request}");
    }
    let now = site.snapshot();
    for (path, what) in &held {
        if path.starts_with(".deploy-shell/incoming") {
            assert_eq!(now.get(path), Some(what), "{}", path.display());
        }
    }
    kill(Pid::from_raw(child.pid), Signal::SIGCONT).expect("it goes on");
    let line = upload.finish().ok();
    assert!(line.contains(" files=3000 "), "{line}");
    ask(&site, &format!("swap {release}")).ok();
    assert_eq!(site.leftovers(), [] as [PathBuf; 0]);
}
