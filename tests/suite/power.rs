//! Simulates power failures: a copy of what has reached the device of a real file
//! system (ext4, xfs, btrfs) is mounted in its place. Only root may mount them.
//!
//! The power fails after a request was answered `ok`, and at each sync of a request that
//! was not. Such a device has all data that the kernel wrote to it, so no less than a
//! real one has after its last flush. The tests find syncs that are missing or in the
//! wrong order; they do not test whether a disk keeps what it has acknowledged.

use std::fs::{self, File};
use std::process::Command;

use crate::direct::{ask, live, payload, put, serve, states};
use crate::gating::{gate_failed, hook};
use crate::mounted::{self, Mounted};
use crate::site::Site;
use crate::strace;
use crate::verify::verify;

/// The command that makes each file system, and its mount options: how long it may keep
/// unsynced data in memory.
const KINDS: [(&str, &str); 3] = [
    ("mkfs.ext4 -q -F", "-o loop,commit=300"),
    ("mkfs.xfs -q -f", "-o loop"),
    ("mkfs.btrfs -q -f", "-o loop,commit=300"),
];

/// The minimum size of an xfs, in bytes.
const SIZE: u64 = 320 << 20;

/// A site on its own file system.
struct Powered {
    /// First, so that nothing is mounted in the directory of the site when that is removed.
    mounted: Mounted,
    site: Site,
}

impl Powered {
    /// Returns none, and prints the reason, where this machine does not allow mounting.
    fn on((command, options): (&str, &str), config: &str) -> Option<Powered> {
        let site = Site::with_config(config);
        let mounted = Mounted::over(&site, |image| {
            mounted::format(command, image, SIZE);
            options.to_owned()
        })?;
        mounted::succeed(Command::new("sync").arg("-f").arg(&mounted.disk));
        Some(Powered { site, mounted })
    }

    /// Drops everything that has not reached the device.
    fn fails(&self) {
        // The simulation is of no use if it keeps unsynced data.
        let unsynced = self.mounted.disk.join("unsynced");
        fs::write(&unsynced, "lost").expect("a file");
        let after = self.site.dir().join("after");
        let mut copy = Command::new("cp");
        copy.arg("--sparse=always").arg(&self.mounted.image);
        mounted::succeed(copy.arg(&after));
        self.mounted.exchange(&after);
        assert!(!unsynced.exists(), "it was synced");
    }

    /// Fails the power, and requires these states, and each release to be as it was
    /// received.
    #[track_caller]
    fn fails_and_has(&self, expected: &[&str]) {
        self.fails();
        assert_eq!(states(&self.site), expected);
        let live = expected.iter().find_map(|it| it.strip_suffix(" current"));
        assert_eq!(self.site.current().as_deref(), live);
        verify(&self.site, &[]).ok();
    }
}

#[test]
fn a_change_that_was_answered_ok_survives_a_power_failure() {
    for kind in KINDS {
        for gate in ["", &hook("after_swap", "true")] {
            let Some(powered) = Powered::on(kind, gate) else {
                return;
            };
            put(&powered.site, "a");
            powered.fails_and_has(&["a pending"]);
            ask(&powered.site, "swap a").ok();
            powered.fails_and_has(&["a current"]);
            live(&powered.site, &["b"]);
            powered.fails_and_has(&["b current", "a previous"]);
            ask(&powered.site, "rollback").ok();
            powered.fails_and_has(&["a current", "b bad"]);
        }
    }
}

/// A removal need not survive: btrfs may have synced its record and not the removal. Then
/// the release is there again, as one that was never live.
#[test]
fn a_pruned_release_is_gone_or_whole_after_a_power_failure() {
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

/// Runs a request and kills it before its `nth` call of this kind. Returns whether it
/// makes that many.
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

/// For each sync of `request`: prepares a site by `prepare`, fails the power at that sync,
/// and passes the site to `check`. Returns the number of syncs.
fn each_sync(
    kind: (&str, &str),
    config: &str,
    prepare: impl Fn(&Site),
    (request, input): (&str, &[u8]),
    check: impl Fn(&Site),
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
            check(&powered.site);
            syncs += 1;
        }
    }
    Some(syncs)
}

#[test]
fn a_swap_at_a_power_failure_has_happened_or_has_not() {
    for kind in KINDS {
        for (gate, expected) in [("", 2), (hook("after_swap", "true").as_str(), 4)] {
            let prepare = |site: &Site| {
                live(site, &["a", "b"]);
                put(site, "c");
            };
            let syncs = each_sync(kind, gate, prepare, ("swap c", b""), |site| {
                // A rollback depends on what is live, and on nothing else.
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
fn a_release_that_failed_its_gate_has_not_passed_after_a_power_failure() {
    for kind in KINDS {
        // The hook syncs the swap, and not the automatic rollback. It syncs only its
        // own file system, since other tests need theirs unsynced.
        let gate = hook("after_swap", "sync -f .; exit 1");
        let prepare = |site: &Site| put(site, "a");
        let syncs = each_sync(kind, &gate, prepare, ("swap a", b""), |site| {
            // Live or not, its checks run again.
            gate_failed(&ask(site, "swap a"));
        });
        let Some(syncs) = syncs else { return };
        assert_eq!(syncs, 6, "{kind:?}");
    }
}

#[test]
fn a_release_at_a_power_failure_is_whole_or_absent() {
    for kind in KINDS {
        let payload = payload("b");
        let request = Site::receive_command("b", &payload);
        let prepare = |site: &Site| live(site, &["a"]);
        let syncs = each_sync(kind, "", prepare, (&request, &payload), |site| {
            let found = states(site);
            let whole = ["a current", "b pending"];
            assert!(found == whole || found == whole[..1], "{found:?}");
            verify(site, &[]).ok();
            // A retry publishes it.
            let again = site.run(serve(site, "ci", &request), &payload);
            assert!(again.ok().starts_with("ok receive b "));
            ask(site, "swap b").ok();
            assert!(site.leftovers().is_empty());
        });
        let Some(syncs) = syncs else { return };
        // The sync that runs beside the inspection may not happen.
        assert!(syncs >= 4, "{kind:?}: {syncs}");
    }
}
