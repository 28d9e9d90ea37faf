//! One 512-byte tar header, raw (POSIX.1-2017, pax, "ustar Interchange Format";
//! GNU tar manual, "Basic Tar Format").
//!
//! The `tar` crate names the fields ([`tar::Header::as_old`], `as_ustar`,
//! `as_gnu`) and the entry types. Nothing else of it is used. Its readers
//! (`Archive`, `Entry::unpack`, `Header::path`, `size`, `cksum` and the like) are
//! lenient: they take a number in base 256 or in trimmed octal, and a name that
//! is cut at its NUL. Each of those is a place where two readers can see two
//! different archives, so this module refuses each of them. `clippy.toml`
//! forbids those methods.

use std::ops::Range;

use tar::EntryType;

use super::rule::Rule;
use super::time::Mtime;

pub const BLOCK: usize = 512;

/// The ustar prefix of a name. GNU tar keeps times here.
const PREFIX: Range<usize> = 345..500;

/// The magic and the version. The Unix version 7 format has nothing here.
const MAGIC: Range<usize> = 257..265;

/// The length of the prefix in an xstar header. The times of last access and of last
/// change of the inode follow, each in 12 bytes.
const XSTAR_PREFIX: usize = 131;

/// A header whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: HeaderKind,
    /// Bytes of data that follow.
    pub size: u64,
    /// Whether any of the execute bits is set.
    pub executable: bool,
    pub mtime: Mtime,
    /// The name, with the ustar prefix before it.
    pub name: Vec<u8>,
    pub link_target: Vec<u8>,
    /// The faults of the bytes after the NUL of the name, of the link target and of the
    /// prefix. No reader uses the first two fields, or sees those bytes, if a long name or
    /// target replaces them.
    pub name_fault: Option<Rule>,
    pub link_target_fault: Option<Rule>,
    pub prefix_fault: Option<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderKind {
    File,
    Dir,
    Symlink,
    HardLink,
    /// `x`: pax records for the next entry.
    Pax,
    /// `g`: pax records for all entries that follow.
    PaxGlobal,
    /// `L`: the next entry's name.
    GnuLongName,
    /// `K`: the next entry's symlink target.
    GnuLongLink,
}

impl Header {
    /// Reads a block that is not all zeros.
    ///
    /// # Errors
    ///
    /// Returns the rule of the profile that the header breaks.
    pub fn from_block(block: &[u8; BLOCK]) -> Result<Header, Rule> {
        let view = tar::Header::from_byte_slice(block);
        let fields = view.as_old();
        if parse_octal("checksum", &fields.cksum)? != checksum(block) {
            return Err(Rule::Checksum);
        }
        // as_ustar() requires "ustar\0" "00", as_gnu() requires "ustar " " \0".
        let (prefix, device) = match (view.as_ustar(), view.as_gnu()) {
            (Some(ustar), _) => (Some(&ustar.prefix), [&ustar.dev_major, &ustar.dev_minor]),
            (_, Some(gnu)) => (None, [&gnu.dev_major, &gnu.dev_minor]),
            // GNU tar writes a volume label without a magic.
            (None, None) if block[MAGIC].iter().all(|byte| *byte == 0) => {
                return Err(match fields.linkflag[0] {
                    b'V' => Rule::VolumeLabel,
                    _ => Rule::Version7,
                });
            }
            (None, None) => return Err(Rule::Magic),
        };
        let type_byte = fields.linkflag[0];
        let kind = HeaderKind::from_type_byte(type_byte)?;
        // A release does not keep these fields, and they must still be valid: a reader
        // that fails at an owner or a time stops there, and sees less than this one.
        for (name, field) in [
            ("uid", fields.uid.as_slice()),
            ("gid", &fields.gid),
            ("devmajor", device[0]),
            ("devminor", device[1]),
            ("mtime", &fields.mtime),
        ] {
            check_ignored_number(name, field)?;
        }
        let (mut name, after_name) = until_nul(&fields.name);
        let (link_target, after_target) = until_nul(&fields.linkname);
        let prefix_fault = if let Some(prefix) = prefix {
            let (prefix, prefix_fault) = split_prefix(prefix);
            if !prefix.is_empty() {
                name = [&prefix, b"/".as_slice(), &name].concat();
            }
            prefix_fault
        } else {
            // Python takes these bytes for a prefix in a GNU header as well.
            let set = block[PREFIX].iter().any(|byte| *byte != 0);
            set.then_some(Rule::GnuTimes)
        };
        // Without a type, a slash makes the entry a directory for some readers,
        // whatever long name it has.
        if type_byte == 0 && name.ends_with(b"/") {
            return Err(Rule::FileSlash);
        }
        Ok(Header {
            kind,
            size: parse_octal("size", &fields.size)?,
            executable: parse_octal("mode", &fields.mode)? & 0o111 != 0,
            mtime: Mtime::from_field(&fields.mtime).ok_or(Rule::Time)?,
            name,
            link_target,
            name_fault: after_name.then_some(Rule::AfterNul("name")),
            link_target_fault: after_target.then_some(Rule::AfterNul("linkname")),
            prefix_fault,
        })
    }

    /// Returns the name of a header that may be broken, to show it in a refusal.
    pub fn shown_name(block: &[u8; BLOCK]) -> Vec<u8> {
        until_nul(&tar::Header::from_byte_slice(block).as_old().name).0
    }
}

impl HeaderKind {
    fn from_type_byte(byte: u8) -> Result<HeaderKind, Rule> {
        Ok(match EntryType::new(byte) {
            EntryType::Regular => HeaderKind::File,
            EntryType::Directory => HeaderKind::Dir,
            EntryType::Symlink => HeaderKind::Symlink,
            EntryType::Link => HeaderKind::HardLink,
            EntryType::XHeader => HeaderKind::Pax,
            EntryType::XGlobalHeader => HeaderKind::PaxGlobal,
            EntryType::GNULongName => HeaderKind::GnuLongName,
            EntryType::GNULongLink => HeaderKind::GnuLongLink,
            EntryType::Char => return Err(Rule::CharacterDevice),
            EntryType::Block => return Err(Rule::BlockDevice),
            EntryType::Fifo => return Err(Rule::Fifo),
            EntryType::GNUSparse => return Err(Rule::Sparse),
            // GNU tar and bsdtar make nothing of a volume label; Python makes a file.
            _ if byte == b'V' => return Err(Rule::VolumeLabel),
            _ => return Err(Rule::UnknownType(byte)),
        })
    }
}

/// Returns the sum of all bytes, with those of the checksum itself as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&block[..148]) + sum(&block[156..]) + 8 * u64::from(b' ')
}

/// Reads spaces, octal digits, and then only NULs and spaces.
///
/// Perl's Archive::Tar pads with spaces in front. GNU tar, bsdtar and Python skip
/// them. They differ on every other character in front of the digits.
fn parse_octal(name: &'static str, field: &[u8]) -> Result<u64, Rule> {
    let padding = field.iter().take_while(|byte| **byte == b' ').count();
    let field = &field[padding..];
    let digits = field
        .iter()
        .take_while(|byte| matches!(byte, b'0'..=b'7'))
        .count();
    let ended = field[digits..].iter().all(|byte| matches!(byte, 0 | b' '));
    if digits == 0 || !ended {
        return Err(Rule::Number(name));
    }
    // At most 12 digits of 3 bits: cannot overflow.
    Ok(field[..digits]
        .iter()
        .fold(0, |value, digit| value << 3 | u64::from(digit - b'0')))
}

/// Checks a number that we do not keep: octal, empty (spaces or NULs), or in base
/// 256, in which GNU tar writes a number that is too large or negative.
fn check_ignored_number(name: &'static str, field: &[u8]) -> Result<(), Rule> {
    let empty = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if empty || matches!(field[0], 0x80 | 0xff) {
        return Ok(());
    }
    parse_octal(name, field).map(|_| ())
}

/// Returns the prefix of a ustar header, and what is wrong with the bytes after its
/// NUL.
///
/// node-tar writes an xstar header: two times at the end of the field. GNU tar,
/// bsdtar and Python read a prefix up to its NUL. So all of them see the same name if
/// the NUL comes before the times, and nothing else is between them.
fn split_prefix(field: &[u8]) -> (Vec<u8>, Option<Rule>) {
    let (prefix, after) = until_nul(field);
    if !after {
        return (prefix, None);
    }
    let (short, times) = field.split_at(XSTAR_PREFIX);
    let is_xstar = prefix.len() < XSTAR_PREFIX
        && !until_nul(short).1
        && times
            .chunks(12)
            .all(|time| check_ignored_number("time", time).is_ok());
    let fault = (!is_xstar).then_some(Rule::AfterNul("prefix"));
    (prefix, fault)
}

/// Returns a field up to its first NUL, and whether anything but NULs follows.
fn until_nul(field: &[u8]) -> (Vec<u8>, bool) {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    let garbage = field[end..].iter().any(|byte| *byte != 0);
    (field[..end].to_vec(), garbage)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ustar header, changed, with the right checksum.
    fn block(change: impl FnOnce(&mut [u8; BLOCK])) -> [u8; BLOCK] {
        let mut header = tar::Header::new_ustar();
        header.set_path("a.txt").unwrap();
        header.set_mode(0o755);
        header.set_size(15);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        change(header.as_mut_bytes());
        header.set_cksum();
        *header.as_bytes()
    }

    #[test]
    fn an_ordinary_header_is_read() {
        let header = Header::from_block(&block(|_| {})).unwrap();
        assert_eq!(
            (header.kind, header.size, header.executable),
            (HeaderKind::File, 15, true)
        );
        assert_eq!(
            (header.name.as_slice(), header.prefix_fault),
            (b"a.txt".as_slice(), None)
        );
    }

    #[test]
    fn only_a_ustar_header_has_a_prefix() {
        let prefix = |block: &mut [u8; BLOCK]| block[345..349].copy_from_slice(b"some");
        let ustar = Header::from_block(&block(prefix)).unwrap();
        assert_eq!(ustar.name, b"some/a.txt");
        assert_eq!(ustar.prefix_fault, None);
        let gnu = block(|block| {
            prefix(block);
            block[257..265].copy_from_slice(b"ustar  \0");
        });
        let gnu = Header::from_block(&gnu).unwrap();
        assert_eq!(gnu.name, b"a.txt");
        assert_eq!(gnu.prefix_fault, Some(Rule::GnuTimes));
    }

    #[test]
    fn times_after_the_nul_of_a_prefix_are_an_xstar_header() {
        let with = |prefix: &[u8], atime: &[u8], ctime: &[u8]| {
            let bytes = block(|block| {
                block[345..345 + prefix.len()].copy_from_slice(prefix);
                block[476..476 + atime.len()].copy_from_slice(atime);
                block[488..488 + ctime.len()].copy_from_slice(ctime);
            });
            let header = Header::from_block(&bytes).unwrap();
            (header.name, header.prefix_fault)
        };
        let time = b"15302453116\0".as_slice();
        let longest = [b'p'; 130];
        for (prefix, atime, ctime) in [
            (b"".as_slice(), time, time),
            (b"some", time, b"".as_slice()),
            (
                &longest,
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0",
                time,
            ),
        ] {
            let name = match prefix {
                b"" => b"a.txt".to_vec(),
                prefix => [prefix, b"/a.txt"].concat(),
            };
            assert_eq!(with(prefix, atime, ctime), (name, None));
        }
        let fault = Some(Rule::AfterNul("prefix"));
        for (prefix, atime) in [
            (b"some\0more".as_slice(), time),
            (b"", b"x5302453116\0"),
            (b"", b"1530\x002453116"),
        ] {
            assert_eq!(with(prefix, atime, time).1, fault);
        }
        // A longer prefix fills the bytes of the times.
        let full = with(&[b'p'; 131], b"qq", b"");
        assert_eq!(
            full,
            ([&[b'p'; 131], b"qq/a.txt".as_slice()].concat(), None)
        );
    }

    #[test]
    fn bytes_after_a_nul_are_a_fault_of_their_field() {
        let header = block(|block| {
            block[6] = b'x';
            block[157..160].copy_from_slice(b"b\0x");
        });
        let header = Header::from_block(&header).unwrap();
        assert_eq!(header.name_fault, Some(Rule::AfterNul("name")));
        assert_eq!(header.link_target_fault, Some(Rule::AfterNul("linkname")));
    }

    #[test]
    fn both_magics_are_exact() {
        for magic in [b"ustar\x0000", b"ustar  \0"] {
            for at in 0..magic.len() {
                let changed = |bit: u8| {
                    block(|block| {
                        block[257..265].copy_from_slice(magic);
                        block[257 + at] ^= bit;
                    })
                };
                assert!(Header::from_block(&changed(0)).is_ok());
                assert_eq!(Header::from_block(&changed(1)), Err(Rule::Magic), "{at}");
            }
        }
        let version_7 = block(|block| block[257..265].fill(0));
        assert_eq!(Header::from_block(&version_7), Err(Rule::Version7));
        let label = block(|block| {
            block[257..265].fill(0);
            block[156] = b'V';
        });
        assert_eq!(Header::from_block(&label), Err(Rule::VolumeLabel));
    }

    /// A byte that the `tar` crate does not know yet must stay refused when a
    /// later version knows it.
    #[test]
    fn every_type_byte_has_one_meaning() {
        for byte in 0..=u8::MAX {
            let found = Header::from_block(&block(|block| block[156] = byte));
            let found = found.map(|header| header.kind);
            let expected = match byte {
                0 | b'0' => Ok(HeaderKind::File),
                b'5' => Ok(HeaderKind::Dir),
                b'2' => Ok(HeaderKind::Symlink),
                b'x' => Ok(HeaderKind::Pax),
                b'g' => Ok(HeaderKind::PaxGlobal),
                b'L' => Ok(HeaderKind::GnuLongName),
                b'K' => Ok(HeaderKind::GnuLongLink),
                b'1' => Ok(HeaderKind::HardLink),
                b'3' => Err(Rule::CharacterDevice),
                b'4' => Err(Rule::BlockDevice),
                b'6' => Err(Rule::Fifo),
                b'S' => Err(Rule::Sparse),
                b'V' => Err(Rule::VolumeLabel),
                other => Err(Rule::UnknownType(other)),
            };
            assert_eq!(found, expected, "{byte:#x}");
        }
    }

    #[test]
    fn numbers_are_strict() {
        for size in [
            b"\x80\0\0\0\0\0\0\0\0\0\0\x0f",
            b"\t0000000017\0",
            b"\x000000000017\0",
            b"            ",
            b"-0000000017\0",
            b"0000000001 7",
            b"00000000018\0",
            b"\0\0\0\0\0\0\0\0\0\0\0\0",
            b"0x000000017\0",
        ] {
            let block = block(|block| block[124..136].copy_from_slice(size));
            let refused = Err(Rule::Number("size"));
            assert_eq!(Header::from_block(&block), refused, "{size:?}");
        }
        for size in [b"         17\0", b" 0000000017\0", b"      17 \0  "] {
            let block = block(|block| block[124..136].copy_from_slice(size));
            assert_eq!(Header::from_block(&block).unwrap().size, 15, "{size:?}");
        }
        let largest = block(|block| block[124..136].copy_from_slice(b"777777777777"));
        assert_eq!(Header::from_block(&largest).unwrap().size, (1 << 36) - 1);
    }

    #[test]
    fn any_changed_byte_breaks_the_checksum() {
        let good = block(|_| {});
        for at in (0..148).chain(156..BLOCK) {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(Header::from_block(&bad), Err(Rule::Checksum), "{at}");
        }
    }
}
