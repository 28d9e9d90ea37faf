/* stalled_fs DIRECTORY: mounts a file system there that answers no request but the
 * first, by fuse(4). A process that looks at it waits in the kernel, where no signal
 * ends it, until this program ends. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <linux/fuse.h>

int main(int argc, char **argv)
{
    static union {
        struct fuse_in_header head;
        char bytes[1 << 20];
    } request;
    struct {
        struct fuse_out_header head;
        struct fuse_init_out init;
    } answer;
    char options[80];
    int device = open("/dev/fuse", O_RDWR);

    if (argc != 2 || device < 0)
        return 1;
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", device,
             geteuid(), getegid());
    if (mount("stalled", argv[1], "fuse", MS_NOSUID | MS_NODEV, options) != 0)
        return 1;
    while (read(device, &request, sizeof request) > 0) {
        if (request.head.opcode != FUSE_INIT)
            continue;
        memset(&answer, 0, sizeof answer);
        answer.head.len = sizeof answer;
        answer.head.unique = request.head.unique;
        answer.init.major = FUSE_KERNEL_VERSION;
        answer.init.minor = FUSE_KERNEL_MINOR_VERSION;
        answer.init.max_write = 4096;
        if (write(device, &answer, sizeof answer) != sizeof answer)
            return 1;
    }
    return 0;
}
