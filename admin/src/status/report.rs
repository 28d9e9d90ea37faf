//! Prints the status of sites: a table, or JSON.

use serde::Serialize;

use super::Site;
use super::attention::Attention;
use super::site::{Live, SiteStatus};
use crate::output::json_line;
use crate::table::{self, cell};
use deploy_shell::error::Result;
use deploy_shell::escape;

const HEAD: [&str; 9] = [
    "SITE", "STATE", "LIVE", "SINCE", "COMMIT", "PENDING", "USED", "FREE", "FAILED",
];

/// The document of `status --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    sites: Vec<Row<'a>>,
}

/// One site.
#[derive(Debug, Serialize)]
struct Row<'a> {
    site: &'a str,
    config: String,
    attention: &'a [Attention],
    /// None for a site that could not be read.
    status: Option<&'a SiteStatus>,
}

impl Row<'_> {
    fn of(site: &Site) -> Row<'_> {
        Row {
            site: &site.name,
            config: escape::escape(site.config.as_os_str().as_encoded_bytes()),
            attention: &site.answer.attention,
            status: site.answer.status.as_ref(),
        }
    }
}

/// Returns one line of JSON.
///
/// # Errors
///
/// As [`json_line`].
pub fn document(sites: &[Site]) -> Result<String> {
    let sites = sites.iter().map(Row::of).collect();
    json_line(&Document { sites })
}

/// Returns the table, and after it two lines for each reason for attention.
pub fn lines(sites: &[Site]) -> Vec<String> {
    let mut cells = vec![HEAD.map(str::to_owned)];
    cells.extend(sites.iter().map(row_cells));
    let mut lines = table::lines(&cells);
    for Site { name, answer, .. } in sites {
        for attention in &answer.attention {
            let (reason, problem) = (attention.reason.name(), &attention.problem);
            lines.push(format!("{name}: {reason}: {problem}"));
            let remedy = attention.remedy.as_ref();
            lines.extend(remedy.map(|remedy| format!("  remedy: {remedy}")));
        }
    }
    lines
}

fn row_cells(site: &Site) -> [String; HEAD.len()] {
    let state = match site.answer.attention.as_slice() {
        [] => "ok",
        _ => "attention",
    };
    let status = site.answer.status.as_ref();
    let live = status.and_then(|status| status.live.as_ref());
    let commit = live.and_then(|live| live.commit.as_ref());
    let failure = status.and_then(|status| status.last_failure.as_ref());
    [
        site.name.clone(),
        state.to_owned(),
        cell(live.map(shown_release)),
        cell(live.and_then(|live| live.since)),
        cell(commit.map(table::abbreviated)),
        cell(status.map(|status| status.pending)),
        cell(status.map(|status| size(status.used_bytes))),
        cell(status.map(|status| size(status.available_bytes))),
        cell(failure.map(|failure| failure.time)),
    ]
}

/// An asterisk marks a release whose checks did not end, or still run.
fn shown_release(live: &Live) -> String {
    let mark = if live.confirmed { "" } else { "*" };
    format!("{}{mark}", live.release)
}

/// Returns a size with at most four digits: `0 B`, `1023 KiB`, `12 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"B");
    while scaled >= 10_000
        && let Some(larger) = units.next()
    {
        scaled /= 1024;
        unit = larger;
    }
    format!("{scaled} {unit}")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_at_most_four_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (9_999, "9999 B"),
            (10_000, "9 KiB"),
            (5 << 30, "5120 MiB"),
            (14 << 30, "14 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
