//! Tables of requests and decisions. A history is a line of words: `+a` receives
//! a, `a` swaps to it, `a?` swaps to it and its checks have not passed, `~a`
//! rolls back to it, `!a` marks it bad, `-a` removes it.

use super::*;
use crate::store::journal::{Event, Record};

fn id(text: &str) -> ReleaseId {
    ReleaseId::try_from(text).unwrap()
}

fn history(words: &str) -> History {
    let mut history = History::default();
    for word in words.split_whitespace() {
        let name = word.trim_matches(|sign: char| !sign.is_ascii_alphanumeric());
        let event = match word.as_bytes()[0] {
            b'+' => Event::Received,
            b'~' => Event::RolledBack,
            b'!' => Event::Failed,
            b'-' => Event::Pruned,
            _ => Event::Swapped,
        };
        history.apply(&Record {
            seq: history.generation + 1,
            unconfirmed: word.ends_with('?'),
            previous: history.live.clone(),
            ..Record::unattended(event, Some(&id(name)))
        });
    }
    history
}

/// A site that has these releases; one with a `!` fails preflight, one with a
/// `/` is a directory without a manifest, one with a `^` is the floor.
struct Releases {
    words: &'static str,
    floor: Option<ReleaseId>,
}

impl Releases {
    fn new(words: &'static str) -> Releases {
        let floor = words.split_whitespace().find_map(|it| it.strip_suffix('^'));
        Releases {
            words,
            floor: floor.map(id),
        }
    }

    fn word(&self, release: &ReleaseId) -> Option<&str> {
        let mut words = self.words.split_whitespace();
        words.find(|word| word.trim_end_matches(['!', '/', '^']) == release.as_str())
    }
}

impl Facts for Releases {
    fn has_directory(&self, release: &ReleaseId) -> bool {
        self.word(release).is_some()
    }

    fn present(&self) -> Vec<ReleaseId> {
        let words = self
            .words
            .split_whitespace()
            .filter(|it| !it.ends_with('/'));
        words
            .map(|it| id(it.trim_end_matches(['!', '^'])))
            .collect()
    }

    fn floor(&self) -> Option<&ReleaseId> {
        self.floor.as_ref()
    }

    fn passes_preflight(&self, release: &ReleaseId) -> bool {
        // The tables give a release below the floor its `!`.
        let word = self.word(release);
        word.is_some_and(|word| !word.ends_with(['!', '/']))
    }
}

/// Plans a request in words: `swap a`, `rollback`, `rollback a if b`.
fn planned(words: &str, floor: Option<&str>, checks: bool, request: &str) -> Result<Plan, Refusal> {
    let history = history(words);
    let (request, expected) = match request.split_once(" if ") {
        Some((request, expected)) => (request, Some(id(expected))),
        None => (request, None),
    };
    let (verb, release) = match request.split_once(' ') {
        Some((verb, release)) => (verb, Some(id(release))),
        None => (request, None),
    };
    let present: Vec<ReleaseId> = history.releases.keys().cloned().collect();
    let floor = floor.map(id);
    plan(
        &history,
        &present,
        floor.as_ref(),
        checks,
        ActivationRequest {
            kind: if verb == "swap" {
                RequestKind::Swap
            } else {
                RequestKind::Rollback
            },
            release: release.as_ref(),
            sha256: None,
            if_current: expected.as_ref(),
        },
    )
}

#[test]
fn a_request_moves_the_symlink() {
    for (history, request, from, to) in [
        ("+a", "swap a", "-", "a"),
        ("+a +b a", "swap b", "a", "b"),
        ("+a +b a", "swap b if a", "a", "b"),
        ("+a +b +c a b c", "rollback", "c", "b"),
        ("+a +b +c a b c", "rollback a", "c", "a"),
        // A rollback skips a bad release, and one that was removed.
        ("+a +b +c a b c ~b", "rollback", "b", "a"),
        ("+a +b +c a b c -b", "rollback", "c", "a"),
        ("+a +b +c a b c !b", "rollback", "c", "a"),
        // It skips a release whose checks have not passed.
        ("+a +b +c a b? c", "rollback", "c", "a"),
        // A swap clears a bad release.
        ("+a +b a b ~a", "swap b", "a", "b"),
        ("+a +b a b ~a b a", "rollback", "a", "b"),
    ] {
        let plan = planned(history, None, true, request);
        let Ok(Plan::Move(planned)) = plan else {
            panic!("{history}: {request}: {plan:?}")
        };
        let live = planned.from.as_ref().map_or("-", ReleaseId::as_str);
        assert_eq!(
            (live, planned.to.as_str()),
            (from, to),
            "{history}: {request}"
        );
    }
}

#[test]
fn a_live_release_is_checked_again_only_if_its_checks_have_not_passed() {
    let unchanged = |confirm| Plan::Unchanged {
        release: id("b"),
        confirm,
    };
    let recheck = Plan::Recheck {
        release: id("b"),
        previous: Some(id("a")),
    };
    for (history, checks, expected) in [
        ("+a +b a b", true, unchanged(false)),
        ("+a +b a b", false, unchanged(false)),
        ("+a +b a b?", true, recheck),
        // The configuration has no checks any more.
        ("+a +b a b?", false, unchanged(true)),
    ] {
        let plan = planned(history, None, checks, "swap b");
        assert_eq!(plan, Ok(expected), "{history}");
    }
}

#[test]
fn a_request_is_refused() {
    let not_current = |live: Option<&str>, expected| Refusal::NotCurrent {
        live: live.map(id),
        expected: id(expected),
    };
    let not_good = |release, why| Refusal::NotGood(id(release), why);
    for (history, floor, request, refusal) in [
        ("+a", None, "swap b", Refusal::Absent(id("b"))),
        ("+a", None, "swap a if a", not_current(None, "a")),
        ("+a +b a", None, "swap b if b", not_current(Some("a"), "b")),
        // The comparison comes first.
        ("+a a", None, "swap x if b", not_current(Some("a"), "b")),
        ("+a a", None, "rollback", Refusal::NoPrevious),
        ("+a +b a b ~a", None, "rollback", Refusal::NoPrevious),
        ("+a +b a? b", None, "rollback", Refusal::NoPrevious),
        ("+a a", None, "rollback b", not_good("b", NotGood::Absent)),
        (
            "+a +b a",
            None,
            "rollback b",
            not_good("b", NotGood::NeverLive),
        ),
        (
            "+a +b a b ~a",
            None,
            "rollback b",
            not_good("b", NotGood::Bad),
        ),
        // A release that was removed and received again was never live.
        (
            "+a +b a b -a +a",
            None,
            "rollback a",
            not_good("a", NotGood::NeverLive),
        ),
        // The floor.
        ("+a +b a b", Some("b"), "rollback", Refusal::NoPrevious),
        (
            "+a +b a b",
            Some("x"),
            "rollback",
            Refusal::UnknownFloor(id("x")),
        ),
    ] {
        let plan = planned(history, floor, true, request);
        assert_eq!(plan, Err(refusal), "{history}: {request}");
    }
}

#[test]
fn a_release_must_be_one_of_the_payloads_that_the_request_may_name() {
    let digest = |byte| Sha256Digest([byte; 32]);
    let check = |digests: &[Sha256Digest]| check_digest(&id("a"), digests, digest(1));
    assert_eq!(check(&[digest(1)]), Ok(()));
    assert_eq!(check(&[digest(2), digest(1)]), Ok(()));
    let refused = Err(Refusal::OtherPayload(id("a")));
    assert_eq!(check(&[digest(2)]), refused);
    assert_eq!(check(&[]), refused);
}

#[test]
fn the_floor_is_the_order_of_arrival() {
    let history = history("+b +a +c -a");
    let check = |floor: &str, release: &str| {
        check_above_floor(&history, Some(&id(floor)), &id(release)).is_ok()
    };
    for (floor, release, passes) in [
        ("b", "c", true),
        ("c", "c", true),
        ("c", "b", false),
        ("a", "b", false),
        ("a", "c", true),
        ("x", "c", false),
    ] {
        assert_eq!(
            check(floor, release),
            passes,
            "{release} with the floor {floor}"
        );
    }
    assert!(check_above_floor(&history, None, &id("b")).is_ok());
}

/// Returns the fallback of a swap to `to`.
fn fallback(words: &str, to: &str, releases: &'static str, commit: &str) -> Option<String> {
    let before = history(words);
    let present: Vec<ReleaseId> = before.releases.keys().cloned().collect();
    let request = ActivationRequest {
        kind: if commit.contains('~') {
            RequestKind::Rollback
        } else {
            RequestKind::Swap
        },
        release: Some(&id(to)),
        sha256: None,
        if_current: None,
    };
    let Ok(Plan::Move(planned)) = plan(&before, &present, None, true, request) else {
        panic!("{words}: no move to {to}")
    };
    let after = history(&format!("{words} {commit}"));
    let chosen = planned.fallback(&after, &Releases::new(releases));
    // The same before the commit, where the fallback symlink is prepared.
    assert_eq!(planned.fallback(&before, &Releases::new(releases)), chosen);
    chosen.map(|id| id.to_string())
}

#[test]
fn the_fallback_is_what_was_live_or_what_a_rollback_chooses() {
    for (history, releases, to, commit, expected) in [
        // Nothing was live.
        ("+a", "a", "a", "a?", None),
        // What was live, without preflight or manifest.
        ("+a +b +c a b", "a b c", "c", "c?", Some("b")),
        ("+a +b +c a b", "a b! c", "c", "c?", Some("b")),
        ("+a +b +c a b", "a b/ c", "c", "c?", Some("b")),
        // A rollback marks it bad, and falls back to it all the same.
        ("+a +b a b", "a b", "a", "~a?", Some("b")),
        // It is gone: what a rollback would choose, if that passes preflight.
        ("+a +b +c a b", "a c", "c", "c?", Some("a")),
        ("+a +b +c a b", "a! c", "c", "c?", None),
        ("+a +b +c a b", "c", "c", "c?", None),
        // A rollback skips a release below the floor.
        ("+a +b +c +d b a d", "a! b^ c", "c", "c?", Some("b")),
        ("+a +c +d a d", "a! c^", "c", "c?", None),
        // It was bad before.
        ("+a +b +c a b !b", "a b c", "c", "c?", Some("a")),
        ("+b +c b !b", "b c", "c", "c?", None),
        // Its checks have not passed: only if there is none better.
        ("+a +b +c a b?", "a b c", "c", "c?", Some("a")),
        ("+a +b +c a b?", "a! b c", "c", "c?", Some("b")),
        ("+b +c b?", "b c", "c", "c?", Some("b")),
        ("+b +c b?", "c", "c", "c?", None),
    ] {
        let chosen = fallback(history, to, releases, commit);
        assert_eq!(chosen.as_deref(), expected, "{history} with {releases}");
    }
}

#[test]
fn a_failed_recheck_moves_only_to_a_release_that_passes_preflight() {
    let revert = |previous: Option<&str>, fallback: Option<&str>| {
        FailedRecheck::Revert(Revert {
            failed: id("c"),
            previous: previous.map(id),
            fallback: fallback.map(id),
        })
    };
    for (words, releases, expected) in [
        // It was confirmed: its surroundings have failed.
        ("+a +c a c", "a c", FailedRecheck::StayConfirmed),
        ("+a +c a c?", "a c", revert(Some("a"), Some("a"))),
        (
            "+a +b +c a b c?",
            "a b! c",
            FailedRecheck::StayWithoutFallback,
        ),
        ("+a +b +c a b -b c?", "a c", revert(Some("b"), Some("a"))),
        ("+a +b +c a b? c?", "a b c", revert(Some("b"), Some("a"))),
        ("+a +c a !a c?", "a c", FailedRecheck::StayWithoutFallback),
        ("+a +c a c?", "c", FailedRecheck::StayWithoutFallback),
        // Nothing was live before.
        ("+c c?", "c", revert(None, None)),
    ] {
        let history = history(words);
        let previous = history.before.clone();
        let decision = after_failed_recheck(&history, &Releases::new(releases), id("c"), previous);
        assert_eq!(decision, expected, "{words} with {releases}");
    }
}

#[test]
fn only_a_failed_check_of_a_swap_marks_its_target_bad() {
    for (kind, failure, marks) in [
        (
            RequestKind::Swap,
            GateFailure::failed("it exited with 1"),
            true,
        ),
        (
            RequestKind::Swap,
            GateFailure::inconclusive("no such file"),
            false,
        ),
        (
            RequestKind::Rollback,
            GateFailure::failed("it exited with 1"),
            false,
        ),
        (
            RequestKind::Rollback,
            GateFailure::inconclusive("no such file"),
            false,
        ),
    ] {
        assert_eq!(
            should_mark_bad_before_commit(kind, &failure),
            marks,
            "{kind:?} {failure}"
        );
    }
    assert!(should_mark_bad_when_superseded(
        &history("+a +b a b?"),
        &id("b")
    ));
    assert!(!should_mark_bad_when_superseded(
        &history("+a +b a b"),
        &id("b")
    ));
}
