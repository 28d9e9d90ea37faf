//! The rules of the archive profile, each with the text of its refusal. A refusal
//! names the entry, the field and the rule, so that the user can fix the archive
//! without reading this code. `remedy` says how.

use std::fmt;

use super::zstd_frame::{MAX_FRAMES, MAX_PADDING, MAX_SKIPPED};
use crate::error::{Code, Error};
use crate::escape;

/// The rule that an archive breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    // The zstd frames (RFC 8878).
    NotZstd(PayloadFormat),
    Window,
    Dictionary,
    ZstdDamaged,
    AfterFrame,
    Frames,
    NoContent,
    /// The format in the frames that is no tar archive.
    CompressedTwice(PayloadFormat),
    FirstHeader,
    Skippable,
    Padding,
    // The tar stream and its headers (POSIX.1-2017, pax, "ustar Interchange Format").
    Checksum,
    Version7,
    Magic,
    /// The field.
    Number(&'static str),
    CutShort,
    NoEnd,
    AfterEnd,
    CharacterDevice,
    BlockDevice,
    Fifo,
    Sparse,
    VolumeLabel,
    UnknownType(u8),
    SizeWithoutData,
    // Extended headers.
    ExtendedTooLong,
    /// Bytes of all extended headers.
    Extended(u64),
    ExtendedAfterEnd,
    TwoLongNames,
    TwoPaxHeaders,
    PaxMalformed,
    PaxRepeated,
    PaxKey(String),
    PaxSize,
    PaxGlobal,
    Acl,
    ExtendedAlone,
    LongTargetAlone,
    // Names.
    NameEmpty,
    NameAbsolute,
    NameDotDot,
    NameWindows,
    NameNotUtf8,
    NameControl,
    NameComponent,
    NamePath,
    NameDepth,
    /// The field.
    AfterNul(&'static str),
    GnuTimes,
    Time,
    FileSlash,
    Duplicate,
    BelowNonDirectory,
    // Paths that the site shares.
    AtSharedPath,
    AboveSharedPath,
    // Deltas.
    ChangesName,
    ChangesFirst,
    ChangesLong(u64),
    DeltaMember,
    // Hard links: the target, and what is wrong with it.
    HardLink(Vec<u8>, &'static str),
    HardLinkMode,
    // Symlinks.
    TargetEmpty,
    TargetAbsolute,
    TargetLong,
    TargetNotUtf8,
    TargetControl,
    SymlinkEscapes,
    SymlinkUnresolved,
    SymlinkLoop,
    SymlinksDenied,
    // Limits.
    Entries(u32),
    /// With the repeated ones.
    EntriesRead(u64),
    Unpacked(u64),
    OnDisk(u64),
    File(u64),
    Empty,
    NoFile,
}

/// The format of a payload that is not zstd, or of a content that is not tar, as far as
/// the first block shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadFormat {
    Nothing,
    Tar,
    Zstd,
    Gzip,
    Bzip2,
    Xz,
    Lz4,
    Zip,
    SevenZip,
    Unknown,
}

impl PayloadFormat {
    /// Returns the format of a payload that begins with `block`.
    pub fn of(block: &[u8]) -> PayloadFormat {
        const MAGICS: [(&[u8], PayloadFormat); 8] = [
            (b"\x28\xb5\x2f\xfd", PayloadFormat::Zstd),
            (b"\x1f\x8b", PayloadFormat::Gzip),
            (b"BZh", PayloadFormat::Bzip2),
            (b"\xfd7zXZ\0", PayloadFormat::Xz),
            (b"\x04\x22\x4d\x18", PayloadFormat::Lz4),
            (b"PK\x03\x04", PayloadFormat::Zip),
            (b"PK\x05\x06", PayloadFormat::Zip),
            (b"7z\xbc\xaf\x27\x1c", PayloadFormat::SevenZip),
        ];
        if block.is_empty() {
            return PayloadFormat::Nothing;
        }
        if let Some((_, format)) = MAGICS.iter().find(|(magic, _)| block.starts_with(magic)) {
            return *format;
        }
        match block.get(257..262) {
            Some(b"ustar") => PayloadFormat::Tar,
            _ => PayloadFormat::Unknown,
        }
    }

    /// Returns the words that a refusal adds; none if the format is not known.
    fn words(self) -> &'static str {
        match self {
            PayloadFormat::Nothing => ": the payload is empty",
            PayloadFormat::Tar => ", but tar without compression",
            PayloadFormat::Zstd => ", but zstd",
            PayloadFormat::Gzip => ", but gzip",
            PayloadFormat::Bzip2 => ", but bzip2",
            PayloadFormat::Xz => ", but xz",
            PayloadFormat::Lz4 => ", but lz4",
            PayloadFormat::Zip => ", but a zip archive",
            PayloadFormat::SevenZip => ", but a 7z archive",
            PayloadFormat::Unknown => "",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Rule::NotZstd(format) => return write!(f, "not a zstd frame{}", format.words()),
            Rule::Window => "zstd window over 128 MiB",
            Rule::Dictionary => "zstd frame needs a dictionary",
            Rule::ZstdDamaged => "zstd data is damaged or cut short",
            Rule::AfterFrame => "data after the last zstd frame",
            Rule::Frames => return write!(f, "more than {MAX_FRAMES} zstd frames"),
            Rule::NoContent => "zstd frame without content",
            Rule::CompressedTwice(format) => {
                let words = format.words();
                return write!(
                    f,
                    "payload is compressed twice: the zstd frame has no tar archive{words}"
                );
            }
            Rule::FirstHeader => {
                "first header begins like a compressed file, which bsdtar and Python unpack first"
            }
            Rule::Skippable => {
                return write!(f, "more than {MAX_SKIPPED} bytes in skippable zstd frames");
            }
            Rule::Padding => {
                return write!(
                    f,
                    "more than {MAX_PADDING} zeros after the end of the archive"
                );
            }
            Rule::Checksum => "header checksum does not match",
            Rule::Version7 => "header is in the Unix version 7 format",
            Rule::Magic => "header is neither ustar nor gnu",
            Rule::Number(field) => return write!(f, "{field} is not strict octal"),
            Rule::CutShort => "tar data is cut short",
            Rule::NoEnd => "no two zero blocks at the end",
            Rule::AfterEnd => "data after the end of the archive",
            Rule::CharacterDevice => "character device",
            Rule::BlockDevice => "block device",
            Rule::Fifo => "fifo",
            Rule::Sparse => "sparse file",
            Rule::VolumeLabel => "volume label",
            Rule::UnknownType(flag) => {
                let flag = escape::escape(&[*flag]);
                return write!(f, "unknown entry type '{flag}'");
            }
            Rule::SizeWithoutData => "size on an entry without data",
            Rule::ExtendedTooLong => "extended header over 8 KiB",
            Rule::Extended(max) => {
                return write!(f, "extended headers over {max} bytes together");
            }
            Rule::ExtendedAfterEnd => "extended header has bytes after its end",
            Rule::TwoLongNames => "two long names for one entry",
            Rule::TwoPaxHeaders => "two pax headers for one entry",
            Rule::PaxMalformed => "pax record is malformed",
            Rule::PaxRepeated => "pax key is repeated",
            Rule::PaxKey(key) => {
                let key = escape::truncate(key, 100);
                return write!(f, "pax key '{key}' is not allowed");
            }
            Rule::PaxSize => "pax size differs from the header",
            Rule::PaxGlobal => "global pax header with more than comments and vendor keys",
            Rule::Acl => "access control list gives other executable bits than the mode",
            Rule::ExtendedAlone => "extended header without an entry",
            Rule::LongTargetAlone => "long link target on an entry that is not a link",
            Rule::NameEmpty => "name is empty",
            Rule::NameAbsolute => "name is absolute",
            Rule::NameDotDot => "name has '..'",
            Rule::NameWindows => {
                "name begins with a drive letter or a backslash, which bsdtar removes"
            }
            Rule::NameNotUtf8 => "name is not utf-8",
            Rule::NameControl => "name has a control character",
            Rule::NameComponent => "name component over 255 bytes",
            Rule::NamePath => "path over 1024 bytes",
            Rule::NameDepth => "path deeper than 32",
            Rule::AfterNul(field) => return write!(f, "{field} has bytes after its NUL"),
            Rule::GnuTimes => {
                "gnu header has a time at byte 345, which Python reads as part of the name"
            }
            Rule::Time => "mtime is not a time in 64 bits",
            Rule::FileSlash => "file name ends in '/'",
            Rule::Duplicate => "duplicate name",
            Rule::BelowNonDirectory => "below an entry that is not a directory",
            Rule::AtSharedPath => "at a shared path",
            Rule::AboveSharedPath => "above a shared path, but not a directory",
            Rule::ChangesName => "name is that of the changes of a delta",
            Rule::ChangesFirst => "first member of a delta is not the file with its changes",
            Rule::ChangesLong(max) => return write!(f, "changes of a delta over {max} bytes"),
            Rule::DeltaMember => "member of a delta is not a regular file",
            Rule::HardLink(target, fault) => {
                let target = escape::escape_truncated(target, 300);
                return write!(f, "hard link to '{target}', {fault}");
            }
            Rule::HardLinkMode => "mode of a hard link has other executable bits than its file",
            Rule::TargetEmpty => "link target is empty",
            Rule::TargetAbsolute => "symlink target is absolute",
            Rule::TargetLong => "symlink target over 1024 bytes",
            Rule::TargetNotUtf8 => "symlink target is not utf-8",
            Rule::TargetControl => "symlink target has a control character",
            Rule::SymlinkEscapes => "symlink leads outside of the release",
            Rule::SymlinkUnresolved => "symlink has '..' after a part that does not exist",
            Rule::SymlinkLoop => "symlink loops",
            Rule::SymlinksDenied => "symlinks are denied",
            Rule::Entries(max) => return write!(f, "more than {max} entries"),
            Rule::EntriesRead(max) => {
                return write!(f, "more than {max} entries, repeated ones included");
            }
            Rule::Unpacked(max) => return write!(f, "unpacked size over {max} bytes"),
            Rule::OnDisk(max) => {
                return write!(
                    f,
                    "size on disk over {max} bytes (each file takes whole blocks, each entry an inode)"
                );
            }
            Rule::File(max) => return write!(f, "file over {max} bytes"),
            Rule::Empty => "archive is empty",
            Rule::NoFile => "archive has no file",
        };
        f.write_str(words)
    }
}

/// The reason why unpacking failed.
#[derive(Debug)]
pub enum UnpackError {
    /// The archive breaks a rule. `entry` is the name as the archive has it.
    Refused { entry: Option<Vec<u8>>, rule: Rule },
    /// The operating system reported an error, or a limit of the site was reached.
    Io(Error),
    /// A writer thread has stopped. Its own error says why.
    WriterStopped,
}

impl UnpackError {
    /// Returns the error for the client.
    pub fn into_error(self) -> Error {
        match self {
            UnpackError::Refused { ref rule, .. } => {
                Error::new(Code::BadArchive, self.to_string()).remedy(rule.remedy())
            }
            UnpackError::Io(error) => error,
            UnpackError::WriterStopped => Error::new(Code::Internal, self.to_string()),
        }
    }

    /// Adds the name of the entry, unless there is one already.
    pub fn at(self, name: &[u8]) -> UnpackError {
        match self {
            UnpackError::Refused { entry: None, rule } => UnpackError::Refused {
                entry: Some(name.to_owned()),
                rule,
            },
            other => other,
        }
    }
}

impl From<Rule> for UnpackError {
    fn from(rule: Rule) -> UnpackError {
        UnpackError::Refused { entry: None, rule }
    }
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnpackError::Refused { entry: None, rule } => write!(f, "{rule}"),
            UnpackError::Refused {
                entry: Some(name),
                rule,
            } => {
                let name = escape::escape_truncated(name, 300);
                write!(f, "'{name}': {rule}")
            }
            UnpackError::Io(error) => write!(f, "{error}"),
            UnpackError::WriterStopped => f.write_str("a writer thread has stopped"),
        }
    }
}
