//! Makes the plan of an adoption: what changes, what is left alone, and what stops it.
//! Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nix::sys::stat::FileStat;

use super::history::{self, Adopted};
use super::layout::{self, Current, Layout};
use super::order::{self, Order};
use super::rules::Fault;
use super::survey::{SiteFacts, Survey, survey};
use deploy_shell::config::Config;
use deploy_shell::dir::{Dir, Name};
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::hash;
use deploy_shell::manifest::{self, Entries, Sums};
use deploy_shell::names::{ReleaseId, Sha256Digest};
use deploy_shell::shared_paths::SharedPath;
use deploy_shell::store::Store;
use deploy_shell::store::history::History;
use deploy_shell::store::journal;
use deploy_shell::store::layout::RELEASES;

/// A release that has no manifest yet.
#[derive(Debug)]
pub struct Candidate {
    pub id: ReleaseId,
    pub survey: Survey,
}

/// The root or `releases/`, with what has to change there.
#[derive(Debug)]
pub struct DirectoryChange {
    /// None for the root.
    pub name: Option<Name<'static>>,
    /// The present owner, if the account must own it.
    pub owner: Option<u32>,
    /// The present mode and the new one.
    pub mode: Option<(u32, u32)>,
}

/// All that an adoption does.
#[derive(Debug)]
pub struct Plan {
    pub layout: Layout,
    pub order: Order,
    pub directories: Vec<DirectoryChange>,
    /// The releases to adopt, sorted.
    pub candidates: Vec<Candidate>,
    /// Releases that an adoption which was killed has completed.
    pub completed: BTreeMap<ReleaseId, Adopted>,
    /// Releases that cannot be adopted.
    pub refused: Vec<Candidate>,
    /// The shared paths of the live release that the configuration lacks.
    pub missing_shared: Vec<SharedPath>,
    /// The journal has records of requests already, the last one of this time.
    pub begun: Option<Timestamp>,
    /// Whether there is nothing to do.
    pub is_complete: bool,
}

impl Plan {
    /// Returns whether nothing prevents the adoption of the live release.
    pub fn is_possible(&self, is_root: bool) -> bool {
        let needs_root = self.directories.iter().any(|change| change.owner.is_some());
        let live = &self.layout.live;
        self.missing_shared.is_empty()
            && (is_root || !needs_root)
            && !self.refused.iter().any(|refused| refused.id == *live)
    }
}

/// Opens the tree of a release: that in `releases/`, or the directory at `current`.
/// Returns the directory in which it is, its name there, and the tree.
///
/// # Errors
///
/// The errno of the system call.
pub fn open_tree<'a>(
    config: &'a Config,
    store: &'a Store,
    layout: &Layout,
    id: &'a ReleaseId,
) -> nix::Result<(&'a Dir, Name<'a>, Dir)> {
    let (parent, name) = match layout.current {
        Current::Directory if *id == layout.live => (&store.root, Name::from(&config.link)),
        _ => (&store.releases, Name::from(id)),
    };
    Ok((parent, name, parent.open_dir_of_this_mount(name)?))
}

/// Makes the plan.
///
/// # Errors
///
/// Those of [`layout::recognize`] and of the journal, and [`Code::BadLayout`] for a site
/// where deploy-shell has made releases live.
pub fn make(config: &Config, store: &Store, site: &SiteFacts<'_>) -> Result<Plan> {
    let layout = layout::recognize(config, store, site)?;
    let mut order = order::order(&layout, journal::now());
    let (history, _) = history::read(store)?;
    let mut plan_releases = Releases::default();
    for id in order.releases.keys() {
        if layout.current != Current::Directory && store.is_present(id)? {
            match read_adopted(store, id) {
                Some(adopted) => _ = plan_releases.completed.insert(id.clone(), adopted),
                // deploy-shell has received it.
                None => plan_releases.received.push(id.clone()),
            }
            continue;
        }
        let survey = match open_tree(config, store, &layout, id) {
            Ok((_, _, tree)) => survey(site, &tree),
            Err(errno) => Survey::of_fault(Fault::of_errno(errno)),
        };
        let id = id.clone();
        plan_releases.candidates.push(Candidate { id, survey });
    }
    let Releases {
        mut candidates,
        completed,
        received,
    } = plan_releases;
    order.releases.retain(|id, _| !received.contains(id));
    order.steps.retain(|step| !received.contains(&step.release));
    if !candidates.is_empty() {
        require_no_deployment(&history, &order)?;
    }
    refuse_other_names(&mut candidates);
    let (refused, candidates): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .partition(|candidate| !candidate.survey.faults.is_empty());
    let missing_shared = missing_shared(config, &layout, &candidates, &refused);
    let is_complete = candidates.is_empty()
        && refused.iter().all(|refused| refused.id != layout.live)
        && layout.current == Current::Own
        && is_recorded(&history, &layout, &order, &completed);
    // A plain directory has no manifest that counts, so it cannot be distinguished here
    // from one whose adoption was killed. It has one deployment alone.
    let has_records = history.generation > 0 && !candidates.is_empty();
    let begun = (has_records && layout.current != Current::Directory).then(|| history.latest());
    Ok(Plan {
        directories: directories(store, site)?,
        begun,
        layout,
        order,
        candidates,
        completed,
        refused,
        missing_shared,
        is_complete,
    })
}

#[derive(Default)]
struct Releases {
    candidates: Vec<Candidate>,
    completed: BTreeMap<ReleaseId, Adopted>,
    received: Vec<ReleaseId>,
}

/// Returns the head and the sums of the manifest of a release, if an adoption made it:
/// no payload has the digest of its entries.
fn read_adopted(store: &Store, id: &ReleaseId) -> Option<Adopted> {
    let (identity, mut lines) = store.manifest(id).ok()?;
    let (mut sums, mut text) = (Sums::default(), Vec::new());
    let mut entries = Entries::new(&mut lines);
    // Terminates: each turn consumes a line of the manifest.
    while let Some(entry) = entries.next_entry().ok()? {
        sums.add(&entry);
        text.extend_from_slice(format!("{entry}\n").as_bytes());
    }
    (digest(&text) == identity.sha256).then_some(Adopted { identity, sums })
}

/// Returns the digest that an adopted release has in place of that of a payload.
pub fn digest(entries: &[u8]) -> Sha256Digest {
    hash::digest(entries)
}

/// Requires that deploy-shell itself has made nothing live. The old releases would come
/// after it in the journal, whose order decides where a rollback goes.
fn require_no_deployment(history: &History, order: &Order) -> Result<()> {
    let own = (history.releases.iter())
        .find(|(id, known)| known.activated.is_some() && !order.releases.contains_key(*id));
    let Some((own, _)) = own else {
        return Ok(());
    };
    let problem = format!("deploy-shell has made '{own}' live already");
    Err(Error::new(Code::BadLayout, problem).remedy(
        "adopt a site before its first swap; send an old release as a new one: \
         docs/adopting.md, 'After the first swap'",
    ))
}

/// Adds a fault for each file that has a name outside of these releases: a program that
/// writes it by that name would change the release.
fn refuse_other_names(candidates: &mut [Candidate]) {
    let mut inside: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let files = candidates.iter().flat_map(|it| &it.survey.several_names);
    files.for_each(|(inode, _, _)| *inside.entry(*inode).or_default() += 1);
    for candidate in candidates {
        for (inode, names, path) in std::mem::take(&mut candidate.survey.several_names) {
            if inside.get(&inode).is_none_or(|inside| *inside < names) {
                candidate.survey.add_fault(Fault::OtherName, &path);
            }
        }
    }
}

fn missing_shared(
    config: &Config,
    layout: &Layout,
    candidates: &[Candidate],
    refused: &[Candidate],
) -> Vec<SharedPath> {
    let live = (candidates.iter().chain(refused)).find(|it| it.id == layout.live);
    let shared = live.map_or(&[][..], |live| &live.survey.shared);
    let is_missing = |path: &&SharedPath| !config.shared.links.contains(path);
    shared.iter().filter(is_missing).cloned().collect()
}

/// Returns whether the journal has every deployment.
fn is_recorded(
    history: &History,
    layout: &Layout,
    order: &Order,
    completed: &BTreeMap<ReleaseId, Adopted>,
) -> bool {
    let was_live: BTreeSet<_> = order.steps.iter().map(|step| &step.release).collect();
    let is_known = |id: &ReleaseId| {
        history.releases.get(id).is_some_and(|known| {
            known.sha256.is_some() && (!was_live.contains(id) || known.activated.is_some())
        })
    };
    completed.keys().all(is_known) && history.live.as_ref() == Some(&layout.live)
}

fn directories(store: &Store, site: &SiteFacts<'_>) -> Result<Vec<DirectoryChange>> {
    let change = |dir: &Dir, name, forbidden: u32| -> Result<Option<DirectoryChange>> {
        let stat: FileStat = dir
            .metadata()
            .map_err(|errno| store.io("cannot look at the site", errno))?;
        let (uid, mode) = (stat.st_uid, stat.st_mode & 0o7777);
        let change = DirectoryChange {
            name,
            owner: (uid != site.account).then_some(uid),
            mode: (mode & forbidden != 0).then_some((mode, mode & !forbidden)),
        };
        Ok((change.owner.is_some() || change.mode.is_some()).then_some(change))
    };
    let root = change(&store.root, None, 0o002)?;
    let releases = change(&store.releases, Some(RELEASES), 0o022)?;
    Ok(root.into_iter().chain(releases).collect())
}

/// Returns the release that a rollback goes to after the adoption.
pub fn rollback_target(plan: &Plan, config: &Config) -> Option<ReleaseId> {
    let placeholder = |id: &ReleaseId| Adopted {
        identity: manifest::Identity {
            release: id.clone(),
            sha256: Sha256Digest([0; 32]),
            tree: None,
            base: None,
            signatures: Vec::new(),
            added: Vec::new(),
            received: journal::now(),
        },
        sums: Sums::default(),
    };
    let candidates = plan.candidates.iter().map(|candidate| &candidate.id);
    let adopted = candidates.chain(plan.completed.keys());
    let adopted: BTreeMap<_, _> = adopted.map(|id| (id.clone(), placeholder(id))).collect();
    let actor =
        deploy_shell::store::Actor::operator("adopt", deploy_shell::store::NoticeLog::default());
    let records = history::records(&plan.order.steps, &adopted, &actor, config.min_age);
    let mut history = History::default();
    for (record, seq) in records.into_iter().zip(1..) {
        history.apply(&journal::Record { seq, ..record });
    }
    history.live = Some(plan.layout.live.clone());
    history.previous(|_| true).cloned()
}
