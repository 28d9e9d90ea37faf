//! Fills a staging directory: unpacks the payload, lets the assembler check and hash the
//! files, and writes the manifest. Nothing is published here.

use std::io::{BufWriter, Write};

use super::arrival::VerifiedPayload;
use super::assembler::Assembler;
use super::feed::{self, Source};
use super::odd_names::OddNames;
use super::required;
use super::share::{Allowance, Share};
use super::staging::Staging;
use super::writeback::BackgroundSync;
use crate::archive::{DiskNeed, UnpackReport};
use crate::assemble::delta::DeltaJob;
use crate::assemble::{AssembleJob, TreeLimits};
use crate::config::{Config, Symlinks};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result};
use crate::manifest::{Identity, Sums};
use crate::names::Sha256Digest;
use crate::policy::Granted;
use crate::request::Receive;
use crate::sandbox::Enforcement;
use crate::signature::Signed;
use crate::store::history::History;
use crate::store::{Actor, Store, journal};
use crate::validators;

/// A release in its staging directory: verified, and not published.
pub struct Staged {
    pub payload: VerifiedPayload,
    /// The state of the unpacker's sandbox.
    pub unpacker: Enforcement,
    pub tree: Sha256Digest,
    pub sums: Sums,
    pub odd_names: OddNames,
}

/// The request, and what was found and prepared before its payload is read.
pub struct Work<'a> {
    pub config: &'a Config,
    pub store: &'a Store,
    pub actor: &'a Actor,
    pub history: &'a History,
    pub request: &'a Granted<Receive>,
    pub signed: Option<&'a Signed>,
    pub share: &'a Share<'a>,
    pub staging: &'a Staging<'a>,
    pub deadline: Deadline,
}

impl Work<'_> {
    /// Stages the release. When this returns, the unpacker and the assembler have exited.
    ///
    /// # Errors
    ///
    /// Those of [`feed::unpack`] and of [`Assembler::assemble`]; [`Code::TreeMismatch`],
    /// [`Code::NoSandbox`], [`Code::DiskFull`], [`Code::IoError`] for the manifest, and those of
    /// the checks of required files and of the separation of times.
    pub fn stage(
        &self,
        source: Source<'_>,
        assembler: Assembler,
        sync: &BackgroundSync,
    ) -> Result<Staged> {
        let Work {
            config,
            store,
            request,
            staging,
            deadline,
            ..
        } = *self;
        let members = match request.base {
            Some(_) => Some(staging.create_members()?),
            None => None,
        };
        let tree = &staging.tree;
        let (into, delta) = (members.as_ref().unwrap_or(tree), members.is_some());
        let (unpacked, payload) = feed::unpack(self.share, config, source, into, delta, deadline)?;
        let received = journal::now();
        // All files have been written. The disk works while the assembler hashes.
        sync.request();
        let allowance = match request.base {
            Some(_) => Some(self.share.allowance(DiskNeed::default())?),
            None => None,
        };
        let job = self.assemble_job(unpacked.report, allowance)?;
        let mut assembled = assembler.assemble(config, self.share, allowance, &job, deadline)?;
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
            signatures: (self.signed).map_or(Vec::new(), |signed| signed.signatures().to_vec()),
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
        let key = self.actor.key.as_ref();
        let others = validators::open_others(store, self.history, key, None)?;
        validators::separate(others, tree, staging.open_report()?, deadline)?;
        Ok(Staged {
            payload,
            unpacker: unpacked.sandbox,
            tree: assembled.tree,
            sums,
            odd_names,
        })
    }

    /// Returns the job of the assembler, after the unpacker's end. A delta has an allowance.
    ///
    /// # Errors
    ///
    /// The error of a system call.
    fn assemble_job(
        &self,
        report: UnpackReport,
        allowance: Option<Allowance>,
    ) -> Result<AssembleJob> {
        let Work {
            config,
            store,
            request,
            staging,
            ..
        } = *self;
        let inherited = store
            .inherited()
            .map_err(|errno| store.io("cannot look at 'incoming'", errno))?;
        let archive = &config.archive;
        let delta = match (&request.base, request.tree, allowance) {
            (Some(base), Some(tree), Some(Allowance { room, .. })) => Some(DeltaJob {
                base: base.clone(),
                tree,
                reuse: config.delta.reuse,
                symlinks: archive.symlinks == Symlinks::Inside,
                block: room.block,
                room_bytes: room.bytes,
                room_inodes: room.inodes,
            }),
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
