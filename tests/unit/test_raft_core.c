/* The core's life, its checks of what comes in, and its small sums. */

#include "tests/unit/raft_fixture.h"

#include "raft/raft_internal.h"

static uint64_t test_random(uint64_t *random)
{
    *random = *random * 6364136223846793005U + 1442695040888963407U;
    return *random >> 33;
}

static void test_every_error_has_its_text(void **state)
{
    (void)state;
    for (int code = RAFT_ESTALE; code <= RAFT_OK; code++) {
        assert_string_not_equal(raft_strerror(code), raft_strerror(1));
    }
}

static void test_bootstrap_writes_entry_one_of_term_one(void **state)
{
    struct core core;
    const struct raft_configuration configuration = core_configuration(3);
    struct raft_configuration decoded;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 0});
    assert_int_equal(raft_bootstrap(core.raft, &configuration, core.now_ms, &core.update), RAFT_OK);
    assert_int_equal(core.update.entry_count, 1);
    assert_int_equal(core.update.entries[0].index, 1);
    assert_int_equal(core.update.entries[0].term, 1);
    assert_int_equal(core.update.entries[0].type, RAFT_ENTRY_CONFIGURATION);
    assert_int_equal(raft_configuration_decode(core.update.entries[0].data,
                                               core.update.entries[0].size, &decoded),
                     RAFT_OK);
    assert_int_equal(decoded.count, 3);
    assert_true(core.update.hard_state_changed);
    assert_int_equal(core.update.term, 1);
    assert_int_equal(raft_configuration(core.raft)->index, 1);
    assert_int_equal(raft_durable_index(core.raft), 0);
    core_persist(&core, core.update.sequence);
    assert_int_equal(raft_durable_index(core.raft), 1);
    /* Only once. */
    assert_int_equal(raft_bootstrap(core.raft, &configuration, core.now_ms, &core.update),
                     RAFT_EINVAL);
    core_lead(&core);
    assert_int_equal(core.update.commit_index, 2);
    core_deinit(&core);
}

static void test_bootstrap_needs_a_configuration_with_this_server(void **state)
{
    struct core core;
    struct raft_configuration configuration = core_configuration(3);

    (void)state;
    core_init(&core, &(struct core_start){.servers = 0});
    configuration.servers[0].id = 0;
    assert_int_equal(raft_bootstrap(core.raft, &configuration, core.now_ms, &core.update),
                     RAFT_EINVAL);
    configuration = core_configuration(1);
    configuration.servers[0].id = 9;
    assert_int_equal(raft_bootstrap(core.raft, &configuration, core.now_ms, &core.update),
                     RAFT_EINVAL);
    core_deinit(&core);
}

static void test_recovered_state_that_contradicts_itself_is_refused(void **state)
{
    static const struct raft_term_run runs[] = {{1, 1}, {3, 2}};
    static const struct raft_term_run unsorted[] = {{1, 2}, {3, 1}};
    static const struct raft_term_run holed[] = {{2, 1}, {3, 2}};
    const struct {
        const char *name;
        struct raft_state found;
        int rc;
    } cases[] = {
        {"new", {0}, RAFT_OK},
        {"good",
         {.term = 2,
          .first_index = 1,
          .last_index = 4,
          .runs = runs,
          .run_count = 2,
          .commit_index = 4},
         RAFT_OK},
        {"compacted without the term before",
         {.term = 2, .first_index = 9, .last_index = 8},
         RAFT_EINVAL},
        {"compacted", {.term = 2, .first_index = 9, .last_index = 8, .prev_term = 2}, RAFT_OK},
        {"log ends before what is committed",
         {.term = 2,
          .first_index = 1,
          .last_index = 4,
          .runs = runs,
          .run_count = 2,
          .commit_index = 5},
         RAFT_EINVAL},
        {"term below the log's",
         {.term = 1, .first_index = 1, .last_index = 4, .runs = runs, .run_count = 2},
         RAFT_EINVAL},
        {"terms fall",
         {.term = 2, .first_index = 1, .last_index = 4, .runs = unsorted, .run_count = 2},
         RAFT_EINVAL},
        {"first entry has no run",
         {.term = 2, .first_index = 1, .last_index = 4, .runs = holed, .run_count = 2},
         RAFT_EINVAL},
        {"run beyond the log",
         {.term = 2, .first_index = 1, .last_index = 2, .runs = runs, .run_count = 2},
         RAFT_EINVAL},
        {"no runs", {.term = 2, .first_index = 1, .last_index = 2}, RAFT_EINVAL},
    };
    const struct raft_options options = core_options(1);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct raft *raft = NULL;
        const int rc = raft_new(&options, &cases[i].found, 0, &raft);
        if (rc != cases[i].rc) {
            fail_msg("%s: %s", cases[i].name, raft_strerror(rc));
        }
        raft_free(raft);
    }
}

static void test_persisted_of_a_write_never_given_is_refused(void **state)
{
    struct core core;
    struct raft_event event = {.type = RAFT_EVENT_PERSISTED, .sequence = 1};

    (void)state;
    core_init(&core, &(struct core_start){.servers = 3, .term = 1, .log = {1}});
    assert_int_equal(core_try(&core, &event), RAFT_EINVAL);
    event.type = (enum raft_event_type)99;
    assert_int_equal(core_try(&core, &event), RAFT_EINVAL);
    core_deinit(&core);
}

static void test_contact_and_progress_are_told(void **state)
{
    struct core core;
    struct raft_progress progress;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 3, .term = 1, .log = {1}});
    assert_int_equal(raft_last_contact_ms(core.raft, core.now_ms), UINT64_MAX);
    core_append(&core, (struct raft_message){.from = 2, .term = 1}, NULL);
    assert_int_equal(raft_last_contact_ms(core.raft, core.now_ms + 7), 7);
    core_lead(&core);
    assert_int_equal(raft_last_contact_ms(core.raft, core.now_ms), 0);
    assert_true(raft_progress(core.raft, 2, core.now_ms + 3, &progress));
    assert_int_equal(progress.match_index, 2);
    assert_int_equal(progress.last_contact_ms, 3);
    assert_true(raft_progress(core.raft, 1, core.now_ms, &progress));
    assert_int_equal(progress.match_index, 2);
    assert_false(raft_progress(core.raft, 9, core.now_ms, &progress));
    core_deinit(&core);
}

static void test_quorum_value_is_what_a_majority_reaches(void **state)
{
    uint64_t random = 1;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        uint64_t values[RAFT_SERVERS_MAX];
        uint64_t sorted[RAFT_SERVERS_MAX];
        const size_t count = 1 + test_random(&random) % RAFT_SERVERS_MAX;
        uint64_t expected = 0;
        for (size_t i = 0; i < count; i++) {
            values[i] = test_random(&random) % 8;
        }
        /* The dumb way: try each value. */
        for (size_t i = 0; i < count; i++) {
            size_t reached = 0;
            for (size_t k = 0; k < count; k++) {
                reached += values[k] >= values[i] ? 1 : 0;
            }
            if (reached * 2 > count && values[i] > expected) {
                expected = values[i];
            }
        }
        memcpy(sorted, values, sizeof(values));
        assert_int_equal(raft_quorum_value(sorted, count), expected);
    }
}

/* Random, often nearly plausible, messages: refused or carried out, but no assertion trips and the
 * commit index never goes back. */
static void test_no_bytes_of_a_stranger_trip_an_assertion(void **state)
{
    static const uint64_t extremes[] = {0, 1, 2, 3, 4, 5, 6, 7, UINT64_MAX, (uint64_t)1 << 62};
    uint64_t random = 3;

    (void)state;
    for (int life = 0; life < 200; life++) {
        struct core core;
        raft_index commit_index = 0;
        core_init(&core, &(struct core_start){
                             .servers = 3, .term = 3, .log = {1, 1, 2, 3}, .commit_index = 1});
        if (life % 2 == 0) {
            core_lead(&core);
        }
        for (int i = 0; i < 300; i++) {
            uint64_t values[10];
            raft_term terms[4] = {0};
            for (size_t k = 0; k < 10; k++) {
                values[k] = extremes[test_random(&random) % 10];
            }
            for (size_t k = 0; k < test_random(&random) % 4; k++) {
                terms[k] = extremes[1 + test_random(&random) % 9];
            }
            struct raft_message message = {.type = (enum raft_message_type)(
                                               test_random(&random) % (RAFT_MESSAGE_TYPE_LAST + 2)),
                                           .from = values[0] % 4,
                                           .term = values[1],
                                           .last_index = values[2],
                                           .last_term = values[3],
                                           .prev_index = values[4],
                                           .prev_term = values[5],
                                           .commit_index = values[6],
                                           .round = values[7],
                                           .granted = test_random(&random) % 2 == 0,
                                           .transfer = test_random(&random) % 2 == 0,
                                           .match_index = values[8],
                                           .hint_index = values[9],
                                           .hint_term = values[2]};
            if (message.type == RAFT_APPEND_REQUEST) {
                (void)core_try_append(&core, message, terms);
            } else {
                (void)core_try_receive(&core, message, NULL);
            }
            if (test_random(&random) % 8 == 0) {
                (void)raft_compact(core.raft, raft_commit_index(core.raft));
            }
            assert_true(raft_commit_index(core.raft) >= commit_index);
            commit_index = raft_commit_index(core.raft);
            if (test_random(&random) % 4 == 0) {
                core_tick(&core, test_random(&random) % CORE_ELECTION_MS);
                if (core.update.sequence != 0) {
                    core_persist(&core, core.update.sequence);
                }
            }
        }
        core_deinit(&core);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_error_has_its_text),
        cmocka_unit_test(test_bootstrap_writes_entry_one_of_term_one),
        cmocka_unit_test(test_bootstrap_needs_a_configuration_with_this_server),
        cmocka_unit_test(test_recovered_state_that_contradicts_itself_is_refused),
        cmocka_unit_test(test_persisted_of_a_write_never_given_is_refused),
        cmocka_unit_test(test_contact_and_progress_are_told),
        cmocka_unit_test(test_quorum_value_is_what_a_majority_reaches),
        cmocka_unit_test(test_no_bytes_of_a_stranger_trip_an_assertion),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
