//! Reads the records of extended headers (POSIX.1-2017, pax, "pax Extended
//! Header"): `LENGTH KEY=VALUE\n`, where the length counts the whole record.

use super::rule::Rule;
use super::time::Mtime;

/// The maximum size of an extended header, in bytes.
pub const MAX: u64 = 8 * 1024;

/// The values that an extended header sets for its entry. The unpacker ignores all other
/// keys that it allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub mtime: Option<Mtime>,
    /// The access control list, which bsdtar prefers to the mode.
    pub acl: Option<Vec<u8>>,
}

/// Keys for owners and the like, which a release does not keep.
const HARMLESS: [&str; 8] = [
    "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "charset",
];

/// Vendor keys that change the content, the size or the name of a file for one of the
/// readers: sparse maps of GNU tar, star and Solaris, and parts of a file of several
/// volumes.
const CHANGES_CONTENT: [&str; 4] = [
    // bsdtar looks for the key without a dot as well.
    "GNU.sparse",
    "GNU.volume.",
    "SCHILY.realsize",
    "SUN.holesdata",
];

/// Returns whether a key is `VENDOR.keyword`, with the vendor in capital letters as
/// POSIX has it, and does not change an entry: extended attributes, flags, creation
/// times and the like. GNU tar, bsdtar and Python ignore a vendor key that they do not
/// know.
fn is_harmless_vendor_key(key: &str) -> bool {
    let Some((vendor, keyword)) = key.split_once('.') else {
        return false;
    };
    let named = vendor.starts_with(|first: char| first.is_ascii_uppercase())
        && vendor
            .bytes()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-'));
    named && !keyword.is_empty() && !changes_content(key)
}

/// The name of an archive (GNU tar's `--label`), in a global header. It changes no
/// entry: GNU tar prints it, bsdtar and Python ignore it.
const LABEL: &str = "GNU.volume.label";

/// The key of an access control list (see `acl`). In a global header, no reader uses it.
const ACCESS_ACL: &str = "SCHILY.acl.access";

/// Returns whether a key is one of [`CHANGES_CONTENT`].
pub fn changes_content(key: &str) -> bool {
    key != LABEL && CHANGES_CONTENT.iter().any(|start| key.starts_with(start))
}

impl Pax {
    /// Reads the records of an `x` header.
    ///
    /// # Errors
    ///
    /// Returns the rule of the profile that a record breaks.
    pub fn from_records(bytes: &[u8]) -> Result<Pax, Rule> {
        let mut pax = Pax::default();
        let mut seen: Vec<&str> = Vec::new();
        for record in records(bytes) {
            let (key, value) = record?;
            if seen.contains(&key) {
                return Err(Rule::PaxRepeated);
            }
            seen.push(key);
            match key {
                "path" => pax.path = Some(value.to_owned()),
                "linkpath" => pax.linkpath = Some(value.to_owned()),
                "size" => pax.size = Some(parse_decimal(value).ok_or(Rule::PaxMalformed)?),
                "mtime" => pax.mtime = Some(Mtime::from_pax(value).ok_or(Rule::Time)?),
                ACCESS_ACL => pax.acl = Some(value.to_owned()),
                "hdrcharset" if matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {}
                _ if HARMLESS.contains(&key) || is_harmless_vendor_key(key) => {}
                _ => return Err(Rule::PaxKey(key.to_owned())),
            }
        }
        Ok(pax)
    }

    /// Checks the records of a `g` header, which may hold only comments and harmless
    /// vendor keys: any other record would silently apply to every entry that follows.
    ///
    /// # Errors
    ///
    /// Returns the rule of the profile that a record breaks.
    pub fn check_global(bytes: &[u8]) -> Result<(), Rule> {
        records(bytes).try_for_each(|record| match record? {
            ("comment", _) => Ok(()),
            (key, _) if is_harmless_vendor_key(key) => Ok(()),
            _ => Err(Rule::PaxGlobal),
        })
    }
}

/// Returns the `(key, value)` records; stops after the first error.
fn records(mut rest: &[u8]) -> impl Iterator<Item = Result<(&str, &[u8]), Rule>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = split_first_record(rest);
        // Terminates: a record is at least as long as "5 a=\n".
        rest = record.map_or(&[], |(_, _, after)| after);
        let malformed = Err(Rule::PaxMalformed);
        Some(record.map_or(malformed, |(key, value, _)| Ok((key, value))))
    })
}

/// Splits off the first record: its key, its value, and the bytes after it.
fn split_first_record(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = bytes.iter().take(5).position(|byte| *byte == b' ')?;
    let len = usize::try_from(parse_decimal(&bytes[..space])?).ok()?;
    let (record, after) = bytes.split_at_checked(len)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    // Refusals show keys, so a key is visible ASCII.
    let visible = !key.is_empty() && key.iter().all(u8::is_ascii_graphic);
    let key = std::str::from_utf8(key).ok().filter(|_| visible)?;
    Some((key, value, after))
}

/// Reads decimal digits without a sign and without a leading zero.
fn parse_decimal(digits: &[u8]) -> Option<u64> {
    let canonical = digits == b"0" || digits.first().is_some_and(|first| *first != b'0');
    if !canonical || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns one record, with its length as POSIX counts it.
    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut len = body.len() + 1;
        while len.to_string().len() + body.len() != len {
            len = len.to_string().len() + body.len();
        }
        [len.to_string().as_bytes(), &body].concat()
    }

    proptest! {
        #[test]
        fn written_records_read_back(
            path in proptest::collection::vec(any::<u8>(), 0..300),
            link in proptest::collection::vec(any::<u8>(), 0..300),
            size in any::<u64>(),
        ) {
            let size_text = size.to_string();
            let bytes = [
                record("mtime", b"1.5"), record("path", &path), record("linkpath", &link),
                record("SCHILY.xattr.user.x", &path), record("size", size_text.as_bytes()),
            ].concat();
            let mtime = Mtime::from_pax(b"1.5");
            let pax = Pax { path: Some(path), linkpath: Some(link), size: Some(size), mtime, acl: None };
            prop_assert_eq!(Pax::from_records(&bytes), Ok(pax));
            for end in 1..bytes.len() {
                // A cut anywhere but between records is refused, and never panics.
                if let Ok(pax) = Pax::from_records(&bytes[..end]) {
                    prop_assert!(bytes[end - 1] == b'\n' && pax.size.is_none());
                }
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = Pax::from_records(&bytes);
            _ = Pax::check_global(&bytes);
        }

        #[test]
        fn almost_valid_records_never_panic(text in "[0-9]{1,5} ?(path|size|mtime)?=?[0-9a-z\n]{0,20}\n?") {
            _ = Pax::from_records(text.as_bytes());
        }
    }

    #[test]
    fn record_lengths_are_exact() {
        for bad in [
            "10 path=ab\n",
            "13 path=ab\n\n",
            "012 path=abc\n",
            "+12 path=abc\n",
            " 12 path=abc\n",
            "12  path=abc\n",
            "12 path=abcd",
            "9 =abcde\n",
            "8 path\n\n",
            "0 path=a\n",
            "5 a\n",
            "99999 path=a\n",
            "9 p\0th=a\n",
        ] {
            assert_eq!(
                Pax::from_records(bad.as_bytes()),
                Err(Rule::PaxMalformed),
                "{bad:?}"
            );
        }
        assert!(Pax::from_records(b"12 path=abc\n").is_ok());
    }

    #[test]
    fn keys_that_change_the_data_are_refused() {
        for key in [
            "GNU.sparse",
            "GNU.sparse.map",
            "GNU.volume.size",
            "GNU.volume.filename",
            "GNU.volume.labels",
            "SCHILY.realsize",
            "SUN.holesdata",
            "realtime.x",
            "security.capability",
            "Vendor.key",
            ".key",
            "VENDOR.",
            "VENDOR",
        ] {
            let refused = Err(Rule::PaxKey(key.to_owned()));
            assert_eq!(Pax::from_records(&record(key, b"1")), refused);
            let global = Pax::check_global(&record(key, b"1"));
            assert_eq!(global, Err(Rule::PaxGlobal));
        }
        for key in [
            "SCHILY.xattr.user.x",
            "GOLANG.pkg.version",
            "A-B_2.c",
            "GNU.volume.label",
        ] {
            assert_eq!(Pax::from_records(&record(key, b"1")), Ok(Pax::default()));
            assert_eq!(Pax::check_global(&record(key, b"1")), Ok(()));
        }
        let twice = [record("path", b"a"), record("path", b"b")].concat();
        assert_eq!(Pax::from_records(&twice), Err(Rule::PaxRepeated));
        assert_eq!(Pax::check_global(&record("comment", b"0123abcd")), Ok(()));
        assert_eq!(
            Pax::check_global(&record("path", b"x")),
            Err(Rule::PaxGlobal)
        );
    }
}
