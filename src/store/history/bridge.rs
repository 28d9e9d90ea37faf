//! The releases whose files the bridge offers, besides those of the live one.
//!
//! Pruning and `deploy-shell-admin bridge` both choose by this, so pruning removes no
//! release to which a bridge of this moment leads.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::History;
use crate::config::Bridge;
use crate::names::ReleaseId;
use crate::store::journal;

impl History {
    /// Returns the releases of `present` that the bridge offers, the newest first: those
    /// that were live and good within `max_age`, and at most `max_releases`. The live one
    /// is not among them. None where the site has no bridge.
    ///
    /// A bad release is not offered, and neither is one that the floor excludes: an
    /// operator who marks or excludes a release does not want its files to be served.
    pub fn bridged<'a>(
        &self,
        present: &'a [ReleaseId],
        floor: Option<&ReleaseId>,
        bridge: &Bridge,
        now: Timestamp,
    ) -> Vec<&'a ReleaseId> {
        let last_live = |id: &ReleaseId| {
            let release = self.releases.get(id).filter(|release| release.good())?;
            let age = journal::age(release.last_live()?, now);
            (age < bridge.max_age).then_some(release.activated)
        };
        let mut bridged: Vec<_> = (present.iter())
            .filter(|id| bridge.is_configured() && self.live.as_ref() != Some(*id))
            .filter(|id| self.received_at_or_after(id, floor))
            .filter_map(|id| Some((last_live(id)?, id)))
            .collect();
        // One release is live at a time: they stopped being live in the order in which
        // they became live.
        bridged.sort_unstable_by_key(|(activated, _)| Reverse(*activated));
        bridged.truncate(bridge.max_releases);
        bridged.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::history::words::history_of;

    fn id(text: &str) -> ReleaseId {
        ReleaseId::try_from(text).unwrap()
    }

    /// Returns what is bridged `later` seconds after [`history_of`] these words.
    fn bridged(words: &str, later: i64, floor: Option<&str>, bridge: &Bridge) -> String {
        let (history, seconds) = history_of(words);
        let present: Vec<ReleaseId> = history.releases.keys().cloned().collect();
        let now = Timestamp::from_second(seconds + later).unwrap();
        let floor = floor.map(id);
        let found = history.bridged(&present, floor.as_ref(), bridge, now);
        found
            .iter()
            .map(|id| id.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn bridge(max_age: u64, max_releases: usize) -> Bridge {
        Bridge {
            paths: vec![String::from("assets").try_into().unwrap()],
            max_age: Duration::from_secs(max_age),
            max_releases,
        }
    }

    #[test]
    fn releases_that_were_live_and_good_are_bridged_the_newest_first() {
        let long = bridge(1000, 10);
        for (history, expected) in [
            ("+a a", ""),
            ("+a +b a", ""),
            ("+a +b +c a b c", "b a"),
            ("+a +b +c a b a c", "a b"),
            // A rollback marks the release that it leaves.
            ("+a +b +c a b c ~b", "a"),
            ("+a +b +c a b c !b", "a"),
            // A swap to it takes the mark away.
            ("+a +b +c a b c ~b c", "b a"),
        ] {
            assert_eq!(bridged(history, 0, None, &long), expected, "{history}");
        }
    }

    #[test]
    fn age_number_and_floor_end_it() {
        let history = "+a +b +c +d a b c d";
        // `c` was last live at the last second, and `b` one second earlier.
        for (later, max_age, max_releases, expected) in [
            (0, 2, 10, "c b"),
            (0, 1, 10, "c"),
            (9, 10, 10, "c"),
            (10, 10, 10, ""),
            (0, 100, 2, "c b"),
            (0, 100, 0, ""),
            (0, 0, 10, ""),
        ] {
            let found = bridged(history, later, None, &bridge(max_age, max_releases));
            assert_eq!(found, expected, "{later} {max_age} {max_releases}");
        }
        assert_eq!(bridged(history, 0, Some("b"), &bridge(100, 9)), "c b");
        let none = Bridge {
            paths: Vec::new(),
            ..bridge(100, 9)
        };
        assert_eq!(bridged(history, 0, None, &none), "");
    }
}
