//! What of a site needs attention. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::site::SiteStatus;
use deploy_shell::config::Config;
use deploy_shell::store::journal;

/// Why a site needs attention. The names are code words: scripts and alert rules use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The configuration does not load.
    BadConfig,
    /// The site could not be read.
    NotReadable,
    /// No release is live, and one was.
    NothingLive,
    /// The last swap or rollback failed its checks.
    GateFailed,
    /// The checks of the live release did not end.
    Unconfirmed,
    /// There are as many pending releases as the site may have.
    PendingFull,
    /// Nothing is free above the reserve.
    BelowReserve,
    /// Little is free above the reserve.
    DiskLow,
}

impl Reason {
    pub const ALL: [Reason; 8] = [
        Reason::BadConfig,
        Reason::NotReadable,
        Reason::NothingLive,
        Reason::GateFailed,
        Reason::Unconfirmed,
        Reason::PendingFull,
        Reason::BelowReserve,
        Reason::DiskLow,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Reason::BadConfig => "bad-config",
            Reason::NotReadable => "not-readable",
            Reason::NothingLive => "nothing-live",
            Reason::GateFailed => "gate-failed",
            Reason::Unconfirmed => "unconfirmed",
            Reason::PendingFull => "pending-full",
            Reason::BelowReserve => "below-reserve",
            Reason::DiskLow => "disk-low",
        }
    }
}

/// One reason, with the problem and the remedy for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    pub reason: Reason,
    pub problem: String,
    pub remedy: Option<String>,
}

impl Attention {
    pub fn new(reason: Reason, problem: String, remedy: impl Into<String>) -> Attention {
        Attention {
            reason,
            problem,
            remedy: Some(remedy.into()),
        }
    }
}

/// How much longer than their time limits the checks of a release may take, for the
/// processes around them.
const SLACK: Duration = Duration::from_secs(60);

/// Returns what needs attention, the most urgent first.
pub fn find(config: &Config, status: &SiteStatus, now: Timestamp) -> Vec<Attention> {
    let found = [
        nothing_live(config, status),
        gate_failed(config, status),
        unconfirmed(config, status, now),
        disk(status),
        pending_full(config, status),
    ];
    found.into_iter().flatten().collect()
}

fn nothing_live(config: &Config, status: &SiteStatus) -> Option<Attention> {
    (status.live.is_none() && status.was_live).then(|| {
        let link = config.root.join(config.link.as_str());
        let problem = format!("nothing is live: '{}' names no release", link.display());
        Attention::new(
            Reason::NothingLive,
            problem,
            "swap to a release that 'list' shows",
        )
    })
}

fn gate_failed(config: &Config, status: &SiteStatus) -> Option<Attention> {
    let failure = status.last_failure.as_ref().filter(|it| it.unresolved)?;
    let (release, time) = (&failure.release, failure.time);
    Some(Attention::new(
        Reason::GateFailed,
        format!(
            "'{release}' failed its checks at {time}, and no swap or rollback has made a release live since"
        ),
        format!(
            "look at the log, then swap to a release that passes; or remove this one: \
             deploy-shell-admin drop {} {release}",
            config.site_option()
        ),
    ))
}

fn unconfirmed(config: &Config, status: &SiteStatus, now: Timestamp) -> Option<Attention> {
    let live = status.live.as_ref().filter(|live| !live.confirmed)?;
    // Until then, a request may still run them.
    let since = live.since.map(|since| journal::age(since, now));
    if since.is_some_and(|age| age <= time_of_checks(config) + SLACK) {
        return None;
    }
    let release = &live.release;
    Some(Attention::new(
        Reason::Unconfirmed,
        format!("'{release}' is live, and its checks did not end"),
        format!("run them again: swap {release}; or swap to another release"),
    ))
}

/// Returns the maximum time of the checks after a swap.
fn time_of_checks(config: &Config) -> Duration {
    let hooks = config.hooks.after_swap.iter().map(|hook| hook.timeout);
    let health = &config.health;
    let checks = health.url.is_some() || health.command.is_some();
    let health = checks.then_some(health.timeout);
    hooks
        .chain(health)
        .fold(Duration::ZERO, Duration::saturating_add)
}

/// A key may fill half of what is free above the reserve. So two times the live release is
/// the least that lets one key receive a release of that size.
fn disk(status: &SiteStatus) -> Option<Attention> {
    let remedy = "free space as The disk is full in docs/operating.md says";
    let (bytes, inodes) = (status.available_bytes, status.available_inodes);
    if bytes == 0 || inodes == Some(0) {
        let problem = "nothing is free above the reserve, and receive is refused".to_owned();
        return Some(Attention::new(Reason::BelowReserve, problem, remedy));
    }
    let live = status.live.as_ref()?;
    let least = |size: Option<u64>| size.map_or(0, |size| size.saturating_mul(2));
    let is_low =
        bytes < least(live.bytes) || inodes.is_some_and(|inodes| inodes < least(live.files));
    is_low.then(|| {
        let problem = match inodes {
            Some(inodes) => format!(
                "{bytes} bytes and {inodes} inodes are free above the reserve, less than twice the live release"
            ),
            None => {
                format!("{bytes} bytes are free above the reserve, less than twice the live release")
            }
        };
        Attention::new(Reason::DiskLow, problem, remedy)
    })
}

fn pending_full(config: &Config, status: &SiteStatus) -> Option<Attention> {
    let pending = status.pending;
    (pending >= config.pending.max as u64).then(|| {
        Attention::new(
            Reason::PendingFull,
            format!("{pending} releases are pending, as many as max in [pending] allows"),
            format!(
                "remove those that nobody needs: deploy-shell-admin drop {} RELEASE...",
                config.site_option()
            ),
        )
    })
}

#[cfg(test)]
mod tests;
