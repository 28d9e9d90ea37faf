//! Every history of three releases up to a length, with every crash.
//!
//! The test runs the real [`super::run_plan`]: the real plan, commit and revert,
//! the real fold of the journal and the real choice of what to prune.
//! Only the disk and the operator's checks are a model. From the empty site, and
//! from a site with three pending releases, it applies every event to every
//! state that it finds, and continues from the end of each event and from a
//! crash after each step of it. The next request then reconciles the journal
//! with the disk, as `Ledger::open` does.
//!
//! Two states that differ only in the names of the releases are one state: no
//! decision depends on a name. `DEPLOY_SHELL_MODEL=all` searches until there is
//! no new state.

mod disk;
mod invariants;
mod state;

use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;

use super::plan::{ActivationRequest, RequestKind};
use crate::names::ReleaseId;
use crate::store::history::History;
use crate::store::journal::{Event, Record};
use invariants::Start;
use state::{Disk, State};

/// The length of the histories in the short form.
const SHORT: usize = 3;

/// How many releases there are.
const N: usize = 3;

fn ids() -> &'static [ReleaseId; N] {
    static IDS: OnceLock<[ReleaseId; N]> = OnceLock::new();
    IDS.get_or_init(|| ["a", "b", "c"].map(|id| ReleaseId::try_from(id).unwrap()))
}

fn index(id: &ReleaseId) -> usize {
    usize::from(id.as_str().as_bytes()[0] - b'a')
}

/// What happens to a site.
#[derive(Clone, Copy, Debug)]
enum Action {
    Receive(usize),
    Activate {
        kind: RequestKind,
        release: Option<usize>,
        /// Whether the configuration has post-swap checks.
        has_checks: bool,
    },
    /// Another process changes the current symlink.
    Point(Option<usize>),
    /// Another process removes a release.
    Remove(usize),
    /// Another process changes the content of a release.
    Damage(usize),
}

fn actions() -> Vec<Action> {
    let mut all = vec![Action::Point(None)];
    for release in 0..N {
        all.push(Action::Receive(release));
        all.push(Action::Point(Some(release)));
        all.push(Action::Remove(release));
        all.push(Action::Damage(release));
    }
    for has_checks in [true, false] {
        for release in [None, Some(0), Some(1), Some(2)] {
            for kind in [RequestKind::Swap, RequestKind::Rollback] {
                if kind == RequestKind::Rollback || release.is_some() {
                    all.push(Action::Activate {
                        kind,
                        release,
                        has_checks,
                    });
                }
            }
        }
    }
    all
}

/// The choices of the surroundings during one action: each run takes one
/// combination, and [`Choices::next`] goes to the next one.
#[derive(Default)]
struct Choices {
    /// Each choice, and how many there are.
    taken: Vec<(usize, usize)>,
    position: usize,
}

impl Choices {
    fn choose(&mut self, of: usize) -> usize {
        if self.position == self.taken.len() {
            self.taken.push((0, of));
        }
        self.position += 1;
        self.taken[self.position - 1].0
    }

    fn next(&mut self) -> bool {
        self.position = 0;
        while let Some((taken, of)) = self.taken.pop() {
            if taken + 1 < of {
                self.taken.push((taken + 1, of));
                return true;
            }
        }
        false
    }
}

/// The states that a search has found.
#[derive(Default)]
struct Found {
    keys: HashSet<u64>,
    /// The states among them to which no action was applied yet.
    new: Vec<State>,
    transitions: u64,
}

impl Found {
    fn add(&mut self, state: &State, known: &HashSet<u64>) {
        self.transitions += 1;
        let key = state.key();
        if !known.contains(&key) && self.keys.insert(key) {
            self.new.push(state.clone());
        }
    }
}

/// One action that runs on a state.
struct Run<'a> {
    state: State,
    action: Action,
    choices: &'a mut Choices,
    known: &'a HashSet<u64>,
    found: &'a mut Found,
    has_checks: bool,
    /// Another process interferes once in a request.
    interfered: bool,
    rename_failed: bool,
    /// How often this request moved the current symlink.
    moves: usize,
    start: Start,
    /// The state before the action.
    from: &'a State,
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} with the choices {:?}\n{:?}\nfrom {:?}\nnow {:?}",
            self.action, self.choices.taken, self.start, self.from, self.state
        )
    }
}

impl Run<'_> {
    /// Ends a step: the process may be killed here.
    fn step(&mut self) {
        self.found.add(&self.state, self.known);
    }

    fn apply(&mut self, mut record: Record) {
        record.seq = self.state.history.generation + 1;
        self.state.history.apply(&record);
        match record.event {
            Event::Activating => self.state.intent = Some(record),
            Event::Abandoned
            | Event::Swapped
            | Event::RolledBack
            | Event::Reverted
            | Event::Reconciled => self.state.intent = None,
            Event::Received | Event::Confirmed | Event::Failed | Event::Pruned | Event::Earned => {}
        }
        self.step();
    }

    fn act(&mut self) {
        match self.action {
            Action::Receive(release) => {
                self.reconcile();
                if self.state.disk[release] == Disk::Absent && self.state.link != Some(release) {
                    self.state.disk[release] = Disk::Whole;
                    self.state.passed[release] = true;
                    self.state.left[release] = false;
                    self.step();
                    let id = &ids()[release];
                    self.apply(Record::unattended(Event::Received, Some(id)));
                }
            }
            Action::Activate { kind, release, .. } => {
                self.reconcile();
                self.start = Start::of(&self.state);
                let request = ActivationRequest {
                    kind,
                    release: release.map(|release| &ids()[release]),
                    sha256: None,
                    if_current: None,
                };
                let outcome = super::run_plan(self, request);
                self.check_end(&outcome);
                self.step();
            }
            Action::Point(to) => self.point(to),
            Action::Remove(release) => self.state.disk[release] = Disk::Absent,
            Action::Damage(release) => {
                if self.state.disk[release] == Disk::Whole {
                    self.state.disk[release] = Disk::Damaged;
                }
            }
        }
        self.step();
    }

    /// Does what `Ledger::open` does. Terminates: each record removes its cause.
    fn reconcile(&mut self) {
        loop {
            let all = 0..N;
            let is_known = |release: &usize| self.state.known(*release).is_some();
            let is_there = |release: &usize| self.state.disk[*release] != Disk::Absent;
            let mut unknown = all.clone().filter(|it| is_there(it) && !is_known(it));
            let mut gone = all.filter(|it| is_known(it) && !is_there(it));
            let link = self.state.link.map(|link| &ids()[link]);
            if let Some(release) = unknown.next() {
                self.apply(Record::unattended(Event::Received, Some(&ids()[release])));
            } else if let Some(release) = gone.find(|it| self.state.link != Some(*it)) {
                self.apply(Record::unattended(Event::Pruned, Some(&ids()[release])));
            } else if let Some(record) = self.state.history.missing_record(link) {
                self.apply(record);
            } else {
                break;
            }
        }
        self.check_reconciled();
    }

    /// Another process changes the current symlink. The journal records that as a
    /// decision of the operator.
    fn point(&mut self, to: Option<usize>) {
        if self.state.link != to {
            // After a crash before the record, no journal can show what happened:
            // the symlink has moved since.
            let live = self.state.history.live.as_ref().map(index);
            if self.state.link != live {
                for release in self.state.link.into_iter().chain(live) {
                    self.state.passed[release] = true;
                    self.state.left[release] = false;
                }
            }
            self.state.link = to;
            if let Some(to) = to {
                self.state.passed[to] = true;
                self.state.left[to] = false;
            }
        }
    }

    /// Lets another process interfere while the operator's programs run.
    fn interfere(&mut self) {
        if self.interfered {
            return;
        }
        let choice = self.choices.choose(1 + 1 + N + N);
        self.interfered = choice > 0;
        match choice {
            0 => {}
            1 => self.point(None),
            to if to < 2 + N => self.point(Some(to - 2)),
            release => self.state.disk[release - 2 - N] = Disk::Absent,
        }
        if self.interfered {
            self.step();
        }
    }
}

/// Applies every action to every state of `frontier`.
fn expand(frontier: &[State], known: &HashSet<u64>) -> Found {
    let mut found = Found::default();
    let actions = actions();
    for state in frontier {
        for action in &actions {
            let mut choices = Choices::default();
            loop {
                let has_checks = matches!(
                    action,
                    Action::Activate {
                        has_checks: true,
                        ..
                    }
                );
                let mut run = Run {
                    state: state.clone(),
                    action: *action,
                    choices: &mut choices,
                    known,
                    found: &mut found,
                    has_checks,
                    interfered: false,
                    rename_failed: false,
                    moves: 0,
                    start: Start::of(state),
                    from: state,
                };
                run.act();
                if !choices.next() {
                    break;
                }
            }
        }
    }
    found
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test takes its length so")]
#[expect(clippy::disallowed_macros, reason = "the counts are for people")]
fn every_history_keeps_the_invariants() {
    let all = std::env::var("DEPLOY_SHELL_MODEL").is_ok_and(|what| what == "all");
    let length = if all { usize::MAX } else { SHORT };
    let started = std::time::Instant::now();
    let empty = State {
        history: History::default(),
        link: None,
        disk: [Disk::Absent; N],
        passed: [true; N],
        left: [false; N],
        intent: None,
    };
    let mut pending = State {
        disk: [Disk::Whole; N],
        ..empty.clone()
    };
    for id in ids() {
        pending.history.apply(&Record {
            seq: pending.history.generation + 1,
            ..Record::unattended(Event::Received, Some(id))
        });
    }
    let mut frontier = vec![empty, pending];
    let mut known: HashSet<u64> = frontier.iter().map(State::key).collect();
    let mut transitions = 0;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut step = 0;
    // Terminates: there are finitely many keys, and each is expanded once.
    while step < length && !frontier.is_empty() {
        let share = frontier.len().div_ceil(threads);
        let parts: Vec<Found> = std::thread::scope(|scope| {
            let workers: Vec<_> = frontier
                .chunks(share)
                .map(|part| scope.spawn(|| expand(part, &known)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        frontier = Vec::new();
        for part in parts {
            transitions += part.transitions;
            frontier.extend(part.new.into_iter().filter(|it| known.insert(it.key())));
        }
        step += 1;
        println!(
            "{step} events: {} states, {transitions} transitions, {:.1} s",
            known.len(),
            started.elapsed().as_secs_f32()
        );
    }
    assert!(
        transitions > 1_000_000,
        "the search is too small: {transitions}"
    );
}
