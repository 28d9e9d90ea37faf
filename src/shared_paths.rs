//! The shared paths of a site (`[shared]`): symlinks in every release that lead to
//! the application's own directory.
//!
//! With `public/uploads` in `links`, a release contains this symlink:
//!
//! ```text
//! releases/<release>/public/uploads -> ../../../shared/public/uploads
//! ```
//!
//! No other symlink of the release leads out. The target depends only on the path,
//! so the unpacker that creates it and the monitor that checks it need not
//! communicate.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{MAX_COMPONENT, MAX_DEPTH, MAX_PATH, SHARED_DIR};

/// The maximum number of shared paths. The unpacker compares each of them with every
/// entry of an archive and receives all of them in one message.
pub const MAX_LINKS: usize = 64;

/// `[shared]`: the paths that all releases share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shared {
    /// No path is equal to or below another one: see [`Shared::check_paths`].
    pub links: Vec<SharedPath>,
    pub existing: Existing,
}

/// What happens to an archive that has an entry at a shared path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// The archive is refused.
    #[default]
    Refuse,
    /// The entry is read like the others, but it is not unpacked.
    Replace,
}

impl Shared {
    /// Checks the paths together.
    ///
    /// # Errors
    ///
    /// Returns a phrase that says what is wrong.
    pub fn check_paths(&self) -> Result<(), String> {
        if self.links.len() > MAX_LINKS {
            return Err(format!("has more than {MAX_LINKS} links"));
        }
        for (at, link) in self.links.iter().enumerate() {
            for other in &self.links[..at] {
                if link == other {
                    return Err(format!("has '{link}' twice"));
                }
                let (upper, lower) = if link.covers(other.as_bytes()) {
                    (link, other)
                } else if other.covers(link.as_bytes()) {
                    (other, link)
                } else {
                    continue;
                };
                return Err(format!("has '{lower}' below '{upper}'"));
            }
        }
        Ok(())
    }

    /// Returns the shared path that is equal to `path`.
    pub fn at(&self, path: &[u8]) -> Option<&SharedPath> {
        self.links.iter().find(|link| link.as_bytes() == path)
    }

    /// Returns the shared path that is equal to `path` or above it.
    pub fn covering(&self, path: &[u8]) -> Option<&SharedPath> {
        self.links.iter().find(|link| link.covers(path))
    }

    /// Returns whether a shared path is below `path`, which then must be a directory.
    pub fn is_above_one(&self, path: &[u8]) -> bool {
        self.links
            .iter()
            .any(|link| is_below(link.as_bytes(), path))
    }
}

/// A path that is the same in a release and in `shared/`. It is within the limits for
/// a path in a release, and so is the target of its symlink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SharedPath(String);

impl SharedPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub fn components(&self) -> Vec<&[u8]> {
        self.as_bytes().split(|byte| *byte == b'/').collect()
    }

    /// Returns whether `path` is equal to this path or below it.
    pub fn covers(&self, path: &[u8]) -> bool {
        path == self.as_bytes() || is_below(path, self.as_bytes())
    }

    /// Returns the target of the symlink, relative to its directory: up to the
    /// release, up to `releases/` and the root, and down.
    pub fn target(&self) -> String {
        let up = "../".repeat(self.components().len() + 1);
        format!("{up}{SHARED_DIR}/{self}")
    }
}

/// Returns whether `path` is below `upper`.
fn is_below(path: &[u8], upper: &[u8]) -> bool {
    path.strip_prefix(upper)
        .is_some_and(|rest| rest.starts_with(b"/"))
}

impl TryFrom<String> for SharedPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = || text.split('/');
        let plain = parts().all(|part| !matches!(part, "" | "." | ".."));
        if !plain || text.contains(char::is_control) {
            return Err(format!("'{text}' is not a plain relative path"));
        }
        let long = parts().any(|part| part.len() > MAX_COMPONENT) || parts().count() > MAX_DEPTH;
        let path = SharedPath(text);
        if long || path.target().len() > MAX_PATH {
            return Err(format!("'{path}' is too long or too deep for a release"));
        }
        Ok(path)
    }
}

impl fmt::Display for SharedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Result<SharedPath, String> {
        SharedPath::try_from(text.to_owned())
    }

    fn shared(links: &[&str]) -> Shared {
        Shared {
            links: links.iter().map(|link| path(link).unwrap()).collect(),
            existing: Existing::Refuse,
        }
    }

    #[test]
    fn targets_lead_from_the_symlink_to_shared() {
        let target = |text: &str| path(text).unwrap().target();
        assert_eq!(target(".env"), "../../shared/.env");
        assert_eq!(target("public/uploads"), "../../../shared/public/uploads");
        assert_eq!(target("a/b/c"), "../../../../shared/a/b/c");
    }

    #[test]
    fn only_plain_paths_within_the_limits_are_accepted() {
        let deep = |depth: usize| vec!["d"; depth].join("/");
        // The target may have 1,024 bytes. They include "../" for each component and
        // once more, and "shared/".
        let long = |len: usize| {
            let directories = format!("{}/", "a".repeat(199)).repeat(4);
            format!("{directories}{}", "b".repeat(len - directories.len()))
        };
        assert_eq!(path(&long(999)).unwrap().target().len(), 1024);
        for good in [
            "a",
            ".env",
            "a b/\u{e9}",
            "-x",
            "...",
            &deep(32),
            &"a".repeat(255),
        ] {
            assert_eq!(path(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "./a",
            "..",
            "a/../b",
            "a\nb",
            "a\u{85}",
            &deep(33),
            &"a".repeat(256),
            &long(1000),
        ] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_path_may_be_equal_to_or_below_another() {
        assert_eq!(shared(&["a", "ab", "b/a", "b/ab"]).check_paths(), Ok(()));
        for (bad, why) in [
            (["a", "a"], "has 'a' twice"),
            (["a", "a/b"], "has 'a/b' below 'a'"),
            (["a/b/c", "a"], "has 'a/b/c' below 'a'"),
        ] {
            assert_eq!(shared(&bad).check_paths(), Err(why.to_owned()));
        }
        let many: Vec<String> = (0..=MAX_LINKS).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(shared(&many[1..]).check_paths(), Ok(()));
        assert!(shared(&many).check_paths().is_err());
    }

    #[test]
    fn above_equal_and_below_are_distinguished() {
        let shared = shared(&["public/uploads"]);
        let found = |path: &str| {
            let path = path.as_bytes();
            let covering = shared.covering(path).is_some();
            (
                shared.at(path).is_some(),
                covering,
                shared.is_above_one(path),
            )
        };
        assert_eq!(found("public/uploads"), (true, true, false));
        assert_eq!(found("public/uploads/a/b"), (false, true, false));
        assert_eq!(found("public"), (false, false, true));
        for apart in ["", "pub", "public/up", "public/uploads2", "uploads"] {
            assert_eq!(found(apart), (false, false, false), "{apart}");
        }
    }
}
