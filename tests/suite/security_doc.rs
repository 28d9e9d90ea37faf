//! SECURITY.md says what the program does and what the tests show: its tables
//! are read here and held against both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use deploy_shell::sandbox::POWERS;

const DOC: &str = include_str!("../../SECURITY.md");
const CALLS: &str = include_str!("../../src/sandbox/seccomp.rs");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the sources can be read: not by another user, where the checkout
/// stands in root's home.
fn readable() -> bool {
    let readable = fs::read_dir(root()).is_ok();
    if !readable {
        println!("skipped: this user cannot read the sources");
    }
    readable
}

/// The cells of every row of the tables whose first heading is `first`.
fn rows(first: &str) -> Vec<Vec<&'static str>> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in DOC.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|it| it.strip_suffix('|')) else {
            inside = false;
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        if inside && !cells[0].starts_with("---") {
            found.push(cells);
        } else if !inside {
            inside = cells[0] == first;
        }
    }
    found
}

#[test]
fn the_table_of_powers_is_the_programs() {
    let word = |access| format!("{access:?}").to_lowercase();
    let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
    let expected: Vec<Vec<String>> = POWERS
        .iter()
        .map(|powers| {
            vec![
                powers.verb.word().to_owned(),
                word(powers.root),
                word(powers.releases),
                word(powers.state),
                yes(powers.records),
                yes(powers.executes),
            ]
        })
        .collect();
    assert_eq!(rows("Verb"), expected);
}

/// The lists are private to the program, so they are counted in its source.
#[test]
fn the_number_of_system_calls_is_the_programs() {
    for name in ["UNPACKER", "PROBE"] {
        let (_, list) = CALLS
            .split_once(&format!("pub const {name}: &[libc::c_long] = &["))
            .expect("the list");
        let (list, _) = list.split_once("];").expect("its end");
        let entry = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let count = list.lines().filter(entry).count();
        assert!(count <= 40, "{count}");
        let text = DOC.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = format!("It may make {count} system calls (`{name}`");
        assert!(text.contains(&said), "'{said}' is not in SECURITY.md");
    }
}

/// Each call that is held to some arguments is in the table, and no other.
#[test]
fn the_calls_with_arguments_are_the_programs() {
    let (_, filter) = CALLS
        .split_once("pub fn unpacker() -> bool {")
        .expect("the filter");
    let (filter, _) = filter.split_once("\n/// Takes from").expect("its end");
    let held: BTreeSet<&str> = filter
        .split("libc::SYS_")
        .skip(1)
        .map(|rest| {
            let end = rest.find(|it: char| !it.is_alphanumeric() && it != '_');
            &rest[..end.expect("an end")]
        })
        .collect();
    let told: BTreeSet<&str> = rows("Call")
        .iter()
        .flat_map(|row| row[0].split(", "))
        .map(|call| call.trim_matches('`'))
        .collect();
    assert_eq!(told, held);
}

#[test]
fn no_more_lines_are_reached_before_the_digest_than_is_said() {
    if !readable() {
        return;
    }
    let (_, script) = DOC.split_once("    for f in ").expect("the shell line");
    let (names, _) = script.split_once(';').expect("its list");
    let count: usize = names
        .split_whitespace()
        .map(|name| {
            let path = root().join("src").join(name).with_extension("rs");
            let text = fs::read_to_string(path).expect(name);
            let program = text
                .lines()
                .take_while(|line| !line.starts_with("#[cfg(test)]"));
            let code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
            program.filter(code).count()
        })
        .sum();
    let (_, said) = DOC.split_once("at most **").expect("the number");
    let (said, _) = said.split_once("**").expect("its end");
    let said: usize = said.replace(',', "").parse().expect("a number");
    assert!(count <= said, "{count} lines, not {said}");
    // A bound that is far off says nothing.
    assert!(count * 10 >= said * 9, "{count} lines, of {said}");
}

/// Whether `name` is a test, or a case of a table, of that file.
fn is_shown(file: &str, name: &str) -> Result<(), String> {
    let text = ["tests/suite", "tests", "src"]
        .iter()
        .map(|folder| root().join(folder).join(file))
        .find_map(|path: PathBuf| fs::read_to_string(path).ok())
        .ok_or_else(|| format!("there is no file '{file}'"))?;
    let test = format!("#[test]\nfn {name}()");
    let case = format!("\"{name}\"");
    if text.contains(&test) || text.contains(&case) {
        Ok(())
    } else {
        Err(format!("'{file}' has no test and no case '{name}'"))
    }
}

#[test]
fn what_shows_our_answers_is_there() {
    if !readable() {
        return;
    }
    let rows = rows("CVE");
    assert!(rows.len() >= 25, "{} rows", rows.len());
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for row in &rows {
        let [cve, _, wrong, answer, shown] = row[..] else {
            panic!("five cells: {row:?}");
        };
        let number = cve.strip_prefix("CVE-").and_then(|it| it.split_once('-'));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let sound = number.is_some_and(|(year, number)| {
            year.len() == 4 && digits(year) && number.len() >= 4 && digits(number)
        });
        assert!(sound, "{cve}");
        assert!(seen.insert(cve), "{cve} stands twice");
        assert!(!wrong.is_empty() && !answer.is_empty(), "{cve}");
        // What is not ours to mend needs no test of ours.
        if shown == "—" && answer.starts_with("not ours") {
            continue;
        }
        let inside = shown.strip_prefix('`').and_then(|it| it.strip_suffix('`'));
        let Some((file, name)) = inside.and_then(|it| it.split_once(": ")) else {
            problems.push(format!("{cve}: '{shown}' is not `file: name`"));
            continue;
        };
        if let Err(problem) = is_shown(file, name) {
            problems.push(format!("{cve}: {problem}"));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// What it calls findings, files and modules by exists under that name.
#[test]
fn words_of_check_and_paths_are_real() {
    if !readable() {
        return;
    }
    let findings = fs::read_to_string(root().join("admin/src/check/findings.rs"));
    let findings = findings.expect("the findings");
    for word in ["root-writable", "sftp-reachable", "shared-writable"] {
        assert!(DOC.contains(&format!("`{word}`")), "{word}");
        assert!(findings.contains(&format!("\"{word}\"")), "{word}");
    }
    for quoted in DOC.split('`').skip(1).step_by(2) {
        let path = ["src/", "tests/"].iter().any(|it| quoted.starts_with(it));
        if path && !quoted.contains(['|', ' ']) {
            let place = root().join(quoted);
            assert!(place.exists(), "{quoted}");
        }
    }
}
