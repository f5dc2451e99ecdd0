/* A lost leader is replaced without waiting for the election time-out, and never at the cost of its
 * lease; leadership is handed over without an interval in which nobody leads (dissertation 3.10,
 * 4.2.3, 6.4.1). */

#include "tests/unit/raft_fixture.h"

enum { GUARD_MS = CORE_LEASE_MS + CORE_LEASE_MS / 10 + 2 };

static const struct core_start three = {.servers = 3, .term = 1, .log = {1}};
static const struct core_start five = {.servers = 5, .term = 1, .log = {1}};

/* A heartbeat of server 2, leader of term 1, whose log is ours. */
static void heartbeat(struct core *core, uint64_t round)
{
    core_append(core,
                (struct raft_message){
                    .from = 2, .term = 1, .prev_index = 1, .prev_term = 1, .round = round},
                NULL);
    assert_int_equal(core->update.leader, 2);
}

static void lose(struct core *core, raft_id peer)
{
    core_step(core, &(struct raft_event){.type = RAFT_EVENT_PEER_LOST, .peer = peer});
}

static struct raft_message pre_vote_request(raft_id from, raft_term term)
{
    return (struct raft_message){
        .type = RAFT_PRE_VOTE_REQUEST, .from = from, .term = term, .last_index = 1, .last_term = 1};
}

static bool pre_vote_granted(struct core *core, raft_id from, raft_term term)
{
    core_receive(core, pre_vote_request(from, term));
    const struct raft_message *answer = core_sent(core, RAFT_PRE_VOTE_RESPONSE, from);
    assert_non_null(answer);
    return answer->granted;
}

/* --- a lost leader --- */

static void test_a_lost_leader_is_replaced_as_soon_as_its_lease_is_over(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    heartbeat(&core, 1);
    const uint64_t heard_ms = core.now_ms;
    core.now_ms += 5;
    lose(&core, 2);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    assert_in_range(core.update.deadline_ms, heard_ms + GUARD_MS,
                    heard_ms + GUARD_MS + CORE_ELECTION_MS / 20);
    core_deadline(&core);
    assert_int_equal(core.update.role, RAFT_PRE_CANDIDATE);
    assert_int_equal(core.update.term, 1);
    assert_non_null(core_sent(&core, RAFT_PRE_VOTE_REQUEST, 3));
    core_deinit(&core);
}

/* Reading what the leader acknowledged is safe only while no other leader can be elected: a reset
 * connection does not prove that it is dead. */
static void test_a_lost_leaders_lease_is_honoured_to_its_end(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    heartbeat(&core, 1);
    lose(&core, 2);
    core.now_ms += GUARD_MS - 1;
    assert_false(pre_vote_granted(&core, 3, 2));
    struct raft_message request = pre_vote_request(3, 2);
    request.type = RAFT_VOTE_REQUEST;
    core_receive(&core, request);
    assert_int_equal(core.update.term, 1);
    core.now_ms += 1;
    assert_true(pre_vote_granted(&core, 3, 2));
    core_deinit(&core);
}

static void test_who_still_hears_the_leader_refuses_to_replace_it(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    heartbeat(&core, 1);
    core.now_ms += CORE_ELECTION_MS - 1;
    assert_false(pre_vote_granted(&core, 3, 2));
    assert_int_equal(core.update.leader, 2);
    core_deinit(&core);
}

static void test_hearing_the_leader_again_takes_the_loss_back(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    heartbeat(&core, 1);
    lose(&core, 2);
    core.now_ms += GUARD_MS - 10;
    heartbeat(&core, 2);
    assert_true(core.update.deadline_ms >= core.now_ms + CORE_ELECTION_MS);
    core.now_ms += CORE_ELECTION_MS - 1;
    assert_false(pre_vote_granted(&core, 3, 2));
    core_deinit(&core);
}

static void test_losing_another_server_than_the_leader_means_nothing(void **state)
{
    struct core core;
    const raft_id others[] = {0, 1, 3, 77};

    (void)state;
    core_init(&core, &three);
    heartbeat(&core, 1);
    const uint64_t due_ms = core.update.deadline_ms;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        lose(&core, others[i]);
        assert_int_equal(core.update.deadline_ms, due_ms);
    }
    core_deinit(&core);

    core_init_leader(&core, &three);
    lose(&core, 2);
    assert_int_equal(core.update.role, RAFT_LEADER);
    core_deinit(&core);
}

/* Two followers may find their guards over at different moments: who comes first must ask again
 * soon, not after an election time-out. */
static void test_a_refused_candidate_of_a_lost_leader_asks_again_soon(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    heartbeat(&core, 1);
    lose(&core, 2);
    core_deadline(&core);
    assert_int_equal(core.update.role, RAFT_PRE_CANDIDATE);
    const uint64_t asked_ms = core.now_ms;
    core_receive(&core,
                 (struct raft_message){.type = RAFT_PRE_VOTE_RESPONSE, .from = 3, .term = 1});
    core_deadline(&core);
    assert_true(core.now_ms <= asked_ms + CORE_ELECTION_MS / 5);
    assert_non_null(core_sent(&core, RAFT_PRE_VOTE_REQUEST, 3));
    /* But not for ever: on slow disks no election can end so soon. */
    while (core.now_ms < asked_ms + 2 * CORE_ELECTION_MS) {
        core_deadline(&core);
    }
    assert_true(core.update.deadline_ms >= core.now_ms + CORE_ELECTION_MS);
    assert_int_equal(core.update.term, 1);
    core_deinit(&core);
}

static void test_a_granted_pre_vote_lets_the_faster_one_try_first(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    heartbeat(&core, 1);
    lose(&core, 2);
    core.now_ms += GUARD_MS;
    assert_true(pre_vote_granted(&core, 3, 2));
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    assert_true(core.update.deadline_ms > core.now_ms);
    core_deinit(&core);
}

/* --- transfer --- */

static int transfer(struct core *core, raft_id target)
{
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .peer = target};
    return core_try(core, &event);
}

static void test_transfer_waits_until_the_target_has_everything(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_propose(&core, 2);
    core_persist(&core, core.update.sequence);
    const uint64_t round = core.update.message_count > 0 ? core.update.messages[0].round : 0;
    assert_int_equal(transfer(&core, 2), RAFT_OK);
    assert_int_equal(raft_transfer_target(core.raft), 2);
    assert_null(core_sent(&core, RAFT_TIMEOUT_NOW, 2));
    core_acknowledge(&core, 2, raft_last_index(core.raft), round);
    const struct raft_message *message = core_sent(&core, RAFT_TIMEOUT_NOW, 2);
    assert_non_null(message);
    assert_int_equal(message->term, raft_term_now(core.raft));
    assert_null(core_sent(&core, RAFT_TIMEOUT_NOW, 3));
    core_deinit(&core);
}

/* Pattern: proposals that are accepted after TIMEOUT_NOW are lost, or committed twice. */
static void test_transfer_accepts_no_proposals_until_it_is_given_up(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    assert_int_equal(transfer(&core, 2), RAFT_OK);
    assert_int_equal(core_try_propose(&core, 1), RAFT_ETRANSFER);
    assert_int_equal(transfer(&core, 3), RAFT_ETRANSFER);
    assert_int_equal(transfer(&core, 2), RAFT_OK);
    for (uint64_t end_ms = core.now_ms + CORE_ELECTION_MS; core.now_ms < end_ms;) {
        core_tick(&core, CORE_HEARTBEAT_MS);
        const uint64_t round = core.update.messages[0].round;
        core_acknowledge(&core, 3, raft_last_index(core.raft), round);
    }
    assert_int_equal(core.update.role, RAFT_LEADER);
    assert_int_equal(raft_transfer_target(core.raft), 0);
    core_propose(&core, 1);
    core_deinit(&core);
}

static void test_transfer_without_a_target_takes_the_longest_log(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_propose(&core, 1);
    const uint64_t round = core_sent(&core, RAFT_APPEND_REQUEST, 3)->round;
    core_persist(&core, core.update.sequence);
    core_acknowledge(&core, 3, raft_last_index(core.raft), round);
    assert_int_equal(transfer(&core, 0), RAFT_OK);
    assert_int_equal(raft_transfer_target(core.raft), 3);
    assert_non_null(core_sent(&core, RAFT_TIMEOUT_NOW, 3));
    core_deinit(&core);
}

/* Nothing is written, so one that died a moment ago lacks as little as the one that answers. */
static void test_transfer_among_equals_takes_who_was_heard_last(void **state)
{
    (void)state;
    for (raft_id dead = 2; dead <= 3; dead++) {
        const raft_id alive = 5 - dead;
        struct core core;

        core_init_leader(&core, &three);
        core_propose(&core, 1);
        const uint64_t round = core_sent(&core, RAFT_APPEND_REQUEST, alive)->round;
        core_persist(&core, core.update.sequence);
        core_acknowledge(&core, dead, raft_last_index(core.raft), round);
        core_acknowledge(&core, alive, raft_last_index(core.raft), round);
        core_tick(&core, CORE_HEARTBEAT_MS);
        const uint64_t later = core_sent(&core, RAFT_APPEND_REQUEST, alive)->round;
        core_acknowledge(&core, alive, raft_last_index(core.raft), later);
        assert_int_equal(transfer(&core, 0), RAFT_OK);
        assert_int_equal(raft_transfer_target(core.raft), alive);
        core_deinit(&core);
    }
}

static void test_transfer_without_a_target_avoids_whom_the_host_names(void **state)
{
    const raft_id avoid[] = {3, 2};
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .avoid = avoid, .avoid_count = 2};
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_propose(&core, 1);
    const uint64_t round = core_sent(&core, RAFT_APPEND_REQUEST, 3)->round;
    core_persist(&core, core.update.sequence);
    core_acknowledge(&core, 2, raft_last_index(core.raft) - 1, round);
    core_acknowledge(&core, 3, raft_last_index(core.raft), round);
    assert_int_equal(core_try(&core, &event), RAFT_EINVAL);
    assert_int_equal(raft_transfer_target(core.raft), 0);
    event.avoid_count = 1;
    assert_int_equal(core_try(&core, &event), RAFT_OK);
    assert_int_equal(raft_transfer_target(core.raft), 2);
    core_deinit(&core);
}

static void test_transfer_to_nobody_is_refused(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    assert_int_equal(transfer(&core, 2), RAFT_ENOTLEADER);
    core_lead(&core);
    assert_int_equal(transfer(&core, 1), RAFT_EINVAL);
    assert_int_equal(transfer(&core, 9), RAFT_EINVAL);
    core_deinit(&core);
}

/* The mark on the target's vote requests goes round the lease, however late they come. */
static void test_transfer_gives_the_lease_up_for_the_rest_of_the_term(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    assert_true(raft_lease_valid(core.raft, core.now_ms));
    assert_int_equal(transfer(&core, 2), RAFT_OK);
    assert_non_null(core_sent(&core, RAFT_TIMEOUT_NOW, 2));
    assert_false(raft_lease_valid(core.raft, core.now_ms));
    for (size_t i = 0; i < 2 * CORE_ELECTION_MS / CORE_HEARTBEAT_MS; i++) {
        core_tick(&core, CORE_HEARTBEAT_MS);
        const uint64_t round = core.update.messages[0].round;
        core_acknowledge(&core, 2, raft_last_index(core.raft), round);
    }
    assert_int_equal(raft_transfer_target(core.raft), 0);
    assert_false(raft_lease_valid(core.raft, core.now_ms));
    /* Reads go on, each with a round of its own. */
    core_read(&core, 5, false);
    assert_int_equal(core.update.read_count, 0);
    core_acknowledge(&core, 2, raft_last_index(core.raft),
                     core_sent(&core, RAFT_APPEND_REQUEST, 2)->round);
    assert_int_equal(core.update.read_count, 1);
    core_deinit(&core);
}

static void test_the_target_campaigns_at_once_and_says_why(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &five);
    heartbeat(&core, 7);
    core_receive(&core,
                 (struct raft_message){.type = RAFT_TIMEOUT_NOW, .from = 2, .term = 1, .round = 7});
    assert_int_equal(core.update.role, RAFT_CANDIDATE);
    assert_int_equal(core.update.term, 2);
    core_persist(&core, core.update.sequence);
    for (raft_id id = 2; id <= 5; id++) {
        const struct raft_message *message = core_sent(&core, RAFT_VOTE_REQUEST, id);
        assert_non_null(message);
        assert_true(message->transfer);
    }
    /* If that fails, the next one is an election like any other. */
    core_deadline(&core);
    assert_int_equal(core.update.role, RAFT_PRE_CANDIDATE);
    assert_false(core_sent(&core, RAFT_PRE_VOTE_REQUEST, 2)->transfer);
    core_deinit(&core);
}

static void test_a_stale_or_foreign_request_to_take_over_is_ignored(void **state)
{
    static const struct {
        const char *name;
        raft_id from;
        raft_term term;
        uint64_t round;
    } cases[] = {
        {"overtaken by a later round", 2, 1, 6},
        {"not from the leader", 3, 1, 7},
        {"of an earlier term", 2, 0, 7},
        {"of a later term", 2, 2, 7},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct core core;
        core_init(&core, &three);
        heartbeat(&core, 7);
        core_receive(&core, (struct raft_message){.type = RAFT_TIMEOUT_NOW,
                                                  .from = cases[i].from,
                                                  .term = cases[i].term,
                                                  .round = cases[i].round});
        if (core.update.role != RAFT_FOLLOWER || core.update.term != 1) {
            fail_msg("%s", cases[i].name);
        }
        core_deinit(&core);
    }
}

static void test_a_server_without_a_vote_does_not_take_over(void **state)
{
    struct core core;
    struct core_start start = three;

    (void)state;
    start.self_no_voter = true;
    core_init(&core, &start);
    heartbeat(&core, 7);
    core_receive(&core,
                 (struct raft_message){.type = RAFT_TIMEOUT_NOW, .from = 2, .term = 1, .round = 7});
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    core_deinit(&core);
}

static void test_voters_do_not_protect_a_leader_from_its_own_wish(void **state)
{
    struct core core;
    struct raft_message request = pre_vote_request(3, 2);

    (void)state;
    request.type = RAFT_VOTE_REQUEST;
    request.transfer = true;
    core_init(&core, &three);
    heartbeat(&core, 7);
    core_receive(&core, request);
    assert_int_equal(core.update.term, 2);
    assert_int_equal(core.update.vote, 3);
    core_deinit(&core);

    core_init_leader(&core, &three);
    request.term = raft_term_now(core.raft) + 1;
    request.last_index = raft_last_index(core.raft);
    request.last_term = raft_term_now(core.raft);
    core_receive(&core, request);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    assert_int_equal(core.update.vote, 3);
    core_deinit(&core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lost_leader_is_replaced_as_soon_as_its_lease_is_over),
        cmocka_unit_test(test_a_lost_leaders_lease_is_honoured_to_its_end),
        cmocka_unit_test(test_who_still_hears_the_leader_refuses_to_replace_it),
        cmocka_unit_test(test_hearing_the_leader_again_takes_the_loss_back),
        cmocka_unit_test(test_losing_another_server_than_the_leader_means_nothing),
        cmocka_unit_test(test_a_refused_candidate_of_a_lost_leader_asks_again_soon),
        cmocka_unit_test(test_a_granted_pre_vote_lets_the_faster_one_try_first),
        cmocka_unit_test(test_transfer_waits_until_the_target_has_everything),
        cmocka_unit_test(test_transfer_accepts_no_proposals_until_it_is_given_up),
        cmocka_unit_test(test_transfer_without_a_target_takes_the_longest_log),
        cmocka_unit_test(test_transfer_among_equals_takes_who_was_heard_last),
        cmocka_unit_test(test_transfer_without_a_target_avoids_whom_the_host_names),
        cmocka_unit_test(test_transfer_to_nobody_is_refused),
        cmocka_unit_test(test_transfer_gives_the_lease_up_for_the_rest_of_the_term),
        cmocka_unit_test(test_the_target_campaigns_at_once_and_says_why),
        cmocka_unit_test(test_a_stale_or_foreign_request_to_take_over_is_ignored),
        cmocka_unit_test(test_a_server_without_a_vote_does_not_take_over),
        cmocka_unit_test(test_voters_do_not_protect_a_leader_from_its_own_wish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
