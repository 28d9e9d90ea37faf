//! Gathers facts about the deploy account: its entry, groups, password and home
//! directory.

use std::ffi::CString;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::facts::{Account, HomeDirectory, PasswdEntry, PasswordState, Resolution};
use super::paths::resolve_path;
use deploy_shell::error::describe;

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";

/// Looks up the account with this uid. Adds to `not_checked` what it cannot see.
pub fn look_up_account(uid: u32, not_checked: &mut Vec<String>) -> Account {
    let found = User::from_uid(Uid::from_raw(uid)).unwrap_or_else(|errno| {
        let why = describe(&errno.into());
        not_checked.push(format!("the account of uid {uid}: {why}"));
        None
    });
    let mut account = Account::of_uid(uid);
    let Some(user) = found else {
        return account;
    };
    match std::fs::read_to_string(PASSWD) {
        Ok(text) => account.uid_aliases = uid_aliases(&text, uid, &user.name),
        Err(error) => not_checked.push(cannot_read(Path::new(PASSWD), &error)),
    }
    account.groups = group_names(&user.name, user.gid);
    account.password = password_state(&user, not_checked);
    account.home = examine_home(&user.dir, not_checked);
    account.passwd = Some(PasswdEntry {
        name: user.name,
        gid: user.gid.as_raw(),
        shell: user.shell,
        home: user.dir,
    });
    account
}

pub fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("'{}' cannot be read: {}", path.display(), describe(error))
}

/// Returns the other names of `uid` in the text of a passwd(5) file.
fn uid_aliases(passwd: &str, uid: u32, name: &str) -> Vec<String> {
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 3 && fields[2].parse() == Ok(uid) && fields[0] != name)
        .map(|fields| fields[0].to_owned())
        .collect()
}

fn group_names(account: &str, primary: Gid) -> Vec<String> {
    let ids = CString::new(account).map(|name| getgrouplist(&name, primary).unwrap_or_default());
    ids.unwrap_or_default()
        .into_iter()
        .map(|id| match Group::from_gid(id) {
            Ok(Some(group)) => group.name,
            _ => id.to_string(),
        })
        .collect()
}

fn password_state(user: &User, not_checked: &mut Vec<String>) -> Option<PasswordState> {
    match user.passwd.to_bytes() {
        b"x" => {}
        field => return Some(classify_password(field)),
    }
    match std::fs::read(SHADOW) {
        Ok(text) => shadow_password(&text, user.name.as_bytes()).map(classify_password),
        Err(error) => {
            let why = cannot_read(Path::new(SHADOW), &error);
            not_checked.push(format!("whether '{}' has a password: {why}", user.name));
            None
        }
    }
}

/// Returns the password field of `name` in the text of a shadow(5) file.
fn shadow_password<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.next()? == name).then(|| fields.next())?
    })
}

/// No hash of a password starts with `!` or `*` (crypt(5)).
fn classify_password(field: &[u8]) -> PasswordState {
    match field.first() {
        None => PasswordState::Empty,
        Some(b'!' | b'*') => PasswordState::Locked,
        Some(_) => PasswordState::Set,
    }
}

fn examine_home(path: &Path, not_checked: &mut Vec<String>) -> HomeDirectory {
    let location = resolve_path(path);
    if location.resolution != Resolution::Complete {
        if let Resolution::NotChecked(why) = &location.resolution {
            not_checked.push(format!("the home directory '{}': {why}", path.display()));
        }
        return HomeDirectory::default();
    }
    let directory = path.join(".ssh");
    let ssh = resolve_path(&directory);
    let mut home = HomeDirectory {
        location: Some(location),
        ..HomeDirectory::default()
    };
    let mut exists = |name: &str| match resolve_path(&directory.join(name)).resolution {
        Resolution::Complete => true,
        Resolution::Missing => false,
        Resolution::NotChecked(why) => {
            not_checked.push(format!("'{}/{name}': {why}", directory.display()));
            false
        }
    };
    if ssh.resolution != Resolution::Missing {
        home.has_rc = exists("rc");
        home.has_environment = exists("environment");
        home.keys_files = ["authorized_keys", "authorized_keys2"]
            .into_iter()
            .filter(|name| exists(name))
            .map(|name| directory.join(name))
            .collect();
        home.ssh = Some(ssh);
    }
    home
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_aliases_are_other_names_of_the_same_uid() {
        let passwd = "root:x:0:0::/:/bin/sh\ndeploy:x:998:998::/:/x\n\
                      web:x:998:33::/:/bin/sh\nbroken\nother:x:99:99::/:/x\n";
        assert_eq!(uid_aliases(passwd, 998, "deploy"), ["web"]);
        assert!(uid_aliases(passwd, 0, "root").is_empty());
    }

    #[test]
    fn the_password_field_of_shadow_decides() {
        let text = b"root:*:1::\ndeploy:!$6$x:1::\nweb:$y$j9T$x:1::\nopen::1::\n";
        let state = |name: &[u8]| shadow_password(text, name).map(classify_password);
        assert_eq!(state(b"root"), Some(PasswordState::Locked));
        assert_eq!(state(b"deploy"), Some(PasswordState::Locked));
        assert_eq!(state(b"web"), Some(PasswordState::Set));
        assert_eq!(state(b"open"), Some(PasswordState::Empty));
        assert_eq!(state(b"none"), None);
    }

    #[test]
    fn the_files_in_a_home_directory_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let mut not_checked = Vec::new();
        let none = directory.path().join("none");
        assert!(examine_home(&none, &mut not_checked).location.is_none());
        assert!(
            examine_home(directory.path(), &mut not_checked)
                .ssh
                .is_none()
        );
        std::fs::create_dir(directory.path().join(".ssh")).unwrap();
        for name in ["rc", "authorized_keys2"] {
            std::fs::write(directory.path().join(".ssh").join(name), "").unwrap();
        }
        let home = examine_home(directory.path(), &mut not_checked);
        assert!(home.has_rc && !home.has_environment && home.ssh.is_some());
        let expected = directory.path().join(".ssh/authorized_keys2");
        assert_eq!(home.keys_files, [expected]);
        assert!(not_checked.is_empty(), "{not_checked:?}");
    }
}
