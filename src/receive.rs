//! `receive`: verify, then parse, then publish. Nothing becomes live here.
//!
//! The order is the argument. Nothing of the payload is interpreted before its
//! digest is the promised one; what interprets it is a process of its own; what
//! that process made is in quarantine until all of it is checked and durable;
//! and one rename, which cannot replace anything, publishes it.

mod spool;
mod staging;
mod timed;
mod unpacker;

use std::io::{BufWriter, Write};

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::manifest::{self, Identity, Sums};
use crate::names::ReleaseId;
use crate::outcome::Success;
use crate::policy::Granted;
use crate::request::Receive;
use crate::session::Session;
use crate::store::history::History;
use crate::store::journal::{self, Event};
use crate::store::ledger::{self, Ledger};
use crate::store::{Store, dir::Dir};
use staging::{MANIFEST, Staging, TREE};
use timed::Deadline;
use unpacker::Unpacked;

/// Receives a release.
///
/// Errors: whatever the steps refuse; none of them leaves anything behind.
pub fn receive(
    config: &Config,
    store: &Store,
    session: &Session,
    asked: &Granted<Receive>,
) -> Result<Success> {
    let deadline = Deadline::after(config.limits.total_timeout.0);
    if !asked.signatures.is_empty() {
        return Err(Error::new(
            Code::BadSignature,
            "signatures are not configured for this site",
        )
        .remedy("send the release without --signature"));
    }
    // Before a byte is read: a retry of what is there already costs nothing,
    // and what would be refused in the end is refused at once.
    let history = ledger::peek(store, session)?;
    if let Some(sums) = already_there(store, &history, asked)? {
        return Ok(success(asked, sums, None));
    }
    admit(config, store, &history)?;

    let spool = spool::spool(store, config, &asked.sha256, deadline)?;
    let received = spool.bytes();
    let staging = Staging::make(store, &asked.release)?;
    let mut manifest = BufWriter::with_capacity(64 * 1024, staging.manifest()?);
    let identity = Identity {
        release: asked.release.clone(),
        sha256: asked.sha256,
        received: journal::now(),
    };
    let cannot = |error| store.io("cannot write the manifest", error);
    write!(manifest, "{identity}").map_err(cannot)?;
    let tree = &staging.tree;
    let Unpacked { sums, confinement } =
        unpacker::run(store, config, spool, tree, deadline, &mut manifest)?;
    manifest
        .write_all(manifest::trailer(sums).as_bytes())
        .and_then(|()| manifest.flush())
        .map_err(cannot)?;
    require_paths(config, tree)?;
    // One call for all the files and the manifest: a release is durable as a
    // whole before any of it has its name.
    tree.sync_file_system()
        .map_err(|errno| store.io("cannot sync the release", errno))?;
    match publish(config, store, session, asked, &staging, sums, deadline)? {
        Published::New => Ok(Success {
            unpacker: Some(confinement),
            ..success(asked, sums, Some(received))
        }),
        Published::AlreadyThere(sums) => Ok(success(asked, sums, None)),
    }
}

/// What one exact content under this id came to, if it is there already.
///
/// Errors: [`Code::ReleaseExists`] for other content.
fn already_there(store: &Store, history: &History, asked: &Receive) -> Result<Option<Sums>> {
    let release = &asked.release;
    let exists = |problem: String| {
        Error::new(Code::ReleaseExists, problem)
            .remedy("choose another id; a release never changes")
    };
    if store.releases.stat(release).is_err() {
        // Gone by somebody's hand while it is live: whatever came under this
        // id would be live at once, without a swap.
        if history.live.as_ref() == Some(release) {
            let problem = format!("the link names '{release}', which is gone");
            return Err(exists(problem));
        }
        return Ok(None);
    }
    if !store.is_present(release) {
        let problem = format!("'{release}' stands in releases/ and was not received");
        return Err(exists(problem));
    }
    let identity = store.identity(release)?;
    if identity.sha256 != asked.sha256 {
        let problem = format!("release '{release}' exists with sha256 {}", identity.sha256);
        return Err(exists(problem));
    }
    let known = history.releases.get(release);
    Ok(Some(Sums {
        files: known.and_then(|known| known.files).unwrap_or_default(),
        bytes: known.and_then(|known| known.bytes).unwrap_or_default(),
    }))
}

/// Whether another release may come in now.
fn admit(config: &Config, store: &Store, history: &History) -> Result<()> {
    let now = journal::now();
    let within = |time: jiff::Timestamp, span: std::time::Duration| {
        now.as_second() - time.as_second() < span.as_secs() as i64
    };
    let hour = std::time::Duration::from_secs(3600);
    let lately = history
        .received
        .iter()
        .filter(|time| within(**time, hour))
        .count();
    let max = config.limits.receives_per_hour;
    if lately >= max {
        return Err(Error::new(
            Code::RateLimited,
            format!("{lately} releases were received within the hour, {max} may be"),
        )
        .remedy("wait, or raise receives_per_hour in the site's configuration"));
    }
    // One that is too old counts no more: the next swap removes it.
    let pending = history
        .releases
        .iter()
        .filter(|(_, release)| release.activated.is_none())
        .filter(|(_, release)| within(release.received, config.pending.max_age.0))
        .filter(|(id, _)| store.is_present(id))
        .count();
    let max = config.pending.max;
    if pending >= max {
        return Err(Error::new(
            Code::Busy,
            format!("{pending} releases are pending that were never live, {max} may be"),
        )
        .remedy("swap to one, wait until they are too old, or raise 'max' in [pending]"));
    }
    let space = store
        .root
        .space()
        .map_err(|errno| store.io("cannot look at the file system", errno))?;
    let reserve = config.limits.reserve;
    if space.free_bytes <= reserve.of(space.total_bytes)
        || space.total_inodes > 0 && space.free_inodes <= reserve.of(space.total_inodes)
    {
        let error = Error::new(Code::DiskFull, "only the reserve is left of the disk");
        return Err(store.with_room(error));
    }
    Ok(())
}

fn require_paths(config: &Config, tree: &Dir) -> Result<()> {
    for path in &config.archive.required_paths {
        let shown = path.as_path().display();
        match tree.resolve_beneath(path.as_path()) {
            Ok(_) => {}
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {
                return Err(Error::new(
                    Code::MissingPath,
                    format!("the release has no '{shown}', which this site requires"),
                )
                .remedy("archive the site's own folder: tar -C dist -c ."));
            }
            Err(errno) => return Err(Error::io(format!("cannot look for '{shown}'"), errno)),
        }
    }
    Ok(())
}

enum Published {
    New,
    /// Another receive of the same content was faster.
    AlreadyThere(Sums),
}

/// Makes the release exist.
fn publish(
    config: &Config,
    store: &Store,
    session: &Session,
    asked: &Receive,
    staging: &Staging<'_>,
    sums: Sums,
    deadline: Deadline,
) -> Result<Published> {
    let release: &ReleaseId = &asked.release;
    // A swap with slow hooks may hold the lock for minutes; the upload is done
    // and would be lost, so this waits as long as a receive may last.
    let mut ledger = Ledger::open(store, session, deadline.left())?;
    if let Some(sums) = already_there(store, &ledger.history, asked)? {
        return Ok(Published::AlreadyThere(sums));
    }
    // Again, now that nobody else can come in between: uploads that run side by
    // side must not pass a limit together.
    admit(config, store, &ledger.history)?;
    let cannot = |errno: nix::Error| store.io(format!("cannot publish '{release}'"), errno);
    // The manifest first: a release that exists has one. If we are killed in
    // between, the next request removes a manifest without its release.
    staging
        .folder
        .rename(MANIFEST, &store.manifests, release)
        .and_then(|()| store.manifests.sync())
        .and_then(|()| staging.folder.rename_new(TREE, &store.releases, release))
        .and_then(|()| store.releases.sync())
        .map_err(cannot)?;
    let mut record = ledger.draft(Event::Received, Some(release));
    record.sha256 = Some(asked.sha256);
    (record.files, record.bytes) = (Some(sums.files), Some(sums.bytes));
    ledger.append(record)?;
    Ok(Published::New)
}

fn success(asked: &Receive, sums: Sums, received: Option<u64>) -> Success {
    let mut line = format!(
        "ok receive {} sha256={} files={} bytes={}",
        asked.release, asked.sha256, sums.files, sums.bytes
    );
    if received.is_none() {
        line.push_str(" result=\"already received\"");
    }
    Success {
        lines: vec![line],
        release: Some(asked.release.clone()),
        received,
        files: Some(sums.files),
        bytes: Some(sums.bytes),
        ..Success::default()
    }
}
