//! The history under the lock: what a request that changes the site works on.
//!
//! Opening it takes the lock, repairs the journal where it lags behind the disk, and then
//! removes symlinks and manifests that a crash left. So every change starts from a whole
//! state. Dropping it releases the lock, and then removes the trees that a crash left.

use std::cell::LazyCell;
use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;

use crate::dir::{Dir, Name};
use crate::error::Result;
use crate::manifest;
use crate::names::ReleaseId;
use crate::store::history::{History, Release};
use crate::store::journal::{self, Event, Journal, Record};
use crate::store::lock::Lock;
use crate::store::{Actor, Found, Listing, Notice, Store, release_name, sorted_contains, used_ids};

/// The minimum time to wait for another request to end.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The locked site: its history, and the right to change it.
pub struct Ledger<'a> {
    pub store: &'a Store,
    pub history: History,
    actor: &'a Actor,
    journal: Journal,
    /// Records of what has happened that could not be written yet.
    unwritten: VecDeque<Record>,
    // Fields are dropped in this order: the trees are removed without the lock.
    _lock: Lock,
    sweep: SweepTrees<'a>,
}

/// Removes the trees that a crash left, when it is dropped. A tree has up to as many
/// entries as an archive may have, so its removal may take long and needs no lock.
struct SweepTrees<'a>(Option<&'a Store>);

impl Drop for SweepTrees<'_> {
    fn drop(&mut self) {
        let Some(store) = self.0 else {
            return;
        };
        remove_leftovers(store);
        for_each_name(&store.trash, |name| {
            // `list` and `check` report what is left.
            _ = store.remove_trashed(name);
            Ok(())
        });
    }
}

impl<'a> Ledger<'a> {
    /// Takes the lock (waiting at most `timeout`), reads the journal, appends what it
    /// lacks, and removes symlinks and manifests that a crash left.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`](crate::error::Code::Busy); those of [`Store::current`] and of
    /// [`Journal::open`], before anything is removed or written.
    pub fn open(store: &'a Store, actor: &'a Actor, timeout: Duration) -> Result<Self> {
        Self::open_locked(store, actor, Lock::take(store, actor, timeout)?)
    }

    /// As [`Ledger::open`], with a lock that is taken already.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`], without `Busy`.
    pub fn open_locked(store: &'a Store, actor: &'a Actor, lock: Lock) -> Result<Self> {
        // Before anything is removed: the site must be one that this version knows.
        let live = store.current()?;
        let mut history = History::default();
        let journal = Journal::open(store, |entry| history.take(entry))?;
        let mut ledger = Ledger {
            store,
            history,
            actor,
            journal,
            unwritten: VecDeque::new(),
            _lock: lock,
            sweep: SweepTrees(None),
        };
        ledger.reconcile(live.as_ref())?;
        // After the lines and the records of removals that are not complete: what a request
        // could not report stays on disk.
        sweep(store);
        ledger.sweep = SweepTrees(Some(store));
        recall_floor(store, &mut ledger.history)?;
        ledger.history.observe(journal::now());
        Ok(ledger)
    }

    /// Leaves the trees that a crash left to a later request: a process that is not in
    /// its sandbox yet does not walk them, and a release without the record of its removal
    /// stays in the trash.
    pub fn leave_trees(&mut self) {
        self.sweep.0 = None;
    }

    /// Returns who makes this request.
    pub fn actor(&self) -> &Actor {
        self.actor
    }

    /// Returns a record of now by this request, to be completed and appended.
    pub fn new_record(&self, event: Event, release: Option<&ReleaseId>) -> Record {
        Record::new(event, release, self.actor)
    }

    /// Adds to the history what the lists of used ids have of a release.
    ///
    /// # Errors
    ///
    /// As [`used_ids::recall`].
    pub fn recall(&mut self, release: &ReleaseId) -> Result<()> {
        used_ids::recall(self.store, &mut self.history, release)
    }

    /// Appends a record, and takes it into account. Records that could not be written
    /// before come first: another order would be another history.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`](crate::error::Code::IoError) and
    /// [`Code::DiskFull`](crate::error::Code::DiskFull). The record then counts as
    /// not written, and is not taken into account.
    pub fn append(&mut self, record: Record) -> Result<()> {
        while let Some(earlier) = self.unwritten.front() {
            let written = self.journal.append(self.store, earlier.clone())?;
            self.history.generation = written.seq;
            self.unwritten.pop_front();
        }
        let record = with_first(self.store, &mut self.history, record)?;
        let record = self.journal.append(self.store, record)?;
        self.history.apply(&record);
        Ok(())
    }

    /// Appends a record of what has already happened. On failure the history
    /// still has the record, and the next append writes it first.
    ///
    /// # Errors
    ///
    /// As [`Ledger::append`], for the caller to report; the record is not lost yet.
    pub fn append_or_keep(&mut self, record: Record) -> Result<()> {
        let appended = self.append(record.clone());
        if appended.is_err() {
            let seq = self.history.generation;
            self.history.apply(&Record {
                seq,
                ..record.clone()
            });
            self.unwritten.push_back(record);
        }
        appended
    }

    /// Returns whether every record of this request that marks a release as bad is
    /// written.
    pub fn all_bad_marks_are_durable(&self) -> bool {
        let marks = |record: &Record| matches!(record.event, Event::Failed | Event::Reverted);
        !self.unwritten.iter().any(marks)
    }

    fn reconcile(&mut self, live: Option<&ReleaseId>) -> Result<()> {
        let listing = self.store.listing()?;
        for record in recovered_records(self.store, &self.history, &listing) {
            self.complete(record, Found::Interrupted)?;
        }
        let store = self.store;
        let trashed = LazyCell::new(|| store.trashed().unwrap_or_default());
        // Terminates: see `missing_record`.
        while let Some(record) = missing_record(&self.history, &listing, live) {
            let found = match record.event {
                // The symlink did not move, so nothing has changed.
                Event::Abandoned => {
                    self.append(record)?;
                    continue;
                }
                Event::Pruned if !self.is_in(&trashed, record.release.as_ref()) => {
                    Found::Unrecorded
                }
                Event::Reconciled => Found::Unrecorded,
                _ => Found::Interrupted,
            };
            self.complete(record, found)?;
        }
        Ok(())
    }

    /// Reports and appends what the journal lacks. In this order: a request that is killed
    /// in between leaves the same to the next one.
    fn complete(&mut self, record: Record, found: Found) -> Result<()> {
        self.actor.notices.write(&Notice {
            record: &record,
            found: Some(found),
        })?;
        self.append(record)
    }

    /// Returns whether a request moved a known release to the trash, where it stays until
    /// the journal has its removal. An earlier release of the same id may be there as well:
    /// its number is lower.
    fn is_in(&self, trashed: &[(ReleaseId, Option<u64>)], release: Option<&ReleaseId>) -> bool {
        let known = release.and_then(|release| self.history.releases.get_key_value(release));
        known.is_some_and(|(id, known)| {
            let mut of_id = trashed.iter().filter(|(release, _)| release == id);
            of_id.any(|(_, seq)| seq.is_some_and(|seq| seq >= known.seq))
        })
    }
}

/// Reads the history without the lock, for `list` and for checks before the lock is
/// taken. Nothing is written: what [`Ledger::open`] would repair on disk is repaired
/// in memory alone.
///
/// Also returns the listing that the history was compared with.
///
/// # Errors
///
/// Those of [`Store::current`], [`Store::listing`], [`journal::read_journal`] and
/// [`used_ids::recall`].
pub fn read_unlocked(store: &Store) -> Result<(History, Listing)> {
    let seen = Seen::read(store)?;
    Ok((seen.history, seen.listing))
}

/// The result of [`read_unlocked`], with its repairs in memory.
#[derive(Debug)]
pub struct Seen {
    pub history: History,
    pub listing: Listing,
    /// The recorded releases whose directory was not there, but for the live one. The
    /// history has them as removed.
    pub missing: Vec<(ReleaseId, Release)>,
    /// Whether the journal has the record that made the live release live. Otherwise its
    /// time, and the time when the one before it was replaced, are not known.
    pub live_is_recorded: bool,
}

impl Seen {
    /// Reads the journal first, then the symlink, then `releases/`.
    /// [`recorded_as_removed`] relies on this order.
    ///
    /// # Errors
    ///
    /// As [`read_unlocked`].
    pub fn read(store: &Store) -> Result<Seen> {
        let mut history = read_history(store)?;
        let live = store.current()?;
        let listing = store.listing()?;
        let (missing, live_is_recorded) =
            repair_in_memory(store, &mut history, &listing, live.as_ref())?;
        recall_floor(store, &mut history)?;
        history.observe(journal::now());
        Ok(Seen {
            history,
            listing,
            missing,
            live_is_recorded,
        })
    }
}

/// Reads the journal again, after a caller of [`Seen::read`] found something missing
/// and read the trash. Returns a function that says whether a release is recorded as
/// removed by now.
///
/// Another request may have pruned the release after the journal was read first. It
/// deletes the release from the trash only after its record. So a release that is neither
/// in the trash nor recorded as removed was removed by another program.
///
/// # Errors
///
/// Those of [`journal::read_journal`].
pub fn recorded_as_removed(store: &Store) -> Result<impl Fn(&ReleaseId) -> bool> {
    let history = read_history(store)?;
    Ok(move |release: &ReleaseId| !history.releases.contains_key(release))
}

fn read_history(store: &Store) -> Result<History> {
    let mut history = History::default();
    journal::read_journal(store, |entry| history.take(entry))?;
    Ok(history)
}

/// Takes into account what [`Ledger::open`] would append to the journal. Returns the
/// fields `missing` and `live_is_recorded` of [`Seen`].
fn repair_in_memory(
    store: &Store,
    history: &mut History,
    listing: &Listing,
    live: Option<&ReleaseId>,
) -> Result<(Vec<(ReleaseId, Release)>, bool)> {
    let generation = history.generation;
    let (mut missing, mut live_is_recorded) = (Vec::new(), true);
    for record in recovered_records(store, history, listing) {
        let record = with_first(store, history, record)?;
        history.apply(&record);
    }
    // Terminates: see `missing_record`.
    while let Some(record) = missing_record(history, listing, live) {
        match (record.event, &record.release) {
            (Event::Pruned, Some(release)) => {
                let known = history.releases.get(release).cloned();
                missing.extend(known.map(|known| (release.clone(), known)));
            }
            (event, _) => live_is_recorded &= event == Event::Abandoned,
        }
        let record = with_first(store, history, record)?;
        history.apply(&record);
    }
    history.generation = generation;
    Ok((missing, live_is_recorded))
}

/// Completes the first record of a release whose id was used before. The next request
/// may not have the record that says so: a checkpoint removes it from the journal.
fn with_first(store: &Store, history: &mut History, mut record: Record) -> Result<Record> {
    if let Some(id) = history.entry_made_by(&record) {
        used_ids::recall(store, history, id)?;
        record.first = history.id_use(id).map(|id_use| id_use.first_seq);
    }
    Ok(record)
}

/// Adds to the history what the lists of used ids have of the floor.
fn recall_floor(store: &Store, history: &mut History) -> Result<()> {
    match &store.floor {
        Some(floor) => used_ids::recall(store, history, floor),
        None => Ok(()),
    }
}

/// Returns a `received` record for each release that is present without one: a process
/// was killed between the rename into releases/ and its record. The first one received
/// comes first. A release whose manifest cannot be read is left out: it must not block
/// requests.
fn recovered_records(store: &Store, history: &History, listing: &Listing) -> Vec<Record> {
    let mut is_known = sorted_contains(history.releases.keys().map(|id| id.as_str().as_bytes()));
    let unknown = (listing.present.iter()).filter(|id| !is_known(id.as_str().as_bytes()));
    let mut records: Vec<Record> = unknown
        .filter_map(|release| recovered_record(store, history, release))
        .collect();
    records.sort_by_key(|record| record.time);
    records
}

fn recovered_record(store: &Store, history: &History, release: &ReleaseId) -> Option<Record> {
    let (identity, mut entries) = store.manifest(release).ok()?;
    let sums = manifest::read_sums(&mut entries).ok()?;
    Some(Record {
        seq: history.generation,
        // Not before the newest record: it would limit the times of all others.
        time: identity.received.max(history.latest()).min(journal::now()),
        sha256: Some(identity.sha256),
        tree: identity.tree,
        files: Some(sums.files),
        bytes: Some(sums.bytes),
        ..Record::unattended(Event::Received, Some(release))
    })
}

/// Returns the first other record that the journal lacks, given what is on disk. Each
/// returned record, once applied, removes its own cause, so a loop that applies them
/// terminates.
fn missing_record(
    history: &History,
    listing: &Listing,
    live: Option<&ReleaseId>,
) -> Option<Record> {
    // A process was killed between the rename into the trash and its record, or an
    // operator removed the release. The live one stays: the symlink still names it.
    let mut is_there = sorted_contains(listing.names.iter().map(|name| name.as_bytes()));
    let mut gone = (history.releases.keys()).filter(|id| !is_there(id.as_str().as_bytes()));
    if let Some(release) = gone.find(|release| live != Some(*release)) {
        return Some(Record::unattended(Event::Pruned, Some(release)));
    }
    history.missing_record(live)
}

/// Removes the symlinks and manifests that a crash left. The caller holds the lock.
///
/// A failure must not block a deploy, and least of all a rollback. The next request
/// tries again.
fn sweep(store: &Store) {
    store.clear_links();
    _ = store.set_preview(None);
    // A manifest is in place before its release. Without a release, its receive was
    // killed in between, or the release was pruned.
    for_each_name(&store.manifests, |name| {
        if store.releases.exists(name)? && release_name(name.as_os_str()).is_some() {
            return Ok(());
        }
        store.manifests.remove_tree(name).map_err(|left| left.errno)
    });
}

/// Removes what killed receives have left in `incoming`. The caller needs no lock: a receive
/// locks its own directory.
///
/// A failure is ignored, as in [`sweep`]. This looks at no deadline: the files were within
/// the limits of an upload.
pub fn remove_leftovers(store: &Store) {
    let incoming = &store.incoming;
    for_each_name(incoming, |name| remove_unused_staging(incoming, name));
}

/// Removes a staging directory that no process uses: a receive locks its own.
fn remove_unused_staging(incoming: &Dir, name: Name<'_>) -> nix::Result<()> {
    match incoming.open_dir_of_this_mount(name) {
        Ok(staging) => match staging.try_lock() {
            Ok(true) => incoming.remove_tree(name).map_err(|left| left.errno),
            _ => Ok(()),
        },
        // Not a directory. After any other error it may be in use.
        Err(Errno::ENOTDIR | Errno::ELOOP) => incoming.remove_file(name),
        Err(errno) => Err(errno),
    }
}

fn for_each_name(dir: &Dir, mut remove: impl FnMut(Name<'_>) -> nix::Result<()>) {
    for entry in dir.names().unwrap_or_default() {
        if let Some(name) = Name::new(entry.as_bytes()) {
            _ = remove(name);
        }
    }
}
