//! Deltas on a site whose new files inherit a group or a default list, also when the site
//! changes after its base was received.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::delta_payload::{Release, delta, tree, whole};
use crate::direct::{ask, everything, serve};
use crate::inheritance::{extended, has_lists, other_group, set_acl, set_group};
use crate::site::{Reply, Site, admin};

const OLD: &Release<'_> = &[
    ("assets/", ""),
    ("assets/keep.css", "keep"),
    ("index.html", "old"),
];

const NEW: &Release<'_> = &[
    ("assets/", ""),
    ("assets/keep.css", "keep"),
    ("assets/more.css", "more"),
    ("index.html", "new"),
];

/// Both modes of `reuse`.
const MODES: [&str; 2] = ["clone", "link"];

/// The configuration with a mode of `reuse`.
fn config(mode: &str) -> String {
    format!("verify_on_swap = true\n[archive]\nacl = \"inherit\"\n[delta]\nreuse = \"{mode}\"\n")
}

fn receive_base(site: &Site) {
    site.receive("old", &whole(OLD)).ok();
    ask(site, "swap old").ok();
}

fn send(site: &Site) -> Reply {
    let payload = delta(OLD, NEW);
    let command = Site::receive_command("new", &payload);
    let request = format!("{command} --tree {} --base old", tree(NEW));
    site.run(serve(site, "ci", request), &payload)
}

/// Checks that the release can become live, and that both releases are as received.
#[track_caller]
fn works(site: &Site) {
    ask(site, "swap new").ok();
    ask(site, "rollback").ok();
    let mut command = Command::new(admin());
    command.args(["verify", "--config"]).arg(site.config_path());
    site.run(command, b"").ok();
    assert!(site.leftovers().is_empty());
}

fn file(site: &Site, release: &str, name: &str) -> PathBuf {
    site.root().join("releases").join(release).join(name)
}

fn mode(path: &Path) -> u32 {
    let found = fs::symlink_metadata(path).expect("it exists");
    found.permissions().mode() & 0o7777
}

/// Returns the paths of the new release, and whether the delta takes each from the base.
fn paths(site: &Site) -> Vec<(PathBuf, bool)> {
    [
        "",
        "assets",
        "assets/keep.css",
        "assets/more.css",
        "index.html",
    ]
    .map(|name| (file(site, "new", name), name == "assets/keep.css"))
    .into()
}

#[test]
fn a_delta_follows_a_set_group_id_directory() {
    let Some(group) = other_group() else {
        println!("skipped: this user has one group");
        return;
    };
    for reuse in MODES {
        for later in [false, true] {
            let site = Site::with_config(&config(reuse));
            if later {
                receive_base(&site);
                set_group(&site.root().join("releases"), group);
            } else {
                set_group(&site.root().join("releases"), group);
                receive_base(&site);
            }
            let own = fs::metadata(file(&site, "old", "index.html")).expect("a file");
            send(&site).ok();
            for (path, is_reused) in paths(&site) {
                let found = fs::metadata(&path).expect("it exists");
                // A link has the group of its file.
                let is_linked = is_reused && reuse == "link";
                let expected = if is_linked { own.gid() } else { group };
                assert_eq!(found.gid(), expected, "{reuse}, {later}: {path:?}");
                let plain = if path.is_dir() { 0o755 } else { 0o644 };
                assert_eq!(mode(&path), plain, "{reuse}, {later}: {path:?}");
            }
            works(&site);
        }
    }
}

#[track_caller]
fn has_the_list(reuse: &str, path: &Path) {
    let list = extended(path);
    assert!(
        list.contains("user:nobody:r-x"),
        "{reuse}: {path:?}: {list}"
    );
}

#[test]
fn a_delta_inherits_the_default_list_of_its_base() {
    if !has_lists() {
        return;
    }
    for reuse in MODES {
        let site = Site::with_config(&config(reuse));
        set_acl(&site.root().join("releases"), "-d -m u:nobody:rx,o::---");
        receive_base(&site);
        send(&site).ok();
        for (path, _) in paths(&site) {
            has_the_list(reuse, &path);
            let narrow = if path.is_dir() { 0o750 } else { 0o640 };
            assert_eq!(mode(&path), narrow, "{reuse}: {path:?}");
        }
        works(&site);
    }
}

/// A copy is a new file, and inherits as one. A link has the mode of its file, so a base with
/// another one cannot be linked, and the client sends everything.
#[test]
fn a_base_without_the_list_of_today_is_copied_or_refused() {
    if !has_lists() {
        return;
    }
    for reuse in MODES {
        let site = Site::with_config(&config(reuse));
        receive_base(&site);
        set_acl(&site.root().join("releases"), "-d -m u:nobody:rx,o::---");
        let before = everything(&site);
        let reply = send(&site);
        if reuse == "link" {
            reply.refused(74, "base-damaged");
            assert!(reply.stderr.contains("'./assets/keep.css'"), "{reply:?}");
            assert!(reply.stderr.contains("--base"), "{reply:?}");
            assert!(everything(&site) == before);
            assert!(site.leftovers().is_empty());
            site.receive("new", &whole(NEW)).ok();
        } else {
            reply.ok();
        }
        for (path, _) in paths(&site) {
            has_the_list(reuse, &path);
        }
        works(&site);
    }
}

/// The list of a file is that of the day on which the file was made, if the mode is the same.
#[test]
fn a_link_keeps_the_list_of_its_file() {
    if !has_lists() {
        return;
    }
    for reuse in MODES {
        let site = Site::with_config(&config(reuse));
        let releases = site.root().join("releases");
        set_acl(&releases, "-d -m u:nobody:rx,o::---");
        receive_base(&site);
        set_acl(&releases, "-d -x u:nobody -m u:daemon:rx");
        send(&site).ok();
        for (path, is_reused) in paths(&site) {
            let is_linked = is_reused && reuse == "link";
            let list = extended(&path);
            assert_eq!(list.contains("user:nobody"), is_linked, "{path:?}: {list}");
            assert_eq!(list.contains("user:daemon"), !is_linked, "{path:?}: {list}");
        }
        works(&site);
    }
}
