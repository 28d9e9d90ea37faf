//! The module map of ARCHITECTURE.md: it names every module of the library, and each
//! module uses only modules that are below it in the map.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_macros, reason = "the ban is for the program")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

const MAP: &str = include_str!("../ARCHITECTURE.md");
const LIBRARY: &str = include_str!("../src/lib.rs");

/// The beginnings of commands that messages print.
const COMMANDS: [&str; 18] = [
    "chmod ",
    "chown ",
    "chgrp ",
    "setfacl ",
    "mv ",
    "cp -",
    "rm ",
    "ln -",
    "install -",
    "usermod ",
    "chage ",
    "runuser ",
    "gpasswd ",
    "df -",
    "touch ",
    "find ",
    "readlink ",
    "deploy-shell-admin ",
];

/// Files that parse and decide, and paths that only code with effects uses.
const PURE: [&str; 4] = ["request", "policy", "activate/plan", "store/history"];
const EFFECTS: [&str; 5] = ["nix::", "std::env", "std::fs", "std::process", "Instant"];

/// Returns the modules of the map, from the top layer to the bottom layer.
fn layers() -> Vec<&'static str> {
    let (_, section) = MAP.split_once("\n## Module map\n").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0))
        .collect()
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns whether the sources are readable. Another user cannot read a checkout in
/// root's home directory.
fn readable() -> bool {
    let readable = fs::read_dir(sources()).is_ok();
    if !readable {
        println!("skipped: this user cannot read the sources");
    }
    readable
}

/// Returns the text of a module's files, without comment lines.
fn code(module: &str) -> String {
    let mut files = vec![sources().join(format!("{module}.rs"))];
    let mut directories = vec![sources().join(module)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                files.push(path);
            }
        }
    }
    let texts = files.iter().map(|file| {
        let text = fs::read_to_string(file);
        text.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    });
    let lines: Vec<String> = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    lines.join("\n")
}

/// Returns the names that follow `crate::` in `code`, also those inside braces. Inside
/// nested braces it returns more than modules, which does no harm.
fn used_names(code: &str) -> BTreeSet<&str> {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut found = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let names = match path.strip_prefix('{') {
            Some(list) => list.split(';').next().unwrap_or_default(),
            None => path
                .split(|letter| !is_name(letter))
                .next()
                .unwrap_or_default(),
        };
        found.extend(names.split(|letter| !is_name(letter)));
    }
    found
}

#[test]
fn the_map_has_every_module_once() {
    let modules = LIBRARY.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    let mut layers = layers();
    layers.sort_unstable();
    assert_eq!(layers, modules.collect::<Vec<_>>());
}

/// The compiler says nothing of a file that no module declares, and its tests do not run.
#[test]
fn every_file_is_declared_as_a_module() {
    if !readable() {
        return;
    }
    let mut directories = vec![sources()];
    while let Some(directory) = directories.pop() {
        let parent = if directory == sources() {
            directory.join("lib.rs")
        } else {
            directory.with_extension("rs")
        };
        let parent = fs::read_to_string(&parent).unwrap_or_default();
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(OsStr::to_str).expect("UTF-8");
            if path.is_dir() {
                directories.push(path);
            } else if !["lib", "main"].contains(&name) {
                let declared = parent.lines().any(|line| {
                    let line = line
                        .trim_start_matches("pub ")
                        .trim_start_matches("pub(crate) ");
                    line == format!("mod {name};")
                });
                assert!(declared, "no module declares {}", path.display());
            }
        }
    }
}

#[test]
fn every_module_uses_only_modules_below_it_in_the_map() {
    if !readable() {
        return;
    }
    let layers = layers();
    for (place, module) in layers.iter().enumerate() {
        let code = code(module);
        let used = used_names(&code);
        let above: Vec<_> = layers[..place]
            .iter()
            .filter(|it| used.contains(*it))
            .collect();
        assert!(
            above.is_empty(),
            "'{module}' uses {above:?}, which are above it"
        );
    }
}

#[test]
fn pure_files_have_no_effects() {
    if !readable() {
        return;
    }
    for file in PURE {
        let text = fs::read_to_string(sources().join(format!("{file}.rs")));
        let text = text.expect("a source file");
        let effects: Vec<_> = EFFECTS.iter().filter(|it| text.contains(*it)).collect();
        assert!(effects.is_empty(), "'{file}' uses {effects:?}");
    }
}

/// A path between quotes that a message writes itself can end the quotes, and root pastes
/// the command: see `shell_word.rs`.
#[test]
fn every_word_of_a_printed_command_is_quoted_by_its_type() {
    if !readable() {
        return;
    }
    let mut directories = vec![sources(), sources().with_file_name("admin").join("src")];
    let mut commands = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            if path.ends_with("tests.rs") || path.iter().any(|name| name == "tests") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source");
            let program = text.split("#[cfg(test)]\nmod tests {").next();
            for literal in program.unwrap_or_default().split('"') {
                let Some(at) = COMMANDS.iter().filter_map(|it| literal.find(it)).min() else {
                    continue;
                };
                commands += 1;
                let shown = path.display();
                let is_quoted = literal[at..].contains("'{");
                assert!(!is_quoted, "{shown} does not use Word: {literal}");
            }
        }
    }
    assert!(commands > 50, "only {commands} commands were found");
}
