//! Tables of pending releases, what goes of them, and whether one more has a place.

use super::*;
use crate::store::journal::{Event, Record};

const LIMITS: config::Pending = config::Pending {
    max: 5,
    max_per_key: 3,
    max_age: Duration::from_secs(86_400),
};

fn id(text: &str) -> ReleaseId {
    ReleaseId::try_from(text).unwrap()
}

fn label(text: &str) -> Option<KeyLabel> {
    (text != "-").then(|| KeyLabel::try_from(text).unwrap())
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

/// Returns a history in which each word `LABEL:RELEASE:MINUTES` is a receive, so long ago.
fn history_of(words: &str) -> History {
    let mut history = History::default();
    for word in words.split_whitespace() {
        let [key, release, minutes] = word.split(':').collect::<Vec<_>>()[..] else {
            panic!("{word}");
        };
        let minutes: i64 = minutes.parse().unwrap();
        history.apply(&Record {
            seq: history.generation + 1,
            time: now() - jiff::SignedDuration::from_mins(minutes),
            key: label(key),
            ms: Some(1),
            ..Record::unattended(Event::Received, Some(&id(release)))
        });
    }
    history
}

/// Returns those that are too many, of all releases of a history but `kept`.
fn surplus_of(history: &History, kept: &[ReleaseId], limits: &config::Pending) -> String {
    let present: Vec<ReleaseId> = history.releases.keys().cloned().collect();
    let counted = counted(history, &present, kept, limits.max_age, now());
    let ids = surplus(&counted, limits, MIN_PENDING_AGE);
    let ids: Vec<&str> = ids.into_iter().map(ReleaseId::as_str).collect();
    ids.join(" ")
}

fn assert_surplus(words: &str, expected: &str) {
    let history = history_of(words);
    assert_eq!(surplus_of(&history, &[], &LIMITS), expected, "{words}");
}

#[test]
fn a_label_with_too_many_loses_its_oldest_after_ten_minutes() {
    for (words, expected) in [
        ("", ""),
        ("c:a:60 c:b:50 c:d:40", ""),
        ("c:a:60 c:b:50 c:d:40 c:e:0", "a"),
        ("c:a:10 c:b:5 c:d:4 c:e:0", "a"),
        ("c:a:9 c:b:5 c:d:4 c:e:0", ""),
        // The limit was lowered since.
        ("c:a:60 c:b:50 c:d:40 c:e:9 c:f:0", "a b"),
        ("c:a:60 c:b:9 c:d:9 c:e:9 c:f:0", ""),
        ("x:a:60 x:b:50 x:d:40 c:e:0", ""),
        ("-:a:60 -:b:50 -:d:40 -:e:0", "a"),
        // Too old ones do not count.
        ("c:a:2000 c:b:50 c:d:40 c:e:0", ""),
    ] {
        assert_surplus(words, expected);
    }
}

#[test]
fn where_all_have_too_many_the_label_of_the_newest_or_the_largest_loses_one() {
    for (words, expected) in [
        ("y:a:60 x:b:50 x:d:40 x:e:30 c:f:0", ""),
        // The label of the newest has no other: the label with the most, then the one with
        // the oldest.
        ("y:a:60 x:b:50 x:d:40 x:e:30 y:f:20 c:n:0", "b"),
        ("y:a:60 x:b:50 x:d:40 y:e:30 z:f:20 c:n:0", "a"),
        // That label must have one that may go.
        ("y:a:60 x:b:9 x:d:8 x:e:7 y:f:6 c:n:0", "a"),
        ("y:a:9 x:b:9 x:d:8 x:e:7 y:f:6 c:n:0", ""),
        // The label of the newest has another.
        ("c:a:60 x:b:50 x:d:40 x:e:30 y:f:20 c:n:0", "a"),
        ("x:b:50 x:d:40 x:e:30 y:f:20 c:a:9 c:n:0", "b"),
        ("x:b:50 x:d:40 y:e:30 y:f:20 c:a:9 c:n:0", ""),
        // None loses its only one.
        ("u:a:60 v:b:60 x:d:60 y:e:60 z:f:60 c:n:0", ""),
        // No receive came for long: the newest one stays all the same.
        ("x:b:60 x:d:60 x:e:60 y:a:60 y:f:60 c:n:30", "b"),
        ("u:a:60 v:b:60 x:d:60 y:e:60 z:f:60 c:n:30", ""),
        // Uploads at the same time.
        ("y:a:60 x:b:50 x:d:40 x:e:30 y:f:20 c:n:0 v:m:0", "b a"),
    ] {
        assert_surplus(words, expected);
    }
}

#[test]
fn nothing_goes_where_too_many_would_be_left() {
    let history = history_of("x:a:60 x:b:50 c:n:0");
    for (max, max_per_key, expected) in
        [(0, 0, ""), (9, 0, ""), (1, 3, ""), (2, 3, "a"), (3, 1, "a")]
    {
        let limits = config::Pending {
            max,
            max_per_key,
            ..LIMITS
        };
        let what = format!("{max} {max_per_key}");
        assert_eq!(surplus_of(&history, &[], &limits), expected, "{what}");
    }
}

#[test]
fn a_release_that_was_live_or_may_have_been_stays() {
    let words = "c:a:60 c:b:50 c:d:40 c:e:30 c:f:0";
    assert_eq!(surplus_of(&history_of(words), &[], &LIMITS), "a b");
    // A symlink names it.
    assert_eq!(surplus_of(&history_of(words), &[id("a")], &LIMITS), "b d");
    // No request has recorded it.
    let mut history = history_of(words);
    history.releases.get_mut(&id("b")).unwrap().recovered = true;
    assert_eq!(surplus_of(&history, &[], &LIMITS), "a d");
    history.live = Some(id("a"));
    assert_eq!(surplus_of(&history, &[], &LIMITS), "d e");
}

#[test]
fn the_old_releases_of_a_label_go_for_space() {
    let history = history_of("c:a:60 x:b:50 -:d:40 c:e:10 c:f:9");
    let present: Vec<ReleaseId> = history.releases.keys().cloned().collect();
    let counted = counted(&history, &present, &[id("b")], LIMITS.max_age, now());
    for (key, expected) in [("c", vec!["a", "e"]), ("x", vec![]), ("-", vec!["d"])] {
        let ids = old_ones(&counted, label(key).as_ref());
        let ids: Vec<&str> = ids.into_iter().map(ReleaseId::as_str).collect();
        assert_eq!(ids, expected, "{key}");
    }
}
