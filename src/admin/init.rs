//! `init`: a commented configuration, and the site's folders.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::config::Config;
use crate::error::{Code, Error, Result, describe};
use crate::store::dir::Name;
use crate::store::{RELEASES, SHARED, STATE, STATE_FOLDERS};

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
    let root_text = root
        .to_str()
        .filter(|text| {
            text.starts_with('/') && !text.contains(['"', '\\']) && !text.contains(char::is_control)
        })
        .ok_or_else(|| {
            Error::new(
                Code::BadConfig,
                format!("root '{}' is not a plain absolute path", root.display()),
            )
        })?;
    let text = TEMPLATE.replace("@ROOT@", root_text);
    if config.symlink_metadata().is_ok() {
        return Err(Error::new(Code::BadConfig, format!("'{shown}' exists"))
            .remedy("edit it, or move it away first"));
    }
    let lines = vec![
        format!("wrote {shown}"),
        format!("made  {}/{{releases,shared,.deploy-shell}}", root.display()),
        format!("next: deploy-shell authorize --config {shown} --key ci FILE.pub"),
    ];
    make_folders(root)?;
    write_new(config, &text)?;
    // What was written must be what is read; if it is not (a name that is no
    // site's, a folder that others can write), it does not stay.
    if let Err(error) = Config::load(config) {
        _ = std::fs::remove_file(config);
        return Err(error);
    }
    Ok(lines)
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

fn make_folders(root: &Path) -> Result<()> {
    let make = |path: &Path, mode: u32| match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(cannot(path, error)),
        Ok(()) => Ok(true),
    };
    if !root.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(root)
            .map_err(|error| cannot(root, error))?;
    }
    let owner = root.metadata().map_err(|error| cannot(root, error))?;
    let path = |parent: &Path, name: Name<'_>| parent.join(name.as_os_str());
    let state = path(root, STATE.into());
    let mut folders = vec![
        (path(root, RELEASES.into()), 0o755),
        (path(root, SHARED.into()), 0o755),
        (state.clone(), 0o700),
    ];
    folders.extend(STATE_FOLDERS.map(|name| (path(&state, name.into()), 0o700)));
    for (folder, mode) in folders {
        if make(&folder, mode)? && owner.uid() != nix::unistd::geteuid().as_raw() {
            std::os::unix::fs::lchown(&folder, Some(owner.uid()), Some(owner.gid()))
                .map_err(|error| cannot(&folder, error))?;
        }
    }
    Ok(())
}

fn cannot(path: &Path, error: std::io::Error) -> Error {
    Error::new(
        Code::IoError,
        format!("'{}' cannot be made: {}", path.display(), describe(&error)),
    )
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
