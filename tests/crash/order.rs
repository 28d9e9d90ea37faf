//! What has been said to the disk, and in which order, as strace(1) saw it: no
//! name is given to what has not been synced, and nothing is promised that a
//! power failure could take back.
//!
//! Why each step has to wait for the one before it, on ext4, xfs and btrfs:
//! none of them promises that a rename reaches the disk after the content of
//! what was renamed, unless that was synced; a new name in a folder is durable
//! when the folder was fsynced; and renames in two folders may come back in
//! either order after a power failure, unless there is an fsync between them.
//!
//! A moved link is durable before it is on record, but for one case: without a gate,
//! and on a file system that commits in order (ext4, xfs), the record that is synced
//! has the link with it. Why, stands in `Transition::commit`. Nothing is pruned and
//! nobody is answered before both are durable.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use nix::sys::statfs::{EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, statfs};

use crate::ground::{Ground, NEW, Site, receive_command};
use crate::strace;
use crate::tracer;

/// One successful system call of the monitor, its descriptors as paths.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The unpacker has ended well.
    Unpacked,
    Write(String, String),
    SyncFile(String),
    SyncFolder(String),
    SyncAll,
    Rename(String, String),
    Link(String),
    Remove(String),
}

/// Runs a request under strace and gives the monitor's steps. The unpacker is
/// not followed: what it writes, it has written when it ends.
fn trace(site: &Site, request: &str) -> Vec<Step> {
    trace_to(site, request, 0)
}

/// The same of a request that ends with `code`. The runner of hooks is not
/// followed either.
fn trace_to(site: &Site, request: &str, code: i32) -> Vec<Step> {
    let log = site.root().join("../trace");
    let calls = "trace=openat,close,write,fsync,fdatasync,syncfs,rename,renameat,renameat2,\
                 unlink,unlinkat,symlinkat,wait4,waitid,fcntl,prctl";
    // The monitor's second prctl(2) forbids others to look into it, and so
    // strace, where it is not root's, to read the names it passes.
    let hidden = "inject=prctl:retval=0:when=2";
    let to = log.to_str().expect("a plain path");
    let options = ["-s", "64", "-o", to, "-e", calls, "-e", hidden];
    let output = strace::under(&options, &site.command(request))
        .stdin(site.stdin(request))
        .output()
        .expect("strace runs");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let text = fs::read_to_string(log).expect("a trace");
    let hidden = text.lines().find(|line| line.ends_with("(INJECTED)"));
    let hidden = hidden.unwrap_or_default();
    assert!(hidden.starts_with("prctl(PR_SET_DUMPABLE, "), "{text}");
    let steps = steps(&text);
    assert!(!steps.is_empty(), "{text}");
    steps
}

/// A descriptor's path below the site, by the calls so far.
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
            "openat" => {
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
            "fsync" => steps.push(Step::SyncFolder(open.path(words[0]))),
            "syncfs" => steps.push(Step::SyncAll),
            "renameat" | "renameat2" => steps.push(Step::Rename(
                open.below(words[0], bare(1)),
                open.below(words[2], bare(3)),
            )),
            "symlinkat" => steps.push(Step::Link(open.below(words[1], bare(2)))),
            "unlinkat" => steps.push(Step::Remove(open.below(words[0], bare(1)))),
            "wait4" | "waitid" if arguments.contains("WEXITSTATUS(s) == 0") => {
                steps.push(Step::Unpacked);
            }
            _ => {}
        }
    }
    steps
}

/// What must come before what: the first of each that is found.
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
    is: |step| matches!(step, Step::SyncFolder(path) if path.ends_with("/manifests")),
};
const RELEASE_NAMED: Rule = Rule {
    what: "the rename into releases/",
    is: |step| matches!(step, Step::Rename(_, to) if to.ends_with("/releases/new")),
};
const RELEASES_SYNCED: Rule = Rule {
    what: "fsync of releases/",
    is: |step| matches!(step, Step::SyncFolder(path) if path.ends_with("/releases")),
};
const RECEIVED: Rule = Rule {
    what: "the record 'received'",
    is: |step| is_record(step, "received"),
};
const INTENT: Rule = Rule {
    what: "the record 'activating'",
    is: |step| is_record(step, "activating"),
};
const WAY_BACK_LAID: Rule = Rule {
    what: "the link for the way back",
    is: |step| matches!(step, Step::Link(path) if path.ends_with("/.deploy-shell/back")),
};
const LINK_MOVED_BACK: Rule = Rule {
    what: "its rename over the link",
    is: |step| matches!(step, Step::Rename(from, to) if from.ends_with("/.deploy-shell/back") && to.ends_with("/root/current")),
};
const LINK_MOVED: Rule = Rule {
    what: "the rename of the link",
    is: |step| matches!(step, Step::Rename(_, to) if to.ends_with("/root/current")),
};
const LINK_REMOVED: Rule = Rule {
    what: "the removal of the link",
    is: |step| matches!(step, Step::Remove(path) if path.ends_with("/root/current")),
};
const ROOT_SYNCED: Rule = Rule {
    what: "fsync of the root",
    is: |step| matches!(step, Step::SyncFolder(path) if path.ends_with("/root")),
};
const SWAPPED: Rule = Rule {
    what: "the record 'swapped' or 'rolled-back'",
    is: |step| is_record(step, "swapped") || is_record(step, "rolled-back"),
};
const PROVED: Rule = Rule {
    what: "the record 'proved'",
    is: |step| is_record(step, "proved"),
};
const RETURNED: Rule = Rule {
    what: "the record 'returned'",
    is: |step| is_record(step, "returned"),
};
const TOLD: Rule = Rule {
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
const PROMISED: Rule = Rule {
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
    &PROMISED,
];

/// The link is durable before it is on record.
const LINK_FIRST: &[&Rule] = &[&LINK_MOVED, &ROOT_SYNCED, &SWAPPED, &RECORDED];

/// The record that is synced has the link with it, where there is one order in
/// which everything is committed.
const RECORD_FIRST: &[&Rule] = &[&LINK_MOVED, &SWAPPED, &RECORDED, &ROOT_SYNCED];

const PRUNE_AND_PROMISE: &[&Rule] = &[&TRASHED, &PRUNED, &RECORDED, &REMOVED, &PROMISED];

/// Of what has a gate; the way back is laid by then.
const GATED_INTENT: &[&Rule] = &[&WAY_BACK_LAID, &INTENT, &RECORDED];

/// The first step that is not where it must be.
///
/// Each is looked for behind the one before it, and none of those that come
/// later may stand in front of it.
fn misplaced(steps: &[Step], order: &[&Rule]) -> Option<String> {
    let mut rest = steps;
    for (index, rule) in order.iter().enumerate() {
        let Some(at) = rest.iter().position(rule.is) else {
            return Some(format!("{} is missing, or too early", rule.what));
        };
        let early = order[index + 1..]
            .iter()
            // The same sync is needed again later.
            .filter(|later| !order[..=index].iter().any(|done| done.what == later.what))
            .find(|later| rest[..at].iter().any(later.is));
        if let Some(early) = early {
            return Some(format!("{} comes before {}", early.what, rule.what));
        }
        rest = &rest[at + 1..];
    }
    None
}

/// A trace with any one step of the order left out, or two of them exchanged,
/// must be found wanting: a check that cannot fail is none.
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
    for (place, rule) in places.iter().zip(order) {
        // Several files are removed, and several releases pruned: one less
        // is no disorder.
        let alike = steps.iter().filter(|step| (rule.is)(step)).count();
        let needed = order.iter().filter(|it| it.what == rule.what).count();
        if alike == needed {
            let mut without = steps.to_vec();
            without.remove(*place);
            assert_ne!(misplaced(&without, order), None, "{name}: {}", rule.what);
        }
    }
}

#[test]
fn nothing_is_named_before_it_is_synced_nor_promised_before_it_is_recorded() {
    if let Err(why) = tracer::allowed() {
        println!("skipped: {why}");
        return;
    }
    // In memory, and on a disk, which may commit in order.
    for ground in [Ground::new(), Ground::below(Path::new("/var/tmp"))] {
        all_verbs(&ground);
    }
}

/// How a link moves without a gate.
fn moved(site: &Site) -> &'static [&'static Rule] {
    let found = statfs(&site.root()).expect("a file system");
    match found.filesystem_type() {
        EXT4_SUPER_MAGIC | XFS_SUPER_MAGIC => RECORD_FIRST,
        _ => LINK_FIRST,
    }
}

fn all_verbs(ground: &Ground) {
    let site = ground.make("order", 5);
    site.ok(&receive_command("a")).expect("received");
    site.ok("swap a").expect("swapped");
    check("receive", &trace(&site, &receive_command(NEW)), RECEIVE);
    site.ok(&format!("swap {NEW}")).expect("swapped");
    site.ok(&receive_command("c")).expect("received");
    // Where none is kept, the swap prunes the one that is not previous, and
    // the rollback the one that it leaves.
    let site = ground.copy(&site, "order-none-kept", 0, "");
    // A swap's intent may be lost: what it would have said is found again.
    let order = [&[&INTENT][..], moved(&site), PRUNE_AND_PROMISE].concat();
    check("swap", &trace(&site, "swap c"), &order);
    // A rollback's may not: the release that is left would come back as good.
    let order = [&[&INTENT, &RECORDED][..], moved(&site), PRUNE_AND_PROMISE].concat();
    check("rollback", &trace(&site, "rollback"), &order);
    site.tidy().expect("a site that nothing happened to");

    let gate = "[[hooks.after_swap]]\n\
                command = [\"/bin/grep\", \"-qv\", \"sick\", \"index.html\"]\n";
    let site = ground.copy(&site, "order-gate", 0, gate);
    for release in ["e", "f", "sick"] {
        site.ok(&receive_command(release)).expect("received");
    }
    site.ok("swap f").expect("swapped");
    // With a gate, a swap's intent may not be lost either: the release would pass
    // for one that has proved itself.
    let proved = &[&PROVED, &RECORDED][..];
    let order = [GATED_INTENT, LINK_FIRST, proved, PRUNE_AND_PROMISE].concat();
    check("swap with a gate", &trace(&site, "swap e"), &order);
    let back = &[
        &INTENT,
        &RECORDED,
        &LINK_MOVED_BACK,
        &ROOT_SYNCED,
        &RETURNED,
        &RECORDED,
    ];
    let order = [GATED_INTENT, LINK_FIRST, back, proved, &[&TOLD]].concat();
    check("the way back", &trace_to(&site, "swap sick", 69), &order);
    site.tidy().expect("a site that nothing happened to");

    let site = ground.copy(&ground.make("order-bare", 5), "order-first", 0, gate);
    site.ok(&receive_command("sick")).expect("received");
    let intent = &[&INTENT, &RECORDED][..];
    let back = &[&LINK_REMOVED, &ROOT_SYNCED, &RETURNED, &RECORDED, &TOLD];
    let order = [intent, LINK_FIRST, intent, back].concat();
    let steps = trace_to(&site, "swap sick", 69);
    check("the way back to nothing", &steps, &order);
}
