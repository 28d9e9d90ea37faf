//! The history under the lock: what a request that changes anything works on.
//!
//! Opening it takes the lock, clears away what a crash left, and mends the
//! journal where it lags behind the disk. So every change starts from a state
//! that is whole.

use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use crate::error::{Error, Result};
use crate::manifest;
use crate::names::ReleaseId;
use crate::session::Session;
use crate::store::dir::{Dir, Name};
use crate::store::history::History;
use crate::store::journal::{self, Event, Journal, Record};
use crate::store::lock::Lock;
use crate::store::{Store, release_name};

/// The locked site: its history, and the right to change it.
pub struct Ledger<'a> {
    pub store: &'a Store,
    pub history: History,
    session: &'a Session,
    journal: Journal,
    _lock: Lock,
}

impl<'a> Ledger<'a> {
    /// Takes the lock (waiting `patience` at most), sweeps, reads, reconciles.
    pub fn open(store: &'a Store, session: &'a Session, patience: Duration) -> Result<Self> {
        let lock = Lock::take(store, session, patience)?;
        // Before anything is removed or written: the site must be one of ours.
        let link = store.current()?;
        sweep(store).map_err(|errno| store.io("cannot clear away what a crash left", errno))?;
        let (journal, records) = Journal::open(store)?;
        let mut ledger = Ledger {
            store,
            history: History::of(&records),
            session,
            journal,
            _lock: lock,
        };
        ledger.reconcile(link.as_ref())?;
        Ok(ledger)
    }

    /// A record of now by this session, to be completed and appended.
    pub fn draft(&self, event: Event, release: Option<&ReleaseId>) -> Record {
        Record::new(event, release, self.session)
    }

    /// Appends a record, and takes it into account.
    pub fn append(&mut self, record: Record) -> Result<()> {
        let record = self.journal.append(self.store, record)?;
        self.history.apply(&record);
        Ok(())
    }

    fn reconcile(&mut self, link: Option<&ReleaseId>) -> Result<()> {
        // Killed between the rename into releases/ and its record.
        for release in self.store.present()? {
            if !self.history.releases.contains_key(&release) {
                let record = recovered(self.store, &release)?;
                self.append(record)?;
            }
        }
        if let Some((event, previous)) = self.history.missing(link) {
            let mut record = self.draft(event, link);
            record.previous = previous;
            self.append(record)?;
        }
        Ok(())
    }
}

/// The history as `list` and checks before the lock see it: nothing is
/// written, and what [`Ledger::open`] would mend is mended in memory alone.
pub fn peek(store: &Store, session: &Session) -> Result<History> {
    let mut history = History::of(&journal::read(store)?);
    let generation = history.generation;
    for release in store.present()? {
        if !history.releases.contains_key(&release) {
            // Just being published, perhaps: what is not yet readable is left out.
            if let Ok(record) = recovered(store, &release) {
                history.apply(&record);
            }
        }
    }
    let link = store.current()?;
    if let Some((event, previous)) = history.missing(link.as_ref()) {
        let mut record = Record::new(event, link.as_ref(), session);
        (record.seq, record.previous) = (generation, previous);
        history.apply(&record);
    }
    history.generation = generation;
    Ok(history)
}

/// The `received` record of a release that stands there without one.
fn recovered(store: &Store, release: &ReleaseId) -> Result<Record> {
    let identity = store.identity(release)?;
    let damaged = |why: &str| {
        Error::new(
            crate::error::Code::IoError,
            format!("the manifest of '{release}' is damaged: {why}"),
        )
        .remedy("remove it and its release, then receive it again")
    };
    let file = store
        .manifests
        .open_file(release)
        .map_err(|errno| store.io(format!("cannot open the manifest of '{release}'"), errno))?;
    let mut reader = std::io::BufReader::new(file);
    manifest::Identity::read(&mut reader).map_err(damaged)?;
    let sums = manifest::read_entries(&mut reader, |_| Ok(())).map_err(damaged)?;
    Ok(Record {
        seq: 0,
        time: identity.received,
        event: Event::Received,
        how: None,
        release: Some(release.clone()),
        previous: None,
        sha256: Some(identity.sha256),
        files: Some(sums.files),
        bytes: Some(sums.bytes),
        key: None,
        fingerprint: None,
        client: None,
    })
}

/// Clears away what a crash left. Under the lock, so none of it is in use,
/// but for the stagings of receives that are still running: each of those is
/// held by a lock of its own.
fn sweep(store: &Store) -> nix::Result<()> {
    store.state.remove_file(Name::fixed("next"))?;
    for entry in store.incoming.names()? {
        let name = Name::new(entry.as_bytes()).ok_or(nix::Error::EINVAL)?;
        match store.incoming.open_dir(name.clone()) {
            Ok(staging) => match hold(staging) {
                Some(_held) => store.incoming.remove_tree(name)?,
                None => continue,
            },
            Err(_) => store.incoming.remove_tree(name)?,
        }
    }
    for entry in store.trash.names()? {
        // What cannot be removed now (an immutable file, say) stays in the
        // trash; it must not stand in the way of a deploy.
        _ = store
            .trash
            .remove_tree(Name::new(entry.as_bytes()).ok_or(nix::Error::EINVAL)?);
    }
    // A manifest is put in place before its release: without one, it is of a
    // receive that was killed in between, or of a release that was pruned.
    for entry in store.manifests.names()? {
        let name = Name::new(entry.as_bytes()).ok_or(nix::Error::EINVAL)?;
        if release_name(&entry).is_none() || store.releases.stat(name.clone()).is_err() {
            store.manifests.remove_tree(name)?;
        }
    }
    Ok(())
}

/// Holds a staging folder, if nobody else does.
pub fn hold(staging: Dir) -> Option<Flock<OwnedFd>> {
    Flock::lock(OwnedFd::from(staging), FlockArg::LockExclusiveNonblock).ok()
}
