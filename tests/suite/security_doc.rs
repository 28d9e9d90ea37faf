//! Compares the tables of SECURITY.md with the program, and the tests that it and
//! ARCHITECTURE.md name with those that exist.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use deploy_shell::privileges::PRIVILEGES;
use deploy_shell::sandbox::Rights;
use deploy_shell::sandbox::seccomp::{
    ASSEMBLER, BUILDER, EXECUTING, MONITOR, PROBE, UNPACKER, monitor_arg_rules, unpacker_arg_rules,
};
use nix::libc;

const DOC: &str = include_str!("../../SECURITY.md");
const MAP: &str = include_str!("../../ARCHITECTURE.md");

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

/// Returns the cells of every row of the tables of `text` whose first heading is `first`.
fn rows(text: &'static str, first: &str) -> Vec<Vec<&'static str>> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
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
                privileges.verb.name().to_owned(),
                word(privileges.root),
                word(privileges.releases),
                word(privileges.state),
                word(privileges.state_directories),
                yes_or_no(privileges.writes_records),
                yes_or_no(privileges.executes),
                yes_or_no(privileges.sets_times),
            ]
        })
        .collect();
    assert_eq!(rows(DOC, "Verb"), expected);
}

#[test]
fn the_numbers_of_system_calls_are_the_programs() {
    let text = DOC.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, list) in [
        ("UNPACKER", UNPACKER),
        ("ASSEMBLER", ASSEMBLER),
        ("PROBE", PROBE),
    ] {
        let count = list.len();
        let expected = format!("It may make {count} system calls (`{name}`");
        assert!(text.contains(&expected), "no '{expected}' in SECURITY.md");
    }
    let (monitor, executing) = (MONITOR.len(), EXECUTING.len());
    for expected in [
        format!("the {} calls of `BUILDER`", BUILDER.len()),
        format!("a list of {monitor} system calls (`MONITOR`"),
        format!("{executing} more for a verb that executes (`EXECUTING`)"),
    ] {
        assert!(text.contains(&expected), "no '{expected}' in SECURITY.md");
    }
}

/// Returns the numbers of the calls in a table with this header.
fn calls_in_table(header: &str) -> BTreeSet<libc::c_long> {
    let number = |name: &str| match name {
        "clone" => libc::SYS_clone,
        "fcntl" => libc::SYS_fcntl,
        "flock" => libc::SYS_flock,
        "ioctl" => libc::SYS_ioctl,
        "mkdirat" => libc::SYS_mkdirat,
        "mmap" => libc::SYS_mmap,
        "mprotect" => libc::SYS_mprotect,
        "openat" => libc::SYS_openat,
        "prlimit64" => libc::SYS_prlimit64,
        "socket" => libc::SYS_socket,
        "socketpair" => libc::SYS_socketpair,
        "utimensat" => libc::SYS_utimensat,
        name => panic!("add the number of '{name}' here"),
    };
    rows(DOC, header)
        .iter()
        .flat_map(|row| row[0].split(", "))
        .map(|call| number(call.trim_matches('`')))
        .collect()
}

/// The table lists the calls that are allowed with certain arguments only, and no
/// other call.
#[test]
fn the_table_of_calls_with_argument_rules_is_the_programs() {
    let rules = unpacker_arg_rules().expect("the rules are valid");
    assert_eq!(calls_in_table("Call"), rules.into_keys().collect());
}

/// As above. flock(2) is in the list of some verbs only, and open(2) is an older form.
#[test]
fn the_table_of_calls_of_a_monitor_is_the_programs() {
    let rules = monitor_arg_rules(&Rights::default()).expect("the rules are valid");
    let mut limited: BTreeSet<libc::c_long> = rules.into_keys().collect();
    limited.insert(libc::SYS_flock);
    #[cfg(target_arch = "x86_64")]
    limited.remove(&libc::SYS_open);
    assert_eq!(calls_in_table("Call of a monitor"), limited);
}

/// Returns whether `name` is a test, or a case of a table, in a file of that name.
fn test_exists(file: &str, name: &str) -> bool {
    let test = format!("fn {name}(");
    let case = format!("\"{name}\"");
    ["tests/suite", "tests", "src"]
        .iter()
        .filter_map(|directory| fs::read_to_string(root().join(directory).join(file)).ok())
        .any(|text| text.contains(&test) || text.contains(&case))
}

/// Returns the rows of [`tables_with_tests`] whose test does not exist.
fn rows_without_test() -> Vec<String> {
    let mut missing = Vec::new();
    for row in tables_with_tests() {
        let shown = row[row.len() - 1];
        let test = shown.strip_prefix('`').and_then(|it| it.strip_suffix('`'));
        match test.and_then(|it| it.split_once(": ")) {
            Some((file, name)) if test_exists(file, name) => {}
            // A defect of other software needs no test here.
            None if shown == "—" => {}
            _ => missing.push(format!("{}: {shown}", row[0])),
        }
    }
    missing
}

/// Returns the rows whose last cell is a test: `file: name`.
fn tables_with_tests() -> Vec<Vec<&'static str>> {
    let tables = [
        (DOC, "CVE"),
        (DOC, "Guarantee"),
        (DOC, "Resource"),
        (DOC, "Stolen key"),
        (MAP, "Invariant"),
    ];
    tables.map(|(text, first)| rows(text, first)).concat()
}

/// A test that has got another name is a warning, not a failure. The warning goes to
/// stderr itself, because the harness hides what a passing test prints.
#[test]
fn rows_that_name_a_missing_test_are_reported() {
    if !readable() {
        return;
    }
    assert!(!test_exists(
        "security_doc.rs",
        &["no_such", "test"].join("_")
    ));
    assert!(tables_with_tests().len() > 80, "the tables are found");
    for row in rows_without_test() {
        let warning = format!("warning: SECURITY.md or ARCHITECTURE.md: no test for {row}");
        writeln!(std::io::stderr(), "{warning}").expect("stderr");
    }
}

#[test]
fn every_row_of_the_cve_table_is_well_formed() {
    let mut seen = BTreeSet::new();
    for row in rows(DOC, "CVE") {
        let [cve, _, wrong, answer, shown] = row[..] else {
            panic!("five cells: {row:?}");
        };
        // Some advisories of Rust crates have no CVE number.
        let number = cve.strip_prefix("CVE-");
        let number = number.or(cve.strip_prefix("RUSTSEC-"));
        let number = number.and_then(|it| it.split_once('-'));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let valid = number.is_some_and(|(year, number)| {
            year.len() == 4 && digits(year) && number.len() >= 4 && digits(number)
        });
        assert!(valid, "{cve}");
        assert!(seen.insert(cve), "{cve} is in the table twice");
        assert!(!wrong.is_empty() && !answer.is_empty(), "{cve}");
        let has_test = shown.starts_with('`') && shown.contains(": ");
        let elsewhere = shown == "—" && answer.starts_with("not ours");
        assert!(
            has_test || elsewhere,
            "{cve}: '{shown}' is not `file: name`"
        );
    }
    assert!(seen.len() >= 25, "{} rows", seen.len());
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
