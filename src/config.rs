//! The site's configuration file: every key, its default, and what makes the
//! file itself unacceptable. Whoever can write it decides what a client may do,
//! so one that others can write is refused, not read with a warning.

mod command;
mod file;
mod keys;
mod units;

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

pub use command::{Argv, HttpUrl};
pub use file::read as read_trusted;
pub use keys::{
    Archive, Audit, Facility, Floor, Health, Hook, Hooks, Limits, Pending, Preview, RelativePath,
    Sandbox, Signatures, Symlinks,
};
pub use units::{ByteSize, Percent, Span};

use crate::error::{Code, Error, Result};
use crate::manifest::MAX_SIGNATURES;
use crate::names::{LinkName, SiteName};
use crate::shared_paths::Shared;

/// Where `--site NAME` is looked up.
pub const FOLDER: &str = "/etc/deploy-shell";

/// A site's file, checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The site's name: the stem of its file.
    #[serde(skip)]
    pub site: Option<SiteName>,
    pub root: PathBuf,
    #[serde(default = "current")]
    pub link: LinkName,
    #[serde(default = "five")]
    pub keep: usize,
    #[serde(default = "ten_minutes")]
    pub min_age: Span,
    #[serde(default)]
    pub floor: Floor,
    #[serde(default)]
    pub verify_on_swap: bool,
    #[serde(default)]
    pub archive: Archive,
    #[serde(default)]
    pub pending: Pending,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub shared: Shared,
    /// None: releases need no signatures.
    pub signatures: Option<Signatures>,
    #[serde(default)]
    pub preview: Preview,
    #[serde(default)]
    pub hooks: Hooks,
    #[serde(default)]
    pub health: Health,
    #[serde(default)]
    pub audit: Audit,
    #[serde(default)]
    pub sandbox: Sandbox,
}

fn current() -> LinkName {
    LinkName::try_from("current").expect("'current' is a link's name")
}

fn five() -> usize {
    5
}

fn ten_minutes() -> Span {
    Span(std::time::Duration::from_secs(600))
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// Errors: [`Code::BadConfig`], naming the file and, for its contents, the line.
    pub fn load(path: &Path) -> Result<Config> {
        Config::parse(path, &file::read(path)?)
    }

    /// Checks `text` as the contents of the file at `path`.
    ///
    /// Errors: as [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Config> {
        let shown = path.display();
        let bad = |problem: String| Error::new(Code::BadConfig, format!("'{shown}'{problem}"));
        let site = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .filter(|_| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .and_then(|stem| SiteName::try_from(stem).ok())
            .ok_or_else(|| {
                bad(" is not named after a site".to_owned())
                    .remedy("name it SITE.toml, SITE of letters, digits, '.', '_' and '-'")
            })?;
        let mut config: Config = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let problem = error.message().lines().next().unwrap_or("is not TOML");
            bad(format!(" line {line}: {}", problem.replace('`', "'")))
                .remedy("see the README for the keys and what they take")
        })?;
        config.site = Some(site);
        config.check().map_err(bad)?;
        Ok(config)
    }

    /// The site's name.
    pub fn site(&self) -> &SiteName {
        self.site.as_ref().expect("parse() sets the site")
    }

    /// Everything of the operator's that is run around a swap.
    pub fn commands(&self) -> impl Iterator<Item = &Argv> {
        let hooks = self.hooks.all().map(|hook| &hook.command);
        hooks.chain(&self.health.command)
    }

    /// What no type of a single key can say.
    fn check(&self) -> std::result::Result<(), String> {
        let absolute = |path: &Path| {
            path.is_absolute() && path.components().all(|part| part != Component::ParentDir)
        };
        if !absolute(&self.root) || self.root.parent().is_none() {
            return Err(format!(
                ": root '{}' is not an absolute path below '/'",
                self.root.display()
            ));
        }
        (self.shared.check()).map_err(|why| format!(": [shared] {why}"))?;
        if let Some(signatures) = &self.signatures {
            let path = &signatures.allowed_signers;
            if !absolute(path) {
                return Err(format!(
                    ": allowed_signers '{}' in [signatures] is not an absolute path",
                    path.display()
                ));
            }
            // More than a request can hold would refuse every release.
            if usize::from(signatures.threshold.get()) > MAX_SIGNATURES {
                return Err(format!(
                    ": threshold in [signatures] is over {MAX_SIGNATURES}"
                ));
            }
        }
        self.check_gate()?;
        if !absolute(&self.audit.socket) {
            return Err(format!(
                ": socket '{}' in [audit] is not an absolute path",
                self.audit.socket.display()
            ));
        }
        Ok(())
    }

    /// Hooks and health.
    fn check_gate(&self) -> std::result::Result<(), String> {
        if self.preview.link == self.link {
            return Err(format!(
                ": link '{}' in [preview] is the live one",
                self.link
            ));
        }
        for command in self.commands() {
            // What stands below the root, a client has sent.
            let program = command.program();
            if program.starts_with(&self.root) {
                return Err(format!(
                    ": the program '{}' stands in the site's own root",
                    program.display()
                ));
            }
        }
        let health = &self.health;
        if health.url.is_some() && health.command.is_some() {
            return Err(": [health] has a url and a command, and can have one".to_owned());
        }
        if let Some(contains) = &health.contains {
            if health.url.is_none() {
                return Err(": contains in [health] has no url to look at".to_owned());
            }
            if contains.is_empty() || contains.len() > 256 || contains.contains(char::is_control) {
                return Err(": contains in [health] is empty, too long or not text".to_owned());
            }
        }
        let spans = self.hooks.all().map(|hook| hook.timeout);
        if spans
            .chain([health.interval, health.timeout])
            .any(|span| span.0.is_zero())
        {
            return Err(": a time of 0s in [hooks] or [health] leaves nothing to wait".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_paths::Existing;
    use std::os::unix::fs::PermissionsExt;

    fn load(text: &str) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blog.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        Config::load(&path)
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = load("root = \"/srv/www/example.com\"").unwrap();
        assert_eq!((config.keep, config.link.as_str()), (5, "current"));
        assert_eq!(config.min_age.0.as_secs(), 600);
        assert_eq!(config.archive.max_compressed, ByteSize(512 << 20));
        assert_eq!(config.limits.idle_timeout.0.as_secs(), 30);
        assert_eq!(config.audit.facility as u8, 10);
        assert!(config.audit.required);
        assert_eq!(config.site().as_str(), "blog");
    }

    #[test]
    fn signatures_and_a_floor_are_optional() {
        let bare = load("root = \"/srv/x\"").unwrap();
        assert!(bare.signatures.is_none() && bare.floor.0.is_none() && !bare.verify_on_swap);
        let text = "root = \"/srv/x\"\nfloor = \"r1\"\n[signatures]\nallowed_signers = \"/etc/s\"";
        let config = load(text).unwrap();
        assert_eq!(config.floor.0.unwrap().as_str(), "r1");
        assert_eq!(config.signatures.unwrap().threshold.get(), 1);
        for bad in ["\nthreshold = 0", "\nthreshold = 17", "\nsigners = 1"] {
            assert!(load(&format!("{text}{bad}")).is_err(), "{bad}");
        }
        for bad in [text.replace("/etc/s", "etc/s"), text.replace("r1", "../r1")] {
            assert!(load(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hooks_and_health_are_checked() {
        let bare = load("root = \"/srv/x\"").unwrap();
        assert!(bare.hooks.after_swap.is_empty() && bare.health.url.is_none());
        assert_eq!(bare.health.interval.0.as_secs(), 5);
        assert_eq!(bare.preview.link.as_str(), "preview");
        let hook = |stage: &str, rest: &str| {
            load(&format!("root = \"/srv/x\"\n[[hooks.{stage}]]\n{rest}"))
        };
        let config = hook(
            "after_swap",
            "command = [\"/bin/true\", \"a b\"]\ntimeout = \"5m\"",
        );
        let config = config.unwrap();
        assert_eq!(config.hooks.after_swap[0].timeout.0.as_secs(), 300);
        assert_eq!(config.hooks.after_swap[0].command.arguments(), ["a b"]);
        let no_timeout = hook("before_rollback", "command = [\"/bin/true\"]").unwrap();
        assert_eq!(no_timeout.hooks.before_rollback[0].timeout.0.as_secs(), 60);
        for (stage, rest) in [
            ("after_swap", "command = []"),
            ("after_swap", "command = [\"true\"]"),
            ("after_swap", "command = \"/bin/true\""),
            ("after_swap", "command = [\"/srv/x/current/run\"]"),
            ("after_swap", "command = [\"/bin/true\"]\ntimeout = \"0s\""),
            ("after_swap", "command = [\"/bin/true\"]\nshell = true"),
            ("after_everything", "command = [\"/bin/true\"]"),
        ] {
            assert!(hook(stage, rest).is_err(), "{stage} {rest}");
        }
        let health = |rest: &str| load(&format!("root = \"/srv/x\"\n[health]\n{rest}"));
        let url = "url = \"http://127.0.0.1:1/\"";
        health(&format!("{url}\ncontains = \"{{release}}\"")).unwrap();
        for bad in [
            &format!("{url}\ncommand = [\"/bin/true\"]"),
            &format!("{url}\ncontains = \"\""),
            &format!("{url}\ninterval = \"0s\""),
            "contains = \"x\"",
            "command = [\"/srv/x/shared/run\"]",
            "url = \"https://127.0.0.1/\"",
        ] {
            assert!(health(bad).is_err(), "{bad}");
        }
        let preview = "root = \"/srv/x\"\n[preview]\nlink = \"current\"";
        assert!(load(preview).is_err());
    }

    #[test]
    fn shared_paths_are_optional_and_refuse_what_is_there() {
        let bare = load("root = \"/srv/x\"").unwrap().shared;
        assert!(bare.links.is_empty() && bare.existing == Existing::Refuse);
        let links = |links: &str| {
            let text = "root = \"/srv/x\"\n[shared]\nexisting = \"replace\"\nlinks = ";
            load(&format!("{text}[{links}]"))
        };
        let shared = links("\".env\", \"public/uploads\"").unwrap().shared;
        assert_eq!(
            (shared.links.len(), shared.existing),
            (2, Existing::Replace)
        );
        for (bad, word) in [
            ("\"a\", \"a/b\"", ": [shared] has 'a/b' beneath 'a'"),
            ("\"a/../b\"", "'a/../b' is not a plain relative path"),
        ] {
            let error = links(bad).unwrap_err();
            assert!(error.problem.contains(word), "{}", error.problem);
        }
    }

    #[test]
    fn wrong_contents_name_the_line() {
        for (text, line, word) in [
            ("root = \"/srv/x\"\ncolour = 1", 2, "colour"),
            ("root = \"/srv/x\"\nkeep = \"five\"", 2, "invalid type"),
            (
                "root = \"/srv/x\"\n[archive]\n\nmax_file = \"1GB\"",
                4,
                "1GB",
            ),
            (
                "root = \"/srv/x\"\n[archive]\nrequired_paths = [\"../x\"]",
                3,
                "../x",
            ),
            ("root = \"/srv/x\"\nlink = \"releases\"", 2, "link"),
            ("root = ", 1, ""),
        ] {
            let error = load(text).unwrap_err();
            assert_eq!(error.code, Code::BadConfig);
            assert!(
                error.problem.contains(&format!("line {line}: ")),
                "{}",
                error.problem
            );
            assert!(error.problem.contains(word), "{}", error.problem);
        }
        for text in ["root = \"srv/x\"", "root = \"/\"", "root = \"/srv/../etc\""] {
            assert!(load(text).unwrap_err().problem.contains("root"), "{text}");
        }
    }
}
