//! The lists of system calls that each process may make.

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

/// The system calls of a monitor, and of the unpacker until it has its own list. Another libc
/// makes some of them, and some serve only the message of an error. Landlock, a descriptor or
/// an argument rule ([`super::monitor_arg_rules`]) decides what each of them reaches. The
/// exceptions are metadata, the state of the machine (sysinfo(2)), and on older kernels local
/// sockets and signals: SECURITY.md, "What is left".
///
/// SECURITY.md states the number of calls, and a test compares it.
pub const MONITOR: &[libc::c_long] = &[
    // Descriptors that are open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_flock,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_signalfd4,
    // Files and directories. Landlock decides which.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_utimensat,
    // The access control list that new files inherit. A descriptor of O_PATH is refused.
    libc::SYS_fgetxattr,
    // Metadata.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_getcwd,
    // The audit log, and the socket pair to the unpacker.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Memory. Some verbs map none that is executable.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Children and threads: wait for them, and exit.
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals to this process.
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // The process itself.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_umask,
    // The machine, the time, and the seed of hash tables.
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
];

/// The further system calls of a monitor that executes the unpacker: it starts processes and
/// threads, and signals the unpacker, which loads its libraries and restricts itself. Landlock
/// confines signals to the sandbox, from Linux 6.12 on.
///
/// SECURITY.md states the number of calls, and a test compares it.
pub const EXECUTING: &[libc::c_long] = &[
    libc::SYS_clone,
    libc::SYS_execve,
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// Older forms of calls in [`MONITOR`] and [`EXECUTING`], which not every architecture has.
#[cfg(target_arch = "x86_64")]
pub const MONITOR_LEGACY: &[libc::c_long] = &[
    libc::SYS_renameat,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_time,
    libc::SYS_getrlimit,
];
#[cfg(target_arch = "x86_64")]
pub const EXECUTING_LEGACY: &[libc::c_long] =
    &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_arch_prctl];
#[cfg(target_arch = "aarch64")]
pub const MONITOR_LEGACY: &[libc::c_long] = &[libc::SYS_renameat];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const MONITOR_LEGACY: &[libc::c_long] = &[];
#[cfg(not(target_arch = "x86_64"))]
pub const EXECUTING_LEGACY: &[libc::c_long] = &[];

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
