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
    pub symlink_target: Vec<u8>,
    /// Whether the name or the symlink target has bytes after its NUL.
    pub trailing_garbage: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderKind {
    File,
    Dir,
    Symlink,
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
        if parse_octal(&fields.cksum)? != checksum(block) {
            return Err(Rule::Checksum);
        }
        // as_ustar() requires "ustar\0" "00", as_gnu() requires "ustar " " \0".
        let (prefix, device) = match (view.as_ustar(), view.as_gnu()) {
            (Some(ustar), _) => (Some(&ustar.prefix), [&ustar.dev_major, &ustar.dev_minor]),
            (_, Some(gnu)) => (None, [&gnu.dev_major, &gnu.dev_minor]),
            (None, None) => return Err(Rule::Magic),
        };
        let type_byte = fields.linkflag[0];
        let kind = HeaderKind::from_type_byte(type_byte)?;
        // Fields that we do not keep are checked all the same: a reader that
        // fails at an owner or a time stops there, and sees less than we do.
        for field in [&fields.uid, &fields.gid, device[0], device[1]] {
            check_ignored_number(field)?;
        }
        check_ignored_number(&fields.mtime)?;
        let (mut name, name_garbage) = until_nul(&fields.name);
        let (symlink_target, target_garbage) = until_nul(&fields.linkname);
        let prefix_garbage = if let Some(prefix) = prefix {
            let (prefix, garbage) = until_nul(prefix);
            if !prefix.is_empty() {
                name = [&prefix, b"/".as_slice(), &name].concat();
            }
            garbage
        } else {
            // Some readers take these bytes for a prefix in a GNU header as well.
            block[PREFIX].iter().any(|byte| *byte != 0)
        };
        // Without a type, a slash makes the entry a directory for some readers,
        // whatever long name it has.
        if type_byte == 0 && name.ends_with(b"/") {
            return Err(Rule::FileSlash);
        }
        Ok(Header {
            kind,
            size: parse_octal(&fields.size)?,
            executable: parse_octal(&fields.mode)? & 0o111 != 0,
            mtime: Mtime::from_field(&fields.mtime),
            name,
            symlink_target,
            trailing_garbage: name_garbage || target_garbage || prefix_garbage,
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
            EntryType::XHeader => HeaderKind::Pax,
            EntryType::XGlobalHeader => HeaderKind::PaxGlobal,
            EntryType::GNULongName => HeaderKind::GnuLongName,
            EntryType::GNULongLink => HeaderKind::GnuLongLink,
            EntryType::Link => return Err(Rule::HardLink),
            EntryType::Char => return Err(Rule::CharacterDevice),
            EntryType::Block => return Err(Rule::BlockDevice),
            EntryType::Fifo => return Err(Rule::Fifo),
            EntryType::GNUSparse => return Err(Rule::Sparse),
            _ => return Err(Rule::UnknownType(byte)),
        })
    }
}

/// Returns the sum of all bytes, with those of the checksum itself as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&block[..148]) + sum(&block[156..]) + 8 * u64::from(b' ')
}

/// Reads octal digits from the first byte on, then only NULs and spaces.
fn parse_octal(field: &[u8]) -> Result<u64, Rule> {
    let digits = field
        .iter()
        .take_while(|byte| matches!(byte, b'0'..=b'7'))
        .count();
    let ended = field[digits..].iter().all(|byte| matches!(byte, 0 | b' '));
    if digits == 0 || !ended {
        return Err(Rule::Number);
    }
    // At most 12 digits of 3 bits: cannot overflow.
    Ok(field[..digits]
        .iter()
        .fold(0, |value, digit| value << 3 | u64::from(digit - b'0')))
}

/// Checks a number that we do not keep: octal, empty (spaces or NULs), or in base
/// 256, in which GNU tar writes a number that is too large or negative.
fn check_ignored_number(field: &[u8]) -> Result<(), Rule> {
    let empty = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if empty || matches!(field[0], 0x80 | 0xff) {
        return Ok(());
    }
    parse_octal(field).map(|_| ())
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
            (header.name.as_slice(), header.trailing_garbage),
            (b"a.txt".as_slice(), false)
        );
    }

    #[test]
    fn only_a_ustar_header_has_a_prefix() {
        let prefix = |block: &mut [u8; BLOCK]| block[345..349].copy_from_slice(b"some");
        let ustar = Header::from_block(&block(prefix)).unwrap();
        assert_eq!(ustar.name, b"some/a.txt");
        assert!(!ustar.trailing_garbage);
        let gnu = block(|block| {
            prefix(block);
            block[257..265].copy_from_slice(b"ustar  \0");
        });
        let gnu = Header::from_block(&gnu).unwrap();
        assert_eq!(gnu.name, b"a.txt");
        assert!(gnu.trailing_garbage);
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
                b'1' => Err(Rule::HardLink),
                b'3' => Err(Rule::CharacterDevice),
                b'4' => Err(Rule::BlockDevice),
                b'6' => Err(Rule::Fifo),
                b'S' => Err(Rule::Sparse),
                other => Err(Rule::UnknownType(other)),
            };
            assert_eq!(found, expected, "{byte:#x}");
        }
    }

    #[test]
    fn numbers_are_strict() {
        for size in [
            b"\x80\0\0\0\0\0\0\0\0\0\0\x0f",
            b" 0000000017\0",
            b"-0000000017\0",
            b"0000000001 7",
            b"00000000018\0",
            b"\0\0\0\0\0\0\0\0\0\0\0\0",
            b"0x000000017\0",
        ] {
            let block = block(|block| block[124..136].copy_from_slice(size));
            assert_eq!(Header::from_block(&block), Err(Rule::Number), "{size:?}");
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
