//! The documents: every relative link and anchor in them leads somewhere, a reader
//! reaches every page from the README, and the README stays short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The severity and the code word of each finding of `check`.
macro_rules! findings {
    ($($variant:ident $severity:ident $code:literal $remedy:literal,)*) => {
        const FINDINGS: &[(&str, &str)] = &[$((stringify!($severity), $code),)*];
    };
}

include!("../../admin/src/check/findings_table.rs");

/// Returns the documents by their paths from the top of the repository.
fn documents() -> BTreeMap<PathBuf, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    let named = [
        "README.md",
        "SECURITY.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "sshd/README.md",
    ];
    for name in named.map(PathBuf::from) {
        if let Ok(text) = fs::read_to_string(top.join(&name)) {
            found.insert(name, text);
        }
    }
    for directory in ["docs", "packaging"] {
        collect(top, Path::new(directory), &mut found);
    }
    assert!(found.len() > 20, "{:?}", found.keys());
    found
}

fn collect(top: &Path, below: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(top.join(below)).expect("a directory") {
        let entry = entry.expect("an entry");
        let path = below.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            collect(top, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(top.join(&path)).expect("text");
            found.insert(path, text);
        }
    }
}

/// Returns the lines of `text` that are not inside a fenced block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Returns the targets of the links in `text`.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        if let Some((_, target)) = line
            .strip_prefix('[')
            .and_then(|line| line.split_once("]: "))
        {
            found.push(target.to_owned());
        }
        // Code in backticks is no link.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let links = plain.split("](").skip(1);
        found.extend(links.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
    }
    found
}

/// Returns the anchor that forges give a heading: lower case, without punctuation,
/// hyphens for spaces.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ => letter.is_alphanumeric().then_some(letter),
        })
        .collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// Returns the file that `target` names, seen from `document`, and the anchor in it.
/// A link to another site has neither.
fn resolve(document: &Path, target: &str) -> Option<(PathBuf, Option<String>)> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = match target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor.to_owned())),
        None => (target, None),
    };
    if file.is_empty() {
        return Some((document.to_owned(), anchor));
    }
    let mut path = document.parent().expect("a parent").to_owned();
    for component in Path::new(file).components() {
        match component {
            Component::ParentDir => assert!(path.pop(), "{target} leaves the repository"),
            other => path.push(other),
        }
    }
    Some((path, anchor))
}

#[test]
fn every_relative_link_and_anchor_resolves() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = documents();
    let (mut links, mut broken) = (0, Vec::new());
    for (document, text) in &documents {
        for target in targets(text) {
            let Some((file, anchor)) = resolve(document, &target) else {
                continue;
            };
            links += 1;
            let found = match (anchor, documents.get(&file)) {
                (Some(anchor), Some(text)) => anchors(text).contains(&anchor),
                (Some(_), None) => false,
                (None, _) => top.join(&file).exists(),
            };
            if !found {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links: {broken:#?}");
    assert!(links > 100, "only {links} links were found");
}

#[test]
fn the_readme_leads_to_every_page() {
    let documents = documents();
    let readme = Path::new("README.md");
    let reached: BTreeSet<PathBuf> = targets(&documents[readme])
        .iter()
        .filter_map(|target| Some(resolve(readme, target)?.0))
        .collect();
    for page in documents.keys().filter(|page| page.starts_with("docs")) {
        assert!(reached.contains(page), "the README has no link to {page:?}");
    }
}

#[test]
fn the_readme_has_at_most_250_lines() {
    let lines = documents()[Path::new("README.md")].lines().count();
    assert!(lines <= 250, "{lines}");
}

/// A page is for somebody who wants to do something: commands first.
#[test]
fn every_page_opens_with_its_commands() {
    for (page, text) in documents() {
        // These two are read, not followed; the second belongs to a specification.
        let exempt = ["docs/comparison.md", "docs/formats.md"];
        if !page.starts_with("docs") || exempt.iter().any(|name| page == Path::new(name)) {
            continue;
        }
        let mut lines = text.lines().filter(|line| !line.is_empty()).skip(1);
        let opens = lines.by_ref().take(2).any(|line| line.starts_with("    "));
        assert!(opens, "{page:?} does not open with its commands");
    }
}

/// The chart is drawn from the results, and the table shows the same figures.
#[test]
fn the_figures_are_those_of_the_results() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let drawn = Command::new(top.join("benches/chart"))
        .args(["benches/figures.json", "docs/figures.svg", "--check"])
        .current_dir(top)
        .output()
        .expect("python3 is installed");
    assert!(drawn.status.success(), "{drawn:?}");

    let results = fs::read(top.join("benches/figures.json")).expect("the results");
    let results: Value = serde_json::from_slice(&results).expect("JSON");
    let documents = documents();
    let page = &documents[Path::new("docs/performance.md")];
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let measured = results["rows"].as_array().expect("rows");
    for row in measured {
        let figure = |name: &str| row[name].as_f64().expect("a number");
        let two = |name: &str| format!("{:.2}", figure(name));
        let one = |name: &str| format!("{:.1}", figure(name));
        let range = format!("{} ({}-{})", two("ratio"), two("low"), two("high"));
        let short = format!("{} ({}-{})", one("ratio"), one("low"), one("high"));
        let shown = rows
            .iter()
            .any(|row| row.contains(&range) || row.contains(&short));
        assert!(shown, "docs/performance.md does not show {row}");
    }
    assert!(measured.len() >= 10, "{measured:?}");
}

#[test]
fn every_finding_is_listed_with_its_severity() {
    let documents = documents();
    let page = &documents[Path::new("docs/findings.md")];
    let listed: BTreeMap<&str, &str> = (page.lines())
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(code, rest)| Some((code, rest.split_once(" | ")?.0)))
        .collect();
    for (severity, code) in FINDINGS {
        let severity = severity.to_lowercase();
        assert_eq!(listed.get(code), Some(&severity.as_str()), "{code}");
    }
    assert_eq!(listed.len(), FINDINGS.len(), "a row is of no finding");
}

#[test]
fn anchors_are_those_of_the_forges() {
    assert_eq!(anchor("Why not `ln -sfn`"), "why-not-ln--sfn");
    assert_eq!(anchor("A key has leaked"), "a-key-has-leaked");
    assert_eq!(targets("a [b](c.md#d) `[e](f)` [g](h)"), ["c.md#d", "h"]);
    assert_eq!(
        resolve(Path::new("docs/a.md"), "../b/c.md#d"),
        Some((PathBuf::from("b/c.md"), Some("d".to_owned())))
    );
}
