//! `init` as root: which directories and symlinks above a site it trusts.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::Path;

use nix::unistd::Uid;

use crate::operator::{init, take_back};
use crate::site::{Reply, Site, set_mode};

const NOBODY: u32 = 65534;
const DAEMON: u32 = 1;

/// Runs `init` for a site of nobody's at `path`, below the directory of the test.
fn run(site: &Site, path: &str) -> Reply {
    let config = site.dir().join("shop.toml");
    let _ = fs::remove_file(&config);
    site.run(init(&config, &site.dir().join(path)), b"")
}

fn is_root() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        println!("skipped: only root must distrust other users");
    }
    is_root
}

fn make(path: &Path, owner: u32) {
    fs::create_dir(path).expect("a directory");
    set_mode(path, 0o755);
    if Uid::effective().is_root() {
        lchown(path, Some(owner), None).expect("root can");
    }
}

/// An operator may have moved `/srv/www` to another disk.
#[test]
fn a_symlink_of_roots_above_the_site_is_followed() {
    let site = Site::new();
    let own = Uid::effective().as_raw();
    make(&site.dir().join("data"), own);
    for (name, target) in [
        ("relative", "data".to_owned()),
        ("absolute", site.dir().join("data").display().to_string()),
        ("up", "data/../data".to_owned()),
        ("twice", "relative".to_owned()),
    ] {
        symlink(target, site.dir().join(name)).expect("a symlink");
        run(&site, &format!("{name}/a/{name}")).ok();
        let root = site.dir().join("data/a").join(name);
        assert!(root.join(".deploy-shell/manifests").is_dir(), "{name}");
        take_back(&root);
    }
    // The root directory itself is none: every request would have to follow it.
    symlink("data", site.dir().join("link")).expect("a symlink");
    run(&site, "link").refused(78, "bad-layout");
    symlink("loop", site.dir().join("loop")).expect("a symlink");
    let reply = run(&site, "loop/a");
    assert!(matches!(reply.code, 74 | 78), "{reply:?}");
}

#[test]
fn a_path_that_another_user_can_change_is_refused() {
    if !is_root() {
        return;
    }
    type Change = fn(&Path);
    let faults: [(&str, &str, Change); 5] = [
        ("is a symlink of user 1, ", "readlink -f ", |above| {
            make(&above.with_file_name("other"), 0);
            symlink("other", above).expect("a symlink");
            lchown(above, Some(DAEMON), None).expect("root can");
        }),
        ("is a symlink of user 65534, ", "readlink -f ", |above| {
            make(&above.with_file_name("other"), 0);
            symlink("other", above).expect("a symlink");
            lchown(above, Some(NOBODY), None).expect("root can");
        }),
        ("belongs to user 1, ", "give --root ", |above| {
            make(above, DAEMON);
        }),
        ("can be written by every user, ", "give --root ", |above| {
            make(above, 0);
            set_mode(above, 0o777);
        }),
        ("can be written by group 0, ", "give --root ", |above| {
            make(above, 0);
            set_mode(above, 0o775);
        }),
    ];
    for (problem, remedy, change) in faults {
        let site = Site::new();
        let above = site.dir().join("above");
        change(&above);
        let reply = run(&site, "above/shop");
        reply.refused(78, "bad-layout");
        assert!(
            reply.stderr.contains(problem) && reply.stderr.contains(remedy),
            "{reply:?}"
        );
        assert!(!above.join("shop").exists(), "{problem}");
        assert!(!site.dir().join("shop.toml").exists(), "{problem}");
    }
    // Directories of the account, and those in which only an owner replaces an entry.
    for (owner, mode) in [(NOBODY, 0o755), (0, 0o1777)] {
        let site = Site::new();
        let above = site.dir().join("above");
        make(&above, owner);
        set_mode(&above, mode);
        run(&site, "above/shop").ok();
        let root = fs::metadata(above.join("shop")).expect("a directory");
        assert_eq!(root.uid(), NOBODY);
    }
}
