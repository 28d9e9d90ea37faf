//! The times in a signers' file: `YYYYMMDD[HHMM[SS]]`, in UTC with a `Z` and in
//! the server's time zone without one.

use std::fs::File;
use std::io::Read;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

/// The server's time zone, for every program of this host (tzset(3)).
const ZONE: &str = "/etc/localtime";

/// The maximum size of the zone file, in bytes. The largest real one has four
/// thousand.
const MAX_ZONE: u64 = 1024 * 1024;

/// Returns the server's time zone, or UTC if none is set, as the C library does.
/// It ignores `TZ`, because a client may have set that variable.
pub fn server_zone() -> TimeZone {
    let read = || {
        let mut data = Vec::new();
        let file = File::open(ZONE).ok()?;
        file.take(MAX_ZONE).read_to_end(&mut data).ok()?;
        TimeZone::tzif("", &data).ok()
    };
    read().unwrap_or(TimeZone::UTC)
}

/// Parses a time of a signers' file to seconds since 1970, which must be positive.
pub fn parse_time(text: &str, zone: &TimeZone) -> Option<i64> {
    let bare = |end: &str| {
        let at = text.len().checked_sub(end.len())?;
        let (head, tail) = text.split_at_checked(at)?;
        tail.eq_ignore_ascii_case(end).then_some(head)
    };
    let utc = bare("Z").or_else(|| bare("UTC"));
    let digits = utc.unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number =
        |from: usize, to: usize| digits.get(from..to).map_or(Some(0), |it| it.parse().ok());
    if !matches!(digits.len(), 8 | 12 | 14) {
        return None;
    }
    let date = Date::new(digits[..4].parse().ok()?, number(4, 6)?, number(6, 8)?);
    let time = Time::new(number(8, 10)?, number(10, 12)?, number(12, 14)?, 0);
    let when = DateTime::from_parts(date.ok()?, time.ok()?);
    let seconds = match utc {
        Some(_) => Offset::UTC.to_timestamp(when).ok()?.as_second(),
        None => local_to_seconds(when, zone)?,
    };
    (seconds > 0).then_some(seconds)
}

/// Converts local time as ssh-keygen does: by standard time all year.
///
/// ssh-keygen passes mktime(3) the flag for "no summer time", so in summer
/// `valid-before` is one hour later than a reader may expect. Agreement with
/// `ssh-keygen -Y verify` matters more than that hour.
fn local_to_seconds(when: DateTime, zone: &TimeZone) -> Option<i64> {
    let there = zone.to_ambiguous_timestamp(when).later().ok()?;
    if !zone.to_offset_info(there).dst().is_dst() {
        return Some(there.as_second());
    }
    let standard = zone
        .preceding(there)
        .find(|transition| !transition.dst().is_dst())
        .map(|transition| transition.offset());
    match standard {
        Some(offset) => Some(offset.to_timestamp(when).ok()?.as_second()),
        None => Some(there.as_second()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_exactly() {
        let zone = TimeZone::fixed(Offset::constant(-5));
        for (text, seconds) in [
            ("19700101000001Z", 1),
            ("20260412Z", 1_775_952_000),
            ("20260412z", 1_775_952_000),
            ("20260412UTC", 1_775_952_000),
            ("202604120030Z", 1_775_953_800),
            ("20260412003001Z", 1_775_953_801),
            ("20260412", 1_775_970_000),
        ] {
            assert_eq!(parse_time(text, &zone), Some(seconds), "{text}");
        }
        for bad in [
            "",
            "Z",
            "2026",
            "2026041",
            "202604120",
            "2026041200301",
            "20261301",
            "20260230",
            "202604122460Z",
            "2026-04-12",
            "20260412ZZ",
            "+2026041",
            "19700101Z",
            "19691231",
            "\u{e9}Z",
            "2026041\u{e9}",
        ] {
            assert_eq!(parse_time(bad, &zone), None, "{bad}");
        }
    }

    #[test]
    fn local_time_is_standard_time() {
        // POSIX rules of the eastern United States: -5, in summer -4.
        let zone = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap();
        let winter = parse_time("20250101", &zone).unwrap();
        assert_eq!(Some(winter), parse_time("202501010500Z", &zone));
        let summer = parse_time("20250701", &zone).unwrap();
        assert_eq!(Some(summer), parse_time("202507010500Z", &zone));
        let skipped = parse_time("202503090230", &zone);
        assert_eq!(skipped, parse_time("202503090730Z", &zone));
        let twice = parse_time("202511020130", &zone);
        assert_eq!(twice, parse_time("202511020630Z", &zone));
    }
}
