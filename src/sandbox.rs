//! Confinement: what the kernel holds us to, whatever our code does.
//!
//! Three processes confine themselves. The unpacker, which parses hostile bytes,
//! keeps next to nothing: the staging folder, its pipes, thirty system
//! calls. The probe, which reads what a release answers, keeps less: what is
//! open already. The monitor, which is everything else, keeps what its verb needs,
//! after its folders are open and before it works on them; [`POWERS`] is the
//! whole of that, and SECURITY.md prints the same table.
//!
//! Nothing is claimed that is not on: each step returns whether the kernel
//! took it, and [`Confinement`] is made of those answers alone.

mod filter;
mod landlock;
mod rlimits;
mod seccomp;

use std::fmt;
use std::fs::File;

use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::policy::Verb;
use crate::store::Store;

pub use rlimits::{carry_through, settle};

/// A part of the confinement, by the kernel's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    NoNewPrivileges,
    ResourceLimits,
    Landlock,
    /// Landlock's knowledge of truncate(2), which older kernels lack.
    Truncation,
    Seccomp,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Piece::NoNewPrivileges => "no_new_privs",
            Piece::ResourceLimits => "rlimits",
            Piece::Landlock => "landlock",
            Piece::Truncation => "landlock-truncation",
            Piece::Seccomp => "seccomp",
        })
    }
}

/// What is on: everything but what is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    missing: Vec<Piece>,
}

impl Confinement {
    fn note(&mut self, piece: Piece, on: bool) {
        if !on && !self.missing.contains(&piece) {
            self.missing.push(piece);
        }
    }

    /// Landlock, and whether the one that is on knows of truncation.
    fn note_landlock(&mut self, on: bool) {
        self.note(Piece::Landlock, on);
        self.note(Piece::Truncation, !on || landlock::truncation());
    }

    pub fn is_full(&self) -> bool {
        self.missing.is_empty()
    }

    /// Accepts what is on, or refuses if all of it is required.
    ///
    /// Errors: [`Code::NoSandbox`], naming the pieces.
    pub fn enforce(&self, required: bool) -> Result<()> {
        if required && !self.is_full() {
            return Err(Error::new(
                Code::NoSandbox,
                format!("the kernel does not confine us: {self}"),
            )
            .remedy("run Linux 6.2 or later with Landlock and seccomp, or set required = false in [sandbox]"));
        }
        Ok(())
    }
}

impl std::str::FromStr for Confinement {
    type Err = ();

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, ()> {
        let pieces = [
            Piece::NoNewPrivileges,
            Piece::ResourceLimits,
            Piece::Landlock,
            Piece::Truncation,
            Piece::Seccomp,
        ];
        let names = text.strip_prefix("without ").map(|names| names.split(", "));
        let mut missing = Vec::new();
        for name in names.into_iter().flatten() {
            let piece = pieces.iter().find(|piece| piece.to_string() == name);
            missing.push(*piece.ok_or(())?);
        }
        let read = Confinement { missing };
        if read.to_string() == text {
            Ok(read)
        } else {
            Err(())
        }
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.missing.as_slice() {
            [] => f.write_str("full"),
            missing => {
                let names: Vec<String> = missing.iter().map(Piece::to_string).collect();
                write!(f, "without {}", names.join(", "))
            }
        }
    }
}

/// What may be done to a folder and all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look, and nothing else.
    Read,
    /// Read; new folders may be moved in, and nothing that is there altered,
    /// removed or moved out.
    Add,
    /// Read; links made, files removed, folders made, moved and removed; no
    /// file made or written.
    Replace,
    /// Anything but devices, sockets and fifos.
    Write,
}

/// What a verb may still do once it is confined.
#[derive(Clone, Copy, Debug)]
pub struct Powers {
    pub verb: Verb,
    /// The site's root, and so everything below it.
    pub root: Access,
    /// `releases/`, beyond what holds for the root.
    pub releases: Access,
    /// `.deploy-shell/`, beyond what holds for the root.
    pub state: Access,
    /// Whether it may write the journal and the lock, the files themselves.
    pub records: bool,
    /// Whether it may execute: this program itself, to unpack.
    pub executes: bool,
}

/// The table. No verb reaches anything outside the site's root, and none may
/// open a socket but a local one, which is how the record is written.
pub const POWERS: [Powers; 4] = [
    Powers {
        verb: Verb::Receive,
        root: Access::Read,
        releases: Access::Add,
        state: Access::Write,
        records: true,
        executes: true,
    },
    Powers {
        verb: Verb::Swap,
        root: Access::Replace,
        releases: Access::Replace,
        state: Access::Replace,
        records: true,
        executes: false,
    },
    Powers {
        verb: Verb::Rollback,
        root: Access::Replace,
        releases: Access::Replace,
        state: Access::Replace,
        records: true,
        executes: false,
    },
    Powers {
        verb: Verb::List,
        root: Access::Read,
        releases: Access::Read,
        state: Access::Read,
        records: false,
        executes: false,
    },
];

impl Powers {
    pub fn of(verb: Verb) -> &'static Powers {
        POWERS
            .iter()
            .find(|powers| powers.verb == verb)
            .expect("every verb is in the table")
    }
}

/// Confines the monitor to its verb, for good. `records` are the files of
/// [`Store::records`].
pub fn monitor(verb: Verb, store: &Store, records: &[File]) -> Confinement {
    let powers = Powers::of(verb);
    let mut on = Confinement::default();
    on.note(Piece::NoNewPrivileges, rlimits::give_up_privileges());
    on.note(Piece::ResourceLimits, rlimits::limit_monitor());
    on.note_landlock(landlock::monitor(powers, store, records));
    on.note(Piece::Seccomp, seccomp::monitor(powers));
    on
}

/// Confines the unpacker, all but its system calls: those are cut once its
/// threads stand ([`unpacker_calls`]), so that it can make no more of them.
///
/// `max_file` bounds a file's size, in bytes; `memory` the address space.
pub fn unpacker(staging: &Dir, max_file: u64, memory: u64) -> Confinement {
    let mut on = Confinement::default();
    on.note(Piece::NoNewPrivileges, rlimits::give_up_privileges());
    on.note(
        Piece::ResourceLimits,
        rlimits::limit_unpacker(max_file, memory),
    );
    on.note_landlock(landlock::unpacker(staging));
    on
}

/// Leaves all threads of the unpacker the calls that unpacking needs.
pub fn unpacker_calls(mut on: Confinement) -> Confinement {
    on.note(Piece::ResourceLimits, rlimits::no_more_processes());
    on.note(Piece::Seccomp, seccomp::unpacker());
    on
}

/// Confines the probe to what is open: it reaches no file and no address.
pub fn probe() -> Confinement {
    let mut on = Confinement::default();
    on.note(Piece::NoNewPrivileges, rlimits::give_up_privileges());
    on.note(
        Piece::ResourceLimits,
        rlimits::limit_probe() && rlimits::no_more_processes(),
    );
    // Of truncation nothing need be known: no file is ever open.
    on.note(Piece::Landlock, landlock::nothing());
    on.note(Piece::Seccomp, seccomp::probe());
    on
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_the_table_once() {
        for verb in [Verb::Receive, Verb::Swap, Verb::Rollback, Verb::List] {
            assert_eq!(
                POWERS.iter().filter(|powers| powers.verb == verb).count(),
                1
            );
        }
    }

    #[test]
    fn what_is_missing_is_named_and_refused() {
        let mut on = Confinement::default();
        on.note(Piece::Seccomp, true);
        assert_eq!(on.to_string(), "full");
        on.note(Piece::Landlock, false);
        on.note(Piece::Seccomp, false);
        assert_eq!(on.to_string(), "without landlock, seccomp");
        assert_eq!("without landlock, seccomp".parse(), Ok(on.clone()));
        assert_eq!("full".parse(), Ok(Confinement::default()));
        for bad in ["", "without ", "without luck", "Full", "without seccomp,"] {
            assert!(bad.parse::<Confinement>().is_err(), "{bad}");
        }
        assert!(on.enforce(false).is_ok());
        let error = on.enforce(true).unwrap_err();
        assert_eq!((error.code, error.code.exit()), (Code::NoSandbox, 78));
        assert!(
            error.problem.contains("landlock, seccomp"),
            "{}",
            error.problem
        );
    }
}
