//! What a crash leaves behind is gone after the next request that changes
//! anything; what a living process is at work on is left alone.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::direct::{ask, live, put, states};
use crate::receive::{many_files, stopped_unpacker};
use crate::site::Site;

/// As if processes had died while unpacking, while pruning, and between the
/// manifest and the release.
fn strew(site: &Site) {
    let own = site.root().join(".deploy-shell");
    for place in ["incoming", "trash"] {
        let folder = own.join(place).join("half-a-release");
        fs::create_dir_all(folder.join("deep/deeper")).expect("a folder");
        fs::write(folder.join("index.html"), "half").expect("a file");
        fs::write(folder.join("deep/deeper/file"), "half").expect("a file");
        symlink("/etc/passwd", folder.join("link")).expect("a link");
        symlink(site.root().join("releases"), folder.join("deep/link")).expect("a link");
        fs::create_dir(own.join(place).join("empty")).expect("a folder");
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
        strew(&site);
        ask(&site, "list").ok();
        match change {
            "receive" => put(&site, "c"),
            request => _ = ask(&site, request).ok(),
        }
        assert_eq!(site.leftovers(), [] as [PathBuf; 0], "{change}");
        let ghost = site.root().join(".deploy-shell/manifests/ghost");
        assert!(!ghost.exists(), "{change}");
        // The links in it led here; what they led to stands.
        for release in ["releases/a/index.html", "releases/b/index.html"] {
            let path = PathBuf::from(release);
            assert_eq!(site.snapshot().get(&path), tidy.get(&path), "{change}");
        }
    }
}

/// A release is never without its manifest, so a manifest without a release
/// is debris, and the id is free.
#[test]
fn an_id_with_half_a_manifest_can_be_received() {
    let site = Site::new();
    strew(&site);
    put(&site, "ghost");
    ask(&site, "swap ghost").ok();
    assert_eq!(states(&site), ["ghost current"]);
}

#[test]
fn the_staging_of_a_running_receive_is_left_alone() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let (release, upload, child) = stopped_unpacker(&site, &many_files(3000));
    let staging = site.leftovers();
    assert_eq!(staging.len(), 1, "{staging:?}");
    let held = site.snapshot();
    strew(&site);
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
