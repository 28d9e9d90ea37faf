//! Writes the old tool's deployments to the journal, by the events that deploy-shell's own
//! deployments have: `received`, `swapped`, `rolled-back` and `earned`.
//!
//! A record has the time of the old deployment. So `list` shows when each release was
//! live, `rollback` goes to the tool's previous release, and pruning counts each release
//! that was live for `min_age`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::order::Step;
use deploy_shell::error::Result;
use deploy_shell::manifest::{Identity, Sums};
use deploy_shell::names::ReleaseId;
use deploy_shell::store::history::History;
use deploy_shell::store::journal::{self, Entry, Event, Journal, Record};
use deploy_shell::store::{Actor, Store};

/// A release with its manifest.
#[derive(Clone, Debug)]
pub struct Adopted {
    pub identity: Identity,
    pub sums: Sums,
}

/// Returns the records of the deployments, in their order. Steps of other releases than
/// the `adopted` ones are passed over.
pub fn records(
    steps: &[Step],
    adopted: &BTreeMap<ReleaseId, Adopted>,
    actor: &Actor,
    min_age: Duration,
) -> Vec<Record> {
    let mut writer = RecordWriter {
        adopted,
        actor,
        min_age,
        records: Vec::new(),
        received: BTreeSet::new(),
        earned: BTreeSet::new(),
        live: None,
    };
    for step in steps {
        writer.step(step);
    }
    // A live release that the log does not name.
    for (release, it) in adopted {
        writer.receive(release, it.identity.received);
    }
    writer.records
}

struct RecordWriter<'a> {
    adopted: &'a BTreeMap<ReleaseId, Adopted>,
    actor: &'a Actor,
    min_age: Duration,
    records: Vec<Record>,
    received: BTreeSet<ReleaseId>,
    earned: BTreeSet<ReleaseId>,
    live: Option<(ReleaseId, Timestamp)>,
}

impl RecordWriter<'_> {
    fn step(&mut self, step: &Step) {
        let Step {
            release,
            time,
            rollback,
        } = step;
        let is_live = (self.live.as_ref()).is_some_and(|(live, _)| live == release);
        if is_live || !self.adopted.contains_key(release) {
            return;
        }
        self.receive(release, *time);
        let previous = self.live.take();
        if let Some((previous, since)) = &previous
            && journal::age(*since, *time) >= self.min_age
            && self.earned.insert(previous.clone())
        {
            self.push(Event::Earned, previous, *time, |_| {});
        }
        let event = match (rollback, &previous) {
            (true, Some(_)) => Event::RolledBack,
            _ => Event::Swapped,
        };
        let previous = previous.map(|(previous, _)| previous);
        self.push(event, release, *time, |record| record.previous = previous);
        self.live = Some((release.clone(), *time));
    }

    fn receive(&mut self, release: &ReleaseId, time: Timestamp) {
        let Some(adopted) = self.adopted.get(release) else {
            return;
        };
        if self.received.insert(release.clone()) {
            self.push(Event::Received, release, time, |record| {
                record.sha256 = Some(adopted.identity.sha256);
                record.tree = adopted.identity.tree;
                record.files = Some(adopted.sums.files);
                record.bytes = Some(adopted.sums.bytes);
            });
        }
    }

    fn push(
        &mut self,
        event: Event,
        release: &ReleaseId,
        time: Timestamp,
        complete: impl FnOnce(&mut Record),
    ) {
        let mut record = Record::new(event, Some(release), self.actor);
        record.time = time;
        complete(&mut record);
        self.records.push(record);
    }
}

/// Returns those of `records` that the journal lacks.
///
/// After an adoption that was killed, the journal has the first ones. After a request in
/// between, it has records of that request as well, and then the rest follows those.
pub fn missing<'r>(
    existing: &[Record],
    history: &History,
    records: &'r [Record],
) -> Vec<&'r Record> {
    let is_same = |(one, other): (&Record, &Record)| {
        (one.event, &one.release, one.time, one.sha256)
            == (other.event, &other.release, other.time, other.sha256)
    };
    let is_begun = existing.len() <= records.len() && existing.iter().zip(records).all(is_same);
    if is_begun {
        return records.iter().skip(existing.len()).collect();
    }
    let known = |record: &Record| {
        let release = record.release.as_ref();
        release.and_then(|release| history.releases.get(release))
    };
    let mut moves = false;
    let is_missing = |record: &&Record| match record.event {
        // Another digest: the directory changed between the two adoptions. The record
        // says that the release was not live yet.
        Event::Received => {
            let is_missing = known(record).is_none_or(|known| known.sha256 != record.sha256);
            moves |= is_missing;
            is_missing
        }
        Event::Earned => moves || known(record).is_none_or(|known| known.place.is_none()),
        _ => {
            moves |= known(record).is_none_or(|known| known.activated.is_none());
            moves
        }
    };
    records.iter().filter(is_missing).collect()
}

/// Reads the journal without changing it. Returns its records as well.
///
/// # Errors
///
/// As [`journal::read_journal`].
pub fn read(store: &Store) -> Result<(History, Vec<Record>)> {
    let (mut history, mut records) = (History::default(), Vec::new());
    journal::read_journal(store, |entry| {
        history.take(entry);
        if let Entry::Record(record) = entry {
            records.push(record.clone());
        }
    })?;
    Ok((history, records))
}

/// Appends what the journal lacks of `records`. The caller holds the lock.
///
/// # Errors
///
/// As [`Journal::open`] and [`Journal::append`].
pub fn append(store: &Store, records: &[Record]) -> Result<()> {
    let (mut history, mut existing) = (History::default(), Vec::new());
    let mut journal = Journal::open(store, |entry| {
        history.take(entry);
        if let Entry::Record(record) = entry {
            existing.push(record.clone());
        }
    })?;
    for record in missing(&existing, &history, records) {
        let mut record = record.clone();
        // An earlier time than that of the last record would limit the times of all
        // records before it.
        record.time = record.time.max(history.latest());
        history.apply(&journal.append(store, record)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use deploy_shell::names::Sha256Digest;

    fn id(text: &str) -> ReleaseId {
        ReleaseId::try_from(text).unwrap()
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn step(release: &str, second: i64, rollback: bool) -> Step {
        Step {
            release: id(release),
            time: time(second),
            rollback,
        }
    }

    fn adopted(releases: &[&str]) -> BTreeMap<ReleaseId, Adopted> {
        let adopt = |release: &&str| {
            let identity = Identity {
                release: id(release),
                sha256: Sha256Digest([1; 32]),
                tree: None,
                base: None,
                signatures: Vec::new(),
                added: Vec::new(),
                received: time(7),
            };
            let sums = Sums { files: 1, bytes: 2 };
            (id(release), Adopted { identity, sums })
        };
        releases.iter().map(adopt).collect()
    }

    fn of(steps: &[Step], releases: &[&str]) -> Vec<Record> {
        let actor = Actor::operator("adopt", deploy_shell::store::NoticeLog::default());
        records(steps, &adopted(releases), &actor, Duration::from_secs(60))
    }

    fn numbered(records: &[Record]) -> Vec<Record> {
        let number = |(record, seq): (&Record, u64)| Record {
            seq,
            ..record.clone()
        };
        records.iter().zip(1..).map(number).collect()
    }

    fn fold(records: &[Record]) -> History {
        let mut history = History::default();
        numbered(records).iter().for_each(|it| history.apply(it));
        history
    }

    #[test]
    fn a_rollback_goes_to_the_previous_release_of_the_tool() {
        let steps = [
            step("1", 100, false),
            step("2", 200, false),
            step("gone", 300, false),
            step("3", 310, false),
            step("2", 320, true),
        ];
        let history = fold(&of(&steps, &["1", "2", "3"]));
        assert_eq!(history.live, Some(id("2")));
        assert_eq!(history.previous(|_| true), Some(&id("1")));
        let release = |name: &str| &history.releases[&id(name)];
        assert!(release("3").bad && release("1").good());
        assert_eq!(release("1").received, time(100));
        assert_eq!(release("1").last_live(), Some(time(200)));
        // Only a release that was live for `min_age` has a place.
        assert!(release("1").place.is_some() && release("2").place.is_some());
        assert!(release("3").place.is_none());
    }

    #[test]
    fn a_live_release_that_no_log_names_is_only_received() {
        let records = of(&[step("1", 100, false)], &["1", "x"]);
        let last = records.last().unwrap();
        assert_eq!(
            (last.event, &last.release),
            (Event::Received, &Some(id("x")))
        );
    }

    #[test]
    fn a_killed_adoption_continues_at_each_record() {
        let steps = [
            step("1", 100, false),
            step("2", 200, false),
            step("3", 210, false),
        ];
        let records = of(&steps, &["1", "2", "3"]);
        let whole = fold(&records);
        for done in 0..=records.len() {
            let existing = numbered(&records[..done]);
            let rest = missing(&existing, &fold(&existing), &records);
            assert_eq!(rest.len(), records.len() - done);
            // A request came in between, and found another live release than the
            // journal has.
            let mut disturbed = existing;
            disturbed.push(Record {
                time: time(500),
                previous: None,
                ..Record::unattended(Event::Reconciled, Some(&id("3")))
            });
            let rest = missing(&disturbed, &fold(&disturbed), &records);
            let rest: Vec<Record> = rest.into_iter().cloned().collect();
            disturbed.extend(rest.into_iter().map(|record| Record {
                time: record.time.max(time(500)),
                ..record
            }));
            let history = fold(&disturbed);
            assert_eq!(history.live, whole.live, "after {done} records");
            assert_eq!(
                history.previous(|_| true),
                whole.previous(|_| true),
                "after {done}"
            );
            assert!(history.releases.values().all(|it| it.sha256.is_some()));
        }
    }
}
