//! The site's configuration file: every key, its default, and what makes the
//! file itself unacceptable. Whoever can write it decides what a client may do,
//! so one that others can write is refused, not read with a warning.

mod file;
mod units;

use std::num::NonZeroU8;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

pub use file::read as read_trusted;
pub use units::{ByteSize, Percent, Span};

use crate::error::{Code, Error, Result};
use crate::manifest::MAX_SIGNATURES;
use crate::names::{LinkName, ReleaseId, SiteName};

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
    /// None: releases need no signatures.
    pub signatures: Option<Signatures>,
    #[serde(default)]
    pub audit: Audit,
    #[serde(default)]
    pub sandbox: Sandbox,
}

/// `[archive]`: what a payload may be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Archive {
    pub max_compressed: ByteSize,
    pub max_unpacked: ByteSize,
    pub max_file: ByteSize,
    pub max_entries: u32,
    pub required_paths: Vec<RelativePath>,
    pub symlinks: Symlinks,
}

/// What becomes of symbolic links in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symlinks {
    /// Those that resolve inside the release are kept, others refuse the archive.
    Inside,
    /// Any refuses the archive.
    Deny,
}

/// `[pending]`: releases received and never live.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pending {
    pub max: usize,
    pub max_age: Span,
}

/// `[limits]`: what a client may use up.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub receives_per_hour: usize,
    pub idle_timeout: Span,
    pub total_timeout: Span,
    pub reserve: Percent,
}

/// `[signatures]`: who must have signed a release.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// As of ssh-keygen(1), ALLOWED SIGNERS.
    pub allowed_signers: PathBuf,
    /// How many of them, each with a key of its own.
    #[serde(default = "one")]
    pub threshold: NonZeroU8,
}

/// The release before which none may become live, if there is one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Floor(pub Option<ReleaseId>);

impl TryFrom<String> for Floor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "" => Ok(Floor(None)),
            id => ReleaseId::try_from(id)
                .map(|id| Floor(Some(id)))
                .map_err(|error| format!("'{id}' is {error}")),
        }
    }
}

/// `[audit]`: where the record goes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    pub socket: PathBuf,
    pub facility: Facility,
    pub required: bool,
}

/// `[sandbox]`: what becomes of a kernel that cannot confine us.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Whether a request is refused unless every piece is on.
    pub required: bool,
}

/// A syslog facility (RFC 5424, table 1) that a deploy record may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    Local0 = 16,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

/// A path below a release: relative, of plain components, at most 1,024 bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct RelativePath(PathBuf);

impl RelativePath {
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<String> for RelativePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = PathBuf::from(&text);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        // Components are written back because `Path` reads `a//b` as `a/b`.
        let exact = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
        if text.is_empty()
            || text.len() > 1024
            || !plain
            || !exact
            || text.contains(char::is_control)
        {
            return Err(format!("'{text}' is not a plain relative path"));
        }
        Ok(RelativePath(path))
    }
}

fn current() -> LinkName {
    LinkName::try_from("current").expect("'current' is a link's name")
}

fn five() -> usize {
    5
}

fn one() -> NonZeroU8 {
    NonZeroU8::MIN
}

fn ten_minutes() -> Span {
    Span(std::time::Duration::from_secs(600))
}

impl Default for Archive {
    fn default() -> Self {
        Archive {
            max_compressed: ByteSize(512 << 20),
            max_unpacked: ByteSize(2 << 30),
            max_file: ByteSize(1 << 30),
            max_entries: 100_000,
            required_paths: Vec::new(),
            symlinks: Symlinks::Inside,
        }
    }
}

impl Default for Pending {
    fn default() -> Self {
        Pending {
            max: 10,
            max_age: Span(std::time::Duration::from_secs(7 * 86_400)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            receives_per_hour: 60,
            idle_timeout: Span(std::time::Duration::from_secs(30)),
            total_timeout: Span(std::time::Duration::from_secs(30 * 60)),
            reserve: Percent::try_from("3%".to_owned()).expect("3% is a share"),
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Audit {
            socket: PathBuf::from("/dev/log"),
            facility: Facility::Authpriv,
            required: true,
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Sandbox { required: true }
    }
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
        if !absolute(&self.audit.socket) {
            return Err(format!(
                ": socket '{}' in [audit] is not an absolute path",
                self.audit.socket.display()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
