//! The site's configuration file: every key, its default, and what makes the
//! file itself unacceptable. Whoever can write it decides what a client may do,
//! so one that others can write is refused, not read with a warning.

mod units;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use serde::Deserialize;

pub use units::{ByteSize, Percent, Span};

use crate::error::{Code, Error, Result, describe};
use crate::names::{LinkName, SiteName};

/// Where `--site NAME` is looked up.
pub const FOLDER: &str = "/etc/deploy-shell";

/// The largest configuration file, in bytes.
const MAX_FILE: u64 = 256 * 1024;

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
    pub archive: Archive,
    #[serde(default)]
    pub pending: Pending,
    #[serde(default)]
    pub limits: Limits,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
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
        let shown = path.display();
        let bad = |problem: String| Error::new(Code::BadConfig, format!("'{shown}' {problem}"));
        let site = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .filter(|_| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .and_then(|stem| SiteName::try_from(stem).ok())
            .ok_or_else(|| {
                bad("is not named after a site".to_owned())
                    .remedy("name it SITE.toml, SITE of letters, digits, '.', '_' and '-'")
            })?;
        let text = read(path)?;
        let mut config: Config = toml::from_str(&text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let problem = error.message().lines().next().unwrap_or("is not TOML");
            bad(format!("line {line}: {}", problem.replace('`', "'")))
                .remedy("see the README for the keys and what they take")
        })?;
        config.site = Some(site);
        config.check().map_err(bad)?;
        Ok(config)
    }

    /// The site's name.
    pub fn site(&self) -> &SiteName {
        self.site.as_ref().expect("load() sets the site")
    }

    /// What no type of a single key can say.
    fn check(&self) -> std::result::Result<(), String> {
        let absolute = |path: &Path| {
            path.is_absolute() && path.components().all(|part| part != Component::ParentDir)
        };
        if !absolute(&self.root) || self.root.parent().is_none() {
            return Err(format!(
                "root '{}' is not an absolute path below '/'",
                self.root.display()
            ));
        }
        if !absolute(&self.audit.socket) {
            return Err(format!(
                "socket '{}' is not an absolute path",
                self.audit.socket.display()
            ));
        }
        let mut seen = BTreeSet::new();
        match self
            .archive
            .required_paths
            .iter()
            .find(|path| !seen.insert(*path))
        {
            Some(twice) => Err(format!(
                "required_paths names '{}' twice",
                twice.as_path().display()
            )),
            None => Ok(()),
        }
    }
}

/// The file's text, if nobody but root and ourselves could have written it.
///
/// What is checked is the open file, not its name, so it cannot be exchanged
/// in between. Its folder counts as well: who can write there can put another
/// file in its place (a sticky folder such as /tmp protects what is not theirs).
fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let bad = |problem: String| Error::new(Code::BadConfig, format!("'{shown}' {problem}"));
    let cannot = |error: std::io::Error| bad(format!("cannot be read: {}", describe(&error)));
    if !path.is_absolute() {
        return Err(bad("is not an absolute path".to_owned()));
    }
    // O_NONBLOCK: a fifo in its place must not make us wait.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(bad("is not a regular file".to_owned()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(bad("can be written by its group or by others".to_owned())
            .remedy(format!("chmod go-w '{shown}'")));
    }
    if !trusted(meta.uid()) {
        return Err(bad(format!(
            "belongs to user {}, neither root nor this account",
            meta.uid()
        ))
        .remedy(format!("chown root '{shown}'")));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let meta = folder.metadata().map_err(cannot)?;
    if !trusted(meta.uid()) || meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 {
        return Err(
            bad("stands in a folder that others can write".to_owned()).remedy(format!(
                "chown root '{0}' && chmod go-w '{0}'",
                folder.display()
            )),
        );
    }
    let mut text = String::new();
    let read = file
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    if read as u64 > MAX_FILE {
        return Err(bad(format!("is larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

fn trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
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

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blog.toml");
        std::fs::write(&path, "root = \"/srv/x\"").unwrap();
        for mode in [0o664, 0o646] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Config::load(&path).unwrap_err();
            assert!(
                error.problem.contains("can be written"),
                "{}",
                error.problem
            );
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Config::load(&path).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = Config::load(&path).unwrap_err();
        assert!(error.problem.contains("folder"), "{}", error.problem);
    }
}
