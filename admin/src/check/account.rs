//! Looking at the deploy account: its entries, its groups, its home folder.

use std::ffi::CString;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::facts::{Account, End, Entry, HomeFolder, Password};
use super::paths::walk;
use deploy_shell::error::describe;

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";

/// What is known of the account with this uid; what cannot be seen is added
/// to `unseen`.
pub fn look(uid: u32, unseen: &mut Vec<String>) -> Account {
    let found = User::from_uid(Uid::from_raw(uid)).unwrap_or_else(|errno| {
        unseen.push(format!(
            "the account of uid {uid}: {}",
            describe(&errno.into())
        ));
        None
    });
    let mut account = Account {
        uid,
        entry: None,
        twins: Vec::new(),
        groups: Vec::new(),
        password: None,
        home: HomeFolder::default(),
    };
    let Some(user) = found else {
        return account;
    };
    match std::fs::read_to_string(PASSWD) {
        Ok(text) => account.twins = twins(&text, uid, &user.name),
        Err(error) => unseen.push(cannot_read(Path::new(PASSWD), &error)),
    }
    account.groups = groups(&user.name, user.gid);
    account.password = password(&user, unseen);
    account.home = home(&user.dir, unseen);
    account.entry = Some(Entry {
        name: user.name,
        shell: user.shell,
        home: user.dir,
    });
    account
}

pub fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("'{}' cannot be read: {}", path.display(), describe(error))
}

/// The other names of `uid` in passwd(5).
fn twins(passwd: &str, uid: u32, name: &str) -> Vec<String> {
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 3 && fields[2].parse() == Ok(uid) && fields[0] != name)
        .map(|fields| fields[0].to_owned())
        .collect()
}

fn groups(name: &str, first: Gid) -> Vec<String> {
    let ids = CString::new(name).map(|name| getgrouplist(&name, first).unwrap_or_default());
    ids.unwrap_or_default()
        .into_iter()
        .map(|id| match Group::from_gid(id) {
            Ok(Some(group)) => group.name,
            _ => id.to_string(),
        })
        .collect()
}

fn password(user: &User, unseen: &mut Vec<String>) -> Option<Password> {
    match user.passwd.to_bytes() {
        b"x" => {}
        field => return Some(kind(field)),
    }
    match std::fs::read(SHADOW) {
        Ok(text) => shadow(&text, user.name.as_bytes()).map(kind),
        Err(error) => {
            let why = cannot_read(Path::new(SHADOW), &error);
            unseen.push(format!("whether '{}' has a password: {why}", user.name));
            None
        }
    }
}

/// The password field of `name` in shadow(5).
fn shadow<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.next()? == name).then(|| fields.next())?
    })
}

/// crypt(5): nothing that starts with these is the hash of a password.
fn kind(field: &[u8]) -> Password {
    match field.first() {
        None => Password::Empty,
        Some(b'!' | b'*') => Password::Locked,
        Some(_) => Password::Set,
    }
}

fn home(path: &Path, unseen: &mut Vec<String>) -> HomeFolder {
    let way = walk(path);
    if way.end != End::Reached {
        if let End::Unseen(why) = &way.end {
            unseen.push(format!("the home folder '{}': {why}", path.display()));
        }
        return HomeFolder::default();
    }
    let folder = path.join(".ssh");
    let ssh = walk(&folder);
    let mut home = HomeFolder {
        way: Some(way),
        ..HomeFolder::default()
    };
    let mut there = |name: &str| match walk(&folder.join(name)).end {
        End::Reached => true,
        End::Missing => false,
        End::Unseen(why) => {
            unseen.push(format!("'{}/{name}': {why}", folder.display()));
            false
        }
    };
    if ssh.end != End::Missing {
        home.rc = there("rc");
        home.environment = there("environment");
        home.keys = ["authorized_keys", "authorized_keys2"]
            .into_iter()
            .filter(|name| there(name))
            .map(|name| folder.join(name))
            .collect();
        home.ssh = Some(ssh);
    }
    home
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_other_names_of_the_same_uid() {
        let passwd = "root:x:0:0::/:/bin/sh\ndeploy:x:998:998::/:/x\n\
                      web:x:998:33::/:/bin/sh\nbroken\nother:x:99:99::/:/x\n";
        assert_eq!(twins(passwd, 998, "deploy"), ["web"]);
        assert!(twins(passwd, 0, "root").is_empty());
    }

    #[test]
    fn a_password_is_what_shadow_says() {
        let text = b"root:*:1::\ndeploy:!$6$x:1::\nweb:$y$j9T$x:1::\nopen::1::\n";
        let read = |name: &[u8]| shadow(text, name).map(kind);
        assert_eq!(read(b"root"), Some(Password::Locked));
        assert_eq!(read(b"deploy"), Some(Password::Locked));
        assert_eq!(read(b"web"), Some(Password::Set));
        assert_eq!(read(b"open"), Some(Password::Empty));
        assert_eq!(read(b"none"), None);
    }

    #[test]
    fn a_home_folder_is_looked_through() {
        let folder = tempfile::tempdir().unwrap();
        let mut unseen = Vec::new();
        assert!(home(&folder.path().join("none"), &mut unseen).way.is_none());
        assert!(home(folder.path(), &mut unseen).ssh.is_none());
        std::fs::create_dir(folder.path().join(".ssh")).unwrap();
        for name in ["rc", "authorized_keys2"] {
            std::fs::write(folder.path().join(".ssh").join(name), "").unwrap();
        }
        let found = home(folder.path(), &mut unseen);
        assert!(found.rc && !found.environment && found.ssh.is_some());
        assert_eq!(found.keys, [folder.path().join(".ssh/authorized_keys2")]);
        assert!(unseen.is_empty(), "{unseen:?}");
    }
}
