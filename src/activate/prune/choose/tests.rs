//! Tables of histories and the releases that are pruned.

use super::*;
use crate::store::history::words::history_of;
use crate::store::journal::{Event, Record};

fn id(text: &str) -> ReleaseId {
    ReleaseId::try_from(text).unwrap()
}

/// Returns what is pruned after [`history_of`] these words.
fn pruned(words: &str, rules: PruneRules<'_>) -> String {
    let (history, seconds) = history_of(words);
    let present: Vec<ReleaseId> = history.releases.keys().cloned().collect();
    let now = Timestamp::from_second(seconds).unwrap();
    let mut chosen: Vec<String> = choose_releases(&history, &present, rules, now)
        .iter()
        .map(ToString::to_string)
        .collect();
    chosen.sort();
    chosen.join(" ")
}

static NO_BRIDGE: Bridge = Bridge {
    paths: Vec::new(),
    max_age: Duration::ZERO,
    max_releases: 0,
};

/// The rules that prune everything that may be pruned.
const STRICT: PruneRules<'static> = PruneRules {
    floor: None,
    keep: 0,
    keep_for: None,
    min_age: Duration::ZERO,
    pending_max_age: Duration::ZERO,
    bridge: &NO_BRIDGE,
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
fn a_bad_mark_does_not_change_which_releases_are_kept() {
    let (live, earned) = (
        "+a +b +c +d +e +f a b c d e f",
        "a *a b *b c *c d *d e *e f *f",
    );
    for history in [live, earned] {
        for marks in ["", " !a !b", " !c !d"] {
            let history = format!("{history}{marks}");
            for (keep, expected) in [(0, "a b c d"), (1, "a b c"), (2, "a b"), (9, "")] {
                let rules = PruneRules { keep, ..STRICT };
                assert_eq!(pruned(&history, rules), expected, "{history}, keep {keep}");
            }
        }
    }
}

/// Seven good releases: the live one, the previous one and `keep`.
const SEVEN: &str = "a *a 600 b *b 600 c *c 600 d *d 600 e *e 600 f *f 600 g *g 600";

const DEFAULTS: PruneRules<'static> = PruneRules {
    keep: 5,
    min_age: Duration::from_secs(600),
    pending_max_age: Duration::from_secs(7 * 86_400),
    ..STRICT
};

#[test]
fn rollbacks_remove_nothing() {
    let steps = ["~f", "~e", "~d", "~c", "~b", "600 ~a", "600"];
    for count in 0..=steps.len() {
        let attack = format!("{SEVEN} {}", steps[..count].join(" "));
        assert_eq!(pruned(&attack, DEFAULTS), "", "{attack}");
    }
    // The same releases, none of which was live long enough for a place.
    let quick = format!("a b c d e f g 600 {} 600", steps.join(" "));
    assert_eq!(pruned(&quick, DEFAULTS), "");
}

#[test]
fn swaps_that_wait_for_nothing_remove_no_release_with_a_place() {
    let pending = "+p +q +r +s +t +u +v +w +x p q r s t u v w x";
    for attack in [
        pending.to_owned(),
        // They pass a gate that everything passes.
        pending
            .split(' ')
            .skip(9)
            .fold(String::new(), |all, it| format!("{all} +{it} {it} *{it}")),
        // The last two of the attacker wait at the end.
        format!("{pending} 600"),
    ] {
        let gone = pruned(&format!("{SEVEN} {attack}"), DEFAULTS);
        let good = gone
            .split(' ')
            .filter(|it| "abcdefg".contains(it) && !it.is_empty());
        assert_eq!(good.count(), 0, "{attack}: {gone}");
    }
}

#[test]
fn swaps_of_a_moment_displace_no_release_that_was_live_for_minutes() {
    let swaps = "+p +q +r +s +t +u +v +w p q r s t u v w";
    let gone = pruned(&format!("{SEVEN} new 590 {swaps} 600 g"), DEFAULTS);
    assert!(!gone.split(' ').any(|it| it == "new"), "{gone}");
    // The number of those without a place is bounded all the same.
    assert_ne!(gone, "");
    // A rollback from it at once leaves it as well: it is the newest.
    let before = "p 1 q 2 r 3 s 4 t 5 u 6 v 7 new";
    let gone = pruned(&format!("{before} ~p 600 ~q 600"), DEFAULTS);
    assert!(!gone.split(' ').any(|it| it == "new"), "{gone}");
}

#[test]
fn each_place_that_removes_another_takes_min_age() {
    let mut attack = SEVEN.to_owned();
    for (release, gone) in [("p", ""), ("q", "a"), ("r", "a b"), ("s", "a b c")] {
        attack.push_str(&format!(" +{release} {release}"));
        assert_eq!(pruned(&attack, DEFAULTS), gone, "{attack}");
        attack.push_str(&format!(" 600 *{release}"));
    }
    // Places that are earned at the same time count once.
    let together = format!("{SEVEN} p *p q *q r *r s *s t *t 600");
    assert_eq!(pruned(&together, DEFAULTS), "a");
}

#[test]
fn a_release_that_was_rolled_back_from_displaces_no_good_one() {
    let history = "a *a b *b c *c x *x ~c y *y ~c z *z ~c";
    let rules = |keep| PruneRules { keep, ..STRICT };
    assert_eq!(pruned(history, rules(1)), "x y");
    assert_eq!(pruned(history, rules(0)), "a x y z");
    // A swap clears the mark, and changes nothing of what is kept.
    assert_eq!(
        pruned(&format!("{history} x c y c z c b c"), rules(1)),
        "x y"
    );
    assert_eq!(pruned(&format!("{history} x y z"), rules(2)), "");
}

#[test]
fn a_release_with_a_place_stays_for_keep_for() {
    let rules = |days: u64| PruneRules {
        keep_for: Some(Duration::from_secs(days * 86_400)),
        ..STRICT
    };
    // `a` was last live two days ago, `b` one day ago, and `u` has no place.
    let history = "u a *a 86400 b *b 86400 c *c 86400 d *d";
    for (days, expected) in [(1, "a b"), (2, "a"), (3, ""), (0, "a b")] {
        assert_eq!(pruned(history, rules(days)), expected, "{days}");
    }
    assert_eq!(pruned("t u v a *a", rules(9)), "t");
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

/// A bridge is no reason to remove a release that would have stayed without it.
#[test]
fn releases_of_the_bridge_stay_and_displace_no_others() {
    let bridge = |seconds, max_releases| Bridge {
        paths: vec![String::from("assets").try_into().unwrap()],
        max_age: Duration::from_secs(seconds),
        max_releases,
    };
    // `c` is the previous release. `b` was last live one second ago, `a` two.
    let history = "+a +b +c +d a b c d";
    for (seconds, max_releases, expected) in [
        (0, 9, "a b"),
        (1, 9, "a b"),
        (2, 9, "a"),
        (9, 9, ""),
        (9, 2, "a"),
        (9, 1, "a b"),
    ] {
        let bridge = bridge(seconds, max_releases);
        let rules = PruneRules {
            bridge: &bridge,
            ..STRICT
        };
        let what = format!("{seconds} {max_releases}");
        assert_eq!(pruned(history, rules), expected, "{what}");
    }
    let (earned, bridge) = ("+a +b +c +d +e +f a b c d e f", bridge(9, 4));
    for keep in 0..5 {
        let without = PruneRules { keep, ..STRICT };
        let with = PruneRules {
            bridge: &bridge,
            ..without
        };
        let (without, with) = (pruned(earned, without), pruned(earned, with));
        assert!(without.contains(&with), "{keep}: {without}; {with}");
    }
}

#[test]
fn a_release_is_new_until_its_place_counts() {
    let rules = PruneRules {
        min_age: Duration::from_secs(2),
        ..STRICT
    };
    for (history, counting, removed) in [
        ("+a +p", "", ""),
        ("+a +b a", "", ""),
        // It has been live for long enough.
        ("+a +b a 9", "a", ""),
        ("+a +b a 9 b", "a", ""),
        // `d` is the previous release, and `e` has been live for long enough.
        ("+a +b +c +d +e a *a b *b c *c d e 9", "a b c d e", ""),
        ("+a +b +c +d +e a *a b *b c *c d e", "a b c", ""),
        ("+a +b +c +d a *a b *b c *c", "a b", ""),
        // Places within one `min_age`: the newest counts.
        ("+a +b +c +d +e a b c *a *b *c d e 9", "a c d e", "b"),
        ("+a +b +x +y a *a b *b x ~b y ~b 9", "a b", "x y"),
        // `a` was live for long, by a rollback; `c` is the previous release.
        ("+a +b +c a b ~a 9 c b 9", "a b c", ""),
    ] {
        let (mut state, seconds) = history_of(history);
        let key = KeyLabel::try_from("ci").unwrap();
        for release in state.releases.values_mut() {
            release.key = Some(key.clone());
        }
        let present: Vec<ReleaseId> = state.releases.keys().cloned().collect();
        let now = Timestamp::from_second(seconds).unwrap();
        let ids = releases_that_count(&state, &present, rules, now);
        let ids: Vec<&str> = ids.into_iter().map(ReleaseId::as_str).collect();
        assert_eq!(ids.join(" "), counting, "{history}");
        let ids = releases_that_do_not_count(&state, &present, rules, Some(&key), now);
        let mut ids: Vec<&str> = ids.iter().map(ReleaseId::as_str).collect();
        ids.sort_unstable();
        assert_eq!(ids.join(" "), removed, "{history}");
        let others = releases_that_do_not_count(&state, &present, rules, None, now);
        assert_eq!(others, [], "{history}");
    }
}

#[test]
fn a_release_below_the_floor_is_no_previous_one() {
    let floor = id("c");
    let rules = PruneRules {
        floor: Some(&floor),
        ..STRICT
    };
    // No release takes the place of the previous one, so another stays.
    assert_eq!(pruned("+a +b +c a b c", rules), "a");
    assert_eq!(pruned("+c +a +b c a b", rules), "c");
}

#[test]
fn a_release_that_the_journal_does_not_know_stays() {
    let present = [id("foreign")];
    let chosen = choose_releases(&History::default(), &present, STRICT, Timestamp::UNIX_EPOCH);
    assert_eq!(chosen, []);
}

/// What a stolen key does to a site, in every order.
///
/// Before the theft, four releases have earned their places (`a` to `d`, with `d` live),
/// one has failed (`e`), two are pending, and some were live for a moment.
#[derive(Clone)]
struct Theft {
    history: History,
    seconds: i64,
    /// How often `min_age` has passed.
    waits: usize,
    key: StolenKey,
}

#[derive(Clone, Copy, PartialEq)]
enum StolenKey {
    /// It may swap and roll back. With a gate, every release passes it.
    Swap { has_gate: bool },
    /// It may roll back, to any release that is good.
    Rollback {
        /// The control: a release earns its place also while it is live by a rollback.
        earns: bool,
    },
}

impl Theft {
    const KEEP: usize = 2;
    const MIN_AGE: i64 = 600;
    const BEFORE: [&str; 4] = ["a", "b", "c", "d"];
    const OTHERS: [&str; 3] = ["e", "p", "q"];

    /// `moments` are the releases that were live for a moment each.
    fn begin(key: StolenKey, moments: &[&str]) -> Theft {
        let mut theft = Theft {
            history: History::default(),
            seconds: 0,
            waits: 0,
            key,
        };
        for name in [&Theft::BEFORE[..], &Theft::OTHERS[..]].concat() {
            theft.record(Event::Received, &id(name));
        }
        theft.record(Event::Failed, &id("e"));
        for name in moments {
            theft.record(Event::Received, &id(name));
            theft.record(Event::Swapped, &id(name));
        }
        for name in Theft::BEFORE {
            theft.record(Event::Swapped, &id(name));
            theft.record(Event::Earned, &id(name));
            theft.seconds += Theft::MIN_AGE;
        }
        theft
    }

    fn record(&mut self, event: Event, release: &ReleaseId) {
        self.seconds += 1;
        self.history.apply(&Record {
            seq: self.history.generation + 1,
            time: self.now(),
            previous: self.history.live.clone(),
            ..Record::unattended(event, Some(release))
        });
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.seconds).unwrap()
    }

    fn present(&self) -> Vec<ReleaseId> {
        self.history.releases.keys().cloned().collect()
    }

    /// Journals the places that are due, as a request does before and after its move.
    fn note_places(&mut self) {
        let min_age = Duration::from_secs(Theft::MIN_AGE.unsigned_abs());
        if self.key == (StolenKey::Rollback { earns: true }) {
            let releases = self.history.releases.values_mut();
            releases.for_each(|release| release.by_rollback = false);
        }
        for release in self.history.due_places(min_age, self.now()) {
            self.record(Event::Earned, &release);
        }
    }

    fn activate(mut self, event: Event, to: &ReleaseId, rules: PruneRules<'_>) -> Theft {
        self.note_places();
        self.record(event, to);
        let has_gate = self.key == StolenKey::Swap { has_gate: true };
        if has_gate && self.history.releases[to].place.is_none() {
            self.record(Event::Earned, to);
        }
        self.note_places();
        for release in choose_releases(&self.history, &self.present(), rules, self.now()) {
            self.record(Event::Pruned, &release);
        }
        self
    }

    /// Rolls back to a release that fails its checks: the revert to the live one passes
    /// them.
    fn fail(mut self, to: &ReleaseId, rules: PruneRules<'_>) -> Theft {
        let live = self.history.live.clone().expect("one is live");
        self = self.activate(Event::RolledBack, to, rules);
        self.record(Event::Reverted, &live);
        self.record(Event::Confirmed, &live);
        self.note_places();
        self
    }

    /// Returns what every possible next step leads to.
    fn next(&self, rules: PruneRules<'_>) -> Vec<Theft> {
        let present = self.present();
        let others = (present.iter()).filter(|to| self.history.live.as_ref() != Some(to));
        let mut all: Vec<Theft> = match self.key {
            StolenKey::Swap { .. } => (others.map(|to| (Event::Swapped, to)))
                .chain(
                    self.history
                        .rollback_target(&present, None)
                        .map(|to| (Event::RolledBack, to)),
                )
                .map(|(event, to)| self.clone().activate(event, to, rules))
                .collect(),
            StolenKey::Rollback { .. } => others
                .filter(|to| self.history.releases[*to].good())
                .flat_map(|to| {
                    [
                        self.clone().activate(Event::RolledBack, to, rules),
                        self.clone().fail(to, rules),
                    ]
                })
                .collect(),
        };
        let mut later = self.clone();
        later.seconds += Theft::MIN_AGE;
        later.waits += 1;
        all.push(later);
        all
    }

    /// Returns how many of the newest `keep` releases that had earned their places
    /// before the theft are gone.
    fn removed(&self, keep: usize) -> usize {
        let newest = &Theft::BEFORE[Theft::BEFORE.len() - keep..];
        let is_gone = |name: &&&str| !self.history.releases.contains_key(&id(name));
        newest.iter().filter(is_gone).count()
    }
}

/// Tries every sequence of `steps` steps. Returns whether one of them removes more good
/// releases than `permitted`, and the number of sequences.
fn removes_more_than(
    permitted: fn(&Theft) -> usize,
    begin: Theft,
    rules: PruneRules<'_>,
    steps: usize,
) -> (bool, usize) {
    let (mut more, mut tried) = (false, 0);
    let mut open = vec![(begin, steps)];
    // Terminates: what is added has one step less.
    while let Some((theft, left)) = open.pop() {
        tried += 1;
        more |= theft.removed(rules.keep) > permitted(&theft);
        if left > 0 {
            let next = theft.next(rules).into_iter();
            open.extend(next.map(|theft| (theft, left - 1)));
        }
    }
    (more, tried)
}

/// No sequence of swaps and rollbacks removes any of the newest `keep` releases that had
/// earned their places before the theft. Only waiting does: at most one for each
/// `min_age`.
#[test]
fn no_sequence_of_swaps_and_rollbacks_removes_a_good_release() {
    let rules = PruneRules {
        keep: Theft::KEEP,
        min_age: Duration::from_secs(Theft::MIN_AGE.unsigned_abs()),
        ..DEFAULTS
    };
    let waits = |theft: &Theft| theft.waits;
    for has_gate in [false, true] {
        let begin = Theft::begin(StolenKey::Swap { has_gate }, &[]);
        let (more, tried) = removes_more_than(waits, begin, rules, 5);
        assert!(tried > 10_000, "{tried}");
        assert!(!more);
    }
    // The control: without the pace of min_age, swaps alone remove one.
    let hasty = PruneRules {
        min_age: Duration::ZERO,
        ..rules
    };
    let begin = Theft::begin(StolenKey::Swap { has_gate: true }, &[]);
    assert!(removes_more_than(waits, begin, hasty, 5).0);
}

/// No sequence of rollbacks removes any of the newest `keep` releases that had earned
/// their places, however long it waits.
#[test]
fn no_sequence_of_rollbacks_removes_a_good_release() {
    // With one, an attack needs the fewest steps.
    let rules = PruneRules {
        keep: 1,
        min_age: Duration::from_secs(Theft::MIN_AGE.unsigned_abs()),
        ..DEFAULTS
    };
    let try_all = |earns| {
        let begin = Theft::begin(StolenKey::Rollback { earns }, &["m", "n", "o"]);
        removes_more_than(|_| 0, begin, rules, 5)
    };
    let (more, tried) = try_all(false);
    assert!(tried > 5_000, "{tried}");
    assert!(!more);
    assert!(try_all(true).0, "the control finds nothing");
}
