//! `init`: writes a commented configuration, and creates the site's directories. For a
//! site whose configuration exists, it creates the directories that are missing.

mod directories;
mod next_steps;
mod root_directory;

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::{Uid, User};

use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::shell_word::Word;

use directories::Directories;

/// The configuration of a new site: every key, with its default.
const TEMPLATE: &str = include_str!("template.toml");

/// The account of a site: sshd runs deploy-shell as it.
#[derive(Debug)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    pub name: String,
}

impl Account {
    /// Returns the account that `--owner` names, by its name or its number.
    ///
    /// # Errors
    ///
    /// [`Code::BadConfig`] for root, and for an account that does not exist.
    pub fn named(owner: &str) -> Result<Account> {
        let found = match owner.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(owner),
        };
        match found {
            Ok(Some(user)) if user.uid.is_root() => Err(is_root(&format!("'{owner}' is root"))),
            Ok(Some(user)) => Ok(Account {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                name: user.name,
            }),
            Ok(None) => Err(
                Error::new(Code::BadConfig, format!("there is no account '{owner}'")).remedy(
                    "create it as 'By hand' in docs/install.md does, or install the package",
                ),
            ),
            Err(errno) => Err(Error::io(format!("cannot look up '{owner}'"), errno)),
        }
    }

    /// Returns the account with this number.
    pub fn of_uid(uid: u32) -> Account {
        let found = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        Account {
            uid,
            gid: found.as_ref().map_or(uid, |user| user.gid.as_raw()),
            name: found.map_or_else(|| uid.to_string(), |user| user.name),
        }
    }
}

/// A site that belongs to root would make every request run as root.
fn is_root(problem: &str) -> Error {
    Error::new(
        Code::BadConfig,
        format!("{problem}, and a site must belong to an ordinary account"),
    )
    .remedy("name the account that the keys log in as: --owner deploy")
}

/// Writes the configuration at `config`, and creates the directories below `root`.
///
/// They belong to `owner`; without it, to the owner of the directories that exist, or to
/// the user who runs this. A root directory of root's is given to that account, if it
/// holds nothing but a site. If the configuration exists, it stays as it is, and only
/// directories that are missing are created.
///
/// # Errors
///
/// [`Code::BadConfig`] when the configuration is one of another root, a path is not
/// acceptable, or the account would be root.
pub fn init(config: &Path, root: &Path, owner: Option<&str>) -> Result<Vec<String>> {
    // Other users must read the site, and the account its configuration, whatever
    // umask the operator's shell has.
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let new_text = match config.symlink_metadata() {
        Ok(_) => None,
        // Parsed before anything is created, so that the written text will load.
        Err(_) => Some(configuration(root)?),
    };
    let parsed = match &new_text {
        Some(text) => Config::parse(config, text)?,
        None => existing(config, root)?,
    };
    let directories = Directories::find(&parsed)?;
    let account = match owner {
        Some(owner) => Account::named(owner)?,
        None => Account::of_uid(directories.account()),
    };
    if account.uid == 0 {
        let shown = root.display();
        return Err(is_root(&format!("'{shown}' would be a site of root")));
    }
    let mut lines = Vec::new();
    let done = directories.create(&account)?;
    if let Some(text) = &new_text {
        write_new_file(config, text)?;
        // It may not load from there, such as from a directory that other users can
        // write. Then it is removed again.
        if let Err(error) = Config::load(config) {
            _ = std::fs::remove_file(config);
            return Err(error);
        }
        lines.push(format!("wrote {}", config.display()));
    }
    lines.extend(done);
    lines.extend(match new_text {
        Some(_) => next_steps::of_a_new_site(&parsed, &account.name),
        None => next_steps::of_a_repair(&parsed),
    });
    Ok(lines)
}

/// Returns the text of a new configuration.
fn configuration(root: &Path) -> Result<String> {
    let root_text = root
        .to_str()
        .filter(|text| !text.contains(['"', '\'', '\\']) && !text.contains(char::is_control))
        .ok_or_else(|| {
            let shown = root.display();
            let problem = format!("root '{shown}' is not a plain absolute path");
            Error::new(Code::BadConfig, problem)
        })?;
    Ok(TEMPLATE.replace("@ROOT@", root_text))
}

/// Loads the configuration of a site whose directories are to be repaired.
fn existing(config: &Path, root: &Path) -> Result<Config> {
    let shown = config.display();
    let bad = |problem: String| Error::new(Code::BadConfig, format!("'{shown}' {problem}"));
    if config.is_symlink() {
        return Err(bad("exists, and is a symlink".to_owned()).remedy("move it away first"));
    }
    let parsed = Config::load(config)?;
    if parsed.root != root {
        let other = parsed.root.display();
        return Err(
            bad(format!("exists, and is of the root '{other}'")).remedy(format!(
                "give --root {} to repair that site, another name for a new one, or edit 'root'",
                Word::new(&parsed.root)
            )),
        );
    }
    Ok(parsed)
}

fn write_new_file(path: &Path, text: &str) -> Result<()> {
    let shown = path.display();
    let cannot = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => Error::new(Code::BadConfig, format!("'{shown}' exists")),
        _ => Error::io(format!("cannot write '{shown}'"), error),
    };
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(cannot)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .map_err(cannot)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_has_the_defaults() {
        // Without its comment sign, each key must be known and have its default.
        let uncommented: String = TEMPLATE
            .replace("@ROOT@", "/srv/x")
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_ne!(uncommented, TEMPLATE);
        let written: Config = toml::from_str(&uncommented).unwrap();
        let defaults: Config = toml::from_str("root = \"/srv/x\"").unwrap();
        let shown = |config: &Config| {
            format!("{config:?}").replace(&format!("{:?}", written.archive.required_paths), "[]")
        };
        assert_eq!(shown(&written), shown(&defaults));
    }

    #[test]
    fn root_is_no_account_of_a_site() {
        for root in ["root", "0"] {
            let error = Account::named(root).unwrap_err();
            assert!(error.problem.contains("is root"), "{}", error.problem);
            assert!(error.remedy.unwrap().contains("--owner deploy"));
        }
        let error = Account::named("no such account").unwrap_err();
        assert!(error.problem.contains("there is no account"));
    }
}
