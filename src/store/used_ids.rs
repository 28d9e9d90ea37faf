//! `used-ids-SEQ`: the ids of removed releases, in sorted files. docs/formats.md
//! specifies them.
//!
//! The journal has the ids that were removed since its checkpoint. The checkpoint names
//! the files that have all others. A file never changes. Each line has the same
//! length, so a look-up reads a few lines by binary search, however many ids there are.
//!
//! A checkpoint writes the new ids to a new file, together with those of the files
//! that are not much larger. So there are few files (each is more than twice as long
//! as the next one), and an id is copied only each time that the number of ids has
//! doubled.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::iter::Peekable;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::dir::Name;
use crate::error::{Code, Error, Result};
use crate::names::{ReleaseId, Sha256Digest};
use crate::store::history::{Content, History, IdUse};
use crate::store::layout::STATE;
use crate::store::{Store, journal};

/// The beginning of every file's name; the number follows.
pub const PREFIX: &str = "used-ids-";

/// The first line of every file, filled up with spaces.
pub const HEAD: &str = "# deploy-shell used ids, format 2";

/// The longest id.
const ID: usize = 64;

/// A line: the id filled up with spaces, a space, the digest, a space, the number of
/// the first record in 20 digits, and a line feed.
const LINE: usize = ID + 1 + 64 + 1 + 20 + 1;

/// The digest's place of an id that was only the target of the current symlink.
const NOTHING: [u8; 64] = [b'-'; 64];
/// The digest's place of an id under which several payloads were received.
const SEVERAL: [u8; 64] = [b'*'; 64];

/// One file, as the checkpoint names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedIds {
    /// The number of the last record before the checkpoint that wrote it; a part of
    /// its name.
    pub seq: u64,
    /// The number of its ids.
    pub ids: u64,
}

impl UsedIds {
    /// Returns the file's name.
    pub fn name(self) -> String {
        format!("{PREFIX}{}", self.seq)
    }
}

/// Adds to `history` what the files know of `id`, if `history` does not know it.
///
/// # Errors
///
/// [`Code::IoError`] if a file is missing or damaged.
pub fn recall(store: &Store, history: &mut History, id: &ReleaseId) -> Result<()> {
    if history.knows(id) {
        return Ok(());
    }
    let mut found: Option<IdUse> = None;
    for file in &history.used_ids {
        if let Some(id_use) = Reader::open(store, *file)?.find(id)? {
            found = Some(found.map_or(id_use, |other| other.merge(id_use)));
        }
    }
    if let Some(id_use) = found {
        history.remember(id, id_use);
    }
    Ok(())
}

/// Writes `removed` to a new file with the number `seq`, together with the ids of the
/// last ones of `files`. Returns the files that have all ids now. Files that are
/// not among them any more stay on disk.
///
/// # Errors
///
/// As [`recall`], and [`Code::DiskFull`].
pub fn write(
    store: &Store,
    files: &[UsedIds],
    removed: &BTreeMap<ReleaseId, IdUse>,
    seq: u64,
) -> Result<Vec<UsedIds>> {
    let mut files = files.to_vec();
    if removed.is_empty() {
        return Ok(files);
    }
    let own = removed.iter().map(|(id, id_use)| Ok((id.clone(), *id_use)));
    let mut sources: Vec<Peekable<Source<'_>>> = vec![(Box::new(own) as Source<'_>).peekable()];
    let mut expected = removed.len() as u64;
    while let Some(last) = files.pop_if(|last| last.ids <= 2 * expected) {
        expected += last.ids;
        sources.push((Box::new(Reader::open(store, last)?) as Source<'_>).peekable());
    }
    let mut new = UsedIds { seq, ids: 0 };
    let name = new.name();
    let cannot = |error: std::io::Error| store.state_io(format!("cannot write '{name}'"), error);
    let as_name = Name::new(name.as_bytes()).ok_or_else(|| cannot(Errno::EINVAL.into()))?;
    let file = store
        .state
        .open_rw(as_name, 0o600)
        .map_err(|errno| cannot(errno.into()))?;
    // A checkpoint that was killed may have left the file. Nothing names it.
    file.set_len(0).map_err(cannot)?;
    let mut lines = BufWriter::with_capacity(256 * 1024, file);
    lines.write_all(&head()).map_err(cannot)?;
    while let Some((id, id_use)) = next_id(&mut sources)? {
        lines.write_all(&line(&id, id_use)).map_err(cannot)?;
        new.ids += 1;
    }
    let file = lines
        .into_inner()
        .map_err(|error| cannot(error.into_error()))?;
    file.sync_data().map_err(cannot)?;
    files.push(new);
    Ok(files)
}

type Entry = (ReleaseId, IdUse);
type Source<'a> = Box<dyn Iterator<Item = Result<Entry>> + 'a>;

/// Takes the smallest id off all sources that have it. Every source is sorted.
fn next_id(sources: &mut [Peekable<Source<'_>>]) -> Result<Option<Entry>> {
    let mut smallest: Option<ReleaseId> = None;
    for source in sources.iter_mut() {
        match source.peek() {
            Some(Ok((id, _))) if smallest.as_ref().is_none_or(|found| id < found) => {
                smallest = Some(id.clone());
            }
            Some(Ok(_)) | None => {}
            Some(Err(_)) => return source.next().transpose(),
        }
    }
    let Some(id) = smallest else { return Ok(None) };
    let mut merged: Option<IdUse> = None;
    for source in sources {
        let same = source.next_if(|next| next.as_ref().is_ok_and(|(other, _)| *other == id));
        if let Some((_, id_use)) = same.transpose()? {
            merged = Some(merged.map_or(id_use, |other| other.merge(id_use)));
        }
    }
    Ok(merged.map(|id_use| (id, id_use)))
}

/// Reads one file, by look-up or from its start. It checks what it reads.
struct Reader<'a> {
    store: &'a Store,
    file: UsedIds,
    lines: BufReader<File>,
    /// The last id read by the iterator.
    last: Option<ReleaseId>,
    read: u64,
}

impl<'a> Reader<'a> {
    fn open(store: &'a Store, file: UsedIds) -> Result<Reader<'a>> {
        let name = file.name();
        let cannot = |error: std::io::Error| store.state_io(format!("cannot read '{name}'"), error);
        let open = |name| match store.state.open_file(name) {
            Ok(opened) => Ok(opened),
            Err(Errno::ENOENT) => Err(damaged(store, file, "it does not exist")),
            Err(errno) => Err(cannot(errno.into())),
        };
        let opened = Name::new(name.as_bytes())
            .ok_or_else(|| cannot(Errno::EINVAL.into()))
            .and_then(open)?;
        let reader = Reader {
            store,
            file,
            lines: BufReader::with_capacity(256 * 1024, opened),
            last: None,
            read: 0,
        };
        let length = reader.lines.get_ref().metadata().map_err(cannot)?.len();
        // Saturating: the number comes from the journal.
        if length != file.ids.saturating_add(1).saturating_mul(LINE as u64) {
            return Err(reader.damaged("it does not have the length that the journal says"));
        }
        if reader.line_at(0)? != head() {
            return Err(reader.damaged("its first line is not that of this format"));
        }
        Ok(reader)
    }

    fn damaged(&self, why: &str) -> Error {
        damaged(self.store, self.file, why)
    }

    fn line_at(&self, number: u64) -> Result<[u8; LINE]> {
        let mut line = [0; LINE];
        (self.lines.get_ref())
            .read_exact_at(&mut line, number * LINE as u64)
            .map_err(|error| {
                let name = self.file.name();
                self.store.state_io(format!("cannot read '{name}'"), error)
            })?;
        Ok(line)
    }

    /// Returns what the file has of `id`, by binary search.
    fn find(&self, id: &ReleaseId) -> Result<Option<IdUse>> {
        // The lines before `low` have smaller ids, those from `high` on greater ones.
        let (mut low, mut high) = (0, self.file.ids);
        let (mut below, mut above): (Option<ReleaseId>, Option<ReleaseId>) = (None, None);
        // Terminates: each turn at least halves the lines between the two.
        while low < high {
            let middle = low + (high - low) / 2;
            // The first line is the head.
            let (found, id_use) = self.parse(&self.line_at(middle + 1)?)?;
            let too_small = below.as_ref().is_some_and(|below| found <= *below);
            if too_small || above.as_ref().is_some_and(|above| found >= *above) {
                return Err(self.damaged("it is not sorted"));
            }
            match found.cmp(id) {
                std::cmp::Ordering::Equal => return Ok(Some(id_use)),
                std::cmp::Ordering::Less => (low, below) = (middle + 1, Some(found)),
                std::cmp::Ordering::Greater => (high, above) = (middle, Some(found)),
            }
        }
        Ok(None)
    }

    fn parse(&self, line: &[u8; LINE]) -> Result<Entry> {
        parse(line).ok_or_else(|| self.damaged("a line does not have its format"))
    }

    fn next_line(&mut self) -> Result<Entry> {
        let mut line = [0; LINE];
        // The first line is the head.
        let skipped = if self.read == 0 { 2 } else { 1 };
        for _ in 0..skipped {
            self.lines.read_exact(&mut line).map_err(|error| {
                let name = self.file.name();
                self.store.state_io(format!("cannot read '{name}'"), error)
            })?;
        }
        self.read += 1;
        let (id, id_use) = self.parse(&line)?;
        if self.last.as_ref().is_some_and(|last| id <= *last) {
            return Err(self.damaged("it is not sorted"));
        }
        self.last = Some(id.clone());
        Ok((id, id_use))
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.read < self.file.ids).then(|| self.next_line())
    }
}

fn head() -> [u8; LINE] {
    let mut line = [b' '; LINE];
    line[..HEAD.len()].copy_from_slice(HEAD.as_bytes());
    line[LINE - 1] = b'\n';
    line
}

fn line(id: &ReleaseId, id_use: IdUse) -> Vec<u8> {
    let content = match id_use.content {
        Content::Nothing => NOTHING.to_vec(),
        Content::One(sha256) => sha256.to_string().into_bytes(),
        Content::Several => SEVERAL.to_vec(),
    };
    let mut line = format!("{:<ID$} ", id.as_str()).into_bytes();
    line.extend_from_slice(&content);
    line.extend_from_slice(format!(" {:020}\n", id_use.first_seq).as_bytes());
    line
}

/// Reads a line. There is one spelling: what [`line`] writes.
fn parse(text: &[u8; LINE]) -> Option<Entry> {
    let words = std::str::from_utf8(text).ok()?;
    let id = ReleaseId::try_from(words.get(..ID)?.trim_end()).ok()?;
    let content = words.get(ID + 1..ID + 65)?;
    let content = match content.as_bytes() {
        bytes if *bytes == NOTHING => Content::Nothing,
        bytes if *bytes == SEVERAL => Content::Several,
        _ => Content::One(Sha256Digest::try_from(content).ok()?),
    };
    let first_seq = words.get(ID + 66..LINE - 1)?.parse().ok()?;
    let id_use = IdUse { first_seq, content };
    (line(&id, id_use) == text).then_some((id, id_use))
}

fn damaged(store: &Store, file: UsedIds, why: &str) -> Error {
    let name = file.name();
    let path = store.path().join(STATE).join(&name);
    let problem = format!("the list of used ids '{name}' is damaged: {why}");
    Error::new(Code::BadLayout, problem).remedy(journal::restore_or_move_journal(store, &path))
}

#[cfg(test)]
mod tests;
