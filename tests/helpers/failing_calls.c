/* System calls that fail, where this is loaded before the C library. Linux.

   FAIL_CALL   open, temporary, read or lock: opening, making a temporary file, reading or
               setting a lock
   FAIL_PATH   how the path of the file ends, or what is in its name if it begins with *
   FAIL_ERRNO  what they fail with; 0: they do not fail, and FAIL_LOG counts them
   FAIL_FROM   the first of these calls that fails, from 1
   FAIL_TIMES  how many of them do
   FAIL_LOG    a file that gets a line for each that does
   STATUS      a file that gets this process's status when it ends */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static long number(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value == NULL ? otherwise : atol(value);
}

static int is_meant(const char *call, const char *path) {
    const char *wanted = getenv("FAIL_CALL"), *end = getenv("FAIL_PATH");
    if (wanted == NULL || end == NULL || path == NULL || strcmp(wanted, call) != 0)
        return 0;
    if (end[0] == '*')
        return strstr(path, end + 1) != NULL;
    size_t all = strlen(path), last = strlen(end);
    return all >= last && strcmp(path + all - last, end) == 0;
}

static int append(const char *file, const char *text) {
    int log = (int)syscall(SYS_openat, AT_FDCWD, file, O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
    if (log < 0)
        return -1;
    ssize_t done = write(log, text, strlen(text));
    syscall(SYS_close, log);
    return done < 0 ? -1 : 0;
}

/* True where this call fails, with errno set. */
static int fails(const char *call, const char *path) {
    static atomic_long count;
    if (!is_meant(call, path))
        return 0;
    long at = atomic_fetch_add(&count, 1) + 1, from = number("FAIL_FROM", 1);
    if (at < from || at - from >= number("FAIL_TIMES", LONG_MAX))
        return 0;
    if (getenv("FAIL_LOG") != NULL)
        append(getenv("FAIL_LOG"), "failed\n");
    int error = (int)number("FAIL_ERRNO", EIO);
    if (error == 0)
        return 0;
    errno = error;
    return 1;
}

static int fails_of(const char *call, int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(call, path);
}

static int opening_fails(const char *path, int flags) {
    int is_temporary = (flags & O_TMPFILE) == O_TMPFILE || (~flags & (O_CREAT | O_EXCL)) == 0;
    return fails("open", path) || (is_temporary && fails("temporary", path));
}

#define MODE(flags, mode)                                                                          \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                              \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opening_fails(path, flags) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opening_fails(path, flags) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int directory, const char *path, int flags, ...) {
    MODE(flags, mode)
    return opening_fails(path, flags) ? -1 : (int)syscall(SYS_openat, directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    MODE(flags, mode)
    return opening_fails(path, flags) ? -1 : (int)syscall(SYS_openat, directory, path, flags | O_LARGEFILE, mode);
}

ssize_t read(int file, void *buffer, size_t count) {
    return fails_of("read", file) ? -1 : syscall(SYS_read, file, buffer, count);
}

ssize_t pread(int file, void *buffer, size_t count, off_t at) {
    return fails_of("read", file) ? -1 : syscall(SYS_pread64, file, buffer, count, at);
}

ssize_t pread64(int file, void *buffer, size_t count, off64_t at) {
    return fails_of("read", file) ? -1 : syscall(SYS_pread64, file, buffer, count, at);
}

static int lock(int file, int command, void *argument) {
    if ((command == F_SETLK || command == F_SETLKW) && fails_of("lock", file))
        return -1;
    return (int)syscall(SYS_fcntl, file, command, argument);
}

int fcntl(int file, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return lock(file, command, argument);
}

int fcntl64(int file, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return lock(file, command, argument);
}

__attribute__((destructor)) static void at_the_end(void) {
    char status[8192];
    if (getenv("STATUS") == NULL)
        return;
    int file = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t length = syscall(SYS_read, file, status, sizeof status - 1);
    if (length <= 0)
        return;
    status[length] = 0;
    append(getenv("STATUS"), status);
}
