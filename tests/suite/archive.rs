//! A tar and zstd builder that decides nothing by itself: every header byte,
//! checksum, padding and end block is the caller's. A tar library would refuse
//! to write most of what the hostile tests need.

use std::io::Write;

use zstd::stream::write::Encoder;

pub const BLOCK: usize = 512;

/// A header field: where it starts and how many bytes it has.
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

/// One 512-byte header. It gets its right checksum when it is added to a
/// [`Tar`], unless [`Header::sum`] gave it another.
#[derive(Clone)]
pub struct Header {
    bytes: [u8; BLOCK],
    summed: bool,
}

impl Header {
    /// A ustar header, valid in every field for `kind`.
    pub fn new(kind: u8, name: impl AsRef<[u8]>, size: u64) -> Header {
        let mode = if kind == b'5' { "0000755" } else { "0000644" };
        Header {
            bytes: [0; BLOCK],
            summed: false,
        }
        .put(NAME, name)
        .put(MODE, mode)
        .put(UID, "0000000")
        .put(Field(116, 8), "0000000")
        .put(SIZE, format!("{size:011o}"))
        .put(MTIME, "14664000000")
        .put(KIND, [kind])
        .put(MAGIC, "ustar\x0000")
    }

    pub fn file(name: impl AsRef<[u8]>, size: u64) -> Header {
        Header::new(b'0', name, size)
    }

    pub fn folder(name: impl AsRef<[u8]>) -> Header {
        Header::new(b'5', name, 0)
    }

    pub fn link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Header {
        Header::new(b'2', name, 0).put(LINK, target)
    }

    /// Replaces a whole field: the bytes given, then NULs.
    pub fn put(mut self, field: Field, value: impl AsRef<[u8]>) -> Header {
        let Field(start, length) = field;
        let value = value.as_ref();
        assert!(value.len() <= length, "{value:?} does not fit its field");
        self.bytes[start..start + length].fill(0);
        self.bytes[start..start + value.len()].copy_from_slice(value);
        self
    }

    /// The magic old GNU tar writes: `ustar`, two blanks and a NUL.
    pub fn gnu(self) -> Header {
        self.put(MAGIC, "ustar  \0")
    }

    /// A checksum of the caller's making.
    pub fn sum(mut self, text: impl AsRef<[u8]>) -> Header {
        self = self.put(CHECKSUM, text);
        self.summed = true;
        self
    }

    /// The sum of all bytes with the checksum field as blanks, as POSIX has it.
    pub fn unsigned_sum(&self) -> u32 {
        let blank = self.clone().put(CHECKSUM, [b' '; 8]);
        blank.bytes.iter().map(|&byte| u32::from(byte)).sum()
    }

    /// The same with bytes taken as signed, as some old Unix tars did it.
    pub fn signed_sum(&self) -> i32 {
        let blank = self.clone().put(CHECKSUM, [b' '; 8]);
        blank
            .bytes
            .iter()
            .map(|&byte| i32::from(byte.cast_signed()))
            .sum()
    }

    fn sealed(self) -> [u8; BLOCK] {
        if self.summed {
            return self.bytes;
        }
        let sum = self.unsigned_sum();
        self.put(CHECKSUM, format!("{sum:06o}\0 ")).bytes
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
        self.raw(header.sealed())
    }

    /// Data as it stands in a tar: padded with NULs to whole blocks.
    pub fn data(self, data: impl AsRef<[u8]>) -> Tar {
        let data = data.as_ref();
        let padding = data.len().next_multiple_of(BLOCK) - data.len();
        self.raw(data).raw(vec![0; padding])
    }

    /// Bytes without any meaning of their own.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Tar {
        self.bytes.extend_from_slice(bytes.as_ref());
        self
    }

    pub fn file(self, name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Tar {
        let size = data.as_ref().len() as u64;
        self.header(Header::file(name, size)).data(data)
    }

    pub fn folder(self, name: impl AsRef<[u8]>) -> Tar {
        self.header(Header::folder(name))
    }

    pub fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.header(Header::link(name, target))
    }

    /// An extended header (`x`, `g`, `L`, `K`) with this very body.
    pub fn extended(self, kind: u8, body: impl AsRef<[u8]>) -> Tar {
        let name = match kind {
            b'L' | b'K' => "././@LongLink",
            _ => "./PaxHeaders/entry",
        };
        let size = body.as_ref().len() as u64;
        let header = Header::new(kind, name, size);
        let header = match kind {
            b'L' | b'K' => header.gnu(),
            _ => header,
        };
        self.header(header).data(body)
    }

    /// A PAX header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        self.extended(b'x', pax_records(records))
    }

    /// A PAX header for all entries after it.
    pub fn global(self, records: &[(&str, &[u8])]) -> Tar {
        self.extended(b'g', pax_records(records))
    }

    /// A GNU `L` entry, with the closing NUL GNU tar writes.
    pub fn long_name(self, name: impl AsRef<[u8]>) -> Tar {
        self.extended(b'L', [name.as_ref(), b"\0"].concat())
    }

    /// A GNU `K` entry, with the closing NUL.
    pub fn long_link(self, target: impl AsRef<[u8]>) -> Tar {
        self.extended(b'K', [target.as_ref(), b"\0"].concat())
    }

    /// The whole archive: two zero blocks close it.
    pub fn end(self) -> Vec<u8> {
        self.raw([0; 2 * BLOCK]).bytes
    }

    /// The archive as it stands, without an end.
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

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// One zstd frame with a content checksum, as the command line tool writes it.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.include_checksum(true).expect("a checksum");
    encoder.write_all(bytes).expect("compression");
    encoder.finish().expect("the end of the frame")
}

/// A frame written by hand: only raw and run-length blocks, so that a gigabyte
/// costs a few kilobytes and each header byte can be what a test wants.
#[derive(Default)]
pub struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// The longest content one block may stand for.
    pub const MOST: usize = 128 << 10;

    /// A frame without size or checksum that states a window of
    /// `2^exponent * (1 + eighths / 8)` bytes.
    pub fn window(exponent: u8, eighths: u8) -> Frame {
        Frame::with_header(&[0, ((exponent - 10) << 3) | eighths])
    }

    /// The magic number, then the frame header as given.
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

    /// An empty last block closes the frame.
    pub fn end(self) -> Vec<u8> {
        self.last(b"")
    }

    /// A last block with content closes the frame.
    pub fn last(self, content: &[u8]) -> Vec<u8> {
        assert!(content.len() <= Frame::MOST);
        let header = ((content.len() << 3) | 1).to_le_bytes();
        [&self.cut(), &header[..3], content].concat()
    }

    /// The frame as it stands, without a last block.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// A valid `.tar.zst`: regular files with mode 0644, folders only implied.
pub fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let tar = files.iter().fold(Tar::new(), |tar, (name, data)| {
        if name.len() <= NAME.1 {
            return tar.file(name, data);
        }
        let short = &name.as_bytes()[..NAME.1];
        tar.pax(&[("path", name.as_bytes())]).file(short, data)
    });
    zstd(&tar.end())
}

/// The builder is only worth something if other tools read what it writes.
#[test]
fn gnu_tar_lists_what_the_builder_writes() {
    use std::process::{Command, Stdio};

    let long = format!("deep/{}", "n".repeat(150));
    let files: [(&str, &[u8]); 3] = [("a", b"1"), ("b/c", &[7; 1000]), (&long, b"")];
    let mut child = Command::new("sh")
        .args(["-c", "zstd -dc | tar -tf -"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar and zstd (Debian packages tar, zstd)");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&tarball(&files)).expect("written");
    drop(stdin);
    let listing = child.wait_with_output().expect("tar ends");
    assert!(listing.status.success());
    let names = String::from_utf8(listing.stdout).expect("utf-8");
    assert_eq!(names.lines().collect::<Vec<_>>(), ["a", "b/c", &long]);
}
