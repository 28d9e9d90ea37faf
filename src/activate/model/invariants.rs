//! What must hold in every history.

use super::{Action, Disk, N, Run, State, index};
use crate::activate::outcome::Outcome;
use crate::activate::plan::RequestKind;
use crate::error::Result;
use crate::store::journal::How;
use crate::success::Change;

/// The site when a request has reconciled it, before it changes anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    live: Option<usize>,
    before: Option<usize>,
    bad: [bool; N],
}

impl Start {
    pub(super) fn of(state: &State) -> Start {
        let mut bad = [false; N];
        for (release, bad) in bad.iter_mut().enumerate() {
            *bad = state.known(release).is_some_and(|known| known.bad);
        }
        Start {
            live: state.history.live.as_ref().map(index),
            before: state.history.before.as_ref().map(index),
            bad,
        }
    }
}

impl Run<'_> {
    /// Returns the release that was last live and is good, of those that exist,
    /// without the live one and `except`.
    fn newest_good(&self, except: Option<usize>) -> Option<usize> {
        let live = self.state.history.live.as_ref().map(index);
        (0..N)
            .filter(|it| Some(*it) != live && Some(*it) != except)
            .filter(|it| self.state.disk[*it] != Disk::Absent)
            .filter_map(|it| Some((it, self.state.known(it)?)))
            .filter(|(_, known)| !known.bad)
            .filter_map(|(it, known)| Some((known.activated?.0, it)))
            .max()
            .map(|(_, it)| it)
    }

    /// The journal agrees with the disk once a request has reconciled it.
    pub(super) fn check_reconciled(&self) {
        let live = self.state.history.live.as_ref().map(index);
        assert_eq!(live, self.state.link, "the journal is wrong: {self:?}");
        assert!(self.state.intent.is_none(), "an intent is left: {self:?}");
        for release in 0..N {
            let known = self.state.known(release);
            let there = self.state.disk[release] != Disk::Absent;
            assert!(
                known.is_some() == there || live == Some(release),
                "the journal is wrong about {release}: {self:?}"
            );
            let Some(known) = known else { continue };
            assert!(
                !known.confirmed || self.state.passed[release],
                "{release} passes for confirmed: {self:?}"
            );
            assert!(
                !self.state.left[release] || known.bad,
                "a rollback left {release}, and it is not bad: {self:?}"
            );
            // A rollback goes to a good release: it must be confirmed.
            assert!(
                live == Some(release) || !known.good() || known.confirmed,
                "{release} is good and unconfirmed: {self:?}"
            );
        }
    }

    /// The current symlink never names a release that does not exist. A revert never
    /// restores a bad release, nor an unconfirmed one while a rollback would find a
    /// better one.
    pub(super) fn check_move(&self, how: How, to: Option<usize>) {
        if how != How::Revert {
            let to = to.expect("a request names a release");
            assert_eq!(
                self.state.link, self.start.live,
                "an external change is undone: {self:?}"
            );
            assert_eq!(self.state.disk[to], Disk::Whole, "{to}: {self:?}");
            if let Action::Activate {
                kind: RequestKind::Rollback,
                release,
                ..
            } = self.action
            {
                assert!(!self.start.bad[to], "a rollback to a bad one: {self:?}");
                assert!(
                    release == Some(to) || self.interfered || self.newest_good(None) == Some(to),
                    "not the newest good release: {self:?}"
                );
            }
            return;
        }
        let failed = self.state.link;
        // A release that this request left was live moments ago. If the request
        // found the failed one live, everything may have changed since.
        let recheck = self.start.live == failed;
        let previous = if recheck {
            self.start.before
        } else {
            self.start.live
        };
        let better = self
            .newest_good(failed)
            .filter(|it| self.state.disk[*it] == Disk::Whole);
        let Some(to) = to else {
            let usable = |it: usize| !self.start.bad[it] && self.state.disk[it] != Disk::Absent;
            assert!(
                previous.is_none_or(|it| !recheck && !usable(it) && better.is_none()),
                "a fallback was there: {self:?}"
            );
            return;
        };
        assert!(Some(to) != failed, "{self:?}");
        assert!(!self.start.bad[to], "the fallback is bad: {self:?}");
        assert!(
            self.state.disk[to] == Disk::Whole
                || (!recheck && previous == Some(to) && self.state.disk[to] == Disk::Damaged),
            "the fallback is not there: {self:?}"
        );
        let confirmed = self.state.known(to).is_none_or(|known| known.confirmed);
        assert!(
            confirmed || (!recheck && previous == Some(to) && better.is_none()),
            "the fallback is unconfirmed: {self:?}"
        );
    }

    /// Pruning never removes the live release or the one that a rollback goes to.
    pub(super) fn check_prune(&self, release: usize) {
        let live = self.state.history.live.as_ref().map(index);
        assert!(
            Some(release) != self.state.link && Some(release) != live,
            "the live release is pruned: {self:?}"
        );
        assert_ne!(
            Some(release),
            self.newest_good(None),
            "the fallback is pruned: {self:?}"
        );
    }

    /// The result says what has happened.
    pub(super) fn check_end(&self, outcome: &Result<Outcome>) {
        let live = self.state.history.live.as_ref().map(index);
        let pending = self.state.history.confirmation_pending;
        if !self.interfered {
            assert_eq!(live, self.state.link, "{outcome:?}: {self:?}");
            assert!(
                self.state.link == self.start.live
                    || self
                        .state
                        .link
                        .is_none_or(|it| self.state.disk[it] != Disk::Absent),
                "{outcome:?}: {self:?}"
            );
        }
        let moves = match outcome {
            Ok(Outcome::Live {
                release, change, ..
            }) => {
                let release = index(release);
                assert!(!pending, "{outcome:?}: {self:?}");
                assert!(self.state.passed[release], "{outcome:?}: {self:?}");
                assert!(
                    self.state.link == Some(release) || (self.interfered && !self.has_checks),
                    "{outcome:?}: {self:?}"
                );
                usize::from(*change == Change::Moved)
            }
            Ok(Outcome::Aborted { failed, .. }) => {
                let Action::Activate { kind, .. } = self.action else {
                    unreachable!("no other action activates")
                };
                let known = self.state.known(index(failed));
                let bad = known.is_some_and(|known| known.bad);
                assert!(
                    kind == RequestKind::Swap
                        || bad == self.start.bad[index(failed)]
                        || known.is_none(),
                    "a rollback marks its target bad: {self:?}"
                );
                0
            }
            Err(_) | Ok(Outcome::StaysLive { .. }) => 0,
            Ok(Outcome::Superseded { .. }) => {
                assert!(self.interfered, "{outcome:?}: {self:?}");
                self.moves
            }
            Ok(Outcome::RevertFailed { .. }) => {
                assert!(self.rename_failed, "{outcome:?}: {self:?}");
                self.moves
            }
            Ok(Outcome::Reverted { failed, .. }) => {
                let failed = index(failed);
                assert!(
                    self.state.link != Some(failed) || self.interfered,
                    "{outcome:?}: {self:?}"
                );
                let known = self.state.known(failed);
                assert!(
                    known.is_none_or(|known| known.bad),
                    "the failed release is not bad: {self:?}"
                );
                if self.start.live == Some(failed) {
                    1
                } else {
                    2
                }
            }
        };
        assert_eq!(self.moves, moves, "{outcome:?}: {self:?}");
    }
}
