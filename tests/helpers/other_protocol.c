/* A program of this project that speaks protocol 4, where this is loaded before the C
   library: the hello that it says to a socket is of 4, and a hello that it hears is of 3
   where it is of 4, and of 4 where it is of 3. So two of them understand each other, and
   no other program. Linux. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static const char HELLO[] = "{\"type\":\"hello\",\"protocol\":";
#define NUMBER (sizeof HELLO - 1)

static int is_hello(int fd, const char *bytes, ssize_t count) {
    struct stat about;
    return count > (ssize_t)NUMBER && memcmp(bytes, HELLO, NUMBER) == 0 &&
           fstat(fd, &about) == 0 && S_ISSOCK(about.st_mode);
}

static char other(char number) { return number == '3' ? '4' : number == '4' ? '3' : number; }

typedef ssize_t (*Write)(int, const void *, size_t);
typedef ssize_t (*Send)(int, const void *, size_t, int);

static ssize_t say(int fd, const void *bytes, size_t count, int flags, int sends) {
    Write next_write = (Write)dlsym(RTLD_NEXT, "write");
    Send next_send = (Send)dlsym(RTLD_NEXT, "send");
    char *changed = NULL;
    if (is_hello(fd, bytes, (ssize_t)count) && (changed = malloc(count)) != NULL) {
        memcpy(changed, bytes, count);
        changed[NUMBER] = other(changed[NUMBER]);
        bytes = changed;
    }
    ssize_t result = sends ? next_send(fd, bytes, count, flags) : next_write(fd, bytes, count);
    free(changed);
    return result;
}

ssize_t write(int fd, const void *bytes, size_t count) { return say(fd, bytes, count, 0, 0); }

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    return say(fd, bytes, count, flags, 1);
}

static ssize_t heard(int fd, char *bytes, ssize_t count) {
    if (count > 0 && is_hello(fd, bytes, count))
        bytes[NUMBER] = other(bytes[NUMBER]);
    return count;
}

ssize_t read(int fd, void *bytes, size_t count) {
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    return heard(fd, bytes, next(fd, bytes, count));
}

ssize_t recv(int fd, void *bytes, size_t count, int flags) {
    ssize_t (*next)(int, void *, size_t, int) = dlsym(RTLD_NEXT, "recv");
    return heard(fd, bytes, next(fd, bytes, count, flags));
}
