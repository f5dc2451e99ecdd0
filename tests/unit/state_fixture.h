#ifndef TESTS_UNIT_STATE_FIXTURE_H
#define TESTS_UNIT_STATE_FIXTURE_H

/* A store in a folder of its own under /tmp, for the tests of the state machine. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kv/store.h"

enum { FIXTURE_STORE_BYTES = 64 << 20 };

struct fixture {
    char dir[64];
    struct store *store;
    struct store_txn txn;
};

static inline void fixture_open(struct fixture *fixture)
{
    bool wiped;
    struct errmsg err = {""};

    memset(fixture, 0, sizeof(*fixture));
    strcpy(fixture->dir, "/tmp/proconsul-state-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    const struct store_options options = {.dir = fixture->dir, .bytes_max = FIXTURE_STORE_BYTES};
    if (store_open(&options, &fixture->store, &wiped, &err) != 0) {
        fail_msg("%s", err.text);
    }
}

static inline void fixture_close(struct fixture *fixture)
{
    char path[1024];
    struct dirent *entry;

    store_close(fixture->store);
    DIR *dir = opendir(fixture->dir);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        (void)snprintf(path, sizeof(path), "%s/%s", fixture->dir, entry->d_name);
        (void)unlink(path);
    }
    (void)closedir(dir);
    assert_int_equal(rmdir(fixture->dir), 0);
}

static inline void fixture_begin(struct fixture *fixture)
{
    assert_int_equal(store_write_begin(fixture->store, &fixture->txn), 0);
}

static inline void fixture_commit(struct fixture *fixture)
{
    assert_int_equal(store_write_commit(&fixture->txn), 0);
    store_changes_free(&fixture->txn);
}

static inline uint64_t fixture_checksum(struct store_txn *txn)
{
    uint64_t checksum = 0;

    assert_int_equal(store_checksum(txn, &checksum), 0);
    return checksum;
}

static inline struct slice text(const char *chars)
{
    return chars == NULL ? SLICE_EMPTY : slice_from_text(chars);
}

#endif
