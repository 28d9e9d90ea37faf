/* System calls that safe Rust cannot make. tests/attack.rs compiles this file as a
 * shared object and preloads it into the attacking process, where it replaces
 * getsid(3): the argument selects the call. */

#define _GNU_SOURCE
#include <asm/sockios.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define X32_SYSCALL_BIT 0x40000000L

/* execve(2) has a number of its own in the x32 ABI. */
#define X32_EXECVE 520

/* The headers may be older than these calls. */
#define OPEN_TREE_ATTR 467
#ifdef __x86_64__
#define KEXEC_FILE_LOAD 320
#else
#define KEXEC_FILE_LOAD 294
#endif

/* Makes the parent the process that a socket signals. */
static int set_owner_of_socket(void)
{
    int pair[2], parent = getppid();
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return -1;
    return ioctl(pair[0], FIOSETOWN, &parent);
}

/* From the working directory, which is the staging directory. */
#define LIVE_FILE "../../../../releases/r1/index.html"
#define SECRET "../../../../../beside/secret"

/* A message queue. Queues are not files of a directory. */
#define QUEUE "deploy-shell-attack"

/* Opens a file with O_TRUNC for neither reading nor writing, by a system call. */
static int truncate_by(long call, const char *path)
{
    struct stat found;
    struct open_how how = {.flags = O_ACCMODE | O_TRUNC};
    int opened = -1;
    if (call == SYS_openat2)
        opened = syscall(call, AT_FDCWD, path, &how, sizeof how);
    else if (call == SYS_openat)
        opened = syscall(call, AT_FDCWD, path, O_ACCMODE | O_TRUNC);
#ifdef SYS_open
    else
        opened = syscall(call, path, O_ACCMODE | O_TRUNC);
#endif
    if (opened < 0 || fstat(opened, &found) != 0)
        return -1;
    errno = EPERM;
    return found.st_size == 0 ? 0 : -1;
}

pid_t getsid(pid_t which)
{
    switch (which) {
    case 1:
        return syscall(X32_SYSCALL_BIT | SYS_getpid);
    case 2:
        return syscall(X32_SYSCALL_BIT | X32_EXECVE, 0L, 0L, 0L);
#ifdef __x86_64__
    case 3: {
        long result;
        /* getpid(2) of i386 */
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "cc");
        return result;
    }
#endif
    case 4:
        /* No arguments at all: the kernel returns EINVAL. */
        return syscall(SYS_clone3, 0L, 0L);
    case 5:
        /* A combination of flags that the kernel refuses with EINVAL. */
        return syscall(SYS_clone, (long)(CLONE_NEWUSER | CLONE_FS), 0L, 0L, 0L, 0L);
    case 6:
        return fcntl(STDERR_FILENO, F_SETOWN, getppid());
    case 7:
        return set_owner_of_socket();
    /* The arguments of the following calls are refused with EINVAL or EFAULT, after
     * the capabilities of the caller. */
    case 8:
        return syscall(SYS_process_madvise, -1L, 0L, 0L, 0L, ~0L);
    case 9:
        return syscall(SYS_shmat, -1L, 0L, 0L);
    case 10:
        return syscall(OPEN_TREE_ATTR, -1L, 0L, ~0L, 0L, 0L);
    case 11:
        return syscall(SYS_fspick, -1L, 0L, ~0L);
    case 12:
        return syscall(KEXEC_FILE_LOAD, -1L, -1L, 0L, 0L, ~0L);
    case 13:
        return syscall(SYS_swapoff, 0L);
    case 14: {
        struct f_owner_ex owner = {F_OWNER_PID, getppid()};
        return fcntl(STDERR_FILENO, F_SETOWN_EX, &owner);
    }
    case 15:
        return fcntl(STDERR_FILENO, F_SETSIG, SIGTERM);
    case 16:
        return truncate_by(SYS_openat, LIVE_FILE);
    case 17:
#ifdef SYS_open
        return truncate_by(SYS_open, LIVE_FILE);
#else
        return truncate_by(SYS_openat, LIVE_FILE);
#endif
    case 18:
        return truncate_by(SYS_openat2, LIVE_FILE);
    case 19:
        return truncate_by(SYS_openat, SECRET);
    case 20:
        return truncate_by(SYS_openat2, SECRET);
    case 21:
        return fcntl(open(LIVE_FILE, O_RDONLY), F_SETLEASE, F_WRLCK);
    case 22: {
        int flags = FS_NODUMP_FL;
        return ioctl(open(LIVE_FILE, O_RDONLY), FS_IOC_SETFLAGS, &flags);
    }
    case 23:
        return inotify_add_watch(inotify_init1(0), "/", IN_OPEN);
    case 24:
        /* Landlock refuses the descriptor of a new queue, but the queue is there. */
        syscall(SYS_mq_open, QUEUE, O_CREAT | O_RDWR, 0600, NULL);
        return syscall(SYS_mq_unlink, QUEUE);
    case 25: {
        unsigned long context = 0;
        return syscall(SYS_io_setup, 1, &context);
    }
    case 26:
        return syscall(SYS_listxattr, SECRET, NULL, 0L) < 0 ? -1 : 0;
    case 27: {
        /* It fails in the code of the family, which the kernel would load as a module. */
        int pair[2];
        return socketpair(AF_INET, SOCK_STREAM, 0, pair) == -1 && errno == EOPNOTSUPP ? 0 : -1;
    }
    default:
        return -1;
    }
}
