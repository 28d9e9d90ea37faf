//! The sandbox: rights that the kernel withholds from a process, whatever our
//! code does.
//!
//! This module knows no site, no configuration and no verb. It receives
//! directory handles with access rights and applies them with Landlock, seccomp
//! and resource limits.
//!
//! Four processes restrict themselves:
//!
//! - The **monitor** is the process that sshd starts for a request. It does every
//!   part of the request that no child does. It opens its directories, restricts
//!   itself to what its verb needs (see [`crate::privileges`]), and then runs the
//!   verb.
//! - The **unpacker** is a child of the monitor of `receive`, and parses hostile
//!   bytes. The monitor starts it after its own restriction, so the unpacker
//!   inherits that and adds to it. It keeps the staging directory, its pipes and
//!   some thirty system calls. It restricts itself, and reports its [`Enforcement`]
//!   to the monitor, before it reads a byte of the payload: hostile bytes cannot
//!   change that report.
//! - The **assembler** is another child of the monitor of `receive`. It reads what the
//!   unpacker wrote, and no byte of the archive. The monitor starts it before its own
//!   restriction. So the assembler inherits none, and keeps the staged tree, its pipes and
//!   a list of system calls.
//! - The **probe** is a child of the hook runner, and reads the response of a
//!   release. The monitor starts the hook runner before its own restriction, so
//!   neither of the two inherits one. The probe resolves the name and connects
//!   first; after its restriction it keeps only what is open already.
//!
//! Each step returns whether the kernel accepted it, and the `restrict_` functions
//! return these answers as an [`Enforcement`]. Each of the four processes then
//! calls [`Enforcement::ensure_full`] for itself.
//!
//! The words: [`Access`] is what a process may do in one directory. [`Rights`] are
//! everything that it keeps; `landlock` translates them into Landlock's rules.
//! An argument rule of `seccomp` is a condition on the arguments of a system call.

mod landlock;
mod process;
mod rlimits;
pub mod seccomp;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dir::Dir;
use crate::error::{Code, Error, Result};

pub use process::{
    block_termination_signals, close_inherited_descriptors, end_with_parent, reset_inherited_state,
    termination_signal_fd,
};
pub use rlimits::limit_commands;

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
    /// Landlock's control of truncation, which kernels before Linux 6.2 lack. There,
    /// open(2) with O_TRUNC empties a file that may only be read, and with the access
    /// mode 3 any file that the user may write.
    ///
    /// The unpacker does not depend on it: its seccomp list has no call that truncates,
    /// openat(2) only without O_TRUNC, and no openat2(2), whose flags no filter reads.
    ///
    /// A monitor needs openat2(2), to look at nothing behind a mount that may stall. On
    /// such a kernel an attacker who has taken a monitor over can empty files of the
    /// deploy user by it: take content away, as a `swap` may by removing releases, but
    /// neither write, read nor execute anything. The monitor parses 4 KiB of printable
    /// ASCII in safe Rust; the archive is the unpacker's. So a monitor runs without this
    /// mechanism, and the audit log and `check` name it: see
    /// [`Enforcement::is_acceptable`].
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

/// The state of a process's sandbox: the mechanisms that are known to be missing.
/// Every other one is in force.
///
/// A kernel without Landlock is reported once, as `landlock`: truncation is listed
/// only if Landlock itself is in force. `full` says nothing of what Landlock adds
/// after Linux 6.2 (TCP, device ioctls, signals, local sockets): SECURITY.md, "Older kernels", has
/// the versions and their effects.
///
/// The unpacker sends it to the monitor in serialized form. `Display` writes the
/// text of the audit log: `full`, or `without landlock, seccomp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use = "the caller decides whether an incomplete sandbox is acceptable"]
pub struct Enforcement {
    missing: BTreeSet<Mechanism>,
}

impl Enforcement {
    /// Starts the record of a process that is about to restrict itself.
    fn nothing_missing() -> Enforcement {
        Enforcement {
            missing: BTreeSet::new(),
        }
    }

    fn record(&mut self, mechanism: Mechanism, in_force: bool) {
        if !in_force {
            self.missing.insert(mechanism);
        }
    }

    /// Records Landlock and, if it is in force, whether this kernel's Landlock
    /// controls truncation.
    fn record_landlock(&mut self, in_force: bool) {
        self.record(Mechanism::Landlock, in_force);
        if in_force {
            self.record(Mechanism::Truncation, landlock::controls_truncation());
        }
    }

    /// Returns whether every mechanism is in force.
    pub fn is_full(&self) -> bool {
        self.missing.is_empty()
    }

    /// Returns whether every mechanism is in force that a site can require: all but
    /// [`Mechanism::Truncation`].
    pub fn is_acceptable(&self) -> bool {
        self.missing().all(|it| it == Mechanism::Truncation)
    }

    /// Returns the mechanisms that are not in force, in the order of their
    /// declaration.
    pub fn missing(&self) -> impl Iterator<Item = Mechanism> {
        self.missing.iter().copied()
    }

    /// Refuses an incomplete sandbox where the site requires a complete one, except for
    /// [`Mechanism::Truncation`].
    ///
    /// # Errors
    ///
    /// [`Code::NoSandbox`], which names the missing mechanisms.
    pub fn ensure_full(&self, required: bool) -> Result<()> {
        if required && !self.is_acceptable() {
            return Err(Error::new(
                Code::NoSandbox,
                format!("the kernel does not provide the whole sandbox: {self}"),
            )
            .remedy(format!(
                "{}, or set required = false in [sandbox]",
                self.repair()
            )));
        }
        Ok(())
    }

    /// Returns what makes the missing mechanisms available.
    fn repair(&self) -> &'static str {
        // Every kernel since Linux 3.5 has both: if one fails, something around sshd
        // denies the calls. Without no_new_privs, Landlock and seccomp fail as well.
        let old = [Mechanism::NoNewPrivs, Mechanism::ResourceLimits];
        if old.iter().any(|it| self.missing.contains(it)) {
            "permit prctl(2) and setrlimit(2) in the container or service that runs sshd"
        } else {
            "run Linux 5.19 or later with Landlock and seccomp"
        }
    }
}

/// The enforcement that lacks the given mechanisms, for tests.
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

/// The access to a directory and to everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read files and list directories.
    Read,
    /// As `Read`; also create directories, and move directories in. Existing entries
    /// cannot be changed, removed or moved out.
    Add,
    /// As `Read`; also create symlinks, remove files and symlinks, and create, move
    /// and remove directories. So a verb can replace the `current` symlink. Files
    /// cannot be created, and their content cannot be changed.
    Replace,
    /// As `Read`; also write and remove files and symlinks that exist. None can be created or moved
    /// in.
    Update,
    /// Everything but devices, sockets, fifos and execution.
    Write,
    /// As `Link`; also create and write files. The assembler has it for its staging
    /// directory.
    Build,
    /// As `Read`; also create directories, symlinks and names of existing files, and move
    /// files. No file can be written. The assembler has it for its staging directory, if it
    /// makes hard links.
    Link,
    /// As `Read`; also give files a further name in another directory. Nothing can be
    /// changed, removed or moved. The assembler has it for the base, if it makes hard links.
    LinkFrom,
    /// Create, write and read files, create directories and symlinks, and open
    /// directories. Nothing can be removed or moved. Landlock permits listing too; the
    /// unpacker, which alone has this access, has no system call for it.
    ///
    /// The unpacker reads a file that it wrote, to write a hard link of the archive as
    /// a file of its own. Its directory is empty at first, so it learns nothing by
    /// that. (A copy by the monitor would need a list of files from the unpacker, and
    /// the right to create files.)
    Create,
}

/// The rights that a process keeps.
///
/// They hold for one process. A child keeps only what both its parent's rights and
/// its own allow. The default is no right at all.
#[derive(Clone, Copy, Default)]
pub struct Rights<'a> {
    /// The directories that the process may still open files in. Within one process
    /// rights add up: a directory also has the rights of every directory above it.
    pub directories: &'a [(&'a Dir, Access)],
    /// Files that the process may open for writing, whatever their directory's
    /// rights are.
    pub writable_files: &'a [File],
    /// Whether the process may lock a file that it has open.
    pub locks: bool,
    /// A socket of the log. From Linux 7.1 on, the process connects to no local socket but
    /// those below its directory.
    pub log_socket: Option<&'a Path>,
    /// Whether the process may execute and read the files that it is mapped from
    /// (this program, the loader, the libraries). It may execute no other file.
    pub execute_self: bool,
    /// Whether the process may set the time of a file that it has open.
    pub set_times: bool,
}

/// Restricts the monitor to `rights`. Call it while the process has one thread.
///
/// Landlock, seccomp and no_new_privs cannot be undone. The monitor can make itself
/// dumpable again, and root can raise its limits: neither adds a right.
pub fn restrict_monitor(rights: Rights<'_>) -> Enforcement {
    let mut enforcement = Enforcement::nothing_missing();
    enforcement.record(Mechanism::NoNewPrivs, process::set_attributes());
    enforcement.record(Mechanism::ResourceLimits, rlimits::limit_monitor());
    enforcement.record_landlock(landlock::restrict_thread(rights));
    enforcement.record(Mechanism::Seccomp, seccomp::filter_monitor(&rights));
    enforcement
}

/// The first half of a sandbox, which later threads inherit. The second half forbids new
/// threads: [`restrict_unpacker_after_threads`], [`restrict_assembler_after_threads`].
#[must_use = "the sandbox is not complete"]
pub struct PartialEnforcement(Enforcement);

/// Restricts the unpacker to `staging`, while it has one thread: later threads
/// inherit the restriction. They can only start before the second half, which
/// forbids new ones.
///
/// `max_file` limits the size of a file and `memory` the address space, in bytes.
pub fn restrict_unpacker_before_threads(
    staging: &Dir,
    max_file: u64,
    memory: u64,
) -> PartialEnforcement {
    restrict_before_threads(&[(staging, Access::Create)], max_file, memory)
}

/// Completes the unpacker's sandbox: forbids new threads and processes by resource
/// limit, and installs the seccomp allow-list on every thread.
pub fn restrict_unpacker_after_threads(partial: PartialEnforcement) -> Enforcement {
    restrict_after_threads(partial, seccomp::filter_unpacker)
}

/// The first half of the assembler's sandbox, as that of the unpacker.
pub fn restrict_assembler_before_threads(
    directories: &[(&Dir, Access)],
    max_file: u64,
    memory: u64,
) -> PartialEnforcement {
    restrict_before_threads(directories, max_file, memory)
}

/// Completes the assembler's sandbox, as that of the unpacker. `builds` is for a delta: it
/// adds the calls that build a tree, and openat2(2), so truncation is recorded. With
/// `directory_mode` it may give this one mode to what it has open.
pub fn restrict_assembler_after_threads(
    partial: PartialEnforcement,
    builds: bool,
    directory_mode: Option<u32>,
) -> Enforcement {
    let PartialEnforcement(mut enforcement) = partial;
    // Before the filter, which has no call to ask for it.
    if builds && !enforcement.missing.contains(&Mechanism::Landlock) {
        enforcement.record(Mechanism::Truncation, landlock::controls_truncation());
    }
    let partial = PartialEnforcement(enforcement);
    restrict_after_threads(partial, || {
        seccomp::filter_assembler(builds, directory_mode)
    })
}

fn restrict_before_threads(
    directories: &[(&Dir, Access)],
    max_file: u64,
    memory: u64,
) -> PartialEnforcement {
    let mut enforcement = Enforcement::nothing_missing();
    enforcement.record(Mechanism::NoNewPrivs, process::set_attributes());
    enforcement.record(
        Mechanism::ResourceLimits,
        rlimits::limit_unpacker(max_file, memory) && process::end_with_parent(),
    );
    // Truncation is not recorded: no allow-list depends on it.
    enforcement.record(
        Mechanism::Landlock,
        landlock::restrict_thread(Rights {
            directories,
            ..Rights::default()
        }),
    );
    PartialEnforcement(enforcement)
}

fn restrict_after_threads(
    partial: PartialEnforcement,
    filter: impl FnOnce() -> bool,
) -> Enforcement {
    let PartialEnforcement(mut enforcement) = partial;
    enforcement.record(Mechanism::ResourceLimits, rlimits::forbid_new_processes());
    enforcement.record(Mechanism::Seccomp, filter());
    enforcement
}

/// Restricts the probe or the compressor to its open descriptors: it reaches no file
/// and no address. Call it while the process has one thread.
pub fn restrict_to_descriptors() -> Enforcement {
    let mut enforcement = Enforcement::nothing_missing();
    enforcement.record(Mechanism::NoNewPrivs, process::set_attributes());
    enforcement.record(
        Mechanism::ResourceLimits,
        rlimits::limit_probe() && process::end_with_parent() && rlimits::forbid_new_processes(),
    );
    // Truncation is not recorded: the allow-list has no system call that
    // opens or truncates a file.
    enforcement.record(
        Mechanism::Landlock,
        landlock::restrict_thread(Rights::default()),
    );
    enforcement.record(Mechanism::Seccomp, seccomp::filter_probe());
    enforcement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mechanism_is_named_and_refused() {
        let mut enforcement = Enforcement::nothing_missing();
        enforcement.record(Mechanism::Seccomp, true);
        assert_eq!(enforcement.to_string(), "full");
        enforcement.record(Mechanism::Seccomp, false);
        enforcement.record(Mechanism::Landlock, false);
        assert_eq!(enforcement.to_string(), "without landlock, seccomp");
        assert!(enforcement.ensure_full(false).is_ok());
        let old_kernel: Enforcement = [Mechanism::Truncation].into_iter().collect();
        assert!(!old_kernel.is_full() && old_kernel.ensure_full(true).is_ok());
        let error = enforcement.ensure_full(true).unwrap_err();
        assert_eq!((error.code, error.code.exit()), (Code::NoSandbox, 78));
        assert!(
            error.problem.contains("landlock, seccomp"),
            "{}",
            error.problem
        );
    }

    #[test]
    fn the_remedy_fits_the_missing_mechanism() {
        let all = [
            Mechanism::NoNewPrivs,
            Mechanism::Landlock,
            Mechanism::Seccomp,
        ];
        for (missing, remedy) in [
            (&all[..1], "permit prctl(2)"),
            (&[Mechanism::ResourceLimits], "setrlimit(2)"),
            (&all, "permit prctl(2)"),
            (&all[1..], "run Linux 5.19"),
        ] {
            let enforcement: Enforcement = missing.iter().copied().collect();
            let said = enforcement.ensure_full(true).unwrap_err().remedy.unwrap();
            assert!(said.contains(remedy), "{enforcement}: {said}");
            assert!(said.contains("required = false"), "{said}");
        }
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
