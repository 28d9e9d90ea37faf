//! seccomp (seccomp(2)): limits which system calls a process makes.
//!
//! The unpacker, the assembler and the probe have an allow-list each; any other call kills
//! them.
//! The monitor has a deny-list: a verb runs so much library code that an allow-list
//! for all of it would break with the next libc.
//!
//! A process that makes a system call by the numbers of another architecture (such
//! as `int 0x80` on x86-64) or of the x32 ABI is killed. An allow-list does both by
//! itself; the monitor has a second filter for x32.
//!
//! seccompiler knows x86-64, aarch64 and riscv64. Elsewhere no filter is installed,
//! and seccomp is reported as missing.

mod lists;

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use super::Rights;
use crate::manifest::DIR_MODE;
use lists::{
    DENIED, DENIED_LEGACY, DENIED_WITHOUT_EXEC, DENIED_WITHOUT_EXEC_LEGACY, FCNTL_ALLOWED,
    IOCTL_ALLOWED, NAMESPACE_FLAGS, OPENS,
};

pub use lists::{ASSEMBLER, BUILDER, PROBE, UNPACKER};

/// The rules of a filter, by system call. A call matches if one of its rules does;
/// an empty vector matches every call of that number. In an allow-list a match means
/// that the call is allowed, in a deny-list that it returns EPERM.
pub type CallRules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// The first number of the x32 ABI, which some x86-64 kernels offer beside their
/// own numbers. A deny-list of native numbers does not match it, and x32 has
/// numbers of its own for execve(2), ptrace(2) and others.
const X32_SYSCALL_BIT: u32 = 0x4000_0000;

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

/// Denies the calling thread of the monitor, and the threads and children that it
/// starts later, the calls that no verb needs, or that its `rights` do not allow. A verb
/// that does not execute the unpacker is also denied calls that start a process or thread,
/// send a signal, or map executable memory.
///
/// A denied call returns EPERM instead of killing the process: a call that a new
/// libc makes in passing must not turn a reply into a signal.
pub fn filter_monitor(rights: &Rights<'_>) -> bool {
    // Two filters: all filters of a process run, and the strictest result counts.
    let install = |program: &BpfProgram| seccompiler::apply_filter(program).is_ok();
    deny_filter(rights).is_ok_and(|denied| install(&x32_and_clone3_filter()) && install(&denied))
}

/// Allows `calls`, those in `arg_rules` with matching arguments only, and kills
/// the process that makes any other call. Numbers of x32 are not in the list.
fn allow_only(calls: &[libc::c_long], arg_rules: CallRules) -> Result<BpfProgram, BackendError> {
    let mut rules = without_arg_rules(calls);
    rules.extend(arg_rules);
    compile(rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

/// Returns rules that match every call of these numbers.
fn without_arg_rules(calls: &[libc::c_long]) -> CallRules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Compiles `rules`. seccompiler's program first checks the architecture, and
/// kills the process if it is a foreign one.
fn compile(
    rules: CallRules,
    default_action: SeccompAction,
    match_action: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, default_action, match_action, arch)?.try_into()
}

/// Kills a process that uses x32 numbers, and answers ENOSYS to clone3(2), as if the
/// kernel did not have it.
///
/// seccompiler cannot compare a range of numbers, hence these six instructions.
/// clone3(2) has its flags in memory, where no filter reads them; on ENOSYS the
/// libc falls back to clone(2), whose flags a filter reads.
fn x32_and_clone3_filter() -> BpfProgram {
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| {
        let code = code as u16;
        sock_filter { code, jt, jf, k }
    };
    // The number is the first field of struct seccomp_data. A jump skips `jt`
    // instructions if the comparison holds, else `jf`.
    let load_number = instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
    let jump = |comparison: u32, value: u32, jt: u8, jf: u8| {
        instruction(libc::BPF_JMP | comparison | libc::BPF_K, value, jt, jf)
    };
    let ret = |action: SeccompAction| instruction(libc::BPF_RET | libc::BPF_K, action.into(), 0, 0);
    vec![
        load_number,
        jump(libc::BPF_JGE, X32_SYSCALL_BIT, 0, 1),
        ret(SeccompAction::KillProcess),
        jump(libc::BPF_JEQ, libc::SYS_clone3 as u32, 0, 1),
        ret(SeccompAction::Errno(libc::ENOSYS as u32)),
        ret(SeccompAction::Allow),
    ]
}

/// Returns the monitor's deny-list. On x86-64, x32 numbers pass it.
fn deny_filter(rights: &Rights<'_>) -> Result<BpfProgram, BackendError> {
    let mut rules = without_arg_rules(&[DENIED, DENIED_LEGACY].concat());
    // The kernel empties a file for open(2) with O_TRUNC and an access mode that does not
    // write. Landlock controls that only from Linux 6.2 on, and no verb opens so.
    for (call, flags) in OPENS {
        let truncate = libc::O_TRUNC as u64;
        let truncates = condition(*flags, SeccompCmpOp::MaskedEq(truncate), truncate)?;
        rules.insert(*call, vec![SeccompRule::new(vec![truncates])?]);
    }
    // The audit opens a local socket for each line; every other kind is denied.
    let not_local = condition(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64)?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![not_local])?]);
    // A process may change its own limits, and those of no other process.
    let not_own = condition(0, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![not_own])?]);
    let fcntl = FCNTL_ALLOWED.iter().map(|command| *command as u64);
    let ioctl = IOCTL_ALLOWED.iter().copied();
    rules.insert(libc::SYS_fcntl, vec![no_command_of(fcntl)?]);
    rules.insert(libc::SYS_ioctl, vec![no_command_of(ioctl)?]);
    if rights.writable_files.is_empty() {
        // flock(2) needs no right to write, so `list`, which has no records to write, could
        // hold the lock of the site and block every change.
        rules.insert(libc::SYS_flock, Vec::new());
    }
    if rights.set_times {
        // By descriptor. The unpacker, which inherits this filter, sets the times of its
        // files, and `validators` those that a cache could mistake. A path stays denied.
        let by_path = path_is(SeccompCmpOp::Ne)?;
        rules.insert(libc::SYS_utimensat, vec![by_path]);
    }
    if rights.execute_self {
        // A child is allowed, but not in a new user namespace, where it would have
        // every capability, nor in another new namespace.
        let new_namespace = NAMESPACE_FLAGS.iter().map(|flag| {
            let flag = *flag as u64;
            SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])
        });
        rules.insert(libc::SYS_clone, new_namespace.collect::<Result<_, _>>()?);
    } else {
        let calls = [DENIED_WITHOUT_EXEC, DENIED_WITHOUT_EXEC_LEGACY].concat();
        rules.extend(without_arg_rules(&calls));
        let executable = libc::PROT_EXEC as u64;
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            rules.insert(call, vec![prot_exec_is(executable)?]);
        }
    }
    compile(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
    )
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
    let by_descriptor = path_is(SeccompCmpOp::Eq)?;
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
        (libc::SYS_utimensat, vec![path_is(SeccompCmpOp::Eq)?]),
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

/// Matches fcntl(2) and ioctl(2) with a command that is not in `commands`.
fn no_command_of(commands: impl Iterator<Item = u64>) -> Result<SeccompRule, BackendError> {
    let others = commands.map(|command| condition(1, SeccompCmpOp::Ne, command));
    SeccompRule::new(others.collect::<Result<_, _>>()?)
}

/// Matches utimensat(2) by its path: `Eq` one without a path, `Ne` one with a path.
fn path_is(operator: SeccompCmpOp) -> Result<SeccompRule, BackendError> {
    // A pointer has 64 bits.
    let path = SeccompCondition::new(1, SeccompCmpArgLen::Qword, operator, 0)?;
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
    fn lists_name_each_call_once_and_allow_lists_no_denied_call() {
        let denied = [
            DENIED,
            DENIED_WITHOUT_EXEC,
            DENIED_LEGACY,
            DENIED_WITHOUT_EXEC_LEGACY,
        ]
        .concat();
        for list in [UNPACKER, ASSEMBLER, BUILDER, PROBE, &denied] {
            let mut sorted = list.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), list.len(), "a call is in the list twice");
        }
        // A monitor that sets times denies utimensat(2) with a path only: `deny_filter`. The
        // assembler does not inherit the filter of the monitor.
        for (list, denied_with_some_arguments) in [
            (UNPACKER, &[libc::SYS_utimensat][..]),
            (ASSEMBLER, &[libc::SYS_fchmod]),
            (PROBE, &[]),
        ] {
            let in_both: Vec<_> = list.iter().filter(|call| denied.contains(call)).collect();
            assert!(in_both.into_iter().eq(denied_with_some_arguments));
        }
    }

    #[test]
    fn argument_rules_allow_no_call_that_is_not_in_the_list() {
        let unpacker = unpacker_arg_rules().unwrap();
        assert!(unpacker.keys().all(|call| UNPACKER.contains(call)));
        let probe = probe_arg_rules().unwrap();
        assert!(probe.keys().all(|call| PROBE.contains(call)));
        // A call without rules would be allowed with any arguments.
        let assembler = assembler_arg_rules(Some(0o755)).unwrap();
        assert!(assembler.keys().all(|call| ASSEMBLER.contains(call)));
        let all = unpacker
            .values()
            .chain(assembler.values())
            .chain(probe.values());
        assert!(all.into_iter().all(|rules| !rules.is_empty()));
    }
}
