/* The store: that its tables behave as sorted arrays whatever the keys' lengths, that a full one
 * can be emptied, and what its transactions promise. */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/kv_fixture.h"

/* --- the obvious slow store: a sorted array --- */

enum { MODEL_RECORDS_MAX = 4096, MODEL_KEY_BYTES_MAX = 2400 };

struct model_record {
    char *key;
    size_t key_size;
    uint64_t value;
};

struct model {
    struct model_record records[MODEL_RECORDS_MAX];
    size_t count;
};

static struct slice model_key(const struct model_record *record)
{
    return slice_from(record->key, record->key_size);
}

/* Position of the first record at or after the key. */
static size_t model_position(const struct model *model, struct slice key)
{
    size_t at = 0;

    while (at < model->count && slice_compare(model_key(&model->records[at]), key) < 0) {
        at++;
    }
    return at;
}

static bool model_has(const struct model *model, size_t at, struct slice key)
{
    return at < model->count && slice_equal(model_key(&model->records[at]), key);
}

static void model_put(struct model *model, struct slice key, uint64_t value)
{
    const size_t at = model_position(model, key);

    if (!model_has(model, at, key)) {
        assert_true(model->count < MODEL_RECORDS_MAX);
        memmove(&model->records[at + 1], &model->records[at],
                (model->count - at) * sizeof(model->records[0]));
        model->count++;
        model->records[at].key = malloc(key.size + 1);
        memcpy(model->records[at].key, key.data, key.size);
        model->records[at].key_size = key.size;
    }
    model->records[at].value = value;
}

static bool model_delete(struct model *model, struct slice key)
{
    const size_t at = model_position(model, key);

    if (!model_has(model, at, key)) {
        return false;
    }
    free(model->records[at].key);
    model->count--;
    memmove(&model->records[at], &model->records[at + 1],
            (model->count - at) * sizeof(model->records[0]));
    return true;
}

static void model_free(struct model *model)
{
    for (size_t i = 0; i < model->count; i++) {
        free(model->records[i].key);
    }
    free(model);
}

/* A key around the boundaries at which it is cut, sharing long prefixes with others, and differing
 * by low and high bytes, which a wrong order would show. */
static struct slice draw_key(uint64_t *seed, char out[MODEL_KEY_BYTES_MAX])
{
    static const size_t sizes[] = {0,   1,   2,   10,  478, 479, 480,  481,  482, 500,
                                   511, 512, 513, 959, 960, 961, 1439, 1440, 2000};
    const size_t size = sizes[fixture_random(seed) % (sizeof(sizes) / sizeof(sizes[0]))];

    memset(out, 'm', size);
    for (uint64_t changes = fixture_random(seed) % 3; size > 0 && changes > 0; changes--) {
        static const char bytes[] = {'\0', 'a', 'm', 'z', '\xff'};
        static const size_t places[] = {0, 1, 9, 470, 479, 480, 481, 510, 958, 959, 960, 961, 1439};
        size_t place = places[fixture_random(seed) % (sizeof(places) / sizeof(places[0]))];
        if (place >= size) {
            place = size - 1;
        }
        out[place] = bytes[fixture_random(seed) % sizeof(bytes)];
    }
    return slice_from(out, size);
}

static void check_scan(struct store_txn *txn, const struct model *model, struct slice prefix,
                       struct slice from)
{
    struct store_scan scan;
    struct slice key;
    struct slice value;
    int rc;

    size_t at = model_position(model, from);
    check_ok(store_scan_from(&scan, txn, STORE_KV, prefix, from));
    while ((rc = store_scan_next(&scan, &key, &value)) == STORE_OK) {
        if (at == model->count || !slice_equal(key, model_key(&model->records[at]))) {
            fail_msg("scan gives a key of %zu bytes out of turn", key.size);
        }
        assert_true(slice_starts_with(key, prefix));
        assert_int_equal(value.size, sizeof(uint64_t));
        assert_memory_equal(value.data, &model->records[at].value, sizeof(uint64_t));
        at++;
    }
    check_rc(rc, STORE_ENOTFOUND);
    check_rc(store_scan_next(&scan, &key, &value), STORE_ENOTFOUND);
    if (at < model->count && slice_starts_with(model_key(&model->records[at]), prefix)) {
        fail_msg("scan below %zu bytes ended before a key of %zu bytes", prefix.size,
                 model->records[at].key_size);
    }
    store_scan_end(&scan);
}

static void check_all(struct store_txn *txn, const struct model *model, uint64_t *seed)
{
    char buffer[MODEL_KEY_BYTES_MAX];
    uint64_t count;

    check_ok(store_table_count(txn, STORE_KV, &count));
    assert_int_equal(count, model->count);
    check_scan(txn, model, SLICE_EMPTY, SLICE_EMPTY);
    for (int i = 0; i < 20; i++) {
        const struct slice from = draw_key(seed, buffer);
        const size_t prefix_size = from.size == 0 ? 0 : fixture_random(seed) % (from.size + 1);
        check_scan(txn, model, from, from);
        check_scan(txn, model, slice_from(from.data, prefix_size), from);
    }
}

static void step(struct store_txn *txn, struct model *model, uint64_t *seed)
{
    char buffer[MODEL_KEY_BYTES_MAX];
    const struct slice key = draw_key(seed, buffer);
    const uint64_t number = fixture_random(seed);
    struct slice value;

    switch (number % 4) {
    case 0:
    case 1:
        check_ok(store_put(txn, STORE_KV, key, slice_from((const char *)&number, sizeof(number))));
        model_put(model, key, number);
        break;
    case 2:
        check_rc(store_delete(txn, STORE_KV, key),
                 model_delete(model, key) ? STORE_OK : STORE_ENOTFOUND);
        break;
    default: {
        const size_t at = model_position(model, key);
        const bool there = model_has(model, at, key);
        check_rc(store_get(txn, STORE_KV, key, &value), there ? STORE_OK : STORE_ENOTFOUND);
        if (there) {
            assert_memory_equal(value.data, &model->records[at].value, sizeof(uint64_t));
        }
        break;
    }
    }
}

static void tables_are_sorted_arrays(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= 6; run++) {
        struct fixture fixture;
        struct store_txn txn;
        struct model *model = calloc(1, sizeof(*model));
        uint64_t seed = run;

        print_message("seed %llu\n", (unsigned long long)run);
        fixture_init(&fixture);
        for (int batch = 0; batch < 25; batch++) {
            check_ok(store_write_begin(fixture.store, &txn));
            for (int i = 0; i < 60; i++) {
                step(&txn, model, &seed);
            }
            check_all(&txn, model, &seed);
            check_ok(store_write_commit(&txn));
            store_changes_free(&txn);
            check_ok(store_read_begin(fixture.store, &txn));
            check_all(&txn, model, &seed);
            store_read_end(&txn);
        }
        fixture_deinit(&fixture);
        model_free(model);
    }
}

/* Whatever the way there, long keys leave nothing behind when they go. */
static void an_emptied_table_has_no_pages_left(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    struct store_usage before;
    struct store_usage after;
    struct model *model = calloc(1, sizeof(*model));
    uint64_t seed = 99;

    (void)state;
    fixture_init(&fixture);
    store_usage(fixture.store, &before);
    check_ok(store_write_begin(fixture.store, &txn));
    for (int i = 0; i < 500; i++) {
        step(&txn, model, &seed);
    }
    assert_true(model->count > 50);
    while (model->count > 0) {
        char key[MODEL_KEY_BYTES_MAX];
        const struct model_record *record = &model->records[fixture_random(&seed) % model->count];
        const size_t size = record->key_size;
        memcpy(key, record->key, size);
        check_ok(store_delete(&txn, STORE_KV, slice_from(key, size)));
        assert_true(model_delete(model, slice_from(key, size)));
    }
    check_all(&txn, model, &seed);
    check_ok(store_write_commit(&txn));
    store_changes_free(&txn);
    store_usage(fixture.store, &after);
    assert_int_equal(after.used_bytes, before.used_bytes);
    fixture_deinit(&fixture);
    model_free(model);
}

static void tables_are_apart(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    struct slice value;
    char long_key[1000];

    (void)state;
    memset(long_key, 'k', sizeof(long_key));
    fixture_init(&fixture);
    check_ok(store_write_begin(fixture.store, &txn));
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        const char letter = (char)('a' + table);
        const struct slice one = slice_from(&letter, 1);
        check_ok(store_put(&txn, (enum store_table)table, text("key"), one));
        check_ok(store_put(&txn, (enum store_table)table, slice_from(long_key, 1000), one));
    }
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        check_ok(store_get(&txn, (enum store_table)table, text("key"), &value));
        assert_int_equal(value.data[0], 'a' + table);
        check_ok(store_get(&txn, (enum store_table)table, slice_from(long_key, 1000), &value));
        assert_int_equal(value.data[0], 'a' + table);
    }
    store_write_abort(&txn);
    fixture_deinit(&fixture);
}

/* --- transactions --- */

static void put_text(struct fixture *fixture, const char *key, const char *value)
{
    struct store_txn txn;

    check_ok(store_write_begin(fixture->store, &txn));
    check_ok(store_put(&txn, STORE_KV, text(key), text(value)));
    check_ok(store_write_commit(&txn));
    store_changes_free(&txn);
}

static void an_aborted_transaction_changes_nothing(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    struct slice value;

    (void)state;
    fixture_init(&fixture);
    put_text(&fixture, "a", "1");
    check_ok(store_write_begin(fixture.store, &txn));
    check_ok(store_put(&txn, STORE_KV, text("a"), text("2")));
    check_ok(store_applied_set(&txn, 3, 4));
    store_note(&txn, STORE_TOPIC_KV, text("a"));
    store_write_abort(&txn);

    uint64_t term;
    uint64_t index;
    check_ok(store_read_begin(fixture.store, &txn));
    check_ok(store_get(&txn, STORE_KV, text("a"), &value));
    assert_true(slice_equal(value, text("1")));
    check_ok(store_applied_get(&txn, &term, &index));
    assert_int_equal(term, 0);
    assert_int_equal(index, 0);
    store_read_end(&txn);
    fixture_deinit(&fixture);
}

static void a_reader_sees_one_state_until_renewed(void **state)
{
    struct fixture fixture;
    struct store_txn reader;
    struct slice value;

    (void)state;
    fixture_init(&fixture);
    put_text(&fixture, "a", "1");
    check_ok(store_read_begin(fixture.store, &reader));
    put_text(&fixture, "a", "2");
    check_ok(store_get(&reader, STORE_KV, text("a"), &value));
    assert_true(slice_equal(value, text("1")));
    store_read_reset(&reader);
    check_ok(store_read_renew(&reader));
    check_ok(store_get(&reader, STORE_KV, text("a"), &value));
    assert_true(slice_equal(value, text("2")));
    store_read_end(&reader);
    store_read_end(&reader); /* Once more does no harm. */
    fixture_deinit(&fixture);
}

/* Cursors are kept between scans; more at once than are kept must work, too. */
static void scans_nest_and_survive_renewal(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    struct slice key;
    struct slice value;

    (void)state;
    fixture_init(&fixture);
    put_text(&fixture, "a", "1");
    put_text(&fixture, "b", "2");
    check_ok(store_read_begin(fixture.store, &txn));
    for (int round = 0; round < 3; round++) {
        struct store_scan outer;
        int pairs = 0;
        check_ok(store_scan_begin(&outer, &txn, STORE_KV, SLICE_EMPTY));
        while (store_scan_next(&outer, &key, &value) == STORE_OK) {
            struct store_scan inner;
            check_ok(store_scan_begin(&inner, &txn, STORE_KV, SLICE_EMPTY));
            while (store_scan_next(&inner, &key, &value) == STORE_OK) {
                pairs++;
            }
            store_scan_end(&inner);
        }
        store_scan_end(&outer);
        assert_int_equal(pairs, (2 + round) * (2 + round));
        store_read_reset(&txn);
        put_text(&fixture, round == 0 ? "c" : "d", "3");
        check_ok(store_read_renew(&txn));
    }
    store_read_end(&txn);
    fixture_deinit(&fixture);
}

static void changes_are_noted_in_order(void **state)
{
    static const struct {
        enum store_topic topic;
        const char *key;
    } notes[] = {{STORE_TOPIC_KV, "a"},     {STORE_TOPIC_KV, "a"}, {STORE_TOPIC_SESSION, ""},
                 {STORE_TOPIC_SESSION, ""}, {STORE_TOPIC_KV, "b"}, {STORE_TOPIC_SERVICE, "b"},
                 {STORE_TOPIC_SESSION, ""}},
      expected[] = {{STORE_TOPIC_KV, "a"},
                    {STORE_TOPIC_SESSION, ""},
                    {STORE_TOPIC_KV, "b"},
                    {STORE_TOPIC_SERVICE, "b"}};
    struct fixture fixture;
    struct store_txn txn;
    enum store_topic topic;
    struct slice key;
    size_t count = 0;

    (void)state;
    fixture_init(&fixture);
    check_ok(store_write_begin(fixture.store, &txn));
    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
        store_note(&txn, notes[i].topic, text(notes[i].key));
    }
    check_ok(store_write_commit(&txn));
    struct reader it = store_changes_begin(&txn);
    while (store_changes_next(&it, &topic, &key)) {
        assert_true(count < sizeof(expected) / sizeof(expected[0]));
        assert_int_equal(topic, expected[count].topic);
        assert_true(slice_equal(key, text(expected[count].key)));
        count++;
    }
    assert_int_equal(count, sizeof(expected) / sizeof(expected[0]));
    store_changes_free(&txn);
    it = store_changes_begin(&txn);
    assert_false(store_changes_next(&it, &topic, &key));
    fixture_deinit(&fixture);
}

static void indexes_are_kept_by_name(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    uint64_t index;

    (void)state;
    fixture_init(&fixture);
    check_ok(store_write_begin(fixture.store, &txn));
    check_ok(store_index_get(&txn, text("kvs"), &index));
    assert_int_equal(index, 0);
    check_ok(store_index_set(&txn, text("kvs"), 7));
    check_ok(store_index_set(&txn, text("kv"), 8));
    check_ok(store_index_get(&txn, text("kvs"), &index));
    assert_int_equal(index, 7);
    store_write_abort(&txn);
    fixture_deinit(&fixture);
}

/* --- checksum --- */

static uint64_t checksum(struct fixture *fixture)
{
    struct store_txn txn;
    uint64_t sum;

    check_ok(store_read_begin(fixture->store, &txn));
    check_ok(store_checksum(&txn, &sum));
    store_read_end(&txn);
    return sum;
}

static void equal_states_have_equal_checksums(void **state)
{
    struct fixture a;
    struct fixture b;
    struct store_txn txn;
    char key[700];

    (void)state;
    fixture_init(&a);
    fixture_init(&b);
    assert_true(checksum(&a) == checksum(&b));

    /* The same records on other ways: other order, more folders made meanwhile, other applied. */
    for (int i = 0; i < 40; i++) {
        struct fixture *fixture = i < 20 ? &a : &b;
        memset(key, 'x', sizeof(key));
        key[100] = (char)('a' + (i < 20 ? i : 39 - i));
        check_ok(store_write_begin(fixture->store, &txn));
        check_ok(store_put(&txn, STORE_KV, slice_from(key, sizeof(key)), text("v")));
        if (i >= 20) {
            key[200] = 'q';
            check_ok(store_put(&txn, STORE_KV, slice_from(key, sizeof(key)), text("v")));
            check_ok(store_delete(&txn, STORE_KV, slice_from(key, sizeof(key))));
        }
        check_ok(store_applied_set(&txn, 1, (uint64_t)i));
        check_ok(store_write_commit(&txn));
        store_changes_free(&txn);
    }
    assert_true(checksum(&a) == checksum(&b));

    const uint64_t before = checksum(&a);
    put_text(&a, "k", "v");
    assert_true(checksum(&a) != before);
    fixture_deinit(&a);
    fixture_deinit(&b);
}

/* A byte that moves between key, value and table shows. */
static void different_states_have_different_checksums(void **state)
{
    static const struct {
        enum store_table table;
        const char *key, *value;
    } cases[] = {{STORE_KV, "a", "b"},     {STORE_KV, "ab", ""}, {STORE_KV, "", "ab"},
                 {STORE_INDEX, "a", "b"},  {STORE_KV, "b", "a"}, {STORE_KV, "a", "b\x01"},
                 {STORE_SESSION, "a", "b"}};
    uint64_t sums[sizeof(cases) / sizeof(cases[0])];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture fixture;
        struct store_txn txn;
        fixture_init(&fixture);
        check_ok(store_write_begin(fixture.store, &txn));
        check_ok(store_put(&txn, cases[i].table, text(cases[i].key), text(cases[i].value)));
        check_ok(store_write_commit(&txn));
        store_changes_free(&txn);
        sums[i] = checksum(&fixture);
        fixture_deinit(&fixture);
        for (size_t j = 0; j < i; j++) {
            if (sums[i] == sums[j]) {
                fail_msg("cases %zu and %zu have one checksum", i, j);
            }
        }
    }
}

/* --- a full store --- */

enum { FULL_LIMIT_BYTES = 2 << 20, FULL_VALUE_BYTES = 3000 };

static int full_put(struct fixture *fixture, int number, size_t value_size)
{
    static char value[512 * 1024];
    char key[32];
    struct store_txn txn;

    (void)snprintf(key, sizeof(key), "key/%06d", number);
    check_ok(store_write_begin(fixture->store, &txn));
    const int rc = store_put(&txn, STORE_KV, text(key), slice_from(value, value_size));
    if (rc != 0) {
        store_write_abort(&txn);
        return rc;
    }
    const int commit_rc = store_write_commit(&txn);
    store_changes_free(&txn);
    return commit_rc;
}

static uint64_t full_count(struct fixture *fixture)
{
    struct store_txn txn;
    uint64_t count;

    check_ok(store_read_begin(fixture->store, &txn));
    check_ok(store_table_count(&txn, STORE_KV, &count));
    store_read_end(&txn);
    return count;
}

static void a_full_store_reads_and_can_be_emptied(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    struct store_usage usage;
    int count = 0;
    int rc;

    (void)state;
    fixture_make_dir(&fixture);
    fixture_open(&fixture, FIXTURE_BOOT, FULL_LIMIT_BYTES);
    for (int round = 0; round < 3; round++) {
        while ((rc = full_put(&fixture, count, FULL_VALUE_BYTES)) == STORE_OK) {
            count++;
        }
        check_rc(rc, STORE_EFULL);
        assert_true(count > FULL_LIMIT_BYTES / (3 * FULL_VALUE_BYTES));
        assert_int_equal(full_count(&fixture), count);
        store_usage(fixture.store, &usage);
        assert_int_equal(usage.limit_bytes, FULL_LIMIT_BYTES);
        assert_true(usage.used_bytes <= usage.limit_bytes);
        assert_true(usage.used_bytes > usage.limit_bytes / 2);

        /* What does not grow goes through, and so does the bookkeeping of a deletion. */
        check_ok(full_put(&fixture, 0, FULL_VALUE_BYTES));
        check_rc(full_put(&fixture, 0, 8 * FULL_VALUE_BYTES), STORE_EFULL);
        while (count > 0) {
            char key[32];
            check_ok(store_write_begin(fixture.store, &txn));
            (void)snprintf(key, sizeof(key), "key/%06d", --count);
            check_ok(store_delete(&txn, STORE_KV, text(key)));
            check_ok(store_put(&txn, STORE_TOMBSTONE, text(key), text("12345678")));
            check_ok(store_index_set(&txn, text("kvs"), 1));
            check_ok(store_applied_set(&txn, 1, 1));
            check_ok(store_write_commit(&txn));
            store_changes_free(&txn);
        }
        assert_int_equal(full_count(&fixture), 0);
    }
    fixture_deinit(&fixture);
}

/* An operator lowers the limit below what is there: it reads, refuses, and can be emptied. */
static void a_lowered_limit_refuses_and_can_be_emptied(void **state)
{
    enum { COUNT = 4000 };
    struct fixture fixture;
    struct store_txn txn;
    char key[32];

    (void)state;
    fixture_make_dir(&fixture);
    fixture_open(&fixture, FIXTURE_BOOT, 8 * FULL_LIMIT_BYTES);
    check_ok(store_write_begin(fixture.store, &txn));
    for (int i = 0; i < COUNT; i++) {
        static char value[FULL_VALUE_BYTES];
        (void)snprintf(key, sizeof(key), "key/%06d", i);
        check_ok(store_put(&txn, STORE_KV, text(key), slice_from(value, sizeof(value))));
    }
    check_ok(store_write_commit(&txn));
    store_close(fixture.store);

    fixture_open(&fixture, FIXTURE_BOOT, FULL_LIMIT_BYTES / 2);
    assert_false(fixture.wiped);
    assert_int_equal(full_count(&fixture), COUNT);
    check_rc(full_put(&fixture, COUNT, 1), STORE_EFULL);
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(key, sizeof(key), "key/%06d", i);
        check_ok(store_write_begin(fixture.store, &txn));
        check_ok(store_delete(&txn, STORE_KV, text(key)));
        check_ok(store_write_commit(&txn));
    }
    check_ok(full_put(&fixture, COUNT, 1));
    fixture_deinit(&fixture);
}

/* Without its bookkeeping nothing could be deleted, and no session ended. */
static void a_full_store_takes_bookkeeping_only(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    int count = 0;

    (void)state;
    fixture_make_dir(&fixture);
    fixture_open(&fixture, FIXTURE_BOOT, FULL_LIMIT_BYTES);
    for (size_t size = FULL_VALUE_BYTES; size > 0; size /= 4) {
        while (full_put(&fixture, count, size) == STORE_OK) {
            count++;
        }
    }
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        const bool taken = table == STORE_META || table == STORE_INDEX ||
                           table == STORE_TOMBSTONE || table == STORE_LOCK_DELAY;
        check_ok(store_write_begin(fixture.store, &txn));
        check_rc(store_put(&txn, (enum store_table)table, text("new"), text("value")),
                 taken ? STORE_OK : STORE_EFULL);
        store_write_abort(&txn);
    }
    fixture_deinit(&fixture);
}

/* A transaction that failed half-way cannot be committed by mistake. */
static void a_failed_transaction_does_not_commit(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    static char value[512 * 1024];
    int rc = STORE_OK;

    (void)state;
    fixture_make_dir(&fixture);
    fixture_open(&fixture, FIXTURE_BOOT, FULL_LIMIT_BYTES);
    check_ok(store_write_begin(fixture.store, &txn));
    for (char letter = 'a'; rc == STORE_OK && letter <= 'z'; letter++) {
        rc = store_put(&txn, STORE_KV, slice_from(&letter, 1), slice_from(value, sizeof(value)));
    }
    check_rc(rc, STORE_EFULL);
    store_note(&txn, STORE_TOPIC_KV, text("a"));
    check_rc(store_write_commit(&txn), STORE_EFULL);
    assert_int_equal(txn.changes.size, 0);
    assert_int_equal(full_count(&fixture), 0);
    fixture_deinit(&fixture);
}

/* --- threads --- */

enum { THREADS_ROUNDS = 300, THREADS_KEYS = 8 };

struct threads {
    struct store *store;
    atomic_bool over;
    atomic_int bad;
};

/* Every commit writes one number to all keys and to the applied index: a reader must never see two.
 */
static void *threads_read(void *argument)
{
    struct threads *threads = argument;
    struct store_txn txn;

    if (store_read_begin(threads->store, &txn) != STORE_OK) {
        atomic_fetch_add(&threads->bad, 1);
        return NULL;
    }
    while (!atomic_load(&threads->over)) {
        struct store_scan scan;
        struct slice key;
        struct slice value;
        uint64_t term;
        uint64_t index;
        bool good = store_applied_get(&txn, &term, &index) == STORE_OK &&
                    store_scan_begin(&scan, &txn, STORE_KV, SLICE_EMPTY) == STORE_OK;
        while (good && store_scan_next(&scan, &key, &value) == STORE_OK) {
            good = value.size == sizeof(index) && memcmp(value.data, &index, sizeof(index)) == 0;
        }
        if (!good) {
            atomic_fetch_add(&threads->bad, 1);
            break;
        }
        store_scan_end(&scan);
        store_read_reset(&txn);
        if (store_read_renew(&txn) != STORE_OK) {
            atomic_fetch_add(&threads->bad, 1);
        }
    }
    store_read_end(&txn);
    return NULL;
}

static void readers_in_threads_see_whole_commits(void **state)
{
    struct fixture fixture;
    struct threads threads = {0};
    pthread_t ids[2];
    char key[600];

    (void)state;
    fixture_init(&fixture);
    threads.store = fixture.store;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&ids[i], NULL, threads_read, &threads), 0);
    }
    memset(key, 'k', sizeof(key));
    for (uint64_t round = 1; round <= THREADS_ROUNDS; round++) {
        struct store_txn txn;
        check_ok(store_write_begin(fixture.store, &txn));
        for (char i = 0; i < THREADS_KEYS; i++) {
            key[0] = i;
            check_ok(store_put(&txn, STORE_KV, slice_from(key, i % 2 == 0 ? 20 : sizeof(key)),
                               slice_from((const char *)&round, sizeof(round))));
        }
        check_ok(store_applied_set(&txn, 1, round));
        check_ok(store_write_commit(&txn));
        store_changes_free(&txn);
    }
    atomic_store(&threads.over, true);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(ids[i], NULL), 0);
    }
    assert_int_equal(atomic_load(&threads.bad), 0);
    fixture_deinit(&fixture);
}

/* --- opening --- */

static void a_folder_that_cannot_be_made_is_told(void **state)
{
    const struct store_options options = {.dir = "/proc/nothing/here"};
    struct store *store = NULL;
    struct errmsg err = {""};
    bool wiped;

    (void)state;
    check_rc(store_open(&options, &store, &wiped, &err), STORE_EIO);
    assert_non_null(strstr(err.text, "/proc/nothing/here"));
    assert_null(store);
    store_close(NULL);
}

static void a_store_in_use_is_refused(void **state)
{
    struct fixture fixture;
    struct store *second = NULL;
    struct errmsg err = {""};
    bool wiped;

    (void)state;
    fixture_init(&fixture);
    const struct store_options options = {.dir = fixture.dir, .boot_id = FIXTURE_BOOT};
    check_rc(store_open(&options, &second, &wiped, &err), STORE_EIO);
    assert_non_null(strstr(err.text, "in use"));
    put_text(&fixture, "still", "works");
    fixture_deinit(&fixture);
}

/* A data file that is no database: the log rebuilds what it was. */
static void a_file_that_is_no_database_is_wiped(void **state)
{
    struct fixture fixture;
    char path[128];

    (void)state;
    fixture_init(&fixture);
    put_text(&fixture, "a", "1");
    store_close(fixture.store); /* Clean: the mark says that it may be trusted. */
    (void)snprintf(path, sizeof(path), "%s/data.mdb", fixture.dir);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    for (int i = 0; i < 8192; i++) {
        (void)fputc('X', file);
    }
    assert_int_equal(fclose(file), 0);
    fixture_open(&fixture, FIXTURE_BOOT, (size_t)64 << 20);
    assert_true(fixture.wiped);
    assert_int_equal(full_count(&fixture), 0);
    fixture_deinit(&fixture);
}

/* A transaction of many operations is undone as a whole while its neighbours in the batch stay. */
static void a_savepoint_is_undone_or_kept_as_a_whole(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    struct store_savepoint savepoint;
    enum store_topic topic;
    struct slice key;
    char long_key[3 * STORE_KEY_INLINE_BYTES];
    uint64_t checksum[3];

    (void)state;
    memset(long_key, 'x', sizeof(long_key));
    const struct slice deep = slice_from(long_key, sizeof(long_key));
    fixture_init(&fixture);
    put_text(&fixture, "a", "1");
    check_ok(store_write_begin(fixture.store, &txn));
    check_ok(store_put(&txn, STORE_KV, text("b"), text("1")));
    store_note(&txn, STORE_TOPIC_KV, text("b"));
    check_ok(store_checksum(&txn, &checksum[0]));

    check_ok(store_savepoint_begin(&txn, &savepoint));
    check_ok(store_put(&txn, STORE_KV, text("a"), text("2")));
    check_ok(store_put(&txn, STORE_KV, deep, text("2")));
    check_ok(store_delete(&txn, STORE_KV, text("b")));
    store_note(&txn, STORE_TOPIC_KV, text("a"));
    store_note(&txn, STORE_TOPIC_SESSION, SLICE_EMPTY);
    store_savepoint_rollback(&txn, &savepoint);
    check_ok(store_checksum(&txn, &checksum[1]));
    assert_int_equal(checksum[0], checksum[1]);

    check_ok(store_savepoint_begin(&txn, &savepoint));
    check_ok(store_put(&txn, STORE_KV, deep, text("3")));
    store_note(&txn, STORE_TOPIC_SESSION, SLICE_EMPTY);
    check_ok(store_savepoint_commit(&txn, &savepoint));
    check_ok(store_checksum(&txn, &checksum[2]));
    assert_int_not_equal(checksum[0], checksum[2]);
    check_ok(store_write_commit(&txn));

    struct reader it = store_changes_begin(&txn);
    assert_true(store_changes_next(&it, &topic, &key));
    assert_int_equal(topic, STORE_TOPIC_KV);
    assert_true(slice_equal(key, text("b")));
    assert_true(store_changes_next(&it, &topic, &key));
    assert_int_equal(topic, STORE_TOPIC_SESSION);
    assert_false(store_changes_next(&it, &topic, &key));
    store_changes_free(&txn);
    check_ok(store_read_begin(fixture.store, &txn));
    check_ok(store_checksum(&txn, &checksum[0]));
    assert_int_equal(checksum[0], checksum[2]);
    store_read_end(&txn);
    fixture_deinit(&fixture);
}

static void every_error_has_its_text(void **state)
{
    (void)state;
    for (int code = STORE_ECORRUPT; code <= STORE_OK; code++) {
        assert_null(strstr(store_strerror(code), "unknown"));
    }
    assert_non_null(strstr(store_strerror(-99), "unknown"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_sorted_arrays),
        cmocka_unit_test(an_emptied_table_has_no_pages_left),
        cmocka_unit_test(tables_are_apart),
        cmocka_unit_test(an_aborted_transaction_changes_nothing),
        cmocka_unit_test(a_reader_sees_one_state_until_renewed),
        cmocka_unit_test(scans_nest_and_survive_renewal),
        cmocka_unit_test(changes_are_noted_in_order),
        cmocka_unit_test(indexes_are_kept_by_name),
        cmocka_unit_test(equal_states_have_equal_checksums),
        cmocka_unit_test(different_states_have_different_checksums),
        cmocka_unit_test(a_full_store_reads_and_can_be_emptied),
        cmocka_unit_test(a_lowered_limit_refuses_and_can_be_emptied),
        cmocka_unit_test(a_full_store_takes_bookkeeping_only),
        cmocka_unit_test(a_failed_transaction_does_not_commit),
        cmocka_unit_test(readers_in_threads_see_whole_commits),
        cmocka_unit_test(a_folder_that_cannot_be_made_is_told),
        cmocka_unit_test(a_store_in_use_is_refused),
        cmocka_unit_test(a_file_that_is_no_database_is_wiped),
        cmocka_unit_test(a_savepoint_is_undone_or_kept_as_a_whole),
        cmocka_unit_test(every_error_has_its_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
