//! The order of writes and syncs, as strace(1) shows it: content is synced before it gets
//! a name, and the reply comes after everything that it promises is durable.
//!
//! Each step must wait for the one before it on ext4, xfs and btrfs, for three reasons.
//! None of them promises that a rename reaches the disk after the content of the renamed
//! file, unless the content was synced. A new name in a directory is durable once the
//! directory was fsynced. Renames in two directories may come back in either order after
//! a power failure, unless there is an fsync between them.
//!
//! A moved symlink is durable before its record, with one exception: without a gate, on a
//! file system that commits in order (ext4, xfs), syncing the record also makes the
//! earlier rename durable. `activate::commit` says why. Nothing is pruned and no client is
//! answered before both are durable.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use nix::sys::statfs::{EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, statfs};

use crate::fixture::{Fixture, Site};
use crate::payloads::{NEW, receive_command};
use crate::strace;
use crate::tracer;

/// One successful system call of the monitor, with its descriptors as paths.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The unpacker exited with 0.
    Unpacked,
    Write(String, String),
    SyncFile(String),
    SyncDir(String),
    SyncAll,
    Rename(String, String),
    Symlink(String),
    Remove(String),
}

/// Runs a request under strace, and returns the monitor's steps. strace does not follow
/// the unpacker: its writes are complete when it exits.
fn trace(site: &Site, request: &str) -> Vec<Step> {
    trace_with_exit(site, request, 0)
}

/// As [`trace`], for a request that exits with `code`. strace does not follow the hook
/// runner either.
fn trace_with_exit(site: &Site, request: &str, code: i32) -> Vec<Step> {
    let log = site.root().join("../trace");
    let calls = "trace=openat,openat2,close,write,fsync,fdatasync,syncfs,rename,renameat,renameat2,\
                 unlink,unlinkat,symlinkat,wait4,waitid,fcntl,prctl";
    // The monitor's first and third prctl(2) make it not dumpable. strace, unless it runs as
    // root, could then not read the names in its calls.
    let hidden = "inject=prctl:retval=0:when=1..3+2";
    let to = log.to_str().expect("a plain path");
    let options = ["-s", "64", "-o", to, "-e", calls, "-e", hidden];
    let output = strace::under(&options, &site.command(request))
        .stdin(site.stdin(request))
        .output()
        .expect("strace runs");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let text = fs::read_to_string(log).expect("a trace");
    let mut hidden = text.lines().filter(|line| line.ends_with("(INJECTED)"));
    let is_known = |line: &str| line.starts_with("prctl(PR_SET_DUMPABLE, ");
    assert!(hidden.next().is_some_and(is_known), "{text}");
    assert!(
        hidden.next().is_some_and(is_known) && hidden.next().is_none(),
        "{text}"
    );
    let steps = steps(&text);
    assert!(!steps.is_empty(), "{text}");
    steps
}

/// The path of each open descriptor, by the calls so far.
struct Open(HashMap<String, String>);

impl Open {
    fn path(&self, descriptor: &str) -> String {
        let known = self.0.get(descriptor).cloned();
        known.unwrap_or_else(|| descriptor.to_owned())
    }

    fn below(&self, descriptor: &str, name: &str) -> String {
        match (descriptor, name) {
            ("AT_FDCWD", name) => name.to_owned(),
            (descriptor, ".") => self.path(descriptor),
            (descriptor, name) => format!("{}/{name}", self.path(descriptor)),
        }
    }
}

fn steps(trace: &str) -> Vec<Step> {
    let mut open = Open(HashMap::new());
    let mut steps = Vec::new();
    for line in trace.lines() {
        let Some((call, result)) = line.rsplit_once(" = ") else {
            continue;
        };
        let Some((name, arguments)) = call.trim_end().split_once('(') else {
            continue;
        };
        let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
        let words: Vec<&str> = arguments.split(", ").collect();
        let bare = |index: usize| words[index].trim_matches('"');
        if result.starts_with('-') {
            continue;
        }
        match name {
            "openat" | "openat2" => {
                let path = open.below(words[0], bare(1));
                open.0.insert(result.to_owned(), path);
            }
            "fcntl" if words[1].starts_with("F_DUPFD") => {
                let path = open.path(words[0]);
                open.0.insert(result.to_owned(), path);
            }
            "close" => _ = open.0.remove(words[0]),
            "write" => steps.push(Step::Write(open.path(words[0]), arguments.to_owned())),
            "fdatasync" => steps.push(Step::SyncFile(open.path(words[0]))),
            "fsync" => steps.push(Step::SyncDir(open.path(words[0]))),
            "syncfs" => steps.push(Step::SyncAll),
            "renameat" | "renameat2" => steps.push(Step::Rename(
                open.below(words[0], bare(1)),
                open.below(words[2], bare(3)),
            )),
            "symlinkat" => steps.push(Step::Symlink(open.below(words[1], bare(2)))),
            "unlinkat" => steps.push(Step::Remove(open.below(words[0], bare(1)))),
            "wait4" | "waitid" if arguments.contains("WEXITSTATUS(s) == 0") => {
                steps.push(Step::Unpacked);
            }
            _ => {}
        }
    }
    steps
}

/// One element of a required order: it matches the first such step.
struct Rule {
    what: &'static str,
    is: fn(&Step) -> bool,
}

const UNPACKED: Rule = Rule {
    what: "the unpacker's end",
    is: |step| *step == Step::Unpacked,
};
const MANIFEST_WRITTEN: Rule = Rule {
    what: "the manifest's last line",
    is: |step| matches!(step, Step::Write(path, _) if path.ends_with("/manifest")),
};
const ALL_SYNCED: Rule = Rule {
    what: "syncfs of content and manifest",
    is: |step| *step == Step::SyncAll,
};
const MANIFEST_NAMED: Rule = Rule {
    what: "the manifest's rename",
    is: |step| matches!(step, Step::Rename(_, to) if to.ends_with("/manifests/new")),
};
const MANIFESTS_SYNCED: Rule = Rule {
    what: "fsync of manifests/",
    is: |step| matches!(step, Step::SyncDir(path) if path.ends_with("/manifests")),
};
const RELEASE_NAMED: Rule = Rule {
    what: "the rename into releases/",
    is: |step| matches!(step, Step::Rename(_, to) if to.ends_with("/releases/new")),
};
const RELEASES_SYNCED: Rule = Rule {
    what: "fsync of releases/",
    is: |step| matches!(step, Step::SyncDir(path) if path.ends_with("/releases")),
};
const RECEIVED: Rule = Rule {
    what: "the record 'received'",
    is: |step| is_record(step, "received"),
};
const INTENT: Rule = Rule {
    what: "the record 'activating'",
    is: |step| is_record(step, "activating"),
};
const FALLBACK_LINK_MADE: Rule = Rule {
    what: "the symlink to the fallback",
    is: |step| matches!(step, Step::Symlink(path) if path.ends_with("/.deploy-shell/back")),
};
const FALLBACK_RENAMED: Rule = Rule {
    what: "its rename over the current symlink",
    is: |step| matches!(step, Step::Rename(from, to) if from.ends_with("/.deploy-shell/back") && to.ends_with("/root/current")),
};
const SYMLINK_MOVED: Rule = Rule {
    what: "the rename of the symlink",
    is: |step| matches!(step, Step::Rename(_, to) if to.ends_with("/root/current")),
};
const SYMLINK_REMOVED: Rule = Rule {
    what: "the removal of the symlink",
    is: |step| matches!(step, Step::Remove(path) if path.ends_with("/root/current")),
};
const ROOT_SYNCED: Rule = Rule {
    what: "fsync of the root",
    is: |step| matches!(step, Step::SyncDir(path) if path.ends_with("/root")),
};
const SWAPPED: Rule = Rule {
    what: "the record 'swapped' or 'rolled-back'",
    is: |step| is_record(step, "swapped") || is_record(step, "rolled-back"),
};
const CONFIRMED: Rule = Rule {
    what: "the record 'proved'",
    is: |step| is_record(step, "proved"),
};
const RETURNED: Rule = Rule {
    what: "the record 'returned'",
    is: |step| is_record(step, "returned"),
};
const FAILURE_REPORTED: Rule = Rule {
    what: "the failure",
    is: |step| matches!(step, Step::Write(path, text) if path == "2" && text.contains("gate-failed")),
};
const TRASHED: Rule = Rule {
    what: "a release's rename into the trash",
    is: |step| matches!(step, Step::Rename(from, to) if from.contains("/releases/") && to.contains("/trash/")),
};
const REMOVED: Rule = Rule {
    what: "the removal of its files",
    is: |step| matches!(step, Step::Remove(path) if path.contains("/trash/")),
};
const PRUNED: Rule = Rule {
    what: "the record 'pruned'",
    is: |step| is_record(step, "pruned"),
};
const RECORDED: Rule = Rule {
    what: "fdatasync of the journal",
    is: |step| matches!(step, Step::SyncFile(path) if path.ends_with("/journal.jsonl")),
};
const USED_IDS_SYNCED: Rule = Rule {
    what: "fdatasync of the list of used ids",
    is: |step| matches!(step, Step::SyncFile(path) if path.contains("/used-ids-")),
};
const PART_SYNCED: Rule = Rule {
    what: "fdatasync of the compressed part",
    is: |step| matches!(step, Step::SyncFile(path) if path.ends_with("/next-part")),
};
const PART_NAMED: Rule = Rule {
    what: "the rename of the compressed part",
    is: |step| matches!(step, Step::Rename(from, to) if from.ends_with("/next-part") && to.ends_with(".jsonl.zst")),
};
const JOURNAL_WRITTEN: Rule = Rule {
    what: "the checkpoint",
    is: |step| matches!(step, Step::Write(path, _) if path.ends_with("/next-journal")),
};
const JOURNAL_SYNCED: Rule = Rule {
    what: "fdatasync of the new journal",
    is: |step| matches!(step, Step::SyncFile(path) if path.ends_with("/next-journal")),
};
const JOURNAL_NAMED: Rule = Rule {
    what: "the rename of the new journal",
    is: |step| matches!(step, Step::Rename(from, to) if from.ends_with("/next-journal") && to.ends_with("/journal.jsonl")),
};
const STATE_SYNCED: Rule = Rule {
    what: "fsync of .deploy-shell/",
    is: |step| matches!(step, Step::SyncDir(path) if path.ends_with("/.deploy-shell")),
};
const ANSWERED: Rule = Rule {
    what: "the reply",
    is: |step| matches!(step, Step::Write(path, text) if path == "1" && text.contains("\"ok ")),
};

fn is_record(step: &Step, event: &str) -> bool {
    matches!(step, Step::Write(path, text) if path.ends_with("/journal.jsonl")
        && text.contains(&format!("\\\"event\\\":\\\"{event}\\\"")))
}

const RECEIVE: &[&Rule] = &[
    &UNPACKED,
    &MANIFEST_WRITTEN,
    &ALL_SYNCED,
    &MANIFEST_NAMED,
    &MANIFESTS_SYNCED,
    &RELEASE_NAMED,
    &RELEASES_SYNCED,
    &RECEIVED,
    &RECORDED,
    &ANSWERED,
];

/// The symlink is durable before its record.
const SYMLINK_FIRST: &[&Rule] = &[&SYMLINK_MOVED, &ROOT_SYNCED, &SWAPPED, &RECORDED];

/// On a file system that commits in order, syncing the record makes the symlink durable.
const RECORD_FIRST: &[&Rule] = &[&SYMLINK_MOVED, &SWAPPED, &RECORDED, &ROOT_SYNCED];

const PRUNE_AND_ANSWER: &[&Rule] = &[&TRASHED, &PRUNED, &RECORDED, &REMOVED, &ANSWERED];

/// Everything that the new journal names is durable before it is in place, and that
/// before a record is appended to it.
const CHECKPOINT: &[&Rule] = &[
    &USED_IDS_SYNCED,
    &PART_SYNCED,
    &PART_NAMED,
    &JOURNAL_WRITTEN,
    &JOURNAL_SYNCED,
    &STATE_SYNCED,
    &JOURNAL_NAMED,
    &STATE_SYNCED,
];

/// With a gate, the symlink to the fallback comes before the intent.
const GATED_INTENT: &[&Rule] = &[&FALLBACK_LINK_MADE, &INTENT, &RECORDED];

/// Returns the first step that is out of order.
///
/// Each rule is searched for after the one before it, and no later rule may match a step
/// before it.
fn misplaced(steps: &[Step], order: &[&Rule]) -> Option<String> {
    let mut rest = steps;
    for (index, rule) in order.iter().enumerate() {
        let Some(at) = rest.iter().position(rule.is) else {
            return Some(format!("{} is missing, or too early", rule.what));
        };
        let early = order[index + 1..]
            .iter()
            // The same sync occurs again later.
            .filter(|later| !order[..=index].iter().any(|done| done.what == later.what))
            .find(|later| rest[..at].iter().any(later.is));
        if let Some(early) = early {
            return Some(format!("{} comes before {}", early.what, rule.what));
        }
        rest = &rest[at + 1..];
    }
    None
}

/// Requires a trace to be in order. Then requires the check itself to fail once any one
/// step is left out, or two are exchanged. So each sync of the request is one that this
/// test requires, and the removal of any one of them from the program fails here.
fn check(name: &str, steps: &[Step], order: &[&Rule]) {
    if let Some(problem) = misplaced(steps, order) {
        panic!("{name}: {problem}\n{steps:#?}");
    }
    let mut places = Vec::new();
    let mut from = 0;
    for rule in order {
        let at = steps[from..]
            .iter()
            .position(rule.is)
            .expect("it is in order");
        places.push(from + at);
        from += at + 1;
    }
    for pair in places.windows(2) {
        let mut exchanged = steps.to_vec();
        exchanged.swap(pair[0], pair[1]);
        assert_ne!(misplaced(&exchanged, order), None, "{name}: {pair:?}");
    }
    let without = |place| {
        let mut steps = steps.to_vec();
        steps.remove(place);
        misplaced(&steps, order)
    };
    for (place, step) in steps.iter().enumerate() {
        if matches!(step, Step::SyncFile(_) | Step::SyncDir(_) | Step::SyncAll) {
            assert_ne!(without(place), None, "{name}: nothing requires {step:?}");
        }
    }
    for (place, rule) in places.iter().zip(order) {
        // Several files are removed and several releases pruned, so leaving out one of them
        // is in order.
        let alike = steps.iter().filter(|step| (rule.is)(step)).count();
        let needed = order.iter().filter(|it| it.what == rule.what).count();
        if alike == needed {
            assert_ne!(without(*place), None, "{name}: {}", rule.what);
        }
    }
}

#[test]
fn content_is_synced_before_its_name_and_records_before_the_reply() {
    if let Err(why) = tracer::allowed() {
        println!("skipped: {why}");
        return;
    }
    // In memory, and on a disk, which may commit in order.
    for fixture in [Fixture::new(), Fixture::below(Path::new("/var/tmp"))] {
        all_verbs(&fixture);
    }
}

/// Returns the order in which the symlink moves without a gate.
fn moved(site: &Site) -> &'static [&'static Rule] {
    let found = statfs(&site.root()).expect("a file system");
    match found.filesystem_type() {
        EXT4_SUPER_MAGIC | XFS_SUPER_MAGIC => RECORD_FIRST,
        _ => SYMLINK_FIRST,
    }
}

fn all_verbs(fixture: &Fixture) {
    let site = fixture.make("order", 5);
    site.ok(&receive_command("a")).expect("received");
    site.ok("swap a").expect("swapped");
    check("receive", &trace(&site, &receive_command(NEW)), RECEIVE);
    site.ok(&format!("swap {NEW}")).expect("swapped");
    site.ok(&receive_command("c")).expect("received");
    // With `keep = 0`, the swap prunes the release that is not previous, and the rollback
    // the one that it leaves.
    let site = fixture.copy(&site, "order-none-kept", 0, "");
    // The intent of a swap may be lost: the next request reconciles to the same state.
    let order = [&[&INTENT][..], moved(&site), PRUNE_AND_ANSWER].concat();
    check("swap", &trace(&site, "swap c"), &order);
    // The intent of a rollback may not: the release that it leaves would stay good.
    let order = [&[&INTENT, &RECORDED][..], moved(&site), PRUNE_AND_ANSWER].concat();
    check("rollback", &trace(&site, "rollback"), &order);
    site.check_tidy().expect("an undamaged site");

    for release in ["g", "h"] {
        site.ok(&receive_command(release)).expect("received");
    }
    site.ok("swap g").expect("swapped");
    site.lengthen();
    let order = [CHECKPOINT, &[&INTENT], moved(&site), PRUNE_AND_ANSWER].concat();
    check("swap with a checkpoint", &trace(&site, "swap h"), &order);
    site.check_tidy().expect("an undamaged site");

    let gate = "[[hooks.after_swap]]\n\
                command = [\"/bin/grep\", \"-qv\", \"failing\", \"index.html\"]\n";
    let site = fixture.copy(&site, "order-gate", 0, gate);
    for release in ["e", "f", "failing"] {
        site.ok(&receive_command(release)).expect("received");
    }
    site.ok("swap f").expect("swapped");
    // With a gate, the intent of a swap may not be lost either: the release would count as
    // confirmed.
    let confirmed = &[&CONFIRMED, &RECORDED][..];
    let order = [GATED_INTENT, SYMLINK_FIRST, confirmed, PRUNE_AND_ANSWER].concat();
    check("swap with a gate", &trace(&site, "swap e"), &order);
    let back = &[
        &INTENT,
        &RECORDED,
        &FALLBACK_RENAMED,
        &ROOT_SYNCED,
        &RETURNED,
        &RECORDED,
    ];
    let order = [
        GATED_INTENT,
        SYMLINK_FIRST,
        back,
        confirmed,
        &[&FAILURE_REPORTED],
    ]
    .concat();
    check(
        "the automatic rollback",
        &trace_with_exit(&site, "swap failing", 69),
        &order,
    );
    site.check_tidy().expect("an undamaged site");

    let site = fixture.copy(&fixture.make("order-bare", 5), "order-first", 0, gate);
    site.ok(&receive_command("failing")).expect("received");
    let intent = &[&INTENT, &RECORDED][..];
    let back = &[
        &SYMLINK_REMOVED,
        &ROOT_SYNCED,
        &RETURNED,
        &RECORDED,
        &FAILURE_REPORTED,
    ];
    let order = [intent, SYMLINK_FIRST, intent, back].concat();
    let steps = trace_with_exit(&site, "swap failing", 69);
    check("the automatic rollback to nothing", &steps, &order);
}
