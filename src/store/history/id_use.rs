//! What every id was used for since the site exists, also after its release was removed.

use serde::{Deserialize, Serialize};

use super::History;
use crate::names::{ReleaseId, Sha256Digest};
use crate::store::journal::{Event, Record};

/// The content that was ever received under an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Nothing: the current symlink named the id.
    Nothing,
    One(Sha256Digest),
    /// Different payloads, by a version that permitted it.
    Several,
}

impl Content {
    /// Returns the content of an id that had both.
    pub(super) fn merge(self, other: Content) -> Content {
        match (self, other) {
            (content, Content::Nothing) | (Content::Nothing, content) => content,
            (one, other) if one == other => one,
            _ => Content::Several,
        }
    }

    /// Returns whether a payload with another digest was received.
    pub fn excludes(self, sha256: Sha256Digest) -> bool {
        self.merge(Content::One(sha256)) == Content::Several
    }
}

/// The use of an id since the site exists. It survives the release: an id is never
/// used for other content, and a release that was removed and is received again
/// counts as old as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdUse {
    /// The number of the very first record of the id.
    pub first_seq: u64,
    pub content: Content,
}

impl IdUse {
    /// Returns the use of an id that two sources know.
    pub fn merge(self, other: IdUse) -> IdUse {
        IdUse {
            first_seq: self.first_seq.min(other.first_seq),
            content: self.content.merge(other.content),
        }
    }
}

impl History {
    /// Returns the release that has no entry yet, and gets one by this record.
    pub fn entry_made_by<'r>(&self, record: &'r Record) -> Option<&'r ReleaseId> {
        let makes = match record.event {
            Event::Received
            | Event::Swapped
            | Event::RolledBack
            | Event::Reverted
            | Event::Reconciled => true,
            Event::Activating
            | Event::Abandoned
            | Event::Confirmed
            | Event::Failed
            | Event::Pruned
            | Event::Earned => false,
        };
        let release = record.release.as_ref().filter(|_| makes);
        release.filter(|release| !self.releases.contains_key(*release))
    }

    /// Returns whether there is any record of `id`. After a checkpoint,
    /// [`used_ids::recall`](crate::store::used_ids::recall) comes first.
    pub fn knows(&self, id: &ReleaseId) -> bool {
        self.id_use(id).is_some()
    }

    /// Returns the use of `id`, also after its release was removed; as [`Self::knows`].
    pub fn id_use(&self, id: &ReleaseId) -> Option<IdUse> {
        let known = self.releases.get(id).map(|release| release.id_use);
        known.or_else(|| self.removed.get(id).copied())
    }

    /// Takes into account what a list of used ids has of a removed release.
    pub fn remember(&mut self, id: &ReleaseId, listed: IdUse) {
        match self.releases.get_mut(id) {
            Some(release) => release.id_use = release.id_use.merge(listed),
            None => {
                let known = self.removed.entry(id.clone()).or_insert(listed);
                *known = known.merge(listed);
            }
        }
    }

    /// Takes the ids of removed releases out of the history: the lists of used ids have
    /// them from now on.
    pub fn take_removed(&mut self) -> std::collections::BTreeMap<ReleaseId, IdUse> {
        std::mem::take(&mut self.removed)
    }
}
