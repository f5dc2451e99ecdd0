#ifndef TESTS_UNIT_KV_FIXTURE_H
#define TESTS_UNIT_KV_FIXTURE_H

/* A store in a folder of its own for one test, a seeded generator, and checks that name the error.
 * Include after cmocka.h. */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/store.h"

#define FIXTURE_BOOT "11111111-2222-3333-4444-555555555555"

struct fixture {
    char dir[64];
    struct store *store;
    bool wiped; /* by the last open */
};

#define check_rc(expression, expected)                                                             \
    do {                                                                                           \
        const int check_rc_got = (expression);                                                     \
        if (check_rc_got != (expected)) {                                                          \
            fail_msg("%s: %d (%s), expected %d", #expression, check_rc_got,                        \
                     store_strerror(check_rc_got), (expected));                                    \
        }                                                                                          \
    } while (0)
#define check_ok(expression) check_rc(expression, STORE_OK)

static inline void fixture_open(struct fixture *fixture, const char *boot_id, size_t bytes_max)
{
    const struct store_options options = {
        .dir = fixture->dir, .bytes_max = bytes_max, .boot_id = boot_id};
    struct errmsg err = {""};

    if (store_open(&options, &fixture->store, &fixture->wiped, &err) != STORE_OK) {
        fail_msg("open: %s", err.text);
    }
}

static inline void fixture_make_dir(struct fixture *fixture)
{
    *fixture = (struct fixture){.dir = "/tmp/proconsul-test-XXXXXX"};
    assert_non_null(mkdtemp(fixture->dir));
}

static inline void fixture_init(struct fixture *fixture)
{
    fixture_make_dir(fixture);
    fixture_open(fixture, FIXTURE_BOOT, (size_t)64 << 20);
}

static inline void fixture_remove_dir(const struct fixture *fixture)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "mark", "mark.new"};
    char path[128];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", fixture->dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(fixture->dir);
}

static inline void fixture_deinit(struct fixture *fixture)
{
    store_close(fixture->store);
    fixture_remove_dir(fixture);
}

/* xorshift64*: the same numbers on every machine. */
static inline uint64_t fixture_random(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

static inline struct slice text(const char *string)
{
    return slice_from_text(string);
}

#endif
