/* A disk of which one read takes long, where this is loaded before the C library: the
   read of this process that has the number STALL_AT, from 1, of those at a given
   place. It takes STALL_MS milliseconds, and makes the file STALLED. Linux. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static void stall(void) {
    static atomic_long count;
    const char *at = getenv("STALL_AT");
    if (at == NULL || atomic_fetch_add(&count, 1) + 1 != atol(at))
        return;
    int file = open(getenv("STALLED"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (file >= 0)
        close(file);
    long ms = atol(getenv("STALL_MS"));
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

ssize_t pread(int file, void *buffer, size_t count, off_t at) {
    ssize_t (*next)(int, void *, size_t, off_t) = dlsym(RTLD_NEXT, "pread");
    stall();
    return next(file, buffer, count, at);
}

ssize_t pread64(int file, void *buffer, size_t count, off64_t at) {
    ssize_t (*next)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
    stall();
    return next(file, buffer, count, at);
}
