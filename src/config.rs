//! The site's configuration file: its keys, their defaults, and the checks of the
//! file itself. A person who can write the file decides what a client may do, so
//! a file that others can write is an error, not a warning.

mod command;
mod explain;
mod file;
mod keys;
mod rules;
mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use command::Argv;
pub use file::read_trusted;
pub use keys::{
    AclPolicy, Archive, Audit, Bridge, Check, Delta, Health, Hook, Hooks, Limits, Pending, Preview,
    RelativePath, Reuse, Sandbox, Signatures, Symlinks, Times, UserName,
};
pub use units::{Percent, parse_duration};

use crate::error::{Code, Error, Result};
use crate::names::{LinkName, ReleaseId, SiteName};
use crate::shared_paths::Shared;
use crate::shell_word::Word;

/// The directory of the file that `--site NAME` selects.
pub const DIRECTORY: &str = "/etc/deploy-shell";

/// Returns the file that `--site NAME` selects.
pub fn path_of(site: &SiteName) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{site}.toml"))
}

/// A site's checked configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The site's name: the stem of its file.
    #[serde(skip)]
    pub site: Option<SiteName>,
    /// The file that this was read from.
    #[serde(skip)]
    pub file: PathBuf,
    pub root: PathBuf,
    #[serde(default = "current")]
    pub link: LinkName,
    #[serde(default = "five", deserialize_with = "units::whole_number")]
    pub keep: usize,
    /// How long a release with a place is kept after it was last live, if set.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub keep_for: Option<Duration>,
    #[serde(default = "ten_minutes", deserialize_with = "units::duration")]
    pub min_age: Duration,
    /// How long an old part of the journal stays.
    #[serde(default = "four_hundred_days", deserialize_with = "units::duration")]
    pub keep_history: Duration,
    /// The oldest release that may become live, if the operator set one.
    #[serde(default, deserialize_with = "keys::floor")]
    pub floor: Option<ReleaseId>,
    #[serde(default)]
    pub verify_on_swap: bool,
    #[serde(default)]
    pub archive: Archive,
    #[serde(default)]
    pub pending: Pending,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub delta: Delta,
    #[serde(default)]
    pub bridge: Bridge,
    #[serde(default)]
    pub shared: Shared,
    /// None if releases need no signatures.
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
    #[serde(default)]
    pub check: Check,
}

fn current() -> LinkName {
    LinkName::try_from("current").expect("'current' is a valid symlink name")
}

fn five() -> usize {
    5
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn four_hundred_days() -> Duration {
    Duration::from_secs(400 * 24 * 3600)
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    ///
    /// [`Code::BadConfig`] with the name of the file and, for its contents, the line.
    pub fn load(path: &Path) -> Result<Config> {
        Config::parse(path, &read_trusted(path)?)
    }

    /// Checks `text` as the contents of the file at `path`.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
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
            bad(format!(" line {line}: {}", explain::explain(&error, text)))
                .remedy("see deploy-shell.toml(5)")
        })?;
        config.site = Some(site);
        config.file = path.to_owned();
        rules::check_config(&config).map_err(|conflict| bad(format!(": {conflict}")))?;
        Ok(config)
    }

    /// Returns the site's name.
    pub fn site(&self) -> &SiteName {
        self.site.as_ref().expect("parse() sets the site")
    }

    /// Returns the words by which a command of the operator names this site.
    pub fn site_option(&self) -> String {
        match self.file.parent() {
            Some(directory) if directory == Path::new(DIRECTORY) => {
                format!("--site {}", self.site())
            }
            _ => format!("--config {}", Word::new(&self.file)),
        }
    }

    /// Returns every command that the operator has configured.
    pub fn commands(&self) -> impl Iterator<Item = &Argv> {
        let hooks = self.hooks.all().map(|hook| &hook.command);
        let health = &self.health;
        hooks.chain(&health.smoke_command).chain(&health.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_paths::Existing;
    use std::os::unix::fs::PermissionsExt;

    fn load(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blog.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        Config::load(&path)
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = load("root = \"/srv/www/example.com\"").unwrap();
        assert_eq!((config.keep, config.link.as_str()), (5, "current"));
        assert_eq!(config.min_age.as_secs(), 600);
        assert_eq!(config.keep_for, None);
        assert_eq!(config.archive.max_compressed, 512 << 20);
        assert_eq!(config.limits.idle_timeout.as_secs(), 30);
        assert_eq!(
            (config.limits.uploads, config.limits.uploads_per_key),
            (4, 2)
        );
        assert_eq!(config.limits.attempts_per_hour, 120);
        assert_eq!(config.limits.swaps_per_minute, 30);
        assert_eq!((config.pending.max, config.pending.max_per_key), (10, 5));
        assert_eq!(config.audit.facility as u8 >> 3, 10);
        assert!(config.audit.required);
        assert_eq!(config.site().as_str(), "blog");
    }

    #[test]
    fn signatures_and_a_floor_are_optional() {
        let bare = load("root = \"/srv/x\"").unwrap();
        assert!(bare.signatures.is_none() && bare.floor.is_none() && !bare.verify_on_swap);
        let text = "root = \"/srv/x\"\nfloor = \"r1\"\n[signatures]\nallowed_signers = \"/etc/s\"";
        let config = load(text).unwrap();
        assert_eq!(config.floor.unwrap().as_str(), "r1");
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
        assert_eq!(bare.health.interval.as_secs(), 5);
        assert_eq!(bare.preview.link.as_str(), "preview");
        let hook = |stage: &str, rest: &str| {
            load(&format!("root = \"/srv/x\"\n[[hooks.{stage}]]\n{rest}"))
        };
        let config = hook(
            "after_swap",
            "command = [\"/bin/true\", \"a b\"]\ntimeout = \"5m\"",
        );
        let config = config.unwrap();
        assert_eq!(config.hooks.after_swap[0].timeout.as_secs(), 300);
        assert_eq!(config.hooks.after_swap[0].command.arguments(), ["a b"]);
        let no_timeout = hook("before_rollback", "command = [\"/bin/true\"]").unwrap();
        assert_eq!(no_timeout.hooks.before_rollback[0].timeout.as_secs(), 60);
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
            &format!("{url}\nhost = \"a b\""),
            &format!("{url}\nheaders = [\"Content-Length: 5\"]"),
            &format!("{url}\nstatuses = []"),
            "host = \"www.example.com\"",
            "command = [\"/bin/true\"]\nheaders = [\"X-Probe: 1\"]",
            "smoke_command = [\"/bin/true\"]\nstatuses = [204]",
            "smoke_url = \"http://a/\"\nsmoke_command = [\"/bin/true\"]",
            "smoke_command = [\"/srv/x/shared/run\"]",
            "smoke_command = [\"true\"]",
        ] {
            assert!(health(bad).is_err(), "{bad}");
        }
        let more = "host = \"www.example.com\"\nheaders = [\"X-Probe: 1\"]\n\
                    statuses = [200, 204, 301]\nsmoke_command = [\"/bin/true\"]";
        let full = health(&format!("{url}\n{more}")).unwrap().health;
        assert_eq!(full.host.unwrap().as_str(), "www.example.com");
        assert!(full.headers.contains("x-probe") && full.statuses.accept(301));
        assert!(bare.health.statuses.accept(200) && !bare.health.statuses.accept(204));
        // A header can be a secret, and this message goes to the client.
        let error = health(&format!("{url}\nheaders = [\"X-Token hunter2\"]")).unwrap_err();
        assert!(
            error.problem.contains("a header is written"),
            "{}",
            error.problem
        );
        assert!(!error.problem.contains("hunter2"), "{}", error.problem);
        let preview = "root = \"/srv/x\"\n[preview]\nlink = \"current\"";
        assert!(load(preview).is_err());
    }

    #[test]
    fn reuse_by_links_excludes_commands() {
        let load = |rest: &str| load(&format!("root = \"/srv/x\"\n{rest}"));
        assert_eq!(load("").unwrap().delta.reuse, Reuse::Clone);
        let link = "[delta]\nreuse = \"link\"\n";
        assert_eq!(load(link).unwrap().delta.reuse, Reuse::Link);
        let command = "command = [\"/bin/true\"]";
        for with_command in [
            format!("[[hooks.before_swap]]\n{command}"),
            format!("[[hooks.after_swap]]\n{command}"),
            format!("[[hooks.before_rollback]]\n{command}"),
            format!("[health]\n{command}"),
            format!("[health]\nsmoke_{command}"),
        ] {
            assert!(load(&with_command).is_ok(), "{with_command}");
            let error = load(&format!("{link}{with_command}")).unwrap_err();
            assert_eq!(error.code, Code::BadConfig);
            let words = "reuse = \"link\" in [delta] excludes hooks";
            assert!(error.problem.contains(words), "{}", error.problem);
            assert!(load(&format!("{}{with_command}", link.replace("link", "clone"))).is_ok());
        }
        // A request by HTTP changes no file.
        assert!(load(&format!("{link}[health]\nurl = \"http://127.0.0.1:1/\"")).is_ok());
        for bad in ["reuse = \"copy\"", "reuse = true", "links = true"] {
            assert!(load(&format!("[delta]\n{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_bridge_is_optional_and_does_not_share_its_name() {
        let bare = load("root = \"/srv/x\"\nlink = \"bridge\"").unwrap();
        assert!(!bare.bridge.is_configured());
        assert_eq!(bare.bridge.max_age.as_secs(), 7 * 86_400);
        assert_eq!(bare.bridge.max_releases, 10);
        let table = "[bridge]\npaths = [\"assets\", \"build/js\"]";
        let bridge = load(&format!("root = \"/srv/x\"\n{table}")).unwrap().bridge;
        assert!(bridge.is_configured() && bridge.paths.len() == 2);
        let smoke = "[health]\nsmoke_url = \"http://a/\"\n[preview]\nlink = \"bridge\"";
        for bad in [
            format!("link = \"bridge\"\n{table}"),
            format!("{smoke}\n{table}"),
            table.replace("assets", "../assets"),
            table.replace("assets", "."),
        ] {
            assert!(load(&format!("root = \"/srv/x\"\n{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn shared_paths_are_optional_and_refuse_existing_files() {
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
            ("\"a\", \"a/b\"", ": [shared] has 'a/b' below 'a'"),
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
            (
                "root = \"/srv/x\"\nkeep = \"5\"",
                2,
                "'keep' takes a whole number, such as 5",
            ),
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
            (
                "root = \"/srv/x\"\nmin_age = 600",
                2,
                "'min_age' takes a time such as",
            ),
            (
                "root = \"/srv/x\"\n[audit]\nrequired =  \"yes\"",
                3,
                "'required' takes true or false",
            ),
            (
                "root = \"/srv/x\"\n[shared]\nlinks = [\n  1]",
                4,
                "expected a string, such as",
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
