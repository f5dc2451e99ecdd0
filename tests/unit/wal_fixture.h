#ifndef TESTS_UNIT_WAL_FIXTURE_H
#define TESTS_UNIT_WAL_FIXTURE_H

/* What the tests of the log share: a log in a folder of its own, entries whose bytes follow from
 * index and term, and folders that are copied and damaged. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "raft/wal_internal.h"

enum { TEST_SEGMENT_BYTES = 16 * 1024, TEST_PAYLOAD_BYTES_MAX = 300, TEST_PATH_BYTES_MAX = 600 };

/* --- the test that runs --- */

static char test_dir[TEST_PATH_BYTES_MAX]; /* its folder */
static struct wal_files test_files;        /* what its log calls: a program may change them */

static inline void test_dir_remove(const char *dir)
{
    char path[2 * TEST_PATH_BYTES_MAX];
    DIR *handle = opendir(dir);
    if (handle == NULL) {
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(handle)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            (void)snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
            (void)unlink(path);
        }
    }
    (void)closedir(handle);
    (void)rmdir(dir);
}

static inline int test_setup(void **state)
{
    const char *base = getenv("TMPDIR");

    (void)state;
    (void)snprintf(test_dir, sizeof(test_dir), "%s/test_wal.XXXXXX", base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(test_dir));
    test_files = wal_files_default;
    return 0;
}

static inline int test_teardown(void **state)
{
    (void)state;
    test_dir_remove(test_dir);
    return 0;
}

/* `setup` is test_setup, or calls it. */
#define wal_unit_test(test, setup) cmocka_unit_test_setup_teardown(test, setup, test_teardown)

/* --- a log --- */

struct test_log {
    struct wal_options options;
    struct wal *wal;
    struct raft_state state;
    uint64_t sequence;
    char message[WAL_ERROR_BYTES_MAX];

    pthread_mutex_t lock; /* over what the writer thread reports */
    pthread_cond_t change;
    uint64_t durable;
    bool failed;
    char failure[WAL_ERROR_BYTES_MAX];
    bool full;
    unsigned full_count;
};

static inline void test_on_durable(void *host, uint64_t sequence)
{
    struct test_log *log = host;
    pthread_mutex_lock(&log->lock);
    if (sequence > log->durable) {
        log->durable = sequence;
    }
    pthread_cond_broadcast(&log->change);
    pthread_mutex_unlock(&log->lock);
}

static inline void test_on_failed(void *host, const char *message)
{
    struct test_log *log = host;
    pthread_mutex_lock(&log->lock);
    log->failed = true;
    (void)snprintf(log->failure, sizeof(log->failure), "%s", message);
    pthread_cond_broadcast(&log->change);
    pthread_mutex_unlock(&log->lock);
}

static inline void test_on_full(void *host, bool full)
{
    struct test_log *log = host;
    pthread_mutex_lock(&log->lock);
    log->full = full;
    log->full_count++;
    pthread_cond_broadcast(&log->change);
    pthread_mutex_unlock(&log->lock);
}

/* A log in the test's folder, on its calls. */
static inline void test_log_init(struct test_log *log)
{
    memset(log, 0, sizeof(*log));
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->change, NULL);
    log->options = (struct wal_options){
        .dir = test_dir,
        .files = &test_files,
        .segment_bytes = TEST_SEGMENT_BYTES,
        .cache_bytes = 1024,
        .host = log,
        .on_durable = test_on_durable,
        .on_failed = test_on_failed,
        .on_full = test_on_full,
    };
}

static inline int test_log_open(struct test_log *log)
{
    assert_null(log->wal);
    log->sequence = 0;
    log->durable = 0;
    return wal_open(&log->options, &log->wal, &log->state, log->message);
}

static inline void test_log_open_ok(struct test_log *log)
{
    int rc = test_log_open(log);
    if (rc != WAL_OK) {
        fail_msg("open: %s: %s", wal_strerror(rc), log->message);
    }
}

static inline void test_log_close(struct test_log *log)
{
    wal_close(log->wal);
    log->wal = NULL;
}

static inline size_t test_payload(raft_index index, raft_term term, uint8_t *out)
{
    size_t size = (size_t)((index * 37 + term * 11) % TEST_PAYLOAD_BYTES_MAX);
    for (size_t i = 0; i < size; i++) {
        out[i] = (uint8_t)(index * 31 + term * 17 + i);
    }
    return size;
}

/* Writes entries first..first+count-1 of `term` as one write. */
static inline int test_log_write(struct test_log *log, raft_index truncate_from, raft_index first,
                                 size_t count, raft_term term)
{
    struct raft_entry *entries = calloc(count + 1, sizeof(*entries));
    uint8_t *payloads = malloc((count + 1) * TEST_PAYLOAD_BYTES_MAX);
    for (size_t i = 0; i < count; i++) {
        uint8_t *payload = payloads + i * TEST_PAYLOAD_BYTES_MAX;
        entries[i] = (struct raft_entry){
            .index = first + i, .term = term, .type = RAFT_ENTRY_COMMAND, .data = payload};
        entries[i].size = test_payload(first + i, term, payload);
    }
    struct wal_write write = {
        .sequence = ++log->sequence,
        .truncate_from = truncate_from,
        .entries = entries,
        .entry_count = count,
    };
    int rc = wal_write(log->wal, &write);
    free(entries);
    free(payloads);
    return rc;
}

static inline int test_log_vote(struct test_log *log, raft_term term, raft_id vote)
{
    struct wal_write write = {
        .sequence = ++log->sequence, .hard_state_changed = true, .term = term, .vote = vote};
    return wal_write(log->wal, &write);
}

/* wal_trim, with a snapshot that covers what it forgets. */
static inline int test_log_trim(struct test_log *log, raft_index index)
{
    const raft_index last = wal_last_index(log->wal);
    const raft_index covered = index == 0 ? 0 : index - 1;
    wal_snapshot_synced(log->wal, covered > last ? last : covered, 1);
    return wal_trim(log->wal, index, log->message);
}

static inline void test_log_wait(struct test_log *log)
{
    pthread_mutex_lock(&log->lock);
    while (log->durable < log->sequence && !log->failed) {
        pthread_cond_wait(&log->change, &log->lock);
    }
    pthread_mutex_unlock(&log->lock);
}

static inline bool test_log_failed(struct test_log *log)
{
    pthread_mutex_lock(&log->lock);
    bool failed = log->failed;
    pthread_mutex_unlock(&log->lock);
    return failed;
}

static inline void test_log_wait_failed(struct test_log *log)
{
    pthread_mutex_lock(&log->lock);
    while (!log->failed) {
        pthread_cond_wait(&log->change, &log->lock);
    }
    pthread_mutex_unlock(&log->lock);
}

static inline void test_log_wait_full(struct test_log *log, bool full)
{
    pthread_mutex_lock(&log->lock);
    while (log->full != full || log->full_count == 0) {
        pthread_cond_wait(&log->change, &log->lock);
    }
    pthread_mutex_unlock(&log->lock);
}

/* Appends one write and waits for it: a batch of its own. */
static inline void test_log_batch(struct test_log *log, raft_index first, size_t count,
                                  raft_term term)
{
    assert_int_equal(test_log_write(log, 0, first, count, term), WAL_OK);
    test_log_wait(log);
    assert_false(test_log_failed(log));
}

static inline void test_log_check(struct test_log *log, raft_index index, raft_term term)
{
    uint8_t payload[TEST_PAYLOAD_BYTES_MAX];
    size_t size = test_payload(index, term, payload);
    struct raft_entry entry;
    int rc = wal_entry(log->wal, index, &entry);
    if (rc != WAL_OK) {
        fail_msg("entry %" PRIu64 ": %s", index, wal_strerror(rc));
    }
    assert_int_equal(entry.index, index);
    assert_int_equal(entry.term, term);
    assert_int_equal(entry.type, RAFT_ENTRY_COMMAND);
    assert_int_equal(entry.size, size);
    if (size > 0) {
        assert_memory_equal(entry.data, payload, size);
    }
}

static inline void test_log_check_range(struct test_log *log, raft_index first, raft_index last,
                                        raft_term term)
{
    for (raft_index index = first; index <= last; index++) {
        test_log_check(log, index, term);
    }
}

/* --- folders --- */

struct test_bytes {
    uint8_t *data;
    size_t size;
};

static inline void test_file_path(uint64_t id, char out[TEST_PATH_BYTES_MAX])
{
    char name[WAL_NAME_BYTES_MAX];
    wal_segment_name(id, name);
    (void)snprintf(out, TEST_PATH_BYTES_MAX, "%.500s/%s", test_dir, name);
}

static inline struct test_bytes test_file_read(uint64_t id)
{
    char path[TEST_PATH_BYTES_MAX];
    struct stat status;
    test_file_path(id, path);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) != 0) {
        fail_msg("%s: %s", path, strerror(errno));
    }
    struct test_bytes bytes = {.size = (size_t)status.st_size};
    bytes.data = malloc(bytes.size + 1);
    assert_int_equal(read(fd, bytes.data, bytes.size), (ssize_t)bytes.size);
    (void)close(fd);
    return bytes;
}

static inline void test_file_write(uint64_t id, const uint8_t *data, size_t size)
{
    char path[TEST_PATH_BYTES_MAX];
    test_file_path(id, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), (ssize_t)size);
    (void)close(fd);
}

/* How many segments are in the folder, and the highest id, 0 for none. */
static inline size_t test_segments(uint64_t *last)
{
    size_t count = 0;
    DIR *handle = opendir(test_dir);
    assert_non_null(handle);
    struct dirent *entry;
    *last = 0;
    while ((entry = readdir(handle)) != NULL) {
        uint64_t id;
        if (wal_segment_name_parse(entry->d_name, &id)) {
            *last = id > *last ? id : *last;
            count++;
        }
    }
    (void)closedir(handle);
    return count;
}

static inline uint64_t test_last_id(void)
{
    uint64_t last;
    (void)test_segments(&last);
    return last;
}

static inline size_t test_segment_count(void)
{
    uint64_t last;
    return test_segments(&last);
}

/* All segments of a folder as they are now: what a crash at this moment leaves. */
struct test_image {
    uint64_t first_id;
    uint64_t last_id;
    struct test_bytes files[64];
};

static inline struct test_image test_image_take(void)
{
    struct test_image image = {.last_id = test_last_id()};
    image.first_id = image.last_id - test_segment_count() + 1;
    assert_true(image.last_id - image.first_id < 64);
    for (uint64_t id = image.first_id; id <= image.last_id; id++) {
        image.files[id - image.first_id] = test_file_read(id);
    }
    return image;
}

static inline void test_image_free(struct test_image *image)
{
    for (uint64_t id = image->first_id; id <= image->last_id; id++) {
        free(image->files[id - image->first_id].data);
    }
}

/* Makes the folder hold the image and nothing else. */
static inline void test_image_put(const struct test_image *image)
{
    char path[TEST_PATH_BYTES_MAX];
    for (uint64_t id = 1; id <= image->last_id + 2; id++) {
        test_file_path(id, path);
        (void)unlink(path);
    }
    for (uint64_t id = image->first_id; id <= image->last_id; id++) {
        const struct test_bytes *file = &image->files[id - image->first_id];
        test_file_write(id, file->data, file->size);
    }
}

#endif
