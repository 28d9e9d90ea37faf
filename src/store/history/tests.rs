//! Journals, and the state that they fold into.

use super::*;

fn id(text: &str) -> ReleaseId {
    ReleaseId::try_from(text).unwrap()
}

/// Folds `(event, release)` pairs; activations take the live one as previous.
fn fold(events: &[(Event, &str)]) -> History {
    let mut history = History::default();
    for (index, (event, release)) in events.iter().enumerate() {
        history.apply(&Record {
            seq: index as u64 + 1,
            time: Timestamp::from_second(index as i64).unwrap(),
            event: *event,
            how: Some(How::Rollback),
            unconfirmed: false,
            release: Some(id(release)),
            previous: history.live.clone(),
            sha256: None,
            files: None,
            bytes: None,
            key: None,
            fingerprint: None,
            client: None,
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
