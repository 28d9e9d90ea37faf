//! Landlock (landlock(7)): which files may be reached, whatever path or handle
//! leads to them; and neither TCP nor signals nor abstract sockets outward.
//!
//! Landlock adds up what the rules of a folder and of those above it allow, so
//! a right that the root has cannot be taken from a folder below.

use std::fs::File;
use std::os::fd::AsFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

use super::{Access, Powers};
use crate::dir::Dir;
use crate::store::Store;

/// Without this nothing is claimed: moving a release between folders is only
/// possible under a Landlock that knows of it (Linux 5.19).
const LEAST: ABI = ABI::V2;

/// From this one on (Linux 6.2), a file that may only be read cannot be cut.
const TRUNCATION: ABI = ABI::V3;

/// Everything is handled, and so denied, up to this version; a kernel that
/// knows less handles what it knows.
const NEWEST: ABI = ABI::V7;

/// Where the dynamic loader looks libraries up (ld.so(8)).
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// Confines the monitor to what its verb needs of the site.
pub fn monitor(powers: &Powers, store: &Store, records: &[File]) -> bool {
    let build = || {
        let mut rules = ruleset()?;
        for (folder, access) in [
            (&store.root, powers.root),
            (&store.releases, powers.releases),
            (&store.state, powers.state),
        ] {
            rules = rules.add_rule(PathBeneath::new(folder, rights(access)))?;
        }
        // Files and not their folder: a folder in which files may be written
        // could not take in a release that has had its time, since a move must
        // not add to what may be done with it.
        let write = AccessFs::WriteFile | AccessFs::Truncate;
        for file in records {
            rules = rules.add_rule(PathBeneath::new(file, write))?;
        }
        if powers.executes {
            for path in own_images() {
                // The unpacker is this program: it may execute and map the
                // very files that we were made of, and no other.
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

/// Confines the unpacker to making things below the staging folder.
pub fn unpacker(staging: &Dir) -> bool {
    let make = AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym;
    let build = || enforce(ruleset()?.add_rule(PathBeneath::new(staging.as_fd(), make))?);
    build().unwrap_or(false)
}

/// Leaves no file and no folder, no port, and nobody to signal.
pub fn nothing() -> bool {
    ruleset().and_then(enforce).unwrap_or(false)
}

fn rights(access: Access) -> BitFlags<AccessFs> {
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
    }
}

/// Whether this kernel's Landlock knows of truncation.
pub fn truncation() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(TRUNCATION))
        .and_then(Ruleset::create)
        .is_ok()
}

fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LEAST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()
        .map(|rules| rules.set_compatibility(CompatLevel::BestEffort))
}

/// Whether the kernel took it. What an older kernel does not know of (ports,
/// signals) the seccomp filter denies, but for signals by `receive`.
fn enforce(rules: RulesetCreated) -> Result<bool, RulesetError> {
    let status = rules.restrict_self()?;
    Ok(status.ruleset != landlock::RulesetStatus::NotEnforced && status.no_new_privs)
}

/// The files this program is mapped from: its own image, the loader and the
/// libraries, read off before they are needed again.
fn own_images() -> Vec<std::path::PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut images: Vec<_> = maps
        .lines()
        // The path is the sixth column, and may have blanks in it.
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        // Our own image also by handle: an upgrade may have put another file
        // under its name.
        .chain(["/proc/self/exe", LOADER_CACHE])
        .map(Into::into)
        .collect();
    images.sort();
    images.dedup();
    images
}
