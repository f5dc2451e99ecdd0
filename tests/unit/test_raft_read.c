/* Lease and ReadIndex (dissertation 6.4): no read misses what was acknowledged before it came in.
 */

#include "tests/unit/raft_fixture.h"

static const struct core_start three = {.servers = 3, .term = 1, .log = {1}};

static void expect_answer(const struct core *core, uint64_t token, int status, raft_index index)
{
    assert_int_equal(core->update.read_count, 1);
    assert_int_equal(core->update.reads[0].token, token);
    assert_int_equal(core->update.reads[0].status, status);
    assert_int_equal(core->update.reads[0].index, index);
}

/* Pattern: a read before the own term's first commit misses what earlier leaders acknowledged. */
static void test_reads_wait_for_the_terms_first_commit(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_elect(&core);
    core_persist(&core, core.update.sequence);
    core_read(&core, 5, false);
    assert_int_equal(core.update.read_count, 0);
    const uint64_t round = core_sent(&core, RAFT_APPEND_REQUEST, 2)->round;
    /* Led, but the no-op is not there yet. */
    core_acknowledge(&core, 2, 1, round);
    assert_int_equal(core.update.read_count, 0);
    assert_false(raft_lease_valid(core.raft, core.now_ms));
    core_acknowledge(&core, 3, 2, round);
    expect_answer(&core, 5, RAFT_OK, 2);
    core_deinit(&core);
}

/* Pattern: a read is confirmed by an answer to a question that was older than it. */
static void test_quorum_read_waits_for_a_round_started_after_it(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_deadline(&core);
    const uint64_t before = core_sent(&core, RAFT_APPEND_REQUEST, 2)->round;
    core_read(&core, 6, true);
    assert_int_equal(core.update.read_count, 0);
    const struct raft_message *question = core_sent(&core, RAFT_APPEND_REQUEST, 3);
    assert_non_null(question);
    const uint64_t after = question->round;
    assert_true(after > before);
    core_acknowledge(&core, 2, 2, before);
    core_acknowledge(&core, 3, 2, before);
    assert_int_equal(core.update.read_count, 0);
    core_acknowledge(&core, 3, 2, after);
    expect_answer(&core, 6, RAFT_OK, 2);
    core_deinit(&core);
}

/* A refusal of the entries, too, says that the follower knows no later leader. */
static void test_refusal_confirms_leadership(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_read(&core, 6, true);
    const uint64_t round = core_sent(&core, RAFT_APPEND_REQUEST, 3)->round;
    core_receive(&core, (struct raft_message){.type = RAFT_APPEND_RESPONSE,
                                              .from = 3,
                                              .term = 2,
                                              .round = round,
                                              .match_index = 2,
                                              .hint_index = 1,
                                              .hint_term = 1});
    expect_answer(&core, 6, RAFT_OK, 2);
    core_deinit(&core);
}

static void test_reads_that_come_during_a_round_share_the_next(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_read(&core, 1, true);
    const uint64_t first = core_sent(&core, RAFT_APPEND_REQUEST, 2)->round;
    core_read(&core, 2, true);
    assert_int_equal(core.update.message_count, 0);
    core_read(&core, 3, true);
    assert_int_equal(core.update.message_count, 0);
    core_acknowledge(&core, 2, 2, first);
    expect_answer(&core, 1, RAFT_OK, 2);
    const uint64_t second = core_sent(&core, RAFT_APPEND_REQUEST, 2)->round;
    assert_true(second > first);
    core_acknowledge(&core, 2, 2, second);
    assert_int_equal(core.update.read_count, 2);
    assert_int_equal(core.update.reads[0].token, 2);
    assert_int_equal(core.update.reads[1].token, 3);
    core_deinit(&core);
}

/* From when the round was started, not from when it was answered. */
static void test_lease_counts_from_the_start_of_the_round(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_deadline(&core);
    const uint64_t sent_ms = core.now_ms;
    const uint64_t round = core_sent(&core, RAFT_APPEND_REQUEST, 2)->round;
    core.now_ms += 15;
    core_acknowledge(&core, 2, 2, round);
    assert_true(raft_lease_valid(core.raft, sent_ms + CORE_LEASE_MS - 1));
    assert_false(raft_lease_valid(core.raft, sent_ms + CORE_LEASE_MS));
    core.now_ms = sent_ms + CORE_LEASE_MS - 1;
    core_read(&core, 1, false);
    expect_answer(&core, 1, RAFT_OK, 2);
    core.now_ms++;
    core_read(&core, 2, false);
    assert_int_equal(core.update.read_count, 0);
    assert_non_null(core_sent(&core, RAFT_APPEND_REQUEST, 2));
    core_deinit(&core);
}

static void test_five_servers_need_two_others_for_a_lease(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 5, .term = 1, .log = {1}});
    core_elect(&core);
    const uint64_t round = core_sent(&core, RAFT_APPEND_REQUEST, 2)->round;
    core_persist(&core, core.update.sequence);
    core_acknowledge(&core, 2, 2, round);
    core_acknowledge(&core, 4, 2, 0);
    assert_int_equal(core.update.commit_index, 2);
    assert_false(raft_lease_valid(core.raft, core.now_ms));
    core_acknowledge(&core, 4, 2, round);
    assert_true(raft_lease_valid(core.raft, core.now_ms));
    core_deinit(&core);
}

static void test_reads_fail_when_leadership_is_lost_or_absent(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_read(&core, 1, false);
    expect_answer(&core, 1, RAFT_ENOTLEADER, 0);
    core_lead(&core);
    core_read(&core, 2, true);
    assert_int_equal(core.update.read_count, 0);
    core_receive(&core, (struct raft_message){.type = RAFT_APPEND_RESPONSE, .from = 3, .term = 9});
    expect_answer(&core, 2, RAFT_ENOTLEADER, 0);
    core_deinit(&core);
}

/* A paused leader wakes up: its first events may be reads. */
static void test_leader_that_was_stopped_serves_nothing(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core.now_ms += 10 * CORE_ELECTION_MS;
    core_read(&core, 1, false);
    expect_answer(&core, 1, RAFT_ENOTLEADER, 0);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    core_deinit(&core);
}

static void test_waiting_reads_have_a_bound(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    for (uint64_t token = 0; token < RAFT_READS_MAX; token++) {
        core_read(&core, token, true);
    }
    struct raft_event event = {.type = RAFT_EVENT_READ, .read_quorum = true};
    assert_int_equal(core_try(&core, &event), RAFT_EBUSY);
    core_receive(&core, (struct raft_message){.type = RAFT_APPEND_RESPONSE, .from = 3, .term = 9});
    assert_int_equal(core.update.read_count, RAFT_READS_MAX);
    core_deinit(&core);
}

static void test_cluster_of_one_reads_at_once(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 1, .term = 1, .log = {1}});
    core_tick(&core, 0);
    core_persist(&core, core.update.sequence);
    core_persist(&core, core.update.sequence);
    core_read(&core, 1, false);
    expect_answer(&core, 1, RAFT_OK, 2);
    core_read(&core, 2, true);
    expect_answer(&core, 2, RAFT_OK, 2);
    core_deinit(&core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_wait_for_the_terms_first_commit),
        cmocka_unit_test(test_quorum_read_waits_for_a_round_started_after_it),
        cmocka_unit_test(test_refusal_confirms_leadership),
        cmocka_unit_test(test_reads_that_come_during_a_round_share_the_next),
        cmocka_unit_test(test_lease_counts_from_the_start_of_the_round),
        cmocka_unit_test(test_five_servers_need_two_others_for_a_lease),
        cmocka_unit_test(test_reads_fail_when_leadership_is_lost_or_absent),
        cmocka_unit_test(test_leader_that_was_stopped_serves_nothing),
        cmocka_unit_test(test_waiting_reads_have_a_bound),
        cmocka_unit_test(test_cluster_of_one_reads_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
