//! The fold of all records equals the fold of a checkpoint and the records after it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::names::{KeyLabel, ReleaseId, Sha256Digest};
use crate::store::history::IdUse;
use crate::store::journal::{Event, How, Record};

fn id(number: usize) -> ReleaseId {
    ReleaseId::try_from(format!("r{number}").as_str()).unwrap()
}

/// A journal of one file, and the lists of used ids that its checkpoints have written.
#[derive(Default)]
struct Site {
    history: History,
    /// The bytes of the journal.
    journal: Vec<u8>,
    listed: BTreeMap<ReleaseId, IdUse>,
}

impl Site {
    /// Does what `used_ids::recall` does.
    fn recall(&mut self, id: &ReleaseId) {
        if !self.history.knows(id)
            && let Some(listed) = self.listed.get(id)
        {
            self.history.remember(id, *listed);
        }
    }

    /// Does what `Ledger::append` does.
    fn append(&mut self, record: &Record) -> Record {
        let mut record = record.clone();
        record.seq = self.history.generation + 1;
        if let Some(release) = self.history.entry_made_by(&record) {
            self.recall(release);
            record.first = self.history.id_use(release).map(|id_use| id_use.first_seq);
        }
        self.history.apply(&record);
        serde_json::to_writer(&mut self.journal, &record).unwrap();
        self.journal.push(b'\n');
        record
    }

    /// Reads the journal again, as the next request does.
    fn read_again(&mut self) {
        self.history = History::default();
        journal::read_bytes(&self.journal, |entry| self.history.take(entry)).unwrap();
    }

    fn checkpoint(&mut self) {
        self.read_again();
        for (id, id_use) in self.history.take_removed() {
            let listed = self.listed.entry(id).or_insert(id_use);
            *listed = listed.merge(id_use);
        }
        self.journal = journal::begin_with(&self.history);
    }
}

/// A record of one of five releases. Clocks go back and forth.
fn record() -> impl Strategy<Value = Record> {
    let release = prop_oneof![4 => (0..5usize).prop_map(Some), 1 => Just(None)];
    let previous = prop_oneof![4 => (0..5usize).prop_map(Some), 1 => Just(None)];
    let how = prop_oneof![Just(How::Swap), Just(How::Rollback), Just(How::Revert)];
    let time = 0..20_000i64;
    let event = 0..Event::ALL.len();
    (event, release, previous, how, time, any::<bool>(), 0..3u8).prop_map(
        |(event, release, previous, how, time, unconfirmed, content)| Record {
            time: Timestamp::from_second(time).unwrap(),
            how: Some(how),
            unconfirmed,
            previous: previous.map(id),
            sha256: (content > 0).then_some(Sha256Digest([content; 32])),
            key: Some(KeyLabel::try_from("ci").unwrap()),
            ..Record::unattended(Event::ALL[event], release.map(id).as_ref())
        },
    )
}

proptest! {
    #[test]
    fn a_checkpoint_at_any_place_changes_nothing(
        records in prop::collection::vec((record(), prop::bool::weighted(0.2)), 0..60),
    ) {
        let (mut whole, mut cut) = (Site::default(), Site::default());
        // Both begin in the format that has checkpoints.
        whole.journal = b"{\"format\":2}\n".to_vec();
        cut.journal = whole.journal.clone();
        whole.read_again();
        cut.read_again();
        for (record, with_checkpoint) in &records {
            if *with_checkpoint {
                cut.checkpoint();
                cut.read_again();
            }
            prop_assert_eq!(whole.append(record), cut.append(record));
        }
        whole.read_again();
        cut.read_again();
        for (id, release) in &whole.history.releases {
            let first = |history: &History| history.id_use(id).unwrap().first_seq;
            prop_assert_eq!(first(&whole.history), first(&cut.history), "{:?}", release);
        }
        for (id, listed) in std::mem::take(&mut cut.listed) {
            cut.history.remember(&id, listed);
        }
        prop_assert_eq!(whole.history, cut.history);
    }
}

/// At the end of format 1, good releases get their places. That happens once.
#[test]
fn a_checkpoint_of_an_older_format_is_like_its_journal() {
    let mut site = Site::default();
    for (event, release) in [
        (Event::Received, 0),
        (Event::Swapped, 0),
        (Event::Received, 1),
        (Event::Swapped, 1),
    ] {
        site.append(&Record::unattended(event, Some(&id(release))));
    }
    site.journal.extend_from_slice(b"{\"format\":2}\n");
    site.read_again();
    let before = site.history.clone();
    assert!(before.releases[&id(0)].place.is_some());
    site.checkpoint();
    site.read_again();
    assert_eq!(site.history, before);
}

#[test]
fn a_part_of_a_checkpoint_is_damage_and_no_torn_line() {
    let mut site = Site::default();
    site.append(&Record::unattended(Event::Received, Some(&id(0))));
    site.checkpoint();
    let whole = site.journal.clone();
    let head = b"{\"format\":2}\n".len();
    for cut in head + reader_prefix()..whole.len() {
        let read = journal::read_bytes(&whole[..cut], |_| {});
        assert!(read.is_err(), "cut at {cut}");
        let torn = [&whole[..cut], b"\n"].concat();
        let read = journal::read_bytes(&torn, |_| {});
        assert!(read.is_err() || cut + 1 == whole.len(), "cut at {cut}");
    }
    for bad in [
        r#"{"checkpoint":{}}"#,
        r#"{"checkpoint":null}"#,
        r#"{"checkpoint":1,"more":1}"#,
    ] {
        let line = format!("{bad}\n");
        assert!(
            journal::read_bytes(line.as_bytes(), |_| {}).is_err(),
            "{bad}"
        );
    }
    // After a record, or twice, it would replace what was read before.
    let last = whole[head..].to_vec();
    assert!(journal::read_bytes(&[&whole[..], &last].concat(), |_| {}).is_err());
}

fn reader_prefix() -> usize {
    "{\"checkpoint\":".len()
}

#[test]
fn the_head_is_what_precedes_the_first_record() {
    let mut site = Site::default();
    assert_eq!(journal::head_length(&b""[..]).unwrap(), 0);
    site.append(&Record::unattended(Event::Received, Some(&id(0))));
    assert_eq!(journal::head_length(&site.journal[..]).unwrap(), 0);
    site.checkpoint();
    let head = site.journal.len() as u64;
    assert_eq!(journal::head_length(&site.journal[..]).unwrap(), head);
    site.append(&Record::unattended(Event::Swapped, Some(&id(0))));
    assert_eq!(journal::head_length(&site.journal[..]).unwrap(), head);
}

/// docs/formats.md is normative: it has every field of a checkpoint, and no other.
#[test]
fn the_document_has_every_field_of_a_checkpoint() {
    let mut site = Site::default();
    for (event, release) in [
        (Event::Received, 0),
        (Event::Swapped, 0),
        (Event::Swapped, 1),
        (Event::Activating, 0),
    ] {
        site.append(&Record {
            previous: Some(id(0)),
            ..Record::unattended(event, Some(&id(release)))
        });
    }
    site.history.part = Some(Part { first: 1, bytes: 2 });
    let written = serde_json::to_value(&site.history).unwrap();
    let mut written: Vec<&str> = written
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let document = include_str!("../../../docs/formats.md");
    let section = document.split("\n### Checkpoints\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut documented: Vec<&str> = rows
        .flat_map(|row| row.split(" | ").next().unwrap().split(", "))
        .map(|name| name.trim_matches('`'))
        .collect();
    written.sort_unstable();
    documented.sort_unstable();
    assert_eq!(documented, written);
}
