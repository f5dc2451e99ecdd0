/* Replication and commitment, one test for each rule of the dissertation (3.5, 3.6.2, 3.8, 4.1,
 * 10.2) and for the faults that other implementations had. */

#include "tests/unit/raft_fixture.h"

static const struct core_start three = {.servers = 3, .term = 1, .log = {1}};

static struct raft_message from_leader(raft_id from, raft_term term, raft_index prev_index,
                                       raft_term prev_term, raft_index commit_index)
{
    return (struct raft_message){.type = RAFT_APPEND_REQUEST,
                                 .from = from,
                                 .term = term,
                                 .prev_index = prev_index,
                                 .prev_term = prev_term,
                                 .commit_index = commit_index,
                                 .round = 1};
}

/* --- leader --- */

/* Pattern: figure 3.7 of the dissertation ("figure 8" of the paper). */
static void test_earlier_terms_entries_are_not_committed_by_counting(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 3, .term = 3, .log = {1, 2, 2}});
    core_elect(&core);
    core_persist(&core, core.update.sequence);
    core_acknowledge(&core, 2, 3, 0);
    core_acknowledge(&core, 3, 3, 0);
    assert_int_equal(core.update.commit_index, 0);
    core_acknowledge(&core, 2, 4, 0);
    assert_int_equal(core.update.commit_index, 4);
    core_deinit(&core);
}

static void test_leader_counts_itself_for_what_is_on_its_disk(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_elect(&core);
    const uint64_t noop = core.update.sequence;
    core_acknowledge(&core, 2, 2, 0);
    assert_int_equal(core.update.commit_index, 0);
    core_persist(&core, noop);
    assert_int_equal(core.update.commit_index, 2);
    assert_int_equal(core.update.apply_index, 2);
    /* A quorum without it commits, too; but it applies nothing before it is durable here. */
    core_propose(&core, 1);
    const uint64_t proposal = core.update.sequence;
    core_acknowledge(&core, 2, 3, 0);
    core_acknowledge(&core, 3, 3, 0);
    assert_int_equal(core.update.commit_index, 3);
    assert_int_equal(core.update.apply_index, 2);
    core_persist(&core, proposal);
    assert_int_equal(core.update.apply_index, 3);
    core_deinit(&core);
}

static void test_followers_hear_of_a_commit_at_once(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_propose(&core, 1);
    core_persist(&core, core.update.sequence);
    core_acknowledge(&core, 2, 3, 0);
    assert_int_equal(core.update.commit_index, 3);
    for (raft_id id = 2; id <= 3; id++) {
        const struct raft_message *message = core_sent(&core, RAFT_APPEND_REQUEST, id);
        assert_non_null(message);
        assert_int_equal(message->entry_count, 0);
        assert_int_equal(message->commit_index, 3);
    }
    /* Once. */
    core_tick(&core, 1);
    assert_int_equal(core.update.message_count, 0);
    core_deinit(&core);
}

static void test_proposals_get_their_index_and_are_sent_before_they_are_durable(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_propose(&core, 3);
    assert_int_equal(core.update.entry_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(core.update.entries[i].index, 3 + i);
        assert_int_equal(core.update.entries[i].term, 2);
    }
    const struct raft_message *message = core_sent(&core, RAFT_APPEND_REQUEST, 3);
    assert_int_equal(message->prev_index, 2);
    assert_int_equal(message->prev_term, 2);
    assert_int_equal(message->entry_count, 3);
    core_deinit(&core);
}

static void test_requests_are_cut_into_batches_and_stop_at_the_window(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_propose(&core, 20);
    for (size_t n = 0; n < CORE_INFLIGHT_MAX; n++) {
        const struct raft_message *message = core_sent_nth(&core, RAFT_APPEND_REQUEST, 2, n);
        assert_non_null(message);
        assert_int_equal(message->prev_index, 2 + n * CORE_BATCH_MAX);
        assert_int_equal(message->entry_count, CORE_BATCH_MAX);
    }
    assert_null(core_sent_nth(&core, RAFT_APPEND_REQUEST, 2, CORE_INFLIGHT_MAX));
    /* An acknowledgement of the second frees the first as well. */
    core_acknowledge(&core, 2, 10, 0);
    assert_int_equal(core_sent_nth(&core, RAFT_APPEND_REQUEST, 2, 0)->prev_index, 14);
    assert_int_equal(core_sent_nth(&core, RAFT_APPEND_REQUEST, 2, 1)->prev_index, 18);
    assert_null(core_sent_nth(&core, RAFT_APPEND_REQUEST, 2, 2));
    assert_null(core_sent(&core, RAFT_APPEND_REQUEST, 3));
    core_deinit(&core);
}

static struct raft_message refusal(raft_term term, raft_index refused_index, raft_index hint_index,
                                   raft_term hint_term)
{
    return (struct raft_message){.type = RAFT_APPEND_RESPONSE,
                                 .from = 2,
                                 .term = term,
                                 .match_index = refused_index,
                                 .hint_index = hint_index,
                                 .hint_term = hint_term};
}

static void test_refusal_makes_the_leader_probe_from_the_hint(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_propose(&core, 4);
    core_propose(&core, 4);
    core_propose(&core, 4);
    /* The first was lost: the follower has entry 2 only. */
    core_receive(&core, refusal(2, 6, 2, 2));
    const struct raft_message *probe = core_sent(&core, RAFT_APPEND_REQUEST, 2);
    assert_int_equal(probe->prev_index, 2);
    assert_null(core_sent_nth(&core, RAFT_APPEND_REQUEST, 2, 1));
    /* The same of the third request comes late: the probe is out already. */
    core_receive(&core, refusal(2, 10, 2, 2));
    assert_null(core_sent(&core, RAFT_APPEND_REQUEST, 2));
    core_acknowledge(&core, 2, 6, 0);
    assert_int_equal(core_sent_nth(&core, RAFT_APPEND_REQUEST, 2, 0)->prev_index, 6);
    assert_int_equal(core_sent_nth(&core, RAFT_APPEND_REQUEST, 2, 1)->prev_index, 10);
    /* Later still, one for what has matched since. */
    core_receive(&core, refusal(2, 6, 2, 2));
    assert_null(core_sent(&core, RAFT_APPEND_REQUEST, 2));
    core_deinit(&core);
}

static void test_whole_terms_are_skipped_on_both_sides(void **state)
{
    struct core core;

    (void)state;
    /* The leader's side: nothing of its term 5 can match a follower at term 3 and below. */
    core_init(&core,
              &(struct core_start){.servers = 3, .term = 5, .log = {1, 2, 2, 5, 5, 5, 5, 5, 5}});
    core_elect(&core);
    core_receive(&core, refusal(6, 9, 8, 3));
    assert_int_equal(core_sent(&core, RAFT_APPEND_REQUEST, 2)->prev_index, 3);
    core_deinit(&core);

    /* The follower's side: nothing of its terms 4 and above can match a leader at term 3. */
    core_init(&core,
              &(struct core_start){.servers = 3, .term = 5, .log = {1, 2, 2, 4, 4, 5, 5, 5, 5}});
    core_append(&core, from_leader(2, 6, 8, 3, 0), NULL);
    const struct raft_message *answer = core_sent(&core, RAFT_APPEND_RESPONSE, 2);
    assert_false(answer->granted);
    assert_int_equal(answer->match_index, 8);
    assert_int_equal(answer->hint_index, 3);
    assert_int_equal(answer->hint_term, 2);
    core_deinit(&core);
}

static void test_probe_is_repeated_by_heartbeats_without_entries(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_elect(&core);
    assert_int_equal(core_sent(&core, RAFT_APPEND_REQUEST, 3)->entry_count, 1);
    core_persist(&core, core.update.sequence);
    assert_int_equal(core.update.deadline_ms, core.now_ms + CORE_HEARTBEAT_MS);
    core_tick(&core, CORE_HEARTBEAT_MS - 1);
    assert_int_equal(core.update.message_count, 0);
    core_tick(&core, 1);
    const struct raft_message *beat = core_sent(&core, RAFT_APPEND_REQUEST, 3);
    assert_int_equal(beat->entry_count, 0);
    assert_int_equal(beat->prev_index, 1);
    core_deinit(&core);
}

static void test_proposals_are_refused_elsewhere_and_in_excess(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    assert_int_equal(core_try_propose(&core, 1), RAFT_ENOTLEADER);
    core_lead(&core);
    assert_int_equal(core_try_propose(&core, CORE_UNCOMMITTED_MAX + 1), RAFT_EBUSY);
    core_propose(&core, CORE_UNCOMMITTED_MAX);
    assert_int_equal(core_try_propose(&core, 1), RAFT_EBUSY);
    assert_int_equal(core_try_propose(&core, 0), RAFT_EINVAL);
    assert_int_equal(raft_last_index(core.raft), 2 + CORE_UNCOMMITTED_MAX);
    core_deinit(&core);
}

/* --- follower --- */

static void test_entries_are_acknowledged_when_durable_and_heartbeats_at_once(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_append(&core, from_leader(2, 1, 1, 1, 0), (raft_term[]){1, 1, 0});
    const uint64_t first = core.update.sequence;
    assert_int_equal(core.update.message_count, 0);
    core_append(&core, from_leader(2, 1, 3, 1, 0), (raft_term[]){1, 0});
    const uint64_t second = core.update.sequence;
    assert_int_equal(core.update.message_count, 0);
    /* A heartbeat is an answer to "do you follow me", with what is durable so far. */
    struct raft_message beat = from_leader(2, 1, 4, 1, 0);
    beat.round = 9;
    core_append(&core, beat, NULL);
    assert_true(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->granted);
    assert_int_equal(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->round, 9);
    assert_int_equal(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->match_index, 1);
    core_persist(&core, first);
    assert_int_equal(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->match_index, 3);
    core_persist(&core, second);
    assert_int_equal(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->match_index, 4);
    assert_int_equal(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->round, 9);
    core_deinit(&core);
}

/* Pattern: a duplicate or reordered request truncates what comes after its entries. */
static void test_late_requests_truncate_nothing(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_append(&core, from_leader(2, 1, 1, 1, 0), (raft_term[]){1, 1, 1, 0});
    core_persist(&core, core.update.sequence);
    core_append(&core, from_leader(2, 1, 1, 1, 0), (raft_term[]){1, 0});
    assert_int_equal(core.update.sequence, 0);
    assert_int_equal(raft_last_index(core.raft), 4);
    core_append(&core, from_leader(2, 1, 2, 1, 0), (raft_term[]){1, 1, 1, 0});
    assert_int_equal(core.update.truncate_from, 0);
    assert_int_equal(core.update.entry_count, 1);
    assert_int_equal(core.update.entries[0].index, 5);
    core_deinit(&core);
}

static void test_conflict_is_replaced_from_where_it_begins(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 3, .term = 2, .log = {1, 1, 2, 2}});
    core_append(&core, from_leader(2, 3, 1, 1, 0), (raft_term[]){1, 3, 0});
    assert_int_equal(core.update.truncate_from, 3);
    assert_int_equal(core.update.entry_count, 1);
    assert_int_equal(core.update.entries[0].index, 3);
    assert_int_equal(core.update.entries[0].term, 3);
    assert_int_equal(raft_last_index(core.raft), 3);
    assert_int_equal(raft_durable_index(core.raft), 2);
    core_deinit(&core);
}

/* Pattern: the follower commits up to its last entry, which may be another leader's. */
static void test_follower_commits_no_further_than_it_has_verified(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &(struct core_start){.servers = 3, .term = 2, .log = {1, 1, 2, 2}});
    core_append(&core, from_leader(2, 3, 2, 1, 4), NULL);
    assert_int_equal(core.update.commit_index, 2);
    core_append(&core, from_leader(2, 3, 1, 1, 1), NULL);
    assert_int_equal(core.update.commit_index, 2);
    core_deinit(&core);
}

/* Pattern: applied beyond what is on disk. */
static void test_nothing_is_applied_before_it_is_durable(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    core_append(&core, from_leader(2, 1, 1, 1, 2), (raft_term[]){1, 0});
    assert_int_equal(core.update.commit_index, 2);
    assert_int_equal(core.update.apply_index, 1);
    core_persist(&core, core.update.sequence);
    assert_int_equal(core.update.apply_index, 2);
    core_deinit(&core);
}

/* Pattern: the completion of an old write acknowledges a newer entry at the same index. Here the
 * entry comes back as it was: the first write has it on disk, but the second one, still on its way,
 * removes it, so only the third one counts. */
static void test_old_writes_do_not_vouch_for_entries_truncated_since(void **state)
{
    struct core core;
    uint64_t writes[3];

    (void)state;
    core_init(&core, &(struct core_start){.servers = 5, .term = 1, .log = {1}});
    core_append(&core, from_leader(2, 2, 1, 1, 0), (raft_term[]){2, 0});
    writes[0] = core.update.sequence;
    core_append(&core, from_leader(3, 3, 1, 1, 0), (raft_term[]){3, 0});
    writes[1] = core.update.sequence;
    assert_int_equal(core.update.truncate_from, 2);
    core_append(&core, from_leader(2, 4, 1, 1, 0), (raft_term[]){2, 0});
    writes[2] = core.update.sequence;
    assert_int_equal(core.update.truncate_from, 2);
    for (size_t i = 0; i < 2; i++) {
        core_persist(&core, writes[i]);
        assert_int_equal(raft_durable_index(core.raft), 1);
        assert_null(core_sent_nth(&core, RAFT_APPEND_RESPONSE, 2, 1));
        const struct raft_message *answer = core_sent(&core, RAFT_APPEND_RESPONSE, 2);
        assert_true(answer == NULL || answer->match_index == 1);
    }
    core_persist(&core, writes[2]);
    assert_int_equal(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->match_index, 2);
    core_deinit(&core);
}

static void test_more_writes_under_way_than_are_told_apart(void **state)
{
    struct core core;

    (void)state;
    core_init(&core, &three);
    for (raft_index prev = 1; prev <= 1000; prev++) {
        core_append(&core, from_leader(2, 1, prev, 1, 0), (raft_term[]){1, 0});
    }
    const uint64_t last = core.update.sequence;
    core_persist(&core, 100);
    assert_int_equal(raft_durable_index(core.raft), 101);
    core_persist(&core, last - 1);
    assert_in_range(raft_durable_index(core.raft), 101, 1000);
    core_persist(&core, last);
    assert_int_equal(raft_durable_index(core.raft), 1001);
    core_deinit(&core);
}

/* What no leader of this cluster sends is refused, whoever sends it, and changes nothing. */
static void test_contradictions_are_refused_without_a_change(void **state)
{
    static const struct {
        const char *name;
        struct raft_message message;
        raft_term terms[4];
    } cases[] = {
        {"conflict below the commit index",
         {.from = 2, .term = 3, .prev_index = 1, .prev_term = 1},
         {3, 0}},
        {"other entry before, below the commit index",
         {.from = 2, .term = 3, .prev_index = 2, .prev_term = 2},
         {3, 0}},
        {"second leader of the term", {.from = 3, .term = 2, .prev_index = 1, .prev_term = 1}, {0}},
        {"other entry where this leader's was verified",
         {.from = 2, .term = 2, .prev_index = 4, .prev_term = 1},
         {0}},
        {"terms fall", {.from = 2, .term = 9, .prev_index = 4, .prev_term = 2}, {2, 1, 0}},
        {"term above the leader's",
         {.from = 2, .term = 2, .prev_index = 4, .prev_term = 2},
         {3, 0}},
        {"index overflow",
         {.from = 2, .term = 9, .prev_index = UINT64_MAX - 1, .prev_term = 2},
         {9, 9, 0}},
        {"term overflow", {.from = 2, .term = UINT64_MAX}, {0}},
        {"a term that no log is opened with again", {.from = 2, .term = (raft_term)1 << 62}, {0}},
        {"from ourselves", {.from = 1, .term = 2}, {0}},
        {"from nobody", {.term = 2}, {0}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct core core;
        core_init(&core, &(struct core_start){
                             .servers = 3, .term = 2, .log = {1, 1, 1, 2}, .commit_index = 2});
        core_append(&core, from_leader(2, 2, 4, 2, 2), NULL);
        const int rc = core_try_append(&core, cases[i].message, cases[i].terms);
        if (rc != RAFT_EINVAL || raft_last_index(core.raft) != 4 || raft_term_now(core.raft) != 2 ||
            raft_leader(core.raft) != 2 || raft_commit_index(core.raft) != 2) {
            fail_msg("%s: %s", cases[i].name, raft_strerror(rc));
        }
        core_deinit(&core);
    }
}

/* Symptom: an assertion, by bytes from the network: the request begins in what is compacted, has
 * another entry where that ends, and goes on behind our last one with a lower term than that has.
 */
static void test_contradiction_where_the_log_was_compacted_is_refused(void **state)
{
    struct core core;

    (void)state;
    core_init(&core,
              &(struct core_start){.servers = 3, .term = 3, .log = {1, 1, 3}, .commit_index = 3});
    assert_int_equal(raft_compact(core.raft, 3), RAFT_OK);
    const struct raft_message request = {.from = 2, .term = 5, .prev_index = 1, .prev_term = 1};
    assert_int_equal(core_try_append(&core, request, (raft_term[]){1, 1, 1, 0}), RAFT_EINVAL);
    assert_int_equal(raft_last_index(core.raft), 3);
    assert_int_equal(raft_term_now(core.raft), 3);
    core_append(&core, request, (raft_term[]){1, 3, 3, 0});
    assert_int_equal(raft_last_index(core.raft), 4);
    core_deinit(&core);
}

/* Pattern: a deposed leader removes its own, perhaps committed, entries. */
static void test_deposed_leader_keeps_its_log(void **state)
{
    struct core core;

    (void)state;
    core_init_leader(&core, &three);
    core_propose(&core, 2);
    core_persist(&core, core.update.sequence);
    core_append(&core, from_leader(2, 5, 2, 2, 2), NULL);
    assert_int_equal(core.update.role, RAFT_FOLLOWER);
    assert_int_equal(core.update.truncate_from, 0);
    assert_int_equal(raft_last_index(core.raft), 4);
    assert_int_equal(core_sent(&core, RAFT_APPEND_RESPONSE, 2)->match_index, 2);
    core_deinit(&core);
}

/* --- configurations --- */

/* Patterns: a configuration that counts from its commit on; one that stays when it is truncated. */
static void test_configuration_counts_from_its_append_until_it_is_truncated(void **state)
{
    struct core core;
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    const struct raft_configuration five = core_configuration(5);
    const struct raft_entry entry = {.index = 2,
                                     .term = 2,
                                     .type = RAFT_ENTRY_CONFIGURATION,
                                     .data = bytes,
                                     .size = raft_configuration_encode(&five, bytes)};
    struct raft_message message = from_leader(2, 2, 1, 1, 0);

    (void)state;
    core_init(&core, &three);
    message.entry_count = 1;
    assert_int_equal(core_try_receive(&core, message, &entry), RAFT_OK);
    assert_int_equal(raft_configuration(core.raft)->count, 5);
    assert_int_equal(raft_configuration(core.raft)->index, 2);
    core_append(&core, from_leader(3, 3, 1, 1, 0), (raft_term[]){3, 0});
    assert_int_equal(core.update.truncate_from, 2);
    assert_int_equal(raft_configuration(core.raft)->count, 3);
    core_deinit(&core);
}

static void test_malformed_configuration_is_refused(void **state)
{
    struct core core;
    const struct raft_entry entry = {
        .index = 2, .term = 2, .type = RAFT_ENTRY_CONFIGURATION, .data = "x", .size = 1};
    struct raft_message message = from_leader(2, 2, 1, 1, 0);

    (void)state;
    core_init(&core, &three);
    message.entry_count = 1;
    assert_int_equal(core_try_receive(&core, message, &entry), RAFT_EINVAL);
    assert_int_equal(raft_term_now(core.raft), 1);
    core_deinit(&core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_earlier_terms_entries_are_not_committed_by_counting),
        cmocka_unit_test(test_leader_counts_itself_for_what_is_on_its_disk),
        cmocka_unit_test(test_followers_hear_of_a_commit_at_once),
        cmocka_unit_test(test_proposals_get_their_index_and_are_sent_before_they_are_durable),
        cmocka_unit_test(test_requests_are_cut_into_batches_and_stop_at_the_window),
        cmocka_unit_test(test_refusal_makes_the_leader_probe_from_the_hint),
        cmocka_unit_test(test_whole_terms_are_skipped_on_both_sides),
        cmocka_unit_test(test_probe_is_repeated_by_heartbeats_without_entries),
        cmocka_unit_test(test_proposals_are_refused_elsewhere_and_in_excess),
        cmocka_unit_test(test_entries_are_acknowledged_when_durable_and_heartbeats_at_once),
        cmocka_unit_test(test_late_requests_truncate_nothing),
        cmocka_unit_test(test_conflict_is_replaced_from_where_it_begins),
        cmocka_unit_test(test_follower_commits_no_further_than_it_has_verified),
        cmocka_unit_test(test_nothing_is_applied_before_it_is_durable),
        cmocka_unit_test(test_old_writes_do_not_vouch_for_entries_truncated_since),
        cmocka_unit_test(test_more_writes_under_way_than_are_told_apart),
        cmocka_unit_test(test_contradictions_are_refused_without_a_change),
        cmocka_unit_test(test_contradiction_where_the_log_was_compacted_is_refused),
        cmocka_unit_test(test_deposed_leader_keeps_its_log),
        cmocka_unit_test(test_configuration_counts_from_its_append_until_it_is_truncated),
        cmocka_unit_test(test_malformed_configuration_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
