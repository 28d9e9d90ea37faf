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
mod stage;
mod staging;
mod termination;
mod unpacker;
mod writeback;

use std::time::Duration;

use crate::archive;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result};
use crate::names::ReleaseId;
use crate::policy::Granted;
use crate::request::Receive;
use crate::signature::{NAMESPACE, Requirement, Signable, Signed};
use crate::store::journal::Event;
use crate::store::layout::{STAGED_MANIFEST, STAGED_TREE};
use crate::store::ledger::{self, LOCK_TIMEOUT, Ledger};
use crate::store::limits::KeyLimits;
use crate::store::lock::Lock;
use crate::store::{Actor, Store, used_ids};
use crate::success::{Received, Success, Upload};
use arrival::Arrival;
use base::Base;
use feed::Source;
use share::Share;
use stage::{Staged, Work};
use staging::Staging;
use termination::TerminationSignals;

pub use assembler::Assembler;
pub use unpacker::probe_sandbox as probe_unpacker_sandbox;

/// The work after unpacking, for the message about the deadline.
const CHECKING: &str = "checking the release";

/// The time between two looks at the signals while another request holds the lock.
const LOCK_LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Receives a release.
///
/// # Errors
///
/// Any step may refuse. The last step publishes, so a refusal publishes nothing, and the
/// drop of [`Staging`] removes the files.
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
    admission::check(config, store, actor, &history, &request.release)?;

    // Before the measurement: the files of uploads that a power failure ended may leave no
    // room. Then every receive would be refused, and only a swap or a rollback would remove
    // them.
    ledger::remove_leftovers(store);
    let mut share = Share::measure(config, store, actor, &history)?;
    let arrival = |wait| Arrival::new(config, request.sha256, deadline, wait);
    let source = if signed.as_ref().is_some_and(Signed::covers_payload) {
        Source::Spooled(spool::spool(&share, arrival(spool::LOOK_INTERVAL))?)
    } else {
        Source::Arriving(Box::new(arrival(unpacker::LOOK_INTERVAL)))
    };
    let staging = Staging::create(store, &request.release)?;
    let tree = &staging.tree;
    let work = Work {
        config,
        store,
        actor,
        history: &history,
        request,
        signed: signed.as_ref(),
        share: &share,
        staging: &staging,
        deadline,
    };
    let staged =
        writeback::with_background_sync(store, tree, |sync| work.stage(source, assembler, sync))?;
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
    let lock = take_lock(store, actor, deadline)?;
    let mut ledger = Ledger::open_locked(store, actor, lock)?;
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

/// Takes the lock of the site. A signal ends the wait, so an operator who ends the
/// connections of a key sees nothing of it published afterwards.
///
/// # Errors
///
/// [`Code::Busy`], and [`Code::IoError`] for a signal.
fn take_lock(store: &Store, actor: &Actor, deadline: Deadline) -> Result<Lock> {
    let signals = TerminationSignals::open()?;
    let check = || signals.check(|| "before the release was published".to_owned());
    // A failure would lose a complete upload, so this waits for the lock as long as
    // the receive may last, and at least as long as any other request.
    let until = Deadline::after(deadline.left().max(LOCK_TIMEOUT));
    // Terminates: each turn waits, and the deadline does not move.
    loop {
        let taken = Lock::take(store, actor, LOCK_LOOK_INTERVAL.min(until.left()));
        check()?;
        match taken {
            Err(error) if error.code == Code::Busy && !until.has_passed() => {}
            taken => return taken,
        }
    }
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
    admission::check(config, store, actor, &ledger.history, &request.release)?;
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
