//! Power failures at every flush of a disk, on ext4, xfs and btrfs: the disk keeps what
//! it had at its last flush, and any part of what was written since.
//!
//! Each scenario runs once on a disk that records its writes and flushes. Then the test
//! mounts each state that a power failure can leave, and requires: what the client was
//! told is true; a whole release is live; the next request works.

#[path = "power/disk.rs"]
mod disk;
#[path = "power/image.rs"]
mod image;
#[path = "power/states.rs"]
mod states;

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use nix::libc;
use nix::unistd::Uid;

use crate::fixture::{Fixture, Site, Verdict};
use crate::payloads::{NEW, receive_command};
use crate::scenarios::{Scenario, scenarios, template};
use crate::tracer::{self, Fault, Point};
use disk::{Disk, Event};
use image::Image;
use states::State;

/// A kind of file system.
struct Kind {
    name: &'static str,
    /// The command that makes it.
    format: &'static str,
    /// How long it may keep unsynced data in memory: longer than a request takes.
    options: &'static str,
    /// The command that looks for damage.
    check: &'static str,
    /// In the long form: the largest number of choices of unflushed writes at each flush. Most
    /// requests have few writes between two flushes, so few choices: an xfs makes least.
    samples: usize,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "ext4",
        format: "mkfs.ext4 -q -F",
        options: "loop,commit=300",
        check: "e2fsck -f -n",
        samples: 290,
    },
    Kind {
        name: "xfs",
        format: "mkfs.xfs -q -f",
        options: "loop",
        check: "xfs_repair -n",
        samples: 820,
    },
    Kind {
        name: "btrfs",
        format: "mkfs.btrfs -q -f",
        options: "loop,commit=300",
        check: "btrfs check --readonly",
        samples: 64,
    },
];

/// The minimum size of an xfs, in bytes.
const SIZE: u64 = 320 << 20;

/// The name of the site on the disk.
const SITE: &str = "site";

fn run(command: &str, path: &Path) -> Output {
    let mut words = command.split(' ');
    Command::new(words.next().expect("a program"))
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(words)
        .arg(path)
        .output()
        .expect("tests/run installs it")
}

#[track_caller]
fn succeed(command: &str, path: &Path) {
    let output = run(command, path);
    assert!(output.status.success(), "{command}: {output:?}");
}

/// A mounted file system. It is unmounted when this value is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(file: &Path, options: &str, at: &Path) -> Result<Mounted, String> {
        let output = run(&format!("mount -o {options} {}", file.display()), at);
        if output.status.success() {
            return Ok(Mounted(at.to_owned()));
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(format!("mount: {why}"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A child of a killed process may use it a little longer.
        let deadline = Instant::now() + Duration::from_secs(60);
        while !run("umount -q", &self.0).status.success() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The directories of one test thread.
struct Lab<'a> {
    kind: &'a Kind,
    fixture: Fixture,
    /// Where the disk is served, and where images are.
    disk: PathBuf,
    images: Cell<usize>,
}

impl<'a> Lab<'a> {
    fn new(kind: &'a Kind) -> Lab<'a> {
        let fixture = Fixture::new().with_sites_in("mounted");
        let disk = fixture.path().join("served");
        fs::create_dir(&disk).expect("a directory");
        Lab {
            kind,
            fixture,
            disk,
            images: Cell::new(0),
        }
    }

    /// Returns a path for an image, a new one each time: the kernel detaches a loop device
    /// some time after the unmount, and mount(8) uses the one that a file still has, with
    /// its old pages.
    fn new_image(&self) -> PathBuf {
        let number = self.images.replace(self.images.get() + 1);
        let path = |number: usize| self.fixture.path().join(format!("image-{number}"));
        let _ = fs::remove_file(path(number));
        path(number + 1)
    }

    fn mount(&self, file: &Path) -> Result<Mounted, String> {
        Mounted::new(file, self.kind.options, self.fixture.sites())
    }

    /// Returns a disk with the site of a scenario.
    fn prepare(&self, scenario: &Scenario) -> Image {
        let image = self.new_image();
        let file = File::create(&image).expect("the image");
        file.set_len(SIZE).expect("the image");
        succeed(self.kind.format, &image);
        let mounted = self.mount(&image).expect("it is mounted");
        let template = template(&self.fixture);
        let site = scenario.prepare(&self.fixture, &template, SITE);
        drop(template);
        drop(mounted);
        // A site that is dropped removes its directory.
        drop(site);
        Image::load(&image).expect("the image")
    }

    /// Runs the request of a scenario, and returns what the disk had before and what
    /// happened to it.
    fn record(
        &self,
        scenario: &Scenario,
        base: &Image,
        skipped: Option<Point>,
    ) -> (Image, Vec<Event>) {
        let disk = Disk::serve(&self.disk, base.clone(), SIZE).expect("a disk");
        let mounted = self.mount(disk.path()).expect("it is mounted");
        let site = self.fixture.open(SITE);
        site.require_signatures(scenario.signed);
        succeed("sync -f", self.fixture.sites());
        let base = disk.begin();
        let code = if scenario.fails_gate { 69 } else { 0 };
        let got = match skipped {
            None => site.ask(&scenario.request).code,
            Some(point) => {
                let run = scenario.run_as_configured(&site, Some((point, Fault::Skip)));
                let run = run.expect("tracing works");
                assert!(run.reached, "{point:?}");
                run.code
            }
        };
        assert_eq!(got, Some(code));
        disk.answered();
        let events = disk.end();
        drop(mounted);
        drop(site);
        (base, events)
    }

    /// Mounts the disk as a power failure left it, and requires what must hold.
    fn check(&self, scenario: &Scenario, state: &State<'_>, next: &str) -> Verdict {
        let image = self.new_image();
        state.image().save(&image, SIZE).expect("the image");
        let mounted = self.mount(&image)?;
        let site = self.fixture.open(SITE);
        // The next request is not signed.
        site.require_signatures(false);
        let verdict = holds(scenario, &site, state.answered, next);
        drop(mounted);
        drop(site);
        verdict?;
        if crate::long() {
            let output = run(self.kind.check, &image);
            if !output.status.success() && !are_counters_alone(&output) {
                return Err(format!("{}: {output:?}", self.kind.check));
            }
        }
        Ok(())
    }
}

/// Returns whether xfs_repair(8) finds the totals of free inodes and blocks wrong, and nothing
/// else. An xfs writes them rarely, and counts again after a crash that it notices. One of
/// 5,000 states, with a hole in the middle of many unflushed records of its log, left them so.
/// Each other finding has one of these words.
fn are_counters_alone(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stderr);
    let is_counter = |line: &str| line.starts_with("sb_ifree ") || line.starts_with("sb_fdblocks ");
    text.lines().any(is_counter)
        && !["would", "bad", "corrupt"]
            .iter()
            .any(|it| text.contains(it))
}

fn holds(scenario: &Scenario, site: &Site, answered: bool, next: &str) -> Verdict {
    let live = site.current()?.ok_or("nothing is live")?;
    if live != "c" && live != scenario.live {
        return Err(format!("'{live}' is live"));
    }
    site.check_release(&live)?;
    let done = scenario.done(site)?;
    if answered && done == scenario.fails_gate {
        return Err(format!("the reply is not true: '{live}' is live"));
    }
    // Before the next request, which may remove a bad release.
    check_states(scenario, site, answered, done)?;
    site.ok(next)?;
    site.check_tidy()?;
    let release = if scenario.receives() {
        NEW
    } else {
        scenario.live
    };
    let journal = site.journal()?;
    let recorded = journal.iter().any(|record| {
        // The intent of a swap without checks is not synced before the symlink moves. If
        // the symlink alone is durable, the next request records what it finds.
        let event = &record["event"];
        (*event == scenario.event() || !answered && *event == "reconciled")
            && record["release"] == release
    });
    if done && !recorded {
        let last = &journal[journal.len().saturating_sub(8)..];
        return Err(format!("the journal has no record of it: {last:?}"));
    }
    if scenario.receives() && done && !site.releases().contains(NEW) {
        return Err("the received release is gone".to_owned());
    }
    match next.strip_prefix("swap ") {
        Some(next) if site.current()?.as_deref() != Some(next) => Err("it did not swap".to_owned()),
        _ => Ok(()),
    }
}

/// Requires the states of the releases that the records before a move of the symlink give
/// them, also where the reply and the later records are lost.
fn check_states(scenario: &Scenario, site: &Site, answered: bool, done: bool) -> Verdict {
    let listing = site.listing()?;
    let journal = site.journal()?;
    let row = |release: &str| {
        let rows = listing["releases"].as_array().expect("an array");
        let row = rows.iter().find(|row| row["release"] == release);
        row.ok_or(format!("'{release}' is not listed: {listing}"))
    };
    let is_bad = |release: &str| match row(release)?["state"].as_str() {
        Some("bad") => Ok(()),
        _ => Err(format!("'{release}' is not marked bad: {listing}")),
    };
    if answered && scenario.fails_gate {
        is_bad(scenario.live)?;
    }
    let is_rollback = scenario.request.starts_with("rollback");
    // Otherwise the next rollback would go to the release that this one has left.
    if done && is_rollback && !scenario.fails_gate && site.releases().contains("c") {
        // One whose removal was lost counts as one that was never live.
        let state = row("c")?["state"].as_str();
        if state != Some("bad") && state != Some("pending") {
            return Err(format!("'c' is {state:?}: {listing}"));
        }
    }
    // Otherwise a release would count as one that has passed its checks, or has not.
    if done && !is_rollback && !scenario.gate.is_empty() {
        let passed = |record: &serde_json::Value| {
            record["event"] == "proved" && record["release"] == scenario.live
        };
        let is_proved = row(scenario.live)?["proved"] != false;
        if is_proved != journal.iter().any(passed) || answered && !is_proved {
            let is = if is_proved { "is" } else { "is not" };
            return Err(format!("'{}' {is} proved: {listing}", scenario.live));
        }
    }
    Ok(())
}

/// Returns why this machine cannot mount such a file system on a recorded disk, if so.
fn possible(kind: &Kind) -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Err("mounting a file system needs root".to_owned());
    }
    let lab = Lab::new(kind);
    let image = lab.new_image();
    let file = File::create(&image).expect("the image");
    file.set_len(SIZE).expect("the image");
    succeed(kind.format, &image);
    let image = Image::load(&image).expect("the image");
    let disk = Disk::serve(&lab.disk, image, SIZE).map_err(|error| format!("FUSE: {error}"))?;
    lab.mount(disk.path()).map(drop)
}

/// Returns the kinds that this machine can mount, and prints why it cannot mount others.
fn possible_kinds() -> Vec<&'static Kind> {
    let is_possible = |kind: &&Kind| match possible(kind) {
        Ok(()) => true,
        Err(why) => {
            println!("skipped: {}: {why}", kind.name);
            false
        }
    };
    KINDS.iter().filter(is_possible).collect()
}

/// Returns the scenarios to try: all, or some that have each kind of change between them.
fn chosen() -> Vec<Scenario> {
    let short = [
        "receive with a checkpoint",
        "swap with a checkpoint",
        "swap and back",
    ];
    let mut all = Vec::from(scenarios());
    all.retain(|scenario| {
        scenario.is_chosen() && (crate::long() || short.contains(&scenario.name))
    });
    all
}

/// Returns a request to try after a power failure.
fn next_request(index: usize) -> String {
    match index % 2 {
        0 => "swap z".to_owned(),
        _ => receive_command("y"),
    }
}

/// Tries each scenario on one kind of file system; returns what does not hold.
fn violations(kind: &Kind) -> Vec<String> {
    let samples = if crate::long() { kind.samples } else { 1 };
    let lab = Lab::new(kind);
    let mut violations = Vec::new();
    let mut count = 0;
    for scenario in chosen() {
        let base = lab.prepare(&scenario);
        let (base, events) = lab.record(&scenario, &base, None);
        let states = states::states(&base, &events, samples, 1);
        let flushes = events.iter().filter(|it| matches!(it, Event::Flush));
        println!(
            "{}, {}: {} writes and flushes, {} flushes, {} states",
            kind.name,
            scenario.name,
            events.len() - 1,
            flushes.count(),
            states.len()
        );
        count += states.len();
        for (index, state) in states.iter().enumerate() {
            let next = next_request(index);
            if let Err(why) = lab.check(&scenario, state, &next) {
                let violation = format!(
                    "{}, {}, {}, then '{next}': {why}",
                    kind.name, scenario.name, state
                );
                // The long form takes an hour, and may be ended before the list is printed.
                println!("{violation}");
                violations.push(violation);
            }
        }
    }
    println!("{}: {count} states", kind.name);
    violations
}

#[test]
fn a_power_failure_at_any_flush_damages_no_site() {
    let found = thread::scope(|scope| {
        let threads: Vec<_> = possible_kinds()
            .into_iter()
            .map(|kind| scope.spawn(|| violations(kind)))
            .collect();
        let join = |thread: ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// A sync of the monitor, by the kind of file system, the scenario, the call and its
/// number there.
type Sync = (&'static str, &'static str, i64, usize);

/// Syncs that no later one of the same request makes up for, and a kind of file system
/// that shows it. ext4 and xfs commit in order, so a sync of the journal also makes the
/// move of a symlink durable there.
///
/// The long form leaves out each sync of each scenario. It finds the ten kinds below, on more
/// file systems and in more scenarios. No state shows a fault without one of the others: these
/// three file systems promise more than POSIX does, and a later sync of the same request or the
/// next request makes up for it (a record, or a name in the state's directory). Such a sync is
/// needed where a file system promises no more than fsync(2) says. `sync_order` requires each
/// of them.
const NEEDED: [Sync; 11] = [
    // The intent of a swap with checks, and the record that they have passed.
    ("ext4", "swap with a gate", libc::SYS_fdatasync, 1),
    ("ext4", "swap with a gate", libc::SYS_fdatasync, 3),
    // The intent of a rollback, with the bad mark.
    ("btrfs", "rollback", libc::SYS_fdatasync, 1),
    ("ext4", "swap without pruning", libc::SYS_fdatasync, 1),
    ("ext4", "receive", libc::SYS_syncfs, 1),
    ("btrfs", "receive", libc::SYS_fsync, 2),
    ("btrfs", "swap", libc::SYS_fsync, 1),
    ("btrfs", "swap and back", libc::SYS_fsync, 2),
    ("xfs", "swap with a checkpoint", libc::SYS_fdatasync, 1),
    ("xfs", "swap with a checkpoint", libc::SYS_fdatasync, 2),
    ("xfs", "swap with a checkpoint", libc::SYS_fdatasync, 3),
];

/// Runs a scenario once for each of its syncs that `chosen` returns true for, which has no
/// effect then. Returns those without which a state does not hold, and prints all.
fn needed_syncs(lab: &Lab<'_>, scenario: &Scenario, chosen: impl Fn(Sync) -> bool) -> Vec<Sync> {
    const SYNCS: [i64; 3] = [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs];
    let base = lab.prepare(scenario);
    let image = lab.new_image();
    base.save(&image, SIZE).expect("the image");
    let mounted = lab.mount(&image).expect("it is mounted");
    let site = lab.fixture.open(SITE);
    let clean = scenario.run(&site, None).expect("tracing works");
    drop(mounted);
    drop(site);
    let mut needed = Vec::new();
    for point in clean.calls {
        let sync = (lab.kind.name, scenario.name, point.call, point.nth);
        if point.thread != 0 || !SYNCS.contains(&point.call) || !chosen(sync) {
            continue;
        }
        let (base, events) = lab.record(scenario, &base, Some(point));
        let states = states::states(&base, &events, 8, 1);
        let mut states = states.iter().enumerate();
        let fails = states.find_map(|(index, state)| {
            let verdict = lab.check(scenario, state, &next_request(index));
            verdict.err().map(|why| format!("{state}: {why}"))
        });
        println!("{sync:?} ({}): {fails:?}", tracer::name(point.call));
        needed.extend(fails.map(|_| sync));
    }
    needed
}

/// This also shows that the test above can fail.
#[test]
fn a_missing_sync_is_found() {
    if let Err(why) = tracer::possible() {
        println!("skipped: {why}");
        return;
    }
    let mut found = Vec::new();
    let kinds = possible_kinds();
    for kind in kinds.iter().copied() {
        let lab = Lab::new(kind);
        for scenario in scenarios().into_iter().filter(Scenario::is_chosen) {
            let is_expected = |(of, name, ..): &Sync| (*of, *name) == (kind.name, scenario.name);
            if crate::long() || NEEDED.iter().any(is_expected) {
                let chosen = |sync| crate::long() || NEEDED.contains(&sync);
                found.extend(needed_syncs(&lab, &scenario, chosen));
            }
        }
    }
    let is_possible = |sync: &Sync| {
        kinds.iter().any(|kind| kind.name == sync.0)
            && (scenarios().iter()).any(|scenario| scenario.name == sync.1 && scenario.is_chosen())
    };
    for sync in NEEDED.into_iter().filter(is_possible) {
        assert!(found.contains(&sync), "{sync:?} is not needed: {found:?}");
    }
}
