/* Segments: their names, the index of what they hold, and whole writes to them. */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/wal_internal.h"

int wal_error(char *message, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(message, WAL_ERROR_BYTES_MAX, format, arguments); /* Cut when too long. */
    va_end(arguments);
    return code;
}

int wal_write_all(const struct wal_files *files, int file, struct iovec *iov, size_t count,
                  uint64_t offset)
{
    while (count > 0) {
        ssize_t written = files->pwritev(files->host, file, iov, (int)count, offset);
        if (written == -EINTR) {
            continue;
        }
        if (written <= 0) {
            return written == 0 ? -EIO : (int)written;
        }
        offset += (uint64_t)written;
        size_t left = (size_t)written;
        while (count > 0 && left >= iov->iov_len) {
            left -= iov->iov_len;
            iov++;
            count--;
        }
        if (left > 0) {
            assert(count > 0);
            iov->iov_base = (uint8_t *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return 0;
}

void wal_segment_name(uint64_t id, char out[WAL_NAME_BYTES_MAX])
{
    (void)snprintf(out, WAL_NAME_BYTES_MAX, "%016" PRIx64 ".wal", id);
}

bool wal_segment_name_parse(const char *name, uint64_t *id)
{
    uint64_t value = 0;

    if (strlen(name) != 20 || strcmp(name + 16, ".wal") != 0) {
        return false;
    }
    for (size_t i = 0; i < 16; i++) {
        char digit = name[i];
        if (digit >= '0' && digit <= '9') {
            value = value << 4 | (uint64_t)(digit - '0');
        } else if (digit >= 'a' && digit <= 'f') {
            value = value << 4 | (uint64_t)(digit - 'a' + 10);
        } else {
            return false;
        }
    }
    *id = value;
    return true;
}

struct wal_segment *wal_segment_new(const struct wal_header *header)
{
    struct wal_segment *segment = calloc(1, sizeof(*segment));

    if (segment != NULL) {
        segment->id = header->id;
        segment->bytes = header->bytes;
        segment->salt = header->salt;
        segment->first = header->next;
    }
    return segment;
}

void wal_segment_free(struct wal_segment *segment)
{
    if (segment != NULL) {
        free(segment->positions);
        free(segment);
    }
}

int wal_segments_add(struct wal_segments *segments, struct wal_segment *segment)
{
    if (segments->count == segments->capacity) {
        size_t capacity = segments->capacity == 0 ? 16 : 2 * segments->capacity;
        struct wal_segment **items =
            realloc(segments->items, capacity * sizeof(struct wal_segment *));
        if (items == NULL) {
            return WAL_ENOMEM;
        }
        segments->items = items;
        segments->capacity = capacity;
    }
    segments->items[segments->count++] = segment;
    return WAL_OK;
}

void wal_segments_deinit(struct wal_segments *segments)
{
    for (size_t i = 0; i < segments->count; i++) {
        wal_segment_free(segments->items[i]);
    }
    free(segments->items);
    *segments = (struct wal_segments){0};
}

void wal_segments_truncate(struct wal_segments *segments, raft_index from)
{
    for (size_t i = segments->count; i-- > 0;) {
        struct wal_segment *segment = segments->items[i];
        if (segment->first < from) {
            if (segment->first + segment->count > from) {
                segment->count = (size_t)(from - segment->first);
            }
            break;
        }
        segment->first = from;
        segment->count = 0;
    }
}

void wal_segments_reset(struct wal_segments *segments, raft_index next)
{
    for (size_t i = 0; i < segments->count; i++) {
        segments->items[i]->first = next;
        segments->items[i]->count = 0;
    }
}

void wal_segments_drop(struct wal_shared *shared, size_t drop)
{
    struct wal_segments *segments = &shared->segments;

    assert(drop < segments->count); /* The last one is written to. */
    if (drop == 0) {
        return;
    }
    if (shared->trim_from == shared->trim_to) {
        shared->trim_from = segments->items[0]->id;
    }
    for (size_t i = 0; i < drop; i++) {
        shared->trim_to = segments->items[i]->id + 1;
        atomic_fetch_sub(&shared->disk_bytes, segments->items[i]->bytes);
        wal_segment_free(segments->items[i]);
    }
    segments->count -= drop;
    memmove(segments->items, segments->items + drop,
            segments->count * sizeof(struct wal_segment *));
}

struct wal_segment *wal_segments_find(const struct wal_segments *segments, raft_index index)
{
    size_t low = 0;
    size_t high = segments->count;

    /* The last segment that begins at or before the index: those without entries begin where the
     * next one does, so that they are passed over. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (segments->items[middle]->first <= index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return NULL;
    }
    struct wal_segment *segment = segments->items[low - 1];
    return index - segment->first < segment->count ? segment : NULL;
}

int wal_positions_grow(const struct wal_segment *segment, size_t more, struct wal_position **grown,
                       size_t *capacity)
{
    size_t needed = segment->count + more;

    *grown = NULL;
    if (needed <= segment->capacity) {
        return WAL_OK;
    }
    *capacity = segment->capacity == 0 ? 256 : segment->capacity;
    while (*capacity < needed) {
        *capacity *= 2;
    }
    *grown = malloc(*capacity * sizeof(**grown));
    if (*grown == NULL) {
        return WAL_ENOMEM;
    }
    if (segment->count > 0) {
        memcpy(*grown, segment->positions, segment->count * sizeof(**grown));
    }
    return WAL_OK;
}
