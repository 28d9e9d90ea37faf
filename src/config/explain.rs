//! Words the errors of the TOML parser for a person who does not know Rust.

use toml::de::Error;

/// Returns the problem that the TOML parser found, with the key's name where the
/// parser names only the value, and quotes like those of our other messages.
pub fn explain(error: &Error, text: &str) -> String {
    let message = error.message().lines().next().unwrap_or("is not TOML");
    let message = message.replace('`', "'");
    if message == "duplicate key" {
        return explain_duplicate(error, text);
    }
    let mismatch = ["invalid type: ", "invalid value: "];
    let expected = mismatch
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split_once(", expected "));
    let expected = match expected {
        Some((_, expected)) => expected,
        None if message == "wanted string or table" => "a string",
        None => return explain_word(&message).unwrap_or(message),
    };
    let expected = match expected {
        "a boolean" => "true or false",
        "a string" => "a string, such as \"text\"",
        "path string" => "a path, such as \"/srv/www\"",
        "a sequence" => "a list, such as [\"one\", \"two\"]",
        "a map" => "a table",
        "i64" => "a whole number, such as 200",
        "a nonzero u8" => "a whole number from 1 on, such as 2",
        other if other.starts_with("struct ") => {
            "a table: its keys on lines below its name in brackets"
        }
        other => other,
    };
    match error.span().and_then(|span| key_before(text, span.start)) {
        Some(key) => format!("'{key}' takes {expected}"),
        None => format!("expected {expected}"),
    }
}

/// Names a key or a table that the file has twice. The template has every table, so an
/// example of the documents repeats one when it is added at the end.
fn explain_duplicate(error: &Error, text: &str) -> String {
    let name = (error.span()).and_then(|span| text.get(span));
    let name = name.unwrap_or_default().trim_matches(['[', ']']).trim();
    let header = format!("[{name}]");
    let first = text.lines().position(|line| line.trim() == header);
    match first {
        Some(index) if !name.is_empty() => format!(
            "the table '{header}' is there twice: put its keys below the first one, in line {}",
            index + 1
        ),
        _ => format!("the key '{name}' is there twice"),
    }
}

/// Explains a key or a word that is unknown, and a key that is missing.
fn explain_word(message: &str) -> Option<String> {
    if let Some(key) = message.strip_prefix("missing field ") {
        return Some(format!("the key {key} is missing"));
    }
    let (kind, rest) = match message.strip_prefix("unknown field ") {
        Some(rest) => ("key", rest),
        None => ("word", message.strip_prefix("unknown variant ")?),
    };
    let (word, known) = rest.split_once(", expected ")?;
    // The known words are in quotes, and what separates them is not.
    let names = || known.split('\'').skip(1).step_by(2);
    let nearest = names().min_by_key(|name| edit_distance(word.trim_matches('\''), name));
    Some(match nearest {
        Some(name) if edit_distance(word.trim_matches('\''), name) <= 2 => {
            format!("unknown {kind} {word}; did you mean '{name}'?")
        }
        _ => format!("unknown {kind} {word}, expected {known}"),
    })
}

/// Returns how many characters must be added, removed or replaced to make `right` of
/// `left` (Levenshtein). A library for these lines would be one more in a login shell.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, from) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (to, next) in right.iter().zip(1..) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[next];
            row[next] = replaced.min(diagonal + 1).min(row[next - 1] + 1);
        }
    }
    row[right.len()]
}

/// Returns the key whose value begins at `at`, if both are on one line.
fn key_before(text: &str, at: usize) -> Option<&str> {
    let line = text.get(..at)?.rsplit('\n').next()?;
    let key = line.trim_end().strip_suffix('=')?.trim();
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (!key.is_empty() && key.bytes().all(is_bare)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn explained(text: &str) -> String {
        let text = format!("root = \"/srv/x\"\n{text}\n");
        explain(&toml::from_str::<Config>(&text).unwrap_err(), &text)
    }

    #[test]
    fn a_similar_key_or_word_is_proposed() {
        for (text, expected) in [
            ("kep = 5", "unknown key 'kep'; did you mean 'keep'?"),
            ("[archiv]", "unknown key 'archiv'; did you mean 'archive'?"),
            (
                "[limits]\nidletimeout = \"1s\"",
                "unknown key 'idletimeout'; did you mean 'idle_timeout'?",
            ),
            (
                "[[hooks.after_swp]]",
                "unknown key 'after_swp'; did you mean 'after_swap'?",
            ),
            (
                "[audit]\nfacility = \"authpri\"",
                "unknown word 'authpri'; did you mean 'authpriv'?",
            ),
            (
                "[archive]\nsymlinks = \"follow\"",
                "unknown word 'follow', expected 'inside' or 'deny'",
            ),
            ("[signatures]", "the key 'allowed_signers' is missing"),
        ] {
            assert_eq!(explained(text), expected);
        }
        let colour = explained("colour = 1");
        assert!(colour.starts_with("unknown key 'colour', expected one of 'root', "));
    }

    #[test]
    fn no_message_has_a_word_of_rust() {
        for text in [
            "archive = 5",
            "keep = 99999999999999999999999",
            "keep = 1979-05-27",
            "keep = nan",
            "link = []",
            "hooks = 5",
            "[hooks]\nafter_swap = 5",
            "[hooks]\nafter_swap = [5]",
            "[[hooks.after_swap]]\ncommand = {}",
            "[audit]\nsocket = 5",
            "[audit]\nfacility = 5",
            "[shared]\nexisting = 5",
            "[shared]\nlinks = {}",
            "[signatures]\nallowed_signers = \"/x\"\nthreshold = \"two\"",
            "[signatures]\nallowed_signers = \"/x\"\nthreshold = 256",
            "[limits]\nreserve = 3",
            "[limits]\nuploads = true",
            "[archive]\nmax_entries = -1",
            "[archive]\nrequired_paths = [1]",
            "[preview]\nlink = 5",
            "[health]\nurl = []",
            "[health]\nstatuses = 200",
            "[health]\nstatuses = [\"200\"]",
            "[health]\nstatuses = [2.0]",
            "[health]\nheaders = { \"X-Probe\" = \"1\" }",
            "[health]\nheaders = [1]",
            "[health]\nhost = 1",
            "verify_on_swap = 0",
        ] {
            let text = explained(text);
            for word in [
                "usize", "u8", "u16", "u32", "u64", "i64", "f64", "struct", "sequence", "map",
                "variant", "field", "enum", "tuple", "newtype", "`", "wanted",
            ] {
                assert!(!text.contains(word), "{text}");
            }
        }
    }

    #[test]
    fn what_is_there_twice_is_named() {
        for (text, expected) in [
            ("keep = 5\nkeep = 6", "the key 'keep' is there twice"),
            (
                "[limits]\nuploads = 2\nuploads = 3",
                "the key 'uploads' is there twice",
            ),
            (
                "[bridge]\n#paths = []\n[audit]\n[bridge]\npaths = [\"assets\"]",
                "the table '[bridge]' is there twice: put its keys below the first one, in line 2",
            ),
        ] {
            assert_eq!(explained(text), expected);
        }
    }

    #[test]
    fn the_distance_counts_single_changes() {
        for (left, right, distance) in [
            ("", "", 0),
            ("", "ab", 2),
            ("keep", "kep", 1),
            ("keep", "kepe", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edit_distance(left, right), distance);
            assert_eq!(edit_distance(right, left), distance);
        }
    }
}
