/* A system that gives no more threads, where this is loaded before the C library: to the
   call of this process that has the number NO_THREAD_AT, from 1, and to all while the
   file NO_THREADS is there. Linux. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                   void *(*start)(void *), void *restrict argument) {
    static atomic_long count;
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        dlsym(RTLD_NEXT, "pthread_create");
    const char *at = getenv("NO_THREAD_AT"), *all = getenv("NO_THREADS");
    long number = atomic_fetch_add(&count, 1) + 1;
    if ((at != NULL && number == atol(at)) || (all != NULL && access(all, F_OK) == 0))
        return EAGAIN;
    return next(thread, attributes, start, argument);
}
