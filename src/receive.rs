//! `receive`: verify, then parse, then publish. Nothing becomes live here.
//!
//! The order gives the security. No byte of the payload is interpreted before its
//! digest equals the digest of the request. A separate process interprets it, and another
//! one, which has not seen the payload, checks and hashes the files that it made. They stay
//! in a staging directory until all of them are checked and durable. One rename, which
//! cannot replace anything, publishes them.

mod admission;
mod assembler;
mod base;
mod odd_names;
mod share;
mod spool;
mod staging;
mod termination;
mod unpacker;
mod writeback;

use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use crate::archive::{self, DiskNeed, UnpackReport};
use crate::assemble::delta::DeltaJob;
use crate::assemble::{AssembleJob, TreeLimits};
use crate::config::{Config, RelativePath, Symlinks};
use crate::deadline::Deadline;
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::look_up;
use crate::manifest::{self, Identity, Sums};
use crate::names::{ReleaseId, Sha256Digest, SignatureText};
use crate::policy::Granted;
use crate::request::Receive;
use crate::signature::{NAMESPACE, Requirement, Signable, Signed};
use crate::store::history::{Content, History};
use crate::store::journal::{self, Event};
use crate::store::layout::{STAGED_MANIFEST, STAGED_TREE};
use crate::store::ledger::{self, LOCK_TIMEOUT, Ledger};
use crate::store::limits::KeyLimits;
use crate::store::shared_dir::Fault;
use crate::store::{Actor, Store, used_ids};
use crate::success::{Received, Success, Upload};
use crate::validators;
use base::Base;
use share::Share;
use staging::Staging;
use termination::TerminationSignals;

pub use assembler::Assembler;
pub use unpacker::probe_sandbox as probe_unpacker_sandbox;

/// The work after unpacking, for the message about the deadline.
const CHECKING: &str = "checking the release";

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
    // All checks up to the spool come before the first byte of the payload is read:
    // a retry of a received release costs nothing, and a request that must fail
    // fails at once.
    let signed = check_signatures(config, required, request)?;
    let (mut history, _) = ledger::read_unlocked(store)?;
    used_ids::recall(store, &mut history, &request.release)?;
    let received = find_received(config, required, store, &history, request)?;
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
    require_shared(config, store, deadline)?;
    admission::check(config, store, actor, &history)?;

    let mut share = Share::measure(config, store, actor, &history)?;
    let payload = spool::spool(&share, config, &request.sha256, deadline)?;
    let payload_bytes = payload.bytes();
    let staging = Staging::create(store, &request.release)?;
    let tree = &staging.tree;
    let received = journal::now();
    let (unpacker, digest, sums, odd_names) =
        writeback::with_background_sync(store, tree, |sync| {
            let members = match request.base {
                Some(_) => Some(staging.create_members()?),
                None => None,
            };
            let (into, delta) = (members.as_ref().unwrap_or(tree), members.is_some());
            let unpacked = unpacker::unpack(&share, config, payload, into, delta, deadline)?;
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
                sha256: request.sha256,
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
            check_required_paths(config, store, tree, deadline)?;
            // Again: the application may have removed one during the upload. Under the lock
            // it is too late for that, because the look-up may take long.
            require_shared(config, store, deadline)?;
            let others = validators::open_others(store, &history, actor.key.as_ref(), None);
            validators::separate(others?, tree, staging.open_report()?, deadline)?;
            Ok((unpacked.sandbox, assembled.tree, sums, odd_names))
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
    let received = find_received(config, required, store, &ledger.history, request)?;
    if let Some(received) = received {
        return Ok(Success::Received(received));
    }
    if let Some(base) = &base {
        base.check_state(&ledger.history)?;
    }
    share.measure_new(&ledger.history)?;
    share.check(need)?;
    let mut warnings = publish(config, ledger, actor, request, &staging, sums, digest)?;
    warnings.extend(odd_names.warning());
    Ok(Success::Received(Received {
        release: request.release.clone(),
        sha256: request.sha256,
        tree: Some(digest),
        sums,
        signed,
        upload: Some(Upload {
            payload_bytes,
            commit: request.commit.clone(),
            unpacker,
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

/// Returns the release of the request, if an earlier request received the same
/// content under the same id.
///
/// # Errors
///
/// [`Code::ReleaseExists`] for other content, and for the same content whose
/// stored signatures are no longer valid: a success would promise a swap that will
/// be refused, and the stored signatures never change.
fn find_received(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    history: &History,
    request: &Receive,
) -> Result<Option<Received>> {
    let release = &request.release;
    let exists = |problem: String| {
        Error::new(Code::ReleaseExists, problem)
            .remedy("choose another id; an id is never used for other content")
    };
    let cannot = |errno: nix::Error| store.io(format!("cannot look for '{release}'"), errno);
    if !store.releases.exists(release).map_err(cannot)? {
        // Another process removed the live release. New content under its id would
        // be live at once, without a swap.
        if history.live.as_ref() == Some(release) {
            let problem = format!("the current symlink names '{release}', which is missing");
            return Err(exists(problem));
        }
        // An id never gets other content, also after its release was removed. A client that
        // remembers an id would take one content for the other, and so would PHP's opcache,
        // which may keep the old code by its path.
        match history.id_use(release).map(|id_use| id_use.content) {
            Some(content) if content.excludes(request.sha256) => {
                return Err(exists(match content {
                    Content::One(sha256) => {
                        format!("'{release}' was received before, with sha256 {sha256}")
                    }
                    _ => format!("'{release}' was received before, with several contents"),
                }));
            }
            // What is left of a removed release is the digest of its payload, and the
            // payload of a delta gives other content with another base.
            Some(_) if request.base.is_some() => {
                let problem = format!("'{release}' was received before, and was removed since");
                return Err(exists(problem));
            }
            _ => return Ok(None),
        }
    }
    if !store.is_present(release)? {
        let problem = format!("'{release}' is in releases/ but was not received");
        return Err(exists(problem));
    }
    let (identity, mut entries) = store.manifest(release)?;
    if identity.sha256 != request.sha256 {
        let problem = format!("release '{release}' exists with sha256 {}", identity.sha256);
        return Err(exists(problem));
    }
    // An older version of this program, or another base, may have received it.
    if let Some(tree) = request.tree
        && identity.tree != Some(tree)
    {
        let problem = match identity.tree {
            Some(other) => format!("release '{release}' exists with tree {other}"),
            None => format!("release '{release}' exists, and its tree digest is not known"),
        };
        return Err(exists(problem));
    }
    let checked = required.map(|required| {
        let signable = Signable::of_manifest(&identity);
        required.check(config.site(), release, signable, &identity.signatures)
    });
    let signed = checked.transpose().map_err(|why| {
        let problem = format!("release '{release}' exists without the required signatures: {why}");
        exists(problem)
    })?;
    let known = history.releases.get(release);
    let known = known.and_then(|known| Some((known.files?, known.bytes?)));
    let sums = match known {
        Some((files, bytes)) => Some(Sums { files, bytes }),
        None => manifest::read_sums(&mut entries).ok(),
    };
    Ok(Some(Received {
        release: release.clone(),
        sha256: identity.sha256,
        tree: identity.tree,
        sums: sums.unwrap_or_default(),
        signed,
        upload: None,
        warnings: Vec::new(),
    }))
}

/// Looks at paths in `shared/`, and returns what is wrong with each; none if nothing is.
///
/// # Errors
///
/// As [`look_up::look_up`].
fn look_at_shared(
    config: &Config,
    store: &Store,
    paths: &[RelativePath],
    deadline: Deadline,
) -> Result<Vec<Option<Fault>>> {
    let limit = config.limits.idle_timeout.min(deadline.left());
    let found = look_up::look_up(&store.root, store.path(), paths, limit);
    let found = found.map_err(|mut error| {
        error.problem.push_str("; nothing was published");
        error
    })?;
    let faults = paths.iter().zip(found);
    let faults = faults.map(|(path, found)| store.shared_fault(path.as_path(), found));
    Ok(faults.collect())
}

/// Requires every shared path to exist.
///
/// # Errors
///
/// [`Code::BadLayout`] for the first one that does not, and [`Code::Timeout`].
fn require_shared(config: &Config, store: &Store, deadline: Deadline) -> Result<()> {
    let links = config.shared.links.iter().map(RelativePath::from);
    let faults = look_at_shared(config, store, &links.collect::<Vec<_>>(), deadline)?;
    match faults.into_iter().flatten().next() {
        Some(fault) => Err(fault.into()),
        None => Ok(()),
    }
}

/// Checks that the release has every path that the configuration requires. A path at
/// or below a shared path is looked up in `shared/`, because the symlink to it leads
/// nowhere in the staging directory.
///
/// # Errors
///
/// [`Code::MissingPath`], the failures of `shared/`, and [`Code::Timeout`].
fn check_required_paths(
    config: &Config,
    store: &Store,
    tree: &Dir,
    deadline: Deadline,
) -> Result<()> {
    let required = config.archive.required_paths.iter().cloned();
    let (in_shared, in_release): (Vec<_>, Vec<_>) = required.partition(|path| {
        let bytes = path.as_path().as_os_str().as_bytes();
        config.shared.covering(bytes).is_some()
    });
    for path in in_release {
        deadline.check(CHECKING)?;
        let shown = path.as_path().display();
        match tree.resolve_beneath(path.as_path()) {
            Ok(_) => {}
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {
                return Err(Error::new(
                    Code::MissingPath,
                    format!("the release has no '{shown}', which this site requires"),
                )
                .remedy("archive the contents of the site's directory: tar -C dist -c ."));
            }
            Err(errno) => return Err(Error::io(format!("cannot look for '{shown}'"), errno)),
        }
    }
    let faults = look_at_shared(config, store, &in_shared, deadline)?;
    for (path, fault) in in_shared.iter().zip(faults) {
        let Some(fault) = fault else {
            continue;
        };
        if !fault.missing {
            return Err(fault.into());
        }
        let (root, shown) = (store.path().display(), path.as_path().display());
        let problem = format!("'{root}/shared/{shown}' does not exist, which this site requires");
        return Err(Error::new(Code::MissingPath, problem)
            .remedy(format!("create '{root}/shared/{shown}'")));
    }
    Ok(())
}

/// Publishes the release. Returns a warning for each failure after the release
/// exists.
fn publish(
    config: &Config,
    mut ledger: Ledger<'_>,
    actor: &Actor,
    request: &Receive,
    staging: &Staging<'_>,
    sums: Sums,
    tree: Sha256Digest,
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
    (record.sha256, record.tree) = (Some(request.sha256), Some(tree));
    (record.files, record.bytes) = (Some(sums.files), Some(sums.bytes));
    record.commit.clone_from(&request.commit);
    if let Err(error) = ledger.append(record) {
        warnings.push(error.to_string());
    }
    Ok(warnings)
}
