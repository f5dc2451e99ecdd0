/* Restores: the state becomes the archive's, as a whole, and no index goes backwards. */

#include "tests/unit/state_fixture.h"

#include "server/catalog/coordinate.h"
#include "server/command.h"

static const struct uuid session_id = {{1, 2, 3, 4}};
static const struct uuid restore_id = {{7, 7}}, other_id = {{8, 8}};

static struct command_result apply(struct fixture *fixture, uint64_t index, struct buffer *command)
{
    struct command_result result;

    assert_false(command->failed);
    assert_true(command_valid(buffer_slice(command)));
    assert_true(command_stamp(command->data, command->size, index * 1000));
    fixture_begin(fixture);
    assert_int_equal(command_apply(&fixture->txn, 1, index, buffer_slice(command), NULL, &result),
                     0);
    fixture_commit(fixture);
    buffer_clear(command);
    return result;
}

static void put(struct fixture *fixture, uint64_t index, const char *key, const char *value)
{
    struct buffer command = {0};

    command_encode_kv(&command, COMMAND_KV_SET, text(key), text(value), 0, 0, NULL);
    assert_true(apply(fixture, index, &command).ok);
    buffer_deinit(&command);
}

static void register_service(struct fixture *fixture, uint64_t index, const char *node,
                             const char *service)
{
    const struct catalog_registration registration = {
        .node = {.name = text(node), .address = text("10.0.0.1")},
        .has_service = true,
        .service = {.name = text(service), .weight_passing = 1, .weight_warning = 1}};
    struct buffer command = {0};

    command_encode_register(&command, &registration);
    assert_true(apply(fixture, index, &command).ok);
    buffer_deinit(&command);
}

/* Two keys, one of them long and one locked, a session, a service, a coordinate. */
static void make_state(struct fixture *fixture)
{
    struct session session = {.id = session_id,
                              .node = text("N1"),
                              .ttl = text("15s"),
                              .ttl_ms = 15000,
                              .service_checks = STRINGS_NULL,
                              .checks = STRINGS_NULL};
    const struct coordinate coordinate = {.node = text("N1"), .vec = {0.25}, .height = 0.5};
    struct buffer command = {0}, record = {0}, batch = {0};
    char key[1201];

    memset(key, 'k', sizeof(key) - 1);
    key[sizeof(key) - 1] = '\0';
    register_service(fixture, 2, "N1", "Db");
    command_encode_session_create(&command, &session);
    assert_true(apply(fixture, 3, &command).ok);
    put(fixture, 4, "a", "old");
    put(fixture, 5, key, "long");
    command_encode_kv(&command, COMMAND_KV_LOCK, text("lock"), text("v"), 42, 0, &session_id);
    assert_true(apply(fixture, 6, &command).ok);
    coordinate_encode(&record, &coordinate);
    buffer_put_string(&batch, buffer_slice(&record));
    command_encode_coordinates(&command, buffer_slice(&batch));
    assert_true(apply(fixture, 7, &command).ok);
    buffer_deinit(&command);
    buffer_deinit(&record);
    buffer_deinit(&batch);
}

/* What an archive of the state would bring. */
static void dump(struct fixture *fixture, struct buffer *records, struct restore_sum *sum)
{
    struct store_txn txn;

    assert_int_equal(store_read_begin(fixture->store, &txn), 0);
    for (int table = STORE_META + 1; table < STORE_TABLE_COUNT; table++) {
        struct store_scan scan;
        struct slice key, value;

        if (!restore_takes((enum store_table)table)) {
            continue;
        }
        assert_int_equal(store_scan_begin(&scan, &txn, (enum store_table)table, SLICE_EMPTY), 0);
        while (store_scan_next(&scan, &key, &value) == 0) {
            restore_record_put(records, (enum store_table)table, key, value);
            restore_sum_add(sum, (enum store_table)table, key, value);
        }
        store_scan_end(&scan);
    }
    store_read_end(&txn);
    assert_false(records->failed);
}

static struct command_result step(struct fixture *fixture, uint64_t index,
                                  enum command_restore_step what, const struct uuid *id,
                                  struct slice records, const struct restore_sum *sum)
{
    struct buffer command = {0};

    command_encode_restore(&command, what, id, records, sum);
    assert_int_equal(command_replaces_state(buffer_slice(&command)),
                     what == COMMAND_RESTORE_FINISH);
    const struct command_result result = apply(fixture, index, &command);
    buffer_deinit(&command);
    return result;
}

static struct kv_entry entry(struct store_txn *txn, const char *key)
{
    struct kv_entry found = {.modify_index = 0};
    const int rc = kv_get(txn, text(key), &found);

    assert_true(rc == STORE_OK || rc == STORE_ENOTFOUND);
    return found;
}

static void restored_state_is_the_saved_one_and_indexes_rise(void **state)
{
    struct fixture fixture;
    struct buffer records = {0};
    struct restore_sum sum = {0};
    struct store_txn txn;
    struct session session;
    struct catalog_node node;
    struct coordinate coordinate;
    struct buffer from = {0};
    uint64_t index, count;
    bool more;

    (void)state;
    fixture_open(&fixture);
    make_state(&fixture);
    dump(&fixture, &records, &sum);
    put(&fixture, 20, "a", "new");
    put(&fixture, 21, "b", "gone after it");
    register_service(&fixture, 22, "N2", "Web");

    (void)step(&fixture, 30, COMMAND_RESTORE_BEGIN, &restore_id, SLICE_EMPTY, NULL);
    (void)step(&fixture, 31, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&records), NULL);
    assert_true(step(&fixture, 32, COMMAND_RESTORE_FINISH, &restore_id, SLICE_EMPTY, &sum).ok);

    assert_int_equal(store_read_begin(fixture.store, &txn), 0);
    assert_true(slice_equal(entry(&txn, "a").value, text("old")));
    assert_int_equal(entry(&txn, "a").modify_index, 32); /* It was changed in between, */
    assert_int_equal(entry(&txn, "a").create_index, 4);
    assert_int_equal(entry(&txn, "lock").modify_index, 6); /* and this was not. */
    assert_int_equal(entry(&txn, "lock").flags, 42);
    const struct kv_entry locked = entry(&txn, "lock");
    assert_true(uuid_equal(&locked.session, &session_id));
    assert_int_equal(entry(&txn, "b").modify_index, 0);
    index = 0;
    buffer_append_text(&from, "b");
    assert_int_equal(kv_tombstone_index(&txn, text("b"), &from, SIZE_MAX, &index, &more), 0);
    assert_int_equal(index, 32);
    buffer_deinit(&from);
    assert_int_equal(session_get(&txn, &session_id, &session), 0);
    assert_int_equal(session.create_index, 3);
    assert_int_equal(catalog_node_get(&txn, text("N2"), &node), STORE_ENOTFOUND);
    assert_int_equal(catalog_index_service(&txn, text("web"), &index), 0);
    assert_int_equal(index, 32);
    assert_int_equal(catalog_index_service(&txn, text("db"), &index), 0);
    assert_int_equal(index, 32);
    assert_int_equal(coordinate_get(&txn, text("n1"), &coordinate), 0);
    assert_true(coordinate.height == 0.5);
    assert_int_equal(store_table_count(&txn, STORE_STAGED, &count), 0);
    assert_int_equal(count, 1); /* Its head, for a repeated last step. */
    store_read_end(&txn);

    /* The locks work: the session's end frees the key. */
    struct buffer command = {0};
    command_encode_session_destroy(&command, &session_id, text("test"));
    assert_true(apply(&fixture, 40, &command).ok);
    assert_int_equal(store_read_begin(fixture.store, &txn), 0);
    const struct kv_entry freed = entry(&txn, "lock");
    assert_true(uuid_is_zero(&freed.session));
    store_read_end(&txn);
    buffer_deinit(&command);
    buffer_deinit(&records);
    fixture_close(&fixture);
}

static void indexes_of_another_log_are_brought_down(void **state)
{
    struct fixture from, to;
    struct buffer records = {0};
    struct restore_sum sum = {0};
    struct store_txn txn;
    struct kv_entry found;

    (void)state;
    fixture_open(&from);
    fixture_open(&to);
    put(&from, 1000, "a", "x");
    dump(&from, &records, &sum);
    (void)step(&to, 1, COMMAND_RESTORE_BEGIN, &restore_id, SLICE_EMPTY, NULL);
    (void)step(&to, 2, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&records), NULL);
    assert_true(step(&to, 3, COMMAND_RESTORE_FINISH, &restore_id, SLICE_EMPTY, &sum).ok);
    assert_int_equal(store_read_begin(to.store, &txn), 0);
    found = entry(&txn, "a");
    assert_int_equal(found.create_index, 3);
    assert_int_equal(found.modify_index, 3);
    store_read_end(&txn);
    buffer_deinit(&records);
    fixture_close(&from);
    fixture_close(&to);
}

static void incomplete_or_contradicting_restores_change_nothing(void **state)
{
    struct fixture fixture;
    struct buffer records = {0}, only_service = {0};
    struct restore_sum sum = {0}, service_sum = {0};
    struct command_result result;
    struct store_txn txn;
    struct slice key, value;
    struct store_scan scan;

    (void)state;
    fixture_open(&fixture);
    make_state(&fixture);
    dump(&fixture, &records, &sum);
    assert_int_equal(store_read_begin(fixture.store, &txn), 0);
    assert_int_equal(store_scan_begin(&scan, &txn, STORE_SERVICE, SLICE_EMPTY), 0);
    assert_int_equal(store_scan_next(&scan, &key, &value), 0);
    restore_record_put(&only_service, STORE_SERVICE, key, value);
    restore_sum_add(&service_sum, STORE_SERVICE, key, value);
    store_scan_end(&scan);
    const struct kv_entry before = entry(&txn, "a");
    store_read_end(&txn);

    (void)step(&fixture, 30, COMMAND_RESTORE_BEGIN, &restore_id, SLICE_EMPTY, NULL);
    result = step(&fixture, 31, COMMAND_RESTORE_FINISH, &restore_id, SLICE_EMPTY, &sum);
    assert_int_equal(result.status, COMMAND_REFUSED);
    assert_string_equal(result.error.text, "part of the state has not arrived");

    /* A service without its node. */
    (void)step(&fixture, 32, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&only_service), NULL);
    result = step(&fixture, 33, COMMAND_RESTORE_FINISH, &restore_id, SLICE_EMPTY, &service_sum);
    assert_int_equal(result.status, COMMAND_REFUSED);

    /* Another one has begun. */
    (void)step(&fixture, 34, COMMAND_RESTORE_BEGIN, &other_id, SLICE_EMPTY, NULL);
    result = step(&fixture, 35, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&records), NULL);
    assert_int_equal(result.status, COMMAND_REFUSED);
    assert_string_equal(result.error.text, "another restore has begun meanwhile");
    /* Somebody else's abort does not concern it; its own does. */
    (void)step(&fixture, 36, COMMAND_RESTORE_ABORT, &restore_id, SLICE_EMPTY, NULL);
    (void)step(&fixture, 37, COMMAND_RESTORE_ADD, &other_id, buffer_slice(&records), NULL);
    (void)step(&fixture, 38, COMMAND_RESTORE_ABORT, &other_id, SLICE_EMPTY, NULL);
    result = step(&fixture, 39, COMMAND_RESTORE_FINISH, &other_id, SLICE_EMPTY, &sum);
    assert_int_equal(result.status, COMMAND_REFUSED);

    assert_int_equal(store_read_begin(fixture.store, &txn), 0);
    assert_int_equal(entry(&txn, "a").modify_index, before.modify_index);
    store_read_end(&txn);
    buffer_deinit(&records);
    buffer_deinit(&only_service);
    fixture_close(&fixture);
}

/* By its id one node can be found: the second of two could not be removed, on any server. */
static void two_nodes_of_one_id_are_refused(void **state)
{
    static const char id[] = "6c0d1a5e-0000-4000-8000-000000000001";
    static const char *const names[] = {"x", "y"};
    struct fixture fixture;
    struct buffer records = {0}, record = {0}, command = {0};
    struct restore_sum sum = {0};

    (void)state;
    fixture_open(&fixture);
    for (size_t i = 0; i < 2; i++) {
        const struct catalog_node node = {.id = text(id),
                                          .name = text(names[i]),
                                          .address = text("10.0.0.1"),
                                          .create_index = 1,
                                          .modify_index = 1};
        buffer_clear(&record);
        catalog_node_encode(&record, &node);
        restore_record_put(&records, STORE_NODE, text(names[i]), buffer_slice(&record));
        restore_sum_add(&sum, STORE_NODE, text(names[i]), buffer_slice(&record));
    }
    (void)step(&fixture, 1, COMMAND_RESTORE_BEGIN, &restore_id, SLICE_EMPTY, NULL);
    (void)step(&fixture, 2, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&records), NULL);
    for (uint64_t index = 3; index < 5; index++) {
        const struct command_result result =
            step(&fixture, index, COMMAND_RESTORE_FINISH, &restore_id, SLICE_EMPTY, &sum);
        assert_int_equal(result.status, COMMAND_REFUSED);
        assert_string_equal(result.error.text, "two nodes of the state have the same id");
    }
    for (size_t i = 0; i < 2; i++) {
        buffer_clear(&command);
        command_encode_deregister(&command, text(names[i]), SLICE_EMPTY, SLICE_EMPTY);
        assert_true(apply(&fixture, 5 + i, &command).ok);
    }
    buffer_deinit(&command);
    buffer_deinit(&record);
    buffer_deinit(&records);
    fixture_close(&fixture);
}

/* A leader that dies leaves it open whether its last command counts: it is sent again. */
static void steps_may_come_twice(void **state)
{
    struct fixture fixture;
    struct buffer records = {0};
    struct restore_sum sum = {0};
    struct store_txn txn;

    (void)state;
    fixture_open(&fixture);
    make_state(&fixture);
    dump(&fixture, &records, &sum);
    for (uint64_t i = 0; i < 2; i++) {
        (void)step(&fixture, 30 + i, COMMAND_RESTORE_BEGIN, &restore_id, SLICE_EMPTY, NULL);
    }
    for (uint64_t i = 0; i < 2; i++) {
        (void)step(&fixture, 40 + i, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&records),
                   NULL);
    }
    assert_true(step(&fixture, 50, COMMAND_RESTORE_FINISH, &restore_id, SLICE_EMPTY, &sum).ok);
    put(&fixture, 51, "a", "written after it");
    (void)step(&fixture, 52, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&records), NULL);
    assert_true(step(&fixture, 53, COMMAND_RESTORE_FINISH, &restore_id, SLICE_EMPTY, &sum).ok);
    assert_int_equal(store_read_begin(fixture.store, &txn), 0);
    assert_true(slice_equal(entry(&txn, "a").value, text("written after it")));
    store_read_end(&txn);
    buffer_deinit(&records);
    fixture_close(&fixture);
}

static void given_up_restores_are_forgotten(void **state)
{
    struct fixture fixture;
    struct buffer records = {0}, command = {0};
    struct restore_sum sum = {0};
    struct store_txn txn;
    uint64_t count;

    (void)state;
    fixture_open(&fixture);
    make_state(&fixture);
    dump(&fixture, &records, &sum);
    (void)step(&fixture, 30, COMMAND_RESTORE_BEGIN, &restore_id, SLICE_EMPTY, NULL);
    (void)step(&fixture, 31, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&records), NULL);
    for (uint64_t index = 32; index <= 31 + RESTORE_IDLE_MS / 1000; index += 100) {
        command_encode_reap(&command, 1);
        (void)apply(&fixture, index, &command);
        assert_int_equal(store_read_begin(fixture.store, &txn), 0);
        assert_int_equal(store_table_count(&txn, STORE_STAGED, &count), 0);
        assert_true(count > 1);
        store_read_end(&txn);
    }
    command_encode_reap(&command, 1);
    (void)apply(&fixture, 31 + RESTORE_IDLE_MS / 1000, &command);
    assert_int_equal(store_read_begin(fixture.store, &txn), 0);
    assert_int_equal(store_table_count(&txn, STORE_STAGED, &count), 0);
    assert_int_equal(count, 0);
    store_read_end(&txn);
    buffer_deinit(&records);
    buffer_deinit(&command);
    fixture_close(&fixture);
}

static void malformed_records_are_no_command(void **state)
{
    static const struct {
        enum store_table table;
        const char *key;
        const char *value;
    } cases[] = {
        {STORE_KV, "k", "short"},        {STORE_SESSION, "k", ""}, {STORE_NODE, "n", "x"},
        {STORE_SERVICE, "n", ""},        {STORE_CHECK, "n", "x"},  {STORE_COORDINATE, "n", "x"},
        {STORE_LOCK_DELAY, "k", "1234"},
    };
    struct buffer records = {0}, command = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        buffer_clear(&records);
        buffer_clear(&command);
        restore_record_put(&records, cases[i].table, text(cases[i].key), text(cases[i].value));
        command_encode_restore(&command, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&records),
                               NULL);
        assert_false(command_valid(buffer_slice(&command)));
    }
    buffer_deinit(&records);
    buffer_deinit(&command);
}

/* A node's check may name any service, which is never part of a key. Restores once refused every
 * archive that had one whose name no service can have. */
static void names_that_are_no_keys_can_be_restored(void **state)
{
    static char long_name[CATALOG_NAME_BYTES_MAX + 1];
    struct buffer record = {0}, checks = {0}, command = {0}, records = {0};
    struct restore_sum sum = {0};
    struct fixture fixture;
    struct catalog_check check = {.id = text("c"), .name = text("c")};

    (void)state;
    memset(long_name, 'x', sizeof(long_name));
    check.service_name = slice_from(long_name, sizeof(long_name));
    catalog_check_encode(&record, &check);
    buffer_put_string(&checks, buffer_slice(&record));
    const struct catalog_registration registration = {
        .node = {.name = text("n1"), .address = text("10.0.0.1")},
        .check_count = 1,
        .checks = buffer_slice(&checks)};

    fixture_open(&fixture);
    command_encode_register(&command, &registration);
    assert_true(apply(&fixture, 2, &command).ok);
    dump(&fixture, &records, &sum);
    assert_int_equal(sum.records, 2);
    (void)step(&fixture, 3, COMMAND_RESTORE_BEGIN, &restore_id, SLICE_EMPTY, NULL);
    assert_true(
        step(&fixture, 4, COMMAND_RESTORE_ADD, &restore_id, buffer_slice(&records), NULL).ok);
    assert_true(step(&fixture, 5, COMMAND_RESTORE_FINISH, &restore_id, SLICE_EMPTY, &sum).ok);
    buffer_deinit(&record);
    buffer_deinit(&checks);
    buffer_deinit(&command);
    buffer_deinit(&records);
    fixture_close(&fixture);
}

static void distances_are_those_of_serf(void **state)
{
    const struct coordinate a = {.vec = {0, 3}, .height = 1};
    const struct coordinate b = {.vec = {4, 0}, .height = 1, .adjustment = -1};
    const struct coordinate c = {.vec = {4, 0}, .height = 1, .adjustment = -100};

    (void)state;
    assert_true(coordinate_distance(&a, &b) == 6);
    assert_true(coordinate_distance(&a, &c) == 7); /* An adjustment below zero does not count. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restored_state_is_the_saved_one_and_indexes_rise),
        cmocka_unit_test(indexes_of_another_log_are_brought_down),
        cmocka_unit_test(incomplete_or_contradicting_restores_change_nothing),
        cmocka_unit_test(two_nodes_of_one_id_are_refused),
        cmocka_unit_test(steps_may_come_twice),
        cmocka_unit_test(given_up_restores_are_forgotten),
        cmocka_unit_test(malformed_records_are_no_command),
        cmocka_unit_test(names_that_are_no_keys_can_be_restored),
        cmocka_unit_test(distances_are_those_of_serf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
