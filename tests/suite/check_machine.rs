//! The findings of `check` about the configuration, the files and the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::libc;
use nix::unistd::{Uid, User};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::check::{added, arguments, check, codes, give, quiet, quiet_site, quiet_sshd};
use crate::operator::text;
use crate::process::copy_program;
use crate::site::{BIN, Reply, Site, admin, set_mode, write_file};

#[test]
fn unsafe_settings_of_the_configuration_are_found() {
    let before = codes(&check(&quiet_site()));
    for (extra, code) in [
        (
            "[audit]\nsocket = \"{dir}/audit.socket\"\nrequired = false\n",
            "audit-not-required",
        ),
        ("[audit]\nsocket = \"{dir}/none\"\n", "audit-unreachable"),
        ("[sandbox]\nrequired = false\n", "sandbox-not-required"),
        ("[limits]\nreserve = \"0%\"\n", "no-reserve"),
    ] {
        let site = quiet(Site::with_config(extra));
        let reply = check(&site);
        assert_eq!(added(&before, &reply), [code], "{reply:?}");
    }
}

type Change<'a> = &'a dyn Fn(&Site);

/// Returns the codes that are new, without the one that says that the user who
/// runs the tests owns the program.
#[track_caller]
fn added_by_others(before: &BTreeSet<String>, reply: &Reply) -> Vec<String> {
    let mut found = added(before, reply);
    found.retain(|code| code != "program-owned-by-account" || Uid::effective().is_root());
    found
}

#[test]
fn files_that_other_users_can_write_are_found() {
    let before = codes(&check(&quiet_site()));
    let open: [(&str, Change, &str); 5] = [
        (
            "the keys",
            &|site| set_mode(&site.dir().join("authorized_keys"), 0o646),
            "keys-file-writable",
        ),
        (
            "sshd_config",
            &|site| set_mode(&site.dir().join("sshd_config"), 0o664),
            "sshd-config-writable",
        ),
        (
            "the root",
            &|site| set_mode(site.root(), 0o775),
            "root-writable",
        ),
        (
            "the directory of the socket",
            &|site| {
                let directory = site.dir().join("open");
                fs::create_dir(&directory).expect("a directory");
                set_mode(&directory, 0o777);
                let moved = directory.join("audit.socket");
                fs::rename(site.dir().join("audit.socket"), &moved).expect("moved");
                let config = fs::read_to_string(site.config_path()).expect("the configuration");
                let config = config.replace("/audit.socket", "/open/audit.socket");
                write_file(site.config_path(), 0o644, config.as_bytes());
            },
            "audit-socket-replaceable",
        ),
        (
            "the program",
            &|site| {
                let program = site.dir().join("deploy-shell");
                copy_program(BIN, &program);
                set_mode(&program, 0o757);
                let keys = site.dir().join("authorized_keys");
                let lines = fs::read_to_string(&keys).expect("the keys");
                write_file(&keys, 0o644, lines.replace(BIN, text(&program)).as_bytes());
            },
            "program-writable",
        ),
    ];
    for (what, change, code) in open {
        let site = quiet_site();
        change(&site);
        let reply = check(&site);
        let mut expected: Vec<&str> = vec![code];
        // An ordinary user owns the files, so some codes are there before.
        expected.retain(|code| !before.contains(*code));
        assert_eq!(
            added_by_others(&before, &reply),
            expected,
            "{what}: {reply:?}"
        );
        assert!(codes(&reply).contains(code), "{what}: {reply:?}");
    }
}

#[test]
fn another_program_of_the_same_name_is_found() {
    let site = quiet_site();
    let before = codes(&check(&site));
    let program = site.dir().join("deploy-shell");
    write_file(&program, 0o755, b"#!/bin/sh\n");
    let keys = site.dir().join("authorized_keys");
    let lines = fs::read_to_string(&keys).expect("the keys");
    write_file(&keys, 0o644, lines.replace(BIN, text(&program)).as_bytes());
    let reply = check(&site);
    assert_eq!(
        added_by_others(&before, &reply),
        ["program-differs"],
        "{reply:?}"
    );
}

#[test]
fn a_site_that_cannot_be_opened_is_found() {
    let before = codes(&check(&quiet_site()));
    for directory in ["releases", ".deploy-shell/trash"] {
        let site = quiet_site();
        fs::remove_dir(site.root().join(directory)).expect("removed");
        let reply = check(&site);
        assert_eq!(added(&before, &reply), ["site-incomplete"], "{reply:?}");
        assert!(reply.stdout.contains("does not exist"), "{reply:?}");
    }
    let site = quiet_site();
    fs::remove_dir_all(site.root()).expect("removed");
    let reply = check(&site);
    assert!(codes(&reply).contains("root-missing"), "{reply:?}");
    assert!(
        reply
            .stdout
            .contains("not checked: who owns the site, and its keys: "),
        "{reply:?}"
    );
    // Nothing else follows from a wrong root.
    assert!(!codes(&reply).contains("layout"), "{reply:?}");
    // check does not know whose keys to look for.
    assert!(!reply.stdout.contains("no key was found"), "{reply:?}");
}

/// The two programs belong into one directory.
#[test]
fn a_deploy_shell_that_is_missing_or_cannot_be_started_is_found() {
    let site = quiet_site();
    let before = codes(&check(&site));
    let checker = site.dir().join("deploy-shell-admin");
    copy_program(text(admin()), &checker);
    set_mode(&checker, 0o755);
    let program = site.dir().join("deploy-shell");
    let check = || {
        let mut command = Command::new(&checker);
        command.env_clear().args(arguments(&site));
        site.run(command, b"")
    };
    let sandbox = format!(
        "not checked: the sandbox of the unpacker: '{}': ",
        text(&program)
    );
    let reply = check();
    assert_eq!(added_by_others(&before, &reply), ["program-missing"]);
    let missing = format!("finding: program-missing: '{}', ", text(&program));
    assert!(reply.stdout.contains(&missing), "{reply:?}");
    assert!(reply.stdout.contains(&sandbox), "{reply:?}");

    copy_program(BIN, &program);
    set_mode(&program, 0o644);
    let reply = check();
    let expected = ["program-not-executable"];
    assert_eq!(added_by_others(&before, &reply), expected, "{reply:?}");
    let denied = reply.stdout.lines().find(|line| line.starts_with(&sandbox));
    let denied = denied.unwrap_or_else(|| panic!("{reply:?}"));
    assert!(denied.contains("permission denied"), "{denied}");
    set_mode(&program, 0o755);
    let reply = check();
    assert_eq!(added_by_others(&before, &reply), [""; 0], "{reply:?}");
    assert!(!reply.stdout.contains(&sandbox), "{reply:?}");
}

#[test]
fn missing_and_unsafe_shared_paths_are_found() {
    let links = "[shared]\nlinks = [\".env\", \"public/uploads\"]\n";
    let shared = |change: Change| {
        let site = quiet(Site::with_config(links));
        let shared = site.root().join("shared");
        write_file(&shared.join(".env"), 0o600, b"");
        fs::create_dir_all(shared.join("public/uploads")).expect("a directory");
        change(&site);
        check(&site)
    };
    let before = codes(&check(&quiet_site()));
    let sound = shared(&|_| ());
    assert_eq!(added(&before, &sound), [""; 0]);
    let access = "with the application's access to 'shared/.env' and 'shared/public/uploads'";
    assert!(sound.stdout.contains(access), "{sound:?}");
    let changes: [(&str, Change, &str); 6] = [
        (
            "no file",
            &|site| fs::remove_file(site.root().join("shared/.env")).expect("removed"),
            "shared-missing",
        ),
        (
            "no directory",
            &|site| fs::remove_dir_all(site.root().join("shared")).expect("removed"),
            "shared-missing",
        ),
        (
            "a symlink out of the site",
            &|site| {
                let path = site.root().join("shared/.env");
                fs::remove_file(&path).expect("removed");
                symlink("/etc/passwd", path).expect("a symlink");
            },
            "shared-unsafe",
        ),
        (
            "a symlink in place of the directory",
            &|site| {
                let (path, away) = (site.root().join("shared"), site.dir().join("away"));
                fs::rename(&path, &away).expect("moved");
                symlink(away, path).expect("a symlink");
            },
            "shared-unsafe",
        ),
        (
            "a file that all users can write",
            &|site| set_mode(&site.root().join("shared/.env"), 0o666),
            "shared-writable",
        ),
        (
            "a directory that all users can write",
            &|site| set_mode(&site.root().join("shared/public"), 0o777),
            "shared-writable",
        ),
    ];
    for (what, change, code) in changes {
        let reply = shared(change);
        assert_eq!(added(&before, &reply), [code], "{what}: {reply:?}");
    }
    let sticky = shared(&|site| set_mode(&site.root().join("shared/public"), 0o1777));
    assert_eq!(added(&before, &sticky), [""; 0]);
}

/// For the process, its seccomp filter looks like a kernel without Landlock.
#[test]
fn a_sandbox_without_landlock_is_found() {
    let site = quiet_site();
    let before = check(&site);
    assert!(
        before
            .stdout
            .contains("\nsandbox: requests full, the unpacker full\n"),
        "these tests need Landlock: {before:?}"
    );
    let before = codes(&before);
    let accepted = quiet(Site::with_config("[sandbox]\nrequired = false\n"));
    // The processes that a thread starts inherit its filter; other threads do not.
    let (reply, accepted) = std::thread::scope(|scope| {
        let without = scope.spawn(|| {
            let call = libc::SYS_landlock_create_ruleset;
            let arch = std::env::consts::ARCH.try_into().expect("an architecture");
            let missing = SeccompAction::Errno(libc::ENOSYS as u32);
            let filter = SeccompFilter::new(
                [(call, Vec::new())].into(),
                SeccompAction::Allow,
                missing,
                arch,
            );
            let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
            apply_filter(&program).expect("the filter is on");
            (check(&site), check(&accepted))
        });
        without.join().expect("the thread ends")
    });
    assert_eq!(
        added(&before, &reply),
        ["monitor-not-confined"],
        "{reply:?}"
    );
    assert!(
        reply
            .stdout
            .contains("\nsandbox: requests without landlock, the unpacker without landlock\n"),
        "{reply:?}"
    );
    // The operator has accepted that: exit status 0 can be reached.
    assert_eq!(codes(&accepted), before, "{accepted:?}");
    let line = "the unpacker without landlock; [sandbox] required = false accepts that\n";
    assert!(accepted.stdout.contains(line), "{accepted:?}");
}

/// Returns a site installed for `account`, as the README says, but in a temporary
/// directory, with its two programs.
fn installed(account: &User) -> (Site, std::path::PathBuf, std::path::PathBuf) {
    let site = Site::new();
    quiet_sshd(&site, &account.name);
    let program = site.dir().join("deploy-shell");
    copy_program(BIN, &program);
    set_mode(&program, 0o755);
    let checker = site.dir().join("deploy-shell-admin");
    copy_program(text(admin()), &checker);
    set_mode(&checker, 0o755);
    let keys = site.dir().join("authorized_keys");
    let lines = fs::read_to_string(&keys).expect("the keys");
    write_file(&keys, 0o644, lines.replace(BIN, text(&program)).as_bytes());
    give(site.root(), account);
    (site, program, checker)
}

/// Installed by root for another account, a site has one finding, the login shell.
/// With deploy-shell as the login shell there is none.
#[test]
fn a_site_installed_as_the_readme_says_is_sound() {
    if !Uid::effective().is_root() {
        return; // Only root can give a site to another account.
    }
    // On every Debian: locked, without a shell, with a home directory of root's.
    let account = User::from_name("daemon").expect("the user database");
    let (site, program, checker) = installed(&account.expect("an account named daemon"));
    let mut command = Command::new(&checker);
    command.env_clear().args(arguments(&site));
    let reply = site.run(command, b"");
    assert_eq!(
        codes(&reply).into_iter().collect::<Vec<_>>(),
        ["login-shell"],
        "{reply:?}"
    );
    assert!(
        reply
            .stdout
            .contains("\nsandbox: requests full, the unpacker full\n"),
        "{reply:?}"
    );
    assert!(!reply.stdout.contains("not checked: "), "{reply:?}");

    // A mount namespace changes the account's entry for this process alone.
    let passwd = fs::read_to_string("/etc/passwd").expect("readable");
    let changed: Vec<String> = passwd
        .lines()
        .map(|line| match line.strip_prefix("daemon:") {
            Some(_) => {
                let (rest, _) = line.rsplit_once(':').expect("a shell");
                format!("{rest}:{}", program.display())
            }
            None => line.to_owned(),
        })
        .collect();
    let ours = site.dir().join("passwd");
    write_file(&ours, 0o644, format!("{}\n", changed.join("\n")).as_bytes());
    let script = "mount --bind \"$0\" /etc/passwd && exec \"$@\"";
    let inside = |arguments: &[String]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&ours);
        command.args(arguments);
        site.run(command, b"")
    };
    if inside(&["true".to_owned()]).code != 0 {
        return; // A container may keep even root from mounting.
    }
    let mut line = vec![text(&checker).to_owned()];
    line.extend(arguments(&site));
    let reply = inside(&line);
    assert!(codes(&reply).is_empty(), "{reply:?}");
    assert_eq!(reply.code, 0, "{reply:?}");
}

/// root would run it as the account, and print what it says about the sandbox.
#[test]
fn root_runs_no_program_that_another_user_can_replace() {
    if !Uid::effective().is_root() {
        return; // Only root can give a site to another account.
    }
    let account = User::from_name("daemon").expect("the user database");
    let account = account.expect("an account named daemon");
    let (site, program, checker) = installed(&account);
    let marker = site.dir().join("ran");
    let script = format!("#!/bin/sh\ntouch '{}'\n", marker.display());
    write_file(&program, 0o755, script.as_bytes());
    give(&program, &account);
    let mut command = Command::new(&checker);
    command.env_clear().args(arguments(&site));
    let reply = site.run(command, b"");
    let expected = "not checked: the sandbox of the unpacker: another user than root can replace";
    assert!(reply.stdout.contains(expected), "{reply:?}");
    assert!(
        codes(&reply).contains("program-owned-by-account"),
        "{reply:?}"
    );
    assert!(!marker.exists());
}
