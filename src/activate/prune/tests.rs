//! Tables of histories and the releases that are pruned.

use super::*;
use crate::store::journal::Record;

fn id(text: &str) -> ReleaseId {
    ReleaseId::try_from(text).unwrap()
}

/// Returns what is pruned after a history in which one event happens each second.
///
/// `+a` receives a, `a` swaps to it, `~a` rolls back to it, `!a` marks it bad.
fn pruned(words: &str, rules: PruneRules<'_>) -> String {
    let mut history = History::default();
    let mut seconds = 0;
    for word in words.split_whitespace() {
        let event = match word.as_bytes()[0] {
            b'+' => Event::Received,
            b'~' => Event::RolledBack,
            b'!' => Event::Failed,
            _ => Event::Swapped,
        };
        seconds += 1;
        history.apply(&Record {
            seq: history.generation + 1,
            time: Timestamp::from_second(seconds).unwrap(),
            previous: history.live.clone(),
            ..Record::unattended(event, Some(&id(word.trim_start_matches(['+', '~', '!']))))
        });
    }
    let present: Vec<ReleaseId> = history.releases.keys().cloned().collect();
    let now = Timestamp::from_second(seconds).unwrap();
    let mut chosen: Vec<String> = choose_releases(&history, &present, rules, now)
        .iter()
        .map(ToString::to_string)
        .collect();
    chosen.sort();
    chosen.join(" ")
}

/// The rules that prune everything that may be pruned.
const STRICT: PruneRules<'static> = PruneRules {
    floor: None,
    keep: 0,
    min_age: Duration::ZERO,
    pending_max_age: Duration::ZERO,
};

#[test]
fn the_live_release_and_the_previous_good_one_stay() {
    for (history, expected) in [
        ("+a a", ""),
        ("+a +b a b", ""),
        ("+a +b +c a b c", "a"),
        // The previous good one is the one that a rollback chooses.
        ("+a +b +c a b c ~b", "c"),
        ("+a +b +c a b c !b", "b"),
        ("+a +b a", "b"),
        ("+a", "a"),
    ] {
        assert_eq!(pruned(history, STRICT), expected, "{history}");
    }
}

#[test]
fn good_and_bad_releases_are_kept_by_the_same_count() {
    let history = "+a +b +c +d +e +f a b c d e f !a !b";
    for (keep, expected) in [(0, "a b c d"), (1, "a c"), (2, ""), (9, "")] {
        let rules = PruneRules { keep, ..STRICT };
        assert_eq!(pruned(history, rules), expected, "keep {keep}");
    }
}

#[test]
fn a_release_stays_until_it_has_its_age() {
    // a was last live two seconds ago, and b came three seconds ago.
    let history = "+a +b +c +d a c d";
    for (seconds, expected) in [(0, "a b"), (1, "a b"), (2, "b"), (5, "b"), (6, "")] {
        let rules = PruneRules {
            min_age: Duration::from_secs(seconds),
            pending_max_age: Duration::from_secs(seconds),
            ..STRICT
        };
        assert_eq!(pruned(history, rules), expected, "{seconds} s");
    }
}

#[test]
fn a_release_below_the_floor_is_no_previous_one() {
    let floor = id("c");
    let rules = PruneRules {
        floor: Some(&floor),
        ..STRICT
    };
    assert_eq!(pruned("+a +b +c a b c", rules), "a b");
    assert_eq!(pruned("+c +a +b c a b", rules), "c");
}

#[test]
fn a_release_that_the_journal_does_not_know_stays() {
    let present = [id("foreign")];
    let chosen = choose_releases(&History::default(), &present, STRICT, Timestamp::UNIX_EPOCH);
    assert_eq!(chosen, []);
}
