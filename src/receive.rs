//! `receive`: verify, then parse, then publish. Nothing becomes live here.
//!
//! The order is the argument. Nothing of the payload is interpreted before its
//! digest is the promised one; what interprets it is a process of its own; what
//! that process made is in quarantine until all of it is checked and durable;
//! and one rename, which cannot replace anything, publishes it.

mod inspect;
mod spool;
mod staging;
mod unpacker;
mod writeback;

use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::manifest::{self, Identity, Sums};
use crate::names::{ReleaseId, SignatureText};
use crate::policy::Granted;
use crate::request::Receive;
use crate::signature::{NAMESPACE, Requirement, Signed};
use crate::store::history::History;
use crate::store::journal::{self, Event};
use crate::store::layout::{STAGED_MANIFEST, STAGED_TREE};
use crate::store::ledger::{self, Ledger, PATIENCE};
use crate::store::{Actor, Store};
use crate::success::{Received, Success, Upload};
use staging::Staging;

pub use unpacker::probe_sandbox as probe_unpacker_sandbox;

/// Receives a release.
///
/// Errors: whatever the steps refuse. None of them leaves anything behind: the
/// last of them is the rename that publishes.
pub fn receive(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    actor: &Actor,
    asked: &Granted<Receive>,
) -> Result<Success> {
    let deadline = Deadline::after(config.limits.total_timeout);
    // Before a byte is read, as all of what follows here.
    let signed = signed(config, required, asked)?;
    // A retry of what is there already costs nothing,
    // and what would be refused in the end is refused at once.
    let (history, _) = ledger::peek(store)?;
    let there = already_there(config, required, store, &history, asked)?;
    if let Some((sums, signed)) = there {
        return Ok(already_received(asked, sums, signed));
    }
    store.require_shared(&config.shared)?;
    admit(config, store, &history)?;

    let spool = spool::spool(store, config, &asked.sha256, deadline)?;
    let payload_bytes = spool.bytes();
    let staging = Staging::make(store, &asked.release)?;
    let mut manifest = BufWriter::with_capacity(64 * 1024, staging.make_manifest()?);
    let identity = Identity {
        release: asked.release.clone(),
        sha256: asked.sha256,
        signatures: kept(signed.as_ref()),
        received: journal::now(),
    };
    let cannot = |error| store.io("cannot write the manifest", error);
    write!(manifest, "{identity}").map_err(cannot)?;
    let tree = &staging.tree;
    let (confinement, sums) = writeback::meanwhile(store, tree, |flusher| {
        let reports = || flusher.now();
        let on = unpacker::run(store, config, spool, tree, deadline, &mut manifest, reports)?;
        manifest.flush().map_err(cannot)?;
        let mut written = staging.manifest()?;
        let sums = inspect::inspect(tree, &config.shared, &mut written)?;
        require_paths(config, store, tree)?;
        Ok((on, sums))
    })?;
    drop(manifest);
    // One call for all the files and the manifest: a release is durable as a
    // whole before any of it has its name. Nobody writes any more, and most of
    // it is on the disk by now.
    tree.sync_file_system()
        .map_err(|errno| store.io("cannot sync the release", errno))?;
    // The upload is done and would be lost, so this waits as long as a receive
    // may last, and no less than any other request.
    let ledger = Ledger::open(store, actor, deadline.left().max(PATIENCE))?;
    // Another receive of the same content may have been faster.
    let there = already_there(config, required, store, &ledger.history, asked)?;
    if let Some((sums, signed)) = there {
        return Ok(already_received(asked, sums, signed));
    }
    let warnings = publish(config, ledger, asked, &staging, sums)?;
    Ok(Success::Received(Received {
        release: asked.release.clone(),
        sha256: asked.sha256,
        sums,
        signed,
        upload: Some(Upload {
            payload_bytes,
            unpacker: confinement,
        }),
        warnings,
    }))
}

/// Holds the declared signatures against what the site asks for.
///
/// Errors: [`Code::BadSignature`].
fn signed(
    config: &Config,
    required: Option<&Requirement>,
    asked: &Receive,
) -> Result<Option<Signed>> {
    let bad = |problem: String| Error::new(Code::BadSignature, problem);
    let Some(required) = required else {
        if asked.signatures.is_empty() {
            return Ok(None);
        }
        return Err(
            bad("signatures are not configured for this site".to_owned())
                .remedy("send the release without --signature"),
        );
    };
    let Receive {
        release,
        sha256,
        signatures,
    } = asked;
    match required.check(config.site(), release, *sha256, signatures) {
        Ok(signed) => Ok(Some(signed)),
        Err(why) => Err(bad(format!(
            "'{release}' is not signed as it must be: {why}"
        ))
        .remedy(format!(
            "sign the statement with ssh-keygen -Y sign -n {NAMESPACE}, and send it as --signature"
        ))),
    }
}

fn kept(signed: Option<&Signed>) -> Vec<SignatureText> {
    signed.map_or(Vec::new(), |signed| signed.signatures().to_vec())
}

/// What one exact content under this id came to, if it is there already.
///
/// Errors: [`Code::ReleaseExists`] for other content, and for the same content
/// whose own signatures hold no more: a success would promise a swap that will
/// be refused, and what stands beside a release never changes either.
fn already_there(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    history: &History,
    asked: &Receive,
) -> Result<Option<(Sums, Option<Signed>)>> {
    let release = &asked.release;
    let exists = |problem: String| {
        Error::new(Code::ReleaseExists, problem)
            .remedy("choose another id; a release never changes")
    };
    let cannot = |errno: nix::Error| store.io(format!("cannot look for '{release}'"), errno);
    if !store.releases.exists(release).map_err(cannot)? {
        // Gone by somebody's hand while it is live: whatever came under this
        // id would be live at once, without a swap.
        if history.live.as_ref() == Some(release) {
            let problem = format!("the link names '{release}', which is gone");
            return Err(exists(problem));
        }
        return Ok(None);
    }
    if !store.is_present(release)? {
        let problem = format!("'{release}' stands in releases/ and was not received");
        return Err(exists(problem));
    }
    let (identity, mut entries) = store.manifest(release)?;
    if identity.sha256 != asked.sha256 {
        let problem = format!("release '{release}' exists with sha256 {}", identity.sha256);
        return Err(exists(problem));
    }
    let checked = required.map(|required| {
        let (sha256, signatures) = (identity.sha256, &identity.signatures);
        required.check(config.site(), release, sha256, signatures)
    });
    let signed = checked.transpose().map_err(|why| {
        let problem =
            format!("release '{release}' exists, and came without these signatures: {why}");
        exists(problem)
    })?;
    let known = history.releases.get(release);
    let known = known.and_then(|known| Some((known.files?, known.bytes?)));
    let sums = match known {
        Some((files, bytes)) => Some(Sums { files, bytes }),
        None => manifest::read_sums(&mut entries).ok(),
    };
    Ok(Some((sums.unwrap_or_default(), signed)))
}

/// Whether another release may come in now.
fn admit(config: &Config, store: &Store, history: &History) -> Result<()> {
    let now = journal::now();
    let within = |time, span| journal::age(time, now) < span;
    let hour = Duration::from_secs(3600);
    let lately = history
        .received
        .iter()
        .filter(|time| within(**time, hour))
        .count();
    let max = config.limits.receives_per_hour;
    if lately >= max {
        return Err(Error::new(
            Code::RateLimited,
            format!("too many releases within the hour: {lately} of {max}"),
        )
        .remedy("wait, or raise receives_per_hour in the site's configuration"));
    }
    // One that is too old counts no more: the next swap removes it.
    let present = store.present()?;
    let pending = history
        .releases
        .iter()
        .filter(|(_, release)| release.activated.is_none() && !release.bad)
        .filter(|(_, release)| within(release.received, config.pending.max_age))
        .filter(|(id, _)| present.contains(id))
        .count();
    let max = config.pending.max;
    if pending >= max {
        return Err(Error::new(
            Code::Busy,
            format!("too many releases are pending that were never live: {pending} of {max}"),
        )
        .remedy("swap to one, wait until they are too old, or raise 'max' in [pending]"));
    }
    Ok(())
}

/// A path at or beneath a shared one is looked for in `shared/`: the link to it
/// leads nowhere yet.
fn require_paths(config: &Config, store: &Store, tree: &Dir) -> Result<()> {
    for path in &config.archive.required_paths {
        let shown = path.as_path().display();
        let bytes = path.as_path().as_os_str().as_bytes();
        if config.shared.covering(bytes).is_some() {
            match store.look_in_shared(path.as_path()) {
                Ok(()) => continue,
                Err(fault) if fault.missing => {
                    let root = store.path().display();
                    let problem =
                        format!("'{root}/shared/{shown}' does not exist, which this site requires");
                    return Err(Error::new(Code::MissingPath, problem)
                        .remedy(format!("create '{root}/shared/{shown}'")));
                }
                Err(fault) => return Err(fault.into()),
            }
        }
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

/// Makes the release exist; returns what went wrong after it had its name.
fn publish(
    config: &Config,
    mut ledger: Ledger<'_>,
    asked: &Receive,
    staging: &Staging<'_>,
    sums: Sums,
) -> Result<Vec<String>> {
    let release: &ReleaseId = &asked.release;
    let store = ledger.store;
    // Again, now that nobody else can come in between: uploads that run side by
    // side must not pass a limit together.
    admit(config, store, &ledger.history)?;
    store.require_shared(&config.shared)?;
    let cannot = |errno: nix::Error| store.io(format!("cannot publish '{release}'"), errno);
    // The manifest first: a release that exists has one. If we are killed in
    // between, the next request removes a manifest without its release.
    staging
        .folder
        .rename_new(STAGED_MANIFEST, &store.manifests, release)
        .and_then(|()| store.manifests.sync())
        .and_then(|()| {
            staging
                .folder
                .rename_new(STAGED_TREE, &store.releases, release)
        })
        .map_err(cannot)?;
    // The release exists, and this process is confined to adding: it could not
    // take it back. What cannot be synced or written down now is a warning; the
    // next request finds the release and writes it down.
    let mut warnings = Vec::new();
    if let Err(errno) = store.releases.sync() {
        warnings.push(store.io("cannot sync 'releases'", errno).to_string());
    }
    let mut record = ledger.draft(Event::Received, Some(release));
    record.sha256 = Some(asked.sha256);
    (record.files, record.bytes) = (Some(sums.files), Some(sums.bytes));
    if let Err(error) = ledger.append(record) {
        warnings.push(error.to_string());
    }
    Ok(warnings)
}

/// Returns the success of a release that an earlier request received.
fn already_received(asked: &Receive, sums: Sums, signed: Option<Signed>) -> Success {
    Success::Received(Received {
        release: asked.release.clone(),
        sha256: asked.sha256,
        sums,
        signed,
        upload: None,
        warnings: Vec::new(),
    })
}
