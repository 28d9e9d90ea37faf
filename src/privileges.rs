//! The privileges of each verb: what its monitor may still do once it has
//! restricted itself. SECURITY.md prints the same table.

use std::fs::File;

use crate::policy::Verb;
use crate::sandbox::{self, Access, Enforcement, Rights};
use crate::store::Store;

/// The rights that a verb keeps.
#[derive(Clone, Copy, Debug)]
pub struct Privileges {
    pub verb: Verb,
    /// Access to the site's root, and so to everything below it.
    pub root: Access,
    /// Access to `releases/`, in addition to that of the root.
    pub releases: Access,
    /// Access to `.deploy-shell/`, in addition to that of the root.
    pub state: Access,
    /// Whether the verb may write the journal and the lock file themselves.
    pub records: bool,
    /// Whether the verb may execute this program, in order to unpack.
    pub executes: bool,
}

/// The privileges of every verb. No verb reaches a file outside the site's root,
/// and none may open a socket other than a local one, which the audit needs.
pub const PRIVILEGES: [Privileges; 4] = [
    Privileges {
        verb: Verb::Receive,
        root: Access::Read,
        releases: Access::Add,
        state: Access::Write,
        records: true,
        executes: true,
    },
    Privileges {
        verb: Verb::Swap,
        root: Access::Replace,
        releases: Access::Replace,
        state: Access::Replace,
        records: true,
        executes: false,
    },
    Privileges {
        verb: Verb::Rollback,
        root: Access::Replace,
        releases: Access::Replace,
        state: Access::Replace,
        records: true,
        executes: false,
    },
    Privileges {
        verb: Verb::List,
        root: Access::Read,
        releases: Access::Read,
        state: Access::Read,
        records: false,
        executes: false,
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

/// Restricts the monitor to the privileges of its verb. Cannot be undone.
/// `records` are the files of [`Store::records`].
pub fn restrict_to_verb(verb: Verb, store: &Store, records: &[File]) -> Enforcement {
    let privileges = Privileges::of(verb);
    sandbox::restrict_monitor(Rights {
        directories: &[
            (&store.root, privileges.root),
            (&store.releases, privileges.releases),
            (&store.state, privileges.state),
        ],
        writable_files: records,
        execute_self: privileges.executes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_the_table_once() {
        for verb in [Verb::Receive, Verb::Swap, Verb::Rollback, Verb::List] {
            let rows = PRIVILEGES
                .iter()
                .filter(|privileges| privileges.verb == verb);
            assert_eq!(rows.count(), 1, "{verb}");
        }
    }
}
