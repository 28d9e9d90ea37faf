//! The operator's list of signers, as ssh-keygen(1) describes it under ALLOWED
//! SIGNERS: principals, options, a public key, one signer a line.
//!
//! Where ssh-keygen passes over a line that it cannot read, the whole file is
//! refused here, with the line's number.

use base64ct::{Base64, Encoding};
use jiff::tz::TimeZone;
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

use super::sshsig::NAMESPACE;
use super::{pattern, time};

/// The signers of a file.
#[derive(Debug)]
pub struct AllowedSigners(Vec<Signer>);

/// One line.
#[derive(Debug)]
struct Signer {
    /// A list of patterns; what they are matched with is the site's name.
    principals: String,
    key: KeyData,
    options: Options,
}

#[derive(Debug, Default, PartialEq)]
struct Options {
    /// A list of patterns.
    namespaces: Option<String>,
    /// Seconds since 1970, the first and the last at which the key counts.
    valid_after: Option<i64>,
    valid_before: Option<i64>,
}

const BLANK: [char; 2] = [' ', '\t'];

impl AllowedSigners {
    /// Reads a file's text; `zone` is that of times without a `Z`.
    ///
    /// Errors: the line's number, and what is wrong with it.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, (usize, String)> {
        let mut signers = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            // A file from Windows ends its lines with a carriage return.
            let line = line.trim_matches(['\r', ' ', '\t']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let signer = Signer::parse(line, zone).map_err(|why| (index + 1, why))?;
            signers.push(signer);
        }
        Ok(AllowedSigners(signers))
    }

    /// Whether `key` may sign for `principal` at `now`.
    ///
    /// Errors: why not, of the last line that names the key.
    pub fn allow(&self, key: &KeyData, principal: &str, now: i64) -> Result<(), String> {
        let print = key.fingerprint(ssh_key::HashAlg::Sha256);
        let mut why = format!("is by {print}, which is not an allowed signer");
        // As ssh-keygen does: the first line that allows it is enough, and one
        // that does not allow it denies nothing.
        for signer in self.0.iter().filter(|signer| signer.key == *key) {
            match signer.allow(principal, now) {
                Ok(()) => return Ok(()),
                Err(reason) => why = format!("is by {print}, {reason}"),
            }
        }
        Err(why)
    }
}

impl Signer {
    fn parse(line: &str, zone: &TimeZone) -> Result<Signer, String> {
        if line.contains(|character: char| character.is_control() && character != '\t') {
            return Err("has a control character".to_owned());
        }
        let (principals, rest) = principals(line)?;
        let rest = rest.trim_start_matches(BLANK);
        let (options, key) = match public_key(rest) {
            Some(key) => (Options::default(), key),
            None => {
                let (options, rest) = Options::parse(rest, zone)?;
                let key = public_key(rest.trim_start_matches(BLANK));
                (options, key.ok_or("has no public key that can be read")?)
            }
        };
        Ok(Signer {
            principals: principals.to_owned(),
            key,
            options,
        })
    }

    fn allow(&self, principal: &str, now: i64) -> Result<(), String> {
        if !pattern::list_matches(&self.principals, principal) {
            return Err(format!("who does not sign for '{principal}'"));
        }
        let Options {
            namespaces,
            valid_after,
            valid_before,
        } = &self.options;
        if namespaces
            .as_ref()
            .is_some_and(|list| !pattern::list_matches(list, NAMESPACE))
        {
            return Err(format!("who does not sign in the namespace '{NAMESPACE}'"));
        }
        // Both ends count, as they do for ssh-keygen.
        if valid_after.is_some_and(|after| now < after) {
            return Err("whose key is not valid yet".to_owned());
        }
        if valid_before.is_some_and(|before| now > before) {
            return Err("whose key has expired".to_owned());
        }
        Ok(())
    }
}

/// The first word; between double quotes it may have blanks in it.
fn principals(line: &str) -> Result<(&str, &str), String> {
    let (word, rest) = match line.strip_prefix('"') {
        Some(quoted) => quoted
            .split_once('"')
            .ok_or("has a quote without its end")?,
        None => line.split_once(BLANK).ok_or("has nothing but principals")?,
    };
    if word.contains('"') {
        return Err("has a quote inside its principals".to_owned());
    }
    Ok((word, rest))
}

/// The two words of a public key; what follows is a comment.
fn public_key(text: &str) -> Option<KeyData> {
    let mut words = text.split(BLANK).filter(|word| !word.is_empty());
    let (kind, body) = (words.next()?, words.next()?);
    let key = PublicKey::from_openssh(&format!("{kind} {body}")).ok()?;
    // The library passes over some lengths, and takes compressed points, which
    // OpenSSH does not: one key would count as two.
    if Base64::encode_string(&key.to_bytes().ok()?) != body {
        return None;
    }
    match key.key_data() {
        // Certificates among them: they are of no use without an authority.
        KeyData::Other(_) => None,
        KeyData::Ecdsa(point) if !uncompressed(point.as_sec1_bytes()) => None,
        KeyData::SkEcdsaSha2NistP256(key) if !uncompressed(key.ec_point().as_bytes()) => None,
        key => Some(key.clone()),
    }
}

/// Whether a point is in the one form that OpenSSH has (SEC 1, section 2.3.3).
fn uncompressed(point: &[u8]) -> bool {
    point.first() == Some(&4)
}

impl Options {
    /// Reads `name="value"` pairs between commas, to the first blank.
    fn parse<'a>(text: &'a str, zone: &TimeZone) -> Result<(Options, &'a str), String> {
        let mut options = Options::default();
        let mut rest = text;
        loop {
            let end = rest.find(['=', ',', ' ', '\t']).unwrap_or(rest.len());
            let name = rest[..end].to_ascii_lowercase();
            let shown = rest[..end].to_owned();
            let known = ["namespaces", "valid-after", "valid-before"].contains(&name.as_str());
            if name == "cert-authority" {
                return Err("certificates are not taken: 'cert-authority'".to_owned());
            }
            if !known {
                return Err(format!(
                    "'{shown}' is not an option (namespaces, valid-after, valid-before) nor a key"
                ));
            }
            let value = rest[end..].strip_prefix("=\"");
            let (value, after) = value
                .and_then(quoted)
                .ok_or_else(|| format!("'{shown}' has no value between quotes"))?;
            let time = || {
                let read = time::read(&value, zone);
                read.ok_or_else(|| format!("'{value}' is not a time (YYYYMMDD[HHMM[SS]][Z])"))
            };
            let again = match name.as_str() {
                "namespaces" => options.namespaces.replace(value.clone()).is_some(),
                "valid-after" => options.valid_after.replace(time()?).is_some(),
                _ => options.valid_before.replace(time()?).is_some(),
            };
            if again {
                return Err(format!("'{shown}' stands twice"));
            }
            rest = match after.strip_prefix(',') {
                Some(rest) => rest,
                None if after.starts_with(BLANK) => {
                    options.check()?;
                    return Ok((options, after));
                }
                None => return Err(format!("'{shown}' is not followed by a key")),
            };
        }
    }

    fn check(&self) -> Result<(), String> {
        match (self.valid_after, self.valid_before) {
            (Some(after), Some(before)) if before <= after => {
                Err("'valid-before' is not after 'valid-after'".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// What stands before the closing quote (`\"` is a quote in it), and after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    // Ends: every turn consumes a character.
    loop {
        if let Some(after) = rest.strip_prefix("\\\"") {
            value.push('"');
            rest = after;
            continue;
        }
        let first = rest.chars().next()?;
        rest = &rest[first.len_utf8()..];
        if first == '"' {
            return Some((value, rest));
        }
        value.push(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn parse(line: &str) -> Result<AllowedSigners, (usize, String)> {
        AllowedSigners::parse(&format!("# head\n\n{line}\n"), &TimeZone::UTC)
    }

    fn verdict(line: &str, now: i64) -> Result<(), String> {
        let key = public_key(KEY).unwrap();
        parse(line).unwrap().allow(&key, "blog", now)
    }

    #[test]
    fn lines_are_read_as_ssh_keygen_reads_them() {
        for line in [
            format!("blog {KEY}"),
            format!("blog {KEY} a comment"),
            format!("  blog\t {KEY}\r"),
            format!("\"blog\" {KEY}"),
            format!("\"a b,blog\" {KEY}\nshop {KEY}"),
            format!("blog namespaces=\"deploy-shell\" {KEY}"),
            format!("blog NAMESPACES=\"git,deploy-*\",valid-after=\"19700102Z\" {KEY}"),
            format!("blog valid-before=\"19700102Z\" {KEY}\nblog {KEY}"),
        ] {
            assert_eq!(verdict(&line, 1_800_000_000), Ok(()), "{line}");
        }
    }

    /// ssh-keygen takes a point in full only; here it would be a second signer.
    #[test]
    fn a_key_has_one_spelling() {
        let kind = "ecdsa-sha2-nistp256";
        let line = |tag: u8, coordinates: usize| {
            // The generator of P-256 (SEC 2, section 2.4.2).
            let x = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
            let y = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
            let bytes = |hex: &str| crate::names::Sha256Digest::try_from(hex).unwrap().0;
            let point = [&[tag][..], &bytes(x), &bytes(y)].concat();
            let point = &point[..1 + 32 * coordinates];
            let parts = [kind.as_bytes(), b"nistp256", point];
            let blob: Vec<u8> = parts
                .iter()
                .flat_map(|part| [&(part.len() as u32).to_be_bytes()[..], part].concat())
                .collect();
            format!("blog {kind} {}", Base64::encode_string(&blob))
        };
        assert!(parse(&line(4, 2)).is_ok());
        assert!(parse(&line(3, 1)).is_err());
    }

    #[test]
    fn a_signer_is_bound_by_its_line() {
        for (line, reason) in [
            (format!("shop {KEY}"), "does not sign for 'blog'"),
            (format!("*,!blog {KEY}"), "does not sign for 'blog'"),
            (format!("blog namespaces=\"git\" {KEY}"), "namespace"),
            (format!("blog namespaces=\"\" {KEY}"), "namespace"),
            (
                format!("blog valid-after=\"20990101Z\" {KEY}"),
                "not valid yet",
            ),
            (format!("blog valid-before=\"20200101Z\" {KEY}"), "expired"),
            (String::new(), "not an allowed signer"),
        ] {
            let why = verdict(&line, 1_800_000_000).unwrap_err();
            assert!(why.contains(reason), "{line}: {why}");
        }
        let both =
            format!("blog valid-after=\"19700101000010Z\",valid-before=\"19700101000020Z\" {KEY}");
        let valid: Vec<i64> = (0..30).filter(|now| verdict(&both, *now).is_ok()).collect();
        assert_eq!(valid, (10..=20).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_line() {
        for (line, reason) in [
            ("blog".to_owned(), "nothing but principals"),
            ("blog ssh-ed25519".to_owned(), "ssh-ed25519"),
            ("blog ssh-ed25519 AAAA".to_owned(), "ssh-ed25519"),
            (format!("\"blog {KEY}"), "quote without its end"),
            (format!("bl\"og {KEY}"), "quote inside"),
            (format!("blog cert-authority {KEY}"), "cert-authority"),
            (format!("blog no-touch-required {KEY}"), "no-touch-required"),
            (format!("blog namespaces=git {KEY}"), "no value"),
            (format!("blog namespaces=\"git {KEY}"), "no value"),
            (format!("blog namespaces {KEY}"), "no value"),
            (
                format!("blog namespaces=\"a\",namespaces=\"b\" {KEY}"),
                "twice",
            ),
            (format!("blog namespaces=\"a\", {KEY}"), "not an option"),
            (format!("blog namespaces=\"a\"x {KEY}"), "not followed"),
            (format!("blog valid-after=\"never\" {KEY}"), "not a time"),
            (
                format!("blog valid-after=\"20260101\",valid-before=\"20250101\" {KEY}"),
                "not after",
            ),
            (
                format!("blog namespaces=\"a\" {}", &KEY[..40]),
                "no public key",
            ),
            (format!("blog {KEY}\u{7}"), "control character"),
        ] {
            let (number, why) = parse(&line).unwrap_err();
            assert_eq!(number, 3, "{line}");
            assert!(why.contains(reason), "{line}: {why}");
        }
    }
}
