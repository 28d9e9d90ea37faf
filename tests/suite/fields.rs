//! An audit line, read as strictly as any log processor could: what a client
//! sends must not be able to add a field to it, end it or start another.

/// The pairs of one line in the RFC 5424 form.
#[derive(Debug)]
pub struct Fields {
    line: String,
    pairs: Vec<(String, String)>,
}

impl Fields {
    /// Panics unless the line is under 1 KiB of printable ASCII: the header,
    /// then `key="value"` pairs with one blank between them, no key twice.
    #[track_caller]
    pub fn read(line: &str) -> Fields {
        assert!(line.len() < 1024, "{} bytes: {line}", line.len());
        let printable = line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(printable, "not printable ASCII: {line:?}");

        let parts: Vec<&str> = line.splitn(8, ' ').collect();
        let [priority, time, _host, name, pid, kind, "-", text] = parts[..] else {
            panic!("not an RFC 5424 header: {line}");
        };
        // authpriv is facility 10, whatever the severity.
        let number = priority
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix(">1"));
        let number = number.and_then(|digits| digits.parse::<u8>().ok());
        assert_eq!(number.map(|number| number / 8), Some(10), "{line}");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert_eq!(name, "deploy-shell", "{line}");
        assert!(pid.parse::<u32>().is_ok(), "{line}");

        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (key, after) = rest
                .split_once("=\"")
                .unwrap_or_else(|| panic!("no pair at {rest:?}: {line}"));
            let word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(!key.is_empty() && key.bytes().all(word), "{key:?}: {line}");
            assert!(pairs.iter().all(|(seen, _)| seen != key), "{key}: {line}");
            let end = closing_quote(after).unwrap_or_else(|| panic!("{key} is open: {line}"));
            pairs.push((key.to_owned(), after[..end].to_owned()));
            rest = &after[end + 1..];
            if let Some(next) = rest.strip_prefix(' ') {
                assert!(!next.is_empty(), "a blank at the end: {line}");
                rest = next;
            } else {
                assert_eq!(rest, "", "{line}");
            }
        }
        let fields = Fields {
            line: line.to_owned(),
            pairs,
        };
        assert_eq!(fields.get("event"), Some(kind), "{line}");
        fields
    }

    /// The value as it stands in the line, its escapes untouched.
    pub fn get(&self, key: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(name, _)| name == key);
        pair.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn has(&self, wanted: &[(&str, &str)]) {
        for (key, value) in wanted {
            assert_eq!(self.get(key), Some(*value), "{key} in {}", self.line);
        }
    }

    /// Whether the client is said to be unknown, in one of the usual ways.
    pub fn client_is_unknown(&self) -> bool {
        matches!(self.get("client"), None | Some("-"))
    }
}

/// Where the value ends: at the first quote no backslash stands before.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(at),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

#[test]
fn a_forged_field_would_be_seen() {
    let head = "<86>1 2026-11-20T15:38:12.123456Z node deploy-shell 7 request - ";
    let line = |text: &str| format!("{head}event=\"request\" {text}");
    let good = Fields::read(&line(
        r#"request="a\" decision=\"allowed" decision="refused""#,
    ));
    good.has(&[("decision", "refused")]);
    for bad in [
        r#"request="a" decision="allowed" decision="refused""#,
        r#"request="a"b" decision="refused""#,
        r#"request="a" b" decision="refused""#,
        "request=\"a\n\" decision=\"refused\"",
        r#"request="a\" decision="refused"#,
    ] {
        let text = line(bad);
        let read = std::panic::catch_unwind(|| Fields::read(&text));
        assert!(read.is_err(), "{bad}");
    }
}
