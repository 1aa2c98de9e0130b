/* Preloaded by the power campaign: a disk that is never, or late, told to keep what was written.
 *
 * TRACKPOST_SYNC=never makes every sync a success that does nothing: mail must be lost then, or the campaign proves
 * nothing. TRACKPOST_SYNC=late waits before the sync: whoever acknowledges without waiting for it is caught, as the
 * cut then comes before the disk has anything.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int through(const char *name, int fd) {
    const char *how = getenv("TRACKPOST_SYNC");
    if (how && !strcmp(how, "never"))
        return 0;
    if (how && !strcmp(how, "late"))
        usleep(60000);
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd) { return through("fsync", fd); }
int fdatasync(int fd) { return through("fdatasync", fd); }
int syncfs(int fd) { return through("syncfs", fd); }
int sync_file_range(int fd, off64_t from, off64_t length, unsigned flags) {
    const char *how = getenv("TRACKPOST_SYNC");
    if (how && !strcmp(how, "never"))
        return 0;
    int (*real)(int, off64_t, off64_t, unsigned) = dlsym(RTLD_NEXT, "sync_file_range");
    return real(fd, from, length, flags);
}
