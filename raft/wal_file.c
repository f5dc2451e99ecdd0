/* The real files: thin covers of the system calls, with errors as return values. */

#include "raft/wal_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* --- folders --- */

/* The name of a new folder is durable when the folder above is. */
static int file_parent_sync(const char *path)
{
    char *parent;
    int error = 0;

    if (asprintf(&parent, "%s/..", path) < 0) {
        return -ENOMEM;
    }
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(parent);
    if (fd < 0) {
        return -errno;
    }
    if (fsync(fd) != 0) {
        error = -errno;
    }
    (void)close(fd); /* Only synced through. */
    return error;
}

static int file_dir_open(void *host, const char *path)
{
    (void)host;
    if (mkdir(path, 0700) == 0) {
        int error = file_parent_sync(path);
        if (error != 0) {
            return error;
        }
    } else if (errno != EEXIST) {
        return -errno;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int file_dir_list(void *host, int dir, bool (*on_name)(void *context, const char *name),
                         void *context)
{
    int error = 0;

    (void)host;
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    DIR *stream = fdopendir(fd);
    if (stream == NULL) {
        error = -errno;
        (void)close(fd); /* Only read from. */
        return error;
    }
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            error = -errno;
            break;
        }
        if (!on_name(context, entry->d_name)) {
            break;
        }
    }
    (void)closedir(stream); /* Only read from. */
    return error;
}

static int file_dir_sync(void *host, int dir)
{
    (void)host;
    return fsync(dir) != 0 ? -errno : 0;
}

static int file_lock(void *host, int dir, const char *name)
{
    (void)host;
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int error = -errno;
        (void)close(fd); /* Nothing was written. */
        return error;
    }
    return fd;
}

static int file_rename(void *host, int dir, const char *from, const char *to)
{
    (void)host;
    return renameat(dir, from, dir, to) != 0 ? -errno : 0;
}

static int file_unlink(void *host, int dir, const char *name)
{
    (void)host;
    return unlinkat(dir, name, 0) != 0 ? -errno : 0;
}

/* --- files --- */

static int file_open(void *host, int dir, const char *name, enum wal_file_mode mode)
{
    int flags = O_CLOEXEC;

    (void)host;
    switch (mode) {
    case WAL_FILE_READ:
        flags |= O_RDONLY;
        break;
    case WAL_FILE_WRITE:
        flags |= O_RDWR;
        break;
    case WAL_FILE_CREATE:
        flags |= O_RDWR | O_CREAT | O_EXCL;
        break;
    }
    int fd = openat(dir, name, flags, 0600);
    return fd < 0 ? -errno : fd;
}

static int file_size(void *host, int file, uint64_t *bytes)
{
    struct stat status;

    (void)host;
    if (fstat(file, &status) != 0) {
        return -errno;
    }
    *bytes = (uint64_t)status.st_size;
    return 0;
}

static ssize_t file_pread(void *host, int file, void *out, size_t bytes, uint64_t offset)
{
    (void)host;
    ssize_t got = pread(file, out, bytes, (off_t)offset);
    return got < 0 ? -errno : got;
}

static ssize_t file_pwritev(void *host, int file, const struct iovec *iov, int count,
                            uint64_t offset)
{
    (void)host;
    ssize_t written = pwritev(file, iov, count, (off_t)offset);
    return written < 0 ? -errno : written;
}

static int file_allocate(void *host, int file, uint64_t bytes)
{
    int rc;

    (void)host;
    do {
        rc = posix_fallocate(file, 0, (off_t)bytes);
    } while (rc == EINTR);
    return -rc;
}

static int file_fdatasync(void *host, int file)
{
    (void)host;
    return fdatasync(file) != 0 ? -errno : 0;
}

static void file_forget(void *host, int file)
{
    (void)host;
    (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED); /* Only advice. */
}

static void file_close(void *host, int handle)
{
    (void)host;
    (void)close(handle); /* What matters was synced, what was not is not promised. */
}

/* --- time and chance --- */

static uint64_t file_now_us(void *host)
{
    struct timespec now;

    (void)host;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* Cannot fail with this clock. */
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int file_random(void *host, void *out, size_t bytes)
{
    (void)host;
    ssize_t got = getrandom(out, bytes, 0);
    if (got < 0) {
        return -errno;
    }
    return got == (ssize_t)bytes ? 0 : -EIO; /* Up to 256 bytes come whole. */
}

const struct wal_files wal_files_default = {
    .dir_open = file_dir_open,
    .dir_list = file_dir_list,
    .dir_sync = file_dir_sync,
    .lock = file_lock,
    .rename = file_rename,
    .unlink = file_unlink,
    .open = file_open,
    .size = file_size,
    .pread = file_pread,
    .pwritev = file_pwritev,
    .allocate = file_allocate,
    .fdatasync = file_fdatasync,
    .forget = file_forget,
    .close = file_close,
    .now_us = file_now_us,
    .random = file_random,
};
