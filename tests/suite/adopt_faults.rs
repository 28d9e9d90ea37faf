//! What prevents an adoption, what it leaves alone, and what root changes.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::unistd::Uid;

use crate::adopt::{adopted, prevented};
use crate::adopt_layouts::{SHARED, deployer, plain_directory, put_file, script};
use crate::direct::{everything, states};
use crate::mounted::in_namespace;
use crate::site::{Site, admin, set_mode, with_admin};

/// Makes a fault in a release, below this directory.
type MakeFault = fn(&Path);

const UNREADABLE: &str = "its owner has no right to";

const FAULTS: [(&str, MakeFault, &str); 10] = [
    (
        "var",
        |at| set_mode(&at.join("var"), 0o777),
        "can be written by everybody",
    ),
    (
        "index.html",
        |at| set_mode(&at.join("index.html"), 0o666),
        "can be written by everybody",
    ),
    (
        "index.html",
        |at| set_mode(&at.join("index.html"), 0o600),
        "cannot be read by everybody",
    ),
    (
        "index.html",
        |at| set_mode(&at.join("index.html"), 0o200),
        UNREADABLE,
    ),
    (
        "out",
        |at| symlink("/etc/passwd", at.join("out")).expect("a symlink"),
        "is a symlink that no release may have",
    ),
    (
        "out",
        |at| symlink("../../shared/other", at.join("out")).expect("a symlink"),
        "leads out of the release",
    ),
    (
        "fifo",
        |at| nix::unistd::mkfifo(&at.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a fifo"),
        "is a fifo",
    ),
    (
        "index.html",
        |at| fs::hard_link(at.join("index.html"), at.join("../../shared/other")).expect("a link"),
        "has another name outside of the releases",
    ),
    (
        "a\\x0ab",
        |at| fs::write(at.join("a\nb"), "").expect("a file"),
        "has a name that no release may have",
    ),
    (
        "loop",
        |at| symlink("loop", at.join("loop")).expect("a symlink"),
        "leads back to itself",
    ),
];

/// Returns the faults that this user can make, and look at afterwards.
fn faults() -> impl Iterator<Item = (&'static str, MakeFault, &'static str)> {
    let is_root = Uid::effective().is_root();
    let faults = FAULTS.into_iter();
    faults.filter(move |(_, _, text)| is_root || *text != UNREADABLE)
}

#[test]
fn a_fault_of_the_live_release_prevents_the_adoption_and_has_a_remedy() {
    for (name, make, text) in faults() {
        let site = Site::new();
        script(&site, &["20211106-005145", "20211106-015145"]);
        put_file(&site, "releases/20211106-015145/var/cache", "");
        make(&site.root().join("releases/20211106-015145"));
        let printed = prevented(&site);
        let lines: Vec<&str> = printed.lines().collect();
        let fault = lines.iter().position(|line| line.contains(text));
        let fault = fault.unwrap_or_else(|| panic!("{text}: {printed}"));
        let start = "the live release '20211106-015145' cannot be adopted: ";
        assert!(lines[fault].starts_with(start), "{printed}");
        assert!(lines[fault].contains(&format!("'./{name}'")), "{printed}");
        let remedy = lines[fault + 1];
        assert!(
            remedy.starts_with("  ") && !remedy.contains("777"),
            "{printed}"
        );
    }
}

#[test]
fn an_old_release_with_a_fault_is_left_alone() {
    for (name, make, text) in faults() {
        let site = Site::new();
        script(&site, &["20211106-005145", "20211106-015145"]);
        let old = site.root().join("releases/20211106-005145");
        put_file(&site, "releases/20211106-005145/var/cache", "");
        make(&old);
        let printed = adopted(&site);
        let line = format!("'20211106-005145' is left alone: './{name}' ");
        assert!(
            printed.contains(&line) && printed.contains(text),
            "{printed}"
        );
        let expected = ["20211106-015145 current", "20211106-005145 not-received"];
        assert_eq!(states(&site), expected);
        assert!(old.exists());
    }
}

/// Such modes stay as they are where `acl` says so: an adoption gives nobody a right.
#[test]
fn modes_that_others_cannot_read_are_adopted_with_an_inherited_acl() {
    let site = Site::with_config("[archive]\nacl = \"inherit\"\n");
    script(&site, &["20211106-005145"]);
    let page = site.root().join("releases/20211106-005145/index.html");
    set_mode(&page, 0o640);
    adopted(&site);
    assert_eq!(fs::metadata(page).expect("it exists").mode() & 0o777, 0o640);
}

#[test]
fn hard_links_between_adopted_releases_stay() {
    let site = Site::new();
    script(&site, &["20211106-005145", "20211106-015145"]);
    let releases = site.root().join("releases");
    for name in ["20211106-005145", "20211106-015145"] {
        fs::remove_file(releases.join(name).join("index.html")).expect("it exists");
    }
    put_file(&site, "releases/20211106-005145/index.html", "same");
    fs::hard_link(
        releases.join("20211106-005145/index.html"),
        releases.join("20211106-015145/index.html"),
    )
    .expect("a hard link");
    adopted(&site);
    assert_eq!(states(&site).len(), 2);
}

/// root gives the releases of the old account to the new one, and nothing else.
#[test]
fn root_adopts_the_site_of_another_account() {
    const DAEMON: u32 = 1;
    const NOBODY: u32 = 65534;
    if !Uid::effective().is_root() {
        println!("skipped: only root changes owners");
        return;
    }
    let site = Site::with_config(SHARED);
    set_mode(&site.dir().join("audit.socket"), 0o666);
    deployer(&site, &["1", "2"]);
    let chown = |user: u32, path: &str| site.give_below(path, &user.to_string());
    chown(DAEMON, "");
    chown(NOBODY, ".deploy-shell");
    chown(0, "shared");
    // A file of the application, and one with a name elsewhere, as an attacker makes it.
    chown(33, "releases/1/REVISION");
    let printed = adopted(&site);
    let root = site.root().display();
    for line in [
        format!("chown '{root}' from user 1 to user 65534\n"),
        format!("chown '{root}/releases' from user 1 to user 65534\n"),
        "  chown '.' from user 1 to user 65534, and 6 more\n".to_owned(),
        "'1' is left alone: './REVISION' belongs to user 33".to_owned(),
    ] {
        assert!(printed.contains(&line), "{line}{printed}");
    }
    let owner = |path: &str| {
        let found = fs::symlink_metadata(site.root().join(path));
        found.expect("it exists").uid()
    };
    for path in [
        "",
        "releases",
        "releases/2/.env",
        "releases/2/storage/.gitkeep",
    ] {
        assert_eq!(owner(path), NOBODY, "{path}");
    }
    for path in [
        ".deploy-shell/lock",
        ".deploy-shell/journal.jsonl",
        ".deploy-shell/manifests/2",
    ] {
        assert_eq!(owner(path), NOBODY, "{path}");
    }
    assert_eq!(
        (owner("shared/.env"), owner("releases/1/index.html")),
        (0, DAEMON)
    );
}

/// The owner of a release can exchange each name in it. So the commands of the plan are his.
#[test]
fn root_runs_the_commands_of_the_plan_as_the_owner_of_the_release() {
    if !Uid::effective().is_root() {
        println!("skipped: only root has the releases of another user");
        return;
    }
    let site = Site::new();
    set_mode(&site.dir().join("audit.socket"), 0o666);
    script(&site, &["1"]);
    let live = site.root().join("releases/1");
    put_file(&site, "releases/1/var/index.html", "1");
    for (account, path) in [("daemon", ""), ("65534", ".deploy-shell"), ("0", "shared")] {
        site.give_below(path, account);
    }
    set_mode(&live.join("var/index.html"), 0o666);
    let printed = prevented(&site);
    let remedy = printed
        .split_once("if nobody writes it: ")
        .expect("a way")
        .1;
    let command = remedy.lines().next().expect("a command");
    assert!(command.contains(" --owner 1 -- chmod go-w '"), "{command}");
    // The name leads to a file of root's now.
    let secret = site.dir().join("secret");
    fs::write(&secret, "of root").expect("a file");
    set_mode(&secret, 0o666);
    fs::rename(live.join("var"), live.join("away")).expect("moved");
    fs::create_dir(live.join("var")).expect("a directory");
    symlink(&secret, live.join("var/index.html")).expect("a symlink");
    let run = || {
        let done = Command::new("sh")
            .args(["-c", &with_admin(command)])
            .output();
        done.expect("sh starts").status.success()
    };
    assert!(!run(), "{command}");
    assert_eq!(
        fs::metadata(&secret).expect("it exists").mode() & 0o777,
        0o666
    );
    fs::remove_dir_all(live.join("var")).expect("removed");
    fs::rename(live.join("away"), live.join("var")).expect("moved back");
    assert!(run(), "{command}");
    adopted(&site);
}

#[test]
fn root_gives_away_no_file_that_has_another_name() {
    if !Uid::effective().is_root() {
        println!("skipped: only root changes owners");
        return;
    }
    let site = Site::new();
    set_mode(&site.dir().join("audit.socket"), 0o666);
    script(&site, &["20211106-005145", "20211106-015145"]);
    site.give_below(".deploy-shell", "65534");
    let secret = site.dir().join("secret");
    fs::write(&secret, "of root").expect("a file");
    set_mode(&secret, 0o644);
    let live = site.root().join("releases/20211106-015145");
    fs::hard_link(&secret, live.join("secret")).expect("a hard link");
    let printed = prevented(&site);
    assert!(printed.contains("'./secret' has another name"), "{printed}");
    assert_eq!(fs::metadata(&secret).expect("it exists").uid(), 0);
}

/// No rename moves a mount point, and what is mounted is not part of a release.
#[test]
fn a_mount_at_or_below_the_live_release_prevents_the_adoption() {
    let site = Site::new();
    plain_directory(&site);
    put_file(&site, "current/data/file", "x");
    let outside = site.dir().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("index.html"), "outside").expect("a file");
    let before = everything(&site);
    for (place, named) in [("current", "'.'"), ("current/data", "'./data'")] {
        let script = format!(
            "mount --bind '{}' '{}' || exit 90\n'{}' adopt --yes --config '{}'\n",
            outside.display(),
            site.root().join(place).display(),
            admin().display(),
            site.config_path().display()
        );
        let Some(done) = in_namespace(&script) else {
            return;
        };
        let printed = String::from_utf8_lossy(&done.stdout);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        let fault = format!("cannot be adopted: {named} is a mount point\n");
        assert!(printed.contains(&fault), "{printed}");
        assert_eq!(everything(&site), before);
    }
}

/// Deployer gives the web server rights by such a list (`writable_mode`). Without it, the
/// application could not write any more.
#[test]
fn a_directory_that_an_acl_lets_another_user_write_prevents_the_adoption() {
    let site = Site::new();
    script(&site, &["20211106-005145"]);
    put_file(&site, "releases/20211106-005145/var/cache", "");
    let var = site.root().join("releases/20211106-005145/var");
    let setfacl = Command::new("setfacl")
        .args(["-m", "u:33:rwx"])
        .arg(&var)
        .status();
    if !setfacl.expect("setfacl of the package acl").success() {
        println!("skipped: this file system has no access control lists");
        return;
    }
    let printed = prevented(&site);
    let fault = "'./var' can be written by its group or its ACL\n";
    assert!(printed.contains(fault), "{printed}");
}
