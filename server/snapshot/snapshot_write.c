/* Writing: one pass over the store's tables from one read transaction. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/log.h"
#include "server/snapshot/snapshot_internal.h"

enum {
    /* Written back as it goes, so that the last sync is short and no other file's sync waits long
     * behind it. */
    SNAPSHOT_SYNC_BYTES = 4 * 1024 * 1024,
    SNAPSHOT_NAP_MS_MAX = 50, /* while throttled: how soon a cancellation is seen */
};

struct snapshot_writer {
    struct snapshot_dir *dir;
    struct store_txn txn;
    struct snapshot_meta meta;
    struct snapshot_task *task;
    struct errmsg *err;
    char name[SNAPSHOT_NAME_BYTES_MAX]; /* while it is written */
    int fd;
    uint64_t offset;
    uint64_t synced; /* up to this offset */
    uint64_t records;
    uint32_t crc;
    uint64_t start_ms;
    struct buffer block;
    uint32_t block_records;
};

static uint64_t snapshot_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* Cannot fail with this clock. */
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int snapshot_writer_begin(struct snapshot_dir *dir, struct store *store,
                          const struct raft_configuration *configuration,
                          struct snapshot_writer **out, struct errmsg *err)
{
    struct snapshot_writer *writer = calloc(1, sizeof(*writer));

    if (writer == NULL) {
        return errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
    }
    writer->dir = dir;
    writer->fd = -1;
    writer->meta.configuration = *configuration;
    int rc = store_read_begin(store, &writer->txn);
    if (rc == STORE_OK) {
        rc = store_applied_get(&writer->txn, &writer->meta.term, &writer->meta.index);
    }
    if (rc != STORE_OK) {
        snapshot_writer_free(writer);
        return errmsg_set(err, rc == STORE_ENOMEM ? SNAPSHOT_ENOMEM : SNAPSHOT_EIO,
                          "cannot read the state: %s", store_strerror(rc));
    }
    if (writer->meta.index == 0) {
        snapshot_writer_free(writer);
        return errmsg_set(err, SNAPSHOT_EINVAL, "nothing was applied yet");
    }
    /* A newer one would give a server of this snapshot members that it must not know yet. */
    assert(configuration->index <= writer->meta.index);
    *out = writer;
    return SNAPSHOT_OK;
}

void snapshot_writer_free(struct snapshot_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    if (writer->fd >= 0) {
        writer->dir->ops->close(writer->dir->ops->host, writer->fd);
    }
    buffer_deinit(&writer->block);
    store_read_end(&writer->txn);
    free(writer);
}

/* --- pieces --- */

/* Waits while the writer is ahead of its rate. */
static int snapshot_writer_throttle(struct snapshot_writer *writer)
{
    struct snapshot_task *task = writer->task;

    if (task == NULL) {
        return SNAPSHOT_OK;
    }
    atomic_store(&task->bytes, writer->offset);
    for (;;) {
        if (atomic_load(&task->cancel)) {
            return errmsg_set(writer->err, SNAPSHOT_ECANCELLED, "the snapshot was cancelled");
        }
        if (task->bytes_per_s_max == 0) {
            return SNAPSHOT_OK;
        }
        const uint64_t due_ms =
            writer->start_ms + writer->offset / task->bytes_per_s_max * 1000 +
            writer->offset % task->bytes_per_s_max * 1000 / task->bytes_per_s_max;
        const uint64_t now_ms = snapshot_now_ms();
        if (now_ms >= due_ms) {
            return SNAPSHOT_OK;
        }
        const uint64_t left_ms = due_ms - now_ms;
        const struct timespec nap = {
            .tv_nsec =
                1000000 * (long)(left_ms < SNAPSHOT_NAP_MS_MAX ? left_ms : SNAPSHOT_NAP_MS_MAX)};
        (void)nanosleep(&nap, NULL); /* Woken early, it looks again. */
    }
}

static int snapshot_writer_put(struct snapshot_writer *writer, const struct buffer *bytes)
{
    const struct snapshot_ops *ops = writer->dir->ops;

    if (bytes->failed) {
        return errmsg_set(writer->err, SNAPSHOT_ENOMEM, "out of memory");
    }
    int error = snapshot_write_all(ops, writer->fd, bytes->data, bytes->size, writer->offset);
    if (error != 0) {
        return snapshot_error_errno(writer->err, error, writer->dir, writer->name, "write");
    }
    writer->crc = crc32c_update(&writer->dir->crc32c, writer->crc, bytes->data, bytes->size);
    writer->offset += bytes->size;
    if (writer->offset - writer->synced >= SNAPSHOT_SYNC_BYTES) {
        writer->synced = writer->offset;
        error = ops->fsync(ops->host, writer->fd);
        if (error != 0) {
            return snapshot_error_errno(writer->err, error, writer->dir, writer->name, "sync");
        }
    }
    return snapshot_writer_throttle(writer);
}

static void snapshot_writer_block_begin(struct snapshot_writer *writer)
{
    static const char head[SNAPSHOT_BLOCK_HEAD_BYTES];

    buffer_clear(&writer->block);
    buffer_append(&writer->block, head, sizeof(head));
    writer->block_records = 0;
}

static int snapshot_writer_block_end(struct snapshot_writer *writer, uint16_t number)
{
    if (writer->block_records == 0) {
        return SNAPSHOT_OK;
    }
    if (!writer->block.failed) {
        snapshot_block_seal(&writer->dir->crc32c, number, writer->block_records, writer->block.data,
                            writer->block.size);
    }
    const int rc = snapshot_writer_put(writer, &writer->block);
    snapshot_writer_block_begin(writer);
    return rc;
}

static int snapshot_writer_table(struct snapshot_writer *writer, const struct snapshot_table *table)
{
    struct store_scan scan;
    struct slice key = SLICE_EMPTY;
    struct slice value = SLICE_EMPTY;
    int rc = SNAPSHOT_OK;
    int store_rc = store_scan_begin(&scan, &writer->txn, table->table, SLICE_EMPTY);

    snapshot_writer_block_begin(writer);
    while (rc == SNAPSHOT_OK && store_rc == STORE_OK &&
           (store_rc = store_scan_next(&scan, &key, &value)) == STORE_OK) {
        if ((uint64_t)key.size + value.size > SNAPSHOT_RECORD_BYTES_MAX) {
            rc = errmsg_set(writer->err, SNAPSHOT_EINVAL,
                            "a record of table %s has %zu bytes, more than a snapshot takes",
                            table->name, key.size + value.size);
            break;
        }
        buffer_put_string(&writer->block, key);
        buffer_put_string(&writer->block, value);
        writer->block_records++;
        writer->records++;
        if (writer->block.failed ||
            writer->block.size - SNAPSHOT_BLOCK_HEAD_BYTES >= SNAPSHOT_BLOCK_BYTES) {
            rc = snapshot_writer_block_end(writer, table->number);
        }
    }
    store_scan_end(&scan);
    if (rc == SNAPSHOT_OK && store_rc != STORE_ENOTFOUND) {
        rc = errmsg_set(writer->err, store_rc == STORE_ENOMEM ? SNAPSHOT_ENOMEM : SNAPSHOT_EIO,
                        "cannot read table %s of the state: %s", table->name,
                        store_strerror(store_rc));
    }
    return rc == SNAPSHOT_OK ? snapshot_writer_block_end(writer, table->number) : rc;
}

static int snapshot_writer_content(struct snapshot_writer *writer)
{
    struct buffer bytes = {0};

    snapshot_header_encode(&writer->dir->crc32c, &writer->meta, &bytes);
    int rc = snapshot_writer_put(writer, &bytes);
    for (size_t i = 0; rc == SNAPSHOT_OK && i < snapshot_table_count; i++) {
        rc = snapshot_writer_table(writer, &snapshot_tables[i]);
    }
    if (rc == SNAPSHOT_OK) {
        writer->meta.checksum = writer->crc;
        writer->meta.bytes = writer->offset + SNAPSHOT_TRAILER_BYTES;
        buffer_clear(&bytes);
        snapshot_trailer_encode(&writer->dir->crc32c, writer->records, &writer->meta, &bytes);
        rc = snapshot_writer_put(writer, &bytes);
    }
    buffer_deinit(&bytes);
    return rc;
}

/* --- the whole --- */

int snapshot_writer_run(struct snapshot_writer *writer, struct snapshot_task *task,
                        struct snapshot_meta *meta, struct errmsg *err)
{
    struct snapshot_dir *dir;
    char final_name[SNAPSHOT_NAME_BYTES_MAX];
    struct errmsg ignored = {""};

    assert(writer != NULL);
    assert(writer->fd == -1);
    dir = writer->dir;
    writer->task = task;
    writer->err = err;
    writer->start_ms = snapshot_now_ms();
    snapshot_name(&writer->meta, SNAPSHOT_NAME_NEW, writer->name);
    snapshot_name(&writer->meta, SNAPSHOT_NAME_WHOLE, final_name);
    writer->fd = dir->ops->open(dir->ops->host, dir->fd, writer->name, SNAPSHOT_OPEN_NEW);
    if (writer->fd < 0) {
        return snapshot_error_errno(err, writer->fd, dir, writer->name, "create");
    }
    int rc = snapshot_writer_content(writer);
    if (rc == SNAPSHOT_OK) {
        const int error = dir->ops->fsync(dir->ops->host, writer->fd);
        if (error != 0) {
            rc = snapshot_error_errno(err, error, dir, writer->name, "sync");
        }
    }
    if (rc == SNAPSHOT_OK) {
        rc = snapshot_dir_publish(dir, writer->name, final_name, err);
    }
    if (rc != SNAPSHOT_OK) {
        (void)snapshot_dir_remove(dir, writer->name, &ignored); /* Else the next one does. */
        return rc;
    }
    *meta = writer->meta;
    rc = snapshot_prune(dir, SNAPSHOT_KEPT, &ignored);
    if (rc != SNAPSHOT_OK) { /* Old ones cost space, nothing else. */
        log_write(LOG_WARN, "agent.server.snapshot", "cannot remove old snapshots: %s",
                  ignored.text);
    }
    return SNAPSHOT_OK;
}

int snapshot_write(struct snapshot_dir *dir, struct store *store,
                   const struct raft_configuration *configuration, struct snapshot_task *task,
                   struct snapshot_meta *meta, struct errmsg *err)
{
    struct snapshot_writer *writer = NULL;
    int rc = snapshot_writer_begin(dir, store, configuration, &writer, err);

    if (rc == SNAPSHOT_OK) {
        rc = snapshot_writer_run(writer, task, meta, err);
    }
    snapshot_writer_free(writer);
    return rc;
}
