//! What an account can make `adopt` do as root is bounded.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::Uid;

use crate::adopt::{adopted, prevented};
use crate::adopt_layouts::{SHARED, command, deployer, hour, put_file, script};
use crate::direct::{everything, states};
use crate::site::Site;

/// A sparse file takes no room on the disk, and hours to hash.
#[test]
fn a_release_larger_than_an_archive_may_be_is_not_adopted() {
    let limits = "[archive]\nmax_unpacked = \"1MiB\"\nmax_entries = 20\n";
    let live = "20211106-005145";
    let site = Site::with_config(limits);
    script(&site, &[live]);
    let file = fs::File::create(site.root().join("releases").join(live).join("sparse"));
    file.and_then(|file| file.set_len(8 << 20))
        .expect("a sparse file");
    let printed = prevented(&site);
    let fault = "'.' has more than 1048576 bytes ('max_unpacked')\n";
    assert!(printed.contains(fault), "{printed}");
    let site = Site::with_config(limits);
    script(&site, &[live]);
    for number in 0..20 {
        put_file(&site, &format!("releases/{live}/d/{number}"), "");
    }
    let printed = prevented(&site);
    let fault = "'.' has more than 20 entries ('max_entries')\n";
    assert!(printed.contains(fault), "{printed}");
}

/// Each deployment becomes a record, which is synced while the lock is held.
#[test]
fn only_the_newest_lines_of_a_long_log_become_records() {
    let site = Site::with_config(SHARED);
    deployer(&site, &["1", "2", "3"]);
    let log = site.root().join(".dep/releases_log");
    let newest = fs::read_to_string(&log).expect("the log");
    let time = hour(0).replace('Z', "+0000");
    let line = |id| format!("{{\"created_at\":\"{time}\",\"release_name\":\"{id}\"}}\n");
    fs::write(&log, [line(1), line(2)].concat().repeat(20_000) + &newest).expect("the log");
    adopted(&site);
    let records = site.journal().len();
    assert!(records < 1000, "{records}");
    assert_eq!(states(&site), ["3 current", "2 previous", "1 good"]);
}

/// The lock is a file of the account. root could open it by a group of its own, and the
/// account could not.
#[test]
fn root_has_no_group_of_its_own_while_it_acts_as_the_account() {
    const NOBODY: u32 = 65534;
    const GROUP: u32 = 54_321;
    if !Uid::effective().is_root() {
        println!("skipped: only root acts as another user");
        return;
    }
    let site = Site::new();
    script(&site, &["20211106-005145"]);
    site.give_to("65534");
    let lock = site.root().join(".deploy-shell/lock");
    fs::write(&lock, "").expect("a file");
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o060)).expect("our file");
    chown(&lock, Some(0), Some(GROUP)).expect("root can");
    let before = everything(&site);
    let adopt = command(&site, true);
    let mut setpriv = Command::new("setpriv");
    setpriv.env_clear().args(["--groups", &GROUP.to_string()]);
    setpriv.arg(adopt.get_program()).args(adopt.get_args());
    let reply = site.run(setpriv, b"");
    reply.refused(78, "bad-layout");
    assert!(reply.stderr.contains("permission denied"), "{reply:?}");
    assert_eq!(everything(&site), before);
    chown(&lock, Some(NOBODY), None).expect("root can");
}

/// The account could fill the memory of root's process.
#[test]
fn the_number_of_names_in_releases_is_limited() {
    let live = "20211106-005145";
    let site = Site::new();
    script(&site, &[live]);
    let junk = site.root().join("releases");
    let file = site.dir().join("file");
    // A name takes less than a file. A file system has a maximum for each file (ext4: 65,000).
    for number in 0..100_000 {
        if number % 20_000 == 0 {
            _ = fs::remove_file(&file);
            fs::write(&file, "").expect("a file");
        }
        fs::hard_link(&file, junk.join(format!("j{number}"))).expect("a name");
    }
    let before = states_on_disk(&site);
    let reply = site.run(command(&site, true), b"");
    reply.refused(78, "bad-layout");
    let problem = format!("'{}' has more than 100000 names", junk.display());
    assert!(reply.stderr.contains(&problem), "{reply:?}");
    assert_eq!(states_on_disk(&site), before);
    // With one name less, it lists them all as left alone.
    fs::remove_file(junk.join("j0")).expect("a name");
    adopted(&site);
    assert_eq!(states(&site), [format!("{live} current")]);
}

fn states_on_disk(site: &Site) -> Option<PathBuf> {
    fs::read_link(site.root().join("current")).ok()
}
