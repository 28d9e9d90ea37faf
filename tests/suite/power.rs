//! The power fails: what had reached the device of a real file system (ext4, xfs,
//! btrfs) by then is mounted in its place. They are root's to mount.
//!
//! Once a request was answered `ok`, and at each sync of one that was not. Such
//! a device has seen all that was handed to it, and so no less than a real one
//! would have after its last flush: what is looked for are syncs that are missing,
//! or in the wrong order, and not whether a disk keeps its word.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output};

use nix::unistd::Uid;

use crate::direct::{ask, live, payload, put, serve, states};
use crate::gating::{gate_failed, hook};
use crate::site::Site;
use crate::verify::verify;

/// How each is made, and how long it may keep to itself what nobody syncs.
const KINDS: [(&str, &str, &str); 3] = [
    ("mkfs.ext4", "-q -F", "loop,commit=300"),
    ("mkfs.xfs", "-q -f", "loop"),
    ("mkfs.btrfs", "-q -f", "loop,commit=300"),
];

/// As large as xfs must be, in bytes.
const SIZE: u64 = 320 << 20;

/// A site on a file system of its own.
struct Powered {
    site: Site,
    options: &'static str,
    /// The device, and how often the power has failed.
    image: PathBuf,
    failures: u32,
}

impl Powered {
    /// `None`, with the reason printed, where this machine does not let us.
    fn on(kind: (&str, &str, &'static str), config: &str) -> Option<Powered> {
        if !Uid::effective().is_root() {
            println!("skipped: mounting a file system needs root");
            return None;
        }
        let site = Site::with_config(config);
        let (program, how, options) = kind;
        let image = site.dir().join("image-0");
        File::create(&image)
            .and_then(|file| file.set_len(SIZE))
            .expect("the image");
        let words = how.split(' ').map(str::to_owned);
        done(program, words.chain([image.display().to_string()]));
        let powered = Powered {
            site,
            options,
            image,
            failures: 0,
        };
        fs::create_dir(powered.disk()).expect("a folder");
        let mounted = powered.mount();
        if !mounted.status.success() {
            println!("skipped: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        let root = powered.site.root().display().to_string();
        done("cp", ["-a".to_owned(), root, powered.in_disk("root")]);
        done("sync", ["-f".to_owned(), powered.in_disk("root")]);
        powered.bind();
        Some(powered)
    }

    fn disk(&self) -> PathBuf {
        self.site.dir().join("disk")
    }

    fn in_disk(&self, name: &str) -> String {
        self.disk().join(name).display().to_string()
    }

    fn mount(&self) -> Output {
        let mut mount = Command::new("mount");
        mount.args(["-o", self.options]).arg(&self.image);
        mount.arg(self.disk()).output().expect("mount runs")
    }

    fn bind(&self) {
        let root = self.site.root().display().to_string();
        done("mount", ["--bind".to_owned(), self.in_disk("root"), root]);
    }

    /// All that was not handed to the device is lost.
    fn fails(&mut self) {
        // A rig that would keep it all shows nothing.
        fs::write(self.in_disk("unsynced"), "lost").expect("a file");
        self.failures += 1;
        let name = format!("image-{}", self.failures);
        let after = self.site.dir().join(name);
        let (from, to) = (self.image.display(), after.display());
        let copy = ["--sparse=always", &from.to_string(), &to.to_string()];
        done("cp", copy.map(str::to_owned));
        done("umount", [self.site.root().display().to_string()]);
        done("umount", [self.disk().display().to_string()]);
        fs::remove_file(&self.image).expect("it was there");
        self.image = after;
        let mounted = self.mount();
        assert!(mounted.status.success(), "{mounted:?}");
        self.bind();
        assert!(!self.disk().join("unsynced").exists(), "it was synced");
    }

    /// What is left after that: these, whole, and no debris after a request.
    #[track_caller]
    fn stands(&mut self, expected: &[&str]) {
        self.fails();
        assert_eq!(states(&self.site), expected, "{}", self.options);
        let live = expected.iter().find_map(|it| it.strip_suffix(" current"));
        assert_eq!(self.site.current().as_deref(), live);
        verify(&self.site, &[]).ok();
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still stand in it.
        for path in [self.site.root(), &self.disk()] {
            let _ = Command::new("umount").arg("-lq").arg(path).status();
        }
    }
}

#[track_caller]
fn done(program: &str, arguments: impl IntoIterator<Item = String>) {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    let output = command.args(arguments).output();
    let output = output.expect("tests/run installs it");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn what_was_answered_ok_is_there_when_the_power_has_failed() {
    for kind in KINDS {
        for gate in ["", &hook("after_swap", "true")] {
            let Some(mut powered) = Powered::on(kind, gate) else {
                return;
            };
            put(&powered.site, "a");
            powered.stands(&["a pending"]);
            ask(&powered.site, "swap a").ok();
            powered.stands(&["a current"]);
            live(&powered.site, &["b"]);
            powered.stands(&["b current", "a previous"]);
            ask(&powered.site, "rollback").ok();
            powered.stands(&["a current", "b bad"]);
        }
    }
}

/// Nothing promises that it is gone for good: btrfs has synced the record that it was
/// removed, and not that it was. Then it is back as one that was never live.
#[test]
fn what_was_removed_is_gone_or_back_as_a_whole() {
    for kind in KINDS {
        let Some(mut powered) = Powered::on(kind, "keep = 0\nmin_age = \"0s\"\n") else {
            return;
        };
        live(&powered.site, &["a", "b", "c"]);
        powered.fails();
        let mut found = states(&powered.site);
        found.retain(|state| state != "a pending");
        assert_eq!(found, ["c current", "b previous"], "{kind:?}");
        verify(&powered.site, &[]).ok();
        live(&powered.site, &["d"]);
        assert!(powered.site.leftovers().is_empty());
    }
}

/// Runs a request that dies at its so-manyth call of this kind, before it is made.
/// Whether there are that many.
fn dies_at(call: &str, nth: u32, site: &Site, request: &str, input: &[u8]) -> bool {
    let program = serve(site, "ci", request);
    let mut strace = Command::new("strace");
    strace
        .args(["-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"));
    strace.arg("-e");
    strace.arg(format!("inject={call}:signal=KILL:when={nth}"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let stdin = site.dir().join("stdin");
    fs::write(&stdin, input).expect("a file");
    let output = strace
        .arg(program.get_program())
        .args(program.get_args())
        .env_clear()
        .env("PATH", path)
        .env("SSH_ORIGINAL_COMMAND", request)
        .stdin(File::open(stdin).expect("a file"))
        .output()
        .expect("strace (Debian package strace)");
    output.status.code().is_none()
}

/// Gives `judge` each sync of `request`, on a site that `prepare` has made ready
/// and whose power has failed there; tells how many there were.
fn each_sync(
    kind: (&str, &str, &'static str),
    config: &str,
    prepare: impl Fn(&Site),
    (request, input): (&str, &[u8]),
    judge: impl Fn(&Site),
) -> Option<u32> {
    let mut syncs = 0;
    for call in ["fsync", "fdatasync", "syncfs"] {
        for nth in 1.. {
            let mut powered = Powered::on(kind, config)?;
            prepare(&powered.site);
            if !dies_at(call, nth, &powered.site, request, input) {
                break;
            }
            powered.fails();
            println!("{} dies at {call} {nth}, {}", request, kind.0);
            judge(&powered.site);
            syncs += 1;
        }
    }
    Some(syncs)
}

#[test]
fn a_swap_that_the_power_cuts_off_has_happened_or_has_not() {
    for kind in KINDS {
        for (gate, expected) in [("", 2), (hook("after_swap", "true").as_str(), 4)] {
            let prepare = |site: &Site| {
                live(site, &["a", "b"]);
                put(site, "c");
            };
            let syncs = each_sync(kind, gate, prepare, ("swap c", b""), |site| {
                // The way back is that of what is live, and of nothing else.
                let (before, after) = match site.current().as_deref() {
                    Some("c") => (
                        ["c current", "b previous", "a good"],
                        ["b current", "c bad", "a previous"],
                    ),
                    _ => (
                        ["b current", "a previous", "c pending"],
                        ["a current", "b bad", "c pending"],
                    ),
                };
                assert_eq!(states(site), before);
                ask(site, "rollback").ok();
                assert_eq!(states(site), after);
            });
            let Some(syncs) = syncs else { return };
            assert_eq!(syncs, expected, "{kind:?} {gate}");
        }
    }
}

#[test]
fn what_failed_its_gate_has_not_passed_it_when_the_power_has_failed() {
    for kind in KINDS {
        // What the hook syncs is the move there, and not the way back: its own file
        // system alone, for others count on theirs not being synced.
        let gate = hook("after_swap", "sync -f .; exit 1");
        let prepare = |site: &Site| put(site, "a");
        let syncs = each_sync(kind, &gate, prepare, ("swap a", b""), |site| {
            // Live or not, it is asked again.
            gate_failed(&ask(site, "swap a"));
        });
        let Some(syncs) = syncs else { return };
        assert_eq!(syncs, 6, "{kind:?}");
    }
}

#[test]
fn a_release_that_the_power_cuts_off_is_there_as_a_whole_or_not_at_all() {
    for kind in KINDS {
        let payload = payload("b");
        let request = Site::receive_command("b", &payload);
        let prepare = |site: &Site| live(site, &["a"]);
        let syncs = each_sync(kind, "", prepare, (&request, &payload), |site| {
            let found = states(site);
            let whole = ["a current", "b pending"];
            assert!(found == whole || found == whole[..1], "{found:?}");
            verify(site, &[]).ok();
            // Sent again, it is there.
            let again = site.run(serve(site, "ci", &request), &payload);
            assert!(again.ok().starts_with("ok receive b "));
            ask(site, "swap b").ok();
            assert!(site.leftovers().is_empty());
        });
        let Some(syncs) = syncs else { return };
        // The one beside the inspection is not counted on.
        assert!(syncs >= 4, "{kind:?}: {syncs}");
    }
}
