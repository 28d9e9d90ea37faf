//! Reads any bytes as SSH_ORIGINAL_COMMAND. A request is accepted exactly if the
//! contract's grammar, which this target implements a second time, accepts it.
//! Then it is written back byte for byte.

#![no_main]

use deploy_shell::request::{MAX_LEN, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Request::parse(bytes) {
        Ok(request) => {
            assert_eq!(request.to_string().as_bytes(), bytes, "written back");
            assert!(grammar(bytes), "accepted: {}", bytes.escape_ascii());
        }
        Err(why) => {
            let problem = &why.problem;
            assert!(!problem.is_empty() && !problem.contains('\n'));
            let shown = bytes.escape_ascii();
            assert!(!grammar(bytes), "refused, {problem}: {shown}");
        }
    }
});

fn grammar(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    if text.len() > MAX_LEN {
        return false;
    }
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["list"] | ["list", "--json"] => true,
        ["list", "--files", id] => release(id),
        ["rollback", ref more @ ..] if conditions(more) => true,
        ["swap" | "rollback", id, ref more @ ..] => release(id) && conditions(more),
        ["receive", id, "--sha256", hex, ref more @ ..] => {
            let more = match more {
                ["--tree", tree, "--base", base, more @ ..] if digest(tree) && release(base) => {
                    more
                }
                ["--tree", tree, more @ ..] if digest(tree) => more,
                _ => more,
            };
            let more = match more {
                ["--commit", commit, more @ ..] if is_commit(commit) => more,
                _ => more,
            };
            release(id)
                && digest(hex)
                && more.len().is_multiple_of(2)
                && more
                    .chunks(2)
                    .all(|pair| pair[0] == "--signature" && base64(pair[1]))
        }
        _ => false,
    }
}

/// Returns whether the words are `[--sha256 HEX] [--if-current RELEASE]`.
fn conditions(words: &[&str]) -> bool {
    match words {
        [] => true,
        ["--sha256", hex] => digest(hex),
        ["--if-current", live] => release(live),
        ["--sha256", hex, "--if-current", live] => digest(hex) && release(live),
        _ => false,
    }
}

fn digest(word: &str) -> bool {
    word.len() == 64 && is_hex(word)
}

fn is_commit(word: &str) -> bool {
    (7..=64).contains(&word.len()) && is_hex(word)
}

fn is_hex(word: &str) -> bool {
    word.chars().all(|digit| "0123456789abcdef".contains(digit))
}

fn release(word: &str) -> bool {
    (1..=64).contains(&word.len())
        && !word.contains("..")
        && !word.starts_with(['.', '_', '-'])
        && word
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
}

/// Returns whether the word is groups of four, where only the last may end in one
/// or two `=`.
fn base64(word: &str) -> bool {
    let padding = if word.ends_with("==") {
        2
    } else {
        usize::from(word.ends_with('='))
    };
    let body = &word[..word.len() - padding];
    word.len() >= 4
        && word.len().is_multiple_of(4)
        && body
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "+/".contains(letter))
}
