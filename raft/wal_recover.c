/* Recovery: reads every segment, oldest first, rebuilds the index and the state, and decides what
 * damage means. Damage is a torn write, and cut off, only where nothing that was written after a
 * later sync stands behind it: in the last batch of the last segment. All other damage would drop
 * acknowledged entries, so it ends in WAL_ECORRUPT with file and offset. */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raft/wal_internal.h"

enum {
    /* Bounds the search for records behind damage: larger entries are not tried as proof. */
    WAL_PROOF_BYTES_MAX = 4096,
};

/* Indexes and terms beyond these are no log's; keeps sums from overflowing. */
static const raft_index wal_index_max = UINT64_MAX / 4;
static const raft_term wal_term_max = UINT64_MAX / 4;

static const char wal_advice[] =
    "acknowledged entries may be lost here: restore the file, or rejoin this server empty";

/* One segment under the eye. */
struct wal_scan {
    struct wal *wal;
    char *message;
    char name[WAL_NAME_BYTES_MAX];
    int fd;
    uint8_t *bytes;
    uint64_t size; /* of the file */
    struct wal_header header;
    struct wal_segment *segment;

    uint64_t end;     /* behind the last whole batch */
    uint32_t batch;   /* ordinal of the next batch */
    uint64_t batches; /* whole ones */
    bool sealed;
    uint64_t damage; /* first byte that is no record of the next batch */

    /* Of the whole log. */
    raft_index *configurations;
    size_t configuration_count;
    size_t configuration_capacity;
};

static int wal_scan_corrupt(const struct wal_scan *scan, uint64_t offset, const char *what)
{
    return wal_error(scan->message, WAL_ECORRUPT, "%s/%s: offset %" PRIu64 ": %s; %s",
                     scan->wal->options.dir, scan->name, offset, what, wal_advice);
}

static int wal_scan_errno(const struct wal_scan *scan, int error, const char *what)
{
    return wal_error(scan->message, WAL_EIO, "%s/%s: %s: %s", scan->wal->options.dir, scan->name,
                     what, strerror(error));
}

/* --- the directory --- */

static int wal_ids_compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;

    return left < right ? -1 : left > right;
}

struct wal_ids {
    uint64_t *items;
    size_t count;
    size_t capacity;
    bool out_of_memory;
};

static bool wal_ids_on_name(void *context, const char *name)
{
    struct wal_ids *ids = context;
    uint64_t id;

    if (!wal_segment_name_parse(name, &id)) {
        return true;
    }
    if (ids->count == ids->capacity) {
        size_t capacity = ids->capacity == 0 ? 64 : 2 * ids->capacity;
        uint64_t *grown = realloc(ids->items, capacity * sizeof(*grown));
        if (grown == NULL) {
            ids->out_of_memory = true;
            return false;
        }
        ids->items = grown;
        ids->capacity = capacity;
    }
    ids->items[ids->count++] = id;
    return true;
}

/* The ids of the segments in the directory, sorted; `out->items` is returned owned. */
static int wal_ids_list(struct wal *wal, struct wal_ids *out, char *message)
{
    struct wal_ids ids = {0};
    int rc = WAL_OK;
    int error = wal->files->dir_list(wal->files->host, wal->dir_fd, wal_ids_on_name, &ids);

    if (error != 0) {
        rc = wal_error(message, WAL_EIO, "%s: cannot list: %s", wal->options.dir, strerror(-error));
    } else if (ids.out_of_memory) {
        rc = wal_error(message, WAL_ENOMEM, "out of memory");
    }
    if (rc != WAL_OK) {
        free(ids.items);
        return rc;
    }
    if (ids.count > 0) {
        qsort(ids.items, ids.count, sizeof(*ids.items), wal_ids_compare);
    }
    *out = ids;
    return WAL_OK;
}

/* --- one segment's bytes --- */

static int wal_scan_read(struct wal_scan *scan)
{
    const struct wal_files *files = scan->wal->files;
    uint64_t done = 0;

    while (done < scan->size) {
        ssize_t got =
            files->pread(files->host, scan->fd, scan->bytes + done, scan->size - done, done);
        if (got == -EINTR) {
            continue;
        }
        if (got < 0) {
            return wal_scan_errno(scan, (int)-got, "read");
        }
        if (got == 0) {
            return wal_scan_errno(scan, EIO, "the file shrinks while it is read");
        }
        done += (uint64_t)got;
    }
    return WAL_OK;
}

/* Opens the segment and reads all of it. `sync`: what is in it may not be on disk. */
static int wal_scan_load(struct wal_scan *scan, uint64_t id, bool sync)
{
    const struct wal_files *files = scan->wal->files;

    wal_segment_name(id, scan->name);
    scan->fd = files->open(files->host, scan->wal->dir_fd, scan->name,
                           scan->wal->read_only ? WAL_FILE_READ : WAL_FILE_WRITE);
    if (scan->fd < 0) {
        return wal_scan_errno(scan, -scan->fd, "open");
    }
    int error = files->size(files->host, scan->fd, &scan->size);
    if (error != 0) {
        return wal_scan_errno(scan, -error, "stat");
    }
    if (scan->size > (uint64_t)WAL_SEGMENT_BYTES_MAX + WAL_WRITE_BYTES_MAX) {
        return wal_scan_corrupt(scan, 0, "larger than any segment");
    }
    if (sync && !scan->wal->read_only) {
        /* What a process that was killed had written but not synced must be on disk before anyone
         * acts on it; and what the page cache holds in spite of a sync that failed must not be
         * taken for what is on disk, so read that. */
        error = files->fdatasync(files->host, scan->fd);
        if (error != 0) {
            return wal_scan_errno(scan, -error, "sync");
        }
        files->forget(files->host, scan->fd);
    }
    scan->bytes = malloc(scan->size == 0 ? 1 : scan->size);
    if (scan->bytes == NULL) {
        return wal_error(scan->message, WAL_ENOMEM,
                         "out of memory to read a segment of %" PRIu64 " bytes", scan->size);
    }
    return wal_scan_read(scan);
}

static void wal_scan_unload(struct wal_scan *scan)
{
    free(scan->bytes);
    scan->bytes = NULL;
    if (scan->fd >= 0) {
        scan->wal->files->close(scan->wal->files->host, scan->fd);
        scan->fd = -1;
    }
}

/* --- records to state --- */

static int wal_scan_configuration(struct wal_scan *scan, raft_index index)
{
    if (scan->configuration_count == scan->configuration_capacity) {
        size_t capacity = scan->configuration_capacity == 0 ? 16 : 2 * scan->configuration_capacity;
        raft_index *grown = realloc(scan->configurations, capacity * sizeof(*grown));
        if (grown == NULL) {
            return WAL_ENOMEM;
        }
        scan->configurations = grown;
        scan->configuration_capacity = capacity;
    }
    scan->configurations[scan->configuration_count++] = index;
    return WAL_OK;
}

static int wal_scan_entry(struct wal_scan *scan, const struct wal_record *record, uint64_t at)
{
    struct wal *wal = scan->wal;
    struct wal_writer *writer = &wal->writer;
    struct wal_segment *segment = scan->segment;
    struct wal_position *grown;
    size_t capacity = 0;

    if (record->index != writer->next || record->index > wal_index_max) {
        return wal_scan_corrupt(scan, at, "an entry out of order");
    }
    if (record->term < writer->last_term || record->term == 0 || record->term > wal_term_max ||
        record->entry_type == 0) {
        return wal_scan_corrupt(scan, at, "an entry with an impossible term or type");
    }
    if (wal_positions_grow(segment, 1, &grown, &capacity) != WAL_OK) {
        return wal_error(scan->message, WAL_ENOMEM, "out of memory for the log's index");
    }
    if (grown != NULL) {
        free(segment->positions);
        segment->positions = grown;
        segment->capacity = capacity;
    }
    if (wal_runs_reserve(wal, 1) != WAL_OK ||
        (record->entry_type == RAFT_ENTRY_CONFIGURATION &&
         wal_scan_configuration(scan, record->index) != WAL_OK)) {
        return wal_error(scan->message, WAL_ENOMEM, "out of memory for the log's index");
    }
    assert(segment->first + segment->count == record->index);
    segment->positions[segment->count++] = (struct wal_position){
        .offset_units = (uint32_t)(at / WAL_ALIGN_BYTES),
        .size = record->size,
    };
    wal_runs_push(wal, record->index, record->term);
    writer->next++;
    writer->last_term = record->term;
    return WAL_OK;
}

static int wal_scan_truncate(struct wal_scan *scan, const struct wal_record *record, uint64_t at)
{
    struct wal *wal = scan->wal;
    raft_index from = record->index;

    if (from == 0 || from > wal->writer.next || record->term > wal_term_max) {
        return wal_scan_corrupt(scan, at, "a truncation beyond the log's end");
    }
    if (from > wal->first && wal_runs_term_at(wal, from - 1) != record->term) {
        return wal_scan_corrupt(scan, at, "a truncation that names another term");
    }
    wal_segments_truncate(&wal->shared.segments, from);
    wal_runs_truncate(wal, from);
    /* Below the first entry that is left, when the entries before were trimmed since. */
    if (from <= wal->first) {
        wal->first = from;
        wal->prev_term = record->term;
    }
    while (scan->configuration_count > 0 &&
           scan->configurations[scan->configuration_count - 1] >= from) {
        scan->configuration_count--;
    }
    wal->writer.next = from;
    wal->writer.last_term = record->term;
    return WAL_OK;
}

/* The log begins anew behind a snapshot. */
static int wal_scan_reset(struct wal_scan *scan, const struct wal_record *record, uint64_t at)
{
    struct wal *wal = scan->wal;

    if (record->index == 0 || record->index > wal_index_max || record->term == 0 ||
        record->term > wal_term_max) {
        return wal_scan_corrupt(scan, at, "a new beginning at an impossible index or term");
    }
    wal_segments_reset(&wal->shared.segments, record->index + 1);
    wal->run_count = 0;
    wal->first = record->index + 1;
    wal->prev_term = record->term;
    scan->configuration_count = 0;
    wal->writer.next = record->index + 1;
    wal->writer.last_term = record->term;
    return WAL_OK;
}

/* Applies the records of a whole batch, whose checksums are known to be right. */
static int wal_scan_apply(struct wal_scan *scan, uint64_t from, uint64_t to)
{
    struct wal_writer *writer = &scan->wal->writer;
    int rc = WAL_OK;

    for (uint64_t at = from; at < to && rc == WAL_OK;) {
        struct wal_record record = wal_record_head(scan->bytes + at);
        record.batch = scan->batch;
        if (scan->wal->observer != NULL) {
            scan->wal->observer->on_record(scan->wal->observer->host, scan->header.id, at, &record,
                                           scan->bytes + at);
        }
        switch ((enum wal_record_type)record.type) {
        case WAL_RECORD_ENTRY:
            rc = wal_scan_entry(scan, &record, at);
            break;
        case WAL_RECORD_HARD_STATE:
            if (record.term < writer->term || record.term > wal_term_max) {
                rc = wal_scan_corrupt(scan, at, "a term that goes back, or an impossible one");
            }
            writer->term = record.term;
            writer->vote = record.index;
            break;
        case WAL_RECORD_TRUNCATE:
            rc = wal_scan_truncate(scan, &record, at);
            break;
        case WAL_RECORD_RESET:
            rc = wal_scan_reset(scan, &record, at);
            break;
        case WAL_RECORD_COMMIT:
            if (record.index != writer->next - 1 || record.term != at - from) {
                rc = wal_scan_corrupt(scan, at, "a commit mark that does not fit its batch");
            }
            break;
        case WAL_RECORD_SEAL:
            assert(record.type != WAL_RECORD_SEAL); /* wal_scan_batch ends there. */
            break;
        }
        at += wal_record_span(record.size);
    }
    return rc;
}

/* Finds the end of the batch at scan->end, its mark included. False: it is not whole, and
 * scan->damage says where; or it is the seal. */
static bool wal_scan_batch(struct wal_scan *scan, uint64_t *end)
{
    uint64_t at = scan->end;
    struct wal_record record;

    while (wal_record_decode(&scan->wal->crc32c, scan->header.salt, scan->bytes, scan->size, at,
                             &record) &&
           record.batch == scan->batch) {
        if (record.type == WAL_RECORD_SEAL) {
            scan->sealed = at == scan->end && record.index == scan->header.id + 1;
            break;
        }
        at += wal_record_span(record.size);
        if (record.type == WAL_RECORD_COMMIT) {
            *end = at;
            return true;
        }
    }
    scan->damage = at;
    return false;
}

/* Whether anything of a later batch stands behind the damage: then the batch at scan->end was
 * synced, for a batch is written only when the one before is. */
static bool wal_scan_proof(const struct wal_scan *scan)
{
    struct wal_record record;

    for (uint64_t at = scan->end; at + WAL_RECORD_BYTES <= scan->size; at += WAL_ALIGN_BYTES) {
        const uint8_t *bytes = scan->bytes + at;
        if (bytes[12] == 0 || wal_record_batch(bytes) <= scan->batch ||
            wal_record_head(bytes).size > WAL_PROOF_BYTES_MAX) {
            continue;
        }
        if (wal_record_decode(&scan->wal->crc32c, scan->header.salt, scan->bytes, scan->size, at,
                              &record)) {
            return true;
        }
    }
    return false;
}

/* --- segments --- */

static int wal_scan_header(struct wal_scan *scan, uint64_t id)
{
    struct wal *wal = scan->wal;
    struct wal_header header = {0};
    int rc = wal_header_decode(&wal->crc32c, scan->bytes, scan->size, &header);

    scan->header = header;
    if (rc == WAL_EFORMAT) {
        return wal_error(scan->message, rc,
                         "%s/%s: written in a newer format than version %d; start the newer "
                         "program again",
                         wal->options.dir, scan->name, WAL_FORMAT_VERSION);
    }
    if (rc != WAL_OK) {
        return wal_scan_corrupt(scan, 0, "the segment's header is damaged");
    }
    if (scan->header.id != id) {
        return wal_scan_corrupt(scan, 16, "the segment is another one than its name says");
    }
    if (scan->size > scan->header.bytes) {
        return wal_scan_corrupt(scan, scan->header.bytes, "bytes behind the segment's end");
    }
    if (scan->header.next > wal_index_max || scan->header.prev_term > wal_term_max ||
        scan->header.term > wal_term_max) {
        return wal_scan_corrupt(scan, 32, "an impossible index or term");
    }
    return WAL_OK;
}

/* The first segment's header is where the state begins; those that follow must agree with it. */
static int wal_scan_join(struct wal_scan *scan, bool first, const struct wal_scan *before)
{
    struct wal *wal = scan->wal;
    struct wal_writer *writer = &wal->writer;
    const struct wal_header *header = &scan->header;

    if (first) {
        wal->first = header->next;
        wal->prev_term = header->prev_term;
        writer->next = header->next;
        writer->last_term = header->prev_term;
        writer->term = header->term;
        writer->vote = header->vote;
        return WAL_OK;
    }
    if (header->prev_end != before->end || header->next != writer->next ||
        header->prev_term != writer->last_term || header->term != writer->term ||
        header->vote != writer->vote) {
        return wal_scan_corrupt(before, before->damage,
                                "the segment ends where its successor does not go on");
    }
    return WAL_OK;
}

/* Reads the segment's batches. */
static int wal_scan_batches(struct wal_scan *scan)
{
    uint64_t end;

    scan->end = WAL_FIRST_OFFSET;
    scan->batch = 1;
    scan->batches = 0;
    scan->sealed = false;
    while (wal_scan_batch(scan, &end)) {
        int rc = wal_scan_apply(scan, scan->end, end);
        if (rc != WAL_OK) {
            return rc;
        }
        /* An empty batch shares its ordinal with the next one: see wal_writer_mark. */
        if (end - scan->end > WAL_RECORD_BYTES) {
            scan->batch++;
        }
        scan->end = end;
        scan->batches++;
    }
    return WAL_OK;
}

/* Makes the rest of the last segment zero, so that nothing of a torn batch can ever be taken for
 * part of a later one, and restores the size. */
static int wal_scan_cut(struct wal_scan *scan)
{
    static const uint8_t zeros[WAL_ZERO_BYTES];
    const struct wal_files *files = scan->wal->files;
    bool changed = false;
    int error = 0;

    for (uint64_t at = scan->end; at < scan->size && error == 0; at += WAL_ZERO_BYTES) {
        uint64_t left = scan->size - at;
        size_t size = left < WAL_ZERO_BYTES ? (size_t)left : WAL_ZERO_BYTES;
        if (memcmp(scan->bytes + at, zeros, size) == 0) {
            continue;
        }
        for (size_t i = size; i-- > 0;) {
            if (scan->bytes[at + i] != 0) {
                scan->wal->cut_bytes = at + i + 1 - scan->end;
                break;
            }
        }
        memset(scan->bytes + at, 0, size);
        struct iovec iov = {.iov_base = scan->bytes + at, .iov_len = size};
        error = wal_write_all(files, scan->fd, &iov, 1, at);
        changed = true;
    }
    if (error == 0 && scan->size < scan->header.bytes) {
        error = files->allocate(files->host, scan->fd, scan->header.bytes);
        changed = true;
    }
    if (error == 0 && changed) {
        error = files->fdatasync(files->host, scan->fd);
    }
    return error == 0 ? WAL_OK : wal_scan_errno(scan, -error, "cut the torn tail");
}

/* The last segment is where writing goes on. Takes over its file. */
static int wal_scan_resume(struct wal_scan *scan)
{
    struct wal_writer *writer = &scan->wal->writer;

    if (scan->sealed) {
        return wal_error(scan->message, WAL_ECORRUPT,
                         "%s/%s: offset %" PRIu64 ": the segment is sealed and its successor "
                         "%016" PRIx64 ".wal is missing; %s",
                         scan->wal->options.dir, scan->name, scan->end, scan->header.id + 1,
                         wal_advice);
    }
    if (wal_scan_proof(scan)) {
        return wal_scan_corrupt(scan, scan->damage, "a damaged record before the log's tail");
    }
    if (scan->end + WAL_RECORD_BYTES > scan->header.bytes) {
        return wal_scan_corrupt(scan, scan->end, "no room for a seal");
    }
    int rc = wal_scan_cut(scan);
    if (rc != WAL_OK) {
        return rc;
    }
    writer->segment = scan->segment;
    writer->fd = scan->fd;
    writer->end = scan->end;
    writer->batch = scan->batch;
    writer->mark_due = scan->batches > 0;
    scan->fd = -1;
    return WAL_OK;
}

/* `before` ended without a seal and `scan` is the last segment: the process may have stopped while
 * it went from the one to the other, before anything was written to the second. Finishes it. */
static int wal_scan_seal_before(struct wal_scan *scan, struct wal_scan *before)
{
    if (scan->batches > 0 || scan->sealed || wal_scan_proof(scan)) {
        return wal_scan_corrupt(before, before->damage,
                                "a damaged record before the log's tail (the seal is missing)");
    }
    int rc = wal_scan_cut(before);
    if (rc == WAL_OK) {
        rc = wal_writer_seal(scan->wal, before->fd, before->segment, before->end, before->batch,
                             scan->message);
    }
    before->wal->cut_bytes = 0; /* A torn seal holds no entries. */
    return rc;
}

/* Reads segment number `position` of `count`. `before` is the one before it, still loaded. */
static int wal_scan_segment(struct wal_scan *scan, struct wal_scan *before, uint64_t id,
                            size_t position, size_t count)
{
    bool last = position + 1 == count;
    /* The one before the last, too, for its seal: it is written when the last has its name. */
    int rc = wal_scan_load(scan, id, position + 2 >= count);

    if (rc == WAL_OK) {
        rc = wal_scan_header(scan, id);
    }
    if (rc == WAL_OK) {
        rc = wal_scan_join(scan, position == 0, before);
    }
    if (rc != WAL_OK) {
        return rc;
    }
    scan->segment = wal_segment_new(&scan->header);
    if (scan->segment == NULL ||
        wal_segments_add(&scan->wal->shared.segments, scan->segment) != WAL_OK) {
        wal_segment_free(scan->segment);
        return wal_error(scan->message, WAL_ENOMEM, "out of memory for the list of segments");
    }
    if (scan->wal->observer != NULL) {
        scan->wal->observer->on_segment(scan->wal->observer->host, scan->name, &scan->header);
    }
    rc = wal_scan_batches(scan);
    if (rc != WAL_OK) {
        return rc;
    }
    atomic_fetch_add(&scan->wal->shared.disk_bytes, scan->header.bytes);
    if (position > 0 && !before->sealed) {
        rc = wal_scan_seal_before(scan, before);
    }
    if (rc == WAL_OK && !last && !scan->sealed && position + 2 < count) {
        rc = wal_scan_corrupt(scan, scan->damage, "a damaged record before the log's tail");
    }
    if (rc == WAL_OK && last) {
        rc = wal_scan_resume(scan);
    }
    return rc;
}

static int wal_recover_segments(struct wal *wal, const uint64_t *ids, size_t count,
                                raft_index *configuration_indexes, char *message)
{
    struct wal_scan scans[2];
    int rc = WAL_OK;

    for (size_t i = 0; i < 2; i++) {
        scans[i] = (struct wal_scan){.wal = wal, .message = message, .fd = -1};
    }
    for (size_t i = 0; i < count && rc == WAL_OK; i++) {
        struct wal_scan *scan = &scans[i % 2];
        struct wal_scan *before = &scans[(i + 1) % 2];
        wal_scan_unload(scan);
        scan->configurations = before->configurations;
        scan->configuration_count = before->configuration_count;
        scan->configuration_capacity = before->configuration_capacity;
        before->configurations = NULL;
        if (i > 0 && ids[i] != ids[i - 1] + 1) {
            rc = wal_error(message, WAL_ECORRUPT,
                           "%s/%s: offset %" PRIu64 ": the next segment %016" PRIx64
                           ".wal is missing, though %016" PRIx64 ".wal is there; %s",
                           wal->options.dir, before->name, before->end, ids[i - 1] + 1, ids[i],
                           wal_advice);
        } else {
            rc = wal_scan_segment(scan, before, ids[i], i, count);
        }
        if (rc == WAL_OK && i + 1 == count) {
            size_t found = scan->configuration_count;
            configuration_indexes[0] = found > 0 ? scan->configurations[found - 1] : 0;
            configuration_indexes[1] = found > 1 ? scan->configurations[found - 2] : 0;
        }
    }
    for (size_t i = 0; i < 2; i++) {
        free(scans[i].configurations);
        wal_scan_unload(&scans[i]);
    }
    return rc;
}

/* A process that was killed may have renamed a segment and not synced the name: it must be on disk
 * before its predecessor is sealed for it, and before anything in it is called durable. */
static int wal_recover_names(struct wal *wal, char *message)
{
    const int error = wal->read_only ? 0 : wal->files->dir_sync(wal->files->host, wal->dir_fd);

    return error == 0 ? WAL_OK
                      : wal_error(message, WAL_EIO, "%s: cannot sync: %s", wal->options.dir,
                                  strerror(-error));
}

int wal_recover(struct wal *wal, raft_index *configuration_indexes, char *message)
{
    struct wal_ids ids = {0};
    int error = 0;

    configuration_indexes[0] = 0;
    configuration_indexes[1] = 0;
    int rc = wal_ids_list(wal, &ids, message);
    if (rc != WAL_OK) {
        return rc;
    }
    if (ids.count == 0 && wal->read_only) {
        rc = wal_error(message, WAL_ENOTFOUND, "%s: there is no segment", wal->options.dir);
    } else if (ids.count == 0) {
        rc = wal_writer_roll(wal, 0, message, &error);
    } else {
        rc = wal_recover_names(wal, message);
        if (rc == WAL_OK) {
            rc = wal_recover_segments(wal, ids.items, ids.count, configuration_indexes, message);
        }
    }
    free(ids.items);
    if (rc != WAL_OK) {
        return rc;
    }
    wal->last = wal->writer.next - 1;
    assert(wal->first <= wal->last + 1);
    assert(wal->shared.segments.items[0]->first == wal->first);
    return WAL_OK;
}
