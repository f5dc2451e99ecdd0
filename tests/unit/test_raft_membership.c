/* Changes of the configuration, one server at a time (dissertation chapter 4 and its erratum). */

#include "tests/unit/raft_fixture.h"

static const struct core_start three = {.servers = 3, .term = 1, .log = {1}};

static int try_change(struct core *core, const struct raft_configuration *configuration)
{
    /* Lives on until the test ends: entries borrow it. */
    static uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    const struct raft_entry entry = {.type = RAFT_ENTRY_CONFIGURATION,
                                     .data = bytes,
                                     .size = raft_configuration_encode(configuration, bytes)};
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE, .entries = &entry, .entry_count = 1};
    return core_try(core, &event);
}

static struct raft_configuration with_added(const struct core *core, raft_id id, bool voter)
{
    struct raft_configuration configuration = *raft_configuration(core->raft);

    memset(&configuration.servers[configuration.count], 0, sizeof(configuration.servers[0]));
    configuration.servers[configuration.count].id = id;
    configuration.servers[configuration.count].voter = voter;
    configuration.count++;
    return configuration;
}

static struct raft_configuration without(const struct core *core, raft_id id)
{
    struct raft_configuration configuration = *raft_configuration(core->raft);
    size_t kept = 0;

    for (size_t i = 0; i < configuration.count; i++) {
        if (configuration.servers[i].id != id) {
            configuration.servers[kept++] = configuration.servers[i];
        }
    }
    configuration.count = kept;
    return configuration;
}

static struct raft_configuration with_vote(const struct core *core, raft_id id, bool voter)
{
    struct raft_configuration configuration = *raft_configuration(core->raft);

    for (size_t i = 0; i < configuration.count; i++) {
        if (configuration.servers[i].id == id) {
            configuration.servers[i].voter = voter;
        }
    }
    return configuration;
}

/* The leader proposes a configuration without the server. */
static void take_out(struct core *core, raft_id id)
{
    const struct raft_configuration next = without(core, id);

    assert_int_equal(try_change(core, &next), RAFT_OK);
}

/* Makes the newest entry durable here and on `other`. */
static void commit(struct core *core, raft_id other)
{
    if (core->update.sequence != 0) {
        core_persist(core, core->update.sequence);
    }
    core_acknowledge(core, other, raft_last_index(core->raft), 0);
}

static void test_a_server_joins_without_a_vote_and_is_given_one(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    struct raft_configuration next = with_added(&core, 4, false);
    assert_int_equal(try_change(&core, &next), RAFT_OK);
    assert_true(core.update.configuration_changed);
    assert_int_equal(raft_configuration(core.raft)->count, 4);
    assert_int_equal(raft_configuration(core.raft)->index, raft_last_index(core.raft));
    assert_non_null(core_sent(&core, RAFT_APPEND_REQUEST, 4));
    commit(&core, 2);
    assert_int_equal(core.update.commit_index, raft_last_index(core.raft));
    next = with_vote(&core, 4, true);
    assert_int_equal(try_change(&core, &next), RAFT_OK);
    /* Three of four now. */
    commit(&core, 2);
    assert_true(core.update.commit_index < raft_last_index(core.raft));
    core_acknowledge(&core, 4, raft_last_index(core.raft), 0);
    assert_int_equal(core.update.commit_index, raft_last_index(core.raft));
    core_deinit(&core);
}

static void test_a_server_without_a_vote_does_not_count(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    const struct raft_configuration next = with_added(&core, 4, false);
    assert_int_equal(try_change(&core, &next), RAFT_OK);
    commit(&core, 4);
    assert_true(core.update.commit_index < raft_last_index(core.raft));
    core_deinit(&core);
}

/* Pattern: the id of a server that lost its disk comes back as a voter and has forgotten its votes;
 * a new voter that has nothing makes quorums larger and helps nobody. */
static void test_changes_that_skip_a_step_are_refused(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    const struct raft_configuration as_voter = with_added(&core, 4, true);
    const struct raft_configuration same = *raft_configuration(core.raft);
    struct raft_configuration two = with_vote(&core, 2, false);
    two.servers[2].voter = false;
    struct raft_configuration replaced = without(&core, 2);
    replaced.servers[replaced.count] = replaced.servers[1];
    replaced.servers[replaced.count].id = 9;
    replaced.servers[replaced.count++].voter = false;
    const struct {
        const char *name;
        const struct raft_configuration *to;
    } cases[] = {
        {"a new voter", &as_voter},
        {"no change", &same},
        {"two votes denied", &two},
        {"one server for another", &replaced},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (try_change(&core, cases[i].to) != RAFT_EINVAL) {
            fail_msg("%s", cases[i].name);
        }
    }
    core_deinit(&core);
}

/* Pattern: single-server changes of two leaders in different terms have disjoint quorums, unless
 * the later one has committed an entry of its term first (erratum of 2015). */
static void test_no_change_before_the_terms_first_commit(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_elect(&core);
    const struct raft_configuration next = without(&core, 3);
    assert_int_equal(try_change(&core, &next), RAFT_ECHANGE);
    assert_int_equal(raft_configuration(core.raft)->count, 3);
    commit(&core, 2);
    assert_int_equal(try_change(&core, &next), RAFT_OK);
    core_deinit(&core);
}

static void test_no_change_while_another_is_not_committed(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    struct raft_configuration next = with_added(&core, 4, false);
    assert_int_equal(try_change(&core, &next), RAFT_OK);
    next = with_added(&core, 5, false);
    assert_int_equal(try_change(&core, &next), RAFT_ECHANGE);
    commit(&core, 2);
    assert_int_equal(try_change(&core, &next), RAFT_OK);
    core_deinit(&core);
}

static void test_changes_are_for_leaders_that_are_not_handing_over(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    const struct raft_configuration next = with_added(&core, 4, false);
    assert_int_equal(try_change(&core, &next), RAFT_ENOTLEADER);
    core_lead(&core);
    core_step(&core, &(struct raft_event){.type = RAFT_EVENT_TRANSFER, .peer = 2});
    assert_int_equal(try_change(&core, &next), RAFT_ETRANSFER);
    core_deinit(&core);
}

/* Pattern: a leader that removes itself goes on counting its own vote, or leads for ever, or leaves
 * the others to wait for a time-out. */
static void test_a_leader_that_removes_itself_steps_down_after_the_commit(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    take_out(&core, 1);
    assert_int_equal(core.update.role, RAFT_LEADER);
    commit(&core, 2);
    /* Of 2 and 3 both are needed: its own disk does not count. */
    assert_true(core.update.commit_index < raft_last_index(core.raft));
    assert_int_equal(core.update.role, RAFT_LEADER);
    core_acknowledge(&core, 3, raft_last_index(core.raft), 0);
    assert_int_equal(core.update.commit_index, raft_last_index(core.raft));
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    /* The others learn that it is committed, and one of them is asked to take over. */
    assert_int_equal(core_sent(&core, RAFT_APPEND_REQUEST, 3)->commit_index,
                     raft_last_index(core.raft));
    assert_true(core_sent(&core, RAFT_TIMEOUT_NOW, 2) != NULL ||
                core_sent(&core, RAFT_TIMEOUT_NOW, 3) != NULL);
    /* And it never campaigns again. */
    core_tick(&core, 4 * CORE_ELECTION_MS);
    core_tick(&core, 4 * CORE_ELECTION_MS);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    assert_int_equal(core.update.message_count, 0);
    core_deinit(&core);
}

/* Pattern: nobody can be elected any more. A leader of two that took itself out stopped before the
 * other one had that entry, and its log is ahead: it gives the other one no vote, and must lead
 * once more itself (4.2.2). */
static void test_a_server_that_took_itself_out_stands_until_that_is_committed(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &(struct core_start){.servers = 2, .term = 1, .log = {1}});
    take_out(&core, 1);
    core_persist(&core, core.update.sequence);
    core_tick(&core, 2 * CORE_ELECTION_MS);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    core_tick(&core, 2 * CORE_ELECTION_MS);
    assert_int_equal(core.update.role, RAFT_PRE_CANDIDATE);
    assert_non_null(core_sent(&core, RAFT_PRE_VOTE_REQUEST, 2));
    const raft_term term = raft_term_now(core.raft) + 1;
    core_receive(&core,
                 (struct raft_message){
                     .type = RAFT_PRE_VOTE_RESPONSE, .from = 2, .term = term, .granted = true});
    core_persist(&core, core.update.sequence);
    assert_int_equal(core.update.role, RAFT_CANDIDATE); /* Its own vote does not count. */
    core_receive(&core, (struct raft_message){
                            .type = RAFT_VOTE_RESPONSE, .from = 2, .term = term, .granted = true});
    assert_int_equal(core.update.role, RAFT_LEADER);
    core_persist(&core, core.update.sequence);
    assert_true(core.update.commit_index < raft_last_index(core.raft));
    core_acknowledge(&core, 2, raft_last_index(core.raft), 0);
    assert_int_equal(core.update.commit_index, raft_last_index(core.raft));
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    /* Now it is known to be committed. */
    core_tick(&core, 4 * CORE_ELECTION_MS);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    core_deinit(&core);
}

static void test_the_last_other_voter_can_be_removed(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &(struct core_start){.servers = 2, .term = 1, .log = {1}});
    take_out(&core, 2);
    core_persist(&core, core.update.sequence);
    assert_int_equal(core.update.commit_index, raft_last_index(core.raft));
    core_tick(&core, 10 * CORE_ELECTION_MS);
    assert_int_equal(core.update.role, RAFT_LEADER);
    core_deinit(&core);
}

static void test_a_removed_server_is_sent_nothing_and_not_listened_to(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    take_out(&core, 3);
    assert_null(core_sent(&core, RAFT_APPEND_REQUEST, 3));
    const raft_index last = raft_last_index(core.raft);
    core_persist(&core, core.update.sequence);
    core_acknowledge(&core, 3, last, 0);
    assert_true(core.update.commit_index < last);
    core_acknowledge(&core, 2, last, 0);
    assert_int_equal(core.update.commit_index, last);
    core_deinit(&core);
}

/* Pattern: a removed server that knows nothing of it disturbs the others with elections. */
static void test_a_removed_server_disturbs_nobody(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    take_out(&core, 3);
    commit(&core, 2);
    const raft_term term = raft_term_now(core.raft);
    core_receive(&core, (struct raft_message){.type = RAFT_VOTE_REQUEST,
                                              .from = 3,
                                              .term = term + 5,
                                              .last_index = 99,
                                              .last_term = term});
    assert_int_equal(core.update.role, RAFT_LEADER);
    assert_int_equal(core.update.term, term);
    core_deinit(&core);
}

/* Peers keep what is known of them, and their windows, when others come and go. */
static void test_progress_of_the_others_survives_a_change(void **state)
{
    struct core core;
    struct raft_progress progress;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 5, .term = 1, .log = {1}});
    core_elect(&core);
    commit(&core, 5);
    core_acknowledge(&core, 4, 2, 0);
    take_out(&core, 2);
    assert_true(raft_progress(core.raft, 5, core.now_ms, &progress));
    assert_int_equal(progress.match_index, 2);
    assert_false(raft_progress(core.raft, 2, core.now_ms, &progress));
    commit(&core, 5);
    core_acknowledge(&core, 4, raft_last_index(core.raft), 0);
    assert_int_equal(core.update.commit_index, raft_last_index(core.raft));
    core_propose(&core, 1);
    for (raft_id id = 3; id <= 5; id++) {
        assert_true(id == 3 || core_sent(&core, RAFT_APPEND_REQUEST, id) != NULL);
    }
    core_deinit(&core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_server_joins_without_a_vote_and_is_given_one),
        cmocka_unit_test(test_a_server_without_a_vote_does_not_count),
        cmocka_unit_test(test_changes_that_skip_a_step_are_refused),
        cmocka_unit_test(test_no_change_before_the_terms_first_commit),
        cmocka_unit_test(test_no_change_while_another_is_not_committed),
        cmocka_unit_test(test_changes_are_for_leaders_that_are_not_handing_over),
        cmocka_unit_test(test_a_leader_that_removes_itself_steps_down_after_the_commit),
        cmocka_unit_test(test_a_server_that_took_itself_out_stands_until_that_is_committed),
        cmocka_unit_test(test_the_last_other_voter_can_be_removed),
        cmocka_unit_test(test_a_removed_server_is_sent_nothing_and_not_listened_to),
        cmocka_unit_test(test_a_removed_server_disturbs_nobody),
        cmocka_unit_test(test_progress_of_the_others_survives_a_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
