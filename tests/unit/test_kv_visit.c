/* Visits of a table that is written to meanwhile: every record comes once, in order, whatever the
 * visitor does to those that it has seen. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/kv_fixture.h"

/* More than two of the steps in which a visit copies, and some keys too long for one of LMDB's. */
enum { RECORD_COUNT = 600, LONG_KEY_BYTES = 1200, FAILURE = -4711 };

struct visit {
    unsigned seen;
    unsigned fail_at; /* 0: never */
};

static void key_of(struct buffer *key, unsigned number)
{
    buffer_clear(key);
    buffer_printf(key, "p/%04u", number);
    while (number % 3 == 0 && key->size < LONG_KEY_BYTES) {
        buffer_append_char(key, 'x');
    }
}

/* Deletes every second record, writes every fifth of the others again. */
static int write_behind(struct store_txn *txn, struct slice key, struct slice value, void *context)
{
    struct visit *visit = context;
    struct buffer expected = {0};

    key_of(&expected, visit->seen);
    assert_true(slice_equal(key, buffer_slice(&expected)));
    assert_true(slice_equal(value, SLICE_LITERAL("value")));
    buffer_deinit(&expected);
    visit->seen++;
    if (visit->seen == visit->fail_at) {
        return FAILURE;
    }
    if (visit->seen % 2 == 0) {
        return store_delete(txn, STORE_TOMBSTONE, key);
    }
    return visit->seen % 5 == 0 ? store_put(txn, STORE_TOMBSTONE, key, SLICE_LITERAL("again"))
                                : STORE_OK;
}

static void fill(struct store_txn *txn)
{
    struct buffer key = {0};

    for (unsigned i = 0; i < RECORD_COUNT; i++) {
        key_of(&key, i);
        check_ok(store_put(txn, STORE_TOMBSTONE, buffer_slice(&key), SLICE_LITERAL("value")));
    }
    buffer_deinit(&key);
    check_ok(store_put(txn, STORE_TOMBSTONE, SLICE_LITERAL("o"), SLICE_LITERAL("before")));
    check_ok(store_put(txn, STORE_TOMBSTONE, SLICE_LITERAL("q"), SLICE_LITERAL("behind")));
}

static void every_record_of_the_prefix_comes_once_though_the_visitor_writes(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    struct visit visit = {0};
    uint64_t left = 0;

    (void)state;
    fixture_init(&fixture);
    check_ok(store_write_begin(fixture.store, &txn));
    fill(&txn);
    check_ok(store_visit(&txn, STORE_TOMBSTONE, SLICE_LITERAL("p/"), write_behind, &visit));
    assert_int_equal(visit.seen, RECORD_COUNT);
    check_ok(store_table_count(&txn, STORE_TOMBSTONE, &left));
    assert_int_equal(left, RECORD_COUNT / 2 + 2);
    store_write_abort(&txn);
    fixture_deinit(&fixture);
}

static void a_visit_ends_with_the_first_failure(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    struct visit visit = {.fail_at = RECORD_COUNT / 2};

    (void)state;
    fixture_init(&fixture);
    check_ok(store_write_begin(fixture.store, &txn));
    fill(&txn);
    assert_int_equal(store_visit(&txn, STORE_TOMBSTONE, SLICE_LITERAL("p/"), write_behind, &visit),
                     FAILURE);
    assert_int_equal(visit.seen, RECORD_COUNT / 2);
    store_write_abort(&txn);
    fixture_deinit(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_record_of_the_prefix_comes_once_though_the_visitor_writes),
        cmocka_unit_test(a_visit_ends_with_the_first_failure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
