//! The assembler: a separate process that has never seen the archive.
//!
//! The unpacker parses hostile bytes, so the assembler ignores what it says about its files. The
//! assembler walks what is on disk, requires what a release may have, hashes every file
//! by its own descriptor, and writes the entries of the manifest. It reads names, targets
//! and sizes, and passes the content of a file to the hash function only.
//!
//! For a delta it builds the tree first: it merges the list of the base with the changes
//! ([`delta`]), and takes what is unchanged from the base (`build`).
//!
//! The monitor starts it before its own sandbox, as it does with the hook runner, and
//! sends it one [`AssembleJob`] when the unpacker has ended. The assembler has a sandbox of
//! its own. It ends when its stdin closes: the sandbox of the monitor permits no signal to
//! a process outside of it.

mod build;
pub mod delta;
mod resolve;
pub mod staged;

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::archive::FailureReport;
use crate::config::Reuse;
use crate::dir::{Dir, Name};
use crate::error::{self, Code, Error, Result};
use crate::escape;
use crate::hash::{Outcome, Pool};
use crate::manifest::{DIR_MODE, Entry, Kind, Sums, compare_paths, trailer, tree_list};
use crate::message;
use crate::names::{ReleaseId, Sha256Digest};
use crate::sandbox::{self, Access, Enforcement};
use crate::shared_paths::Shared;
use crate::store::Inherited;
use crate::store::layout::{INCOMING, MANIFESTS, RELEASES, STAGED_MEMBERS, STAGED_TREE, STATE};
use crate::threads;
use build::DeltaPlaces;
use delta::{DeltaJob, Merged, Source};

/// The word of argv that makes this program the assembler.
pub const WORD: &str = "assemble";

/// As [`WORD`], where the configuration says `reuse = "link"`.
///
/// A monitor sends the job after it has parsed what a client says. A compromised one could have
/// the files of the live release linked into `incoming/`, where it may write. The word was chosen
/// before.
pub const LINKING_WORD: &str = "assemble-with-links";

/// The maximum length of a job, in bytes: that of the unpacker's, and some more numbers.
pub const MAX_JOB: usize = 160 * 1024;

/// The maximum length of an [`Answer`], in bytes.
pub const MAX_ANSWER: usize = 8192;

/// The maximum number of threads that hash. More read no faster from any disk.
const MAX_THREADS: usize = 8;

/// Everything that the assembler needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssembleJob {
    /// The name of the staging directory in `incoming/`.
    pub staging: String,
    pub limits: TreeLimits,
    pub shared: Shared,
    /// As [`crate::archive::UnpackReport::known`]; empty for a delta.
    pub known: Vec<usize>,
    /// None for a whole release.
    pub delta: Option<DeltaJob>,
    pub inherited: Inherited,
    /// Whether to refuse to work when a part of the sandbox is missing.
    pub sandbox_required: bool,
}

/// The limits of the whole release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeLimits {
    /// Bytes of all files together.
    pub max_unpacked: u64,
    /// Bytes of one file.
    pub max_file: u64,
    /// Files, directories and symlinks together, with the shared symlinks.
    pub max_entries: u32,
}

/// The first line on stdout. After `Assembled` come the entries and the sums, as lines of
/// the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Assembled(Assembled),
    Failed(FailureReport),
}

/// The facts about a tree that its entries do not contain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assembled {
    pub sandbox: Enforcement,
    /// The digest of the tree list.
    pub tree: Sha256Digest,
    /// As [`crate::archive::UnpackReport::known`].
    pub known: Vec<usize>,
}

impl TreeLimits {
    /// Returns the address space that the assembler may use, in bytes: the buffers of its
    /// threads, the allocator's reservation for each, and a path and a target for each
    /// entry.
    fn memory(&self) -> u64 {
        (1 << 30) + u64::from(self.max_entries) * 4096
    }
}

/// Returns the paths that the client did not send, sorted as in a manifest: the shared
/// symlinks, and the directories above them that only they need. `known` is that of
/// [`crate::archive::UnpackReport`].
pub fn added(shared: &Shared, known: &[usize]) -> Vec<Vec<u8>> {
    let mut added = Vec::new();
    for (link, known) in shared.links.iter().zip(known) {
        let components = link.components();
        let new = (*known).min(components.len()) + 1..=components.len();
        added.extend(new.map(|depth| components[..depth].join(&b'/')));
    }
    added.sort_by(|one, other| compare_paths(one, other));
    added.dedup();
    added
}

/// Runs as the assembler, and returns the exit status.
pub fn main(job: &AssembleJob, may_link: bool) -> u8 {
    let Err(error) = check_links(job.delta.as_ref(), may_link).and_then(|()| assemble(job)) else {
        return 0;
    };
    // The monitor takes the end without an answer for a defect.
    if let Some(report) = FailureReport::new(&error)
        && let Ok(line) = message::encode(&Answer::Failed(report))
    {
        _ = writeln!(std::io::stdout(), "{line}");
    }
    error.code.exit()
}

/// Refuses a job that makes hard links where the assembler may make none.
fn check_links(delta: Option<&DeltaJob>, may_link: bool) -> Result<()> {
    match delta {
        Some(delta) if delta.reuse == Reuse::Link && !may_link => Err(error::bug()),
        _ => Ok(()),
    }
}

fn assemble(job: &AssembleJob) -> Result<()> {
    let places = Places::open(job)?;
    let partial = sandbox::restrict_assembler_before_threads(
        &places.directories(job),
        job.limits.max_file,
        job.limits.memory(),
    );
    // The threads start between the two halves of the sandbox: they inherit the first
    // half, and the second half forbids starting more.
    end_with_stdin()?;
    let hashed = Arc::new(Mutex::new(Vec::new()));
    let results = Arc::clone(&hashed);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut pool = Pool::start(threads.min(MAX_THREADS), move |index: usize, outcome| {
        // A poisoned mutex means that another thread panicked: the entry has no digest.
        if let Ok(mut results) = results.lock() {
            results.push((index, outcome));
        }
    })?;
    // No directory of a release keeps the set-group-id bit that it passes on.
    let inherited = job.inherited;
    let mode = (inherited.set_group_id).then_some(DIR_MODE & inherited.permissions);
    let builds = job.delta.is_some();
    let sandbox = sandbox::restrict_assembler_after_threads(partial, builds, mode);
    sandbox.ensure_full(job.sandbox_required)?;
    let list = match (&job.delta, places.delta) {
        (Some(delta), Some(places)) => Some(build::build_delta(places, job, delta)?),
        _ => None,
    };
    let mut hash = |file, size, index| pool.submit(file, size, index);
    let mut entries = staged::walk(&places.tree, job, list.as_ref(), &mut hash)?;
    pool.finish()?;
    let hashed = std::mem::take(&mut *hashed.lock().map_err(|_| error::bug())?);
    let known = match (&job.delta, list) {
        (Some(delta), Some(list)) => {
            check_digests(&list, &delta.base, hashed)?;
            entries = list.entries;
            list.known
        }
        _ => {
            set_digests(&mut entries, hashed)?;
            job.known.clone()
        }
    };
    write_answer(job, sandbox, &entries, known)
}

/// The open directories.
struct Places {
    tree: Dir,
    delta: Option<DeltaPlaces>,
}

impl Places {
    fn open(job: &AssembleJob) -> Result<Places> {
        let base = job.delta.as_ref().map(open_base).transpose()?;
        let open = || {
            let name = Name::new(job.staging.as_bytes()).ok_or(nix::Error::EINVAL)?;
            // The working directory is the root of the site.
            let root = Dir::cwd()?;
            let state = root.open_dir(STATE)?;
            let staging = state.open_dir(INCOMING)?.open_dir(name)?;
            let tree = staging.open_dir(STAGED_TREE)?;
            let delta = match base {
                Some((base, manifest)) => Some(DeltaPlaces {
                    tree: staging.open_dir(STAGED_TREE)?,
                    members: staging.open_dir(STAGED_MEMBERS)?,
                    base,
                    manifest,
                    staging,
                }),
                None => None,
            };
            Ok(Places { tree, delta })
        };
        open().map_err(|errno: nix::Error| Error::io("cannot open the staging directory", errno))
    }

    /// Returns what the assembler may reach.
    fn directories(&self, job: &AssembleJob) -> Vec<(&Dir, Access)> {
        match (&self.delta, &job.delta) {
            (Some(places), Some(delta)) => {
                let (staging, base) = delta_access(delta.reuse);
                vec![(&places.staging, staging), (&places.base, base)]
            }
            _ => vec![(&self.tree, Access::Read)],
        }
    }
}

/// Opens the base and its manifest.
fn open_base(delta: &DeltaJob) -> Result<(Dir, File)> {
    let open = || {
        let root = Dir::cwd()?;
        let base = root
            .open_dir(RELEASES)?
            .open_dir_of_this_mount(&delta.base)?;
        let manifests = root.open_dir(STATE)?.open_dir(MANIFESTS)?;
        Ok((base, manifests.open_file(&delta.base)))
    };
    let (base, manifest) = open().map_err(|errno| delta::base_error(&delta.base, b"", errno))?;
    let manifest = manifest.map_err(|errno| delta::list_error(&delta.base, errno))?;
    Ok((base, manifest))
}

/// Returns the access to the staging directory and to the base, for a delta.
///
/// Landlock refuses a link by which a file would get a right that it does not have at its
/// first name. So where files are linked, the new tree has no right to write files.
pub fn delta_access(reuse: Reuse) -> (Access, Access) {
    match reuse {
        Reuse::Clone => (Access::Build, Access::Read),
        Reuse::Link => (Access::Link, Access::LinkFrom),
    }
}

/// Starts a thread that ends this process when stdin closes: the monitor has ended, or has
/// failed and waits for no answer. Nothing else could end this process in time, because a
/// file may be large.
#[expect(
    clippy::disallowed_methods,
    reason = "the other threads have nothing to clean up"
)]
fn end_with_stdin() -> Result<()> {
    let (ready, started) = sync_channel(1);
    let wait = move || {
        _ = ready.send(());
        // Terminates: the monitor sends nothing more, so the first read returns at the end.
        _ = std::io::stdin().read(&mut [0]);
        std::process::exit(Code::UnpackerDied.exit().into());
    };
    (threads::builder().spawn(wait)).map_err(|error| Error::io("cannot start a thread", error))?;
    // Now the thread runs our code. It makes no more of the system calls that set up a
    // thread, which the sandbox forbids.
    _ = started.recv();
    Ok(())
}

/// Gives each file its digest.
fn set_digests(entries: &mut [Entry], hashed: Vec<(usize, Outcome)>) -> Result<()> {
    let files = entries.iter().filter(|entry| is_file(entry)).count();
    // Each index occurs once, so an equal number means that every file has a digest.
    if hashed.len() != files {
        return Err(error::bug());
    }
    for (index, outcome) in hashed {
        let Some(entry) = entries.get_mut(index) else {
            return Err(error::bug());
        };
        let found = outcome.map_err(|error| read_error(entry, error))?;
        match (&mut entry.kind, found) {
            (Kind::File { sha256, .. }, Some(digest)) => *sha256 = digest,
            (Kind::File { .. }, None) => {
                return Err(staged::fault(&entry.path, "changes while it is read"));
            }
            _ => return Err(error::bug()),
        }
    }
    Ok(())
}

/// Compares the digests of a delta with its list.
fn check_digests(list: &Merged, base: &ReleaseId, hashed: Vec<(usize, Outcome)>) -> Result<()> {
    let files = list.entries.iter().filter(|entry| is_file(entry)).count();
    if hashed.len() != files {
        return Err(error::bug());
    }
    for (index, outcome) in hashed {
        let (Some(entry), Some(source)) = (list.entries.get(index), list.sources.get(index)) else {
            return Err(error::bug());
        };
        let found = outcome.map_err(|error| read_error(entry, error))?;
        let Kind::File { sha256, .. } = &entry.kind else {
            return Err(error::bug());
        };
        if found == Some(*sha256) {
            continue;
        }
        if *source == Source::Base {
            return Err(delta::base_damaged(base, &entry.path, "has other content"));
        }
        let shown = escape::escape_truncated(&entry.path, 300);
        let problem = format!("the delta: the content of './{shown}' is not as its line says");
        return Err(Error::new(Code::TreeMismatch, problem).remedy(delta::SEND_WHOLE));
    }
    Ok(())
}

fn read_error(entry: &Entry, error: std::io::Error) -> Error {
    let shown = escape::escape_truncated(&entry.path, 300);
    Error::io(format!("cannot read './{shown}'"), error)
}

fn is_file(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::File { .. })
}

/// Writes the answer, the entries, and their sums.
fn write_answer(
    job: &AssembleJob,
    sandbox: Enforcement,
    entries: &[Entry],
    known: Vec<usize>,
) -> Result<()> {
    let sent = tree_list::in_order(entries, &added(&job.shared, &known));
    let tree = tree_list::digest(sent);
    let answer = message::encode(&Answer::Assembled(Assembled {
        sandbox,
        tree,
        known,
    }))?;
    let mut sums = Sums::default();
    let mut write = || {
        let mut out = BufWriter::with_capacity(64 * 1024, std::io::stdout().lock());
        writeln!(out, "{answer}")?;
        for entry in entries {
            sums.add(entry);
            writeln!(out, "{entry}")?;
        }
        out.write_all(trailer(sums).as_bytes())?;
        out.flush()
    };
    write().map_err(|error| Error::io("cannot write the entries", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_paths_are_shared_symlinks_and_new_directories_above_them() {
        let links = ["a/b/c", "a/b/d", "e"].map(|path| path.to_owned().try_into().unwrap());
        let shared = Shared {
            links: links.into(),
            ..Shared::default()
        };
        // The archive has `a`; the first symlink needs `a/b`, which the second one finds.
        let added: Vec<_> = (added(&shared, &[1, 2, 0]).into_iter())
            .map(|path| String::from_utf8(path).unwrap())
            .collect();
        assert_eq!(added, ["a/b", "a/b/c", "a/b/d", "e"]);
    }
}
