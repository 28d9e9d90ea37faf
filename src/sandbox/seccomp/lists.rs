//! The lists of system calls: what the unpacker and the probe may call, and what
//! the monitor may not.

use nix::libc;

/// The system calls of the unpacker once its threads have started. No exec, no
/// socket, no new thread or process, no chown, chmod or xattr, no ptrace, no hard
/// link. [`super::unpacker_arg_rules`] restricts the arguments of some of them.
///
/// abort(3) needs tgkill(2), which is not in the list: an unpacker that aborts ends
/// by SIGSYS instead of SIGABRT.
///
/// SECURITY.md states the number of calls, and a test compares it.
pub const UNPACKER: &[libc::c_long] = &[
    // Read the payload, write the report.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_fcntl,
    // Create the files. Landlock decides where.
    libc::SYS_openat,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_utimensat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    // Memory; the argument rules forbid executable memory.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads: wait for each other, and exit.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The time, where there is no vDSO, and the seed of hash tables.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
];

/// The system calls of the assembler once its threads have started. It reads files and
/// directories, and changes only the mode of a directory: no call that creates, removes,
/// renames or empties. [`super::assembler_arg_rules`] restricts the arguments of some of
/// them.
///
/// SECURITY.md states the number of calls, and a test compares it.
pub const ASSEMBLER: &[libc::c_long] = &[
    // Wait for the end of stdin, read files, write the entries.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    // Walk the tree. Landlock decides where.
    libc::SYS_openat,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    // A directory loses the set-group-id bit once it has passed its group on.
    libc::SYS_fchmod,
    // Memory; the argument rules forbid executable memory.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads: wait for each other, and exit.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The time, where there is no vDSO, and the seed of hash tables.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
];

/// The further system calls of an assembler that builds the tree of a delta: it creates
/// files, directories, symlinks and hard links, copies and moves files, and sets times. It
/// needs openat2(2), to open nothing behind a mount that may stall; see
/// `Mechanism::Truncation`. [`super::builder_arg_rules`] restricts the arguments of some.
///
/// SECURITY.md states the number of calls, and a test compares it.
pub const BUILDER: &[libc::c_long] = &[
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_renameat2,
    libc::SYS_copy_file_range,
    libc::SYS_fadvise64,
    libc::SYS_utimensat,
    // A file that is linked must be of this account.
    libc::SYS_geteuid,
];

/// The system calls of the probe once it is connected: no socket, no open, no
/// fork. `super::probe_arg_rules` restricts the arguments of some of them.
///
/// SECURITY.md states the number of calls, and a test compares it.
pub const PROBE: &[libc::c_long] = &[
    // Write the request, read the response, write the verdict.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_fcntl,
    POLL,
    // Memory; the argument rules forbid executable memory.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Exit, and end by a panic.
    libc::SYS_futex,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The time, where there is no vDSO.
    libc::SYS_clock_gettime,
];

/// The system call behind the libc's poll(3).
#[cfg(target_arch = "x86_64")]
const POLL: libc::c_long = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: libc::c_long = libc::SYS_ppoll;

/// Calls that the libc crate does not know on every architecture. From 424 on, a number is the same
/// on every architecture.
const FCHMODAT2: libc::c_long = 452;
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;
const OPEN_TREE_ATTR: libc::c_long = 467;
const FILE_SETATTR: libc::c_long = 469;

/// kexec_file_load(2), which the libc crate does not know on every architecture.
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: libc::c_long = 320;
#[cfg(not(target_arch = "x86_64"))]
const KEXEC_FILE_LOAD: libc::c_long = 294;

/// The system calls that no verb of the monitor may make. SECURITY.md ("What is
/// left") says why a deny-list can only be incomplete. prctl(2) and socketpair(2) are missing
/// on purpose: they reach the process itself and its open descriptors, and library code uses
/// them. [`FCNTL_ALLOWED`] and [`IOCTL_ALLOWED`] limit fcntl(2) and ioctl(2).
pub const DENIED: &[libc::c_long] = &[
    // Access to other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setaffinity,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Memory, queues and semaphores that processes share by number.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    // Change of identity, owner, mode or attribute.
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
    FCHMODAT2,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    // Truncation by path, device files and fifos, hard links. openat2(2), in whose flags
    // no filter sees O_TRUNC, is missing: see `Mechanism::Truncation`.
    libc::SYS_truncate,
    libc::SYS_mknodat,
    libc::SYS_linkat,
    // Namespaces and mounts.
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    // Administration of the kernel, and interfaces with many past defects.
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
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_memfd_create,
    libc::SYS_pkey_mprotect,
    libc::SYS_personality,
    // Reports of what other processes do with files and directories.
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Accepting connections.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

/// The commands of fcntl(2) that a monitor and its children may use.
///
/// Other commands affect other processes. F_SETOWN and F_SETSIG send signals to any process
/// of the user. F_SETLEASE delays every process that opens the file (lease-break-time in
/// proc_sys_fs(5)). It needs no right to write, so a monitor could delay the readers of the
/// live release.
pub const FCNTL_ALLOWED: &[libc::c_int] = &[
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_DUPFD_CLOEXEC,
    libc::F_SETPIPE_SZ,
];

/// The commands of ioctl(2) that a monitor and its children may use: those of the standard
/// library and of the libc. Others signal any process (FIOSETOWN), or change the flags of a
/// file that is open for reading (FS_IOC_SETFLAGS).
pub const IOCTL_ALLOWED: &[libc::Ioctl] =
    &[libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX, libc::TCGETS];

/// The system calls that open a file by a path, each with the number of the argument
/// that has the flags.
#[cfg(target_arch = "x86_64")]
pub const OPENS: &[(libc::c_long, u8)] = &[(libc::SYS_openat, 2), (libc::SYS_open, 1)];
#[cfg(not(target_arch = "x86_64"))]
pub const OPENS: &[(libc::c_long, u8)] = &[(libc::SYS_openat, 2)];

/// The flags of clone(2) that create a namespace. CLONE_NEWTIME is not among them:
/// clone(2) reads that bit as part of a signal number, and only unshare(2) and
/// clone3(2) take it.
pub const NAMESPACE_FLAGS: &[libc::c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// The system calls that are also denied to a verb that does not execute. It starts
/// no process after its restriction, and ends the hook runner by closing its pipe, so
/// it has no process to signal. (`receive` has the unpacker; there Landlock confines
/// signals to the sandbox, from Linux 6.12 on.)
pub const DENIED_WITHOUT_EXEC: &[libc::c_long] = &[
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

/// Older forms of the same calls, which only x86-64 has.
#[cfg(target_arch = "x86_64")]
pub const DENIED_LEGACY: &[libc::c_long] = &[
    libc::SYS_creat,
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
pub const DENIED_WITHOUT_EXEC_LEGACY: &[libc::c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
pub const DENIED_LEGACY: &[libc::c_long] = &[];
#[cfg(not(target_arch = "x86_64"))]
pub const DENIED_WITHOUT_EXEC_LEGACY: &[libc::c_long] = &[];
