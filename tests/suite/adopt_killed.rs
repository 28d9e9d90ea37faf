//! An adoption that is killed at any system call leaves the site live, and the next one
//! completes it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::unistd::Uid;

use crate::adopt_layouts::{
    SHARED, adopt, capistrano, clear, command, deployer, plain_directory, put_file,
};
use crate::direct::{ask, live, states};
use crate::site::{Site, set_mode};
use crate::strace;
use crate::verify::verify;

/// The system calls that change a file, or make a change durable.
const CHANGING: [&str; 14] = [
    "flock",
    "write",
    "pwrite64",
    "fchmod",
    "fchown",
    "fchownat",
    "symlinkat",
    "unlinkat",
    "renameat",
    "renameat2",
    "ftruncate",
    "fsync",
    "fdatasync",
    "syncfs",
];

/// Returns the page that a web server finds, without a symlink's or a directory's help.
fn page(root: &Path) -> std::io::Result<String> {
    fs::read_to_string(root.join("current/index.html"))
}

/// Kills an adoption at each system call of [`CHANGING`], and then adopts again.
fn killed_at_each_call(make: impl Fn(&Site), expected: &str, previous: Option<&str>) {
    let site = Site::with_config(SHARED);
    let mut kills = 0;
    for call in CHANGING {
        // Terminates: a call that the adoption does not reach kills nothing.
        for number in 1.. {
            clear(&site);
            make(&site);
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let options = ["-qq", "-o", "/dev/null", "-e", &inject];
            let reply = site.run(strace::under(&options, &command(&site, true)), b"");
            assert_eq!(
                page(site.root()).expect("a page"),
                expected,
                "{call} {number}"
            );
            if reply.code == 0 {
                break;
            }
            assert_eq!(reply.code, -1, "{call} {number}: {reply:?}");
            kills += 1;
            // A request in between neither fails in a new way nor prevents the rest.
            if number % 2 == 0 {
                let reply = ask(&site, "rollback");
                let page = page(site.root()).expect("a page");
                let is_refused = reply.code != 0 && page == expected;
                // The adoption was complete but for its last steps.
                let is_done = reply.code == 0 && previous == Some(page.as_str());
                assert!(is_refused || is_done, "{call} {number}: {reply:?}");
                if is_done {
                    continue;
                }
            }
            let reply = adopt(&site, true);
            assert_eq!(reply.code, 0, "{call} {number}: {reply:?}");
            assert_eq!(
                page(site.root()).expect("a page"),
                expected,
                "{call} {number}"
            );
            verify(&site, &[]).ok();
            let states = states(&site);
            let is_previous = |state: &String| state.ends_with(" previous");
            let found = states.iter().find(|state| is_previous(state));
            let wanted = previous.map(|previous| format!("{previous} previous"));
            assert_eq!(found, wanted.as_ref(), "{call} {number}: {states:?}");
        }
    }
    assert!(kills > 20, "{kills}");
}

#[test]
fn an_adoption_that_is_killed_is_completed() {
    let releases = ["20211106005145", "20211106015145"];
    killed_at_each_call(
        |site| capistrano(site, &releases),
        releases[1],
        Some(releases[0]),
    );
}

#[test]
fn an_adoption_without_a_new_symlink_that_is_killed_is_completed() {
    killed_at_each_call(|site| deployer(site, &["1", "2"]), "2", Some("1"));
}

#[test]
fn an_adoption_of_a_directory_that_is_killed_is_completed() {
    killed_at_each_call(plain_directory, "plain", None);
}

/// root changes the owners of a site of another account.
#[test]
fn an_adoption_by_root_that_is_killed_is_completed() {
    const DAEMON: u32 = 1;
    const NOBODY: u32 = 65534;
    if !Uid::effective().is_root() {
        println!("skipped: only root changes owners");
        return;
    }
    let site = Site::with_config(SHARED);
    set_mode(&site.dir().join("audit.socket"), 0o666);
    // Both users have a group of their own, with the same number.
    let chown = |user: u32, path: &str| site.give_below(path, &format!("{user}:{user}"));
    let mut kills = 0;
    for call in [
        "fchown",
        "fchownat",
        "setresuid",
        "setresgid",
        "setuid",
        "setgid",
        "setgroups",
        "fchmodat",
        "fchmod",
    ] {
        // Terminates: a call that the adoption does not reach kills nothing.
        for number in 1.. {
            clear(&site);
            capistrano(&site, &["20211106005145", "20211106015145"]);
            chown(DAEMON, "");
            chown(NOBODY, ".deploy-shell");
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let options = ["-qq", "-o", "/dev/null", "-e", &inject];
            let reply = site.run(strace::under(&options, &command(&site, true)), b"");
            assert_eq!(page(site.root()).expect("a page"), "20211106015145");
            if reply.code == 0 {
                break;
            }
            assert_eq!(reply.code, -1, "{call} {number}: {reply:?}");
            kills += 1;
            adopt(&site, true).ok();
            verify(&site, &[]).ok();
            for path in ["releases", "releases/20211106015145/.env"] {
                let found = fs::symlink_metadata(site.root().join(path)).expect("it exists");
                assert_eq!(found.uid(), NOBODY, "{call} {number}: {path}");
            }
        }
    }
    assert!(kills > 10, "{kills}");
}

/// After a swap, a directory at the place of the symlink is exchanged for it.
#[test]
fn an_exchange_after_a_swap_that_is_killed_is_completed() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let mut kills = 0;
    for call in CHANGING {
        // Terminates: a call that the adoption does not reach kills nothing.
        for number in 1.. {
            let current = site.root().join("current");
            if current.is_symlink() {
                fs::remove_file(&current).expect("removed");
                put_file(&site, "current/index.html", "copied");
            }
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let options = ["-qq", "-o", "/dev/null", "-e", &inject];
            let reply = site.run(strace::under(&options, &command(&site, true)), b"");
            let found = page(site.root()).expect("a page");
            assert!(["copied", "b"].contains(&&*found), "{call} {number}");
            let is_complete = reply.code == 0;
            if !is_complete {
                assert_eq!(reply.code, -1, "{call} {number}: {reply:?}");
                kills += 1;
                adopt(&site, true).ok();
            }
            assert_eq!(page(site.root()).expect("a page"), "b", "{call} {number}");
            assert_eq!(states(&site), ["b current", "a previous"]);
            let kept = site.root().join("current.replaced");
            let copy = fs::read_to_string(kept.join("index.html"));
            assert_eq!(copy.expect("it is kept"), "copied", "{call} {number}");
            fs::remove_dir_all(&kept).expect("removed");
            assert!(!site.root().join("current.replaced-2").exists());
            if is_complete {
                break;
            }
        }
    }
    assert!(kills > 10, "{kills}");
}

/// A reader in a loop finds the page of the live release during each adoption.
#[test]
fn a_reader_finds_the_live_release_at_any_time() {
    const ADOPTIONS: usize = 20;
    let site = Site::with_config(SHARED);
    let releases = ["20211106005145", "20211106015145"];
    let mut reads = 0_u64;
    for expected in ["plain", releases[1]] {
        for _ in 0..ADOPTIONS {
            clear(&site);
            match expected {
                "plain" => plain_directory(&site),
                _ => capistrano(&site, &releases),
            }
            let is_over = AtomicBool::new(false);
            reads += thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut reads = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        assert_eq!(page(site.root()).expect("a page"), expected);
                        reads += 1;
                    }
                    reads
                });
                let reply = adopt(&site, true);
                is_over.store(true, Ordering::Relaxed);
                assert_eq!(reply.code, 0, "{reply:?}");
                reader.join().expect("the reader always finds a page")
            });
        }
    }
    assert!(reads > 1000, "{reads}");
}
