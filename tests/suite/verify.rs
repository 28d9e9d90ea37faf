//! `verify`: each kind of difference, and the result of mtree(8) for the same manifest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Uid, mkfifo};

use crate::archive::tarball;
use crate::direct::{ask, everything, live, put};
use crate::operator::operator;
use crate::site::{Reply, Site, admin, set_mode};
use crate::terminal::on_a_terminal;

pub fn verify(site: &Site, releases: &[&str]) -> Reply {
    let mut command = Command::new(admin());
    command.env_clear().arg("verify").arg("--config");
    command.arg(site.config_path()).args(releases);
    site.run(command, b"")
}

/// Returns whether mtree(8) finds the release equal to the same manifest.
fn mtree(site: &Site, release: &str) -> bool {
    let manifest = site.root().join(".deploy-shell/manifests").join(release);
    let output = Command::new("mtree")
        .arg("-f")
        .arg(manifest)
        .arg("-p")
        .arg(site.root().join("releases").join(release))
        .stdin(Stdio::null())
        .output()
        .expect("mtree starts");
    // It prints what is missing, but exits with 0.
    output.status.success() && output.stdout.is_empty()
}

/// A site with a release `r` that has every kind of entry.
fn site(extra: &str) -> Site {
    let site = Site::with_config(extra);
    let build = tempfile::tempdir().expect("a temporary directory");
    let path = build.path();
    fs::create_dir_all(path.join("d/empty")).expect("a directory");
    fs::write(path.join("index.html"), "hello").expect("a file");
    fs::write(path.join("run"), "#!/bin/sh\n").expect("a file");
    set_mode(&path.join("run"), 0o755);
    fs::write(path.join("d/a b"), vec![7; 700_000]).expect("a file");
    symlink("d/a b", path.join("link")).expect("a symlink");
    let tar = Command::new("tar")
        .args(["--zstd", "-c", "-C"])
        .arg(path)
        .arg(".")
        .output()
        .expect("tar starts");
    assert!(tar.status.success());
    site.receive("r", &tar.stdout).ok();
    site
}

type Change = fn(&Path);

const CHANGES: [(&str, Change); 15] = [
    ("missing ./index.html", |tree| {
        fs::remove_file(tree.join("index.html")).unwrap()
    }),
    ("missing ./d/empty", |tree| {
        fs::remove_dir(tree.join("d/empty")).unwrap()
    }),
    ("missing ./link", |tree| {
        fs::remove_file(tree.join("link")).unwrap()
    }),
    ("extra ./new", |tree| {
        fs::write(tree.join("new"), "x").unwrap()
    }),
    ("extra ./d/empty/new", |tree| {
        fs::create_dir(tree.join("d/empty/new")).unwrap();
        fs::write(tree.join("d/empty/new/below"), "x").unwrap();
    }),
    ("extra ./a\\x0ab", |tree| {
        fs::write(tree.join("a\nb"), "x").unwrap()
    }),
    ("changed ./index.html: 3 bytes, not 5", |tree| {
        fs::write(tree.join("index.html"), "hel").unwrap();
    }),
    ("changed ./index.html: other content", |tree| {
        fs::write(tree.join("index.html"), "hullo").unwrap();
    }),
    ("changed ./d/a b: other content", |tree| {
        let mut bytes = vec![7; 700_000];
        bytes[699_999] = 8;
        fs::write(tree.join("d/a b"), bytes).unwrap();
    }),
    ("mode ./run: 0644, not 0755", |tree| {
        set_mode(&tree.join("run"), 0o644)
    }),
    ("mode ./run: 4755, not 0755", |tree| {
        set_mode(&tree.join("run"), 0o4755)
    }),
    ("mode ./d: 0777, not 0755", |tree| {
        set_mode(&tree.join("d"), 0o777)
    }),
    ("link ./link: to '/etc/passwd'", |tree| {
        fs::remove_file(tree.join("link")).unwrap();
        symlink("/etc/passwd", tree.join("link")).unwrap();
    }),
    ("type ./index.html: it is a symlink", |tree| {
        fs::rename(tree.join("index.html"), tree.join("d/empty/i")).unwrap();
        symlink("d/empty/i", tree.join("index.html")).unwrap();
    }),
    // Opening it would block.
    ("type ./index.html: it is a fifo", |tree| {
        fs::remove_file(tree.join("index.html")).unwrap();
        mkfifo(&tree.join("index.html"), Mode::from_bits_truncate(0o644)).unwrap();
    }),
];

#[test]
fn verify_reports_every_difference_and_mtree_agrees() {
    for (expected, change) in CHANGES {
        let site = site("");
        assert_eq!(verify(&site, &[]).ok(), "r ok\n");
        assert!(mtree(&site, "r"), "mtree before '{expected}'");
        change(&site.root().join("releases/r"));
        let before = everything(&site);
        let reply = verify(&site, &["r"]);
        assert_eq!((reply.code, reply.stderr.as_str()), (1, ""), "{reply:?}");
        let reported = reply
            .stdout
            .lines()
            .any(|line| line.starts_with(&format!("r {expected}")));
        assert!(reported, "{expected}: {reply:?}");
        assert!(!mtree(&site, "r"), "mtree after '{expected}'");
        assert!(everything(&site) == before);
    }
}

#[test]
fn verify_checks_all_releases_or_the_named_ones() {
    let site = Site::new();
    for release in ["a", "b", "c"] {
        put(&site, release);
    }
    fs::write(site.root().join("releases/b/index.html"), "x").unwrap();
    let reply = verify(&site, &[]);
    assert_eq!(reply.code, 1);
    let lines: Vec<&str> = reply.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "a ok",
            "b changed ./index.html: other content of the same size",
            "c ok"
        ],
        "{reply:?}"
    );
    verify(&site, &["a", "c"]).ok();
    assert_eq!(verify(&site, &["b"]).code, 1);
    verify(&site, &["a", "x"]).refused(66, "no-such-release");
    verify(&site, &["../a"]).refused(64, "bad-request");
    let manifest = site.root().join(".deploy-shell/manifests/a");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, &text[..text.len() - 5]).unwrap();
    let reply = verify(&site, &["a"]);
    assert_eq!(reply.code, 1, "{reply:?}");
    assert!(
        reply
            .stdout
            .starts_with("a unreadable .: the manifest of 'a'"),
        "{reply:?}"
    );
}

#[test]
fn many_threads_verify_many_files() {
    let site = Site::new();
    let names: Vec<String> = (0..2000)
        .map(|number| format!("d{}/f{number}", number % 37))
        .collect();
    let files: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), name.as_bytes()))
        .collect();
    site.receive("r", &tarball(&files)).ok();
    verify(&site, &["r"]).ok();
    let tree = site.root().join("releases/r");
    for name in names.iter().step_by(100) {
        fs::write(tree.join(name), name.to_uppercase()).unwrap();
    }
    let reply = verify(&site, &["r"]);
    let reported: Vec<&str> = reply.stdout.lines().collect();
    assert_eq!(reported.len(), 20, "{reported:?}");
    assert!(
        reported.is_sorted()
            && reported
                .iter()
                .all(|line| line.ends_with("other content of the same size"))
    );
}

#[test]
fn verify_on_swap_refuses_a_changed_release() {
    for (expected, change) in CHANGES {
        let site = site("verify_on_swap = true\n");
        live(&site, &["a"]);
        change(&site.root().join("releases/r"));
        let before = everything(&site);
        let reply = ask(&site, "swap r");
        reply.refused(65, "digest-mismatch");
        assert!(
            reply.stderr.contains(expected.split(' ').next().unwrap()),
            "{expected}: {reply:?}"
        );
        assert!(everything(&site) == before, "{expected}");
        ask(&site, "swap a").ok();
    }
    let site = site("verify_on_swap = true\n");
    live(&site, &["a"]);
    ask(&site, "swap r").ok();
    // A rollback verifies too.
    fs::write(site.root().join("releases/a/index.html"), "x").unwrap();
    ask(&site, "rollback").refused(65, "digest-mismatch");
    assert_eq!(site.current().as_deref(), Some("r"));
}

#[test]
fn verify_shows_its_progress_on_a_terminal() {
    let site = Site::new();
    put(&site, "a");
    let config = site.config_path().display();
    let words = format!("'{}' verify --config '{config}'", admin().display());
    let shown = site.run(on_a_terminal(&site, &words), b"").ok();
    assert!(shown.contains("\r\u{1b}[K[##"), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[Ka ok\r\n"), "{shown:?}");
}

#[test]
fn root_may_verify_the_site_of_another_account() {
    if !Uid::effective().is_root() {
        return;
    }
    let site = Site::new();
    put(&site, "a");
    site.give_to("65534");
    let before = everything(&site);
    verify(&site, &[]).ok();
    assert!(everything(&site) == before);
    // But the directories of a site must be of one account.
    let own = site.root().join(".deploy-shell/manifests");
    std::os::unix::fs::chown(own, Some(65533), None).unwrap();
    verify(&site, &[]).refused(78, "bad-layout");
    site.give_to("0");
}

/// Otherwise removing the manifest too would hide a change of a release.
#[test]
fn verify_reports_a_release_without_a_manifest() {
    let changes: [(&str, Change); 3] = [
        ("no manifest", |root| {
            fs::remove_file(root.join(".deploy-shell/manifests/a")).unwrap();
        }),
        ("a symlink for a directory", |root| {
            fs::rename(root.join("releases/a"), root.join("releases/moved")).unwrap();
            symlink("moved", root.join("releases/a")).unwrap();
        }),
        ("a dangling current symlink", |root| {
            fs::remove_dir_all(root.join("releases/a")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let site = Site::new();
        live(&site, &["a"]);
        assert_eq!(verify(&site, &[]).code, 0, "{what}");
        change(site.root());
        let reply = verify(&site, &[]);
        assert_eq!(reply.code, 1, "{what}: {reply:?}");
        assert!(
            reply.stdout.contains("a unreadable .: "),
            "{what}: {reply:?}"
        );
    }
}

/// Otherwise removing the records as well would hide a change of a release.
#[test]
fn verify_reports_a_site_without_its_records() {
    let without_journal = "- missing .deploy-shell/journal.jsonl: ";
    let changes: [(&str, Change); 4] = [
        (without_journal, |state| {
            fs::remove_file(state.join("journal.jsonl")).unwrap();
        }),
        (without_journal, |state| {
            fs::write(state.join("journal.jsonl"), "").unwrap();
        }),
        ("b unreadable .: ", |state| {
            fs::remove_file(state.join("journal.jsonl")).unwrap();
            fs::remove_file(state.join("manifests/b")).unwrap();
        }),
        (without_journal, |state| {
            fs::remove_file(state.join("journal.jsonl")).unwrap();
            for release in ["a", "b"] {
                fs::remove_file(state.join("manifests").join(release)).unwrap();
            }
            fs::remove_file(state.join("../current")).unwrap();
        }),
    ];
    for (number, (expected, change)) in changes.into_iter().enumerate() {
        let site = Site::new();
        live(&site, &["a"]);
        put(&site, "b");
        assert_eq!(verify(&site, &[]).ok(), "a ok\nb ok\n");
        change(&site.root().join(".deploy-shell"));
        let reply = verify(&site, &[]);
        assert_eq!(reply.code, 1, "{number}: {reply:?}");
        assert!(
            reply.stdout.lines().any(|line| line.starts_with(expected)),
            "{number}: {reply:?}"
        );
    }
    // A site without a release has none.
    verify(&Site::new(), &[]).ok();
}

/// Makes something in the place of a file of the state: a fifo, and as root a device
/// without an end.
fn special_files() -> Vec<fn(&Path)> {
    let fifo = |path: &Path| mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a fifo");
    let device = |path: &Path| {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknod(path, SFlag::S_IFCHR, mode, makedev(1, 5)).expect("a device");
    };
    if Uid::effective().is_root() {
        vec![fifo, device]
    } else {
        vec![fifo]
    }
}

/// The account can make a fifo in the place of each of its files, and root reads them.
#[test]
fn a_special_file_in_the_place_of_a_record_is_refused_and_not_read() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let config = site.config_path().to_str().expect("UTF-8");
    let operators = |words: &[&str]| operator(&site, &[words, &["--config", config]].concat(), b"");
    let state = site.root().join(".deploy-shell");
    for (name, reads) in [
        ("journal.jsonl", &["verify", "history", "adopt"][..]),
        ("lock", &[]),
        ("manifests/a", &[]),
    ] {
        for make in special_files() {
            let (path, kept) = (state.join(name), site.dir().join("kept"));
            fs::rename(&path, &kept).expect("a file");
            make(&path);
            for word in reads {
                let reply = operators(&[word]);
                reply.refused(78, "bad-layout");
                assert!(
                    reply.stderr.contains("it is not a regular file"),
                    "{word} {name}: {reply:?}"
                );
            }
            let checked = operators(&["check"]);
            assert_eq!(checked.code, 1, "check {name}: {checked:?}");
            // It takes no lock.
            let verified = operators(&["verify", "a"]);
            assert_eq!(verified.code == 0, name == "lock", "{name}: {verified:?}");
            assert_ne!(operators(&["drop", "a"]).code, 0, "drop {name}");
            let swap = ask(&site, "swap a");
            let expected = if name.starts_with("manifests") {
                66
            } else {
                78
            };
            assert_eq!(swap.code, expected, "{name}: {swap:?}");
            fs::remove_file(&path).expect("the special file");
            fs::rename(&kept, &path).expect("the file");
        }
    }
    assert_eq!(verify(&site, &[]).ok(), "a ok\nb ok\n");
}

/// A file of the account: without a limit, each command would read it into memory.
#[test]
fn a_journal_that_is_too_long_is_refused_and_not_read() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let journal = site.root().join(".deploy-shell/journal.jsonl");
    let records = fs::read(&journal).expect("the journal");
    let file = fs::File::options().write(true).open(&journal);
    file.and_then(|file| file.set_len(30 << 30))
        .expect("a sparse file");
    let config = site.config_path().to_str().expect("UTF-8");
    let replies = [
        ask(&site, "list"),
        ask(&site, "swap a"),
        verify(&site, &[]),
        operator(&site, &["history", "--config", config], b""),
        operator(&site, &["drop", "a", "--config", config], b""),
    ];
    for reply in replies {
        reply.refused(78, "bad-layout");
        assert!(
            reply.stderr.contains("the journal is longer than 512 MiB"),
            "{reply:?}"
        );
    }
    let checked = operator(&site, &["check", "--config", config], b"");
    assert_eq!(checked.code, 1, "{checked:?}");
    fs::write(&journal, records).expect("the journal");
    assert_eq!(verify(&site, &[]).ok(), "a ok\nb ok\n");
}

/// The walk and the manifest go side by side, so that no more than one entry is in memory.
#[test]
fn a_manifest_that_is_not_in_order_is_refused() {
    let site = site("");
    let path = site.root().join(".deploy-shell/manifests/r");
    let text = fs::read_to_string(&path).expect("a manifest");
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let file = lines
        .iter()
        .position(|line| line.starts_with("./index.html "));
    let file = lines.remove(file.expect("an entry"));
    let release = lines.iter().position(|line| line.starts_with(". "));
    lines.insert(release.expect("an entry") + 1, file);
    set_mode(&path, 0o644);
    fs::write(&path, lines.concat()).expect("a manifest");
    let reply = verify(&site, &["r"]);
    assert_eq!(reply.code, 1, "{reply:?}");
    let why = "its entries are not in order";
    assert!(reply.stdout.contains(why), "{reply:?}");
}
