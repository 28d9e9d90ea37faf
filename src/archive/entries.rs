//! The tar stream as entries of the profile: headers with their long names
//! joined, and the end seen to be the end.

use super::header::{BLOCK, Header, Type};
use super::path::{CleanPath, check_target};
use super::pax::{self, Pax};
use super::rule::{Failure, Rule};
use super::zstd_frame::Frame;

/// One entry. A file's data must be read with [`Entries::read_data`] before
/// the next entry is asked for.
#[derive(Debug)]
pub struct Entry {
    /// As the archive has it, for refusals.
    pub name: Vec<u8>,
    pub path: CleanPath,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    Dir,
    File { executable: bool, size: u64 },
    Link { target: Vec<u8> },
}

/// The entries of one archive.
pub struct Entries {
    frame: Frame,
    /// Data of the present entry that was not read yet, and its padding.
    left: u64,
    padding: usize,
}

/// Extended headers seen since the last entry.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Entries {
    pub fn new(frame: Frame) -> Entries {
        Entries {
            frame,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; none at the two zero blocks.
    pub fn next(&mut self) -> Result<Option<Entry>, Failure> {
        debug_assert_eq!(self.left, 0, "the last entry's data was read");
        let mut extended = Extended::default();
        // Ends: each turn consumes a block of a stream of bounded length.
        loop {
            let Some(block) = self.block()? else {
                if !extended.is_empty() {
                    return Err(Rule::ExtendedAlone.into());
                }
                // One zero block was read; the end is two of them.
                return match self.block()? {
                    None => Ok(None),
                    Some(_) => Err(Rule::NoEnd.into()),
                };
            };
            let name = Header::name_of(&block);
            let header = Header::parse(&block).map_err(|rule| {
                let shown = extended.name().unwrap_or(&name);
                Failure::from(rule).at(shown)
            })?;
            match header.kind {
                Type::Pax | Type::PaxGlobal | Type::GnuName | Type::GnuLink => self
                    .extend(&mut extended, &header)
                    .map_err(|failure| failure.at(&header.name))?,
                Type::File | Type::Dir | Type::Link => {
                    let name = extended.name().unwrap_or(&header.name).to_vec();
                    return self
                        .entry(extended, header)
                        .map(Some)
                        .map_err(|failure| failure.at(&name));
                }
            }
        }
    }

    /// Reads data of the present file into all of `buffer`.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        debug_assert!(buffer.len() as u64 <= self.left);
        self.frame.fill(buffer)?;
        self.left -= buffer.len() as u64;
        if self.left == 0 {
            self.skip_padding()?;
        }
        Ok(())
    }

    /// Sees that nothing but zeros follows, in the archive and behind it.
    pub fn finish(self) -> Result<(), Failure> {
        self.frame.finish()
    }

    /// A block, or none if it is all zeros.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Failure> {
        let mut block = [0; BLOCK];
        match self.frame.read(&mut block)? {
            // An archive that ends on a block's edge lacks its end; one that
            // ends elsewhere is cut short.
            0 => return Err(Rule::NoEnd.into()),
            read => self.frame.fill(&mut block[read..])?,
        }
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }

    /// Reads past the padding, and tells whether it is all zeros.
    fn skip_padding(&mut self) -> Result<bool, Failure> {
        let mut scrap = [0; BLOCK];
        let padding = std::mem::take(&mut self.padding);
        self.frame.fill(&mut scrap[..padding])?;
        Ok(scrap.iter().all(|byte| *byte == 0))
    }

    fn begin_data(&mut self, size: u64) {
        self.left = size;
        self.padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
    }

    fn extend(&mut self, extended: &mut Extended, header: &Header) -> Result<(), Failure> {
        if header.size > pax::MAX {
            return Err(Rule::ExtendedTooLong.into());
        }
        let mut data = vec![0; header.size as usize];
        if !data.is_empty() {
            self.begin_data(header.size);
            self.frame.fill(&mut data)?;
            self.left = 0;
            // Some readers read a name or a record on to the next NUL.
            if !self.skip_padding()? {
                return Err(Rule::ExtendedAfterEnd.into());
            }
        }
        match header.kind {
            Type::Pax => {
                if extended.pax.is_some() {
                    return Err(Rule::TwoPaxHeaders.into());
                }
                let mut pax = Pax::parse(&data)?;
                give(&mut extended.name, pax.path.take())?;
                give(&mut extended.link, pax.linkpath.take())?;
                extended.pax = Some(pax);
            }
            Type::PaxGlobal => {
                if !extended.is_empty() {
                    return Err(Rule::ExtendedAlone.into());
                }
                Pax::check_global(&data)?;
            }
            // Both end in a NUL, which some makers leave out.
            kind => {
                data.pop_if(|last| *last == 0);
                let slot = match kind {
                    Type::GnuName => &mut extended.name,
                    _ => &mut extended.link,
                };
                give(slot, Some(data))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, extended: Extended, header: Header) -> Result<Entry, Failure> {
        if header.ragged {
            return Err(Rule::NameAfterEnd.into());
        }
        let said = extended.pax.and_then(|pax| pax.size);
        if said.is_some_and(|size| size != header.size) {
            return Err(Rule::PaxSize.into());
        }
        let name = extended.name.unwrap_or(header.name);
        let path = CleanPath::read(&name, header.kind == Type::Dir)?;
        if extended.link.is_some() && header.kind != Type::Link {
            return Err(Rule::LinkNameAlone.into());
        }
        let kind = match header.kind {
            Type::File => Kind::File {
                executable: header.executable,
                size: header.size,
            },
            _ if header.size != 0 => return Err(Rule::DataWhereNone.into()),
            Type::Dir => Kind::Dir,
            _ => {
                // A long target stands in for one that is cut short in the
                // header. Where there is none, some readers see a file.
                if header.link.is_empty() {
                    return Err(Rule::LinkEmpty.into());
                }
                let target = extended.link.unwrap_or(header.link);
                check_target(&target)?;
                Kind::Link { target }
            }
        };
        if let Kind::File { size, .. } = kind {
            self.begin_data(size);
        }
        Ok(Entry { name, path, kind })
    }
}

impl Extended {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.pax.is_none()
    }

    fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }
}

/// Sets a long name; there may be one for each entry.
fn give(slot: &mut Option<Vec<u8>>, value: Option<Vec<u8>>) -> Result<(), Rule> {
    match value.and_then(|value| slot.replace(value)) {
        Some(_) => Err(Rule::TwoLongNames),
        None => Ok(()),
    }
}
