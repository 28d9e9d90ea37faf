//! The files that sshd reads the account's keys from.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::account::cannot_read;
use super::authorized_keys::{self, KeyLine};
use super::facts::{End, Entry, Key, Line, Runs, Settings, Source};
use super::paths::walk;

/// What sshd reads if it is not told otherwise, behind what sshd/README.md
/// recommends: looked at where sshd cannot be asked.
const USUAL: &str =
    "/etc/deploy-shell/authorized_keys/%u .ssh/authorized_keys .ssh/authorized_keys2";

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Reads all keys of the account. What cannot be seen is added to `unseen`.
pub fn look(
    server: Option<&Settings>,
    account: &Entry,
    uid: u32,
    runs: impl Fn(&KeyLine) -> Runs,
    unseen: &mut Vec<String>,
) -> Vec<Source> {
    let patterns = match server {
        Some(settings) => settings.get("authorizedkeysfile").unwrap_or("none"),
        None => USUAL,
    };
    let mut sources: Vec<Source> = Vec::new();
    for pattern in patterns.split_ascii_whitespace() {
        if pattern == "none" {
            continue;
        }
        let Some(path) = expand(pattern, account, uid) else {
            unseen.push(format!(
                "the keys in '{pattern}', which has an unknown token"
            ));
            continue;
        };
        let way = walk(&path);
        let lines = match &way.end {
            End::Missing => Vec::new(),
            End::Reached => read(&path, &runs).unwrap_or_else(|why| {
                unseen.push(format!("the keys in it: {why}"));
                Vec::new()
            }),
            End::Unseen(why) => {
                unseen.push(format!("the keys in '{}': {why}", path.display()));
                Vec::new()
            }
        };
        if sources.iter().all(|source| source.way.path != path) {
            sources.push(Source { way, lines });
        }
    }
    sources
}

/// A path as sshd_config(5) says, "TOKENS".
fn expand(pattern: &str, account: &Entry, uid: u32) -> Option<PathBuf> {
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
    // An absolute path replaces the home folder.
    Some(account.home.join(path))
}

fn read(path: &Path, runs: impl Fn(&KeyLine) -> Runs) -> Result<Vec<Line>, String> {
    let failed = |error: std::io::Error| cannot_read(path, &error);
    // O_NONBLOCK: the account may have put a fifo there.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(format!("'{}' is not a regular file", path.display()));
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
    if read.map_err(failed)? as u64 > MAX_FILE {
        return Err(format!(
            "'{}' is larger than {MAX_FILE} bytes",
            path.display()
        ));
    }
    let lines = bytes.split(|byte| *byte == b'\n').zip(1..);
    let found = lines.filter_map(|(line, number)| {
        let key = authorized_keys::read(&String::from_utf8_lossy(line))?;
        let key = key.map(|line| Key {
            runs: runs(&line),
            line,
        });
        Some(Line { number, key })
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(home: &Path) -> Entry {
        Entry {
            name: "deploy".to_owned(),
            shell: PathBuf::from("/bin/sh"),
            home: home.to_owned(),
        }
    }

    #[test]
    fn tokens_are_expanded() {
        let account = account(Path::new("/home/d"));
        let shown = |pattern: &str| expand(pattern, &account, 998);
        for (pattern, path) in [
            (".ssh/authorized_keys", "/home/d/.ssh/authorized_keys"),
            ("/etc/keys/%u", "/etc/keys/deploy"),
            ("%h/k", "/home/d/k"),
            ("/k/%U/%%", "/k/998/%"),
        ] {
            assert_eq!(shown(pattern), Some(PathBuf::from(path)), "{pattern}");
        }
        assert_eq!(shown("/k/%z"), None);
        assert_eq!(shown("/k/%"), None);
    }

    #[test]
    fn every_source_is_read_and_lines_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy");
        std::fs::write(&path, b"# x\n\nrestrict nonsense\n\xff\n").unwrap();
        let mut settings = Settings::default();
        let patterns = format!("{0}/%u {0}/%u .ssh/k", folder.path().display());
        settings
            .0
            .insert("authorizedkeysfile".to_owned(), vec![patterns]);
        let mut unseen = Vec::new();
        let account = account(folder.path());
        let found = look(
            Some(&settings),
            &account,
            1,
            |_| Runs::Anything,
            &mut unseen,
        );
        assert_eq!(found.len(), 2);
        let numbers: Vec<usize> = found[0].lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [3, 4]);
        assert!(found[0].lines.iter().all(|line| line.key.is_err()));
        assert_eq!(
            (found[1].way.end.clone(), found[1].lines.len()),
            (End::Missing, 0)
        );
        assert!(unseen.is_empty(), "{unseen:?}");

        let none = Settings::default();
        assert!(look(Some(&none), &account, 1, |_| Runs::Anything, &mut unseen).is_empty());
    }
}
