//! Turns the names in an archive into paths that stay inside the release.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use super::rule::Rule;
use crate::names::{MAX_COMPONENT, MAX_DEPTH, MAX_PATH};

/// A path inside the release: no component is `.`, `..` or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanPath(Vec<u8>);

impl CleanPath {
    /// Reads the name of an entry as an archive has it; `is_dir` says whether the entry
    /// is a directory.
    ///
    /// # Errors
    ///
    /// Returns the rule that the name breaks, if it is not a plain relative path.
    pub fn from_entry_name(name: &[u8], is_dir: bool) -> Result<CleanPath, Rule> {
        // bsdtar removes these from the front of a name. Behind `./` it keeps them.
        if name.starts_with(b"\\") || matches!(name, [b'a'..=b'z' | b'A'..=b'Z', b':', ..]) {
            return Err(Rule::NameWindows);
        }
        CleanPath::new(name, is_dir)
    }

    /// Reads a path of the release.
    ///
    /// It ignores `./`, doubled slashes and the last slash of a directory, as the kernel
    /// does.
    ///
    /// # Errors
    ///
    /// Returns the rule that the path breaks.
    pub fn new(name: &[u8], is_dir: bool) -> Result<CleanPath, Rule> {
        let text = std::str::from_utf8(name).map_err(|_| Rule::NameNotUtf8)?;
        if text.is_empty() {
            return Err(Rule::NameEmpty);
        }
        if text.contains(char::is_control) {
            return Err(Rule::NameControl);
        }
        // Python's `arcname=''` and GNU tar's --transform name the directory itself
        // `/`. GNU tar, bsdtar and Python take that for the directory that they
        // unpack into.
        if text.starts_with('/') && !(is_dir && text == "/") {
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
        if !is_dir {
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

    /// Returns the components; none for the release itself.
    pub fn components(&self) -> Vec<&[u8]> {
        if self.0.is_empty() {
            return Vec::new();
        }
        self.0.split(|byte| *byte == b'/').collect()
    }
}

/// Checks the text of a symlink's target. [`check_link_escape`] checks where it
/// leads, once everything has been unpacked.
///
/// # Errors
///
/// Returns the rule that the target breaks.
pub fn check_symlink_target(target: &[u8]) -> Result<(), Rule> {
    if target.is_empty() {
        return Err(Rule::TargetEmpty);
    }
    let text = std::str::from_utf8(target).map_err(|_| Rule::TargetNotUtf8)?;
    if text.contains(char::is_control) {
        return Err(Rule::TargetControl);
    }
    if text.starts_with('/') {
        return Err(Rule::TargetAbsolute);
    }
    if target.len() > MAX_PATH {
        return Err(Rule::TargetLong);
    }
    Ok(())
}

/// The place that a symlink leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkTarget {
    /// To a place inside the release.
    Inside,
    /// To a place outside of it.
    Escapes,
    /// Up again from a part that does not exist. Another symlink could be there later.
    Unresolved,
    /// Back to itself.
    Loop,
}

/// Returns where a symlink of a release leads: `resolved` is the result of its
/// resolution inside the release, and `target` reads its target.
///
/// The caller resolves it after everything has been unpacked, because the kernel also
/// follows the symlinks when the release is served, through other symlinks if there are
/// any. A resolution knows nothing of a part that is missing: another symlink could be
/// there later. A target with such a part may only descend after its first steps up.
///
/// # Errors
///
/// Returns any other error of the resolution, or of `target`.
pub fn check_link_escape(
    resolved: nix::Result<()>,
    target: impl FnOnce() -> nix::Result<OsString>,
) -> nix::Result<LinkTarget> {
    match resolved {
        Ok(()) => Ok(LinkTarget::Inside),
        Err(Errno::EXDEV) => Ok(LinkTarget::Escapes),
        Err(Errno::ELOOP) => Ok(LinkTarget::Loop),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => {
            if has_only_leading_dot_dots(target()?.as_bytes()) {
                Ok(LinkTarget::Inside)
            } else {
                Ok(LinkTarget::Unresolved)
            }
        }
        Err(errno) => Err(errno),
    }
}

/// Returns whether every `..` of a target is before its first name.
///
/// Such a target cannot leave the release even where a part of it does not
/// exist: the steps up start from a real directory, which limits them, and
/// after that the target only descends.
fn has_only_leading_dot_dots(target: &[u8]) -> bool {
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

    fn read(name: &str, is_dir: bool) -> Result<String, Rule> {
        CleanPath::from_entry_name(name.as_bytes(), is_dir)
            .map(|path| String::from_utf8(path.0).unwrap())
    }

    #[test]
    fn harmless_spellings_give_one_path() {
        for name in ["a/b", "./a/b", "a//b", "a/./b", ".//a///b"] {
            assert_eq!(read(name, false).as_deref(), Ok("a/b"), "{name}");
        }
        assert_eq!(read("./a/b/", true).as_deref(), Ok("a/b"));
        assert_eq!(read("./", true).as_deref(), Ok(""));
        assert_eq!(read("/", true).as_deref(), Ok(""));
        assert_eq!(read("...", false).as_deref(), Ok("..."));
        for name in ["1:a", ":a", "ab:c", "a\\b"] {
            assert_eq!(read(name, false).as_deref(), Ok(name));
        }
        assert_eq!(read("./c:a", false).as_deref(), Ok("c:a"));
        assert_eq!(read("./\\a", false).as_deref(), Ok("\\a"));
    }

    #[test]
    fn name_limits_are_exact() {
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
    fn any_other_name_is_refused() {
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
            ("c:a", Rule::NameWindows),
            ("C:/a", Rule::NameWindows),
            ("z:", Rule::NameWindows),
            ("\\a", Rule::NameWindows),
        ] {
            assert_eq!(read(name, false), Err(rule), "{name:?}");
        }
        for name in ["/a", "//", "/.", "/./"] {
            assert_eq!(read(name, true), Err(Rule::NameAbsolute), "{name:?}");
        }
        assert_eq!(read("/", false), Err(Rule::NameAbsolute));
        assert_eq!(
            CleanPath::from_entry_name(b"\xff", false),
            Err(Rule::NameNotUtf8)
        );
    }

    proptest! {
        /// A release may contain every path that the configuration may share.
        #[test]
        fn every_shared_path_is_a_valid_release_path(path in "(a{200,255}/){0,5}[.a/]{0,8}") {
            if let Ok(shared) = crate::shared_paths::SharedPath::try_from(path.clone()) {
                prop_assert_eq!(read(&path, true), Ok(path));
                prop_assert_eq!(check_symlink_target(shared.target().as_bytes()), Ok(()));
            }
        }

        #[test]
        fn no_clean_path_has_dot_dot_or_a_slash_in_a_component(name in proptest::collection::vec(
            prop_oneof![Just(b'.'), Just(b'/'), Just(b'a'), any::<u8>()], 0..40), is_dir: bool) {
            if let Ok(path) = CleanPath::from_entry_name(&name, is_dir) {
                for component in path.components() {
                    prop_assert!(crate::dir::Name::new(component).is_some());
                }
            }
        }
    }

    #[test]
    fn only_leading_dot_dots_are_found() {
        for target in ["a", "../a", "../../a/b", "./../a", "..//../a", "..", ""] {
            assert!(has_only_leading_dot_dots(target.as_bytes()), "{target}");
        }
        for target in ["a/..", "../a/../b", "a/./..", "a//../b"] {
            assert!(!has_only_leading_dot_dots(target.as_bytes()), "{target}");
        }
    }
}
