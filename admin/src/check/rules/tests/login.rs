//! The rules about the way of a request from sshd to the site.

use super::causes::only;
use super::requests::block;
use super::*;

#[test]
fn a_missing_home_directory_is_made_where_an_account_may_have_one() {
    let mut facts = sound();
    account(&mut facts).home = HomeDirectory {
        is_missing: true,
        ..HomeDirectory::default()
    };
    let install =
        "make an empty one, of root's: install -d -o root -g root -m 0755 '/var/lib/deploy-shell'";
    assert_eq!(only(&facts).remedy, install);
    passwd(&mut facts).home = PathBuf::from("/nonexistent");
    let moved = " && usermod --home '/var/lib/deploy-shell' 'deploy'";
    assert_eq!(only(&facts).remedy, format!("{install}{moved}"));
}

#[test]
fn every_way_in_which_sshd_refuses_the_account_is_found() {
    for (keyword, value, refused) in [
        ("allowusers", "root", true),
        ("allowusers", "deploy", false),
        ("allowusers", "dep*", false),
        ("allowusers", "!deploy", true),
        ("allowusers", "deploy@10.0.0.0/8", false),
        ("allowusers", "root@10.0.0.0/8", true),
        ("denyusers", "deploy", true),
        ("denyusers", "d?ploy", true),
        ("denyusers", "deploy@192.0.2.1", false),
        ("denyusers", "root", false),
        ("allowgroups", "admins", true),
        ("allowgroups", "deploy", false),
        ("denygroups", "deploy", true),
        ("denygroups", "admins", false),
        ("pubkeyauthentication", "no", true),
    ] {
        let mut facts = sound();
        set_setting(&mut facts, keyword, value);
        let expected: &[FindingCode] = if refused {
            &[FindingCode::LoginRefused]
        } else {
            &[]
        };
        assert_eq!(codes(&facts), expected, "{keyword} {value}");
    }
    let mut facts = sound();
    account(&mut facts).password = Some(PasswordState::AccountLocked);
    assert_eq!(only(&facts).remedy, "usermod --password '*' 'deploy'");
    set_setting(&mut facts, "usepam", "yes");
    assert_eq!(all_findings(&facts), []);
}

#[test]
fn an_expired_account_and_an_expired_password_are_found() {
    let today = 20_000;
    for (last_change, max_age, expires, remedy) in [
        (Some(19_000), Some(365), None, Some("--maxdays -1")),
        (Some(0), None, None, Some("--lastday -1")),
        (None, None, Some(19_999), Some("--expiredate -1")),
        (Some(19_990), Some(365), Some(20_000), None),
        (Some(19_000), None, None, None),
        (None, Some(1), None, None),
    ] {
        let mut facts = sound();
        set_setting(&mut facts, "usepam", "yes");
        account(&mut facts).aging = Some(Aging {
            today,
            last_change,
            max_age,
            expires,
        });
        match remedy {
            Some(words) => assert!(only(&facts).remedy.contains(words), "{words}"),
            None => assert_eq!(all_findings(&facts), [], "{last_change:?}"),
        }
    }
}

#[test]
fn a_directory_that_blocks_several_files_is_one_finding() {
    let mut facts = sound();
    block(
        &mut facts,
        "/etc/deploy-shell/authorized_keys/deploy",
        "/etc/deploy-shell",
    );
    block(&mut facts, "/etc/deploy-shell/bin", "/etc/deploy-shell");
    let finding = only(&facts);
    assert_eq!(finding.code, FindingCode::KeysUnreadable);
    let expected = "let the account read it, because sshd opens it as the account, with setfacl, which the \
         package acl installs: setfacl -m 'u:deploy:x' '/etc/deploy-shell'";
    assert_eq!(finding.remedy, expected);
}

#[test]
fn no_key_of_this_site_is_a_finding_unless_sshd_accepts_others() {
    let mut facts = sound();
    only_serve(&mut facts, "--site shop --key ci");
    let finding = only(&facts);
    assert_eq!(finding.code, FindingCode::NoKey);
    assert!(
        finding.remedy.contains("authorize --site blog --key LABEL"),
        "{finding:?}"
    );
    facts.keys_files[0].was_read = false;
    assert_eq!(all_findings(&facts), []);
    facts.keys_files[0].was_read = true;
    set_setting(&mut facts, "authorizedkeyscommand", "/usr/bin/keys");
    assert_eq!(codes(&facts), [FindingCode::KeysCommand]);
}

#[test]
fn a_file_that_closes_the_machine_is_found_where_sshd_looks_at_it() {
    let (etc, run) = ("/etc/nologin", "/run/nologin");
    for (pam, file, command) in [
        ("yes", etc, Some("rm '/etc/nologin'")),
        (
            "yes",
            run,
            Some("systemctl start systemd-user-sessions.service"),
        ),
        ("no", etc, Some("rm '/etc/nologin'")),
        ("no", run, None),
    ] {
        let mut facts = sound();
        set_setting(&mut facts, "usepam", pam);
        facts.nologin_files.push(file.into());
        match command {
            Some(command) => assert!(only(&facts).remedy.ends_with(command), "{pam} {file}"),
            None => assert_eq!(all_findings(&facts), [], "{pam} {file}"),
        }
    }
}

#[test]
fn the_user_of_a_program_that_prints_keys_is_one_of_its_own() {
    for (user, is_found) in [
        ("root", true),
        ("deploy", true),
        ("keys", false),
        ("none", false),
    ] {
        let mut facts = sound();
        set_setting(&mut facts, "authorizedkeyscommanduser", user);
        assert_eq!(all_findings(&facts), [], "{user}: there is no program");
        set_setting(&mut facts, "authorizedkeyscommand", "/usr/bin/keys");
        let found = codes(&facts).contains(&FindingCode::KeysCommandUser);
        assert_eq!(found, is_found, "{user}");
    }
}
