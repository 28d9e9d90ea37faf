//! The content of a small disk, in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const PAGE: u64 = 4096;

/// The pages that are not zero, by number. Copies share their pages.
#[derive(Clone, Default)]
pub struct Image(BTreeMap<u64, Arc<[u8; PAGE as usize]>>);

impl Image {
    pub fn load(path: &Path) -> io::Result<Image> {
        let mut image = Image::default();
        let mut file = File::open(path)?;
        let mut page = [0; PAGE as usize];
        for number in 0..file.metadata()?.len() / PAGE {
            file.read_exact(&mut page)?;
            if page.iter().any(|byte| *byte != 0) {
                image.0.insert(number, Arc::new(page));
            }
        }
        Ok(image)
    }

    /// Writes a sparse file of `size` bytes.
    pub fn save(&self, path: &Path, size: u64) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(size)?;
        for (number, page) in &self.0 {
            file.write_all_at(page.as_slice(), number * PAGE)?;
        }
        Ok(())
    }

    pub fn read(&self, offset: u64, into: &mut [u8]) {
        each_part(offset, into.len(), |number, within, part| {
            match self.0.get(&number) {
                Some(page) => into[part.clone()].copy_from_slice(&page[within..][..part.len()]),
                None => into[part].fill(0),
            }
        });
    }

    pub fn write(&mut self, offset: u64, from: &[u8]) {
        each_part(offset, from.len(), |number, within, part| {
            let page = self
                .0
                .entry(number)
                .or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[within..][..part.len()].copy_from_slice(&from[part]);
        });
    }
}

/// Calls `visit` for each page that `len` bytes at `offset` touch: the page's number, the
/// first byte in it, and the part of the bytes.
fn each_part(offset: u64, len: usize, mut visit: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut start = 0;
    while start < len {
        let at = offset + start as u64;
        let within = (at % PAGE) as usize;
        let end = len.min(start + PAGE as usize - within);
        visit(at / PAGE, within, start..end);
        start = end;
    }
}
