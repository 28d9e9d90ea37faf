//! The privileges of each verb: what its monitor may still do once it has
//! restricted itself. SECURITY.md prints the same table.

use std::fs::File;
use std::path::Path;

use crate::policy::Verb;
use crate::sandbox::{self, Access, Enforcement, Rights};
use crate::store::{Store, limits};

/// The rights that a verb keeps.
#[derive(Clone, Copy, Debug)]
pub struct Privileges {
    pub verb: Verb,
    /// Access to the site's root, and so to everything below it.
    pub root: Access,
    /// Access to `releases/`. It only matters where it is more than the root's.
    pub releases: Access,
    /// Access to `.deploy-shell/`, which holds the journal, the lock and the symlinks that a
    /// swap moves. It only matters where it is more than the root's.
    pub state: Access,
    /// Access to the directories in it: the uploads, manifests, counters and removed releases.
    /// It only matters where it is more.
    pub state_directories: Access,
    /// Whether the verb may open the journal and the lock file for writing. For
    /// `receive`, `state` alone permits that already. `swap` and `rollback` make a
    /// checkpoint, which replaces the journal, before they restrict themselves.
    pub writes_records: bool,
    /// Whether the verb may execute this program, in order to unpack.
    pub executes: bool,
    /// Whether the verb may set the time of a file that it has open.
    pub sets_times: bool,
}

/// The privileges of every verb.
///
/// No verb opens a file outside the site's root, except that `receive` opens what
/// its child is mapped from: this program, its libraries, and the loader's cache.
/// No verb creates a socket other than a local one; the audit opens one for each
/// line. SECURITY.md ("What is left") says what neither Landlock nor seccomp
/// restricts: metadata of any path, and, before Linux 7.1, connecting to a local socket by
/// its path.
pub const PRIVILEGES: [Privileges; 4] = [
    Privileges {
        verb: Verb::Receive,
        root: Access::Read,
        releases: Access::Add,
        state: Access::Update,
        state_directories: Access::Write,
        writes_records: true,
        executes: true,
        sets_times: true,
    },
    Privileges {
        verb: Verb::Swap,
        root: Access::Replace,
        releases: Access::Replace,
        state: Access::Replace,
        state_directories: Access::Replace,
        writes_records: true,
        executes: false,
        sets_times: true,
    },
    Privileges {
        verb: Verb::Rollback,
        root: Access::Replace,
        releases: Access::Replace,
        state: Access::Replace,
        state_directories: Access::Replace,
        writes_records: true,
        executes: false,
        sets_times: false,
    },
    Privileges {
        verb: Verb::List,
        root: Access::Read,
        releases: Access::Read,
        state: Access::Read,
        state_directories: Access::Read,
        writes_records: false,
        executes: false,
        sets_times: false,
    },
];

impl Privileges {
    /// Returns the table's row for `verb`.
    pub fn of(verb: Verb) -> &'static Privileges {
        PRIVILEGES
            .iter()
            .find(|privileges| privileges.verb == verb)
            .expect("every verb is in the table")
    }
}

/// Restricts the monitor to the privileges of its verb (see
/// [`sandbox::restrict_monitor`]).
///
/// `records` are the files of [`Store::records`]. A verb that may not write
/// them gets no right to them, even if they are passed. `log_socket` is the socket of the
/// audit log.
pub fn restrict_to_verb(
    verb: Verb,
    store: &Store,
    records: &[File],
    log_socket: &Path,
) -> Enforcement {
    let privileges = Privileges::of(verb);
    // It is missing where the disk was full, and then nothing opens it.
    let limits = limits::open_directory(store).ok();
    let state_directories = [&store.incoming, &store.manifests, &store.trash];
    let state_directories = state_directories.into_iter().chain(&limits);
    let directories: Vec<_> = [
        (&store.root, privileges.root),
        (&store.releases, privileges.releases),
        (&store.state, privileges.state),
    ]
    .into_iter()
    .chain(state_directories.map(|directory| (directory, privileges.state_directories)))
    .collect();
    sandbox::restrict_monitor(Rights {
        directories: &directories,
        writable_files: if privileges.writes_records {
            records
        } else {
            &[]
        },
        locks: privileges.writes_records,
        log_socket: Some(log_socket),
        execute_self: privileges.executes,
        set_times: privileges.sets_times,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_the_table_once() {
        for verb in Verb::ALL {
            let rows = PRIVILEGES
                .iter()
                .filter(|privileges| privileges.verb == verb);
            assert_eq!(rows.count(), 1, "{verb}");
        }
    }

    /// The request pipeline opens the records for the verbs that write.
    #[test]
    fn the_verbs_that_write_are_those_that_may_write_the_journal() {
        for privileges in PRIVILEGES {
            let verb = privileges.verb;
            assert_eq!(privileges.writes_records, verb.writes(), "{verb}");
        }
    }
}
