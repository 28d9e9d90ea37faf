//! Resource limits, inherited state and the process attributes of prctl(2).

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

/// The maximum number of descriptors of the monitor and of the unpacker, which
/// holds directories open while it writes into them.
const MAX_FILES: u64 = 1024;

/// The unpacker's processor time in seconds; a payload of 2 GiB takes about ten.
const MAX_CPU_SECONDS: u64 = 1800;

/// Resets what a process inherits: descriptors, umask and signal mask. Call it
/// first, while there is one thread and nothing of ours is open.
pub fn reset_inherited_state() {
    close_inherited_descriptors();
    // New files have the modes that we give them, whatever umask sshd has.
    umask(Mode::from_bits_truncate(0o022));
    // With SIGXFSZ blocked, a file that exceeds the size limit is an error of
    // write(2), EFBIG, instead of the end of the process without a reply. The Rust
    // runtime ignores SIGPIPE.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    _ = signals.thread_block();
}

/// Blocks the signals by which a session or an operator ends a process. A swap
/// then completes although the client has gone: only SIGKILL and a power failure
/// leave an unconfirmed release live. Programs that this process executes get the
/// default mask.
pub fn block_termination_signals() {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ] {
        signals.add(signal);
    }
    _ = signals.thread_block();
}

/// Closes every inherited descriptor but 0, 1 and 2.
///
/// A failure is ignored: sshd leaves nothing open, and our own descriptors are
/// close-on-exec. This is a precaution against other callers.
fn close_inherited_descriptors() {
    let open: Vec<i32> = match std::fs::read_dir("/proc/self/fd") {
        // The directory's own descriptor is in the list, and closed by then.
        Ok(directory) => directory
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|fd| *fd > 2)
            .collect(),
        // The monitor's Landlock rules hide /proc from the unpacker.
        Err(_) => (3..MAX_FILES as i32).collect(),
    };
    for fd in open {
        _ = nix::unistd::close(fd);
    }
}

/// Sets no_new_privs, so that no executed program gains a privilege, and makes the
/// process non-dumpable, so that no other process of this user can read its memory
/// (prctl(2)).
pub fn set_no_new_privs() -> bool {
    prctl::set_no_new_privs().is_ok()
        && prctl::set_dumpable(false).is_ok()
        && prctl::get_no_new_privs() == Ok(true)
}

/// Limits the unpacker's resources, and has the kernel kill it when its parent
/// ends.
pub fn limit_unpacker(max_file: u64, memory: u64) -> bool {
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, max_file),
        (Resource::RLIMIT_AS, memory),
        (Resource::RLIMIT_CPU, MAX_CPU_SECONDS),
        (Resource::RLIMIT_NOFILE, MAX_FILES),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ];
    // After the monitor's end, nobody reads the report.
    lower(&limits) && prctl::set_pdeathsig(Signal::SIGKILL).is_ok()
}

/// Limits the probe's resources, and has the kernel kill it when its parent ends.
/// The probe reads at most a mebibyte from one open connection.
pub fn limit_probe() -> bool {
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_AS, 512 << 20),
        (Resource::RLIMIT_CPU, 30),
        // Not 0: poll(2) refuses more descriptors than this limit.
        (Resource::RLIMIT_NOFILE, 8),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ];
    lower(&limits) && prctl::set_pdeathsig(Signal::SIGKILL).is_ok()
}

/// Limits the monitor: it holds a site's handles, so it writes no core file, and
/// it needs few descriptors.
pub fn limit_monitor() -> bool {
    lower(&[
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, MAX_FILES),
    ])
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

/// Forbids new threads and processes.
///
/// The kernel exempts root from this limit; the seccomp filter denies the system
/// calls as well.
pub fn forbid_new_processes() -> bool {
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).is_ok()
}
