//! Merges the list of a base with the changes of a delta. The input is lines of a list, a
//! line `%`, and the changes. A naive reader applies the changes to the list; what it gets is
//! the tree that the request promises, so the rules of a release alone decide.

#![no_main]

use std::collections::BTreeMap;

use deploy_shell::archive;
use deploy_shell::assemble::TreeLimits;
use deploy_shell::assemble::delta::{DeltaJob, Merged, Source, expected_members, merge};
use deploy_shell::config::Reuse;
use deploy_shell::error::{Code, Error};
use deploy_shell::manifest::{Entry, Identity, Kind, Sums, compare_paths, trailer, tree_list};
use deploy_shell::names::{ReleaseId, Sha256Digest};
use deploy_shell::shared_paths::{Shared, SharedPath};
use deploy_shell_fuzz::staged::{self, Tree};
use libfuzzer_sys::fuzz_target;

const LIMITS: TreeLimits = TreeLimits {
    max_unpacked: 1000,
    max_file: 600,
    max_entries: 12,
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (base, changes) = text.split_once("%\n").unwrap_or(("", text));
    let base = list(base);
    // The merge stops at a larger base, to bound its memory, before it looks at the changes.
    if base.len() > LIMITS.max_entries as usize + 1 {
        return;
    }
    let result = apply(&base, changes);
    let sites = [
        (Shared::default(), Reuse::Clone, true),
        (shared("s/up"), Reuse::Link, true),
        (shared("a"), Reuse::Clone, false),
    ];
    for (shared, reuse, symlinks) in sites {
        let merge = |tree| {
            let job = DeltaJob {
                base: id(),
                tree,
                reuse,
                symlinks,
                block: 4096,
                room_bytes: 1 << 20,
                room_inodes: 10,
            };
            let manifest = manifest(&base);
            let mut changes = changes.as_bytes();
            merge(
                &identity(&base),
                &mut manifest.as_bytes(),
                &mut changes,
                &shared,
                &LIMITS,
                &job,
            )
        };
        let wrong = merge(Sha256Digest([0; 32])).expect_err("another tree than the promised one");
        check_error(&wrong);
        match (merge(digest(result.as_ref().unwrap_or(&base))), &result) {
            (Ok(merged), Some(result)) => {
                assert_eq!(wrong.code, Code::TreeMismatch, "{wrong}");
                check(&merged, result, &shared, symlinks);
                assert_eq!(expected_members(&merged), members(changes));
            }
            (Ok(_), None) => panic!("the changes are malformed or do not fit"),
            (Err(error), result) => {
                check_error(&error);
                assert!(
                    result.is_none() || error.code != Code::TreeMismatch,
                    "the changes give the tree: {error}"
                );
            }
        }
    }
});

fn id() -> ReleaseId {
    ReleaseId::try_from("base").expect("an id")
}

fn shared(link: &str) -> Shared {
    Shared {
        links: vec![SharedPath::try_from(link.to_owned()).expect("a path")],
        ..Shared::default()
    }
}

/// Returns the entries among the lines, sorted as a manifest sorts them, each path once.
fn list(lines: &str) -> Vec<Entry> {
    let root = Entry {
        path: Vec::new(),
        kind: Kind::Dir,
    };
    let mut entries = vec![root];
    entries.extend(lines.lines().filter_map(|line| Entry::parse(line).ok()));
    entries.sort_by(|one, other| compare_paths(&one.path, &other.path));
    entries.dedup_by(|one, other| one.path == other.path);
    entries
}

fn manifest(entries: &[Entry]) -> String {
    let mut sums = Sums::default();
    let mut text = String::new();
    for entry in entries {
        sums.add(entry);
        text += &format!("{entry}\n");
    }
    text + &trailer(sums)
}

fn digest(entries: &[Entry]) -> Sha256Digest {
    tree_list::digest(tree_list::in_order(entries, &[]))
}

fn identity(entries: &[Entry]) -> Identity {
    Identity {
        release: id(),
        sha256: Sha256Digest([0; 32]),
        tree: Some(digest(entries)),
        base: None,
        signatures: Vec::new(),
        added: Vec::new(),
        received: "2026-04-12T14:20:41Z".parse().expect("a time"),
    }
}

/// Applies the changes to the list; none if they are malformed or do not fit.
fn apply(base: &[Entry], changes: &str) -> Option<Vec<Entry>> {
    let mut tree: BTreeMap<&[u8], &Kind> = base
        .iter()
        .map(|entry| (entry.path.as_slice(), &entry.kind))
        .collect();
    // The word of the path, and whether the line adds it: the order of the lines.
    let mut order = Vec::new();
    let mut added = Vec::new();
    let body = changes.strip_suffix('\n')?;
    for line in body.split('\n') {
        let (adds, rest) = (line.strip_prefix("+ "), line.strip_prefix("- "));
        let rest = adds.or(rest)?;
        let word = rest.split(' ').next()?;
        order.push((word, adds.is_some()));
        let old = base.iter().find(|entry| is_at(entry, word));
        match adds {
            Some(line) => {
                let new = Entry::parse(line).ok()?;
                let is_removed = order.contains(&(word, false));
                if old.is_some() != is_removed || old.is_some_and(|old| old.kind == new.kind) {
                    return None;
                }
                added.push(new);
            }
            None if rest != word => return None,
            None => _ = tree.remove(old?.path.as_slice())?,
        }
    }
    if !order.is_sorted_by(|one, other| one < other) {
        return None;
    }
    tree.extend(
        added
            .iter()
            .map(|entry| (entry.path.as_slice(), &entry.kind)),
    );
    let entry = |(path, kind): (&[u8], &Kind)| Entry {
        path: path.to_vec(),
        kind: kind.clone(),
    };
    let mut result: Vec<_> = tree.into_iter().map(entry).collect();
    result.sort_by(|one, other| compare_paths(&one.path, &other.path));
    Some(result)
}

/// Returns whether the line of an entry begins with this word.
fn is_at(entry: &Entry, word: &str) -> bool {
    entry.to_string().split(' ').next() == Some(word)
}

/// Returns the lines of the files that the changes add, without digests.
fn members(changes: &str) -> Vec<&str> {
    let lines = changes.lines().filter_map(|line| line.strip_prefix("+ "));
    let files = lines.filter(|line| line.contains(" type=file "));
    files
        .map(|line| line.rsplit_once(' ').expect("words").0)
        .collect()
}

fn check_error(error: &Error) {
    let codes = [
        Code::BadArchive,
        Code::TreeMismatch,
        Code::BaseDamaged,
        Code::DiskFull,
    ];
    assert!(codes.contains(&error.code), "{error}");
    let shown = |byte: u8| matches!(byte, b' '..=b'~');
    assert!(error.problem.bytes().all(shown), "{error}");
}

/// Requires a result to be a release, and exactly what the changes give.
fn check(merged: &Merged, expected: &[Entry], shared: &Shared, symlinks: bool) {
    assert_eq!(merged.entries.len(), merged.sources.len());
    assert!(merged.entries.len() <= LIMITS.max_entries as usize + 1);
    let sent = merged.entries.iter().zip(&merged.sources);
    let sent = sent.filter(|(_, source)| **source != Source::Site);
    let sent: Vec<_> = sent.map(|(entry, _)| entry).collect();
    assert!(sent.iter().copied().eq(expected), "another list");
    let tree: Tree = merged
        .entries
        .iter()
        .map(|entry| (entry.path.clone(), entry.kind.clone()))
        .collect();
    assert_eq!(tree.len(), merged.entries.len(), "a path occurs twice");
    let links: Tree = staged::shared_links(shared).collect();
    let (mut files, mut bytes) = (0, 0);
    for (path, kind) in &tree {
        assert!(!archive::is_changes(path));
        if let Some(kind) = links.get(path) {
            assert_eq!(tree.get(path), Some(kind), "the shared symlink");
            continue;
        }
        if !path.is_empty() {
            for name in path.split(|byte| *byte == b'/') {
                assert!(!name.is_empty() && name != b"." && name != b"..");
            }
            let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            assert_eq!(tree.get(&path[..parent]), Some(&Kind::Dir), "its parent");
        }
        match kind {
            Kind::Dir => {}
            Kind::File { size, .. } => {
                files += 1;
                bytes += size;
                assert!(*size <= LIMITS.max_file);
            }
            Kind::Link { target } => {
                assert!(symlinks);
                staged::assert_inside(&tree, path, target);
            }
        }
    }
    assert!(links.keys().all(|link| tree.contains_key(link)));
    assert!(files > 0 && bytes <= LIMITS.max_unpacked);
}
