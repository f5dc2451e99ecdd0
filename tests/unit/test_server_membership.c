/* Who belongs to the cluster: how servers find each other, join, and get a vote, whom an operator
 * takes out, and whom autopilot gives up. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>

#include "replica_fixture.h"

/* --- how they find each other --- */

/* Symptom: a server that came back at once with another address was alive all the time, so nobody
 * dialled the new address. */
static void a_server_that_returns_elsewhere_is_found(void **state)
{
    struct cluster *cluster = cluster_new(3);
    const int moved = (cluster_leader(cluster) + 1) % 3;

    (void)state;
    cluster_stop(cluster, moved);
    cluster_take_ports(cluster, moved);
    cluster_start(cluster, moved);
    (void)cluster_leader(cluster);
    cluster_put(cluster, moved, "k", "v");
    cluster_written(cluster);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static bool all_expected_are_configured(struct cluster *cluster)
{
    int count = 0;

    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
        count += cluster->servers[i].replica != NULL && has_vote(cluster, i);
    }
    return count >= cluster->plan.expect;
}

static void one_server_too_many_does_not_make_a_second_cluster(void **state)
{
    struct cluster *cluster = cluster_new_as(
        (struct cluster_plan){.servers = 6, .expect = 5, .stable_ms = CLUSTER_NEVER_STABLE_MS});
    raft_id first[RAFT_SERVERS_MAX];
    size_t count = 0;

    (void)state;
    cluster_wait(cluster, all_expected_are_configured);
    for (int i = 0; i < 6; i++) {
        raft_id ids[RAFT_SERVERS_MAX];
        const size_t voters = voters_of(cluster, i, ids);

        if (voters == 0) {
            continue; /* The one too many, until it is added. */
        }
        assert_int_equal(voters, 5);
        if (count++ == 0) {
            memcpy(first, ids, sizeof(ids));
        }
        assert_memory_equal(first, ids, 5 * sizeof(ids[0]));
    }
    assert_true(count >= 5);
    cluster_free(cluster);
}

/* Each has heard from the subject itself. */
static bool all_have_heard_the_subject(struct cluster *cluster)
{
    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
        const struct server *server = &cluster->servers[i];
        const struct member *member =
            server->replica == NULL
                ? NULL
                : membership_find(server->membership, &cluster->servers[cluster->subject].node_id);

        if (server->replica != NULL && (member == NULL || member->status != MEMBER_ALIVE)) {
            return false;
        }
    }
    return true;
}

/* Two servers that count as one could vote twice; and when the second comes and goes, nobody holds
 * that for the end of the first. */
static void a_second_server_with_a_node_id_is_ignored(void **state)
{
    struct cluster *cluster = cluster_new_as(
        (struct cluster_plan){.servers = 4, .expect = 3, .stable_ms = CLUSTER_NEVER_STABLE_MS});
    int twin = 0;
    int first;
    struct uuid id;

    (void)state;
    cluster_wait(cluster, all_expected_are_configured);
    while (has_vote(cluster, twin)) {
        twin++; /* The one too many. */
    }
    first = (twin + 1) % 4;
    cluster->subject = first;
    cluster_wait(cluster, all_have_heard_the_subject);
    id = cluster->servers[first].node_id;
    cluster_stop(cluster, twin);
    cluster->servers[twin].node_id = id;
    cluster_start(cluster, twin);
    for (int pass = 0; pass < 300; pass++) {
        cluster_run(cluster, 10);
        for (int i = 0; i < 4; i++) {
            const struct member *member = membership_find(cluster->servers[i].membership, &id);

            assert_non_null(member);
            assert_string_equal(member->address, cluster->addresses[i == twin ? twin : first]);
        }
    }
    for (int i = 0; i < 4; i++) {
        if (i != twin) {
            cluster_put(cluster, i, "k", "v");
            cluster_written(cluster);
        }
    }
    cluster_free(cluster);
}

/* --- joining --- */

struct operation {
    struct cluster *cluster;
    char failure[256]; /* empty: it was done */
    struct replica_health health;
};

static void on_operated(void *context, const char *failure, struct slice answer)
{
    struct operation *operation = context;

    (void)snprintf(operation->failure, sizeof(operation->failure), "%s",
                   failure == NULL ? "" : failure);
    if (answer.size > 0) {
        assert_true(replica_health_decode(answer, &operation->health));
    }
    operation->cluster->open--;
}

/* What comes of an operator's request to one of the servers. */
static struct operation operate(struct cluster *cluster, int which, enum replica_operation what,
                                const char *argument)
{
    struct operation operation = {.cluster = cluster};

    cluster->open++;
    replica_operate(cluster->servers[which].replica, what, slice_from_text(argument), on_operated,
                    &operation);
    cluster_wait(cluster, all_is_answered);
    return operation;
}

static void a_server_that_joins_gets_a_vote_once_it_is_stable(void **state)
{
    struct cluster *cluster = cluster_new(3);
    raft_id ids[RAFT_SERVERS_MAX];
    struct operation asked;

    (void)state;
    cluster_fill(cluster);
    cluster->subject = cluster_grow(cluster);
    cluster_wait(cluster, subject_votes);
    assert_int_equal(voters_of(cluster, leader_of(cluster), ids), 4);
    asked = operate(cluster, cluster->subject, REPLICA_HEALTH, "");
    assert_string_equal(asked.failure, "");
    assert_int_equal(asked.health.count, 4);
    cluster_wait(cluster, all_stores_equal);
    /* Autopilot's configuration is part of that state, from the first leader's own. */
    for (int i = 0; i < 4; i++) {
        struct autopilot_config config;
        struct store_txn txn;

        assert_int_equal(store_read_begin(cluster->servers[i].store, &txn), 0);
        assert_int_equal(autopilot_get(&txn, &config), 0);
        assert_int_equal(config.server_stabilization_time_ns,
                         cluster->configs[0].autopilot.server_stabilization_time_ns);
        store_read_end(&txn);
    }
    cluster_free(cluster);
}

/* --- strangers --- */

/* The subject leads a cluster of its own, and each leader has heard of the other's. */
static bool two_clusters_have_met(struct cluster *cluster)
{
    const struct replica *subject = cluster->servers[cluster->subject].replica;
    bool met = replica_is_leader(subject);

    for (int i = 0; i < cluster->subject; i++) {
        const struct member *member =
            replica_member(cluster->servers[i].replica, raft_id_of(cluster, cluster->subject));
        const struct member *other = replica_member(subject, raft_id_of(cluster, i));

        met = met && member != NULL && member->led && other != NULL && other->led;
    }
    return met;
}

/* Its cluster began with a version that knew of none; the others would not speak with it else. */
static void subject_gets_no_id(struct cluster *cluster)
{
    cluster->servers[cluster->subject].replica->cluster_term = UINT64_MAX;
}

static void check_strangers(struct cluster *cluster)
{
    raft_id ids[RAFT_SERVERS_MAX];

    assert_int_equal(voters_of(cluster, cluster->subject, ids), 1);
    for (int i = 0; i < cluster->subject; i++) {
        assert_null(place_of(cluster, i, cluster->subject));
        assert_null(place_of(cluster, cluster->subject, i));
    }
}

/* Symptom: a server that had made a cluster of its own was added to the one that it joined. Indexes
 * and terms of its first entries were those of the others, so it kept them, and its state lacked
 * what the others had written there. Rule: a server that has a leader of its own is not added; one
 * that has a log is given the time to get one. */
static void a_server_of_another_cluster_is_not_added(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    cluster_put(cluster, 0, "k", "v");
    cluster_written(cluster);
    cluster->plan.expect = 1;
    cluster->subject = cluster_grow(cluster);
    subject_gets_no_id(cluster);
    cluster_wait(cluster, two_clusters_have_met);
    cluster_run(cluster, 5000); /* Longer than it is given. */
    check_strangers(cluster);

    /* It is started again with what it has, as one that joins. */
    cluster_stop(cluster, cluster->subject);
    cluster->configs[cluster->subject].bootstrap_expect = 0;
    cluster_start(cluster, cluster->subject);
    subject_gets_no_id(cluster);
    cluster_wait(cluster, two_clusters_have_met);
    cluster_run(cluster, 5000);
    check_strangers(cluster);

    /* What the leader's complaint says to do. */
    cluster_stop(cluster, cluster->subject);
    cluster_wipe(cluster, cluster->subject);
    cluster_start(cluster, cluster->subject);
    cluster_wait(cluster, subject_votes);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

/* --- being taken out --- */

/* Whether an operation failed by what may come in between on a machine that is busy. */
static bool lost_by_the_way(const char *failure)
{
    static const char *const texts[] = {"leadership transfer timeout",
                                        "leadership lost while committing log", "No cluster leader",
                                        "cannot transfer leadership to itself", NULL};

    for (size_t i = 0; texts[i] != NULL; i++) {
        if (strcmp(failure, texts[i]) == 0) {
            return true;
        }
    }
    return false;
}

enum { ROUNDS_MAX = 20 };

/* What an operator is told in the end. */
static struct operation operate_in_the_end(struct cluster *cluster, int which,
                                           enum replica_operation what, const char *argument)
{
    struct operation operation = operate(cluster, which, what, argument);

    for (int round = 0; round < ROUNDS_MAX && lost_by_the_way(operation.failure); round++) {
        (void)cluster_leader(cluster);
        operation = operate(cluster, which, what, argument);
    }
    return operation;
}

/* Asks `via` for it until the next server leads: a busy machine may elect a third one meanwhile. */
static void move_leadership(struct cluster *cluster, int via)
{
    for (int round = 0; round < ROUNDS_MAX; round++) {
        const int target = (cluster_leader(cluster) + 1) % 3;
        const struct operation moving =
            operate(cluster, via, REPLICA_TRANSFER, node_id_of(cluster, target));

        if (moving.failure[0] == 0 && cluster_leader(cluster) == target) {
            return;
        }
        if (moving.failure[0] != 0 && !lost_by_the_way(moving.failure)) {
            fail_msg("%s", moving.failure);
        }
    }
    fail_msg("leadership was not moved in %d rounds", ROUNDS_MAX);
}

/* Takes a follower out through the other one, and starts it again. False if the leader did not stay
 * the same until the one that is out had had time enough to disturb: a busy machine does that, and
 * a new leader knows nothing of what its predecessor was asked. */
static bool removed_in_peace(struct cluster *cluster)
{
    const int leader = cluster_leader(cluster);
    const uint64_t term = cluster->servers[leader].replica->term;
    struct operation removal;

    cluster->subject = (leader + 1) % 3;
    cluster_stop(cluster, cluster->subject);
    removal = operate(cluster, (leader + 2) % 3, REPLICA_REMOVE_ID,
                      node_id_of(cluster, cluster->subject));
    if (removal.failure[0] != 0) {
        if (!lost_by_the_way(removal.failure)) {
            fail_msg("%s", removal.failure);
        }
        return false;
    }
    cluster_start(cluster, cluster->subject);
    cluster_run(cluster, 2500 * cluster->plan.raft_multiplier);
    return leader_of(cluster) == leader && cluster->servers[leader].replica->term == term;
}

static void an_operator_removes_a_server_and_moves_leadership_through_any_server(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    for (int i = 0; i < 3; i++) {
        move_leadership(cluster, i);
    }
    assert_string_equal(operate_in_the_end(cluster, 0, REPLICA_TRANSFER, "x").failure,
                        "id \"x\" was not found in the Raft configuration");
    assert_string_equal(
        operate_in_the_end(cluster, 1, REPLICA_REMOVE_ADDRESS, "127.0.0.1:1").failure,
        "address \"127.0.0.1:1\" was not found in the Raft configuration");
    /* The one that is out disturbs nobody, and is not taken back at once. */
    for (uint32_t patience = 2; !removed_in_peace(cluster); patience++) {
        assert_true(patience <= ROUNDS_MAX);
        cluster_free(cluster);
        cluster = cluster_new_as((struct cluster_plan){.servers = 3, .raft_multiplier = patience});
        (void)cluster_leader(cluster);
    }
    assert_true(subject_is_out(cluster));
    cluster_free(cluster);
}

static bool subject_is_dead(struct cluster *cluster)
{
    const raft_id id = peers_id(&cluster->servers[cluster->subject].node_id);
    const int leader = leader_of(cluster);
    const struct replica *replica = leader < 0 ? NULL : cluster->servers[leader].replica;

    for (size_t i = 0; replica != NULL && i < replica->autopilot.count; i++) {
        if (replica->autopilot.servers[i].id == id) {
            return replica->autopilot.servers[i].dead_ms != 0;
        }
    }
    return false;
}

static bool nobody_leads(struct cluster *cluster)
{
    return leader_of(cluster) < 0;
}

static void set_min_quorum(struct cluster *cluster, uint64_t min_quorum)
{
    struct autopilot_config config = cluster->configs[0].autopilot;
    struct buffer command = {0};

    config.min_quorum = min_quorum;
    command_encode_autopilot(&command, AUTOPILOT_SET, 0, &config);
    cluster_propose(cluster, cluster_leader(cluster), &command);
    buffer_deinit(&command);
    cluster_written(cluster);
}

static void a_dead_server_is_given_up_while_min_quorum_allows(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    set_min_quorum(cluster, 3);
    cluster->subject = (cluster_leader(cluster) + 1) % 3;
    cluster_stop(cluster, cluster->subject);
    cluster_wait(cluster, subject_is_dead);
    cluster_run(cluster, 2500);
    assert_false(subject_is_out(cluster));
    set_min_quorum(cluster, 2);
    cluster_wait(cluster, subject_is_out);

    /* One of two is no minority: it keeps its place, or the other could decide alone. */
    cluster->subject = 3 - cluster->subject - cluster_leader(cluster);
    cluster_stop(cluster, cluster->subject);
    cluster_wait(cluster, nobody_leads);
    cluster_free(cluster);
}

static void the_last_voter_stays(void **state)
{
    struct cluster *cluster = cluster_new(1);

    (void)state;
    assert_string_equal(operate(cluster, 0, REPLICA_REMOVE_ID, node_id_of(cluster, 0)).failure,
                        "need at least one voter in configuration");
    cluster_free(cluster);
}

/* --- health --- */

/* Symptom: one server of peers.json with a long name, and nobody heard how any of them were. */
static void a_server_with_the_longest_address_has_its_health_told(void **state)
{
    struct raft_configuration configuration = {.count = 0};
    struct replica_server_info info;
    struct replica_health health;
    struct buffer bytes = {0};
    char address[sizeof(info.address)];

    (void)state;
    memset(address, 'a', sizeof(address));
    memcpy(address + sizeof(address) - 6, ":8300", 6);
    assert_true(replica_server_info(
        replica_configuration_add(&configuration, &(struct uuid){{1}}, "n", address), &info));
    buffer_put_u8(&bytes, 1);
    buffer_put_u32(&bytes, 0);
    buffer_put_u32(&bytes, 1);
    buffer_append(&bytes, info.node_id.bytes, UUID_BYTES);
    buffer_put_string(&bytes, slice_from_text(info.name));
    buffer_put_string(&bytes, slice_from_text(info.address));
    for (int i = 0; i < 4; i++) {
        buffer_put_u8(&bytes, 1);
    }
    for (int i = 0; i < 4; i++) {
        buffer_put_u64(&bytes, 1);
    }
    assert_true(replica_health_decode(buffer_slice(&bytes), &health));
    assert_string_equal(health.servers[0].address, address);
    buffer_deinit(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_returns_elsewhere_is_found),
        cmocka_unit_test(one_server_too_many_does_not_make_a_second_cluster),
        cmocka_unit_test(a_second_server_with_a_node_id_is_ignored),
        cmocka_unit_test(a_server_that_joins_gets_a_vote_once_it_is_stable),
        cmocka_unit_test(a_server_of_another_cluster_is_not_added),
        cmocka_unit_test(an_operator_removes_a_server_and_moves_leadership_through_any_server),
        cmocka_unit_test(a_dead_server_is_given_up_while_min_quorum_allows),
        cmocka_unit_test(the_last_voter_stays),
        cmocka_unit_test(a_server_with_the_longest_address_has_its_health_told),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
