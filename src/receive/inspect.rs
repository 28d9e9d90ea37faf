//! What the unpacker made, held against what it reported.
//!
//! The unpacker has handled hostile bytes; if it was taken over, both its files
//! and its report are hostile. So when it has ended, and nobody can change
//! anything any more, the staging tree is walked from its handle in step with
//! the manifest: the same names in the same order, the exact modes, sizes and
//! targets, one name for each file, and no link that leads out but those to
//! what the site shares, which are all there, each with its one text. Content
//! is not read again; `verify` does that.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::archive::path::{self, CleanPath, Lead};
use crate::dir::{self, Dir, Name};
use crate::error::{self, Code, Error, Result};
use crate::escape;
use crate::manifest::{Entry, Kind, Sums};
use crate::shared_paths::Shared;

/// Things in a batch to be looked at, and batches that wait. Each thing may keep
/// another folder open: (queue + 2) × this many, 384, of the 1,024 that the
/// monitor may have.
const BATCH: usize = 64;
const QUEUE: usize = 4;

/// Walks `tree`, taking an entry from `next` for each thing in it; `shared` is
/// what it must lead to.
///
/// This thread walks from name to name, and another looks at what bears them.
/// Gives what the entries come to.
///
/// Errors: [`Code::UnpackerDied`] for a difference, [`Code::IoError`].
pub fn inspect(
    tree: &Dir,
    shared: &Shared,
    next: impl FnMut() -> Result<Option<Entry>, &'static str>,
) -> Result<Sums> {
    std::thread::scope(|scope| {
        let (give, take) = sync_channel(QUEUE);
        let looking = std::thread::Builder::new()
            .spawn_scoped(scope, move || look_at_all(tree, shared, &take))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        let mut walk = Walk {
            tree,
            next,
            give,
            batch: Vec::new(),
            sums: Sums::default(),
        };
        let walked = walk.release();
        // Handed over also where the walk has failed: why it did may be among it.
        let walked = walked.and(walk.hand_over());
        let Walk { sums, give, .. } = walk;
        drop(give);
        // What the other found comes first: this one may have stopped for it.
        let linked = looking.join().map_err(|_| error::bug())??;
        walked?;
        // No path comes twice, so all of them are there if so many are.
        if linked != shared.links.len() {
            return Err(lie(b"", "does not lead to all that is shared"));
        }
        Ok(sums)
    })
}

/// Something in the release, and the folder it stands in; none for the release's own.
struct Thing {
    entry: Entry,
    parent: Option<Arc<Dir>>,
}

struct Walk<'a, F> {
    tree: &'a Dir,
    next: F,
    give: SyncSender<Vec<Thing>>,
    batch: Vec<Thing>,
    sums: Sums,
}

impl<F: FnMut() -> Result<Option<Entry>, &'static str>> Walk<'_, F> {
    fn release(&mut self) -> Result<()> {
        let entry = self.entry(b"")?;
        let stat = self.tree.own_stat().map_err(|errno| io(b"", errno))?;
        hold_against(&entry, &stat)?;
        self.below(b"", None)?;
        match (self.next)() {
            Ok(None) => Ok(()),
            Ok(Some(entry)) => Err(lie(&entry.path, "is reported and not there")),
            Err(why) => Err(lie(b"", why)),
        }
    }

    /// All in `parent` (none: the release's own), which has `path`. Bounded in
    /// depth by what a path may be.
    fn below(&mut self, path: &[u8], parent: Option<&Arc<Dir>>) -> Result<()> {
        let folder = parent.map_or(self.tree, |parent| parent);
        for name in folder.names().map_err(|errno| io(path, errno))? {
            let name = name.as_bytes();
            let below = match path {
                b"" => name.to_vec(),
                path => [path, b"/", name].concat(),
            };
            let entry = self.entry(&below)?;
            let is_folder = entry.kind == Kind::Dir;
            let clean = CleanPath::read(&below, is_folder);
            if clean.map_or(true, |clean| clean.as_bytes() != below) {
                return Err(lie(&below, "has a name that no release may have"));
            }
            self.batch.push(Thing {
                entry,
                parent: parent.cloned(),
            });
            if self.batch.len() == BATCH {
                self.hand_over()?;
            }
            if is_folder {
                let inner = folder.open_dir(component(name, &below)?);
                let inner = Arc::new(inner.map_err(|errno| io(&below, errno))?);
                self.below(&below, Some(&inner))?;
            }
        }
        Ok(())
    }

    /// The next entry, which must be the one of `path`.
    fn entry(&mut self, path: &[u8]) -> Result<Entry> {
        match (self.next)() {
            Ok(Some(entry)) if entry.path == path => {
                self.sums.add(&entry);
                Ok(entry)
            }
            Ok(_) => Err(lie(path, "is there and not reported")),
            // Read ahead: which line it is, is not known here.
            Err(why) => Err(lie(b"", why)),
        }
    }

    fn hand_over(&mut self) -> Result<()> {
        let empty = Vec::with_capacity(BATCH);
        let batch = std::mem::replace(&mut self.batch, empty);
        // Whoever took them has stopped, and says why.
        self.give.send(batch).map_err(|_| error::bug())
    }
}

/// Looks at what comes; gives how many shared links were among it.
fn look_at_all(tree: &Dir, shared: &Shared, things: &Receiver<Vec<Thing>>) -> Result<usize> {
    let mut linked = 0;
    for Thing { entry, parent } in things.iter().flatten() {
        linked += usize::from(look_at(tree, shared, &entry, parent.as_deref())?);
    }
    Ok(linked)
}

/// Holds one thing against its entry; tells whether it is a shared link.
fn look_at(tree: &Dir, shared: &Shared, entry: &Entry, parent: Option<&Dir>) -> Result<bool> {
    let (path, parent) = (entry.path.as_slice(), parent.unwrap_or(tree));
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = component(name, path)?;
    let stat = parent.stat(name);
    let stat = stat.map_err(|errno| io(path, errno))?;
    hold_against(entry, &stat)?;
    if let Kind::Link { target } = &entry.kind {
        let found = parent.read_link(name).map_err(|errno| io(path, errno))?;
        if found.as_bytes() != target || path::check_target(target).is_err() {
            return Err(lie(path, "has another target than reported"));
        }
    }
    match (shared.at(path), &entry.kind) {
        (Some(shared), Kind::Link { target }) if *target == shared.target().as_bytes() => Ok(true),
        (Some(_), _) => Err(lie(path, "is not the link to what is shared")),
        (None, Kind::Link { target }) => stays_inside(tree, path, target).map(|()| false),
        (None, _) => Ok(false),
    }
}

/// Type, mode, size and number of names: what stat(2) tells.
fn hold_against(entry: &Entry, stat: &FileStat) -> Result<()> {
    let kind = &entry.kind;
    if dir::kind(stat) != kind.file_type() || stat.st_mode & 0o7777 != kind.mode() {
        return Err(lie(&entry.path, "has another type or mode than reported"));
    }
    match entry.kind {
        Kind::File { size, .. } if stat.st_size as u64 != size || stat.st_nlink != 1 => Err(lie(
            &entry.path,
            "has another size or more names than reported",
        )),
        _ => Ok(()),
    }
}

fn stays_inside(tree: &Dir, path: &[u8], target: &[u8]) -> Result<()> {
    let at = Path::new(OsStr::from_bytes(path));
    let target = || Ok(OsStr::from_bytes(target).to_owned());
    match path::lead(tree, at, target).map_err(|errno| io(path, errno))? {
        Lead::Inside => Ok(()),
        Lead::Out | Lead::Ring => Err(lie(path, "is a link out of the release")),
    }
}

fn component<'a>(name: &'a [u8], path: &[u8]) -> Result<Name<'a>> {
    Name::new(name).ok_or_else(|| lie(path, "has a name that no release may have"))
}

fn lie(path: &[u8], what: &str) -> Error {
    let path = escape::truncate(&escape::escape(path), 300);
    Error::new(
        Code::UnpackerDied,
        format!("the unpacker's report is not true: './{path}' {what}"),
    )
    .remedy("nothing was published; keep the payload and report it")
}

fn io(path: &[u8], errno: Errno) -> Error {
    let path = escape::truncate(&escape::escape(path), 300);
    Error::io(format!("cannot inspect './{path}'"), errno)
}

#[cfg(test)]
mod tests;
