//! The power fails: what had reached the device of a real file system (ext4, xfs,
//! btrfs) by then is mounted in its place. They are root's to mount.
//!
//! Once a request was answered `ok`, and at each sync of one that was not. Such
//! a device has seen all that was handed to it, and so no less than a real one
//! would have after its last flush: what is looked for are syncs that are missing,
//! or in the wrong order, and not whether a disk keeps its word.

use std::fs::{self, File};
use std::process::Command;

use crate::direct::{ask, live, payload, put, serve, states};
use crate::gating::{gate_failed, hook};
use crate::mounted::{self, Mounted};
use crate::site::Site;
use crate::strace;
use crate::verify::verify;

/// How each is made, and how long it may keep to itself what nobody syncs.
const KINDS: [(&str, &str); 3] = [
    ("mkfs.ext4 -q -F", "-o loop,commit=300"),
    ("mkfs.xfs -q -f", "-o loop"),
    ("mkfs.btrfs -q -f", "-o loop,commit=300"),
];

/// As large as xfs must be, in bytes.
const SIZE: u64 = 320 << 20;

/// A site on a file system of its own.
struct Powered {
    site: Site,
    mounted: Mounted,
}

impl Powered {
    /// `None`, with the reason printed, where this machine does not let us.
    fn on((command, options): (&str, &str), config: &str) -> Option<Powered> {
        let site = Site::with_config(config);
        let mounted = Mounted::over(&site, |image| {
            mounted::format(command, image, SIZE);
            options.to_owned()
        })?;
        mounted::done_well(Command::new("sync").arg("-f").arg(&mounted.disk));
        Some(Powered { site, mounted })
    }

    /// All that was not handed to the device is lost.
    fn fails(&self) {
        // A rig that would keep it all shows nothing.
        let unsynced = self.mounted.disk.join("unsynced");
        fs::write(&unsynced, "lost").expect("a file");
        let after = self.site.dir().join("after");
        let mut copy = Command::new("cp");
        copy.arg("--sparse=always").arg(&self.mounted.image);
        mounted::done_well(copy.arg(&after));
        self.mounted.exchange(&after);
        assert!(!unsynced.exists(), "it was synced");
    }

    /// What is left after that: these, and each as it was received.
    #[track_caller]
    fn stands(&self, expected: &[&str]) {
        self.fails();
        assert_eq!(states(&self.site), expected);
        let live = expected.iter().find_map(|it| it.strip_suffix(" current"));
        assert_eq!(self.site.current().as_deref(), live);
        verify(&self.site, &[]).ok();
    }
}

#[test]
fn what_was_answered_ok_is_there_when_the_power_has_failed() {
    for kind in KINDS {
        for gate in ["", &hook("after_swap", "true")] {
            let Some(powered) = Powered::on(kind, gate) else {
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
        let Some(powered) = Powered::on(kind, "keep = 0\nmin_age = \"0s\"\n") else {
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
    let (trace, inject) = (
        format!("trace={call}"),
        format!("inject={call}:signal=KILL:when={nth}"),
    );
    let options = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
    let stdin = site.dir().join("stdin");
    fs::write(&stdin, input).expect("a file");
    let output = strace::under(&options, &serve(site, "ci", request))
        .stdin(File::open(stdin).expect("a file"))
        .output()
        .expect("strace runs");
    output.status.code().is_none()
}

/// Gives `judge` each sync of `request`, on a site that `prepare` has made ready
/// and whose power has failed there; tells how many there were.
fn each_sync(
    kind: (&str, &str),
    config: &str,
    prepare: impl Fn(&Site),
    (request, input): (&str, &[u8]),
    judge: impl Fn(&Site),
) -> Option<u32> {
    let mut syncs = 0;
    for call in ["fsync", "fdatasync", "syncfs"] {
        for nth in 1.. {
            let powered = Powered::on(kind, config)?;
            prepare(&powered.site);
            if !dies_at(call, nth, &powered.site, request, input) {
                break;
            }
            powered.fails();
            println!("{request} dies at {call} {nth}, {}", kind.0);
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
