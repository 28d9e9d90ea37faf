//! Trees that a release may be, and each way in which a tree is not one.

use super::*;
use crate::assemble::TreeLimits;
use crate::shared_paths::Shared;
use crate::store::Inherited;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn job(shared: &[&str]) -> AssembleJob {
    let links = shared.iter().map(|it| (*it).to_owned().try_into().unwrap());
    AssembleJob {
        staging: "r1.1.0".to_owned(),
        limits: TreeLimits {
            max_unpacked: 100,
            max_file: 60,
            max_entries: 5,
        },
        shared: Shared {
            links: links.collect(),
            ..Shared::default()
        },
        known: Vec::new(),
        delta: None,
        inherited: Inherited::NOTHING,
        sandbox_required: true,
    }
}

/// Walks a tree, and returns the lines of its entries. Requires that each file was given to
/// be hashed with its size.
fn walk_path(root: &Path, job: &AssembleJob) -> Result<Vec<String>> {
    let tree = Dir::open_root(root).unwrap();
    let mut given = Vec::new();
    let entries = walk(&tree, job, None, &mut |file, size, index| {
        assert_eq!(file.metadata().unwrap().len(), size);
        given.push((index, size));
    })?;
    let files = entries.iter().enumerate();
    let files = files.filter_map(|(index, entry)| match entry.kind {
        Kind::File { size, .. } => Some((index, size)),
        _ => None,
    });
    assert_eq!(given, files.collect::<Vec<_>>());
    let no_digest = format!(" sha256digest={}", Sha256Digest([0; 32]));
    let lines = entries
        .iter()
        .map(|entry| entry.to_string().replace(&no_digest, ""));
    Ok(lines.collect())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Sets the time of a file, in seconds since the epoch.
fn set_time(path: &Path, seconds: i64) {
    let time = nix::sys::time::TimeSpec::new(seconds, 0);
    dir::set_modified(&File::open(path).unwrap(), time).unwrap();
}

fn make_file(path: &Path, size: usize) {
    fs::write(path, vec![b'x'; size]).unwrap();
    set_mode(path, 0o644);
}

/// Makes a tree, applies `change`, and walks it.
fn walk_changed(change: impl FnOnce(&Path)) -> Result<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    fs::create_dir_all(root.join("d")).unwrap();
    set_mode(&root, 0o755);
    set_mode(&root.join("d"), 0o755);
    make_file(&root.join("f"), 1);
    symlink("../f", root.join("d/l")).unwrap();
    change(&root);
    walk_path(&root, &job(&[]))
}

#[test]
fn the_entries_are_those_on_disk_in_the_order_of_a_manifest() {
    let lines = walk_changed(|root| {
        make_file(&root.join("d.x"), 0);
        set_mode(&root.join("d.x"), 0o755);
    });
    let expected = [
        ". type=dir mode=0755",
        "./d type=dir mode=0755",
        "./d/l type=link mode=0777 link=../f",
        "./d.x type=file mode=0755 size=0",
        "./f type=file mode=0644 size=1",
    ];
    assert_eq!(lines.unwrap(), expected);
}

#[test]
fn a_tree_that_is_not_a_release_is_refused() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 17] = [
        ("set-user-id", |root| set_mode(&root.join("f"), 0o4644)),
        ("a file that the group may write", |root| {
            set_mode(&root.join("f"), 0o664);
        }),
        ("a directory that everyone may write", |root| {
            set_mode(&root.join("d"), 0o1777);
        }),
        ("a set-group-id directory", |root| {
            set_mode(&root.join("d"), 0o2755);
        }),
        ("a root that everyone may write", |root| {
            set_mode(root, 0o777);
        }),
        ("a second name", |root| {
            fs::hard_link(root.join("f"), root.parent().unwrap().join("g")).unwrap();
        }),
        ("a symlink out of the release", |root| {
            symlink("../../f", root.join("d/m")).unwrap();
        }),
        ("a symlink through another one out of it", |root| {
            symlink("d/l/../../x", root.join("m")).unwrap();
        }),
        ("an absolute symlink", |root| {
            symlink("/etc/passwd", root.join("m")).unwrap();
        }),
        ("a symlink to itself", |root| {
            symlink("m", root.join("m")).unwrap();
        }),
        ("a fifo", |root| {
            let mode = Mode::from_bits_truncate(0o644);
            nix::unistd::mkfifo(&root.join("m"), mode).unwrap();
        }),
        ("a line feed in a name", |root| {
            make_file(&root.join("a\nb"), 1);
        }),
        ("a file of the year 2446", |root| {
            set_time(&root.join("f"), 15_026_000_000);
        }),
        ("a directory of the year 1901", |root| {
            set_time(&root.join("d"), -(1 << 31));
        }),
        ("a file of 1979", |root| {
            set_time(&root.join("f"), OLDEST - 1)
        }),
        ("a large file", |root| make_file(&root.join("m"), 61)),
        ("more bytes than the limit", |root| {
            make_file(&root.join("m"), 60);
            make_file(&root.join("n"), 40);
        }),
    ];
    for (what, change) in changes {
        let error = walk_changed(change).expect_err(what);
        assert_eq!(error.code, Code::UnpackerDied, "{what}: {error}");
    }
    // Within the limits: 5 entries besides the release, and 100 bytes.
    let whole = |root: &Path| {
        make_file(&root.join("m"), 60);
        make_file(&root.join("n"), 39);
    };
    assert_eq!(walk_changed(whole).unwrap().len(), 6);
    let more = |root: &Path| {
        whole(root);
        make_file(&root.join("o"), 0);
    };
    let error = walk_changed(more).unwrap_err();
    assert!(error.problem.contains("limit of entries"), "{error}");
    let many = |root: &Path| {
        for name in 0..7 {
            make_file(&root.join("d").join(name.to_string()), 0);
        }
    };
    let error = walk_changed(many).unwrap_err();
    assert!(
        error.problem.contains("'./d' is over the limit of entries"),
        "{error}"
    );
}

#[test]
fn a_file_may_be_as_old_as_1980_and_some_hours_newer_than_now() {
    let change = |root: &Path| {
        set_time(&root.join("f"), OLDEST);
        let now = fs::metadata(root).unwrap().ctime();
        set_time(&root.join("d"), now + 23 * 60 * 60);
    };
    assert_eq!(walk_changed(change).unwrap().len(), 4);
}

/// Walks a tree with these symlinks, where the site shares `e` and `d/s`.
fn walk_symlinks(links: &[(&str, &str)]) -> Result<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    // Deep enough that every target outside of the tree exists.
    let root = directory.path().join("releases/tree");
    fs::create_dir_all(root.join("d")).unwrap();
    fs::create_dir_all(directory.path().join("shared/d/s")).unwrap();
    fs::write(directory.path().join("shared/e"), "").unwrap();
    set_mode(&root, 0o755);
    set_mode(&root.join("d"), 0o755);
    for (path, target) in links {
        symlink(target, root.join(path)).unwrap();
    }
    walk_path(&root, &job(&["e", "d/s"]))
}

#[test]
fn all_shared_symlinks_exist_and_no_other_symlink_leads_out() {
    let (d, e) = ("../../../shared/d/s", "../../shared/e");
    walk_symlinks(&[("d/s", d), ("e", e)]).unwrap();
    walk_symlinks(&[("d/s", d), ("e", e), ("f", "d")]).unwrap();
    for wrong in [
        &[("d/s", d)][..],
        &[("e", e)],
        &[],
        &[("d/s", d), ("e", "../../shared/d")],
        &[("d/s", d), ("e", "../../shared/../shared/e")],
        &[("d/s", d), ("e", "d")],
        &[("d/s", "../../../shared/d"), ("e", e)],
        // Only the symlink at the shared path may have the shared target.
        &[("d/s", d), ("e", e), ("f", e)],
        &[("d/s", d), ("e", e), ("f", "e")],
        &[("d/s", d), ("e", e), ("f", "d/s/below")],
        &[("d/s", d), ("e", e), ("f", "d/s/../e")],
    ] {
        let error = walk_symlinks(wrong).expect_err(&format!("{wrong:?}"));
        assert_eq!(error.code, Code::UnpackerDied, "{wrong:?}: {error}");
    }
}

#[test]
fn a_directory_in_place_of_a_shared_symlink_is_found() {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    fs::create_dir(directory.path().join("d")).unwrap();
    set_mode(&directory.path().join("d"), 0o755);
    let error = walk_path(directory.path(), &job(&["d"])).unwrap_err();
    assert!(error.problem.contains("./d"), "{error}");
}
