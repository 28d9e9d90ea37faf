//! Reads the files from which sshd takes the account's keys.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Uid, User, geteuid};

use super::account::cannot_read;
use super::authorized_keys::{AuthorizedKey, parse_key_line};
use super::facts::{
    ForcedCommand, Key, KeysFile, KeysFileLine, PasswdEntry, Resolution, ResolvedPath, SshdSettings,
};
use super::paths::resolve_path;
use super::reader::as_user;
use super::rules::first_writable;
use deploy_shell::error::describe;

/// The file that sshd/README.md recommends, and sshd's default. `check` reads
/// these where sshd gives no answer.
const DEFAULT_PATTERNS: &str =
    "/etc/deploy-shell/authorized_keys/%u .ssh/authorized_keys .ssh/authorized_keys2";

/// The largest keys file that `check` reads, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Reads all keys of the account. Adds to `not_checked` what it cannot see.
pub fn read_keys_files(
    sshd: Option<&SshdSettings>,
    account: &PasswdEntry,
    uid: u32,
    classify: impl Fn(&AuthorizedKey) -> ForcedCommand,
    not_checked: &mut Vec<String>,
) -> Vec<KeysFile> {
    let patterns = match sshd {
        Some(settings) => settings.get("authorizedkeysfile").unwrap_or("none"),
        None => DEFAULT_PATTERNS,
    };
    let mut files: Vec<KeysFile> = Vec::new();
    for pattern in patterns.split_ascii_whitespace() {
        if pattern == "none" {
            continue;
        }
        let Some(path) = expand_tokens(pattern, account, uid) else {
            not_checked.push(format!(
                "the keys in '{pattern}', which has an unknown token"
            ));
            continue;
        };
        let location = resolve_path(&path);
        let read = match &location.resolution {
            Resolution::Missing => Ok(Vec::new()),
            Resolution::Complete => read_keys_file(&location, uid, &classify)
                .map_err(|why| format!("the keys of '{}': {why}", account.name)),
            Resolution::NotChecked(why) => Err(format!("the keys in '{}': {why}", path.display())),
        };
        let was_read = read.is_ok();
        let lines = read.unwrap_or_else(|why| {
            not_checked.push(why);
            Vec::new()
        });
        if files.iter().all(|file| file.location.path != path) {
            files.push(KeysFile {
                location,
                was_read,
                lines,
            });
        }
    }
    files
}

/// Expands the tokens of a path (sshd_config(5), "TOKENS"); `None` for a token
/// that is unknown.
pub fn expand_tokens(pattern: &str, account: &PasswdEntry, uid: u32) -> Option<PathBuf> {
    let mut path = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' => match characters.next()? {
                '%' => path.push('%'),
                'h' => path.push_str(account.home.to_str()?),
                'u' => path.push_str(&account.name),
                'U' => path.push_str(&uid.to_string()),
                _ => return None,
            },
            other => path.push(other),
        }
    }
    // An absolute path replaces the home directory.
    Some(account.home.join(path))
}

/// Reads the lines of a file of the account `uid`: as the account where another user than root can
/// put something else there, as sshd does (auth2-pubkey.c of OpenSSH). Else a symlink of the
/// account would make `check` report on a file of root's.
///
/// # Errors
///
/// Why the file cannot be read.
pub fn read_lines_as_sshd(
    location: &ResolvedPath,
    uid: u32,
) -> Result<Vec<(usize, String)>, String> {
    let path = &location.path;
    if !geteuid().is_root() || first_writable(&location.components, &[0]).is_none() {
        return read_lines(path);
    }
    let user = User::from_uid(Uid::from_raw(uid)).map_err(|errno| describe(&errno.into()))?;
    let user = user.ok_or("it has no passwd entry")?;
    as_user(&user, || read_lines(path))?
}

fn read_keys_file(
    location: &ResolvedPath,
    uid: u32,
    classify: impl Fn(&AuthorizedKey) -> ForcedCommand,
) -> Result<Vec<KeysFileLine>, String> {
    let found = read_lines_as_sshd(location, uid)?
        .into_iter()
        .filter_map(|(number, line)| {
            let key = parse_key_line(&line)?;
            let key = key.map(|entry| Key {
                command: classify(&entry),
                entry,
            });
            Some(KeysFileLine { number, key })
        });
    Ok(found.collect())
}

/// Returns the lines of a file that sshd reads, with their numbers.
pub fn read_lines(path: &Path) -> Result<Vec<(usize, String)>, String> {
    let failed = |error: std::io::Error| cannot_read(path, &error);
    // O_NONBLOCK: the account may have created a fifo there.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("'{}' is not a regular file", path.display()));
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
    if read.map_err(failed)? as u64 > MAX_FILE {
        let shown = path.display();
        return Err(format!("'{shown}' is larger than {MAX_FILE} bytes"));
    }
    let lines = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    let text = |(number, line)| (number, String::from_utf8_lossy(line).into_owned());
    Ok(lines.map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(home: &Path) -> PasswdEntry {
        PasswdEntry {
            name: "deploy".to_owned(),
            gid: 998,
            shell: PathBuf::from("/bin/sh"),
            home: home.to_owned(),
        }
    }

    #[test]
    fn tokens_are_expanded() {
        let account = account(Path::new("/home/d"));
        let expanded = |pattern: &str| expand_tokens(pattern, &account, 998);
        for (pattern, path) in [
            (".ssh/authorized_keys", "/home/d/.ssh/authorized_keys"),
            ("/etc/keys/%u", "/etc/keys/deploy"),
            ("%h/k", "/home/d/k"),
            ("/k/%U/%%", "/k/998/%"),
        ] {
            assert_eq!(expanded(pattern), Some(PathBuf::from(path)), "{pattern}");
        }
        assert_eq!(expanded("/k/%z"), None);
        assert_eq!(expanded("/k/%"), None);
    }

    #[test]
    fn every_file_is_read_and_lines_are_numbered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deploy");
        std::fs::write(&path, b"# x\n\nrestrict nonsense\n\xff\n").unwrap();
        let mut settings = SshdSettings::default();
        let patterns = format!("{0}/%u {0}/%u .ssh/k", directory.path().display());
        settings
            .0
            .insert("authorizedkeysfile".to_owned(), vec![patterns]);
        let mut not_checked = Vec::new();
        let account = account(directory.path());
        let mut read = |settings: &SshdSettings| {
            let classify = |_: &AuthorizedKey| ForcedCommand::None;
            read_keys_files(Some(settings), &account, 1, classify, &mut not_checked)
        };
        let files = read(&settings);
        assert_eq!(files.len(), 2);
        let numbers: Vec<usize> = files[0].lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [3, 4]);
        assert!(files[0].lines.iter().all(|line| line.key.is_err()));
        assert_eq!(files[1].location.resolution, Resolution::Missing);
        assert!(files[1].lines.is_empty());

        assert!(read(&SshdSettings::default()).is_empty());
        assert!(not_checked.is_empty(), "{not_checked:?}");
    }
}
