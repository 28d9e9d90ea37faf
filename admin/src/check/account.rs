//! Gathers facts about the deploy account: its entry, groups, password and home
//! directory.

use std::ffi::CString;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::facts::{Account, Aging, HomeDirectory, PasswdEntry, PasswordState, Resolution};
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
    (account.password, account.aging) = shadow_state(&user, not_checked);
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

fn shadow_state(
    user: &User,
    not_checked: &mut Vec<String>,
) -> (Option<PasswordState>, Option<Aging>) {
    match user.passwd.to_bytes() {
        b"x" => {}
        field => return (Some(classify_password(field)), None),
    }
    match std::fs::read(SHADOW) {
        Ok(text) => {
            let fields = shadow_fields(&text, user.name.as_bytes());
            let password = (fields.as_ref()).and_then(|fields| fields.get(1));
            let aging = (fields.as_ref()).map(|fields| aging(fields, today()));
            (password.map(|field| classify_password(field)), aging)
        }
        Err(error) => {
            let why = cannot_read(Path::new(SHADOW), &error);
            let name = &user.name;
            not_checked.push(format!(
                "whether '{name}' has a password, is locked or has expired: {why}"
            ));
            (None, None)
        }
    }
}

/// Returns the fields of `name` in the text of a shadow(5) file.
fn shadow_fields<'a>(text: &'a [u8], name: &[u8]) -> Option<Vec<&'a [u8]>> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        (fields[0] == name && fields.len() > 1).then_some(fields)
    })
}

/// Reads the dates. A negative number has no effect, as an empty field.
fn aging(fields: &[&[u8]], today: i64) -> Aging {
    let number = |at: usize| {
        let text = std::str::from_utf8(fields.get(at)?).ok()?;
        text.parse().ok().filter(|number| *number >= 0)
    };
    Aging {
        today,
        last_change: number(2),
        max_age: number(4),
        expires: number(7),
    }
}

/// Returns the number of days since 1970, UTC.
fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| (since.as_secs() / 86_400) as i64)
}

/// No hash of a password starts with `!` or `*` (crypt(5)).
fn classify_password(field: &[u8]) -> PasswordState {
    match field.first() {
        None => PasswordState::Empty,
        Some(b'!') => PasswordState::AccountLocked,
        Some(b'*') => PasswordState::Locked,
        Some(_) => PasswordState::Set,
    }
}

fn examine_home(path: &Path, not_checked: &mut Vec<String>) -> HomeDirectory {
    let location = resolve_path(path);
    if location.resolution != Resolution::Complete {
        if let Resolution::NotChecked(why) = &location.resolution {
            not_checked.push(format!("the home directory '{}': {why}", path.display()));
        }
        return HomeDirectory {
            is_missing: location.resolution == Resolution::Missing,
            location: Some(location),
            ..HomeDirectory::default()
        };
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
        let state = |name: &[u8]| {
            let fields = shadow_fields(text, name)?;
            Some(classify_password(fields[1]))
        };
        assert_eq!(state(b"root"), Some(PasswordState::Locked));
        assert_eq!(state(b"deploy"), Some(PasswordState::AccountLocked));
        assert_eq!(state(b"web"), Some(PasswordState::Set));
        assert_eq!(state(b"open"), Some(PasswordState::Empty));
        assert_eq!(state(b"none"), None);
    }

    #[test]
    fn the_dates_of_shadow_are_read() {
        let text = b"deploy:*:19000:0:365:7::20000:\nother:*:::::-1:\n";
        let dates = |name: &[u8]| aging(&shadow_fields(text, name).unwrap(), 7);
        let expected = Aging {
            today: 7,
            last_change: Some(19_000),
            max_age: Some(365),
            expires: Some(20_000),
        };
        assert_eq!(dates(b"deploy"), expected);
        let none = Aging {
            today: 7,
            ..Aging::default()
        };
        assert_eq!(dates(b"other"), none);
    }

    #[test]
    fn the_files_in_a_home_directory_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let mut not_checked = Vec::new();
        let none = directory.path().join("none");
        let missing = examine_home(&none, &mut not_checked);
        assert!(missing.ssh.is_none() && missing.is_missing);
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
