//! Reports and trees that agree, and each way in which they may differ.

use super::*;
use crate::manifest::trailer;
use crate::names::Sha256Digest;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

/// A report with these entries and the sums of them.
fn report(lines: &[impl AsRef<str>]) -> String {
    let digest = format!("sha256digest={}", Sha256Digest([0; 32]));
    let mut sums = Sums::default();
    let mut text = String::new();
    for line in lines {
        let line = line.as_ref().replace("SHA", &digest);
        sums.add(&Entry::parse(&line).unwrap());
        text += &(line + "\n");
    }
    text + &trailer(sums)
}

fn inspect_path(root: &Path, shared: &Shared, report: &str) -> Result<Sums> {
    let tree = Dir::open_root(root).unwrap();
    let deadline = Deadline::after(Duration::from_secs(600));
    inspect_until(&tree, shared, report, deadline)
}

fn inspect_until(tree: &Dir, shared: &Shared, report: &str, deadline: Deadline) -> Result<Sums> {
    let mut report = report.as_bytes();
    let found = inspect(tree, shared, Inherited::NOTHING, &mut report, deadline);
    found.map(|(sums, _)| sums)
}

const HONEST: [&str; 4] = [
    ". type=dir mode=0755",
    "./d type=dir mode=0755",
    "./d/l type=link mode=0777 link=../f",
    "./f type=file mode=0644 size=1 SHA",
];

/// Makes the honest tree, applies `change`, and compares it with `report`.
fn inspect_changed(report: &str, change: impl FnOnce(&Path)) -> Result<Sums> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    fs::create_dir_all(root.join("d")).unwrap();
    mode(&root, 0o755).unwrap();
    mode(&root.join("d"), 0o755).unwrap();
    fs::write(root.join("f"), "x").unwrap();
    mode(&root.join("f"), 0o644).unwrap();
    symlink("../f", root.join("d/l")).unwrap();
    change(&root);
    inspect_path(&root, &Shared::default(), report)
}

#[test]
fn a_report_that_matches_is_accepted() {
    let sums = inspect_changed(&report(&HONEST), |_| ()).unwrap();
    assert_eq!(sums, Sums { files: 1, bytes: 1 });
}

#[test]
fn the_work_ends_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Dir::open_root(directory.path()).unwrap();
    let passed = Deadline::after(Duration::ZERO);
    let error = inspect_until(&tree, &Shared::default(), &report(&HONEST), passed).unwrap_err();
    assert_eq!(error.code, Code::Timeout, "{error:?}");
}

#[test]
fn every_difference_of_the_tree_is_found() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 10] = [
        ("an extra file", |root| {
            fs::write(root.join("z"), "").unwrap()
        }),
        ("a missing file", |root| {
            fs::remove_file(root.join("f")).unwrap()
        }),
        ("a longer file", |root| {
            fs::write(root.join("f"), "xx").unwrap()
        }),
        ("set-user-id", |root| {
            fs::set_permissions(root.join("f"), Permissions::from_mode(0o4644)).unwrap();
        }),
        ("a directory that everyone may write", |root| {
            fs::set_permissions(root.join("d"), Permissions::from_mode(0o1777)).unwrap();
        }),
        ("a second name", |root| {
            fs::hard_link(root.join("f"), root.parent().unwrap().join("g")).unwrap();
        }),
        ("a symlink in place of a file", |root| {
            fs::remove_file(root.join("f")).unwrap();
            symlink("d", root.join("f")).unwrap();
        }),
        ("another target", |root| {
            fs::remove_file(root.join("d/l")).unwrap();
            symlink("../d", root.join("d/l")).unwrap();
        }),
        ("a fifo", |root| {
            fs::remove_file(root.join("f")).unwrap();
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
            nix::unistd::mkfifo(&root.join("f"), mode).unwrap();
        }),
        ("a root that everyone may write", |root| {
            fs::set_permissions(root, Permissions::from_mode(0o777)).unwrap();
        }),
    ];
    for (what, change) in changes {
        let error = inspect_changed(&report(&HONEST), change).expect_err(what);
        assert_eq!(error.code, Code::UnpackerDied, "{what}: {error}");
    }
}

#[test]
fn every_difference_of_the_report_is_found() {
    let with = |extra: &'static str, at: usize| {
        let mut lines = HONEST.to_vec();
        lines.insert(at, extra);
        inspect_changed(&report(&lines), |_| ())
    };
    assert!(with("./../../etc/passwd type=file mode=0644 size=1 SHA", 4).is_err());
    assert!(with("./f type=file mode=0644 size=1 SHA", 4).is_err());
    assert!(inspect_changed(&report(&HONEST[..3]), |_| ()).is_err());
    let out = [
        HONEST[0],
        HONEST[1],
        "./d/l type=link mode=0777 link=../../f",
        HONEST[3],
    ];
    let change = |root: &Path| {
        fs::remove_file(root.join("d/l")).unwrap();
        symlink("../../f", root.join("d/l")).unwrap();
    };
    assert!(inspect_changed(&report(&out), change).is_err());
    let newline = "./a\\012b type=dir mode=0755";
    let lines = [HONEST[0], newline, HONEST[1], HONEST[2], HONEST[3]];
    let make = |root: &Path| fs::create_dir(root.join("a\nb")).unwrap();
    assert!(inspect_changed(&report(&lines), make).is_err());
}

#[test]
fn a_malformed_report_is_refused() {
    let whole = report(&HONEST);
    let end = whole.find('#').unwrap();
    for bad in [
        "",
        &whole[..end],
        &whole[..whole.len() - 1],
        &format!("{}# files 1 bytes 0\n", &whole[..end]),
        &format!("{whole}./z type=dir mode=0755\n"),
        &whole.replace("./f type=file", "./f type=disk"),
    ] {
        let error = inspect_changed(bad, |_| ()).expect_err(bad);
        assert_eq!(error.code, Code::UnpackerDied, "{bad}: {error}");
    }
}

/// Inspects a tree with these symlinks, where the site shares `e` and `d/s`.
fn inspect_symlinks(links: &[(&str, &str)]) -> Result<Sums> {
    let directory = tempfile::tempdir().unwrap();
    // Deep enough that every target outside of the tree exists.
    let root = directory.path().join("releases/tree");
    let mode = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755));
    fs::create_dir_all(root.join("d")).unwrap();
    fs::create_dir_all(directory.path().join("shared/d/s")).unwrap();
    fs::write(directory.path().join("shared/e"), "").unwrap();
    mode(&root).unwrap();
    mode(&root.join("d")).unwrap();
    let mut lines = vec![
        ". type=dir mode=0755".to_owned(),
        "./d type=dir mode=0755".to_owned(),
    ];
    for (path, target) in links {
        symlink(target, root.join(path)).unwrap();
        lines.push(format!("./{path} type=link mode=0777 link={target}"));
    }
    let shared = Shared {
        links: ["e", "d/s"]
            .map(|path| path.to_owned().try_into().unwrap())
            .into(),
        ..Shared::default()
    };
    inspect_path(&root, &shared, &report(&lines))
}

#[test]
fn all_shared_symlinks_exist_and_no_other_symlink_leads_out() {
    let (d, e) = ("../../../shared/d/s", "../../shared/e");
    inspect_symlinks(&[("d/s", d), ("e", e)]).unwrap();
    inspect_symlinks(&[("d/s", d), ("e", e), ("f", "d")]).unwrap();
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
        let error = inspect_symlinks(wrong).expect_err(&format!("{wrong:?}"));
        assert_eq!(error.code, Code::UnpackerDied, "{wrong:?}: {error}");
    }
}

#[test]
fn a_directory_in_place_of_a_shared_symlink_is_found() {
    let shared = Shared {
        links: vec!["d".to_owned().try_into().unwrap()],
        ..Shared::default()
    };
    let directory = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755));
    mode(directory.path()).unwrap();
    fs::create_dir(directory.path().join("d")).unwrap();
    mode(&directory.path().join("d")).unwrap();
    let report = report(&[". type=dir mode=0755", "./d type=dir mode=0755"]);
    let error = inspect_path(directory.path(), &shared, &report).unwrap_err();
    assert!(error.problem.contains("./d"), "{error}");
}
