/* Counts the calls that change files below one folder, and fails or kills at the n-th.

   Loaded before libc, so that HDF5's writes go through it as Python's do. The state lies in memory shared with the
   parent, which arms it before a run and reads the count after it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { NOTHING, KILL_BEFORE, KILL_TORN, DISK_FULL, NO_FALLOCATE };

struct state {
    long count; /* calls so far */
    long at;    /* the call at which it happens, from 1 */
    long mode;
    char folder[4000];
};

static struct state *shared;

void faults_share(void *memory) { shared = memory; }

static int below(const char *path) {
    return shared && path && strncmp(path, shared->folder, strlen(shared->folder)) == 0;
}

static int ours(int descriptor) {
    char link[64], path[4096];
    ssize_t length;
    if (!shared || !shared->folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* Count one call; return whether it must fail for want of space. */
static int strike(void) {
    long now = __sync_add_and_fetch(&shared->count, 1);
    if (shared->mode == KILL_BEFORE && now == shared->at) kill(getpid(), SIGKILL);
    return (shared->mode == DISK_FULL || shared->mode == NO_FALLOCATE) && shared->at && now >= shared->at;
}

static int torn(void) { return shared->mode == KILL_TORN && shared->count == shared->at; }

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

#define WRITER(name, signature, call, halved)                                                     \
    ssize_t name signature {                                                                       \
        if (ours(fd)) {                                                                            \
            if (strike()) { errno = ENOSPC; return -1; }                                           \
            if (torn()) { REAL(name) halved; kill(getpid(), SIGKILL); }                            \
        }                                                                                          \
        return REAL(name) call;                                                                    \
    }

WRITER(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, size / 2))
WRITER(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), (fd, data, size / 2, at))
WRITER(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), (fd, data, size / 2, at))

#define GROWER(name, type)                                                                         \
    int name(int fd, type offset, type length) {                                                   \
        if (ours(fd)) {                                                                            \
            int full = strike();                                                                   \
            if (shared->mode == NO_FALLOCATE) return EOPNOTSUPP;                                   \
            if (full) return ENOSPC;                                                               \
        }                                                                                          \
        return REAL(name)(fd, offset, length);                                                     \
    }

GROWER(posix_fallocate, off_t)
GROWER(posix_fallocate64, off64_t)

#define COUNTED(name, signature, call, condition, free_of_space)                                   \
    int name signature {                                                                           \
        if (condition && strike() && !(free_of_space)) { errno = ENOSPC; return -1; }              \
        return REAL(name) call;                                                                    \
    }

COUNTED(fsync, (int fd), (fd), ours(fd), 0)
COUNTED(ftruncate, (int fd, off_t size), (fd, size), ours(fd), 1)
COUNTED(ftruncate64, (int fd, off64_t size), (fd, size), ours(fd), 1)
COUNTED(rename, (const char *old, const char *new), (old, new), below(new), 1)
COUNTED(unlink, (const char *path), (path), below(path), 1)
