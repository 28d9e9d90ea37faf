//! Landlock (landlock(7)): limits which files a process opens, by whatever path or
//! directory handle it reaches them. A descriptor that is open already keeps its
//! rights. From Linux 6.7 on it also forbids TCP, from Linux 6.12 on signals and
//! abstract sockets to processes outside of the sandbox, and from Linux 7.1 on
//! connecting to other local sockets by their path.
//!
//! Landlock adds up the rules of a directory and of all directories above it, so
//! a directory below the site's root cannot have fewer rights than that.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

use super::{Access, Rights};

/// The oldest version that we use (Linux 5.19). Version 1 denies every move from one
/// directory to another, without which no verb but `list` works. So on an older
/// kernel we use no Landlock at all.
const OLDEST: ABI = ABI::V2;

/// The first version that protects a read-only file from truncation (Linux 6.2).
const TRUNCATION: ABI = ABI::V3;

/// The newest version whose rights we handle (Linux 7.1). A handled right is denied
/// unless a rule grants it; an older kernel handles the rights that it knows.
const NEWEST: ABI = ABI::V9;

/// The file in which the dynamic loader finds libraries (ld.so(8)).
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// Restricts the calling thread to `rights`, and returns whether the kernel enforces
/// it. Threads that start later inherit the restriction. Without directories and
/// files, the thread opens no file for reading or writing any more.
pub fn restrict_thread(rights: Rights<'_>) -> bool {
    let build = || {
        let mut rules = ruleset()?;
        for (directory, access) in rights.directories {
            let granted = landlock_rights(*access);
            rules = rules.add_rule(PathBeneath::new(directory.as_fd(), granted))?;
        }
        // Landlock refuses a move that would give the moved files more rights. If
        // a directory allowed writing files, no release could be moved into it from
        // one that does not. So the writable files have a rule each.
        let write = AccessFs::WriteFile | AccessFs::Truncate;
        for file in rights.writable_files {
            rules = rules.add_rule(PathBeneath::new(file, write))?;
        }
        if let Some(socket) = rights.log_socket
            && let Ok(directory) = PathFd::new(directory_of(socket))
        {
            // Every line connects anew. A daemon that restarts makes a new socket, which no
            // rule for the old one permits. So the rule is for the directory.
            rules = rules.add_rule(PathBeneath::new(directory, AccessFs::ResolveUnix))?;
        }
        if rights.execute_self {
            // A child that is this program executes and reads the files that this
            // process is mapped from. Landlock has no right for mapping: a file that
            // may be read may be mapped, except where seccomp denies it.
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

/// Returns Landlock's rights for an access.
fn landlock_rights(access: Access) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match access {
        Access::Read => read,
        Access::Add => read | AccessFs::MakeDir | AccessFs::Refer,
        Access::Update => read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::RemoveFile,
        Access::Replace => {
            read | AccessFs::MakeSym
                | AccessFs::MakeDir
                | AccessFs::RemoveFile
                | AccessFs::RemoveDir
                | AccessFs::Refer
        }
        Access::LinkFrom => read | AccessFs::Refer,
        Access::Link | Access::Build => {
            let link = read
                | AccessFs::MakeReg
                | AccessFs::MakeDir
                | AccessFs::MakeSym
                | AccessFs::RemoveFile
                | AccessFs::Refer;
            match access {
                Access::Build => link | AccessFs::WriteFile,
                _ => link,
            }
        }
        Access::Write => {
            AccessFs::from_all(NEWEST)
                & !(AccessFs::Execute
                    | AccessFs::MakeChar
                    | AccessFs::MakeBlock
                    | AccessFs::MakeSock
                    | AccessFs::MakeFifo
                    | AccessFs::IoctlDev
                    | AccessFs::ResolveUnix)
        }
        Access::Create => {
            read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::MakeSym
        }
    }
}

/// Returns whether this kernel's Landlock controls truncation. It asks the kernel for
/// a ruleset with that right, and does not use it.
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

/// Returns whether the kernel enforces the rules.
///
/// An older kernel enforces those that it knows. There seccomp allows no socket but
/// a local one, and signals only to the monitor of `receive`; nothing keeps a
/// monitor from connecting to an abstract socket.
fn enforce(rules: RulesetCreated) -> Result<bool, RulesetError> {
    let status = rules.restrict_self()?;
    Ok(status.ruleset != landlock::RulesetStatus::NotEnforced && status.no_new_privs)
}

/// Returns the directory that contains a socket. `/dev/log` is a symlink where journald runs,
/// and its target is missing while the daemon is away.
fn directory_of(socket: &Path) -> PathBuf {
    let target = std::fs::read_link(socket);
    let target = target.map_or_else(|_| socket.to_owned(), |to| socket.with_file_name(to));
    target.parent().unwrap_or(&target).to_owned()
}

/// Returns the files that this process is mapped from (the program, the loader and
/// the libraries) and the loader's cache. A child needs the same files.
fn own_images() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut images: Vec<PathBuf> = maps
        .lines()
        // The path is the sixth column, and may contain spaces.
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        // /proc/self/exe leads to the running program even if its path now holds
        // another file, after an upgrade.
        .chain(["/proc/self/exe", LOADER_CACHE])
        .map(Into::into)
        .collect();
    images.sort();
    images.dedup();
    images
}
