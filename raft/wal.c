/* The log's public face: everything here runs on the loop. */

#include "raft/wal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raft/wal_internal.h"

enum { WAL_MAGIC = 0x57414c31 };

const char *wal_strerror(int code)
{
    switch ((enum wal_error)code) {
    case WAL_OK:
        return "no error";
    case WAL_ENOMEM:
        return "out of memory";
    case WAL_EIO:
        return "input/output error on the log";
    case WAL_ECORRUPT:
        return "the log is damaged";
    case WAL_ELOCKED:
        return "another process uses the log";
    case WAL_EFORMAT:
        return "the log was written by a newer version";
    case WAL_ENOTFOUND:
        return "no such entry in the log";
    case WAL_EINVAL:
        return "the write is too large or malformed";
    case WAL_EAGAIN:
        return "no descriptor or memory to read the log for now";
    }
    return "unknown error of the log";
}

/* --- opening and closing --- */

static void wal_open_options(struct wal *wal, const struct wal_options *options)
{
    wal->options = *options;
    wal->memory = options->dir == NULL;
    if (wal->options.segment_bytes == 0) {
        wal->options.segment_bytes = WAL_SEGMENT_BYTES_DEFAULT;
    }
    if (wal->options.segment_bytes < WAL_SEGMENT_BYTES_MIN) {
        wal->options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
    }
    if (wal->options.segment_bytes > WAL_SEGMENT_BYTES_MAX) {
        wal->options.segment_bytes = WAL_SEGMENT_BYTES_MAX;
    }
    wal->options.segment_bytes &= ~(size_t)(WAL_ALIGN_BYTES - 1);
    if (wal->options.cache_bytes == 0) {
        wal->options.cache_bytes = WAL_CACHE_BYTES_DEFAULT;
    }
    if (wal->options.full_retry_ms == 0) {
        wal->options.full_retry_ms = WAL_FULL_RETRY_MS;
    }
    if (wal->options.idle_ms == 0) {
        wal->options.idle_ms = WAL_IDLE_MS;
    }
}

int wal_init(struct wal *wal, const struct wal_options *options)
{
    pthread_condattr_t attributes;

    memset(wal, 0, sizeof(*wal));
    wal_open_options(wal, options);
    wal->files = options->files == NULL ? &wal_files_default : options->files;
    wal->magic = WAL_MAGIC;
    wal->dir_fd = -1;
    wal->lock_fd = -1;
    wal->read_fd = -1;
    wal->writer.fd = -1;
    wal->writer.spare_fd = -1;
    wal->writer.next = 1;
    wal->first = 1;
    crc32c_init(&wal->crc32c);
    if (pthread_mutex_init(&wal->shared.lock, NULL) != 0) {
        return WAL_ENOMEM;
    }
    bool made = pthread_condattr_init(&attributes) == 0;
    if (made) {
        made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
               pthread_cond_init(&wal->shared.wake, &attributes) == 0;
        (void)pthread_condattr_destroy(&attributes); /* Cannot fail. */
    }
    if (!made) {
        (void)pthread_mutex_destroy(&wal->shared.lock); /* Cannot fail: unlocked. */
        return WAL_ENOMEM;
    }
    return WAL_OK;
}

static int wal_open_dir(struct wal *wal, char *message)
{
    const struct wal_files *files = wal->files;

    wal->dir_fd = files->dir_open(files->host, wal->dir_name);
    if (wal->dir_fd < 0) {
        return wal_error(message, WAL_EIO, "%s: cannot open or create: %s", wal->dir_name,
                         strerror(-wal->dir_fd));
    }
    wal->lock_fd = files->lock(files->host, wal->dir_fd, "lock");
    if (wal->lock_fd == -EWOULDBLOCK) {
        return wal_error(message, WAL_ELOCKED,
                         "%s: another process uses this log; two servers must not share a data "
                         "directory",
                         wal->dir_name);
    }
    if (wal->lock_fd < 0) {
        return wal_error(message, WAL_EIO, "%s/lock: cannot lock: %s", wal->dir_name,
                         strerror(-wal->lock_fd));
    }
    return WAL_OK;
}

/* The last two configurations of the log. */
static int wal_open_configurations(struct wal *wal, const raft_index indexes[2], char *message)
{
    for (size_t i = 0; i < 2; i++) {
        struct raft_entry entry = {0};
        if (indexes[i] == 0) {
            continue;
        }
        int rc = wal_read_disk(wal, indexes[i], &entry, message);
        if (rc != WAL_OK) {
            return rc;
        }
        if (raft_configuration_decode(entry.data, entry.size, &wal->configurations[i]) != 0) {
            return wal_error(message, WAL_ECORRUPT,
                             "%s: entry %" PRIu64 " holds no readable configuration",
                             wal->options.dir, indexes[i]);
        }
        wal->configurations[i].index = indexes[i];
    }
    return WAL_OK;
}

static int wal_open_disk(struct wal *wal, const char *dir, char *message)
{
    raft_index indexes[2];

    wal->dir_name = strdup(dir);
    wal->configurations = calloc(2, sizeof(*wal->configurations));
    if (wal->dir_name == NULL || wal->configurations == NULL) {
        return wal_error(message, WAL_ENOMEM, "out of memory");
    }
    wal->options.dir = wal->dir_name;
    int rc = wal_open_dir(wal, message);
    if (rc == WAL_OK) {
        rc = wal_recover(wal, indexes, message);
    }
    return rc == WAL_OK ? wal_open_configurations(wal, indexes, message) : rc;
}

void wal_deinit(struct wal *wal)
{
    struct wal_shared *shared = &wal->shared;
    const int fds[] = {wal->read_fd, wal->writer.fd, wal->writer.spare_fd, wal->lock_fd,
                       wal->dir_fd};

    /* The window may still point into chunks that wait or are done: those lists free theirs only
     * after the window let go. */
    for (struct wal_chunk *chunk = shared->done.head; chunk != NULL; chunk = chunk->next) {
        assert(!chunk->durable);
    }
    wal_window_deinit(&wal->window);
    wal_chunk_list_free(&shared->done);
    wal_chunk_list_free(&shared->queue);
    wal_chunk_list_free(&wal->writer.current.chunks);
    wal_segments_deinit(&shared->segments);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            wal->files->close(wal->files->host, fds[i]);
        }
    }
    (void)pthread_cond_destroy(&shared->wake);
    (void)pthread_mutex_destroy(&shared->lock);
    free(wal->runs);
    free(wal->configurations);
    free(wal->read_buffer);
    free(wal->dir_name);
    wal->magic = 0;
}

static void wal_free(struct wal *wal)
{
    wal_deinit(wal);
    free(wal);
}

static int wal_open_thread(struct wal *wal, char *message)
{
    if (!wal->options.stepped) {
        int error = pthread_create(&wal->thread, NULL, wal_writer_run, wal);
        if (error != 0) {
            return wal_error(message, WAL_ENOMEM, "cannot start the log's thread: %s",
                             strerror(error));
        }
    }
    wal->started = true;
    return WAL_OK;
}

int wal_open(const struct wal_options *options, struct wal **out, struct raft_state *state,
             char *message)
{
    assert(options->on_durable != NULL);
    message[0] = '\0';
    struct wal *wal = calloc(1, sizeof(*wal));
    if (wal == NULL) {
        return wal_error(message, WAL_ENOMEM, "out of memory");
    }
    int rc = wal_init(wal, options);
    if (rc != WAL_OK) {
        free(wal);
        return wal_error(message, rc, "out of memory for a lock");
    }
    if (!wal->memory) {
        rc = wal_open_disk(wal, options->dir, message);
    }
    /* Before the thread owns the writer's part; there are no writes yet that could change it. */
    const raft_term term = wal->writer.term;
    const raft_id vote = wal->writer.vote;
    if (rc == WAL_OK) {
        rc = wal_open_thread(wal, message);
    }
    if (rc != WAL_OK) {
        wal_free(wal);
        return rc;
    }
    bool configured = !wal->memory && wal->configurations[0].index != 0;
    bool configured_before = !wal->memory && wal->configurations[1].index != 0;
    *state = (struct raft_state){
        .term = term,
        .vote = vote,
        .first_index = wal->first,
        .last_index = wal->last,
        .runs = wal->runs,
        .run_count = wal->run_count,
        .prev_term = wal->prev_term,
        .configuration = configured ? &wal->configurations[0] : NULL,
        .configuration_before = configured_before ? &wal->configurations[1] : NULL,
    };
    *out = wal;
    return WAL_OK;
}

void wal_close(struct wal *wal)
{
    if (wal == NULL) {
        return;
    }
    assert(wal->magic == WAL_MAGIC);
    assert(wal->started);
    (void)pthread_mutex_lock(&wal->shared.lock);
    wal->shared.stop = true;
    (void)pthread_cond_signal(&wal->shared.wake);
    (void)pthread_mutex_unlock(&wal->shared.lock);
    if (wal->options.stepped) {
        enum wal_turn turn;
        do {
            turn = wal_writer_turn(wal);
            assert(turn != WAL_TURN_IDLE); /* Nothing is waited for at the end. */
        } while (turn != WAL_TURN_OVER);
    } else {
        int error = pthread_join(wal->thread, NULL);
        assert(error == 0);
        (void)error;
    }
    wal_free(wal);
}

bool wal_step(struct wal *wal)
{
    assert(wal->magic == WAL_MAGIC);
    assert(wal->options.stepped);
    return wal_writer_turn(wal) == WAL_TURN_WORKED;
}

uint64_t wal_step_due_us(const struct wal *wal)
{
    assert(wal->magic == WAL_MAGIC);
    assert(wal->options.stepped);
    return wal_writer_due_us(wal);
}

void wal_abandon(struct wal *wal)
{
    if (wal != NULL) {
        assert(wal->magic == WAL_MAGIC);
        assert(wal->options.stepped);
        wal_free(wal);
    }
}

/* --- writing --- */

/* The bytes of the write's records, or 0 when it is beyond the limits (an empty write has 1). */
static int wal_write_measure(const struct wal_write *write, size_t *bytes)
{
    uint64_t sum = 0;

    sum += write->hard_state_changed ? WAL_RECORD_BYTES : 0;
    sum += write->reset_index != 0 ? WAL_RECORD_BYTES : 0;
    sum += write->truncate_from != 0 ? WAL_RECORD_BYTES : 0;
    for (size_t i = 0; i < write->entry_count; i++) {
        const struct raft_entry *entry = &write->entries[i];
        if (entry->size > WAL_WRITE_BYTES_MAX || (int)entry->type < 1 || (int)entry->type > 255) {
            return WAL_EINVAL;
        }
        sum += wal_record_span((uint32_t)entry->size);
        if (sum > WAL_WRITE_BYTES_MAX) {
            return WAL_EINVAL;
        }
    }
    *bytes = (size_t)sum;
    return WAL_OK;
}

/* Encodes the write; the writer adds what depends on the place. */
static struct wal_chunk *wal_write_encode(const struct wal *wal, const struct wal_write *write,
                                          size_t bytes)
{
    struct wal_chunk *chunk = malloc(sizeof(*chunk) + bytes);
    if (chunk == NULL) {
        return NULL;
    }
    *chunk = (struct wal_chunk){.sequence = write->sequence,
                                .queued_us = wal->files->now_us(wal->files->host),
                                .size = bytes};
    uint8_t *at = chunk->bytes;
    if (write->hard_state_changed) {
        struct wal_record record = {
            .type = WAL_RECORD_HARD_STATE, .index = write->vote, .term = write->term};
        wal_record_encode(&record, at);
        at += WAL_RECORD_BYTES;
    }
    if (write->reset_index != 0) {
        struct wal_record record = {
            .type = WAL_RECORD_RESET,
            .index = write->reset_index,
            .term = write->reset_term,
        };
        wal_record_encode(&record, at);
        at += WAL_RECORD_BYTES;
    }
    if (write->truncate_from != 0) {
        struct wal_record record = {
            .type = WAL_RECORD_TRUNCATE,
            .index = write->truncate_from,
            .term = wal_runs_term_at(wal, write->truncate_from - 1),
        };
        wal_record_encode(&record, at);
        at += WAL_RECORD_BYTES;
    }
    for (size_t i = 0; i < write->entry_count; i++) {
        const struct raft_entry *entry = &write->entries[i];
        struct wal_record record = {
            .size = (uint32_t)entry->size,
            .type = WAL_RECORD_ENTRY,
            .entry_type = (uint8_t)entry->type,
            .index = entry->index,
            .term = entry->term,
        };
        size_t span = (size_t)wal_record_span(record.size);
        wal_record_encode(&record, at);
        if (entry->size > 0) {
            memcpy(at + WAL_RECORD_BYTES, entry->data, entry->size);
        }
        size_t used = WAL_RECORD_BYTES + entry->size;
        memset(at + used, 0, span - used);
        at += span;
    }
    assert(at == chunk->bytes + bytes);
    return chunk;
}

/* Takes back what the writer is done with, and keeps the window within its bound. False: the writer
 * has failed. */
static bool wal_collect(struct wal *wal)
{
    struct wal_window *window = &wal->window;

    (void)pthread_mutex_lock(&wal->shared.lock);
    bool failed = wal->shared.failed;
    struct wal_chunk *chunk = wal->shared.done.head;
    wal->shared.done = (struct wal_chunk_list){0};
    (void)pthread_mutex_unlock(&wal->shared.lock);
    while (chunk != NULL) {
        struct wal_chunk *next = chunk->next;
        chunk->durable = true;
        if (chunk->slots == 0) {
            free(chunk);
        }
        chunk = next;
    }
    while (!wal->memory && window->count > 0 && window->bytes > wal->options.cache_bytes &&
           window->slots[window->first & (window->capacity - 1)].chunk->durable) {
        wal_window_pop(window);
    }
    return !failed;
}

/* Makes the entries readable. Room is reserved. */
static void wal_write_publish(struct wal *wal, const struct wal_write *write,
                              struct wal_chunk *chunk)
{
    uint32_t offset = 0;

    if (write->reset_index != 0) {
        wal_window_truncate(&wal->window, 0);
        wal->run_count = 0;
        wal->first = write->reset_index + 1;
        wal->last = write->reset_index;
        wal->prev_term = write->reset_term;
        offset += WAL_RECORD_BYTES;
    }
    if (write->truncate_from != 0) {
        wal_window_truncate(&wal->window, write->truncate_from);
        wal_runs_truncate(wal, write->truncate_from);
        wal->last = write->truncate_from - 1;
        offset += WAL_RECORD_BYTES;
    }
    offset += write->hard_state_changed ? WAL_RECORD_BYTES : 0;
    for (size_t i = 0; i < write->entry_count; i++) {
        const struct raft_entry *entry = &write->entries[i];
        assert(entry->index == wal->last + 1);
        assert(entry->term >= wal_runs_term_at(wal, wal->last));
        wal_window_push(&wal->window, entry->index, chunk, offset);
        wal_runs_push(wal, entry->index, entry->term);
        wal->last = entry->index;
        offset += (uint32_t)wal_record_span((uint32_t)entry->size);
    }
    wal->sequence = write->sequence;
}

int wal_write(struct wal *wal, const struct wal_write *write)
{
    size_t bytes;

    assert(wal->magic == WAL_MAGIC);
    assert(write->sequence > wal->sequence);
    assert(write->truncate_from == 0 || write->truncate_from >= wal->first);
    assert(write->truncate_from <= wal->last + 1);
    assert(write->reset_index == 0 || write->truncate_from == 0);
    /* Else a crash would leave neither the entries nor what they made. */
    assert(write->reset_index <= wal->snapshot_index || wal->memory);
    if (!wal_collect(wal)) {
        return WAL_EIO;
    }
    int rc = wal_write_measure(write, &bytes);
    if (rc != WAL_OK) {
        return rc;
    }
    if (wal_window_reserve(&wal->window, write->entry_count) != WAL_OK ||
        wal_runs_reserve(wal, write->entry_count) != WAL_OK) {
        return WAL_ENOMEM;
    }
    struct wal_chunk *chunk = wal_write_encode(wal, write, bytes);
    if (chunk == NULL) {
        return WAL_ENOMEM;
    }
    /* Before it is queued: from then on the chunk is the writer's as well. */
    wal_write_publish(wal, write, chunk);
    atomic_fetch_add(&wal->shared.pending_bytes, bytes);
    (void)pthread_mutex_lock(&wal->shared.lock);
    wal_chunk_list_push(&wal->shared.queue, chunk);
    (void)pthread_cond_signal(&wal->shared.wake);
    (void)pthread_mutex_unlock(&wal->shared.lock);
    return WAL_OK;
}

/* --- reading --- */

static int wal_read_bytes(struct wal *wal, const struct wal_segment *segment, uint64_t offset,
                          size_t bytes, char *message)
{
    const struct wal_files *files = wal->files;
    char name[WAL_NAME_BYTES_MAX];
    size_t done = 0;

    wal_segment_name(segment->id, name);
    if (wal->read_capacity < bytes) {
        uint8_t *grown = realloc(wal->read_buffer, bytes);
        if (grown == NULL) {
            return wal_error(message, WAL_EAGAIN, "out of memory");
        }
        wal->read_buffer = grown;
        wal->read_capacity = bytes;
    }
    if (wal->read_fd < 0 || wal->read_id != segment->id) {
        if (wal->read_fd >= 0) {
            files->close(files->host, wal->read_fd); /* Only read from. */
        }
        wal->read_fd = files->open(files->host, wal->dir_fd, name, WAL_FILE_READ);
        if (wal->read_fd < 0) {
            const int error = -wal->read_fd;
            const bool passing = error == EMFILE || error == ENFILE || error == ENOMEM;
            return wal_error(message, passing ? WAL_EAGAIN : WAL_EIO, "%s/%s: open: %s",
                             wal->options.dir, name, strerror(error));
        }
        wal->read_id = segment->id;
    }
    while (done < bytes) {
        ssize_t got = files->pread(files->host, wal->read_fd, wal->read_buffer + done, bytes - done,
                                   offset + done);
        if (got == -EINTR) {
            continue;
        }
        if (got <= 0) {
            return wal_error(message, WAL_EIO, "%s/%s: read at offset %" PRIu64 ": %s",
                             wal->options.dir, name, offset,
                             got == 0 ? "the file has become shorter" : strerror((int)-got));
        }
        done += (size_t)got;
    }
    return WAL_OK;
}

int wal_read_disk(struct wal *wal, raft_index index, struct raft_entry *out, char *message)
{
    struct wal_record record;
    struct wal_position position = {0};
    struct wal_segment place = {0};

    (void)pthread_mutex_lock(&wal->shared.lock);
    const struct wal_segment *segment = wal_segments_find(&wal->shared.segments, index);
    if (segment != NULL) {
        place = *segment;
        position = segment->positions[index - segment->first];
    }
    (void)pthread_mutex_unlock(&wal->shared.lock);
    if (segment == NULL) {
        return wal_error(message, WAL_ENOTFOUND, "%s: no entry %" PRIu64, wal->options.dir, index);
    }
    uint64_t offset = (uint64_t)position.offset_units * WAL_ALIGN_BYTES;
    size_t bytes = (size_t)wal_record_span(position.size);
    int rc = wal_read_bytes(wal, &place, offset, bytes, message);
    if (rc != WAL_OK) {
        return rc;
    }
    if (!wal_record_decode(&wal->crc32c, place.salt, wal->read_buffer, bytes, 0, &record) ||
        record.type != WAL_RECORD_ENTRY || record.index != index || record.size != position.size) {
        return wal_error(message, WAL_ECORRUPT,
                         "%s/%016" PRIx64 ".wal: offset %" PRIu64 ": entry %" PRIu64
                         " is damaged on disk",
                         wal->options.dir, place.id, offset, index);
    }
    *out = (struct raft_entry){
        .index = index,
        .term = record.term,
        .type = (enum raft_entry_type)record.entry_type,
        .data = wal->read_buffer + WAL_RECORD_BYTES,
        .size = record.size,
    };
    return WAL_OK;
}

int wal_entry(struct wal *wal, raft_index index, struct raft_entry *out)
{
    char message[WAL_ERROR_BYTES_MAX];

    assert(wal->magic == WAL_MAGIC);
    (void)wal_collect(wal); /* Reads go on after a failure. */
    if (index < wal->first || index > wal->last) {
        return WAL_ENOTFOUND;
    }
    if (wal_window_find(&wal->window, index, out)) {
        return WAL_OK;
    }
    assert(!wal->memory);
    int rc = wal_read_disk(wal, index, out, message);
    assert(rc != WAL_ENOTFOUND);
    return rc;
}

raft_index wal_batch_end(void *host, raft_index first, raft_index last, size_t bytes_max)
{
    struct wal *wal = host;
    struct raft_entry entry;
    size_t sum = 0;
    raft_index end = first;

    assert(wal->magic == WAL_MAGIC);
    assert(first <= last);
    (void)pthread_mutex_lock(&wal->shared.lock);
    for (raft_index index = first; index <= last; index++) {
        if (wal_window_find(&wal->window, index, &entry)) {
            sum += entry.size;
        } else {
            const struct wal_segment *segment = wal_segments_find(&wal->shared.segments, index);
            if (segment == NULL) {
                break; /* Not in the log. */
            }
            sum += segment->positions[index - segment->first].size;
        }
        if (sum > bytes_max) {
            break;
        }
        end = index;
    }
    (void)pthread_mutex_unlock(&wal->shared.lock);
    return end;
}

raft_index wal_first_index(const struct wal *wal)
{
    return wal->first;
}

raft_index wal_last_index(const struct wal *wal)
{
    return wal->last;
}

size_t wal_pending_bytes(const struct wal *wal)
{
    return atomic_load(&wal->shared.pending_bytes);
}

uint64_t wal_disk_bytes(const struct wal *wal)
{
    return atomic_load(&wal->shared.disk_bytes);
}

uint64_t wal_oldest_us(const struct wal *wal)
{
    /* The lock is no part of what the caller sees of the log. */
    struct wal_shared *shared = (struct wal_shared *)(uintptr_t)&wal->shared;

    (void)pthread_mutex_lock(&shared->lock);
    uint64_t since_us = shared->current_us;
    if (since_us == 0 && shared->queue.head != NULL) {
        since_us = shared->queue.head->queued_us;
    }
    (void)pthread_mutex_unlock(&shared->lock);
    const uint64_t now_us = wal->files->now_us(wal->files->host);
    return since_us != 0 && now_us > since_us ? now_us - since_us : 0;
}

void wal_stats(const struct wal *wal, struct wal_stats *out)
{
    struct wal_shared *shared = (struct wal_shared *)(uintptr_t)&wal->shared;

    (void)pthread_mutex_lock(&shared->lock);
    *out = shared->stats;
    (void)pthread_mutex_unlock(&shared->lock);
}

uint64_t wal_cut_bytes(const struct wal *wal)
{
    return wal->cut_bytes;
}

/* --- snapshots and trimming --- */

void wal_snapshot_synced(struct wal *wal, raft_index index, raft_term term)
{
    assert(wal->magic == WAL_MAGIC);
    assert(index == 0 || term != 0);
    if (index > wal->snapshot_index) {
        wal->snapshot_index = index;
    }
}

int wal_reset(struct wal *wal, uint64_t sequence, raft_index index, raft_term term)
{
    const struct wal_write write = {.sequence = sequence, .reset_index = index, .reset_term = term};

    assert(index != 0);
    assert(term != 0);
    return wal_write(wal, &write);
}

/* The log begins at `first` now. */
static void wal_trim_to(struct wal *wal, raft_index first)
{
    if (first <= wal->first) {
        return;
    }
    assert(first <= wal->last + 1);
    wal->prev_term = wal_runs_term_at(wal, first - 1);
    size_t drop = 0;
    while (drop + 1 < wal->run_count && wal->runs[drop + 1].first <= first) {
        drop++;
    }
    wal->run_count -= drop;
    memmove(wal->runs, wal->runs + drop, wal->run_count * sizeof(*wal->runs));
    if (wal->run_count > 0) {
        wal->runs[0].first = first;
    }
    if (first > wal->last) {
        wal->run_count = 0;
    }
    wal->first = first;
    while (wal->window.count > 0 && wal->window.first < first) {
        wal_window_pop(&wal->window);
    }
}

int wal_trim(struct wal *wal, raft_index index, char *message)
{
    struct wal_shared *shared = &wal->shared;

    assert(wal->magic == WAL_MAGIC);
    message[0] = '\0';
    if (!wal_collect(wal)) {
        return wal_error(message, WAL_EIO, "the log has failed before");
    }
    if (index > wal->last + 1) {
        index = wal->last + 1;
    }
    assert(index <= wal->snapshot_index + 1 || index <= wal->first || wal->memory);
    (void)pthread_mutex_lock(&shared->lock);
    raft_index first = wal->memory ? index : wal->first;
    if (!wal->memory) {
        struct wal_segments *segments = &shared->segments;
        size_t drop = 0;
        while (drop + 1 < segments->count && segments->items[drop + 1]->first <= index) {
            drop++;
        }
        wal_segments_drop(shared, drop);
        first = segments->items[0]->first;
        (void)pthread_cond_signal(&shared->wake);
    }
    (void)pthread_mutex_unlock(&shared->lock);
    wal_trim_to(wal, first);
    return WAL_OK;
}
