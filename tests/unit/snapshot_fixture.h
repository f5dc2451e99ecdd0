#ifndef TESTS_UNIT_SNAPSHOT_FIXTURE_H
#define TESTS_UNIT_SNAPSHOT_FIXTURE_H

/* A folder of snapshots beside a store of every kind of record, for the tests of snapshots. Include
 * after cmocka.h. */

#include <fcntl.h>
#include <string.h>

#include "kv_fixture.h"
#include "server/snapshot/snapshot_internal.h"

struct snapshot_fixture {
    struct fixture store; /* its store.store */
    char path[80];
    struct snapshot_dir *dir;
    struct raft_configuration configuration;
    struct errmsg err;
};

#define check_snapshot(fixture, expression, expected)                                              \
    do {                                                                                           \
        const int check_got = (expression);                                                        \
        if (check_got != (expected)) {                                                             \
            fail_msg("%s: %d (%s: %s), expected %d", #expression, check_got,                       \
                     snapshot_strerror(check_got), (fixture)->err.text, (expected));               \
        }                                                                                          \
    } while (0)

static inline void snapshot_fixture_dir_open(struct snapshot_fixture *fixture,
                                             const struct snapshot_ops *ops)
{
    check_snapshot(fixture,
                   snapshot_dir_open_with(fixture->path, ops, &fixture->dir, &fixture->err),
                   SNAPSHOT_OK);
}

static inline void snapshot_fixture_init(struct snapshot_fixture *fixture)
{
    memset(fixture, 0, sizeof(*fixture));
    fixture_init(&fixture->store);
    (void)snprintf(fixture->path, sizeof(fixture->path), "%s.snap", fixture->store.dir);
    fixture->configuration.index = 1;
    fixture->configuration.count = 2;
    fixture->configuration.servers[0] = (struct raft_server){.id = 3, .voter = true};
    fixture->configuration.servers[1] =
        (struct raft_server){.id = 9, .info_size = 2, .info = {'h', 'i'}};
    snapshot_fixture_dir_open(fixture, NULL);
}

static inline void snapshot_path_remove(const char *path)
{
    char name[512];
    DIR *handle = opendir(path);

    if (handle == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(handle); entry != NULL; entry = readdir(handle)) {
        if (entry->d_name[0] != '.') {
            (void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
            (void)unlink(name);
        }
    }
    (void)closedir(handle);
    (void)rmdir(path);
}

static inline void snapshot_fixture_deinit(struct snapshot_fixture *fixture)
{
    snapshot_dir_close(fixture->dir);
    snapshot_path_remove(fixture->path);
    fixture_deinit(&fixture->store);
}

/* Files of the folder whose names end with `end`. */
static inline size_t snapshot_files(const char *path, const char *end)
{
    size_t count = 0;
    DIR *handle = opendir(path);

    assert_non_null(handle);
    for (struct dirent *entry = readdir(handle); entry != NULL; entry = readdir(handle)) {
        const size_t size = strlen(entry->d_name);
        count += size >= strlen(end) && strcmp(entry->d_name + size - strlen(end), end) == 0;
    }
    (void)closedir(handle);
    return count;
}

/* Puts `count` records of every table, long and empty keys and large values among them, with bytes
 * that follow from the seed; applied up to (term, index). Backwards when told: the order in which
 * they come must not matter. */
static inline void snapshot_fill(struct store *store, uint64_t seed, int count, bool backwards,
                                 uint64_t term, uint64_t index)
{
    static char key[3000];
    static char value[9000];
    struct store_txn txn;

    check_ok(store_write_begin(store, &txn));
    for (int table = STORE_META + 1; table < STORE_TABLE_COUNT; table++) {
        for (int n = 0; n < count; n++) {
            const int i = backwards ? count - 1 - n : n;
            uint64_t random = seed + (uint64_t)table * 1000 + (uint64_t)i + 1;
            const bool is_long = i % 7 == 3;
            const size_t key_size = i == 0 ? 0 : 8 + (is_long ? 470 + (size_t)i * 8 % 2000 : 0);
            const size_t value_size = fixture_random(&random) % (i % 11 == 5 ? 9000 : 60);
            memset(key, 'p', sizeof(key));
            for (int digit = 0, left = i; digit < 8; digit++, left /= 10) {
                key[(is_long ? key_size - 8 : 0) + 7 - (size_t)digit] = (char)('0' + left % 10);
            }
            for (size_t at = 0; at < value_size; at++) {
                value[at] = (char)fixture_random(&random);
            }
            check_ok(store_put(&txn, (enum store_table)table, slice_from(key, key_size),
                               slice_from(value, value_size)));
        }
    }
    check_ok(store_applied_set(&txn, term, index));
    check_ok(store_write_commit(&txn));
    store_changes_free(&txn);
}

static inline uint64_t snapshot_sum(struct store *store, uint64_t *term, uint64_t *index)
{
    struct store_txn txn;
    uint64_t sum = 0;

    check_ok(store_read_begin(store, &txn));
    check_ok(store_checksum(&txn, &sum));
    check_ok(store_applied_get(&txn, term, index));
    store_read_end(&txn);
    return sum;
}

struct file_bytes {
    char *data;
    size_t size;
};

static inline struct file_bytes snapshot_bytes(const struct snapshot_fixture *fixture,
                                               const struct snapshot_meta *meta)
{
    struct snapshot_file file;
    struct errmsg err = {""};
    struct file_bytes bytes = {0};
    size_t got = 0;

    if (snapshot_file_open(fixture->dir, meta, &file, &err) != SNAPSHOT_OK) {
        fail_msg("%s", err.text);
    }
    bytes.size = (size_t)file.bytes;
    bytes.data = malloc(bytes.size);
    assert_non_null(bytes.data);
    assert_int_equal(snapshot_file_read(&file, 0, bytes.data, bytes.size, &got, &err), SNAPSHOT_OK);
    assert_int_equal(got, bytes.size);
    snapshot_file_close(&file);
    return bytes;
}

static inline void snapshot_put_file(const struct snapshot_fixture *fixture,
                                     const struct snapshot_meta *meta, const char *data,
                                     size_t size)
{
    char name[SNAPSHOT_NAME_BYTES_MAX];

    snapshot_name(meta, SNAPSHOT_NAME_WHOLE, name);
    const int fd = openat(fixture->dir->fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), (ssize_t)size);
    (void)close(fd);
}

#endif
