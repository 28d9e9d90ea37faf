//! Parses an audit line as strictly as any log processor could: no request may
//! add a field to the line, end it or start another.

/// The pairs of one line in the format of RFC 5424.
#[derive(Debug)]
pub struct Fields {
    line: String,
    pairs: Vec<(String, String)>,
}

impl Fields {
    /// Parses a line. Panics unless it is under 1 KiB of printable ASCII: the
    /// header, then `key="value"` pairs with one space between them, no key twice.
    #[track_caller]
    pub fn read(line: &str) -> Fields {
        assert!(line.len() < 1024, "{} bytes: {line}", line.len());
        let printable = line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(printable, "not printable ASCII: {line:?}");

        let parts: Vec<&str> = line.splitn(8, ' ').collect();
        let [priority, time, _host, name, pid, kind, "-", text] = parts[..] else {
            panic!("not an RFC 5424 header: {line}");
        };
        // authpriv is facility 10; the rest of the priority is the severity.
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
            let end = closing_quote(after)
                .unwrap_or_else(|| panic!("{key} has no closing quote: {line}"));
            pairs.push((key.to_owned(), after[..end].to_owned()));
            rest = &after[end + 1..];
            if let Some(next) = rest.strip_prefix(' ') {
                assert!(!next.is_empty(), "a space at the end: {line}");
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

    /// Returns the value as in the line, with its escapes.
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

    /// Returns whether the line says that the client is unknown.
    pub fn client_is_unknown(&self) -> bool {
        matches!(self.get("client"), None | Some("-"))
    }
}

/// Returns the index of the first quote that is not escaped.
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
fn the_parser_detects_a_forged_field() {
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
