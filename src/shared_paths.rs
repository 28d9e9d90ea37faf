//! The paths of a release that lead to the application's own folder: `[shared]`.
//!
//! With `public/uploads` among the links, a release has the symbolic link
//!
//! ```text
//! releases/<release>/public/uploads -> ../../../shared/public/uploads
//! ```
//!
//! and no other link of it leads out. Its text follows from the path alone, so
//! that who makes it and who checks it need not ask each other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{MAX_COMPONENT, MAX_DEPTH, MAX_PATH};

/// The most links a site may have. Each is compared with every entry of an
/// archive, and goes into an argv.
pub const MAX_LINKS: usize = 64;

/// `[shared]`: what every release shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shared {
    /// None at or beneath another: [`Shared::check`].
    pub links: Vec<SharedPath>,
    pub existing: Existing,
}

/// What becomes of an archive that has something at a shared path itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// It is refused.
    #[default]
    Refuse,
    /// What it has there is read like the rest and left out of the release.
    Replace,
}

impl Shared {
    /// What no single path can say; the error is a phrase.
    pub fn check(&self) -> Result<(), String> {
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
                return Err(format!("has '{lower}' beneath '{upper}'"));
            }
        }
        Ok(())
    }

    /// The link at this very path of a release.
    pub fn at(&self, path: &[u8]) -> Option<&SharedPath> {
        self.links.iter().find(|link| link.as_bytes() == path)
    }

    /// The link that `path` is at or beneath.
    pub fn covering(&self, path: &[u8]) -> Option<&SharedPath> {
        self.links.iter().find(|link| link.covers(path))
    }

    /// Whether a link is beneath `path`, which so must be a folder.
    pub fn is_above_one(&self, path: &[u8]) -> bool {
        let above = |link: &SharedPath| beneath(link.as_bytes(), path);
        self.links.iter().any(above)
    }
}

/// A path below a release and below `shared/` alike, in the bounds of every
/// path of a release, its link's target among them.
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

    /// Whether `path` is this one or beneath it.
    pub fn covers(&self, path: &[u8]) -> bool {
        path == self.as_bytes() || beneath(path, self.as_bytes())
    }

    /// The text of the link, seen from where it stands: up to the release, on
    /// up to `releases/` and the root, and down.
    pub fn target(&self) -> String {
        let up = "../".repeat(self.components().len() + 1);
        format!("{up}shared/{self}")
    }
}

/// Whether `path` is beneath the path `upper`.
fn beneath(path: &[u8], upper: &[u8]) -> bool {
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

impl std::str::FromStr for SharedPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
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

    fn shared(links: &[&str]) -> Shared {
        Shared {
            links: links.iter().map(|link| link.parse().unwrap()).collect(),
            existing: Existing::Refuse,
        }
    }

    #[test]
    fn targets_lead_from_the_link_to_the_root() {
        let target = |path: &str| path.parse::<SharedPath>().unwrap().target();
        assert_eq!(target(".env"), "../../shared/.env");
        assert_eq!(target("public/uploads"), "../../../shared/public/uploads");
        assert_eq!(target("a/b/c"), "../../../../shared/a/b/c");
    }

    #[test]
    fn only_plain_paths_in_the_bounds_of_a_release_are_taken() {
        let deep = |depth: usize| vec!["d"; depth].join("/");
        // Of 1,024 bytes the target takes "../" for each part and one more,
        // and "shared/".
        let long = |len: usize| {
            let folders = format!("{}/", "a".repeat(199)).repeat(4);
            format!("{folders}{}", "b".repeat(len - folders.len()))
        };
        assert_eq!(
            long(999).parse::<SharedPath>().unwrap().target().len(),
            1024
        );
        for good in [
            "a",
            ".env",
            "a b/\u{e9}",
            "-x",
            "...",
            &deep(32),
            &"a".repeat(255),
        ] {
            assert_eq!(good.parse::<SharedPath>().unwrap().as_str(), good);
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
            assert!(bad.parse::<SharedPath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn none_may_be_at_or_beneath_another() {
        assert_eq!(shared(&["a", "ab", "b/a", "b/ab"]).check(), Ok(()));
        for (bad, why) in [
            (["a", "a"], "has 'a' twice"),
            (["a", "a/b"], "has 'a/b' beneath 'a'"),
            (["a/b/c", "a"], "has 'a/b/c' beneath 'a'"),
        ] {
            assert_eq!(shared(&bad).check(), Err(why.to_owned()));
        }
        let many: Vec<String> = (0..=MAX_LINKS).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(shared(&many[1..]).check(), Ok(()));
        assert!(shared(&many).check().is_err());
    }

    #[test]
    fn above_at_and_beneath_are_told_apart() {
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
