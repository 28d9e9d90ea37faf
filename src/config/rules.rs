//! The rules that the type of a single key cannot express.

use std::path::{Path, PathBuf};

use super::command::is_absolute;
use super::{Config, Reuse};
use crate::http_values::Statuses;
use crate::names::{BRIDGE_LINK, LinkName, MAX_SIGNATURES};

/// The longest `contains` in `[health]`, in bytes.
const MAX_CONTAINS: usize = 256;

/// A conflict between keys that are valid one by one.
#[derive(Debug, thiserror::Error)]
pub enum Conflict {
    #[error("root '{}' is not an absolute path below '/'", .0.display())]
    Root(PathBuf),
    #[error("[shared] {0}")]
    Shared(String),
    #[error("{key} '{}' in [{table}] is not an absolute path", path.display())]
    RelativePath {
        table: &'static str,
        key: &'static str,
        path: PathBuf,
    },
    #[error("threshold in [signatures] is over {MAX_SIGNATURES}")]
    Threshold,
    #[error("link '{0}' in [preview] is the current symlink")]
    PreviewLink(LinkName),
    #[error("the symlink '{0}' has the name of the bridge")]
    BridgeLink(LinkName),
    #[error("the program '{}' is inside the site's root", .0.display())]
    ProgramInRoot(PathBuf),
    #[error("url and command in [health] exclude each other: remove one of them")]
    TwoHealthChecks,
    #[error("smoke_url and smoke_command in [health] exclude each other: remove one of them")]
    TwoSmokeTests,
    #[error("{0} in [health] needs a url or a smoke_url")]
    WithoutRequest(&'static str),
    #[error("contains in [health] needs a url")]
    ContainsWithoutUrl,
    #[error("contains in [health] is empty, longer than {MAX_CONTAINS} bytes or not text")]
    Contains,
    #[error(
        "reuse = \"link\" in [delta] excludes hooks and the commands of [health]: a command could \
         change a file of several releases at once"
    )]
    LinksAndCommands,
    #[error("a time of 0s in [hooks] or [health] leaves no time to wait")]
    ZeroTimeout,
}

/// Checks the keys of a site against each other.
pub fn check_config(config: &Config) -> Result<(), Conflict> {
    if !is_absolute(&config.root) || config.root.parent().is_none() {
        return Err(Conflict::Root(config.root.clone()));
    }
    config.shared.check_paths().map_err(Conflict::Shared)?;
    if let Some(signatures) = &config.signatures {
        require_absolute("signatures", "allowed_signers", &signatures.allowed_signers)?;
        // A request cannot carry more, so the site could never take a release.
        if usize::from(signatures.threshold.get()) > MAX_SIGNATURES {
            return Err(Conflict::Threshold);
        }
    }
    if config.bridge.is_configured() {
        let mut links = [&config.link, &config.preview.link].into_iter();
        if let Some(link) = links.find(|link| link.as_str() == BRIDGE_LINK) {
            return Err(Conflict::BridgeLink(link.clone()));
        }
    }
    if config.delta.reuse == Reuse::Link && config.commands().next().is_some() {
        return Err(Conflict::LinksAndCommands);
    }
    check_gate(config)?;
    require_absolute("audit", "socket", &config.audit.socket)
}

/// Checks the hooks, the preview and the health check.
fn check_gate(config: &Config) -> Result<(), Conflict> {
    if config.preview.link == config.link {
        return Err(Conflict::PreviewLink(config.link.clone()));
    }
    // Clients send the files below the root, so no hook may be one of them.
    let mut programs = config.commands().map(|command| command.program());
    if let Some(program) = programs.find(|program| program.starts_with(&config.root)) {
        return Err(Conflict::ProgramInRoot(program.to_owned()));
    }
    let health = &config.health;
    if health.url.is_some() && health.command.is_some() {
        return Err(Conflict::TwoHealthChecks);
    }
    if health.smoke_url.is_some() && health.smoke_command.is_some() {
        return Err(Conflict::TwoSmokeTests);
    }
    // A command is no request, and would silently go without them.
    if health.url.is_none() && health.smoke_url.is_none() {
        let set = [
            ("host", health.host.is_some()),
            ("headers", !health.headers.is_empty()),
            ("statuses", health.statuses != Statuses::default()),
        ];
        if let Some((key, _)) = set.into_iter().find(|(_, set)| *set) {
            return Err(Conflict::WithoutRequest(key));
        }
    }
    if let Some(contains) = &health.contains {
        if health.url.is_none() {
            return Err(Conflict::ContainsWithoutUrl);
        }
        let length = 1..=MAX_CONTAINS;
        if !length.contains(&contains.len()) || contains.contains(char::is_control) {
            return Err(Conflict::Contains);
        }
    }
    let timeouts = config.hooks.all().map(|hook| hook.timeout);
    let mut waits = timeouts.chain([health.interval, health.timeout]);
    if waits.any(|wait| wait.is_zero()) {
        return Err(Conflict::ZeroTimeout);
    }
    Ok(())
}

fn require_absolute(table: &'static str, key: &'static str, path: &Path) -> Result<(), Conflict> {
    if is_absolute(path) {
        return Ok(());
    }
    Err(Conflict::RelativePath {
        table,
        key,
        path: path.to_owned(),
    })
}
