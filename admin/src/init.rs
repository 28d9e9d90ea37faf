//! `init`: a commented configuration, and the site's folders.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::stat::{FileStat, Mode};
use nix::unistd::{Gid, Uid};

use deploy_shell::config::Config;
use deploy_shell::dir::{Dir, Name};
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::store::layout::{RELEASES, SHARED, STATE, STATE_DIRS};

/// What a new site's configuration says: every key, with its default.
const TEMPLATE: &str = include_str!("template.toml");

/// Writes the configuration at `config` and makes the folders below `root`.
///
/// The folders get the owner that `root` has, so that root can prepare a site
/// for the deploy account: `install -d -o deploy -g deploy DIR` first. What is
/// there already stays as it is, but for a configuration, which is never
/// overwritten.
///
/// Errors: [`Code::BadConfig`] when one exists or the paths are not acceptable.
pub fn init(config: &Path, root: &Path) -> Result<Vec<String>> {
    let shown = config.display();
    let bad = |problem: String| Error::new(Code::BadConfig, problem);
    // The site is for others to read, and its configuration for the account,
    // whatever mask the operator's shell has.
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    if config.symlink_metadata().is_ok() {
        return Err(bad(format!("'{shown}' exists")).remedy("edit it, or move it away first"));
    }
    // Judged whole before anything is made: the text that will be written must
    // be one that will be read.
    let not_plain = || {
        bad(format!(
            "root '{}' is not a plain absolute path",
            root.display()
        ))
    };
    let root_text = root
        .to_str()
        .filter(|text| !text.contains(['"', '\\']) && !text.contains(char::is_control))
        .ok_or_else(not_plain)?;
    let text = TEMPLATE.replace("@ROOT@", root_text);
    Config::parse(config, &text)?;
    make_folders(root)?;
    write_new(config, &text)?;
    // If it cannot be read after all (a folder that others can write), it does
    // not stay.
    if let Err(error) = Config::load(config) {
        _ = std::fs::remove_file(config);
        return Err(error);
    }
    Ok(vec![
        format!("wrote {shown}"),
        format!("made  {}/{{releases,shared,.deploy-shell}}", root.display()),
        format!("next: deploy-shell-admin authorize --config {shown} --key ci FILE.pub"),
    ])
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let shown = path.display();
    let cannot = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => Error::new(Code::BadConfig, format!("'{shown}' exists")),
        _ => Error::io(format!("cannot write '{shown}'"), error),
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
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

/// Only the root is made by its path. What is below it belongs to the deploy
/// account, who may have put links there for root to stumble over, and so is
/// made and given away by handle.
fn make_folders(root: &Path) -> Result<()> {
    let cannot = |error| Error::io(format!("cannot make '{}'", root.display()), error);
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(root)
        .map_err(cannot)?;
    let make = || {
        let root = Dir::open_root(root)?;
        let owner = root.metadata()?;
        make_folder(&root, RELEASES, 0o755, &owner)?;
        make_folder(&root, SHARED, 0o755, &owner)?;
        let state = make_folder(&root, STATE, 0o700, &owner)?;
        for name in STATE_DIRS {
            make_folder(&state, name, 0o700, &owner)?;
        }
        Ok(())
    };
    make().map_err(|errno: nix::Error| {
        let shown = root.display();
        Error::io(format!("cannot make the folders below '{shown}'"), errno)
    })
}

/// Makes a folder that is not there yet, and gives it to `owner`.
fn make_folder(parent: &Dir, name: Name<'_>, mode: u32, owner: &FileStat) -> nix::Result<Dir> {
    let made = parent.make_dir(name, mode);
    let folder = match made {
        Ok(()) | Err(nix::Error::EEXIST) => parent.open_dir(name)?,
        Err(errno) => return Err(errno),
    };
    if made.is_ok() && folder.metadata()?.st_uid != owner.st_uid {
        let (user, group) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        nix::unistd::fchown(&folder, Some(user), Some(group))?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_says_the_defaults() {
        // Uncommented, every key must be known, and say what holds without it.
        let uncommented: String = TEMPLATE
            .replace("@ROOT@", "/srv/x")
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_ne!(uncommented, TEMPLATE);
        let said: Config = toml::from_str(&uncommented).unwrap();
        let bare: Config = toml::from_str("root = \"/srv/x\"").unwrap();
        let plain = |config: &Config| {
            format!("{config:?}").replace(&format!("{:?}", said.archive.required_paths), "[]")
        };
        assert_eq!(plain(&said), plain(&bare));
    }
}
