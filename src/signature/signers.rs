//! The operator's list of signers, as in ssh-keygen(1), ALLOWED SIGNERS: one
//! signer a line, with principals, options and a public key.
//!
//! ssh-keygen skips a line that it cannot parse. This module rejects the whole
//! file, with the line's number.

use base64ct::{Base64, Encoding};
use jiff::tz::TimeZone;
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

use super::sshsig::NAMESPACE;
use super::{pattern, time};

/// The signers of a file.
#[derive(Debug)]
pub struct AllowedSigners(Vec<Signer>);

/// One line of the file.
#[derive(Debug)]
struct Signer {
    /// A list of patterns, which the site's name must match.
    principals: String,
    key: KeyData,
    options: SignerOptions,
}

#[derive(Debug, Default, PartialEq)]
struct SignerOptions {
    /// A list of patterns.
    namespaces: Option<String>,
    /// The first and the last second since 1970 at which the key counts.
    valid_after: Option<i64>,
    valid_before: Option<i64>,
}

const SPACES: [char; 2] = [' ', '\t'];

impl AllowedSigners {
    /// Parses a file's text; `zone` is the zone of times without a `Z`.
    ///
    /// # Errors
    ///
    /// Returns the line's number and its problem.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, (usize, String)> {
        let mut signers = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            // Lines of a file from Windows end with a carriage return.
            let line = line.trim_matches(['\r', ' ', '\t']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let signer = Signer::parse(line, zone).map_err(|why| (index + 1, why))?;
            signers.push(signer);
        }
        Ok(AllowedSigners(signers))
    }

    /// Checks that `key` may sign for `principal` at `now`.
    ///
    /// # Errors
    ///
    /// Returns the reason of the last line that names the key.
    pub fn allow(&self, key: &KeyData, principal: &str, now: i64) -> Result<(), String> {
        let print = key.fingerprint(ssh_key::HashAlg::Sha256);
        let mut why = format!("is by {print}, which is not an allowed signer");
        // As in ssh-keygen, one line that allows the key is enough, and a line
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
        let (principals, rest) = split_principals(line)?;
        let rest = rest.trim_start_matches(SPACES);
        let (options, key) = match parse_public_key(rest) {
            Some(key) => (SignerOptions::default(), key),
            None => {
                let (options, rest) = SignerOptions::parse_prefix(rest, zone)?;
                let key = parse_public_key(rest.trim_start_matches(SPACES));
                (options, key.ok_or("has no valid public key")?)
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
        let SignerOptions {
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
        // Both limits are inclusive, as in ssh-keygen.
        if valid_after.is_some_and(|after| now < after) {
            return Err("whose key is not valid yet".to_owned());
        }
        if valid_before.is_some_and(|before| now > before) {
            return Err("whose key has expired".to_owned());
        }
        Ok(())
    }
}

/// Splits off the principals, the first word; in double quotes it may contain
/// spaces and tabs.
fn split_principals(line: &str) -> Result<(&str, &str), String> {
    let (word, rest) = match line.strip_prefix('"') {
        Some(quoted) => quoted
            .split_once('"')
            .ok_or("has a quote without its end")?,
        None => line
            .split_once(SPACES)
            .ok_or("has nothing but principals")?,
    };
    if word.contains('"') {
        return Err("has a quote inside its principals".to_owned());
    }
    Ok((word, rest))
}

/// Parses the two words of a public key; the rest is a comment.
fn parse_public_key(text: &str) -> Option<KeyData> {
    let mut words = text.split(SPACES).filter(|word| !word.is_empty());
    let (kind, body) = (words.next()?, words.next()?);
    let key = PublicKey::from_openssh(&format!("{kind} {body}")).ok()?;
    // The library ignores some lengths and accepts compressed points, which
    // OpenSSH does not. One key with two spellings would count as two signers.
    if Base64::encode_string(&key.to_bytes().ok()?) != body {
        return None;
    }
    match key.key_data() {
        // This includes certificates: they need an authority, which is not supported.
        KeyData::Other(_) => None,
        KeyData::Ecdsa(point) if !is_uncompressed(point.as_sec1_bytes()) => None,
        KeyData::SkEcdsaSha2NistP256(key) if !is_uncompressed(key.ec_point().as_bytes()) => None,
        key => Some(key.clone()),
    }
}

/// Returns whether a point is uncompressed, the only form of OpenSSH (SEC 1,
/// section 2.3.3).
fn is_uncompressed(point: &[u8]) -> bool {
    point.first() == Some(&4)
}

impl SignerOptions {
    /// Parses comma-separated `name="value"` pairs up to the first space or
    /// tab, and returns the rest.
    fn parse_prefix<'a>(
        text: &'a str,
        zone: &TimeZone,
    ) -> Result<(SignerOptions, &'a str), String> {
        let mut options = SignerOptions::default();
        let mut rest = text;
        loop {
            let end = rest.find(['=', ',', ' ', '\t']).unwrap_or(rest.len());
            let name = rest[..end].to_ascii_lowercase();
            let shown = rest[..end].to_owned();
            let known = ["namespaces", "valid-after", "valid-before"].contains(&name.as_str());
            if name == "cert-authority" {
                return Err("certificates are not supported: 'cert-authority'".to_owned());
            }
            if !known {
                return Err(format!(
                    "'{shown}' is not an option (namespaces, valid-after, valid-before) nor a key"
                ));
            }
            let value = rest[end..].strip_prefix("=\"");
            let (value, after) = value
                .and_then(parse_quoted)
                .ok_or_else(|| format!("'{shown}' has no value between quotes"))?;
            let time = || {
                let read = time::parse_time(&value, zone);
                read.ok_or_else(|| format!("'{value}' is not a time (YYYYMMDD[HHMM[SS]][Z])"))
            };
            let again = match name.as_str() {
                "namespaces" => options.namespaces.replace(value.clone()).is_some(),
                "valid-after" => options.valid_after.replace(time()?).is_some(),
                _ => options.valid_before.replace(time()?).is_some(),
            };
            if again {
                return Err(format!("'{shown}' appears twice"));
            }
            rest = match after.strip_prefix(',') {
                Some(rest) => rest,
                None if after.starts_with(SPACES) => {
                    options.check_times()?;
                    return Ok((options, after));
                }
                None => return Err(format!("'{shown}' is not followed by a key")),
            };
        }
    }

    fn check_times(&self) -> Result<(), String> {
        match (self.valid_after, self.valid_before) {
            (Some(after), Some(before)) if before <= after => {
                Err("'valid-before' is not after 'valid-after'".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Parses the rest of a quoted string: returns the value before the closing
/// quote, in which `\"` is a quote, and the text after it. None if no quote
/// closes the string.
///
/// allowed_signers and authorized_keys share this grammar.
pub fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    // Terminates: every turn consumes a character.
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

    fn check(line: &str, now: i64) -> Result<(), String> {
        let key = parse_public_key(KEY).unwrap();
        parse(line).unwrap().allow(&key, "blog", now)
    }

    #[test]
    fn lines_are_parsed_as_in_ssh_keygen() {
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
            assert_eq!(check(&line, 1_800_000_000), Ok(()), "{line}");
        }
    }

    /// ssh-keygen accepts only uncompressed points. A compressed one would count
    /// as a second signer.
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
    fn a_signer_may_sign_only_what_the_line_allows() {
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
            let why = check(&line, 1_800_000_000).unwrap_err();
            assert!(why.contains(reason), "{line}: {why}");
        }
        let both =
            format!("blog valid-after=\"19700101000010Z\",valid-before=\"19700101000020Z\" {KEY}");
        let valid: Vec<i64> = (0..30).filter(|now| check(&both, *now).is_ok()).collect();
        assert_eq!(valid, (10..=20).collect::<Vec<_>>());
    }

    #[test]
    fn an_invalid_line_is_rejected_with_its_number() {
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
                "no valid public key",
            ),
            (format!("blog {KEY}\u{7}"), "control character"),
        ] {
            let (number, why) = parse(&line).unwrap_err();
            assert_eq!(number, 3, "{line}");
            assert!(why.contains(reason), "{line}: {why}");
        }
    }
}
