/* A disk that does not answer, where this is loaded before the C library: for paths with
   "hanging-disk" in them it does not say what they really are, for those with "dead-disk"
   it says nothing at all. For those with "slow-disk" it takes half a second to say what
   they really are. Linux. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void hang_if_dead(const char *path) {
    if (path != NULL && strstr(path, "dead-disk") != NULL)
        for (;;)
            pause();
}

char *realpath(const char *restrict path, char *restrict resolved) {
    char *(*next)(const char *, char *) = dlsym(RTLD_NEXT, "realpath");
    hang_if_dead(path);
    if (strstr(path, "hanging-disk") != NULL)
        for (;;)
            pause();
    if (strstr(path, "slow-disk") != NULL)
        usleep(500 * 1000);
    return next(path, resolved);
}

int statx(int directory, const char *restrict path, int flags, unsigned int mask,
          struct statx *restrict about) {
    int (*next)(int, const char *, int, unsigned int, struct statx *) =
        dlsym(RTLD_NEXT, "statx");
    hang_if_dead(path);
    return next(directory, path, flags, mask, about);
}

int stat64(const char *restrict path, struct stat64 *restrict about) {
    int (*next)(const char *, struct stat64 *) = dlsym(RTLD_NEXT, "stat64");
    hang_if_dead(path);
    return next(path, about);
}

int open64(const char *path, int flags, ...) {
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    hang_if_dead(path);
    return next(path, flags, mode);
}
