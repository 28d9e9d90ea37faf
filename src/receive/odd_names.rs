//! Names that an archiver leaves in a release by mistake: metadata of macOS, and paths
//! with the separator of Windows. They are valid, so the client gets one warning that
//! names the options which avoid them.

use crate::escape;

/// The names of a release that its client probably did not want.
#[derive(Debug, Default)]
pub struct OddNames {
    /// The number of names, and the first path.
    mac: Option<(u64, Vec<u8>)>,
    backslash: Option<(u64, Vec<u8>)>,
}

impl OddNames {
    /// Counts the path of an entry.
    pub fn add(&mut self, path: &[u8]) {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let slot = if name.starts_with(b"._") || name == b".DS_Store" {
            &mut self.mac
        } else if name.contains(&b'\\') {
            &mut self.backslash
        } else {
            return;
        };
        slot.get_or_insert_with(|| (0, path.to_vec())).0 += 1;
    }

    /// Returns one warning for all of them; none if there are none.
    pub fn warning(&self) -> Option<String> {
        let mac = self.mac.as_ref().map(|found| {
            let found = describe(found);
            format!(
                "{found} of macOS metadata: make the archive with COPYFILE_DISABLE=1 \
                 (bsdtar: --no-mac-metadata) and --exclude .DS_Store"
            )
        });
        let backslash = self.backslash.as_ref().map(|found| {
            let found = describe(found);
            format!("{found} with a backslash: write paths with '/', or --exclude the names")
        });
        let parts: Vec<String> = mac.into_iter().chain(backslash).collect();
        (!parts.is_empty()).then(|| format!("the release has {}", parts.join("; ")))
    }
}

fn describe((count, first): &(u64, Vec<u8>)) -> String {
    let first = escape::escape_truncated(first, 200);
    let names = if *count == 1 { "name" } else { "names" };
    format!("{count} {names} (first './{first}')")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(paths: &[&str]) -> Option<String> {
        let mut names = OddNames::default();
        for path in paths {
            names.add(path.as_bytes());
        }
        names.warning()
    }

    #[test]
    fn one_warning_names_the_options_that_avoid_all_odd_names() {
        assert_eq!(warning(&["", "a", "a/b._c", "DS_Store", "._dir/a"]), None);
        let text = warning(&["a/._b", "d/.DS_Store", "c\\d", "e"]).unwrap();
        for part in [
            "2 names (first './a/._b') of macOS metadata",
            "COPYFILE_DISABLE=1",
            "--no-mac-metadata",
            "--exclude .DS_Store",
            r"1 name (first './c\\d') with a backslash",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!warning(&["._a"]).unwrap().contains("backslash"));
    }
}
