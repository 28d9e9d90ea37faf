//! Keeps the validators of HTTP caches true: no two contents of a path get the same
//! modification time.
//!
//! nginx makes ETag and Last-Modified of a file's time, in whole seconds, and its size.
//! A reproducible build gives every file the same time, whatever its content
//! (SOURCE_DATE_EPOCH). Then nginx answers 304 to a browser that has the old content.
//! So a file whose time was that of another content at the same path gets another time.
//!
//! The new time is near the old one and depends on the content, so that nodes agree that
//! received the same releases. It also leads back: from the time and the content of a
//! moved file follow the times that it may have had. So a third content finds that its
//! time is taken although the first release is gone, and a content that stays keeps its
//! moved time.
//!
//! `receive` compares with no pending release of another key: that key could move the
//! times of this one's files. So two pending releases of two keys may have one time for
//! two contents. The first one that becomes live is right. The swap to the other one
//! compares again, and moves times before any cache has seen them.
//!
//! This module compares manifests. It opens only files whose content differs, and the
//! files of two releases. Times are metadata: some caches would serve a release without
//! this wrongly, and the release is still whole. So a fault of an old release only leaves
//! that release out.
//!
//! This module does not know the content of removed releases. A record of the times of all
//! files that the site ever had would grow without limit. Without a record, a safe rule would
//! have to move the time of each new content that is older than the last deploy. Then a
//! build that overlaps with another deploy would lose the times of the archive, and all of
//! its compiled Python files would be stale. docs/web-servers.md says what remains unknown.

use std::cmp::{Ordering, Reverse};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Take};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::deadline::Deadline;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::escape;
use crate::manifest::{self, Entry, Kind, MAX_OTHER_MANIFESTS};
use crate::names::{KeyLabel, ReleaseId, Sha256Digest};
use crate::store::Store;
use crate::store::history::{self, History};
use crate::store::journal;

/// The maximum number of releases to compare with: the live one and the newest others.
const MAX_COMPARED: usize = 32;

/// The maximum distance between a time and its moved time, in seconds. A browser without other instructions keeps a
/// file for a tenth of its age (RFC 9111, 4.2.2), so a large distance would matter.
const MAX_DISTANCE: i64 = 1 << 16;

/// The number of times that a content may get: two bytes of its digest for each.
const CHOICES: usize = 16;

/// Moves the times of files in `tree` that other content at their path has or had.
/// `manifest` is at the first entry of the release in `tree`.
///
/// # Errors
///
/// [`Code::IoError`](crate::error::Code::IoError) for a file in `tree`, and
/// [`Code::Timeout`](crate::error::Code::Timeout) after the deadline.
pub fn separate(
    mut others: Vec<Other>,
    tree: &Dir,
    manifest: impl BufRead,
    deadline: Deadline,
) -> Result<()> {
    if others.is_empty() {
        return Ok(());
    }
    let now = journal::now().as_second();
    let mut own = Lines::new(manifest);
    // Terminates: each turn consumes a line of the manifest.
    while let Some(line) = own.next_line() {
        deadline.check("comparing the times of files")?;
        if !line.contains(" type=file ") {
            continue;
        }
        separate_file(&line, tree, &mut others, now)?;
    }
    Ok(())
}

/// Moves the time of one file, if necessary.
fn separate_file(line: &str, tree: &Dir, others: &mut [Other], now: i64) -> Result<()> {
    let Ok(Entry {
        path,
        kind: Kind::File { sha256, .. },
    }) = Entry::parse(line)
    else {
        return Ok(());
    };
    let at = Path::new(OsStr::from_bytes(&path));
    let cannot = |errno: nix::Error| {
        let shown = escape::escape_truncated(&path, 300);
        Error::io(format!("cannot set the time of './{shown}'"), errno)
    };
    let mut own: Option<i64> = None;
    let mut time = || match own {
        Some(time) => Ok(time),
        None => tree.modified_seconds(at).map(|time| *own.insert(time)),
    };
    // The times of other content, whether this file's time is among those that it has
    // or had, and the moved time of the same content.
    let mut taken = Vec::new();
    let mut conflicts = false;
    let mut kept = None;
    for other in others {
        let Some(found) = other.content_at(line, &path, sha256) else {
            continue;
        };
        if found == sha256 && !other.is_reference {
            continue;
        }
        let Ok(theirs) = other.tree.modified_seconds(at) else {
            continue;
        };
        let ours = time().map_err(cannot)?;
        let was_moved = was_moved(theirs, found, ours);
        if found == sha256 {
            kept = kept.or(was_moved.then_some(theirs));
        } else {
            conflicts |= theirs == ours || was_moved;
            taken.push(theirs);
        }
    }
    if !conflicts && kept.is_none() {
        return Ok(());
    }
    let ours = time().map_err(cannot)?;
    let choices = (0..CHOICES).map(|choice| moved(ours, sha256, choice, now));
    let free = kept
        .into_iter()
        .chain(choices)
        .find(|time| !taken.contains(time));
    match free {
        Some(time) => tree.set_modified_seconds(at, time).map_err(cannot),
        // Not with at most 32 other releases, except for a digest made for it.
        None => Ok(()),
    }
}

/// Returns the distance by which this choice moves the time of a content, in seconds.
fn distance(sha256: Sha256Digest, choice: usize) -> i64 {
    let bytes = [sha256.0[2 * choice], sha256.0[2 * choice + 1]];
    i64::from(u16::from_be_bytes(bytes)) + 1
}

/// Returns the time to which a choice moves a content: later, but never in the future,
/// because a browser does not trust such a time.
fn moved(time: i64, sha256: Sha256Digest, choice: usize, now: i64) -> i64 {
    let distance = distance(sha256, choice);
    if time.saturating_add(MAX_DISTANCE) < now {
        time + distance
    } else {
        time.saturating_sub(distance)
    }
}

/// Returns whether a content whose time is `now_at` may have been moved from `origin`.
fn was_moved(now_at: i64, sha256: Sha256Digest, origin: i64) -> bool {
    let apart = now_at.abs_diff(origin);
    (0..CHOICES).any(|choice| distance(sha256, choice).unsigned_abs() == apart)
}

/// A release to compare with.
pub struct Other {
    tree: Dir,
    lines: Lines<Take<BufReader<File>>>,
    /// Whether a file of the same content keeps its time.
    is_reference: bool,
}

impl Other {
    /// Returns the digest of the file at `path`, if the release has one there. `line` is
    /// the whole line of the new file. Call it in the order of the manifests.
    fn content_at(
        &mut self,
        line: &str,
        path: &[u8],
        sha256: Sha256Digest,
    ) -> Option<Sha256Digest> {
        // Terminates: each turn consumes a line, or returns.
        loop {
            let theirs = self.lines.peek()?;
            // Most lines are equal, and this costs less than to parse them.
            if theirs == line {
                self.lines.next_line();
                return Some(sha256);
            }
            let entry = self.lines.peek_entry()?;
            match manifest::compare_paths(&entry.path, path) {
                Ordering::Less => {
                    self.lines.next_line();
                }
                Ordering::Equal => {
                    return match entry.kind {
                        Kind::File { sha256, .. } => Some(sha256),
                        Kind::Dir | Kind::Link { .. } => None,
                    };
                }
                Ordering::Greater => return None,
            }
        }
    }
}

/// Compares `release` again before its first swap, if a release of another key became
/// live for the first time since it was received.
///
/// This is under the lock, so it also reads at most [`MAX_OTHER_MANIFESTS`] bytes of the
/// release's own manifest. Releases of the same key need no second look: the later one was
/// compared with the earlier one when it was received. The sync of the commit persists the
/// times where the file system commits in order.
///
/// # Errors
///
/// As [`separate`].
pub fn separate_again(
    store: &Store,
    history: &History,
    release: &ReleaseId,
    deadline: Deadline,
) -> Result<()> {
    let Some(own) = history.releases.get(release) else {
        return Ok(());
    };
    let is_new = |other: &history::Release| {
        other.key != own.key && other.first_live.is_some_and(|(seq, _)| seq > own.seq)
    };
    if own.first_live.is_some() || !history.releases.values().any(is_new) {
        return Ok(());
    }
    let others = open_others(store, history, own.key.as_ref(), Some(release))?;
    let (_, manifest) = store.manifest(release)?;
    let cannot = |errno: nix::Error| store.io(format!("cannot open '{release}'"), errno);
    let tree = store
        .releases
        .open_dir_of_this_mount(release)
        .map_err(cannot)?;
    separate(others, &tree, manifest.take(MAX_OTHER_MANIFESTS), deadline)
}

/// Opens the releases to compare with: the live one, and the newest of those that were
/// live or that `key` sent, without `own`. The live one and the newest one are references.
///
/// [`MAX_OTHER_MANIFESTS`] bytes of their manifests are read: the live one first, then the
/// newest. The last one may be read in part.
///
/// # Errors
///
/// As [`Store::present`].
pub fn open_others(
    store: &Store,
    history: &History,
    key: Option<&KeyLabel>,
    own: Option<&ReleaseId>,
) -> Result<Vec<Other>> {
    let mut present = store.present()?;
    // Another key can send releases that are never live, so it could move the times of this
    // key's files, and make their comparison long.
    present.retain(|release| {
        let known = history.releases.get(release);
        let counts = history.live.as_ref() == Some(release)
            || known.is_some_and(|known| known.activated.is_some() || known.key.as_ref() == key);
        counts && own != Some(release)
    });
    let is_live = |release: &ReleaseId| history.live.as_ref() == Some(release);
    let received = |release: &ReleaseId| history.releases.get(release).map(|known| known.seq);
    present.sort_by_key(|release| Reverse((is_live(release), received(release))));
    present.truncate(MAX_COMPARED);
    let references = if present.first().is_some_and(is_live) {
        2
    } else {
        1
    };
    let mut left = MAX_OTHER_MANIFESTS;
    let open = |(number, release): (usize, ReleaseId)| {
        let (_, manifest) = store.manifest(&release).ok()?;
        let size = manifest.get_ref().metadata().ok()?.len();
        Some(Other {
            tree: store.releases.open_dir_of_this_mount(&release).ok()?,
            lines: Lines::new(manifest.take(take_from(&mut left, size))),
            is_reference: number < references,
        })
    };
    Ok(present.into_iter().enumerate().filter_map(open).collect())
}

/// Takes up to `size` from what is left, and returns how much.
fn take_from(left: &mut u64, size: u64) -> u64 {
    let taken = size.min(*left);
    *left -= taken;
    taken
}

/// The lines of a manifest up to its sums, with a look at the next one.
struct Lines<R> {
    from: R,
    /// The next line, after a look at it.
    line: Option<String>,
    entry: Option<Entry>,
}

impl<R: BufRead> Lines<R> {
    fn new(from: R) -> Lines<R> {
        Lines {
            from,
            line: None,
            entry: None,
        }
    }

    fn peek(&mut self) -> Option<&str> {
        if self.line.is_none() {
            let line = manifest::read_line(&mut self.from).ok()??;
            self.line = (!line.starts_with('#')).then_some(line);
        }
        self.line.as_deref()
    }

    fn peek_entry(&mut self) -> Option<Entry> {
        if self.entry.is_none() {
            self.entry = Entry::parse(self.peek()?).ok();
        }
        self.entry.clone()
    }

    fn next_line(&mut self) -> Option<String> {
        self.peek()?;
        self.entry = None;
        self.line.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Sha256Digest = Sha256Digest([0; 32]);
    const B: Sha256Digest = Sha256Digest([0x12; 32]);

    #[test]
    fn a_moved_time_is_never_in_the_future_and_leads_back() {
        let now = 1_800_000_000;
        for time in [0, 315_532_800, now - 2 * MAX_DISTANCE, now - 5, now] {
            for choice in 0..CHOICES {
                for sha256 in [A, B] {
                    let moved = moved(time, sha256, choice, now);
                    assert!(moved != time && moved < now, "{time}");
                    assert!(time.abs_diff(moved) <= MAX_DISTANCE.unsigned_abs());
                    assert!(was_moved(moved, sha256, time));
                }
            }
            assert!(!was_moved(moved(time, A, 0, now), B, time));
            assert!(!was_moved(time, A, time));
        }
    }

    #[test]
    fn other_manifests_are_read_up_to_one_limit() {
        let mut left = 100;
        let taken = [40, 50, 30, 10].map(|size| take_from(&mut left, size));
        assert_eq!((taken, left), ([40, 50, 10, 0], 0));
    }

    #[test]
    fn a_release_is_read_in_step_with_another() {
        let line = |path: &str, digit: char| {
            let digest = digit.to_string().repeat(64);
            format!("./{path} type=file mode=0644 size=1 sha256digest={digest}")
        };
        let text = [
            ". type=dir mode=0755",
            &line("a", '0'),
            "./b type=dir mode=0755",
            &line("b/c", '1'),
            &line("d", '2'),
            "# files 3 bytes 3",
        ]
        .join("\n")
            + "\n";
        let directory = tempfile::tempdir().unwrap();
        let manifest = directory.path().join("manifest");
        std::fs::write(&manifest, text).unwrap();
        let mut other = Other {
            tree: Dir::open_root(directory.path()).unwrap(),
            lines: Lines::new(BufReader::new(File::open(manifest).unwrap()).take(u64::MAX)),
            is_reference: false,
        };
        let digest = |digit: u8| Sha256Digest([digit << 4 | digit; 32]);
        for (path, own, expected) in [
            ("a", '0', Some(digest(0))),
            ("a.b", '0', None),
            ("b", '0', None),
            ("b/c", '0', Some(digest(1))),
            ("b/d", '0', None),
            ("d", '2', Some(digest(2))),
            ("e", '2', None),
        ] {
            let own_digest = digest(own as u8 - b'0');
            let found = other.content_at(&line(path, own), path.as_bytes(), own_digest);
            assert_eq!(found, expected, "{path}");
        }
    }
}
