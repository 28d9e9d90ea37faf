//! Changes that fit a base, and each way in which they do not.

use super::*;
use proptest::prelude::*;

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Completes the lines of a list: a path with `/` at its end is a directory, one with `>` a
/// symlink, and any other is a file of the stated size.
fn line(short: &str) -> String {
    if short == "." {
        return ". type=dir mode=0755".to_owned();
    }
    if let Some(path) = short.strip_suffix('/') {
        return format!("./{path} type=dir mode=0755");
    }
    if let Some((path, target)) = short.split_once('>') {
        return format!("./{path} type=link mode=0777 link={target}");
    }
    let (path, size) = short.split_once('=').expect("a file has a size");
    format!("./{path} type=file mode=0644 size={size} sha256digest={HEX}")
}

fn entries(short: &[&str]) -> Vec<Entry> {
    let mut entries: Vec<_> = short
        .iter()
        .map(|short| Entry::parse(&line(short)).unwrap())
        .collect();
    entries.sort_by(|one, other| compare_paths(&one.path, &other.path));
    entries
}

fn manifest_of(entries: &[Entry]) -> String {
    let mut sums = Sums::default();
    let mut text = String::new();
    for entry in entries {
        sums.add(entry);
        text += &format!("{entry}\n");
    }
    text + &manifest::trailer(sums)
}

fn identity_of(entries: &[Entry]) -> Identity {
    Identity {
        release: ReleaseId::try_from("base").unwrap(),
        sha256: Sha256Digest([0; 32]),
        tree: Some(tree_list::digest(tree_list::in_order(entries, &[]))),
        base: None,
        signatures: Vec::new(),
        added: Vec::new(),
        received: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn job(tree: Sha256Digest) -> DeltaJob {
    DeltaJob {
        base: ReleaseId::try_from("base").unwrap(),
        tree,
        reuse: Reuse::Clone,
        symlinks: true,
        block: 4096,
        room_bytes: 1 << 30,
        room_inodes: 1000,
    }
}

const LIMITS: TreeLimits = TreeLimits {
    max_unpacked: 1000,
    max_file: 600,
    max_entries: 8,
};

fn shared() -> Shared {
    Shared {
        links: vec!["s/up".to_owned().try_into().unwrap()],
        ..Shared::default()
    }
}

/// Merges, with the digest of `result` as the promised one.
fn merge_to(base: &[&str], changes: &str, result: &[&str]) -> Result<Merged> {
    let tree = tree_list::digest(tree_list::in_order(&entries(result), &[]));
    let base = entries(base);
    merge(
        &identity_of(&base),
        &mut manifest_of(&base).as_bytes(),
        &mut changes.as_bytes(),
        &shared(),
        &LIMITS,
        &job(tree),
    )
}

/// Returns the changes from one list to another, as a client writes them.
fn changes_between(old: &[Entry], new: &[Entry]) -> String {
    let mut paths: Vec<&[u8]> = (old.iter().chain(new))
        .map(|entry| entry.path.as_slice())
        .collect();
    paths.sort_by(|one, other| compare_lines(one, other));
    paths.dedup();
    let at = |list: &[Entry], path: &[u8]| {
        let found = list.iter().find(|entry| entry.path == path);
        found.map(ToString::to_string)
    };
    let mut text = String::new();
    for path in paths {
        let (before, after) = (at(old, path), at(new, path));
        if before == after {
            continue;
        }
        if let Some(before) = before {
            text += &format!("- {}\n", before.split(' ').next().unwrap_or_default());
        }
        if let Some(after) = after {
            text += &format!("+ {after}\n");
        }
    }
    text
}

#[test]
fn changes_give_the_new_release_and_the_members_in_their_order() {
    let base = [".", "a/", "a/x=1", "b=2", "l>b", "z=3"];
    let result = [".", "a/", "a/x=1", "a-b=7", "a/y=5", "l>a/x", "z=4"];
    let changes = changes_between(&entries(&base), &entries(&result));
    let merged = merge_to(&base, &changes, &result).unwrap();
    let lines: Vec<_> = merged.entries.iter().map(ToString::to_string).collect();
    let expected = [
        ".",
        "a/",
        "a/x=1",
        "a/y=5",
        "a-b=7",
        "l>a/x",
        "s/",
        "s/up>../../../shared/s/up",
        "z=4",
    ];
    assert_eq!(lines, expected.map(line));
    assert_eq!(merged.known, [0]);
    let sources = [
        Source::Base,
        Source::Base,
        Source::Base,
        Source::Delta(1),
        Source::Delta(0),
        Source::Delta(2),
        Source::Site,
        Source::Site,
        Source::Delta(2),
    ];
    assert_eq!(merged.sources, sources);
    let members = ["a-b=7", "a/y=5", "z=4"].map(|short| {
        let line = line(short);
        line[..line.rfind(' ').unwrap()].to_owned()
    });
    assert_eq!(expected_members(&merged), members);
}

/// The base and the changes are harmless, and the result is not (CVE-2025-45582).
#[test]
fn a_symlink_of_the_base_and_a_file_of_the_delta_never_combine() {
    // The client promises the tree that results, so only the rules of a tree refuse it.
    for (base, changes, result) in [
        (
            &[".", "d>t", "t/", "t/a=1"][..],
            &["d/evil=5"][..],
            &[".", "d>t", "d/evil=5", "t/", "t/a=1"][..],
        ),
        (
            &[".", "d>..", "f=1"],
            &["d/evil=5"],
            &[".", "d>..", "d/evil=5", "f=1"],
        ),
        (
            &[".", "f=1"],
            &["d>..", "d/evil=5"],
            &[".", "d>..", "d/evil=5", "f=1"],
        ),
        (&[".", "f=1"], &["d/evil=5"], &[".", "d/evil=5", "f=1"]),
        (&[".", "f=1"], &["f/evil=5"], &[".", "f=1", "f/evil=5"]),
        // Two symlinks, each inside by itself.
        (
            &[".", "a/", "a/l>..", "f=1"],
            &["m>a/l/.."],
            &[".", "a/", "a/l>..", "f=1", "m>a/l/.."],
        ),
    ] {
        let changes: String = changes
            .iter()
            .map(|it| format!("+ {}\n", line(it)))
            .collect();
        let error = merge_to(base, &changes, result).unwrap_err();
        assert_eq!(error.code, Code::BadArchive, "{changes}: {error}");
    }
}

#[test]
fn changes_that_do_not_fit_the_base_have_one_answer() {
    let base = [".", "a/", "a/x=1", "b=2"];
    let result = [".", "a/", "a/x=1", "b=2", "c=3"];
    let add = |short: &str| format!("+ {}\n", line(short));
    let answers: Vec<_> = [
        // Of a path that the base has, and of one that it does not have.
        "- ./b\n".to_owned(),
        "- ./c\n".to_owned(),
        add("b=3"),
        add("b=2"),
        "- ./b\n".to_owned() + &add("b=2"),
        add("d=3"),
        add("a/x/y=3"),
        add("c=3") + &add("d=3"),
        "- ./a\n".to_owned(),
    ]
    .iter()
    .map(|changes| merge_to(&base, changes, &result).unwrap_err())
    .collect();
    assert!(
        answers.iter().all(|error| *error == answers[0]),
        "{answers:?}"
    );
    assert_eq!(answers[0].code, Code::TreeMismatch);
    merge_to(&base, &add("c=3"), &result).unwrap();
}

/// A client that sent correct changes must not get the blame.
#[test]
fn a_list_of_the_base_with_another_digest_is_damage() {
    let (base, other) = (entries(&[".", "a=1", "b=2"]), entries(&[".", "a=1", "b=3"]));
    let result = entries(&[".", "a=1", "b=2", "c=3"]);
    let tree = tree_list::digest(tree_list::in_order(&result, &[]));
    let merge_from = |entries| {
        merge(
            &identity_of(&base),
            &mut manifest_of(entries).as_bytes(),
            &mut changes_between(&base, &result).as_bytes(),
            &shared(),
            &LIMITS,
            &job(tree),
        )
    };
    merge_from(&base).unwrap();
    let error = merge_from(&other).unwrap_err();
    assert_eq!(error.code, Code::BaseDamaged, "{error}");
    assert!(error.problem.contains("'base'"), "{error}");
}

/// A fuzzer found that such a path reached the result.
#[test]
fn a_path_of_the_base_that_no_release_has_is_damage() {
    for path in ["../x=2", "x/../y=2", "x/./y=2", "x//y=2", "/x=2"] {
        let (base, result) = ([".", "a=1", path], [".", "a=1", path, "c=3"]);
        let changes = changes_between(&entries(&base), &entries(&result));
        let error = merge_to(&base, &changes, &result).unwrap_err();
        assert_eq!(error.code, Code::BaseDamaged, "{path}: {error}");
    }
}

/// As in a whole release. A fuzzer found that the list of the release has no such symlink
/// yet when the others are followed.
#[test]
fn a_symlink_through_one_of_the_site_is_refused() {
    for target in ["s/up", "s/up/l", "s/up//l/."] {
        let link = format!("m>{target}");
        let (base, result) = ([".", "a=1"], [".", "a=1", &link]);
        let changes = format!("+ {}\n", line(&link));
        let error = merge_to(&base, &changes, &result).unwrap_err();
        assert_eq!(error.code, Code::BadArchive, "{target}: {error}");
        assert!(error.problem.contains("out of the release"), "{error}");
    }
}

#[test]
fn malformed_changes_are_refused() {
    let add = |short: &str| format!("+ {}\n", line(short));
    for changes in [
        String::new(),
        "\n".to_owned(),
        add("c=3").trim_end().to_owned(),
        add("d=3") + &add("c=3"),
        add("c=3") + &add("c=3"),
        add("c=3") + "- ./c\n",
        "- ./b\n- ./b\n".to_owned(),
        "- .\n".to_owned(),
        "+ . type=dir mode=0755\n".to_owned(),
        "- b\n".to_owned(),
        "- ./../b\n".to_owned(),
        "- ./b/\n".to_owned(),
        add("../c=3"),
        add("c/./d=3"),
        add("a\\012b=3"),
        add("c=3").replace("0644", "4755"),
        add("c=3").replace("+ ", "* "),
        (0..20)
            .map(|number| add(&format!("c{number:02}=1")))
            .collect(),
    ] {
        let error = merge_to(&[".", "b=2"], &changes, &[".", "b=2", "c=3"]).unwrap_err();
        assert_eq!(error.code, Code::BadArchive, "{changes:?}: {error}");
    }
}

#[test]
fn the_limits_are_those_of_the_whole_release() {
    let add = |short: &str| format!("+ {}\n", line(short));
    let refused = |base: &[&str], changes: &str, result: &[&str], words: &str| {
        let error = merge_to(base, changes, result).unwrap_err();
        assert_eq!(error.code, Code::BadArchive, "{error}");
        assert!(error.problem.contains(words), "{error}");
    };
    // Each alone is within the limit, and the sum is not.
    refused(
        &[".", "a=500"],
        &add("b=501"),
        &[".", "a=500", "b=501"],
        "max_unpacked",
    );
    merge_to(&[".", "a=500"], &add("b=500"), &[".", "a=500", "b=500"]).unwrap();
    refused(
        &[".", "a=1"],
        &add("b=601"),
        &[".", "a=1", "b=601"],
        "max_file",
    );
    // 6 entries, and the two that the site adds.
    let six = [".", "a=1", "b=1", "c=1", "d=1", "e=1"];
    let whole: Vec<_> = six.iter().copied().chain(["f=1"]).collect();
    merge_to(&six, &add("f=1"), &whole).unwrap();
    let more: Vec<_> = whole.iter().copied().chain(["g=1"]).collect();
    refused(&whole, &add("g=1"), &more, "more than 8 entries");
    refused(&[".", "a=1", "d/"], "- ./a\n", &[".", "d/"], "has no file");
    refused(
        &[".", "a=1"],
        &add("s/up=1"),
        &[".", "a=1", "s/up=1"],
        "directory of the release",
    );
    let below = add("s/") + &add("s/up=1");
    refused(
        &[".", "a=1"],
        &below,
        &[".", "a=1", "s/", "s/up=1"],
        "at a shared path",
    );
    refused(
        &[".", "a=1"],
        &add("s=1"),
        &[".", "a=1", "s=1"],
        "above a shared path",
    );
    refused(&[".", "a=1"], &add("l>l"), &[".", "a=1", "l>l"], "loops");
    refused(
        &[".", "a=1"],
        &add("l>/etc"),
        &[".", "a=1", "l>/etc"],
        "absolute",
    );
}

/// Random lists: what a client computes leads from the one to the other.
fn list() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_map(
        prop::sample::select(&["a", "a/b", "a/c", "a-", "b", "c\\040d"][..]),
        prop_oneof![Just("/"), Just("=1"), Just("=2"), Just(">a"), Just(">b")],
        1..6,
    )
    .prop_map(|kinds| {
        let is_dir = |path: &str| kinds.get(path) == Some(&"/");
        let mut list = vec![".".to_owned(), "file=9".to_owned()];
        for (path, kind) in &kinds {
            let parent = path.rsplit_once('/').map(|(parent, _)| parent);
            if parent.is_none_or(is_dir) {
                list.push(format!("{path}{kind}"));
            }
        }
        list
    })
}

proptest! {
    #[test]
    fn the_changes_between_two_releases_give_the_second(old in list(), new in list()) {
        let short = |list: &[String]| entries(&list.iter().map(String::as_str).collect::<Vec<_>>());
        let (old, new) = (short(&old), short(&new));
        let changes = changes_between(&old, &new);
        let tree = tree_list::digest(tree_list::in_order(&new, &[]));
        let merged = merge(
            &identity_of(&old),
            &mut manifest_of(&old).as_bytes(),
            &mut changes.as_bytes(),
            &Shared::default(),
            &LIMITS,
            &job(tree),
        );
        match merged {
            Ok(merged) => prop_assert_eq!(merged.entries, new),
            Err(error) => {
                // Equal lists, or symlinks that loop.
                let allowed = changes.is_empty() || error.problem.contains("loops");
                prop_assert!(allowed, "{}: {}", changes, error);
            }
        }
    }
}

/// Limits of the tree come later: the lists are in memory by then.
#[test]
fn lists_that_would_take_too_much_memory_are_refused() {
    let limits = TreeLimits {
        max_entries: 20_000,
        ..LIMITS
    };
    let (name, target) = ("n".repeat(250), "t".repeat(1000));
    let changes: String = (0..20_000)
        .map(|n| {
            let path = format!("{n:05}/{name}/{name}/{name}");
            format!("+ ./{path} type=link mode=0777 link={target}\n")
        })
        .collect();
    let read = |changes: &str| {
        read_changes(&mut changes.as_bytes(), &limits, &mut Memory::of(&limits)).map(|it| it.len())
    };
    // All lines are equally long.
    assert_eq!(read(&changes[..changes.len() / 2]).unwrap(), 10_000);
    let error = read(&changes).unwrap_err();
    assert_eq!(error.code, Code::BadArchive);
    assert!(error.problem.contains("too long together"), "{error:?}");
}

/// A compromised monitor sends the job.
#[test]
fn a_job_makes_links_only_where_the_configuration_does() {
    let linking = DeltaJob {
        reuse: Reuse::Link,
        ..job(Sha256Digest([0; 32]))
    };
    let cloning = job(Sha256Digest([0; 32]));
    for (delta, may_link, accepted) in [
        (Some(&linking), true, true),
        (Some(&linking), false, false),
        (Some(&cloning), false, true),
        (None, false, true),
    ] {
        let checked = crate::assemble::check_links(delta, may_link);
        assert_eq!(checked.is_ok(), accepted, "{delta:?} {may_link}");
    }
}
