//! The tables of a site's file: their keys, and the defaults.

use std::num::NonZeroU8;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use ::syslog::Facility;
use serde::Deserialize;

use super::command::{Argv, HttpUrl};
use super::units::{self, Percent};
use crate::names::{LinkName, ReleaseId};

/// `[archive]`: what a payload may be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Archive {
    #[serde(deserialize_with = "units::size")]
    pub max_compressed: u64,
    #[serde(deserialize_with = "units::size")]
    pub max_unpacked: u64,
    #[serde(deserialize_with = "units::size")]
    pub max_file: u64,
    #[serde(deserialize_with = "units::whole_number")]
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
    #[serde(deserialize_with = "units::whole_number")]
    pub max: usize,
    #[serde(deserialize_with = "units::duration")]
    pub max_age: Duration,
}

/// `[limits]`: what a client may use up.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    #[serde(deserialize_with = "units::whole_number")]
    pub receives_per_hour: usize,
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub total_timeout: Duration,
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

/// `[preview]`: the link that leads to a candidate while its smoke test runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preview {
    pub link: LinkName,
}

/// `[[hooks.…]]`: the operator's commands, each list in the order it is run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    pub before_swap: Vec<Hook>,
    /// Also after a rollback, and after the way back from a failed gate.
    pub after_swap: Vec<Hook>,
    pub before_rollback: Vec<Hook>,
}

impl Hooks {
    pub fn all(&self) -> impl Iterator<Item = &Hook> {
        let hooks = [&self.before_swap, &self.after_swap, &self.before_rollback];
        hooks.into_iter().flatten()
    }
}

/// One command, and how long it may take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    pub command: Argv,
    #[serde(default = "one_minute", deserialize_with = "units::duration")]
    pub timeout: Duration,
}

/// `[health]`: what a release must answer before and after it is live.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Asked through the preview link, before the swap.
    pub smoke_url: Option<HttpUrl>,
    /// Asked after the swap, until it answers 200.
    pub url: Option<HttpUrl>,
    /// What the answer of `url` must contain; `{release}` is the release's id.
    pub contains: Option<String>,
    /// In the place of `url`: healthy when it exits with 0.
    pub command: Option<Argv>,
    #[serde(deserialize_with = "units::duration")]
    pub interval: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
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
    #[serde(deserialize_with = "units::facility")]
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

fn one() -> NonZeroU8 {
    NonZeroU8::MIN
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

impl Default for Preview {
    fn default() -> Self {
        Preview {
            link: LinkName::try_from("preview").expect("'preview' is a link's name"),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Health {
            smoke_url: None,
            url: None,
            contains: None,
            command: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(120),
        }
    }
}

impl Default for Archive {
    fn default() -> Self {
        Archive {
            max_compressed: 512 << 20,
            max_unpacked: 2 << 30,
            max_file: 1 << 30,
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
            max_age: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            receives_per_hour: 60,
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(30 * 60),
            reserve: Percent::try_from("3%".to_owned()).expect("3% is a share"),
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Audit {
            socket: PathBuf::from("/dev/log"),
            facility: Facility::LOG_AUTHPRIV,
            required: true,
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Sandbox { required: true }
    }
}
