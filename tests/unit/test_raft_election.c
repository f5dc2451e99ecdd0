/* Elections, one test for each rule of the dissertation (3.4, 3.6.1, 4.2.3, 6.2, 9.6) and for the
 * faults that other implementations had. */

#include "tests/unit/raft_fixture.h"

static const struct core_start three = {.servers = 3, .term = 1, .log = {1}};

static struct raft_message vote_request(raft_id from, raft_term term, raft_index last_index,
                                        raft_term last_term)
{
    return (struct raft_message){.type = RAFT_VOTE_REQUEST,
                                 .from = from,
                                 .term = term,
                                 .last_index = last_index,
                                 .last_term = last_term};
}

static void test_campaign_starts_exactly_at_the_deadline(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_tick(&core, 0);
    const uint64_t due_ms = core.update.deadline_ms;
    assert_in_range(due_ms, CORE_START_MS + CORE_ELECTION_MS,
                    CORE_START_MS + 2 * CORE_ELECTION_MS - 1);
    core_tick(&core, due_ms - core.now_ms - 1);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    assert_int_equal(core.update.message_count, 0);
    core_tick(&core, 1);
    assert_int_equal(core.update.role, RAFT_PRE_CANDIDATE);
    assert_true(core.update.leadership_changed);
    core_deinit(&core);
}

static void test_timeouts_come_from_the_seed_alone(void **state)
{
    uint64_t due_ms[3];
    const uint64_t seeds[3] = {7, 7, 8};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct core core;
        struct core_start start = three;
        start.seed = seeds[i];
        core_init(&core, &start);
        core_tick(&core, 0);
        due_ms[i] = core.update.deadline_ms;
        core_deinit(&core);
    }
    assert_int_equal(due_ms[0], due_ms[1]);
    assert_int_not_equal(due_ms[0], due_ms[2]);
}

static void test_pre_vote_asks_for_the_next_term_and_stores_nothing(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_deadline(&core);
    for (raft_id id = 2; id <= 3; id++) {
        const struct raft_message *message = core_sent(&core, RAFT_PRE_VOTE_REQUEST, id);
        assert_non_null(message);
        assert_int_equal(message->term, 2);
        assert_int_equal(message->last_index, 1);
        assert_int_equal(message->last_term, 1);
    }
    assert_int_equal(core.update.term, 1);
    assert_int_equal(core.update.sequence, 0);
    core_deinit(&core);
}

/* Pattern: a pre-vote that resets the vote or raises the term leads to double votes. */
static void test_pre_vote_never_changes_term_or_vote(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 3, .term = 1, .vote = 3, .log = {1}});
    core_tick(&core, CORE_ELECTION_MS - 1);
    core.now_ms++;
    struct raft_message request = vote_request(2, 5, 1, 1);
    request.type = RAFT_PRE_VOTE_REQUEST;
    core_receive(&core, request);
    const struct raft_message *answer = core_sent(&core, RAFT_PRE_VOTE_RESPONSE, 2);
    assert_non_null(answer);
    assert_true(answer->granted);
    assert_int_equal(answer->term, 5);
    assert_int_equal(core.update.term, 1);
    assert_int_equal(core.update.vote, 3);
    assert_int_equal(core.update.sequence, 0);
    core_deinit(&core);
}

/* Pattern: servers whose terms differ refuse each other's pre-votes for ever. */
static void test_pre_vote_refusal_carries_the_higher_term_which_is_adopted(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 3, .term = 7, .log = {1}});
    core_tick(&core, CORE_ELECTION_MS - 1);
    struct raft_message request = vote_request(2, 2, 1, 1);
    request.type = RAFT_PRE_VOTE_REQUEST;
    core_receive(&core, request);
    const struct raft_message *answer = core_sent(&core, RAFT_PRE_VOTE_RESPONSE, 2);
    assert_false(answer->granted);
    assert_int_equal(answer->term, 7);
    core_deinit(&core);

    core_init(&core, &three);
    core_deadline(&core);
    core_receive(&core,
                 (struct raft_message){.type = RAFT_PRE_VOTE_RESPONSE, .from = 2, .term = 7});
    assert_int_equal(core.update.term, 7);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    assert_true(core.update.hard_state_changed);
    core_deadline(&core);
    assert_int_equal(core_sent(&core, RAFT_PRE_VOTE_REQUEST, 2)->term, 8);
    core_deinit(&core);
}

static void test_candidate_asks_for_votes_when_its_own_is_durable(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_deadline(&core);
    core_receive(&core, (struct raft_message){
                            .type = RAFT_PRE_VOTE_RESPONSE, .from = 2, .term = 2, .granted = true});
    assert_int_equal(core.update.role, RAFT_CANDIDATE);
    assert_int_equal(core.update.vote, 1);
    assert_true(core.update.hard_state_changed);
    assert_int_equal(core.update.message_count, 0);
    const uint64_t sequence = core.update.sequence;
    /* Whoever answers a question that was not asked is not counted. */
    core_receive(&core, (struct raft_message){
                            .type = RAFT_VOTE_RESPONSE, .from = 2, .term = 2, .granted = true});
    assert_int_equal(core.update.role, RAFT_CANDIDATE);
    core_persist(&core, sequence);
    assert_non_null(core_sent(&core, RAFT_VOTE_REQUEST, 2));
    assert_non_null(core_sent(&core, RAFT_VOTE_REQUEST, 3));
    core_receive(&core, (struct raft_message){
                            .type = RAFT_VOTE_RESPONSE, .from = 3, .term = 2, .granted = true});
    assert_int_equal(core.update.role, RAFT_LEADER);
    core_deinit(&core);
}

/* Pattern: an answer before the disk has it makes two votes of one after a restart. */
static void test_vote_is_answered_when_term_and_vote_are_durable(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_tick(&core, CORE_ELECTION_MS - 1);
    core.now_ms++;
    core_receive(&core, vote_request(2, 2, 1, 1));
    assert_int_equal(core.update.term, 2);
    assert_int_equal(core.update.vote, 2);
    assert_true(core.update.hard_state_changed);
    assert_int_equal(core.update.message_count, 0);
    const uint64_t sequence = core.update.sequence;
    /* Asked once more: still not durable. */
    core_receive(&core, vote_request(2, 2, 1, 1));
    assert_int_equal(core.update.message_count, 0);
    core_persist(&core, sequence);
    assert_true(core_sent(&core, RAFT_VOTE_RESPONSE, 2)->granted);
    /* And once more, now that it is. */
    core_receive(&core, vote_request(2, 2, 1, 1));
    assert_true(core_sent(&core, RAFT_VOTE_RESPONSE, 2)->granted);
    assert_int_equal(core.update.sequence, 0);
    core_deinit(&core);
}

static void test_vote_owed_in_an_older_term_is_forgotten(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core.now_ms += CORE_ELECTION_MS - 1;
    core_tick(&core, 1);
    core_receive(&core, vote_request(2, 2, 1, 1));
    core_receive(&core, vote_request(3, 3, 1, 1));
    core_persist(&core, core.update.sequence);
    assert_null(core_sent(&core, RAFT_VOTE_RESPONSE, 2));
    assert_true(core_sent(&core, RAFT_VOTE_RESPONSE, 3)->granted);
    core_deinit(&core);
}

static void test_stored_vote_holds_after_a_restart(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 3, .term = 2, .vote = 2, .log = {1}});
    core.now_ms += CORE_ELECTION_MS - 1;
    core_tick(&core, 1);
    core_receive(&core, vote_request(3, 2, 9, 1));
    assert_false(core_sent(&core, RAFT_VOTE_RESPONSE, 3)->granted);
    core_receive(&core, vote_request(2, 2, 9, 1));
    assert_true(core_sent(&core, RAFT_VOTE_RESPONSE, 2)->granted);
    core_deinit(&core);
}

/* 4.2.3. A lease rests on it; the term is not taken over, or the leader would be deposed. */
static void test_voters_refuse_while_they_hear_a_leader(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_tick(&core, 50);
    core_append(&core, (struct raft_message){.from = 2, .term = 1, .prev_index = 1, .prev_term = 1},
                NULL);
    core_tick(&core, CORE_ELECTION_MS - 1);
    core_receive(&core, vote_request(3, 9, 9, 8));
    assert_false(core_sent(&core, RAFT_VOTE_RESPONSE, 3)->granted);
    assert_int_equal(core.update.term, 1);
    struct raft_message request = vote_request(3, 9, 9, 8);
    request.type = RAFT_PRE_VOTE_REQUEST;
    core_receive(&core, request);
    assert_false(core_sent(&core, RAFT_PRE_VOTE_RESPONSE, 3)->granted);
    core.now_ms++;
    core_receive(&core, vote_request(3, 9, 9, 8));
    assert_int_equal(core.update.term, 9);
    assert_int_equal(core.update.vote, 3);
    core_deinit(&core);
}

/* A server that restarts has forgotten whose lease counts on it. */
static void test_voters_refuse_for_a_time_after_their_start(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_tick(&core, CORE_ELECTION_MS - 1);
    core_receive(&core, vote_request(3, 2, 9, 1));
    assert_false(core_sent(&core, RAFT_VOTE_RESPONSE, 3)->granted);
    core.now_ms++;
    core_receive(&core, vote_request(3, 2, 9, 1));
    assert_int_equal(core.update.vote, 3);
    core_deinit(&core);
}

static void test_leader_refuses_elections(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_receive(&core, vote_request(3, 9, 9, 8));
    assert_int_equal(core.update.role, RAFT_LEADER);
    assert_false(core_sent(&core, RAFT_VOTE_RESPONSE, 3)->granted);
    core_deinit(&core);
}

static void test_vote_goes_to_logs_that_have_all_of_ours(void **state)
{
    static const struct {
        const char *name;
        raft_index last_index;
        raft_term last_term;
        bool granted;
    } cases[] = {
        {"same", 3, 2, true},
        {"longer", 4, 2, true},
        {"shorter", 2, 2, false},
        {"later term, shorter", 1, 3, true},
        {"earlier term, longer", 9, 1, false},
        {"empty", 0, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct core core;
        core_init(&core, &(struct core_start){.servers = 3, .term = 3, .log = {1, 2, 2}});
        core.now_ms += CORE_ELECTION_MS - 1;
        core_tick(&core, 1);
        core_receive(&core, vote_request(2, 4, cases[i].last_index, cases[i].last_term));
        assert_int_equal(core.update.term, 4);
        if ((core.update.vote == 2) != cases[i].granted) {
            fail_msg("%s: vote is %d", cases[i].name, (int)core.update.vote);
        }
        core_deinit(&core);
    }
}

/* Pattern: a learner, or a server outside of the configuration, starts elections. */
static void test_without_a_vote_nobody_campaigns(void **state)
{
    static const struct core_start starts[] = {
        {.servers = 0},
        {.servers = 3, .self_no_voter = true, .term = 1, .log = {1}},
    };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct core core;
        core_init(&core, &starts[i]);
        core_tick(&core, 100 * CORE_ELECTION_MS);
        assert_int_equal(core.update.role, RAFT_FOLLOWER);
        assert_int_equal(core.update.message_count, 0);
        assert_int_equal(core.update.deadline_ms, UINT64_MAX);
        /* It votes and follows: the others may know better whether it counts. */
        core_receive(&core, vote_request(2, 5, 9, 4));
        core_persist(&core, core.update.sequence);
        assert_true(core_sent(&core, RAFT_VOTE_RESPONSE, 2)->granted);
        core_append(&core, (struct raft_message){.from = 2, .term = 5}, (raft_term[]){1, 5, 0});
        assert_int_equal(core.update.leader, 2);
        core_persist(&core, core.update.sequence);
        assert_int_equal(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->match_index, 2);
        core_tick(&core, 2 * CORE_ELECTION_MS);
        assert_int_equal(core.update.leader, 0);
        core_deinit(&core);
    }
}

/* Pattern: a server that comes back with a higher term cannot be reached by the leader for ever. */
static void test_leader_follows_a_higher_term_in_an_answer(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_receive(&core, (struct raft_message){.type = RAFT_APPEND_RESPONSE, .from = 3, .term = 9});
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    assert_int_equal(core.update.term, 9);
    assert_true(core.update.hard_state_changed);
    assert_int_equal(core.update.truncate_from, 0);
    core_deinit(&core);

    core_init(&core, &(struct core_start){.servers = 3, .term = 9, .log = {1}});
    core_append(&core, (struct raft_message){.from = 2, .term = 2, .round = 5}, NULL);
    const struct raft_message *answer = core_sent(&core, RAFT_APPEND_RESPONSE, 2);
    assert_false(answer->granted);
    assert_int_equal(answer->term, 9);
    /* The round was one of another term: the same server may count other rounds in term 9. */
    assert_int_equal(answer->round, 0);
    core_deinit(&core);
}

static void test_leader_without_a_quorum_steps_down_in_time(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_elect(&core);
    const uint64_t since_ms = core.now_ms;
    core_persist(&core, core.update.sequence);
    while (core.update.deadline_ms < since_ms + CORE_ELECTION_MS) {
        core_deadline(&core);
        assert_int_equal(core.update.role, RAFT_LEADER);
    }
    core_tick(&core, since_ms + CORE_ELECTION_MS - core.now_ms);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    assert_int_equal(core.update.leader, 0);
    assert_int_equal(core.update.term, 2);
    core_deinit(&core);
}

static void test_leader_that_one_of_two_followers_answers_stays(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    for (int i = 0; i < 50; i++) {
        core_deadline(&core);
        const struct raft_message *beat = core_sent(&core, RAFT_APPEND_REQUEST, 3);
        if (beat != NULL) {
            core_acknowledge(&core, 3, 2, beat->round);
        }
        assert_int_equal(core.update.role, RAFT_LEADER);
    }
    core_deinit(&core);
}

static void test_cluster_of_one_leads_at_once_and_commits_what_is_durable(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 1, .term = 1, .log = {1}});
    core_tick(&core, 0);
    assert_int_equal(core.update.role, RAFT_CANDIDATE);
    core_persist(&core, core.update.sequence);
    assert_int_equal(core.update.role, RAFT_LEADER);
    assert_int_equal(core.update.commit_index, 0);
    const uint64_t noop = core.update.sequence;
    core_propose(&core, 2);
    assert_int_equal(core.update.commit_index, 0);
    const uint64_t proposal = core.update.sequence;
    core_persist(&core, noop);
    assert_int_equal(core.update.apply_index, 2);
    core_persist(&core, proposal);
    assert_int_equal(core.update.apply_index, 4);
    assert_int_equal(core.update.message_count, 0);
    assert_int_equal(core.update.deadline_ms, UINT64_MAX);
    core_deinit(&core);
}

/* The other one of two took itself out and does not know yet that this is committed: it leads, and
 * its lease may rest on this server, which was started again a moment later. */
static void test_last_voter_of_two_honours_the_others_lease_after_its_start(void **state)
{
    static const struct {
        raft_index commit_index;
        bool waits;
    } cases[] = {{1, true}, {2, false}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const struct raft_options options = core_options(1);
        struct raft_configuration before = core_configuration(2);
        struct raft_configuration configuration = core_configuration(1);
        const struct raft_term_run runs[] = {{1, 1}};
        const struct raft_state found = {.term = 1,
                                         .first_index = 1,
                                         .last_index = 2,
                                         .runs = runs,
                                         .run_count = 1,
                                         .commit_index = cases[i].commit_index,
                                         .configuration = &configuration,
                                         .configuration_before = &before};
        struct core core = {.now_ms = CORE_START_MS};

        before.index = 1;
        configuration.index = 2;
        assert_int_equal(raft_new(&options, &found, core.now_ms, &core.raft), RAFT_OK);
        core_tick(&core, CORE_ELECTION_MS - 1);
        assert_int_equal(core.update.role, cases[i].waits ? RAFT_FOLLOWER : RAFT_CANDIDATE);
        core_tick(&core, CORE_ELECTION_MS + 1);
        assert_int_equal(core.update.role, RAFT_CANDIDATE);
        core_deinit(&core);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_campaign_starts_exactly_at_the_deadline),
        cmocka_unit_test(test_timeouts_come_from_the_seed_alone),
        cmocka_unit_test(test_pre_vote_asks_for_the_next_term_and_stores_nothing),
        cmocka_unit_test(test_pre_vote_never_changes_term_or_vote),
        cmocka_unit_test(test_pre_vote_refusal_carries_the_higher_term_which_is_adopted),
        cmocka_unit_test(test_candidate_asks_for_votes_when_its_own_is_durable),
        cmocka_unit_test(test_vote_is_answered_when_term_and_vote_are_durable),
        cmocka_unit_test(test_vote_owed_in_an_older_term_is_forgotten),
        cmocka_unit_test(test_stored_vote_holds_after_a_restart),
        cmocka_unit_test(test_voters_refuse_while_they_hear_a_leader),
        cmocka_unit_test(test_voters_refuse_for_a_time_after_their_start),
        cmocka_unit_test(test_leader_refuses_elections),
        cmocka_unit_test(test_vote_goes_to_logs_that_have_all_of_ours),
        cmocka_unit_test(test_without_a_vote_nobody_campaigns),
        cmocka_unit_test(test_leader_follows_a_higher_term_in_an_answer),
        cmocka_unit_test(test_leader_without_a_quorum_steps_down_in_time),
        cmocka_unit_test(test_leader_that_one_of_two_followers_answers_stays),
        cmocka_unit_test(test_cluster_of_one_leads_at_once_and_commits_what_is_durable),
        cmocka_unit_test(test_last_voter_of_two_honours_the_others_lease_after_its_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
