//! Builds the payload of a delta from two releases.

use crate::archive::{Tar, zstd};
use crate::site::sha256;

/// A release as a client sees it: paths with `/` at their end are directories, `>` leads to
/// the target of a symlink, and any other is a file with this content.
pub type Release<'a> = [(&'a str, &'a str)];

/// Returns the lines of the tree list, sorted.
fn lines(release: &Release<'_>) -> Vec<String> {
    let line = |(name, content): &(&str, &str)| {
        let escaped = |text: &str| text.replace(' ', "\\040");
        let shown = escaped(name.trim_end_matches(['/', '>']));
        if name.ends_with('/') {
            format!("./{shown} type=dir mode=0755")
        } else if name.ends_with('>') {
            format!("./{shown} type=link mode=0777 link={}", escaped(content))
        } else {
            let (size, digest) = (content.len(), sha256(content.as_bytes()));
            format!("./{shown} type=file mode=0644 size={size} sha256digest={digest}")
        }
    };
    let mut lines: Vec<_> = release.iter().map(line).collect();
    lines.push(". type=dir mode=0755".to_owned());
    lines.sort();
    lines
}

/// Returns the digest of the tree list.
pub fn tree(release: &Release<'_>) -> String {
    let text: String = lines(release)
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    sha256(text.as_bytes())
}

/// Returns the payload of the whole release.
pub fn whole(release: &Release<'_>) -> Vec<u8> {
    let tar = release.iter().fold(Tar::new(), |tar, (name, content)| {
        match (name.strip_suffix('>'), name.strip_suffix('/')) {
            (Some(name), _) => tar.symlink(name, content),
            (_, Some(name)) => tar.directory(name),
            _ => tar.file(name, content),
        }
    });
    zstd(&tar.end())
}

/// Returns the changes between two releases, and the names of the files that they add.
pub fn changes(old: &Release<'_>, new: &Release<'_>) -> (String, Vec<String>) {
    let (old, new) = (lines(old), lines(new));
    let path = |line: &str| line.split(' ').next().expect("a path").to_owned();
    let mut changes: Vec<(String, u8, String)> = Vec::new();
    for line in old.iter().filter(|line| !new.contains(line)) {
        changes.push((path(line), b'-', format!("- {}\n", path(line))));
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        // The removal of a path comes first.
        changes.push((path(line), b'a', format!("+ {line}\n")));
    }
    changes.sort();
    let added = changes
        .iter()
        .filter(|(_, _, line)| line.contains(" type=file "));
    let added = added.map(|(path, ..)| path.trim_start_matches("./").replace("\\040", " "));
    let added = added.collect();
    (changes.into_iter().map(|(.., line)| line).collect(), added)
}

/// Returns the content of a file.
pub fn content<'a>(release: &Release<'a>, name: &str) -> &'a str {
    let found = release.iter().find(|(known, _)| *known == name);
    found.expect("a file of the release").1
}

/// Returns the payload of the delta.
pub fn delta(old: &Release<'_>, new: &Release<'_>) -> Vec<u8> {
    let (text, added) = changes(old, new);
    let tar = Tar::new().file(".deploy-shell-changes", text);
    let tar = added
        .iter()
        .fold(tar, |tar, name| tar.file(name, content(new, name)));
    zstd(&tar.end())
}
