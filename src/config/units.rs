//! Sizes, spans of time and shares, as the configuration writes them.

use std::time::Duration;

use serde::Deserialize;

/// A number of bytes: `0`, `4096`, `512KiB`, `512MiB`, `2GiB`, `1TiB` (powers of 1,024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(pub u64);

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (number, unit) = split(&text);
        let shift = match unit {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(wrong(&text, "a size such as \"512MiB\"")),
        };
        number
            .and_then(|number| number.checked_mul(1 << shift))
            .map(ByteSize)
            .ok_or_else(|| wrong(&text, "a size such as \"512MiB\""))
    }
}

/// A span of time: `0s`, `30s`, `10m`, `12h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // A hundred years: far enough for every use, near enough that adding it
        // to a time of today cannot overflow.
        const MAX: u64 = 100 * 365 * 86_400;
        let (number, unit) = split(&text);
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(wrong(&text, "a time such as \"30s\", \"10m\" or \"7d\"")),
        };
        number
            .and_then(|number| number.checked_mul(seconds))
            .filter(|seconds| *seconds <= MAX)
            .map(|seconds| Span(Duration::from_secs(seconds)))
            .ok_or_else(|| wrong(&text, "a time such as \"30s\", \"10m\" or \"7d\""))
    }
}

/// A share of a whole, `0%` to `99%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Percent(u8);

impl Percent {
    /// This share of `whole`.
    pub fn of(self, whole: u64) -> u64 {
        whole / 100 * u64::from(self.0) + whole % 100 * u64::from(self.0) / 100
    }
}

impl TryFrom<String> for Percent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match split(&text) {
            (Some(number @ 0..=99), "%") => Ok(Percent(number as u8)),
            _ => Err(wrong(&text, "a share from \"0%\" to \"99%\"")),
        }
    }
}

/// The digits at the start, as a number, and what follows them.
fn split(text: &str) -> (Option<u64>, &str) {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    (text[..end].parse().ok(), &text[end..])
}

fn wrong(text: &str, what: &str) -> String {
    format!("'{text}' is not {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let read = |text: &str| ByteSize::try_from(text.to_owned()).map(|size| size.0).ok();
        assert_eq!(read("512MiB"), Some(512 << 20));
        assert_eq!(read("0"), Some(0));
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
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn spans() {
        let read = |text: &str| {
            Span::try_from(text.to_owned())
                .map(|span| span.0.as_secs())
                .ok()
        };
        assert_eq!(
            (read("30s"), read("7d"), read("0s")),
            (Some(30), Some(604_800), Some(0))
        );
        for bad in ["", "30", "s", "1w", "-1s", "1m30s", "99999999999d"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn shares_do_not_overflow() {
        let read = |text: &str| Percent::try_from(text.to_owned()).ok();
        assert_eq!(read("3%").unwrap().of(1_000), 30);
        assert_eq!(read("3%").unwrap().of(150), 4);
        assert!(read("99%").unwrap().of(u64::MAX) < u64::MAX);
        assert!(
            ["", "3", "100%", "-1%", "3.5%"]
                .iter()
                .all(|bad| read(bad).is_none())
        );
    }
}
