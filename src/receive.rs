//! `receive`: unpack, verify, then publish. Nothing becomes live here.
//!
//! A separate process interprets the payload, and another one, which has not seen it, checks
//! and hashes the files that the first one made. They stay in a staging directory until the
//! digest of the payload is right and all files are checked and durable. One rename, which
//! cannot replace anything, publishes them.
//!
//! Where signers have signed the digest of the payload, no process interprets a byte of it
//! before that digest is right. Otherwise the client chooses the payload and its digest, and
//! the unpacker reads the payload while it arrives.

mod admission;
mod arrival;
mod assembler;
mod base;
mod earlier;
mod feed;
mod odd_names;
mod required;
mod share;
mod spool;
mod staging;
mod termination;
mod unpacker;
mod writeback;

use std::io::{BufWriter, Write};

use crate::archive::{self, DiskNeed, UnpackReport};
use crate::assemble::delta::DeltaJob;
use crate::assemble::{AssembleJob, TreeLimits};
use crate::config::{Config, Symlinks};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result};
use crate::manifest::{Identity, Sums};
use crate::names::{ReleaseId, Sha256Digest, SignatureText};
use crate::policy::Granted;
use crate::request::Receive;
use crate::sandbox::Enforcement;
use crate::signature::{NAMESPACE, Requirement, Signable, Signed};
use crate::store::journal::{self, Event};
use crate::store::layout::{STAGED_MANIFEST, STAGED_TREE};
use crate::store::ledger::{self, LOCK_TIMEOUT, Ledger};
use crate::store::limits::KeyLimits;
use crate::store::{Actor, Store, used_ids};
use crate::success::{Received, Success, Upload};
use crate::validators;
use arrival::{Arrival, VerifiedPayload};
use base::Base;
use feed::Source;
use odd_names::OddNames;
use share::Share;
use staging::Staging;
use termination::TerminationSignals;

pub use assembler::Assembler;
pub use unpacker::probe_sandbox as probe_unpacker_sandbox;

/// The work after unpacking, for the message about the deadline.
const CHECKING: &str = "checking the release";

/// A release in its staging directory: verified, and not published.
struct Staged {
    payload: VerifiedPayload,
    /// The state of the unpacker's sandbox.
    unpacker: Enforcement,
    tree: Sha256Digest,
    sums: Sums,
    odd_names: OddNames,
}

/// Receives a release.
///
/// # Errors
///
/// Any step may refuse. A refusal leaves nothing behind, because the last step is
/// the rename that publishes.
pub fn receive(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    actor: &Actor,
    assembler: Assembler,
    request: &Granted<Receive>,
) -> Result<Success> {
    let deadline = Deadline::after(config.limits.total_timeout);
    let limits = KeyLimits::new(config, store, actor);
    // All checks up to the arrival come before the first byte of the payload is read:
    // a retry of a received release costs nothing, and a request that must fail
    // fails at once.
    let signed = check_signatures(config, required, request)?;
    let (mut history, _) = ledger::read_unlocked(store)?;
    used_ids::recall(store, &mut history, &request.release)?;
    let received = earlier::find(config, required, store, &history, request)?;
    if let Some(received) = received {
        return Ok(Success::Received(received));
    }
    // Held until the end: the client sends as slowly as it likes, and unpacking uses
    // memory.
    let _slot = limits.take_upload_slot()?;
    // Held until the end as well.
    let base = (request.base.as_ref())
        .map(|base| Base::open(config, required, store, &history, base))
        .transpose()?;
    required::check_shared(config, store, deadline)?;
    admission::check(config, store, actor, &history)?;

    let mut share = Share::measure(config, store, actor, &history)?;
    let arrival = |wait| Arrival::new(config, request.sha256, deadline, wait);
    let source = if signed.as_ref().is_some_and(Signed::covers_payload) {
        Source::Spooled(spool::spool(&share, arrival(spool::LOOK_INTERVAL))?)
    } else {
        Source::Arriving(Box::new(arrival(unpacker::LOOK_INTERVAL)))
    };
    let staging = Staging::create(store, &request.release)?;
    let tree = &staging.tree;
    let staged = writeback::with_background_sync(store, tree, |sync| {
        let members = match request.base {
            Some(_) => Some(staging.create_members()?),
            None => None,
        };
        let (into, delta) = (members.as_ref().unwrap_or(tree), members.is_some());
        let (unpacked, payload) = feed::unpack(&share, config, source, into, delta, deadline)?;
        let received = journal::now();
        // All files have been written. The disk works while the assembler hashes.
        sync.request();
        let job = assemble_job(config, &share, request, &staging, unpacked.report)?;
        let mut assembled = assembler.assemble(config, store, &job, deadline)?;
        // The unpacker refuses to run without a required sandbox, and the assembler too.
        // This refuses the result of one that says it ran without.
        for sandbox in [&unpacked.sandbox, &assembled.sandbox] {
            sandbox.ensure_full(config.sandbox.required)?;
        }
        check_tree(request, assembled.tree)?;
        let identity = Identity {
            release: request.release.clone(),
            sha256: payload.sha256(),
            tree: Some(assembled.tree),
            base: request.base.clone(),
            signatures: signatures_to_keep(signed.as_ref()),
            added: std::mem::take(&mut assembled.added),
            received,
        };
        let cannot = |error| store.io("cannot write the manifest", error);
        let mut manifest = BufWriter::with_capacity(64 * 1024, staging.create_manifest()?);
        write!(manifest, "{identity}").map_err(cannot)?;
        let (sums, odd_names) =
            assembled.copy_entries(|line| manifest.write_all(line).map_err(cannot))?;
        manifest.flush().map_err(cannot)?;
        required::check_release(config, store, tree, deadline)?;
        // Again: the application may have removed one during the upload. Under the lock
        // it is too late for that, because the look-up may take long.
        required::check_shared(config, store, deadline)?;
        let others = validators::open_others(store, &history, actor.key.as_ref(), None);
        validators::separate(others?, tree, staging.open_report()?, deadline)?;
        Ok(Staged {
            payload,
            unpacker: unpacked.sandbox,
            tree: assembled.tree,
            sums,
            odd_names,
        })
    })?;
    let block = store.room(config.limits.reserve)?.block;
    // This needs no deadline of its own: the report has at most `max_entries` lines of a
    // limited length, and `separate` has read it within the deadline.
    let need = archive::disk_need(&mut staging.open_report()?, block);
    deadline.check(CHECKING)?;
    // Now, and not only under the lock: this process may wait for it for long.
    share.check(need)?;
    // One syncfs(2) makes all files and the manifest durable before either is
    // published. No process writes any more, and the background sync has written
    // most of it.
    tree.sync_file_system()
        .map_err(|errno| store.io("cannot sync the release", errno))?;
    // From here on the request only waits for the lock and publishes.
    TerminationSignals::open()?.check(|| "before the release was published".to_owned())?;
    // A failure would lose a complete upload, so this waits for the lock as long as
    // the receive may last, and at least as long as any other request.
    let mut ledger = Ledger::open(store, actor, deadline.left().max(LOCK_TIMEOUT))?;
    ledger.recall(&request.release)?;
    // Another receive of the same content may have been faster.
    let received = earlier::find(config, required, store, &ledger.history, request)?;
    if let Some(received) = received {
        return Ok(Success::Received(received));
    }
    if let Some(base) = &base {
        base.check_state(&ledger.history)?;
    }
    share.measure_new(&ledger.history)?;
    share.check(need)?;
    let mut warnings = publish(config, ledger, actor, request, &staging, &staged)?;
    warnings.extend(staged.odd_names.warning());
    Ok(Success::Received(Received {
        release: request.release.clone(),
        sha256: staged.payload.sha256(),
        tree: Some(staged.tree),
        sums: staged.sums,
        signed,
        upload: Some(Upload {
            payload_bytes: staged.payload.bytes(),
            commit: request.commit.clone(),
            unpacker: staged.unpacker,
        }),
        warnings,
    }))
}

/// Checks that the release has the tree that the request names, if it names one.
///
/// # Errors
///
/// [`Code::TreeMismatch`].
fn check_tree(request: &Receive, tree: Sha256Digest) -> Result<()> {
    match request.tree {
        Some(expected) if expected != tree => {
            // The tree of a delta is a digest of the base with changes that the client chose.
            // A client that may not list files could compare it with its guesses.
            let problem = match request.base {
                None => format!("the release has tree {tree}, which is not that of --tree"),
                Some(_) => "base and changes do not give the tree of --tree".to_owned(),
            };
            Err(Error::new(Code::TreeMismatch, problem)
                .remedy("list the directory again, sorted by bytes, and send what was listed"))
        }
        _ => Ok(()),
    }
}

/// Returns the job of the assembler, after the unpacker's end.
///
/// # Errors
///
/// [`Code::DiskFull`], and the error of a system call.
fn assemble_job(
    config: &Config,
    share: &Share<'_>,
    request: &Receive,
    staging: &Staging<'_>,
    report: UnpackReport,
) -> Result<AssembleJob> {
    let store = share.store;
    let inherited = store
        .inherited()
        .map_err(|errno| store.io("cannot look at 'incoming'", errno))?;
    let archive = &config.archive;
    let delta = match (&request.base, request.tree) {
        (Some(base), Some(tree)) => {
            let room = share.allowance(DiskNeed::default())?.room;
            Some(DeltaJob {
                base: base.clone(),
                tree,
                reuse: config.delta.reuse,
                symlinks: archive.symlinks == Symlinks::Inside,
                block: room.block,
                room_bytes: room.bytes,
                room_inodes: room.inodes,
            })
        }
        _ => None,
    };
    Ok(AssembleJob {
        staging: staging.name().to_owned(),
        limits: TreeLimits {
            max_unpacked: archive.max_unpacked,
            max_file: archive.max_file,
            max_entries: archive.max_entries,
        },
        shared: config.shared.clone(),
        known: report.known,
        delta,
        inherited,
        sandbox_required: config.sandbox.required,
    })
}

/// Checks the signatures of the request. Returns none if the site requires none.
///
/// # Errors
///
/// [`Code::BadSignature`].
fn check_signatures(
    config: &Config,
    required: Option<&Requirement>,
    request: &Receive,
) -> Result<Option<Signed>> {
    let bad = |problem: String| Error::new(Code::BadSignature, problem);
    let Some(required) = required else {
        if request.signatures.is_empty() {
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
        tree,
        base,
        signatures,
        ..
    } = request;
    let signable = Signable::of_request(*sha256, *tree, base.as_ref());
    match required.check(config.site(), release, signable, signatures) {
        Ok(signed) => Ok(Some(signed)),
        Err(why) => Err(bad(format!(
            "'{release}' does not have the required signatures: {why}"
        ))
        .remedy(format!(
            "sign the statement with ssh-keygen -Y sign -n {NAMESPACE}, and send it as --signature"
        ))),
    }
}

fn signatures_to_keep(signed: Option<&Signed>) -> Vec<SignatureText> {
    signed.map_or(Vec::new(), |signed| signed.signatures().to_vec())
}

/// Publishes the release. Returns a warning for each failure after the release
/// exists.
fn publish(
    config: &Config,
    mut ledger: Ledger<'_>,
    actor: &Actor,
    request: &Receive,
    staging: &Staging<'_>,
    staged: &Staged,
) -> Result<Vec<String>> {
    let release: &ReleaseId = &request.release;
    let store = ledger.store;
    // Again, now that this process holds the lock: concurrent uploads must not
    // exceed a limit together.
    admission::check(config, store, actor, &ledger.history)?;
    let cannot = |errno: nix::Error| store.io(format!("cannot publish '{release}'"), errno);
    // The manifest first: every release has one. If this process is killed between
    // the renames, the next request removes the manifest without a release.
    staging
        .directory
        .rename_new(STAGED_MANIFEST, &store.manifests, release)
        .and_then(|()| store.manifests.sync())
        .and_then(|()| {
            staging
                .directory
                .rename_new(STAGED_TREE, &store.releases, release)
        })
        .map_err(cannot)?;
    // The release exists, and the sandbox keeps this process from removing it. A
    // failed sync or a failed journal record becomes a warning; the next request
    // finds the release and records it.
    let mut warnings = Vec::new();
    if let Err(errno) = store.releases.sync() {
        warnings.push(store.io("cannot sync 'releases'", errno).to_string());
    }
    let mut record = ledger.new_record(Event::Received, Some(release));
    let sums = staged.sums;
    (record.sha256, record.tree) = (Some(staged.payload.sha256()), Some(staged.tree));
    (record.files, record.bytes) = (Some(sums.files), Some(sums.bytes));
    record.commit.clone_from(&request.commit);
    if let Err(error) = ledger.append(record) {
        warnings.push(error.to_string());
    }
    Ok(warnings)
}
