//! Reports and trees that agree, and each way in which they may not.

use super::*;
use crate::names::Sha256Digest;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

fn entry(line: &str) -> Entry {
    let digest = Sha256Digest([0; 32]);
    Entry::parse(&line.replace("SHA", &format!("sha256digest={digest}"))).unwrap()
}

const HONEST: [&str; 4] = [
    ". type=dir mode=0755",
    "./d type=dir mode=0755",
    "./d/l type=link mode=0777 link=../f",
    "./f type=file mode=0644 size=1 SHA",
];

/// Makes the honest tree, lets `change` at it, and inspects it by `report`.
fn verdict(report: &[&str], change: impl FnOnce(&Path)) -> Result<Sums> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    fs::create_dir_all(root.join("d")).unwrap();
    mode(&root, 0o755).unwrap();
    mode(&root.join("d"), 0o755).unwrap();
    fs::write(root.join("f"), "x").unwrap();
    mode(&root.join("f"), 0o644).unwrap();
    symlink("../f", root.join("d/l")).unwrap();
    change(&root);
    let mut entries = report.iter().map(|line| entry(line));
    let shared = Shared::default();
    inspect(&Dir::open_root(&root).unwrap(), &shared, || {
        Ok(entries.next())
    })
}

#[test]
fn an_honest_report_is_believed() {
    let sums = verdict(&HONEST, |_| ()).unwrap();
    assert_eq!(sums, Sums { files: 1, bytes: 1 });
}

#[test]
fn every_lie_is_found() {
    type Change = fn(&Path);
    let lies: [(&str, Change); 10] = [
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
        ("a folder for all", |root| {
            fs::set_permissions(root.join("d"), Permissions::from_mode(0o1777)).unwrap();
        }),
        ("a second name", |root| {
            fs::hard_link(root.join("f"), root.parent().unwrap().join("g")).unwrap();
        }),
        ("a link for a file", |root| {
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
        ("an open root", |root| {
            fs::set_permissions(root, Permissions::from_mode(0o777)).unwrap();
        }),
    ];
    for (what, change) in lies {
        let error = verdict(&HONEST, change).expect_err(what);
        assert_eq!(error.code, Code::UnpackerDied, "{what}: {error}");
    }
}

#[test]
fn reported_lies_are_found() {
    let with = |extra: &'static str, at: usize| {
        let mut report = HONEST.to_vec();
        report.insert(at, extra);
        verdict(&report, |_| ())
    };
    assert!(with("./../../etc/passwd type=file mode=0644 size=1 SHA", 4).is_err());
    assert!(with("./f type=file mode=0644 size=1 SHA", 4).is_err());
    assert!(verdict(&HONEST[..3], |_| ()).is_err());
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
    assert!(verdict(&out, change).is_err());
    let newline = "./a\\012b type=dir mode=0755";
    let report = [HONEST[0], newline, HONEST[1], HONEST[2], HONEST[3]];
    let make = |root: &Path| fs::create_dir(root.join("a\nb")).unwrap();
    assert!(verdict(&report, make).is_err());
}

/// The verdict on links, where the site shares `e` and `d/s`.
fn shared_verdict(links: &[(&str, &str)]) -> Result<Sums> {
    let folder = tempfile::tempdir().unwrap();
    // Deep enough that every way out leads somewhere.
    let root = folder.path().join("releases/tree");
    let mode = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755));
    fs::create_dir_all(root.join("d")).unwrap();
    fs::create_dir_all(folder.path().join("shared/d/s")).unwrap();
    fs::write(folder.path().join("shared/e"), "").unwrap();
    mode(&root).unwrap();
    mode(&root.join("d")).unwrap();
    let mut report = vec![
        ". type=dir mode=0755".into(),
        "./d type=dir mode=0755".into(),
    ];
    for (path, target) in links {
        symlink(target, root.join(path)).unwrap();
        report.push(format!("./{path} type=link mode=0777 link={target}"));
    }
    let mut entries = report.iter().map(|line: &String| entry(line));
    let shared = Shared {
        links: vec!["e".parse().unwrap(), "d/s".parse().unwrap()],
        ..Shared::default()
    };
    inspect(&Dir::open_root(&root).unwrap(), &shared, || {
        Ok(entries.next())
    })
}

#[test]
fn shared_links_are_all_there_and_exact_and_no_other_leads_out() {
    let (d, e) = ("../../../shared/d/s", "../../shared/e");
    shared_verdict(&[("d/s", d), ("e", e)]).unwrap();
    shared_verdict(&[("d/s", d), ("e", e), ("f", "d")]).unwrap();
    for lies in [
        &[("d/s", d)][..],
        &[("e", e)],
        &[],
        &[("d/s", d), ("e", "../../shared/d")],
        &[("d/s", d), ("e", "../../shared/../shared/e")],
        &[("d/s", d), ("e", "d")],
        &[("d/s", "../../../shared/d"), ("e", e)],
        // Theirs is the place, not the text.
        &[("d/s", d), ("e", e), ("f", e)],
        &[("d/s", d), ("e", e), ("f", "e")],
        &[("d/s", d), ("e", e), ("f", "d/s/below")],
        &[("d/s", d), ("e", e), ("f", "d/s/../e")],
    ] {
        let error = shared_verdict(lies).expect_err(&format!("{lies:?}"));
        assert_eq!(error.code, Code::UnpackerDied, "{lies:?}: {error}");
    }
}

#[test]
fn a_folder_where_a_shared_link_must_be_is_found() {
    let shared = Shared {
        links: vec!["d".parse().unwrap()],
        ..Shared::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755));
    mode(folder.path()).unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    mode(&folder.path().join("d")).unwrap();
    let report = [". type=dir mode=0755", "./d type=dir mode=0755"];
    let mut entries = report.iter().map(|line| entry(line));
    let tree = Dir::open_root(folder.path()).unwrap();
    let error = inspect(&tree, &shared, || Ok(entries.next())).unwrap_err();
    assert!(error.problem.contains("./d"), "{error}");
}
