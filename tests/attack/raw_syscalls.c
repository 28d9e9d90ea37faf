/* System calls that safe Rust cannot make. tests/attack.rs compiles this file as a
 * shared object and preloads it into the attacking process, where it replaces
 * getsid(3): the argument selects the call. */

#define _GNU_SOURCE
#include <sched.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define X32_SYSCALL_BIT 0x40000000L

/* execve(2) has a number of its own in the x32 ABI. */
#define X32_EXECVE 520

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
    default:
        return -1;
    }
}
