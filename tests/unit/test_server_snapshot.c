/* Snapshots: what is written is what is loaded, equal states give equal files, and no damage goes
 * unnoticed. */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "server/log.h"
#include "snapshot_fixture.h"

static struct snapshot_fixture fixture;

static int setup(void **state)
{
    (void)state;
    snapshot_fixture_init(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    snapshot_fixture_deinit(&fixture);
    return 0;
}

static struct snapshot_meta take(void)
{
    struct snapshot_meta meta;

    check_snapshot(&fixture,
                   snapshot_write(fixture.dir, fixture.store.store, &fixture.configuration, NULL,
                                  &meta, &fixture.err),
                   SNAPSHOT_OK);
    return meta;
}

static void check_same(const struct snapshot_meta *a, const struct snapshot_meta *b)
{
    assert_int_equal(a->index, b->index);
    assert_int_equal(a->term, b->term);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->checksum, b->checksum);
    assert_int_equal(a->configuration.index, b->configuration.index);
    assert_int_equal(a->configuration.count, b->configuration.count);
    for (size_t i = 0; i < a->configuration.count; i++) {
        const struct raft_server *left = &a->configuration.servers[i];
        const struct raft_server *right = &b->configuration.servers[i];
        assert_int_equal(left->id, right->id);
        assert_int_equal(left->voter, right->voter);
        assert_int_equal(left->info_size, right->info_size);
        assert_memory_equal(left->info, right->info, left->info_size);
    }
}

/* --- there and back --- */

static void test_what_is_loaded_is_what_was_written(void **state)
{
    (void)state;
    static const int counts[] = {0, 1, 5, 400};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct fixture other;
        uint64_t term;
        uint64_t index;
        snapshot_fill(fixture.store.store, i, counts[i], false, 3 + i, 100 + i);
        const uint64_t sum = snapshot_sum(fixture.store.store, &term, &index);
        const struct snapshot_meta meta = take();
        struct snapshot_meta latest;
        check_snapshot(&fixture, snapshot_latest(fixture.dir, &latest, &fixture.err), SNAPSHOT_OK);
        check_same(&meta, &latest);
        assert_int_equal(latest.index, 100 + i);
        assert_int_equal(latest.term, 3 + i);
        assert_int_equal(latest.configuration.count, 2);

        fixture_init(&other);
        snapshot_fill(other.store, 77, 60, false, 1, 1); /* Must all go. */
        check_snapshot(&fixture, snapshot_load(fixture.dir, &meta, other.store, NULL, &fixture.err),
                       SNAPSHOT_OK);
        assert_int_equal(snapshot_sum(other.store, &term, &index), sum);
        assert_int_equal(term, 3 + i);
        assert_int_equal(index, 100 + i);

        /* The store lives on: counts, long keys, and what is written afterwards. */
        struct store_txn txn;
        check_ok(store_write_begin(other.store, &txn));
        for (int table = STORE_META + 1; table < STORE_TABLE_COUNT; table++) {
            uint64_t count;
            check_ok(store_table_count(&txn, (enum store_table)table, &count));
            assert_int_equal(count, counts[i]);
        }
        check_ok(store_write_commit(&txn));
        store_changes_free(&txn);
        snapshot_fill(other.store, 78, 500, false, 9, 900);
        snapshot_fill(fixture.store.store, 78, 500, false, 9, 900);
        assert_int_equal(snapshot_sum(other.store, &term, &index),
                         snapshot_sum(fixture.store.store, &term, &index));
        fixture_deinit(&other);
        /* Begin the next row with an empty store. */
        fixture_deinit(&fixture.store);
        fixture_init(&fixture.store);
    }
}

static void test_equal_states_give_equal_bytes(void **state)
{
    (void)state;
    snapshot_fill(fixture.store.store, 5, 300, false, 2, 50);
    const struct snapshot_meta meta = take();
    struct file_bytes first = snapshot_bytes(&fixture, &meta);

    fixture_deinit(&fixture.store);
    fixture_init(&fixture.store);
    snapshot_fill(fixture.store.store, 6, 350, false, 1, 20); /* Another history. */
    struct store_txn txn;
    check_ok(store_write_begin(fixture.store.store, &txn));
    for (int table = STORE_META + 1; table < STORE_TABLE_COUNT; table++) {
        struct store_scan scan;
        struct slice key;
        struct slice value;
        static char copy[4096];
        for (;;) {
            check_ok(store_scan_begin(&scan, &txn, (enum store_table)table, SLICE_EMPTY));
            if (store_scan_next(&scan, &key, &value) != STORE_OK) {
                break;
            }
            memcpy(copy, key.data, key.size);
            const size_t size = key.size;
            store_scan_end(&scan);
            check_ok(store_delete(&txn, (enum store_table)table, slice_from(copy, size)));
        }
        store_scan_end(&scan);
    }
    check_ok(store_write_commit(&txn));
    store_changes_free(&txn);
    snapshot_fill(fixture.store.store, 5, 300, true, 2, 50);
    const struct snapshot_meta again = take();
    struct file_bytes second = snapshot_bytes(&fixture, &again);
    check_same(&meta, &again);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
    free(first.data);
    free(second.data);
}

/* The state goes on changing while it is written: the snapshot is of the moment it was begun. */
static void test_a_snapshot_is_of_the_moment_it_was_begun(void **state)
{
    (void)state;
    struct snapshot_writer *writer = NULL;
    struct snapshot_meta meta;
    uint64_t term;
    uint64_t index;
    struct fixture other;

    snapshot_fill(fixture.store.store, 5, 100, false, 2, 50);
    const uint64_t sum = snapshot_sum(fixture.store.store, &term, &index);
    check_snapshot(&fixture,
                   snapshot_writer_begin(fixture.dir, fixture.store.store, &fixture.configuration,
                                         &writer, &fixture.err),
                   SNAPSHOT_OK);
    snapshot_fill(fixture.store.store, 9, 200, false, 2, 60);
    check_snapshot(&fixture, snapshot_writer_run(writer, NULL, &meta, &fixture.err), SNAPSHOT_OK);
    snapshot_writer_free(writer);
    assert_int_equal(meta.index, 50);
    fixture_init(&other);
    check_snapshot(&fixture, snapshot_load(fixture.dir, &meta, other.store, NULL, &fixture.err),
                   SNAPSHOT_OK);
    assert_int_equal(snapshot_sum(other.store, &term, &index), sum);
    fixture_deinit(&other);
}

static void test_readers_keep_the_old_state_until_they_renew(void **state)
{
    (void)state;
    struct fixture other;
    struct store_txn txn;
    uint64_t before;
    uint64_t during;
    uint64_t after;
    uint64_t term;
    uint64_t index;

    snapshot_fill(fixture.store.store, 5, 100, false, 2, 50);
    const struct snapshot_meta meta = take();
    fixture_init(&other);
    snapshot_fill(other.store, 6, 130, false, 1, 7);
    check_ok(store_read_begin(other.store, &txn));
    check_ok(store_checksum(&txn, &before));
    check_snapshot(&fixture, snapshot_load(fixture.dir, &meta, other.store, NULL, &fixture.err),
                   SNAPSHOT_OK);
    check_ok(store_checksum(&txn, &during));
    check_ok(store_applied_get(&txn, &term, &index));
    assert_int_equal(during, before);
    assert_int_equal(index, 7);
    store_read_reset(&txn);
    check_ok(store_read_renew(&txn));
    check_ok(store_checksum(&txn, &after));
    store_read_end(&txn);
    assert_int_equal(after, snapshot_sum(fixture.store.store, &term, &index));
    fixture_deinit(&other);
}

/* What a load needs is twice the state; that it is near its limit must not keep a server out. */
static void test_a_full_store_can_still_be_replaced(void **state)
{
    (void)state;
    struct fixture other;
    struct store_txn txn;
    uint64_t term;
    uint64_t index;
    static char value[4000];
    int rc = STORE_OK;

    fixture_make_dir(&other);
    fixture_open(&other, FIXTURE_BOOT, (size_t)8 << 20);
    check_ok(store_write_begin(other.store, &txn));
    for (uint32_t i = 0; rc == STORE_OK; i++) {
        rc = store_put(&txn, STORE_KV, slice_from((const char *)&i, sizeof(i)),
                       slice_from(value, sizeof(value)));
        if (i % 100 == 99 && rc == STORE_OK) {
            check_ok(store_write_commit(&txn));
            store_changes_free(&txn);
            check_ok(store_write_begin(other.store, &txn));
        }
    }
    check_rc(rc, STORE_EFULL);
    store_write_abort(&txn);
    check_ok(store_read_begin(other.store, &txn)); /* Keeps all of it from being reused. */
    snapshot_fill(fixture.store.store, 5, 300, false, 2, 50);
    const struct snapshot_meta meta = take();
    check_snapshot(&fixture, snapshot_load(fixture.dir, &meta, other.store, NULL, &fixture.err),
                   SNAPSHOT_OK);
    store_read_end(&txn);
    assert_int_equal(snapshot_sum(other.store, &term, &index),
                     snapshot_sum(fixture.store.store, &term, &index));
    fixture_deinit(&other);
}

/* As in a server: begun on the loop, which goes on writing; run by a worker; and a load by a worker
 * while others read. */
struct work {
    struct snapshot_writer *writer; /* NULL: load */
    struct store *store;
    struct snapshot_meta meta;
    struct errmsg err;
    int rc;
    atomic_bool over;
};

static void *work_run(void *arg)
{
    struct work *work = arg;
    work->rc = work->writer != NULL
                   ? snapshot_writer_run(work->writer, NULL, &work->meta, &work->err)
                   : snapshot_load(fixture.dir, &work->meta, work->store, NULL, &work->err);
    atomic_store(&work->over, true);
    return NULL;
}

static void test_workers_and_the_loop_do_not_disturb_each_other(void **state)
{
    (void)state;
    struct work work = {.rc = -1};
    struct fixture other;
    pthread_t thread;
    uint64_t term;
    uint64_t index;

    snapshot_fill(fixture.store.store, 5, 1000, false, 2, 50);
    const uint64_t sum = snapshot_sum(fixture.store.store, &term, &index);
    check_snapshot(&fixture,
                   snapshot_writer_begin(fixture.dir, fixture.store.store, &fixture.configuration,
                                         &work.writer, &fixture.err),
                   SNAPSHOT_OK);
    assert_int_equal(pthread_create(&thread, NULL, work_run, &work), 0);
    /* Not for as long as a slow disk takes: while it is read, the store only grows. */
    for (uint64_t i = 0; i < 5 || (i < 60 && !atomic_load(&work.over)); i++) {
        snapshot_fill(fixture.store.store, i, 50, i % 2 == 0, 2, 51 + i);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(work.rc, SNAPSHOT_OK);
    snapshot_writer_free(work.writer);

    fixture_init(&other);
    snapshot_fill(other.store, 77, 60, false, 1, 1);
    const uint64_t before = snapshot_sum(other.store, &term, &index);
    work.writer = NULL;
    work.store = other.store;
    atomic_store(&work.over, false);
    assert_int_equal(pthread_create(&thread, NULL, work_run, &work), 0);
    for (bool over = false; !over;) {
        over = atomic_load(&work.over);
        const uint64_t now = snapshot_sum(other.store, &term, &index);
        assert_true((now == before && index == 1) || (now == sum && index == 50));
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(work.rc, SNAPSHOT_OK);
    assert_int_equal(snapshot_sum(other.store, &term, &index), sum);
    fixture_deinit(&other);
}

/* --- damage --- */

static void check_refused(const struct snapshot_meta *meta, const char *what, size_t at,
                          struct store *store, uint64_t sum)
{
    uint64_t term;
    uint64_t index;

    fixture.err.text[0] = '\0';
    const int rc = snapshot_load(fixture.dir, meta, store, NULL, &fixture.err);
    if (rc != SNAPSHOT_ECORRUPT && rc != SNAPSHOT_EFORMAT) {
        fail_msg("%s at %zu: %s", what, at, snapshot_strerror(rc));
    }
    assert_non_null(strstr(fixture.err.text, ".snapshot: "));
    assert_int_equal(snapshot_sum(store, &term, &index), sum);
}

static void test_a_snapshot_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    uint64_t term;
    uint64_t index;

    snapshot_fill(fixture.store.store, 5, 3, false, 2, 50);
    const struct snapshot_meta meta = take();
    const uint64_t sum = snapshot_sum(fixture.store.store, &term, &index);
    struct file_bytes bytes = snapshot_bytes(&fixture, &meta);
    struct snapshot_meta found;
    for (size_t size = 0; size < bytes.size; size++) {
        snapshot_put_file(&fixture, &meta, bytes.data, size);
        check_refused(&meta, "cut", size, fixture.store.store, sum);
        if (size % 64 == 0) {
            assert_int_equal(snapshot_latest(fixture.dir, &found, &fixture.err),
                             SNAPSHOT_ENOTFOUND);
        }
    }
    bytes.data = realloc(bytes.data, bytes.size + 1);
    assert_non_null(bytes.data);
    bytes.data[bytes.size] = 0;
    snapshot_put_file(&fixture, &meta, bytes.data, bytes.size + 1);
    check_refused(&meta, "longer", bytes.size, fixture.store.store, sum);
    assert_int_equal(snapshot_files(fixture.path, ".snapshot"),
                     1); /* Left for who looks into it. */
    free(bytes.data);
}

static void test_any_flipped_bit_is_noticed(void **state)
{
    (void)state;
    uint64_t term;
    uint64_t index;

    snapshot_fill(fixture.store.store, 5, 2, false, 2, 50);
    const struct snapshot_meta meta = take();
    const uint64_t sum = snapshot_sum(fixture.store.store, &term, &index);
    struct file_bytes bytes = snapshot_bytes(&fixture, &meta);
    for (size_t bit = 0; bit < bytes.size * 8; bit++) {
        bytes.data[bit / 8] = (char)(bytes.data[bit / 8] ^ (1 << bit % 8));
        snapshot_put_file(&fixture, &meta, bytes.data, bytes.size);
        check_refused(&meta, "bit", bit, fixture.store.store, sum);
        bytes.data[bit / 8] = (char)(bytes.data[bit / 8] ^ (1 << bit % 8));
    }
    free(bytes.data);
}

static void test_a_newer_format_is_named_as_such(void **state)
{
    (void)state;
    snapshot_fill(fixture.store.store, 5, 2, false, 2, 50);
    const struct snapshot_meta meta = take();
    struct file_bytes bytes = snapshot_bytes(&fixture, &meta);
    bytes.data[8] = 2;
    snapshot_put_file(&fixture, &meta, bytes.data, bytes.size);
    check_snapshot(&fixture, snapshot_verify(fixture.dir, &meta, NULL, &fixture.err),
                   SNAPSHOT_EFORMAT);
    assert_non_null(strstr(fixture.err.text, "newer"));
    free(bytes.data);
}

/* --- the folder --- */

static void test_the_newest_two_are_kept_and_damaged_ones_never_removed(void **state)
{
    (void)state;
    struct snapshot_meta list[SNAPSHOT_LIST_MAX];
    struct snapshot_meta metas[5];
    size_t count = 0;

    for (uint64_t i = 0; i < 5; i++) {
        /* A later term has the smaller index first: the order is by term, then index. */
        snapshot_fill(fixture.store.store, i, 3, false, 1 + i, i == 4 ? 10 : 20 + i);
        metas[i] = take();
        if (i == 1) {
            snapshot_put_file(&fixture, &metas[0], "PCSNAPSH rubbish", 16);
        }
    }
    check_snapshot(&fixture,
                   snapshot_list(fixture.dir, list, SNAPSHOT_LIST_MAX, &count, &fixture.err),
                   SNAPSHOT_OK);
    assert_int_equal(count, 2);
    check_same(&list[0], &metas[4]);
    check_same(&list[1], &metas[3]);
    assert_int_equal(snapshot_files(fixture.path, ".snapshot"), 3);

    /* The newest one damaged: the one before takes its place. */
    snapshot_put_file(&fixture, &metas[4], "", 0);
    check_snapshot(&fixture, snapshot_latest(fixture.dir, &list[0], &fixture.err), SNAPSHOT_OK);
    check_same(&list[0], &metas[3]);
}

static void test_names_are_read_as_they_are_written(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum snapshot_name_kind kind;
    } cases[] = {
        {"3-17.snapshot", SNAPSHOT_NAME_WHOLE},
        {"3-17.snapshot.new", SNAPSHOT_NAME_NEW},
        {"3-17-500-0000beef.partial", SNAPSHOT_NAME_PARTIAL},
        {"18446744073709551614-1.snapshot", SNAPSHOT_NAME_OTHER}, /* Beyond any term. */
        {"03-17.snapshot", SNAPSHOT_NAME_OTHER},
        {"3-17.snapshot~", SNAPSHOT_NAME_OTHER},
        {"3-.snapshot", SNAPSHOT_NAME_OTHER},
        {"-17.snapshot", SNAPSHOT_NAME_OTHER},
        {"3-17-500-beef.partial", SNAPSHOT_NAME_OTHER},
        {"3-17-500-1000000ff.partial", SNAPSHOT_NAME_OTHER},
        {"99999999999999999999999-1.snapshot", SNAPSHOT_NAME_OTHER},
        {"", SNAPSHOT_NAME_OTHER},
        {".", SNAPSHOT_NAME_OTHER},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct snapshot_meta meta;
        if (snapshot_name_parse(cases[i].name, &meta) != cases[i].kind) {
            fail_msg("%s", cases[i].name);
        }
    }
}

static void test_cancelling_leaves_nothing_behind(void **state)
{
    (void)state;
    struct snapshot_task task = {.bytes_per_s_max = 1000};
    struct snapshot_meta meta;

    atomic_store(&task.cancel, true);
    snapshot_fill(fixture.store.store, 5, 20, false, 2, 50);
    check_snapshot(&fixture,
                   snapshot_write(fixture.dir, fixture.store.store, &fixture.configuration, &task,
                                  &meta, &fixture.err),
                   SNAPSHOT_ECANCELLED);
    assert_int_equal(snapshot_files(fixture.path, ".new"), 0);
    assert_int_equal(snapshot_files(fixture.path, ".snapshot"), 0);

    atomic_store(&task.cancel, false);
    task.bytes_per_s_max = 100u << 20;
    check_snapshot(&fixture,
                   snapshot_write(fixture.dir, fixture.store.store, &fixture.configuration, &task,
                                  &meta, &fixture.err),
                   SNAPSHOT_OK);
    assert_int_equal(atomic_load(&task.bytes), meta.bytes);
    atomic_store(&task.cancel, true);
    uint64_t term;
    uint64_t index;
    const uint64_t sum = snapshot_sum(fixture.store.store, &term, &index);
    check_snapshot(&fixture,
                   snapshot_load(fixture.dir, &meta, fixture.store.store, &task, &fixture.err),
                   SNAPSHOT_ECANCELLED);
    assert_int_equal(snapshot_sum(fixture.store.store, &term, &index), sum);
}

static void test_a_snapshot_of_nothing_is_refused(void **state)
{
    (void)state;
    struct snapshot_meta meta;
    check_snapshot(&fixture,
                   snapshot_write(fixture.dir, fixture.store.store, &fixture.configuration, NULL,
                                  &meta, &fixture.err),
                   SNAPSHOT_EINVAL);
}

static void test_every_error_has_a_text(void **state)
{
    (void)state;
    for (int code = 0; code >= SNAPSHOT_ECANCELLED; code--) {
        assert_string_not_equal(snapshot_strerror(code), snapshot_strerror(-1000));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_loaded_is_what_was_written),
        TEST(test_equal_states_give_equal_bytes),
        TEST(test_a_snapshot_is_of_the_moment_it_was_begun),
        TEST(test_readers_keep_the_old_state_until_they_renew),
        TEST(test_workers_and_the_loop_do_not_disturb_each_other),
        TEST(test_a_full_store_can_still_be_replaced),
        TEST(test_a_snapshot_cut_at_any_byte_is_refused),
        TEST(test_any_flipped_bit_is_noticed),
        TEST(test_a_newer_format_is_named_as_such),
        TEST(test_the_newest_two_are_kept_and_damaged_ones_never_removed),
        TEST(test_names_are_read_as_they_are_written),
        TEST(test_cancelling_leaves_nothing_behind),
        TEST(test_a_snapshot_of_nothing_is_refused),
        TEST(test_every_error_has_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
