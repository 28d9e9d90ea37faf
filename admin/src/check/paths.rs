//! Follows a path component by component, symlinks included, so that the
//! rules see each directory in which another user could replace something.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::facts::{ComponentKind, InstalledProgram, PathComponent, Resolution, ResolvedPath};
use deploy_shell::error::describe;

/// The maximum number of symlinks in one path, as in the kernel
/// (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// Follows an absolute path to its end, and describes every component.
pub fn resolve_path(path: &Path) -> ResolvedPath {
    let mut components = Vec::new();
    let resolution = match follow_names(path, &mut components) {
        Ok(()) => Resolution::Complete,
        Err(resolution) => resolution,
    };
    ResolvedPath {
        path: path.to_owned(),
        components,
        resolution,
    }
}

fn follow_names(path: &Path, components: &mut Vec<PathComponent>) -> Result<(), Resolution> {
    let mut reached = PathBuf::from("/");
    let mut pending = names(path);
    pending.push_front(OsString::from("."));
    let mut symlinks = 0;
    // Terminates: each turn removes a name, and only a symlink adds any.
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            reached.pop();
            continue;
        }
        let next = if name == "." {
            reached.clone()
        } else {
            reached.join(&name)
        };
        let (component, target) = examine_component(&next)?;
        components.push(component);
        let Some(target) = target else {
            reached = next;
            continue;
        };
        if symlinks == MAX_SYMLINKS {
            return Err(Resolution::NotChecked("too many symlinks".to_owned()));
        }
        symlinks += 1;
        if target.is_absolute() {
            reached = PathBuf::from("/");
        }
        for name in names(&target).into_iter().rev() {
            pending.push_front(name);
        }
    }
    Ok(())
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

/// Describes the file at `path` itself, and returns its target if it is a
/// symlink.
fn examine_component(path: &Path) -> Result<(PathComponent, Option<PathBuf>), Resolution> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Resolution::Missing,
        _ => Resolution::NotChecked(describe(&error)),
    };
    let metadata = path.symlink_metadata().map_err(failed)?;
    let kind = match metadata.file_type() {
        kind if kind.is_symlink() => ComponentKind::Symlink,
        kind if kind.is_dir() => ComponentKind::Directory,
        _ => ComponentKind::Other,
    };
    let target = match kind {
        ComponentKind::Symlink => Some(std::fs::read_link(path).map_err(failed)?),
        _ => None,
    };
    let component = PathComponent {
        path: path.to_owned(),
        uid: metadata.uid(),
        mode: metadata.mode() & 0o7777,
        kind,
    };
    Ok((component, target))
}

/// Examines the program at `path`, and compares it with the one at `expected`.
pub fn examine_program(path: &Path, expected: &Path) -> InstalledProgram {
    InstalledProgram {
        location: resolve_path(path),
        differs: expected.exists() && !is_identical(path, expected).unwrap_or(false),
    }
}

fn is_identical(left: &Path, right: &Path) -> std::io::Result<bool> {
    let (left_metadata, right_metadata) = (left.metadata()?, right.metadata()?);
    let file = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    if file(&left_metadata) == file(&right_metadata) {
        return Ok(true);
    }
    Ok(left_metadata.len() == right_metadata.len()
        && left_metadata.is_file()
        && std::fs::read(left)? == std::fs::read(right)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// The components below `base`, relative to it.
    fn shown(resolved: &ResolvedPath, base: &Path) -> Vec<String> {
        resolved
            .components
            .iter()
            .filter_map(|component| component.path.strip_prefix(base).ok())
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn every_component_is_listed_with_symlinks_and_their_targets() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        std::fs::write(base.join("a/b/file"), "").unwrap();
        symlink("a/b", base.join("relative")).unwrap();
        symlink(base.join("relative"), base.join("absolute")).unwrap();

        let resolved = resolve_path(&base.join("absolute/../b/file"));
        assert_eq!(resolved.resolution, Resolution::Complete);
        assert_eq!(resolved.components[0].path, Path::new("/"));
        let expected = [
            "", "absolute", "", "relative", "a", "a/b", "a/b", "a/b/file",
        ];
        assert_eq!(shown(&resolved, &base), expected);
        let last = resolved.components.last().unwrap();
        assert_eq!(last.kind, ComponentKind::Other);
    }

    #[test]
    fn a_missing_file_and_a_symlink_loop_differ() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let resolved = resolve_path(&base.join("none/file"));
        assert_eq!(resolved.resolution, Resolution::Missing);
        assert_eq!(resolved.components.last().unwrap().path, base);
        symlink("loop", base.join("loop")).unwrap();
        assert!(matches!(
            resolve_path(&base.join("loop")).resolution,
            Resolution::NotChecked(_)
        ));
    }

    #[test]
    fn a_program_is_identified_by_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, text) in [("ours", "one"), ("copy", "one"), ("other", "two")] {
            std::fs::write(path(name), text).unwrap();
        }
        let differs =
            |name: &str, expected: &str| examine_program(&path(name), &path(expected)).differs;
        assert!(!differs("ours", "ours"));
        assert!(!differs("copy", "ours"));
        assert!(differs("other", "ours"));
        assert!(differs("none", "ours"));
        // There is nothing to compare it with.
        assert!(!differs("other", "none"));
    }
}
