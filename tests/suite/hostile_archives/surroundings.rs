//! What a refused archive must not change: the site itself, and everything beside it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::site::{Site, set_mode, sha256, write_file};

/// A directory beside the root, and five directories above an unpacked entry: the
/// archives that try to leave the release aim at it.
const BESIDE: &str = "beside";

pub struct Surroundings {
    site: BTreeMap<PathBuf, String>,
    releases: Vec<String>,
    beside: BTreeMap<PathBuf, String>,
}

impl Surroundings {
    /// Creates the bait and records the state of everything.
    pub fn of(site: &Site) -> Surroundings {
        let bait = site.dir().join(BESIDE);
        fs::create_dir(&bait).expect("the bait's directory");
        write_file(&bait.join("file"), 0o600, b"do not touch");
        fs::create_dir(bait.join("closed")).expect("a directory");
        set_mode(&bait.join("closed"), 0o700);
        symlink("file", bait.join("link")).expect("a symlink");
        Surroundings::now(site)
    }

    fn now(site: &Site) -> Surroundings {
        let mut beside = BTreeMap::new();
        describe(site.dir(), &mut beside);
        Surroundings {
            site: site.snapshot(),
            releases: site.releases(),
            beside,
        }
    }

    #[track_caller]
    pub fn assert_untouched(&self, site: &Site, after: &str) {
        let now = Surroundings::now(site);
        let leftovers = site.leftovers();
        assert!(leftovers.is_empty(), "{after}: left {leftovers:?}");
        assert_eq!(now.releases, self.releases, "{after}: releases");
        assert_eq!(now.site, self.site, "{after}: the site");
        assert_eq!(now.beside, self.beside, "{after}: beside the site");
    }
}

/// Describes everything but the root itself, which has its own snapshot. The number of
/// names shows hard links. sshd's log may grow, so it is left out.
fn describe(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("metadata");
        if path.ends_with("root") || path.ends_with("sshd.log") {
            continue;
        }
        let content = if meta.is_dir() {
            describe(&path, found);
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path)
                .expect("a symlink")
                .display()
                .to_string()
        } else if meta.is_file() {
            sha256(&fs::read(&path).expect("a file"))
        } else {
            "special".to_owned()
        };
        let text = format!("{:o} {} {content}", meta.mode(), meta.nlink());
        found.insert(path, text);
    }
}
