//! Tables of pending releases, and those that make place for an upload.

use super::*;
use crate::store::journal::{Event, Record};

const LIMITS: config::Pending = config::Pending {
    max: 5,
    max_per_key: 3,
    max_age: Duration::from_secs(86_400),
};

const ROOMY: Room = Room {
    bytes: 1 << 40,
    inodes: 1 << 20,
    block: 4096,
};

fn id(text: &str) -> ReleaseId {
    ReleaseId::try_from(text).unwrap()
}

fn label(text: &str) -> Option<KeyLabel> {
    (text != "-").then(|| KeyLabel::try_from(text).unwrap())
}

/// Returns a history in which each word `KEY:RELEASE:MINUTES` is a receive, so long ago.
fn history_of(words: &str, now: Timestamp) -> History {
    let mut history = History::default();
    for word in words.split_whitespace() {
        let [key, release, minutes] = word.split(':').collect::<Vec<_>>()[..] else {
            panic!("{word}");
        };
        let minutes: i64 = minutes.parse().unwrap();
        history.apply(&Record {
            seq: history.generation + 1,
            time: now - jiff::SignedDuration::from_mins(minutes),
            key: label(key),
            files: Some(1),
            bytes: Some(4096),
            ms: Some(1),
            ..Record::unattended(Event::Received, Some(&id(release)))
        });
    }
    history
}

/// Returns what an upload of this key removes.
fn removed(words: &str, key: &str, free: Option<Room>) -> String {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let history = history_of(words, now);
    let present: Vec<ReleaseId> = history.releases.keys().cloned().collect();
    let counted = counted(&history, &present, LIMITS.max_age, now);
    let key = label(key);
    let ids = displaced(&counted, &LIMITS, key.as_ref(), free, &[], now);
    let ids: Vec<&str> = ids.iter().map(ReleaseId::as_str).collect();
    ids.join(" ")
}

#[test]
fn the_oldest_release_of_a_label_makes_place_after_ten_minutes() {
    for (words, expected) in [
        ("", ""),
        ("c:a:60 c:b:50", ""),
        ("c:a:60 c:b:50 c:d:40", "a"),
        ("c:a:10 c:b:5 c:d:4", "a"),
        ("c:a:9 c:b:5 c:d:4", ""),
        // The limit was lowered since: as many as needed.
        ("c:a:60 c:b:50 c:d:40 c:e:9", "a b"),
        // It would be refused all the same.
        ("c:a:60 c:b:9 c:d:9 c:e:9", ""),
        // Those of another label are no concern of this one.
        ("x:a:60 x:b:50 x:d:40", ""),
        ("x:a:60 c:b:50 c:d:40", ""),
        ("-:a:60 -:b:50 -:d:40", ""),
    ] {
        assert_eq!(removed(words, "c", Some(ROOMY)), expected, "{words}");
    }
    assert_eq!(removed("-:a:60 -:b:50 -:d:40", "-", Some(ROOMY)), "a");
}

#[test]
fn the_label_with_the_most_gives_a_place_to_one_without_any() {
    for (words, expected) in [
        ("x:a:60 x:b:50 y:d:40 y:e:30", ""),
        ("y:a:60 x:b:50 x:d:40 x:e:30 y:f:20", "b"),
        ("y:a:60 x:b:9 x:d:8 x:e:7 y:f:6", "a"),
        ("y:a:9 x:b:9 x:d:8 x:e:7 y:f:6", ""),
        ("x:d:70 y:a:60 y:b:50 x:e:30 z:f:20", "d"),
        // Its own one makes place, and no other.
        ("c:a:60 x:b:50 x:d:40 x:e:30 y:f:20", "a"),
        ("x:b:50 x:d:40 x:e:30 y:f:20 c:a:9", ""),
        // Uploads at the same time may be more than the limit.
        ("y:a:60 x:b:50 x:d:40 x:e:30 y:f:20 x:g:15 x:h:11", "b d e"),
        ("y:a:60 x:b:50 x:d:40 x:e:30 y:f:20 c:g:15", "g b"),
        // None loses its last place.
        ("u:a:60 v:b:60 x:d:60 y:e:60 z:f:60", ""),
    ] {
        assert_eq!(removed(words, "c", Some(ROOMY)), expected, "{words}");
    }
}

/// Such an upload is refused, and must remove nothing of others.
#[test]
fn a_label_that_may_have_none_takes_no_place() {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let history = history_of("x:a:60 x:b:50", now);
    let present = [id("a"), id("b")];
    let counted = counted(&history, &present, LIMITS.max_age, now);
    for (max, max_per_key) in [(0, 0), (0, 3), (2, 0)] {
        let limits = config::Pending {
            max,
            max_per_key,
            ..LIMITS
        };
        let key = label("c");
        let removed = displaced(&counted, &limits, key.as_ref(), Some(ROOMY), &[], now);
        assert_eq!(removed, [], "{max} {max_per_key}");
    }
}

#[test]
fn releases_that_leave_little_room_go_after_ten_minutes() {
    let with = |bytes, inodes| Room {
        bytes,
        inodes,
        ..ROOMY
    };
    // Each takes 8,192 bytes and an inode.
    let words = "c:a:60 c:b:50";
    for (free, expected) in [
        (with(65_536, 100), ""),
        (with(65_535, 100), "a"),
        (with(32_768, 100), "a"),
        (with(32_767, 100), "a b"),
        (with(1 << 40, 8), ""),
        (with(1 << 40, 7), "a"),
        (with(1 << 40, u64::MAX), ""),
    ] {
        assert_eq!(removed(words, "c", Some(free)), expected, "{free:?}");
    }
    assert_eq!(removed(words, "c", None), "a b");
    assert_eq!(removed("c:a:9 c:b:5", "c", None), "");
    assert_eq!(removed("x:a:60 x:b:50", "c", None), "");
}

/// They may have been live.
#[test]
fn releases_without_a_record_make_no_place() {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let mut history = history_of("-:a:60 -:b:50 -:d:40", now);
    for name in ["a", "d"] {
        history.releases.get_mut(&id(name)).unwrap().recovered = true;
    }
    let present = [id("a"), id("b"), id("d")];
    let counted = counted(&history, &present, LIMITS.max_age, now);
    let removed = displaced(&counted, &LIMITS, None, Some(ROOMY), &[], now);
    assert_eq!(removed, [id("b")]);
    let removed = displaced(&counted, &LIMITS, None, Some(ROOMY), &[id("b")], now);
    assert_eq!(removed, []);
}
