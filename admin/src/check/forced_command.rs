//! What a key's forced command runs.
//!
//! sshd hands the command to the account's login shell. Only a command that
//! every shell reads alike, word by word, is understood here; it is then read
//! by the very parser that reads it when the key is used.

use std::path::{Path, PathBuf};

use super::facts::{End, Runs, Serve, Site, named_ours};
use super::paths::walk;
use deploy_shell::config::Config;
use deploy_shell::names::KeyLabel;
use deploy_shell::policy::Grants;

/// A `serve` command line: which configuration, which label, which verbs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    pub config: PathBuf,
    pub key: Option<KeyLabel>,
    pub allow: Grants,
}

/// Reads the words of a `serve` command line, as the program does that is run
/// by it; none if it would not take them.
pub type Read = fn(&[String]) -> Option<Forced>;

/// What `command` runs; `site` tells which site a configuration is of.
pub fn runs(command: Option<&str>, read: Read, site: impl Fn(&Path) -> Site) -> Runs {
    let Some(command) = command else {
        return Runs::Anything;
    };
    let words: Vec<String> = command
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    let Some(program) = words.first() else {
        return Runs::Other;
    };
    // A program of another name may be anything, whatever its arguments.
    if !named_ours(Path::new(program)) {
        return Runs::Other;
    }
    if !command.bytes().all(plain) {
        return Runs::Obscure;
    }
    let serves = words.get(1).is_some_and(|verb| verb == "serve");
    match serves.then(|| read(&words)).flatten() {
        Some(forced) => Runs::Serve(Serve {
            program: PathBuf::from(program),
            site: site(&forced.config),
            key: forced.key,
            allow: forced.allow,
        }),
        None => Runs::NotServe,
    }
}

/// A character that no shell gives a meaning to, or a blank between words.
fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+@,= ".contains(&byte)
}

/// Which site `config` is of, when `this` is being checked.
pub fn site(config: &Path, this: &Path) -> Site {
    let same = |left: &Path, right: &Path| {
        left == right
            || matches!((left.canonicalize(), right.canonicalize()), (Ok(left), Ok(right)) if left == right)
    };
    if same(config, this) {
        return Site::This;
    }
    match Config::load(config) {
        Ok(other) => Site::Other(other.site().clone()),
        Err(_) if walk(config).end == End::Missing => Site::None(config.to_owned()),
        Err(_) => Site::Unread(config.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[String]) -> Option<Forced> {
        (words.len() == 4).then(|| Forced {
            config: PathBuf::from(&words[3]),
            key: None,
            allow: Grants::ALL,
        })
    }

    #[test]
    fn only_a_plain_serve_command_line_is_one() {
        let look = |command: &str| runs(Some(command), read, |_| Site::This);
        let good = "/usr/local/bin/deploy-shell serve --config /etc/deploy-shell/blog.toml";
        assert!(matches!(look(good), Runs::Serve(_)));
        assert_eq!(look(&format!("{good} more")), Runs::NotServe);
        assert_eq!(look("/usr/local/bin/deploy-shell"), Runs::NotServe);
        assert_eq!(look("deploy-shell init --config x"), Runs::NotServe);
        for other in [
            "",
            " ",
            "/bin/sh",
            "sh -c 'deploy-shell serve'",
            "env deploy-shell serve",
        ] {
            assert_eq!(look(other), Runs::Other, "{other}");
        }
        for bad in [
            ";id", "&&id", " $X", " `id`", "\nid", " >x", " 'x", " *", " ~",
        ] {
            assert_eq!(look(&format!("{good}{bad}")), Runs::Obscure, "{bad}");
        }
        assert_eq!(runs(None, read, |_| Site::This), Runs::Anything);
    }

    #[test]
    fn a_site_is_known_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let this = folder.path().join("blog.toml");
        let shop = folder.path().join("shop.toml");
        for path in [&this, &shop] {
            std::fs::write(path, "root = \"/srv/x\"").unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(path, mode).unwrap();
        }
        let link = folder.path().join("link.toml");
        std::os::unix::fs::symlink(&this, &link).unwrap();
        assert_eq!(site(&this, &this), Site::This);
        assert_eq!(site(&link, &this), Site::This);
        assert_eq!(site(&shop, &this), Site::Other("shop".parse().unwrap()));
        let none = folder.path().join("none.toml");
        assert_eq!(site(&none, &this), Site::None(none));
        let odd = folder.path().join("odd.toml");
        std::fs::write(&odd, "odd").unwrap();
        assert_eq!(site(&odd, &this), Site::Unread(odd));
    }
}
