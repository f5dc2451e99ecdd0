/* Whom autopilot takes out because its log is lost. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>

#include "tests/unit/replica_fixture.h"

static bool leader_has_watched_all_four(struct cluster *cluster)
{
    const int leader = leader_of(cluster);
    const struct replica *replica = leader < 0 ? NULL : cluster->servers[leader].replica;

    if (replica == NULL || replica->autopilot.term != replica->term ||
        replica->autopilot.count != 4) {
        return false;
    }
    for (size_t i = 0; i < 4; i++) {
        if (!replica->autopilot.servers[i].healthy) {
            return false;
        }
    }
    return true;
}

/* What the leader knows of a member, to be written to. */
static struct member *member_of(struct replica *replica, raft_id id)
{
    for (size_t i = 0; i < membership_count(replica->server->membership); i++) {
        const struct member *member = membership_at(replica->server->membership, i);

        if (peers_id(&member->id) == id) {
            return (struct member *)(uintptr_t)member;
        }
    }
    fail_msg("no such member");
    return NULL;
}

/* Has autopilot look now; returns whom it would take out, if the log of `id` had not been in order
 * for `fresh_ms`. What the others' health and gossip are at this moment is not the question. */
static raft_id removal_after(struct replica *replica, raft_id id, uint64_t fresh_ms)
{
    const uint64_t now_ms = replica_now_ms(replica);

    replica->autopilot.next_ms = 0;
    replica_autopilot_turn(replica, now_ms);
    for (size_t i = 0; i < replica->autopilot.count; i++) {
        struct replica_watched *watched = &replica->autopilot.servers[i];

        watched->healthy = true;
        if (watched->id != id) {
            watched->fresh_ms = 0;
        } else if (watched->fresh_ms != 0) {
            watched->fresh_ms = now_ms - fresh_ms;
        }
    }
    return replica_autopilot_removal(replica, now_ms);
}

/* Symptom: a server that joins was told of by others before it spoke itself. That counted as a log
 * in order, so that it was taken for one that had lost its log, and taken out, when it needed more
 * than ten seconds to catch up. */
static void a_server_that_joins_may_take_its_time_to_catch_up(void **state)
{
    struct cluster *cluster =
        cluster_new_as((struct cluster_plan){.servers = 3, .stable_ms = CLUSTER_NEVER_STABLE_MS});

    (void)state;
    (void)cluster_leader(cluster);
    const int joins = cluster_grow(cluster);
    const raft_id id = peers_id(&cluster->servers[joins].node_id);
    cluster_wait(cluster, leader_has_watched_all_four);
    struct replica *replica = cluster->servers[leader_of(cluster)].replica;
    struct member *member = member_of(replica, id);

    memset(&replica->autopilot.servers, 0, sizeof(replica->autopilot.servers));
    replica->autopilot.count = 0; /* It is seen for the first time. */
    member->heard_ms = 0;
    member->fresh = false;
    assert_int_equal(removal_after(replica, id, 0), 0);
    member->heard_ms = 1; /* It speaks, and has not caught up, for long. */
    member->fresh = true;
    assert_int_equal(removal_after(replica, id, 2 * REPLICA_WIPED_MS), 0);

    /* Once its log was in order, it may only be lost. */
    member->fresh = false;
    assert_int_equal(removal_after(replica, id, 0), 0);
    member->fresh = true;
    assert_int_equal(removal_after(replica, id, REPLICA_WIPED_MS / 2), 0);
    assert_int_equal(removal_after(replica, id, REPLICA_WIPED_MS), id);
    cluster_free(cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_joins_may_take_its_time_to_catch_up),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
