//! Journals, and the state that they fold into.

use super::*;

fn id(text: &str) -> ReleaseId {
    ReleaseId::try_from(text).unwrap()
}

fn record(index: usize, event: Event, release: &str) -> Record {
    Record {
        seq: index as u64 + 1,
        time: Timestamp::from_second(index as i64).unwrap(),
        event,
        how: Some(How::Rollback),
        unconfirmed: false,
        release: Some(id(release)),
        previous: None,
        first: None,
        sha256: None,
        files: None,
        bytes: None,
        tree: None,
        commit: None,
        ms: None,
        key: None,
        fingerprint: None,
        client: None,
    }
}

/// Folds `(event, release)` pairs; activations take the live one as previous.
fn fold(events: &[(Event, &str)]) -> History {
    let mut history = History::default();
    for (index, (event, release)) in events.iter().enumerate() {
        let previous = history.live.clone();
        history.apply(&Record {
            previous,
            ..record(index, *event, release)
        });
    }
    history
}

use Event::*;

#[test]
fn rollback_walks_back_over_bad_ones() {
    let abc = [(Swapped, "a"), (Swapped, "b"), (Swapped, "c")];
    let previous =
        |events: &[(Event, &str)]| fold(events).previous(|_| true).map(|id| id.to_string());
    assert_eq!(previous(&abc).as_deref(), Some("b"));
    let once = [&abc[..], &[(RolledBack, "b")]].concat();
    assert_eq!(previous(&once).as_deref(), Some("a"));
    let twice = [&once[..], &[(RolledBack, "a")]].concat();
    assert_eq!(previous(&twice), None);
    let cleared = [&twice[..], &[(Swapped, "c"), (Swapped, "a")]].concat();
    assert_eq!(previous(&cleared).as_deref(), Some("c"));
}

#[test]
fn rollback_goes_to_no_release_that_is_gone_or_below_the_floor() {
    let history = fold(&[
        (Received, "a"),
        (Received, "b"),
        (Received, "c"),
        (Swapped, "a"),
        (Swapped, "b"),
        (Swapped, "c"),
    ]);
    let target = |present: &[&str], floor: Option<&str>| {
        let present: Vec<ReleaseId> = present.iter().map(|release| id(release)).collect();
        let target = history.rollback_target(&present, floor.map(id).as_ref());
        target.map(ReleaseId::to_string)
    };
    assert_eq!(target(&["a", "b", "c"], None).as_deref(), Some("b"));
    assert_eq!(target(&["a", "c"], None).as_deref(), Some("a"));
    assert_eq!(target(&["a", "b", "c"], Some("b")).as_deref(), Some("b"));
    assert_eq!(target(&["a", "c"], Some("b")), None);
    assert_eq!(target(&["c"], None), None);
}

#[test]
fn a_release_is_known_from_its_first_record_on() {
    let history = fold(&[(Received, "a"), (Received, "b"), (Pruned, "b")]);
    let known = ["a", "b", "c"].map(|release| history.knows(&id(release)));
    assert_eq!(known, [true, true, false]);
    // An entry is made once, and by events that can be the first of a release.
    let makes = |event, release: &str| {
        let record = record(3, event, release);
        history.entry_made_by(&record).map(ReleaseId::to_string)
    };
    assert_eq!(makes(Received, "c").as_deref(), Some("c"));
    assert_eq!(makes(Reconciled, "b").as_deref(), Some("b"));
    assert_eq!(makes(Received, "a"), None);
    assert_eq!(makes(Pruned, "c"), None);
}

#[test]
fn a_release_that_is_pruned_and_received_again_is_pending() {
    let events = [
        (Swapped, "a"),
        (Swapped, "b"),
        (Pruned, "a"),
        (Received, "a"),
    ];
    let history = fold(&events);
    assert_eq!(history.previous(|_| true), None);
    assert_eq!(history.state(&id("a"), None), State::Pending);
}

#[test]
fn a_release_that_is_received_again_stays_below_the_floor() {
    let events = [
        (Received, "a"),
        (Received, "b"),
        (Received, "c"),
        (Pruned, "a"),
        (Pruned, "b"),
        (Received, "a"),
    ];
    let history = fold(&events);
    let not_before = |floor: &str| {
        ["a", "b", "c"].map(|id_| history.received_at_or_after(&id(id_), Some(&id(floor))))
    };
    assert_eq!(not_before("a"), [true, true, true]);
    assert_eq!(not_before("b"), [false, true, true]);
    assert_eq!(not_before("c"), [false, false, true]);
    assert_eq!(not_before("x"), [false; 3]);
    assert!(history.received_at_or_after(&id("x"), None));
}

#[test]
fn the_intent_completes_a_journal_that_lags() {
    let history = fold(&[(Swapped, "a"), (Swapped, "b"), (Activating, "a")]);
    let missing = |link: Option<&str>| {
        let link = link.map(id);
        history
            .missing_record(link.as_ref())
            .map(|record| record.event)
    };
    assert_eq!(missing(Some("a")), Some(RolledBack));
    // Only an intent says how; the record of a move says it by its event.
    let completed = history.missing_record(Some(&id("a"))).unwrap();
    assert_eq!((completed.how, completed.previous), (None, Some(id("b"))));
    // With any other symlink, the intent was abandoned.
    assert_eq!(
        [missing(Some("b")), missing(Some("c")), missing(None)],
        [Some(Abandoned); 3]
    );

    let settled = fold(&[(Swapped, "a"), (Activating, "b"), (Abandoned, "b")]);
    assert!(settled.missing_record(Some(&id("a"))).is_none());
    let moved = settled.missing_record(Some(&id("b"))).unwrap();
    assert_eq!((moved.event, moved.previous), (Reconciled, Some(id("a"))));
}

#[test]
fn an_unconfirmed_release_is_never_previous() {
    let unconfirmed = |release: &str| Record {
        unconfirmed: true,
        ..Record::unattended(Swapped, Some(&id(release)))
    };
    let confirmed = |release: &str| Record::unattended(Confirmed, Some(&id(release)));
    let after = |records: &[Record]| {
        let mut history = fold(&[(Swapped, "a"), (Received, "b"), (Received, "c")]);
        for record in records {
            let seq = history.generation + 1;
            history.apply(&Record {
                seq,
                ..record.clone()
            });
        }
        history
    };
    let passed = after(&[unconfirmed("b"), confirmed("b"), unconfirmed("c")]);
    assert!(passed.confirmation_pending);
    assert_eq!(passed.previous(|_| true), Some(&id("b")));
    let left = after(&[unconfirmed("b"), unconfirmed("c"), confirmed("c")]);
    assert!(!left.confirmation_pending);
    assert_eq!(left.previous(|_| true), Some(&id("a")));
    assert_eq!(left.state(&id("b"), None), State::Bad);

    let returned = Record {
        event: Reverted,
        previous: Some(id("b")),
        ..unconfirmed("a")
    };
    let back = after(&[unconfirmed("b"), returned.clone()]);
    assert_eq!(back.live, Some(id("a")));
    assert!(back.confirmation_pending && back.releases[&id("a")].confirmed);
    let gone_on = after(&[unconfirmed("b"), returned.clone(), unconfirmed("c")]);
    assert_eq!(gone_on.previous(|_| true), Some(&id("a")));
    assert_eq!(back.state(&id("b"), None), State::Bad);
    assert_eq!(back.previous(|_| true), None);

    // A record was lost, on a full disk.
    let unheard = after(&[unconfirmed("b"), confirmed("b"), unconfirmed("a"), returned]);
    assert_eq!(unheard.state(&id("b"), None), State::Bad);
    assert!(!unheard.releases[&id("a")].bad);

    let failed = after(&[Record::unattended(Failed, Some(&id("c")))]);
    assert_eq!(failed.state(&id("c"), None), State::Bad);
    let again = after(&[Record::unattended(Failed, Some(&id("c"))), unconfirmed("c")]);
    assert!(!again.releases[&id("c")].bad);
}

#[test]
fn the_intent_completes_a_return_to_nothing() {
    let mut history = fold(&[(Swapped, "a")]);
    history.apply(&Record {
        how: Some(How::Revert),
        ..Record::unattended(Activating, None)
    });
    let missing = history.missing_record(None).unwrap();
    assert_eq!(
        (missing.event, &missing.previous),
        (Reverted, &Some(id("a")))
    );
    history.apply(&missing);
    assert_eq!(history.state(&id("a"), None), State::Bad);
}

#[test]
fn a_release_is_pending_until_it_is_live_or_bad() {
    let history = fold(&[
        (Received, "p"),
        (Received, "f"),
        (Failed, "f"),
        (Swapped, "x"),
        (RolledBack, "a"),
    ]);
    let pending = |name: &str| history.releases[&id(name)].is_pending();
    assert!(pending("p"));
    // One failed before it was live, one was rolled back from, one is live.
    assert_eq!(["f", "x", "a"].map(pending), [false; 3]);
}

#[test]
fn every_state_has_one_word() {
    for (state, word) in [
        (State::Current, "current"),
        (State::Previous, "previous"),
        (State::Good, "good"),
        (State::Bad, "bad"),
        (State::Pending, "pending"),
        (State::Missing, "missing"),
        (State::NotReceived, "not-received"),
    ] {
        assert_eq!(state.name(), word);
        // `list --json` has the same one.
        assert_eq!(serde_json::to_value(state).unwrap(), word);
    }
}

#[test]
fn every_state_is_reached() {
    let history = fold(&[
        (Received, "p"),
        (Swapped, "g"),
        (Swapped, "a"),
        (Swapped, "x"),
        (RolledBack, "a"),
        (Swapped, "b"),
    ]);
    let previous = history.previous(|_| true);
    let state = |name: &str| history.state(&id(name), previous);
    assert_eq!(
        [state("b"), state("a"), state("g"), state("x"), state("p")],
        [
            State::Current,
            State::Previous,
            State::Good,
            State::Bad,
            State::Pending
        ]
    );
}

/// Folds records, each with its time in minutes.
fn fold_at(records: &[(i64, Event, &str)]) -> History {
    let mut history = History::default();
    for (index, (minute, event, release)) in records.iter().enumerate() {
        history.apply(&Record {
            seq: index as u64 + 1,
            time: at(*minute),
            sha256: Some(Sha256Digest([1; 32])),
            ..Record::unattended(*event, Some(&id(release)))
        });
    }
    history
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).unwrap()
}

#[test]
fn no_time_is_after_that_of_a_later_record() {
    let records = [
        (1, Received, "a"),
        (9000, Received, "b"),
        (9000, Swapped, "b"),
        (9001, Swapped, "a"),
        (20, Received, "c"),
    ];
    let history = fold_at(&records);
    let release = |name: &str| &history.releases[&id(name)];
    assert_eq!(release("a").received, at(1));
    assert_eq!(release("a").last_live(), Some(at(20)));
    assert_eq!(release("b").received, at(20));
    assert_eq!(release("b").last_live(), Some(at(20)));
    assert_eq!(release("c").received, at(20));
    // The order is that of the records.
    assert_eq!(release("b").activated, Some((3, at(20))));
    let receipts: Vec<_> = history.received.iter().map(|it| it.time).collect();
    assert_eq!(receipts, [at(20), at(20)]);
}

#[test]
fn no_time_is_after_now_and_a_receive_of_the_future_does_not_count() {
    let records = [(1, Received, "a"), (9000, Received, "b")];
    let mut history = fold_at(&records);
    history.observe(at(30));
    assert_eq!(history.latest(), at(9000));
    assert_eq!(history.releases[&id("a")].received, at(1));
    assert_eq!(history.releases[&id("b")].received, at(30));
    assert!(history.received.is_empty(), "{:?}", history.received);
    // With the next record it counts as of then.
    let history = fold_at(&[&records[..], &[(31, Pruned, "a")]].concat());
    let receipts: Vec<_> = history.received.iter().map(|it| it.time).collect();
    assert_eq!(receipts, [at(31)]);
}

#[test]
fn receives_are_counted_for_an_hour() {
    let records = [
        (0, Received, "a"),
        (1, Received, "b"),
        (59, Received, "c"),
        (60, Received, "d"),
    ];
    let history = fold_at(&records);
    let receipts: Vec<_> = history.received.iter().map(|it| it.time).collect();
    assert_eq!(receipts, [at(1), at(59), at(60)]);
}

#[test]
fn a_release_has_what_the_last_receive_of_it_recorded() {
    let record = Record {
        seq: 2,
        ms: Some(7),
        key: Some(KeyLabel::try_from("ci").unwrap()),
        sha256: Some(Sha256Digest([1; 32])),
        tree: Some(Sha256Digest([2; 32])),
        files: Some(3),
        bytes: Some(4),
        commit: Some(CommitId::try_from("0123abc").unwrap()),
        ..Record::unattended(Received, Some(&id("a")))
    };
    // It was there before, without a record of its receive.
    let mut history = fold(&[(Reconciled, "a")]);
    history.apply(&record);
    let release = &history.releases[&id("a")];
    assert!(!release.recovered);
    assert_eq!(
        (&release.key, release.sha256, release.tree),
        (&record.key, record.sha256, record.tree)
    );
    assert_eq!(
        (release.files, release.bytes, &release.commit),
        (record.files, record.bytes, &record.commit)
    );
    // The limits of a key count its receives.
    let keys: Vec<_> = history.received.iter().map(|it| &it.key).collect();
    assert_eq!(keys, [&record.key]);
    // No request recorded this one.
    history.apply(&Record { ms: None, ..record });
    assert!(history.releases[&id("a")].recovered);
}

#[test]
fn an_id_keeps_its_content_after_its_removal() {
    let (one, other) = (Sha256Digest([1; 32]), Sha256Digest([2; 32]));
    let content = |history: &History| history.id_use(&id("a")).unwrap().content;
    let mut history = fold_at(&[(1, Received, "a"), (2, Pruned, "a")]);
    assert_eq!(content(&history), Content::One(one));
    assert!(content(&history).excludes(other) && !content(&history).excludes(one));
    let again = |sha256| Record {
        seq: 3,
        sha256: Some(sha256),
        ..Record::unattended(Received, Some(&id("a")))
    };
    history.apply(&again(one));
    assert_eq!(content(&history), Content::One(one));
    // An earlier version permitted other content.
    history.apply(&again(other));
    assert_eq!(content(&history), Content::Several);
    assert!(content(&history).excludes(one) && content(&history).excludes(other));
    let linked = fold_at(&[(1, Reconciled, "a"), (2, Pruned, "a")]);
    assert!(!content(&linked).excludes(one));
}

fn place(history: &History, release: &str) -> Option<(u64, FirstLeave)> {
    let place = history.releases[&id(release)].place;
    place.map(|place| (place.seq, place.left))
}

#[test]
fn passed_checks_earn_a_place_after_a_swap_and_not_after_a_rollback() {
    let swapped = [(Swapped, "a"), (Swapped, "b"), (Confirmed, "b")];
    assert_eq!(place(&fold(&swapped), "b"), Some((3, FirstLeave::NotYet)));
    let rolled_back = [(Swapped, "a"), (Swapped, "b"), (RolledBack, "a")];
    let history = fold(&[&rolled_back[..], &[(Confirmed, "a")]].concat());
    assert_eq!(place(&history, "a"), None);
}

#[test]
fn no_swap_rollback_or_bad_mark_changes_a_place() {
    let begun = [(Swapped, "a"), (Earned, "a"), (Swapped, "b"), (Earned, "b")];
    let history = fold(&begun);
    assert_eq!(place(&history, "a"), Some((2, FirstLeave::Replaced)));
    assert_eq!(place(&history, "b"), Some((4, FirstLeave::NotYet)));
    let later = [
        (RolledBack, "a"),
        (Earned, "a"),
        (Swapped, "b"),
        (Confirmed, "b"),
        (Swapped, "c"),
        (Failed, "b"),
        (RolledBack, "a"),
        (Swapped, "b"),
    ];
    for until in 1..=later.len() {
        let history = fold(&[&begun[..], &later[..until]].concat());
        assert_eq!(place(&history, "a"), Some((2, FirstLeave::Replaced)));
        // The first end of its time decides.
        assert_eq!(place(&history, "b"), Some((4, FirstLeave::RolledBack)));
    }
    let again = fold(&[&begun[..], &[(Pruned, "a"), (Received, "a")]].concat());
    assert_eq!(place(&again, "a"), None);
}

#[test]
fn good_releases_of_format_1_have_places_in_the_order_of_their_first_activation() {
    let mut history = fold(&[
        (Received, "p"),
        (Swapped, "a"),
        (Swapped, "b"),
        (Swapped, "a"),
        (Swapped, "x"),
        (RolledBack, "a"),
    ]);
    history.take(Entry::Format(1));
    assert_eq!(place(&history, "a"), None);
    history.take(Entry::Format(2));
    assert_eq!(place(&history, "a"), Some((2, FirstLeave::NotYet)));
    assert_eq!(place(&history, "b"), Some((3, FirstLeave::Replaced)));
    assert_eq!([place(&history, "x"), place(&history, "p")], [None; 2]);
    // A second line of that format earns nothing.
    history.apply(&Record {
        seq: 7,
        previous: Some(id("a")),
        ..Record::unattended(Swapped, Some(&id("p")))
    });
    history.take(Entry::Format(2));
    assert_eq!(place(&history, "p"), None);
}

#[test]
fn a_release_is_due_for_its_place_once_it_was_live_for_min_age() {
    let due = |events: &[(Event, &str)], min_age: u64, now: i64| {
        let now = Timestamp::from_second(now).unwrap();
        let due = fold(events).due_places(std::time::Duration::from_secs(min_age), now);
        let due: Vec<String> = due.iter().map(ToString::to_string).collect();
        due.join(" ")
    };
    // `a` is live from 0 to 1 s.
    let ab = [(Swapped, "a"), (Swapped, "b")];
    for (min_age, now, expected) in [
        (0, 1, "b a"),
        (1, 1, "a"),
        (1, 2, "b a"),
        (2, 2, ""),
        (2, 3, "b"),
        // The clock was set back.
        (2, 0, ""),
    ] {
        assert_eq!(due(&ab, min_age, now), expected, "{min_age} {now}");
    }
    let earned = [&ab[..], &[(Earned, "a"), (Earned, "b")]].concat();
    assert_eq!(due(&earned, 0, 9), "");
    assert_eq!(due(&[(Swapped, "a"), (RolledBack, "b")], 1, 1), "a");
}

#[test]
fn a_list_of_used_ids_is_remembered() {
    let (one, other) = (Sha256Digest([1; 32]), Sha256Digest([2; 32]));
    let listed = |first_seq, sha256| IdUse {
        first_seq,
        content: Content::One(sha256),
    };
    // `a` is in `releases`, `b` was removed after a record, and no record names `c`.
    let mut history = fold_at(&[(1, Received, "a"), (1, Received, "b"), (2, Pruned, "b")]);
    for release in ["a", "b", "c"] {
        history.remember(&id(release), listed(0, other));
    }
    let found = |history: &History, release| history.id_use(&id(release)).unwrap();
    for release in ["a", "b"] {
        let found = found(&history, release);
        assert_eq!((found.first_seq, found.content), (0, Content::Several));
        assert!(found.content.excludes(one));
    }
    assert_eq!(found(&history, "c"), listed(0, other));
}

#[test]
fn the_longest_time_live_is_that_without_a_break() {
    let longest = |history: &History, now| {
        let longest = history.releases[&id("a")].longest_live(at(now));
        longest.as_secs() / 60
    };
    // `a` is live from minute 0 to 7, and from 20 on.
    let history = fold_at(&[(0, Swapped, "a"), (7, Swapped, "b"), (20, Swapped, "a")]);
    for (now, expected) in [(20, 7), (26, 7), (29, 9)] {
        assert_eq!(longest(&history, now), expected, "{now}");
    }
}
