//! Reads what another tool has written about its deployments. Pure.
//!
//! | Tool | File | A line |
//! |---|---|---|
//! | Deployer 7 and 8 | `.dep/releases_log` | `{"created_at":"2021-11-06T20:51:45+0000","release_name":"4",...}` |
//! | Deployer 4 to 6 | `.dep/releases` | `20211106205145,4` |
//! | Capistrano 3 | `revisions.log` | `Branch main (at 1a2b3c) deployed as release 20211106205145 by jane` |
//! | Capistrano 3 | `revisions.log` | `jane rolled back to release 20211106205145` |
//!
//! The formats are those of `recipe/deploy/release.php` of Deployer, and of
//! `tasks/deploy.rake` and `i18n.rb` of Capistrano. The names of releases are not
//! validated here: they are only compared with the names in `releases/`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// The directory of the release.
    pub name: String,
    /// When it began; none where the log does not say it.
    pub time: Option<Timestamp>,
    /// The tool went back to the release.
    pub rollback: bool,
}

/// Reads `.dep/releases_log` of Deployer 7 and 8. A line that is not one of Deployer's
/// is passed over, as Deployer does.
pub fn read_deployer(text: &str) -> Vec<Deployment> {
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(Deployment {
            name: line["release_name"].as_str()?.to_owned(),
            time: line["created_at"].as_str().and_then(read_time),
            rollback: false,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Reads `.dep/releases` of Deployer 4 to 6. Its times are those of the server's zone,
/// which the file does not name: they are taken as UTC.
pub fn read_old_deployer(text: &str) -> Vec<Deployment> {
    let line = |line: &str| {
        let mut fields = line.split(',');
        let time = fields.next().and_then(read_digits);
        Some(Deployment {
            name: fields.next()?.trim().to_owned(),
            time,
            rollback: false,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Reads `revisions.log` of Capistrano. The name of a release is its time in UTC. The
/// log has no time of a rollback.
pub fn read_capistrano(text: &str) -> Vec<Deployment> {
    let line = |line: &str| {
        // The branch and the user are free text. So the last match counts.
        if let Some((_, after)) = line.rsplit_once(" deployed as release ") {
            let name = after.split(' ').next()?;
            return Some(Deployment {
                name: name.to_owned(),
                time: read_digits(name),
                rollback: false,
            });
        }
        let (_, name) = line.rsplit_once(" rolled back to release ")?;
        Some(Deployment {
            name: name.trim().to_owned(),
            time: None,
            rollback: true,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Reads the time in `BAD_RELEASE`, which a rollback of Deployer 7 and 8 writes:
/// `2021-11-06T20:51:45+0000,jane`.
pub fn read_bad_mark(text: &str) -> Option<Timestamp> {
    read_time(text.split(',').next()?)
}

/// Reads a time as PHP's `DateTime::ISO8601` writes it, without a colon in the offset.
fn read_time(text: &str) -> Option<Timestamp> {
    let time = Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", text.trim());
    whole_seconds(time.or_else(|_| text.trim().parse()).ok()?)
}

/// Reads a time of 14 digits, with or without separators, in UTC: `20211106205145`,
/// `20211106-205145`, `2021-11-06_20.51.45`.
pub fn read_digits(text: &str) -> Option<Timestamp> {
    let is_separator = |byte: u8| matches!(byte, b'-' | b'_' | b'.' | b':' | b'T');
    let digits: Vec<i16> = (text.bytes())
        .filter(|byte| !is_separator(*byte))
        .map(|byte| byte.is_ascii_digit().then(|| i16::from(byte - b'0')))
        .collect::<Option<_>>()?;
    let &[y1, y2, y3, y4, ref rest @ ..] = digits.as_slice() else {
        return None;
    };
    let year = y1 * 1000 + y2 * 100 + y3 * 10 + y4;
    let pairs: Vec<i8> = (rest.chunks(2))
        .map(|pair| match pair {
            [tens, ones] => i8::try_from(tens * 10 + ones).ok(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let &[month, day, hour, minute, second] = pairs.as_slice() else {
        return None;
    };
    let civil = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    whole_seconds(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// The journal and the manifest have whole seconds.
pub fn whole_seconds(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployed(name: &str, time: Option<&str>) -> Deployment {
        Deployment {
            name: name.to_owned(),
            time: time.map(|time| time.parse().unwrap()),
            rollback: false,
        }
    }

    #[test]
    fn the_log_of_deployer_is_read() {
        let text = "{\"created_at\":\"2021-11-06T20:51:45+0000\",\"release_name\":\"1\",\
                    \"user\":\"Jane\",\"target\":\"HEAD\"}\n\
                    not a line of Deployer\n\n\
                    {\"created_at\":\"2021-11-06T22:51:45+0200\",\"release_name\":\"2.1\"}\n\
                    {\"created_at\":\"soon\",\"release_name\":\"3\"}\n";
        let time = Some("2021-11-06T20:51:45Z");
        assert_eq!(
            read_deployer(text),
            [
                deployed("1", time),
                deployed("2.1", time),
                deployed("3", None)
            ]
        );
        let time = time.map(|time| time.parse().unwrap());
        assert_eq!(read_bad_mark("2021-11-06T20:51:45+0000,Jane\n"), time);
        assert_eq!(read_bad_mark(""), None);
        let text = "20211106205145,1\n20211106205145,2.1\nbroken\n";
        let time = Some("2021-11-06T20:51:45Z");
        assert_eq!(
            read_old_deployer(text),
            [deployed("1", time), deployed("2.1", time)]
        );
    }

    #[test]
    fn the_log_of_capistrano_is_read() {
        let text = "Branch main (at e00f21424c92) deployed as release 20211106205145 by jane\n\
                    Branch x deployed as release 1 by (at e0) deployed as release 20211106205146 by \n\
                    \x20rolled back to release 20211106205145\n\
                    anything else\n";
        let rolled_back = Deployment {
            rollback: true,
            ..deployed("20211106205145", None)
        };
        assert_eq!(
            read_capistrano(text),
            [
                deployed("20211106205145", Some("2021-11-06T20:51:45Z")),
                deployed("20211106205146", Some("2021-11-06T20:51:46Z")),
                rolled_back,
            ]
        );
    }

    #[test]
    fn a_time_of_14_digits_has_any_usual_separator() {
        let time: Timestamp = "2021-11-06T20:51:45Z".parse().unwrap();
        for good in ["20211106205145", "20211106-205145", "2021-11-06_20.51.45"] {
            assert_eq!(read_digits(good), Some(time), "{good}");
        }
        for bad in [
            "",
            "5",
            "v20211106205145",
            "20211306205145",
            "2021110620514",
            "202111062051455",
        ] {
            assert_eq!(read_digits(bad), None, "{bad}");
        }
    }
}
