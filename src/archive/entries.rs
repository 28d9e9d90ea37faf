//! Reads the tar stream as entries of the profile: joins headers with their long
//! names, and checks that nothing follows the end.

use super::acl;
use super::header::{BLOCK, Header, HeaderKind};
use super::path::{CleanPath, check_symlink_target};
use super::pax::{self, Pax};
use super::rule::{PayloadFormat, Rule, UnpackError};
use super::time::Mtime;
use super::zstd_frame::Frames;

/// One entry. Read a file's data with [`ArchiveEntries::read_data`] before the next
/// entry.
#[derive(Debug)]
pub struct ArchiveEntry {
    /// As the archive has it, for refusals.
    pub name: Vec<u8>,
    pub path: CleanPath,
    pub kind: EntryKind,
    pub mtime: Mtime,
}

#[derive(Debug)]
pub enum EntryKind {
    Dir,
    File {
        executable: bool,
        size: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// To a path of the release, which an earlier entry must have made.
    HardLink {
        target: CleanPath,
        executable: bool,
    },
}

/// The entries of one archive.
pub struct ArchiveEntries {
    frames: Frames,
    /// Whether a block has been read.
    started: bool,
    /// The bytes that all further extended headers may have, and the limit.
    extended_left: u64,
    max_extended: u64,
    /// Unread data of the current entry, and its padding.
    left: u64,
    padding: usize,
}

/// The extended headers since the last entry.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link_target: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl ArchiveEntries {
    /// `max_extended` limits the bytes of all extended headers.
    pub fn new(frames: Frames, max_extended: u64) -> ArchiveEntries {
        ArchiveEntries {
            frames,
            started: false,
            extended_left: max_extended,
            max_extended,
            left: 0,
            padding: 0,
        }
    }

    /// Returns the next entry; none at the two zero blocks.
    pub fn next_entry(&mut self) -> Result<Option<ArchiveEntry>, UnpackError> {
        debug_assert_eq!(self.left, 0, "the last entry's data was read");
        let mut extended = Extended::default();
        // Terminates: each turn consumes a block of a stream of bounded length.
        loop {
            let first = !self.started;
            let Some(block) = self.read_block()? else {
                if !extended.is_empty() {
                    return Err(Rule::ExtendedAlone.into());
                }
                // That was one zero block; the end is two of them.
                return match self.read_block()? {
                    None => Ok(None),
                    Some(_) => Err(Rule::NoEnd.into()),
                };
            };
            let header = Header::from_block(&block).map_err(|rule| {
                // Its "name" is binary noise, which no refusal shows.
                if let Some(rule) = compressed_again(&block).filter(|_| first) {
                    return rule.into();
                }
                let header_name = Header::shown_name(&block);
                UnpackError::from(rule).at(extended.name().unwrap_or(&header_name))
            })?;
            if first && begins_another_format(&block) {
                return Err(Rule::FirstHeader.into());
            }
            match header.kind {
                HeaderKind::Pax
                | HeaderKind::PaxGlobal
                | HeaderKind::GnuLongName
                | HeaderKind::GnuLongLink => self
                    .read_extended(&mut extended, &header)
                    .map_err(|error| error.at(&header.name))?,
                HeaderKind::File | HeaderKind::Dir | HeaderKind::Symlink | HeaderKind::HardLink => {
                    let name = extended.name().unwrap_or(&header.name).to_vec();
                    return self
                        .join_entry(extended, header)
                        .map(Some)
                        .map_err(|error| error.at(&name));
                }
            }
        }
    }

    /// Reads data of the current file into all of `buffer`.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<(), UnpackError> {
        debug_assert!(buffer.len() as u64 <= self.left);
        self.frames.fill(buffer)?;
        self.left -= buffer.len() as u64;
        if self.left == 0 {
            self.skip_padding()?;
        }
        Ok(())
    }

    /// Checks that only zeros follow in the archive, and nothing after it.
    pub fn finish(self) -> Result<(), UnpackError> {
        self.frames.finish()
    }

    /// Returns the next block, or none if it is all zeros.
    fn read_block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let mut block = [0; BLOCK];
        match self.frames.read(&mut block)? {
            0 if !self.started => return Err(Rule::NoContent.into()),
            // An archive that stops at the edge of a block lacks its end; one that
            // stops elsewhere is cut short.
            0 => return Err(Rule::NoEnd.into()),
            // A payload that is compressed twice may be shorter than a block.
            read => match self.frames.fill(&mut block[read..]) {
                Err(UnpackError::Refused {
                    rule: Rule::CutShort,
                    ..
                }) if !self.started => {
                    return Err(compressed_again(&block).unwrap_or(Rule::CutShort).into());
                }
                filled => filled?,
            },
        }
        self.started = true;
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }

    /// Reads past the padding, and returns whether it is all zeros.
    fn skip_padding(&mut self) -> Result<bool, UnpackError> {
        let mut scratch = [0; BLOCK];
        let padding = std::mem::take(&mut self.padding);
        self.frames.fill(&mut scratch[..padding])?;
        Ok(scratch.iter().all(|byte| *byte == 0))
    }

    fn begin_data(&mut self, size: u64) {
        self.left = size;
        self.padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
    }

    /// Reads the data of an extended header.
    fn read_extended(
        &mut self,
        extended: &mut Extended,
        header: &Header,
    ) -> Result<(), UnpackError> {
        if header.size > pax::MAX {
            return Err(Rule::ExtendedTooLong.into());
        }
        // Headers without an entry, and headers of entries that are repeated, add
        // nothing to the tree, whose limit does not stop them.
        let bytes = BLOCK as u64 + header.size.next_multiple_of(BLOCK as u64);
        self.extended_left =
            (self.extended_left.checked_sub(bytes)).ok_or(Rule::Extended(self.max_extended))?;
        let mut data = vec![0; header.size as usize];
        if !data.is_empty() {
            self.begin_data(header.size);
            self.frames.fill(&mut data)?;
            self.left = 0;
            // Some readers read a name or a record up to the next NUL.
            if !self.skip_padding()? {
                return Err(Rule::ExtendedAfterEnd.into());
            }
        }
        match header.kind {
            HeaderKind::Pax => {
                if extended.pax.is_some() {
                    return Err(Rule::TwoPaxHeaders.into());
                }
                let mut pax = Pax::from_records(&data)?;
                set_long_name(&mut extended.name, pax.path.take())?;
                set_long_name(&mut extended.link_target, pax.linkpath.take())?;
                extended.pax = Some(pax);
            }
            HeaderKind::PaxGlobal => {
                if !extended.is_empty() {
                    return Err(Rule::ExtendedAlone.into());
                }
                Pax::check_global(&data)?;
            }
            // Both end in a NUL, which some archivers leave out.
            kind => {
                data.pop_if(|last| *last == 0);
                let slot = match kind {
                    HeaderKind::GnuLongName => &mut extended.name,
                    _ => &mut extended.link_target,
                };
                set_long_name(slot, Some(data))?;
            }
        }
        Ok(())
    }

    /// Makes an entry from its header and the extended headers before it.
    fn join_entry(
        &mut self,
        extended: Extended,
        header: Header,
    ) -> Result<ArchiveEntry, UnpackError> {
        let Extended {
            name: long_name,
            link_target: long_target,
            pax,
        } = extended;
        // The Rust tar library leaves bytes after the NUL of a name that is too long
        // for the field. GNU tar, bsdtar and Python use the long name alone. Without
        // one, Go and others read past the NUL.
        let faults = [
            header.prefix_fault,
            header.name_fault.filter(|_| long_name.is_none()),
            header.link_target_fault.filter(|_| long_target.is_none()),
        ];
        if let Some(fault) = faults.into_iter().flatten().next() {
            return Err(fault.into());
        }
        let pax_size = pax.as_ref().and_then(|pax| pax.size);
        let pax_mtime = pax.as_ref().and_then(|pax| pax.mtime);
        if pax_size.is_some_and(|size| size != header.size) {
            return Err(Rule::PaxSize.into());
        }
        let name = long_name.unwrap_or(header.name);
        let path = CleanPath::from_entry_name(&name, header.kind == HeaderKind::Dir)?;
        let is_link = matches!(header.kind, HeaderKind::Symlink | HeaderKind::HardLink);
        if long_target.is_some() && !is_link {
            return Err(Rule::LongTargetAlone.into());
        }
        // GNU tar takes the data of a hard link for the next header.
        if header.kind != HeaderKind::File && header.size != 0 {
            return Err(Rule::SizeWithoutData.into());
        }
        // A long target replaces one that is cut short in the header. If the header
        // has none, some readers see a file.
        if is_link && header.link_target.is_empty() {
            return Err(Rule::TargetEmpty.into());
        }
        let target = long_target.unwrap_or(header.link_target);
        let kind = match header.kind {
            HeaderKind::File => EntryKind::File {
                executable: header.executable,
                size: header.size,
            },
            HeaderKind::Dir => EntryKind::Dir,
            HeaderKind::HardLink => match CleanPath::from_entry_name(&target, false) {
                Ok(target) => EntryKind::HardLink {
                    target,
                    executable: header.executable,
                },
                Err(_) => return Err(Rule::HardLink(target, "which no entry can have").into()),
            },
            _ => {
                check_symlink_target(&target)?;
                EntryKind::Symlink { target }
            }
        };
        let acl = pax.and_then(|pax| pax.acl);
        if let (EntryKind::File { executable, .. }, Some(acl)) = (&kind, acl)
            && !acl::agrees(&acl, *executable)
        {
            return Err(Rule::Acl.into());
        }
        if let EntryKind::File { size, .. } = kind {
            self.begin_data(size);
        }
        Ok(ArchiveEntry {
            name,
            path,
            kind,
            mtime: pax_mtime.unwrap_or(header.mtime),
        })
    }
}

impl Extended {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link_target.is_none() && self.pax.is_none()
    }

    fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }
}

/// Returns the rule that an archive breaks whose first block, which is no tar header,
/// begins like another format.
fn compressed_again(block: &[u8; BLOCK]) -> Option<Rule> {
    match PayloadFormat::of(block) {
        PayloadFormat::Nothing | PayloadFormat::Tar | PayloadFormat::Unknown => None,
        format => Some(Rule::CompressedTwice(format)),
    }
}

/// Returns whether bsdtar or Python may take the first block of an archive, a valid tar
/// header, for the start of a compressed file: they look for those formats first, and
/// one that begins with a header can hold another archive (gzip, in its extra field).
///
/// Each of those formats begins with a byte that is no text, or with text and a NUL and
/// other bytes after it (lzip, lrzip), or with the ten characters of bzip2. No archiver
/// writes a header with such a name for an entry that a release may have; it may cut
/// the last letter of a long name.
fn begins_another_format(block: &[u8; BLOCK]) -> bool {
    const NAME: usize = 100;
    let field = &block[..NAME];
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(NAME);
    let (name, rest) = field.split_at(end);
    let text = match std::str::from_utf8(name) {
        Ok(text) => text,
        Err(error) if end == NAME && error.error_len().is_none() => {
            str::from_utf8(&name[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return true,
    };
    let is_bzip2 = text.starts_with("BZh") && text.get(4..10) == Some("1AY&SY");
    is_bzip2 || text.contains(char::is_control) || rest.iter().any(|byte| *byte != 0)
}

/// Sets a long name or target. Each entry may have one.
fn set_long_name(slot: &mut Option<Vec<u8>>, value: Option<Vec<u8>>) -> Result<(), Rule> {
    match value.and_then(|value| slot.replace(value)) {
        Some(_) => Err(Rule::TwoLongNames),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begins(text: &[u8]) -> bool {
        let mut block = [0; BLOCK];
        block[..text.len()].copy_from_slice(text);
        begins_another_format(&block)
    }

    #[test]
    fn a_header_is_told_from_another_format() {
        let cut = [vec![b'a'; 99], vec![0xc3]].concat();
        let full = vec![b'a'; 100];
        for name in [
            &b"a.txt"[..],
            b"",
            "caf\u{e9}".as_bytes(),
            &cut,
            &full,
            b"BZh91AY",
            b"abcd1AY&SY",
        ] {
            assert!(!begins(name), "{name:?}");
        }
        let invalid = [vec![b'a'; 50], vec![0xff], vec![b'a'; 49]].concat();
        for start in [
            &b"LZIP\x01"[..],
            b"LRZI\0\x06",
            b"BZh91AY&SY",
            b"\x1f\x8b\x08",
            b"\xfd7zXZ",
            // The start of a character, in a name that is not cut.
            b"caf\xc3",
            &invalid,
        ] {
            assert!(begins(start), "{start:?}");
        }
    }
}
