//! Sizes, durations, shares and whole numbers as the configuration writes them.
//!
//! The functions are for serde's `deserialize_with`. Each gives serde a text that
//! says what it expects. That text becomes the error message: see `explain` in
//! `config.rs`.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use ::syslog::Facility;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

const SIZE: &str = "a size such as \"512MiB\"";
const DURATION: &str = "a time such as \"30s\", \"10m\" or \"7d\"";
const OPTIONAL_DURATION: &str = "a time such as \"30d\", or \"\" for none";
const WHOLE_NUMBER: &str = "a whole number, such as 5";

/// The syslog facilities that the audit log may use.
const FACILITIES: [&str; 12] = [
    "user", "daemon", "auth", "authpriv", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// Reads a number of bytes: `0`, `4096`, `512KiB`, `512MiB`, `2GiB`, `1TiB`
/// (powers of 1,024).
pub fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_str(Text(parse_size, SIZE))
}

/// Reads a duration: `0s`, `30s`, `10m`, `12h`, `7d`.
pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(Text(parse_duration, DURATION))
}

/// Reads a duration, or an empty string for none.
pub fn optional_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let parse = |text: &str| match text {
        "" => Some(None),
        text => parse_duration(text).map(Some),
    };
    from.deserialize_str(Text(parse, OPTIONAL_DURATION))
}

/// Reads a syslog facility.
pub fn facility<'de, D: Deserializer<'de>>(from: D) -> Result<Facility, D::Error> {
    let text = String::deserialize(from)?;
    let known = FACILITIES.contains(&text.as_str());
    let facility = known.then(|| text.parse().ok()).flatten();
    facility.ok_or_else(|| D::Error::unknown_variant(&text, &FACILITIES))
}

/// Reads a number that is not negative.
pub fn whole_number<'de, D: Deserializer<'de>, N: TryFrom<u64>>(from: D) -> Result<N, D::Error> {
    from.deserialize_u64(WholeNumber(PhantomData))
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number?.checked_mul(1 << shift)
}

/// Parses a duration: `0s`, `30s`, `10m`, `12h`, `7d`. Returns none for any other text.
pub fn parse_duration(text: &str) -> Option<Duration> {
    // A hundred years. Adding that to the current time cannot overflow.
    const MAX: u64 = 100 * 365 * 86_400;
    let (number, unit) = split(text);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let total = number?.checked_mul(seconds)?;
    (total <= MAX).then(|| Duration::from_secs(total))
}

/// A share of a whole, `0%` to `99%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Percent(u8);

impl Percent {
    /// Returns this share of `whole`.
    pub fn of(self, whole: u64) -> u64 {
        whole / 100 * u64::from(self.0) + whole % 100 * u64::from(self.0) / 100
    }
}

impl TryFrom<String> for Percent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match split(&text) {
            (Some(number @ 0..=99), "%") => Ok(Percent(number as u8)),
            _ => Err(format!("'{text}' is not a share from \"0%\" to \"99%\"")),
        }
    }
}

/// Splits `text` into the number that its leading digits form, and the rest.
fn split(text: &str) -> (Option<u64>, &str) {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    (text[..end].parse().ok(), &text[end..])
}

/// A serde visitor of a string: the parser, and a text that says what it accepts.
struct Text<T>(fn(&str) -> Option<T>, &'static str);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let Text(parse, what) = self;
        parse(text).ok_or_else(|| E::custom(format_args!("'{text}' is not {what}")))
    }
}

/// A serde visitor of a number that fits `N`.
struct WholeNumber<N>(PhantomData<N>);

impl<N: TryFrom<u64>> Visitor<'_> for WholeNumber<N> {
    type Value = N;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WHOLE_NUMBER)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<N, E> {
        let fits = N::try_from(number).ok();
        fits.ok_or_else(|| E::custom(format_args!("{number} is too large")))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<N, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::custom(format_args!("'{number}' is not {WHOLE_NUMBER}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_a_unit() {
        assert_eq!(parse_size("512MiB"), Some(512 << 20));
        assert_eq!(parse_size("0"), Some(0));
        for bad in [
            "",
            "MiB",
            "-1",
            "1 MiB",
            "1MB",
            "1.5GiB",
            "99999999999TiB",
            "1mib",
        ] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_numbers_with_a_unit() {
        for (text, seconds) in [("30s", 30), ("7d", 604_800), ("0s", 0)] {
            let expected = Some(Duration::from_secs(seconds));
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        for bad in ["", "30", "s", "1w", "-1s", "1m30s", "99999999999d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn shares_do_not_overflow() {
        let percent = |text: &str| Percent::try_from(text.to_owned()).ok();
        assert_eq!(percent("3%").unwrap().of(1_000), 30);
        assert_eq!(percent("3%").unwrap().of(150), 4);
        assert!(percent("99%").unwrap().of(u64::MAX) < u64::MAX);
        assert!(
            ["", "3", "100%", "-1%", "3.5%"]
                .iter()
                .all(|bad| percent(bad).is_none())
        );
    }

    #[test]
    fn only_the_documented_facilities_are_read() {
        #[derive(Deserialize)]
        struct Key {
            #[serde(deserialize_with = "facility")]
            facility: Facility,
        }
        let read = |word: &str| {
            let key: Result<Key, _> = toml::from_str(&format!("facility = \"{word}\""));
            key.map(|key| key.facility as u8 >> 3)
        };
        assert_eq!((read("user"), read("local7")), (Ok(1), Ok(23)));
        for word in FACILITIES {
            read(word).unwrap();
        }
        for bad in ["kern", "LOCAL0", "log_user", "cron", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
