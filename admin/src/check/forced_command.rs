//! Classifies what a key's forced command runs.
//!
//! sshd hands the command to the account's login shell. `check` understands only
//! commands that every shell splits into the same words. The parser that reads
//! such a command line when the key is used then reads it here as well.

use std::path::{Path, PathBuf};

use super::facts::{ForcedCommand, Resolution, ServeCommand, ServedSite, is_deploy_shell};
use super::paths::resolve_path;
use deploy_shell::cli::parse_serve;
use deploy_shell::config::Config;

/// Classifies `command`; `site_of` returns the site that a configuration is for.
pub fn classify_command(
    command: Option<&str>,
    site_of: impl Fn(&Path) -> ServedSite,
) -> ForcedCommand {
    let Some(command) = command else {
        return ForcedCommand::None;
    };
    let words: Vec<String> = command
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    let Some(program) = words.first().map(PathBuf::from) else {
        return ForcedCommand::OtherProgram;
    };
    // The arguments say nothing about a program of another name.
    if !is_deploy_shell(&program) {
        return ForcedCommand::OtherProgram;
    }
    if !command.bytes().all(is_plain) {
        return ForcedCommand::NotPlain;
    }
    match parse_serve(&words) {
        Some(options) => ForcedCommand::Serve(ServeCommand {
            program,
            site: site_of(&options.config),
            label: options.key,
            allow: options.allow,
        }),
        None => ForcedCommand::NotServe,
    }
}

/// Returns whether no shell gives a meaning to `byte`, other than the space that
/// separates words.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+@,= ".contains(&byte)
}

/// Returns the site that `config` is for, where `this` is the one being checked.
pub fn site_of(config: &Path, this: &Path) -> ServedSite {
    let same = || {
        config == this
            || matches!((config.canonicalize(), this.canonicalize()), (Ok(left), Ok(right)) if left == right)
    };
    if same() {
        return ServedSite::This;
    }
    match Config::load(config) {
        Ok(other) => ServedSite::Other(other.site().clone()),
        Err(_) if resolve_path(config).resolution == Resolution::Missing => {
            ServedSite::Missing(config.to_owned())
        }
        Err(_) => ServedSite::Unreadable(config.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_serve_command_line_serves() {
        let classify = |command: &str| classify_command(Some(command), |_| ServedSite::This);
        let good = "/usr/local/bin/deploy-shell serve --config /etc/deploy-shell/blog.toml";
        assert!(matches!(classify(good), ForcedCommand::Serve(_)));
        for not_serve in [
            &format!("{good} more"),
            "/usr/local/bin/deploy-shell",
            "deploy-shell init --config x",
        ] {
            assert_eq!(classify(not_serve), ForcedCommand::NotServe, "{not_serve}");
        }
        for other in [
            "",
            " ",
            "/bin/sh",
            "sh -c 'deploy-shell serve'",
            "env deploy-shell serve",
        ] {
            assert_eq!(classify(other), ForcedCommand::OtherProgram, "{other}");
        }
        for bad in [
            ";id", "&&id", " $X", " `id`", "\nid", " >x", " 'x", " *", " ~",
        ] {
            let command = format!("{good}{bad}");
            assert_eq!(classify(&command), ForcedCommand::NotPlain, "{bad}");
        }
        let none = classify_command(None, |_| ServedSite::This);
        assert_eq!(none, ForcedCommand::None);
    }

    #[test]
    fn a_site_is_identified_by_its_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (this, shop) = (path("blog.toml"), path("shop.toml"));
        for path in [&this, &shop] {
            std::fs::write(path, "root = \"/srv/x\"").unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(path, mode).unwrap();
        }
        let symlink = path("symlink.toml");
        std::os::unix::fs::symlink(&this, &symlink).unwrap();
        assert_eq!(site_of(&this, &this), ServedSite::This);
        assert_eq!(site_of(&symlink, &this), ServedSite::This);
        let other = ServedSite::Other("shop".parse().unwrap());
        assert_eq!(site_of(&shop, &this), other);
        let none = path("none.toml");
        assert_eq!(site_of(&none, &this), ServedSite::Missing(none));
        let odd = path("odd.toml");
        std::fs::write(&odd, "odd").unwrap();
        assert_eq!(site_of(&odd, &this), ServedSite::Unreadable(odd));
    }
}
