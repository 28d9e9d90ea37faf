//! Builds archives for the tests.
//!
//! [`tarball`] makes an ordinary archive with `tar::Builder`. [`Tar`] and [`Header`]
//! decide nothing by themselves: the caller sets every header byte, checksum,
//! padding and end block. A tar library refuses to write most of what the hostile
//! tests need, so `tar::Header` only provides a valid header to start from.

use std::io::Write;

use tar::EntryType;
use zstd::stream::write::Encoder;

pub const BLOCK: usize = 512;

/// A header field: its offset and its length in bytes.
#[derive(Clone, Copy)]
pub struct Field(pub usize, pub usize);

pub const NAME: Field = Field(0, 100);
pub const MODE: Field = Field(100, 8);
pub const UID: Field = Field(108, 8);
pub const SIZE: Field = Field(124, 12);
pub const MTIME: Field = Field(136, 12);
pub const CHECKSUM: Field = Field(148, 8);
pub const KIND: Field = Field(156, 1);
pub const LINK: Field = Field(157, 100);
pub const MAGIC: Field = Field(257, 8);
pub const DEVICE_MAJOR: Field = Field(329, 8);
pub const PREFIX: Field = Field(345, 155);

/// One 512-byte header. [`Tar::header`] gives it the right checksum, unless
/// [`Header::sum`] has set another.
#[derive(Clone)]
pub struct Header {
    raw: tar::Header,
    has_sum: bool,
}

impl Header {
    /// Returns a ustar header with valid fields for `kind`.
    pub fn new(kind: u8, name: impl AsRef<[u8]>, size: u64) -> Header {
        let mut raw = tar::Header::new_ustar();
        raw.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        raw.set_uid(0);
        raw.set_gid(0);
        raw.set_size(size);
        raw.set_mtime(0o14664000000);
        let header = Header {
            raw,
            has_sum: false,
        };
        // Not set_path(): it refuses most of the names that the tests need.
        header.put(NAME, name).put(KIND, [kind])
    }

    pub fn file(name: impl AsRef<[u8]>, size: u64) -> Header {
        Header::new(b'0', name, size)
    }

    pub fn directory(name: impl AsRef<[u8]>) -> Header {
        Header::new(b'5', name, 0)
    }

    pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Header {
        Header::new(b'2', name, 0).put(LINK, target)
    }

    /// Replaces a whole field: the given bytes, then NULs.
    pub fn put(mut self, field: Field, value: impl AsRef<[u8]>) -> Header {
        let Field(start, length) = field;
        let value = value.as_ref();
        assert!(value.len() <= length, "{value:?} does not fit its field");
        let bytes = self.raw.as_mut_bytes();
        bytes[start..start + length].fill(0);
        bytes[start..start + value.len()].copy_from_slice(value);
        self
    }

    /// Sets the magic of old GNU tar: `ustar`, two spaces and a NUL.
    pub fn gnu(self) -> Header {
        self.put(MAGIC, "ustar  \0")
    }

    /// Sets a checksum of the caller's choice.
    pub fn sum(mut self, text: impl AsRef<[u8]>) -> Header {
        self = self.put(CHECKSUM, text);
        self.has_sum = true;
        self
    }

    /// Returns the sum of all bytes with the checksum field as spaces, as in POSIX.
    pub fn unsigned_sum(&self) -> u32 {
        self.sum_of(u32::from)
    }

    /// Returns the same sum of signed bytes, as some old Unix tars computed it.
    pub fn signed_sum(&self) -> i32 {
        self.sum_of(|byte| i32::from(byte.cast_signed()))
    }

    fn sum_of<T: std::iter::Sum>(&self, value: impl Fn(u8) -> T) -> T {
        let header = self.clone().put(CHECKSUM, [b' '; 8]);
        header.raw.as_bytes().iter().map(|byte| value(*byte)).sum()
    }

    fn into_block(mut self) -> [u8; BLOCK] {
        if !self.has_sum {
            self.raw.set_cksum();
        }
        *self.raw.as_bytes()
    }
}

/// A tar stream under construction.
#[derive(Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn header(self, header: Header) -> Tar {
        self.raw(header.into_block())
    }

    /// Appends data with padding: NULs up to a whole block.
    pub fn data(self, data: impl AsRef<[u8]>) -> Tar {
        let data = data.as_ref();
        let padding = data.len().next_multiple_of(BLOCK) - data.len();
        self.raw(data).raw(vec![0; padding])
    }

    /// Appends any bytes.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Tar {
        self.bytes.extend_from_slice(bytes.as_ref());
        self
    }

    pub fn file(self, name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Tar {
        let size = data.as_ref().len() as u64;
        self.header(Header::file(name, size)).data(data)
    }

    pub fn directory(self, name: impl AsRef<[u8]>) -> Tar {
        self.header(Header::directory(name))
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.header(Header::symlink(name, target))
    }

    /// Appends an extended header (`x`, `g`, `L`, `K`) with exactly this body.
    pub fn extended(self, kind: u8, body: impl AsRef<[u8]>) -> Tar {
        let size = body.as_ref().len() as u64;
        let header = match kind {
            b'L' | b'K' => Header::new(kind, "././@LongLink", size).gnu(),
            _ => Header::new(kind, "./PaxHeaders/entry", size),
        };
        self.header(header).data(body)
    }

    /// Appends a pax header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        self.extended(b'x', pax_records(records))
    }

    /// Appends a pax header for all entries after it.
    pub fn global(self, records: &[(&str, &[u8])]) -> Tar {
        self.extended(b'g', pax_records(records))
    }

    /// Appends a GNU `L` entry, with the final NUL that GNU tar writes.
    pub fn long_name(self, name: impl AsRef<[u8]>) -> Tar {
        self.extended(b'L', [name.as_ref(), b"\0"].concat())
    }

    /// Appends a GNU `K` entry, with the final NUL.
    pub fn long_target(self, target: impl AsRef<[u8]>) -> Tar {
        self.extended(b'K', [target.as_ref(), b"\0"].concat())
    }

    /// Returns the whole archive, with two zero blocks at the end.
    pub fn end(self) -> Vec<u8> {
        self.raw([0; 2 * BLOCK]).bytes
    }

    /// Returns the archive without an end.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    records
        .iter()
        .flat_map(|(key, value)| pax_record(key, value))
        .collect()
}

/// Returns `LENGTH KEY=VALUE\n`, where the length counts its own digits.
pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// Returns one zstd frame with a content checksum, as the zstd command writes it.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.include_checksum(true).expect("a checksum");
    encoder.write_all(bytes).expect("compression");
    encoder.finish().expect("the end of the frame")
}

/// A zstd frame of raw and run-length blocks only. A gigabyte takes a few
/// kilobytes, and a test can set each header byte.
#[derive(Default)]
pub struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// The maximum content of one block, in bytes.
    pub const MOST: usize = 128 << 10;

    /// Returns a frame without size or checksum that states a window of
    /// `2^exponent * (1 + eighths / 8)` bytes.
    pub fn window(exponent: u8, eighths: u8) -> Frame {
        Frame::with_header(&[0, ((exponent - 10) << 3) | eighths])
    }

    /// Returns a frame with the magic number and the given frame header.
    pub fn with_header(header: &[u8]) -> Frame {
        Frame {
            bytes: [&[0x28, 0xb5, 0x2f, 0xfd], header].concat(),
        }
    }

    fn block(mut self, kind: usize, length: usize, content: &[u8]) -> Frame {
        let header = ((length << 3) | (kind << 1)).to_le_bytes();
        self.bytes.extend_from_slice(&header[..3]);
        self.bytes.extend_from_slice(content);
        self
    }

    pub fn raw(self, bytes: &[u8]) -> Frame {
        bytes
            .chunks(Frame::MOST)
            .fold(self, |frame, chunk| frame.block(0, chunk.len(), chunk))
    }

    pub fn zeros(mut self, mut length: usize) -> Frame {
        while length > 0 {
            let run = length.min(Frame::MOST);
            self = self.block(1, run, &[0]);
            length -= run;
        }
        self
    }

    /// Closes the frame with an empty last block.
    pub fn end(self) -> Vec<u8> {
        self.last(b"")
    }

    /// Closes the frame with a last block that has content.
    pub fn last(self, content: &[u8]) -> Vec<u8> {
        assert!(content.len() <= Frame::MOST);
        let header = ((content.len() << 3) | 1).to_le_bytes();
        [&self.cut(), &header[..3], content].concat()
    }

    /// Returns the frame without a last block.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// Returns an ordinary `.tar.zst`: files with mode 0644, without entries for their
/// directories. `tar::Builder` writes a GNU long name where it is needed.
pub fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        builder
            .append_data(&mut header, name, *data)
            .expect("an ordinary name");
    }
    zstd(&builder.into_inner().expect("the end of the archive"))
}

/// GNU tar reads what [`tarball`] and [`Tar`] write.
#[test]
fn gnu_tar_reads_the_archives_of_both_builders() {
    use std::process::{Command, Stdio};

    let long = format!("deep/{}", "n".repeat(150));
    let files: [(&str, &[u8]); 3] = [("a", b"1"), ("b/c", &[7; 1000]), (&long, b"")];
    let by_hand = Tar::new()
        .file("a", b"1")
        .file("b/c", [7; 1000])
        .pax(&[("path", long.as_bytes())])
        .file("n", b"");
    for payload in [tarball(&files), zstd(&by_hand.end())] {
        let mut child = Command::new("sh")
            .args(["-c", "zstd -dc | tar -tf -"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar and zstd (Debian packages tar, zstd)");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(&payload).expect("written");
        drop(stdin);
        let listing = child.wait_with_output().expect("tar exits");
        assert!(listing.status.success());
        let names = String::from_utf8(listing.stdout).expect("utf-8");
        assert_eq!(names.lines().collect::<Vec<_>>(), ["a", "b/c", &long]);
    }
}
