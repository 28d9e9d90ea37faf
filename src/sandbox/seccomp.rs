//! seccomp (seccomp(2)): limits which system calls a process makes.
//!
//! Each process has an allow-list. Any other call kills the unpacker, the assembler and the
//! probe. The monitor runs much library code, and the calls of a libc change. In the monitor
//! any other call returns ENOSYS, as on a kernel that does not have it. A libc that knows a
//! newer call then makes the older one.
//!
//! A process that makes a system call by the numbers of another architecture (such as `int
//! 0x80` on x86-64) is killed. The numbers of the x32 ABI are in no list.
//!
//! seccompiler knows x86-64, aarch64 and riscv64. Elsewhere no filter is installed,
//! and seccomp is reported as missing.

mod lists;

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::Rights;
use crate::manifest::DIR_MODE;
use lists::{
    EXECUTING_LEGACY, FCNTL_ALLOWED, IOCTL_ALLOWED, MONITOR_LEGACY, NAMESPACE_FLAGS, OPENS,
};

pub use lists::{ASSEMBLER, BUILDER, EXECUTING, MONITOR, PROBE, UNPACKER};

/// The rules of a filter, by system call. A call is allowed if one of its rules matches; an
/// empty vector matches every call of that number.
pub type CallRules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// Restricts the calling thread to the calls of [`PROBE`].
pub fn filter_probe() -> bool {
    let program = probe_arg_rules().and_then(|rules| allow_only(PROBE, rules));
    program.is_ok_and(|it| seccompiler::apply_filter(&it).is_ok())
}

/// Restricts every thread of this process to the calls of [`UNPACKER`].
pub fn filter_unpacker() -> bool {
    let program = unpacker_arg_rules().and_then(|rules| allow_only(UNPACKER, rules));
    program.is_ok_and(|it| seccompiler::apply_filter_all_threads(&it).is_ok())
}

/// Restricts every thread of this process to the calls of [`ASSEMBLER`], and of [`BUILDER`]
/// if it `builds` a tree.
///
/// With `directory_mode` it may give this one mode, and none without.
pub fn filter_assembler(builds: bool, directory_mode: Option<u32>) -> bool {
    let program = assembler_arg_rules(directory_mode).and_then(|mut rules| {
        let mut calls = ASSEMBLER.to_vec();
        if builds {
            rules.extend(builder_arg_rules()?);
            calls.extend(BUILDER);
        }
        if directory_mode.is_none() {
            calls.retain(|call| *call != libc::SYS_fchmod);
        }
        allow_only(&calls, rules)
    });
    program.is_ok_and(|it| seccompiler::apply_filter_all_threads(&it).is_ok())
}

/// Restricts the calling thread of the monitor, and the threads and children that it starts
/// later, to the calls of [`MONITOR`] that its `rights` allow. A verb that executes the
/// unpacker may also make those of [`EXECUTING`]. Every other verb starts no process or thread,
/// sends no signal, and maps no executable memory.
///
/// clone3(2) has its flags in memory, where no filter reads them. It is not in the list, and
/// the libc then makes clone(2).
pub fn filter_monitor(rights: &Rights<'_>) -> bool {
    let program = monitor_arg_rules(rights).and_then(|rules| {
        let mut calls = [MONITOR, MONITOR_LEGACY].concat();
        if rights.execute_self {
            calls.extend([EXECUTING, EXECUTING_LEGACY].concat());
        }
        // flock(2) needs no right to write. Without this, `list` could hold the lock of the
        // site and block every change.
        calls.retain(|call| match *call {
            libc::SYS_flock => rights.locks,
            libc::SYS_utimensat => rights.set_times,
            _ => true,
        });
        let no_such_call = SeccompAction::Errno(libc::ENOSYS as u32);
        allow(&calls, rules, no_such_call)
    });
    program.is_ok_and(|it| seccompiler::apply_filter(&it).is_ok())
}

/// As [`allow`]; any other call kills the process.
fn allow_only(calls: &[libc::c_long], arg_rules: CallRules) -> Result<BpfProgram, BackendError> {
    allow(calls, arg_rules, SeccompAction::KillProcess)
}

/// Allows `calls`, those in `arg_rules` with matching arguments only. Any other call gets
/// `otherwise`. seccompiler's program first checks the architecture, and kills the process if
/// it is a foreign one.
fn allow(
    calls: &[libc::c_long],
    mut arg_rules: CallRules,
    otherwise: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    // A rule adds no call to the list.
    arg_rules.retain(|call, _| calls.contains(call));
    let mut rules: CallRules = calls.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(arg_rules);
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()
}

/// Returns the calls of [`MONITOR`] and [`EXECUTING`] that are allowed with certain arguments
/// only.
///
/// # Errors
///
/// A defect of a rule.
pub fn monitor_arg_rules(rights: &Rights<'_>) -> Result<CallRules, BackendError> {
    let equal = |argument, value: u64| {
        let equals = condition(argument, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![equals])
    };
    let without = |argument, flags: u64| {
        let none_of = condition(argument, SeccompCmpOp::MaskedEq(flags), 0)?;
        SeccompRule::new(vec![none_of])
    };
    let fcntl = FCNTL_ALLOWED
        .iter()
        .map(|command| equal(1, *command as u64));
    let ioctl = IOCTL_ALLOWED.iter().map(|command| equal(1, *command));
    let namespaces = NAMESPACE_FLAGS.iter().fold(0, |all, flag| all | flag);
    let mut rules = CallRules::from([
        // The audit opens a local socket for each line. Another family would load a module of
        // the kernel, also for socketpair(2).
        (libc::SYS_socket, vec![equal(0, libc::AF_UNIX as u64)?]),
        (libc::SYS_socketpair, vec![equal(0, libc::AF_UNIX as u64)?]),
        // The limits of this process alone.
        (libc::SYS_prlimit64, vec![equal(0, 0)?]),
        (libc::SYS_fcntl, fcntl.collect::<Result<_, _>>()?),
        (libc::SYS_ioctl, ioctl.collect::<Result<_, _>>()?),
        // By descriptor. The unpacker, which inherits this filter, sets the times of its files,
        // and `validators` those that a cache could mistake.
        (libc::SYS_utimensat, vec![without_path()?]),
        // In a new user namespace a child would have every capability.
        (libc::SYS_clone, vec![without(0, namespaces as u64)?]),
    ]);
    // The kernel empties a file for open(2) with O_TRUNC and an access mode that does not
    // write. Landlock controls that only from Linux 6.2 on, and no verb opens so.
    for (call, flags) in OPENS {
        rules.insert(*call, vec![without(*flags, libc::O_TRUNC as u64)?]);
    }
    if !rights.execute_self {
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            rules.insert(call, vec![prot_exec_is(0)?]);
        }
    }
    Ok(rules)
}

/// Returns the calls of [`UNPACKER`] that are allowed with certain arguments only.
///
/// # Errors
///
/// A defect of a rule.
pub fn unpacker_arg_rules() -> Result<CallRules, BackendError> {
    let equal = |argument, value: libc::c_int| condition(argument, SeccompCmpOp::Eq, value as u64);
    let only = |condition| SeccompRule::new(vec![condition]);
    // Without a path utimensat(2) sets the time of an open file, and Landlock decides
    // what this process opens: its own files. A descriptor of O_PATH is refused
    // (EBADF). By a path it would reach every file of this user, because Landlock
    // controls no time.
    let by_descriptor = without_path()?;
    Ok([
        (libc::SYS_mmap, vec![prot_exec_is(0)?]),
        (libc::SYS_mprotect, vec![prot_exec_is(0)?]),
        (libc::SYS_utimensat, vec![by_descriptor]),
        (libc::SYS_mkdirat, vec![only(equal(2, 0o755)?)?]),
        (libc::SYS_openat, open_new_or_read()?),
        (libc::SYS_fcntl, file_control()?),
    ]
    .into())
}

/// Returns the calls of [`ASSEMBLER`] that are allowed with certain arguments only.
///
/// # Errors
///
/// A defect of a rule.
pub fn assembler_arg_rules(directory_mode: Option<u32>) -> Result<CallRules, BackendError> {
    // Neither a new file nor an empty one: see `Mechanism::Truncation`.
    let creates = (libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY) as u64;
    let reads = condition(2, SeccompCmpOp::MaskedEq(creates), 0)?;
    let mut rules = CallRules::from([
        (libc::SYS_mmap, vec![prot_exec_is(0)?]),
        (libc::SYS_mprotect, vec![prot_exec_is(0)?]),
        (libc::SYS_openat, vec![SeccompRule::new(vec![reads])?]),
        (libc::SYS_fcntl, file_control()?),
    ]);
    if let Some(mode) = directory_mode {
        // Only by descriptor, and only to this mode, which grants nothing to the group and to
        // others but reading.
        let mode = condition(1, SeccompCmpOp::Eq, mode.into())?;
        rules.insert(libc::SYS_fchmod, vec![SeccompRule::new(vec![mode])?]);
    }
    Ok(rules)
}

/// Returns the calls of an assembler that builds a tree which are allowed with certain
/// arguments only. openat(2) replaces the rule of [`assembler_arg_rules`].
///
/// # Errors
///
/// A defect of a rule.
pub fn builder_arg_rules() -> Result<CallRules, BackendError> {
    let equal = |argument, value: u64| condition(argument, SeccompCmpOp::Eq, value);
    let only = |condition| SeccompRule::new(vec![condition]);
    Ok([
        (libc::SYS_openat, open_new_or_read()?),
        (libc::SYS_mkdirat, vec![only(equal(2, DIR_MODE.into())?)?]),
        (libc::SYS_linkat, vec![only(equal(4, 0)?)?]),
        (
            libc::SYS_renameat2,
            vec![only(equal(4, libc::RENAME_NOREPLACE.into())?)?],
        ),
        (libc::SYS_utimensat, vec![without_path()?]),
    ]
    .into())
}

/// Returns the rules of openat(2) for a process that creates files: with `O_CREAT` only a
/// new file, of one of two modes.
fn open_new_or_read() -> Result<Vec<SeccompRule>, BackendError> {
    // O_TMPFILE includes O_DIRECTORY, which opens directories by itself.
    let neither = libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY;
    let creates = libc::O_CREAT | libc::O_EXCL;
    let flags = |mask: libc::c_int, value: libc::c_int| {
        condition(2, SeccompCmpOp::MaskedEq(mask as u64), value as u64)
    };
    let creates_with_mode = |mode: u64| {
        let mode = condition(3, SeccompCmpOp::Eq, mode)?;
        SeccompRule::new(vec![flags(neither | creates, creates)?, mode])
    };
    // A file that exists keeps its content: Landlock controls O_TRUNC only from Linux 6.2
    // on. A new file has a name and one of two modes: not set-user-id, and always
    // removable by its owner.
    Ok(vec![
        SeccompRule::new(vec![flags(neither | libc::O_CREAT, 0)?])?,
        creates_with_mode(0o644)?,
        creates_with_mode(0o755)?,
    ])
}

/// Returns the rules of fcntl(2) for the unpacker and the assembler. Neither F_SETOWN nor
/// F_SETSIG: with them a descriptor sends signals, although kill(2) is denied.
fn file_control() -> Result<Vec<SeccompRule>, BackendError> {
    [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL]
        .map(|command| SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, command as u64)?]))
        .into_iter()
        .collect()
}

/// Returns the calls of [`PROBE`] that are allowed with certain arguments only.
fn probe_arg_rules() -> Result<CallRules, BackendError> {
    // The standard library checks a descriptor before it closes it, where debug
    // assertions are on.
    let get_flags = condition(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?;
    Ok([
        (libc::SYS_mmap, vec![prot_exec_is(0)?]),
        (libc::SYS_mprotect, vec![prot_exec_is(0)?]),
        (libc::SYS_fcntl, vec![SeccompRule::new(vec![get_flags])?]),
    ]
    .into())
}

/// Matches utimensat(2) without a path.
fn without_path() -> Result<SeccompRule, BackendError> {
    // A pointer has 64 bits.
    let path = SeccompCondition::new(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    SeccompRule::new(vec![path])
}

/// Matches mmap(2) and mprotect(2) whose PROT_EXEC bit equals `bit`.
fn prot_exec_is(bit: u64) -> Result<SeccompRule, BackendError> {
    let exec = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    SeccompRule::new(vec![condition(2, exec, bit)?])
}

/// A condition on the low 32 bits of an argument, counted from 0.
fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_each_call_once() {
        let monitor = [MONITOR, MONITOR_LEGACY, EXECUTING, EXECUTING_LEGACY].concat();
        for list in [UNPACKER, ASSEMBLER, BUILDER, PROBE, &monitor] {
            let mut sorted = list.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), list.len(), "a call is in the list twice");
        }
    }

    #[test]
    fn the_unpacker_loses_no_call_to_the_filter_that_it_inherits() {
        assert!(UNPACKER.iter().all(|call| MONITOR.contains(call)));
    }

    #[test]
    fn argument_rules_allow_no_call_that_is_not_in_the_list() {
        let unpacker = unpacker_arg_rules().unwrap();
        assert!(unpacker.keys().all(|call| UNPACKER.contains(call)));
        let probe = probe_arg_rules().unwrap();
        assert!(probe.keys().all(|call| PROBE.contains(call)));
        let monitor = monitor_arg_rules(&Rights::default()).unwrap();
        let calls = [MONITOR, MONITOR_LEGACY, EXECUTING, EXECUTING_LEGACY].concat();
        assert!(monitor.keys().all(|call| calls.contains(call)));
        // A call without rules would be allowed with any arguments.
        let assembler = assembler_arg_rules(Some(0o755)).unwrap();
        assert!(assembler.keys().all(|call| ASSEMBLER.contains(call)));
        let all = unpacker
            .values()
            .chain(assembler.values())
            .chain(probe.values())
            .chain(monitor.values());
        assert!(all.into_iter().all(|rules| !rules.is_empty()));
    }
}
