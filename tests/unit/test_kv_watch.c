/* The watch table: that a commit wakes exactly those that it touches, each once, whatever the
 * callbacks do meanwhile. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kv/watch.h"
#include "tests/unit/kv_fixture.h"

/* A waiter that remembers what it waits for, and what it shall do when woken. */
struct waiter {
    struct watch watch; /* must come first */
    struct watch_table *table;
    enum store_topic topic;
    bool prefix;
    char key[16];
    size_t key_size;
    int woken;
    bool add_again;
    struct waiter *remove; /* another one, or NULL */
};

static void waiter_add(struct waiter *waiter)
{
    const struct slice key = slice_from(waiter->key, waiter->key_size);

    check_ok(waiter->prefix ? watch_add_prefix(waiter->table, &waiter->watch, waiter->topic, key)
                            : watch_add_key(waiter->table, &waiter->watch, waiter->topic, key));
}

static void waiter_on_wake(struct watch *watch)
{
    struct waiter *waiter = (struct waiter *)watch;

    assert_null(watch->slot); /* Removed before it is called. */
    waiter->woken++;
    if (waiter->remove != NULL) {
        watch_remove(waiter->table, &waiter->remove->watch);
    }
    if (waiter->add_again) {
        waiter_add(waiter);
    }
}

static void waiter_init(struct waiter *waiter, struct watch_table *table, enum store_topic topic,
                        bool prefix, struct slice key)
{
    *waiter = (struct waiter){.watch = {.on_wake = waiter_on_wake},
                              .table = table,
                              .topic = topic,
                              .prefix = prefix,
                              .key_size = key.size};
    assert_true(key.size <= sizeof(waiter->key));
    memcpy(waiter->key, key.data, key.size);
    waiter_add(waiter);
}

static bool waiter_touched(const struct waiter *waiter, enum store_topic topic, struct slice key)
{
    const struct slice own = slice_from(waiter->key, waiter->key_size);

    return waiter->topic == topic &&
           (waiter->prefix ? slice_starts_with(key, own) : slice_equal(key, own));
}

/* A transaction of which only the notes matter; needs no store below. */
static struct store_txn notes_begin(void)
{
    return (struct store_txn){.write = true, .note_last_offset = SIZE_MAX};
}

static void wake_one(struct watch_table *table, enum store_topic topic, const char *key)
{
    struct store_txn txn = notes_begin();

    store_note(&txn, topic, text(key));
    watch_table_wake(table, &txn);
    store_changes_free(&txn);
}

static void a_change_wakes_its_key_and_prefixes(void **state)
{
    static const struct {
        const char *name;
        enum store_topic topic;
        bool prefix;
        const char *key, *changed;
        bool woken;
    } cases[] = {
        {"the key", STORE_TOPIC_KV, false, "a/b", "a/b", true},
        {"a longer key", STORE_TOPIC_KV, false, "a/b", "a/bc", false},
        {"a shorter key", STORE_TOPIC_KV, false, "a/b", "a/", false},
        {"another topic", STORE_TOPIC_SERVICE, false, "a/b", "a/b", false},
        {"a prefix of it", STORE_TOPIC_KV, true, "a/", "a/b", true},
        {"a prefix that is not at an element", STORE_TOPIC_KV, true, "a/b", "a/bc", true},
        {"the key as a prefix", STORE_TOPIC_KV, true, "a/b", "a/b", true},
        {"a longer prefix", STORE_TOPIC_KV, true, "a/b/", "a/b", false},
        {"the empty prefix", STORE_TOPIC_KV, true, "", "a/b", true},
        {"the empty key", STORE_TOPIC_KV, false, "", "a/b", false},
        {"a prefix of another topic", STORE_TOPIC_SERVICE, true, "a/", "a/b", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct watch_table *table;
        struct waiter waiter;
        check_ok(watch_table_new(&table));
        waiter_init(&waiter, table, cases[i].topic, cases[i].prefix, text(cases[i].key));
        wake_one(table, STORE_TOPIC_KV, cases[i].changed);
        if (waiter.woken != (cases[i].woken ? 1 : 0)) {
            fail_msg("%s: woken %d times", cases[i].name, waiter.woken);
        }
        watch_remove(table, &waiter.watch);
        watch_remove(table, &waiter.watch); /* Once more does no harm. */
        assert_int_equal(watch_table_count(table), 0);
        watch_table_free(table);
    }
}

static void a_whole_table_is_the_empty_key(void **state)
{
    struct watch_table *table;
    struct waiter waiter;

    (void)state;
    check_ok(watch_table_new(&table));
    waiter_init(&waiter, table, STORE_TOPIC_SESSION, false, SLICE_EMPTY);
    wake_one(table, STORE_TOPIC_NODE, "");
    assert_int_equal(waiter.woken, 0);
    wake_one(table, STORE_TOPIC_SESSION, "");
    assert_int_equal(waiter.woken, 1);
    watch_table_free(table);
}

static void many_changes_wake_a_waiter_once(void **state)
{
    struct watch_table *table;
    struct waiter again;
    struct waiter once;
    struct store_txn txn = notes_begin();

    (void)state;
    check_ok(watch_table_new(&table));
    waiter_init(&once, table, STORE_TOPIC_KV, true, text("a"));
    waiter_init(&again, table, STORE_TOPIC_KV, true, SLICE_EMPTY);
    again.add_again = true;
    store_note(&txn, STORE_TOPIC_KV, text("a"));
    store_note(&txn, STORE_TOPIC_KV, text("ab"));
    store_note(&txn, STORE_TOPIC_KV, text("a"));
    watch_table_wake(table, &txn);
    assert_int_equal(once.woken, 1);
    assert_int_equal(again.woken, 1);
    assert_int_equal(watch_table_count(table), 1);
    watch_table_wake(table, &txn);
    assert_int_equal(once.woken, 1);
    assert_int_equal(again.woken, 2);
    watch_remove(table, &again.watch);
    store_changes_free(&txn);
    watch_table_free(table);
}

/* A callback ends its own request, and with it others: those of its own slot, of the next one, that
 * are about to be called or are not. */
static void a_callback_may_remove_anybody(void **state)
{
    (void)state;
    for (int removed = 0; removed < 5; removed++) {
        struct watch_table *table;
        struct waiter waiters[5];
        const char *const keys[] = {"k", "k", "k", "l", "m"};
        struct store_txn txn = notes_begin();

        check_ok(watch_table_new(&table));
        for (int i = 0; i < 5; i++) {
            waiter_init(&waiters[i], table, STORE_TOPIC_KV, false, text(keys[i]));
        }
        waiters[0].remove = &waiters[removed];
        store_note(&txn, STORE_TOPIC_KV, text("k"));
        store_note(&txn, STORE_TOPIC_KV, text("l"));
        watch_table_wake(table, &txn);
        for (int i = 0; i < 5; i++) {
            const int expected = i == 4 || (i == removed && i != 0) ? 0 : 1;
            if (waiters[i].woken != expected) {
                fail_msg("remove %d: waiter %d woken %d times", removed, i, waiters[i].woken);
            }
        }
        assert_int_equal(watch_table_count(table), removed == 4 ? 0 : 1);
        watch_remove(table, &waiters[4].watch);
        store_changes_free(&txn);
        watch_table_free(table);
    }
}

static void waking_all_wakes_all(void **state)
{
    enum { COUNT = 300 };
    struct watch_table *table;
    struct waiter *waiters = calloc(COUNT, sizeof(*waiters));

    (void)state;
    check_ok(watch_table_new(&table));
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "k%d", i / 2);
        waiter_init(&waiters[i], table, (enum store_topic)(i % STORE_TOPIC_COUNT), i % 3 == 0,
                    text(key));
    }
    assert_int_equal(watch_table_count(table), COUNT);
    watch_table_wake_all(table);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(waiters[i].woken, 1);
    }
    assert_int_equal(watch_table_count(table), 0);
    watch_table_free(table);
    free(waiters);
}

/* --- against a plain list --- */

enum { RANDOM_WAITERS = 120, RANDOM_STEPS = 6000 };

/* Short keys of few letters, zero bytes among them: many prefixes of one another. */
static struct slice draw_key(uint64_t *seed, char out[16])
{
    const size_t size = fixture_random(seed) % 6;

    for (size_t i = 0; i < size; i++) {
        out[i] = "ab\0"[fixture_random(seed) % 3];
    }
    return slice_from(out, size);
}

static void random_wake(struct watch_table *table, struct waiter *waiters, uint64_t *seed)
{
    struct store_txn txn = notes_begin();
    bool expected[RANDOM_WAITERS] = {false};
    int woken_before[RANDOM_WAITERS];

    for (int i = 0; i < RANDOM_WAITERS; i++) {
        woken_before[i] = waiters[i].woken;
        waiters[i].add_again = fixture_random(seed) % 2 == 0;
    }
    for (uint64_t notes = fixture_random(seed) % 4; notes > 0; notes--) {
        char buffer[16];
        const enum store_topic topic = (enum store_topic)(fixture_random(seed) % 2);
        const struct slice key = draw_key(seed, buffer);
        store_note(&txn, topic, key);
        for (int i = 0; i < RANDOM_WAITERS; i++) {
            expected[i] = expected[i] || (waiters[i].watch.slot != NULL &&
                                          waiter_touched(&waiters[i], topic, key));
        }
    }
    watch_table_wake(table, &txn);
    for (int i = 0; i < RANDOM_WAITERS; i++) {
        assert_int_equal(waiters[i].woken - woken_before[i], expected[i] ? 1 : 0);
        if (expected[i]) {
            assert_int_equal(waiters[i].watch.slot != NULL, waiters[i].add_again);
        }
    }
    store_changes_free(&txn);
}

static void the_table_wakes_as_a_plain_list_would(void **state)
{
    struct watch_table *table;
    struct waiter waiters[RANDOM_WAITERS];
    uint64_t seed = 17;

    (void)state;
    memset(waiters, 0, sizeof(waiters));
    check_ok(watch_table_new(&table));
    for (int step = 0; step < RANDOM_STEPS; step++) {
        struct waiter *waiter = &waiters[fixture_random(&seed) % RANDOM_WAITERS];
        size_t waiting = 0;
        char buffer[16];

        if (fixture_random(&seed) % 8 == 0) {
            random_wake(table, waiters, &seed);
        } else if (waiter->watch.slot != NULL) {
            watch_remove(table, &waiter->watch);
        } else {
            const struct slice key = draw_key(&seed, buffer);
            waiter_init(waiter, table, (enum store_topic)(fixture_random(&seed) % 2),
                        fixture_random(&seed) % 2 == 0, key);
        }
        for (int i = 0; i < RANDOM_WAITERS; i++) {
            waiting += waiters[i].watch.slot != NULL ? 1 : 0;
        }
        assert_int_equal(watch_table_count(table), waiting);
    }
    for (int i = 0; i < RANDOM_WAITERS; i++) {
        watch_remove(table, &waiters[i].watch);
    }
    watch_table_free(table); /* Asserts that no slot is left. */
}

/* Ten thousand on one key, and ten thousand on keys of their own: a change of another key costs
 * nothing for each of them, and leaving in any order is cheap. */
static void ten_thousand_wait_cheaply(void **state)
{
    enum { COUNT = 10000 };
    struct watch_table *table;
    struct waiter *waiters = calloc(2 * COUNT, sizeof(*waiters));

    (void)state;
    check_ok(watch_table_new(&table));
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "k%d", i);
        waiter_init(&waiters[i], table, STORE_TOPIC_KV, false, text(key));
        waiter_init(&waiters[COUNT + i], table, STORE_TOPIC_KV, false, text("leader"));
    }
    for (int i = 0; i < COUNT; i++) {
        wake_one(table, STORE_TOPIC_KV, "other");
    }
    for (int i = 0; i < COUNT; i += 2) {
        watch_remove(table, &waiters[COUNT + i].watch);
    }
    wake_one(table, STORE_TOPIC_KV, "leader");
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(waiters[i].woken, 0);
        assert_int_equal(waiters[COUNT + i].woken, i % 2);
        watch_remove(table, &waiters[i].watch);
    }
    assert_int_equal(watch_table_count(table), 0);
    watch_table_free(table);
    free(waiters);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_wakes_its_key_and_prefixes),
        cmocka_unit_test(a_whole_table_is_the_empty_key),
        cmocka_unit_test(many_changes_wake_a_waiter_once),
        cmocka_unit_test(a_callback_may_remove_anybody),
        cmocka_unit_test(waking_all_wakes_all),
        cmocka_unit_test(the_table_wakes_as_a_plain_list_would),
        cmocka_unit_test(ten_thousand_wait_cheaply),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
