//! Compares the tables of SECURITY.md with the program and with the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use deploy_shell::privileges::PRIVILEGES;
use deploy_shell::sandbox::seccomp::{PROBE, UNPACKER, unpacker_arg_rules};
use nix::libc;

const DOC: &str = include_str!("../../SECURITY.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns whether the sources are readable. Another user cannot read a checkout in
/// root's home directory.
fn readable() -> bool {
    let readable = fs::read_dir(root()).is_ok();
    if !readable {
        println!("skipped: this user cannot read the sources");
    }
    readable
}

/// Returns the cells of every row of the tables whose first heading is `first`.
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
fn the_table_of_privileges_is_the_programs() {
    let word = |access| format!("{access:?}").to_lowercase();
    let yes_or_no = |it: bool| if it { "yes" } else { "no" }.to_owned();
    let expected: Vec<Vec<String>> = PRIVILEGES
        .iter()
        .map(|privileges| {
            vec![
                privileges.verb.word().to_owned(),
                word(privileges.root),
                word(privileges.releases),
                word(privileges.state),
                yes_or_no(privileges.records),
                yes_or_no(privileges.executes),
            ]
        })
        .collect();
    assert_eq!(rows("Verb"), expected);
}

#[test]
fn the_numbers_of_system_calls_are_the_programs() {
    let text = DOC.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, list) in [("UNPACKER", UNPACKER), ("PROBE", PROBE)] {
        let count = list.len();
        let expected = format!("It may make {count} system calls (`{name}`");
        assert!(text.contains(&expected), "no '{expected}' in SECURITY.md");
    }
}

/// The table lists the calls that are allowed with certain arguments only, and no
/// other call.
#[test]
fn the_table_of_calls_with_argument_rules_is_the_programs() {
    let number = |name: &str| match name {
        "mmap" => libc::SYS_mmap,
        "mprotect" => libc::SYS_mprotect,
        "mkdirat" => libc::SYS_mkdirat,
        "openat" => libc::SYS_openat,
        "fcntl" => libc::SYS_fcntl,
        name => panic!("add the number of '{name}' here"),
    };
    let documented: BTreeSet<libc::c_long> = rows("Call")
        .iter()
        .flat_map(|row| row[0].split(", "))
        .map(|call| number(call.trim_matches('`')))
        .collect();
    let rules = unpacker_arg_rules().expect("the rules are valid");
    assert_eq!(documented, rules.into_keys().collect());
}

/// Checks that `name` is a test, or a case of a table, in that file.
fn check_test_exists(file: &str, name: &str) -> Result<(), String> {
    let text = ["tests/suite", "tests", "src"]
        .iter()
        .map(|directory| root().join(directory).join(file))
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
fn every_test_of_the_cve_table_exists() {
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
        assert!(seen.insert(cve), "{cve} is in the table twice");
        assert!(!wrong.is_empty() && !answer.is_empty(), "{cve}");
        // A defect of other software needs no test here.
        if shown == "—" && answer.starts_with("not ours") {
            continue;
        }
        let inside = shown.strip_prefix('`').and_then(|it| it.strip_suffix('`'));
        let Some((file, name)) = inside.and_then(|it| it.split_once(": ")) else {
            problems.push(format!("{cve}: '{shown}' is not `file: name`"));
            continue;
        };
        if let Err(problem) = check_test_exists(file, name) {
            problems.push(format!("{cve}: {problem}"));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Every finding of `check` and every path that the document names exists.
#[test]
fn named_findings_and_paths_exist() {
    if !readable() {
        return;
    }
    let findings = fs::read_to_string(root().join("admin/src/check/findings_table.rs"));
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
