//! The names of everything in a site's root. docs/formats.md describes them.

use crate::dir::Name;
use crate::names;

/// A directory with one directory for each release.
pub const RELEASES: Name<'static> = Name::literal(names::RELEASES_DIR);
/// The application's own directory. This program never writes to it.
pub const SHARED: Name<'static> = Name::literal(names::SHARED_DIR);
/// The directory with the state of this program.
pub const STATE: Name<'static> = Name::literal(".deploy-shell");

/// In [`STATE`]: the file that flock(2) locks.
pub const LOCK: Name<'static> = Name::literal("lock");
/// In [`STATE`]: the history.
pub const JOURNAL: Name<'static> = Name::literal("journal.jsonl");
/// In [`STATE`]: the new journal, before it is renamed over [`JOURNAL`].
pub const NEXT_JOURNAL: Name<'static> = Name::literal("next-journal");
/// In [`STATE`]: a compressed part of the journal, before it gets its name.
pub const NEXT_PART: Name<'static> = Name::literal("next-part");
/// In [`STATE`]: a directory with one file for each release.
pub const MANIFESTS: Name<'static> = Name::literal("manifests");
/// In [`STATE`]: a directory with one staging directory for each running receive.
pub const INCOMING: Name<'static> = Name::literal("incoming");
/// In [`STATE`]: a directory with the pruned releases that are being removed.
pub const TRASH: Name<'static> = Name::literal("trash");
/// In [`STATE`]: a directory with the counters and upload slots of each key. The first
/// request that writes makes it.
pub const LIMITS: Name<'static> = Name::literal("limits");
/// In [`STATE`]: the new symlink, before it is renamed into place.
pub const NEXT: Name<'static> = Name::literal("next");
/// In [`STATE`]: the symlink to the fallback, made before it is needed.
pub const BACK: Name<'static> = Name::literal("back");

/// The directories in [`STATE`].
pub const STATE_DIRS: [Name<'static>; 3] = [MANIFESTS, INCOMING, TRASH];

/// In a staging directory: the tree that the unpacker makes.
pub const STAGED_TREE: Name<'static> = Name::literal("tree");
/// In a staging directory: what the unpacker makes of a delta. The assembler moves its files
/// into [`STAGED_TREE`].
pub const STAGED_MEMBERS: Name<'static> = Name::literal("members");
/// In [`STAGED_MEMBERS`]: the first member of the archive. The others have their numbers as
/// names, from 0.
pub const CHANGES_FILE: Name<'static> = Name::literal("changes");
/// In [`STAGED_MEMBERS`]: one line for each of the others, without a digest.
pub const MEMBERS_FILE: Name<'static> = Name::literal("members");
/// In a staging directory: the manifest, before it is renamed into [`MANIFESTS`].
pub const STAGED_MANIFEST: Name<'static> = Name::literal("manifest");
