//! Follows the symlinks of a list of entries, without a file system. Pure.
//!
//! A delta is checked before anything of it is created. Its list has everything that the
//! release will contain, so the list alone says where each symlink leads. The rules are
//! those of [`Dir::walk_beneath`](crate::dir::Dir::walk_beneath); the tests compare both.

use nix::errno::Errno;

use crate::dir::{MAX_STEPS, MAX_SYMLINKS};
use crate::manifest::{Entry, Kind, compare_paths};

/// Follows `path`, and the symlinks on the way and at its end. `entries` are sorted as a
/// manifest sorts them, and the first one is the release itself.
///
/// # Errors
///
/// `EXDEV` for a path that leads out, `ELOOP` for a loop or too many steps, `ENOENT` and
/// `ENOTDIR` for a part that does not exist.
pub fn resolve(entries: &[Entry], path: &[u8]) -> nix::Result<()> {
    // The components of the present directory, and what is left to walk, the next component
    // last.
    let mut at: Vec<&[u8]> = Vec::new();
    let mut left = Vec::new();
    push_components(&mut left, path)?;
    let (mut steps, mut symlinks) = (0, 0);
    // Terminates: each turn is one of at most `MAX_STEPS`.
    while let Some(component) = left.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            return Err(Errno::ELOOP);
        }
        match component {
            b"." => continue,
            b".." => {
                at.pop().ok_or(Errno::EXDEV)?;
                continue;
            }
            name => at.push(name),
        }
        match kind_at(entries, &at.join(&b'/')).ok_or(Errno::ENOENT)? {
            Kind::Dir => {}
            Kind::File { .. } if left.is_empty() => return Ok(()),
            Kind::File { .. } => return Err(Errno::ENOTDIR),
            Kind::Link { .. } if symlinks == MAX_SYMLINKS => return Err(Errno::ELOOP),
            Kind::Link { target } => {
                symlinks += 1;
                at.pop();
                push_components(&mut left, target)?;
            }
        }
    }
    Ok(())
}

fn kind_at<'a>(entries: &'a [Entry], path: &[u8]) -> Option<&'a Kind> {
    let found = entries.binary_search_by(|entry| compare_paths(&entry.path, path));
    found.ok().map(|index| &entries[index].kind)
}

/// Pushes the components of `path`, the first one last.
fn push_components<'a>(left: &mut Vec<&'a [u8]>, path: &'a [u8]) -> nix::Result<()> {
    match path.first() {
        None => return Err(Errno::ENOENT),
        Some(b'/') => return Err(Errno::EXDEV),
        Some(_) => {}
    }
    // A slash at the end says that the component before it is a directory.
    if path.ends_with(b"/") {
        left.push(b".");
    }
    let components = path.rsplit(|byte| *byte == b'/');
    left.extend(components.filter(|component| !component.is_empty()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::Dir;
    use crate::names::Sha256Digest;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn target() -> impl Strategy<Value = String> {
        let component = prop::sample::select(&["a", "b", "c", "d", ".", "..", ""][..]);
        prop::collection::vec(component, 1..6).prop_map(|components| components.join("/"))
    }

    /// The kind of each of the paths below, by a number; and targets for the symlinks.
    fn tree() -> impl Strategy<Value = Vec<(u8, String)>> {
        prop::collection::vec((0..4_u8, target()), PATHS.len())
    }

    const PATHS: [&str; 8] = ["a", "a/a", "a/b", "b", "b/c", "c", "c/a", "d"];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn a_list_is_followed_as_the_same_directory_is(tree in tree(), path in target()) {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path().join("tree");
            fs::create_dir(&root).unwrap();
            let mut made = BTreeMap::from([(Vec::new(), Kind::Dir)]);
            for (name, (kind, target)) in PATHS.iter().zip(&tree) {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                if made.get(parent.as_bytes()) != Some(&Kind::Dir) {
                    continue;
                }
                let at = root.join(name);
                let kind = match kind {
                    0 => continue,
                    1 => {
                        fs::create_dir(&at).unwrap();
                        Kind::Dir
                    }
                    2 => {
                        fs::write(&at, "").unwrap();
                        let sha256 = Sha256Digest([0; 32]);
                        Kind::File { executable: false, size: 0, sha256 }
                    }
                    // An empty target cannot be created.
                    _ if target.is_empty() => continue,
                    _ => {
                        symlink(target, &at).unwrap();
                        Kind::Link { target: target.clone().into_bytes() }
                    }
                };
                made.insert(name.as_bytes().to_vec(), kind);
            }
            let mut entries: Vec<_> = (made.into_iter())
                .map(|(path, kind)| Entry { path, kind })
                .collect();
            entries.sort_by(|one, other| compare_paths(&one.path, &other.path));
            let on_disk = Dir::open_root(&root).unwrap().walk_beneath(Path::new(&path));
            prop_assert_eq!(resolve(&entries, path.as_bytes()), on_disk.map(drop));
        }
    }
}
