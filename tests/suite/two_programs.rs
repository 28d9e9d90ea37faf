//! `deploy-shell`, which is a login shell, contains nothing of the operator's
//! program: no code of `check`, no account look-up and no help renderer.
//!
//! Each test also searches `deploy-shell-admin`, and must find there what it searches
//! for: otherwise it would prove nothing about `deploy-shell`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::site::{BIN, admin};

/// The code word and the remedy of each finding.
macro_rules! findings {
    ($($variant:ident $severity:ident $code:literal $remedy:literal,)*) => {
        const FINDINGS: &[(&str, &str)] = &[$(($code, $remedy),)*];
    };
}

include!("../../admin/src/check/findings_table.rs");

/// What `init` writes.
const TEMPLATE: &str = include_str!("../../admin/src/template.toml");

/// Code words that the requests' own errors contain as well.
const SHARED_CODES: [&str; 3] = ["audit-unreachable", "layout", "terminal"];

/// How the names of the C library's functions begin that read the databases of
/// users, groups and passwords, or take on a user's groups.
const ACCOUNT_LOOKUPS: [&str; 12] = [
    "getpw",
    "setpwent",
    "fgetpw",
    "getgr",
    "setgrent",
    "fgetgr",
    "getsp",
    "setspent",
    "fgetsp",
    "sgetsp",
    "initgroups",
    "getgrouplist",
];

/// Texts of the operator's program that are no findings. The first is clap's: the
/// template of a help page, which exists only with clap's feature `help`. (The
/// words "Print help" prove nothing: clap defines `--help` without the feature too.)
const OPERATOR_TEXTS: [&str; 5] = [
    "{about-with-newline}",
    "/etc/passwd",
    "/etc/shadow",
    "/usr/sbin/sshd",
    "authorizedkeysfile",
];

/// Runs a program of binutils, and returns what it prints.
fn binutils(program: &str, arguments: &[&OsStr]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} of binutils: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).expect("ASCII")
}

/// Returns the names of the functions that `binary` takes from shared libraries.
fn imports(binary: &Path) -> BTreeSet<String> {
    let arguments = [
        "-D".as_ref(),
        "--undefined-only".as_ref(),
        binary.as_os_str(),
    ];
    let names: BTreeSet<String> = binutils("nm", &arguments)
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect();
    assert!(names.contains("execvp"), "{binary:?}: {names:?}");
    names
}

/// Returns the constants of `binary`; its string literals are among them.
fn constants(binary: &Path) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let section = directory.path().join("rodata");
    let arguments = ["-O", "binary", "--only-section=.rodata"].map(OsStr::new);
    let files = [binary.as_os_str(), section.as_os_str()];
    binutils("objcopy", &[&arguments[..], &files].concat());
    let bytes = std::fs::read(section).expect("the section");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The standard library's `Command` links setuid, setgid and setgroups, though
/// `deploy-shell` changes no identity. Its seccomp filter denies them, which
/// `tests/attack.rs` shows. getaddrinfo belongs to the health check.
#[test]
fn the_shell_looks_up_no_account() {
    let lookups = |binary: &Path| -> BTreeSet<String> {
        let mut names = imports(binary);
        names.retain(|name| ACCOUNT_LOOKUPS.iter().any(|start| name.starts_with(start)));
        names
    };
    let operator = lookups(admin());
    for name in ["getpwuid_r", "getgrgid_r", "getgrouplist", "initgroups"] {
        assert!(operator.contains(name), "{name}: {operator:?}");
    }
    let shell = lookups(BIN.as_ref());
    assert!(shell.is_empty(), "{shell:?}");
}

#[test]
fn the_shell_contains_no_text_of_the_operators_program() {
    let (shell, operator) = (constants(BIN.as_ref()), constants(admin()));
    // Both have the texts that both can print.
    for text in ["deploy-shell", "bad-request", "audit-unreachable"] {
        assert!(shell.contains(text) && operator.contains(text), "{text}");
    }
    let codes = FINDINGS.iter().map(|(code, _)| *code);
    let codes = codes.filter(|code| !SHARED_CODES.contains(code));
    // The longest piece of a remedy between the places that are filled in.
    let remedies = FINDINGS.iter().filter_map(|(_, remedy)| {
        let pieces = remedy.split(['{', '}']);
        pieces
            .max_by_key(|piece| piece.len())
            .filter(|piece| piece.len() >= 20)
    });
    let texts: Vec<&str> = codes
        .chain(remedies)
        .chain(OPERATOR_TEXTS)
        .chain([TEMPLATE])
        .collect();
    assert!(texts.len() > 100, "{}", texts.len());
    for text in texts {
        assert!(operator.contains(text), "deploy-shell-admin lacks '{text}'");
        assert!(!shell.contains(text), "deploy-shell contains '{text}'");
    }
}
