//! One 512-byte tar header, raw: fields at fixed offsets (POSIX.1-2017, pax,
//! "ustar Interchange Format"; GNU tar manual, "Basic Tar Format").
//!
//! Headers are read here and not by the `tar` crate because a library means
//! well: it takes numbers in base 256 and a name cut at its NUL. Each of those
//! is a place where two readers may see two different archives, so each is
//! refused.

use super::rule::Rule;

pub const BLOCK: usize = 512;

/// A header whose checksum held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Type,
    /// Bytes of data that follow.
    pub size: u64,
    /// Any of the execute bits.
    pub executable: bool,
    /// The name, with the ustar prefix before it.
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    /// Whether the name or the link has bytes after its NUL.
    pub ragged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    File,
    Dir,
    Link,
    /// `x`: pax records for the next entry.
    Pax,
    /// `g`: pax records for all entries that follow.
    PaxGlobal,
    /// `L`: the next entry's name.
    GnuName,
    /// `K`: the next entry's link target.
    GnuLink,
}

impl Header {
    /// Reads a header that is not all zeros.
    pub fn parse(block: &[u8; BLOCK]) -> Result<Header, Rule> {
        if octal(&block[148..156])? != checksum(block) {
            return Err(Rule::Checksum);
        }
        // "ustar\0" "00" is POSIX, "ustar  \0" is GNU. GNU keeps times in what
        // is the prefix of the name to POSIX.
        let posix = match &block[257..265] {
            b"ustar\x0000" => true,
            b"ustar  \0" => false,
            _ => return Err(Rule::Magic),
        };
        let kind = match block[156] {
            b'0' | 0 => Type::File,
            b'5' => Type::Dir,
            b'2' => Type::Link,
            b'x' => Type::Pax,
            b'g' => Type::PaxGlobal,
            b'L' => Type::GnuName,
            b'K' => Type::GnuLink,
            b'1' => return Err(Rule::HardLink),
            b'3' => return Err(Rule::CharacterDevice),
            b'4' => return Err(Rule::BlockDevice),
            b'6' => return Err(Rule::Fifo),
            b'S' => return Err(Rule::Sparse),
            other => return Err(Rule::UnknownType(other)),
        };
        // What we do not keep is read all the same: a reader that stumbles
        // over an owner or a time ends there, and sees less than we do.
        for ignored in [108..116, 116..124, 136..148, 329..337, 337..345] {
            ignorable(&block[ignored])?;
        }
        let (mut name, mut ragged) = text(&block[..100]);
        let (link, ragged_link) = text(&block[157..257]);
        ragged |= ragged_link;
        if posix {
            let (prefix, ragged_prefix) = text(&block[345..500]);
            ragged |= ragged_prefix;
            if !prefix.is_empty() {
                name = [&prefix, b"/".as_slice(), &name].concat();
            }
        } else {
            // Some readers take it for a prefix here as well.
            ragged |= block[345..500].iter().any(|byte| *byte != 0);
        }
        // Without a type, a slash makes it a folder to some readers, whatever
        // long name it has.
        if block[156] == 0 && name.ends_with(b"/") {
            return Err(Rule::FileSlash);
        }
        Ok(Header {
            kind,
            size: octal(&block[124..136])?,
            executable: octal(&block[100..108])? & 0o111 != 0,
            name,
            link,
            ragged,
        })
    }

    /// The name in a header that may be broken, to be shown in a refusal.
    pub fn name_of(block: &[u8; BLOCK]) -> Vec<u8> {
        text(&block[..100]).0
    }
}

/// The sum of all bytes, those of the checksum itself taken as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&block[..148]) + sum(&block[156..]) + 8 * u64::from(b' ')
}

/// Octal digits from the first byte on, then only NULs and spaces.
fn octal(field: &[u8]) -> Result<u64, Rule> {
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

/// A number that is not kept: octal, blank, or in base 256, in which GNU tar
/// writes what is too large or negative.
fn ignorable(field: &[u8]) -> Result<(), Rule> {
    let blank = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if blank || matches!(field[0], 0x80 | 0xff) {
        return Ok(());
    }
    octal(field).map(|_| ())
}

/// A field up to its first NUL, and whether anything but NULs follows.
fn text(field: &[u8]) -> (Vec<u8>, bool) {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    let ragged = field[end..].iter().any(|byte| *byte != 0);
    (field[..end].to_vec(), ragged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(change: impl FnOnce(&mut [u8; BLOCK])) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..5].copy_from_slice(b"a.txt");
        block[100..108].copy_from_slice(b"0000755\0");
        block[124..136].copy_from_slice(b"00000000017\0");
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut block);
        let sum = format!("{:06o}\0 ", checksum(&block));
        block[148..156].copy_from_slice(sum.as_bytes());
        block
    }

    #[test]
    fn a_plain_header() {
        let header = Header::parse(&block(|_| {})).unwrap();
        assert_eq!(
            (header.kind, header.size, header.executable),
            (Type::File, 15, true)
        );
        assert_eq!(
            (header.name.as_slice(), header.ragged),
            (b"a.txt".as_slice(), false)
        );
    }

    #[test]
    fn prefix_is_for_posix_alone() {
        let prefix = |block: &mut [u8; BLOCK]| block[345..349].copy_from_slice(b"some");
        assert_eq!(Header::parse(&block(prefix)).unwrap().name, b"some/a.txt");
        let gnu = block(|block| {
            prefix(block);
            block[257..265].copy_from_slice(b"ustar  \0");
        });
        assert_eq!(Header::parse(&gnu).unwrap().name, b"a.txt");
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
            assert_eq!(Header::parse(&block), Err(Rule::Number), "{size:?}");
        }
        let largest = block(|block| block[124..136].copy_from_slice(b"777777777777"));
        assert_eq!(Header::parse(&largest).unwrap().size, (1 << 36) - 1);
    }

    #[test]
    fn any_changed_byte_breaks_the_checksum() {
        let good = block(|_| {});
        for at in (0..148).chain(156..BLOCK) {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(Header::parse(&bad), Err(Rule::Checksum), "{at}");
        }
    }
}
