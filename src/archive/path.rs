//! Names as archives write them, to paths that can do no harm.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::rule::Rule;
use crate::dir::Dir;
use crate::names::{MAX_COMPONENT, MAX_DEPTH, MAX_PATH};

/// A path below the release: plain components, none of them `.`, `..` or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanPath(Vec<u8>);

impl CleanPath {
    /// Reads the name of an entry; `folder` tells whether it is one.
    ///
    /// `./`, doubled slashes and a folder's last slash drop out, as they do
    /// for the kernel; everything else that is not a plain path is refused.
    pub fn read(name: &[u8], folder: bool) -> Result<CleanPath, Rule> {
        let text = std::str::from_utf8(name).map_err(|_| Rule::NameNotUtf8)?;
        if text.is_empty() {
            return Err(Rule::NameEmpty);
        }
        if text.contains(char::is_control) {
            return Err(Rule::NameControl);
        }
        if text.starts_with('/') {
            return Err(Rule::NameAbsolute);
        }
        let mut path = Vec::with_capacity(name.len());
        let mut depth = 0;
        for component in text.split('/') {
            match component {
                "" | "." => continue,
                ".." => return Err(Rule::NameDotDot),
                _ if component.len() > MAX_COMPONENT => return Err(Rule::NameComponent),
                _ => {}
            }
            if depth > 0 {
                path.push(b'/');
            }
            depth += 1;
            path.extend_from_slice(component.as_bytes());
        }
        if path.len() > MAX_PATH {
            return Err(Rule::NamePath);
        }
        if depth > MAX_DEPTH {
            return Err(Rule::NameDepth);
        }
        if !folder {
            if depth == 0 {
                return Err(Rule::NameEmpty);
            }
            if matches!(text.rsplit('/').next(), Some("" | ".")) {
                return Err(Rule::FileSlash);
            }
        }
        Ok(CleanPath(path))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components; none for the release itself.
    pub fn components(&self) -> Vec<&[u8]> {
        if self.0.is_empty() {
            return Vec::new();
        }
        self.0.split(|byte| *byte == b'/').collect()
    }
}

/// Checks what a link's target says by itself. Whether it stays inside is
/// asked of the kernel, once everything is there.
pub fn check_target(target: &[u8]) -> Result<(), Rule> {
    if target.is_empty() {
        return Err(Rule::LinkEmpty);
    }
    let text = std::str::from_utf8(target).map_err(|_| Rule::LinkNotUtf8)?;
    if text.contains(char::is_control) {
        return Err(Rule::LinkControl);
    }
    if text.starts_with('/') {
        return Err(Rule::LinkAbsolute);
    }
    if target.len() > MAX_PATH {
        return Err(Rule::LinkLong);
    }
    Ok(())
}

/// Where a link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    Inside,
    Out,
    Ring,
}

/// Where the link at `path` below `release` leads; `target` reads it.
///
/// The kernel is asked, with everything in its place: it will be the one to
/// follow the links when they are served, through other links if need be. For
/// a link that leads nowhere it cannot know what a part that is missing will
/// be one day, so such a target must be one that only descends after its
/// first steps up.
pub fn lead(
    release: &Dir,
    path: &Path,
    target: impl FnOnce() -> nix::Result<OsString>,
) -> nix::Result<Lead> {
    match release.resolve_beneath(path) {
        Ok(_) => Ok(Lead::Inside),
        Err(Errno::EXDEV) => Ok(Lead::Out),
        Err(Errno::ELOOP) => Ok(Lead::Ring),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => {
            match only_leading_parents(target()?.as_bytes()) {
                true => Ok(Lead::Inside),
                false => Ok(Lead::Out),
            }
        }
        Err(errno) => Err(errno),
    }
}

/// Whether every `..` of a target stands before its first name.
///
/// Such a target cannot leave the release even where a part of it does not
/// exist: the steps up are taken from a real folder, which bounds them, and
/// after that it only descends.
fn only_leading_parents(target: &[u8]) -> bool {
    let mut descended = false;
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if descended => return false,
            b".." => {}
            _ => descended = true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(name: &str, folder: bool) -> Result<String, Rule> {
        CleanPath::read(name.as_bytes(), folder).map(|path| String::from_utf8(path.0).unwrap())
    }

    #[test]
    fn harmless_spellings_are_one_path() {
        for name in ["a/b", "./a/b", "a//b", "a/./b", ".//a///b"] {
            assert_eq!(read(name, false).as_deref(), Ok("a/b"), "{name}");
        }
        assert_eq!(read("./a/b/", true).as_deref(), Ok("a/b"));
        assert_eq!(read("./", true).as_deref(), Ok(""));
        assert_eq!(read("...", false).as_deref(), Ok("..."));
    }

    #[test]
    fn limits_are_exact() {
        assert!(read(&"a".repeat(255), false).is_ok());
        assert_eq!(read(&"a".repeat(256), false), Err(Rule::NameComponent));
        assert!(read(&["d"; 32].join("/"), false).is_ok());
        assert_eq!(read(&["d"; 33].join("/"), false), Err(Rule::NameDepth));
        let long = |len: usize| {
            let text = format!("{}/", "a".repeat(127)).repeat(8);
            format!("{text}{}", "b".repeat(len - text.len()))
        };
        assert_eq!(long(1025).len(), 1025);
        assert_eq!(read(&long(1025), false), Err(Rule::NamePath));
        assert!(read(&"a/".repeat(5)[..9], false).is_ok());
    }

    #[test]
    fn everything_else_is_refused() {
        for (name, rule) in [
            ("", Rule::NameEmpty),
            ("/a", Rule::NameAbsolute),
            ("../a", Rule::NameDotDot),
            ("a/../b", Rule::NameDotDot),
            ("a\nb", Rule::NameControl),
            ("a\u{85}", Rule::NameControl),
            ("a\0b", Rule::NameControl),
            ("a/", Rule::FileSlash),
            ("a/.", Rule::FileSlash),
            (".", Rule::NameEmpty),
            ("./", Rule::NameEmpty),
        ] {
            assert_eq!(read(name, false), Err(rule), "{name:?}");
        }
        assert_eq!(CleanPath::read(b"\xff", false), Err(Rule::NameNotUtf8));
    }

    proptest! {
        /// What the configuration may share, a release may have.
        #[test]
        fn every_shared_path_is_one_of_a_release(path in "(a{200,255}/){0,5}[.a/]{0,8}") {
            if let Ok(shared) = path.parse::<crate::shared_paths::SharedPath>() {
                prop_assert_eq!(read(&path, true), Ok(path));
                prop_assert_eq!(check_target(shared.target().as_bytes()), Ok(()));
            }
        }

        #[test]
        fn no_name_leads_up_or_out(name in proptest::collection::vec(
            prop_oneof![Just(b'.'), Just(b'/'), Just(b'a'), any::<u8>()], 0..40), folder: bool) {
            if let Ok(path) = CleanPath::read(&name, folder) {
                for component in path.components() {
                    prop_assert!(crate::dir::Name::new(component).is_some());
                }
            }
        }
    }
}
