//! The rules of the archive profile, each with the words in which a refusal
//! names it. An archive is refused by entry and rule, so that its maker can
//! mend it without a look at this code.

use std::fmt;

use crate::escape;

/// What an archive broke.
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
    DataWhereNone,
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
    LinkNameAlone,
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
    BeneathNonFolder,
    // Paths that the site shares.
    Shared,
    AboveShared,
    // Links.
    LinkEmpty,
    LinkAbsolute,
    LinkLong,
    LinkNotUtf8,
    LinkControl,
    LinkLeaves,
    LinkLoops,
    LinksDenied,
    // Limits.
    Entries(u32),
    Unpacked(u64),
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
            Rule::DataWhereNone => "size on an entry without data",
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
            Rule::LinkNameAlone => "long link target on something that is not a link",
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
            Rule::BeneathNonFolder => "beneath something that is not a folder",
            Rule::Shared => {
                "at a shared path (leave it out, or set existing = \"replace\" in [shared])"
            }
            Rule::AboveShared => "not a folder, and above a shared path",
            Rule::LinkEmpty => "link target is empty",
            Rule::LinkAbsolute => "link target is absolute",
            Rule::LinkLong => "link target over 1024 bytes",
            Rule::LinkNotUtf8 => "link target is not utf-8",
            Rule::LinkControl => "link target has a control character",
            Rule::LinkLeaves => "link leaves the release",
            Rule::LinkLoops => "link loops",
            Rule::LinksDenied => "links are denied",
            Rule::Entries(max) => return write!(f, "more than {max} entries"),
            Rule::Unpacked(max) => return write!(f, "unpacked size over {max} bytes"),
            Rule::File(max) => return write!(f, "file over {max} bytes"),
            Rule::Empty => "archive is empty",
        };
        f.write_str(words)
    }
}

/// Why unpacking ended.
#[derive(Debug)]
pub enum Failure {
    /// The archive is not in the profile. `entry` is the name as the archive has it.
    Refused { entry: Option<Vec<u8>>, rule: Rule },
    /// The operating system failed us.
    Io(crate::error::Error),
    /// A writing thread has given up; its own failure tells why.
    Stopped,
}

impl Failure {
    /// Names the entry, where none was named yet.
    pub fn at(self, name: &[u8]) -> Failure {
        match self {
            Failure::Refused { entry: None, rule } => Failure::Refused {
                entry: Some(name.to_owned()),
                rule,
            },
            other => other,
        }
    }
}

impl From<Rule> for Failure {
    fn from(rule: Rule) -> Failure {
        Failure::Refused { entry: None, rule }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused { entry: None, rule } => write!(f, "{rule}"),
            Failure::Refused {
                entry: Some(name),
                rule,
            } => {
                let name = escape::truncate(&escape::escape(name), 300);
                write!(f, "'{name}': {rule}")
            }
            Failure::Io(error) => write!(f, "{error}"),
            Failure::Stopped => f.write_str("a writing thread has stopped"),
        }
    }
}
