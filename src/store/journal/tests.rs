//! A journal that is cut at every byte, and lines that this version did not write.

use super::reader::{Extent, Unreadable, read_entries};
use super::*;

/// A record with every field.
fn full(seq: u64, event: Event) -> Record {
    let id = |text: &str| Some(ReleaseId::try_from(text).unwrap());
    Record {
        seq,
        time: "2026-04-12T14:20:41Z".parse().unwrap(),
        event,
        how: Some(How::Rollback),
        unconfirmed: true,
        release: id("20260412-142033"),
        previous: id("20260411-090000"),
        first: Some(3),
        sha256: Some(Sha256Digest([0xab; 32])),
        tree: Some(Sha256Digest([0xcd; 32])),
        files: Some(12),
        bytes: Some(3456),
        commit: Some(CommitId::try_from("0123abc").unwrap()),
        ms: Some(1234),
        key: Some(KeyLabel::try_from("ci").unwrap()),
        fingerprint: Some("SHA256:abc".to_owned()),
        client: Some("2001:db8::7".parse().unwrap()),
    }
}

fn line(record: &Record) -> Vec<u8> {
    [&serde_json::to_vec(record).unwrap()[..], b"\n"].concat()
}

/// One record of every event: the lines of a valid journal.
fn lines() -> Vec<Vec<u8>> {
    let record = |(index, event): (usize, &Event)| full(index as u64 + 1, *event);
    let records = Event::ALL.iter().enumerate().map(record);
    records.map(|record| line(&record)).collect()
}

fn read(bytes: &[u8]) -> Result<(usize, Extent), Unreadable> {
    let mut records = 0;
    let extent = read_entries(bytes, |entry| {
        records += usize::from(matches!(entry, Entry::Record(_)));
    })?;
    Ok((records, extent))
}

fn whole(records: usize, len: usize) -> Result<(usize, Extent), Unreadable> {
    let last_seq = records as u64;
    let format = 1;
    Ok((
        records,
        Extent {
            last_seq,
            format,
            len,
        },
    ))
}

#[test]
fn every_prefix_is_a_shorter_journal_with_a_torn_line_at_most() {
    let lines = lines();
    let journal = lines.concat();
    for cut in 0..=journal.len() {
        let mut len = 0;
        let kept = lines.iter().take_while(|line| {
            let fits = len + line.len() <= cut;
            len += if fits { line.len() } else { 0 };
            fits
        });
        let records = kept.count();
        assert_eq!(read(&journal[..cut]), whole(records, len), "cut at {cut}");
        // The file system may have allocated the rest of the line already.
        for hole in [&b"\0"[..], b"\0\n", &[0; 512]] {
            let torn = [&journal[..cut], hole].concat();
            assert_eq!(read(&torn), whole(records, len), "hole at {cut}");
        }
    }
}

#[test]
fn no_intact_line_is_dropped_anywhere() {
    let lines = lines();
    let newer: [(&str, &str); 6] = [
        (
            r#"{"format":3}"#,
            "format 3, and this version reads up to format 2",
        ),
        (
            r#"{"format":4,"by":"x"}"#,
            "format 4, and this version reads up to format 2",
        ),
        (r#"{"seq":99,"event":"adopted"}"#, "the event 'adopted'"),
        (
            r#"{"seq":99,"event":"swapped","colour":"x"}"#,
            "the field 'colour'",
        ),
        (
            r#"{"event":"swapped","how":"adopt"}"#,
            "the value of 'how' 'adopt'",
        ),
        (r#"{"event":"a\nb"}"#, r"the event 'a\x0ab'"),
    ];
    let damaged: [(&str, &str); 7] = [
        ("{}", "is not a record"),
        ("null", "is not a record"),
        ("[]", "is not a record"),
        (r#"{"format":0}"#, "is not a record"),
        (r#"{"format":1,"seq":1}"#, "is not a record"),
        (r#"{"event":"swapped"}"#, "is not a record"),
        (
            r#"{"seq":99,"time":"2026-04-12T14:20:41Z","event":"swapped","release":"a"}"#,
            "does not have the next sequence number",
        ),
    ];
    for at in 0..=lines.len() {
        let with = |text: &str| {
            let text = format!("{text}\n");
            read(
                &[
                    &lines[..at].concat(),
                    text.as_bytes(),
                    &lines[at..].concat(),
                ]
                .concat(),
            )
        };
        let line = at + 1;
        for (text, what) in newer {
            let what = what.to_owned();
            assert_eq!(with(text), Err(Unreadable::Newer { line, what }), "{text}");
        }
        for (text, why) in damaged {
            assert_eq!(with(text), Err(Unreadable::Damaged { line, why }), "{text}");
        }
        let prose = with("prose");
        if at == lines.len() {
            assert_eq!(prose, whole(at, lines.concat().len()));
        } else {
            let why = "is not JSON";
            assert_eq!(prose, Err(Unreadable::Damaged { line, why }));
        }
    }
}

#[test]
fn a_line_may_say_the_format_that_this_version_reads() {
    for format in [1, 2] {
        let mut lines = lines();
        let records = lines.len();
        for at in [0, 3] {
            lines.insert(at, format!("{{\"format\":{format}}}\n").into_bytes());
        }
        let (read, extent) = read(&lines.concat()).unwrap();
        assert_eq!((read, extent.format), (records, format));
        assert_eq!(extent.len, lines.concat().len());
    }
}

/// docs/formats.md is normative: it has every event and every field, and none
/// that does not exist.
#[test]
fn the_document_has_every_event_and_field() {
    let document = include_str!("../../../docs/formats.md");
    let table = |heading: &str| -> Vec<&str> {
        let section = document
            .split(&format!("\n### {heading}\n"))
            .nth(1)
            .unwrap();
        let section = section.split("\n#").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| row.split('`').next().unwrap()).collect()
    };
    let text = |event: &Event| serde_json::to_value(event).unwrap();
    let events: Vec<_> = Event::ALL.iter().map(text).collect();
    assert_eq!(table("Events"), events);
    assert_eq!(table("Fields"), Record::FIELDS);
    let value = serde_json::to_value(full(1, Event::Swapped)).unwrap();
    let mut written: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    let mut fields = Record::FIELDS;
    fields.sort_unstable();
    written.sort_unstable();
    assert_eq!(written, fields);
}
