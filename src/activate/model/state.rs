//! The state of the modelled site, and the number that identifies it.

use std::fmt;

use super::{N, ids, index};
use crate::store::history::{History, Release};
use crate::store::journal::Record;

/// What `releases/` and `manifests/` have of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    Absent,
    /// It is there, and fails preflight.
    Damaged,
    Whole,
}

/// A site between two steps.
#[derive(Clone)]
pub struct State {
    pub history: History,
    pub link: Option<usize>,
    pub disk: [Disk; N],
    /// Whether the release really passed its checks when it last went live. The
    /// journal must not say that any other release passed.
    pub passed: [bool; N],
    /// Whether a rollback left the release: the journal must say that it is bad.
    pub left: [bool; N],
    /// The intent in the journal. The history has it too, in a private field.
    pub intent: Option<Record>,
}

impl State {
    /// Returns what the journal has of a release.
    pub fn known(&self, release: usize) -> Option<&Release> {
        self.history.releases.get(&ids()[release])
    }

    /// Returns a number that is the same for two states exactly if they differ
    /// at most in times, counters and the names of the releases.
    pub fn key(&self) -> u64 {
        let live = self.history.live.as_ref().map(index);
        let before = self.history.before.as_ref().map(index);
        let mut order = [u64::MAX; N];
        let mut own = [0u64; N];
        for release in 0..N {
            let is = |other: Option<usize>| u64::from(other == Some(release));
            let mut bits = self.disk[release] as u64;
            bits = bits << 1 | is(self.link);
            bits = bits << 1 | is(live);
            bits = bits << 1 | is(before);
            bits = bits << 1 | u64::from(self.passed[release]);
            bits = bits << 1 | u64::from(self.left[release]);
            if let Some(known) = self.known(release) {
                let newest = known.activated.map(|(seq, _)| seq);
                order[release] = newest.unwrap_or(known.seq);
                bits = bits << 4
                    | 8
                    | u64::from(newest.is_some()) << 2
                    | u64::from(known.bad) << 1
                    | u64::from(known.confirmed);
            } else {
                bits <<= 4;
            }
            if let Some(intent) = &self.intent {
                bits = bits << 1 | is(intent.release.as_ref().map(index));
                bits = bits << 1 | is(intent.previous.as_ref().map(index));
            } else {
                bits <<= 2;
            }
            own[release] = bits;
        }
        // Order the releases by rank, so that the number does not depend on their
        // names.
        for release in 0..N {
            let rank = order.iter().filter(|other| **other < order[release]);
            own[release] = own[release] << 2 | rank.count() as u64;
        }
        own.sort_unstable();
        let mut key = u64::from(self.history.confirmation_pending);
        let intent = self.intent.as_ref();
        key = key << 3
            | intent.map_or(0, |intent| {
                1 + 2 * (intent.how.unwrap() as u64) + u64::from(intent.unconfirmed)
            });
        for bits in own {
            key = key << 16 | bits;
        }
        key
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = &self.history;
        let intent = self.intent.as_ref().map(|it| (it.how, &it.release));
        writeln!(
            f,
            "link {:?} disk {:?} passed {:?} left {:?} live {:?} before {:?} pending {:?} intent {intent:?}",
            self.link,
            self.disk,
            self.passed,
            self.left,
            history.live,
            history.before,
            history.confirmation_pending
        )?;
        for (id, known) in &history.releases {
            let (activated, bad) = (known.activated.map(|(seq, _)| seq), known.bad);
            let confirmed = known.confirmed;
            writeln!(f, "{id}: {activated:?} bad {bad} confirmed {confirmed}")?;
        }
        Ok(())
    }
}
