//! The tree list of a release, read from its manifest for `list --files`.
//!
//! A manifest has another order, and a client chooses how long it is: 100,000 long symlinks
//! have 527 MB. So a pass over the manifest keeps the lowest lines that fit into a fixed
//! number of bytes, and the next pass those after them. Nearly every list fits into one.

use std::collections::{BinaryHeap, HashSet};
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};

use crate::deadline::Deadline;
use crate::error::{Code, Error, Result};
use crate::hash;
use crate::manifest::{self, Vis};
use crate::names::ReleaseId;
use crate::store::Store;

/// The work, for the message about the deadline.
const LISTING: &str = "listing the files";

/// The number of bytes of lines that one pass keeps.
const MAX_KEPT: usize = 32 << 20;

/// What a kept line needs besides its bytes.
const OVERHEAD: usize = 32;

/// A tree list whose digest is the one of its manifest.
#[derive(Debug)]
pub struct TreeList {
    pub release: ReleaseId,
    manifest: BufReader<File>,
    /// Where the entries begin.
    start: u64,
    /// The words that begin the lines of what the client did not send.
    added: HashSet<String>,
    max_kept: usize,
    deadline: Deadline,
}

/// The lines that one pass keeps.
struct Pass {
    /// In order.
    lines: Vec<Box<str>>,
    /// Whether lines follow them.
    is_cut: bool,
}

impl Store {
    /// Opens the tree list of a release, and compares its digest with that of the manifest:
    /// a client gets a whole list or none.
    ///
    /// # Errors
    ///
    /// Those of [`Store::tree_manifest`], [`Code::IoError`] for another digest, and
    /// [`Code::Timeout`].
    pub fn tree_list(&self, release: &ReleaseId, deadline: Deadline) -> Result<TreeList> {
        self.tree_list_within(release, deadline, MAX_KEPT)
    }

    fn tree_list_within(
        &self,
        release: &ReleaseId,
        deadline: Deadline,
        max_kept: usize,
    ) -> Result<TreeList> {
        let (identity, tree, mut manifest) = self.tree_manifest(release)?;
        let start = manifest
            .stream_position()
            .map_err(|error| self.io(format!("cannot read the manifest of '{release}'"), error))?;
        let added = identity.added.iter();
        let mut list = TreeList {
            release: release.clone(),
            manifest,
            start,
            added: added.map(|path| format!("./{}", Vis(path))).collect(),
            max_kept,
            deadline,
        };
        let mut hash = hash::Stream::new();
        list.each(|line| {
            hash.update(line.as_bytes());
            hash.update(b"\n");
            true
        })?;
        if hash.finish() != tree {
            return Err(list.damaged("its entries do not have the digest of its head"));
        }
        Ok(list)
    }
}

impl TreeList {
    /// Passes each line to `each`, in order, until it returns false.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`] for a manifest that cannot be read, and [`Code::Timeout`].
    pub fn each(&mut self, mut each: impl FnMut(&str) -> bool) -> Result<()> {
        let mut last = None;
        // Terminates: each pass begins after the last line of the one before it.
        loop {
            let Pass { lines, is_cut } = self.pass(last.as_deref())?;
            for line in &lines {
                self.deadline.check(LISTING)?;
                if !each(line) {
                    return Ok(());
                }
            }
            last = lines.into_iter().next_back();
            if !is_cut || last.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the manifest, and keeps the lowest lines after `after`.
    fn pass(&mut self, after: Option<&str>) -> Result<Pass> {
        let mut kept: BinaryHeap<Box<str>> = BinaryHeap::new();
        let (mut bytes, mut is_cut) = (0, false);
        if let Err(error) = self.manifest.seek(SeekFrom::Start(self.start)) {
            return Err(self.unreadable(error));
        }
        // Terminates: each turn reads a line.
        loop {
            self.deadline.check(LISTING)?;
            let line = manifest::read_line(&mut self.manifest).map_err(|why| self.damaged(why))?;
            let line = line.ok_or_else(|| self.damaged("manifest is cut short"))?;
            if line.starts_with('#') {
                let lines = kept.into_sorted_vec();
                return Ok(Pass { lines, is_cut });
            }
            let path = line.split(' ').next().unwrap_or_default();
            let is_listed = after.is_none_or(|after| *line > *after);
            let is_higher = || kept.peek().is_some_and(|highest| *line > **highest);
            if !is_listed || self.added.contains(path) || (is_cut && is_higher()) {
                continue;
            }
            bytes += line.len() + OVERHEAD;
            kept.push(line.into_boxed_str());
            while bytes > self.max_kept
                && kept.len() > 1
                && let Some(highest) = kept.pop()
            {
                bytes -= highest.len() + OVERHEAD;
                is_cut = true;
            }
        }
    }

    fn damaged(&self, why: &str) -> Error {
        let problem = format!("the manifest of '{}' is damaged: {why}", self.release);
        Error::new(Code::IoError, problem).remedy("send the release again under another id")
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        Error::io(
            format!("cannot read the manifest of '{}'", self.release),
            error,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::manifest::{Entry, Identity, Kind, Sums};
    use crate::names::Sha256Digest;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};
    use std::os::unix::fs::DirBuilderExt;
    use std::path::Path;
    use std::time::Duration;

    /// Returns a site with one release whose manifest has these entries.
    fn site(root: &Path, identity: &Identity, entries: &[Entry]) -> Store {
        let release = identity.release.as_str();
        for (path, mode) in [
            ("".to_owned(), 0o755),
            (format!("releases/{release}"), 0o755),
            (".deploy-shell".to_owned(), 0o700),
            (".deploy-shell/manifests".to_owned(), 0o700),
            (".deploy-shell/incoming".to_owned(), 0o700),
            (".deploy-shell/trash".to_owned(), 0o700),
        ] {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(mode);
            builder.create(root.join(path)).unwrap();
        }
        let mut text = identity.to_string();
        for entry in entries {
            text += &format!("{entry}\n");
        }
        text += &manifest::trailer(Sums::default());
        let manifests = root.join(".deploy-shell/manifests");
        std::fs::write(manifests.join(release), text).unwrap();
        let text = format!("root = \"{}\"", root.display());
        let config = Config::parse(Path::new("/x/blog.toml"), &text).unwrap();
        Store::open_unchecked(&config).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However little a pass keeps, the list is the one of a single pass.
        #[test]
        fn every_number_of_passes_gives_the_same_list(
            paths in prop::collection::btree_set(
                prop::collection::vec(prop::sample::select(&b"ab/-. \xc3"[..]), 1..9), 1..40),
            max_kept in 1_usize..2000,
            added in any::<prop::sample::Index>(),
        ) {
            let paths: Vec<Vec<u8>> = paths.into_iter().collect();
            let added = vec![paths[added.index(paths.len())].clone()];
            let link = |path: &Vec<u8>| Entry {
                path: path.clone(),
                kind: Kind::Link { target: b"b".to_vec() },
            };
            let entries: Vec<Entry> = paths.iter().map(link).collect();
            let sent = entries.iter().filter(|entry| !added.contains(&entry.path));
            let mut expected: Vec<String> = sent.map(Entry::to_string).collect();
            expected.sort();
            let lines: String = expected.iter().map(|line| format!("{line}\n")).collect();
            let release = ReleaseId::try_from("r").unwrap();
            let identity = Identity {
                release: release.clone(),
                sha256: Sha256Digest([1; 32]),
                tree: Some(Sha256Digest(Sha256::digest(&lines).into())),
                base: None,
                signatures: Vec::new(),
                added,
                received: "2026-04-12T14:20:41Z".parse().unwrap(),
            };
            let directory = tempfile::tempdir().unwrap();
            let store = site(directory.path(), &identity, &entries);
            let deadline = Deadline::after(Duration::from_secs(600));
            let mut list = store.tree_list_within(&release, deadline, max_kept).unwrap();
            let mut found = Vec::new();
            list.each(|line| { found.push(line.to_owned()); true }).unwrap();
            prop_assert_eq!(found, expected);
        }
    }
}
