/* A disk whose syncs take long or fail, now and then, where this is loaded before
   the C library: between the frames of a commit and its publication, SQLite waits
   for one. Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int sync_badly(void) {
    static unsigned int chance;
    if (chance == 0)
        chance = (unsigned int)getpid();
    unsigned int fate = (unsigned int)rand_r(&chance) % 16;
    if (fate < 3) {
        struct timespec while_others_go_on = {0, (long)(rand_r(&chance) % 6000000)};
        nanosleep(&while_others_go_on, NULL);
    } else if (fate < 6) {
        errno = EIO;
        return -1;
    }
    /* Whether it is on the disk does not matter to a test. */
    return 0;
}

int fsync(int file) {
    (void)file;
    return sync_badly();
}

int fdatasync(int file) {
    (void)file;
    return sync_badly();
}
