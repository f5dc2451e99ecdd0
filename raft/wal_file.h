#ifndef RAFT_WAL_FILE_H
#define RAFT_WAL_FILE_H

/* What the log needs of a file system, of a clock and of chance, as a table of functions: the real
 * ones by default, others where tests want faults or a simulator owns the disk and the time.
 *
 * Files and folders are named by handles, numbers >= 0 that `close` ends. All functions that return
 * int or ssize_t give 0, a handle or a count, or a negative errno. The log calls from the loop
 * and from its writer thread at the same time, unless it is stepped (wal_options.stepped): then
 * from its caller only. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum wal_file_mode {
    WAL_FILE_READ = 1, /* must exist */
    WAL_FILE_WRITE,    /* must exist; read and written */
    WAL_FILE_CREATE,   /* must not exist (-EEXIST); read and written */
};

struct wal_files {
    void *host;

    /* --- folders --- */

    /* Opens the folder; when it is missing makes it, and its name durable. */
    int (*dir_open)(void *host, const char *path);
    /* Calls back with every name in it, in any order, until that returns false. */
    int (*dir_list)(void *host, int dir, bool (*on_name)(void *context, const char *name),
                    void *context);
    /* Makes what was created, renamed and deleted in it durable. */
    int (*dir_sync)(void *host, int dir);
    /* Makes the file if it is missing and locks it against other processes, until its handle,
     * which is returned, is closed. -EWOULDBLOCK: somebody else has the lock. */
    int (*lock)(void *host, int dir, const char *name);
    /* Replaces `to` in one step. */
    int (*rename)(void *host, int dir, const char *from, const char *to);
    int (*unlink)(void *host, int dir, const char *name);

    /* --- files --- */

    int (*open)(void *host, int dir, const char *name, enum wal_file_mode mode);
    int (*size)(void *host, int file, uint64_t *bytes);
    /* May read or write less than asked; 0 is the end of the file. */
    ssize_t (*pread)(void *host, int file, void *out, size_t bytes, uint64_t offset);
    ssize_t (*pwritev)(void *host, int file, const struct iovec *iov, int count, uint64_t offset);
    /* Gives bytes 0..bytes-1 of the file room on the disk, as zeros where nothing was written. */
    int (*allocate)(void *host, int file, uint64_t bytes);
    /* Never repeated by the log: after a failed one nothing is known. */
    int (*fdatasync)(void *host, int file);
    /* Advice: what is in memory of the file need not stay there, so that reading asks the disk. */
    void (*forget)(void *host, int file);
    void (*close)(void *host, int handle);

    /* --- time and chance --- */

    /* Of a clock that never goes back. With a writer thread it must be CLOCK_MONOTONIC. */
    uint64_t (*now_us)(void *host);
    /* `bytes` is at most 256. */
    int (*random)(void *host, void *out, size_t bytes);
};

/* The system calls. */
extern const struct wal_files wal_files_default;

#endif
