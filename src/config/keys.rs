//! The tables of a site's configuration, their keys and defaults.

use std::num::NonZeroU8;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use ::syslog::Facility;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::command::Argv;
use super::units::{self, Percent};
use crate::http_values::{HeaderFields, Host, Statuses};
use crate::names::{LinkName, MAX_PATH, ReleaseId};
use crate::shared_paths::SharedPath;
use crate::url::HttpUrl;

/// The maximum length of an account's name, in bytes (`LOGIN_NAME_MAX`, limits.h(0p)).
const MAX_USER_NAME: usize = 255;

/// `[archive]`: the limits of a payload.
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
    pub times: Times,
    pub acl: AclPolicy,
}

/// What happens to symlinks in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symlinks {
    /// Symlinks that resolve inside the release are kept; any other rejects the
    /// archive.
    Inside,
    /// Any symlink rejects the archive.
    Deny,
}

/// Which modification times the files of a release get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Times {
    /// Those of the archive, but none before 1980 and none in the future.
    Archive,
    /// The time at which the release is received.
    Received,
}

/// What happens to a default access control list of the site's directories (acl(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AclPolicy {
    /// No file of a release has a list: the mode alone decides.
    Strip,
    /// The files of a release inherit the list of `releases/`, or else of the root.
    Inherit,
}

/// `[pending]`: releases that were received and never live.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pending {
    /// Of all keys together.
    #[serde(deserialize_with = "units::whole_number")]
    pub max: usize,
    #[serde(deserialize_with = "units::whole_number")]
    pub max_per_key: usize,
    #[serde(deserialize_with = "units::duration")]
    pub max_age: Duration,
}

/// `[limits]`: the resources that a client may use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Published releases, for each key.
    #[serde(deserialize_with = "units::whole_number")]
    pub receives_per_hour: usize,
    /// Requests to receive, for each key, also those that fail.
    #[serde(deserialize_with = "units::whole_number")]
    pub attempts_per_hour: usize,
    /// Requests to swap and to roll back together, for each key.
    #[serde(deserialize_with = "units::whole_number")]
    pub swaps_per_minute: usize,
    /// Uploads at the same time, of all keys together.
    #[serde(deserialize_with = "units::whole_number")]
    pub uploads: u16,
    #[serde(deserialize_with = "units::whole_number")]
    pub uploads_per_key: u16,
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub total_timeout: Duration,
    pub reserve: Percent,
}

/// `[delta]`: releases of which a client sends only the changes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delta {
    pub reuse: Reuse,
}

/// How a release gets the files that are the same in its base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// As copies (copy_file_range(2)), which share their blocks on xfs and btrfs.
    Clone,
    /// As hard links: one file in several releases.
    Link,
}

/// `[signatures]`: the signers of a release.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// A file as in ssh-keygen(1), ALLOWED SIGNERS.
    pub allowed_signers: PathBuf,
    /// How many signers must have signed, each with a different key.
    #[serde(default = "one")]
    pub threshold: NonZeroU8,
}

/// `[bridge]`: the files of old releases that stay reachable.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bridge {
    /// The directories and files whose old versions stay reachable. Without one, the site
    /// has no bridge.
    pub paths: Vec<RelativePath>,
    /// How long, after a release was last live.
    #[serde(deserialize_with = "units::duration")]
    pub max_age: Duration,
    /// How many releases, besides the live one.
    #[serde(deserialize_with = "units::whole_number")]
    pub max_releases: usize,
}

impl Bridge {
    pub fn is_configured(&self) -> bool {
        !self.paths.is_empty()
    }
}

/// `[preview]`: the symlink to a release while its smoke test runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preview {
    pub link: LinkName,
}

/// `[[hooks.…]]`: the operator's commands, each list in the order in which it runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    pub before_swap: Vec<Hook>,
    /// Also after a rollback, and after an automatic rollback.
    pub after_swap: Vec<Hook>,
    pub before_rollback: Vec<Hook>,
}

impl Hooks {
    pub fn all(&self) -> impl Iterator<Item = &Hook> {
        let hooks = [&self.before_swap, &self.after_swap, &self.before_rollback];
        hooks.into_iter().flatten()
    }
}

/// One command and its time limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    pub command: Argv,
    #[serde(default = "one_minute", deserialize_with = "units::duration")]
    pub timeout: Duration,
}

/// `[health]`: the smoke test before the swap and the health check after it.
///
/// `host`, `headers` and `statuses` are of `smoke_url` and `url`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Requested through the preview symlink, before the swap.
    pub smoke_url: Option<HttpUrl>,
    /// Instead of `smoke_url`: the candidate passes if the command exits with 0.
    pub smoke_command: Option<Argv>,
    /// Requested after the swap, until the status of the answer is accepted.
    pub url: Option<HttpUrl>,
    /// The text that the answer of `url` must contain; `{release}` is the
    /// release's id.
    pub contains: Option<String>,
    /// Instead of `url`: healthy if the command exits with 0.
    pub command: Option<Argv>,
    /// The Host field of both requests, if it is not the address.
    pub host: Option<Host>,
    /// More header fields of both requests.
    pub headers: HeaderFields,
    /// The statuses that pass, of both answers.
    pub statuses: Statuses,
    #[serde(deserialize_with = "units::duration")]
    pub interval: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
}

/// Reads `floor`: a release, or an empty string for none.
pub fn floor<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ReleaseId>, D::Error> {
    match String::deserialize(from)?.as_str() {
        "" => Ok(None),
        id => ReleaseId::try_from(id)
            .map(Some)
            .map_err(|error| D::Error::custom(format!("'{id}' is {error}"))),
    }
}

/// `[audit]`: where the audit log goes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    pub socket: PathBuf,
    #[serde(deserialize_with = "units::facility")]
    pub facility: Facility,
    pub required: bool,
}

/// `[sandbox]`: what happens on a kernel without all parts of the sandbox.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Whether requests are refused unless every part is active.
    pub required: bool,
}

/// `[check]`: what `deploy-shell-admin check` needs to know. A request uses nothing of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Check {
    /// The web server's account.
    pub reader: Option<UserName>,
}

/// The name of an account, without what would break a line of the report.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct UserName(String);

impl UserName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UserName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b'/' | b'\'');
        if text.is_empty() || text.len() > MAX_USER_NAME || !text.bytes().all(plain) {
            return Err(format!(
                "'{}' is not the name of an account",
                text.escape_debug()
            ));
        }
        Ok(UserName(text))
    }
}

/// A path below a release: relative, without `.` and `..`, at most
/// [`MAX_PATH`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct RelativePath(PathBuf);

/// The rules for a shared path are stricter.
impl From<&SharedPath> for RelativePath {
    fn from(path: &SharedPath) -> RelativePath {
        RelativePath(PathBuf::from(path.as_str()))
    }
}

impl RelativePath {
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<String> for RelativePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = PathBuf::from(&text);
        let normal = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        // Compared with its own components because `Path` reads `a//b` as `a/b`.
        let exact = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
        if text.is_empty()
            || text.len() > MAX_PATH
            || !normal
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

impl Health {
    /// Returns whether a candidate is tested before a swap, and so through the preview
    /// symlink.
    pub fn has_smoke_test(&self) -> bool {
        self.smoke_url.is_some() || self.smoke_command.is_some()
    }
}

impl Default for Preview {
    fn default() -> Self {
        Preview {
            link: LinkName::try_from("preview").expect("'preview' is a valid symlink name"),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Health {
            smoke_url: None,
            smoke_command: None,
            url: None,
            contains: None,
            command: None,
            host: None,
            headers: HeaderFields::default(),
            statuses: Statuses::default(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(120),
        }
    }
}

impl Default for Delta {
    fn default() -> Self {
        Delta {
            reuse: Reuse::Clone,
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
            times: Times::Archive,
            acl: AclPolicy::Strip,
        }
    }
}

impl Default for Pending {
    fn default() -> Self {
        Pending {
            max: 10,
            max_per_key: 5,
            max_age: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Default for Bridge {
    fn default() -> Self {
        Bridge {
            paths: Vec::new(),
            max_age: Duration::from_secs(7 * 86_400),
            max_releases: 10,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            receives_per_hour: 60,
            attempts_per_hour: 120,
            swaps_per_minute: 30,
            uploads: 4,
            uploads_per_key: 2,
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
