//! Folds the records of the journal into rows. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use deploy_shell::names::{CommitId, KeyLabel, ReleaseId, Sha256Digest};
use deploy_shell::store::journal::{Event, Record};

/// The result of the post-swap checks of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GateResult {
    Passed,
    Failed,
    /// The request was killed before its checks ended, or they still run.
    Unknown,
}

impl GateResult {
    pub fn name(self) -> &'static str {
        match self {
            GateResult::Passed => "passed",
            GateResult::Failed => "failed",
            GateResult::Unknown => "unknown",
        }
    }
}

/// One event, with what later records say about it.
#[derive(Debug, PartialEq, Serialize)]
pub struct Row<'a> {
    /// The number of the record.
    pub seq: u64,
    pub time: Timestamp,
    pub event: Event,
    pub release: Option<&'a ReleaseId>,
    pub previous: Option<&'a ReleaseId>,
    pub key: Option<&'a KeyLabel>,
    pub fingerprint: Option<&'a str>,
    pub client: Option<IpAddr>,
    /// Of the release.
    pub commit: Option<&'a CommitId>,
    pub sha256: Option<Sha256Digest>,
    /// The milliseconds from the start of the request to the end of its checks.
    pub ms: Option<u64>,
    /// None where the request had no checks after the swap.
    pub gate: Option<GateResult>,
}

/// Returns a row for each event that an operator can act on, in the order of the
/// records. Intents and places are left out. The result of the post-swap checks becomes
/// a part of the row of the swap or rollback.
pub fn fold<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    // The newest receive of each release is what a later event is about.
    let mut received = std::collections::BTreeMap::new();
    for record in records {
        let release = record.release.as_ref();
        match record.event {
            Event::Activating | Event::Abandoned | Event::Earned => continue,
            Event::Confirmed => {
                settle(&mut rows, release, GateResult::Passed, record.ms);
                continue;
            }
            Event::Reverted => {
                let failed = record.previous.as_ref();
                settle(&mut rows, failed, GateResult::Failed, record.ms);
            }
            Event::Received => {
                received.insert(release, (record.commit.as_ref(), record.sha256));
            }
            _ => {}
        }
        let (commit, sha256) = received.get(&release).copied().unwrap_or_default();
        rows.push(Row {
            seq: record.seq,
            time: record.time,
            event: record.event,
            release,
            previous: record.previous.as_ref(),
            key: record.key.as_ref(),
            fingerprint: record.fingerprint.as_deref(),
            client: record.client,
            commit,
            sha256,
            ms: record.ms,
            gate: match record.event {
                Event::Failed => Some(GateResult::Failed),
                _ => record.unconfirmed.then_some(GateResult::Unknown),
            },
        });
    }
    rows
}

/// Adds the result of the post-swap checks to the newest row that waits for it. A later
/// swap to the same release runs its checks again, and its result is then the one of the
/// swap that made it live.
fn settle(rows: &mut [Row<'_>], release: Option<&ReleaseId>, result: GateResult, ms: Option<u64>) {
    let newest = rows
        .iter_mut()
        .rev()
        .find(|row| row.release == release && row.gate == Some(GateResult::Unknown));
    if let Some(row) = newest {
        row.gate = Some(result);
        row.ms = ms.or(row.ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, event: Event, release: &str) -> Record {
        let release = ReleaseId::try_from(release).unwrap();
        Record {
            seq,
            ms: Some(seq * 10),
            ..Record::unattended(event, Some(&release))
        }
    }

    fn previous(release: &str) -> Option<ReleaseId> {
        Some(ReleaseId::try_from(release).unwrap())
    }

    fn short<'a>(rows: &[Row<'a>]) -> Vec<(u64, Option<&'static str>, Option<u64>)> {
        rows.iter()
            .map(|row| (row.seq, row.gate.map(GateResult::name), row.ms))
            .collect()
    }

    #[test]
    fn the_result_of_the_checks_belongs_to_the_swap() {
        let records = [
            record(1, Event::Received, "a"),
            record(2, Event::Activating, "a"),
            Record {
                unconfirmed: true,
                ..record(3, Event::Swapped, "a")
            },
            record(4, Event::Confirmed, "a"),
            record(5, Event::Received, "b"),
            record(6, Event::Activating, "b"),
            Record {
                unconfirmed: true,
                ..record(7, Event::Swapped, "b")
            },
            Record {
                previous: previous("b"),
                ..record(8, Event::Reverted, "a")
            },
            record(9, Event::Earned, "a"),
            record(10, Event::Failed, "c"),
            Record {
                unconfirmed: true,
                ..record(11, Event::Swapped, "d")
            },
        ];
        let rows = fold(records.iter());
        assert_eq!(
            short(&rows),
            [
                (1, None, Some(10)),
                (3, Some("passed"), Some(40)),
                (5, None, Some(50)),
                (7, Some("failed"), Some(80)),
                (8, None, Some(80)),
                (10, Some("failed"), Some(100)),
                (11, Some("unknown"), Some(110)),
            ]
        );
    }

    #[test]
    fn an_event_has_the_commit_of_the_last_receive() {
        let commit = |text: &str| Some(CommitId::try_from(text).unwrap());
        let records = [
            Record {
                commit: commit("0123abc"),
                ..record(1, Event::Received, "a")
            },
            record(2, Event::Swapped, "a"),
            record(3, Event::Pruned, "a"),
            record(4, Event::Received, "a"),
            record(5, Event::Swapped, "a"),
        ];
        let rows = fold(records.iter());
        let commits: Vec<_> = rows
            .iter()
            .map(|row| row.commit.map(CommitId::as_str))
            .collect();
        let known = Some("0123abc");
        assert_eq!(commits, [known, known, known, None, None]);
    }
}
