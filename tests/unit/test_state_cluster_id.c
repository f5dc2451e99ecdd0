/* The cluster's id as a command: who is first sets it, and nothing changes it afterwards. */

#include "tests/unit/state_fixture.h"

#include "server/catalog/cluster_id.h"
#include "server/command.h"

static const struct uuid first = {{1, 2, 3}}, second = {{4, 5, 6}};

static bool apply(struct fixture *fixture, uint64_t index, struct buffer *command)
{
    struct command_result result;

    assert_true(command_valid(buffer_slice(command)));
    fixture_begin(fixture);
    assert_int_equal(command_apply(&fixture->txn, 1, index, buffer_slice(command), NULL, &result),
                     0);
    fixture_commit(fixture);
    buffer_deinit(command);
    assert_int_equal(result.status, COMMAND_DONE);
    return result.ok;
}

static bool apply_id(struct fixture *fixture, uint64_t index, const struct uuid *id)
{
    struct buffer command = {0};

    command_encode_cluster_id(&command, id);
    assert_false(command_grows(buffer_slice(&command)));
    assert_false(command_replaces_state(buffer_slice(&command)));
    assert_int_equal(command_type_of(buffer_slice(&command)), COMMAND_CLUSTER_ID);
    return apply(fixture, index, &command);
}

static void expect_id(struct fixture *fixture, const struct uuid *id)
{
    struct store_txn txn;
    struct uuid found;

    assert_int_equal(store_read_begin(fixture->store, &txn), 0);
    assert_int_equal(cluster_id_get(&txn, &found), id == NULL ? STORE_ENOTFOUND : STORE_OK);
    store_read_end(&txn);
    assert_true(id == NULL || uuid_equal(&found, id));
}

static void who_is_first_sets_it(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    expect_id(&fixture, NULL);
    assert_true(apply_id(&fixture, 2, &first));
    expect_id(&fixture, &first);
    assert_false(apply_id(&fixture, 3, &second));
    assert_false(apply_id(&fixture, 4, &first));
    expect_id(&fixture, &first);
    fixture_close(&fixture);
}

static void a_restore_leaves_it(void **state)
{
    const struct uuid restore = {{9}};
    const struct restore_sum sum = {0};
    struct buffer command = {0};
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    assert_false(restore_takes(STORE_SETTING)); /* Another cluster's is not even brought. */
    assert_true(apply_id(&fixture, 2, &first));
    command_encode_kv(&command, COMMAND_KV_SET, text("k"), text("v"), 0, 0, NULL);
    assert_true(apply(&fixture, 3, &command));
    command_encode_restore(&command, COMMAND_RESTORE_BEGIN, &restore, SLICE_EMPTY, NULL);
    assert_true(apply(&fixture, 4, &command));
    command_encode_restore(&command, COMMAND_RESTORE_FINISH, &restore, SLICE_EMPTY, &sum);
    assert_true(apply(&fixture, 5, &command));
    expect_id(&fixture, &first);
    fixture_close(&fixture);
}

static void what_is_no_id_is_no_command(void **state)
{
    static const struct uuid zero;
    struct buffer command = {0};

    (void)state;
    command_encode_cluster_id(&command, &first);
    for (size_t size = 0; size < command.size; size++) {
        assert_false(command_valid(slice_from(command.data, size)));
    }
    assert_true(command_valid(buffer_slice(&command)));
    buffer_append_char(&command, 0);
    assert_false(command_valid(buffer_slice(&command)));
    buffer_clear(&command);
    command_encode_cluster_id(&command, &zero);
    assert_false(command_valid(buffer_slice(&command)));
    buffer_deinit(&command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_first_sets_it),
        cmocka_unit_test(a_restore_leaves_it),
        cmocka_unit_test(what_is_no_id_is_no_command),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
