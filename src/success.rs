//! What a successful request did, one variant per kind of verb: the counterpart
//! of [`crate::error::Error`]. The reply's stdout is derived here, the audit
//! fields in `audit.rs`.

use crate::manifest::Sums;
use crate::names::{CommitId, ReleaseId, Sha256Digest};
use crate::policy::Verb;
use crate::sandbox::Enforcement;
use crate::signature::Signed;
use crate::store::TreeList;

/// What a verb did.
#[derive(Debug)]
pub enum Success {
    /// `receive`
    Received(Received),
    /// `swap` and `rollback`
    Activated(Activated),
    /// `list`
    Listed(Listed),
    /// `list --files`; [`crate::reply`] reads it line by line.
    TreeList(TreeList),
}

/// A release that is in `releases/`.
#[derive(Debug)]
pub struct Received {
    pub release: ReleaseId,
    pub sha256: Sha256Digest,
    /// Of the tree list; none if an older version received the release.
    pub tree: Option<Sha256Digest>,
    pub sums: Sums,
    /// The signers that counted, if the site requires signatures.
    pub signed: Option<Signed>,
    /// The upload that this request unpacked; none if an earlier request had
    /// received the same content.
    pub upload: Option<Upload>,
    pub warnings: Vec<String>,
}

/// An upload that was received and unpacked.
#[derive(Debug)]
pub struct Upload {
    /// The bytes of the payload as received.
    pub payload_bytes: u64,
    /// The commit that the client named.
    pub commit: Option<CommitId>,
    /// The confinement of the unpacker.
    pub unpacker: Enforcement,
}

/// A release that is live.
#[derive(Debug)]
pub struct Activated {
    pub verb: Verb,
    pub release: ReleaseId,
    /// The release that was live before.
    pub previous: Option<ReleaseId>,
    pub change: Change,
    /// The signers that counted, if the site requires signatures.
    pub signed: Option<Signed>,
    /// The releases that this request removed.
    pub pruned: Vec<ReleaseId>,
    /// What went wrong after the swap without undoing it.
    pub warnings: Vec<String>,
}

/// What a `swap` or `rollback` changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The current symlink.
    Moved,
    /// Nothing: the release was live and confirmed.
    Unchanged,
    /// The release was live, and has now passed its post-swap checks.
    Confirmed,
}

/// The table, or the JSON document.
#[derive(Debug)]
pub struct Listed {
    pub lines: Vec<String>,
    pub warnings: Vec<String>,
}

impl Success {
    /// Returns the lines of stdout. Those of a tree list are in it.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Success::Received(received) => vec![received.line()],
            Success::Activated(activated) => vec![activated.line()],
            Success::Listed(listed) => listed.lines.clone(),
            Success::TreeList(_) => Vec::new(),
        }
    }

    /// Returns the problems that did not turn the success into a failure.
    pub fn warnings(&self) -> &[String] {
        match self {
            Success::Received(received) => &received.warnings,
            Success::Activated(activated) => &activated.warnings,
            Success::Listed(listed) => &listed.warnings,
            Success::TreeList(_) => &[],
        }
    }
}

impl Received {
    fn line(&self) -> String {
        let Received {
            release, sha256, ..
        } = self;
        let Sums { files, bytes } = self.sums;
        let tree = match self.tree {
            Some(tree) => format!(" tree={tree}"),
            None => String::new(),
        };
        let result = match self.upload {
            Some(_) => "",
            None => " result=\"already received\"",
        };
        format!("ok receive {release} sha256={sha256}{tree} files={files} bytes={bytes}{result}")
    }
}

impl Activated {
    /// Returns the releases that this request removed, if any, separated by commas.
    pub fn pruned_ids(&self) -> Option<String> {
        let ids: Vec<&str> = self.pruned.iter().map(ReleaseId::as_str).collect();
        (!ids.is_empty()).then(|| ids.join(","))
    }

    fn line(&self) -> String {
        let Activated { verb, release, .. } = self;
        let mut line = match self.change {
            Change::Moved => {
                let previous = self.previous.as_ref().map_or("-", ReleaseId::as_str);
                format!("ok {verb} {release} previous={previous}")
            }
            Change::Unchanged => format!("ok {verb} {release} result=unchanged"),
            Change::Confirmed => format!("ok {verb} {release} result=proved"),
        };
        if let Some(ids) = self.pruned_ids() {
            line.push_str(" pruned=");
            line.push_str(&ids);
        }
        line
    }
}
