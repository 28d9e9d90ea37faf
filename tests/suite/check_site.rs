//! The findings of `check` about what is on disk: the owners, `current`, `releases/` and
//! the journal. Where a remedy is a command, it is run, and must end the finding.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;

use nix::unistd::Uid;

use crate::check::{added, check, codes, deployer, give, quiet, quiet_site, remedy};
use crate::direct::{ask, live};
use crate::operator::{operator, text};
use crate::site::{Site, set_mode, with_admin, write_file};
use crate::times::sh;

/// Returns a site on which `r0` was live, and `r1` is.
fn deployed() -> Site {
    let site = Site::new();
    live(&site, &["r0", "r1"]);
    quiet(site)
}

fn state(site: &Site, name: &str) -> PathBuf {
    site.root().join(".deploy-shell").join(name)
}

type Change<'a> = &'a dyn Fn(&Site);

/// Makes the change, and expects one more finding. Returns its remedy.
#[track_caller]
fn found(site: &Site, before: &BTreeSet<String>, change: Change, code: &str) -> String {
    change(site);
    let reply = check(site);
    assert_eq!(added(before, &reply), [code], "{reply:?}");
    remedy(&reply, code)
}

/// Runs the command of a remedy, which follows the last colon, if there is one.
fn run(site: &Site, remedy: &str) {
    let command = remedy.rsplit(": ").next().expect("a command");
    sh(site.dir(), &with_admin(command));
}

/// Only root can make these, and only root can repair them.
#[test]
fn every_wrong_owner_is_found_and_repaired_by_its_remedy() {
    if !Uid::effective().is_root() {
        return;
    }
    let to_root = |path: PathBuf| {
        chown(&path, Some(0), Some(0)).expect("root takes it");
        if path.is_file() {
            set_mode(&path, 0o600);
        }
    };
    let repair = "deploy-shell-admin repair ";
    let faults = [
        ("", "root-not-writable", "chown -h 'daemon' "),
        ("releases", "not-owned-by-account", repair),
        (".deploy-shell/manifests", "not-owned-by-account", repair),
        (".deploy-shell/incoming", "not-owned-by-account", repair),
        (".deploy-shell/journal.jsonl", "state-not-usable", repair),
        (".deploy-shell/lock", "state-not-usable", repair),
        (".deploy-shell/limits", "state-not-usable", repair),
        (".deploy-shell/manifests/r0", "state-not-usable", repair),
    ];
    for (name, code, command) in faults {
        let site = deployed();
        let before = codes(&check(&site));
        let path = site.root().join(name);
        let remedy = found(&site, &before, &|_| to_root(path.clone()), code);
        assert!(remedy.contains(command), "{name}: {remedy}");
        run(&site, &remedy);
        let reply = check(&site);
        assert_eq!(codes(&reply), before, "{name}: {remedy}: {reply:?}");
    }
    // The owner is right and the mode is not.
    for (name, mode, code) in [
        ("", 0o555, "root-not-writable"),
        (".deploy-shell/journal.jsonl", 0o400, "state-not-usable"),
        (".deploy-shell/manifests/r1", 0o000, "state-not-usable"),
        (".deploy-shell/trash", 0o500, "state-not-usable"),
    ] {
        let site = deployed();
        let before = codes(&check(&site));
        let path = site.root().join(name);
        let remedy = found(&site, &before, &|_| set_mode(&path, mode), code);
        run(&site, &remedy);
        let reply = check(&site);
        assert_eq!(codes(&reply), before, "{name}: {remedy}: {reply:?}");
    }
}

/// With such a path in a remedy, root would give a file of its own to the account.
#[test]
fn no_remedy_names_a_file_behind_a_symlink_of_the_account() {
    if !Uid::effective().is_root() {
        println!("skipped: only root has files that the account cannot use");
        return;
    }
    for name in ["limits", "manifests", ""] {
        let site = deployed();
        let private = site.dir().join("private");
        fs::create_dir(&private).expect("a directory");
        set_mode(&private, 0o755);
        write_file(&private.join("secret"), 0o600, b"of root");
        let state = site.root().join(".deploy-shell");
        let directory = match name {
            "" => state,
            name => state.join(name),
        };
        fs::rename(&directory, site.dir().join("away")).expect("moved");
        symlink(&private, &directory).expect("a symlink");
        let reply = check(&site);
        assert!(!codes(&reply).is_empty());
        assert!(!reply.stdout.contains("secret"), "{name}: {reply:?}");
        let account = format!("account {}", deployer().name);
        assert!(reply.stdout.contains(&account), "{name}: {reply:?}");
    }
}

/// A request of root would not notice that the account cannot write the root.
#[test]
fn a_root_that_the_account_cannot_write_is_found_before_the_first_deploy() {
    if Uid::effective().is_root() {
        let site = quiet_site();
        let before = codes(&check(&site));
        let change = |site: &Site| chown(site.root(), Some(0), Some(0)).expect("root takes it");
        let remedy = found(&site, &before, &change, "root-not-writable");
        assert_eq!(remedy, format!("chown -h 'daemon' '{}'", text(site.root())));
    } else {
        let site = quiet_site();
        let before = codes(&check(&site));
        let change = |site: &Site| set_mode(site.root(), 0o555);
        let remedy = found(&site, &before, &change, "root-not-writable");
        sh(site.dir(), &with_admin(&remedy));
        assert_eq!(codes(&check(&site)), before);
    }
}

#[test]
fn every_current_that_is_not_ours_is_found_and_none_is_removed() {
    let replace = |site: &Site, target: &str| {
        let link = site.root().join("current");
        fs::remove_file(&link).expect("removed");
        symlink(target, link).expect("a symlink");
    };
    let absolute = |site: &Site| replace(site, text(&site.root().join("releases/r1")));
    let outside = |site: &Site| {
        fs::create_dir(site.dir().join("htdocs")).expect("a directory");
        replace(site, text(&site.dir().join("htdocs")));
    };
    let faults: [(&str, Change, &str, &str); 6] = [
        (
            "a directory",
            &|site| {
                fs::remove_file(site.root().join("current")).expect("removed");
                fs::create_dir(site.root().join("current")).expect("a directory");
            },
            "current-is-no-symlink",
            " --yes",
        ),
        (
            "a file",
            &|site| {
                fs::remove_file(site.root().join("current")).expect("removed");
                fs::write(site.root().join("current"), "").expect("a file");
            },
            "current-is-no-symlink",
            " -- mv -nT '",
        ),
        (
            "absolute",
            &absolute,
            "current-leads-elsewhere",
            r" -- sh -c 'ln -sT '\''releases/r1'\'' '\''",
        ),
        (
            "outside",
            &outside,
            "current-leads-elsewhere",
            "docs/adopting.md",
        ),
        (
            "dangling outside",
            &|site| replace(site, "../none"),
            "current-leads-elsewhere",
            "it serves nothing; ",
        ),
        (
            "dangling",
            &|site| replace(site, "releases/gone"),
            "live-release-missing",
            "swap r1",
        ),
    ];
    for (what, change, code, words) in faults {
        let site = deployed();
        let before = codes(&check(&site));
        let remedy = found(&site, &before, change, code);
        assert!(remedy.contains(words), "{what}: {remedy}");
        let serves = site.root().join("current").exists();
        assert!(!serves || !remedy.contains("rm "), "{what}: {remedy}");
        if ["absolute", "a directory"].contains(&what) {
            run(&site, &remedy);
            assert_eq!(codes(&check(&site)), before);
            assert_eq!(site.current().as_deref(), Some("r1"));
        }
    }
}

/// The layout of another tool: its releases, and an absolute symlink to one of them.
#[test]
fn what_another_tool_made_live_is_taken_over_by_adopt() {
    let site = Site::new();
    for release in ["4", "5"] {
        let page = site
            .root()
            .join("releases")
            .join(release)
            .join("index.html");
        fs::create_dir_all(page.parent().expect("a directory")).expect("made");
        fs::write(page, release).expect("a page");
    }
    let site = quiet(site);
    let link = site.root().join("current");
    let adopt = format!(
        "deploy-shell-admin adopt --config '{}'",
        text(site.config_path())
    );
    let remedies = |codes: [&str; 2]| {
        let reply = check(&site);
        codes.map(|code| remedy(&reply, code))
    };
    symlink(site.root().join("releases/5"), &link).expect("a symlink");
    for remedy in remedies(["current-leads-elsewhere", "stray-entries"]) {
        assert!(remedy.contains(&adopt), "{remedy}");
    }
    fs::remove_file(&link).expect("removed");
    symlink("releases/5", &link).expect("a symlink");
    let [live, other] = remedies(["live-without-manifest", "stray-entries"]);
    assert!(
        live.contains(&adopt) && other.contains(&adopt),
        "{live} {other}"
    );
    operator(
        &site,
        &["adopt", "--config", text(site.config_path()), "--yes"],
        b"",
    )
    .ok();
    let repaired = codes(&check(&site));
    assert_eq!(repaired, codes(&check(&quiet_site())));
}

/// The remedies of what is live but not whole.
#[test]
fn a_live_release_without_its_directory_or_its_manifest_is_found() {
    let site = deployed();
    let before = codes(&check(&site));
    let gone = |site: &Site| fs::remove_dir_all(site.root().join("releases/r1")).expect("removed");
    let remedy = found(&site, &before, &gone, "live-release-missing");
    assert_eq!(remedy, "make another release live: swap r0");
    // It is what ends the finding.
    give(site.root(), &me());
    ask(&site, "swap r0").ok();
    give(site.root(), &deployer());
    assert_eq!(codes(&check(&site)), before);

    let site = deployed();
    let manifest = |site: &Site| fs::remove_file(state(site, "manifests/r1")).expect("removed");
    let remedy = found(&site, &before, &manifest, "live-without-manifest");
    assert!(
        remedy.contains("receive its content again under another id"),
        "{remedy}"
    );
    // adopt takes over only what another tool made.
    assert!(!remedy.contains("adopt"), "{remedy}");
}

fn me() -> nix::unistd::User {
    let user = nix::unistd::User::from_uid(Uid::effective()).expect("readable");
    user.expect("an account")
}

#[test]
fn what_no_request_has_received_is_found() {
    let site = deployed();
    let before = codes(&check(&site));
    let copy = |site: &Site| {
        for name in ["hand1", "it's $(id)"] {
            fs::create_dir(site.root().join("releases").join(name)).expect("a directory");
        }
        give(site.root(), &deployer());
    };
    let remedy = found(&site, &before, &copy, "stray-entries");
    assert!(remedy.starts_with("move them out of '"), "{remedy}");
    assert!(!remedy.contains('$'), "{remedy}");
    let listed = check(&site).stdout;
    assert!(
        listed.contains("contains 'hand1', 'it's $(id)', which no request"),
        "{listed}"
    );

    let site = deployed();
    let manifest = |site: &Site| fs::remove_file(state(site, "manifests/r0")).expect("removed");
    found(&site, &before, &manifest, "manifest-missing");
}

#[test]
fn another_symlink_to_a_release_is_a_finding() {
    let site = deployed();
    let before = codes(&check(&site));
    let old = site.root().join("old");
    let link = |_: &Site| symlink("releases/r0/public", &old).expect("a symlink");
    let remedy = found(&site, &before, &link, "other-symlink");
    let command = format!("rm '{}'", text(&old));
    assert!(remedy.contains(&command), "{remedy}");
    run(&site, &command);
    assert_eq!(codes(&check(&site)), before);
}

#[test]
fn every_unreadable_journal_is_found_and_none_is_cut() {
    let rewrite = |site: &Site, edit: &dyn Fn(String) -> String| {
        let path = state(site, "journal.jsonl");
        let text = fs::read_to_string(&path).expect("a journal");
        fs::write(path, edit(text)).expect("written");
    };
    let newer = |site: &Site| {
        rewrite(site, &|text| {
            text.replacen("\"swapped\"", "\"migrated\"", 1)
        });
    };
    let format = |site: &Site| rewrite(site, &|text| format!("{{\"format\":99}}\n{text}"));
    let damaged = |site: &Site| rewrite(site, &|text| format!("odd\n{text}"));
    let faults: [(Change, &str, &str); 4] = [
        (
            &newer,
            "journal-newer",
            "install that version of deploy-shell or a later one",
        ),
        (
            &format,
            "journal-newer",
            "install that version of deploy-shell or a later one",
        ),
        (&damaged, "journal-damaged", "restore '"),
        (
            &|site| fs::remove_file(state(site, "journal.jsonl")).expect("removed"),
            "journal-missing",
            "restore '",
        ),
    ];
    for (change, code, start) in faults {
        let site = deployed();
        let before = codes(&check(&site));
        let remedy = found(&site, &before, change, code);
        assert!(
            remedy.starts_with(start) && !remedy.contains("cut"),
            "{remedy}"
        );
    }
}

#[test]
fn a_symlink_in_place_of_a_directory_is_one_finding() {
    if !Uid::effective().is_root() {
        println!("skipped: root runs the remedy, as the account");
        return;
    }
    let site = deployed();
    let before = codes(&check(&site));
    let change = |site: &Site| {
        let releases = site.root().join("releases");
        fs::rename(&releases, site.dir().join("elsewhere")).expect("moved");
        symlink(site.dir().join("elsewhere"), releases).expect("a symlink");
    };
    let remedy = found(&site, &before, &change, "layout-symlink");
    // Visitors find the page after each of its steps.
    let page = site.root().join("current/index.html");
    let look = format!(" && test -s {} && ", text(&page));
    run(&site, &remedy.replace(" && ", &look));
    assert_eq!(codes(&check(&site)), before);
    assert_eq!(site.current().as_deref(), Some("r1"));
    assert!(!site.root().join("releases").is_symlink());

    let change = |site: &Site| {
        let trash = state(site, "trash");
        fs::rename(&trash, site.dir().join("bin")).expect("moved");
        symlink(site.dir().join("bin"), trash).expect("a symlink");
    };
    let remedy = found(&site, &before, &change, "layout-symlink");
    run(&site, &remedy);
    assert_eq!(codes(&check(&site)), before);
}

/// The owner of the site is not known then, and nothing else follows.
#[test]
fn a_missing_state_directory_and_a_wrong_root_name_what_repairs_them() {
    let site = deployed();
    fs::remove_dir_all(state(&site, "")).expect("removed");
    let reply = check(&site);
    let init = remedy(&reply, "site-incomplete");
    assert!(
        init.contains("deploy-shell-admin init --config '"),
        "{init}"
    );
    assert!(
        init.contains(" --root '") && init.contains(" --owner '"),
        "{init}"
    );
    for code in ["layout", "drop-in-missing", "no-key-registered"] {
        assert!(!codes(&reply).contains(code), "{code}: {reply:?}");
    }

    let site = deployed();
    let config = fs::read_to_string(site.config_path()).expect("the configuration");
    let wrong = config.replace("/root\"", "/roto\"");
    write_file(site.config_path(), 0o644, wrong.as_bytes());
    let reply = check(&site);
    let correct = remedy(&reply, "root-missing");
    assert!(correct.starts_with("correct root in '"), "{correct}");
    assert!(!codes(&reply).contains("layout"), "{reply:?}");
}

#[test]
fn a_disk_below_the_reserve_is_found() {
    let before = codes(&check(&quiet_site()));
    // Every file system has used one part of a hundred, or keeps it for root.
    let site = quiet(Site::with_config("[limits]\nreserve = \"99%\"\n"));
    let reply = check(&site);
    if reply.stdout.contains("\ndisk: uploads may use ") {
        println!("skipped: the file system is empty");
        return;
    }
    assert_eq!(added(&before, &reply), ["below-reserve"], "{reply:?}");
    assert!(
        check(&quiet_site())
            .stdout
            .contains("\ndisk: uploads may use ")
    );
}
