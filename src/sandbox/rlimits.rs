//! What a process may become and use up.

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

/// As many descriptors as the unpacker may have, its in-flight folders among them.
const MAX_FILES: u64 = 1024;

/// Seconds of processor time; a payload of 2 GiB takes about ten.
const MAX_CPU: u64 = 1800;

/// Puts right what a process inherits. Called first thing, while nothing of
/// ours is open and there is one thread.
pub fn settle() {
    close_inherited();
    // What is made has the modes we give it, whatever mask sshd was started with.
    umask(Mode::from_bits_truncate(0o022));
    // A file size limit is then an error of write(2), EFBIG, and not a death
    // without a reply. SIGPIPE is ignored by Rust's own start.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    _ = signals.thread_block();
}

/// What has been begun is carried through, whether or not the client stays and
/// whatever ends its session: only SIGKILL, and the end of the machine, leave a
/// release live that has yet to prove itself. To be called by a process that
/// moves the link; those that it executes have the usual mask.
pub fn carry_through() {
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

/// Closes every descriptor that came along with 0, 1 and 2.
///
/// Whether all was closed is not asked: what we open ourselves is
/// close-on-exec, and sshd leaves nothing open; this is for a caller that is
/// not sshd.
fn close_inherited() {
    let open: Vec<i32> = match std::fs::read_dir("/proc/self/fd") {
        // The folder's own descriptor is among them, and closed by then.
        Ok(folder) => folder
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|fd| *fd > 2)
            .collect(),
        // The unpacker, started under the monitor's Landlock, sees no /proc.
        Err(_) => (3..MAX_FILES as i32).collect(),
    };
    for fd in open {
        _ = nix::unistd::close(fd);
    }
}

/// No program executed from here on gains a privilege, and no other process of
/// this user may look into this one (prctl(2)).
pub fn give_up_privileges() -> bool {
    prctl::set_no_new_privs().is_ok()
        && prctl::set_dumpable(false).is_ok()
        && prctl::get_no_new_privs() == Ok(true)
}

/// The unpacker's share of the machine, and its end with its parent.
pub fn limit_unpacker(max_file: u64, memory: u64) -> bool {
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, max_file),
        (Resource::RLIMIT_AS, memory),
        (Resource::RLIMIT_CPU, MAX_CPU),
        (Resource::RLIMIT_NOFILE, MAX_FILES),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ];
    // A monitor that was killed leaves nobody to read the report.
    lower(&limits) && prctl::set_pdeathsig(Signal::SIGKILL).is_ok()
}

/// The probe's share of the machine, and its end with its parent. It reads a
/// mebibyte at most, by one connection that is open already.
pub fn limit_probe() -> bool {
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_AS, 512 << 20),
        (Resource::RLIMIT_CPU, 30),
        // Not 0: poll(2) counts by this limit too.
        (Resource::RLIMIT_NOFILE, 8),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ];
    lower(&limits) && prctl::set_pdeathsig(Signal::SIGKILL).is_ok()
}

/// No core file of a process that holds a site's handles, and few of those.
pub fn limit_monitor() -> bool {
    lower(&[
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, MAX_FILES),
    ])
}

fn lower(limits: &[(Resource, u64)]) -> bool {
    limits.iter().all(|(resource, wanted)| {
        // Never above what it was: an operator's own limit holds.
        getrlimit(*resource)
            .map(|(soft, hard)| soft.min(hard).min(*wanted))
            .and_then(|limit| setrlimit(*resource, limit, limit))
            .is_ok()
    })
}

/// No more threads or processes: those that are needed have been started.
///
/// Root is exempt from this limit, and the system calls are cut as well.
pub fn no_more_processes() -> bool {
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).is_ok()
}
