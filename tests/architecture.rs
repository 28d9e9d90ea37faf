//! The shape of the program, held: which module may use which, who may touch
//! files, environment, processes and streams, and how long a file may be.
//!
//! Sources are read as text. Comment lines and what stands behind
//! `#[cfg(test)]` are left out, so the rules are about the program alone.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_macros,
    reason = "the bans are for the program: a test prints"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the crate, with the modules it uses. A row uses rows above
/// it only, so there are no cycles. A module that is not here, a use that is
/// not here and an entry that nobody uses any more fail alike: to add one, put
/// it into its row, or put a new row below all that it uses.
const MODULES: &[(&str, &[&str])] = &[
    // The small types; they know nothing.
    ("error", &[]),
    ("escape", &[]),
    ("names", &[]),
    ("timed", &[]),
    // Folder handles know the names they are asked for and nothing else.
    ("dir", &["names"]),
    // Pure: what is asked, and whether it may be.
    ("request", &["names"]),
    ("policy", &["request"]),
    ("manifest", &["names"]),
    ("shared", &["names"]),
    // The outside: environment, configuration, disk.
    ("session", &["names"]),
    ("config", &["error", "manifest", "names", "shared"]),
    (
        "signature",
        &["config", "error", "escape", "manifest", "names"],
    ),
    ("syslog", &["config"]),
    (
        "store",
        &[
            "config", "dir", "error", "escape", "manifest", "names", "session", "shared",
        ],
    ),
    ("confine", &["dir", "error", "policy", "store"]),
    // What reads the answer of a release.
    ("probe", &["config", "confine", "error", "escape", "timed"]),
    // What runs the operator's commands.
    (
        "runner",
        &[
            "config", "confine", "dir", "error", "escape", "names", "probe", "timed",
        ],
    ),
    ("outcome", &["confine", "names", "runner", "signature"]),
    ("reply", &["error", "escape", "outcome"]),
    (
        "verify",
        &["dir", "error", "escape", "manifest", "names", "store"],
    ),
    (
        "audit",
        &[
            "config", "confine", "error", "escape", "names", "outcome", "session", "syslog",
        ],
    ),
    // The verbs, and what unpacks.
    (
        "unpack",
        &[
            "confine", "dir", "error", "escape", "manifest", "names", "shared",
        ],
    ),
    (
        "receive",
        &[
            "config",
            "confine",
            "dir",
            "error",
            "escape",
            "manifest",
            "names",
            "outcome",
            "policy",
            "request",
            "session",
            "shared",
            "signature",
            "store",
            "timed",
            "unpack",
        ],
    ),
    (
        "activate",
        &[
            "config",
            "dir",
            "error",
            "escape",
            "manifest",
            "names",
            "outcome",
            "policy",
            "request",
            "runner",
            "session",
            "signature",
            "store",
            "verify",
        ],
    ),
    (
        "list",
        &[
            "config", "error", "names", "outcome", "policy", "request", "store",
        ],
    ),
    // Who knows all.
    (
        "serve",
        &[
            "activate",
            "audit",
            "config",
            "confine",
            "error",
            "list",
            "names",
            "outcome",
            "policy",
            "receive",
            "reply",
            "request",
            "runner",
            "session",
            "signature",
            "store",
        ],
    ),
    (
        "admin",
        &[
            "config",
            "confine",
            "dir",
            "error",
            "manifest",
            "names",
            "policy",
            "reply",
            "signature",
            "store",
            "unpack",
            "verify",
        ],
    ),
    (
        "cli",
        &[
            "admin", "config", "error", "names", "policy", "probe", "reply", "request", "runner",
            "serve", "session", "shared", "unpack",
        ],
    ),
];

/// Words that may stand in some files only: (word, files or folders, reason).
const WORDS: &[(&str, &[&str], &str)] = &[
    ("env::var", &["session"], "who asks is read in one place"),
    ("env::set_var", &[], "nothing is told by the environment"),
    (
        "process::Command",
        &["receive/unpacker", "runner", "admin/check"],
        "what a request executes is this program, and by the runner the operator's commands",
    ),
    (
        "process::{Child, Command",
        &["receive/unpacker", "runner", "admin/check"],
        "what a request executes is this program, and by the runner the operator's commands",
    ),
    (
        "Command::new(",
        &["receive/unpacker", "runner", "admin/check"],
        "what a request executes is this program, and by the runner the operator's commands",
    ),
    (
        "io::stdout()",
        &["reply", "unpack", "runner/link", "probe"],
        "one writer for each process",
    ),
    (
        "io::stderr()",
        &["reply", "unpack"],
        "one writer for each process",
    ),
    (
        "io::stdin()",
        &["receive/spool", "unpack", "runner/link", "admin/authorize"],
        "a payload is read by its spool",
    ),
    ("unsafe ", &[], "forbidden"),
    (
        "TcpStream",
        &["probe"],
        "a request reaches no network; the probe asks where the operator says",
    ),
    ("UdpSocket", &[], "a request reaches no network"),
];

/// Modules that are pure, and what would make them not so.
const PURE: &[&str] = &["request", "policy", "escape", "names", "manifest", "shared"];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::process",
    "std::net",
    "std::os",
    "std::thread",
    "std::time",
    "nix::",
];

/// The longest a file may be, in lines.
const MAX_LINES: usize = 600;

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

/// The Rust files below `folder`, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file of src, without comment lines and tests.
struct Source {
    /// Below src, without `.rs`: `store/dir`.
    name: String,
    text: String,
}

impl Source {
    /// The top-level module it belongs to.
    fn module(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            let rest = self.name.strip_prefix(place);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The paths it uses below `crate::`, braces taken apart to two levels:
    /// `store`, `store::dir`, `error`.
    fn uses(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in self.text.match_indices("crate::") {
            let before = self.text[..at].chars().next_back();
            if before.is_some_and(|it| it.is_alphanumeric() || it == '_') {
                continue;
            }
            expand("", &self.text[at + "crate::".len()..], &mut found);
        }
        found
    }
}

/// Reads a path, or a tree of paths, at the start of `text`.
fn expand(above: &str, text: &str, found: &mut BTreeSet<String>) {
    let text = text.trim_start();
    if let Some(inside) = text.strip_prefix('{') {
        for part in parts(inside) {
            expand(above, part, found);
        }
        return;
    }
    let end = text.find(|it: char| !it.is_alphanumeric() && it != '_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    if name.is_empty() || name == "self" {
        return;
    }
    // Types and functions are no modules; of a path the modules count.
    let path = match above {
        "" => name.to_owned(),
        _ => format!("{above}::{name}"),
    };
    found.insert(path.clone());
    if let Some(below) = rest.strip_prefix("::") {
        expand(&path, below, found);
    }
}

/// The parts between commas, up to the brace that closes.
fn parts(inside: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, it) in inside.char_indices() {
        match it {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&inside[start..at]);
                return found;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// `text` without comment lines and without what only tests compile: one
/// declaration, or all the rest from `mod tests` on.
fn program(text: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let item = lines.next().unwrap_or_default();
            if !item.trim_end().ends_with(';') {
                assert!(item.starts_with("mod tests"), "what is '{item}'?");
                break;
            }
        } else if !line.trim_start().starts_with("//") {
            kept.push(line);
        }
    }
    kept.join("\n")
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut tests = BTreeSet::new();
    let mut found: Vec<Source> = files(&src)
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("readable");
            let name = path.strip_prefix(&src).expect("below src");
            let name = name.with_extension("");
            let name = name.to_str().expect("UTF-8").to_owned();
            // A module that only tests have stands behind its own attribute.
            let mut lines = text.lines();
            while lines.any(|line| line.trim() == "#[cfg(test)]") {
                let module = lines
                    .next()
                    .and_then(|line| line.trim().strip_prefix("mod "));
                if let Some(module) = module.and_then(|it| it.strip_suffix(';')) {
                    tests.insert(format!("{name}/{module}"));
                }
            }
            let text = program(&text);
            Source { name, text }
        })
        .collect();
    found.retain(|source| !tests.contains(&source.name));
    found
}

/// `lib` and `main` are no modules: the first lists them all, the second calls
/// one.
fn modules() -> Vec<Source> {
    let mut found = sources();
    found.retain(|source| !["lib", "main"].contains(&source.module()));
    found
}

fn fail_if(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_module_uses_what_its_row_says_and_no_more() {
    if !readable() {
        return;
    }
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in modules() {
        let entry = used.entry(source.module().to_owned()).or_default();
        for path in source.uses() {
            let top = path.split("::").next().unwrap_or_default();
            if top != source.module() {
                entry.insert(top.to_owned());
            }
        }
    }
    let mut problems = Vec::new();
    for (module, uses) in &used {
        let Some((_, row)) = MODULES.iter().find(|(name, _)| name == module) else {
            problems.push(format!("'{module}' has no row; it uses {uses:?}"));
            continue;
        };
        for name in uses {
            if !row.contains(&name.as_str()) {
                problems.push(format!("'{module}' uses '{name}', which is not in its row"));
            }
        }
        for name in *row {
            if !uses.contains(*name) {
                problems.push(format!("'{module}' no longer uses '{name}'; take it out"));
            }
        }
    }
    for (at, (module, row)) in MODULES.iter().enumerate() {
        if !used.contains_key(*module) {
            problems.push(format!("there is no module '{module}' any more"));
        }
        for name in *row {
            if !MODULES[..at].iter().any(|(above, _)| above == name) {
                problems.push(format!(
                    "'{name}' must stand above '{module}', which uses it"
                ));
            }
        }
    }
    fail_if(&problems);
}

#[test]
fn pure_modules_are_pure() {
    if !readable() {
        return;
    }
    let mut problems = Vec::new();
    for source in modules().iter().filter(|source| source.is_in(PURE)) {
        for word in IMPURE {
            if source.text.contains(word) {
                problems.push(format!("{}.rs is pure and has '{word}'", source.name));
            }
        }
    }
    fail_if(&problems);
}

#[test]
fn some_words_stand_in_their_place_only() {
    if !readable() {
        return;
    }
    let mut problems = Vec::new();
    for (word, places, reason) in WORDS {
        for source in modules() {
            if source.text.contains(word) && !source.is_in(places) {
                problems.push(format!("{}.rs has '{word}': {reason}", source.name));
            }
        }
        for place in *places {
            let used = |source: &Source| source.is_in(&[place]) && source.text.contains(word);
            // A word in several spellings is looked for in one of them.
            let spelled = word.contains('{') || word.starts_with("process::");
            if !spelled && !modules().iter().any(used) {
                problems.push(format!("'{place}' has no '{word}' any more"));
            }
        }
    }
    fail_if(&problems);
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    if !readable() {
        return;
    }
    let forbidden = |path: &str| {
        let text = fs::read_to_string(root().join(path)).expect("readable");
        text.lines().any(|line| line == "#![forbid(unsafe_code)]")
    };
    // Each of them is a crate of its own.
    for path in ["src/lib.rs", "src/main.rs", "tests/suite/main.rs"] {
        assert!(forbidden(path), "{path}");
    }
    for path in files(&root().join("tests")) {
        let below = path.strip_prefix(root()).expect("below the root");
        if below.components().count() == 2 {
            let below = below.to_str().expect("UTF-8");
            assert!(forbidden(below), "{below}");
        }
    }
}

#[test]
fn no_file_is_too_long() {
    if !readable() {
        return;
    }
    let mut problems = Vec::new();
    for folder in ["src", "tests"] {
        for path in files(&root().join(folder)) {
            let lines = fs::read_to_string(&path).expect("readable").lines().count();
            if lines > MAX_LINES {
                problems.push(format!("{} has {lines} lines", path.display()));
            }
        }
    }
    fail_if(&problems);
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let text = "use crate::{activate, store::{self, dir::Dir}, reply};\n\
                use crate::error::{Code, Error};\n\
                fn f() -> crate::names::ReleaseId { not_crate::other::x() }\n";
    let source = Source {
        name: "serve".to_owned(),
        text: program(&format!(
            "{text}// crate::comment\n#[cfg(test)]\nuse crate::test;\n\
             use crate::escape;\n#[cfg(test)]\nmod tests {{\nuse crate::config;\n}}\n"
        )),
    };
    let uses: Vec<_> = source.uses().into_iter().collect();
    let expected = [
        "activate",
        "error",
        "error::Code",
        "error::Error",
        "escape",
        "names",
        "names::ReleaseId",
        "reply",
        "store",
        "store::dir",
        "store::dir::Dir",
    ];
    assert_eq!(uses, expected);
}
