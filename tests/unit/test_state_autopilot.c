/* Autopilot's configuration as a command: what sets it, under which condition, and that bytes which
 * are none change nothing. */

#include "tests/unit/state_fixture.h"

#include "server/command.h"

static const struct {
    const char *name;
    enum autopilot_set_mode mode;
    uint64_t cas;
    uint64_t max_trailing_logs;
    bool done;
    uint64_t kept_logs, create_index, modify_index; /* afterwards */
} story[] = {
    {"cas before there is one", AUTOPILOT_SET_CAS, 0, 1, false, 0, 0, 0},
    {"the first leader's", AUTOPILOT_SET_INITIAL, 0, 2, true, 2, 2, 2},
    {"the next leader's", AUTOPILOT_SET_INITIAL, 0, 3, false, 2, 2, 2},
    {"an operator's", AUTOPILOT_SET, 0, 4, true, 4, 2, 4},
    {"cas with an old index", AUTOPILOT_SET_CAS, 2, 5, false, 4, 2, 4},
    {"cas with 0", AUTOPILOT_SET_CAS, 0, 6, false, 4, 2, 4},
    {"cas with the index", AUTOPILOT_SET_CAS, 4, 7, true, 7, 2, 7},
};

static void each_mode_sets_it_under_its_condition(void **state)
{
    struct fixture fixture;
    struct autopilot_config config;

    (void)state;
    fixture_open(&fixture);
    for (size_t i = 0; i < sizeof(story) / sizeof(story[0]); i++) {
        struct buffer command = {0};
        struct command_result result;

        autopilot_config_init(&config);
        config.max_trailing_logs = story[i].max_trailing_logs;
        command_encode_autopilot(&command, story[i].mode, story[i].cas, &config);
        assert_true(command_valid(buffer_slice(&command)));
        assert_false(command_grows(buffer_slice(&command)));
        fixture_begin(&fixture);
        assert_int_equal(
            command_apply(&fixture.txn, 1, i + 1, buffer_slice(&command), NULL, &result), 0);
        const int rc = autopilot_get(&fixture.txn, &config);

        if (result.ok != story[i].done ||
            rc != (story[i].create_index == 0 ? STORE_ENOTFOUND : STORE_OK) ||
            (rc == STORE_OK && (config.max_trailing_logs != story[i].kept_logs ||
                                config.create_index != story[i].create_index ||
                                config.modify_index != story[i].modify_index))) {
            fail_msg("%s: done %d, logs %llu, created at %llu, changed at %llu", story[i].name,
                     result.ok, (unsigned long long)config.max_trailing_logs,
                     (unsigned long long)config.create_index,
                     (unsigned long long)config.modify_index);
        }
        fixture_commit(&fixture);
        buffer_deinit(&command);
    }
    fixture_close(&fixture);
}

static void all_fields_come_back(void **state)
{
    struct autopilot_config in;
    struct autopilot_config out;
    struct buffer bytes = {0};

    (void)state;
    memset(&in, 0, sizeof(in));
    in.last_contact_threshold_ns = 5;
    in.max_trailing_logs = UINT64_MAX;
    in.min_quorum = 3;
    in.server_stabilization_time_ns = INT64_MAX;
    in.disable_upgrade_migration = true;
    memset(in.redundancy_zone_tag, 'z', AUTOPILOT_TAG_BYTES_MAX);
    strcpy(in.upgrade_version_tag, "version");
    autopilot_config_encode(&bytes, &in);
    struct reader reader = reader_from(buffer_slice(&bytes));
    assert_true(autopilot_config_read(&reader, &out));
    assert_true(reader_done(&reader));
    assert_memory_equal(&in, &out, sizeof(in));
    buffer_deinit(&bytes);
}

static void a_command_cut_short_or_with_another_mode_is_none(void **state)
{
    struct autopilot_config config;
    struct buffer command = {0};

    (void)state;
    autopilot_config_init(&config);
    command_encode_autopilot(&command, AUTOPILOT_SET, 0, &config);
    for (size_t size = 0; size < command.size; size++) {
        assert_false(command_valid(slice_from(command.data, size)));
    }
    buffer_append_char(&command, 0);
    assert_false(command_valid(buffer_slice(&command)));
    buffer_clear(&command);
    command_encode_autopilot(&command, (enum autopilot_set_mode)4, 0, &config);
    assert_false(command_valid(buffer_slice(&command)));
    buffer_deinit(&command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_mode_sets_it_under_its_condition),
        cmocka_unit_test(all_fields_come_back),
        cmocka_unit_test(a_command_cut_short_or_with_another_mode_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
