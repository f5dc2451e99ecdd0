/* The writer thread: takes what is queued, writes it as one batch with one system call, syncs once,
 * and says so. While it syncs, the next batch gathers (group commit). It also makes the spare
 * segment, deletes trimmed ones, and, after a silence, marks the last batch as synced. */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raft/wal_internal.h"

/* Kept free behind every batch: its mark, a closing mark and the seal. */
enum { WAL_RESERVE_BYTES = 3 * WAL_RECORD_BYTES };

/* Beside the codes of enum wal_error: the disk is full, nothing has changed, try again later. */
enum { WAL_FULL = 1 };

static const char wal_spare_name[] = "spare";

static bool wal_is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT;
}

/* No room, or no descriptor for a new file: there may be some later. */
static bool wal_is_passing(int error)
{
    return wal_is_full(error) || error == -EMFILE || error == -ENFILE;
}

static uint64_t wal_now_us(const struct wal *wal)
{
    return wal->files->now_us(wal->files->host);
}

/* --- segments --- */

static int wal_writer_spare_make(struct wal *wal, uint64_t bytes, char *message, int *error)
{
    const struct wal_files *files = wal->files;
    const char *what = "delete the old";
    int fd = -1;

    *error = files->unlink(files->host, wal->dir_fd, wal_spare_name);
    if (*error != 0 && *error != -ENOENT) {
        goto fail;
    }
    what = "create";
    fd = files->open(files->host, wal->dir_fd, wal_spare_name, WAL_FILE_CREATE);
    if (fd < 0) {
        *error = fd;
        goto fail;
    }
    what = "preallocate";
    *error = files->allocate(files->host, fd, bytes);
    if (*error != 0) {
        goto fail;
    }
    /* Now, so that later syncs of the segment need not write its size. */
    what = "sync";
    *error = files->fdatasync(files->host, fd);
    if (*error != 0) {
        goto fail;
    }
    wal->writer.spare_fd = fd;
    wal->writer.spare_bytes = bytes;
    atomic_fetch_add(&wal->shared.disk_bytes, bytes);
    *error = 0;
    return WAL_OK;

fail:
    if (fd >= 0) {
        files->close(files->host, fd); /* Nothing of value is in it. */
        (void)files->unlink(files->host, wal->dir_fd, wal_spare_name);
    }
    return wal_error(message, WAL_EIO, "%s/%s: cannot %s a segment of %" PRIu64 " bytes: %s",
                     wal->options.dir, wal_spare_name, what, bytes, strerror(-*error));
}

int wal_writer_spare(struct wal *wal, uint64_t bytes, char *message, int *error)
{
    struct wal_writer *writer = &wal->writer;
    const struct wal_files *files = wal->files;

    if (bytes < wal->options.segment_bytes) {
        bytes = wal->options.segment_bytes;
    }
    *error = 0;
    if (writer->spare_fd < 0) {
        return wal_writer_spare_make(wal, bytes, message, error);
    }
    if (writer->spare_bytes >= bytes) {
        return WAL_OK;
    }
    /* One write larger than a usual segment. */
    *error = files->allocate(files->host, writer->spare_fd, bytes);
    if (*error == 0) {
        *error = files->fdatasync(files->host, writer->spare_fd);
    }
    if (*error != 0) {
        return wal_error(message, WAL_EIO, "%s/%s: cannot enlarge to %" PRIu64 " bytes: %s",
                         wal->options.dir, wal_spare_name, bytes, strerror(-*error));
    }
    atomic_fetch_add(&wal->shared.disk_bytes, bytes - writer->spare_bytes);
    writer->spare_bytes = bytes;
    return WAL_OK;
}

int wal_writer_seal(struct wal *wal, int fd, struct wal_segment *segment, uint64_t end,
                    uint32_t batch, char *message)
{
    uint8_t bytes[WAL_RECORD_BYTES];
    char name[WAL_NAME_BYTES_MAX];
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    struct wal_record seal = {.type = WAL_RECORD_SEAL, .index = segment->id + 1};

    assert(end + WAL_RECORD_BYTES <= segment->bytes);
    wal_record_encode(&seal, bytes);
    wal_record_seal(&wal->crc32c, segment->salt, batch, bytes);
    int error = wal_write_all(wal->files, fd, &iov, 1, end);
    if (error == 0) {
        error = wal->files->fdatasync(wal->files->host, fd);
    }
    if (error != 0) {
        wal_segment_name(segment->id, name);
        return wal_error(message, WAL_EIO, "%s/%s: cannot seal: %s", wal->options.dir, name,
                         strerror(-error));
    }
    return WAL_OK;
}

/* The successor's header says where the segment ends: a mark behind the last batch, which nobody
 * has synced so far, must not be lost when that is not. */
static int wal_writer_settle(struct wal *wal, const struct wal_segment *segment, char *message)
{
    char name[WAL_NAME_BYTES_MAX];

    if (wal->writer.mark_due) {
        return WAL_OK; /* There is none: the batch is the last. */
    }
    const int error = wal->files->fdatasync(wal->files->host, wal->writer.fd);
    if (error != 0) {
        wal_segment_name(segment->id, name);
        return wal_error(message, WAL_EIO, "%s/%s: cannot sync: %s", wal->options.dir, name,
                         strerror(-error));
    }
    return WAL_OK;
}

/* Turns the spare into the segment of `header`: content first, then its name. */
static int wal_writer_publish(struct wal *wal, const struct wal_header *header, char *message)
{
    const struct wal_files *files = wal->files;
    uint8_t bytes[WAL_HEADER_BYTES];
    char name[WAL_NAME_BYTES_MAX];
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};

    wal_segment_name(header->id, name);
    wal_header_encode(&wal->crc32c, header, bytes);
    int error = wal_write_all(files, wal->writer.spare_fd, &iov, 1, 0);
    if (error == 0) {
        error = files->fdatasync(files->host, wal->writer.spare_fd);
    }
    if (error == 0) {
        error = files->rename(files->host, wal->dir_fd, wal_spare_name, name);
    }
    if (error == 0) {
        error = files->dir_sync(files->host, wal->dir_fd);
    }
    if (error != 0) {
        return wal_error(message, WAL_EIO, "%s/%s: cannot begin the segment: %s", wal->options.dir,
                         name, strerror(-error));
    }
    return WAL_OK;
}

int wal_writer_roll(struct wal *wal, uint64_t bytes, char *message, int *error)
{
    struct wal_writer *writer = &wal->writer;
    struct wal_segment *old = writer->segment;

    int rc = wal_writer_spare(wal, WAL_FIRST_OFFSET + bytes + WAL_RESERVE_BYTES, message, error);
    if (rc != WAL_OK) {
        return rc;
    }
    struct wal_header header = {
        .version = WAL_FORMAT_VERSION,
        .id = old == NULL ? 1 : old->id + 1,
        .bytes = writer->spare_bytes,
        .next = writer->next,
        .prev_term = writer->last_term,
        .term = writer->term,
        .vote = writer->vote,
        .prev_end = old == NULL ? 0 : writer->end,
    };
    int rc_random = wal->files->random(wal->files->host, &header.salt, sizeof(header.salt));
    if (rc_random != 0) {
        return wal_error(message, WAL_EIO, "no random number for a segment: %s",
                         strerror(-rc_random));
    }
    rc = old == NULL ? WAL_OK : wal_writer_settle(wal, old, message);
    if (rc == WAL_OK) {
        rc = wal_writer_publish(wal, &header, message);
    }
    if (rc != WAL_OK) {
        return rc;
    }
    /* After the successor has its name: a sealed segment without one is refused by recovery. Before
     * the loop sees the successor: from then on a trim may free the old segment. */
    if (old != NULL) {
        rc = wal_writer_seal(wal, writer->fd, old, writer->end, writer->batch, message);
        if (rc != WAL_OK) {
            return rc;
        }
        wal->files->close(wal->files->host, writer->fd); /* All of it is synced. */
        writer->fd = -1;
    }
    struct wal_segment *segment = wal_segment_new(&header);
    if (segment == NULL) {
        return wal_error(message, WAL_ENOMEM, "out of memory for a segment's index");
    }
    (void)pthread_mutex_lock(&wal->shared.lock);
    rc = wal_segments_add(&wal->shared.segments, segment);
    (void)pthread_mutex_unlock(&wal->shared.lock);
    if (rc != WAL_OK) {
        wal_segment_free(segment);
        return wal_error(message, rc, "out of memory for the list of segments");
    }
    writer->segment = segment;
    writer->fd = writer->spare_fd;
    writer->spare_fd = -1;
    writer->end = WAL_FIRST_OFFSET;
    writer->zeroed = WAL_FIRST_OFFSET;
    writer->batch = 1;
    writer->mark_due = false;
    return WAL_OK;
}

/* --- trouble --- */

static void wal_writer_fail(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->shared.lock);
    wal->shared.failed = true;
    (void)pthread_mutex_unlock(&wal->shared.lock);
    if (wal->options.on_failed != NULL) {
        wal->options.on_failed(wal->options.host, wal->writer.message);
    }
}

static void wal_writer_full_set(struct wal *wal, bool full)
{
    if (wal->writer.full != full) {
        wal->writer.full = full;
        if (wal->options.on_full != NULL) {
            wal->options.on_full(wal->options.host, full);
        }
    }
}

/* Deletes trimmed segments, oldest first, each before the next, so that no crash leaves a gap. */
static int wal_writer_trim(struct wal *wal, bool *worked)
{
    const struct wal_files *files = wal->files;
    char name[WAL_NAME_BYTES_MAX];

    (void)pthread_mutex_lock(&wal->shared.lock);
    uint64_t from = wal->shared.trim_from;
    uint64_t to = wal->shared.trim_to;
    wal->shared.trim_from = to;
    (void)pthread_mutex_unlock(&wal->shared.lock);

    *worked = from < to;
    for (uint64_t id = from; id < to; id++) {
        wal_segment_name(id, name);
        int error = files->unlink(files->host, wal->dir_fd, name);
        if (error == 0 || error == -ENOENT) {
            error = files->dir_sync(files->host, wal->dir_fd);
        }
        if (error != 0) {
            return wal_error(wal->writer.message, WAL_EIO, "%s/%s: cannot delete: %s",
                             wal->options.dir, name, strerror(-error));
        }
    }
    return WAL_OK;
}

/* --- batches --- */

/* Under the lock: takes from the queue what goes into one batch, if anything is there. */
static void wal_writer_take(struct wal *wal)
{
    struct wal_writer *writer = &wal->writer;
    struct wal_batch *batch = &writer->current;
    struct wal_chunk_list *queue = &wal->shared.queue;
    uint64_t room = WAL_BATCH_BYTES_MAX;

    assert(batch->count == 0);
    *batch = (struct wal_batch){0};
    if (!wal->memory && queue->head != NULL) {
        uint64_t used = writer->end + WAL_RESERVE_BYTES;
        room = used < writer->segment->bytes ? writer->segment->bytes - used : 0;
        if (queue->head->size > room) {
            batch->roll = true;
            room = wal->options.segment_bytes - WAL_FIRST_OFFSET - WAL_RESERVE_BYTES;
        }
        room = room < WAL_BATCH_BYTES_MAX ? room : WAL_BATCH_BYTES_MAX;
    }
    wal->shared.current_us = queue->head == NULL ? 0 : queue->head->queued_us;
    while (queue->head != NULL && batch->count < WAL_BATCH_WRITES_MAX &&
           (batch->count == 0 || batch->bytes + queue->head->size <= room)) {
        struct wal_chunk *chunk = queue->head;
        queue->head = chunk->next;
        if (queue->head == NULL) {
            queue->tail = NULL;
        }
        wal_chunk_list_push(&batch->chunks, chunk);
        batch->count++;
        batch->bytes += chunk->size;
        batch->sequence = chunk->sequence;
    }
}

/* Gives the records their place: ordinal and checksum. Returns how many entries there are. */
static size_t wal_writer_place(struct wal *wal, const struct wal_batch *batch)
{
    struct wal_writer *writer = &wal->writer;
    size_t entries = 0;

    for (struct wal_chunk *chunk = batch->chunks.head; chunk != NULL; chunk = chunk->next) {
        for (size_t at = 0; at < chunk->size;) {
            struct wal_record record = wal_record_head(chunk->bytes + at);
            wal_record_seal(&wal->crc32c, writer->segment->salt, writer->batch, chunk->bytes + at);
            if (record.type == WAL_RECORD_ENTRY) {
                assert(record.index == writer->next);
                writer->next++;
                writer->last_term = record.term;
                entries++;
            } else if (record.type == WAL_RECORD_TRUNCATE) {
                assert(record.index <= writer->next);
                writer->next = record.index;
                writer->last_term = record.term;
            } else if (record.type == WAL_RECORD_RESET) {
                writer->next = record.index + 1;
                writer->last_term = record.term;
            } else {
                assert(record.type == WAL_RECORD_HARD_STATE);
                writer->term = record.term;
                writer->vote = record.index;
            }
            at += wal_record_span(record.size);
        }
    }
    return entries;
}

/* Zeros behind a batch that would otherwise be the first to reach blocks that are preallocated but
 * were never written: marking such blocks as written goes through the file system's journal, which
 * makes a sync of a few blocks about twice as long. One sync does that for all blocks of the
 * stretch, and those that follow write data alone. A large batch has little to gain. Returns
 * how many vectors were used. */
static size_t wal_writer_ahead(struct wal *wal, size_t bytes, uint64_t end, struct iovec *iov)
{
    static const uint8_t zeros[WAL_ZERO_BYTES];
    struct wal_writer *writer = &wal->writer;
    size_t count = 0;

    if (end <= writer->zeroed || bytes > WAL_AHEAD_BYTES / 4) {
        return 0;
    }
    uint64_t left = writer->segment->bytes - end;
    left = left < WAL_AHEAD_BYTES ? left : WAL_AHEAD_BYTES;
    writer->zeroed = end + left;
    while (left > 0) {
        size_t size = left < WAL_ZERO_BYTES ? (size_t)left : WAL_ZERO_BYTES;
        /* Only read from: the vectors of a write. */
        iov[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)zeros, .iov_len = size};
        left -= size;
    }
    return count;
}

/* Writes at the log's end and syncs. A full disk (copy-on-write file systems can be full in spite
 * of the preallocation) is WAL_FULL: nothing was acknowledged, so the same bytes may go to the same
 * place again. */
static int wal_writer_put(struct wal *wal, const struct wal_batch *batch, uint8_t *mark)
{
    struct wal_writer *writer = &wal->writer;
    struct iovec iov[WAL_BATCH_WRITES_MAX + 1 + WAL_AHEAD_BYTES / WAL_ZERO_BYTES];
    char name[WAL_NAME_BYTES_MAX];
    size_t count = 0;

    for (struct wal_chunk *chunk = batch->chunks.head; chunk != NULL; chunk = chunk->next) {
        iov[count++] = (struct iovec){.iov_base = chunk->bytes, .iov_len = chunk->size};
    }
    iov[count++] = (struct iovec){.iov_base = mark, .iov_len = WAL_RECORD_BYTES};
    if (batch->count > 0) {
        uint64_t end = writer->end + batch->bytes + WAL_RECORD_BYTES;
        count += wal_writer_ahead(wal, batch->bytes, end, iov + count);
    }
    int error = wal_write_all(wal->files, writer->fd, iov, count, writer->end);
    wal_segment_name(writer->segment->id, name);
    if (error != 0) {
        int rc = wal_error(writer->message, WAL_EIO, "%s/%s: write at offset %" PRIu64 ": %s",
                           wal->options.dir, name, writer->end, strerror(-error));
        return wal_is_full(error) ? WAL_FULL : rc;
    }
    if (batch->count == 0) {
        return WAL_OK;
    }
    const uint64_t before_us = wal_now_us(wal);
    error = wal->files->fdatasync(wal->files->host, writer->fd);
    writer->sync_us = wal_now_us(wal) - before_us;
    if (error != 0) {
        return wal_error(writer->message, WAL_EIO,
                         "%s/%s: sync failed at offset %" PRIu64 ": %s; what the page cache says "
                         "cannot be trusted now, the process must stop",
                         wal->options.dir, name, writer->end, strerror(-error));
    }
    return WAL_OK;
}

/* Under the lock: makes the durable batch known to readers. */
static void wal_writer_index(struct wal *wal, const struct wal_batch *batch)
{
    struct wal_segment *segment = wal->writer.segment;
    uint64_t base = wal->writer.end;

    for (struct wal_chunk *chunk = batch->chunks.head; chunk != NULL; chunk = chunk->next) {
        for (size_t at = 0; at < chunk->size;) {
            struct wal_record record = wal_record_head(chunk->bytes + at);
            if (record.type == WAL_RECORD_ENTRY) {
                assert(record.index == segment->first + segment->count);
                assert(segment->count < segment->capacity);
                segment->positions[segment->count++] = (struct wal_position){
                    .offset_units = (uint32_t)((base + at) / WAL_ALIGN_BYTES),
                    .size = record.size,
                };
            } else if (record.type == WAL_RECORD_TRUNCATE) {
                wal_segments_truncate(&wal->shared.segments, record.index);
            } else if (record.type == WAL_RECORD_RESET) {
                /* Durable now: nothing in the segments before is needed any more. */
                wal_segments_reset(&wal->shared.segments, record.index + 1);
                wal_segments_drop(&wal->shared, wal->shared.segments.count - 1);
            }
            at += wal_record_span(record.size);
        }
        base += chunk->size;
    }
}

static int wal_writer_positions(struct wal *wal, size_t more)
{
    struct wal_segment *segment = wal->writer.segment;
    struct wal_position *grown;
    size_t capacity = 0;

    /* Only this thread changes the positions, so it may read them without the lock. */
    if (wal_positions_grow(segment, more, &grown, &capacity) != WAL_OK) {
        return wal_error(wal->writer.message, WAL_ENOMEM, "out of memory for the log's index");
    }
    if (grown != NULL) {
        (void)pthread_mutex_lock(&wal->shared.lock);
        struct wal_position *old = segment->positions;
        segment->positions = grown;
        segment->capacity = capacity;
        (void)pthread_mutex_unlock(&wal->shared.lock);
        free(old);
    }
    return WAL_OK;
}

/* The mark that ends a batch of `bytes` bytes. */
static void wal_writer_mark_encode(struct wal *wal, size_t bytes, uint8_t mark[WAL_RECORD_BYTES])
{
    struct wal_record record = {
        .type = WAL_RECORD_COMMIT,
        .index = wal->writer.next - 1,
        .term = bytes,
    };
    wal_record_encode(&record, mark);
    wal_record_seal(&wal->crc32c, wal->writer.segment->salt, wal->writer.batch, mark);
}

static void wal_histogram_add(uint64_t histogram[WAL_HISTOGRAM_SIZE], uint64_t value)
{
    size_t at = 0;

    while (at + 1 < WAL_HISTOGRAM_SIZE && value >> at != 0) {
        at++;
    }
    histogram[at]++;
}

/* The batch is synced. */
static void wal_writer_count(struct wal *wal, const struct wal_batch *batch)
{
    struct wal_stats *stats = &wal->shared.stats;
    const uint64_t sync_us = wal->writer.sync_us;

    (void)pthread_mutex_lock(&wal->shared.lock);
    stats->batches++;
    stats->entries += batch->entries;
    stats->bytes += batch->bytes;
    stats->sync_us += sync_us;
    stats->sync_us_max = sync_us > stats->sync_us_max ? sync_us : stats->sync_us_max;
    wal_histogram_add(stats->sync_us_histogram, sync_us);
    wal_histogram_add(stats->batch_entries_histogram, batch->entries);
    (void)pthread_mutex_unlock(&wal->shared.lock);
    if (wal->options.on_synced != NULL) {
        wal->options.on_synced(wal->options.host, sync_us, batch->entries, batch->bytes);
    }
}

/* May be called again for the same batch after WAL_FULL. */
static int wal_writer_store(struct wal *wal, struct wal_batch *batch)
{
    struct wal_writer *writer = &wal->writer;
    uint8_t mark[WAL_RECORD_BYTES];

    if (batch->bytes == 0) {
        return WAL_OK;
    }
    if (batch->roll) {
        int error = 0;
        int rc = wal_writer_roll(wal, batch->bytes, writer->message, &error);
        if (rc != WAL_OK) {
            return wal_is_passing(error) ? WAL_FULL : rc;
        }
        batch->roll = false;
    }
    assert(writer->end + batch->bytes + WAL_RESERVE_BYTES <= writer->segment->bytes);
    if (!batch->placed) {
        batch->entries = wal_writer_place(wal, batch);
        int rc = wal_writer_positions(wal, batch->entries);
        if (rc != WAL_OK) {
            return rc;
        }
        batch->placed = true;
    }
    wal_writer_mark_encode(wal, batch->bytes, mark);
    int rc = wal_writer_put(wal, batch, mark);
    if (rc != WAL_OK) {
        return rc;
    }
    (void)pthread_mutex_lock(&wal->shared.lock);
    wal_writer_index(wal, batch);
    (void)pthread_mutex_unlock(&wal->shared.lock);
    writer->end += batch->bytes + WAL_RECORD_BYTES;
    wal_writer_count(wal, batch);
    writer->batch++;
    writer->mark_due = true;
    writer->mark_at_us = 0;
    return WAL_OK;
}

/* Stores the batch, hands its chunks back to the loop and reports it. */
static int wal_writer_commit(struct wal *wal, struct wal_batch *batch)
{
    struct wal_shared *shared = &wal->shared;
    int rc = wal->memory ? WAL_OK : wal_writer_store(wal, batch);

    if (rc != WAL_OK) {
        return rc;
    }
    const uint64_t sequence = batch->sequence;
    (void)pthread_mutex_lock(&shared->lock);
    shared->current_us = 0;
    while (batch->chunks.head != NULL) {
        struct wal_chunk *chunk = batch->chunks.head;
        batch->chunks.head = chunk->next;
        wal_chunk_list_push(&shared->done, chunk);
    }
    (void)pthread_mutex_unlock(&shared->lock);
    atomic_fetch_sub(&shared->pending_bytes, batch->bytes);
    *batch = (struct wal_batch){0};
    wal->options.on_durable(wal->options.host, sequence);
    return WAL_OK;
}

/* After a silence: an empty batch, not synced, whose presence proves to recovery that the one
 * before it was synced; damage there is then known for damage, not for a torn write. It keeps the
 * ordinal for the next batch, because until a sync the two can be torn apart. */
static int wal_writer_mark(struct wal *wal)
{
    struct wal_writer *writer = &wal->writer;
    struct wal_batch empty = {0};
    uint8_t mark[WAL_RECORD_BYTES];

    assert(writer->mark_due);
    writer->mark_due = false;
    if (writer->end + (uint64_t)2 * WAL_RECORD_BYTES > writer->segment->bytes) {
        return WAL_OK; /* No room but for the seal, which proves as much. */
    }
    wal_writer_mark_encode(wal, 0, mark);
    int rc = wal_writer_put(wal, &empty, mark);
    if (rc == WAL_OK) {
        writer->end += WAL_RECORD_BYTES;
    }
    return rc == WAL_FULL ? WAL_OK : rc; /* The log is as good without it. */
}

/* --- turns --- */

static bool wal_writer_restock_due(const struct wal *wal, uint64_t now_us)
{
    const struct wal_writer *writer = &wal->writer;

    return !wal->memory && !writer->stuck && (writer->spare_fd < 0 || writer->full) &&
           now_us >= writer->retry_at_us;
}

/* Makes the next spare. What passes is no failure here: there is the current segment. A full disk
 * is told at once, so that something is done about it. */
static int wal_writer_restock(struct wal *wal, uint64_t now_us)
{
    struct wal_writer *writer = &wal->writer;
    int error = 0;
    int rc = writer->spare_fd >= 0 ? WAL_OK : wal_writer_spare(wal, 0, writer->message, &error);

    if (rc == WAL_OK) {
        wal_writer_full_set(wal, false);
    } else if (wal_is_passing(error)) {
        writer->retry_at_us = now_us + (uint64_t)wal->options.full_retry_ms * 1000;
        if (wal_is_full(error)) {
            wal_writer_full_set(wal, true);
        }
        rc = WAL_OK;
    }
    return rc;
}

/* The last mark is synced, so that an orderly stop leaves no doubt. */
static int wal_writer_finish(struct wal *wal)
{
    if (wal->memory || !wal->writer.mark_due) {
        return WAL_OK;
    }
    int rc = wal_writer_mark(wal);
    if (rc != WAL_OK) {
        return rc;
    }
    int error = wal->files->fdatasync(wal->files->host, wal->writer.fd);
    if (error != 0) {
        return wal_error(wal->writer.message, WAL_EIO, "%s: last sync: %s", wal->options.dir,
                         strerror(-error));
    }
    return WAL_OK;
}

/* Writes the current batch, unless it waits for space and nothing speaks for another attempt. At
 * the end there is one, and that is the last. */
static int wal_writer_batch(struct wal *wal, uint64_t now_us, bool stop, enum wal_turn *turn)
{
    struct wal_writer *writer = &wal->writer;

    if (writer->stuck && now_us < writer->retry_at_us && !stop) {
        *turn = WAL_TURN_IDLE;
        return WAL_OK;
    }
    int rc = wal_writer_commit(wal, &writer->current);
    if (rc == WAL_OK && writer->stuck) {
        writer->stuck = false;
        writer->retry_at_us = 0; /* The next turn may say that it is over. */
    }
    if (rc != WAL_FULL) {
        *turn = WAL_TURN_WORKED;
        return rc;
    }
    writer->stuck = true;
    writer->retry_at_us = now_us + (uint64_t)wal->options.full_retry_ms * 1000;
    wal_writer_full_set(wal, true);
    *turn = WAL_TURN_IDLE;
    return stop ? WAL_EIO : WAL_OK;
}

/* Nothing is queued: the closing mark, when its time has come. */
static int wal_writer_silence(struct wal *wal, uint64_t now_us, enum wal_turn *turn)
{
    struct wal_writer *writer = &wal->writer;

    *turn = WAL_TURN_IDLE;
    if (!writer->mark_due) {
        return WAL_OK;
    }
    if (writer->mark_at_us == 0) {
        writer->mark_at_us = now_us + (uint64_t)wal->options.idle_ms * 1000;
    }
    if (now_us < writer->mark_at_us) {
        return WAL_OK;
    }
    *turn = WAL_TURN_WORKED;
    return wal_writer_mark(wal);
}

/* Does one thing. */
static int wal_writer_work(struct wal *wal, enum wal_turn *turn)
{
    struct wal_shared *shared = &wal->shared;
    struct wal_writer *writer = &wal->writer;
    bool trimmed;

    *turn = WAL_TURN_WORKED;
    int rc = wal_writer_trim(wal, &trimmed);
    if (rc != WAL_OK || trimmed) {
        writer->retry_at_us = 0; /* There may be space now. */
        return rc;
    }
    const uint64_t now_us = wal_now_us(wal);
    if (wal_writer_restock_due(wal, now_us)) {
        return wal_writer_restock(wal, now_us);
    }
    (void)pthread_mutex_lock(&shared->lock);
    if (writer->current.count == 0) {
        wal_writer_take(wal);
    }
    const bool stop = shared->stop;
    (void)pthread_mutex_unlock(&shared->lock);
    if (writer->current.count > 0) {
        return wal_writer_batch(wal, now_us, stop, turn);
    }
    if (stop) {
        *turn = WAL_TURN_OVER;
        return wal_writer_finish(wal);
    }
    return wal_writer_silence(wal, now_us, turn);
}

enum wal_turn wal_writer_turn(struct wal *wal)
{
    enum wal_turn turn = WAL_TURN_OVER;

    if (wal->writer.over) {
        return WAL_TURN_OVER;
    }
    if (wal_writer_work(wal, &turn) != WAL_OK) {
        turn = WAL_TURN_OVER;
        wal_writer_fail(wal);
    }
    wal->writer.over = turn == WAL_TURN_OVER;
    return turn;
}

uint64_t wal_writer_due_us(const struct wal *wal)
{
    const struct wal_writer *writer = &wal->writer;
    uint64_t due_us = UINT64_MAX;

    if (writer->over) {
        return UINT64_MAX;
    }
    if (writer->full || (writer->spare_fd < 0 && !wal->memory)) {
        due_us = writer->retry_at_us;
    }
    if (writer->mark_due && writer->current.count == 0 && writer->mark_at_us < due_us) {
        due_us = writer->mark_at_us;
    }
    return due_us;
}

/* --- the thread --- */

/* Until there is something to do. */
static void wal_writer_sleep(struct wal *wal)
{
    struct wal_shared *shared = &wal->shared;
    const uint64_t due_us = wal_writer_due_us(wal);
    const struct timespec until = {
        .tv_sec = (time_t)(due_us / 1000000),
        .tv_nsec = (long)(due_us % 1000000) * 1000,
    };
    bool due = false;

    (void)pthread_mutex_lock(&shared->lock);
    while (!due && !shared->stop && shared->trim_from == shared->trim_to &&
           (wal->writer.stuck || shared->queue.head == NULL)) {
        if (due_us == UINT64_MAX) {
            (void)pthread_cond_wait(&shared->wake, &shared->lock);
        } else {
            due = pthread_cond_timedwait(&shared->wake, &shared->lock, &until) == ETIMEDOUT;
        }
    }
    (void)pthread_mutex_unlock(&shared->lock);
}

void *wal_writer_run(void *arg)
{
    struct wal *wal = arg;
    enum wal_turn turn;

    while ((turn = wal_writer_turn(wal)) != WAL_TURN_OVER) {
        if (turn == WAL_TURN_IDLE) {
            wal_writer_sleep(wal);
        }
    }
    return NULL;
}
