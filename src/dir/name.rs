//! One path component, as a type: what every operation of a directory handle takes.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::escape;
use crate::names::{LinkName, ReleaseId};

/// One path component: never empty, `.` or `..`, at most 255 bytes, without `/`
/// and NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Returns `bytes` as a component, if they are one.
    pub const fn new(bytes: &'a [u8]) -> Option<Name<'a>> {
        if is_component(bytes) {
            Some(Name(bytes))
        } else {
            None
        }
    }

    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    pub fn as_os_str(self) -> &'a OsStr {
        OsStr::from_bytes(self.0)
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape::escape(self.0))
    }
}

impl AsRef<Path> for Name<'_> {
    fn as_ref(&self) -> &Path {
        Path::new(self.as_os_str())
    }
}

impl Name<'static> {
    /// Returns a name that is written in this program's source. As a constant, a
    /// bad one does not compile.
    pub const fn literal(text: &'static str) -> Self {
        assert!(is_component(text.as_bytes()), "not one path component");
        Name(text.as_bytes())
    }
}

const fn is_component(bytes: &[u8]) -> bool {
    if bytes.len() > 255 || matches!(bytes, b"" | b"." | b"..") {
        return false;
    }
    let mut rest = bytes;
    while let [byte, after @ ..] = rest {
        if matches!(byte, b'/' | 0) {
            return false;
        }
        rest = after;
    }
    true
}

// Both alphabets are without '/', and neither type can be '.' or '..'.
impl<'a> From<&'a ReleaseId> for Name<'a> {
    fn from(release: &'a ReleaseId) -> Self {
        Name(release.as_str().as_bytes())
    }
}

impl<'a> From<&'a LinkName> for Name<'a> {
    fn from(link: &'a LinkName) -> Self {
        Name(link.as_str().as_bytes())
    }
}
