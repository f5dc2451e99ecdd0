/* The bytes of a snapshot: docs/snapshots.md. Numbers are little-endian. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/snapshot/snapshot_internal.h"

static const char snapshot_magic[8] = {'P', 'C', 'S', 'N', 'A', 'P', 'S', 'H'};

const struct snapshot_table snapshot_tables[] = {
    {1, STORE_INDEX, "index"},
    {2, STORE_KV, "kv"},
    {3, STORE_TOMBSTONE, "tombstone"},
    {4, STORE_LOCK_DELAY, "lock-delay"},
    {5, STORE_SESSION, "session"},
    {6, STORE_SESSION_NODE, "session-node"},
    {7, STORE_SESSION_KEY, "session-key"},
    {8, STORE_NODE, "node"},
    {9, STORE_NODE_ID, "node-id"},
    {10, STORE_SERVICE, "service"},
    {11, STORE_SERVICE_NAME, "service-name"},
    {12, STORE_CHECK, "check"},
    {13, STORE_COORDINATE, "coordinate"},
    {14, STORE_STAGED, "staged"},
    {15, STORE_SETTING, "setting"},
};
const size_t snapshot_table_count = sizeof(snapshot_tables) / sizeof(snapshot_tables[0]);
static_assert(sizeof(snapshot_tables) / sizeof(snapshot_tables[0]) == STORE_TABLE_COUNT - 1,
              "a snapshot holds every table but STORE_META");

const char *snapshot_strerror(int code)
{
    switch ((enum snapshot_error)code) {
    case SNAPSHOT_OK:
        return "no error";
    case SNAPSHOT_ENOMEM:
        return "out of memory";
    case SNAPSHOT_EIO:
        return "input/output error on a snapshot";
    case SNAPSHOT_EFULL:
        return "no space for the snapshot";
    case SNAPSHOT_ECORRUPT:
        return "the snapshot is damaged";
    case SNAPSHOT_EFORMAT:
        return "the snapshot was written by a newer version";
    case SNAPSHOT_ENOTFOUND:
        return "no such snapshot";
    case SNAPSHOT_EINVAL:
        return "the snapshot is beyond a limit, or a piece of it out of order";
    case SNAPSHOT_ECANCELLED:
        return "the work on the snapshot was cancelled";
    }
    return "unknown error of snapshots";
}

const struct snapshot_table *snapshot_table_find(uint16_t number)
{
    if (number < 1 || number > snapshot_table_count) {
        return NULL;
    }
    assert(snapshot_tables[number - 1].number == number);
    return &snapshot_tables[number - 1];
}

static void snapshot_set_u32(char *at, uint32_t value)
{
    for (size_t i = 0; i < sizeof(value); i++) {
        at[i] = (char)(value >> (8 * i));
    }
}

void snapshot_header_encode(const struct crc32c *crc32c, const struct snapshot_meta *meta,
                            struct buffer *out)
{
    static const char zeros[SNAPSHOT_HEAD_BYTES];
    char configuration[RAFT_CONFIGURATION_BYTES_MAX];
    const size_t size = raft_configuration_encode(&meta->configuration, configuration);

    assert(out->size == 0);
    buffer_append(out, snapshot_magic, sizeof(snapshot_magic));
    buffer_put_u32(out, SNAPSHOT_FORMAT_VERSION);
    buffer_put_u32(out, (uint32_t)size);
    buffer_put_u64(out, meta->index);
    buffer_put_u64(out, meta->term);
    buffer_put_u64(out, meta->configuration.index);
    if (!out->failed) {
        buffer_append(out, zeros, SNAPSHOT_HEAD_BYTES - out->size);
    }
    buffer_append(out, configuration, size);
    if (!out->failed) {
        buffer_put_u32(out, crc32c_update(crc32c, 0, out->data, out->size));
    }
}

void snapshot_block_seal(const struct crc32c *crc32c, uint16_t number, uint32_t count, char *bytes,
                         size_t size)
{
    assert(size > SNAPSHOT_BLOCK_HEAD_BYTES);
    assert(size - SNAPSHOT_BLOCK_HEAD_BYTES <= SNAPSHOT_BLOCK_BYTES_MAX);
    snapshot_set_u32(bytes + 4, (uint32_t)(size - SNAPSHOT_BLOCK_HEAD_BYTES));
    snapshot_set_u32(bytes + 8, count);
    snapshot_set_u32(bytes + 12, number);
    snapshot_set_u32(bytes, crc32c_update(crc32c, 0, bytes + 4, size - 4));
}

void snapshot_trailer_encode(const struct crc32c *crc32c, uint64_t records,
                             const struct snapshot_meta *meta, struct buffer *out)
{
    const size_t start = out->size;

    buffer_put_u32(out, 0);
    buffer_put_u32(out, SNAPSHOT_TRAILER_BYTES - SNAPSHOT_BLOCK_HEAD_BYTES);
    buffer_put_u32(out, 0);
    buffer_put_u32(out, SNAPSHOT_TRAILER_TABLE);
    buffer_put_u64(out, records);
    buffer_put_u64(out, meta->bytes);
    buffer_put_u32(out, meta->checksum);
    buffer_put_u32(out, 0);
    if (!out->failed) {
        assert(out->size - start == SNAPSHOT_TRAILER_BYTES);
        snapshot_set_u32(out->data + start, crc32c_update(crc32c, 0, out->data + start + 4,
                                                          SNAPSHOT_TRAILER_BYTES - 4));
    }
}

int snapshot_trailer_decode(const struct crc32c *crc32c, struct slice bytes, uint64_t *records,
                            uint64_t *file_bytes, uint32_t *checksum)
{
    struct reader reader = reader_from(bytes);

    if (bytes.size != SNAPSHOT_TRAILER_BYTES) {
        return SNAPSHOT_ECORRUPT;
    }
    const uint32_t crc = reader_u32(&reader);
    const uint32_t size = reader_u32(&reader);
    const uint32_t count = reader_u32(&reader);
    const uint32_t table = reader_u32(&reader);
    const uint64_t found_records = reader_u64(&reader);
    const uint64_t found_bytes = reader_u64(&reader);
    const uint32_t found_checksum = reader_u32(&reader);
    const uint32_t zero = reader_u32(&reader);
    if (!reader_done(&reader) || crc != crc32c_update(crc32c, 0, bytes.data + 4, bytes.size - 4) ||
        size != SNAPSHOT_TRAILER_BYTES - SNAPSHOT_BLOCK_HEAD_BYTES || count != 0 ||
        table != SNAPSHOT_TRAILER_TABLE || zero != 0) {
        return SNAPSHOT_ECORRUPT;
    }
    *records = found_records;
    *file_bytes = found_bytes;
    *checksum = found_checksum;
    return SNAPSHOT_OK;
}

/* --- system calls --- */

static int snapshot_ops_dir_make(void *host, const char *path)
{
    (void)host;
    return mkdir(path, 0700) != 0 ? -errno : 0;
}

static int snapshot_ops_dir_open(void *host, const char *path)
{
    (void)host;
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int snapshot_ops_dir_list(void *host, int dir_fd,
                                 int (*on_name)(void *context, const char *name), void *context)
{
    (void)host;
    const int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *handle = fd < 0 ? NULL : fdopendir(fd);
    int rc = 0;

    if (handle == NULL) {
        rc = -errno;
        if (fd >= 0) {
            (void)close(fd); /* Only read from. */
        }
        return rc;
    }
    while (rc == 0) {
        errno = 0;
        const struct dirent *entry = readdir(handle);
        if (entry == NULL) {
            rc = -errno;
            break;
        }
        rc = on_name(context, entry->d_name);
    }
    (void)closedir(handle); /* Only read from. */
    return rc;
}

static int snapshot_ops_open(void *host, int dir_fd, const char *name, enum snapshot_open_mode mode)
{
    static const int flags[] = {
        /* Not to be held up by a pipe that someone put there. */
        [SNAPSHOT_OPEN_READ] = O_RDONLY | O_NONBLOCK,
        [SNAPSHOT_OPEN_NEW] = O_RDWR | O_CREAT | O_TRUNC,
        [SNAPSHOT_OPEN_RESUME] = O_RDWR | O_CREAT,
    };
    (void)host;
    const int fd = openat(dir_fd, name, flags[mode] | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

static int snapshot_ops_size(void *host, int fd, uint64_t *bytes)
{
    struct stat status;

    (void)host;
    if (fstat(fd, &status) != 0) {
        return -errno;
    }
    *bytes = (uint64_t)status.st_size;
    return S_ISREG(status.st_mode) ? 0 : -EINVAL;
}

static ssize_t snapshot_ops_pread(void *host, int fd, void *out, size_t size, uint64_t offset)
{
    (void)host;
    const ssize_t got = pread(fd, out, size, (off_t)offset);
    return got < 0 ? -errno : got;
}

/* Where a file system cannot do it, a full disk shows later. */
static int snapshot_ops_reserve(void *host, int fd, uint64_t bytes)
{
    (void)host;
    return fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP &&
                   errno != EINTR
               ? -errno
               : 0;
}

static void snapshot_ops_close(void *host, int fd)
{
    (void)host;
    (void)close(fd); /* What counts was synced, the rest only read. */
}

static ssize_t snapshot_ops_pwrite(void *host, int fd, const void *data, size_t size,
                                   uint64_t offset)
{
    (void)host;
    const ssize_t written = pwrite(fd, data, size, (off_t)offset);
    return written < 0 ? -errno : written;
}

static int snapshot_ops_fsync(void *host, int fd)
{
    (void)host;
    return fsync(fd) != 0 ? -errno : 0; /* Not repeated: after a failed one nothing is known. */
}

static int snapshot_ops_rename(void *host, int dir_fd, const char *from, const char *to)
{
    (void)host;
    return renameat(dir_fd, from, dir_fd, to) != 0 ? -errno : 0;
}

static int snapshot_ops_unlink(void *host, int dir_fd, const char *name)
{
    (void)host;
    return unlinkat(dir_fd, name, 0) != 0 ? -errno : 0;
}

const struct snapshot_ops snapshot_ops_default = {
    .dir_make = snapshot_ops_dir_make,
    .dir_open = snapshot_ops_dir_open,
    .dir_list = snapshot_ops_dir_list,
    .open = snapshot_ops_open,
    .size = snapshot_ops_size,
    .pread = snapshot_ops_pread,
    .reserve = snapshot_ops_reserve,
    .close = snapshot_ops_close,
    .pwrite = snapshot_ops_pwrite,
    .fsync = snapshot_ops_fsync,
    .dir_sync = snapshot_ops_fsync,
    .rename = snapshot_ops_rename,
    .unlink = snapshot_ops_unlink,
};

int snapshot_write_all(const struct snapshot_ops *ops, int fd, const void *data, size_t size,
                       uint64_t offset)
{
    const char *at = data;

    while (size > 0) {
        const ssize_t written = ops->pwrite(ops->host, fd, at, size, offset);
        if (written == -EINTR) {
            continue;
        }
        if (written <= 0) {
            return written == 0 ? -EIO : (int)written;
        }
        at += written;
        size -= (size_t)written;
        offset += (uint64_t)written;
    }
    return 0;
}
