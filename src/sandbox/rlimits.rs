//! Resource limits (setrlimit(2)).

use std::fs::{self, DirEntry};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

/// The maximum number of descriptors of the monitor and of the unpacker, which
/// holds directories open while it writes into them.
const MAX_FILES: u64 = 1024;

/// The processor time of the unpacker and of the assembler in seconds; a payload of 2 GiB
/// takes about ten.
const MAX_CPU_SECONDS: u64 = 1800;

/// Limits the resources of the unpacker or of the assembler.
pub fn limit_unpacker(max_file: u64, memory: u64) -> bool {
    lower(&[
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, max_file),
        (Resource::RLIMIT_AS, memory),
        (Resource::RLIMIT_CPU, MAX_CPU_SECONDS),
        (Resource::RLIMIT_NOFILE, MAX_FILES),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ])
}

/// Limits the probe's resources. It reads at most a mebibyte from one open
/// connection.
pub fn limit_probe() -> bool {
    lower(&[
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_AS, 512 << 20),
        (Resource::RLIMIT_CPU, 30),
        // Not 0: poll(2) refuses more descriptors than this limit.
        (Resource::RLIMIT_NOFILE, 8),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ])
}

/// Limits the monitor's resources: it holds a site's handles, so it writes no core
/// file, and it needs few descriptors.
pub fn limit_monitor() -> bool {
    lower(&[
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, MAX_FILES),
    ])
}

/// Returns the number that no descriptor of this process reaches, once [`limit_monitor`] was
/// called in it or in its parent.
pub fn max_files() -> u64 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    limit.map_or(MAX_FILES, |(soft, _)| soft.min(MAX_FILES))
}

/// Lowers each limit to the given value; a lower limit of the operator stays.
fn lower(limits: &[(Resource, u64)]) -> bool {
    limits.iter().all(|(resource, wanted)| {
        getrlimit(*resource)
            .map(|(soft, hard)| soft.min(hard).min(*wanted))
            .and_then(|limit| setrlimit(*resource, limit, limit))
            .is_ok()
    })
}

/// The number of processes and threads by which the account may grow while a command of
/// the operator runs.
const MORE_PROCESSES: u64 = 4096;

/// Limits the processes of the operator's commands, so that code of a release that forks
/// without end leaves process numbers for the machine. Only the soft limit: a command
/// that needs more may raise it (prlimit(1)).
///
/// The kernel counts all processes of the user, zombies included, and exempts the
/// superuser. sshd has one for each connection, and a key may hold thousands of them; so
/// the limit is relative to what the user has now. A fixed one would let connections
/// without a request fail the gates of others.
pub fn limit_commands() {
    let limits = getrlimit(Resource::RLIMIT_NPROC);
    _ = limits.and_then(|(soft, hard)| {
        let soft = soft.min(threads_of_user().saturating_add(MORE_PROCESSES));
        setrlimit(Resource::RLIMIT_NPROC, soft, hard)
    });
}

/// Returns the number of threads of this user, as proc(5) shows them: a process has a
/// directory of the user, and one entry in its directory `task` for each thread.
fn threads_of_user() -> u64 {
    let user = geteuid().as_raw();
    let of_user = |entry: DirEntry| {
        let is_process = entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        let owned = is_process && entry.metadata().is_ok_and(|stat| stat.uid() == user);
        let task = owned.then(|| entry.path().join("task"));
        // A process may end meanwhile.
        task.and_then(|task| task.metadata().ok())
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    // A directory has two more links than directories in it.
    (processes.filter_map(of_user))
        .map(|task| task.nlink().saturating_sub(2))
        .sum()
}

/// Forbids new threads and processes.
///
/// The kernel exempts the superuser from this limit; the seccomp filter denies the
/// system calls as well.
pub fn forbid_new_processes() -> bool {
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).is_ok()
}
