//! Landlock (landlock(7)): limits which files a process reaches, whatever path
//! or handle leads to them. It also forbids TCP, and signals and abstract
//! sockets to processes outside of the sandbox.
//!
//! Landlock adds up the rules of a directory and of all directories above it, so
//! a directory below the root cannot have fewer rights than the root.

use std::os::fd::AsFd;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

use super::{Access, Rights};

/// The oldest version that counts as Landlock: a release can be moved from one
/// directory to another only under a version that knows that right (Linux 5.19).
const OLDEST: ABI = ABI::V2;

/// The first version that protects a read-only file from truncation (Linux 6.2).
const TRUNCATION: ABI = ABI::V3;

/// The newest version whose rights we handle. A handled right is denied unless a
/// rule grants it; an older kernel handles the rights that it knows.
const NEWEST: ABI = ABI::V7;

/// The file in which the dynamic loader finds libraries (ld.so(8)).
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// Restricts this process to `rights`, and returns whether the kernel enforces it.
/// No directories and no files mean that it opens nothing any more.
pub fn restrict(rights: Rights<'_>) -> bool {
    let build = || {
        let mut rules = ruleset()?;
        for (directory, access) in rights.directories {
            let granted = granted_rights(*access);
            rules = rules.add_rule(PathBeneath::new(directory.as_fd(), granted))?;
        }
        // Rules for files, not for their directory: if files in it could be written,
        // pruned releases could not be moved into it, since a move must not add
        // rights to what is moved.
        let write = AccessFs::WriteFile | AccessFs::Truncate;
        for file in rights.writable_files {
            rules = rules.add_rule(PathBeneath::new(file, write))?;
        }
        if rights.execute_self {
            // The child is this program: it may execute and map the files that
            // this process is mapped from, and no other.
            for path in own_images() {
                if let Ok(file) = PathFd::new(&path) {
                    let image = AccessFs::Execute | AccessFs::ReadFile;
                    rules = rules.add_rule(PathBeneath::new(file, image))?;
                }
            }
        }
        enforce(rules)
    };
    build().unwrap_or(false)
}

fn granted_rights(access: Access) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match access {
        Access::Read => read,
        Access::Add => read | AccessFs::MakeDir | AccessFs::Refer,
        Access::Replace => {
            read | AccessFs::MakeSym
                | AccessFs::MakeDir
                | AccessFs::RemoveFile
                | AccessFs::RemoveDir
                | AccessFs::Refer
        }
        Access::Write => {
            AccessFs::from_all(NEWEST)
                & !(AccessFs::Execute
                    | AccessFs::MakeChar
                    | AccessFs::MakeBlock
                    | AccessFs::MakeSock
                    | AccessFs::MakeFifo
                    | AccessFs::IoctlDev)
        }
        Access::Create => {
            AccessFs::ReadDir
                | AccessFs::WriteFile
                | AccessFs::MakeReg
                | AccessFs::MakeDir
                | AccessFs::MakeSym
        }
    }
}

/// Returns whether this kernel's Landlock controls truncation.
pub fn controls_truncation() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(TRUNCATION))
        .and_then(Ruleset::create)
        .is_ok()
}

fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(OLDEST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()
        .map(|rules| rules.set_compatibility(CompatLevel::BestEffort))
}

/// Returns whether the kernel enforces the rules. Older kernels do not know ports
/// and signals; there the seccomp filter denies both, except signals by the
/// monitor of `receive`.
fn enforce(rules: RulesetCreated) -> Result<bool, RulesetError> {
    let status = rules.restrict_self()?;
    Ok(status.ruleset != landlock::RulesetStatus::NotEnforced && status.no_new_privs)
}

/// Returns the files that this process is mapped from: the program, the loader
/// and the libraries. A child needs the same files.
fn own_images() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut images: Vec<PathBuf> = maps
        .lines()
        // The path is the sixth column, and may contain spaces.
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        // The program also by handle: an upgrade may have replaced the file at
        // its path.
        .chain(["/proc/self/exe", LOADER_CACHE])
        .map(Into::into)
        .collect();
    images.sort();
    images.dedup();
    images
}
