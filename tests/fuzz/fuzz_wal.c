/* Recovery of a folder with one segment of arbitrary bytes: it must never crash, and what it
 * accepts must be readable, take more, and be the same after another restart.
 *
 * Checksums are put right first (unless the first byte says not to), or nothing but the search for
 * damage would ever be reached. */

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "raft/wal_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_BYTES_MAX = 64 * 1024, FUZZ_READS_MAX = 256 };

static char fuzz_dir[64];

static void fuzz_remove(void)
{
    char path[128];
    static const char *const names[] = {"0000000000000001.wal", "0000000000000002.wal",
                                        "0000000000000003.wal", "spare", "lock"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", fuzz_dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(fuzz_dir);
}

/* Nothing is waited for, and no header makes a file large. */
static int fuzz_sync(void *host, int fd)
{
    (void)host;
    (void)fd;
    return 0;
}

static int fuzz_allocate(void *host, int fd, uint64_t bytes)
{
    (void)host;
    (void)fd;
    (void)bytes;
    return 0;
}

static void fuzz_on_durable(void *host, uint64_t sequence)
{
    (void)host;
    (void)sequence;
}

/* Makes the header's and the records' checksums right, as far as sizes make sense. */
static void fuzz_repair(const struct crc32c *crc32c, uint8_t *bytes, size_t size)
{
    uint8_t header[WAL_HEADER_BYTES];
    struct wal_header fields = {.version = 1, .id = 1, .next = 1, .bytes = FUZZ_BYTES_MAX};

    if (size < WAL_HEADER_BYTES) {
        return;
    }
    wal_header_encode(crc32c, &fields, header);
    memcpy(bytes, header, 8);
    wal_put_u32(bytes + WAL_HEADER_BYTES - 4,
                crc32c_update(crc32c, 0, bytes, WAL_HEADER_BYTES - 4));
    uint32_t salt = wal_get_u32(bytes + 12);
    for (size_t at = WAL_FIRST_OFFSET; at + WAL_RECORD_BYTES <= size;) {
        uint64_t span = wal_record_span(wal_get_u32(bytes + at + 4));
        if (span > size - at) {
            break;
        }
        wal_put_u32(bytes + at, crc32c_update(crc32c, salt, bytes + at + 4, span - 4));
        at += span;
    }
}

static struct wal *fuzz_open(struct raft_state *state)
{
    static struct wal_files files;
    char message[WAL_ERROR_BYTES_MAX];
    struct wal *wal = NULL;
    struct wal_options options = {.dir = fuzz_dir,
                                  .segment_bytes = WAL_SEGMENT_BYTES_MIN,
                                  .cache_bytes = 1,
                                  .on_durable = fuzz_on_durable,
                                  .files = &files};

    files = wal_files_default;
    files.fdatasync = fuzz_sync;
    files.dir_sync = fuzz_sync;
    files.allocate = fuzz_allocate;
    int rc = wal_open(&options, &wal, state, message);
    assert((rc == WAL_OK) == (wal != NULL));
    assert(rc == WAL_OK || message[0] != '\0');
    return wal;
}

/* Opens, reads, appends one entry and closes; returns the last index, or 0 when refused. */
static raft_index fuzz_use(raft_index expected_last)
{
    struct raft_state state;
    struct raft_entry entry;
    struct wal *wal = fuzz_open(&state);

    if (wal == NULL) {
        assert(expected_last == 0);
        return 0;
    }
    assert(expected_last == 0 || state.last_index == expected_last);
    assert(state.first_index <= state.last_index + 1);
    raft_index index = state.last_index;
    raft_term term = state.term + 1;
    for (size_t i = 0; i < FUZZ_READS_MAX && index >= state.first_index; i++) {
        assert(wal_entry(wal, index, &entry) == WAL_OK);
        assert(entry.index == index);
        term = entry.term > term ? entry.term : term;
        index--;
    }
    if (state.run_count > 0 && state.runs[state.run_count - 1].term > term) {
        term = state.runs[state.run_count - 1].term;
    }
    term = state.prev_term > term ? state.prev_term : term;
    struct raft_entry one = {.index = state.last_index + 1,
                             .term = term,
                             .type = RAFT_ENTRY_NOOP,
                             .data = "",
                             .size = 0};
    struct wal_write write = {.sequence = 1, .entries = &one, .entry_count = 1};
    assert(wal_write(wal, &write) == WAL_OK);
    wal_close(wal);
    return one.index;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct crc32c crc32c;
    char path[128];

    if (size < 1 || size > FUZZ_BYTES_MAX) {
        return 0;
    }
    if (fuzz_dir[0] == '\0') {
        (void)snprintf(fuzz_dir, sizeof(fuzz_dir), "/dev/shm/fuzz_wal.%d", (int)getpid());
        crc32c_init(&crc32c);
        (void)atexit(fuzz_remove);
    }
    fuzz_remove();
    struct raft_state state;
    struct wal *wal = fuzz_open(&state);
    assert(wal != NULL);
    wal_close(wal);

    uint8_t *bytes = malloc(size);
    assert(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    if ((data[0] & 1) == 0) {
        fuzz_repair(&crc32c, bytes, size - 1);
    }
    (void)snprintf(path, sizeof(path), "%s/0000000000000001.wal", fuzz_dir);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert(fd >= 0);
    assert(write(fd, bytes, size - 1) == (ssize_t)(size - 1));
    (void)close(fd);
    free(bytes);

    raft_index last = fuzz_use(0);
    if (last != 0) {
        (void)fuzz_use(last);
    }
    return 0;
}
