/* stalled_fs DIRECTORY [attributes]: mounts a file system there that answers no request
 * but the first, by fuse(4), and with the word those for the attributes of its root. A process that looks at it waits in the kernel, where no signal
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
        union {
            struct fuse_init_out init;
            struct fuse_attr_out attributes;
        };
    } answer;
    char options[80];
    int device = open("/dev/fuse", O_RDWR);

    if (argc < 2 || device < 0)
        return 1;
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", device,
             geteuid(), getegid());
    if (mount("stalled", argv[1], "fuse", MS_NOSUID | MS_NODEV, options) != 0)
        return 1;
    while (read(device, &request, sizeof request) > 0) {
        memset(&answer, 0, sizeof answer);
        answer.head.unique = request.head.unique;
        if (request.head.opcode == FUSE_INIT) {
            answer.head.len = sizeof answer.head + sizeof answer.init;
            answer.init.major = FUSE_KERNEL_VERSION;
            answer.init.minor = FUSE_KERNEL_MINOR_VERSION;
            answer.init.max_write = 4096;
        } else if (request.head.opcode == FUSE_GETATTR && argc > 2) {
            answer.head.len = sizeof answer.head + sizeof answer.attributes;
            answer.attributes.attr.ino = request.head.nodeid;
            answer.attributes.attr.mode = 040755;
            answer.attributes.attr.nlink = 2;
        } else {
            continue;
        }
        if (write(device, &answer, answer.head.len) != answer.head.len)
            return 1;
    }
    return 0;
}
