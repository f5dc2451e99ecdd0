/* Reading a snapshot back: the one place where its bytes are believed or not. Whatever a disk or
 * another server makes of a file, it ends in an error that names the place. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "server/snapshot/snapshot_internal.h"

enum { SNAPSHOT_LOAD_MARGIN_FRACTION = 8 }; /* so much of the file's size is needed besides */

static int snapshot_reader_corrupt(const struct snapshot_reader *reader, uint64_t offset,
                                   const char *what)
{
    return errmsg_set(reader->err, SNAPSHOT_ECORRUPT, "%s/%s: offset %" PRIu64 ": %s",
                      reader->dir->path, reader->name, offset, what);
}

/* Reads exactly `size` bytes; the file is known to be that long. */
static int snapshot_reader_bytes(const struct snapshot_reader *reader, uint64_t offset, char *out,
                                 size_t size)
{
    const struct snapshot_ops *ops = reader->dir->ops;
    size_t done = 0;

    while (done < size) {
        const ssize_t got =
            ops->pread(ops->host, reader->fd, out + done, size - done, offset + done);
        if (got == -EINTR) {
            continue;
        }
        if (got < 0) {
            return errmsg_set(reader->err, SNAPSHOT_EIO, "%s/%s: read at offset %" PRIu64 ": %s",
                              reader->dir->path, reader->name, offset, strerror((int)-got));
        }
        if (got == 0) {
            return snapshot_reader_corrupt(reader, offset + done, "the file has become shorter");
        }
        done += (size_t)got;
    }
    return SNAPSHOT_OK;
}

/* --- header and trailer --- */

void snapshot_reader_rewind(struct snapshot_reader *reader)
{
    reader->offset = reader->header_bytes;
    reader->crc = reader->header_crc;
    reader->records = 0;
    reader->left = 0;
    reader->table = NULL;
}

/* The head, without the configuration; `*configuration_size` is what follows. */
static int snapshot_reader_head(struct snapshot_reader *reader, uint64_t file_bytes,
                                const char bytes[SNAPSHOT_HEAD_BYTES], size_t *configuration_size)
{
    struct reader head = reader_from(slice_from(bytes, SNAPSHOT_HEAD_BYTES));
    const struct slice magic = reader_bytes(&head, 8);
    const uint32_t version = reader_u32(&head);
    const uint32_t size = reader_u32(&head);

    if (!slice_equal(magic, SLICE_LITERAL("PCSNAPSH"))) {
        return snapshot_reader_corrupt(reader, 0, "not a snapshot");
    }
    /* Before the checksum: a newer version may have put it elsewhere. */
    if (version > SNAPSHOT_FORMAT_VERSION) {
        return errmsg_set(reader->err, SNAPSHOT_EFORMAT,
                          "%s/%s: written in format %u, newer than version %d; start the newer "
                          "program again",
                          reader->dir->path, reader->name, version, SNAPSHOT_FORMAT_VERSION);
    }
    if (version == 0 || size > RAFT_CONFIGURATION_BYTES_MAX ||
        file_bytes < (uint64_t)SNAPSHOT_HEAD_BYTES + size + SNAPSHOT_HEAD_END_BYTES +
                         SNAPSHOT_TRAILER_BYTES) {
        return snapshot_reader_corrupt(reader, 8, "an impossible header");
    }
    reader->meta.index = reader_u64(&head);
    reader->meta.term = reader_u64(&head);
    reader->meta.configuration.index = reader_u64(&head);
    *configuration_size = size;
    return SNAPSHOT_OK;
}

static int snapshot_reader_header(struct snapshot_reader *reader, uint64_t file_bytes)
{
    char bytes[SNAPSHOT_HEADER_BYTES_MAX];
    size_t size = 0;

    if (file_bytes < SNAPSHOT_HEAD_BYTES) {
        return snapshot_reader_corrupt(reader, 0, "too short for a header");
    }
    int rc = snapshot_reader_bytes(reader, 0, bytes, SNAPSHOT_HEAD_BYTES);
    if (rc == SNAPSHOT_OK) {
        rc = snapshot_reader_head(reader, file_bytes, bytes, &size);
    }
    if (rc == SNAPSHOT_OK) {
        rc = snapshot_reader_bytes(reader, SNAPSHOT_HEAD_BYTES, bytes + SNAPSHOT_HEAD_BYTES,
                                   size + SNAPSHOT_HEAD_END_BYTES);
    }
    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    const size_t checked = SNAPSHOT_HEAD_BYTES + size;
    struct reader end = reader_from(slice_from(bytes + checked, SNAPSHOT_HEAD_END_BYTES));
    if (reader_u32(&end) != crc32c_update(&reader->dir->crc32c, 0, bytes, checked)) {
        return snapshot_reader_corrupt(reader, 0, "the header is damaged");
    }
    const raft_index configuration_index = reader->meta.configuration.index;
    if (reader->meta.index == 0 || reader->meta.index > UINT64_MAX / 4 || reader->meta.term == 0 ||
        configuration_index > reader->meta.index ||
        raft_configuration_decode(bytes + SNAPSHOT_HEAD_BYTES, size, &reader->meta.configuration) !=
            RAFT_OK) {
        return snapshot_reader_corrupt(reader, 16, "an impossible index, term or configuration");
    }
    reader->meta.configuration.index = configuration_index;
    reader->header_bytes = checked + SNAPSHOT_HEAD_END_BYTES;
    reader->header_crc = crc32c_update(&reader->dir->crc32c, 0, bytes, reader->header_bytes);
    snapshot_reader_rewind(reader);
    return SNAPSHOT_OK;
}

static int snapshot_reader_trailer(struct snapshot_reader *reader, uint64_t file_bytes)
{
    const uint64_t offset = file_bytes - SNAPSHOT_TRAILER_BYTES;
    char bytes[SNAPSHOT_TRAILER_BYTES];
    uint64_t records = 0;
    uint64_t claimed_bytes = 0;

    const int rc = snapshot_reader_bytes(reader, offset, bytes, sizeof(bytes));
    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    if (snapshot_trailer_decode(&reader->dir->crc32c, slice_from(bytes, sizeof(bytes)), &records,
                                &claimed_bytes, &reader->meta.checksum) != SNAPSHOT_OK ||
        claimed_bytes != file_bytes) {
        return snapshot_reader_corrupt(reader, offset, "the end is missing or damaged");
    }
    reader->meta.bytes = file_bytes;
    return SNAPSHOT_OK;
}

/* --- life --- */

int snapshot_reader_open(struct snapshot_reader *reader, struct snapshot_dir *dir, const char *name,
                         struct snapshot_task *task, struct errmsg *err)
{
    const struct snapshot_ops *ops = dir->ops;
    uint64_t bytes = 0;

    *reader = (struct snapshot_reader){.dir = dir, .task = task, .err = err};
    assert(strlen(name) < sizeof(reader->name));
    memcpy(reader->name, name, strlen(name) + 1);
    reader->fd = ops->open(ops->host, dir->fd, name, SNAPSHOT_OPEN_READ);
    if (reader->fd < 0) {
        return errmsg_set(err, reader->fd == -ENOENT ? SNAPSHOT_ENOTFOUND : SNAPSHOT_EIO,
                          "%s/%s: open: %s", dir->path, name, strerror(-reader->fd));
    }
    int rc = SNAPSHOT_OK;
    const int error = ops->size(ops->host, reader->fd, &bytes);
    if (error == -EINVAL || (error == 0 && bytes > SNAPSHOT_FILE_BYTES_MAX)) {
        rc = snapshot_reader_corrupt(reader, 0, "not a file, or larger than any snapshot");
    } else if (error != 0) {
        rc = snapshot_error_errno(err, error, dir, name, "stat");
    }
    if (rc == SNAPSHOT_OK) {
        rc = snapshot_reader_header(reader, bytes);
    }
    if (rc == SNAPSHOT_OK) {
        rc = snapshot_reader_trailer(reader, bytes);
    }
    if (rc != SNAPSHOT_OK) {
        snapshot_reader_close(reader);
    }
    return rc;
}

void snapshot_reader_close(struct snapshot_reader *reader)
{
    if (reader->fd >= 0) {
        reader->dir->ops->close(reader->dir->ops->host, reader->fd);
        reader->fd = -1;
    }
    buffer_deinit(&reader->block);
    buffer_deinit(&reader->key);
}

/* --- blocks and records --- */

/* All blocks were read: does the end agree with what was found? */
static int snapshot_reader_end(struct snapshot_reader *reader)
{
    char bytes[SNAPSHOT_TRAILER_BYTES];
    uint64_t records = 0;
    uint64_t file_bytes = 0;
    uint32_t checksum = 0;

    const int rc = snapshot_reader_bytes(reader, reader->offset, bytes, sizeof(bytes));
    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    if (snapshot_trailer_decode(&reader->dir->crc32c, slice_from(bytes, sizeof(bytes)), &records,
                                &file_bytes, &checksum) != SNAPSHOT_OK ||
        file_bytes != reader->meta.bytes) {
        return snapshot_reader_corrupt(reader, reader->offset, "the end is missing or damaged");
    }
    if (records != reader->records || checksum != reader->crc) {
        return snapshot_reader_corrupt(reader, reader->offset,
                                       "the end does not fit what is before it");
    }
    return SNAPSHOT_ENOTFOUND;
}

/* Loads and checks the next block. SNAPSHOT_ENOTFOUND: there is none, and all is well. */
static int snapshot_reader_block(struct snapshot_reader *reader)
{
    const uint64_t end = reader->meta.bytes - SNAPSHOT_TRAILER_BYTES;
    char head[SNAPSHOT_BLOCK_HEAD_BYTES];

    assert(reader->offset <= end);
    if (reader->offset == end) {
        return snapshot_reader_end(reader);
    }
    if (end - reader->offset < sizeof(head)) {
        return snapshot_reader_corrupt(reader, reader->offset, "a block is cut short");
    }
    int rc = snapshot_reader_bytes(reader, reader->offset, head, sizeof(head));
    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    struct reader fields = reader_from(slice_from(head, sizeof(head)));
    const uint32_t crc = reader_u32(&fields);
    const uint32_t size = reader_u32(&fields);
    const uint32_t count = reader_u32(&fields);
    const uint16_t number = reader_u16(&fields);
    if (size > SNAPSHOT_BLOCK_BYTES_MAX || size > end - reader->offset - sizeof(head)) {
        return snapshot_reader_corrupt(reader, reader->offset, "a block of impossible size");
    }
    buffer_clear(&reader->block);
    buffer_append(&reader->block, head, sizeof(head));
    char *payload = buffer_reserve(&reader->block, size);
    if (payload == NULL) {
        return errmsg_set(reader->err, SNAPSHOT_ENOMEM, "out of memory");
    }
    rc = snapshot_reader_bytes(reader, reader->offset + sizeof(head), payload, size);
    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    reader->block.size += size;
    const char *bytes = reader->block.data;
    if (crc != crc32c_update(&reader->dir->crc32c, 0, bytes + 4, reader->block.size - 4)) {
        return snapshot_reader_corrupt(reader, reader->offset, "a damaged block");
    }
    const struct snapshot_table *table = snapshot_table_find(number);
    if (table == NULL || count == 0 || head[14] != 0 || head[15] != 0 ||
        (reader->table != NULL && number < reader->table->number)) {
        return snapshot_reader_corrupt(reader, reader->offset, "a block that belongs nowhere");
    }
    if (table != reader->table) {
        buffer_clear(&reader->key);
    }
    reader->table = table;
    reader->left = count;
    reader->at = reader_from(slice_from(bytes + sizeof(head), size));
    reader->crc = crc32c_update(&reader->dir->crc32c, reader->crc, bytes, reader->block.size);
    reader->offset += reader->block.size;
    if (reader->task != NULL) {
        atomic_store(&reader->task->bytes, reader->offset);
        if (atomic_load(&reader->task->cancel)) {
            return errmsg_set(reader->err, SNAPSHOT_ECANCELLED, "cancelled");
        }
    }
    return SNAPSHOT_OK;
}

int snapshot_reader_next(struct snapshot_reader *reader, const struct snapshot_table **table,
                         struct slice *key, struct slice *value)
{
    const struct snapshot_table *const table_before = reader->table;

    if (reader->left == 0) {
        const int rc = snapshot_reader_block(reader);
        if (rc != SNAPSHOT_OK) {
            return rc;
        }
    }
    const struct slice found_key = reader_string(&reader->at);
    const struct slice found_value = reader_string(&reader->at);
    const bool first = reader->table != table_before;
    reader->left--;
    if (reader->at.failed || (reader->left == 0 && !reader_done(&reader->at))) {
        return snapshot_reader_corrupt(reader, reader->offset, "a malformed block ends here");
    }
    if (!first && slice_compare(found_key, buffer_slice(&reader->key)) <= 0) {
        return snapshot_reader_corrupt(reader, reader->offset,
                                       "the block that ends here has records out of order");
    }
    buffer_clear(&reader->key);
    buffer_append_slice(&reader->key, found_key);
    if (reader->key.failed) {
        return errmsg_set(reader->err, SNAPSHOT_ENOMEM, "out of memory");
    }
    reader->records++;
    *table = reader->table;
    *key = found_key;
    *value = found_value;
    return SNAPSHOT_OK;
}

/* --- whole files --- */

static int snapshot_reader_drain(struct snapshot_reader *reader)
{
    const struct snapshot_table *table;
    struct slice key;
    struct slice value;
    int rc;

    do {
        rc = snapshot_reader_next(reader, &table, &key, &value);
    } while (rc == SNAPSHOT_OK);
    return rc == SNAPSHOT_ENOTFOUND ? SNAPSHOT_OK : rc;
}

/* Opens the snapshot that `meta` names: that very one. */
static int snapshot_reader_open_meta(struct snapshot_reader *reader, struct snapshot_dir *dir,
                                     const struct snapshot_meta *meta, struct snapshot_task *task,
                                     struct errmsg *err)
{
    char name[SNAPSHOT_NAME_BYTES_MAX];

    snapshot_name(meta, SNAPSHOT_NAME_WHOLE, name);
    const int rc = snapshot_reader_open(reader, dir, name, task, err);
    if (rc == SNAPSHOT_OK &&
        (reader->meta.index != meta->index || reader->meta.term != meta->term ||
         reader->meta.bytes != meta->bytes || reader->meta.checksum != meta->checksum)) {
        const int code = snapshot_reader_corrupt(reader, 0, "another snapshot than expected");
        snapshot_reader_close(reader);
        return code;
    }
    return rc;
}

int snapshot_verify(struct snapshot_dir *dir, const struct snapshot_meta *meta,
                    struct snapshot_task *task, struct errmsg *err)
{
    struct snapshot_reader reader;
    int rc = snapshot_reader_open_meta(&reader, dir, meta, task, err);

    if (rc == SNAPSHOT_OK) {
        rc = snapshot_reader_drain(&reader);
        snapshot_reader_close(&reader);
    }
    return rc;
}

static int snapshot_load_error(const struct snapshot_reader *reader, int store_rc)
{
    int code = SNAPSHOT_EIO;

    if (store_rc == STORE_EFULL) {
        code = SNAPSHOT_EFULL;
    } else if (store_rc == STORE_ENOMEM) {
        code = SNAPSHOT_ENOMEM;
    }
    return errmsg_set(reader->err, code, "cannot load %s/%s into the state: %s", reader->dir->path,
                      reader->name, store_strerror(store_rc));
}

/* A try that cannot succeed would take all space there is, and leave it in the store's file: what
 * else is on the disk, the log above all, would find none. The store needs no less than the file
 * has, and more by what does not fill its pages. */
static int snapshot_load_check_room(const struct snapshot_reader *reader, struct store *store)
{
    const uint64_t needed_bytes =
        reader->meta.bytes + reader->meta.bytes / SNAPSHOT_LOAD_MARGIN_FRACTION;
    struct store_usage usage;
    uint64_t room_bytes;

    store_usage(store, &usage);
    room_bytes = usage.disk_free_bytes;
    if (usage.file_bytes > usage.used_bytes) {
        room_bytes += usage.file_bytes - usage.used_bytes;
    }
    if (room_bytes >= needed_bytes) {
        return SNAPSHOT_OK;
    }
    return errmsg_set(reader->err, SNAPSHOT_EFULL,
                      "cannot load %s/%s into the state: it needs %" PRIu64
                      " bytes, and there is room for %" PRIu64,
                      reader->dir->path, reader->name, needed_bytes, room_bytes);
}

static int snapshot_load_records(struct snapshot_reader *reader, struct store *store)
{
    const struct snapshot_table *table = NULL;
    struct store_load load;
    struct slice key = SLICE_EMPTY;
    struct slice value = SLICE_EMPTY;
    int rc = SNAPSHOT_OK;
    int store_rc = store_load_begin(store, &load);

    if (store_rc != STORE_OK) {
        return snapshot_load_error(reader, store_rc);
    }
    while (store_rc == STORE_OK &&
           (rc = snapshot_reader_next(reader, &table, &key, &value)) == SNAPSHOT_OK) {
        assert(table != NULL); /* Every record is in one. */
        store_rc = store_load_put(&load, table->table, key, value);
    }
    if (store_rc == STORE_OK && rc == SNAPSHOT_ENOTFOUND) {
        store_rc = store_load_commit(&load, reader->meta.term, reader->meta.index);
        return store_rc == STORE_OK ? SNAPSHOT_OK : snapshot_load_error(reader, store_rc);
    }
    store_load_abort(&load);
    return store_rc != STORE_OK ? snapshot_load_error(reader, store_rc) : rc;
}

int snapshot_load(struct snapshot_dir *dir, const struct snapshot_meta *meta, struct store *store,
                  struct snapshot_task *task, struct errmsg *err)
{
    struct snapshot_reader reader;
    int rc = snapshot_reader_open_meta(&reader, dir, meta, task, err);

    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    /* Twice through the file, so that a damaged one costs reading, not writing. The second time
     * everything is checked again: the transaction is only committed behind a sound end. */
    rc = snapshot_reader_drain(&reader);
    if (rc == SNAPSHOT_OK) {
        rc = snapshot_load_check_room(&reader, store);
    }
    if (rc == SNAPSHOT_OK) {
        snapshot_reader_rewind(&reader);
        rc = snapshot_load_records(&reader, store);
    }
    snapshot_reader_close(&reader);
    return rc;
}
