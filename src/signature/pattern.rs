//! Patterns and pattern lists as in ssh_config(5). Pure.
//!
//! This module matches as OpenSSH's `match_pattern_list` does, also where that is
//! odd: letters differ by case, one negated match outweighs all others at any
//! place of the list, and a list with a pattern that is too long matches nothing.

/// The maximum length of a pattern in a list, in bytes, as in OpenSSH.
const MAX_PATTERN: usize = 1022;

/// Returns whether one of the comma-separated patterns matches, and no pattern
/// with a `!` in front does.
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

/// Matches one pattern: `*` is any sequence of bytes, `?` is any single byte.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    // The position of the last `*`, and the first byte of the text that it does
    // not cover yet. Backtracking to the last one is enough: an earlier one that
    // covered more could match nothing that this one cannot.
    let mut star = None;
    // Terminates: every turn advances in the text, or lets the `*` cover one byte
    // more.
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
                Some((position, covered)) => {
                    *covered += 1;
                    (at, next) = (*position + 1, *covered);
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
    fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            ([b'*', rest @ ..], text) => {
                (0..=text.len()).any(|skip| matches_by_definition(rest, &text[skip..]))
            }
            ([b'?', rest @ ..], [_, text @ ..]) => matches_by_definition(rest, text),
            ([byte, rest @ ..], [first, text @ ..]) => {
                byte == first && matches_by_definition(rest, text)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_follows_the_definition(pattern in "[ab?*]{0,8}", text in "[ab]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), matches_by_definition(pattern, text));
        }
    }

    #[test]
    fn lists_match_as_in_openssh() {
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
