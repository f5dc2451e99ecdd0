/* Preloaded into a server by test_disk.py: its disk fails or stalls while a file says so. The file
 * is DISK_SHIM_FILE; "fail" makes syncs of the log fail with EIO, "slow" makes each take 60 ms,
 * "stall" makes them wait until the file is gone; "suspend" lets CLOCK_BOOTTIME go 40 s ahead, as
 * after the machine has slept. All else passes through. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What the file says; "" when it is not there. */
static const char *shim_mode(char out[16])
{
    const char *path = getenv("DISK_SHIM_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, out, 15);

    if (fd >= 0) {
        (void)close(fd);
    }
    out[size < 0 ? 0 : size] = 0;
    return out;
}

static int shim_is_log(int fd)
{
    char link[64];
    char name[4096];
    ssize_t size;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    size = readlink(link, name, sizeof(name) - 1);
    if (size < 0) {
        return 0;
    }
    name[size] = 0;
    return strstr(name, "/raft/") != NULL;
}

int fdatasync(int fd)
{
    static int (*real)(int);
    char mode[16];

    if (real == NULL) {
        void *found = dlsym(RTLD_NEXT, "fdatasync");

        memcpy(&real, &found, sizeof(real));
    }
    if (shim_is_log(fd)) {
        while (strncmp(shim_mode(mode), "stall", 5) == 0) {
            (void)usleep(20 * 1000);
        }
        if (strncmp(mode, "slow", 4) == 0) {
            (void)usleep(60 * 1000);
        }
        if (strncmp(mode, "fail", 4) == 0) {
            errno = EIO;
            return -1;
        }
    }
    return real(fd);
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    static int (*real)(clockid_t, struct timespec *);
    char mode[16];

    if (real == NULL) {
        void *found = dlsym(RTLD_NEXT, "clock_gettime");

        memcpy(&real, &found, sizeof(real));
    }
    const int rc = real(clock, out);
    if (rc == 0 && clock == CLOCK_BOOTTIME && strncmp(shim_mode(mode), "suspend", 7) == 0) {
        out->tv_sec += 40;
    }
    return rc;
}
