/* A disk that does not say what a path really is, where this is loaded before the C
   library: for paths with "hanging-disk" in them. For those with "slow-disk" it takes
   half a second. Linux. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *realpath(const char *restrict path, char *restrict resolved) {
    char *(*next)(const char *, char *) = dlsym(RTLD_NEXT, "realpath");
    if (strstr(path, "hanging-disk") != NULL)
        for (;;)
            pause();
    if (strstr(path, "slow-disk") != NULL)
        usleep(500 * 1000);
    return next(path, resolved);
}
