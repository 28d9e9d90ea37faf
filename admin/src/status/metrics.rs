//! The text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! A library would bring a registry for a process that serves its metrics. This is one
//! text, written once.

use std::fmt::{Display, Write};

use jiff::Timestamp;

use super::Site;
use super::attention::Reason;
use super::site::SiteStatus;

/// Returns the metrics of the sites.
pub fn text(sites: &[Site], now: Timestamp) -> String {
    let mut text = Text(String::new());
    text.metric(
        "status_last_run_timestamp_seconds",
        "When these metrics were written.",
        [(String::new(), now.as_second())],
    );
    text.metric(
        "site_up",
        "Whether the site could be read.",
        sites
            .iter()
            .map(|site| (label(site), u8::from(site.answer.status.is_some()))),
    );
    text.metric(
        "site_attention",
        "Whether the site needs attention, for each reason.",
        sites.iter().flat_map(attention),
    );
    text.metric(
        "site_live_info",
        "The live release and its commit.",
        sites.iter().filter_map(live_info),
    );
    text.of_each(
        "site_live_since_timestamp_seconds",
        "Since when the live release is live.",
        sites,
        |status| seconds(status.live.as_ref()?.since),
    );
    text.of_each("site_releases", "The releases on disk.", sites, |status| {
        Some(status.releases)
    });
    text.of_each(
        "site_pending_releases",
        "The releases that were never live.",
        sites,
        |status| Some(status.pending),
    );
    text.of_each(
        "site_used_bytes",
        "The size of all releases.",
        sites,
        |status| Some(status.used_bytes),
    );
    text.of_each(
        "site_available_bytes",
        "The bytes that are free above the reserve.",
        sites,
        |status| Some(status.available_bytes),
    );
    text.of_each(
        "site_available_inodes",
        "The inodes that are free above the reserve.",
        sites,
        |status| status.available_inodes,
    );
    text.of_each(
        "site_last_failure_timestamp_seconds",
        "When a release last failed its checks.",
        sites,
        |status| seconds(status.last_failure.as_ref().map(|failure| failure.time)),
    );
    text.of_each(
        "site_last_key_use_timestamp_seconds",
        "When a key last changed the site.",
        sites,
        |status| seconds(status.last_key_use),
    );
    text.of_each(
        "site_changes_total",
        "The records of the journal.",
        sites,
        |status| Some(status.generation),
    );
    text.0
}

/// Returns a sample for each reason. Of a site that could not be read, only the reason for
/// that is known.
fn attention(site: &Site) -> impl Iterator<Item = (String, u8)> {
    let samples = Reason::ALL.into_iter().map(|reason| {
        let found = &site.answer.attention;
        let is_found = found.iter().any(|attention| attention.reason == reason);
        let labels = format!("{},reason=\"{}\"", label(site), reason.name());
        (labels, u8::from(is_found))
    });
    samples.filter(|(_, value)| *value == 1 || site.answer.status.is_some())
}

/// Releases and commits have no character that a label would need to escape.
fn live_info(site: &Site) -> Option<(String, u8)> {
    let live = site.answer.status.as_ref()?.live.as_ref()?;
    let commit = live.commit.as_ref().map_or("", |commit| commit.as_str());
    let release = &live.release;
    let labels = format!("{},release=\"{release}\",commit=\"{commit}\"", label(site));
    Some((labels, 1))
}

fn seconds(time: Option<Timestamp>) -> Option<u64> {
    u64::try_from(time?.as_second()).ok()
}

/// Returns the label of a site. Its name is printable ASCII.
fn label(site: &Site) -> String {
    let name = site.name.replace('\\', r"\\").replace('"', "\\\"");
    format!("site=\"{name}\"")
}

struct Text(String);

impl Text {
    /// Adds a metric with its samples: labels and value. Without a sample, it adds nothing.
    fn metric<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let name = format!("deploy_shell_{name}");
        // The convention for the names of counters, and of no other metric.
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a String cannot fail.
        _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            _ = match labels.as_str() {
                "" => writeln!(self.0, "{name} {value}"),
                labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
            };
        }
    }

    /// Adds a metric with one value of each site that has it.
    fn of_each(
        &mut self,
        name: &str,
        help: &str,
        sites: &[Site],
        value: impl Fn(&SiteStatus) -> Option<u64>,
    ) {
        let sample = |site: &Site| Some((label(site), value(site.answer.status.as_ref()?)?));
        self.metric(name, help, sites.iter().filter_map(sample));
    }
}
