//! The history under the lock: what a request that changes anything works on.
//!
//! Opening it takes the lock, clears away what a crash left, and mends the
//! journal where it lags behind the disk. So every change starts from a state
//! that is whole.

use std::collections::VecDeque;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::dir::{Dir, Name};
use crate::error::Result;
use crate::manifest;
use crate::names::ReleaseId;
use crate::store::history::History;
use crate::store::journal::{self, Event, Journal, Record};
use crate::store::lock::{Held, Lock};
use crate::store::{Actor, Listing, Store, among, release_name};

/// How long to wait for another request to end, at least.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The locked site: its history, and the right to change it.
pub struct Ledger<'a> {
    pub store: &'a Store,
    pub history: History,
    actor: &'a Actor,
    journal: Journal,
    /// What has happened and could not be written down yet.
    unwritten: VecDeque<Record>,
    _lock: Lock,
}

impl<'a> Ledger<'a> {
    /// Takes the lock (waiting `patience` at most), sweeps, reads, reconciles.
    pub fn open(store: &'a Store, actor: &'a Actor, patience: Duration) -> Result<Self> {
        let lock = Lock::take(store, actor, patience)?;
        // Before anything is removed or written: the site must be one of ours.
        let link = store.current()?;
        sweep(store);
        let mut history = History::default();
        let journal = Journal::open(store, |record| history.apply(record))?;
        let mut ledger = Ledger {
            store,
            history,
            actor,
            journal,
            unwritten: VecDeque::new(),
            _lock: lock,
        };
        ledger.reconcile(link.as_ref())?;
        Ok(ledger)
    }

    /// A record of now by this request, to be completed and appended.
    pub fn draft(&self, event: Event, release: Option<&ReleaseId>) -> Record {
        Record::new(event, release, self.actor)
    }

    /// Appends a record, and takes it into account. What could not be written
    /// before is written first: in another order the records would say another
    /// thing.
    ///
    /// Errors: [`crate::error::Code::IoError`], [`crate::error::Code::DiskFull`];
    /// the record then counts as not written, and is not taken into account.
    pub fn append(&mut self, record: Record) -> Result<()> {
        while let Some(earlier) = self.unwritten.front() {
            let written = self.journal.append(self.store, earlier.clone())?;
            self.history.generation = written.seq;
            self.unwritten.pop_front();
        }
        let record = self.journal.append(self.store, record)?;
        self.history.apply(&record);
        Ok(())
    }

    /// Appends a record of what has happened already. Where that fails, it is
    /// taken into account all the same, and written before the next one.
    ///
    /// Errors: as [`Ledger::append`], to be told; nothing is lost by them yet.
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

    /// Whether all that marks a release as bad is written down.
    pub fn has_marked(&self) -> bool {
        let marks = |record: &Record| matches!(record.event, Event::Failed | Event::Returned);
        !self.unwritten.iter().any(marks)
    }

    fn reconcile(&mut self, link: Option<&ReleaseId>) -> Result<()> {
        let listing = self.store.listing()?;
        while let Some(record) = missing(self.store, &self.history, &listing, link) {
            self.append(record)?;
        }
        Ok(())
    }
}

/// The history as `list` and checks before the lock see it: nothing is
/// written, and what [`Ledger::open`] would mend is mended in memory alone.
///
/// With it comes what it was held against.
pub fn peek(store: &Store) -> Result<(History, Listing)> {
    let mut history = History::default();
    journal::read(store, |record| history.apply(record))?;
    let generation = history.generation;
    let link = store.current()?;
    let listing = store.listing()?;
    while let Some(record) = missing(store, &history, &listing, link.as_ref()) {
        history.apply(&record);
    }
    history.generation = generation;
    Ok((history, listing))
}

/// The first record that the journal lacks, by what is on disk. Each record
/// that is returned settles its own cause, so asking until there is none ends.
fn missing(
    store: &Store,
    history: &History,
    listing: &Listing,
    link: Option<&ReleaseId>,
) -> Option<Record> {
    // Killed between the rename into releases/ and its record. One that has a
    // manifest that does not read is left out: it must not stand in the way.
    let mut is_known = among(history.releases.keys().map(|id| id.as_str().as_bytes()));
    let mut unknown = (listing.present.iter()).filter(|id| !is_known(id.as_str().as_bytes()));
    if let Some(record) = unknown.find_map(|release| recovered(store, history, release)) {
        return Some(record);
    }
    // Killed between the rename into the trash and its record, or removed by
    // hand. What is live is another matter: the link still says so.
    let mut is_there = among(listing.names.iter().map(|name| name.as_bytes()));
    let mut gone = (history.releases.keys()).filter(|id| !is_there(id.as_str().as_bytes()));
    if let Some(release) = gone.find(|release| link != Some(*release)) {
        return Some(Record::unattended(Event::Pruned, Some(release)));
    }
    history.missing(link)
}

/// The `received` record of a release that stands there without one.
fn recovered(store: &Store, history: &History, release: &ReleaseId) -> Option<Record> {
    let (identity, mut entries) = store.manifest(release).ok()?;
    let sums = manifest::read_sums(&mut entries).ok()?;
    Some(Record {
        seq: history.generation,
        time: identity.received,
        sha256: Some(identity.sha256),
        files: Some(sums.files),
        bytes: Some(sums.bytes),
        ..Record::unattended(Event::Received, Some(release))
    })
}

/// Clears away what a crash left. Under the lock, so none of it is in use,
/// but for the stagings of receives that are still running: each of those is
/// held by a lock of its own.
///
/// What cannot be removed now stays and is tried again the next time. It must
/// not stand in the way of a deploy, and least of all of a rollback.
fn sweep(store: &Store) {
    store.clear_links();
    _ = store.preview(None);
    each(&store.incoming, |name| {
        match store.incoming.open_dir(name) {
            Ok(staging) => match hold(&staging) {
                Some(_held) => store.incoming.remove_tree(name),
                None => Ok(()),
            },
            // No folder. Any other error may be of one that is in use.
            Err(Errno::ENOTDIR | Errno::ELOOP) => store.incoming.remove_file(name),
            Err(errno) => Err(errno),
        }
    });
    each(&store.trash, |name| store.trash.remove_tree(name));
    // A manifest is put in place before its release: without one, it is of a
    // receive that was killed in between, or of a release that was pruned.
    each(&store.manifests, |name| {
        if store.releases.exists(name)? && release_name(name.as_os_str()).is_some() {
            return Ok(());
        }
        store.manifests.remove_tree(name)
    });
}

fn each(folder: &Dir, mut remove: impl FnMut(Name<'_>) -> nix::Result<()>) {
    for entry in folder.names().unwrap_or_default() {
        if let Some(name) = Name::new(entry.as_bytes()) {
            _ = remove(name);
        }
    }
}

/// Holds a staging folder, if nobody else does.
pub fn hold(staging: &Dir) -> Option<Held<OwnedFd>> {
    let handle = staging.as_fd().try_clone_to_owned().ok()?;
    Flock::lock(handle, FlockArg::LockExclusiveNonblock)
        .ok()
        .map(Held::new)
}
