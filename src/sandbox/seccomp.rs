//! seccomp (seccomp(2)): which system calls may be made at all.
//!
//! The unpacker and the probe have each a list of what they may call; anything
//! else kills them. The monitor has a list of what it may not: it runs a verb's worth of library
//! code, and a list of all that could call would be a promise that breaks with
//! the next libc.

use nix::libc;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompCmpOp, SeccompRule};

use super::Powers;
use super::filter::{List, Rules, condition};

/// What the unpacker may call once its threads stand. No exec, no socket, no
/// new thread or process, no chown, chmod or xattr, no ptrace, no link.
///
/// A test holds the length of this list, so that it cannot grow unseen.
pub const UNPACKER: &[libc::c_long] = &[
    // The payload in, the report out.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    // The files. Where they may be is Landlock's to say.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    // Memory; none of it executable, see below.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads: to wait for each other, and to end.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time, where there is no vDSO, and what a hash table wants to start.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
];

/// What the probe may call once it is connected: no socket, no open, no fork.
///
/// Held by a test as well.
pub const PROBE: &[libc::c_long] = &[
    // The question out, the answer in, the verdict out.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_fcntl,
    POLL,
    // Memory; none of it executable, see below.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // To end, by a panic as well.
    libc::SYS_futex,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time, where there is no vDSO.
    libc::SYS_clock_gettime,
];

/// The call that a libc waits with.
#[cfg(target_arch = "x86_64")]
const POLL: libc::c_long = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: libc::c_long = libc::SYS_ppoll;

/// Calls that are newer than our libc knows; from 424 on, a number is the same
/// on every machine.
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;
const FILE_SETATTR: libc::c_long = 469;

/// What no verb of the monitor may call.
const NEVER: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_setpriority,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
    // Another identity, other owners, other modes and attributes.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_mknodat,
    libc::SYS_linkat,
    // Other namespaces and file systems.
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_memfd_create,
    libc::SYS_pkey_mprotect,
    libc::SYS_personality,
    // Being reached from outside.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

/// The flags of clone(2) that make a namespace.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// What a verb that does not execute may not call either: it has no child, and
/// so nobody to signal. (`receive` has; there Landlock keeps signals inward,
/// from Linux 6.12 on.)
const NO_EXEC: &[libc::c_long] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_clone,
];

/// The same calls as older programs make them; other machines never had them.
#[cfg(target_arch = "x86_64")]
const NEVER_OLD: &[libc::c_long] = &[
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_chmod,
    libc::SYS_mknod,
    libc::SYS_link,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(target_arch = "x86_64")]
const NO_EXEC_OLD: &[libc::c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_OLD: &[libc::c_long] = &[];
#[cfg(not(target_arch = "x86_64"))]
const NO_EXEC_OLD: &[libc::c_long] = &[];

/// Leaves this process what is in [`PROBE`].
pub fn probe() -> bool {
    let build = || {
        // A handle is looked at before it is closed, where assertions are on.
        let look = condition(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?;
        let look = SeccompRule::new(vec![look])?;
        only(PROBE, [(libc::SYS_fcntl, vec![look])].into())
    };
    build().is_ok_and(|it| seccompiler::apply_filter(&it).is_ok())
}

/// Leaves every thread of this process what is in [`UNPACKER`].
pub fn unpacker() -> bool {
    let program = arguments().and_then(|asked| only(UNPACKER, asked));
    program.is_ok_and(|it| seccompiler::apply_filter_all_threads(&it).is_ok())
}

/// Allows `calls`, those of `asked` with such arguments only, and no executable
/// memory. Whoever calls anything else is killed.
fn only(calls: &[libc::c_long], asked: Rules) -> Result<BpfProgram, BackendError> {
    let mut rules: Rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![protection(0)?]);
    }
    rules.extend(asked);
    let list = List {
        rules,
        listed: SeccompAction::Allow,
        others: SeccompAction::KillProcess,
        absent: None,
    };
    list.program()
}

/// The calls that are allowed with some arguments only.
fn arguments() -> Result<Rules, BackendError> {
    let equal = |argument, value: libc::c_int| {
        SeccompRule::new(vec![condition(argument, SeccompCmpOp::Eq, value as u64)?])
    };
    let creates = SeccompCmpOp::MaskedEq(libc::O_CREAT as u64);
    let opens = SeccompRule::new(vec![condition(2, creates, 0)?])?;
    // What is made has one of two modes: nothing set-user-id, nothing that its
    // owner could not clear away again. openat2(2) has its mode in memory, out
    // of a filter's reach; what it could make is found when the tree is
    // inspected, and until then stands in a folder that nobody else can enter.
    let open = vec![opens, equal(3, 0o644)?, equal(3, 0o755)?];
    // Not F_SETOWN and F_SETSIG, which send signals where kill(2) may not.
    let control = vec![
        equal(1, libc::F_GETFD)?,
        equal(1, libc::F_SETFD)?,
        equal(1, libc::F_GETFL)?,
    ];
    Ok([
        (libc::SYS_mkdirat, vec![equal(2, 0o755)?]),
        (libc::SYS_openat, open),
        (libc::SYS_fcntl, control),
    ]
    .into())
}

/// Takes from the monitor what its verb has no use for.
///
/// It is told EPERM and not killed: a call that a new libc makes in passing
/// must not turn an answer into a signal.
pub fn monitor(powers: &Powers) -> bool {
    let build = || {
        let mut rules: Rules = [NEVER, NEVER_OLD]
            .concat()
            .iter()
            .map(|call| (*call, Vec::new()))
            .collect();
        // The record goes over a local socket; there is no other.
        let other = condition(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64)?;
        rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![other])?]);
        // Its own limits, and no other process's.
        let other = condition(0, SeccompCmpOp::Ne, 0)?;
        rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![other])?]);
        if powers.executes {
            // A child, but in no namespace of its own, where it would be root.
            let fresh = NAMESPACES.iter().map(|flag| {
                let flag = *flag as u64;
                SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])
            });
            rules.insert(libc::SYS_clone, fresh.collect::<Result<_, _>>()?);
        } else {
            let no_exec = [NO_EXEC, NO_EXEC_OLD].concat();
            rules.extend(no_exec.iter().map(|call| (*call, Vec::new())));
            for call in [libc::SYS_mmap, libc::SYS_mprotect] {
                rules.insert(call, vec![protection(libc::PROT_EXEC as u64)?]);
            }
        }
        let list = List {
            rules,
            listed: SeccompAction::Errno(libc::EPERM as u32),
            others: SeccompAction::Allow,
            // The flags of clone3(2) stand in memory, where no filter can look at
            // them. Told that there is no such call, libc makes do with clone(2).
            absent: Some(libc::SYS_clone3),
        };
        list.program()
    };
    build().is_ok_and(|it| seccompiler::apply_filter(&it).is_ok())
}

/// Memory whose executable bit is `bit`, for mmap and mprotect alike.
fn protection(bit: u64) -> Result<SeccompRule, BackendError> {
    let exec = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    SeccompRule::new(vec![condition(2, exec, bit)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_short_and_stay_so() {
        assert_eq!(
            UNPACKER.len(),
            30,
            "a call was added: say why in its commit, and here"
        );
        assert_eq!(PROBE.len(), 20, "as above");
        let forbidden = [NEVER, NO_EXEC, NEVER_OLD, NO_EXEC_OLD].concat();
        for list in [UNPACKER, PROBE] {
            let mut sorted = list.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), list.len(), "a call stands twice");
            assert!(list.iter().all(|call| !forbidden.contains(call)));
        }
    }
}
