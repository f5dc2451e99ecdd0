#ifndef SERVER_SNAPSHOT_SNAPSHOT_INTERNAL_H
#define SERVER_SNAPSHOT_SNAPSHOT_INTERNAL_H

/* What the snapshot's files share: the layout (docs/snapshots.md), the folder and its names, and
 * the one reader through which every byte of a snapshot passes. */

#include <assert.h>
#include <sys/types.h>

#include "kv/buffer.h"
#include "raft/crc32c.h"
#include "server/snapshot/snapshot.h"

/* --- layout --- */

enum {
    SNAPSHOT_FORMAT_VERSION = 1,
    SNAPSHOT_HEAD_BYTES = 60, /* then the configuration, then SNAPSHOT_HEAD_END_BYTES */
    SNAPSHOT_HEAD_END_BYTES = 4,
    SNAPSHOT_BLOCK_HEAD_BYTES = 16,
    SNAPSHOT_BLOCK_BYTES = 64 * 1024, /* a block ends with the record that reaches this */
    SNAPSHOT_BLOCK_BYTES_MAX = SNAPSHOT_BLOCK_BYTES + SNAPSHOT_RECORD_BYTES_MAX + 8,
    SNAPSHOT_TRAILER_TABLE = 0xffff, /* where a block has its table */
    SNAPSHOT_TRAILER_BYTES = 40,
    SNAPSHOT_HEADER_BYTES_MAX =
        SNAPSHOT_HEAD_BYTES + RAFT_CONFIGURATION_BYTES_MAX + SNAPSHOT_HEAD_END_BYTES,
};

/* The tables in the order of the file. Numbers are the format's for ever, whatever the store's are.
 */
struct snapshot_table {
    uint16_t number;
    enum store_table table;
    const char *name;
};
extern const struct snapshot_table snapshot_tables[];
extern const size_t snapshot_table_count;
/* NULL: no such table. */
const struct snapshot_table *snapshot_table_find(uint16_t number);

void snapshot_header_encode(const struct crc32c *crc32c, const struct snapshot_meta *meta,
                            struct buffer *out);
/* The block's head, whose payload follows in `bytes`; written over its first 16 bytes. */
void snapshot_block_seal(const struct crc32c *crc32c, uint16_t number, uint32_t count, char *bytes,
                         size_t size);
void snapshot_trailer_encode(const struct crc32c *crc32c, uint64_t records,
                             const struct snapshot_meta *meta, struct buffer *out);
/* Untrusted. SNAPSHOT_ECORRUPT. */
int snapshot_trailer_decode(const struct crc32c *crc32c, struct slice bytes, uint64_t *records,
                            uint64_t *file_bytes, uint32_t *checksum);

/* --- system calls, so that tests can make them fail and a simulator can own the disk; 0 (or a
 * handle, or a count) or a negative errno --- */

enum snapshot_open_mode {
    SNAPSHOT_OPEN_READ = 1, /* must exist */
    SNAPSHOT_OPEN_NEW,      /* empty, made if missing; read and written */
    SNAPSHOT_OPEN_RESUME,   /* as it is, made if missing; read and written */
};

struct snapshot_ops {
    void *host;
    int (*dir_make)(void *host, const char *path); /* -EEXIST */
    int (*dir_open)(void *host, const char *path);
    /* Calls back with every name in it, until that returns other than 0, which is passed on. */
    int (*dir_list)(void *host, int dir_fd, int (*on_name)(void *context, const char *name),
                    void *context);
    int (*open)(void *host, int dir_fd, const char *name, enum snapshot_open_mode mode);
    /* -EINVAL: it is no file. */
    int (*size)(void *host, int fd, uint64_t *bytes);
    ssize_t (*pread)(void *host, int fd, void *out, size_t size, uint64_t offset);
    /* Takes room for so many bytes; the size stays. */
    int (*reserve)(void *host, int fd, uint64_t bytes);
    void (*close)(void *host, int fd);
    ssize_t (*pwrite)(void *host, int fd, const void *data, size_t size, uint64_t offset);
    int (*fsync)(void *host, int fd);
    int (*dir_sync)(void *host, int dir_fd);
    int (*rename)(void *host, int dir_fd, const char *from, const char *to);
    int (*unlink)(void *host, int dir_fd, const char *name);
};
extern const struct snapshot_ops snapshot_ops_default;
/* Writes all of it; 0 or a negative errno. */
int snapshot_write_all(const struct snapshot_ops *ops, int fd, const void *data, size_t size,
                       uint64_t offset);

/* --- the folder --- */

/* Not changed after opening. */
struct snapshot_dir {
    char *path;
    int fd;
    const struct snapshot_ops *ops;
    struct crc32c crc32c;
};
/* snapshot_dir_open with other system calls, borrowed; NULL: the real ones. */
int snapshot_dir_open_with(const char *path, const struct snapshot_ops *ops,
                           struct snapshot_dir **out, struct errmsg *err);
/* For looking only: creates nothing. SNAPSHOT_ENOTFOUND. */
int snapshot_dir_open_existing(const char *path, struct snapshot_dir **out, struct errmsg *err);

enum snapshot_name_kind {
    SNAPSHOT_NAME_OTHER,
    SNAPSHOT_NAME_WHOLE,   /* <term>-<index>.snapshot */
    SNAPSHOT_NAME_NEW,     /* the same and ".new": being written */
    SNAPSHOT_NAME_PARTIAL, /* <term>-<index>-<bytes>-<checksum>.partial: being received */
};
void snapshot_name(const struct snapshot_meta *meta, enum snapshot_name_kind kind,
                   char out[SNAPSHOT_NAME_BYTES_MAX]);
/* Inverse; fills what the name says. */
enum snapshot_name_kind snapshot_name_parse(const char *name, struct snapshot_meta *meta);

/* Calls `visit` for each file of the folder; stops at the first code that is not 0. */
int snapshot_dir_visit(struct snapshot_dir *dir,
                       int (*visit)(void *host, const char *name, struct errmsg *err), void *host,
                       struct errmsg *err);
int snapshot_dir_remove(struct snapshot_dir *dir, const char *name, struct errmsg *err);
/* Gives a synced file its final name, durably. */
int snapshot_dir_publish(struct snapshot_dir *dir, const char *from, const char *to,
                         struct errmsg *err);
/* SNAPSHOT_EFULL or SNAPSHOT_EIO, and a text, for a negative errno. */
int snapshot_error_errno(struct errmsg *err, int error, const struct snapshot_dir *dir,
                         const char *name, const char *what);

/* --- reading: every byte is checked before anything is made of it --- */

struct snapshot_reader {
    struct snapshot_dir *dir; /* borrowed */
    struct snapshot_task *task;
    struct errmsg *err;
    char name[SNAPSHOT_NAME_BYTES_MAX];
    int fd;
    struct snapshot_meta meta; /* bytes and checksum: from the trailer */
    size_t header_bytes;
    uint32_t header_crc;
    uint64_t offset;  /* of the next block */
    uint32_t crc;     /* of all bytes before it */
    uint64_t records; /* handed out */
    const struct snapshot_table *table;
    struct buffer block;
    struct reader at;  /* in the block */
    uint32_t left;     /* records in it */
    struct buffer key; /* the last one, for the order */
};
/* Opens and checks header and trailer. On failure nothing is left open. SNAPSHOT_ENOTFOUND,
 * SNAPSHOT_ECORRUPT, SNAPSHOT_EFORMAT. `task` may be NULL. */
int snapshot_reader_open(struct snapshot_reader *reader, struct snapshot_dir *dir, const char *name,
                         struct snapshot_task *task, struct errmsg *err);
/* The next record; borrowed until the next call. SNAPSHOT_ENOTFOUND: that was the last, and all of
 * the file is sound. */
int snapshot_reader_next(struct snapshot_reader *reader, const struct snapshot_table **table,
                         struct slice *key, struct slice *value);
/* Begins again behind the header. */
void snapshot_reader_rewind(struct snapshot_reader *reader);
void snapshot_reader_close(struct snapshot_reader *reader);

#endif
