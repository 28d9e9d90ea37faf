//! Patterns as ssh_config(5) has them, and lists of them. Pure.
//!
//! Held to OpenSSH's `match_pattern_list`, also where that is odd: letters are
//! told apart by case, one negated match outweighs all others wherever it
//! stands, and a list with a pattern that is too long matches nothing.

/// The longest pattern in a list that OpenSSH takes, in bytes.
const MAX_PATTERN: usize = 1022;

/// Whether one of the comma-separated patterns matches, and none of those
/// that have a `!` in front.
pub fn list_matches(list: &str, text: &str) -> bool {
    let mut found = false;
    for pattern in list.split(',') {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if pattern.len() > MAX_PATTERN {
            return false;
        }
        if matches(pattern.as_bytes(), text.as_bytes()) {
            if negated {
                return false;
            }
            found = true;
        }
    }
    found
}

/// `*` is any run of bytes, `?` any one byte.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    // Where the last `*` stands, and the text it does not reach yet. It is
    // enough to go back to the last one: an earlier one that reached further
    // could match nothing that this one cannot.
    let mut star = None;
    // Ends: every turn moves on in the text, or back to one further on.
    while next < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, next));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[next] => {
                at += 1;
                next += 1;
            }
            _ => match &mut star {
                Some((stands, reached)) => {
                    *reached += 1;
                    (at, next) = (*stands + 1, *reached);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word, in exponential time.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            ([b'*', rest @ ..], text) => (0..=text.len()).any(|skip| plainly(rest, &text[skip..])),
            ([b'?', rest @ ..], [_, text @ ..]) => plainly(rest, text),
            ([byte, rest @ ..], [first, text @ ..]) => byte == first && plainly(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_is_what_the_definition_says(pattern in "[ab?*]{0,8}", text in "[ab]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), plainly(pattern, text));
        }
    }

    #[test]
    fn lists() {
        for (list, text, expected) in [
            ("blog", "blog", true),
            ("shop,blog", "blog", true),
            ("shop", "blog", false),
            ("Blog", "blog", false),
            ("b*,!blog", "blog", false),
            ("!blog,b*", "blog", false),
            ("!shop", "blog", false),
            ("!shop,*", "blog", true),
            ("bl?g", "blog", true),
            ("bl??g", "blog", false),
            ("", "blog", false),
            ("", "", true),
            (",blog,", "blog", true),
            ("!!blog,*", "blog", true),
        ] {
            assert_eq!(list_matches(list, text), expected, "{list} {text}");
        }
        let long = "*".repeat(MAX_PATTERN + 1);
        assert!(!list_matches(&long, "blog"));
        assert!(list_matches(&long[1..], "blog"));
    }
}
