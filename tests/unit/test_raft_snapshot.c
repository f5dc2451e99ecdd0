/* Compaction and snapshots (dissertation 5.1 to 5.3). */

#include "tests/unit/raft_fixture.h"

static struct raft_configuration configuration_at(size_t servers, raft_index index)
{
    struct raft_configuration configuration = core_configuration(servers);

    configuration.index = index;
    return configuration;
}

static int try_install(struct core *core, raft_index index, raft_term term,
                       const struct raft_configuration *configuration)
{
    struct raft_event event = {
        .type = RAFT_EVENT_SNAPSHOT_INSTALLED,
        .snapshot = {.index = index, .term = term, .configuration = configuration}};
    return core_try(core, &event);
}

static void append(struct core *core, raft_term term, raft_index prev_index, raft_term prev_term,
                   raft_index commit_index, const raft_term *terms)
{
    core_append(core,
                (struct raft_message){.from = 2,
                                      .term = term,
                                      .prev_index = prev_index,
                                      .prev_term = prev_term,
                                      .commit_index = commit_index,
                                      .round = 1},
                terms);
}

static struct raft_message snapshot_request(raft_term term, raft_index index, raft_term last_term)
{
    return (struct raft_message){.type = RAFT_SNAPSHOT_REQUEST,
                                 .from = 2,
                                 .term = term,
                                 .prev_index = index,
                                 .prev_term = last_term,
                                 .round = 3};
}

/* --- the leader --- */

/* A leader whose log begins behind `compacted`. */
static void lead_compacted(struct core *core, raft_index compacted)
{
    core_init(core, &(struct core_start){.servers = 3, .term = 2, .log = {1, 1, 1, 2, 2}});
    core_lead(core);
    assert_int_equal(raft_compact(core->raft, compacted), RAFT_OK);
    assert_int_equal(raft_first_index(core->raft), compacted + 1);
}

static void refuse(struct core *core, raft_id from, raft_index refused, raft_index hint)
{
    core_receive(core, (struct raft_message){.type = RAFT_APPEND_RESPONSE,
                                             .from = from,
                                             .term = raft_term_now(core->raft),
                                             .match_index = refused,
                                             .hint_index = hint,
                                             .hint_term = hint == 0 ? 0 : 1});
}

/* Brings server 3, which is new, to where only the snapshot helps. */
static void need_snapshot(struct core *core)
{
    struct raft_configuration next = *raft_configuration(core->raft);
    static uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];

    next.servers[next.count] = next.servers[0];
    next.servers[next.count].id = 4;
    next.servers[next.count++].voter = false;
    const struct raft_entry entry = {.type = RAFT_ENTRY_CONFIGURATION,
                                     .data = bytes,
                                     .size = raft_configuration_encode(&next, bytes)};
    core_step(core, &(struct raft_event){
                        .type = RAFT_EVENT_PROPOSE, .entries = &entry, .entry_count = 1});
    raft_index asked = core_sent(core, RAFT_APPEND_REQUEST, 4)->prev_index;
    refuse(core, 4, asked, 0);
    asked = core_sent(core, RAFT_APPEND_REQUEST, 4)->prev_index;
    assert_int_equal(asked, raft_first_index(core->raft) - 1);
    refuse(core, 4, asked, 0);
}

static void test_compaction_keeps_the_term_before_the_log(void **state)
{
    struct core core;

    (void)state;
    lead_compacted(&core, 4);
    assert_int_equal(raft_term_at(core.raft, 4), 2);
    assert_int_equal(raft_term_at(core.raft, 3), 0);
    assert_int_equal(raft_compact(core.raft, 2), RAFT_OK);
    assert_int_equal(raft_first_index(core.raft), 5);
    core_propose(&core, 1);
    assert_int_equal(raft_compact(core.raft, raft_last_index(core.raft)), RAFT_EINVAL);
    core_deinit(&core);
}

static void test_the_whole_log_can_be_compacted(void **state)
{
    struct core core;

    (void)state;
    lead_compacted(&core, 6);
    assert_int_equal(raft_last_index(core.raft), 6);
    assert_int_equal(raft_last_term(core.raft), raft_term_now(core.raft));
    core_propose(&core, 1);
    const struct raft_message *message = core_sent(&core, RAFT_APPEND_REQUEST, 2);
    assert_int_equal(message->prev_index, 6);
    assert_int_equal(message->entry_count, 1);
    core_deinit(&core);
}

/* It would take longer than leadership may be in the balance. */
static void test_who_needs_a_snapshot_first_is_not_handed_leadership(void **state)
{
    const raft_id other = 3;
    struct raft_event transfer = {.type = RAFT_EVENT_TRANSFER, .avoid = &other, .avoid_count = 1};
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 3, .term = 2, .log = {1, 1, 1, 2, 2}});
    core_elect(&core);
    const uint64_t round = core_sent(&core, RAFT_APPEND_REQUEST, 2)->round;
    core_persist(&core, core.update.sequence);
    core_acknowledge(&core, 3, raft_last_index(core.raft), round);
    assert_int_equal(raft_compact(core.raft, 4), RAFT_OK);
    refuse(&core, 2, raft_last_index(core.raft) - 1, 0);
    refuse(&core, 2, raft_first_index(core.raft) - 1, 0);
    assert_non_null(core_sent(&core, RAFT_SNAPSHOT_REQUEST, 2));
    assert_int_equal(core_try(&core, &transfer), RAFT_EINVAL);
    transfer.avoid_count = 0;
    assert_int_equal(core_try(&core, &transfer), RAFT_OK);
    assert_int_equal(raft_transfer_target(core.raft), 3);
    core_deinit(&core);
}

static void test_a_follower_that_needs_what_is_compacted_is_asked_to_fetch(void **state)
{
    struct core core;

    (void)state;
    lead_compacted(&core, 4);
    need_snapshot(&core);
    const struct raft_message *message = core_sent(&core, RAFT_SNAPSHOT_REQUEST, 4);
    assert_non_null(message);
    assert_int_equal(message->prev_index, 4);
    assert_int_equal(message->prev_term, 2);
    assert_int_equal(message->entry_count, 0);
    core_deinit(&core);
}

/* Pattern: a follower in state snapshot never times out; nobody asks it again. */
static void test_the_request_to_fetch_is_repeated_and_heartbeats_go_on(void **state)
{
    struct core core;
    size_t requests = 0;
    size_t heartbeats = 0;

    (void)state;
    lead_compacted(&core, 4);
    need_snapshot(&core);
    for (size_t i = 0; i < 5 * CORE_ELECTION_MS / CORE_HEARTBEAT_MS; i++) {
        core_tick(&core, CORE_HEARTBEAT_MS);
        requests += core_sent(&core, RAFT_SNAPSHOT_REQUEST, 4) != NULL ? 1 : 0;
        heartbeats += core_sent(&core, RAFT_APPEND_REQUEST, 4) != NULL ? 1 : 0;
        const uint64_t round = core_sent(&core, RAFT_APPEND_REQUEST, 2)->round;
        core_acknowledge(&core, 2, 6, round);
        refuse(&core, 4, 4, 0);
    }
    assert_in_range(requests, 4, 6);
    assert_int_equal(heartbeats, 5 * CORE_ELECTION_MS / CORE_HEARTBEAT_MS);
    core_deinit(&core);
}

static void test_a_follower_that_has_installed_goes_on_with_the_log(void **state)
{
    struct core core;

    (void)state;
    lead_compacted(&core, 4);
    need_snapshot(&core);
    core_acknowledge(&core, 4, 2, 0); /* Late, from before: still out of reach. */
    assert_null(core_sent(&core, RAFT_APPEND_REQUEST, 4));
    core_acknowledge(&core, 4, 5, 0);
    const struct raft_message *message = core_sent(&core, RAFT_APPEND_REQUEST, 4);
    assert_non_null(message);
    assert_int_equal(message->prev_index, 5);
    assert_int_equal(message->entry_count, 2);
    core_deinit(&core);
}

/* Pattern: the log is compacted while the snapshot is on its way: the follower needs the next. */
static void test_compaction_during_a_fetch_asks_for_a_newer_one(void **state)
{
    struct core core;

    (void)state;
    lead_compacted(&core, 3);
    need_snapshot(&core);
    assert_int_equal(core_sent(&core, RAFT_SNAPSHOT_REQUEST, 4)->prev_index, 3);
    assert_int_equal(raft_compact(core.raft, 6), RAFT_OK);
    core_acknowledge(&core, 4, 3, 0);
    assert_null(core_sent(&core, RAFT_APPEND_REQUEST, 4));
    const struct raft_message *request = NULL;
    for (size_t i = 0; i < CORE_ELECTION_MS / CORE_HEARTBEAT_MS; i++) {
        core_tick(&core, CORE_HEARTBEAT_MS);
        request = core_sent(&core, RAFT_SNAPSHOT_REQUEST, 4);
        if (request != NULL) {
            break;
        }
        core_acknowledge(&core, 2, 6, core_sent(&core, RAFT_APPEND_REQUEST, 2)->round);
    }
    assert_non_null(request);
    assert_int_equal(request->prev_index, 6);
    core_deinit(&core);
}

/* --- the follower --- */

static const struct core_start follower = {.servers = 3, .term = 2, .log = {1, 1, 2}};

/* Else a crash could leave a snapshot and no term: that is what a server looks like whose log is
 * lost, and it would not start again. */
static void test_nothing_is_fetched_before_the_term_is_durable(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &follower);
    core_receive(&core, snapshot_request(4, 9, 3));
    assert_true(core.update.hard_state_changed);
    const uint64_t sequence = core.update.sequence;
    assert_int_equal(core.update.snapshot_from, 0);
    core_receive(&core, snapshot_request(4, 9, 3));
    assert_int_equal(core.update.snapshot_from, 0);
    core_persist(&core, sequence);
    core_receive(&core, snapshot_request(4, 9, 3));
    assert_int_equal(core.update.snapshot_from, 2);
    core_deinit(&core);
}

static void test_a_request_to_fetch_reaches_the_host_until_it_is_done(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &follower);
    core_receive(&core, snapshot_request(4, 9, 3));
    core_persist(&core, core.update.sequence);
    for (int i = 0; i < 2; i++) {
        core_receive(&core, snapshot_request(4, 9, 3));
        assert_int_equal(core.update.snapshot_from, 2);
        assert_int_equal(core.update.snapshot_index, 9);
        assert_int_equal(core.update.leader, 2);
    }
    core_tick(&core, 1);
    assert_int_equal(core.update.snapshot_from, 0);
    assert_true(raft_snapshot_wanted(core.raft, 9, 3));
    const struct raft_configuration configuration = configuration_at(5, 7);
    assert_int_equal(try_install(&core, 9, 3, &configuration), RAFT_OK);
    core_receive(&core, snapshot_request(4, 9, 3));
    assert_int_equal(core.update.snapshot_from, 0);
    assert_int_equal(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->match_index, 9);
    core_deinit(&core);
}

static void test_a_snapshot_ahead_of_the_log_replaces_it(void **state)
{
    struct core core;
    const struct raft_configuration configuration = configuration_at(5, 7);

    (void)state;
    core_init(&core, &follower);
    append(&core, 4, 3, 2, 2, NULL);
    assert_int_equal(try_install(&core, 9, 3, &configuration), RAFT_OK);
    assert_int_equal(core.update.reset_index, 9);
    assert_int_equal(core.update.reset_term, 3);
    assert_int_not_equal(core.update.sequence, 0);
    assert_int_equal(core.update.commit_index, 9);
    assert_int_equal(core.update.apply_index, 9);
    assert_true(core.update.configuration_changed);
    assert_int_equal(raft_first_index(core.raft), 10);
    assert_int_equal(raft_last_index(core.raft), 9);
    assert_int_equal(raft_last_term(core.raft), 3);
    assert_int_equal(raft_configuration(core.raft)->count, 5);
    assert_int_equal(raft_configuration(core.raft)->index, 7);
    const struct raft_message *answer = core_sent(&core, RAFT_APPEND_RESPONSE, 2);
    assert_true(answer->granted);
    assert_int_equal(answer->match_index, 9);
    append(&core, 4, 9, 3, 10, (raft_term[]){4, 0});
    assert_int_equal(raft_last_index(core.raft), 10);
    assert_int_equal(core.update.apply_index, 9);
    core_persist(&core, core.update.sequence);
    assert_int_equal(core.update.apply_index, 10);
    core_deinit(&core);
}

/* Pattern: the completion of a write from before the reset vouches for entries after it. */
static void test_writes_from_before_the_reset_vouch_for_nothing(void **state)
{
    struct core core;
    const struct raft_configuration configuration = configuration_at(3, 1);

    (void)state;
    core_init(&core, &follower);
    append(&core, 4, 3, 2, 0, (raft_term[]){3, 3, 3, 3, 3, 3, 3, 3, 0});
    const uint64_t old_sequence = core.update.sequence;
    assert_int_equal(raft_last_index(core.raft), 11);
    /* Another leader, whose snapshot contradicts all that. */
    core_receive(&core, (struct raft_message){.type = RAFT_SNAPSHOT_REQUEST,
                                              .from = 3,
                                              .term = 6,
                                              .prev_index = 9,
                                              .prev_term = 5,
                                              .round = 1});
    assert_int_equal(try_install(&core, 9, 5, &configuration), RAFT_OK);
    assert_int_equal(core.update.reset_index, 9);
    core_append(
        &core,
        (struct raft_message){.from = 3, .term = 6, .prev_index = 9, .prev_term = 5, .round = 2},
        (raft_term[]){6, 6, 0});
    const uint64_t new_sequence = core.update.sequence;
    core_persist(&core, old_sequence);
    assert_int_equal(raft_durable_index(core.raft), 9);
    core_persist(&core, new_sequence);
    assert_int_equal(raft_durable_index(core.raft), 11);
    core_deinit(&core);
}

/* Pattern: a late or duplicate snapshot truncates entries that have matched since. */
static void test_a_late_snapshot_changes_nothing(void **state)
{
    struct core core;
    const struct raft_configuration configuration = configuration_at(5, 1);

    (void)state;
    core_init(&core, &follower);
    append(&core, 2, 3, 2, 3, (raft_term[]){2, 2, 0});
    core_persist(&core, core.update.sequence);
    assert_int_equal(raft_commit_index(core.raft), 3);
    for (raft_index index = 1; index <= 3; index++) {
        const raft_term term = raft_term_at(core.raft, index);
        assert_false(raft_snapshot_wanted(core.raft, index, term));
        assert_int_equal(try_install(&core, index, term, &configuration), RAFT_ESTALE);
    }
    assert_int_equal(raft_last_index(core.raft), 5);
    assert_int_equal(raft_configuration(core.raft)->count, 3);
    core_receive(&core, snapshot_request(2, 3, 2));
    assert_int_equal(core.update.snapshot_from, 0);
    assert_int_equal(raft_last_index(core.raft), 5);
    core_deinit(&core);
}

static void test_entries_behind_a_snapshot_that_fits_are_kept(void **state)
{
    struct core core;
    const struct raft_configuration configuration = configuration_at(3, 1);

    (void)state;
    core_init(&core, &follower);
    append(&core, 2, 3, 2, 2, (raft_term[]){2, 2, 0});
    assert_int_equal(try_install(&core, 4, 2, &configuration), RAFT_OK);
    assert_int_equal(core.update.reset_index, 0);
    assert_int_equal(raft_first_index(core.raft), 5);
    assert_int_equal(raft_last_index(core.raft), 5);
    assert_int_equal(raft_commit_index(core.raft), 4);
    assert_int_equal(raft_durable_index(core.raft), 4);
    core_deinit(&core);
}

/* A follower of term 2 that was given configuration `servers` as entry 4 by its leader. */
static void follow_with_configuration(struct core *core, size_t servers)
{
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    const struct raft_configuration configuration = core_configuration(servers);
    const struct raft_entry entry = {.index = 4,
                                     .term = 2,
                                     .type = RAFT_ENTRY_CONFIGURATION,
                                     .data = bytes,
                                     .size = raft_configuration_encode(&configuration, bytes)};

    core_init(core, &follower);
    assert_int_equal(core_try_receive(core,
                                      (struct raft_message){.type = RAFT_APPEND_REQUEST,
                                                            .from = 2,
                                                            .term = 2,
                                                            .prev_index = 3,
                                                            .prev_term = 2,
                                                            .entry_count = 1},
                                      &entry),
                     RAFT_OK);
    assert_int_equal(raft_configuration(core->raft)->count, servers);
}

/* Pattern: a stale, uncommitted configuration of a high index outlives the snapshot: disjoint
 * quorums. */
static void test_a_reset_drops_an_uncommitted_configuration(void **state)
{
    struct core core;
    const struct raft_configuration configuration = configuration_at(3, 1);

    (void)state;
    follow_with_configuration(&core, 4);
    core_receive(&core, (struct raft_message){.type = RAFT_SNAPSHOT_REQUEST,
                                              .from = 3,
                                              .term = 3,
                                              .prev_index = 3,
                                              .prev_term = 3,
                                              .round = 1});
    assert_int_equal(try_install(&core, 3, 3, &configuration), RAFT_OK);
    assert_int_equal(core.update.reset_index, 3);
    assert_int_equal(raft_configuration(core.raft)->count, 3);
    assert_int_equal(raft_configuration(core.raft)->index, 1);
    core_deinit(&core);
}

/* Pattern: the configuration is lost, because only the snapshot had it, when a later one is rolled
 * back. */
static void test_a_rolled_back_configuration_gives_way_to_the_snapshots(void **state)
{
    struct core core;
    const struct raft_configuration configuration = configuration_at(5, 2);

    (void)state;
    follow_with_configuration(&core, 4);
    assert_int_equal(try_install(&core, 3, 2, &configuration), RAFT_OK);
    assert_int_equal(core.update.reset_index, 0);
    assert_int_equal(raft_configuration(core.raft)->count, 4);
    core_append(
        &core,
        (struct raft_message){.from = 3, .term = 3, .prev_index = 3, .prev_term = 2, .round = 1},
        (raft_term[]){3, 0});
    assert_int_equal(core.update.truncate_from, 4);
    assert_true(core.update.configuration_changed);
    assert_int_equal(raft_configuration(core.raft)->count, 5);
    assert_int_equal(raft_configuration(core.raft)->index, 2);
    core_deinit(&core);
}

static void test_the_configuration_for_a_snapshot_is_that_of_its_index(void **state)
{
    struct core core;

    (void)state;
    follow_with_configuration(&core, 4);
    assert_null(raft_configuration_at(core.raft, 4)); /* Not committed. */
    append(&core, 2, 4, 2, 4, NULL);
    assert_int_equal(raft_configuration_at(core.raft, 4)->count, 4);
    assert_int_equal(raft_configuration_at(core.raft, 3)->count, 3);
    core_deinit(&core);
}

static void test_what_cannot_be_a_snapshot_is_refused(void **state)
{
    const struct raft_configuration good = configuration_at(3, 1);
    const struct raft_configuration late = configuration_at(3, 10);
    const struct raft_configuration empty = {.index = 1};
    const struct {
        const char *name;
        raft_index index;
        raft_term term;
        const struct raft_configuration *configuration;
    } cases[] = {
        {"no entries", 0, 0, &good},
        {"no term", 9, 0, &good},
        {"no configuration", 9, 3, NULL},
        {"nobody in it", 9, 3, &empty},
        {"configuration behind it", 9, 3, &late},
        {"beyond all indexes", UINT64_MAX, 3, &good},
        {"beyond all terms", 9, UINT64_MAX, &good},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct core core;
        core_init(&core, &follower);
        if (try_install(&core, cases[i].index, cases[i].term, cases[i].configuration) !=
            RAFT_EINVAL) {
            fail_msg("%s", cases[i].name);
        }
        core_deinit(&core);
    }
}

/* Pattern: a candidate rejects the snapshot, and nobody ever leads. */
static void test_a_candidate_takes_a_snapshot_and_follows(void **state)
{
    struct core core;
    const struct raft_configuration configuration = configuration_at(3, 1);

    (void)state;
    core_init(&core, &follower);
    core_deadline(&core);
    assert_int_equal(core.update.role, RAFT_PRE_CANDIDATE);
    assert_int_equal(try_install(&core, 9, 2, &configuration), RAFT_OK);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    core_deadline(&core);
    assert_int_equal(core_sent(&core, RAFT_PRE_VOTE_REQUEST, 2)->last_index, 9);
    core_deinit(&core);
}

/* Symptom: a server learns by a snapshot that it has a vote, and never stands for election, since
 * its timer had ended when it had none and heard nobody. */
static void test_who_is_given_a_vote_by_a_snapshot_waits_for_a_leader(void **state)
{
    struct core core;
    const struct raft_configuration configuration = configuration_at(3, 4);

    (void)state;
    core_init(&core, &(struct core_start){
                         .servers = 3, .self_no_voter = true, .term = 2, .log = {1, 1, 2}});
    core_tick(&core, 4 * CORE_ELECTION_MS);
    assert_int_equal(core.update.deadline_ms, UINT64_MAX);
    assert_int_equal(try_install(&core, 9, 2, &configuration), RAFT_OK);
    core_tick(&core, 2 * CORE_ELECTION_MS);
    assert_non_null(core_sent(&core, RAFT_PRE_VOTE_REQUEST, 2));
    core_deinit(&core);
}

static void test_a_leader_installs_nothing(void **state)
{
    struct core core;
    const struct raft_configuration configuration = configuration_at(3, 1);

    (void)state;
    core_init_leader(&core, &follower);
    assert_false(raft_snapshot_wanted(core.raft, 9, 2));
    assert_int_equal(try_install(&core, 9, 2, &configuration), RAFT_ESTALE);
    core_deinit(&core);
}

static void test_a_log_behind_a_snapshot_is_recovered(void **state)
{
    const struct raft_options options = core_options(1);
    const struct raft_configuration configuration = configuration_at(3, 4);
    const struct raft_term_run runs[] = {{10, 3}};
    const struct raft_state found = {.term = 3,
                                     .first_index = 10,
                                     .last_index = 12,
                                     .runs = runs,
                                     .run_count = 1,
                                     .prev_term = 2,
                                     .configuration = &configuration};
    struct raft *raft = NULL;

    (void)state;
    assert_int_equal(raft_new(&options, &found, 0, &raft), RAFT_OK);
    assert_int_equal(raft_commit_index(raft), 9);
    assert_int_equal(raft_term_at(raft, 9), 2);
    assert_int_equal(raft_configuration(raft)->index, 4);
    assert_ptr_equal(raft_configuration_at(raft, 9), raft_configuration(raft));
    raft_free(raft);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compaction_keeps_the_term_before_the_log),
        cmocka_unit_test(test_the_whole_log_can_be_compacted),
        cmocka_unit_test(test_who_needs_a_snapshot_first_is_not_handed_leadership),
        cmocka_unit_test(test_a_follower_that_needs_what_is_compacted_is_asked_to_fetch),
        cmocka_unit_test(test_the_request_to_fetch_is_repeated_and_heartbeats_go_on),
        cmocka_unit_test(test_a_follower_that_has_installed_goes_on_with_the_log),
        cmocka_unit_test(test_compaction_during_a_fetch_asks_for_a_newer_one),
        cmocka_unit_test(test_nothing_is_fetched_before_the_term_is_durable),
        cmocka_unit_test(test_a_request_to_fetch_reaches_the_host_until_it_is_done),
        cmocka_unit_test(test_a_snapshot_ahead_of_the_log_replaces_it),
        cmocka_unit_test(test_writes_from_before_the_reset_vouch_for_nothing),
        cmocka_unit_test(test_a_late_snapshot_changes_nothing),
        cmocka_unit_test(test_entries_behind_a_snapshot_that_fits_are_kept),
        cmocka_unit_test(test_a_reset_drops_an_uncommitted_configuration),
        cmocka_unit_test(test_a_rolled_back_configuration_gives_way_to_the_snapshots),
        cmocka_unit_test(test_the_configuration_for_a_snapshot_is_that_of_its_index),
        cmocka_unit_test(test_what_cannot_be_a_snapshot_is_refused),
        cmocka_unit_test(test_a_candidate_takes_a_snapshot_and_follows),
        cmocka_unit_test(test_who_is_given_a_vote_by_a_snapshot_waits_for_a_leader),
        cmocka_unit_test(test_a_leader_installs_nothing),
        cmocka_unit_test(test_a_log_behind_a_snapshot_is_recovered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
