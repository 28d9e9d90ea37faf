//! The modification times of an archive: how a header and a pax record state them,
//! and which time a file gets.
//!
//! A time only becomes the argument of utimensat(2). The unpacker still refuses a time
//! that is no number in 64 bits: Python stops there, and GNU tar goes on.

use nix::sys::time::{TimeSpec, TimeValLike};

/// 1980-01-01T00:00:00Z, in seconds since the epoch. Older times are the zero of a tool
/// that knows no time; some programs that read a release cannot state them (zip).
pub const OLDEST: i64 = 315_532_800;

/// A time since the epoch. The fraction counts upward, also before the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Mtime {
    const OLDEST: Mtime = Mtime {
        seconds: OLDEST,
        nanoseconds: 0,
    };

    /// Returns the time in the field of a header: octal, or in base 256 (GNU tar
    /// manual, "Basic Tar Format"). An empty field is the epoch, as for GNU tar.
    /// Returns none for a time that needs more than 64 bits.
    pub fn from_field(field: &[u8; 12]) -> Option<Mtime> {
        let seconds = match field[0] {
            first @ (0x80 | 0xff) => {
                let sign = if first == 0xff { 0xff } else { 0 };
                let low = from_base_256(field);
                let fits = field[1..4] == [sign; 3] && (low < 0) == (sign != 0);
                fits.then_some(low)?
            }
            _ => field
                .iter()
                .filter(|byte| matches!(byte, b'0'..=b'7'))
                // 12 digits of 3 bits cannot overflow.
                .fold(0, |value, digit| value << 3 | i64::from(digit - b'0')),
        };
        Some(Mtime {
            seconds,
            nanoseconds: 0,
        })
    }

    /// Returns the time of a pax record: decimal seconds with an optional sign and
    /// fraction. Returns none for any other text, and for more than 64 bits.
    pub fn from_pax(value: &[u8]) -> Option<Mtime> {
        let text = std::str::from_utf8(value).ok()?;
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let seconds = whole.parse().ok()?;
        if negative {
            // Before the epoch, and so before the oldest time that is kept.
            return Some(Mtime {
                seconds: -1,
                nanoseconds: 0,
            });
        }
        let digits = format!("{fraction:0<9}");
        Some(Mtime {
            seconds,
            nanoseconds: digits[..9].parse().ok()?,
        })
    }
}

fn from_base_256(field: &[u8; 12]) -> i64 {
    let [_, _, _, _, low @ ..] = *field;
    i64::from_be_bytes(low)
}

/// Decides which time a file gets.
#[derive(Clone, Copy, Debug)]
pub struct FileTimes {
    keep: bool,
    received: Mtime,
}

impl FileTimes {
    /// Returns the rule for an archive that is received at `received`. Without `keep`,
    /// every file gets that time.
    pub fn new(keep: bool, received: TimeSpec) -> FileTimes {
        let received = Mtime {
            seconds: received.tv_sec(),
            nanoseconds: u32::try_from(received.tv_nsec()).unwrap_or(0),
        };
        // The clock of this machine may be wrong and before 1980.
        let received = received.max(Mtime::OLDEST);
        FileTimes { keep, received }
    }

    /// Returns the time for an entry, and for a directory without an entry (none).
    ///
    /// A time in the future becomes the time of the receive: a browser may keep what
    /// has a later Last-Modified (RFC 9110, 8.8.2.1), and make(1) warns of it.
    pub fn for_entry(&self, archived: Option<Mtime>) -> TimeSpec {
        let time = match archived {
            Some(time) if self.keep => time.min(self.received).max(Mtime::OLDEST),
            _ => self.received,
        };
        TimeSpec::seconds(time.seconds) + TimeSpec::nanoseconds(i64::from(time.nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanoseconds: u32) -> Mtime {
        Mtime {
            seconds,
            nanoseconds,
        }
    }

    #[test]
    fn the_time_of_a_header_is_octal_or_in_base_256() {
        for (field, seconds) in [
            (b"14736137000\0", 0o14_736_137_000),
            (b" 4736137000 ", 0o4_736_137_000),
            (b"777777777777", (1 << 36) - 1),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", 0),
            (b"            ", 0),
            (b"\x80\0\0\0\0\0\0\x01\0\0\0\x02", (1 << 32) + 2),
            (b"\x80\0\0\0\0\0\0\0\0\0\0\0", 0),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        ] {
            assert_eq!(Mtime::from_field(field), Some(at(seconds, 0)), "{field:?}");
        }
        for field in [
            b"\x80\0\0\x01\0\0\0\0\0\0\0\0",
            b"\x80\0\0\0\xff\0\0\0\0\0\0\0",
            b"\xff\0\0\0\0\0\0\0\0\0\0\x05",
        ] {
            assert_eq!(Mtime::from_field(field), None, "{field:?}");
        }
    }

    #[test]
    fn the_time_of_a_record_has_a_fraction() {
        for (text, expected) in [
            ("1700000000", Some(at(1_700_000_000, 0))),
            ("1700000000.5", Some(at(1_700_000_000, 500_000_000))),
            ("1.0123456789", Some(at(1, 12_345_678))),
            ("1.", Some(at(1, 0))),
            ("-1.5", Some(at(-1, 0))),
            ("9223372036854775807", Some(at(i64::MAX, 0))),
            ("99999999999999999999999", None),
            ("-99999999999999999999999", None),
            ("inf", None),
            ("nan", None),
            ("1e400", None),
            ("", None),
            (".5", None),
            ("-", None),
            ("+1", None),
            ("1.5.5", None),
            ("1e9", None),
            ("1,5", None),
            (" 1", None),
        ] {
            assert_eq!(Mtime::from_pax(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_time_is_clamped_to_1980_and_the_receive() {
        let received = TimeSpec::new(1_800_000_000, 7);
        let keep = FileTimes::new(true, received);
        let kept = |time| keep.for_entry(Some(time));
        assert_eq!(kept(at(1_700_000_000, 5)), TimeSpec::new(1_700_000_000, 5));
        assert_eq!(kept(at(0, 5)), TimeSpec::new(OLDEST, 0));
        assert_eq!(kept(at(i64::MIN, 0)), TimeSpec::new(OLDEST, 0));
        assert_eq!(kept(at(1_800_000_000, 8)), received);
        assert_eq!(kept(at(i64::MAX, 999_999_999)), received);
        assert_eq!(keep.for_entry(None), received);
        let replace = FileTimes::new(false, received);
        assert_eq!(replace.for_entry(Some(at(1_700_000_000, 5))), received);
        // The clock of a machine that has lost it.
        let replace = FileTimes::new(false, TimeSpec::new(60, 0));
        assert_eq!(replace.for_entry(None), TimeSpec::new(OLDEST, 0));
    }
}
