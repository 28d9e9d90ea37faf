/* fork_chains CHAINS STOP: starts chains of processes. Each process of a chain starts
 * the next one in a new session, and ends. The first process of all does not end. The
 * chains end when the file STOP exists, and after a minute. A limit keeps them from
 * using up the process numbers of the machine; the kernel exempts root from it. */
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void chain(const char *stop, time_t end)
{
    while (access(stop, F_OK) != 0 && time(NULL) < end) {
        pid_t next = fork();
        if (next > 0)
            _exit(0);
        if (next == 0)
            setsid();
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    struct rlimit limit = {2000, 2000};
    time_t end = time(NULL) + 60;
    int chains = argc > 2 ? atoi(argv[1]) : 0;

    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        return 1;
    if (setrlimit(RLIMIT_NPROC, &limit) != 0)
        return 1;
    for (int i = 0; i < chains; i++)
        if (fork() == 0)
            chain(argv[2], end);
    sleep(60);
    return 0;
}
