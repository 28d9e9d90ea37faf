//! The sandbox: rights that the kernel withholds from a process, whatever our
//! code does.
//!
//! This module knows no site, no configuration and no verb. It receives
//! directory handles with access rights and applies them with Landlock, seccomp
//! and resource limits.
//!
//! Three processes restrict themselves. The unpacker parses hostile bytes and
//! keeps the staging directory, its pipes and thirty system calls. The probe
//! reads the response of a release and keeps only what is open already. The
//! monitor is every other part of a request. It keeps what its verb needs
//! (see [`crate::privileges`]), and restricts itself after it has opened its
//! directories and before it works on them.
//!
//! The audit log states only what is in force: each step returns whether the kernel
//! accepted it, and an [`Enforcement`] contains those answers and nothing else.

mod landlock;
mod rlimits;
pub mod seccomp;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;

use serde::{Deserialize, Serialize};

use crate::dir::Dir;
use crate::error::{Code, Error, Result};

pub use rlimits::{block_termination_signals, reset_inherited_state};

/// A mechanism of the kernel that the sandbox uses. The names in serialized form
/// and in [`Display`](fmt::Display) are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mechanism {
    #[serde(rename = "no_new_privs")]
    NoNewPrivs,
    #[serde(rename = "rlimits")]
    ResourceLimits,
    #[serde(rename = "landlock")]
    Landlock,
    /// Landlock's control of truncate(2), which kernels before Linux 6.2 lack.
    #[serde(rename = "landlock-truncation")]
    Truncation,
    #[serde(rename = "seccomp")]
    Seccomp,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mechanism::NoNewPrivs => "no_new_privs",
            Mechanism::ResourceLimits => "rlimits",
            Mechanism::Landlock => "landlock",
            Mechanism::Truncation => "landlock-truncation",
            Mechanism::Seccomp => "seccomp",
        })
    }
}

/// The state of a process's sandbox: which [`Mechanism`]s are missing. All others
/// are in force.
///
/// The unpacker sends it to the monitor in serialized form. `Display` writes the
/// text of the audit log: `full`, or `without landlock, seccomp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enforcement {
    missing: BTreeSet<Mechanism>,
}

impl Enforcement {
    fn record(&mut self, mechanism: Mechanism, in_force: bool) {
        if !in_force {
            self.missing.insert(mechanism);
        }
    }

    /// Records Landlock, and whether the kernel's version controls truncation.
    fn record_landlock(&mut self, in_force: bool) {
        self.record(Mechanism::Landlock, in_force);
        let truncation = in_force && landlock::controls_truncation();
        self.record(Mechanism::Truncation, truncation || !in_force);
    }

    /// Returns whether every mechanism is in force.
    pub fn is_full(&self) -> bool {
        self.missing.is_empty()
    }

    /// Returns the mechanisms that are not in force, in the order of their
    /// declaration.
    pub fn missing(&self) -> impl Iterator<Item = Mechanism> {
        self.missing.iter().copied()
    }

    /// Refuses an incomplete sandbox where the site requires a complete one.
    ///
    /// # Errors
    ///
    /// [`Code::NoSandbox`], which names the missing mechanisms.
    pub fn ensure_full(&self, required: bool) -> Result<()> {
        if required && !self.is_full() {
            return Err(Error::new(
                Code::NoSandbox,
                format!("the kernel does not provide the whole sandbox: {self}"),
            )
            .remedy("run Linux 6.2 or later with Landlock and seccomp, or set required = false in [sandbox]"));
        }
        Ok(())
    }
}

/// The enforcement that lacks the given mechanisms.
impl FromIterator<Mechanism> for Enforcement {
    fn from_iter<I: IntoIterator<Item = Mechanism>>(missing: I) -> Enforcement {
        Enforcement {
            missing: missing.into_iter().collect(),
        }
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_full() {
            return f.write_str("full");
        }
        let names: Vec<String> = self.missing().map(|it| it.to_string()).collect();
        write!(f, "without {}", names.join(", "))
    }
}

/// The rights to a directory and to everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read files and list directories.
    Read,
    /// As `Read`; also move new directories in. Existing entries cannot be
    /// changed, removed or moved out.
    Add,
    /// As `Read`; also create symlinks, remove files, and create, move and remove
    /// directories. Files cannot be created or written.
    Replace,
    /// Everything but devices, sockets, fifos and execution.
    Write,
    /// Create and write files, directories and symlinks, and list directories.
    /// Files cannot be read, and nothing can be removed or moved.
    Create,
}

/// The rights that a monitor keeps.
#[derive(Clone, Copy)]
pub struct Rights<'a> {
    /// The directories that the process may still reach. Rights add up: a
    /// directory also has the rights of every directory above it.
    pub directories: &'a [(&'a Dir, Access)],
    /// Files that the process may write, whatever their directory's rights are.
    pub writable_files: &'a [File],
    /// Whether the process may execute this program's own image, and nothing else.
    pub execute_self: bool,
}

/// Restricts the monitor to `rights`. Cannot be undone.
pub fn restrict_monitor(rights: Rights<'_>) -> Enforcement {
    let mut enforcement = Enforcement::default();
    enforcement.record(Mechanism::NoNewPrivs, rlimits::set_no_new_privs());
    enforcement.record(Mechanism::ResourceLimits, rlimits::limit_monitor());
    enforcement.record_landlock(landlock::restrict(rights));
    enforcement.record(
        Mechanism::Seccomp,
        seccomp::filter_monitor(rights.execute_self),
    );
    enforcement
}

/// Restricts the unpacker to `staging`. [`restrict_unpacker_syscalls`] follows
/// once its threads have started: afterwards it cannot start another one.
///
/// `max_file` limits the size of a file and `memory` the address space, in bytes.
pub fn restrict_unpacker(staging: &Dir, max_file: u64, memory: u64) -> Enforcement {
    let mut enforcement = Enforcement::default();
    enforcement.record(Mechanism::NoNewPrivs, rlimits::set_no_new_privs());
    enforcement.record(
        Mechanism::ResourceLimits,
        rlimits::limit_unpacker(max_file, memory),
    );
    enforcement.record_landlock(landlock::restrict(Rights {
        directories: &[(staging, Access::Create)],
        writable_files: &[],
        execute_self: false,
    }));
    enforcement
}

/// Installs the seccomp allow-list on every unpacker thread. Call it after all
/// threads have started.
pub fn restrict_unpacker_syscalls(mut enforcement: Enforcement) -> Enforcement {
    enforcement.record(Mechanism::ResourceLimits, rlimits::forbid_new_processes());
    enforcement.record(Mechanism::Seccomp, seccomp::filter_unpacker());
    enforcement
}

/// Restricts the probe to its open descriptors: it reaches no file and no address.
pub fn restrict_probe() -> Enforcement {
    let mut enforcement = Enforcement::default();
    enforcement.record(Mechanism::NoNewPrivs, rlimits::set_no_new_privs());
    enforcement.record(
        Mechanism::ResourceLimits,
        rlimits::limit_probe() && rlimits::forbid_new_processes(),
    );
    // Control of truncation does not matter here: the probe never has a file open.
    enforcement.record(
        Mechanism::Landlock,
        landlock::restrict(Rights {
            directories: &[],
            writable_files: &[],
            execute_self: false,
        }),
    );
    enforcement.record(Mechanism::Seccomp, seccomp::filter_probe());
    enforcement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mechanism_is_named_and_refused() {
        let mut enforcement = Enforcement::default();
        enforcement.record(Mechanism::Seccomp, true);
        assert_eq!(enforcement.to_string(), "full");
        enforcement.record(Mechanism::Seccomp, false);
        enforcement.record(Mechanism::Landlock, false);
        assert_eq!(enforcement.to_string(), "without landlock, seccomp");
        assert!(enforcement.ensure_full(false).is_ok());
        let error = enforcement.ensure_full(true).unwrap_err();
        assert_eq!((error.code, error.code.exit()), (Code::NoSandbox, 78));
        assert!(
            error.problem.contains("landlock, seccomp"),
            "{}",
            error.problem
        );
    }

    #[test]
    fn the_serialized_form_is_read_back_and_nothing_else_is() {
        let all = [
            Mechanism::NoNewPrivs,
            Mechanism::ResourceLimits,
            Mechanism::Landlock,
            Mechanism::Truncation,
            Mechanism::Seccomp,
        ];
        for mechanism in all {
            let word = serde_json::to_value(mechanism).unwrap();
            assert_eq!(word.as_str(), Some(&*mechanism.to_string()));
        }
        for missing in [&all[..0], &all[2..4], &all] {
            let sent: Enforcement = missing.iter().copied().collect();
            let line = serde_json::to_string(&sent).unwrap();
            assert_eq!(serde_json::from_str::<Enforcement>(&line).unwrap(), sent);
        }
        for bad in [
            "",
            "full",
            "{}",
            r#"{"missing":["luck"]}"#,
            r#"{"missing":["Seccomp"]}"#,
            r#"{"missing":"seccomp"}"#,
            r#"{"missing":[],"also":[]}"#,
        ] {
            assert!(serde_json::from_str::<Enforcement>(bad).is_err(), "{bad}");
        }
    }
}
