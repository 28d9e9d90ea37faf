//! `init`: writes a commented configuration, and creates the site's directories.

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

/// The configuration of a new site: every key, with its default.
const TEMPLATE: &str = include_str!("template.toml");

/// Writes the configuration at `config`, and creates the directories below `root`.
///
/// The directories get the owner of `root`, so that root can prepare a site for the
/// deploy account: `install -d -o deploy -g deploy DIR` first. Directories that exist
/// stay as they are. A configuration that exists is an error.
///
/// # Errors
///
/// [`Code::BadConfig`] when the configuration exists, or a path is not acceptable.
pub fn init(config: &Path, root: &Path) -> Result<Vec<String>> {
    let shown = config.display();
    let bad = |problem: String| Error::new(Code::BadConfig, problem);
    // Other users must read the site, and the account its configuration, whatever
    // umask the operator's shell has.
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    if config.symlink_metadata().is_ok() {
        return Err(bad(format!("'{shown}' exists")).remedy("edit it, or move it away first"));
    }
    // Parsed before anything is created, so that the written text will load.
    let not_plain = || {
        let shown = root.display();
        bad(format!("root '{shown}' is not a plain absolute path"))
    };
    let root_text = root
        .to_str()
        .filter(|text| !text.contains(['"', '\\']) && !text.contains(char::is_control))
        .ok_or_else(not_plain)?;
    let text = TEMPLATE.replace("@ROOT@", root_text);
    Config::parse(config, &text)?;
    create_directories(root)?;
    write_new_file(config, &text)?;
    // It may not load from there, such as from a directory that other users can
    // write. Then it is removed again.
    if let Err(error) = Config::load(config) {
        _ = std::fs::remove_file(config);
        return Err(error);
    }
    Ok(vec![
        format!("wrote {shown}"),
        format!("created {}/{{{RELEASES},{SHARED},{STATE}}}", root.display()),
        format!("next: deploy-shell-admin authorize --config {shown} --key ci FILE.pub"),
        format!("then: deploy-shell-admin check --config {shown}"),
    ])
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

/// Creates the root by its path, and all directories below it by handle. What is
/// below the root belongs to the deploy account, which may have put symlinks there
/// that would lead root elsewhere.
fn create_directories(root: &Path) -> Result<()> {
    let cannot = |error| Error::io(format!("cannot create '{}'", root.display()), error);
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(root)
        .map_err(cannot)?;
    let create = || {
        let root = Dir::open_root(root)?;
        let owner = root.metadata()?;
        create_directory(&root, RELEASES, 0o755, &owner)?;
        create_directory(&root, SHARED, 0o755, &owner)?;
        let state = create_directory(&root, STATE, 0o700, &owner)?;
        for name in STATE_DIRS {
            create_directory(&state, name, 0o700, &owner)?;
        }
        Ok(())
    };
    create().map_err(|errno: nix::Error| {
        let shown = root.display();
        Error::io(
            format!("cannot create the directories below '{shown}'"),
            errno,
        )
    })
}

/// Creates a directory with the owner `owner`. A directory that exists keeps its own.
fn create_directory(parent: &Dir, name: Name<'_>, mode: u32, owner: &FileStat) -> nix::Result<Dir> {
    let created = parent.make_dir(name, mode);
    let directory = match created {
        Ok(()) | Err(nix::Error::EEXIST) => parent.open_dir(name)?,
        Err(errno) => return Err(errno),
    };
    if created.is_ok() && directory.metadata()?.st_uid != owner.st_uid {
        let (user, group) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        nix::unistd::fchown(&directory, Some(user), Some(group))?;
    }
    Ok(directory)
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
}
