//! The findings of `check` about the way of a request from sshd to the site, with a real
//! account. Each fault stops or spoils requests, `check` names it, and its remedy ends
//! both.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use nix::unistd::Uid;

use crate::account::{Installation, run_with_retries};
use crate::check::{added, check, codes, prefix_sshd, quiet_site, remedy};
use crate::mounted::in_namespace;
use crate::site::{admin, set_mode};

/// What a request gives while a fault is there.
#[derive(Clone, Copy)]
enum Client {
    /// ssh gets no answer of deploy-shell.
    Refused,
    /// The answer has a complaint of sshd in it.
    Complaint,
    /// Nothing is seen here.
    Unchanged,
}

/// Runs a command as root. useradd and the like may have locked the user database.
fn root(script: &str) {
    let mut command = Command::new("sh");
    command
        .args(["-ec", script])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    assert!(run_with_retries(command), "{script}");
}

#[track_caller]
fn expect(installation: &Installation, client: Client) {
    let reply = installation.request("list");
    match client {
        Client::Refused => assert!(
            !(0..=78).contains(&reply.code) || reply.code == 1,
            "{reply:?}"
        ),
        Client::Complaint => assert!(reply.stderr.contains("Could not chdir"), "{reply:?}"),
        Client::Unchanged => assert_eq!((reply.code, reply.stderr.as_str()), (0, ""), "{reply:?}"),
    }
}

/// Makes the fault, and expects its finding alone. Returns the remedy.
#[track_caller]
fn fault(
    installation: &Installation,
    before: &BTreeSet<String>,
    make: &dyn Fn(&Installation),
    (code, client): (&str, Client),
) -> String {
    expect(installation, Client::Unchanged);
    make(installation);
    let reply = check(&installation.site);
    assert_eq!(added(before, &reply), [code], "{reply:?}");
    expect(installation, client);
    remedy(&reply, code)
}

fn keys_file(installation: &Installation) -> std::path::PathBuf {
    installation.site.dir().join("authorized_keys")
}

type Make<'a> = &'a dyn Fn(&Installation);

#[test]
fn faults_that_a_command_repairs_are_found_and_repaired() {
    let Some(installation) = Installation::create() else {
        return;
    };
    installation.drop_in();
    let before = codes(&check(&installation.site));
    let name = installation.account.name.clone();
    let home = installation.site.dir().join("home");
    let shadow = |options: &str| root(&format!("{options} '{name}'"));
    let faults: [(Make, &str, Client); 5] = [
        (
            &|it| set_mode(&keys_file(it), 0o600),
            "keys-file-unreadable",
            Client::Refused,
        ),
        (
            &|it| set_mode(&it.program, 0o644),
            "program-not-executable",
            Client::Refused,
        ),
        (
            &|_| fs::remove_dir(&home).expect("removed"),
            "home-missing",
            Client::Complaint,
        ),
        (
            &|_| shadow("usermod --password '!'"),
            "account-locked",
            Client::Refused,
        ),
        (
            &|_| shadow("chage --expiredate 1"),
            "account-expired",
            Client::Refused,
        ),
    ];
    for (make, code, client) in faults {
        let found = fault(&installation, &before, make, (code, client));
        let command = found.rsplit(": ").next().expect("a command");
        root(command);
        let reply = check(&installation.site);
        assert_eq!(codes(&reply), before, "{found}: {reply:?}");
        expect(&installation, Client::Unchanged);
    }
    // The keys file is still not for everybody.
    let mode = fs::metadata(keys_file(&installation)).expect("the keys");
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
    assert_eq!(mode & 0o777, 0o640);
}

/// With PAM, an old password stops a key as well, though no password matches.
#[test]
fn an_expired_password_is_found_where_sshd_uses_pam() {
    let Some(installation) = Installation::create() else {
        return;
    };
    installation.drop_in();
    installation.sshd(|text| text.replace("UsePAM no", "UsePAM yes"));
    let works = installation.request("list").code == 0;
    let before = codes(&check(&installation.site));
    let name = &installation.account.name;
    for options in ["--lastday 0", "--lastday 1 --maxdays 30"] {
        root(&format!("chage {options} '{name}'"));
        let reply = check(&installation.site);
        assert_eq!(added(&before, &reply), ["account-expired"], "{reply:?}");
        // PAM may not work at all in a container.
        if works {
            assert_ne!(installation.request("list").code, 0, "{options}");
        }
        let remedy = remedy(&reply, "account-expired");
        root(remedy.rsplit(": ").next().expect("a command"));
        assert_eq!(codes(&check(&installation.site)), before, "{remedy}");
        assert_eq!(installation.request("list").code == 0, works, "{options}");
    }
}

#[test]
fn settings_by_which_sshd_refuses_the_account_are_found() {
    let Some(installation) = Installation::create() else {
        return;
    };
    installation.drop_in();
    let before = codes(&check(&installation.site));
    let name = installation.account.name.clone();
    for (line, words) in [
        ("AllowUsers root".to_owned(), "to AllowUsers"),
        ("AllowGroups root".to_owned(), "to AllowGroups"),
        (format!("DenyUsers {name}"), "out of DenyUsers"),
        (format!("DenyUsers x* {}*", &name[..4]), "out of DenyUsers"),
        (format!("DenyGroups {name}"), "out of DenyGroups"),
    ] {
        let set = |it: &Installation| it.sshd(|rest| format!("{line}\n{rest}"));
        let expected = ("login-refused", Client::Refused);
        let found = fault(&installation, &before, &set, expected);
        assert!(found.contains(words), "{line}: {found}");
        installation.sshd(|text| text.replacen(&format!("{line}\n"), "", 1));
    }
    let line = format!("Match User {name}\nChrootDirectory /usr\nMatch all");
    let set = |it: &Installation| it.sshd(|rest| format!("{line}\n{rest}"));
    let found = fault(&installation, &before, &set, ("chroot", Client::Refused));
    assert!(found.starts_with("set ChrootDirectory none "), "{found}");
    installation.sshd(|text| text.replacen(&format!("{line}\n"), "", 1));
    // These name the account, in a way that sshd reads so.
    for line in [
        format!("AllowUsers root {name}"),
        format!("AllowUsers {}*", &name[..4]),
    ] {
        installation.sshd(|rest| format!("{line}\n{rest}"));
        assert_eq!(codes(&check(&installation.site)), before, "{line}");
        expect(&installation, Client::Unchanged);
        installation.sshd(|text| text.replacen(&format!("{line}\n"), "", 1));
    }
}

/// A mount hides the file from the rest of the machine.
#[test]
fn a_file_that_closes_the_machine_is_found() {
    if !Uid::effective().is_root() {
        println!("skipped: another user is root of a namespace, and check says little then");
        return;
    }
    let site = quiet_site();
    prefix_sshd(&site, "UsePAM yes");
    let script = format!(
        "mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd && touch /run/nologin || exit 90
         exec '{}' check --config '{}' --sshd-config '{}/sshd_config'",
        admin().display(),
        site.config_path().display(),
        site.dir().display()
    );
    let Some(done) = in_namespace(&script) else {
        return;
    };
    let printed = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let finding = "finding: logins-closed: '/run/nologin' exists: sshd refuses every request";
    assert!(printed.contains(finding), "{printed}");
}

/// The mistakes of a first installation, one finding each.
#[test]
fn a_pasted_key_and_no_key_are_one_finding_each() {
    let Some(installation) = Installation::create() else {
        return;
    };
    installation.drop_in();
    // The server of sftp is a program, as Debian has it: the login shell refuses it.
    let sftp = "Subsystem sftp /usr/lib/openssh/sftp-server";
    installation.sshd(|text| text.replace("Subsystem sftp internal-sftp", sftp));
    let before = codes(&check(&installation.site));
    installation.keys("");
    let reply = check(&installation.site);
    assert_eq!(added(&before, &reply), ["key-without-command"], "{reply:?}");
    let first = reply
        .stdout
        .lines()
        .find(|line| line.starts_with("finding: "));
    assert!(
        first.is_some_and(|line| line.contains("key-without-command")),
        "{reply:?}"
    );

    fs::write(keys_file(&installation), "").expect("written");
    let reply = check(&installation.site);
    assert_eq!(added(&before, &reply), ["no-key-registered"], "{reply:?}");
    let command = remedy(&reply, "no-key-registered");
    let file = keys_file(&installation);
    assert!(
        command.contains("deploy-shell-admin authorize --config '"),
        "{command}"
    );
    assert!(
        command.ends_with(&format!(">> '{}'", file.display())),
        "{command}"
    );
}

/// A remedy that hardened root's own login would lock the operator out.
#[test]
fn a_site_of_root_has_one_finding() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let site = &installation.site;
    take(site.root());
    let reply = check(site);
    let found: Vec<String> = codes(&reply).into_iter().collect();
    assert_eq!(found, ["account-is-root"], "{reply:?}");
    let command = remedy(&reply, "account-is-root");
    assert!(
        command.contains("deploy-shell-admin init --config '"),
        "{command}"
    );
    assert!(!reply.stdout.contains("for 'root': "), "{reply:?}");
}

/// Gives everything at and below `path` to root.
fn take(path: &Path) {
    chown(path, Some(0), Some(0)).expect("root takes it");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            take(&entry.expect("an entry").path());
        }
    }
}

/// The account can put a symlink at each name in a home directory of its own. Root runs no
/// remedy on a path there, and `check` reports no line of a file that the account cannot read.
#[test]
fn a_symlink_of_the_account_leads_no_remedy_elsewhere() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let directory = installation.site.dir();
    let (home, other) = (directory.join("home"), directory.join("other"));
    fs::create_dir(&other).expect("a directory");
    for name in ["authorized_keys", "authorized_keys2", "rc", "environment"] {
        fs::copy(keys_file(&installation), other.join(name)).expect("a copy");
    }
    set_mode(&other, 0o700);
    symlink(&other, home.join(".ssh")).expect("a symlink");
    let account = installation.account.uid;
    lchown(home.join(".ssh"), Some(account), None).expect("given");
    installation.sshd(|text| {
        let keys = keys_file(&installation);
        text.replace(keys.to_str().expect("UTF-8"), ".ssh/authorized_keys")
    });
    // Also where the home directory has become root's, and the symlink is still there.
    for owner in [account, 0] {
        chown(&home, Some(owner), None).expect("given");
        let reply = check(&installation.site);
        let found = codes(&reply);
        for code in [
            "ssh-rc",
            "ssh-environment",
            "stray-keys",
            "keys-file-unreadable",
        ] {
            assert!(found.contains(code), "{owner}: {reply:?}");
        }
        assert!(
            !found.iter().any(|code| code.starts_with("key-")),
            "{reply:?}"
        );
        let ssh = home.join(".ssh").display().to_string();
        for line in reply.stdout.lines().filter(|line| line.contains(&ssh)) {
            let as_root = line.split("deploy-shell-admin run ").next();
            let as_root = as_root.unwrap_or_default();
            // Once the home directory is root's, nobody else can exchange the symlink itself.
            let of_symlink = owner == 0 && line.contains("look where it leads");
            let is_command = !of_symlink
                && ["rm ", "setfacl -", "chmod ", "chown "]
                    .iter()
                    .any(|words| as_root.contains(words));
            assert!(!is_command, "{line}");
        }
    }
}
