//! The rules of the archive profile, each with the text of its refusal. A refusal
//! names the entry and the rule, so that the user can fix the archive without
//! reading this code.

use std::fmt;

use crate::escape;

/// The rule that an archive breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    // The zstd frame (RFC 8878).
    NotZstd,
    Window,
    ZstdDamaged,
    AfterFrame,
    // The tar stream and its headers (POSIX.1-2017, pax, "ustar Interchange Format").
    Checksum,
    Magic,
    Number,
    CutShort,
    NoEnd,
    AfterEnd,
    HardLink,
    CharacterDevice,
    BlockDevice,
    Fifo,
    Sparse,
    UnknownType(u8),
    SizeWithoutData,
    // Extended headers.
    ExtendedTooLong,
    ExtendedAfterEnd,
    TwoLongNames,
    TwoPaxHeaders,
    PaxMalformed,
    PaxRepeated,
    PaxKey(String),
    PaxSize,
    PaxGlobal,
    ExtendedAlone,
    LongTargetAlone,
    // Names.
    NameEmpty,
    NameAbsolute,
    NameDotDot,
    NameNotUtf8,
    NameControl,
    NameComponent,
    NamePath,
    NameDepth,
    NameAfterEnd,
    FileSlash,
    Duplicate,
    BelowNonDirectory,
    // Paths that the site shares.
    AtSharedPath,
    AboveSharedPath,
    // Symlinks.
    TargetEmpty,
    TargetAbsolute,
    TargetLong,
    TargetNotUtf8,
    TargetControl,
    SymlinkEscapes,
    SymlinkLoop,
    SymlinksDenied,
    // Limits.
    Entries(u32),
    Unpacked(u64),
    OnDisk(u64),
    File(u64),
    Empty,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Rule::NotZstd => "not a zstd frame",
            Rule::Window => "zstd window over 128 MiB",
            Rule::ZstdDamaged => "zstd data is damaged or cut short",
            Rule::AfterFrame => "data after the zstd frame",
            Rule::Checksum => "header checksum does not match",
            Rule::Magic => "header is neither ustar nor gnu",
            Rule::Number => "number is not strict octal",
            Rule::CutShort => "tar data is cut short",
            Rule::NoEnd => "no two zero blocks at the end",
            Rule::AfterEnd => "data after the end of the archive",
            Rule::HardLink => "hard link (make the archive with --hard-dereference)",
            Rule::CharacterDevice => "character device",
            Rule::BlockDevice => "block device",
            Rule::Fifo => "fifo",
            Rule::Sparse => "sparse file (make the archive without --sparse)",
            Rule::UnknownType(flag) => {
                let flag = escape::escape(&[*flag]);
                return write!(f, "unknown entry type '{flag}'");
            }
            Rule::SizeWithoutData => "size on an entry without data",
            Rule::ExtendedTooLong => "extended header over 8 KiB",
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
            Rule::PaxGlobal => "global pax header with more than a comment",
            Rule::ExtendedAlone => "extended header without an entry",
            Rule::LongTargetAlone => "long symlink target on an entry that is not a symlink",
            Rule::NameEmpty => "name is empty",
            Rule::NameAbsolute => "name is absolute",
            Rule::NameDotDot => "name has '..'",
            Rule::NameNotUtf8 => "name is not utf-8",
            Rule::NameControl => "name has a control character",
            Rule::NameComponent => "name component over 255 bytes",
            Rule::NamePath => "path over 1024 bytes",
            Rule::NameDepth => "path deeper than 32",
            Rule::NameAfterEnd => "name has bytes after its end",
            Rule::FileSlash => "file name ends in '/'",
            Rule::Duplicate => "duplicate name",
            Rule::BelowNonDirectory => "below an entry that is not a directory",
            Rule::AtSharedPath => {
                "at a shared path (leave it out, or set existing = \"replace\" in [shared])"
            }
            Rule::AboveSharedPath => "above a shared path, but not a directory",
            Rule::TargetEmpty => "symlink target is empty",
            Rule::TargetAbsolute => "symlink target is absolute",
            Rule::TargetLong => "symlink target over 1024 bytes",
            Rule::TargetNotUtf8 => "symlink target is not utf-8",
            Rule::TargetControl => "symlink target has a control character",
            Rule::SymlinkEscapes => "symlink leads outside of the release",
            Rule::SymlinkLoop => "symlink loops",
            Rule::SymlinksDenied => "symlinks are denied",
            Rule::Entries(max) => return write!(f, "more than {max} entries"),
            Rule::Unpacked(max) => return write!(f, "unpacked size over {max} bytes"),
            Rule::OnDisk(max) => {
                return write!(
                    f,
                    "size on disk over {max} bytes (each file takes whole blocks, each entry an inode)"
                );
            }
            Rule::File(max) => return write!(f, "file over {max} bytes"),
            Rule::Empty => "archive is empty",
        };
        f.write_str(words)
    }
}

/// Why unpacking failed.
#[derive(Debug)]
pub enum UnpackError {
    /// The archive breaks a rule. `entry` is the name as the archive has it.
    Refused { entry: Option<Vec<u8>>, rule: Rule },
    /// The operating system reported an error, or a limit of the site was reached.
    Io(crate::error::Error),
    /// A writer thread has stopped. Its own error says why.
    WriterStopped,
}

impl UnpackError {
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
