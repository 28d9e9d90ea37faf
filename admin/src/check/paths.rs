//! Looking at every component of a path, links followed by hand, so that each
//! folder in which somebody could exchange something is seen.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::facts::{End, Program, Step, StepKind, Way};
use deploy_shell::error::describe;

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Looks at every component of an absolute path.
pub fn walk(path: &Path) -> Way {
    let mut way = Way {
        path: path.to_owned(),
        steps: Vec::new(),
        end: End::Reached,
    };
    let mut at = PathBuf::from("/");
    let mut left = names(path);
    left.push_front(OsString::from("."));
    let mut links = 0;
    // Ends: every turn takes a name off, and only a link puts any back.
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = if name == "." {
            at.clone()
        } else {
            at.join(&name)
        };
        let (step, target) = match look(&next) {
            Ok(found) => found,
            Err(end) => {
                way.end = end;
                break;
            }
        };
        way.steps.push(step);
        match target {
            None => at = next,
            Some(_) if links == MAX_LINKS => {
                way.end = End::Unseen("too many links".to_owned());
                break;
            }
            Some(target) => {
                links += 1;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                for name in names(&target).into_iter().rev() {
                    left.push_front(name);
                }
            }
        }
    }
    way
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

/// What stands at `path` itself, and its target if it is a link.
fn look(path: &Path) -> Result<(Step, Option<PathBuf>), End> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => End::Missing,
        _ => End::Unseen(describe(&error)),
    };
    let meta = path.symlink_metadata().map_err(failed)?;
    let kind = match meta.file_type() {
        kind if kind.is_symlink() => StepKind::Link,
        kind if kind.is_dir() => StepKind::Folder,
        _ => StepKind::Other,
    };
    let target = match kind {
        StepKind::Link => Some(std::fs::read_link(path).map_err(failed)?),
        _ => None,
    };
    let step = Step {
        path: path.to_owned(),
        uid: meta.uid(),
        mode: meta.mode() & 0o7777,
        kind,
    };
    Ok((step, target))
}

/// Looks at a program, and whether it is the one at `ours`.
pub fn program(path: &Path, ours: &Path) -> Program {
    let same = || {
        let (left, right) = (path.metadata().ok()?, ours.metadata().ok()?);
        if (left.dev(), left.ino()) == (right.dev(), right.ino()) {
            return Some(true);
        }
        let same = left.len() == right.len()
            && left.is_file()
            && std::fs::read(path).ok()? == std::fs::read(ours).ok()?;
        Some(same)
    };
    Program {
        way: walk(path),
        same: same().unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn shown(way: &Way, below: &Path) -> Vec<String> {
        way.steps
            .iter()
            .filter_map(|step| step.path.strip_prefix(below).ok())
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn every_component_is_seen_links_and_what_they_lead_through() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        std::fs::write(base.join("a/b/file"), "").unwrap();
        symlink("a/b", base.join("relative")).unwrap();
        symlink(base.join("relative"), base.join("absolute")).unwrap();

        let way = walk(&base.join("absolute/../b/file"));
        assert_eq!(way.end, End::Reached);
        assert_eq!(way.steps[0].path, Path::new("/"));
        let expected = [
            "", "absolute", "", "relative", "a", "a/b", "a/b", "a/b/file",
        ];
        assert_eq!(shown(&way, &base), expected);
        assert_eq!(way.steps.last().unwrap().kind, StepKind::Other);
    }

    #[test]
    fn what_is_not_there_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let way = walk(&base.join("none/file"));
        assert_eq!(
            (way.end, way.steps.last().unwrap().path.clone()),
            (End::Missing, base.clone())
        );
        symlink("loop", base.join("loop")).unwrap();
        assert!(matches!(walk(&base.join("loop")).end, End::Unseen(_)));
    }

    #[test]
    fn a_program_is_known_by_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [("ours", "one"), ("copy", "one"), ("other", "two")] {
            std::fs::write(path(name), text).unwrap();
        }
        assert!(program(&path("ours"), &path("ours")).same);
        assert!(program(&path("copy"), &path("ours")).same);
        assert!(!program(&path("other"), &path("ours")).same);
        assert!(!program(&path("none"), &path("ours")).same);
    }
}
