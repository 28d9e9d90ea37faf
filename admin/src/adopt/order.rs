//! Decides which releases are adopted, and in which order they were live. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::layout::{Found, Layout, Tool};
use deploy_shell::names::ReleaseId;

/// How many releases are adopted: the live one, and the newest others. Each is hashed under
/// the lock.
const MAX_RELEASES: usize = 100;

/// How a release became live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub release: ReleaseId,
    /// Never before that of an earlier step, and never in the future.
    pub time: Timestamp,
    /// The tool went back to it, because the one before was bad.
    pub rollback: bool,
}

/// The order of the releases.
#[derive(Debug)]
pub struct Order {
    pub steps: Vec<Step>,
    /// The releases to adopt, each with its time.
    pub releases: BTreeMap<ReleaseId, Timestamp>,
    /// The other directories, with the reason why each is left alone.
    pub left: Vec<(String, String)>,
}

/// Returns the order in which releases were live, as the tool's log has it.
///
/// Deployer notes a release when its deployment begins, and a script notes nothing. So a
/// release that is newer than the live one counts as never live, except where Deployer
/// marked it in a rollback. Capistrano notes a release when it is live.
pub fn order(layout: &Layout, now: Timestamp) -> Order {
    let known: BTreeMap<&str, &Found> = (layout.releases.iter())
        .map(|found| (found.id.as_str(), found))
        .collect();
    let mut builder = Builder {
        steps: Vec::new(),
        latest: Timestamp::UNIX_EPOCH,
        now,
        left: Vec::new(),
    };
    let live_at = (layout.log.iter()).rposition(|line| line.name == layout.live.as_str());
    let mut replaced: Option<&ReleaseId> = None;
    for (at, line) in layout.log.iter().enumerate() {
        let Some(found) = known.get(line.name.as_str()) else {
            continue;
        };
        let id = &found.id;
        let is_unfinished = layout.unfinished.as_deref() == Some(id.as_str());
        if is_unfinished && *id != layout.live {
            builder.leave(id, "Deployer has not completed it");
        } else if layout.tool == Tool::Capistrano {
            builder.step(id, line.time, line.rollback);
        } else if let Some(marked) = found.bad.filter(|_| *id != layout.live) {
            let back_to = match live_at {
                Some(live_at) if live_at < at => Some(&layout.live),
                _ => replaced,
            };
            match back_to {
                Some(back_to) => {
                    builder.step(id, line.time, false);
                    builder.step(back_to, marked, true);
                }
                None => builder.leave(id, "Deployer marked it as bad"),
            }
        } else if live_at.is_some_and(|live_at| live_at < at) {
            builder.leave(
                id,
                "it is newer than the live release, and was perhaps never live",
            );
        } else {
            builder.step(id, line.time, false);
            replaced = Some(id);
        }
    }
    builder.finish(layout)
}

struct Builder {
    steps: Vec<Step>,
    latest: Timestamp,
    now: Timestamp,
    left: Vec<(String, String)>,
}

impl Builder {
    fn step(&mut self, release: &ReleaseId, time: Option<Timestamp>, rollback: bool) {
        self.latest = time.unwrap_or(self.latest).max(self.latest).min(self.now);
        self.steps.push(Step {
            release: release.clone(),
            time: self.latest,
            rollback,
        });
    }

    fn leave(&mut self, release: &ReleaseId, why: &str) {
        self.left.push((release.to_string(), why.to_owned()));
    }

    fn finish(mut self, layout: &Layout) -> Order {
        let mut releases = BTreeMap::new();
        for step in &self.steps {
            releases.entry(step.release.clone()).or_insert(step.time);
        }
        let named: BTreeSet<String> = self.left.iter().map(|(name, _)| name.clone()).collect();
        for found in &layout.releases {
            if releases.contains_key(&found.id) || named.contains(found.id.as_str()) {
                continue;
            }
            if found.id == layout.live {
                let time = found.changed.min(self.now);
                releases.insert(found.id.clone(), time);
            } else {
                self.leave(&found.id, "the log of the tool does not name it");
            }
        }
        let mut by_time: Vec<_> = (releases.iter())
            .map(|(id, time)| (*id != layout.live, Reverse(*time), id.clone()))
            .collect();
        by_time.sort();
        for (_, _, id) in by_time.split_off(MAX_RELEASES.min(by_time.len())) {
            releases.remove(&id);
            self.steps.retain(|step| step.release != id);
            self.leave(&id, "so many newer releases are adopted");
        }
        Order {
            steps: self.steps,
            releases,
            left: self.left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adopt::layout::Current;
    use crate::adopt::old_log::Deployment;

    fn id(text: &str) -> ReleaseId {
        ReleaseId::try_from(text).unwrap()
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A site whose log has these releases, at one second after the other; `bad` ones
    /// were marked at second 50.
    fn layout(tool: Tool, live: &str, log: &[&str], present: &[&str], bad: &[&str]) -> Layout {
        let found = |name: &&str| Found {
            id: id(name),
            changed: time(40),
            bad: bad.contains(name).then(|| Some(time(50))),
        };
        let line = |(at, name): (usize, &&str)| Deployment {
            name: name.trim_start_matches('<').to_owned(),
            time: (!name.starts_with('<')).then(|| time(at as i64 + 1)),
            rollback: name.starts_with('<'),
        };
        Layout {
            tool,
            current: Current::Own,
            live: id(live),
            releases: present.iter().map(found).collect(),
            left: Vec::new(),
            log: log.iter().enumerate().map(line).collect(),
            unfinished: None,
        }
    }

    /// Returns the steps as `release@second`, with `<` before a rollback, and the names
    /// that are left alone.
    fn ordered(layout: &Layout) -> (Vec<String>, Vec<String>) {
        let order = order(layout, time(100));
        let step = |step: &Step| {
            let back = if step.rollback { "<" } else { "" };
            format!("{back}{}@{}", step.release, step.time.as_second())
        };
        let left = order.left.into_iter().map(|(name, _)| name);
        (order.steps.iter().map(step).collect(), left.collect())
    }

    #[test]
    fn the_order_is_that_of_the_log() {
        let site = layout(
            Tool::Deployer,
            "5",
            &["1", "2", "10", "5"],
            &["10", "2", "5", "x"],
            &[],
        );
        let (steps, left) = ordered(&site);
        assert_eq!(steps, ["2@2", "10@3", "5@4"]);
        assert_eq!(left, ["x"]);
    }

    #[test]
    fn a_release_that_a_rollback_left_is_bad() {
        let log = ["1", "2", "3"];
        let (steps, left) = ordered(&layout(Tool::Deployer, "2", &log, &log, &["3"]));
        assert_eq!(steps, ["1@1", "2@2", "3@3", "<2@50"]);
        assert!(left.is_empty());
        // Deployed again after the rollback.
        let (steps, left) = ordered(&layout(Tool::Deployer, "3", &log, &log, &["2"]));
        assert_eq!(steps, ["1@1", "2@2", "<1@50", "3@50"]);
        assert!(left.is_empty());
        let (steps, left) = ordered(&layout(Tool::Deployer, "3", &log, &log, &["1"]));
        assert_eq!((steps.len(), left), (2, vec!["1".to_owned()]));
    }

    #[test]
    fn a_release_newer_than_the_live_one_is_left_alone() {
        let log = ["1", "2", "3"];
        for tool in [Tool::Deployer, Tool::Script] {
            let (steps, left) = ordered(&layout(tool, "2", &log, &log, &[]));
            assert_eq!(steps, ["1@1", "2@2"]);
            assert_eq!(left, ["3"]);
        }
        let mut unfinished = layout(Tool::Deployer, "3", &log, &log, &[]);
        unfinished.unfinished = Some("2".to_owned());
        assert_eq!(ordered(&unfinished).1, ["2"]);
    }

    #[test]
    fn a_rollback_of_capistrano_has_the_time_of_the_line_before() {
        let log = ["1", "2", "3", "<1", "4"];
        let (steps, left) = ordered(&layout(
            Tool::Capistrano,
            "4",
            &log,
            &["1", "2", "4", "9"],
            &[],
        ));
        assert_eq!(steps, ["1@1", "2@2", "<1@2", "4@5"]);
        assert_eq!(left, ["9"]);
    }

    #[test]
    fn a_live_release_that_no_log_names_is_adopted() {
        let site = layout(Tool::Deployer, "x", &["1"], &["1", "x"], &[]);
        let order = order(&site, time(30));
        assert_eq!(order.releases[&id("x")], time(30));
        assert_eq!(order.steps.len(), 1);
    }

    #[test]
    fn only_the_newest_releases_are_adopted() {
        let names: Vec<String> = (0..MAX_RELEASES + 20).map(|at| at.to_string()).collect();
        let log: Vec<&str> = names.iter().map(String::as_str).collect();
        // A rollback made an old one live.
        let log: Vec<&str> = log.iter().copied().chain(["<3"]).collect();
        let present = &log[..log.len() - 1];
        let order = order(
            &layout(Tool::Capistrano, "3", &log, present, &[]),
            time(9999),
        );
        assert_eq!(order.releases.len(), MAX_RELEASES);
        assert!(order.releases.contains_key(&id("3")) && !order.releases.contains_key(&id("20")));
        assert!(order.releases.contains_key(&id("21")));
        assert_eq!(order.left.len(), 20);
        assert!(
            order
                .steps
                .iter()
                .all(|step| order.releases.contains_key(&step.release))
        );
    }
}
